//! Alternating least squares: vectors of users, then of items, become the best while the others stand still.
//!
//! With implicit feedback (Hu, Koren and Volinsky 2008) a weight `w` of user u for item i is the confidence `c = 1 + alpha w`
//! in the preference 1; all other pairs have confidence 1 in the preference 0. What gets least is
//! `Σ c (p - x·y)² + regularization (Σ |x|² + Σ |y|²)`.
//!
//! With explicit feedback a weight is a rating `r`, and only pairs that have one count:
//! `Σ (r - μ - b_u - b_i - x·y)² + regularization (Σ n_u (|x|² + b_u²) + Σ n_i (|y|² + b_i²))`, where μ is the mean rating and
//! `n` the number of ratings (Zhou et al. 2008). Biases stand in the vectors: that of a user is `(x, b_u, 1)`, that of an item
//! `(y, 1, μ + b_i)`, so that their inner product is the whole prediction, and the items' vectors alone say what a new user's
//! ratings are measured from.
//!
//! A vector's minimum is found exactly by a Cholesky factorisation, or neared by a few steps of conjugate gradients from where
//! the vector was (Takács, Pilászy and Tikk 2011), which never write down its matrix.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::cpu::{Cpu, Work};
use super::csr::{Csr, entry};
use super::least_squares::{AT_ONCE, Cholesky, Equation};
use super::prefetch::prefetch;
use super::simd::{dot, padded};
use super::vectors::{ROWS_AT_ONCE, Vectors};

/// What is asked of a factorisation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The factors of a vector, without the biases.
    pub factors: usize,
    /// How often both sides are moved.
    pub iterations: usize,
    /// What large vectors cost, above 0.
    pub regularization: f32,
    /// What weights mean.
    pub feedback: Feedback,
    /// How a vector is found.
    pub solver: Solver,
    /// Another number begins elsewhere.
    pub seed: u64,
}

/// What weights mean.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Feedback {
    /// How sure it is that the user likes the item.
    Implicit {
        /// How much a weight adds to the confidence.
        alpha: f32,
    },
    /// Ratings.
    Explicit,
}

/// How a vector is found while the others stand still.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Solver {
    /// By a few steps towards the minimum.
    ConjugateGradients,
    /// At the minimum.
    Cholesky,
}

impl Solver {
    /// All of them by name.
    pub const NAMES: [(&str, Self); 2] = [("cg", Self::ConjugateGradients), ("cholesky", Self::Cholesky)];
}

impl Settings {
    /// The numbers of a vector.
    pub fn width(&self) -> usize {
        self.factors + if self.feedback == Feedback::Explicit { 2 } else { 0 }
    }

    /// The settings by which vectors of this length are worked with, after they were found; `None` where they are too short.
    pub fn of_vectors(width: usize, feedback: Feedback, regularization: f32) -> Option<Self> {
        let biases = if feedback == Feedback::Explicit { 2 } else { 0 };
        let factors = width.checked_sub(biases).filter(|factors| *factors > 0)?;
        Some(Self { factors, iterations: 0, regularization, feedback, solver: Solver::Cholesky, seed: 0 })
    }

    /// Where vectors begin.
    fn begin(&self, rows: usize, side: Side) -> Vectors {
        let mut vectors = Vectors::random(rows, self.factors, self.seed, side as u64);
        match self.feedback {
            Feedback::Implicit { .. } => vectors.values.iter_mut().for_each(|value| *value *= 0.01),
            Feedback::Explicit => {
                let mut wide = Vectors::zeros(rows, self.width());
                for row in 0..rows {
                    let to = wide.row_mut(row);
                    to.iter_mut().zip(&vectors.row(row)[..self.factors]).for_each(|(to, from)| *to = 0.2 * from - 0.1);
                    to[self.factors + 1 - side as usize] = 1.0;
                }
                vectors = wide;
            }
        }
        vectors
    }
}

/// Whose vectors are moved.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Side {
    Users,
    Items,
}

/// Vectors of users and of items; `users` has users by items and `items` the same by items. `go_on` is asked before each
/// iteration. Works on all threads of the current pool; the result does not depend on their number.
pub fn factorize(users: &Csr, items: &Csr, settings: &Settings, go_on: impl Fn() -> bool) -> (Vectors, Vectors) {
    let mut x = settings.begin(users.rows(), Side::Users);
    let mut y = settings.begin(items.rows(), Side::Items);
    let mean = match settings.feedback {
        Feedback::Implicit { .. } => 0.0,
        Feedback::Explicit => mean(users),
    };
    for _ in 0..settings.iterations {
        if !go_on() {
            break;
        }
        improve(&mut x, users, &y, settings, (Side::Users, mean));
        improve(&mut y, items, &x, settings, (Side::Items, mean));
    }
    if settings.feedback == Feedback::Explicit {
        (0..items.rows()).for_each(|item| y.row_mut(item)[settings.factors + 1] += mean);
    }
    (x, y)
}

/// Vectors of users that were not there when those of items were found: each at its minimum while the items stand still.
pub fn fold_in(users: &Csr, items: &Vectors, settings: &Settings) -> Vectors {
    let mut x = Vectors::zeros(users.rows(), items.factors);
    // The mean of ratings is in the items' vectors.
    improve(&mut x, users, items, settings, (Side::Users, 0.0));
    x
}

/// What each of a user's items adds to the user's score of an item, at the minimum of the user's vector (Hu, Koren and Volinsky
/// 2008, section 5): with `A` the matrix of the user's equation, `c_i (y_i · A⁻¹ y_j)`. With ratings, what they are above the
/// last number of the item's vector, `μ + b_i`, takes the place of the confidence.
pub struct Reasons<'a> {
    items: &'a Vectors,
    square: &'a [f32],
    settings: Settings,
    cholesky: Cholesky,
}

impl<'a> Reasons<'a> {
    /// For scores by these vectors of items, with what [`Reasons::square`] gives for them.
    pub fn new(items: &'a Vectors, square: &'a [f32], settings: Settings) -> Self {
        Self { items, square, settings, cholesky: Cholesky::new(items.stride()) }
    }

    /// The part that all users' equations have in common. Works on the threads of the current pool.
    pub fn square(items: &Vectors, settings: &Settings) -> Vec<f32> {
        match settings.feedback {
            Feedback::Implicit { .. } => items.square(settings.regularization),
            Feedback::Explicit => Vec::new(),
        }
    }

    /// The share of each entry of a user's row in the score of an item.
    pub fn of(&mut self, row: &[u64], item: usize) -> Vec<(u32, f32)> {
        let (items, settings) = (self.items, &self.settings);
        let improve = Improve {
            first: 0,
            vectors: &mut [],
            rows: &NOBODY,
            y: items,
            square: &[],
            settings,
            side: Side::Users,
            // It is in the items' vectors.
            mean: 0.0,
        };
        let mut equation = Equation::default();
        improve.gather(row, &mut equation);
        let mut asked = items.row(item).to_vec();
        if settings.feedback == Feedback::Explicit {
            improve.take_biases(&mut equation, settings.factors + 1);
            asked[settings.factors + 1] = 0.0;
        }
        let mut image = vec![0f32; asked.len()];
        if !self.cholesky.solve_for(
            self.square,
            &equation,
            asked.iter().map(|&value| f64::from(value)).collect(),
            &mut image,
        ) {
            return Vec::new();
        }
        let vectors = equation.near.chunks_exact(asked.len());
        let share = |((&e, y), target): ((&u64, &[f32]), &f32)| (entry::column(e), target * dot(y, &image));
        row.iter().zip(vectors).zip(&equation.target).map(share).collect()
    }
}

/// Rows of nobody, where only the vectors of items are asked.
static NOBODY: Csr = Csr { columns: 0, offsets: Vec::new(), entries: Vec::new() };

/// The mean of all entries.
fn mean(matrix: &Csr) -> f32 {
    let sum: f64 = matrix.entries.iter().map(|&e| f64::from(entry::value(e))).sum();
    (sum / matrix.entries.len().max(1) as f64) as f32
}

/// The bytes that factorising so many rows takes beside the matrices, the longest of which has so many entries.
pub fn bytes_for(rows: usize, longest: usize, settings: &Settings, threads: usize) -> usize {
    let width = settings.width();
    let near = threads * (Vectors::bytes_for(longest, width) + 2 * longest * size_of::<f32>());
    Vectors::bytes_for(rows, width) + near + (2 * threads + 3) * padded(width).pow(2) * size_of::<f64>()
}

/// Moves the vectors of rows towards their minimum.
fn improve(x: &mut Vectors, rows: &Csr, y: &Vectors, settings: &Settings, (side, mean): (Side, f32)) {
    let square = match settings.feedback {
        Feedback::Implicit { .. } => y.square(settings.regularization),
        Feedback::Explicit => Vec::new(),
    };
    let (stride, cpu) = (x.stride(), Cpu::detect());
    if stride == 0 {
        return;
    }
    x.values.par_chunks_mut(stride * ROWS_AT_ONCE).enumerate().for_each(|(group, vectors)| {
        let first = group * ROWS_AT_ONCE;
        cpu.run(Improve { first, vectors, rows, y, square: &square, settings, side, mean });
    });
}

/// A group of rows to be improved.
struct Improve<'a> {
    first: usize,
    vectors: &'a mut [f32],
    rows: &'a Csr,
    y: &'a Vectors,
    /// `Σ y yᵀ + regularization` of all vectors, for implicit feedback.
    square: &'a [f32],
    settings: &'a Settings,
    side: Side,
    /// What ratings are measured from beside the other side's biases.
    mean: f32,
}

impl Work for Improve<'_> {
    type Output = ();

    #[inline(always)]
    fn run(mut self) {
        let stride = self.y.stride();
        let vectors = std::mem::take(&mut self.vectors);
        let mut scratch = [vec![0f32; stride], vec![0f32; stride], vec![0f32; stride]];
        let mut equation = Equation::default();
        let mut cholesky = (self.settings.solver == Solver::Cholesky).then(|| Cholesky::new(stride));
        // The place of the other side's bias, which is 1 here.
        let one = self.settings.factors + 1 - self.side as usize;
        for (at, x) in vectors.chunks_exact_mut(stride).enumerate() {
            let row = self.rows.row(self.first + at);
            let explicit = self.settings.feedback == Feedback::Explicit;
            if row.is_empty() {
                // Without anything to go by the minimum is 0.
                x.fill(0.0);
            } else {
                self.gather(row, &mut equation);
                if explicit {
                    self.take_biases(&mut equation, one);
                    x[one] = 0.0;
                }
                let solved = cholesky.as_mut().is_some_and(|cholesky| cholesky.solve(self.square, &equation, x));
                if !solved {
                    equation.step(self.square, x, &mut scratch);
                }
            }
            if explicit {
                x[one] = 1.0;
            }
        }
    }
}

impl Improve<'_> {
    /// Copies the vectors of a row's columns, and says what they mean.
    #[inline(always)]
    fn gather(&self, row: &[u64], equation: &mut Equation) {
        equation.near.clear();
        for (at, &e) in row.iter().enumerate() {
            if let Some(&ahead) = row.get(at + AT_ONCE) {
                prefetch(self.y.row(entry::column(ahead) as usize));
            }
            equation.near.extend_from_slice(self.y.row(entry::column(e) as usize));
        }
        equation.more.clear();
        equation.target.clear();
        match self.settings.feedback {
            Feedback::Implicit { alpha } => {
                equation.more.extend(row.iter().map(|&e| alpha * entry::value(e)));
                equation.target.extend(equation.more.iter().map(|more| 1.0 + more));
            }
            Feedback::Explicit => {
                equation.more.resize(row.len(), 1.0);
                equation.target.extend(row.iter().map(|&e| entry::value(e) - self.mean));
                equation.diagonal = self.settings.regularization * row.len() as f32;
            }
        }
    }

    /// Takes the other side's biases from the ratings.
    #[inline(always)]
    fn take_biases(&self, equation: &mut Equation, place: usize) {
        let vectors = equation.near.chunks_exact_mut(self.y.stride());
        for (target, vector) in equation.target.iter_mut().zip(vectors) {
            *target -= std::mem::take(&mut vector[place]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csr::testing::matrices;

    const ALPHA: f32 = 2.0;
    const SETTINGS: Settings = Settings {
        factors: 5,
        iterations: 30,
        regularization: 0.5,
        feedback: Feedback::Implicit { alpha: ALPHA },
        solver: Solver::ConjugateGradients,
        seed: 7,
    };

    /// What is to be minimal, over all pairs.
    fn loss(users: &Csr, x: &Vectors, y: &Vectors, items: usize) -> f64 {
        let mut loss = 0.0;
        for user in 0..users.rows() {
            for item in 0..items {
                let entry = users.row(user).iter().find(|&&e| entry::column(e) as usize == item);
                let weight = entry.map_or(0.0, |&e| entry::value(e));
                let preference = f32::from(u8::from(entry.is_some()));
                let error = preference - dot(x.row(user), y.row(item));
                loss += f64::from((1.0 + ALPHA * weight) * error * error);
            }
        }
        let squares = |v: &Vectors| v.values.iter().map(|&v| f64::from(v * v)).sum::<f64>();
        loss + f64::from(SETTINGS.regularization) * (squares(x) + squares(y))
    }

    /// The same for ratings, over pairs that have one.
    fn loss_of_ratings(users: &Csr, x: &Vectors, y: &Vectors) -> f64 {
        let mean = mean(users);
        let mut loss = 0.0;
        let mut costs = vec![0usize; y.values.len() / y.stride()];
        for user in 0..users.rows() {
            for &e in users.row(user) {
                let item = entry::column(e) as usize;
                loss += f64::from(entry::value(e) - dot(x.row(user), y.row(item))).powi(2);
                costs[item] += 1;
            }
            let own = x.row(user)[..5].iter().map(|v| v * v).sum::<f32>() + x.row(user)[5].powi(2);
            loss += f64::from(SETTINGS.regularization * own) * users.row_len(user) as f64;
        }
        for (item, &count) in costs.iter().enumerate() {
            let own = y.row(item)[..5].iter().map(|v| v * v).sum::<f32>() + (y.row(item)[6] - mean).powi(2);
            loss += f64::from(SETTINGS.regularization * own) * count as f64;
        }
        loss
    }

    #[test]
    fn a_minimum_for_each_side() {
        let triples: Vec<(u32, u32, f32)> =
            (0..60u32).map(|n| (n * 7 % 12, n * 11 % 9, 1.0 + (n * 5 % 4) as f32)).collect();
        let (users, items) = matrices(&triples, 12, 9);
        for solver in Solver::NAMES.map(|(_, solver)| solver) {
            for feedback in [SETTINGS.feedback, Feedback::Explicit] {
                let settings = Settings { feedback, solver, ..SETTINGS };
                let explicit = feedback == Feedback::Explicit;
                let loss = |x: &Vectors, y: &Vectors| match explicit {
                    true => loss_of_ratings(&users, x, y),
                    false => loss(&users, x, y, 9),
                };
                let (x, y) = factorize(&users, &items, &settings, || true);
                let least = loss(&x, &y);
                for at in 0..x.values.len() {
                    for by in [-0.05, 0.05] {
                        let mut other = x.clone();
                        if at % other.stride() < SETTINGS.factors + usize::from(explicit) {
                            other.values[at] += by;
                            assert!(loss(&other, &y) > least - 1e-3, "{feedback:?} {solver:?} {at} {by}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn folding_in_and_reasons() {
        let triples: Vec<(u32, u32, f32)> =
            (0..60u32).map(|n| (n * 7 % 12, n * 11 % 9, 1.0 + (n * 5 % 4) as f32)).collect();
        let (users, items) = matrices(&triples, 12, 9);
        for feedback in [SETTINGS.feedback, Feedback::Explicit] {
            let settings = Settings { feedback, iterations: 200, solver: Solver::Cholesky, ..SETTINGS };
            let (x, y) = factorize(&users, &items, &settings, || true);
            let again = fold_in(&users, &y, &settings);
            for (a, b) in x.values.iter().zip(&again.values) {
                assert!((a - b).abs() < 2e-3, "{feedback:?}: {a} {b}");
            }
            let square = Reasons::square(&y, &settings);
            let mut reasons = Reasons::new(&y, &square, settings);
            for user in 0..12 {
                for item in 0..9 {
                    let sum: f32 = reasons.of(users.row(user), item).iter().map(|(_, share)| share).sum();
                    let explicit = feedback == Feedback::Explicit;
                    let own = if explicit { y.row(item)[6] } else { 0.0 };
                    let score = dot(again.row(user), y.row(item));
                    assert!((sum + own - score).abs() < 2e-3, "{feedback:?} {user} {item}: {sum} {own} {score}");
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
