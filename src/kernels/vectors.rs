//! Vectors of singles, one for each row of something.

use rayon::prelude::*;

use super::cpu::{Cpu, Work};
use super::simd::{add_scaled, padded};

/// Rows that a task takes.
pub const ROWS_AT_ONCE: usize = 256;

/// Vectors of all rows one after the other, each filled up with zeros to a multiple of what is worked on at once.
#[derive(Debug, Clone, PartialEq)]
pub struct Vectors {
    /// The length without zeros.
    pub factors: usize,
    /// All of them.
    pub values: Vec<f32>,
}

impl Vectors {
    /// Random numbers from 0 to 1, the first `factors` of each vector, that depend on the seed and the place alone. The two
    /// sides of a factorisation get other numbers.
    pub fn random(rows: usize, factors: usize, seed: u64, side: u64) -> Self {
        let stride = padded(factors);
        let mut values = vec![0f32; rows * stride];
        values.par_chunks_mut(stride.max(1)).enumerate().for_each(|(row, vector)| {
            for (at, value) in vector[..factors].iter_mut().enumerate() {
                let place = (row * factors + at) as u64;
                let bits = mix(seed ^ mix(place.wrapping_mul(2) + side));
                // The upper 24 bits fill the mantissa of a single.
                *value = (bits >> 40) as f32 / (1u32 << 24) as f32;
            }
        });
        Self { factors, values }
    }

    /// Vectors of zeros.
    pub fn zeros(rows: usize, factors: usize) -> Self {
        Self { factors, values: vec![0f32; rows * padded(factors)] }
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

    /// A vector that is to be changed.
    pub fn row_mut(&mut self, row: usize) -> &mut [f32] {
        let stride = self.stride();
        &mut self.values[row * stride..(row + 1) * stride]
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
    /// Works on the threads of the current pool.
    pub fn square(&self, diagonal: f32) -> Vec<f32> {
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
pub fn mix(number: u64) -> u64 {
    let mut hash = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

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
