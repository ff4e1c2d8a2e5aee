//! The columns of a block of rows, and the sums that another row has in common with each row of the block.
//!
//! For row `i` the kernel walks its entries `(x, a)` and, for each, the rows `j` of the block that have column `x` with
//! value `b`, adding to one cell per row `j` (Gustavson 1978). Rows of the block itself meet only rows before them where
//! each pair is to be summed once.

use std::ops::Range;
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use rayon::prelude::*;

use super::cells::{Cell, Factor, Scales, Value};
use super::csr::{PIECE_ENTRIES, entry, pieces};
use super::pages::with_large_pages;
use super::prefetch::prefetch;

/// The most rows of a block, so that its rows are told apart by 16 bits.
pub const MOST_ROWS: usize = 1 << 16;

/// The columns of a block are filled by a few times as many tasks as there are threads.
const TASKS_PER_THREAD: usize = 4;

/// A block of rows, by columns.
#[derive(Debug)]
pub struct Block<V: Copy> {
    rows: usize,
    /// Where each column begins among `members`, and where the last ends.
    starts: Vec<u32>,
    /// The rows that have a column, rising within the column.
    members: Vec<Member<V>>,
    /// For each entry of the block's rows, how many rows before it have its column.
    positions: Vec<u16>,
}

/// A row that has a column. Both its parts are fetched from one place: the way to memory, over tables of pages that are
/// not at hand either, takes longer than what is done with a column.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, packed)]
struct Member<V> {
    /// The row, counted from the block's first.
    row: u16,
    value: V,
}

impl<V: Value> Block<V> {
    /// The block of the rows that `offsets` (one more than rows) cut `entries` into, the first at 0. Values are multiplied by
    /// `whole` ([`Scales::whole`]).
    ///
    /// At most [`MOST_ROWS`] rows and `u32::MAX` entries. Works on the threads of the current pool.
    pub fn new(columns: usize, offsets: &[usize], entries: &[u64], whole: f32) -> Self {
        let starts = starts(columns, entries);
        let mut members: Vec<Member<V>> = with_large_pages(entries.len());
        members.par_extend(entries.par_iter().map(|_| Member::default()));
        // Several tasks share a row, each with the columns that are its own.
        let positions: Vec<AtomicU16> = entries.par_iter().map(|_| AtomicU16::new(0)).collect();
        let offset: Vec<usize> = starts.iter().map(|&start| start as usize).collect();
        let mut left = &mut members[..];
        let mut shares = Vec::new();
        // Every task goes through every row, so there are few.
        let most = entries.len().div_ceil(TASKS_PER_THREAD * rayon::current_num_threads()).max(PIECE_ENTRIES);
        let ranges = pieces(&offset, most);
        let (all_cuts, width) = (cuts(&ranges, offsets, entries), ranges.len() + 1);
        for (share, range) in ranges.into_iter().enumerate() {
            let length = offset[range.end] - offset[range.start];
            let (own, rest) = left.split_at_mut(length);
            left = rest;
            shares.push((share, range, own));
        }
        shares.into_par_iter().for_each(|(share, range, members)| {
            let first = starts[range.start];
            let mut next: Vec<u32> = starts[range.clone()].iter().map(|start| start - first).collect();
            for (row, cuts) in all_cuts.chunks(width).enumerate() {
                for at in cuts[share] as usize..cuts[share + 1] as usize {
                    let column = entry::column(entries[at]) as usize;
                    let slot = &mut next[column - range.start];
                    members[*slot as usize] =
                        Member { row: row as u16, value: V::of(entry::value(entries[at]) * whole) };
                    positions[at].store((*slot + first - starts[column]) as u16, Relaxed);
                    *slot += 1;
                }
            }
        });
        let positions = positions.into_iter().map(AtomicU16::into_inner).collect();
        Self { rows: offsets.len() - 1, starts, members, positions }
    }

    /// The rows of the block that have the column of a row's only entry, rising, and their values; of a row of the block itself
    /// those before it.
    pub fn members(
        &self,
        row: &[u64],
        positions: Option<&[u16]>,
    ) -> impl DoubleEndedIterator<Item = (u16, V)> + ExactSizeIterator {
        let (from, to) = segment(row, positions, self, 0);
        self.members[from..to].iter().map(|&Member { row, value }| (row, value))
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// For entries of the block's own rows, how many rows before have the column of each.
    pub fn positions(&self, entries: Range<usize>) -> &[u16] {
        &self.positions[entries]
    }

    /// The bytes that [`cuts`] of so many rows and entries take while a block is made.
    pub fn cut_bytes_for(rows: usize, entries: usize, threads: usize) -> usize {
        let ranges = (TASKS_PER_THREAD * threads).min(entries / PIECE_ENTRIES + 1);
        // One more range may be columns without entries, and where the last range ends is one more cut.
        rows * (ranges + 2) * size_of::<u32>()
    }

    /// The bytes that a block of this shape will hold.
    pub fn bytes_for(columns: usize, entries: usize) -> usize {
        (columns + 1) * size_of::<u32>() + entries * (size_of::<Member<V>>() + size_of::<u16>())
    }
}

/// Row by row, where its entries in each range of columns begin, and where the last end; the ranges cover all columns in order.
/// All ranges at once, as a row that is searched for one of them is at hand for the others.
fn cuts(ranges: &[Range<usize>], offsets: &[usize], entries: &[u64]) -> Vec<u32> {
    let mut cuts = vec![0; (offsets.len() - 1) * (ranges.len() + 1)];
    cuts.par_chunks_mut(ranges.len() + 1).zip(offsets.par_windows(2)).for_each(|(cuts, bounds)| {
        let (mut at, end) = (bounds[0] - offsets[0], bounds[1] - offsets[0]);
        cuts[0] = at as u32;
        for (cut, range) in cuts[1..].iter_mut().zip(ranges) {
            at += entries[at..end].partition_point(|e| (entry::column(*e) as usize) < range.end);
            *cut = at as u32;
        }
    });
    cuts
}

/// Where each column begins when entries are grouped by column.
fn starts(columns: usize, entries: &[u64]) -> Vec<u32> {
    // Each task counts on its own, so there are few tasks: counts take room.
    let task = entries.len().div_ceil(rayon::current_num_threads().min(8)).max(1);
    let count = |entries: &[u64]| {
        let mut counts = vec![0u32; columns + 1];
        entries.iter().for_each(|&e| counts[entry::column(e) as usize + 1] += 1);
        counts
    };
    let add = |mut a: Vec<u32>, b: Vec<u32>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        a
    };
    let counts = entries.par_chunks(task).map(count).reduce_with(add);
    let mut starts = counts.unwrap_or_else(|| vec![0; columns + 1]);
    for column in 0..columns {
        starts[column + 1] += starts[column];
    }
    starts
}

/// How many entries ahead the members of a column are fetched: enough to hide the way to memory behind the sums of the
/// columns between.
const AHEAD: usize = 6;

/// How many entries ahead it is fetched where they begin.
const FAR_AHEAD: usize = 16;

/// The cells of one row, one per row of the block; reused from row to row.
pub struct Cells<C> {
    /// As many as 16 bits can name, so that no access needs a test.
    cells: Box<[C; MOST_ROWS]>,
}

impl<C: Cell> Cells<C> {
    /// Empty cells.
    pub fn new() -> Self {
        // Made on the heap; an array would go through the stack.
        let cells: Box<[C]> = vec![C::default(); MOST_ROWS].into();
        Self { cells: cells.try_into().unwrap_or_else(|_| unreachable!("the length is that of the array")) }
    }

    /// The bytes that they take.
    pub fn bytes() -> usize {
        MOST_ROWS * size_of::<C>()
    }

    /// Adds a row's products with the rows of the block. `positions` are given where the row is of the block itself and to meet
    /// only those before it. Returns the multiply-adds done.
    pub fn add(&mut self, row: &[u64], positions: Option<&[u16]>, block: &Block<C::Column>, scales: &Scales) -> usize {
        let mut work = 0;
        for at in 0..row.len() {
            if let Some(&far) = row.get(at + FAR_AHEAD) {
                let far = entry::column(far) as usize;
                prefetch(std::slice::from_ref(&block.starts[far]));
                prefetch(scales.columns.get(far..far + 1).unwrap_or_default());
            }
            if at + AHEAD < row.len() {
                let (from, to) = segment(row, positions, block, at + AHEAD);
                prefetch(&block.members[from..to]);
            }
            let (from, to) = segment(row, positions, block, at);
            let a = C::Row::of_entry(row[at], scales);
            // Many in one turn: a turn for each is so short that its place in memory decides over its speed.
            let mut add = |&Member { row: j, value: b }: &Member<C::Column>| self.cells[usize::from(j)].add(a, b);
            let (many, rest) = block.members[from..to].as_chunks::<8>();
            many.iter().for_each(|many| many.iter().for_each(&mut add));
            rest.iter().for_each(add);
            work += to - from;
        }
        work
    }

    /// The cells of the first rows of the block.
    pub fn first(&mut self, rows: usize) -> &mut [C] {
        &mut self.cells[..rows]
    }

    /// Visits what [`Cells::add`] reached with this row, each row of the block once, and empties it.
    ///
    /// Of the rows that a column has the last come first: where entities have few features in common they differ by their
    /// norms, and those of the last are the smallest, so that the best come early and most others are refused.
    pub fn take_reached(
        &mut self,
        row: &[u64],
        positions: Option<&[u16]>,
        block: &Block<C::Column>,
        mut visit: impl FnMut(u16, C),
    ) {
        for at in 0..row.len() {
            let (from, to) = segment(row, positions, block, at);
            for &Member { row: j, .. } in block.members[from..to].iter().rev() {
                let cell = std::mem::take(&mut self.cells[usize::from(j)]);
                if !cell.is_empty() {
                    visit(j, cell);
                }
            }
        }
    }
}

impl<C: Cell> Default for Cells<C> {
    fn default() -> Self {
        Self::new()
    }
}

/// Where the block holds the rows that meet a row's entry.
#[inline(always)]
fn segment<V: Copy>(row: &[u64], positions: Option<&[u16]>, block: &Block<V>, at: usize) -> (usize, usize) {
    let column = entry::column(row[at]) as usize;
    let from = block.starts[column] as usize;
    let to = match positions {
        Some(positions) => from + usize::from(positions[at]),
        None => block.starts[column + 1] as usize,
    };
    (from, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many entries that tasks share rows.
    #[test]
    fn columns_have_the_rows_that_have_them() {
        let (rows, columns) = (900, 400);
        let has = |row: usize, column: usize| (row * 7919 + column * 104_729) % 11 > (column % 7) + row % 3;
        let (mut offsets, mut entries, mut before) = (vec![0], Vec::new(), vec![Vec::new(); columns]);
        let mut expected = Vec::new();
        for row in 0..rows {
            for column in (0..columns).filter(|&column| has(row, column)) {
                let value = (row * columns + column) as f32;
                entries.push(entry::pack(column as u32, value));
                expected.push(before[column].len());
                before[column].push((row as u16, value));
            }
            offsets.push(entries.len());
        }
        assert!(entries.len() > 2 * PIECE_ENTRIES);
        let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let block: Block<f32> = pool.install(|| Block::new(columns, &offsets, &entries, 1.0));
        for (at, earlier) in expected.into_iter().enumerate() {
            let (e, positions) = (&entries[at..=at], block.positions(at..at + 1));
            let all = &before[entry::column(e[0]) as usize];
            assert!(block.members(e, Some(positions)).eq(all[..earlier].iter().copied()), "entry {at}");
            assert!(block.members(e, None).eq(all.iter().copied()), "entry {at}");
        }
    }
}
