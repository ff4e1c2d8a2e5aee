//! One row of a sparse product at a time, with whatever sums a score needs.
//!
//! For row `i` of `A · B` the kernel walks the entries `(x, a)` of row `i` of `A` and, for each, the entries `(j, b)` of
//! row `x` of `B`, adding to one cell per column `j` (Gustavson 1978). Similarity is this product of a matrix with
//! its transpose; scoring is the product of histories with neighbors.

use super::csr::Csr;

/// The sums that one pair (i, j) collects. Its default is the state before the first common entry.
pub trait Cell: Copy + Default + Send + 'static {
    /// Whether the sums need the values of the entries.
    const WEIGHTED: bool = true;
    /// Adds one common entry with the value `a` in the row and `b` in the column.
    fn add(&mut self, a: f32, b: f32);
    /// Whether nothing was added, as far as the sums can tell.
    fn is_empty(&self) -> bool;
}

/// The sum of products.
#[derive(Debug, Clone, Copy, Default)]
pub struct Dot(pub f32);

/// The sum of products in double precision, for scores that subtract it from something of its size.
#[derive(Debug, Clone, Copy, Default)]
pub struct PreciseDot(pub f64);

/// The number of common entries.
#[derive(Debug, Clone, Copy, Default)]
pub struct Count(pub u32);

/// The sum of products and both sums of squares over the common entries.
#[derive(Debug, Clone, Copy, Default)]
#[repr(align(16))]
pub struct Moments {
    /// Sum of a·b.
    pub ab: f32,
    /// Sum of a².
    pub aa: f32,
    /// Sum of b².
    pub bb: f32,
}

/// The sum of products and the sum of |a| (`OF_ROW`) or |b|, by which a weighted mean divides it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weighted<const OF_ROW: bool> {
    /// Sum of a·b.
    pub ab: f32,
    /// Sum of the weights' absolute values.
    pub weight: f32,
}

/// Another cell, and the number of common entries beside it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counted<C> {
    /// The sums that are counted.
    pub sums: C,
    /// The number of common entries.
    pub count: u32,
}

impl Cell for Dot {
    #[inline(always)]
    fn add(&mut self, a: f32, b: f32) {
        self.0 += a * b;
    }
    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.0 == 0.0
    }
}

impl Cell for PreciseDot {
    #[inline(always)]
    fn add(&mut self, a: f32, b: f32) {
        self.0 += f64::from(a) * f64::from(b);
    }
    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.0 == 0.0
    }
}

impl Cell for Count {
    const WEIGHTED: bool = false;
    #[inline(always)]
    fn add(&mut self, _: f32, _: f32) {
        self.0 += 1;
    }
    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.0 == 0
    }
}

impl Cell for Moments {
    #[inline(always)]
    fn add(&mut self, a: f32, b: f32) {
        self.ab += a * b;
        self.aa += a * a;
        self.bb += b * b;
    }
    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.aa == 0.0 && self.bb == 0.0
    }
}

impl<const OF_ROW: bool> Cell for Weighted<OF_ROW> {
    #[inline(always)]
    fn add(&mut self, a: f32, b: f32) {
        self.ab += a * b;
        self.weight += if OF_ROW { a.abs() } else { b.abs() };
    }
    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.weight == 0.0
    }
}

impl<C: Cell> Cell for Counted<C> {
    const WEIGHTED: bool = C::WEIGHTED;
    #[inline(always)]
    fn add(&mut self, a: f32, b: f32) {
        self.sums.add(a, b);
        self.count += 1;
    }
    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// Cuts the rows of `A · B` into blocks of about equal work, `blocks` of them unless `most_rows` makes for more;
/// returns where each begins and where the last ends.
pub fn blocks(a: &Csr, b: &Csr, most_rows: usize, blocks: usize) -> Vec<usize> {
    let work = |row: usize| -> usize {
        // A row costs something even if it meets nothing.
        1 + a.row(row).0.iter().map(|&x| b.row_len(x as usize)).sum::<usize>()
    };
    let total: usize = (0..a.rows()).map(work).sum();
    let most_work = total / blocks.max(1);
    let mut bounds = vec![0];
    let (mut rows, mut done) = (0, 0);
    for row in 0..a.rows() {
        rows += 1;
        done += work(row);
        if rows >= most_rows || done >= most_work {
            bounds.push(row + 1);
            (rows, done) = (0, 0);
        }
    }
    if rows > 0 {
        bounds.push(a.rows());
    }
    bounds
}

/// The cells of one row, one per column of the product; reused from row to row.
#[derive(Debug)]
pub struct RowProduct<C> {
    cells: Vec<C>,
    /// Columns reached in this row, where they are few enough to be listed.
    reached: Vec<u32>,
    /// Set when all cells are to be looked at instead.
    dense: bool,
}

impl<C: Cell> RowProduct<C> {
    /// Cells for a product of this many columns.
    pub fn new(columns: usize) -> Self {
        Self { cells: vec![C::default(); columns], reached: Vec::new(), dense: false }
    }

    /// The bytes that a workspace of this many columns will hold at the most.
    pub fn bytes_for(columns: usize) -> usize {
        columns * (size_of::<C>() + size_of::<u32>())
    }

    /// Adds the products of one row of A, given by its columns and values, with B. Returns the multiply-adds done.
    ///
    /// Rows that reach many columns are read off by a scan over all cells, the others by a list of what was reached:
    /// the list costs a test per multiply-add, the scan a test per column.
    pub fn accumulate(&mut self, columns: &[u32], values: &[f32], b: &Csr) -> usize {
        let work: usize = columns.iter().map(|&x| b.row_len(x as usize)).sum();
        self.dense = work > self.cells.len() / 4;
        match (C::WEIGHTED, self.dense) {
            (true, true) => self.add_rows::<true, true>(columns, values, b),
            (true, false) => self.add_rows::<true, false>(columns, values, b),
            (false, true) => self.add_rows::<false, true>(columns, values, b),
            (false, false) => self.add_rows::<false, false>(columns, values, b),
        }
        work
    }

    fn add_rows<const WEIGHTED: bool, const DENSE: bool>(&mut self, columns: &[u32], values: &[f32], b: &Csr) {
        let cells = &mut self.cells[..];
        for (at, &x) in columns.iter().enumerate() {
            let a = if values.is_empty() { 1.0 } else { values[at] };
            let (b_columns, b_values) = b.row(x as usize);
            if WEIGHTED && !b_values.is_empty() {
                for (&j, &value) in b_columns.iter().zip(b_values) {
                    let cell = &mut cells[j as usize];
                    if !DENSE && cell.is_empty() {
                        self.reached.push(j);
                    }
                    cell.add(a, value);
                }
            } else {
                for &j in b_columns {
                    let cell = &mut cells[j as usize];
                    if !DENSE && cell.is_empty() {
                        self.reached.push(j);
                    }
                    cell.add(a, 1.0);
                }
            }
        }
    }

    /// Visits every column reached once with its cell, and clears the workspace for the next row.
    pub fn drain(&mut self, mut visit: impl FnMut(u32, C)) {
        if self.dense {
            for (column, cell) in self.cells.iter_mut().enumerate() {
                if !cell.is_empty() {
                    visit(column as u32, std::mem::take(cell));
                }
            }
        } else {
            for column in self.reached.drain(..) {
                // A sum that fell back to zero is listed twice; its second visit finds the cleared cell.
                let cell = std::mem::take(&mut self.cells[column as usize]);
                if !cell.is_empty() {
                    visit(column, cell);
                }
            }
        }
    }
}
