//! Least squares of one row at a time: `A x = b` with `A = base + Σ more y yᵀ` and `b = Σ target y` over the row's vectors y.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor::{cholesky_in_place, cholesky_in_place_scratch};
use faer::linalg::triangular_solve::{solve_lower_triangular_in_place, solve_upper_triangular_in_place};
use faer::{Mat, Par};

use super::simd::{LANES, add_product, add_scaled, dot};

/// Steps of conjugate gradients.
const STEPS: usize = 3;
/// Vectors that are taken together; as many are fetched ahead.
pub const AT_ONCE: usize = 8;

/// The least squares of one row: `A x = b` with `A = base + Σ more y yᵀ` and `b = Σ target y` over the row's vectors.
#[derive(Default)]
pub struct Equation {
    /// The vectors one after the other: what is read often had better be near.
    pub near: Vec<f32>,
    /// How much each counts in the matrix.
    pub more: Vec<f32>,
    /// How much each counts on the right side.
    pub target: Vec<f32>,
    /// What is on the diagonal where there is no square.
    pub diagonal: f32,
}

impl Equation {
    /// A few steps of conjugate gradients.
    #[inline(always)]
    pub fn step(&self, square: &[f32], x: &mut [f32], scratch: &mut [Vec<f32>; 3]) {
        let [residual, direction, image] = scratch;
        // b - A x, with the vectors of the row read once.
        self.times_base(square, x, image);
        residual.iter_mut().zip(image.iter()).for_each(|(r, a)| *r = -a);
        self.add_vectors(x, residual, |target, more, dot| target - more * dot);
        direction.copy_from_slice(residual);
        let mut left = dot(residual, residual);
        for _ in 0..STEPS {
            if left < 1e-20 {
                break;
            }
            self.times_base(square, direction, image);
            self.add_vectors(direction, image, |_, more, dot| more * dot);
            let step = left / dot(direction, image);
            add_scaled(x, step, direction);
            add_scaled(residual, -step, image);
            let next = dot(residual, residual);
            let keep = next / left;
            direction.iter_mut().zip(residual.iter()).for_each(|(d, r)| *d = r + keep * *d);
            left = next;
        }
    }

    #[inline(always)]
    fn times_base(&self, square: &[f32], x: &[f32], out: &mut [f32]) {
        if square.is_empty() {
            out.iter_mut().zip(x).for_each(|(out, x)| *out = self.diagonal * x);
            return;
        }
        for (chunk, out) in out.as_chunks_mut::<LANES>().0.iter_mut().enumerate() {
            let mut sums = [0f32; LANES];
            for (row, &factor) in square.chunks_exact(x.len()).zip(x) {
                sums = add_product(sums, factor, &row.as_chunks::<LANES>().0[chunk]);
            }
            *out = sums;
        }
    }

    /// Adds to `sum` each of the row's vectors, times what `factor` makes of its target, its `more` and its inner product
    /// with x. A few vectors are taken together, so that sums stay in registers.
    #[inline(always)]
    fn add_vectors(&self, x: &[f32], sum: &mut [f32], factor: impl Fn(f32, f32, f32) -> f32) {
        let stride = x.len();
        let terms = self.target.chunks(AT_ONCE).zip(self.more.chunks(AT_ONCE));
        for ((target, more), near) in terms.zip(self.near.chunks(AT_ONCE * stride)) {
            let vector = |at: usize| &near[at * stride..(at + 1) * stride];
            // Missing vectors are the first again, and count nothing.
            let vectors: [&[f32]; AT_ONCE] = std::array::from_fn(|at| vector(if at < more.len() { at } else { 0 }));
            let mut factors = [0f32; AT_ONCE];
            for (((out, &target), &more), y) in factors.iter_mut().zip(target).zip(more).zip(&vectors) {
                *out = factor(target, more, dot(y, x));
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

/// Room for an equation to be written down and solved.
pub struct Cholesky {
    sum: Vec<f32>,
    matrix: Mat<f64>,
    solution: Mat<f64>,
    scratch: MemBuffer,
}

impl Cholesky {
    /// For vectors of this stride.
    pub fn new(stride: usize) -> Self {
        Self {
            sum: vec![0f32; stride * stride],
            matrix: Mat::zeros(stride, stride),
            solution: Mat::zeros(stride, 1),
            scratch: MemBuffer::new(cholesky_in_place_scratch::<f64>(stride, Par::Seq, Default::default())),
        }
    }

    /// Puts the solution into x; false where rounding has left no positive definite matrix.
    #[inline(always)]
    pub fn solve(&mut self, square: &[f32], equation: &Equation, x: &mut [f32]) -> bool {
        let mut right = vec![0f64; x.len()];
        for (y, &target) in equation.near.chunks_exact(x.len()).zip(&equation.target) {
            right.iter_mut().zip(y).for_each(|(sum, y)| *sum += f64::from(target) * f64::from(*y));
        }
        self.solve_for(square, equation, right, x)
    }

    /// The same with another right side.
    #[inline(always)]
    pub fn solve_for(&mut self, square: &[f32], equation: &Equation, right: Vec<f64>, x: &mut [f32]) -> bool {
        let stride = x.len();
        if square.is_empty() {
            self.sum.fill(0.0);
            (0..stride).for_each(|at| self.sum[at * stride + at] = equation.diagonal);
        } else {
            self.sum.copy_from_slice(square);
        }
        for (y, &more) in equation.near.chunks_exact(stride).zip(&equation.more) {
            for (row, &factor) in self.sum.chunks_exact_mut(stride).zip(y) {
                add_scaled(row, more * factor, y);
            }
        }
        for at in 0..stride {
            let row = &self.sum[at * stride..(at + 1) * stride];
            row.iter().enumerate().for_each(|(column, &value)| self.matrix[(at, column)] = f64::from(value));
            // Numbers that only fill vectors up have nothing to say.
            if row[at] == 0.0 {
                self.matrix[(at, at)] = 1.0;
            }
            self.solution[(at, 0)] = right[at];
        }
        let stack = MemStack::new(&mut self.scratch);
        let done = cholesky_in_place(self.matrix.as_mut(), Default::default(), Par::Seq, stack, Default::default());
        if done.is_err() {
            return false;
        }
        solve_lower_triangular_in_place(self.matrix.as_ref(), self.solution.as_mut(), Par::Seq);
        solve_upper_triangular_in_place(self.matrix.transpose(), self.solution.as_mut(), Par::Seq);
        x.iter_mut().enumerate().for_each(|(at, x)| *x = self.solution[(at, 0)] as f32);
        true
    }
}
