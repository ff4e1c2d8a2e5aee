//! Alternating least squares on implicit feedback (Hu, Koren and Volinsky 2008).
//!
//! A weight `w` of user u for item i is the confidence `c = 1 + alpha w` in the preference 1; all other pairs have confidence
//! 1 in the preference 0. In turn the vectors of users and of items become the minimum of
//! `Σ c (p - x·y)² + regularization (Σ |x|² + Σ |y|²)` while the others stand still. Each vector is moved towards it by a few
//! steps of conjugate gradients from where it was (Takács, Pilászy and Tikk 2011), which never writes down its matrix.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::cpu::{Cpu, Work};
use super::csr::{Csr, entry};
use super::prefetch::prefetch;
use super::simd::{LANES, add_product, add_scaled, dot, padded};

/// What is asked of a factorisation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The length of vectors.
    pub factors: usize,
    /// How often both sides are moved.
    pub iterations: usize,
    /// What large vectors cost, above 0.
    pub regularization: f32,
    /// How much a weight adds to the confidence.
    pub alpha: f32,
    /// Another number begins elsewhere.
    pub seed: u64,
}

/// Vectors of all rows one after the other, each filled up with zeros to a multiple of what is worked on at once.
#[derive(Debug, Clone, PartialEq)]
pub struct Vectors {
    /// The length without zeros.
    pub factors: usize,
    /// All of them.
    pub values: Vec<f32>,
}

impl Vectors {
    /// Small random numbers that depend on the seed, the side and the place alone.
    fn random(rows: usize, settings: &Settings, side: u64) -> Self {
        let stride = padded(settings.factors);
        let mut values = vec![0f32; rows * stride];
        values.par_chunks_mut(stride.max(1)).enumerate().for_each(|(row, vector)| {
            for (at, value) in vector[..settings.factors].iter_mut().enumerate() {
                let place = (row * settings.factors + at) as u64;
                let bits = mix(settings.seed ^ mix(place.wrapping_mul(2) + side));
                // The upper 24 bits fill the mantissa of a single.
                *value = (bits >> 40) as f32 / (1u32 << 24) as f32 * 0.01;
            }
        });
        Self { factors: settings.factors, values }
    }

    /// The distance from one vector to the next.
    pub fn stride(&self) -> usize {
        padded(self.factors)
    }

    /// A vector with the zeros that fill it up.
    #[inline(always)]
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.stride()..(row + 1) * self.stride()]
    }

    /// The bytes that they take.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.values[..])
    }

    /// The bytes that so many vectors take.
    pub fn bytes_for(rows: usize, factors: usize) -> usize {
        rows * padded(factors) * size_of::<f32>()
    }

    /// `Σ y yᵀ + diagonal`, row by row. Sums are taken in groups of rows that do not depend on threads.
    fn square(&self, diagonal: f32) -> Vec<f32> {
        let (stride, cpu) = (self.stride(), Cpu::detect());
        let groups = self.values.par_chunks(stride.max(1) * ROWS_AT_ONCE);
        let sums: Vec<Vec<f32>> = groups.map(|rows| cpu.run(Square { rows, stride })).collect();
        let mut total = vec![0f64; stride * stride];
        for sum in sums {
            total.iter_mut().zip(sum).for_each(|(total, value)| *total += f64::from(value));
        }
        (0..stride).for_each(|at| total[at * stride + at] += f64::from(diagonal));
        total.into_iter().map(|value| value as f32).collect()
    }
}

/// A one-to-one hash of a number (the finalizer of SplitMix64).
fn mix(number: u64) -> u64 {
    let mut hash = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

/// Vectors of users and of items; `users` has users by items and `items` the same by items. `go_on` is asked before each
/// iteration. Works on all threads of the current pool; the result does not depend on their number.
pub fn factorize(users: &Csr, items: &Csr, settings: &Settings, go_on: impl Fn() -> bool) -> (Vectors, Vectors) {
    let mut x = Vectors::random(users.rows(), settings, 0);
    let mut y = Vectors::random(items.rows(), settings, 1);
    for _ in 0..settings.iterations {
        if !go_on() {
            break;
        }
        improve(&mut x, users, &y, settings);
        improve(&mut y, items, &x, settings);
    }
    (x, y)
}

/// The bytes that factorising so many rows takes beside the matrices, the longest of which has so many entries.
pub fn bytes_for(rows: usize, longest: usize, factors: usize, threads: usize) -> usize {
    let near = threads * Vectors::bytes_for(longest, factors);
    Vectors::bytes_for(rows, factors) + near + (threads + 3) * padded(factors).pow(2) * size_of::<f64>()
}

/// Moves the vectors of rows towards their minimum.
fn improve(x: &mut Vectors, rows: &Csr, y: &Vectors, settings: &Settings) {
    let square = y.square(settings.regularization);
    let (stride, cpu) = (x.stride(), Cpu::detect());
    if stride == 0 {
        return;
    }
    x.values.par_chunks_mut(stride * ROWS_AT_ONCE).enumerate().for_each(|(group, vectors)| {
        cpu.run(Improve { first: group * ROWS_AT_ONCE, vectors, rows, y, square: &square, alpha: settings.alpha });
    });
}

/// Rows that a task takes.
const ROWS_AT_ONCE: usize = 256;
/// Steps of conjugate gradients.
const STEPS: usize = 3;
/// Vectors that are taken together; as many are fetched ahead.
const AT_ONCE: usize = 8;

struct Square<'a> {
    rows: &'a [f32],
    stride: usize,
}

impl Work for Square<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run(self) -> Vec<f32> {
        let mut sum = vec![0f32; self.stride * self.stride];
        for row in self.rows.chunks_exact(self.stride) {
            for (at, &factor) in row.iter().enumerate() {
                add_scaled(&mut sum[at * self.stride..(at + 1) * self.stride], factor, row);
            }
        }
        sum
    }
}

/// A group of rows to be improved.
struct Improve<'a> {
    first: usize,
    vectors: &'a mut [f32],
    rows: &'a Csr,
    y: &'a Vectors,
    square: &'a [f32],
    alpha: f32,
}

impl Work for Improve<'_> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        let stride = self.y.stride();
        let vectors = std::mem::take(&mut self.vectors);
        let mut scratch = [vec![0f32; stride], vec![0f32; stride], vec![0f32; stride]];
        let mut near = Vec::new();
        for (at, x) in vectors.chunks_exact_mut(stride).enumerate() {
            let row = self.rows.row(self.first + at);
            if row.is_empty() {
                // Without any preference the minimum is 0.
                x.fill(0.0);
                continue;
            }
            // What is read four times had better be near.
            self.gather(row, &mut near);
            let [residual, direction, image] = &mut scratch;
            // b - A x, with the vectors of the row read once.
            self.times_square(x, image);
            residual.iter_mut().zip(image.iter()).for_each(|(r, a)| *r = -a);
            self.add_vectors(row, &near, x, residual, |more, dot| 1.0 + more - more * dot);
            direction.copy_from_slice(residual);
            let mut left = dot(residual, residual);
            for _ in 0..STEPS {
                if left < 1e-20 {
                    break;
                }
                self.times_square(direction, image);
                self.add_vectors(row, &near, direction, image, |more, dot| more * dot);
                let step = left / dot(direction, image);
                add_scaled(x, step, direction);
                add_scaled(residual, -step, image);
                let next = dot(residual, residual);
                let keep = next / left;
                direction.iter_mut().zip(residual.iter()).for_each(|(d, r)| *d = r + keep * *d);
                left = next;
            }
        }
    }
}

impl Improve<'_> {
    #[inline(always)]
    fn times_square(&self, x: &[f32], out: &mut [f32]) {
        for (chunk, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let mut sums = [0f32; LANES];
            for (row, &factor) in self.square.chunks_exact(x.len()).zip(x) {
                sums = add_product(sums, factor, &row.as_chunks::<LANES>().0[chunk]);
            }
            *out = sums;
        }
    }

    /// Copies the vectors of a row's columns one after the other.
    #[inline(always)]
    fn gather(&self, row: &[u64], near: &mut Vec<f32>) {
        near.clear();
        for (at, &e) in row.iter().enumerate() {
            if let Some(&ahead) = row.get(at + AT_ONCE) {
                prefetch(self.y.row(entry::column(ahead) as usize));
            }
            near.extend_from_slice(self.y.row(entry::column(e) as usize));
        }
    }

    /// Adds to `sum` the vector of each entry of a row, times what `factor` makes of the entry's confidence beyond 1 and of
    /// the vector's inner product with x. A few vectors are taken together, so that sums stay in registers.
    #[inline(always)]
    fn add_vectors(&self, row: &[u64], near: &[f32], x: &[f32], sum: &mut [f32], factor: impl Fn(f32, f32) -> f32) {
        let stride = x.len();
        for (entries, near) in row.chunks(AT_ONCE).zip(near.chunks(AT_ONCE * stride)) {
            let vector = |at: usize| &near[at * stride..(at + 1) * stride];
            // Missing entries are the first again, and count nothing.
            let vectors: [&[f32]; AT_ONCE] = std::array::from_fn(|at| vector(if at < entries.len() { at } else { 0 }));
            let mut factors = [0f32; AT_ONCE];
            for ((out, &e), y) in factors.iter_mut().zip(entries).zip(&vectors) {
                *out = factor(self.alpha * entry::value(e), dot(y, x));
            }
            for (chunk, sum) in sum.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
                let mut added = *sum;
                for (y, factor) in vectors.iter().zip(factors) {
                    added = add_product(added, factor, &y.as_chunks::<LANES>().0[chunk]);
                }
                *sum = added;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csr::Slices;

    fn matrices(triples: &[(u32, u32, f32)], users: usize, items: usize) -> (Csr, Csr) {
        let codes: Vec<u32> = (0..users.max(items) as u32).collect();
        let u: Vec<u32> = triples.iter().map(|t| t.0).collect();
        let i: Vec<u32> = triples.iter().map(|t| t.1).collect();
        let w: Vec<f32> = triples.iter().map(|t| t.2).collect();
        let by_user = Slices { pieces: vec![(&u, &i, &w)], rows: &codes, columns: &codes };
        let by_item = Slices { pieces: vec![(&i, &u, &w)], rows: &codes, columns: &codes };
        (Csr::build(0..users, items, &[&by_user]).unwrap(), Csr::build(0..items, users, &[&by_item]).unwrap())
    }

    const SETTINGS: Settings = Settings { factors: 5, iterations: 30, regularization: 0.5, alpha: 2.0, seed: 7 };

    /// What is to be minimal, over all pairs.
    fn loss(users: &Csr, x: &Vectors, y: &Vectors, items: usize) -> f64 {
        let mut loss = 0.0;
        for user in 0..users.rows() {
            for item in 0..items {
                let entry = users.row(user).iter().find(|&&e| entry::column(e) as usize == item);
                let weight = entry.map_or(0.0, |&e| entry::value(e));
                let preference = f32::from(u8::from(entry.is_some()));
                let error = preference - dot(x.row(user), y.row(item));
                loss += f64::from((1.0 + SETTINGS.alpha * weight) * error * error);
            }
        }
        let squares = |v: &Vectors| v.values.iter().map(|&v| f64::from(v * v)).sum::<f64>();
        loss + f64::from(SETTINGS.regularization) * (squares(x) + squares(y))
    }

    #[test]
    fn a_minimum_for_each_side() {
        let triples: Vec<(u32, u32, f32)> =
            (0..60u32).map(|n| (n * 7 % 12, n * 11 % 9, 1.0 + (n % 3) as f32)).collect();
        let (users, items) = matrices(&triples, 12, 9);
        let (x, y) = factorize(&users, &items, &SETTINGS, || true);
        let least = loss(&users, &x, &y, 9);
        for at in 0..x.values.len() {
            for by in [-0.05, 0.05] {
                let mut other = x.clone();
                if at % other.stride() < SETTINGS.factors {
                    other.values[at] += by;
                    assert!(loss(&users, &other, &y, 9) > least - 1e-3, "{at} {by}");
                }
            }
        }
    }

    #[test]
    fn threads_do_not_show() {
        let triples: Vec<(u32, u32, f32)> = (0..6000u32).map(|n| (n * 7 % 900, n * 11 % 700, 1.0)).collect();
        let (users, items) = matrices(&triples, 900, 700);
        let settings = Settings { iterations: 2, ..SETTINGS };
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| factorize(&users, &items, &settings, || true))
        };
        assert_eq!(with(1), with(3));
    }

    #[test]
    fn nothing_to_factorise() {
        let (users, items) = matrices(&[], 3, 2);
        let (x, y) = factorize(&users, &items, &SETTINGS, || true);
        assert!(x.values.iter().chain(&y.values).all(|value| *value == 0.0));
        let (users, items) = matrices(&[(0, 0, 1.0)], 1, 1);
        let (x, y) = factorize(&users, &items, &SETTINGS, || true);
        assert!(dot(x.row(0), y.row(0)) > 0.5, "more factors than items");
    }
}
