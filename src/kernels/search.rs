//! The k most similar entities of each entity, for every metric of `neighbors`: the search itself.
//!
//! Each pair of entities is summed and scored once, and offered to both of its ends.

use std::marker::PhantomData;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use super::Error;
use super::block::{Block, Cells};
use super::cells::{Cell, Count, Counted, Dot, Moments, Value, WholeDot};
use super::cpu::{Cpu, Work};
use super::metric::{Exponents, Metric};
use super::similarity::{Encoding, Similarity};
use super::topk::{Candidates, Floor, Outbox, TopK};
use super::weighting::divisor;

impl Similarity {
    /// Offers to `found` the neighbors of all entities; returns the multiply-adds done. Works on all threads of the
    /// current pool, and ends early, with whatever was found, when told to `stop`.
    pub fn search(&self, found: &Candidates, stop: &AtomicBool) -> Result<usize, Error> {
        self.search_on(Cpu::detect(), found, &[true], stop)
    }

    /// As [`Similarity::search`], for a share of all pairs: `mine` says in turn of a few rows at a time whether they are
    /// part of it. Where each row is in one of several shares, the best of what these found are what one search finds.
    pub fn search_share(&self, found: &Candidates, mine: &[bool], stop: &AtomicBool) -> Result<usize, Error> {
        self.search_on(Cpu::detect(), found, mine, stop)
    }

    /// As [`Similarity::search_share`], with the instructions of one kind of processor. The result is the same for each.
    pub fn search_on(&self, cpu: Cpu, found: &Candidates, mine: &[bool], stop: &AtomicBool) -> Result<usize, Error> {
        let run = Run { index: self, found, mine, stop, cpu };
        let h = self.settings.shrink;
        let (alpha, beta) = (self.settings.alpha, self.settings.beta);
        let features = self.features;
        if let Some(Exponents { a, c, .. }) = self.settings.exponents() {
            let degrees: Vec<[f64; 2]> = self.norm.iter().map(|&d| [divisor(d, a), divisor(d, c)]).collect();
            return run.dots(&degrees, a == c, |dot, i: [f64; 2], j: [f64; 2]| dot * i[0] * j[1]);
        }
        match self.settings.metric {
            Metric::Cosine | Metric::CenteredCosine | Metric::AdjustedCosine => {
                run.dots(&self.norm, true, move |dot, a, b| at_most_one(dot / (a * b + h)))
            }
            Metric::AsymmetricCosine => {
                let norms: Vec<[f64; 2]> =
                    self.norm.iter().map(|n| [n.powf(2.0 * alpha), n.powf(2.0 * (1.0 - alpha))]).collect();
                run.dots(&norms, alpha == 0.5, move |dot, a: [f64; 2], b: [f64; 2]| dot / (a[0] * b[1] + h))
            }
            Metric::Euclidean => run.dots(&self.norm, true, move |dot, a, b| {
                let squared: f64 = a + b - 2.0 * dot;
                1.0 / (1.0 + squared.max(0.0).sqrt() + h)
            }),
            Metric::Pearson => run.sums::<f32, Moments, _, _>(&self.norm, true, move |m, _: f64, _| {
                at_most_one(m.ab / ((m.aa * m.bb).sqrt() + h))
            }),
            Metric::Jaccard => run.counts(true, move |c, a, b| c / (a + b - c + h)),
            Metric::Dice => run.counts(true, move |c, a, b| 2.0 * c / (a + b + h)),
            Metric::Tversky => run.counts(alpha == beta, move |c, a, b| c / (c + alpha * (a - c) + beta * (b - c) + h)),
            Metric::Overlap => run.counts(true, |c, _, _| c),
            Metric::Lift => run.counts(true, move |c, a, b| c * features / (a * b + h)),
            Metric::Walk | Metric::P3alpha | Metric::Rp3beta | Metric::Gfcf => Err("a walk without exponents".into()),
        }
    }
}

/// Rounding may carry a correlation of equal rows past 1.
#[inline(always)]
fn at_most_one(score: f64) -> f64 {
    score.clamp(-1.0, 1.0)
}

/// One search of all entities.
#[derive(Clone, Copy)]
struct Run<'a> {
    index: &'a Similarity,
    found: &'a Candidates,
    /// Which rows are to be searched, [`ROWS_AT_ONCE`] at a time, over and over again.
    mine: &'a [bool],
    stop: &'a AtomicBool,
    cpu: Cpu,
}

impl Run<'_> {
    fn counts<F>(&self, symmetric: bool, score: F) -> Result<usize, Error>
    where
        F: Fn(f64, f64, f64) -> f64 + Copy + Send + Sync,
    {
        self.sums::<(), Count, _, _>(&self.index.norm, symmetric, move |c, a, b| score(f64::from(c.0), a, b))
    }

    fn dots<N: Copy + Send + Sync, F>(&self, norms: &[N], symmetric: bool, score: F) -> Result<usize, Error>
    where
        F: Fn(f64, N, N) -> f64 + Copy + Send + Sync,
    {
        match self.index.encoding {
            Encoding::Ones => {
                self.sums::<(), Count, N, _>(norms, symmetric, move |c, a, b| score(f64::from(c.0), a, b))
            }
            Encoding::Whole { unit } => {
                self.sums::<u8, WholeDot, N, _>(norms, symmetric, move |dot, a, b| score(f64::from(dot.0) * unit, a, b))
            }
            Encoding::Single => self.sums::<f32, Dot, N, _>(norms, symmetric, move |dot, a, b| score(dot.0, a, b)),
        }
    }

    fn sums<V: Value, C: Cell<V>, N: Copy + Send + Sync, F>(
        &self,
        norms: &[N],
        symmetric: bool,
        score: F,
    ) -> Result<usize, Error>
    where
        F: Fn(C, N, N) -> f64 + Copy + Send + Sync,
    {
        let settings = &self.index.settings;
        let min_overlap = settings.min_overlap;
        // Below a threshold of 0 a sum of 0 counts too, and only the number of common features tells it from none.
        // So for distances, which are finite where the products are 0.
        if settings.metric == Metric::Euclidean || min_overlap > 1 || settings.threshold < 0.0 {
            let counted = move |cell: Counted<C>, a, b| {
                if cell.count < min_overlap { f64::NAN } else { score(cell.sums, a, b) }
            };
            self.blocks::<V, Counted<C>, N, _>(norms, symmetric, counted)
        } else {
            self.blocks::<V, C, N, _>(norms, symmetric, score)
        }
    }

    /// Every block with itself and with the rows of all blocks after it.
    fn blocks<V: Value, C: Cell<V>, N: Copy + Send + Sync, F>(
        &self,
        norms: &[N],
        symmetric: bool,
        score: F,
    ) -> Result<usize, Error>
    where
        F: Fn(C, N, N) -> f64 + Copy + Send + Sync,
    {
        let index = self.index;
        let searcher = || Mutex::new(Searcher::new(*self, norms, symmetric, score));
        let searchers: Vec<_> = (0..rayon::current_num_threads()).map(|_| searcher()).collect();
        let blocks = index.blocks.len() - 1;
        for columns in 0..blocks {
            let own = index.entries.read(index.block_entries(columns))?;
            let block = Block::<V>::new(index.columns, index.block_offsets(columns), &own);
            for rows in columns..blocks {
                let other = (rows > columns).then(|| index.entries.read(index.block_entries(rows))).transpose()?;
                let entries = other.as_deref().unwrap_or(&own);
                let pass = Pass { block: &block, first: index.blocks[columns], rows, entries };
                let next = AtomicUsize::new(index.blocks[rows]);
                rayon::broadcast(|thread| {
                    let mut searcher = searchers[thread.index()].lock().unwrap_or_else(PoisonError::into_inner);
                    searcher.work(&pass, &next);
                });
            }
        }
        Ok(searchers.into_iter().map(|s| s.into_inner().unwrap_or_else(PoisonError::into_inner).work).sum())
    }
}

/// The rows of one block against the columns of another, or of the same.
struct Pass<'a, V> {
    block: &'a Block<V>,
    /// The first entity of the block.
    first: usize,
    /// The block that the rows are of, and its entries.
    rows: usize,
    entries: &'a [u64],
}

/// The work of one thread.
struct Searcher<'a, C, N, F> {
    cells: Cells<C>,
    scorer: Scorer<'a, N, F>,
    work: usize,
}

/// What becomes of sums: scores, and offers to both ends of a pair.
struct Scorer<'a, N, F> {
    run: Run<'a>,
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

/// Rows that a thread takes at once.
const ROWS_AT_ONCE: usize = 8;
/// From this k on it pays to guess what the best of many pairs must beat, by one of so many of them.
const LONG_LIST: usize = 256;
const SAMPLED: usize = 16;
/// Cells that are scored at once.
const CELLS_AT_ONCE: usize = 64;

impl<'a, C: Copy + Default, N: Copy, F: Fn(C, N, N) -> f64> Searcher<'a, C, N, F> {
    fn new(run: Run<'a>, norms: &'a [N], symmetric: bool, score: F) -> Self {
        let (settings, entities) = (&run.index.settings, run.index.entities());
        let least = settings.least();
        // k beyond the number of entities would only reserve room for what cannot come.
        let best = TopK::new(settings.k.min(entities.max(1)), least);
        let (floor_scores, floor_places) = (vec![least; entities], vec![Floor::least(least).place; entities]);
        let own_floor = Floor::least(least);
        let (outbox, sample) = (Outbox::new(entities), Vec::new());
        let scorer =
            Scorer { run, floor_scores, floor_places, best, own_floor, outbox, sample, norms, symmetric, score };
        Self { cells: Cells::new(), scorer, work: 0 }
    }

    fn work<V: Value>(&mut self, pass: &Pass<'_, V>, next: &AtomicUsize)
    where
        C: Cell<V>,
    {
        let Run { index, mine, stop, .. } = self.scorer.run;
        let end = index.blocks[pass.rows + 1];
        let is_mine = |i: &usize| mine[i / ROWS_AT_ONCE % mine.len()];
        while !stop.load(Relaxed) {
            let begin = next.fetch_add(ROWS_AT_ONCE, Relaxed);
            if begin >= end {
                break;
            }
            (begin..(begin + ROWS_AT_ONCE).min(end)).filter(is_mine).for_each(|i| self.row(i, pass));
        }
        self.scorer.deliver();
    }

    fn row<V: Value>(&mut self, i: usize, pass: &Pass<'_, V>)
    where
        C: Cell<V>,
    {
        let Run { index, found, .. } = self.scorer.run;
        let base = index.offsets[index.blocks[pass.rows]];
        let range = index.offsets[i] - base..index.offsets[i + 1] - base;
        let row = &pass.entries[range.clone()];
        let (reach, positions) = match i < pass.first + pass.block.rows() {
            true => (i - pass.first, Some(pass.block.positions(range))),
            false => (pass.block.rows(), None),
        };
        let work = self.cells.add(row, positions, pass.block);
        if work == 0 {
            return;
        }
        self.work += work;
        let scorer = &mut self.scorer;
        scorer.own_floor = found.floor(i);
        // A walk over what was reached costs a few times as much a cell as a look at all of them.
        if work < reach / 8 {
            self.cells.take_reached(row, positions, pass.block, |j, cell| {
                let (i, j) = (i, pass.first + j);
                let score = scorer.score(cell, i, j);
                let other = if scorer.symmetric { score } else { scorer.score(cell.swapped(), j, i) };
                scorer.offer(i, j, score, other);
            });
        } else {
            let cells = self.cells.first(reach);
            scorer.score_all(i, pass.first, cells);
            cells.fill(C::default());
        }
        found.add(i, &mut scorer.best);
        if scorer.outbox.is_full() {
            scorer.deliver();
        }
    }
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

/// The scoring of the pairs of one entity.
struct Scoring<'s, 'a, N, F, C, V> {
    scorer: &'s mut Scorer<'a, N, F>,
    i: usize,
    first: usize,
    cells: &'s [C],
    value: PhantomData<V>,
}

impl<N: Copy, V, C: Cell<V>, F: Fn(C, N, N) -> f64> Work for Scoring<'_, '_, N, F, C, V> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { scorer, i, first, cells, .. } = self;
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

impl<N: Copy, F> Scorer<'_, N, F> {
    /// Scores the pairs of i with as many entities from `first` on as there are cells, and offers what may win.
    fn score_all<V, C: Cell<V>>(&mut self, i: usize, first: usize, cells: &[C])
    where
        F: Fn(C, N, N) -> f64,
    {
        self.run.cpu.run(Scoring { scorer: self, i, first, cells, value: PhantomData::<V> });
    }

    /// The score of about the k-th best pair of i, rather too low than too high, judged by a few of them. Without it the first
    /// pairs that come would fill a long list again and again.
    #[inline(always)]
    fn guess<C: Copy>(&mut self, i: usize, first: usize, cells: &[C]) -> Option<f32>
    where
        F: Fn(C, N, N) -> f64,
    {
        let k = self.run.index.settings.k;
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
            self.best.push(self.score(*cell, i, j), self.run.found.order().places()[j]);
        }
    }

    #[inline(always)]
    fn score_cells<V, C: Cell<V>>(&mut self, i: usize, first: usize, cells: &[C])
    where
        F: Fn(C, N, N) -> f64,
    {
        let order = self.run.found.order().places();
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
            let mut admitted = [false; CELLS_AT_ONCE];
            for ((admitted, score), other_place) in admitted.iter_mut().zip(&scores).zip(&order[range.clone()]) {
                *admitted = own.admits(*score, *other_place);
            }
            let floors = self.floor_scores[range.clone()].iter().zip(&self.floor_places[range]);
            for ((admitted, other), (&score, &floor_place)) in admitted.iter_mut().zip(&others).zip(floors) {
                *admitted |= Floor { score, place: floor_place }.admits(*other, place);
            }
            let admitted = bits(admitted);
            ones(admitted).for_each(|at| self.offer(i, first + at, scores[at], others[at]));
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
        let found = self.run.found;
        let places = found.order().places();
        if self.own_floor.admits(score, places[j]) {
            self.best.push(score, places[j]);
            let floor = self.best.floor();
            self.own_floor = self.own_floor.max(floor);
        }
        let floor = Floor { score: self.floor_scores[j], place: self.floor_places[j] };
        if floor.admits(other, places[i]) {
            self.outbox.push(j, other, places[i]);
        }
    }

    fn deliver(&mut self) {
        let known =
            |row: usize, floor: Floor| (self.floor_scores[row], self.floor_places[row]) = (floor.score, floor.place);
        self.run.found.deliver(&mut self.outbox, known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csr::{Csr, entry};
    use crate::metric::Settings;
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
