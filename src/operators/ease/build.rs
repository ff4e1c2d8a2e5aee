//! From rows of interactions to the weights of items for items.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::Array;
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::metrics::MetricBuilder;
use serde::{Deserialize, Serialize};
use serde_with::{DisplayFromStr, serde_as};

use crate::kernels::csr::Csr;
use crate::kernels::ease::{bytes_for, ease};
use crate::kernels::topk::Candidates;
use crate::operators::codec::encode;
use crate::operators::collect::{Chunk, Columns, collect, matrix, number};
use crate::operators::found::{Found, Stop, schema};
use crate::operators::node::{Built, Resources, Task};
use crate::operators::spill::from_kernel;

const USER: usize = 0;
const ITEM: usize = 1;

/// The settings of a call.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Settings {
    pub regularization: f64,
    pub k: usize,
}

/// `ease` with all its settings fixed.
#[serde_as]
#[derive(Debug, Serialize, Deserialize)]
pub struct EaseTask {
    columns: Columns,
    /// The type in which items go out.
    #[serde_as(as = "DisplayFromStr")]
    id_type: DataType,
    settings: Settings,
}

impl EaseTask {
    pub(super) fn new(columns: Columns, id_type: DataType, settings: Settings) -> Self {
        Self { columns, id_type, settings }
    }
}

#[async_trait]
impl Task for EaseTask {
    fn name(&self) -> &'static str {
        "Ease"
    }

    fn settings(&self) -> String {
        let Settings { regularization, k } = self.settings;
        let weight = self.columns.weight.as_deref().unwrap_or("1");
        let skip = if self.columns.skip_nulls { ", on_null=skip" } else { "" };
        let [user, item] = [USER, ITEM].map(|at| &self.columns.ids[at]);
        format!("user={user}, item={item}, weight={weight}, regularization={regularization}, k={k}{skip}")
    }

    fn schema(&self) -> SchemaRef {
        schema(&self.columns.ids[ITEM], &self.id_type)
    }

    fn encode(&self) -> Result<Vec<u8>> {
        encode(self)
    }

    async fn build(&self, mut inputs: Vec<SendableRecordBatchStream>, resources: Resources) -> Result<Arc<dyn Built>> {
        let disk = Some(Arc::clone(&resources.disk));
        let chunks = collect(inputs.swap_remove(0), &self.columns, resources.threads, &resources.memory, disk).await?;
        let (types, id_type) = (self.columns.types.clone(), self.id_type.clone());
        let (settings, schema) = (self.settings, self.schema());
        let stop = Stop::default();
        let stopped = stop.flag();
        let solve = move || solve(chunks, &types, &id_type, settings, schema, resources, &stopped);
        let found = SpawnedTask::spawn_blocking(solve).join_unwind().await;
        Ok(Arc::new(found.map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)))??))
    }
}

fn solve(
    chunks: Vec<Chunk>,
    types: &[DataType],
    id_type: &DataType,
    settings: Settings,
    schema: SchemaRef,
    resources: Resources,
    stop: &std::sync::atomic::AtomicBool,
) -> Result<Found> {
    let mut tables = [chunks];
    let users = number(&mut tables, &[(0, USER)], &types[USER], &types[USER])?.ids.len();
    let items = number(&mut tables, &[(0, ITEM)], &types[ITEM], id_type)?;
    let n = items.ids.len();
    let [chunks] = tables;
    let k = settings.k.min(n.max(1));
    let rows: usize = chunks.iter().map(Chunk::rows).sum();
    let matrices = Csr::bytes_for(users, rows) + Csr::bytes_for(n, rows);
    let lists = Candidates::bytes_for(k, (0..n).map(|_| n));
    let needed = chunks.iter().map(Chunk::bytes).sum::<usize>() + matrices + lists + bytes_for(n, resources.threads);
    resources.memory.try_resize(needed).map_err(|_| {
        DataFusionError::ResourcesExhausted(format!(
            "ease needs {} MB for {n} items, as it looks at all pairs of them; leave out items that few users have",
            needed.div_ceil(1_000_000)
        ))
    })?;
    let pool = resources.pool()?;
    let build = |row, column, rows, columns| pool.install(|| matrix(&chunks, row, column, 0..rows, columns));
    let (by_user, by_item) = (build(USER, ITEM, users, n)?, build(ITEM, USER, n, users)?);
    drop(chunks);
    // A candidate and its negative stand at the same place in the order of ids.
    let order = items.order.iter().flat_map(|&place| [2 * place, 2 * place + 1]).collect();
    let found = Candidates::new(k, order, f32::MIN_POSITIVE);
    let time = MetricBuilder::new(&resources.metrics).subset_time("solve_time", 0);
    {
        let _timer = time.timer();
        pool.install(|| ease(&by_user, &by_item, settings.regularization, &found, stop)).map_err(from_kernel)?;
    }
    MetricBuilder::new(&resources.metrics).counter("items", 0).add(n);
    drop((by_user, by_item));
    resources.memory.try_resize(items.ids.get_array_memory_size() + found.bytes())?;
    Ok(Found::new(found, items, k, schema, resources.memory).signed())
}
