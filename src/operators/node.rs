//! The logical node of every operator: a task over inputs.

use std::cmp::Ordering;
use std::fmt::{self, Debug};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::{DFSchema, DFSchemaRef, DataFusionError, Result};
use datafusion::execution::disk_manager::DiskManager;
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::logical_expr::{Expr, Extension, LogicalPlan, UserDefinedLogicalNodeCore};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;

use super::input_rows::InputRows;
use super::shares::Shares;

/// What an operator does once its inputs flow, with all settings fixed.
#[async_trait]
pub trait Task: Debug + Send + Sync {
    /// The operator's name as plans show it, in camel case.
    fn name(&self) -> &'static str;

    /// The settings as plans show them. Two tasks of one name with the same settings and inputs are the same.
    fn settings(&self) -> String;

    /// The columns of the result.
    fn schema(&self) -> SchemaRef;

    /// The same with ids that are [keys](super::keys) of a dictionary, whether these can be of the type of ids or not; none where
    /// it does not know how. Who writes ids has less to look up then.
    fn with_keys(&self) -> Option<Arc<dyn Task>> {
        None
    }

    /// All of it as bytes, for other machines; [`super::codec::decode`] reads them.
    fn encode(&self) -> Result<Vec<u8>>;

    /// The same over many processes that search a share each and have what they found merged, where that saves work; else
    /// each builds all and hands out its shares of the result.
    fn shared(&self, _inputs: &[LogicalPlan]) -> Result<Option<LogicalPlan>> {
        Ok(None)
    }

    /// Whether what this builds is for its own shares only.
    fn is_shared(&self) -> bool {
        false
    }

    /// Of each input, the column by which its rows can be divided between processes that build for their own rows only;
    /// none where each needs all rows. Empty where nothing can be divided.
    fn divisible(&self) -> Vec<Option<usize>> {
        Vec::new()
    }

    /// Reads the inputs to their end and makes what all output partitions share. Called once per execution.
    async fn build(&self, inputs: Vec<InputRows>, resources: Resources) -> Result<Arc<dyn Built>>;
}

/// What a build may use.
pub struct Resources {
    /// How many threads may work at once; nothing that is seen may depend on it.
    pub threads: usize,
    /// What of the work is done here.
    pub shares: Shares,
    /// Where temporary files go.
    pub disk: Arc<DiskManager>,
    /// To be grown before memory is taken; it is held as long as the result of the build.
    pub memory: MemoryReservation,
    /// Where figures for EXPLAIN ANALYZE go.
    pub metrics: ExecutionPlanMetricsSet,
}

/// Works on as many threads as a build may use, beside those on which streams flow. What the work does by [`rayon`] is on
/// these threads; outside of this it would be on all cores of the machine. Work that has begun goes on when nobody waits for
/// it any more, if nothing tells it to stop.
pub async fn on_pool<T: Send + 'static>(
    threads: usize,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let work = move || {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.max(1)).build();
        pool.map_err(|e| DataFusionError::Execution(format!("starting threads: {e}")))?.install(work)
    };
    let done = SpawnedTask::spawn_blocking(work).join_unwind().await;
    done.map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)))?
}

/// The state that all output partitions share: work cut into blocks of output rows.
pub trait Built: Send + Sync {
    /// The number of blocks; share `s` of `n` does the blocks `s, s + n, s + 2n, ..`, or, where what is built is for some
    /// shares only, the same among these.
    fn blocks(&self) -> usize;

    /// The bytes that one worker needs for itself.
    fn worker_bytes(&self) -> usize;

    /// A worker with its own scratch space.
    fn worker(self: Arc<Self>) -> Box<dyn Worker>;
}

/// Blocks of about equal work: enough for an even share, and short enough to be cancelled between.
pub const BLOCKS_PER_THREAD: usize = 128;

/// How many entities or users a block has at the most, where each has up to `k` result rows: about a batch of rows.
pub fn rows_per_block(k: usize) -> usize {
    (8192 / k.max(1)).max(1)
}

/// Does blocks of work for one partition.
pub trait Worker: Send {
    /// The result rows of a block, and the multiply-adds that they took.
    fn run(&mut self, block: usize) -> Result<(RecordBatch, usize)>;
}

/// A [`Task`] with its inputs, in a logical plan.
#[derive(Clone)]
pub struct OperatorNode {
    task: Arc<dyn Task>,
    inputs: Vec<LogicalPlan>,
    schema: DFSchemaRef,
}

impl OperatorNode {
    /// The plan of the task over these inputs.
    pub fn plan(task: Arc<dyn Task>, inputs: Vec<LogicalPlan>) -> Result<LogicalPlan> {
        let schema: &Schema = &task.schema();
        let schema = Arc::new(DFSchema::try_from(schema.clone())?);
        Ok(LogicalPlan::Extension(Extension { node: Arc::new(Self { task, inputs, schema }) }))
    }

    /// The plan that shares the search between processes, if there is one.
    pub fn shared(&self) -> Result<Option<LogicalPlan>> {
        self.task.shared(&self.inputs)
    }

    /// What it does.
    pub fn task(&self) -> Arc<dyn Task> {
        Arc::clone(&self.task)
    }

    fn identity(&self) -> (&'static str, String, &[LogicalPlan]) {
        (self.task.name(), self.task.settings(), &self.inputs)
    }
}

impl Debug for OperatorNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.task.name(), self.task.settings())
    }
}

impl PartialEq for OperatorNode {
    fn eq(&self, other: &Self) -> bool {
        self.identity() == other.identity()
    }
}

impl Eq for OperatorNode {}

impl Hash for OperatorNode {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl PartialOrd for OperatorNode {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        self.identity().partial_cmp(&other.identity())
    }
}

impl UserDefinedLogicalNodeCore for OperatorNode {
    fn name(&self) -> &str {
        self.task.name()
    }

    fn inputs(&self) -> Vec<&LogicalPlan> {
        self.inputs.iter().collect()
    }

    fn schema(&self) -> &DFSchemaRef {
        &self.schema
    }

    fn expressions(&self) -> Vec<Expr> {
        Vec::new()
    }

    fn fmt_for_explain(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{self:?}")
    }

    fn with_exprs_and_inputs(&self, _: Vec<Expr>, inputs: Vec<LogicalPlan>) -> Result<Self> {
        Ok(Self { inputs, ..self.clone() })
    }
}
