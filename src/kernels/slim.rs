//! SLIM: sparse item-item weights of a linear model, each at least 0 and none of an item for itself (Ning and Karypis 2011).
//!
//! The weights `w` by which all items speak for item j make `½ |x_j - X w|² + ½ l2 |w|² + l1 Σ w` least over `w >= 0, w_j = 0`,
//! found by coordinate descent on `XᵀX` (Friedman et al. 2010). With weights of at least 0 only items that have enough in
//! common with j can get one: those whose product with j is above l1.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rayon::prelude::*;

use super::Error;
use super::csr::{Csr, entry};
use super::topk::Candidates;

/// Rounds over all items after which a column is taken as it is.
const ROUNDS: usize = 1000;
/// A column is done when no weight moves by more than this in a round.
const CLOSE: f32 = 1e-6;

/// The bytes that so many items take beside their candidates.
pub fn bytes_for(items: usize, threads: usize) -> usize {
    (items * items + threads * 4 * items) * size_of::<f32>()
}

/// Offers to `found` the weights above 0 of all pairs of items. `users` has users by items, `items` the same by items, all
/// weights at least 0. Works on all threads of the current pool, and ends early when told to `stop`.
pub fn slim(users: &Csr, items: &Csr, l1: f32, l2: f32, found: &Candidates, stop: &AtomicBool) -> Result<(), Error> {
    let n = items.rows();
    let gram = gram(users, items);
    if gram.iter().any(|product| !product.is_finite()) {
        return Err("slim: products of weights leave the range of Float32; scale the weights down".into());
    }
    (0..n).into_par_iter().for_each(|j| {
        if !stop.load(Relaxed) {
            for (item, weight) in column(&gram, n, j, l1, l2) {
                found.offer(item, weight, j as u32);
            }
        }
    });
    Ok(())
}

/// `XᵀX` by rows.
fn gram(users: &Csr, items: &Csr) -> Vec<f32> {
    let n = items.rows();
    let mut gram = vec![0f32; n * n];
    gram.par_chunks_mut(n.max(1)).enumerate().for_each(|(j, row)| {
        for &of_item in items.row(j) {
            let weight = entry::value(of_item);
            for &e in users.row(entry::column(of_item) as usize) {
                row[entry::column(e) as usize] += weight * entry::value(e);
            }
        }
    });
    gram
}

/// The weights for item j that are above 0.
fn column(gram: &[f32], n: usize, j: usize, l1: f32, l2: f32) -> Vec<(usize, f32)> {
    let own = &gram[j * n..(j + 1) * n];
    let able: Vec<usize> = (0..n).filter(|&i| i != j && own[i] > l1).collect();
    // What is left of each product with j when the weights have their say.
    let mut left: Vec<f32> = able.iter().map(|&i| own[i]).collect();
    let mut weights = vec![0f32; able.len()];
    for _ in 0..ROUNDS {
        let mut moved = 0f32;
        for at in 0..able.len() {
            let row = &gram[able[at] * n..(able[at] + 1) * n];
            let square = row[able[at]];
            let weight = ((left[at] + weights[at] * square - l1) / (square + l2)).max(0.0);
            let change = weight - weights[at];
            if change != 0.0 {
                left.iter_mut().zip(&able).for_each(|(left, &other)| *left -= change * row[other]);
                weights[at] = weight;
                moved = moved.max(change.abs());
            }
        }
        if moved < CLOSE {
            break;
        }
    }
    able.into_iter().zip(weights).filter(|(_, weight)| *weight > 0.0).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::csr::Slices;

    proptest! {
        #[test]
        fn no_other_weights_are_better(
            triples in prop::collection::vec((0u32..9, 0u32..6, 1u8..5), 1..50), l1 in 0u8..8, l2 in 1u8..9
        ) {
            let (l1, l2) = (f32::from(l1), f32::from(l2));
            let codes: Vec<u32> = (0..9).collect();
            let (mut u, mut i, mut w) = (Vec::new(), Vec::new(), Vec::new());
            triples.iter().for_each(|&(user, item, weight)| (u.push(user), i.push(item), w.push(f32::from(weight))).0);
            let by_user = Slices { pieces: vec![(&u, &i, &w)], rows: &codes, columns: &codes };
            let by_item = Slices { pieces: vec![(&i, &u, &w)], rows: &codes, columns: &codes };
            let users = Csr::build(0..9, 6, &[&by_user]).unwrap();
            let items = Csr::build(0..6, 9, &[&by_item]).unwrap();
            let found = Candidates::new(6, (0..6).collect(), f32::MIN_POSITIVE);
            slim(&users, &items, l1, l2, &found, &AtomicBool::new(false)).unwrap();
            let mut weights = [[0f64; 6]; 6];
            for (i, row) in weights.iter_mut().enumerate() {
                found.take(i, |weight, j| row[j as usize] = f64::from(weight));
                prop_assert_eq!(row[i], 0.0);
            }
            let mut x = [[0f64; 6]; 9];
            triples.iter().for_each(|&(user, item, weight)| x[user as usize][item as usize] += f64::from(weight));
            let loss = |j: usize, w: &[f64; 6]| {
                let errors = x.iter().map(|row| (row[j] - row.iter().zip(w).map(|(x, w)| x * w).sum::<f64>()).powi(2));
                let costs = w.iter().map(|w| f64::from(l2) / 2.0 * w * w + f64::from(l1) * w).sum::<f64>();
                errors.sum::<f64>() / 2.0 + costs
            };
            let columns: [[f64; 6]; 6] = std::array::from_fn(|j| std::array::from_fn(|i| weights[i][j]));
            for (j, own) in columns.into_iter().enumerate() {
                for i in (0..6).filter(|&i| i != j) {
                    for by in [-0.02, 0.02] {
                        let mut other = own;
                        other[i] = (other[i] + by).max(0.0);
                        prop_assert!(loss(j, &other) > loss(j, &own) - 1e-3, "{i} {j}");
                    }
                }
            }
        }
    }
}
