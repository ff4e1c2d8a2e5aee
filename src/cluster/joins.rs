//! Joins by any condition.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{JoinType, Result};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::joins::NestedLoopJoinExec;
use datafusion::physical_plan::limit::GlobalLimitExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

/// Gives a nested loop join all rows of its right side in one task where it has to tell which rows of the left side have
/// partners: in one process partitions tell each other, in Ballista (55.0) each task would answer for its own rows alone.
#[derive(Debug)]
pub struct WholeRightSides;

impl PhysicalOptimizerRule for WholeRightSides {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let whole = |plan: Arc<dyn ExecutionPlan>| {
            let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() else {
                return Ok(Transformed::no(plan));
            };
            let (left, right) = (Arc::clone(join.left()), Arc::clone(join.right()));
            if !asks_of_left(*join.join_type()) || right.output_partitioning().partition_count() == 1 {
                return Ok(Transformed::no(plan));
            }
            // Ballista takes away what joins do not ask for. A limit, even of none, asks for a single partition.
            let whole = GlobalLimitExec::new(Arc::new(CoalescePartitionsExec::new(right)), 0, None);
            replace_children_if_necessary(plan, vec![left, Arc::new(whole)]).map(Transformed::yes)
        };
        plan.transform_up(whole).data()
    }

    fn name(&self) -> &str {
        "whole_right_sides"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Whether rows come out for rows of the left side as such, not for pairs or for rows of the right side.
fn asks_of_left(join: JoinType) -> bool {
    match join {
        JoinType::Left | JoinType::Full | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => true,
        JoinType::Inner | JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => false,
    }
}
