//! What becomes of the sums of pairs: scores, and offers to both of their ends.

use super::cells::Cell;
use super::cpu::{Cpu, Work};
use super::metric::Settings;
use super::topk::{Candidates, Floor, Outbox, TopK};

/// From this k on it pays to guess what the best of many pairs must beat, by one of so many of them.
const LONG_LIST: usize = 256;
const SAMPLED: usize = 16;
/// Cells that are scored at once.
const CELLS_AT_ONCE: usize = 64;

/// What becomes of sums: scores, and offers to both ends of a pair.
pub(super) struct Scorer<'a, N, F> {
    cpu: Cpu,
    k: usize,
    found: &'a Candidates,
    /// What a neighbor of each entity must beat, as far as this thread knows: scores and, apart from them, places.
    floor_scores: Vec<f32>,
    floor_places: Vec<u32>,
    /// The best of the entity whose row is at work.
    best: TopK,
    /// What a neighbor of that entity must beat.
    own_floor: Floor,
    /// What was found for other entities and is not delivered yet.
    outbox: Outbox,
    /// Room for a few of its scores.
    sample: Vec<f32>,
    norms: &'a [N],
    symmetric: bool,
    score: F,
}

/// A bit for each flag, the first the lowest.
#[inline(always)]
fn bits(flags: [bool; CELLS_AT_ONCE]) -> u64 {
    // The product has the lowest bits of all bytes side by side in its uppermost byte.
    let eight = |flags: &[bool; 8]| u64::from_le_bytes(flags.map(u8::from)).wrapping_mul(0x0102_0408_1020_4080) >> 56;
    flags.as_chunks::<8>().0.iter().rev().fold(0, |bits, flags| bits << 8 | eight(flags))
}

/// The places of the bits that are 1.
#[inline(always)]
fn ones(mut bits: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lowest = (bits != 0).then(|| bits.trailing_zeros() as usize);
        bits &= bits.wrapping_sub(1);
        lowest
    })
}

/// As [`Floor::admits`] for a single pair: places are far away, and looked at only where scores are equal.
#[inline(always)]
fn beats(score: f32, floor: f32, comes_before: impl FnOnce() -> bool) -> bool {
    score > floor || (score == floor && comes_before())
}

/// The scoring of the pairs of one entity.
struct Scoring<'s, 'a, N, F, C> {
    scorer: &'s mut Scorer<'a, N, F>,
    i: usize,
    first: usize,
    cells: &'s [C],
}

impl<N: Copy, C: Cell, F: Fn(C, N, N) -> f64> Work for Scoring<'_, '_, N, F, C> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { scorer, i, first, cells } = self;
        if let Some(score) = scorer.guess(i, first, cells) {
            let known = scorer.own_floor;
            scorer.best.guess(score);
            scorer.own_floor = scorer.own_floor.max(scorer.best.floor());
            scorer.score_cells(i, first, cells);
            if scorer.best.has_room() {
                scorer.best.clear(known);
                scorer.score_own(i, first, cells);
            }
        } else {
            scorer.score_cells(i, first, cells);
        }
    }
}

impl<'a, N: Copy, F> Scorer<'a, N, F> {
    /// Scores by `score`, from what is known of both ends (`norms`) and of the pair, which is the same from either end or
    /// not (`symmetric`), and offers to `found`.
    pub(super) fn new(
        cpu: Cpu,
        found: &'a Candidates,
        settings: &Settings,
        norms: &'a [N],
        symmetric: bool,
        score: F,
    ) -> Self {
        let (entities, least) = (norms.len(), settings.least());
        // k beyond the number of entities would only reserve room for what cannot come.
        let k = settings.k.min(entities.max(1));
        let own_floor = Floor::least(least);
        Self {
            cpu,
            k,
            found,
            floor_scores: vec![least; entities],
            floor_places: vec![own_floor.place; entities],
            best: TopK::new(k, least),
            own_floor,
            outbox: Outbox::new(entities),
            sample: Vec::new(),
            norms,
            symmetric,
            score,
        }
    }

    /// Begins with the pairs of i.
    pub(super) fn begin(&mut self, i: usize) {
        self.own_floor = self.found.floor(i);
    }

    /// Hands out the best pairs of i, and sometimes what was found for others.
    pub(super) fn end(&mut self, i: usize) {
        self.found.add(i, &mut self.best);
        if self.outbox.is_full() {
            self.deliver();
        }
    }

    /// Scores the pair of i and j, and offers it if it may win.
    #[inline(always)]
    pub(super) fn score_pair<C: Cell>(&mut self, i: usize, j: usize, cell: C)
    where
        F: Fn(C, N, N) -> f64,
    {
        let score = self.score(cell, i, j);
        let other = if self.symmetric { score } else { self.score(cell.swapped(), j, i) };
        self.offer(i, j, score, other);
    }

    /// Scores the pairs of i with as many entities from `first` on as there are cells, and offers what may win.
    pub(super) fn score_all<C: Cell>(&mut self, i: usize, first: usize, cells: &[C])
    where
        F: Fn(C, N, N) -> f64,
    {
        self.cpu.run(Scoring { scorer: self, i, first, cells });
    }

    /// The score of about the k-th best pair of i, rather too low than too high, judged by a few of them. Without it the first
    /// pairs that come would fill a long list again and again.
    #[inline(always)]
    fn guess<C: Copy>(&mut self, i: usize, first: usize, cells: &[C]) -> Option<f32>
    where
        F: Fn(C, N, N) -> f64,
    {
        let k = self.k;
        if k < LONG_LIST || cells.len() / 4 < k {
            return None;
        }
        let mut sample = std::mem::take(&mut self.sample);
        let sampled = cells.iter().enumerate().step_by(SAMPLED);
        sample.extend(sampled.map(|(at, cell)| self.score(*cell, i, first + at)).filter(|score| !score.is_nan()));
        let expected = (k / SAMPLED) as f64;
        let place = (expected + 3.0 * expected.sqrt()) as usize;
        let guess = (place < sample.len()).then(|| *sample.select_nth_unstable_by(place, |a, b| b.total_cmp(a)).1);
        sample.clear();
        self.sample = sample;
        guess
    }

    /// Scores the pairs of i with these entities for i alone.
    fn score_own<C: Copy>(&mut self, i: usize, first: usize, cells: &[C])
    where
        F: Fn(C, N, N) -> f64,
    {
        for (at, cell) in cells.iter().enumerate() {
            let j = first + at;
            self.best.push(self.score(*cell, i, j), self.found.order().places()[j]);
        }
    }

    #[inline(always)]
    fn score_cells<C: Cell>(&mut self, i: usize, first: usize, cells: &[C])
    where
        F: Fn(C, N, N) -> f64,
    {
        let order = self.found.order().places();
        let (norm, place) = (self.norms[i], order[i]);
        for (at, cells) in cells.chunks(CELLS_AT_ONCE).enumerate() {
            let first = first + at * CELLS_AT_ONCE;
            let range = first..first + cells.len();
            let norms = &self.norms[range.clone()];
            let mut scores = [0f32; CELLS_AT_ONCE];
            for ((score, cell), other) in scores.iter_mut().zip(cells).zip(norms) {
                *score = (self.score)(*cell, norm, *other) as f32;
            }
            let mut others = scores;
            if !self.symmetric {
                for ((score, cell), other) in others.iter_mut().zip(cells).zip(norms) {
                    *score = (self.score)(cell.swapped(), *other, norm) as f32;
                }
            }
            let own = self.own_floor;
            let places = &order[range.clone()];
            let mut admitted = [false; CELLS_AT_ONCE];
            for ((admitted, score), other_place) in admitted.iter_mut().zip(&scores).zip(places) {
                *admitted = own.admits(*score, *other_place);
            }
            ones(bits(admitted)).for_each(|at| self.best.push(scores[at], places[at]));
            self.own_floor = own.max(self.best.floor());
            let mut admitted = [false; CELLS_AT_ONCE];
            let floors = self.floor_scores[range.clone()].iter().zip(&self.floor_places[range]);
            for ((admitted, other), (&score, &floor_place)) in admitted.iter_mut().zip(&others).zip(floors) {
                *admitted = Floor { score, place: floor_place }.admits(*other, place);
            }
            ones(bits(admitted)).for_each(|at| self.outbox.push(first + at, others[at], place));
        }
    }

    #[inline(always)]
    fn score<C>(&self, cell: C, i: usize, j: usize) -> f32
    where
        F: Fn(C, N, N) -> f64,
    {
        (self.score)(cell, self.norms[i], self.norms[j]) as f32
    }

    /// Offers a pair to both of its ends.
    #[inline(always)]
    fn offer(&mut self, i: usize, j: usize, score: f32, other: f32) {
        let places = self.found.order().places();
        if beats(score, self.own_floor.score, || places[j] < self.own_floor.place) {
            self.best.push(score, places[j]);
            let floor = self.best.floor();
            self.own_floor = self.own_floor.max(floor);
        }
        if beats(other, self.floor_scores[j], || places[i] < self.floor_places[j]) {
            self.outbox.push(j, other, places[i]);
        }
    }

    /// Hands out what was found for others.
    pub(super) fn deliver(&mut self) {
        let known =
            |row: usize, floor: Floor| (self.floor_scores[row], self.floor_places[row]) = (floor.score, floor.place);
        self.found.deliver(&mut self.outbox, known);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::csr::{Csr, entry};
    use crate::metric::{Exponents, Metric};
    use crate::similarity::Similarity;
    use crate::topk::Order;
    use crate::weighting::Weighting;

    const ENTITIES: usize = 1500;

    fn lists(weights: &[f32], k: usize) -> Vec<Vec<(f32, u32)>> {
        let entries = weights.iter().map(|&weight| entry::pack(0, weight)).collect();
        let matrix = Csr { columns: 1, offsets: (0..=weights.len()).collect(), entries };
        let settings = Settings {
            metric: Metric::Walk,
            k,
            shrink: 0.0,
            threshold: 0.0,
            min_overlap: 1,
            max_features: None,
            weighting: Weighting::None,
            alpha: 1.0,
            beta: 1.0,
            walk: Exponents { a: 0.0, b: 0.0, c: 0.0, weight: 1.0 },
        };
        let found = Candidates::new(k, Order::new((0..weights.len() as u32).collect()), settings.least());
        Similarity::new(matrix, settings).unwrap().search(&found, &AtomicBool::new(false)).unwrap();
        let list = |row| {
            let mut list = Vec::new();
            found.take(row, |score, candidate| list.push((score, candidate)));
            list
        };
        (0..weights.len()).map(list).collect()
    }

    /// A guess is too high where the pairs that it is made by are the best, and nothing is guessed where all pairs are kept.
    #[test]
    fn guesses_do_not_show() {
        for favour in [0.0, 50.0] {
            let favoured = |at: usize| if at.is_multiple_of(SAMPLED) { favour } else { 0.0 };
            let weights: Vec<f32> = (0..ENTITIES).map(|at| 1.0 + (at * 7919 % 101) as f32 + favoured(at)).collect();
            let (few, all) = (lists(&weights, LONG_LIST), lists(&weights, ENTITIES));
            for (few, all) in few.iter().zip(&all) {
                assert_eq!(few[..], all[..LONG_LIST]);
            }
        }
    }
}
