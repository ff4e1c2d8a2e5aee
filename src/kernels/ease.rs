//! EASE: the item-item weights of a linear autoencoder with a zero diagonal, in closed form (Steck 2019).
//!
//! With `X` the matrix of users by items, `P = (XᵀX + λI)⁻¹`, the weight by which item i speaks for item j is
//! `B_ij = -P_ij / P_jj`. The lower triangle of `XᵀX` is made, and factored after Cholesky, a panel of columns at a time; the
//! inverse is made from the factor a few blocks of columns at a time and never kept. So what must be in memory are some
//! panels; the factor, 4 bytes for every pair of items, may be wherever its panels are kept.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor::{cholesky_in_place, cholesky_in_place_scratch};
use faer::linalg::matmul::matmul;
use faer::linalg::triangular_solve::{solve_lower_triangular_in_place, solve_upper_triangular_in_place};
use faer::{Accum, Mat, MatMut, MatRef, Par};
use rayon::prelude::*;

use super::Error;
use super::csr::{Csr, entry};
use super::panels::{Panels, WIDTH};
use super::topk::Candidates;

/// The bytes that so many items take beside their candidates and the panels of the factor, with so many panels or blocks of
/// the inverse at work at once.
pub fn bytes_for(items: usize, at_once: usize) -> usize {
    ((at_once + 1) * WIDTH.min(items) * items + 2 * items) * size_of::<f64>()
}

/// Offers to `found` the weights of all pairs of items, by their absolute values, see [`signed`]. `users` has users by
/// items, `items` the same by items; `regularization` is λ, above 0. The factor is kept in `panels`, none so far; the more are
/// worked on `at_once`, the less often each is read. Works on all threads of the current pool, and ends early when told to
/// `stop`.
pub fn ease(
    (users, items): (&Csr, &Csr),
    regularization: f64,
    found: &Candidates,
    panels: &mut dyn Panels,
    at_once: usize,
    stop: &AtomicBool,
) -> Result<(), Error> {
    let starts: Vec<usize> = (0..items.rows()).step_by(WIDTH).collect();
    let gram = |start: usize| gram(users, items, regularization, start);
    if factor(&starts, gram, panels, at_once, stop)? {
        offer_inverse(items.rows(), panels, found, at_once, stop)?;
    }
    Ok(())
}

/// A candidate's number and sign in one number, so that candidates can be kept by absolute weight.
pub fn signed(item: u32, negative: bool) -> u32 {
    2 * item + u32::from(negative)
}

/// Some columns of a matrix from a row on, one after the other.
struct Panel {
    rows: usize,
    values: Vec<f64>,
}

impl Panel {
    fn matrix(&mut self) -> MatMut<'_, f64> {
        let columns = self.values.len() / self.rows;
        MatMut::from_column_major_slice_mut(&mut self.values, self.rows, columns)
    }
}

fn view(values: &[f64], rows: usize) -> MatRef<'_, f64> {
    MatRef::from_column_major_slice(values, rows, values.len() / rows)
}

/// A panel of `XᵀX + λI`; of the block at its top the lower triangle.
fn gram(users: &Csr, items: &Csr, regularization: f64, start: usize) -> Panel {
    let rows = items.rows() - start;
    let mut values = vec![0f64; rows * WIDTH.min(rows)];
    values.par_chunks_mut(rows).enumerate().for_each(|(at, column)| {
        let j = start + at;
        for &of_item in items.row(j) {
            let row = users.row(entry::column(of_item) as usize);
            let weight = f64::from(entry::value(of_item));
            let from = row.partition_point(|&e| (entry::column(e) as usize) < j);
            for &e in &row[from..] {
                column[entry::column(e) as usize - start] += weight * f64::from(entry::value(e));
            }
        }
        column[at] += regularization;
    });
    Panel { rows, values }
}

/// The Cholesky factor of a matrix whose panels `make` gives, a few panels at once; false if told to stop.
fn factor(
    starts: &[usize],
    make: impl Fn(usize) -> Panel,
    panels: &mut dyn Panels,
    at_once: usize,
    stop: &AtomicBool,
) -> Result<bool, Error> {
    for group in starts.chunks(at_once.max(1)) {
        let mut open: Vec<Panel> = group.iter().map(|&start| make(start)).collect();
        for &done in starts.iter().take_while(|&&start| start < group[0]) {
            if stop.load(Relaxed) {
                return Ok(false);
            }
            let values = panels.get(done / WIDTH)?;
            let rows = open[0].rows + group[0] - done;
            open.iter_mut().for_each(|open| subtract(open, view(&values, rows)));
        }
        for at in 0..open.len() {
            let (before, after) = open.split_at_mut(at + 1);
            let own = &mut before[at];
            finish(own)?;
            after.iter_mut().for_each(|open| subtract(open, view(&own.values, own.rows)));
            panels.push(std::mem::take(&mut own.values))?;
        }
    }
    Ok(true)
}

/// Subtracts from a panel what a finished one before it takes from it.
fn subtract(open: &mut Panel, finished: MatRef<'_, f64>) {
    let own = finished.subrows(finished.nrows() - open.rows, open.rows);
    let open = open.matrix();
    let top = own.subrows(0, open.ncols());
    matmul(open, Accum::Add, own, top.transpose(), -1.0, Par::rayon(0));
}

/// Factors a panel from which all before it are subtracted.
fn finish(panel: &mut Panel) -> Result<(), Error> {
    let matrix = panel.matrix();
    let columns = matrix.ncols();
    let (mut top, below) = matrix.split_at_row_mut(columns);
    let mut scratch = MemBuffer::new(cholesky_in_place_scratch::<f64>(columns, Par::Seq, Default::default()));
    let stack = MemStack::new(&mut scratch);
    cholesky_in_place(top.as_mut(), Default::default(), Par::Seq, stack, Default::default())
        .map_err(|_| "ease: the matrix of items is not positive definite; raise the regularization")?;
    solve_lower_triangular_in_place(top.as_ref(), below.transpose_mut(), Par::rayon(0));
    Ok(())
}

/// Makes the inverse from the factor, a few blocks of columns at once, and offers it.
fn offer_inverse(
    n: usize,
    panels: &dyn Panels,
    found: &Candidates,
    at_once: usize,
    stop: &AtomicBool,
) -> Result<(), Error> {
    let floors: Vec<AtomicU32> = (0..n).map(|_| AtomicU32::new(f32::NEG_INFINITY.to_bits())).collect();
    let mut diagonal = vec![0.0; n];
    let count = n.div_ceil(WIDTH);
    // From the last columns to the first: those after a block have their diagonal already, and only rows from the block on
    // are needed, as the inverse is symmetric.
    let firsts: Vec<usize> = (0..count).rev().collect();
    for wave in firsts.chunks(at_once.max(1)) {
        let mut blocks: Vec<Block> = wave.iter().map(|&first| Block::new(first, n)).collect();
        let reached = wave[wave.len() - 1]..count;
        let forward = reached.clone().map(|panel| (panel, Block::forward as Step));
        for (panel, step) in forward.chain(reached.rev().map(|panel| (panel, Block::backward as Step))) {
            if stop.load(Relaxed) {
                return Ok(());
            }
            let values = panels.get(panel)?;
            let factor = view(&values, n - panel * WIDTH);
            blocks.par_iter_mut().filter(|block| block.first <= panel).for_each(|block| step(block, panel, factor));
        }
        for Block { first, columns } in &blocks {
            (0..columns.ncols()).for_each(|at| diagonal[first * WIDTH + at] = columns[(at, at)]);
        }
        let columns: Vec<(usize, &[f64])> =
            blocks.iter().flat_map(|block| (0..block.columns.ncols()).map(|at| block.column(at))).collect();
        columns.into_par_iter().for_each(|(j, column)| offer_column(j, column, &diagonal, found, &floors));
    }
    Ok(())
}

/// A block of columns of the inverse, from the row where the block begins: what is above it is 0 before the backward steps,
/// and not needed after them.
struct Block {
    /// The number of the panel of the same columns.
    first: usize,
    columns: Mat<f64>,
}

/// What a panel of the factor does to a block.
type Step = fn(&mut Block, usize, MatRef<'_, f64>);

impl Block {
    fn new(first: usize, n: usize) -> Self {
        let rows = n - first * WIDTH;
        let mut columns = Mat::<f64>::zeros(rows, WIDTH.min(rows));
        (0..columns.ncols()).for_each(|at| columns[(at, at)] = 1.0);
        Self { first, columns }
    }

    /// The rows of a panel's block at its top, and all below.
    fn rows(&mut self, panel: usize, of_panel: usize) -> (MatMut<'_, f64>, MatMut<'_, f64>) {
        let rest = self.columns.as_mut().split_at_row_mut((panel - self.first) * WIDTH).1;
        rest.split_at_row_mut(of_panel)
    }

    fn forward(&mut self, panel: usize, factor: MatRef<'_, f64>) {
        let (top, below) = factor.split_at_row(factor.ncols());
        let (mut own, rest) = self.rows(panel, factor.ncols());
        solve_lower_triangular_in_place(top, own.as_mut(), Par::Seq);
        matmul(rest, Accum::Add, below, own.as_ref(), -1.0, Par::Seq);
    }

    fn backward(&mut self, panel: usize, factor: MatRef<'_, f64>) {
        let (top, below) = factor.split_at_row(factor.ncols());
        let (mut own, rest) = self.rows(panel, factor.ncols());
        matmul(own.as_mut(), Accum::Add, below.transpose(), rest.as_ref(), -1.0, Par::Seq);
        solve_upper_triangular_in_place(top.transpose(), own.as_mut(), Par::Seq);
    }

    /// A column of the inverse and what it has from its diagonal on.
    fn column(&self, at: usize) -> (usize, &[f64]) {
        (self.first * WIDTH + at, &self.columns.col_as_slice(at)[at..])
    }
}

/// Offers what column j of the inverse, from its diagonal on, says of j and the items after it.
fn offer_column(j: usize, column: &[f64], diagonal: &[f64], found: &Candidates, floors: &[AtomicU32]) {
    let offer = |i: usize, j: usize, weight: f64| {
        let strength = weight.abs() as f32;
        if strength > 0.0 && strength >= f32::from_bits(floors[i].load(Relaxed)) {
            let floor = found.offer(i, strength, signed(j as u32, weight < 0.0));
            floors[i].store(floor.score.to_bits(), Relaxed);
        }
    };
    for (at, &p) in column.iter().enumerate().skip(1) {
        let i = j + at;
        offer(i, j, -p / diagonal[j]);
        offer(j, i, -p / diagonal[i]);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::csr::Slices;

    /// The inverse by Gauss and Jordan.
    fn inverse(mut a: Vec<Vec<f64>>) -> Vec<Vec<f64>> {
        let n = a.len();
        let mut b: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| f64::from(u8::from(i == j))).collect()).collect();
        for i in 0..n {
            let pivot = a[i][i];
            (0..n).for_each(|c| (a[i][c] /= pivot, b[i][c] /= pivot).0);
            for r in (0..n).filter(|r| *r != i) {
                let by = a[r][i];
                (0..n).for_each(|c| (a[r][c] -= by * a[i][c], b[r][c] -= by * b[i][c]).0);
            }
        }
        b
    }

    proptest! {
        #[test]
        fn weights_are_those_of_the_closed_form(
            triples in prop::collection::vec((0u32..9, 0u32..7, 1u8..5), 1..50), threads in 1usize..4
        ) {
            let codes: Vec<u32> = (0..9).collect();
            let (mut u, mut i, mut w) = (Vec::new(), Vec::new(), Vec::new());
            triples.iter().for_each(|&(user, item, weight)| (u.push(user), i.push(item), w.push(f32::from(weight))).0);
            let by_user = Slices { pieces: vec![(&u, &i, &w)], rows: &codes, columns: &codes };
            let by_item = Slices { pieces: vec![(&i, &u, &w)], rows: &codes, columns: &codes };
            let users = Csr::build(0..9, 7, &[&by_user]).unwrap();
            let items = Csr::build(0..7, 9, &[&by_item]).unwrap();
            let found = Candidates::new(7, (0..14).collect(), 0.0);
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let (mut panels, stop) = (Vec::new(), AtomicBool::new(false));
            pool.install(|| ease((&users, &items), 1.5, &found, &mut panels, threads, &stop)).unwrap();

            let mut x = [[0f64; 7]; 9];
            triples.iter().for_each(|&(user, item, weight)| x[user as usize][item as usize] += f64::from(weight));
            let dot = |a: usize, b: usize| x.iter().map(|row| row[a] * row[b]).sum::<f64>();
            let p = inverse((0..7).map(|a| (0..7).map(|b| dot(a, b) + 1.5 * f64::from(u8::from(a == b))).collect()).collect());
            for i in 0..7 {
                let mut weights = [0f64; 7];
                found.take(i, |strength, candidate| {
                    let strength = f64::from(strength);
                    weights[candidate as usize / 2] = if candidate % 2 == 1 { -strength } else { strength };
                });
                for j in (0..7).filter(|j| *j != i) {
                    prop_assert!((weights[j] + p[i][j] / p[j][j]).abs() < 1e-6, "{i} {j}: {weights:?}");
                }
                prop_assert_eq!(weights[i], 0.0);
            }
        }
    }

    /// Several panels, the last of them narrow, many at once or one by one, on one thread or more: the same bits, and the
    /// inverse of the matrix.
    #[test]
    fn panels_do_not_show() {
        let n = 2 * WIDTH + 40;
        let entries = |row: usize, columns: usize, at: &dyn Fn(usize, usize) -> bool| -> Vec<u64> {
            (0..columns).filter(|&column| at(row, column)).map(|column| entry::pack(column as u32, 1.0)).collect()
        };
        let has = |user: usize, item: usize| (user * 31 + item * 17 + user * item).is_multiple_of(11);
        let matrix = |rows: usize, columns: usize, at: &dyn Fn(usize, usize) -> bool| {
            let mut matrix = Csr { columns, offsets: vec![0], entries: Vec::new() };
            for row in 0..rows {
                matrix.entries.extend(entries(row, columns, at));
                matrix.offsets.push(matrix.entries.len());
            }
            matrix
        };
        let (users, items) = (matrix(100, n, &has), matrix(n, 100, &|item, user| has(user, item)));
        let weights = |at_once: usize, threads: usize| {
            let found = Candidates::new(n, (0..2 * n as u32).collect(), f32::MIN_POSITIVE);
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            let (mut panels, stop) = (Vec::new(), AtomicBool::new(false));
            pool.install(|| ease((&users, &items), 2.0, &found, &mut panels, at_once, &stop)).unwrap();
            let mut weights = vec![vec![0f32; n]; n];
            for (item, weights) in weights.iter_mut().enumerate() {
                found.take(item, |weight, other| {
                    weights[other as usize / 2] = if other % 2 == 1 { -weight } else { weight };
                });
            }
            weights
        };
        let one = weights(1, 1);
        assert!(one == weights(2, 3) && one == weights(9, 2));
        let gram = |a: usize, b: usize| {
            f64::from(u8::from(a == b)) * 2.0 + (0..100).filter(|&user| has(user, a) && has(user, b)).count() as f64
        };
        // Of each column j, -B_ij and 1 on the diagonal times the matrix is 1 / P_jj on the diagonal and 0 elsewhere.
        for (row, j) in [(3, 7), (WIDTH, 5), (500, n - 1), (0, WIDTH + 1)] {
            let of = |i: usize| if i == j { 1.0 } else { -f64::from(one[i][j]) };
            let sum: f64 = (0..n).map(|i| gram(row, i) * of(i)).sum();
            assert!(sum.abs() < 1e-4, "{row} {j}: {sum}");
        }
    }
}
