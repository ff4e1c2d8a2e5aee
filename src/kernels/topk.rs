//! The k best of a stream of scored columns, ties broken by the smaller id.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Keeps the `k` best `(score, column)` pairs pushed into it.
///
/// Better is the higher score, then the smaller `order[column]`; as columns are distinct this is a total order and
/// the result does not depend on the order of pushes. Pairs collect in a buffer of somewhat more than k that is cut to
/// k by selection whenever it is full, which costs constant time a pair.
#[derive(Debug)]
pub struct TopK {
    k: usize,
    buffer: Vec<(f32, u32)>,
    floor: Floor,
}

/// What a pair must beat to be among the best: a score, or the same score with a smaller place in the order.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Floor {
    /// Pairs of lower scores cannot win.
    pub score: f32,
    /// Pairs of this score win only from before this place.
    pub place: u32,
}

impl Floor {
    /// All pairs with scores of at least `least` win.
    pub fn least(least: f32) -> Self {
        Self { score: least, place: u32::MAX }
    }

    /// Whether a pair of this score and place wins.
    #[inline(always)]
    pub fn admits(self, score: f32, place: u32) -> bool {
        // Without branches, so that many can be asked at once.
        (score > self.score) | ((score == self.score) & (place < self.place))
    }
}

impl TopK {
    /// An empty selection of at most `k` pairs with scores of at least `least`.
    pub fn new(k: usize, least: f32) -> Self {
        Self { k, buffer: Vec::new(), floor: Floor::least(least) }
    }

    /// How many pairs it may hold between two cuts.
    pub fn capacity(k: usize) -> usize {
        k.saturating_add((k / 4).max(32))
    }

    /// What a pair must beat to be among the best.
    #[inline]
    pub fn floor(&self) -> Floor {
        self.floor
    }

    /// Offers a pair; `order` gives each column's place among the sorted ids. A score that is not a number is not kept.
    #[inline]
    pub fn push(&mut self, score: f32, column: u32, order: &[u32]) {
        if self.floor.admits(score, order[column as usize]) {
            // Adding 0 turns -0 into 0, which compares as the same score.
            self.buffer.push((score + 0.0, column));
            if self.buffer.len() >= Self::capacity(self.k) {
                self.cut(order);
            }
        }
    }

    fn cut(&mut self, order: &[u32]) {
        if self.buffer.len() > self.k {
            self.buffer.select_nth_unstable_by(self.k - 1, |a, b| better_first(a, b, order));
            self.buffer.truncate(self.k);
            let (score, column) = self.buffer[self.k - 1];
            self.floor = Floor { score, place: order[column as usize] };
        }
    }

    /// Hands out the best pairs, best first, and starts anew with scores of at least `least`.
    pub fn drain(&mut self, order: &[u32], least: f32) -> std::vec::Drain<'_, (f32, u32)> {
        self.cut(order);
        self.floor = Floor::least(least);
        self.buffer.sort_unstable_by(|a, b| better_first(a, b, order));
        self.buffer.drain(..)
    }

    /// Offers all pairs of another selection, which is empty and starts anew with scores of at least `least` after it.
    pub fn absorb(&mut self, other: &mut Self, order: &[u32], least: f32) {
        other.cut(order);
        if self.buffer.is_empty() {
            // Most rows are met once; their lists take no more room than they need.
            self.buffer = other.buffer.to_vec();
            self.floor = other.floor;
            other.buffer.clear();
        }
        other.buffer.drain(..).for_each(|(score, column)| self.push(score, column, order));
        other.floor = Floor::least(least);
    }
}

fn better_first(a: &(f32, u32), b: &(f32, u32), order: &[u32]) -> std::cmp::Ordering {
    b.0.total_cmp(&a.0).then_with(|| order[a.1 as usize].cmp(&order[b.1 as usize]))
}

/// The best candidates of every row, open to all threads at once.
#[derive(Debug)]
pub struct Candidates {
    lists: Vec<Mutex<TopK>>,
    /// The place of each row among the sorted ids.
    order: Vec<u32>,
    least: f32,
}

impl Candidates {
    /// No candidates yet; `k` for each of as many rows as `order` has, with scores of at least `least`.
    pub fn new(k: usize, order: Vec<u32>, least: f32) -> Self {
        let lists = order.iter().map(|_| Mutex::new(TopK::new(k, least))).collect();
        Self { lists, order, least }
    }

    /// The bytes that candidates take, where each row has at most `reach` of them.
    pub fn bytes_for(k: usize, reach: impl ExactSizeIterator<Item = usize>) -> usize {
        let fixed = reach.len() * (size_of::<Mutex<TopK>>() + size_of::<u32>());
        // A growing vector may be half empty.
        let pairs: usize = reach.map(|reach| TopK::capacity(k).min(reach.saturating_mul(2))).sum();
        fixed + pairs * size_of::<(f32, u32)>()
    }

    /// The bytes that it holds.
    pub fn bytes(&self) -> usize {
        let pairs: usize = (0..self.lists.len()).map(|row| self.lock(row).buffer.capacity()).sum();
        self.lists.len() * (size_of::<Mutex<TopK>>() + size_of::<u32>()) + pairs * size_of::<(f32, u32)>()
    }

    /// The place of each row among the sorted ids.
    pub fn order(&self) -> &[u32] {
        &self.order
    }

    /// Offers a candidate to a row; returns what others must beat.
    pub fn offer(&self, row: usize, score: f32, candidate: u32) -> Floor {
        let mut list = self.lock(row);
        list.push(score, candidate, &self.order);
        list.floor
    }

    /// What candidates of a row must beat.
    pub fn floor(&self, row: usize) -> Floor {
        self.lock(row).floor
    }

    /// Moves candidates that were collected apart to a row.
    pub fn add(&self, row: usize, found: &mut TopK) {
        if !found.buffer.is_empty() {
            self.lock(row).absorb(found, &self.order, self.least);
        }
    }

    /// Hands out the best candidates of a row, best first.
    pub fn take(&self, row: usize, mut visit: impl FnMut(f32, u32)) {
        let mut list = self.lock(row);
        list.drain(&self.order, self.least).for_each(|(score, candidate)| visit(score, candidate));
        list.buffer = Vec::new();
    }

    fn lock(&self, row: usize) -> MutexGuard<'_, TopK> {
        // Whoever panicked while holding a list ends the query; what the list holds is whole all the same.
        self.lists[row].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_a_full_sort(scores in proptest::collection::vec(0u8..6, 0..80), k in 1usize..12, cut in 0usize..80) {
            let order: Vec<u32> = (0..scores.len() as u32).rev().collect();
            let (mut first, mut second) = (TopK::new(k, 1.0), TopK::new(k, 1.0));
            let mut all: Vec<(f32, u32)> = Vec::new();
            for (column, &score) in scores.iter().enumerate() {
                let part = if column < cut { &mut first } else { &mut second };
                part.push(f32::from(score), column as u32, &order);
                all.push((f32::from(score), column as u32));
            }
            first.absorb(&mut second, &order, 1.0);
            all.retain(|pair| pair.0 >= 1.0);
            all.sort_by(|a, b| b.0.total_cmp(&a.0).then(order[a.1 as usize].cmp(&order[b.1 as usize])));
            all.truncate(k);
            prop_assert_eq!(first.drain(&order, 1.0).collect::<Vec<_>>(), all);
        }
    }
}
