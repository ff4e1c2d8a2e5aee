//! LIMIT over tables in memory.

use std::sync::Arc;

use datafusion::catalog::memory::{DataSourceExec, MemorySourceConfig};
use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::limit::LocalLimitExec;

/// Puts a limit that a table in memory would keep itself above the table: Ballista 55.0 forgets it where it cuts the table
/// into the parts of tasks.
#[derive(Debug)]
pub struct LimitsAboveTables;

impl PhysicalOptimizerRule for LimitsAboveTables {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let limit_above = |plan: Arc<dyn ExecutionPlan>| {
            let scan = plan.downcast_ref::<DataSourceExec>();
            let table = scan.and_then(|scan| scan.data_source().downcast_ref::<MemorySourceConfig>());
            let Some((table, limit)) = table.and_then(|table| Some((table, plan.fetch()?))) else {
                return Ok(Transformed::no(plan));
            };
            let all =
                MemorySourceConfig::try_new(table.partitions(), table.original_schema(), table.projection().clone())?;
            let limited = LocalLimitExec::new(DataSourceExec::from_data_source(all), limit);
            Ok(Transformed::yes(Arc::new(limited) as Arc<dyn ExecutionPlan>))
        };
        plan.transform_up(limit_above).data()
    }

    fn name(&self) -> &str {
        "limits_above_tables"
    }

    fn schema_check(&self) -> bool {
        true
    }
}
