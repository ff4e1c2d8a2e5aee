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
/// Columns that one task spreads out: few tasks, as each begins with a search in every row.
const PIECE: usize = 1 << 13;
/// Columns that it spreads out at a time: so many factors of one or two bytes stay in the nearest cache.
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
        if let Some(ahead) = row.get(at + AHEAD) {
            prefetch(std::slice::from_ref(ahead));
        }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cells::{Counted, WholeDot};

    /// A column, most of them where one task or what it spreads out at a time ends, and next to it.
    fn column() -> impl Strategy<Value = u32> {
        let ends = [NEAR, PIECE - NEAR, PIECE, COLUMNS - PIECE, COLUMNS, COLUMNS + NEAR];
        prop_oneof![
            (prop::sample::select(ends.to_vec()), 0u32..3).prop_map(|(end, at)| end as u32 - 2 + at),
            0..2 * COLUMNS as u32
        ]
    }

    /// As many as may be, so that entries are fetched ahead in some and not in others.
    fn row() -> impl Strategy<Value = Vec<u64>> {
        let row = prop::collection::btree_map(column(), 0u8..=255, 0..200);
        row.prop_map(|row| row.into_iter().map(|(column, value)| entry::pack(column, value.into())).collect())
    }

    proptest! {
        #[test]
        fn sums_are_those_of_the_rows(rows in prop::collection::vec(row(), 1..=LANES), other in row(), lanes: u16) {
            let (mut spread, scales) = (Spread::default(), Scales::default());
            let (mut sums, mut common) = ([Counted::<WholeDot<u8>>::default(); LANES], 0);
            for first in [0, COLUMNS] {
                let parts: Vec<&[u64]> = rows.iter().map(|row| part(row, first, COLUMNS)).collect();
                spread.put(first, &parts, &scales);
                common += spread.meet(Cpu::detect(), part(&other, first, COLUMNS), lanes, &mut sums);
            }
            let mut expected = 0;
            for (lane, row) in rows.iter().enumerate() {
                let same = |e: &u64| other.iter().find(|o| entry::column(**o) == entry::column(*e)).map(|o| (*e, *o));
                let pairs: Vec<(u64, u64)> = row.iter().filter_map(same).collect();
                let dot: f32 = pairs.iter().map(|&(a, b)| entry::value(a) * entry::value(b)).sum();
                prop_assert_eq!((sums[lane].count as usize, sums[lane].sums.sum as f32), (pairs.len(), dot));
                expected += if lanes >> lane & 1 == 1 { pairs.len() } else { 0 };
            }
            prop_assert_eq!(common, expected);
        }
    }
}
