//! One row of a sparse product `A · B` at a time, where B has any number of columns.
//!
//! For a row of A the kernel walks its entries `(x, a)` and, for each, the entries `(j, b)` of row `x` of B, adding to
//! one cell per column `j` (Gustavson 1978).

use super::Error;
use super::cells::Cell;
use super::csr::{Csr, entry};
use super::prefetch::prefetch;
use super::rows::Rows;

/// Cuts the rows of `A · B` into blocks of about equal work, `blocks` of them unless `most_rows` makes for more;
/// returns where each begins and where the last ends.
pub fn blocks(a: &Rows, b: &Csr, most_rows: usize, blocks: usize) -> Result<Vec<usize>, Error> {
    let mut work = Vec::with_capacity(a.len());
    for first in (0..a.len()).step_by(ROWS_AT_ONCE) {
        let range = first..(first + ROWS_AT_ONCE).min(a.len());
        let rows = a.read(range.clone())?;
        // A row costs something even if it meets nothing.
        let of_row = |row| 1 + rows.row(row).iter().map(|&e| b.row_len(entry::column(e) as usize)).sum::<usize>();
        work.extend(range.map(of_row));
    }
    let most_work = work.iter().sum::<usize>() / blocks.max(1);
    let mut bounds = vec![0];
    let (mut rows, mut done) = (0, 0);
    for (row, work) in work.into_iter().enumerate() {
        rows += 1;
        done += work;
        if rows >= most_rows || done >= most_work {
            bounds.push(row + 1);
            (rows, done) = (0, 0);
        }
    }
    if rows > 0 {
        bounds.push(a.len());
    }
    Ok(bounds)
}

/// Rows that are read together where only their lengths matter.
const ROWS_AT_ONCE: usize = 1024;
/// How many rows of B are fetched ahead.
const AHEAD: usize = 4;
/// Cells that are looked at together.
const CELLS_AT_ONCE: usize = 64;

/// The cells of one row, one per column of the product; reused from row to row.
#[derive(Debug)]
pub struct RowProduct<C> {
    cells: Vec<C>,
}

impl<C: Cell<Row = f32, Column = f32>> RowProduct<C> {
    /// Cells for a product of this many columns.
    pub fn new(columns: usize) -> Self {
        Self { cells: vec![C::default(); columns] }
    }

    /// The bytes that a workspace of this many columns holds.
    pub fn bytes_for(columns: usize) -> usize {
        columns * size_of::<C>()
    }

    /// Adds the products of one row of A with B. Returns the multiply-adds done.
    pub fn add(&mut self, row: &[u64], b: &Csr) -> usize {
        let mut work = 0;
        for (at, &e) in row.iter().enumerate() {
            if let Some(&ahead) = row.get(at + AHEAD) {
                prefetch(b.row(entry::column(ahead) as usize));
            }
            let other = b.row(entry::column(e) as usize);
            let a = entry::value(e);
            for &o in other {
                self.cells[entry::column(o) as usize].add(a, entry::value(o));
            }
            work += other.len();
        }
        work
    }

    /// Empties the cells of these columns.
    pub fn forget(&mut self, columns: &[u64]) {
        columns.iter().for_each(|&e| self.cells[entry::column(e) as usize] = C::default());
    }

    /// Visits these columns, where anything was added to them.
    pub fn visit(&self, columns: &[u64], mut visit: impl FnMut(u32, C)) {
        for column in columns.iter().map(|&e| entry::column(e)) {
            let cell = self.cells[column as usize];
            if !cell.is_empty() {
                visit(column, cell);
            }
        }
    }

    /// Visits every column reached once with its cell, unless `pass` tells of a run of cells that none of them matters, and
    /// empties all. `row` and `work` are what [`RowProduct::add`] was given and gave.
    pub fn take(
        &mut self,
        row: &[u64],
        work: usize,
        b: &Csr,
        mut pass: impl FnMut(&[C]) -> bool,
        mut visit: impl FnMut(u32, C),
    ) {
        // A walk over what was reached costs a few times as much a cell as a look at all of them.
        if work < self.cells.len() / 8 {
            for &o in row.iter().flat_map(|&e| b.row(entry::column(e) as usize)) {
                let column = entry::column(o);
                let cell = std::mem::take(&mut self.cells[column as usize]);
                if !cell.is_empty() {
                    visit(column, cell);
                }
            }
            return;
        }
        for (at, cells) in self.cells.chunks_mut(CELLS_AT_ONCE).enumerate() {
            if !pass(cells) {
                let first = at * CELLS_AT_ONCE;
                let reached = cells.iter().enumerate().filter(|(_, cell)| !cell.is_empty());
                reached.for_each(|(place, cell)| visit((first + place) as u32, *cell));
            }
            cells.fill(C::default());
        }
    }
}
