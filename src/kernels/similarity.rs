//! The k most similar entities of each entity, for every metric of `neighbors`: preparation of the weights.
//!
//! Entities are cut into blocks. Rows of all blocks are read one block at a time, from memory or from wherever they
//! were put aside, so that what a search holds at once is the columns of one block and the rows of another. Neither
//! blocks nor threads show in the result.

use std::ops::Range;

use rayon::prelude::*;

use super::Error;
use super::block::{Block, Cells, MOST_ROWS};
use super::cells::{Counted, Moments, Scales};
use super::csr::{Csr, PIECE_ENTRIES, entry, pieces, pieces_mut};
use super::metric::{Exponents, Metric, Settings};
use super::offers::Gathered;
use super::outbox::Outbox;
use super::rows::Entries;
use super::search::Reached;
use super::topk::{Candidates, Floor, Key, TopK};
use super::weighting::{self, ColumnMeans, Degrees, Steps, Terms, Weighting, degree};

/// The narrowest encoding that holds all prepared weights exactly, once they were multiplied by [`Scales::whole`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Encoding {
    /// Each is 1, or the metric does not look at them.
    Ones,
    /// Whole numbers up to 255; products are multiplied by the unit.
    Bytes { unit: f64 },
    /// Whole numbers up to 65,535; likewise.
    Words { unit: f64 },
    /// Singles.
    Single,
}

/// Prepared rows, shared by all who search in them.
#[derive(Debug)]
pub struct Similarity {
    pub(super) settings: Settings,
    /// Entities by features, weighted and centred as the metric wants.
    pub(super) entries: Box<dyn Entries>,
    /// Where each entity's entries begin.
    pub(super) offsets: Vec<usize>,
    /// Where each block of entities begins, and where the last ends.
    pub(super) blocks: Vec<usize>,
    /// How many of the first entities are a sample of all.
    pub(super) sample: usize,
    /// The number of features.
    pub(super) columns: usize,
    /// How many features occur.
    pub(super) features: f64,
    /// Euclidean norm of each entity's row, squared for `euclidean`; the size of its set for metrics that ignore weights; its
    /// degree for walks.
    pub(super) norm: Vec<f64>,
    pub(super) encoding: Encoding,
    pub(super) scales: Scales,
}

/// Cuts rows into blocks of at most so many rows and entries each, a row with more of them by itself; returns where each
/// begins and where the last ends.
pub fn blocks(offsets: &[usize], most_rows: usize, most_entries: usize) -> Vec<usize> {
    let mut bounds = vec![0];
    let mut start = 0;
    for row in 1..offsets.len() {
        if row - start > most_rows || offsets[row] - offsets[start] > most_entries && row - start > 1 {
            start = row - 1;
            bounds.push(start);
        }
    }
    if offsets.len() > 1 {
        bounds.push(offsets.len() - 1);
    }
    bounds
}

impl Similarity {
    /// Prepares a search over a matrix of entities by features, all of it in memory.
    ///
    /// Cells of popular entities stay in the cache if these have the small numbers, and a row meets only those before
    /// it, so number entities by falling popularity, but for a [`sample`](super::sample). Equally popular ones are best numbered by their first feature: a row of
    /// few features then meets few blocks, and in them what the row before it met.
    pub fn new(matrix: Csr, settings: Settings) -> Result<Self, Error> {
        let Csr { columns, offsets, entries } = matrix;
        let blocks = blocks(&offsets, MOST_ROWS, u32::MAX as usize);
        Self::prepare(Box::new(entries), offsets, blocks, columns, settings)
    }

    /// Prepares a search over rows that are kept in blocks, such as [`blocks`] makes. Works on the threads of the
    /// current pool.
    pub fn prepare(
        entries: Box<dyn Entries>,
        offsets: Vec<usize>,
        blocks: Vec<usize>,
        columns: usize,
        settings: Settings,
    ) -> Result<Self, Error> {
        let norm = vec![0.0; offsets.len().saturating_sub(1)];
        let encoding = Encoding::Ones;
        let mut prepared = Self {
            settings,
            entries,
            offsets,
            blocks,
            sample: 0,
            columns,
            features: 0.0,
            norm,
            encoding,
            scales: Scales::default(),
        };
        prepared.count_features()?;
        if settings.metric.ignores_weights() {
            prepared.norm = prepared.offsets.windows(2).map(|bounds| (bounds[1] - bounds[0]) as f64).collect();
            return Ok(prepared);
        }
        prepared.weigh()?;
        if let Some(exponents) = settings.exponents() {
            let degrees = prepared.walk(exponents)?;
            prepared.measure()?;
            prepared.norm = degrees;
            return Ok(prepared);
        }
        match settings.metric {
            Metric::CenteredCosine | Metric::Pearson => prepared.update_rows(&weighting::centre)?,
            Metric::AdjustedCosine => {
                let mut means = ColumnMeans::new(columns);
                prepared.each_row(|row| means.add(row))?;
                prepared.update_rows(&|row| means.centre(row))?;
            }
            _ => {}
        }
        prepared.measure()?;
        Ok(prepared)
    }

    /// The number of entities.
    pub fn entities(&self) -> usize {
        self.norm.len()
    }

    /// The bytes that a search for k neighbors keeps beside its candidates: one block by columns, the rows of two, and what
    /// each thread has for itself.
    pub fn search_bytes(offsets: &[usize], blocks: &[usize], columns: usize, k: usize, threads: usize) -> usize {
        let largest = blocks.windows(2).map(|bounds| offsets[bounds[1]] - offsets[bounds[0]]).max().unwrap_or(0);
        let rows = 2 * largest * size_of::<u64>();
        let floors = offsets.len() * size_of::<Floor>();
        let scales = columns * size_of::<f64>();
        let reached = offsets.len().min(MOST_ROWS);
        let gathered = Reached::<Counted<Moments>>::bytes_for(reached) + Gathered::<[f64; 2]>::bytes_for(reached);
        let best = TopK::roomy_capacity(k).min(2 * reached) * size_of::<Key>();
        let thread =
            Cells::<Counted<Moments>>::bytes() + gathered + floors + best + Outbox::bytes_for(offsets.len(), k);
        // While columns are counted and while they are filled there are counts beside the block, and cuts of its rows.
        rows + scales
            + Block::<f32>::bytes_for(2 * columns, largest)
            + Block::<f32>::cut_bytes_for(reached, largest, threads)
            + threads * (thread + columns.min(largest) * size_of::<u32>())
    }

    /// The bytes that the candidates of all entities will take at the most.
    pub fn candidate_bytes(&self) -> Result<usize, Error> {
        let mut sizes = vec![0u32; self.columns];
        self.each_row(|row| row.iter().for_each(|&e| sizes[entry::column(e) as usize] += 1))?;
        let mut reach = Vec::with_capacity(self.entities());
        let others = |e: &u64| sizes[entry::column(*e) as usize] as usize - 1;
        self.each_row(|row| reach.push(row.iter().map(others).sum()))?;
        Ok(Candidates::bytes_for(self.settings.k.min(self.entities()), reach.into_iter()))
    }

    /// Where each entity's entries begin.
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// Cuts the entities anew.
    pub fn set_blocks(&mut self, blocks: Vec<usize>) {
        self.blocks = blocks;
    }

    /// Tells that so many of the first entities are a [`sample`](super::sample) of all. It is of use where all pairs of entities in
    /// one block are searched.
    pub fn with_sample(self, entities: usize) -> Self {
        Self { sample: entities, ..self }
    }

    pub(super) fn block_entries(&self, block: usize) -> Range<usize> {
        self.offsets[self.blocks[block]]..self.offsets[self.blocks[block + 1]]
    }

    pub(super) fn block_offsets(&self, block: usize) -> &[usize] {
        &self.offsets[self.blocks[block]..=self.blocks[block + 1]]
    }

    fn block_count(&self) -> usize {
        self.blocks.len() - 1
    }

    fn each_row(&self, mut visit: impl FnMut(&[u64])) -> Result<(), Error> {
        for block in 0..self.block_count() {
            let entries = self.entries.read(self.block_entries(block))?;
            rows_of(self.block_offsets(block), &entries).for_each(&mut visit);
        }
        Ok(())
    }

    fn update_rows(&mut self, change: &(dyn Fn(&mut [u64]) + Sync)) -> Result<(), Error> {
        for block in 0..self.block_count() {
            let offsets = &self.offsets[self.blocks[block]..=self.blocks[block + 1]];
            let range = offsets[0]..offsets[offsets.len() - 1];
            self.entries.update(range, &mut |entries| {
                pieces_mut(offsets, entries).into_par_iter().for_each(|(offsets, entries)| {
                    for bounds in offsets.windows(2) {
                        change(&mut entries[bounds[0] - offsets[0]..bounds[1] - offsets[0]]);
                    }
                });
            })?;
        }
        Ok(())
    }

    fn count_features(&mut self) -> Result<(), Error> {
        if self.settings.metric == Metric::Lift {
            let mut seen = vec![false; self.columns];
            self.each_row(|row| row.iter().for_each(|&e| seen[entry::column(e) as usize] = true))?;
            self.features = seen.iter().filter(|seen| **seen).count() as f64;
        }
        Ok(())
    }

    fn weigh(&mut self) -> Result<(), Error> {
        match self.settings.weighting {
            Weighting::None => Ok(()),
            Weighting::Binary => self.update_rows(&|row| weighting::update(row, |_, _| 1.0)),
            weighting => {
                let mut terms = Terms::new(weighting, self.columns);
                self.each_row(|row| terms.add(row))?;
                terms.finish();
                self.update_rows(&|row| terms.weigh(row))
            }
        }
    }

    /// Finds what the products of each feature are divided by, a power of its degree. Weights stay as they are, since whole
    /// numbers are multiplied faster; only powers of weights, which might overflow, are divided by its root at each end of a
    /// pair. Returns the degrees of entities.
    fn walk(&mut self, exponents: Exponents) -> Result<Vec<f64>, Error> {
        let mut features = Degrees::new(self.columns);
        let mut degrees = Vec::with_capacity(self.entities());
        for block in 0..self.block_count() {
            let entries = self.entries.read(self.block_entries(block))?;
            let rows = || rows_of(self.block_offsets(block), &entries);
            rayon::join(|| rows().for_each(|row| features.add(row)), || degrees.extend(rows().map(degree)));
        }
        if exponents.weight == 1.0 {
            self.scales.columns = features.scales(exponents.b);
        } else {
            let roots = features.scales(exponents.b / 2.0);
            self.update_rows(&|row| weighting::raise(row, exponents.weight, &roots))?;
        }
        Ok(degrees)
    }

    /// Takes the norms of rows and finds the encoding.
    fn measure(&mut self) -> Result<(), Error> {
        let mut steps: Option<Steps> = None;
        let squared = self.settings.metric == Metric::Euclidean;
        for block in 0..self.block_count() {
            let range = self.block_entries(block);
            let offsets = &self.offsets[self.blocks[block]..=self.blocks[block + 1]];
            let entries = &*self.entries.read(range)?;
            let mut norms = &mut self.norm[self.blocks[block]..self.blocks[block + 1]];
            let mut shares = Vec::new();
            for rows in pieces(offsets, PIECE_ENTRIES) {
                let (own, rest) = std::mem::take(&mut norms).split_at_mut(rows.len());
                shares.push((&offsets[rows.start..=rows.end], own));
                norms = rest;
            }
            let measure = |(bounds, norms): (&[usize], &mut [f64])| {
                for (bounds, norm) in bounds.windows(2).zip(norms) {
                    let row = &entries[bounds[0] - offsets[0]..bounds[1] - offsets[0]];
                    let squares = row.iter().map(|&e| f64::from(entry::value(e)).powi(2)).sum::<f64>();
                    // The square is what makes the distance of equal rows exactly 0.
                    *norm = if squared { squares } else { squares.sqrt() };
                }
                Steps::of(&entries[bounds[0] - offsets[0]..bounds[bounds.len() - 1] - offsets[0]])
            };
            let found = shares.into_par_iter().map(measure).reduce_with(Steps::and);
            steps = [steps, found].into_iter().flatten().reduce(Steps::and);
        }
        self.encode(steps.unwrap_or_default());
        Ok(())
    }

    /// Chooses the encoding.
    fn encode(&mut self, steps: Steps) {
        // No sum of products is above the larger sum of squares.
        let norm = self.norm.iter().copied().fold(0.0, f64::max);
        let squares = if self.settings.metric == Metric::Euclidean { norm } else { norm.powi(2) };
        // Squares of roots are exact but for rounding, which half of what 32 bits hold is far from.
        let fits = |factor: f32| squares * f64::from(factor).powi(2) <= f64::from(u32::MAX / 2);
        self.encoding = match steps.whole().filter(|(factor, _)| fits(*factor)) {
            // Three sums of doubles are what Pearson needs in any case.
            _ if self.settings.metric == Metric::Pearson => Encoding::Single,
            _ if steps.ones() => Encoding::Ones,
            Some((factor, largest)) => {
                self.scales.whole = factor;
                let unit = f64::from(factor).powi(-2);
                if largest <= u8::MAX.into() { Encoding::Bytes { unit } } else { Encoding::Words { unit } }
            }
            None => Encoding::Single,
        };
    }
}

/// The rows that begin at these offsets, the first at the first of these entries.
fn rows_of<'a>(offsets: &'a [usize], entries: &'a [u64]) -> impl Iterator<Item = &'a [u64]> {
    offsets.windows(2).map(|bounds| &entries[bounds[0] - offsets[0]..bounds[1] - offsets[0]])
}

#[cfg(test)]
#[path = "similarity_tests.rs"]
mod tests;
