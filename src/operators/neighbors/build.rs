//! From rows to a similarity index, and from its findings to rows.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, Float32Array, Int32Array, UInt32Array};
use datafusion::arrow::compute::take;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::{DataFusionError, Result, exec_err};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::physical_plan::metrics::MetricBuilder;

use crate::kernels::csr::Csr;
use crate::kernels::similarity::{Neighbors, Search, Settings, Similarity};
use crate::kernels::weighting::Weighting;
use crate::operators::collect::{Chunk, Columns, LARGEST_WEIGHT, collect, number};
use crate::operators::ids::Numbering;
use crate::operators::node::{BLOCKS_PER_THREAD, Built, Resources, Task, Worker, rows_per_block};

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
        let index = move || Index::build(chunks, &columns, &id_type, settings, schema, resources);
        let built = datafusion::common::runtime::SpawnedTask::spawn_blocking(index);
        let index = built.join_unwind().await.map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)))??;
        Ok(Arc::new(index))
    }
}

/// The shared state of a search.
struct Index {
    similarity: Arc<Similarity>,
    entities: Numbering,
    /// Where each block of entities begins, and where the last ends.
    bounds: Vec<usize>,
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
    ) -> Result<Self> {
        let Resources { memory, metrics, threads } = resources;
        let mut tables = [chunks];
        let entities = number(&mut tables, &[(0, ENTITY)], &columns.types[ENTITY], id_type)?;
        let feature_type = &columns.types[FEATURE];
        let features = number(&mut tables, &[(0, FEATURE)], feature_type, feature_type)?;
        let [chunks] = tables;
        let entries: usize = chunks.iter().map(|chunk| chunk.codes[ENTITY].len()).sum();
        let (rows, weighted) = (entities.ids.len(), columns.weight.is_some());
        // At the peak there are the rows read and two matrices.
        memory.try_grow(2 * Csr::bytes_for(rows.max(features.ids.len()), entries, weighted))?;
        let slices: Vec<(&[u32], &[u32], &[f32])> = chunks
            .iter()
            .map(|chunk| (&chunk.codes[FEATURE][..], &chunk.codes[ENTITY][..], &chunk.weights[..]))
            .collect();
        let by_feature = Csr::from_entries(features.ids.len(), rows, &slices);
        drop(slices);
        drop(chunks);
        let mut matrix = by_feature.transposed();
        drop(by_feature);
        matrix.sum_duplicates();
        check_weights(&matrix, settings)?;
        let count = |name: &'static str, value| MetricBuilder::new(&metrics).counter(name, 0).add(value);
        count("entities", rows);
        count("features", features.ids.len());
        count("entries", matrix.entries());
        let similarity = Arc::new(Similarity::new(matrix, entities.order.clone(), settings));
        count("matrix_bytes", similarity.bytes());
        memory.try_resize(similarity.bytes())?;
        let bounds = similarity.blocks(rows_per_block(settings.k), threads * BLOCKS_PER_THREAD);
        Ok(Self { similarity, entities, bounds, schema, _memory: memory })
    }
}

/// What holds for single rows must hold for their sums too, and BM25 knows no negative frequencies.
fn check_weights(matrix: &Csr, settings: Settings) -> Result<()> {
    if matrix.values.iter().any(|weight| weight.abs() > LARGEST_WEIGHT) {
        return exec_err!(
            "neighbors: the weights of repeated rows add up to more than {LARGEST_WEIGHT:e}; scale them down"
        );
    }
    if settings.weighting == Weighting::Bm25 && matrix.values.iter().any(|weight| *weight < 0.0) {
        return exec_err!("neighbors: weighting 'bm25' needs weights of at least 0, as they stand for frequencies");
    }
    Ok(())
}

impl Built for Index {
    fn blocks(&self) -> usize {
        self.bounds.len().saturating_sub(1)
    }

    fn worker_bytes(&self) -> usize {
        self.similarity.searcher_bytes()
    }

    fn worker(self: Arc<Self>) -> Box<dyn Worker> {
        let search = self.similarity.searcher();
        Box::new(Searching { index: self, search })
    }
}

struct Searching {
    index: Arc<Index>,
    search: Box<dyn Search>,
}

impl Worker for Searching {
    fn run(&mut self, block: usize) -> Result<(RecordBatch, usize)> {
        let mut found = Neighbors::default();
        self.search.search(self.index.bounds[block]..self.index.bounds[block + 1], &mut found);
        let ids = &self.index.entities.ids;
        let columns: Vec<ArrayRef> = vec![
            take(ids, &UInt32Array::from(found.entity), None)?,
            take(ids, &UInt32Array::from(found.neighbor), None)?,
            Arc::new(Float32Array::from(found.score)),
            Arc::new(Int32Array::from(found.rank)),
        ];
        Ok((RecordBatch::try_new(Arc::clone(&self.index.schema), columns)?, found.work))
    }
}
