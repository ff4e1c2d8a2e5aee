//! The physical node of every operator: build once, then work on blocks in every partition.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::common::runtime::SpawnedTask;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result, internal_err};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{EquivalenceProperties, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, PlanProperties, ReplaceChildrenOptions};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties, Partitioning,
};
use futures::future::{BoxFuture, FutureExt, Shared};
use futures::{Stream, TryStreamExt};

use super::input_rows::InputRows;
use super::node::{Built, Resources, Task, Worker};
use super::shares::{self, Shares};

type BuildFuture = Shared<BoxFuture<'static, Result<(Arc<dyn Built>, Shares), Arc<DataFusionError>>>>;

/// Runs a [`Task`].
///
/// Each input is asked for as one partition, since all of it is needed: locally its partitions are read side by side
/// ([`InputRows`]), on a cluster a broadcast to every task. Where the work is divided between processes, the inputs that can
/// be ([`Task::divisible`]) are asked for by hash, and each process builds for the partitions that it has. The first child is
/// the table of [`shares`], which has the partitions of the result. Whoever is polled first among the output partitions
/// builds, the others wait for the same result.
#[derive(Debug)]
pub struct OperatorExec {
    task: Arc<dyn Task>,
    /// The table of shares, then the inputs.
    children: Vec<Arc<dyn ExecutionPlan>>,
    /// Whether inputs that can be divided are.
    divided: bool,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
    build: Mutex<Build>,
}

/// The build of one execution, and how many partitions have asked for it.
#[derive(Debug, Default)]
struct Build {
    running: Option<BuildFuture>,
    asked: usize,
}

impl OperatorExec {
    /// Runs `task` over `inputs`, its result in `partitions` partitions.
    pub fn try_new(
        task: Arc<dyn Task>,
        inputs: &[Arc<dyn ExecutionPlan>],
        partitions: usize,
        divided: bool,
    ) -> Result<Self> {
        let shares = shares::table(partitions.max(1))?;
        Ok(Self::over(task, std::iter::once(shares).chain(inputs.iter().cloned()).collect(), divided))
    }

    /// Runs `task` over a table of shares and inputs.
    pub fn over(task: Arc<dyn Task>, children: Vec<Arc<dyn ExecutionPlan>>, divided: bool) -> Self {
        let partitions = children.first().map_or(0, |shares| shares.output_partitioning().partition_count());
        let properties = PlanProperties::new(
            EquivalenceProperties::new(task.schema()),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self {
            task,
            children,
            divided,
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
            build: Mutex::default(),
        }
    }

    /// The same with ids that are keys, see [`Task::with_keys`].
    pub fn with_keys(&self) -> Option<Self> {
        self.task.with_keys().map(|task| Self::over(task, self.children.clone(), self.divided))
    }

    /// What it does.
    pub fn task(&self) -> &Arc<dyn Task> {
        &self.task
    }

    /// Whether each process gets some rows only of the inputs that can be divided.
    pub fn divided(&self) -> bool {
        self.divided
    }

    /// The column by which an input is divided, if it is.
    fn key(&self, input: usize) -> Option<usize> {
        self.task.divisible().get(input).copied().flatten().filter(|_| self.divided)
    }

    /// All rows of an input that are needed here.
    fn rows(&self, input: usize, context: &Arc<TaskContext>) -> Result<InputRows> {
        let child = &self.children[input + 1];
        let expected = if self.key(input).is_some() { self.partitions() } else { 1 };
        match child.output_partitioning().partition_count() == expected {
            true => Ok(InputRows::new(child, context)),
            false => {
                let (name, found) = (self.task.name(), child.output_partitioning().partition_count());
                internal_err!("{name} got an input of {found} partitions instead of {expected}")
            }
        }
    }

    fn partitions(&self) -> usize {
        self.properties.partitioning.partition_count()
    }

    /// The build of this execution, begun by the first caller.
    fn built(&self, context: &Arc<TaskContext>) -> Result<BuildFuture> {
        let mut build = self.build.lock().unwrap_or_else(PoisonError::into_inner);
        build.asked += 1;
        if build.asked == self.partitions() {
            // Nobody else will ask: what was built shall go when the last partition is done with it.
            build.asked = 0;
            if let Some(running) = build.running.take() {
                return Ok(running);
            }
        } else if let Some(running) = &build.running {
            return Ok(running.clone());
        }
        let inputs: Vec<InputRows> =
            (0..self.children.len() - 1).map(|input| self.rows(input, context)).collect::<Result<_>>()?;
        let (shares, context) = (Arc::clone(&self.children[0]), Arc::clone(context));
        let memory = MemoryConsumer::new(self.task.name()).register(context.memory_pool());
        let disk = Arc::clone(&context.runtime_env().disk_manager);
        let (threads, metrics) = (self.partitions(), self.metrics.clone());
        let (task, divided) = (Arc::clone(&self.task), self.divided);
        let time = MetricBuilder::new(&self.metrics).subset_time("build_time", 0);
        let future = async move {
            // Spawned only when polled; dropping the last waiter stops the reading of inputs.
            let work = SpawnedTask::spawn(async move {
                let _timer = time.timer();
                let shares = shares::read(&shares, &context).await?;
                let resources = Resources { threads, shares: shares.clone(), disk, memory, metrics };
                let built = task.build(inputs, resources).await?;
                // What is built for these shares alone is divided between them.
                let own = || Shares { of: shares.here.len(), here: (0..shares.here.len()).collect() };
                Ok((built, if divided || task.is_shared() { own() } else { shares }))
            });
            match work.join_unwind().await {
                Ok(result) => result.map_err(Arc::new),
                Err(e) => Err(Arc::new(DataFusionError::Execution(format!("building was cut off: {e}")))),
            }
        };
        let future = future.boxed().shared();
        if build.asked > 0 {
            build.running = Some(future.clone());
        }
        Ok(future)
    }
}

impl DisplayAs for OperatorExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let divided = if self.divided { ", divided" } else { "" };
        write!(f, "{}Exec: {}{divided}", self.task.name(), self.task.settings())
    }
}

impl ExecutionPlan for OperatorExec {
    fn name(&self) -> &str {
        self.task.name()
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        let input = |at: usize| match self.key(at) {
            Some(key) => {
                let schema = self.children[at + 1].schema();
                let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(schema.field(key).name(), key));
                Distribution::KeyPartitioned(vec![column])
            }
            None => Distribution::SinglePartition,
        };
        std::iter::once(Distribution::UnspecifiedDistribution).chain((0..self.children.len() - 1).map(input)).collect()
    }

    /// Inputs that are divided gain by it, even if they come as one partition, which DataFusion would leave whole otherwise.
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        std::iter::once(false).chain((0..self.children.len() - 1).map(|input| self.key(input).is_some())).collect()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        self.children.iter().collect()
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::over(Arc::clone(&self.task), children, self.divided)))
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::over(Arc::clone(&self.task), children, self.divided)))
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        if partition >= self.partitions() {
            return internal_err!("{} has no partition {partition}", self.task.name());
        }
        let share = Share {
            partition,
            built: self.built(&context)?,
            baseline: BaselineMetrics::new(&self.metrics, partition),
            multiply_adds: MetricBuilder::new(&self.metrics).counter("multiply_adds", partition),
            memory: MemoryConsumer::new(self.task.name()).register(context.memory_pool()),
        };
        let stream = futures::stream::once(share.start()).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// The blocks of one output partition.
struct Share {
    partition: usize,
    built: BuildFuture,
    baseline: BaselineMetrics,
    multiply_adds: datafusion::physical_plan::metrics::Count,
    memory: datafusion::execution::memory_pool::MemoryReservation,
}

type Batch = datafusion::arrow::record_batch::RecordBatch;

impl Share {
    async fn start(self) -> Result<impl Stream<Item = Result<Batch>>> {
        let (built, shares) = self.built.clone().await.map_err(DataFusionError::Shared)?;
        let blocks = (shares.here[self.partition]..built.blocks()).step_by(shares.of);
        if blocks.len() > 0 {
            self.memory.try_grow(built.worker_bytes())?;
        }
        let worker: Option<Box<dyn Worker>> = (blocks.len() > 0).then(|| built.worker());
        Ok(futures::stream::try_unfold((self, worker, blocks), |(share, mut worker, mut blocks)| async move {
            let (Some(block), Some(active)) = (blocks.next(), worker.as_mut()) else {
                return Ok(None);
            };
            // A block is a few milliseconds of pure computing; giving way between them lets a query be cancelled.
            tokio::task::yield_now().await;
            let (batch, work) = {
                let _timer = share.baseline.elapsed_compute().timer();
                active.run(block)?
            };
            share.multiply_adds.add(work);
            share.baseline.record_output(batch.num_rows());
            Ok(Some((batch, (share, worker, blocks))))
        }))
    }
}
