//! From rows to a similarity index, and from its findings to rows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, Float32Array, Int32Array, UInt32Array};
use datafusion::arrow::compute::take;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::memory_pool::MemoryReservation;

use super::search::{Search, Types};
use crate::kernels::metric::Settings;
use crate::kernels::topk::Candidates;
use crate::operators::collect::{Columns, collect};
use crate::operators::ids::Numbering;
use crate::operators::node::{Built, Resources, Task, Worker, rows_per_block};

pub(super) const ENTITY: usize = 0;
pub(super) const FEATURE: usize = 1;

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
        text += &s.max_features.map_or(String::new(), |most| format!(", max_features={most}"));
        text + if self.columns.skip_nulls { ", on_null=skip" } else { "" }
    }

    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    async fn build(&self, mut inputs: Vec<SendableRecordBatchStream>, resources: Resources) -> Result<Arc<dyn Built>> {
        let disk = Some(Arc::clone(&resources.disk));
        let chunks = collect(inputs.swap_remove(0), &self.columns, resources.threads, &resources.memory, disk).await?;
        let types = Types { ids: self.columns.types.clone(), out: self.id_type.clone() };
        let (settings, schema) = (self.settings, self.schema());
        let stop = Stop::default();
        let stopped = Arc::clone(&stop.0);
        let find = move || {
            let pool = resources.pool()?;
            let search = Search { settings, resources: &resources, pool: &pool, stop: &stopped };
            let (candidates, entities) = search.run(chunks, &types)?;
            Ok::<_, DataFusionError>(Found { candidates, entities, k: settings.k, schema, _memory: resources.memory })
        };
        let found = SpawnedTask::spawn_blocking(find).join_unwind().await;
        Ok(Arc::new(found.map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)))??))
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
struct Found {
    candidates: Candidates,
    entities: Numbering,
    k: usize,
    schema: SchemaRef,
    _memory: MemoryReservation,
}

impl Built for Found {
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

struct HandingOut(Arc<Found>);

impl Worker for HandingOut {
    fn run(&mut self, block: usize) -> Result<(RecordBatch, usize)> {
        let Found { candidates, entities, k, schema, .. } = &*self.0;
        let rows = rows_per_block(*k);
        let (mut entity, mut neighbor, mut scores, mut ranks) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for row in block * rows..(block * rows + rows).min(entities.ids.len()) {
            let first = entity.len();
            candidates.take(row, |score, candidate| {
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
