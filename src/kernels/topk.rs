//! The k best of a stream of scored columns, ties broken by the smaller id.
//!
//! A pair is kept as one number: its score in the upper half, so that better scores make smaller numbers, and its place among
//! the sorted ids in the lower. Numbers are selected and sorted several times as fast as pairs that are compared in steps.

use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::digits::sort_by_range;
use super::outbox::Outbox;
use super::prefetch::prefetch;

/// Keeps the `k` best pairs of score and place pushed into it.
///
/// Better is the higher score, then the smaller place; as places are distinct this is a total order and the result does not
/// depend on the order of pushes. Pairs collect in a buffer of more than k that is cut to k by selection whenever it is full,
/// which costs constant time a pair.
#[derive(Debug)]
pub struct TopK {
    k: usize,
    buffer: Vec<Key>,
    /// How many pairs there may be between two cuts.
    most: usize,
    /// What a pair must be less than.
    floor: Key,
}

/// A pair as a number, the less the better.
pub(super) type Key = u64;

/// The key of a pair whose score is a number.
pub(super) fn key(score: f32, place: u32) -> Key {
    // Adding 0 turns -0 into 0, which compares as the same score.
    u64::from(falling(score + 0.0)) << 32 | u64::from(place)
}

fn pair(key: Key) -> (f32, u32) {
    (score_of((key >> 32) as u32), key as u32)
}

/// A number that falls as scores rise.
#[inline]
pub(super) fn falling(score: f32) -> u32 {
    turned(score.to_bits())
}

/// The score of such a number.
#[inline]
pub(super) fn score_of(falling: u32) -> f32 {
    f32::from_bits(turned(falling))
}

/// Its own inverse. Bits of negative singles fall by themselves and are above all others.
fn turned(bits: u32) -> u32 {
    const SIGN: u32 = 1 << 31;
    if bits < SIGN { SIGN - 1 - bits } else { bits }
}

/// The places of columns among their sorted ids, and which column is at each place.
#[derive(Debug, Clone)]
pub struct Order {
    places: Vec<u32>,
    columns: Vec<u32>,
}

impl Order {
    /// From the place of each column; every place from 0 on is there once.
    pub fn new(places: Vec<u32>) -> Self {
        let mut columns = vec![0; places.len()];
        places.iter().zip(0..).for_each(|(&place, column)| columns[place as usize] = column);
        Self { places, columns }
    }

    /// The bytes that an order of so many columns takes.
    pub fn bytes_for(columns: usize) -> usize {
        2 * columns * size_of::<u32>()
    }

    /// How many columns there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// The place of each column.
    #[inline(always)]
    pub fn places(&self) -> &[u32] {
        &self.places
    }

    /// The column at a place.
    #[inline(always)]
    pub fn column(&self, place: u32) -> u32 {
        self.columns[place as usize]
    }
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

    /// The one of both that is harder to beat.
    #[inline(always)]
    pub fn max(self, other: Self) -> Self {
        if self.admits(other.score, other.place) { other } else { self }
    }

    fn key(self) -> Key {
        key(self.score, self.place)
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
        Self { k, buffer: Vec::new(), most: Self::capacity(k), floor: Floor::least(least).key() }
    }

    /// The same with more room: it is cut more seldom. For what there is once in a thread.
    pub fn roomy(k: usize, least: f32) -> Self {
        Self { most: Self::roomy_capacity(k), ..Self::new(k, least) }
    }

    /// How many pairs a roomy one may hold between two cuts.
    pub fn roomy_capacity(k: usize) -> usize {
        Self::capacity(k).max(k.saturating_mul(2))
    }

    /// How many pairs any other may hold between two cuts.
    pub fn capacity(k: usize) -> usize {
        k.saturating_add((k / 4).max(32))
    }

    /// Begins with a guess of what the best must beat; if so many do not come, it was too high.
    pub fn guess(&mut self, score: f32) {
        self.floor = self.floor.min(Floor::least(score).key());
    }

    /// Whether there are fewer than k.
    pub fn has_room(&self) -> bool {
        self.buffer.len() < self.k
    }

    /// The score of the k-th best pair, if there are so many.
    pub fn kth(&mut self) -> Option<f32> {
        self.cut();
        let worst = self.buffer.iter().max().filter(|_| !self.has_room());
        worst.map(|&key| pair(key).0)
    }

    /// Forgets all pairs, and starts anew with what beats this.
    pub fn clear(&mut self, floor: Floor) {
        self.buffer.clear();
        self.floor = floor.key();
    }

    /// What a pair must beat to be among the best.
    #[inline]
    pub fn floor(&self) -> Floor {
        let (score, place) = pair(self.floor);
        Floor { score, place }
    }

    /// Offers a pair. A score that is not a number is not kept.
    #[inline]
    pub fn push(&mut self, score: f32, place: u32) {
        if !score.is_nan() {
            self.push_key(key(score, place));
        }
    }

    #[inline]
    fn push_key(&mut self, key: Key) {
        if key < self.floor {
            let (held, most) = (self.buffer.len(), self.most);
            if held == self.buffer.capacity() {
                // Twice as much as before, but never more than is used.
                self.buffer.reserve_exact(held.max(4).min(most.saturating_sub(held)).max(1));
            }
            self.buffer.push(key);
            if held + 1 >= most {
                self.cut();
            }
        }
    }

    /// Fetches the memory to which so many more pairs go.
    fn fetch(&mut self, more: usize) {
        let room = self.buffer.spare_capacity_mut();
        prefetch(&room[..more.min(room.len())]);
    }

    fn cut(&mut self) {
        self.cut_to(self.k);
    }

    fn cut_to(&mut self, length: usize) {
        if self.buffer.len() > length {
            let (_, &mut worst, _) = self.buffer.select_nth_unstable(length - 1);
            self.buffer.truncate(length);
            self.floor = worst;
        }
    }

    /// Hands out the best pairs, best first, and starts anew with scores of at least `least`.
    pub fn drain(&mut self, least: f32) -> impl Iterator<Item = (f32, u32)> {
        self.cut();
        self.floor = Floor::least(least).key();
        self.buffer.sort_unstable();
        self.buffer.drain(..).map(pair)
    }

    /// Sorts the best pairs, best first, and drops all others.
    fn sort(&mut self, room: &mut Vec<Key>) {
        const LONG: usize = 256;
        if self.buffer.len() < LONG {
            self.cut();
            return self.buffer.sort_unstable();
        }
        sort_by_range(&mut self.buffer, room);
        self.buffer.truncate(self.k);
    }

    /// Offers all pairs of another selection, which is empty after it. What they must beat there holds here, too. Where it is
    /// known that the list `will_fill` there is room for all at once.
    pub fn absorb(&mut self, other: &mut Self, will_fill: bool) {
        if other.buffer.len() >= self.most {
            other.cut();
        }
        if self.buffer.is_empty() {
            // Most rows are met once; their lists take no more room than they need. A full list will be met again.
            let held = other.buffer.len();
            let room = match will_fill {
                true => self.most,
                false if other.has_room() => held,
                false => self.most.min(2 * held),
            };
            self.buffer.reserve_exact(room);
            self.buffer.append(&mut other.buffer);
        }
        other.buffer.drain(..).for_each(|key| self.push_key(key));
        if other.floor < self.floor {
            self.floor = other.floor;
            self.buffer.retain(|&key| key <= other.floor);
        }
    }
}

/// The best candidates of every row, open to all threads at once.
#[derive(Debug)]
pub struct Candidates {
    lists: Vec<Mutex<TopK>>,
    places: Vec<u32>,
    least: f32,
}

impl Candidates {
    /// No candidates yet; `k` for each of as many rows as there are `places`, with scores of at least `least`. The places of
    /// candidates among their sorted ids are all different.
    pub fn new(k: usize, places: Vec<u32>, least: f32) -> Self {
        let lists = places.iter().map(|_| Mutex::new(TopK::new(k, least))).collect();
        Self { lists, places, least }
    }

    /// The bytes that candidates take, where each row has at most `reach` of them.
    pub fn bytes_for(k: usize, reach: impl ExactSizeIterator<Item = usize>) -> usize {
        let fixed = reach.len() * (size_of::<Mutex<TopK>>() + size_of::<u32>());
        // A growing vector may be half empty.
        let pairs: usize = reach.map(|reach| TopK::capacity(k).min(reach.saturating_mul(2))).sum();
        fixed + pairs * size_of::<Key>()
    }

    /// The bytes that it holds.
    pub fn bytes(&self) -> usize {
        let pairs: usize = (0..self.lists.len()).map(|row| self.lock(row).buffer.capacity()).sum();
        self.lists.len() * (size_of::<Mutex<TopK>>() + size_of::<u32>()) + pairs * size_of::<Key>()
    }

    /// The places of candidates among their sorted ids.
    #[inline(always)]
    pub fn places(&self) -> &[u32] {
        &self.places
    }

    /// Offers a candidate to a row; returns what others must beat.
    pub fn offer(&self, row: usize, score: f32, candidate: u32) -> Floor {
        let mut list = self.lock(row);
        list.push(score, self.places[candidate as usize]);
        list.floor()
    }

    /// Delivers what was collected for many rows, and tells of each row that got something what others must beat now.
    pub(super) fn deliver(&self, outbox: &mut Outbox, mut floor: impl FnMut(usize, Floor)) {
        let mut put = |(row, keys, mut list): (usize, &[Key], MutexGuard<'_, TopK>)| {
            keys.iter().for_each(|&key| list.push_key(key));
            floor(row, list.floor());
        };
        // The end of a list is far away in memory: it is fetched while the list before it gets its candidates. Whoever holds
        // two lists has locked the first of them first, so that nobody waits in a circle.
        let mut next = None;
        for (row, keys) in outbox.by_rows() {
            let mut list = self.lock(row);
            list.fetch(keys.len());
            if let Some(before) = next.replace((row, keys, list)) {
                put(before);
            }
        }
        if let Some(last) = next {
            put(last);
        }
        outbox.clear();
    }

    /// What candidates of a row must beat.
    pub fn floor(&self, row: usize) -> Floor {
        self.lock(row).floor()
    }

    /// Moves candidates that were collected apart to a row, whose list may be known to fill. Returns what others must beat, if
    /// there were any.
    pub fn add(&self, row: usize, found: &mut TopK, will_fill: bool) -> Option<Floor> {
        (!found.buffer.is_empty()).then(|| {
            let mut list = self.lock(row);
            list.absorb(found, will_fill);
            list.floor()
        })
    }

    /// Keeps no more than so many candidates of a row, and from now on what beats the last of them.
    pub(super) fn guess(&self, row: usize, length: usize) {
        self.lock(row).cut_to(length);
    }

    /// The rows in which fewer than k candidates beat what was guessed that they must beat.
    pub(super) fn misjudged(&self) -> Vec<usize> {
        let least = Floor::least(self.least);
        let is_misjudged = |list: MutexGuard<'_, TopK>| list.has_room() && list.floor() != least;
        (0..self.lists.len()).filter(|&row| is_misjudged(self.lock(row))).collect()
    }

    /// Forgets the candidates of a row, and what they had to beat.
    pub(super) fn forget(&self, row: usize) {
        self.lock(row).clear(Floor::least(self.least));
    }

    /// Hands out the best candidates of a range of rows, once.
    pub fn take_lists(&self, rows: Range<usize>) -> Lists {
        let (mut lists, mut room) = (Lists::default(), Vec::new());
        let take = |row| {
            let mut held = self.lock(row);
            let empty = TopK::new(held.k, self.least);
            std::mem::replace(&mut *held, empty)
        };
        let taken: Vec<TopK> = rows.map(take).collect();
        let length = taken.iter().map(|list| list.buffer.len().min(list.k)).sum();
        lists.scores.reserve_exact(length);
        lists.places.reserve_exact(length);
        for mut list in taken {
            list.sort(&mut room);
            lists.lengths.push(list.buffer.len());
            lists.scores.extend(list.buffer.iter().map(|&key| pair(key).0));
            lists.places.extend(list.buffer.iter().map(|&key| pair(key).1));
        }
        lists
    }

    /// Hands out the best candidates of a row.
    #[cfg(test)]
    pub(super) fn take(&self, row: usize, mut visit: impl FnMut(f32, u32)) {
        let (Lists { places, scores, .. }, order) = (self.take_lists(row..row + 1), Order::new(self.places.clone()));
        scores.into_iter().zip(places).for_each(|(score, place)| visit(score, order.column(place)));
    }

    fn lock(&self, row: usize) -> MutexGuard<'_, TopK> {
        // Whoever panicked while holding a list ends the query; what the list holds is whole all the same.
        self.lists[row].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The best candidates of some rows, one row after the other.
#[derive(Debug, Default)]
pub struct Lists {
    /// The number of candidates of each row.
    pub lengths: Vec<usize>,
    /// The places of the candidates of each row, best first.
    pub places: Vec<u32>,
    /// Their scores.
    pub scores: Vec<f32>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_a_full_sort(scores in proptest::collection::vec(0u8..6, 0..80), k in 1usize..12, cut in 0usize..80) {
            let (mut first, mut second) = (TopK::new(k, 1.0), TopK::new(k, 1.0));
            let mut all: Vec<(f32, u32)> = Vec::new();
            for (at, &score) in scores.iter().enumerate() {
                let (part, place) = (if at < cut { &mut first } else { &mut second }, (scores.len() - at) as u32);
                part.push(f32::from(score), place);
                all.push((f32::from(score), place));
            }
            first.absorb(&mut second, false);
            all.retain(|pair| pair.0 >= 1.0);
            all.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
            all.truncate(k);
            prop_assert_eq!(first.drain(1.0).collect::<Vec<_>>(), all);
        }

        #[test]
        fn long_lists_are_sorted_with_their_ties(
            scores in proptest::collection::vec(
                prop_oneof![(-3i8..3).prop_map(f32::from), any::<f32>().prop_map(|score| if score.is_nan() { -0.0 } else { score })],
                200..3000,
            ),
            k in 150usize..3000,
        ) {
            let found = Candidates::new(k, (0..scores.len() as u32).rev().collect(), f32::NEG_INFINITY);
            let mut all: Vec<(f32, u32)> = Vec::new();
            for (&score, candidate) in scores.iter().zip(0..) {
                all.push((score, found.places()[candidate as usize]));
                found.offer(0, score, candidate);
            }
            all.sort_by(|a, b| (b.0 + 0.0).total_cmp(&(a.0 + 0.0)).then(a.1.cmp(&b.1)));
            all.truncate(k);
            let lists = found.take_lists(0..2);
            prop_assert_eq!(&lists.lengths, &[all.len(), 0]);
            prop_assert_eq!(lists.scores.into_iter().zip(lists.places).collect::<Vec<_>>(), all);
        }

        #[test]
        fn lists_hold_no_more_than_was_counted(k in 1usize..100, reach in 1usize..300, asked in any::<bool>()) {
            let found = Candidates::new(k, (0..=reach as u32).collect(), 0.0);
            let mut best = TopK::roomy(k, 0.0);
            (1..=reach as u32).for_each(|place| best.push(place as f32, place));
            // Which cuts it.
            prop_assert!(!asked || best.kth().is_some() == (reach >= k));
            found.add(0, &mut best, false);
            let counted = Candidates::bytes_for(k, (0..reach + 1).map(|row| if row == 0 { reach } else { 0 }));
            prop_assert!(found.bytes() <= counted, "{} of {counted}", found.bytes());
            prop_assert_eq!(found.take_lists(0..1).lengths, [k.min(reach)]);
        }

        #[test]
        fn keys_are_ordered_as_pairs(a in any::<(f32, u32)>(), b in any::<(f32, u32)>()) {
            let [a, b] = [a, b].map(|(score, place)| (if score.is_nan() { 0.0 } else { score + 0.0 }, place));
            prop_assert_eq!(pair(key(a.0, a.1)), a);
            let expected = b.0.total_cmp(&a.0).then(a.1.cmp(&b.1));
            prop_assert_eq!(key(a.0, a.1).cmp(&key(b.0, b.1)), expected);
        }
    }
}
