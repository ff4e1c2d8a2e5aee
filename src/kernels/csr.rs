//! A sparse matrix in compressed rows, the shape in which every kernel takes its input.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rayon::prelude::*;

use super::Error;
use super::digits::sort_by_upper;

/// An entry of a row: its column above, the bits of its value below, so that whole words sort by column.
pub mod entry {
    /// An entry of this column and value.
    #[inline(always)]
    pub fn pack(column: u32, value: f32) -> u64 {
        u64::from(column) << 32 | u64::from(value.to_bits())
    }

    /// The column of an entry.
    #[inline(always)]
    pub fn column(entry: u64) -> u32 {
        (entry >> 32) as u32
    }

    /// The value of an entry.
    #[inline(always)]
    pub fn value(entry: u64) -> f32 {
        f32::from_bits(entry as u32)
    }
}

/// A sparse matrix by rows: row `r` has the entries `offsets[r]..offsets[r + 1]`, its columns rising and distinct.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Csr {
    /// Number of columns; the column of every entry is below it.
    pub columns: usize,
    /// `rows + 1` positions into `entries`, rising.
    pub offsets: Vec<usize>,
    /// Packed columns and values, see [`entry`].
    pub entries: Vec<u64>,
}

/// Codes of rows, codes of columns, and values, which are absent where each is 1.
pub type Piece<'a> = (&'a [u32], &'a [u32], &'a [f32]);

/// Some of the (row, column, value) triples that a matrix is built from.
pub trait Triples: Sync {
    /// The row that each code of a row stands for.
    fn rows(&self) -> &[u32];

    /// The column that each code of a column stands for.
    fn columns(&self) -> &[u32];

    /// How many triples have each code of a row.
    fn counts(&self) -> Cow<'_, [u32]>;

    /// Visits all triples, in pieces.
    fn each_piece(&self, visit: &mut dyn FnMut(Piece<'_>)) -> Result<(), Error>;
}

impl Csr {
    /// Groups the triples of a range of rows by row, the first of the range being row 0 of the matrix, sorts each row by column and
    /// sums what has the same row and column. The summands are ordered by value first, so the result does not depend on the order
    /// in which triples come.
    ///
    /// Works on the threads of the current pool, one for each of `parts`.
    pub fn build(rows: Range<usize>, columns: usize, parts: &[&dyn Triples]) -> Result<Self, Error> {
        let (offsets, starts) = claim(&rows, parts);
        // Each slot is written once, by the part that claimed it.
        let mut slots: Vec<AtomicU64> = Vec::with_capacity(offsets[rows.len()]);
        slots.par_extend((0..offsets[rows.len()]).into_par_iter().map(|_| AtomicU64::new(0)));
        parts.par_iter().zip(starts).try_for_each(|(part, next)| {
            let mut places = Places { next, columns: part.columns(), slots: &slots };
            part.each_piece(&mut |(rows, columns, values)| match values {
                [] => places.fill(rows, columns, std::iter::repeat(1.0)),
                _ => places.fill(rows, columns, values.iter().copied()),
            })
        })?;
        let entries = slots.into_iter().map(AtomicU64::into_inner).collect();
        let mut matrix = Self { columns, offsets, entries };
        matrix.sort_rows();
        Ok(matrix)
    }

    fn sort_rows(&mut self) {
        // A megabyte a thread, which need not be reserved.
        const MOST_ROOM: usize = 1 << 17;
        let repeats = |row: &[u64]| row.windows(2).any(|pair| entry::column(pair[0]) == entry::column(pair[1]));
        let columns = self.columns;
        let sort = |(offsets, entries): (&[usize], &mut [u64])| {
            let (mut any, mut room) = (false, Vec::new());
            for bounds in offsets.windows(2) {
                let row = &mut entries[bounds[0] - offsets[0]..bounds[1] - offsets[0]];
                match row.len() <= MOST_ROOM {
                    true => sort_by_upper(row, 0..columns, &mut room),
                    false => row.sort_unstable(),
                }
                any |= repeats(row);
            }
            any
        };
        if pieces_mut(&self.offsets, &mut self.entries).into_par_iter().map(sort).reduce(|| false, |a, b| a | b) {
            self.sum_repeats();
        }
    }

    fn sum_repeats(&mut self) {
        let (mut kept, mut start) = (0, 0);
        let mut summands = Vec::new();
        for row in 0..self.rows() {
            let end = self.offsets[row + 1];
            while start < end {
                let column = entry::column(self.entries[start]);
                let same = self.entries[start..end].iter().take_while(|e| entry::column(**e) == column);
                summands.clear();
                summands.extend(same.map(|e| entry::value(*e)));
                summands.sort_unstable_by(f32::total_cmp);
                let sum = summands.iter().map(|&v| f64::from(v)).sum::<f64>() as f32;
                self.entries[kept] = entry::pack(column, sum);
                kept += 1;
                start += summands.len();
            }
            self.offsets[row + 1] = kept;
        }
        self.entries.truncate(kept);
    }

    /// Drops the entries of columns that are not to be kept.
    pub fn retain_columns(&mut self, keep: impl Fn(u32) -> bool) {
        self.retain(|_, entry| keep(entry::column(entry)));
    }

    /// Leaves rows of more than so many entries with as many: those of the largest absolute values, equal ones by a hash
    /// of the column that is the same in all rows, so that rows with much in common still have it afterwards.
    pub fn cap_rows(&mut self, most: usize) {
        let rank = |entry: u64| (std::cmp::Reverse(entry::value(entry).abs().to_bits()), mix(entry::column(entry)));
        let last = |row: &[u64]| {
            let mut ranks: Vec<_> = row.iter().map(|&entry| rank(entry)).collect();
            *ranks.select_nth_unstable(most - 1).1
        };
        let long = |row: &usize| self.row_len(*row) > most;
        let lasts: Vec<_> =
            (0..self.rows()).into_par_iter().map(|row| long(&row).then(|| last(self.row(row)))).collect();
        self.retain(|row, entry| lasts[row].is_none_or(|last| rank(entry) <= last));
    }

    fn retain(&mut self, keep: impl Fn(usize, u64) -> bool) {
        let (mut kept, mut start) = (0, 0);
        for row in 0..self.rows() {
            let end = self.offsets[row + 1];
            for at in start..end {
                if keep(row, self.entries[at]) {
                    self.entries[kept] = self.entries[at];
                    kept += 1;
                }
            }
            start = end;
            self.offsets[row + 1] = kept;
        }
        self.entries.truncate(kept);
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// The entries of a row.
    pub fn row(&self, row: usize) -> &[u64] {
        &self.entries[self.offsets[row]..self.offsets[row + 1]]
    }

    /// The number of entries in a row.
    pub fn row_len(&self, row: usize) -> usize {
        self.offsets[row + 1] - self.offsets[row]
    }

    /// The bytes that its vectors hold.
    pub fn bytes(&self) -> usize {
        Self::bytes_for(self.rows(), self.entries.len())
    }

    /// The bytes that a matrix of this shape will hold, for reserving them first.
    pub fn bytes_for(rows: usize, entries: usize) -> usize {
        (rows + 1) * size_of::<usize>() + entries * size_of::<u64>()
    }

    /// The bytes that [`Csr::build`] takes beside the matrix and what it is built from, where parts have so many codes of rows.
    pub fn build_bytes_for(codes: usize) -> usize {
        codes * size_of::<usize>()
    }
}

/// Where the entries of one part go.
struct Places<'a> {
    /// Where the next triple of each code of a row goes; beyond all slots if it goes nowhere.
    next: Vec<usize>,
    /// The column that each code of a column stands for.
    columns: &'a [u32],
    slots: &'a [AtomicU64],
}

impl Places<'_> {
    #[inline(always)]
    fn fill(&mut self, rows: &[u32], columns: &[u32], values: impl Iterator<Item = f32>) {
        for ((&row, &column), value) in rows.iter().zip(columns).zip(values) {
            let next = &mut self.next[row as usize];
            if let Some(slot) = self.slots.get(*next) {
                slot.store(entry::pack(self.columns[column as usize], value), Relaxed);
                *next += 1;
            }
        }
    }
}

/// Where each row of a range begins, the last ends, and where each part's triples of each code of a row go; those of other rows
/// go beyond the end.
fn claim(rows: &Range<usize>, parts: &[&dyn Triples]) -> (Vec<usize>, Vec<Vec<usize>>) {
    let within = |row: u32| (row as usize).wrapping_sub(rows.start);
    let counts: Vec<_> = parts.iter().map(|part| part.counts()).collect();
    let mut offsets = vec![0; rows.len() + 1];
    for (part, counts) in parts.iter().zip(&counts) {
        for (&row, &count) in part.rows().iter().zip(&counts[..]) {
            if let Some(length) = offsets[1..].get_mut(within(row)) {
                *length += count as usize;
            }
        }
    }
    for row in 0..rows.len() {
        offsets[row + 1] += offsets[row];
    }
    let (mut next, end) = (offsets[..rows.len()].to_vec(), offsets[rows.len()]);
    let starts = parts.iter().zip(&counts).map(|(part, counts)| {
        let claim = |(&row, &count): (&u32, &u32)| match next.get_mut(within(row)) {
            Some(next) => std::mem::replace(next, *next + count as usize),
            None => end,
        };
        part.rows().iter().zip(&counts[..]).map(claim).collect()
    });
    let starts = starts.collect();
    (offsets, starts)
}

/// Triples in memory.
#[derive(Debug, Default)]
pub struct Slices<'a> {
    /// Codes and values.
    pub pieces: Vec<Piece<'a>>,
    /// The row that each code of a row stands for.
    pub rows: &'a [u32],
    /// The column that each code of a column stands for.
    pub columns: &'a [u32],
}

impl Triples for Slices<'_> {
    fn rows(&self) -> &[u32] {
        self.rows
    }

    fn columns(&self) -> &[u32] {
        self.columns
    }

    fn counts(&self) -> Cow<'_, [u32]> {
        let mut counts = vec![0; self.rows.len()];
        self.pieces.iter().for_each(|(rows, _, _)| rows.iter().for_each(|&code| counts[code as usize] += 1));
        counts.into()
    }

    fn each_piece(&self, visit: &mut dyn FnMut(Piece<'_>)) -> Result<(), Error> {
        self.pieces.iter().for_each(|&piece| visit(piece));
        Ok(())
    }
}

/// A one-to-one hash of a number (the finalizer of MurmurHash3).
fn mix(number: u32) -> u32 {
    let mut hash = number;
    hash = (hash ^ (hash >> 16)).wrapping_mul(0x85eb_ca6b);
    hash = (hash ^ (hash >> 13)).wrapping_mul(0xc2b2_ae35);
    hash ^ (hash >> 16)
}

/// Rows that are worth a task of their own have about this many entries.
pub const PIECE_ENTRIES: usize = 1 << 16;

/// Cuts rows into ranges of about this many entries.
pub fn pieces(offsets: &[usize], entries: usize) -> Vec<Range<usize>> {
    let rows = offsets.len().saturating_sub(1);
    let mut ranges = Vec::new();
    let mut start = 0;
    while start < rows {
        let target = offsets[start] + entries;
        let end = (offsets.partition_point(|&offset| offset < target)).clamp(start + 1, rows);
        ranges.push(start..end);
        start = end;
    }
    ranges
}

/// Cuts rows into pieces; gives the offsets of each range (one more than its rows) with its own entries, which
/// begin at the first of these offsets.
pub fn pieces_mut<'a>(offsets: &'a [usize], mut entries: &'a mut [u64]) -> Vec<(&'a [usize], &'a mut [u64])> {
    let mut parts = Vec::new();
    for rows in pieces(offsets, PIECE_ENTRIES) {
        let (own, rest) = std::mem::take(&mut entries).split_at_mut(offsets[rows.end] - offsets[rows.start]);
        parts.push((&offsets[rows.start..=rows.end], own));
        entries = rest;
    }
    parts
}

/// What tests of factorisations share.
#[cfg(test)]
pub mod testing {
    use super::{Csr, Slices};

    /// The matrix of users by items with these entries, and that of items by users.
    pub fn matrices(triples: &[(u32, u32, f32)], users: usize, items: usize) -> (Csr, Csr) {
        let codes: Vec<u32> = (0..users.max(items) as u32).collect();
        let u: Vec<u32> = triples.iter().map(|t| t.0).collect();
        let i: Vec<u32> = triples.iter().map(|t| t.1).collect();
        let w: Vec<f32> = triples.iter().map(|t| t.2).collect();
        let by_user = Slices { pieces: vec![(&u, &i, &w)], rows: &codes, columns: &codes };
        let by_item = Slices { pieces: vec![(&i, &u, &w)], rows: &codes, columns: &codes };
        (Csr::build(0..users, items, &[&by_user]).unwrap(), Csr::build(0..items, users, &[&by_item]).unwrap())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(rows: usize, columns: usize, pieces: &[Piece<'_>]) -> Csr {
        let all: Vec<u32> = (0..rows.max(columns) as u32).collect();
        let parts = pieces.iter().map(|piece| Slices { pieces: vec![*piece], rows: &all, columns: &all });
        let parts: Vec<_> = parts.collect();
        let parts: Vec<&dyn Triples> = parts.iter().map(|part| part as &dyn Triples).collect();
        let whole = Csr::build(0..rows, columns, &parts).unwrap();
        // A range of rows is what the whole has there.
        for (start, end) in (0..rows).flat_map(|start| (start..=rows).map(move |end| (start, end))) {
            let part = Csr::build(start..end, columns, &parts).unwrap();
            let first = whole.offsets[start];
            assert_eq!(part.entries, &whole.entries[first..whole.offsets[end]]);
            assert!(part.offsets.iter().map(|offset| first + offset).eq(whole.offsets[start..=end].iter().copied()));
        }
        whole
    }

    fn row(matrix: &Csr, row: usize) -> Vec<(u32, f32)> {
        matrix.row(row).iter().map(|&e| (entry::column(e), entry::value(e))).collect()
    }

    #[test]
    fn rows_are_sorted_whatever_comes_first() {
        let m = build(2, 3, &[(&[1, 0, 1], &[2, 1, 0], &[5.0, 6.0, 7.0]), (&[1], &[1], &[-1.0])]);
        assert_eq!(row(&m, 0), [(1, 6.0)]);
        assert_eq!(row(&m, 1), [(0, 7.0), (1, -1.0), (2, 5.0)]);
    }

    /// Long enough to be sorted by digits, and too long for it.
    #[test]
    fn long_rows_are_sorted() {
        for length in [3000, (1 << 17) + 1] {
            let columns: Vec<u32> = (0..length).map(|at| mix(at) % (2 * length)).collect();
            let values: Vec<f32> = (0..length).map(|at| (at % 7) as f32).collect();
            let mut expected = std::collections::BTreeMap::new();
            for (&column, &value) in columns.iter().zip(&values) {
                *expected.entry(column).or_insert(0.0) += value;
            }
            let m = build(1, 2 * length as usize, &[(&vec![0; columns.len()], &columns, &values)]);
            assert_eq!(row(&m, 0), expected.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn duplicates_are_summed_in_any_order() {
        let sum = |values: [f32; 4]| {
            let m = build(1, 2, &[(&[0; 4], &[1; 4], &values)]);
            assert_eq!(m.entries.len(), 1);
            m.entries[0]
        };
        assert_eq!(sum([1e8, 1.0, -1e8, 0.5]), sum([0.5, -1e8, 1.0, 1e8]));
    }

    #[test]
    fn triples_without_values_are_counted() {
        let m = build(2, 2, &[(&[0, 0, 1], &[1, 1, 0], &[])]);
        assert_eq!((row(&m, 0), row(&m, 1)), (vec![(1, 2.0)], vec![(0, 1.0)]));
    }

    #[test]
    fn long_rows_keep_their_largest_values() {
        let columns: Vec<u32> = (0..20).collect();
        let values: Vec<f32> = (0..20).map(|column| [1.0, -3.0, 2.0, 0.5][column % 4]).collect();
        let mut m = build(2, 20, &[(&[0; 20], &columns, &values), (&[1; 4], &columns[..4], &values[..4])]);
        m.cap_rows(8);
        let kept = row(&m, 0);
        assert_eq!((kept.len(), m.row_len(1)), (8, 4));
        // The five of -3, and three of the five of 2.
        assert_eq!(kept.iter().filter(|(_, value)| *value == -3.0).count(), 5);
        assert_eq!(kept.iter().filter(|(_, value)| *value == 2.0).count(), 3);
        assert!(kept.is_sorted_by_key(|(column, _)| *column));
        let before = m.clone();
        m.cap_rows(8);
        assert_eq!(m, before);
    }

    #[test]
    fn pieces_cover_all_rows() {
        assert_eq!(pieces(&[0, 0, 30, 30, 31], 10), [0..2, 2..4]);
        assert!(pieces(&[0], 10).is_empty());
        assert!(pieces(&[], 10).is_empty());
    }
}
