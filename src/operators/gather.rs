//! All partitions of an input as one, within each task of a cluster.
//!
//! An operator reads the whole of its inputs in every task. Where an input comes straight from files, each task may as well
//! read these itself: files are smaller than the rows that would be shuffled, and there is no stage to wait for. Ballista
//! cuts a stage at DataFusion's own operator for this, and not at this one.

use std::fmt;
use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::source::DataSourceExec;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::{PlanProperties, ReplaceChildrenOptions};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan};

/// Hands out the rows of all partitions of its input as they come.
#[derive(Debug)]
pub struct GatherExec(CoalescePartitionsExec);

impl GatherExec {
    /// All of `input`.
    pub fn new(input: Arc<dyn ExecutionPlan>) -> Self {
        Self(CoalescePartitionsExec::new(input))
    }

    /// What it gathers.
    pub fn input(&self) -> &Arc<dyn ExecutionPlan> {
        self.0.input()
    }
}

/// Whether a plan does no more than read, choose and compute rows one by one.
pub fn only_reads(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let simple = plan.is::<DataSourceExec>() || plan.is::<ProjectionExec>() || plan.is::<FilterExec>();
    simple && plan.children().into_iter().all(only_reads)
}

impl DisplayAs for GatherExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "GatherExec")
    }
}

impl ExecutionPlan for GatherExec {
    fn name(&self) -> &str {
        "GatherExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.0.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![self.input()]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![true]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![false]
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::new(children.swap_remove(0))))
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::new(children.swap_remove(0))))
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.0.execute(partition, context)
    }

    fn metrics(&self) -> Option<MetricsSet> {
        self.0.metrics()
    }
}
