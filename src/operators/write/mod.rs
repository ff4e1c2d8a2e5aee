//! Writing as an operator: each partition of a query writes its own Parquet files and answers with their manifest.
//!
//! SQL cannot name it; the lake puts it above a query's plan. Nothing is visible in a table until the driver
//! publishes what the manifest lists.

mod files;
mod held_store;
mod ids;
mod list_file;
mod list_sink;
mod lists;
mod node;
mod numbers;
mod pages;
mod places;
mod whole_sink;

use std::fmt;
use std::sync::Arc;

use datafusion::arrow::array::{StringArray, UInt64Array};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::cast::{as_string_array, as_uint64_array};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Result, internal_err, plan_err};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, UnboundedMemoryPool};
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, LexOrdering, OrderingRequirements, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{EmissionType, PlanProperties, ReplaceChildrenOptions};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, Partitioning};
use futures::StreamExt;
use object_store::ObjectStore;
use serde::{Deserialize, Serialize};

use self::files::PartitionFiles;
pub use self::lists::WriteLists;
pub use self::node::WriteNode;
pub use self::whole_sink::WriteWhole;

/// How hard Zstandard works on what is written.
pub const ZSTD_LEVEL: i32 = 1;

/// The bytes that are written at once to a store of this URL, at most `most`.
///
/// Each request to a store elsewhere takes its time. The kernel keeps a file in pages that are as large as what comes at once, and
/// a large page is seldom found among those that were freed a moment ago: on a virtual machine whose host takes back what is free,
/// fresh memory costs more than all else that is done with it.
fn bytes_at_once(store: &str, most: usize) -> usize {
    if store.starts_with("file:") { most.min(1 << 20) } else { most }
}

/// Where the files of one table go.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Serialize, Deserialize)]
pub struct Target {
    /// The URL of the store.
    pub store: String,
    /// The folder in the store.
    pub folder: String,
    /// What the names of files begin with; task, partition and a number follow.
    pub stem: String,
    /// The columns whose values name sub-folders (`week=7/`); they stay in the files as well, so that each file
    /// stands on its own.
    pub partition_by: Vec<String>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "folder={}", self.folder)?;
        match self.partition_by.is_empty() {
            true => Ok(()),
            false => write!(f, ", partition_by={}", self.partition_by.join(", ")),
        }
    }
}

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenFile {
    /// Its path below the target's folder.
    pub path: String,
    /// Its rows.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
}

/// Writes each partition of its input to files of its own; its rows are the files.
#[derive(Debug)]
pub struct WriteExec {
    input: Arc<dyn ExecutionPlan>,
    target: Target,
    /// The columns of the files.
    schema: SchemaRef,
    /// The columns whose values name folders.
    folders: Vec<usize>,
    /// How the rows are sorted, which whoever plans anew must not undo.
    order: Option<LexOrdering>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl WriteExec {
    /// Where the files go.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Writes `input` to `target`. Fails where a column of `partition_by` does not exist.
    pub fn try_new(input: Arc<dyn ExecutionPlan>, target: Target) -> Result<Self> {
        let (order, schema) = (input.output_ordering().cloned(), input.schema());
        Self::sorted(input, target, schema, order)
    }

    /// The same over an input with keys for ids, as `with_keys` turns it into; none if it cannot be turned, or files are no lists,
    /// or are for values of some columns, which then have to be seen.
    fn with_keys(
        &self,
        with_keys: impl Fn(&Arc<dyn ExecutionPlan>) -> Option<Arc<dyn ExecutionPlan>>,
    ) -> Option<Result<Self>> {
        let apt = self.folders.is_empty() && !lists::dispensable(&self.schema).is_empty();
        let input = apt.then(|| with_keys(&self.input)).flatten()?;
        Some(self.with_input(input))
    }

    fn with_input(&self, input: Arc<dyn ExecutionPlan>) -> Result<Self> {
        Self::sorted(input, self.target.clone(), Arc::clone(&self.schema), self.order.clone())
    }

    fn sorted(
        input: Arc<dyn ExecutionPlan>,
        target: Target,
        schema: SchemaRef,
        order: Option<LexOrdering>,
    ) -> Result<Self> {
        let mut folders = Vec::new();
        for column in &target.partition_by {
            let Some((at, _)) = schema.column_with_name(column) else {
                let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                return plan_err!(
                    "partition_by names column '{column}', which the table does not have; it has {}",
                    names.join(", ")
                );
            };
            folders.push(at);
        }
        let properties = PlanProperties::new(
            EquivalenceProperties::new(manifest_schema()),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            EmissionType::Final,
            input.boundedness(),
        );
        Ok(Self {
            input,
            target,
            schema,
            folders,
            order,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }
}

/// What sets the files of this task apart from those of others, and of other attempts at it: on a cluster the numbers in
/// its name, `TID job/stage.attempt/task.attempt`.
fn task_name(context: &TaskContext) -> String {
    let Some((_, numbers)) =
        context.task_id().and_then(|id| id.split_once('/').map(|(a, b)| (a.to_owned(), b.to_owned())))
    else {
        return String::new();
    };
    format!("-{}", numbers.replace(|c: char| !c.is_ascii_digit(), "-"))
}

/// Writes a file without a row, so that a table without rows still has columns.
pub async fn write_empty(store: Arc<dyn ObjectStore>, target: &Target, schema: SchemaRef) -> Result<Vec<WrittenFile>> {
    let name = format!("{}-00000", target.stem);
    // No rows, so no memory.
    let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
    let memory = MemoryConsumer::new("WriteExec").register(&pool);
    let mut files = PartitionFiles::new(store, target.clone(), name, Vec::new(), Arc::clone(&schema), memory);
    files.write_to(String::new(), RecordBatch::new_empty(schema)).await?;
    files.finish().await
}

fn manifest_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("path", DataType::Utf8, false),
        Field::new("rows", DataType::UInt64, false),
        Field::new("bytes", DataType::UInt64, false),
    ]))
}

fn manifest_batch(files: &[WrittenFile]) -> Result<RecordBatch> {
    let paths = StringArray::from_iter_values(files.iter().map(|file| &file.path));
    let rows = UInt64Array::from_iter_values(files.iter().map(|file| file.rows));
    let bytes = UInt64Array::from_iter_values(files.iter().map(|file| file.bytes));
    Ok(RecordBatch::try_new(manifest_schema(), vec![Arc::new(paths), Arc::new(rows), Arc::new(bytes)])?)
}

/// Reads the manifest that a [`WriteExec`] answered with.
pub fn written_files(batches: &[RecordBatch]) -> Result<Vec<WrittenFile>> {
    let mut files = Vec::new();
    for batch in batches {
        let (paths, rows) = (as_string_array(batch.column(0))?, as_uint64_array(batch.column(1))?);
        let bytes = as_uint64_array(batch.column(2))?;
        for at in 0..batch.num_rows() {
            files.push(WrittenFile { path: paths.value(at).to_owned(), rows: rows.value(at), bytes: bytes.value(at) });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    match files.windows(2).find(|pair| pair[0].path == pair[1].path) {
        Some(twice) => internal_err!("file {} was listed twice", twice[0].path),
        None => Ok(files),
    }
}

impl DisplayAs for WriteExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "WriteExec: {}", self.target)
    }
}

impl ExecutionPlan for WriteExec {
    fn name(&self) -> &str {
        "WriteExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        vec![self.order.clone().map(OrderingRequirements::from)]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![false]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(self.with_input(children.swap_remove(0))?))
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(self.with_input(children.swap_remove(0))?))
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let mut input = self.input.execute(partition, Arc::clone(&context))?;
        let store = context.runtime_env().object_store(ObjectStoreUrl::parse(&self.target.store)?)?;
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let name = format!("{}{}-{partition:05}", self.target.stem, task_name(&context));
        let memory = MemoryConsumer::new(format!("WriteExec[{partition}]")).register(context.memory_pool());
        let (target, schema) = (self.target.clone(), Arc::clone(&self.schema));
        let mut files = PartitionFiles::new(store, target, name, self.folders.clone(), schema, memory);
        let work = async move {
            while let Some(batch) = input.next().await {
                let batch = batch?;
                let _timer = baseline.elapsed_compute().timer();
                files.write(batch).await?;
            }
            let written = files.finish().await?;
            baseline.record_output(written.len());
            manifest_batch(&written)
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(manifest_schema(), futures::stream::once(work))))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}
