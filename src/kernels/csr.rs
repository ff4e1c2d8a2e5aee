//! A sparse matrix in compressed rows, the shape in which every kernel takes its input.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rayon::prelude::*;

use super::Error;

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

    /// Visits all triples, in pieces.
    fn each_piece(&self, visit: &mut dyn FnMut(Piece<'_>)) -> Result<(), Error>;
}

impl Csr {
    /// Groups the triples of a range of rows by row, the first of the range being row 0 of the matrix, sorts each row by column and sums what has the same row and column. The summands are
    /// ordered by value first, so the result does not depend on the order in which triples come.
    ///
    /// Works on the threads of the current pool, one for each of `parts`.
    pub fn build(rows: Range<usize>, columns: usize, parts: &[&dyn Triples]) -> Result<Self, Error> {
        let counts = parts.par_iter().map(|part| count_rows(*part, &rows));
        let mut cursors: Vec<Vec<u32>> = counts.collect::<Result<_, _>>()?;
        let offsets = claim(rows.len(), &mut cursors);
        // Parts fill every row in turn; each slot is written once, by the part whose cursor claimed it.
        let mut slots: Vec<AtomicU64> = Vec::with_capacity(offsets[rows.len()]);
        slots.par_extend((0..offsets[rows.len()]).into_par_iter().map(|_| AtomicU64::new(0)));
        parts.par_iter().zip(cursors).try_for_each(|(part, mut cursors)| {
            let (part_rows, part_columns) = (part.rows(), part.columns());
            let mut place = |row: u32, column: u32, value: f32| {
                let row = (part_rows[row as usize] as usize).wrapping_sub(rows.start);
                if let Some(cursor) = cursors.get_mut(row) {
                    let word = entry::pack(part_columns[column as usize], value);
                    slots[offsets[row] + *cursor as usize].store(word, Relaxed);
                    *cursor += 1;
                }
            };
            part.each_piece(&mut |(rows, columns, values)| {
                let places = rows.iter().zip(columns);
                if values.is_empty() {
                    places.for_each(|(&row, &column)| place(row, column, 1.0));
                } else {
                    places.zip(values).for_each(|((&row, &column), &value)| place(row, column, value));
                }
            })
        })?;
        let entries = slots.into_iter().map(AtomicU64::into_inner).collect();
        let mut matrix = Self { columns, offsets, entries };
        matrix.sort_rows();
        Ok(matrix)
    }

    fn sort_rows(&mut self) {
        let repeats = |row: &[u64]| row.windows(2).any(|pair| entry::column(pair[0]) == entry::column(pair[1]));
        let columns = self.columns;
        let sort = |(offsets, entries): (&[usize], &mut [u64])| {
            let (mut any, mut room) = (false, Vec::new());
            for bounds in offsets.windows(2) {
                let row = &mut entries[bounds[0] - offsets[0]..bounds[1] - offsets[0]];
                sort_by_column(row, columns, &mut room);
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
}

/// How many triples each row of a range has.
fn count_rows(part: &dyn Triples, rows: &Range<usize>) -> Result<Vec<u32>, Error> {
    let mut codes = vec![0u32; part.rows().len()];
    part.each_piece(&mut |(piece, _, _)| piece.iter().for_each(|&code| codes[code as usize] += 1))?;
    let mut counts = vec![0u32; rows.len()];
    for (count, &row) in codes.iter().zip(part.rows()) {
        if let Some(total) = counts.get_mut((row as usize).wrapping_sub(rows.start)) {
            *total += count;
        }
    }
    Ok(counts)
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

/// Turns each part's counts of entries per row into where in the row the part begins; returns where rows begin.
fn claim(rows: usize, counts: &mut [Vec<u32>]) -> Vec<usize> {
    let mut offsets = Vec::with_capacity(rows + 1);
    offsets.push(0);
    for row in 0..rows {
        let mut length = 0;
        for part in counts.iter_mut() {
            length += std::mem::replace(&mut part[row], length);
        }
        offsets.push(offsets[row] + length as usize);
    }
    offsets
}

/// Sorts the entries of a row by column. Long rows are sorted digit by digit (radix sort, least digit first), in half of the
/// time that comparisons take.
fn sort_by_column(row: &mut [u64], columns: usize, room: &mut Vec<u64>) {
    const MOST_BITS: u32 = 11;
    // A megabyte a thread, which need not be reserved.
    const MOST_ROOM: usize = 1 << 17;
    let bits = columns.max(2).next_power_of_two().trailing_zeros();
    let passes = bits.div_ceil(MOST_BITS);
    let bits = bits.div_ceil(passes);
    if row.len() < 1 << bits || row.len() > MOST_ROOM {
        return row.sort_unstable();
    }
    room.resize(room.len().max(row.len()), 0);
    let (mut from, mut to) = (&mut *row, &mut room[..]);
    for pass in 0..passes {
        let digit = |entry: u64| (entry::column(entry) >> (pass * bits)) as usize & ((1 << bits) - 1);
        let mut next = [0u32; 1 << MOST_BITS];
        from.iter().for_each(|&entry| next[digit(entry)] += 1);
        let mut sum = 0;
        for next in &mut next[..1 << bits] {
            sum += std::mem::replace(next, sum);
        }
        for &entry in &*from {
            let next = &mut next[digit(entry)];
            to[*next as usize] = entry;
            *next += 1;
        }
        let sorted = from.len();
        (from, to) = (&mut to[..sorted], from);
    }
    if passes % 2 == 1 {
        to.copy_from_slice(from);
    }
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
        for start in 0..rows {
            let part = Csr::build(start..rows, columns, &parts).unwrap();
            assert_eq!(part.entries, &whole.entries[whole.offsets[start]..]);
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

    /// In one, two and three digits; short rows are compared.
    #[test]
    fn rows_are_sorted_by_column() {
        for (columns, length) in [(1, 3000), (300, 3000), (1 << 17, 3000), (1 << 23, 3000), (1 << 17, 300)] {
            let column = |at: u32| mix(at) % columns;
            let mut row: Vec<u64> = (0..length).map(|at| entry::pack(column(at), at as f32)).collect();
            let mut expected = row.clone();
            expected.sort_unstable_by_key(|&e| (entry::column(e), entry::value(e).to_bits()));
            sort_by_column(&mut row, columns as usize, &mut Vec::new());
            assert_eq!(row, expected, "{columns} columns");
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
