//! A cluster as a session sees it: plans go there, rows come back.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use ballista_core::config::BallistaConfig;
use ballista_core::execution_plans::DistributedQueryExec;
use ballista_core::extension::SessionConfigExt;
use ballista_core::optimizer::with_ballista_optimizer_rules;
use ballista_core::planner::BallistaQueryPlanner;
use ballista_core::serde::protobuf::CancelJobParams;
use ballista_core::serde::protobuf::scheduler_grpc_client::SchedulerGrpcClient;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, exec_err};
use datafusion::datasource::provider_as_source;
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::{SendableRecordBatchStream, SessionState, SessionStateBuilder, TaskContext};
use datafusion::logical_expr::dml::CopyTo;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableType};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use datafusion::physical_planner::{DefaultPhysicalPlanner, PhysicalPlanner};
use datafusion_proto::protobuf::LogicalPlanNode;
use futures::{StreamExt, TryStreamExt};
use tonic::transport::Channel;

use super::calls::GivenUp;
use super::codec::LogicalCodec;
use super::errors;
use super::executor::channel;
use super::security::Security;
use super::session::upgrade;
use super::status::{self, JobInfo};
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

/// The names of the jobs under way.
type Running = Arc<Mutex<Vec<String>>>;

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
            Err(e) if std::error::Error::source(&e).is_some_and(|e| e.is::<tonic::transport::Error>()) => {
                let tls = if self.security.tls.is_some() { "this side uses TLS" } else { "this side does not use TLS" };
                Err(unreachable(format!("{}; {tls}, and the other has to do the same", errors::with_causes(&e))))
            }
            _ => Ok(()),
        }
    }

    /// A connection to ask how the cluster is, see [`super::status`].
    pub async fn connect(&self) -> Result<Channel> {
        channel(&self.scheduler, &self.security).await
    }

    /// The jobs that this process has under way, as the scheduler knows them.
    pub async fn running(&self, channel: &mut Channel) -> Result<Vec<JobInfo>> {
        let names = self.running.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut jobs = status::jobs(channel).await?;
        jobs.retain(|job| names.contains(&job.name));
        Ok(jobs)
    }

    /// Cancels every job that this process has under way.
    pub async fn cancel(&self) {
        let Ok(mut channel) = self.connect().await else { return };
        let jobs = self.running(&mut channel).await.unwrap_or_default();
        let mut client = SchedulerGrpcClient::new(channel);
        for job in jobs {
            let _ = client.cancel_job(CancelJobParams { job_id: job.id }).await;
        }
    }
}

impl Remote for Cluster {
    fn connect(&self, local: SessionState) -> SessionState {
        let config = upgrade(local.config().clone(), &self.security);
        let rules = with_ballista_optimizer_rules(local.optimizers());
        let state = SessionStateBuilder::new_from_existing(local).with_config(config).with_optimizer_rules(rules);
        state.with_query_planner(Arc::new(self.clone())).build()
    }
}

#[async_trait]
impl QueryPlanner for Cluster {
    async fn create_physical_plan(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let LogicalPlan::Copy(copy) = plan else {
            return self.job(plan, session).await;
        };
        // Its options get lost where a plan is sent, and a task that is done twice would leave two files: rows come back
        // and are written here.
        let rows: Arc<dyn TableProvider> = Arc::new(Rows(self.job(&copy.input, session).await?));
        let scan = LogicalPlanBuilder::scan("rows", provider_as_source(rows), None)?.build()?;
        let copy = LogicalPlan::Copy(CopyTo { input: Arc::new(scan), ..copy.clone() });
        DefaultPhysicalPlanner::default().create_physical_plan(&copy, session).await
    }
}

impl Cluster {
    /// The plan of having a query run there.
    async fn job(&self, plan: &LogicalPlan, session: &dyn Session) -> Result<Arc<dyn ExecutionPlan>> {
        let config = session.config().options().extensions.get::<BallistaConfig>().cloned().unwrap_or_default();
        let url = format!("http://{}", self.scheduler);
        let planner =
            BallistaQueryPlanner::<LogicalPlanNode>::with_extension(url, config, Arc::new(LogicalCodec::default()));
        let plan = portable(plan, session).await?;
        let mut planned_once = false;
        plan.apply_with_subqueries(|node| {
            planned_once |= spoilt_by_planning_anew(node)?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        let plan = planner.create_physical_plan(&plan, session).await?;
        match plan.downcast_ref::<Query>() {
            Some(_) => Ok(Arc::new(JobExec { query: plan, cluster: self.clone(), planned_once })),
            None => Ok(plan),
        }
    }
}

/// The rows of a job, for what is done with them here.
#[derive(Debug)]
struct Rows(Arc<dyn ExecutionPlan>);

#[async_trait]
impl TableProvider for Rows {
    fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    fn table_type(&self) -> TableType {
        TableType::Temporary
    }

    async fn scan(
        &self,
        _: &dyn Session,
        _: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::clone(&self.0))
    }
}

/// How often a job is begun.
const ATTEMPTS: usize = 4;

/// A query that runs as a job of the cluster: it is known as long as it runs, it is begun anew when the loss of an executor
/// has spoilt it, and its errors are made readable.
#[derive(Debug, Clone)]
struct JobExec {
    query: Arc<dyn ExecutionPlan>,
    cluster: Cluster,
    /// Never adaptively, whatever is set, see [`spoilt_by_planning_anew`].
    planned_once: bool,
}

/// Whether answers are wrong where a plan with this node is planned adaptively, in Ballista 55.0: tasks of a UNION may read
/// some of its rows twice, and a join by anything but equal columns loses its [`super::joins::WholeRightSides`].
fn spoilt_by_planning_anew(node: &LogicalPlan) -> Result<bool> {
    let mut spoilt = match node {
        LogicalPlan::Union(_) => true,
        LogicalPlan::Join(join) => join.on.is_empty(),
        _ => false,
    };
    // The scheduler makes such joins of these.
    let becomes_join = |expr: &Expr| Ok(matches!(expr, Expr::ScalarSubquery(_) | Expr::Exists(_)));
    for expr in node.expressions() {
        spoilt |= expr.exists(becomes_join)?;
    }
    Ok(spoilt)
}

impl JobExec {
    /// The rows of a job that has come to its first row, or its error.
    async fn rows(self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let mut attempt = 1;
        loop {
            // By its name a job is found even before the scheduler has told its number.
            let listed = Listed::new(&self.cluster.running);
            let mut config = context.session_config().clone().with_ballista_job_name(&listed.name);
            if self.planned_once {
                config = config.with_ballista_adaptive_query_planner(false);
            }
            let named = TaskContext::default().with_session_config(config).with_runtime(context.runtime_env());
            let mut rows = self.query.execute(partition, Arc::new(named))?;
            // Rows come when all of them are there.
            let first = rows.next().await;
            listed.remove();
            if let Some(Err(error)) = &first {
                let given_up = self.given_up().await;
                if given_up == Some(GivenUp::Stalled) {
                    return exec_err!("the scheduler has planned no next stage of the job; its log says why");
                }
                if attempt < ATTEMPTS && (given_up.is_some() || errors::is_lost(error, &self.cluster.scheduler)) {
                    attempt += 1;
                    continue;
                }
            }
            let rows = futures::stream::iter(first).chain(rows);
            return Ok(Box::pin(RecordBatchStreamAdapter::new(self.query.schema(), rows)));
        }
    }

    async fn given_up(&self) -> Option<GivenUp> {
        let job = self.query.downcast_ref::<Query>().and_then(Query::job_id)?;
        let mut channel = self.cluster.connect().await.ok()?;
        status::given_up(&mut channel, job.as_str()).await.ok()?
    }
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
        let rows = futures::stream::once(self.clone().rows(partition, context)).try_flatten();
        let scheduler = self.cluster.scheduler.clone();
        let rows = rows.map_err(move |e| errors::readable(e, &scheduler));
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}

/// The name of a job in the list of running ones. It stays there where nobody waits for the job any more before its first
/// row has come, so that it can be cancelled.
struct Listed {
    name: String,
    running: Running,
}

impl Listed {
    fn new(running: &Running) -> Self {
        let name = uuid::Uuid::now_v7().to_string();
        running.lock().unwrap_or_else(PoisonError::into_inner).push(name.clone());
        Self { name, running: Arc::clone(running) }
    }

    /// The job is over.
    fn remove(self) {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).retain(|name| *name != self.name);
    }
}
