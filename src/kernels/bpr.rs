//! Bayesian personalised ranking (Rendle et al. 2009): vectors by which what a user has comes before what the user has not.
//!
//! For every entry (u, i) of the matrix and an item j that u has not, drawn at random, `ln σ(x_u · (y_i - y_j))` is to be large,
//! less `regularization (|x_u|² + |y_i|² + |y_j|²) / 2`. Users are taken in groups: within a group all gradients are those of
//! the vectors before it, so that users, then items, can be worked on by all threads and the result depends on the seed alone.
//! Steps are those of AdaGrad (Duchi et al. 2011), as popular items have many gradients in a group and others few.

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::csr::{Csr, entry};
use super::simd::{add_scaled, dot};
use super::vectors::{Vectors, mix};

/// What is asked of a factorisation.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// The length of vectors.
    pub factors: usize,
    /// How often all entries are taken.
    pub iterations: usize,
    /// How far a step goes at first, above 0.
    pub learning_rate: f32,
    /// What large vectors cost.
    pub regularization: f32,
    /// Another number begins elsewhere and draws other items.
    pub seed: u64,
}

/// Groups of users in an iteration.
const GROUPS: usize = 64;
/// How often another item is drawn where the user has the one that was.
const DRAWS: u64 = 8;

/// The bytes that factorising takes beside the matrices of so many entries.
pub fn bytes_for(rows: usize, entries: usize, settings: &Settings) -> usize {
    2 * Vectors::bytes_for(rows, settings.factors) + entries.div_ceil(GROUPS) * 2 * 3 * size_of::<u64>()
}

/// Vectors of users and of items; `users` has users by items. `go_on` is asked before each iteration. Works on all threads of
/// the current pool; the result does not depend on their number.
pub fn factorize(users: &Csr, settings: &Settings, go_on: impl Fn() -> bool) -> (Vectors, Vectors) {
    let mut x = Side::new(users.rows(), settings, 0);
    let mut y = Side::new(users.columns, settings, 1);
    if users.entries.is_empty() || users.columns < 2 {
        return (Vectors::zeros(users.rows(), settings.factors), Vectors::zeros(users.columns, settings.factors));
    }
    for iteration in 0..settings.iterations {
        if !go_on() {
            break;
        }
        for group in 0..GROUPS {
            let members: Vec<usize> = (group..users.rows()).step_by(GROUPS).collect();
            let pulls = |&user: &usize| pulls(users, user, (&x.vectors, &y.vectors), settings, iteration);
            let found: Vec<Vec<Pull>> = members.par_iter().map(pulls).collect();
            let mut of_items: Vec<(u32, u32, f32)> = members
                .iter()
                .zip(&found)
                .flat_map(|(&user, pulls)| {
                    pulls.iter().flat_map(move |p| [(p.has, user as u32, p.by), (p.has_not, user as u32, -p.by)])
                })
                .collect();
            // Whole numbers first: equal ones are of one user, and add up in the order in which they were drawn.
            of_items.par_sort_by_key(|&(item, user, _)| (item, user));
            let gradients_of_users: Vec<(usize, Vec<f32>)> = members
                .par_iter()
                .zip(&found)
                .filter(|(_, pulls)| !pulls.is_empty())
                .map(|(&user, pulls)| {
                    let terms = pulls.iter().flat_map(|p| [(p.has, p.by), (p.has_not, -p.by)]);
                    (user, gradient(x.vectors.row(user), pulls.len(), terms, &y.vectors, settings))
                })
                .collect();
            let by_item: Vec<&[(u32, u32, f32)]> = of_items.chunk_by(|a, b| a.0 == b.0).collect();
            let gradients_of_items: Vec<(usize, Vec<f32>)> = by_item
                .into_par_iter()
                .map(|pulls| {
                    let item = pulls[0].0 as usize;
                    let terms = pulls.iter().map(|&(_, user, by)| (user, by));
                    (item, gradient(y.vectors.row(item), pulls.len(), terms, &x.vectors, settings))
                })
                .collect();
            x.step(gradients_of_users, settings.learning_rate);
            y.step(gradients_of_items, settings.learning_rate);
        }
    }
    (x.vectors, y.vectors)
}

/// What an entry and a drawn item ask for: the one nearer to the user, the other farther away.
struct Pull {
    has: u32,
    has_not: u32,
    by: f32,
}

/// The pulls of a user, one for each entry with a weight above 0; none where the user has everything.
fn pulls(users: &Csr, user: usize, (x, y): (&Vectors, &Vectors), settings: &Settings, iteration: usize) -> Vec<Pull> {
    let row = users.row(user);
    let has = |item: u32| row.binary_search_by_key(&item, |&e| entry::column(e)).is_ok();
    let own = x.row(user);
    let start = mix(settings.seed ^ mix((iteration as u64) << 32 | user as u64));
    let pull = |(at, &e): (usize, &u64)| {
        let mut draws = (0..DRAWS).map(|draw| {
            let bits = mix(start ^ mix((at as u64) << 8 | draw));
            // The upper half of the product is a number below that of items.
            ((u128::from(bits) * users.columns as u128) >> 64) as u32
        });
        let (has, has_not) = (entry::column(e), draws.find(|&item| !has(item))?);
        let above = dot(own, y.row(has as usize)) - dot(own, y.row(has_not as usize));
        Some(Pull { has, has_not, by: 1.0 / (1.0 + above.exp()) })
    };
    row.iter().filter(|&&e| entry::value(e) > 0.0).enumerate().filter_map(pull).collect()
}

/// The sum of others' vectors, each times its factor, less what the own costs for each of `count` pulls.
fn gradient(
    own: &[f32],
    count: usize,
    terms: impl Iterator<Item = (u32, f32)>,
    others: &Vectors,
    settings: &Settings,
) -> Vec<f32> {
    let mut sum: Vec<f32> = own.iter().map(|value| -settings.regularization * count as f32 * value).collect();
    terms.for_each(|(other, factor)| add_scaled(&mut sum, factor, others.row(other as usize)));
    sum
}

/// The vectors of one side, and the squares of their gradients so far.
struct Side {
    vectors: Vectors,
    squares: Vectors,
}

impl Side {
    fn new(rows: usize, settings: &Settings, side: u64) -> Self {
        let mut vectors = Vectors::random(rows, settings.factors, settings.seed, side);
        for row in 0..rows {
            vectors.row_mut(row)[..settings.factors].iter_mut().for_each(|value| *value = (*value - 0.5) * 0.1);
        }
        Self { vectors, squares: Vectors::zeros(rows, settings.factors) }
    }

    fn step(&mut self, gradients: Vec<(usize, Vec<f32>)>, rate: f32) {
        for (row, gradient) in gradients {
            let squares = self.squares.row_mut(row);
            squares.iter_mut().zip(&gradient).for_each(|(square, g)| *square += g * g);
            let moved = self.vectors.row_mut(row).iter_mut().zip(&gradient).zip(squares.iter());
            moved.for_each(|((value, g), square)| *value += rate * g / (square.sqrt() + 1e-8));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csr::testing::matrices;

    const SETTINGS: Settings =
        Settings { factors: 8, iterations: 40, learning_rate: 0.1, regularization: 0.01, seed: 5 };

    #[test]
    fn what_users_have_comes_first() {
        // Two tastes that have nothing in common; of its own taste each user lacks one item.
        let mut triples = Vec::new();
        for user in 0..40u32 {
            for item in (0..20u32).filter(|item| item % 2 == user % 2 && item / 2 != user / 2 % 10) {
                triples.push((user, item, 1.0));
            }
        }
        let (users, _) = matrices(&triples, 40, 20);
        let (x, y) = factorize(&users, &SETTINGS, || true);
        for user in 0..40usize {
            let score = |item: usize| dot(x.row(user), y.row(item));
            let lacking = user / 2 % 10 * 2 + user % 2;
            let strange = (0..20).filter(|item| item % 2 != user % 2).map(score).fold(f32::MIN, f32::max);
            assert!(score(lacking) > strange, "user {user}");
        }
    }

    #[test]
    fn threads_do_not_show() {
        let triples: Vec<(u32, u32, f32)> = (0..6000u32).map(|n| (n * 7 % 900, n * n % 701, 1.0)).collect();
        let (users, _) = matrices(&triples, 900, 701);
        let settings = Settings { iterations: 2, ..SETTINGS };
        let with = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| factorize(&users, &settings, || true))
        };
        assert!(with(1) == with(3));
    }

    #[test]
    fn nothing_to_learn_from() {
        for (triples, items) in
            [(vec![], 3), (vec![(0, 0, 1.0)], 1), (vec![(0, 0, 1.0), (0, 1, 1.0)], 2), (vec![(0, 1, 0.0)], 2)]
        {
            let (x, y) = factorize(&matrices(&triples, 2, items).0, &SETTINGS, || true);
            assert!(x.values.iter().chain(&y.values).all(|value| value.is_finite()));
        }
    }
}
