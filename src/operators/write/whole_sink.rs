//! `COPY .. TO` and `INSERT INTO`: no file of a query that fails.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::datasource::sink::{DataSink, DataSinkExec};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::metrics::MetricsSet;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan};

use super::held_store::{Held, HeldStores, OrNone};
use crate::operators::context;

/// Lets every sink write by a [`WholeSink`].
#[derive(Debug)]
pub struct WriteWhole;

impl PhysicalOptimizerRule for WriteWhole {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            let Some(exec) = plan.downcast_ref::<DataSinkExec>() else {
                return Ok(Transformed::no(plan));
            };
            let sink = Arc::new(WholeSink(exec.clone()));
            let exec = DataSinkExec::new(Arc::clone(exec.input()), sink, exec.sort_order().clone());
            Ok(Transformed::yes(Arc::new(exec)))
        })
        .data()
    }

    fn name(&self) -> &str {
        "write_whole"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Writes by the sink of a plan (which gives a sink to none but itself), and lets files appear once that has ended well.
///
/// A sink closes its files when no more rows come, also where they end since the query has failed or one of them cannot be
/// written; only afterwards it asks how all ended, and files that were there before are replaced by then.
#[derive(Debug)]
struct WholeSink(DataSinkExec);

impl DisplayAs for WholeSink {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.sink().fmt_as(format, f)
    }
}

#[async_trait]
impl DataSink for WholeSink {
    fn metrics(&self) -> Option<MetricsSet> {
        self.0.sink().metrics()
    }

    fn schema(&self) -> &SchemaRef {
        self.0.sink().schema()
    }

    async fn write_all(&self, data: SendableRecordBatchStream, context: &Arc<TaskContext>) -> Result<u64> {
        let (held, runtime) = (Arc::new(Held::default()), context.runtime_env());
        let _stopped = OrNone(Arc::clone(&held));
        let stores = HeldStores { stores: Arc::clone(&runtime.object_store_registry), held: Arc::clone(&held) };
        let runtime = RuntimeEnvBuilder::from_runtime_env(&runtime).with_object_store_registry(Arc::new(stores));
        let context = context::with(context, context.session_config().clone(), runtime.build_arc()?);
        let written = self.0.sink().write_all(data, &Arc::new(context)).await;
        match written {
            Ok(_) => held.publish().await?,
            Err(_) => held.discard().await,
        }
        written
    }
}
