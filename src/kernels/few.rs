//! The sums of a few long rows with one another.
//!
//! To find the rows of a column costs more than the sums of its pairs where these are few. So a few rows at a time are
//! spread out over all columns, side by side, and every row before them is walked once for all of them. Products are added
//! in the order of columns, as [`super::block::Cells`] adds them, so that sums are the same to the last bit.

use rayon::prelude::*;

use super::cells::{Cell, Value};
use super::cpu::{Cpu, Work};
use super::csr::entry;

/// Up to so many rows this is the faster way.
pub const MOST_ROWS: usize = 32;
/// Rows that are spread out at a time.
pub const LANES: usize = 8;

/// A few rows side by side, with a place for every column.
#[derive(Debug)]
pub struct Spread<V> {
    values: Vec<[V; LANES]>,
    /// A bit for each row that has the column.
    present: Vec<u8>,
}

/// Columns that one task fills.
const PIECE_COLUMNS: usize = 1 << 14;

impl<V: Value> Spread<V> {
    /// Spreads out at most [`LANES`] rows of so many columns. Works on the threads of the current pool.
    pub fn new(columns: usize, rows: &[&[u64]]) -> Self {
        let (mut values, mut present) = (vec![[V::default(); LANES]; columns], vec![0; columns]);
        let pieces = values.par_chunks_mut(PIECE_COLUMNS).zip(present.par_chunks_mut(PIECE_COLUMNS));
        pieces.enumerate().for_each(|(piece, (values, present))| {
            let first = piece * PIECE_COLUMNS;
            for (lane, row) in rows.iter().enumerate() {
                let from = row.partition_point(|&e| (entry::column(e) as usize) < first);
                for &e in &row[from..] {
                    let column = entry::column(e) as usize - first;
                    let Some(bits) = present.get_mut(column) else { break };
                    *bits |= 1 << lane;
                    values[column][lane] = V::of(entry::value(e));
                }
            }
        });
        Self { values, present }
    }

    /// The bytes that so many columns take.
    pub fn bytes_for(columns: usize) -> usize {
        columns * (size_of::<[V; LANES]>() + size_of::<u8>())
    }

    /// The sums of each of these rows with another one, and how many columns those of `lanes` have in common with it.
    pub fn meet<C: Cell<V>>(&self, cpu: Cpu, other: &[u64], lanes: u8) -> ([C; LANES], usize) {
        cpu.run(Meeting { spread: self, other, lanes, sums: [C::default(); LANES] })
    }
}

struct Meeting<'a, V, C> {
    spread: &'a Spread<V>,
    other: &'a [u64],
    lanes: u8,
    sums: [C; LANES],
}

impl<V: Value, C: Cell<V>> Work for Meeting<'_, V, C> {
    type Output = ([C; LANES], usize);

    #[inline(always)]
    fn run(self) -> Self::Output {
        let Self { spread, other, lanes, mut sums } = self;
        let mut common = 0;
        for &e in other {
            let column = entry::column(e) as usize;
            let (values, present) = (&spread.values[column], spread.present[column]);
            let value = V::of(entry::value(e));
            for (lane, (sum, other)) in sums.iter_mut().zip(values).enumerate() {
                // Whether a column is common cannot be foreseen, so both are reckoned.
                let mut with = *sum;
                with.add(*other, value);
                *sum = if present >> lane & 1 == 1 { with } else { *sum };
            }
            common += (present & lanes).count_ones() as usize;
        }
        (sums, common)
    }
}
