//! The sums of a few long rows with one another.
//!
//! To find the rows of a column costs more than the sums of its pairs where these are few. So a few rows at a time are
//! spread out side by side, a range of columns after the other, and every row before them is walked once for all of them.
//! Products are added in the order of columns, as [`super::block::Cells`] adds them, so that sums are the same to the last bit.

use rayon::prelude::*;

use super::cells::{Cell, Factor, Scales, Value};
use super::cpu::{Cpu, Work};
use super::csr::entry;
use super::prefetch::prefetch;

/// Up to so many rows this is the faster way.
pub const MOST_ROWS: usize = 32;
/// Rows that are spread out at a time.
pub const LANES: usize = 16;

/// Columns that are spread out at a time: so many stay in the nearer caches.
pub const COLUMNS: usize = 1 << 15;
/// Columns that one task spreads out.
const PIECE: usize = 1 << 13;
/// Columns that it spreads out at a time: so many stay in the nearest cache.
const NEAR: usize = 1 << 10;
/// How many entries ahead they are fetched from memory.
const AHEAD: usize = 64;

/// A range of columns of a few rows, side by side.
#[derive(Debug)]
pub struct Spread<A> {
    /// The first column.
    first: usize,
    /// The default where a row does not have the column.
    factors: Vec<[A; LANES]>,
    /// A bit for each row that has the column.
    present: Vec<u16>,
    /// [`Scales::whole`].
    whole: f32,
}

impl<A: Factor> Default for Spread<A> {
    fn default() -> Self {
        Self { first: 0, factors: vec![[A::default(); LANES]; COLUMNS], present: vec![0; COLUMNS], whole: 1.0 }
    }
}

/// The entries of a row in the columns from `first` on, and at most `columns` of them.
pub fn part(row: &[u64], first: usize, columns: usize) -> &[u64] {
    let before = |limit: usize| row.partition_point(|&e| (entry::column(e) as usize) < limit);
    &row[before(first)..before(first + columns)]
}

impl<A: Factor> Spread<A> {
    /// Spreads out the columns from `first` on of at most [`LANES`] rows, each entry as the factor that it is.
    /// Works on the threads of the current pool.
    pub fn put(&mut self, first: usize, rows: &[&[u64]], scales: &Scales) {
        (self.first, self.whole) = (first, scales.whole);
        let pieces = self.factors.par_chunks_mut(PIECE).zip(self.present.par_chunks_mut(PIECE));
        pieces.enumerate().for_each(|(piece, (factors, present))| {
            let mut first = first + piece * PIECE;
            let mut left: Vec<&[u64]> = rows.iter().map(|row| part(row, first, PIECE)).collect();
            for (factors, present) in factors.chunks_mut(NEAR).zip(present.chunks_mut(NEAR)) {
                factors.fill([A::default(); LANES]);
                present.fill(0);
                for (lane, row) in left.iter_mut().enumerate() {
                    *row = put_lane(lane, row, first, factors, present, scales);
                }
                first += NEAR;
            }
        });
    }

    /// Adds products of each of these rows with another one, of which `other` is the same range of columns, to its sums, and
    /// tells how many columns those of `lanes` have in common with it.
    pub fn meet<C: Cell<Row = A>>(&self, cpu: Cpu, other: &[u64], lanes: u16, sums: &mut [C; LANES]) -> usize {
        cpu.run(Meeting { spread: self, other, lanes, sums })
    }
}

/// Spreads out the entries of a row that are in these columns, the first of all at `first`. Returns those after them.
fn put_lane<'a, A: Factor>(
    lane: usize,
    row: &'a [u64],
    first: usize,
    factors: &mut [[A; LANES]],
    present: &mut [u16],
    scales: &Scales,
) -> &'a [u64] {
    for (at, &e) in row.iter().enumerate() {
        prefetch(row.get(at + AHEAD).map_or(&[], std::slice::from_ref));
        let column = entry::column(e) as usize - first;
        let Some(present) = present.get_mut(column) else {
            return &row[at..];
        };
        factors[column][lane] = A::of_entry(e, scales);
        *present |= 1 << lane;
    }
    &[]
}

struct Meeting<'a, C: Cell> {
    spread: &'a Spread<C::Row>,
    other: &'a [u64],
    lanes: u16,
    sums: &'a mut [C; LANES],
}

impl<C: Cell> Work for Meeting<'_, C> {
    type Output = usize;

    #[inline(always)]
    fn run(self) -> Self::Output {
        let Self { spread, other, lanes, sums } = self;
        // On the stack they are kept in registers.
        let (mut found, mut common) = (*sums, 0);
        for &e in other {
            let column = entry::column(e) as usize - spread.first;
            let (factors, present) = (&spread.factors[column], spread.present[column]);
            let value = C::Column::of(entry::value(e) * spread.whole);
            for (lane, (sum, factor)) in found.iter_mut().zip(factors).enumerate() {
                sum.add_if(present >> lane & 1 == 1, *factor, value);
            }
            common += (present & lanes).count_ones() as usize;
        }
        *sums = found;
        common
    }
}
