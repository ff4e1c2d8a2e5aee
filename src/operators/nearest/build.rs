//! From vectors to the nearest candidates of each query.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{Array, ArrayRef, Float32Array, Int32Array, UInt32Array};
use datafusion::arrow::compute::{cast, take};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::{Result, exec_err};
use datafusion::execution::memory_pool::MemoryReservation;
use serde::{Deserialize, Serialize};
use serde_with::{DisplayFromStr, serde_as};

use super::NAME;
use crate::kernels::index::Index;
use crate::kernels::nearest::Nearness;
use crate::kernels::rows::Rows;
use crate::operators::codec::encode;
use crate::operators::collect::{Chunk, Columns, collect, matrix};
use crate::operators::ids::value_type;
use crate::operators::input_rows::InputRows;
use crate::operators::node::{Built, Resources, Task, Worker, on_pool};
use crate::operators::spill::from_kernel;
use crate::operators::vectors::{VectorTable, read};

/// The settings of a call.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Settings {
    pub nearness: Nearness,
    pub k: usize,
    /// The share of the candidates' groups that a query looks at, above 0; at 1 what is found is exact.
    pub search_fraction: f64,
    /// Whether a candidate of the query's own id is left out.
    pub not_itself: bool,
}

/// `nearest` with all its settings fixed. Its inputs are queries, candidates, and pairs to leave out.
#[serde_as]
#[derive(Debug, Serialize, Deserialize)]
pub struct NearestTask {
    /// How the columns of ids are called.
    names: [String; 2],
    /// The types in which ids go out.
    #[serde_as(as = "[DisplayFromStr; 2]")]
    types: [DataType; 2],
    settings: Settings,
    excluded: Option<Columns>,
}

impl NearestTask {
    pub(super) fn new(names: [String; 2], types: [DataType; 2], settings: Settings, excluded: Option<Columns>) -> Self {
        Self { names, types, settings, excluded }
    }
}

#[async_trait]
impl Task for NearestTask {
    fn name(&self) -> &'static str {
        "Nearest"
    }

    fn settings(&self) -> String {
        let Settings { nearness, k, search_fraction, .. } = self.settings;
        let exclude = if self.excluded.is_some() { ", exclude=pairs" } else { "" };
        let share = if search_fraction < 1.0 { format!(", search_fraction={search_fraction}") } else { String::new() };
        format!("metric={}, k={k}{exclude}{share}", nearness.name())
    }

    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new(&self.names[0], self.types[0].clone(), false),
            Field::new(&self.names[1], self.types[1].clone(), false),
            Field::new("score", DataType::Float32, false),
            Field::new("rank", DataType::Int32, false),
        ]))
    }

    fn encode(&self) -> Result<Vec<u8>> {
        encode(self)
    }

    fn divisible(&self) -> Vec<Option<usize>> {
        // Queries, candidates, and pairs that begin with the query.
        vec![Some(0), None, Some(0)]
    }

    async fn build(&self, inputs: Vec<InputRows>, resources: Resources) -> Result<Arc<dyn Built>> {
        let mut inputs = inputs.into_iter();
        let (Some(queries), Some(candidates)) = (inputs.next(), inputs.next()) else {
            return datafusion::common::internal_err!("nearest has no queries or candidates");
        };
        let Resources { threads, disk, memory, .. } = &resources;
        let [query_type, candidate_type] = self.types.each_ref().map(value_type);
        let (own, others) = (memory.new_empty(), memory.new_empty());
        let mut queries = read(queries, NAME, "queries", &query_type, &own, *threads).await?;
        let mut candidates = read(candidates, NAME, "candidates", &candidate_type, &others, *threads).await?;
        let (a, b) = (queries.vectors.factors, candidates.vectors.factors);
        if a != b && !queries.ids.is_empty() && !candidates.ids.is_empty() {
            return exec_err!(
                "{NAME}: vectors of queries have {a} numbers and those of candidates {b}; they must be as many"
            );
        }
        let mut excluded = match (inputs.next(), &self.excluded) {
            (Some(pairs), Some(columns)) => collect(pairs, columns, *threads, memory, Some(Arc::clone(disk))).await?,
            _ => Vec::new(),
        };
        let (settings, threads) = (self.settings, *threads);
        let lay_out = move || {
            let any_excluded = !excluded.is_empty();
            let exclude = any_excluded.then(|| exclude(&mut excluded, &mut queries, &mut candidates)).transpose()?;
            let itself = match settings.not_itself {
                true => candidates.space.add(&cast(&queries.ids, &candidate_type)?)?,
                false => Vec::new(),
            };
            let VectorTable { ids, vectors, .. } = candidates;
            let index = Index::new(&vectors, ids.len(), settings.nearness, settings.search_fraction);
            Ok((queries.ids, queries.vectors, ids, index, exclude, itself))
        };
        let (query_ids, vectors, candidate_ids, laid_out, exclude, itself) = on_pool(threads, lay_out).await?;
        others.free();
        memory.try_resize(own.size() + laid_out.bytes() + exclude.as_ref().map_or(0, Rows::bytes))?;
        own.free();
        let [query_ids, candidate_ids] = [cast(&query_ids, &self.types[0])?, cast(&candidate_ids, &self.types[1])?];
        let settings = Settings { k: settings.k.min(candidate_ids.len().max(1)), ..settings };
        Ok(Arc::new(Lists {
            query_ids,
            candidate_ids,
            vectors,
            candidates: laid_out,
            exclude,
            itself,
            settings,
            schema: self.schema(),
            _memory: resources.memory,
        }))
    }
}

/// The pairs to leave out by number; those of unknown ids leave nothing out.
fn exclude(pairs: &mut [Chunk], queries: &mut VectorTable, candidates: &mut VectorTable) -> Result<Rows> {
    let rows = queries.ids.len();
    for chunk in pairs.iter_mut() {
        chunk.number_by(0, &mut queries.space)?;
        chunk.number_by(1, &mut candidates.space)?;
    }
    // Unknown ids got numbers beyond those of candidates.
    let columns = candidates.space.size();
    Ok(matrix(pairs, 0, 1, 0..rows, columns)?.into())
}

/// What all partitions share.
struct Lists {
    query_ids: ArrayRef,
    candidate_ids: ArrayRef,
    vectors: crate::kernels::vectors::Vectors,
    candidates: Index,
    exclude: Option<Rows>,
    /// The candidate that each query is itself, if that is to be left out.
    itself: Vec<u32>,
    settings: Settings,
    schema: SchemaRef,
    _memory: MemoryReservation,
}

impl Built for Lists {
    fn blocks(&self) -> usize {
        self.query_ids.len().div_ceil(self.candidates.queries_at_once())
    }

    fn worker_bytes(&self) -> usize {
        2 * self.candidates.queries_at_once() * self.settings.k * size_of::<(f32, u32)>()
    }

    fn worker(self: Arc<Self>) -> Box<dyn Worker> {
        Box::new(Searching(self))
    }
}

struct Searching(Arc<Lists>);

impl Worker for Searching {
    fn run(&mut self, block: usize) -> Result<(RecordBatch, usize)> {
        let lists = &*self.0;
        let queries = lists.candidates.queries_at_once();
        let first = block * queries;
        let rows = first..(first + queries).min(lists.query_ids.len());
        let vectors: Vec<&[f32]> = rows.clone().map(|row| lists.vectors.row(row)).collect();
        let read = lists.exclude.as_ref().map(|exclude| exclude.read(rows)).transpose().map_err(from_kernel)?;
        // One more, in case that the query itself is among them.
        let k = lists.settings.k + usize::from(lists.settings.not_itself);
        let (mut query, mut candidate, mut scores, mut ranks) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut rank = 0;
        let work =
            lists.candidates.nearest(&vectors, k, read.as_ref().map(|read| (read, first)), |at, score, found| {
                let row = (first + at) as u32;
                if query.last() != Some(&row) {
                    rank = 0;
                }
                if lists.itself.get(row as usize) != Some(&found) && rank < lists.settings.k as i32 {
                    rank += 1;
                    query.push(row);
                    candidate.push(found);
                    scores.push(score);
                    ranks.push(rank);
                }
            });
        let columns: Vec<ArrayRef> = vec![
            take(&lists.query_ids, &UInt32Array::from(query), None)?,
            take(&lists.candidate_ids, &UInt32Array::from(candidate), None)?,
            Arc::new(Float32Array::from(scores)),
            Arc::new(Int32Array::from(ranks)),
        ];
        Ok((RecordBatch::try_new(Arc::clone(&lists.schema), columns)?, work))
    }
}
