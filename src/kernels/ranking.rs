//! How good ranked lists are: against what users chose later, and by themselves.
//!
//! For a list of which the first `k` places count, with `T` what the user chose, `hits` the places (from 1) of the list
//! that are in `T`, and `n` the number of hits:
//!
//! | metric | value |
//! | --- | --- |
//! | precision | `n / k`, also where the list is shorter |
//! | recall | `n / len T` |
//! | hit_rate | 1 if there is a hit, else 0 |
//! | ndcg | `Σ 1 / log2(place + 1)` over hits, divided by the same sum over the places 1 to `min(k, len T)` (Järvelin and Kekäläinen 2002, gains of 0 and 1) |
//! | map | `Σ (hits up to the place / place)` over hits, divided by `len T` |
//! | mrr | `1 / place` of the first hit, 0 without one |
//! | auc | the share of pairs of a chosen and another item of the catalogue in which the chosen stands first; what is not among the `k` places stands below them, all of it level (which counts a half) |

use super::csr::{Csr, entry};
use super::likeness::Likeness;

/// The metrics of a user's list, in the order in which [`of_list`] gives them.
pub const OF_LIST: [&str; 7] = ["precision", "recall", "hit_rate", "ndcg", "map", "mrr", "auc"];

/// The metrics of the first `k` places of a list, in which `hits` (rising, from 1) are the places of what was chosen;
/// `chosen` items of `catalogue` were. `length` is that of the list.
pub fn of_list(hits: &[usize], length: usize, chosen: usize, catalogue: usize, k: usize) -> [f64; 7] {
    let hits = &hits[..hits.partition_point(|place| *place <= k)];
    let (n, relevant) = (hits.len() as f64, chosen as f64);
    let gain = |place: usize| 1.0 / (place as f64 + 1.0).log2();
    let ideal: f64 = (1..=k.min(chosen)).map(gain).sum();
    let precisions = hits.iter().enumerate().map(|(before, place)| (before + 1) as f64 / *place as f64);
    let others = catalogue.saturating_sub(chosen) as f64;
    let above = |(before, place): (usize, &usize)| (place - 1 - before) as f64;
    let beaten: f64 = hits.iter().enumerate().map(|hit| others - above(hit)).sum();
    let level = (relevant - n) * (others - (length.min(k) as f64 - n)) / 2.0;
    [
        n / k as f64,
        n / relevant,
        f64::from(u8::from(!hits.is_empty())),
        hits.iter().map(|&place| gain(place)).sum::<f64>() / ideal,
        precisions.sum::<f64>() / relevant,
        hits.first().map_or(0.0, |&place| 1.0 / place as f64),
        if others > 0.0 { (beaten + level) / (relevant * others) } else { 1.0 },
    ]
}

/// A mean and what its uncertainty is taken from; values come one by one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Mean {
    count: u64,
    mean: f64,
    /// The sum of squared deviations (Welford 1962).
    squares: f64,
}

impl Mean {
    /// Takes a value.
    pub fn add(&mut self, value: f64) {
        self.count += 1;
        let before = value - self.mean;
        self.mean += before / self.count as f64;
        self.squares += before * (value - self.mean);
    }

    /// The mean, `None` of nothing.
    pub fn value(&self) -> Option<f64> {
        (self.count > 0).then_some(self.mean)
    }

    /// How many values there were.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The standard error of the mean; `None` of fewer than two values.
    pub fn error(&self) -> Option<f64> {
        let count = self.count as f64;
        (self.count > 1).then(|| (self.squares / (count - 1.0) / count).sqrt())
    }

    /// Half the width of the interval that holds the true mean in 95 of 100 cases, by the normal approximation; `None` of
    /// fewer than two values.
    pub fn margin(&self) -> Option<f64> {
        Some(1.959_963_984_540_054 * self.error()?)
    }
}

/// The lists of one model.
#[derive(Debug, Clone, Copy)]
pub struct Lists<'a> {
    /// Users by items; the value is the place in the list, from 1.
    pub places: &'a Csr,
    /// Users by items that they chose.
    pub chosen: &'a Csr,
    /// How many items there are.
    pub catalogue: usize,
    /// The segment of each user, if users have any.
    pub segments: Option<&'a [u32]>,
    /// What is known of the popularity of items.
    pub popularity: Option<&'a Popularity>,
    /// What is known of how alike items are.
    pub likeness: Option<&'a Likeness>,
}

/// How popular items were before.
#[derive(Debug)]
pub struct Popularity {
    /// The number of users of each item.
    pub users_of_item: Vec<u32>,
    /// The number of users.
    pub users: usize,
}

/// The metrics of how novel lists are, known where popularity is.
pub const OF_POPULARITY: [&str; 2] = ["novelty", "popularity"];
/// The metrics of all lists together.
pub const OF_ALL: [&str; 2] = ["coverage", "gini"];

/// What was found for one `k`: for all users first, then for each segment.
#[derive(Debug, Default)]
pub struct Found {
    /// For each group of users, the means of [`OF_LIST`].
    pub of_list: Vec<[Mean; 7]>,
    /// For each group of users, the means of [`OF_POPULARITY`].
    pub of_popularity: Vec<[Mean; 2]>,
    /// For each group of users, the means of [`super::likeness::OF_VECTORS`].
    pub of_vectors: Vec<[Mean; 2]>,
    /// For each group of users, [`OF_ALL`].
    pub of_all: Vec<[f64; 2]>,
}

impl Lists<'_> {
    /// The metrics for each of these `k`, by one pass over the lists. `groups` is one more than the number of segments.
    ///
    /// Every user who chose something counts, one without a list with 0; users who chose nothing count only where what they
    /// chose does not matter: in `novelty`, `popularity`, `coverage` and `gini`.
    pub fn evaluate(&self, ks: &[usize], groups: usize) -> Vec<Found> {
        let mut found: Vec<Found> = ks.iter().map(|_| Found::new(groups)).collect();
        let mut shown = vec![vec![0u32; groups * self.catalogue]; ks.len()];
        for user in 0..self.places.rows() {
            let (list, chosen) = (self.list(user), self.chosen.row(user));
            let hits = hits(&list, chosen);
            let places: Vec<usize> = hits.iter().map(|(place, _)| *place).collect();
            let own = self.segments.map(|segments| segments[user] as usize);
            let groups_of_user = || std::iter::once(0).chain(own);
            for ((found, shown), &k) in found.iter_mut().zip(&mut shown).zip(ks) {
                let top = &list[..list.partition_point(|(place, _)| *place <= k)];
                if !chosen.is_empty() {
                    let values = of_list(&places, top.len(), chosen.len(), self.catalogue, k);
                    groups_of_user().for_each(|group| add(&mut found.of_list[group], values));
                }
                if let (Some(popularity), false) = (self.popularity, top.is_empty()) {
                    let values = popularity.of_list(top.iter().map(|(_, item)| *item));
                    groups_of_user().for_each(|group| add(&mut found.of_popularity[group], values));
                }
                if let Some(likeness) = self.likeness {
                    let diversity = likeness.diversity(top.iter().map(|(_, item)| *item));
                    let found_items = hits.iter().take_while(|(place, _)| *place <= k).map(|(_, item)| *item);
                    let serendipity = likeness.serendipity(user, found_items, k).filter(|_| !chosen.is_empty());
                    for group in groups_of_user() {
                        let means = found.of_vectors[group].iter_mut().zip([diversity, serendipity]);
                        means.for_each(|(mean, value)| value.into_iter().for_each(|value| mean.add(value)));
                    }
                }
                for group in groups_of_user() {
                    top.iter().for_each(|(_, item)| shown[group * self.catalogue + *item as usize] += 1);
                }
            }
        }
        for (found, mut shown) in found.iter_mut().zip(shown) {
            found.of_all =
                shown.chunks_mut(self.catalogue.max(1)).map(|shown| [coverage(shown), gini(shown)]).collect();
            found.of_all.resize(groups, [0.0; 2]);
        }
        found
    }
}

impl Lists<'_> {
    /// The places of a user's list, and what stands there.
    fn list(&self, user: usize) -> Vec<(usize, u32)> {
        let places = self.places.row(user).iter();
        let mut list: Vec<_> = places.map(|&e| (entry::value(e) as usize, entry::column(e))).collect();
        list.sort_unstable();
        list
    }

    /// [`OF_LIST`] of each user who chose something, by user.
    pub fn of_users(&self, k: usize) -> Vec<[f64; 7]> {
        let users = (0..self.places.rows()).filter(|&user| self.chosen.row_len(user) > 0);
        let values = |user| {
            let (list, chosen) = (self.list(user), self.chosen.row(user));
            let places: Vec<usize> = hits(&list, chosen).into_iter().map(|(place, _)| place).collect();
            let length = list.partition_point(|(place, _)| *place <= k);
            of_list(&places, length, chosen.len(), self.catalogue, k)
        };
        users.map(values).collect()
    }
}

/// The places of a list that hold what was chosen.
fn hits(list: &[(usize, u32)], chosen: &[u64]) -> Vec<(usize, u32)> {
    let is_chosen = |item: u32| chosen.binary_search_by_key(&item, |&e| entry::column(e)).is_ok();
    list.iter().copied().filter(|(_, item)| is_chosen(*item)).collect()
}

impl Found {
    fn new(groups: usize) -> Self {
        Self {
            of_list: vec![Default::default(); groups],
            of_popularity: vec![Default::default(); groups],
            of_vectors: vec![Default::default(); groups],
            of_all: Vec::new(),
        }
    }
}

fn add<const N: usize>(means: &mut [Mean; N], values: [f64; N]) {
    means.iter_mut().zip(values).for_each(|(mean, value)| mean.add(value));
}

impl Popularity {
    /// The mean self-information `-log2(users of the item / users)` of the items, one that nobody had counting as if one user
    /// had it (Zhou et al. 2010), and the mean share of users who had them.
    fn of_list(&self, items: impl Iterator<Item = u32>) -> [f64; 2] {
        let (mut novelty, mut popularity) = (Mean::default(), Mean::default());
        for item in items {
            let users = f64::from(self.users_of_item[item as usize]);
            novelty.add(-(users.max(1.0) / self.users as f64).log2());
            popularity.add(users / self.users as f64);
        }
        [novelty.mean, popularity.mean]
    }
}

/// The share of items that were shown.
fn coverage(shown: &[u32]) -> f64 {
    shown.iter().filter(|times| **times > 0).count() as f64 / shown.len().max(1) as f64
}

/// How unequally items are shown: 0 where all are as often, near 1 where one has all (the Gini coefficient).
fn gini(shown: &mut [u32]) -> f64 {
    shown.sort_unstable();
    let n = shown.len() as f64;
    let total: f64 = shown.iter().map(|&times| f64::from(times)).sum();
    let weighted: f64 =
        shown.iter().enumerate().map(|(at, &times)| (2.0 * (at as f64 + 1.0) - n - 1.0) * f64::from(times)).sum();
    if total == 0.0 { 0.0 } else { weighted / (n * total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worked_by_hand() {
        // Places 1 and 4 of 5 are hits, of 3 chosen, in a catalogue of 10.
        let [precision, recall, hit, ndcg, map, mrr, auc] = of_list(&[1, 4], 5, 3, 10, 5);
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-12, "{a} {b}");
        close(precision, 0.4);
        close(recall, 2.0 / 3.0);
        close(hit, 1.0);
        close(ndcg, (1.0 + 1.0 / 5f64.log2()) / (1.0 + 1.0 / 3f64.log2() + 0.5));
        close(map, (1.0 + 0.5) / 3.0);
        close(mrr, 1.0);
        // The first beats all 7 others, the second 5; the third is level with the 4 that are not listed.
        close(auc, (7.0 + 5.0 + 2.0) / 21.0);
        // Nothing hit within the first two places of a list of one.
        let [precision, recall, hit, ndcg, map, mrr, auc] = of_list(&[4], 1, 1, 3, 2);
        assert_eq!([precision, recall, hit, ndcg, map, mrr], [0.0; 6]);
        close(auc, 0.25);
    }

    #[test]
    fn shares_of_items() {
        let of = |shown: &[u32]| (coverage(shown), gini(&mut shown.to_vec()));
        assert_eq!(of(&[3, 3, 3, 3]), (1.0, 0.0));
        assert_eq!(of(&[0, 8, 0, 0]), (0.25, 0.75));
        assert_eq!(of(&[0, 0]), (0.0, 0.0));
    }

    #[test]
    fn margins_are_those_of_the_normal_distribution() {
        let mut mean = Mean::default();
        assert_eq!((mean.value(), mean.margin()), (None, None));
        [1.0, 2.0, 3.0, 4.0].into_iter().for_each(|value| mean.add(value));
        assert_eq!(mean.value(), Some(2.5));
        assert!((mean.margin().unwrap() - 1.959_963_984_540_054 * (5.0f64 / 3.0 / 4.0).sqrt()).abs() < 1e-12);
    }
}
