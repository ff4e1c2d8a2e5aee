//! What becomes of the sums of pairs: scores, and offers to both of their ends.

use std::ops::Range;

use super::cells::Cell;
use super::cpu::{Cpu, Work};
use super::metric::Settings;
use super::outbox::Outbox;
use super::sample;
use super::topk::{Candidates, Floor, TopK, falling, score_of};

/// Cells that are scored at once.
const CELLS_AT_ONCE: usize = 64;

/// What becomes of sums: scores, and offers to both ends of a pair.
pub(super) struct Scorer<'a, N, F> {
    cpu: Cpu,
    k: usize,
    found: &'a Candidates,
    /// What a neighbor of each entity must beat, as far as this thread knows.
    floors: Floors,
    /// The best of the entity whose row is at work.
    best: TopK,
    /// What a neighbor of that entity must beat.
    own_floor: Floor,
    /// Whether a sample said so: then its list will be full.
    is_judged: bool,
    /// What was found for other entities and is not delivered yet.
    outbox: Outbox,
    /// Room for its scores with a sample, [`falling`].
    sample: Vec<u32>,
    /// The entities that were gathered.
    gathered: Gathered<N>,
    norms: &'a [N],
    symmetric: bool,
    score: F,
}

/// Floors of many, scores and places apart from each other.
#[derive(Default)]
struct Floors {
    scores: Vec<f32>,
    places: Vec<u32>,
}

impl Floors {
    fn put(&mut self, row: usize, floor: Floor) {
        (self.scores[row], self.places[row]) = (floor.score, floor.place);
    }
}

/// Some of all entities side by side, with what is known of each and what its neighbors must beat.
pub(super) struct Gathered<N> {
    entities: Vec<u32>,
    norms: Vec<N>,
    places: Vec<u32>,
    floor_scores: Vec<f32>,
    floor_places: Vec<u32>,
}

impl<N> Default for Gathered<N> {
    fn default() -> Self {
        let (entities, norms, places) = (Vec::new(), Vec::new(), Vec::new());
        Self { entities, norms, places, floor_scores: Vec::new(), floor_places: Vec::new() }
    }
}

impl<N> Gathered<N> {
    /// The bytes that so many take.
    pub(super) fn bytes_for(entities: usize) -> usize {
        entities * (size_of::<u32>() + size_of::<N>() + size_of::<u32>() + size_of::<Floor>())
    }

    fn clear(&mut self) {
        self.entities.clear();
        self.norms.clear();
        self.places.clear();
        self.floor_scores.clear();
        self.floor_places.clear();
    }
}

/// What stands side by side of the entities that one is scored with.
struct Others<'s, N> {
    norms: &'s [N],
    places: &'s [u32],
    floor_scores: &'s [f32],
    floor_places: &'s [u32],
}

/// A bit for each flag, the first the lowest.
#[inline(always)]
fn bits(flags: [bool; CELLS_AT_ONCE]) -> u64 {
    // The product has the lowest bits of all bytes side by side in its uppermost byte.
    let eight = |flags: &[bool; 8]| u64::from_le_bytes(flags.map(u8::from)).wrapping_mul(0x0102_0408_1020_4080) >> 56;
    let mut bits = 0;
    for flags in flags.as_chunks::<8>().0.iter().rev() {
        bits = bits << 8 | eight(flags);
    }
    bits
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

/// The scoring of the pairs of one entity.
struct Scoring<'s, 'a, N, F, C, E> {
    scorer: &'s mut Scorer<'a, N, F>,
    i: usize,
    others: Others<'s, N>,
    /// Which entity each of the others is.
    entity: E,
    cells: &'s [C],
    guess: Guess,
}

/// What the best pairs of an entity must beat.
enum Guess {
    /// What is known.
    None,
    /// About the score of the k-th best pair; scored again without it where it is too high.
    Score(f32),
    /// What a sample of all entities says, the first of the others; lists of fewer are made again later.
    Sample(usize),
}

impl<N, C, F, E> Work for Scoring<'_, '_, N, F, C, E>
where
    N: Copy,
    C: Cell,
    F: Fn(C, N, N) -> f64,
    E: Fn(usize) -> usize,
{
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { scorer, i, others, entity, cells, guess } = self;
        let known = scorer.own_floor;
        let score = match guess {
            Guess::None => None,
            Guess::Score(score) => Some(score),
            // In a closure it would be compiled for any processor.
            Guess::Sample(size) => scorer.judge(i, &others, &cells[..size]),
        };
        let score = score.filter(|&score| score > known.score);
        if let Some(score) = score {
            scorer.best.guess(score);
            scorer.own_floor = known.max(scorer.best.floor());
            scorer.is_judged = matches!(guess, Guess::Sample(_));
        }
        scorer.score_cells(i, &others, entity, cells);
        if score.is_some() && !scorer.is_judged && scorer.best.has_room() {
            scorer.best.clear(known);
            scorer.score_own(i, &others, cells);
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
            floors: Floors { scores: vec![least; entities], places: vec![own_floor.place; entities] },
            best: TopK::roomy(k, least),
            own_floor,
            is_judged: false,
            outbox: Outbox::new(entities, k),
            sample: Vec::new(),
            gathered: Gathered::default(),
            norms,
            symmetric,
            score,
        }
    }

    /// Begins with the pairs of i.
    pub(super) fn begin(&mut self, i: usize) {
        self.own_floor = self.found.floor(i);
        self.is_judged = false;
        // The row before may have left its floor behind, if it found nothing.
        self.best.clear(self.own_floor);
    }

    /// Hands out the best pairs of i, and sometimes what was found for others.
    pub(super) fn end(&mut self, i: usize) {
        if let Some(floor) = self.found.add(i, &mut self.best, self.is_judged) {
            self.floors.put(i, floor);
        }
        if self.outbox.is_full() {
            self.deliver();
        }
    }

    /// Learns what is known of some entities by now.
    pub(super) fn learn(&mut self, rows: Range<usize>) {
        rows.for_each(|row| self.floors.put(row, self.found.floor(row)));
    }

    /// Scores the pairs of i with as many entities from `first` on as there are cells, and offers what may win. Of those, a
    /// `sample` may stand first.
    pub(super) fn score_all<C: Cell>(&mut self, i: usize, first: usize, cells: &[C], sample: usize)
    where
        F: Fn(C, N, N) -> f64,
    {
        let floors = std::mem::take(&mut self.floors);
        let range = first..first + cells.len();
        let others = Others {
            norms: &self.norms[range.clone()],
            places: &self.found.places()[range.clone()],
            floor_scores: &floors.scores[range.clone()],
            floor_places: &floors.places[range],
        };
        let cpu = self.cpu;
        let guess = if sample == 0 { Guess::None } else { Guess::Sample(sample) };
        cpu.run(Scoring { scorer: self, i, others, entity: |at| first + at, cells, guess });
        self.floors = floors;
    }

    /// Gathers entities to be scored with others, each told by how far it is from the first.
    pub(super) fn gather(&mut self, first: usize, rows: &[u16]) {
        let gathered = &mut self.gathered;
        gathered.clear();
        gathered.entities.extend(rows.iter().map(|&row| first as u32 + u32::from(row)));
        let entities = &gathered.entities;
        gathered.norms.extend(entities.iter().map(|&j| self.norms[j as usize]));
        gathered.places.extend(entities.iter().map(|&j| self.found.places()[j as usize]));
        gathered.floor_scores.extend(entities.iter().map(|&j| self.floors.scores[j as usize]));
        gathered.floor_places.extend(entities.iter().map(|&j| self.floors.places[j as usize]));
    }

    /// Scores the pairs of i with the last of the entities that were gathered, as many as there are cells, and offers what may
    /// win. Returns the score of the k-th best pair if there are so many.
    pub(super) fn score_gathered<C: Cell>(&mut self, i: usize, cells: &[C], guess: Option<f32>) -> Option<f32>
    where
        F: Fn(C, N, N) -> f64,
    {
        let gathered = std::mem::take(&mut self.gathered);
        let range = gathered.entities.len() - cells.len()..gathered.entities.len();
        let others = Others {
            norms: &gathered.norms[range.clone()],
            places: &gathered.places[range.clone()],
            floor_scores: &gathered.floor_scores[range.clone()],
            floor_places: &gathered.floor_places[range.clone()],
        };
        let (cpu, guess) = (self.cpu, guess.map_or(Guess::None, Guess::Score));
        cpu.run(Scoring {
            scorer: self,
            i,
            others,
            entity: |at| gathered.entities[range.start + at] as usize,
            cells,
            guess,
        });
        self.gathered = gathered;
        self.best.kth()
    }

    /// Forgets what was found for i and scores its pairs with all others, whose cells are given in order with its own among them,
    /// for i alone.
    pub(super) fn score_again<C: Cell>(&mut self, i: usize, cells: &[C])
    where
        F: Fn(C, N, N) -> f64,
    {
        self.found.forget(i);
        self.begin(i);
        for range in [0..i, i + 1..cells.len()] {
            let others = Others {
                norms: &self.norms[range.clone()],
                places: &self.found.places()[range.clone()],
                floor_scores: &[],
                floor_places: &[],
            };
            self.score_own(i, &others, &cells[range]);
        }
        self.end(i);
    }

    /// The score that the best pairs of i must beat as a sample of them says, if it says so.
    #[inline(always)]
    fn judge<C: Copy>(&mut self, i: usize, others: &Others<'_, N>, sample: &[C]) -> Option<f32>
    where
        F: Fn(C, N, N) -> f64,
    {
        let mut scores = std::mem::take(&mut self.sample);
        let norm = self.norms[i];
        scores.clear();
        scores.resize(sample.len(), u32::MAX);
        for ((score, cell), other) in scores.iter_mut().zip(sample).zip(others.norms) {
            // No number is worse than any.
            let found = (self.score)(*cell, norm, *other) as f32;
            *score = if found.is_nan() { u32::MAX } else { falling(found) };
        }
        let place = sample::place(self.norms.len(), self.k, sample.len());
        let judged = (place < scores.len()).then(|| *scores.select_nth_unstable(place).1);
        self.sample = scores;
        judged.filter(|&judged| judged != u32::MAX).map(score_of)
    }

    /// Scores the pairs of i with these entities for i alone.
    fn score_own<C: Copy>(&mut self, i: usize, others: &Others<'_, N>, cells: &[C])
    where
        F: Fn(C, N, N) -> f64,
    {
        let norm = self.norms[i];
        for ((cell, other), &place) in cells.iter().zip(others.norms).zip(others.places) {
            self.best.push((self.score)(*cell, norm, *other) as f32, place);
        }
    }

    /// Loops stand here by themselves: what closures of iterators do is not always compiled with the instructions that
    /// [`Cpu::run`] allows.
    #[inline(always)]
    fn score_cells<C: Cell>(&mut self, i: usize, others: &Others<'_, N>, entity: impl Fn(usize) -> usize, cells: &[C])
    where
        F: Fn(C, N, N) -> f64,
    {
        let (norm, place) = (self.norms[i], self.found.places()[i]);
        for (at, cells) in cells.chunks(CELLS_AT_ONCE).enumerate() {
            let first = at * CELLS_AT_ONCE;
            let range = first..first + cells.len();
            let norms = &others.norms[range.clone()];
            let mut scores = [0f32; CELLS_AT_ONCE];
            for ((score, cell), other) in scores.iter_mut().zip(cells).zip(norms) {
                *score = (self.score)(*cell, norm, *other) as f32;
            }
            let mut backward = scores;
            if !self.symmetric {
                for ((score, cell), other) in backward.iter_mut().zip(cells).zip(norms) {
                    *score = (self.score)(cell.swapped(), *other, norm) as f32;
                }
            }
            let own = self.own_floor;
            let places = &others.places[range.clone()];
            let mut admitted = [false; CELLS_AT_ONCE];
            for ((admitted, score), other_place) in admitted.iter_mut().zip(&scores).zip(places) {
                *admitted = own.admits(*score, *other_place);
            }
            for at in ones(bits(admitted)) {
                self.best.push(scores[at], places[at]);
            }
            self.own_floor = own.max(self.best.floor());
            let mut admitted = [false; CELLS_AT_ONCE];
            let floors = others.floor_scores[range.clone()].iter().zip(&others.floor_places[range]);
            for ((admitted, other), (&score, &floor_place)) in admitted.iter_mut().zip(&backward).zip(floors) {
                *admitted = Floor { score, place: floor_place }.admits(*other, place);
            }
            for at in ones(bits(admitted)) {
                self.outbox.push(entity(first + at), backward[at], place);
            }
        }
    }

    /// Hands out what was found for others.
    pub(super) fn deliver(&mut self) {
        self.found.deliver(&mut self.outbox, |row, floor| self.floors.put(row, floor));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;

    use super::*;
    use crate::csr::{Csr, entry};
    use crate::metric::{Exponents, Metric};
    use crate::similarity::Similarity;
    use crate::weighting::Weighting;

    const ENTITIES: usize = 1500;

    fn lists(weights: &[f32], k: usize, sample: usize) -> Vec<Vec<(f32, u32)>> {
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
        let found = Candidates::new(k, (0..weights.len() as u32).collect(), settings.least());
        let similarity = Similarity::new(matrix, settings).unwrap().with_sample(sample);
        similarity.search(&found, &AtomicBool::new(false)).unwrap();
        let list = |row| {
            let mut list = Vec::new();
            found.take(row, |score, candidate| list.push((score, candidate)));
            list
        };
        (0..weights.len()).map(list).collect()
    }

    /// What a sample says is too much where the best pairs are in it, and it says nothing where all pairs are kept.
    #[test]
    fn samples_do_not_show() {
        const K: usize = 256;
        for favour in [0.0, 50.0] {
            let favoured = |at: usize| if at < ENTITIES / 8 { favour } else { 0.0 };
            let weights: Vec<f32> = (0..ENTITIES).map(|at| 1.0 + (at * 7919 % 101) as f32 + favoured(at)).collect();
            let (few, all) = (lists(&weights, K, ENTITIES / 8), lists(&weights, ENTITIES, 0));
            for (few, all) in few.iter().zip(&all) {
                assert_eq!(few[..], all[..K]);
            }
        }
    }
}
