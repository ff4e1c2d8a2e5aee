//! The rows of an operator's input, which it reads once, by one reader or several.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

use super::gather::GatherExec;

/// All rows of an input, not yet asked for.
pub struct InputRows {
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
}

impl InputRows {
    /// The rows of all partitions of a plan.
    pub fn new(plan: &Arc<dyn ExecutionPlan>, context: &Arc<TaskContext>) -> Self {
        Self { plan: Arc::clone(parts(plan)), context: Arc::clone(context) }
    }

    /// All rows in one stream; partitions work side by side.
    pub fn stream(&self) -> Result<SendableRecordBatchStream> {
        match self.partitions() {
            1 => self.plan.execute(0, Arc::clone(&self.context)),
            _ => CoalescePartitionsExec::new(Arc::clone(&self.plan)).execute(0, Arc::clone(&self.context)),
        }
    }

    /// All rows, each partition in a stream of its own if there are as many readers: who decodes rows has them at hand. With
    /// fewer readers in one stream, as partitions that nobody reads may collect what others send them.
    pub fn streams(&self, readers: usize) -> Result<Vec<SendableRecordBatchStream>> {
        if self.partitions() > readers {
            return Ok(vec![self.stream()?]);
        }
        (0..self.partitions()).map(|partition| self.plan.execute(partition, Arc::clone(&self.context))).collect()
    }

    fn partitions(&self) -> usize {
        self.plan.output_partitioning().partition_count()
    }
}

/// What a plan puts together, if it does no more.
fn parts(plan: &Arc<dyn ExecutionPlan>) -> &Arc<dyn ExecutionPlan> {
    let all = plan.downcast_ref::<CoalescePartitionsExec>().filter(|all| all.fetch().is_none());
    let gathered = || plan.downcast_ref::<GatherExec>().map(GatherExec::input);
    all.map(CoalescePartitionsExec::input).or_else(gathered).unwrap_or(plan)
}
