//! Predicted ratings of pairs of users and items: baselines, and means over neighbors (Koren 2010).

use rayon::prelude::*;

use super::csr::{Csr, entry};
use super::scoring::Side;

/// What is known of ratings without any model, and what neighbors' ratings are measured from.
#[derive(Debug, Clone, PartialEq)]
pub struct Baseline {
    /// The mean of all ratings.
    pub mean: f64,
    /// By how much the ratings of each user are above.
    pub users: Vec<f64>,
    /// By how much the ratings of each item are above.
    pub items: Vec<f64>,
}

/// What large biases of users cost: so many ratings at the mean.
const USERS: f64 = 15.0;
/// What large biases of items cost.
const ITEMS: f64 = 10.0;
/// How often both are moved.
const ROUNDS: usize = 10;

impl Baseline {
    /// The mean alone.
    pub fn mean(users: &Csr, items: &Csr) -> Self {
        let sum: f64 = users.entries.iter().map(|&e| f64::from(entry::value(e))).sum();
        let mean = sum / users.entries.len().max(1) as f64;
        Self { mean, users: vec![0.0; users.rows()], items: vec![0.0; items.rows()] }
    }

    /// The means of one side: what each of its rows is above the mean of all.
    pub fn means(users: &Csr, items: &Csr, side: Side) -> Self {
        let mut baseline = Self::mean(users, items);
        let mean = baseline.mean;
        match side {
            Side::Users => baseline.users = biases(users, 0.0, |e| f64::from(entry::value(e)) - mean),
            Side::Items => baseline.items = biases(items, 0.0, |e| f64::from(entry::value(e)) - mean),
        }
        baseline
    }

    /// The biases of users and items that make `Σ (r - μ - b_u - b_i)² + 15 Σ b_u² + 10 Σ b_i²` small, found in turn, items
    /// first. Works on the current pool.
    pub fn biases(users: &Csr, items: &Csr) -> Self {
        let mut found = Self::mean(users, items);
        for _ in 0..ROUNDS {
            let above =
                |e: u64, others: &[f64]| f64::from(entry::value(e)) - found.mean - others[entry::column(e) as usize];
            let of_items = biases(items, ITEMS, |e| above(e, &found.users));
            let of_users = biases(users, USERS, |e| above(e, &of_items));
            (found.users, found.items) = (of_users, of_items);
        }
        found
    }

    /// The rating of a pair.
    pub fn of(&self, user: usize, item: usize) -> f64 {
        self.mean + self.users[user] + self.items[item]
    }
}

/// The sum of what each row's entries are, over their number and a cost.
fn biases(rows: &Csr, cost: f64, above: impl Fn(u64) -> f64 + Sync) -> Vec<f64> {
    let bias = |row: usize| {
        let entries = rows.row(row);
        match entries.is_empty() {
            true => 0.0,
            false => entries.iter().map(|&e| above(e)).sum::<f64>() / (cost + entries.len() as f64),
        }
    };
    (0..rows.rows()).into_par_iter().map(bias).collect()
}

/// Predicts by neighbors that have a rating.
#[derive(Debug)]
pub struct Neighborhood {
    /// Ratings of users by items.
    pub users: Csr,
    /// Ratings of items by users.
    pub items: Csr,
    /// Which of the two has neighbors.
    pub side: Side,
    /// Rows of that side by their neighbors, and how similar they are.
    pub neighbors: Csr,
    /// The place of each row of that side among the sorted ids.
    pub order: Vec<u32>,
    /// What ratings are measured from.
    pub baseline: Baseline,
    /// The neighbors that count: the most similar of those that have a rating.
    pub k: usize,
    /// Fewer than so many count nothing.
    pub least: usize,
}

impl Neighborhood {
    /// The baseline of the pair, and the mean by which its nearest neighbors that have a rating are above theirs, weighted by
    /// similarity. Similarities of 0 and less do not count.
    pub fn predict(&self, user: usize, item: usize, found: &mut Vec<(f32, u32, f32)>) -> f64 {
        let (row, rated) = match self.side {
            Side::Users => (user, self.items.row(item)),
            Side::Items => (item, self.users.row(user)),
        };
        found.clear();
        let mut rated = rated.iter().peekable();
        for &e in self.neighbors.row(row) {
            let (neighbor, similarity) = (entry::column(e), entry::value(e));
            while rated.next_if(|&&r| entry::column(r) < neighbor).is_some() {}
            if let Some(&rating) = rated.next_if(|&&r| entry::column(r) == neighbor)
                && similarity > 0.0
            {
                found.push((similarity, neighbor, entry::value(rating)));
            }
        }
        let own = self.baseline.of(user, item);
        if found.len() < self.least.max(1) {
            return own;
        }
        let place = |neighbor: u32| self.order[neighbor as usize];
        let better = |a: &(f32, u32, f32), b: &(f32, u32, f32)| b.0.total_cmp(&a.0).then(place(a.1).cmp(&place(b.1)));
        if found.len() > self.k {
            found.select_nth_unstable_by(self.k - 1, better);
            found.truncate(self.k);
        }
        // Sums are taken in one order, whatever the selection has left.
        found.sort_unstable_by(better);
        let (mut sum, mut weights) = (0.0, 0.0);
        for &(similarity, neighbor, rating) in found.iter() {
            let usual = match self.side {
                Side::Users => self.baseline.of(neighbor as usize, item),
                Side::Items => self.baseline.of(user, neighbor as usize),
            };
            sum += f64::from(similarity) * (f64::from(rating) - usual);
            weights += f64::from(similarity);
        }
        own + sum / weights
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csr::testing::matrices;

    #[test]
    fn biases_are_at_their_minimum() {
        let triples: Vec<(u32, u32, f32)> = (0..40u32).map(|n| (n % 8, n * 3 % 7, (n * n % 5) as f32)).collect();
        let mut distinct = triples.clone();
        distinct.sort_by_key(|t| (t.0, t.1));
        distinct.dedup_by_key(|t| (t.0, t.1));
        let (users, items) = matrices(&distinct, 8, 7);
        let found = Baseline::biases(&users, &items);
        let loss = |b: &Baseline| {
            let error = |t: &(u32, u32, f32)| (f64::from(t.2) - b.of(t.0 as usize, t.1 as usize)).powi(2);
            let squares = |values: &[f64]| values.iter().map(|v| v * v).sum::<f64>();
            distinct.iter().map(error).sum::<f64>() + USERS * squares(&b.users) + ITEMS * squares(&b.items)
        };
        for at in 0..8 {
            for by in [-0.01, 0.01] {
                let mut other = found.clone();
                other.users[at] += by;
                assert!(loss(&other) > loss(&found));
            }
        }
    }

    #[test]
    fn the_nearest_that_have_a_rating() {
        // Item 0 is asked for; items 1 to 4 are its neighbors, of which the user has rated 1, 2 and 4.
        let (users, items) = matrices(&[(0, 1, 4.0), (0, 2, 2.0), (0, 4, 1.0), (1, 0, 5.0), (1, 3, 3.0)], 2, 5);
        let near: Vec<(u32, u32, f32)> = vec![(0, 1, 0.5), (0, 2, 0.25), (0, 3, 0.9), (0, 4, -0.5)];
        let (neighbors, _) = matrices(&near, 5, 5);
        let baseline = Baseline { mean: 0.0, users: vec![0.0; 2], items: vec![0.0; 5] };
        let mut hood = Neighborhood {
            users,
            items,
            side: Side::Items,
            neighbors,
            order: (0..5).collect(),
            baseline,
            k: 5,
            least: 1,
        };
        let found = &mut Vec::new();
        assert_eq!(hood.predict(0, 0, found), (0.5 * 4.0 + 0.25 * 2.0) / 0.75);
        hood.k = 1;
        assert_eq!(hood.predict(0, 0, found), 4.0);
        hood.least = 3;
        assert_eq!(hood.predict(0, 0, found), 0.0);
        (hood.k, hood.least) = (5, 1);
        hood.baseline = Baseline::means(&hood.users, &hood.items, Side::Items);
        // Each of these items has the one rating, so that it is at its mean.
        assert_eq!(hood.predict(0, 0, found), 5.0);
    }
}
