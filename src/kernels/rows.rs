//! Rows of a sparse matrix that need not be in memory.

use std::fmt::Debug;
use std::ops::Range;

use super::Error;
use super::csr::Csr;
use super::held::Held;

/// Where the entries of rows are kept: in memory, or in a file.
///
/// Behind a pointer, so that what reads them is compiled once, here.
pub trait Entries: Debug + Send + Sync {
    /// The entries of a range.
    fn read(&self, range: Range<usize>) -> Result<Held<'_, u64>, Error>;

    /// Changes the entries of a range.
    fn update(&mut self, range: Range<usize>, change: &mut dyn FnMut(&mut [u64])) -> Result<(), Error>;

    /// The bytes of memory that they take.
    fn bytes(&self) -> usize;
}

impl Entries for Vec<u64> {
    fn read(&self, range: Range<usize>) -> Result<Held<'_, u64>, Error> {
        Ok(Held::Kept(&self[range]))
    }

    fn update(&mut self, range: Range<usize>, change: &mut dyn FnMut(&mut [u64])) -> Result<(), Error> {
        change(&mut self[range]);
        Ok(())
    }

    fn bytes(&self) -> usize {
        self.len() * size_of::<u64>()
    }
}

/// The rows of a sparse matrix, wherever their entries are kept.
#[derive(Debug)]
pub struct Rows {
    /// Packed columns and values of all rows, see [`super::csr::entry`].
    entries: Box<dyn Entries>,
    /// Where each row begins, and where the last ends.
    offsets: Vec<usize>,
}

impl From<Csr> for Rows {
    fn from(matrix: Csr) -> Self {
        Self::new(Box::new(matrix.entries), matrix.offsets)
    }
}

impl Rows {
    /// Rows that begin at these offsets, the last of which is their end.
    pub fn new(entries: Box<dyn Entries>, offsets: Vec<usize>) -> Self {
        Self { entries, offsets }
    }

    /// The number of rows.
    pub fn len(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of entries in a range of rows.
    pub fn entries_of(&self, rows: Range<usize>) -> usize {
        self.offsets[rows.end] - self.offsets[rows.start]
    }

    /// Reads a range of rows.
    pub fn read(&self, rows: Range<usize>) -> Result<RowsRead<'_>, Error> {
        let offsets = &self.offsets[rows.start..=rows.end];
        let entries = self.entries.read(offsets[0]..offsets[rows.len()])?;
        Ok(RowsRead { entries, offsets, first: rows.start })
    }

    /// The bytes of memory that they take.
    pub fn bytes(&self) -> usize {
        self.entries.bytes() + self.offsets.len() * size_of::<usize>()
    }
}

/// A range of rows in memory.
pub struct RowsRead<'a> {
    entries: Held<'a, u64>,
    offsets: &'a [usize],
    first: usize,
}

impl RowsRead<'_> {
    /// The entries of a row, by its number among all rows.
    pub fn row(&self, row: usize) -> &[u64] {
        let at = row - self.first;
        &self.entries[self.offsets[at] - self.offsets[0]..self.offsets[at + 1] - self.offsets[0]]
    }
}
