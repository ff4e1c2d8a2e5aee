//! The k most similar entities of each entity, for every metric of `neighbors`: the search itself.
//!
//! Each pair of entities is summed and scored once, and offered to both of its ends; but for a [`sample`] of long lists, whose
//! scores are taken beforehand, and for lists that it misjudged. Symmetric scores are therefore the same to the last bit from
//! either end.

use std::ops::Range;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

use rayon::prelude::*;

use super::Error;
use super::block::{Block, Cells};
use super::cells::{Cell, Count, Counted, Dot, Factor, Moments, Value, WholeDot};
use super::cpu::Cpu;
use super::csr::entry;
use super::few::{COLUMNS, LANES, MOST_ROWS, Spread, part};
use super::metric::{Exponents, Metric};
use super::offers::Scorer;
use super::sample;
use super::similarity::{Encoding, Similarity};
use super::topk::Candidates;
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
            let by = |exponent| self.norm.iter().map(move |&degree| divisor(degree, exponent));
            if a == c {
                return run.scaled_dots(&by(a).collect::<Vec<_>>(), true, |dot, i: f64, j: f64| dot * (i * j));
            }
            let both: Vec<[f64; 2]> = by(a).zip(by(c)).map(|(a, c)| [a, c]).collect();
            return run.scaled_dots(&both, false, |dot, i: [f64; 2], j: [f64; 2]| dot * i[0] * j[1]);
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
            Metric::Pearson => run.sums::<Moments, _, _>(&self.norm, true, move |m, _: f64, _| {
                at_most_one(m.ab / ((m.aa * m.bb).sqrt() + h))
            }),
            Metric::Jaccard => run.counts(true, move |c, a, b| c / (a + b - c + h)),
            Metric::Dice => run.counts(true, move |c, a, b| 2.0 * c / (a + b + h)),
            Metric::Tversky => {
                run.counts(alpha == beta, move |c, a, b| c / (c + (alpha * (a - c) + beta * (b - c)) + h))
            }
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
        self.sums::<Count, _, _>(&self.index.norm, symmetric, move |c, a, b| score(f64::from(c.0), a, b))
    }

    fn dots<N: Copy + Send + Sync, F>(&self, norms: &[N], symmetric: bool, score: F) -> Result<usize, Error>
    where
        F: Fn(f64, N, N) -> f64 + Copy + Send + Sync,
    {
        match self.index.encoding {
            Encoding::Ones => self.sums::<Count, N, _>(norms, symmetric, move |c, a, b| score(f64::from(c.0), a, b)),
            Encoding::Bytes { unit } => self
                .sums::<WholeDot<u8>, N, _>(norms, symmetric, move |dot, a, b| score(f64::from(dot.sum) * unit, a, b)),
            Encoding::Words { unit } => self
                .sums::<WholeDot<u16>, N, _>(norms, symmetric, move |dot, a, b| score(f64::from(dot.sum) * unit, a, b)),
            Encoding::Single => {
                self.sums::<Dot<f32, f32>, N, _>(norms, symmetric, move |dot, a, b| score(dot.sum, a, b))
            }
        }
    }

    /// Dot products in which columns have scales.
    fn scaled_dots<N: Copy + Send + Sync, F>(&self, norms: &[N], symmetric: bool, score: F) -> Result<usize, Error>
    where
        F: Fn(f64, N, N) -> f64 + Copy + Send + Sync,
    {
        match self.index.encoding {
            Encoding::Ones => self.sums::<Dot<f64, ()>, N, _>(norms, symmetric, move |dot, a, b| score(dot.sum, a, b)),
            Encoding::Bytes { unit } => {
                self.sums::<Dot<f64, u8>, N, _>(norms, symmetric, move |dot, a, b| score(dot.sum * unit, a, b))
            }
            Encoding::Words { unit } => {
                self.sums::<Dot<f64, u16>, N, _>(norms, symmetric, move |dot, a, b| score(dot.sum * unit, a, b))
            }
            Encoding::Single => {
                self.sums::<Dot<f64, f32>, N, _>(norms, symmetric, move |dot, a, b| score(dot.sum, a, b))
            }
        }
    }

    fn sums<C: Cell, N: Copy + Send + Sync, F>(&self, norms: &[N], symmetric: bool, score: F) -> Result<usize, Error>
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
            self.blocks::<Counted<C>, N, _>(norms, symmetric, counted)
        } else {
            self.blocks::<C, N, _>(norms, symmetric, score)
        }
    }

    /// All pairs of few rows.
    fn few<C: Cell, N: Copy + Send + Sync, F>(&self, norms: &[N], symmetric: bool, score: F) -> Result<usize, Error>
    where
        F: Fn(C, N, N) -> f64 + Copy + Send + Sync,
    {
        let index = self.index;
        let entries = index.entries.read(index.block_entries(0))?;
        let rows: Vec<&[u64]> = index.offsets.windows(2).map(|bounds| &entries[bounds[0]..bounds[1]]).collect();
        let mut scorer = Scorer::new(self.cpu, self.found, &index.settings, norms, symmetric, score);
        let (mut spread, mut work) = (Spread::<C::Row>::default(), 0);
        for first in (0..rows.len()).step_by(LANES) {
            let some = first..rows.len().min(first + LANES);
            let mine: u16 = some.clone().filter(|&i| self.is_mine(i)).map(|i| 1 << (i - first)).sum();
            if mine == 0 {
                continue;
            }
            // Of rows j: those after j that are mine.
            let lanes = |j: usize| mine & u16::MAX.checked_shl((j + 1).saturating_sub(first) as u32).unwrap_or(0);
            let mut sums = vec![([C::default(); LANES], 0); some.end - 1];
            for column in (0..index.columns).step_by(COLUMNS).take_while(|_| !self.stop.load(Relaxed)) {
                let parts: Vec<&[u64]> = rows[..some.end].iter().map(|row| part(row, column, COLUMNS)).collect();
                spread.put(column, &parts[some.clone()], &index.scales);
                sums.par_iter_mut().zip(&parts).enumerate().with_max_len(1).for_each(|(j, ((sums, common), row))| {
                    *common += spread.meet(self.cpu, row, lanes(j), sums);
                });
            }
            for i in some.filter(|&i| self.is_mine(i)) {
                let cells: Vec<C> = sums[..i].iter().map(|(sums, _)| sums[i - first]).collect();
                scorer.begin(i);
                scorer.score_all(i, 0, &cells, 0);
                scorer.end(i);
            }
            work += sums.iter().map(|(_, common)| common).sum::<usize>();
        }
        scorer.deliver();
        Ok(work)
    }

    /// Whether a row is to be searched.
    fn is_mine(&self, row: usize) -> bool {
        self.mine[row / ROWS_AT_ONCE % self.mine.len()]
    }

    /// Every block with itself and with the rows of all blocks after it.
    fn blocks<C: Cell, N: Copy + Send + Sync, F>(&self, norms: &[N], symmetric: bool, score: F) -> Result<usize, Error>
    where
        F: Fn(C, N, N) -> f64 + Copy + Send + Sync,
    {
        let index = self.index;
        if index.blocks.len() == 2 && index.entities() <= MOST_ROWS {
            return self.few(norms, symmetric, score);
        }
        let scorer = || Scorer::new(self.cpu, self.found, &index.settings, norms, symmetric, score);
        let searcher = || {
            Mutex::new(Searcher { run: *self, cells: Cells::new(), reached: Reached::new(), scorer: scorer(), work: 0 })
        };
        let searchers: Vec<_> = (0..rayon::current_num_threads()).map(|_| searcher()).collect();
        let blocks = index.blocks.len() - 1;
        for columns in 0..blocks {
            let own = index.entries.read(index.block_entries(columns))?;
            let block = Block::new(index.columns, index.block_offsets(columns), &own, index.scales.whole);
            for rows in columns..blocks {
                let other = (rows > columns).then(|| index.entries.read(index.block_entries(rows))).transpose()?;
                let entries = other.as_deref().unwrap_or(&own);
                let pass = Pass { block: &block, first: index.blocks[columns], rows, entries, sample: 0 };
                let all = index.blocks[rows]..index.blocks[rows + 1];
                match self.sample() {
                    0 => share(&searchers, all.start, |searcher, next| searcher.work(&pass, &all, next)),
                    sample => self.sampled(&searchers, Pass { sample, ..pass }),
                }
            }
        }
        Ok(searchers.into_iter().map(|s| s.into_inner().unwrap_or_else(PoisonError::into_inner).work).sum())
    }

    /// How many of the first rows are a sample that is of use: all pairs are searched, in one block.
    fn sample(&self) -> usize {
        let index = self.index;
        let whole = index.blocks.len() == 2 && self.mine.iter().all(|&mine| mine);
        if whole && index.sample < index.entities() { index.sample } else { 0 }
    }

    /// All rows of the one block, by a sample that stands first.
    fn sampled<C: Cell, N: Copy + Send + Sync, F>(
        &self,
        searchers: &[Mutex<Searcher<'_, C, N, F>>],
        pass: Pass<'_, C::Column>,
    ) where
        F: Fn(C, N, N) -> f64 + Copy + Send + Sync,
    {
        let (found, entities, sample) = (self.found, self.index.entities(), pass.sample);
        let first = Pass { sample: 0, ..pass };
        share(searchers, 0, |searcher, next| searcher.work(&first, &(0..sample), next));
        let place = sample::place(entities, self.index.settings.k, sample);
        (0..sample).for_each(|row| found.guess(row, place + 1));
        share(searchers, sample, |searcher, next| {
            searcher.scorer.learn(0..sample);
            searcher.work(&pass, &(sample..entities), next);
        });
        let misjudged = found.misjudged();
        share(searchers, 0, |searcher, next| searcher.again(&pass, &misjudged, next));
    }
}

/// Has all threads work at rows from `first` on, of which each takes what comes next.
fn share<S: Send>(searchers: &[Mutex<S>], first: usize, work: impl Fn(&mut S, &AtomicUsize) + Sync) {
    let next = AtomicUsize::new(first / ROWS_AT_ONCE * ROWS_AT_ONCE);
    rayon::broadcast(|thread| {
        let mut searcher = searchers[thread.index()].lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut searcher, &next);
    });
}

/// The rows of one block against the columns of another, or of the same.
#[derive(Clone, Copy)]
struct Pass<'a, V: Copy> {
    block: &'a Block<V>,
    /// The first entity of the block.
    first: usize,
    /// The block that the rows are of, and its entries.
    rows: usize,
    entries: &'a [u64],
    /// How many of the block's first rows are a sample of all, by which others are judged.
    sample: usize,
}

/// One of the rows.
struct Row<'a> {
    entries: &'a [u64],
    /// How many rows of the block it may meet.
    reach: usize,
    /// If it is of the block itself, how many rows before it have the column of each entry.
    positions: Option<&'a [u16]>,
}

impl<V: Value> Pass<'_, V> {
    fn row(&self, index: &Similarity, i: usize) -> Row<'_> {
        let base = index.offsets[index.blocks[self.rows]];
        let range = index.offsets[i] - base..index.offsets[i + 1] - base;
        let entries = &self.entries[range.clone()];
        match i < self.first + self.block.rows() {
            true => Row { entries, reach: i - self.first, positions: Some(self.block.positions(range)) },
            false => Row { entries, reach: self.block.rows(), positions: None },
        }
    }
}

/// Whether so many multiply-adds reach so many rows that all cells are looked at: a walk over what was reached costs a few
/// times as much a cell.
fn is_dense(work: usize, reach: usize) -> bool {
    work >= reach / 8
}

/// Rows of a block that were reached, and their cells.
pub(super) struct Reached<C> {
    rows: Vec<u16>,
    cells: Vec<C>,
}

/// The work of one thread.
struct Searcher<'a, C, N, F> {
    run: Run<'a>,
    cells: Cells<C>,
    reached: Reached<C>,
    scorer: Scorer<'a, N, F>,
    work: usize,
}

/// Rows that a thread takes at once.
const ROWS_AT_ONCE: usize = 8;
impl<C: Cell, N: Copy, F: Fn(C, N, N) -> f64> Searcher<'_, C, N, F> {
    /// Searches some of all these rows.
    fn work(&mut self, pass: &Pass<'_, C::Column>, all: &Range<usize>, next: &AtomicUsize) {
        let run = self.run;
        while !run.stop.load(Relaxed) {
            let begin = next.fetch_add(ROWS_AT_ONCE, Relaxed);
            if begin >= all.end {
                break;
            }
            if run.is_mine(begin) {
                self.rows(begin.max(all.start)..(begin + ROWS_AT_ONCE).min(all.end), pass);
            }
        }
        self.scorer.deliver();
    }

    /// Searches some of these rows again, with all others of the block, for themselves alone.
    fn again(&mut self, pass: &Pass<'_, C::Column>, rows: &[usize], next: &AtomicUsize) {
        let run = self.run;
        while let Some(&i) = rows.get(next.fetch_add(1, Relaxed)).filter(|_| !run.stop.load(Relaxed)) {
            let entries = pass.row(run.index, i).entries;
            self.work += self.cells.add(entries, None, pass.block, &run.index.scales);
            let cells = self.cells.first(pass.block.rows());
            self.scorer.score_again(i, cells);
            cells.fill(C::default());
        }
    }

    fn rows(&mut self, mut rows: Range<usize>, pass: &Pass<'_, C::Column>) {
        let only_column = |i| match pass.row(self.run.index, i).entries {
            [e] => Some(entry::column(*e)),
            _ => None,
        };
        while !rows.is_empty() {
            let column = only_column(rows.start);
            let alike = rows.clone().take_while(|&i| column.is_some() && only_column(i) == column).count();
            match alike {
                0 => self.row(rows.start, pass),
                _ => self.rows_of_one(rows.start..rows.start + alike, pass),
            }
            rows.start += alike.max(1);
        }
    }

    fn row(&mut self, i: usize, pass: &Pass<'_, C::Column>) {
        let index = self.run.index;
        let Row { entries, reach, positions } = pass.row(index, i);
        let work = self.cells.add(entries, positions, pass.block, &index.scales);
        if work == 0 {
            return;
        }
        self.work += work;
        let (scorer, reached) = (&mut self.scorer, &mut self.reached);
        scorer.begin(i);
        if is_dense(work, reach) {
            let cells = self.cells.first(reach);
            scorer.score_all(i, pass.first, cells, pass.sample);
            cells.fill(C::default());
        } else {
            reached.clear();
            self.cells.take_reached(entries, positions, pass.block, |j, cell| reached.push(j, cell));
            scorer.gather(pass.first, &reached.rows);
            scorer.score_gathered(i, &reached.cells, None);
        }
        scorer.end(i);
    }

    /// Rows that have a single entry, in the same column. They meet the same rows of the block, in which all that is known of
    /// these is gathered once, and no sums are needed; what the best of one must beat is a good guess for the next.
    fn rows_of_one(&mut self, rows: Range<usize>, pass: &Pass<'_, C::Column>) {
        let index = self.run.index;
        let Row { entries, reach, positions } = pass.row(index, rows.end - 1);
        let members = pass.block.members(entries, positions);
        if is_dense(members.len(), reach) {
            return rows.for_each(|i| self.row(i, pass));
        }
        let (scorer, reached) = (&mut self.scorer, &mut self.reached);
        // The last come first, as in `take_reached`.
        reached.rows.clear();
        reached.rows.extend(members.rev().map(|(j, _)| j));
        scorer.gather(pass.first, &reached.rows);
        let mut guess = None;
        for i in rows {
            let Row { entries, positions, .. } = pass.row(index, i);
            let a = C::Row::of_entry(entries[0], &index.scales);
            reached.cells.clear();
            reached.cells.extend(pass.block.members(entries, positions).rev().map(|(_, b)| {
                let mut cell = C::default();
                cell.add(a, b);
                cell
            }));
            if reached.cells.is_empty() {
                continue;
            }
            self.work += reached.cells.len();
            scorer.begin(i);
            guess = scorer.score_gathered(i, &reached.cells, guess);
            scorer.end(i);
        }
    }
}

impl<C> Reached<C> {
    /// The bytes that so many take.
    pub(super) fn bytes_for(rows: usize) -> usize {
        rows * (size_of::<u16>() + size_of::<C>())
    }

    fn new() -> Self {
        Self { rows: Vec::new(), cells: Vec::new() }
    }

    fn clear(&mut self) {
        self.rows.clear();
        self.cells.clear();
    }

    fn push(&mut self, row: u16, cell: C) {
        self.rows.push(row);
        self.cells.push(cell);
    }
}
