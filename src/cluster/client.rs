//! A cluster as a session sees it: plans go there, rows come back.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use ballista_core::config::BallistaConfig;
use ballista_core::execution_plans::DistributedQueryExec;
use ballista_core::planner::BallistaQueryPlanner;
use ballista_core::serde::protobuf::CancelJobParams;
use ballista_core::serde::protobuf::scheduler_grpc_client::SchedulerGrpcClient;
use datafusion::catalog::Session;
use datafusion::common::Result;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use datafusion::prelude::SessionConfig;
use datafusion_proto::protobuf::LogicalPlanNode;
use futures::TryStreamExt;
use tonic::transport::Channel;

use super::codec::LogicalCodec;
use super::errors;
use super::executor::channel;
use super::security::Security;
use super::session::upgrade;
use super::tables::portable;
use crate::session::Remote;

type Query = DistributedQueryExec<LogicalPlanNode>;

/// A running cluster.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Where its scheduler is: `host:port`.
    scheduler: String,
    security: Security,
    running: Running,
}

/// The queries under way.
type Running = Arc<Mutex<Vec<Arc<dyn ExecutionPlan>>>>;

impl Cluster {
    /// The cluster of the scheduler at `host:port`; nothing is asked of it yet.
    pub fn new(scheduler: String, security: Security) -> Self {
        Self { scheduler, security, running: Running::default() }
    }

    /// Finds out whether the scheduler is there and lets this process in.
    pub async fn check(&self) -> Result<()> {
        let channel = self.connect().await;
        let unreachable = |e: String| {
            datafusion::common::exec_datafusion_err!(
                "no scheduler answers at {}: {e}; start one with `lakeside scheduler`",
                self.scheduler
            )
        };
        let mut client = SchedulerGrpcClient::new(channel.map_err(|e| unreachable(crate::error::explain(&e)))?);
        // The state of a job that does not exist: an answer of any kind means that we may ask.
        let asked = ballista_core::serde::protobuf::GetJobStatusParams { job_id: "none".to_owned() };
        match client.get_job_status(asked).await {
            Err(refused) if errors::is_refusal(&refused) => {
                datafusion::common::exec_err!("the scheduler at {} refuses: {}", self.scheduler, refused.message())
            }
            Err(e) if e.code() == tonic::Code::Unavailable => Err(unreachable(errors::with_causes(&e))),
            _ => Ok(()),
        }
    }

    /// A connection to ask how the cluster is, see [`super::status`].
    pub async fn connect(&self) -> Result<Channel> {
        channel(&self.scheduler, &self.security).await
    }

    /// The jobs that this process has under way.
    pub fn running(&self) -> Vec<String> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.iter().filter_map(|plan| Some(plan.downcast_ref::<Query>()?.job_id()?.to_string())).collect()
    }

    /// Cancels every job that this process has under way.
    pub async fn cancel(&self) {
        let jobs = self.running();
        if jobs.is_empty() {
            return;
        }
        let Ok(channel) = self.connect().await else { return };
        let mut client = SchedulerGrpcClient::new(channel);
        for job_id in jobs {
            let _ = client.cancel_job(CancelJobParams { job_id }).await;
        }
    }
}

impl Remote for Cluster {
    fn config(&self, local: SessionConfig) -> Result<SessionConfig> {
        Ok(upgrade(local, &self.security))
    }

    fn planner(&self) -> Arc<dyn QueryPlanner + Send + Sync> {
        Arc::new(self.clone())
    }
}

#[async_trait]
impl QueryPlanner for Cluster {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let config = session.config().options().extensions.get::<BallistaConfig>().cloned().unwrap_or_default();
        let url = format!("http://{}", self.scheduler);
        let planner =
            BallistaQueryPlanner::<LogicalPlanNode>::with_extension(url, config, Arc::new(LogicalCodec::default()));
        let plan = portable(plan, session).await?;
        let plan = planner.create_physical_plan(&plan, session).await?;
        match plan.downcast_ref::<Query>() {
            Some(_) => Ok(Arc::new(JobExec { query: plan, running: Arc::clone(&self.running) })),
            None => Ok(plan),
        }
    }
}

/// A query that runs as a job of the cluster: it is known as long as it runs, and its errors are made readable.
#[derive(Debug)]
struct JobExec {
    query: Arc<dyn ExecutionPlan>,
    running: Running,
}

impl DisplayAs for JobExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "JobExec")
    }
}

impl ExecutionPlan for JobExec {
    fn name(&self) -> &str {
        "JobExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.query.properties()
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let rows = self.query.execute(partition, context).map_err(errors::readable)?;
        let listed = Listed::new(&self.query, &self.running);
        let rows = rows.map_err(move |e| {
            let _listed = &listed;
            errors::readable(e)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}

/// Keeps a query in the list of running ones.
struct Listed {
    query: Arc<dyn ExecutionPlan>,
    running: Running,
}

impl Listed {
    fn new(query: &Arc<dyn ExecutionPlan>, running: &Running) -> Self {
        running.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(query));
        Self { query: Arc::clone(query), running: Arc::clone(running) }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|query| !Arc::ptr_eq(query, &self.query));
    }
}
