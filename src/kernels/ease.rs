//! EASE: the item-item weights of a linear autoencoder with a zero diagonal, in closed form (Steck 2019).
//!
//! With `X` the matrix of users by items, `P = (XᵀX + λI)⁻¹`, the weight by which item i speaks for item j is
//! `B_ij = -P_ij / P_jj`. `XᵀX` is dense and takes 8 bytes for every pair of items; its Cholesky factor takes its place, and
//! the inverse is made from that a block of columns at a time, so nothing else is of that size.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor::{cholesky_in_place, cholesky_in_place_scratch};
use faer::linalg::triangular_solve::{solve_lower_triangular_in_place, solve_upper_triangular_in_place};
use faer::{Mat, MatMut, MatRef, Par};
use rayon::prelude::*;

use super::Error;
use super::csr::{Csr, entry};
use super::topk::Candidates;

/// Columns of the inverse that one thread makes at once.
const COLUMNS: usize = 256;

/// The bytes that so many items take beside their candidates.
pub fn bytes_for(items: usize, threads: usize) -> usize {
    (items * items + threads.max(1) * COLUMNS.min(items) * items + 2 * items) * size_of::<f64>()
}

/// Offers to `found` the weights of all pairs of items, by their absolute values, see [`signed`]. `users` has users by
/// items, `items` the same by items; `regularization` is λ, above 0. Works on all threads of the current pool, and ends
/// early when told to `stop`.
pub fn ease(users: &Csr, items: &Csr, regularization: f64, found: &Candidates, stop: &AtomicBool) -> Result<(), Error> {
    let n = items.rows();
    if n == 0 {
        return Ok(());
    }
    let mut gram = gram(users, items, regularization);
    factor(&mut gram, n)?;
    let factor = MatRef::from_column_major_slice(&gram, n, n);
    let floors: Vec<AtomicU32> = (0..n).map(|_| AtomicU32::new(f32::NEG_INFINITY.to_bits())).collect();
    let mut diagonal = vec![0.0; n];
    let starts: Vec<usize> = (0..n).step_by(COLUMNS).rev().collect();
    // From the last columns to the first: those after a block have their diagonal already, and only rows from the block on
    // are needed, as the inverse is symmetric.
    for wave in starts.chunks(rayon::current_num_threads().max(1)) {
        let blocks: Vec<(usize, Mat<f64>)> =
            wave.par_iter().map(|&start| (start, inverse_columns(factor, start))).collect();
        for (start, block) in &blocks {
            (0..block.ncols()).for_each(|column| diagonal[start + column] = block[(column, column)]);
        }
        let columns: Vec<(usize, &[f64])> = blocks
            .iter()
            .flat_map(|(start, block)| (0..block.ncols()).map(move |at| (start + at, column(block, at))))
            .collect();
        columns.into_par_iter().for_each(|(j, column)| {
            if !stop.load(Relaxed) {
                // The column begins at the row where its block begins.
                let first = n - column.len();
                offer_column(j, &column[j - first..], &diagonal, found, &floors);
            }
        });
    }
    Ok(())
}

/// A candidate's number and sign in one number, so that candidates can be kept by absolute weight.
pub fn signed(item: u32, negative: bool) -> u32 {
    2 * item + u32::from(negative)
}

/// `XᵀX + λI`, its lower triangle by columns.
fn gram(users: &Csr, items: &Csr, regularization: f64) -> Vec<f64> {
    let n = items.rows();
    let mut gram = vec![0f64; n * n];
    gram.par_chunks_mut(n).enumerate().for_each(|(j, column)| {
        for &of_item in items.row(j) {
            let row = users.row(entry::column(of_item) as usize);
            let weight = f64::from(entry::value(of_item));
            let from = row.partition_point(|&e| (entry::column(e) as usize) < j);
            for &e in &row[from..] {
                column[entry::column(e) as usize] += weight * f64::from(entry::value(e));
            }
        }
        column[j] += regularization;
    });
    gram
}

/// The Cholesky factor in place of the matrix.
fn factor(gram: &mut [f64], n: usize) -> Result<(), Error> {
    let par = Par::rayon(0);
    let params = Default::default();
    let mut scratch = MemBuffer::new(cholesky_in_place_scratch::<f64>(n, par, params));
    let matrix = MatMut::from_column_major_slice_mut(gram, n, n);
    let factored = cholesky_in_place(matrix, Default::default(), par, MemStack::new(&mut scratch), params);
    factored
        .map(drop)
        .map_err(|_| "ease: the matrix of items is not positive definite; raise the regularization".into())
}

/// The columns of a block of the inverse, from the row where the block begins.
fn inverse_columns(factor: MatRef<'_, f64>, start: usize) -> Mat<f64> {
    let rows = factor.nrows() - start;
    let mut block = Mat::<f64>::zeros(rows, COLUMNS.min(rows));
    (0..block.ncols()).for_each(|at| block[(at, at)] = 1.0);
    // What is above the block is 0 before the backward step, and not needed after it.
    let own = factor.submatrix(start, start, rows, rows);
    solve_lower_triangular_in_place(own, block.as_mut(), Par::Seq);
    solve_upper_triangular_in_place(own.transpose(), block.as_mut(), Par::Seq);
    block
}

fn column(block: &Mat<f64>, at: usize) -> &[f64] {
    block.col_as_slice(at)
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
    use crate::topk::Order;

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
            let found = Candidates::new(7, Order::new((0..14).collect()), 0.0);
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| ease(&users, &items, 1.5, &found, &AtomicBool::new(false))).unwrap();

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
}
