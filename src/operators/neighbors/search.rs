//! From rows to the neighbors of every entity: in memory where there is room, else block by block with the rest on disk.
//!
//! What is reserved is what is held at the peak of each phase. When the pool refuses, the rows that were read go to a file,
//! from there block by block, sorted, to another, and the search reads two blocks of it at a time. Blocks are halved until
//! what is held fits; how they are cut does not show in the result.

use std::sync::atomic::AtomicBool;

use datafusion::arrow::array::Array;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{DataFusionError, Result, exec_err};
use datafusion::physical_plan::metrics::MetricBuilder;
use rayon::prelude::*;

use super::build::{ENTITY, FEATURE};
use crate::kernels::block::MOST_ROWS;
use crate::kernels::csr::{Csr, entry};
use crate::kernels::metric::Settings;
use crate::kernels::sample;
use crate::kernels::similarity::{Similarity, blocks};
use crate::kernels::topk::Candidates;
use crate::kernels::weighting::Weighting;
use crate::operators::collect::{Chunk, LARGEST_WEIGHT, arrange, group, matrix, number_both};
use crate::operators::ids::Numbering;
use crate::operators::node::Resources;
use crate::operators::sorted::{fit, largest, offsets_of, spill_rows};
use crate::operators::spill::from_kernel;

/// The types of ids.
pub(super) struct Types {
    /// In which entities and features are interned.
    pub ids: Vec<DataType>,
    /// In which entities go out.
    pub out: DataType,
}

/// A search and what it may use.
pub(super) struct Search<'a> {
    pub settings: Settings,
    /// Of all pairs of entities, those that are searched here, as [`Similarity::search_share`] has it.
    pub mine: Vec<bool>,
    pub resources: &'a Resources,
    pub stop: &'a AtomicBool,
}

/// The numbered rows of an input, not yet sorted.
struct Rows {
    chunks: Vec<Chunk>,
    entities: Numbering,
    /// How many of the first entities are a sample of all.
    sample: usize,
    features: usize,
    /// Where each entity's rows would begin if rows were sorted by entity.
    offsets: Vec<usize>,
    /// The bytes of ids, and of what is kept for each entity.
    fixed: usize,
}

impl Search<'_> {
    /// The neighbors of all entities of these rows.
    pub fn run(&self, chunks: Vec<Chunk>, types: &Types) -> Result<(Candidates, Numbering)> {
        let rows = self.timed("matrix_time", || Rows::number(chunks, types, self.settings.k))?;
        self.count("entities", rows.entities.ids.len());
        self.count("features", rows.features);
        let held: usize = rows.chunks.iter().map(Chunk::bytes).sum();
        let matrix = self.build_bytes(&rows, rows.offsets.last().copied().unwrap_or(0));
        let bounds = blocks(&rows.offsets, MOST_ROWS, u32::MAX as usize);
        let search = self.search_bytes(&rows.offsets, &bounds, rows.features) + matrix;
        let lists = Candidates::bytes_for(self.settings.k, rows.offsets.windows(2).map(|_| rows.entities.ids.len()));
        if self.resources.memory.try_resize(rows.fixed + (held + matrix).max(search + lists)).is_ok() {
            self.in_memory(rows)
        } else {
            self.on_disk(rows)
        }
    }

    fn in_memory(&self, mut rows: Rows) -> Result<(Candidates, Numbering)> {
        let similarity = self.timed("matrix_time", || {
            let matrix = self.build(&rows, 0..rows.entities.ids.len())?;
            rows.chunks.clear();
            self.count("entries", matrix.entries.len());
            let prepared = Similarity::new(matrix, self.settings).map_err(from_kernel);
            prepared.map(|similarity| similarity.with_sample(rows.sample))
        })?;
        let candidates = self.search(&similarity, rows.entities.order.clone())?;
        // What follows may need the rest.
        self.resources.memory.try_resize(rows.fixed + candidates.bytes())?;
        Ok((candidates, rows.entities))
    }

    fn on_disk(&self, mut rows: Rows) -> Result<(Candidates, Numbering)> {
        let mut similarity = self.timed("matrix_time", || {
            for chunk in &mut rows.chunks {
                chunk.spill(&self.resources.disk)?;
            }
            let chunks: usize = rows.chunks.iter().map(Chunk::bytes).sum();
            let bounds = self.fit(&rows.offsets, |bounds| {
                rows.fixed + chunks + self.build_bytes(&rows, largest(&rows.offsets, bounds))
            })?;
            let (file, offsets) = spill_rows(&self.resources.disk, &bounds, |range| self.build(&rows, range))?;
            rows.chunks.clear();
            self.count("entries", offsets[offsets.len() - 1]);
            let file = Box::new(file);
            Similarity::prepare(file, offsets, bounds, rows.features, self.settings).map_err(from_kernel)
        })?;
        let candidates = similarity.candidate_bytes().map_err(from_kernel)?;
        let bounds = self.fit(similarity.offsets(), |bounds| {
            rows.fixed + candidates + self.search_bytes(similarity.offsets(), bounds, rows.features)
        })?;
        self.count("blocks", bounds.len() - 1);
        similarity.set_blocks(bounds);
        let candidates = self.search(&similarity, rows.entities.order.clone())?;
        // What follows may need the rest.
        self.resources.memory.try_resize(rows.fixed + candidates.bytes())?;
        Ok((candidates, rows.entities))
    }

    /// The sorted rows of a range of entities.
    fn build(&self, rows: &Rows, range: std::ops::Range<usize>) -> Result<Csr> {
        let read = rows.offsets[range.end] - rows.offsets[range.start];
        let mut matrix = matrix(&rows.chunks, ENTITY, FEATURE, range, rows.features)?;
        check_weights(&matrix, matrix.entries.len() < read, self.settings)?;
        if let Some(most) = self.settings.max_features {
            matrix.cap_rows(most);
        }
        Ok(matrix)
    }

    fn search(&self, similarity: &Similarity, places: Vec<u32>) -> Result<Candidates> {
        let k = self.settings.k.min(places.len().max(1));
        let candidates = Candidates::new(k, places, self.settings.least());
        let search = || similarity.search_share(&candidates, &self.mine, self.stop).map_err(from_kernel);
        self.count("multiply_adds", self.timed("product_time", search)?);
        Ok(candidates)
    }

    fn fit(&self, offsets: &[usize], needs: impl Fn(&[usize]) -> usize) -> Result<Vec<usize>> {
        let fitted = fit(&self.resources.memory, offsets, ("neighbors", "entities"), needs);
        fitted.map_err(|error| match error {
            DataFusionError::ResourcesExhausted(text) => {
                DataFusionError::ResourcesExhausted(format!("{text}; a lower k needs less"))
            }
            other => other,
        })
    }

    /// The bytes that building a matrix of so many entries takes.
    fn build_bytes(&self, rows: &Rows, entries: usize) -> usize {
        let codes = rows.chunks.iter().map(|chunk| chunk.distinct(ENTITY)).sum();
        Csr::bytes_for(rows.entities.ids.len(), entries) + Csr::build_bytes_for(codes)
    }

    fn search_bytes(&self, offsets: &[usize], bounds: &[usize], features: usize) -> usize {
        Similarity::search_bytes(offsets, bounds, features, self.settings.k, self.resources.threads)
    }

    fn timed<T>(&self, name: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let time = MetricBuilder::new(&self.resources.metrics).subset_time(name, 0);
        let _timer = time.timer();
        work()
    }

    fn count(&self, name: &'static str, value: usize) {
        MetricBuilder::new(&self.resources.metrics).counter(name, 0).add(value);
    }
}

impl Rows {
    fn number(mut chunks: Vec<Chunk>, types: &Types, k: usize) -> Result<Self> {
        let [entity, feature] = [&types.ids[ENTITY], &types.ids[FEATURE]];
        let types = [(entity, &types.out), (feature, feature)];
        let [mut entities, features] = number_both(&mut chunks, [ENTITY, FEATURE], types)?;
        let features = features.ids.len();
        // Of many blocks a row of few features then meets few, and what it meets was met by the row before it.
        if entities.ids.len() > MOST_ROWS {
            group(&mut chunks, ENTITY, FEATURE, &mut entities)?;
        }
        let sample = sample::size(entities.ids.len(), k);
        if sample > 0 {
            let arranged = sample::first(entities.ids.len(), sample);
            arrange(&mut chunks, ENTITY, &mut entities, arranged)?;
        }
        let offsets = offsets_of(&entities.counts);
        let per_entity = 2 * size_of::<usize>() + size_of::<f64>() + 2 * size_of::<u32>();
        let fixed = entities.ids.get_array_memory_size() + entities.ids.len() * per_entity;
        Ok(Self { chunks, entities, sample, features, offsets, fixed })
    }
}

/// What holds for single rows must hold for their sums too, where some were `summed`, and neither walks nor BM25 know negative
/// weights.
fn check_weights(matrix: &Csr, summed: bool, settings: Settings) -> Result<()> {
    let any = |fault: fn(f32) -> bool| matrix.entries.par_iter().any(|&e| fault(entry::value(e)));
    if summed && any(|weight| weight.abs() > LARGEST_WEIGHT) {
        return exec_err!(
            "neighbors: the weights of repeated rows add up to more than {LARGEST_WEIGHT:e}; scale them down"
        );
    }
    if settings.metric.is_walk() && any(|weight| weight < 0.0) {
        let metric = settings.metric.name();
        return exec_err!("neighbors: the metric {metric} needs weights of at least 0, as they make probabilities");
    }
    if settings.weighting == Weighting::Bm25 && any(|weight| weight < 0.0) {
        return exec_err!("neighbors: weighting 'bm25' needs weights of at least 0, as they stand for frequencies");
    }
    Ok(())
}
