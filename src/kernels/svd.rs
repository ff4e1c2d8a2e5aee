//! The largest singular values of a matrix of users and items, normalised by degrees, by random projection (Halko, Martinsson
//! and Tropp 2011, with subspace iteration).
//!
//! With `d` the sums of the weights of a user or an item, `R̃ = D_u^-a R D_i^-b ≈ U S Vᵀ`. The vector of user u is
//! `d_u^a S^power U_u`, that of item i is `d_i^b V_i`: with power 1 their inner products are the best approximation of R of
//! that rank, in the metric of the degrees. With a = b = 1/2 this is the ideal low-pass filter of GF-CF (Shen et al. 2021).

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::householder::{
    apply_block_householder_sequence_on_the_left_in_place_scratch as apply_scratch,
    apply_block_householder_sequence_on_the_left_in_place_with_conj as apply,
};
use faer::linalg::qr::no_pivoting::factor::{qr_in_place, qr_in_place_scratch, recommended_block_size};
use faer::{Conj, Mat, MatRef, Par, Side};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::Error;
use super::cpu::{Cpu, Work};
use super::csr::{Csr, entry};
use super::prefetch::prefetch;
use super::simd::{add_scaled, padded};
use super::vectors::{ROWS_AT_ONCE, Vectors};

/// What is asked of a decomposition.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The singular values that are looked for.
    pub factors: usize,
    /// How often the space that they are looked for in is improved.
    pub iterations: usize,
    /// By which power of their degrees users' rows are divided.
    pub a: f32,
    /// By which power of their degrees items' columns are divided.
    pub b: f32,
    /// The power of the singular values that goes into users' vectors.
    pub power: f32,
    /// Another number begins elsewhere.
    pub seed: u64,
}

/// Directions beside those that are wanted, which make these sharper.
const MORE: usize = 10;

/// The bytes that it takes beside the matrices.
pub fn bytes_for(users: usize, items: usize, settings: &Settings) -> usize {
    let width = settings.factors + MORE;
    2 * Vectors::bytes_for(users + items, width) + 2 * items * width * size_of::<f64>()
}

/// Vectors of users and of items; `users` has users by items and `items` the same by items, all weights at least 0. `go_on`
/// is asked between iterations. Works on all threads of the current pool; the result does not depend on their number.
pub fn factorize(
    users: &Csr,
    items: &Csr,
    settings: &Settings,
    go_on: impl Fn() -> bool,
) -> Result<(Vectors, Vectors), Error> {
    let width = (settings.factors + MORE).min(items.rows()).min(users.rows());
    let (of_users, of_items) = (degrees(users), degrees(items));
    let divisors = (powers(&of_users, -settings.a), powers(&of_items, -settings.b));
    let mut space = Vectors::random(items.rows(), width, settings.seed, 0);
    space.values.iter_mut().for_each(|value| *value -= if *value == 0.0 { 0.0 } else { 0.5 });
    orthogonalise(&mut space);
    for _ in 0..settings.iterations {
        if !go_on() {
            break;
        }
        let reached = multiply(users, &divisors.0, &divisors.1, &space);
        space = multiply(items, &divisors.1, &divisors.0, &reached);
        orthogonalise(&mut space);
    }
    let reached = multiply(users, &divisors.0, &divisors.1, &space);
    let square = square(&reached);
    let (values, turn) = match width {
        0 => (Vec::new(), Mat::zeros(0, 0)),
        _ => largest(square.as_ref(), settings.factors, items.rows())?,
    };
    let scales: Vec<f64> = values.iter().map(|value| value.powf(f64::from(settings.power - 1.0))).collect();
    let own = turned(&reached, &turn, &scales, &powers(&of_users, settings.a), settings.factors);
    let others = turned(&space, &turn, &vec![1.0; values.len()], &powers(&of_items, settings.b), settings.factors);
    Ok((own, others))
}

/// The sum of the weights of each row.
fn degrees(rows: &Csr) -> Vec<f64> {
    (0..rows.rows()).map(|row| rows.row(row).iter().map(|&e| f64::from(entry::value(e))).sum()).collect()
}

fn powers(degrees: &[f64], power: f32) -> Vec<f32> {
    let power = |&degree: &f64| if degree > 0.0 { degree.powf(f64::from(power)) as f32 } else { 0.0 };
    degrees.iter().map(power).collect()
}

/// `Σ y yᵀ` in doubles. Sums are taken in groups of rows that do not depend on threads.
fn square(vectors: &Vectors) -> Mat<f64> {
    let width = vectors.factors;
    let groups: Vec<&[f32]> = vectors.values.chunks(vectors.stride().max(1) * 16 * ROWS_AT_ONCE).collect();
    let of_group = |rows: &&[f32]| {
        let mut sum = Mat::<f64>::zeros(width, width);
        for row in rows.chunks_exact(vectors.stride()) {
            for j in 0..width {
                let factor = f64::from(row[j]);
                sum.col_as_slice_mut(j).iter_mut().zip(row).for_each(|(sum, &value)| *sum += factor * f64::from(value));
            }
        }
        sum
    };
    let sums: Vec<Mat<f64>> = groups.par_iter().map(of_group).collect();
    sums.into_iter().fold(Mat::zeros(width, width), |total, sum| total + sum)
}

/// The singular values above rounding, largest first, at most so many; and by columns the turns of the space towards their
/// directions, from the square of what the space reaches.
fn largest(square: MatRef<'_, f64>, most: usize, rows: usize) -> Result<(Vec<f64>, Mat<f64>), Error> {
    let solved = square.self_adjoint_eigen(Side::Lower).map_err(|e| format!("no singular values were found: {e:?}"))?;
    let (squares, directions) = (solved.S().column_vector(), solved.U());
    let n = square.nrows();
    let floor = squares[n - 1].max(0.0) * f64::from(f32::EPSILON).powi(2) * rows as f64;
    let kept: Vec<usize> = (0..n).rev().take(most).filter(|&at| squares[at] > floor).collect();
    let values = kept.iter().map(|&at| squares[at].sqrt()).collect();
    Ok((values, Mat::from_fn(n, kept.len(), |row, at| directions[(row, kept[at])])))
}

/// The vectors turned, each direction and each row scaled; directions that are not there are zeros.
fn turned(vectors: &Vectors, turn: &Mat<f64>, directions: &[f64], rows: &[f32], factors: usize) -> Vectors {
    let mut out = Vectors::zeros(rows.len(), factors);
    let stride = out.stride();
    out.values.par_chunks_mut(stride.max(1)).enumerate().for_each(|(row, to)| {
        let from = vectors.row(row);
        for (at, scale) in directions.iter().enumerate() {
            let sum: f64 = (0..turn.nrows()).map(|k| f64::from(from[k]) * turn[(k, at)]).sum();
            to[at] = (sum * scale * f64::from(rows[row])) as f32;
        }
    });
    out
}

/// A matrix, its rows and columns scaled, times vectors of its columns.
fn multiply(matrix: &Csr, rows: &[f32], columns: &[f32], vectors: &Vectors) -> Vectors {
    let mut out = Vectors::zeros(matrix.rows(), vectors.factors);
    let (stride, cpu) = (vectors.stride().max(1), Cpu::detect());
    out.values.par_chunks_mut(stride * ROWS_AT_ONCE).enumerate().for_each(|(group, out)| {
        cpu.run(Multiply { first: group * ROWS_AT_ONCE, matrix, rows, columns, vectors, out });
    });
    out
}

struct Multiply<'a> {
    first: usize,
    matrix: &'a Csr,
    rows: &'a [f32],
    columns: &'a [f32],
    vectors: &'a Vectors,
    out: &'a mut [f32],
}

impl Work for Multiply<'_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        for (at, out) in self.out.chunks_exact_mut(self.vectors.stride()).enumerate() {
            let row = self.matrix.row(self.first + at);
            for (next, &e) in row.iter().enumerate() {
                if let Some(&ahead) = row.get(next + 8) {
                    prefetch(self.vectors.row(entry::column(ahead) as usize));
                }
                let column = entry::column(e) as usize;
                add_scaled(out, entry::value(e) * self.columns[column], self.vectors.row(column));
            }
            out.iter_mut().for_each(|value| *value *= self.rows[self.first + at]);
        }
    }
}

/// Makes the directions of the vectors orthogonal and of length 1.
fn orthogonalise(vectors: &mut Vectors) {
    let (n, width) = (vectors.values.len() / padded(vectors.factors).max(1), vectors.factors);
    if width == 0 {
        return;
    }
    let mut matrix = Mat::from_fn(n, width, |row, at| f64::from(vectors.row(row)[at]));
    let block = recommended_block_size::<f64>(n, width);
    let mut coefficients = Mat::zeros(block, width);
    let (par, params) = (Par::Seq, Default::default());
    let mut scratch = MemBuffer::new(qr_in_place_scratch::<f64>(n, width, block, par, params));
    qr_in_place(matrix.as_mut(), coefficients.as_mut(), par, MemStack::new(&mut scratch), params);
    let mut basis = Mat::<f64>::identity(n, width);
    let mut scratch = MemBuffer::new(apply_scratch::<f64>(n, block, width));
    apply(matrix.as_ref(), coefficients.as_ref(), Conj::No, basis.as_mut(), par, MemStack::new(&mut scratch));
    for row in 0..n {
        vectors.row_mut(row)[..width].iter_mut().enumerate().for_each(|(at, to)| *to = basis[(row, at)] as f32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csr::testing::matrices;
    use crate::simd::dot;

    const SETTINGS: Settings = Settings { factors: 64, iterations: 4, a: 0.5, b: 0.5, power: 1.0, seed: 3 };

    fn some() -> Vec<(u32, u32, f32)> {
        (0..400u32).map(|n| (n * 7 % 31, n * n % 23, 1.0 + (n * 5 % 4) as f32)).collect()
    }

    #[test]
    fn with_all_singular_values_the_matrix_comes_back() {
        let (users, items) = matrices(&some(), 31, 23);
        for (a, b) in [(0.5, 0.5), (0.0, 0.0), (0.2, 1.0)] {
            let settings = Settings { a, b, ..SETTINGS };
            let (x, y) = factorize(&users, &items, &settings, || true).unwrap();
            for user in 0..31 {
                for item in 0..23u32 {
                    let entry = users.row(user).iter().find(|&&e| entry::column(e) == item);
                    let weight = entry.map_or(0.0, |&e| entry::value(e));
                    let product = dot(x.row(user), y.row(item as usize));
                    assert!((weight - product).abs() < 1e-3, "{user} {item}: {weight} {product}");
                }
            }
        }
    }

    #[test]
    fn the_largest_singular_values_by_their_power() {
        let (users, items) = matrices(&some(), 31, 23);
        let dense = Mat::<f64>::from_fn(31, 23, |user, item| {
            let entry = users.row(user).iter().find(|&&e| entry::column(e) as usize == item);
            entry.map_or(0.0, |&e| f64::from(entry::value(e)))
        });
        let values = dense.singular_values().unwrap();
        for power in [0.0, 1.0, 2.0] {
            let settings = Settings { factors: 5, iterations: 12, a: 0.0, b: 0.0, power, ..SETTINGS };
            let (x, _) = factorize(&users, &items, &settings, || true).unwrap();
            for (at, value) in values.iter().take(5).enumerate() {
                let length = (0..31).map(|user| f64::from(x.row(user)[at]).powi(2)).sum::<f64>().sqrt();
                let expected = value.powf(f64::from(power));
                assert!((length / expected - 1.0).abs() < 1e-3, "{power} {at}: {length} {expected}");
            }
        }
    }

    #[test]
    fn threads_do_not_show() {
        let triples: Vec<(u32, u32, f32)> = (0..9000u32).map(|n| (n * 7 % 900, n * n % 701, 1.0)).collect();
        let (users, items) = matrices(&triples, 900, 701);
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| factorize(&users, &items, &SETTINGS, || true).unwrap())
        };
        assert!(with(1) == with(3));
    }

    #[test]
    fn little_to_decompose() {
        for triples in [vec![], vec![(0, 0, 2.0)], vec![(0, 0, 0.0)]] {
            let (users, items) = matrices(&triples, 3, 2);
            let (x, y) = factorize(&users, &items, &SETTINGS, || true).unwrap();
            assert!(x.values.iter().chain(&y.values).all(|value| value.is_finite()));
            let weight = triples.first().map_or(0.0, |triple| triple.2);
            assert!((dot(x.row(0), y.row(0)) - weight).abs() < 1e-5);
        }
        let (users, items) = matrices(&[], 0, 0);
        assert!(factorize(&users, &items, &SETTINGS, || true).unwrap().0.values.is_empty());
    }
}
