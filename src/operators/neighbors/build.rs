//! From rows to a similarity index, and from its findings to rows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, Float32Array, Int32Array, UInt32Array};
use datafusion::arrow::compute::take;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::{DataFusionError, Result, exec_err};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::physical_plan::metrics::MetricBuilder;

use crate::kernels::csr::{Csr, Triples, entry};
use crate::kernels::metric::Settings;
use crate::kernels::similarity::Similarity;
use crate::kernels::topk::Candidates;
use crate::kernels::weighting::Weighting;
use crate::operators::collect::{Chunk, Columns, LARGEST_WEIGHT, collect, number};
use crate::operators::ids::Numbering;
use crate::operators::node::{Built, Resources, Task, Worker, rows_per_block};

const ENTITY: usize = 0;
const FEATURE: usize = 1;

/// `neighbors` with all its settings fixed.
#[derive(Debug)]
pub struct NeighborsTask {
    columns: Columns,
    /// The type in which ids go out: what they came in, dictionaries included.
    id_type: DataType,
    settings: Settings,
    schema: SchemaRef,
}

impl NeighborsTask {
    /// Reads its input as `columns` say.
    pub fn new(columns: Columns, id_type: DataType, settings: Settings) -> Self {
        let schema = Arc::new(Schema::new(vec![
            Field::new(&columns.ids[ENTITY], id_type.clone(), false),
            Field::new("neighbor_id", id_type.clone(), false),
            Field::new("score", DataType::Float32, false),
            Field::new("rank", DataType::Int32, false),
        ]));
        Self { columns, id_type, settings, schema }
    }
}

#[async_trait]
impl Task for NeighborsTask {
    fn name(&self) -> &'static str {
        "Neighbors"
    }

    fn settings(&self) -> String {
        let s = &self.settings;
        let weight = self.columns.weight.as_deref().unwrap_or("1");
        let mut text = format!(
            "entity={}, feature={}, weight={weight}, metric={}, k={}",
            self.columns.ids[ENTITY],
            self.columns.ids[FEATURE],
            s.metric.name(),
            s.k
        );
        text += &format!(", weighting={}, shrink={}, threshold={}", s.weighting.name(), s.shrink, s.threshold);
        text += &format!(", min_overlap={}, alpha={}, beta={}", s.min_overlap, s.alpha, s.beta);
        text + if self.columns.skip_nulls { ", on_null=skip" } else { "" }
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    async fn build(&self, mut inputs: Vec<SendableRecordBatchStream>, resources: Resources) -> Result<Arc<dyn Built>> {
        let chunks = collect(inputs.swap_remove(0), &self.columns, resources.threads, &resources.memory).await?;
        let (columns, id_type, schema) = (self.columns.clone(), self.id_type.clone(), self.schema());
        let settings = self.settings;
        let stop = Stop::default();
        let stopped = Arc::clone(&stop.0);
        let index = move || Index::build(chunks, &columns, &id_type, settings, schema, resources, &stopped);
        let built = datafusion::common::runtime::SpawnedTask::spawn_blocking(index);
        let index = built.join_unwind().await.map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)))??;
        Ok(Arc::new(index))
    }
}

/// Tells threads that compute to stop, once nobody waits for them.
#[derive(Default)]
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What a search found, to be handed out by all partitions.
struct Index {
    found: Candidates,
    entities: Numbering,
    k: usize,
    schema: SchemaRef,
    _memory: MemoryReservation,
}

impl Index {
    fn build(
        chunks: Vec<Chunk>,
        columns: &Columns,
        id_type: &DataType,
        settings: Settings,
        schema: SchemaRef,
        resources: Resources,
        stop: &AtomicBool,
    ) -> Result<Self> {
        let pool = resources.pool()?;
        let Resources { memory, metrics, .. } = resources;
        let time = |name: &'static str| MetricBuilder::new(&metrics).subset_time(name, 0);
        let timer = time("matrix_time");
        let timed = timer.timer();
        let mut tables = [chunks];
        let entities = number(&mut tables, &[(0, ENTITY)], &columns.types[ENTITY], id_type)?;
        let feature_type = &columns.types[FEATURE];
        let features = number(&mut tables, &[(0, FEATURE)], feature_type, feature_type)?.ids.len();
        let [chunks] = tables;
        let rows = entities.ids.len();
        memory.try_grow(Csr::bytes_for(rows, chunks.iter().map(Chunk::rows).sum()))?;
        let triples: Vec<Triples<'_>> = chunks.iter().map(|chunk| chunk.triples(ENTITY, FEATURE)).collect();
        let matrix = pool.install(|| Csr::build(rows, features, &triples));
        drop(triples);
        drop(chunks);
        check_weights(&matrix, settings)?;
        let count = |name: &'static str, value| MetricBuilder::new(&metrics).counter(name, 0).add(value);
        count("entities", rows);
        count("features", features);
        count("entries", matrix.entries.len());
        let similarity = pool.install(|| Similarity::new(matrix, settings));
        drop(timed);
        let timer = time("product_time");
        let timed = timer.timer();
        let k = settings.k.min(rows.max(1));
        let found = Candidates::new(k, entities.order.clone(), settings.least());
        let Ok(work) = pool.install(|| similarity.search(&found, stop));
        drop(timed);
        count("multiply_adds", work);
        Ok(Self { found, entities, k, schema, _memory: memory })
    }
}

/// What holds for single rows must hold for their sums too, and BM25 knows no negative frequencies.
fn check_weights(matrix: &Csr, settings: Settings) -> Result<()> {
    let any = |fault: fn(f32) -> bool| matrix.entries.iter().any(|&e| fault(entry::value(e)));
    if any(|weight| weight.abs() > LARGEST_WEIGHT) {
        return exec_err!(
            "neighbors: the weights of repeated rows add up to more than {LARGEST_WEIGHT:e}; scale them down"
        );
    }
    if settings.weighting == Weighting::Bm25 && any(|weight| weight < 0.0) {
        return exec_err!("neighbors: weighting 'bm25' needs weights of at least 0, as they stand for frequencies");
    }
    Ok(())
}

impl Built for Index {
    fn blocks(&self) -> usize {
        self.entities.ids.len().div_ceil(rows_per_block(self.k))
    }

    fn worker_bytes(&self) -> usize {
        0
    }

    fn worker(self: Arc<Self>) -> Box<dyn Worker> {
        Box::new(HandingOut(self))
    }
}

struct HandingOut(Arc<Index>);

impl Worker for HandingOut {
    fn run(&mut self, block: usize) -> Result<(RecordBatch, usize)> {
        let Index { found, entities, k, schema, .. } = &*self.0;
        let rows = rows_per_block(*k);
        let (mut entity, mut neighbor, mut scores, mut ranks) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for row in block * rows..(block * rows + rows).min(entities.ids.len()) {
            let first = entity.len();
            found.take(row, |score, candidate| {
                entity.push(row as u32);
                neighbor.push(candidate);
                scores.push(score);
                ranks.push((entity.len() - first) as i32);
            });
        }
        let columns: Vec<ArrayRef> = vec![
            take(&entities.ids, &UInt32Array::from(entity), None)?,
            take(&entities.ids, &UInt32Array::from(neighbor), None)?,
            Arc::new(Float32Array::from(scores)),
            Arc::new(Int32Array::from(ranks)),
        ];
        Ok((RecordBatch::try_new(Arc::clone(schema), columns)?, 0))
    }
}
