//! The scheduler: plans queries, cuts them into stages, and hands tasks to executors that ask for them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::routing::get;
use ballista_core::JobId;
use ballista_core::config::TaskSchedulingPolicy;
use ballista_core::serde::protobuf::scheduler_grpc_server::SchedulerGrpcServer;
use ballista_scheduler::api::get_routes;
use ballista_scheduler::cluster::BallistaCluster;
use ballista_scheduler::config::SchedulerConfig;
use ballista_scheduler::scheduler_process::create_scheduler;
use ballista_scheduler::scheduler_server::SchedulerServer;
use datafusion::common::{DataFusionError, Result};
use datafusion_proto::protobuf::{LogicalPlanNode, PhysicalPlanNode};
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use super::calls::{Calls, Record};
use super::codec::{LogicalCodec, PhysicalCodec};
use super::security::Security;
use super::session::{MESSAGE_BYTES, builder, configs};
use crate::session::runtime;

/// How a scheduler behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The name by which it is known in logs.
    pub external_host: String,
    /// After how long without a word an executor counts as lost and its tasks are done anew.
    pub executor_timeout: Duration,
    /// How long jobs wait for a first executor, and go on waiting when the last is lost.
    pub no_executors_timeout: Duration,
    /// How long the result of a finished job can be fetched.
    pub result_ttl: Duration,
    /// Who may use it.
    pub security: Security,
}

impl Settings {
    /// For a cluster whose executors may be lost.
    pub fn new(external_host: String, security: Security) -> Self {
        let seconds = Duration::from_secs;
        Self {
            external_host,
            executor_timeout: seconds(30),
            no_executors_timeout: seconds(60),
            result_ttl: seconds(3600),
            security,
        }
    }
}

/// How long a job may have nothing to do.
const STALLED_AFTER: Duration = Duration::from_secs(10);

/// How often executors are counted.
const COUNT_EVERY: Duration = Duration::from_millis(50);

/// Ballista's scheduler.
pub(super) type Scheduler = SchedulerServer<LogicalPlanNode, PhysicalPlanNode>;

/// Serves until `stop` is done. One port has it all: the calls of clients and executors, and `/api` for status. The number
/// of all executors' slots is kept in `slots`.
pub async fn serve(
    listener: TcpListener,
    settings: Settings,
    slots: Arc<AtomicUsize>,
    stop: impl Future<Output = ()>,
) -> Result<()> {
    let address = listener.local_addr()?;
    let config = Arc::new(config(&settings, address, Arc::clone(&slots))?);
    let cluster = BallistaCluster::new_from_config(&config).await.map_err(failed)?;
    let scheduler: Scheduler = create_scheduler(cluster, config).await.map_err(failed)?;
    let record = Record::default();
    let calls = SchedulerGrpcServer::new(Calls::new(scheduler.clone(), record.clone()))
        .max_decoding_message_size(MESSAGE_BYTES)
        .max_encoding_message_size(MESSAGE_BYTES);
    let security = Arc::new(settings.security);
    let guard = Arc::clone(&security);
    let routes: Router = Routes::new(calls)
        .into_axum_router()
        .merge(get_routes(Arc::new(scheduler.clone())))
        .merge(
            Router::new()
                .route("/api/job/{job}/executors", get(Record::handed))
                .route("/api/job/{job}/given_up", get(Record::given_up))
                .with_state(record.clone()),
        )
        .layer(axum::middleware::from_fn(move |request, next| Arc::clone(&guard).guard(request, next)));
    // HTTP/1 is what curl and browsers speak.
    let mut server = Server::builder().accept_http1(true);
    if let Some(tls) = &security.tls {
        server = server.tls_config(tls.server()).map_err(failed)?;
    }
    let serving = server
        .add_routes(Routes::from(routes))
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
    tokio::select! {
        served = serving => served.map_err(failed),
        () = count_slots(&scheduler, &slots) => Ok(()),
        () = end_stalled(&scheduler, &record) => Ok(()),
        () = stop => Ok(()),
    }
}

fn config(settings: &Settings, address: SocketAddr, slots: Arc<AtomicUsize>) -> Result<SchedulerConfig> {
    let runtime = runtime(None).build_arc()?;
    let message_bytes = u32::try_from(MESSAGE_BYTES).unwrap_or(u32::MAX);
    Ok(SchedulerConfig {
        external_host: settings.external_host.clone(),
        bind_host: address.ip().to_string(),
        bind_port: address.port(),
        // Executors ask for work, so nobody needs to reach them but for shuffled rows.
        scheduling_policy: TaskSchedulingPolicy::PullStaged,
        executor_timeout_seconds: settings.executor_timeout.as_secs().max(1),
        expire_dead_executor_interval_seconds: (settings.executor_timeout.as_secs() / 4).clamp(1, 15),
        no_executors_grace_period_seconds: settings.no_executors_timeout.as_secs().max(1),
        finished_job_data_clean_up_interval_seconds: settings.result_ttl.as_secs().max(1),
        finished_job_state_clean_up_interval_seconds: settings.result_ttl.as_secs().max(1),
        grpc_server_max_decoding_message_size: message_bytes,
        grpc_server_max_encoding_message_size: message_bytes,
        grpc_client_max_message_size: message_bytes,
        override_session_builder: Some(builder(runtime, slots)),
        override_config_producer: Some(configs(&settings.security)),
        override_logical_codec: Some(Arc::new(LogicalCodec::default())),
        override_physical_codec: Some(Arc::new(PhysicalCodec::default())),
        override_create_grpc_client_endpoint: Some(settings.security.endpoints()),
        ..Default::default()
    })
}

/// Keeps the number of all executors' slots, which is how many partitions queries are planned with.
async fn count_slots(scheduler: &Scheduler, slots: &AtomicUsize) {
    loop {
        if let Ok(executors) = scheduler.state.executor_manager.get_executors_state().await {
            let all: u32 = executors.iter().map(|(executor, ..)| executor.specification.vcores).sum();
            slots.store(all as usize, Ordering::Relaxed);
        }
        tokio::time::sleep(COUNT_EVERY).await;
    }
}

/// Cancels jobs that have nothing running and nothing to run for a while: Ballista logs an error in planning the next stage
/// and leaves the job at that.
async fn end_stalled(scheduler: &Scheduler, record: &Record) {
    let mut since: HashMap<JobId, Instant> = HashMap::new();
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let jobs = scheduler.state.task_manager.get_running_job_cache();
        since.retain(|job, _| jobs.contains_key(job));
        for (job, info) in jobs.iter() {
            let graph = info.execution_graph.read().await;
            if graph.available_tasks() > 0 || !graph.running_tasks().is_empty() {
                since.remove(job);
            } else if since.entry(job.clone()).or_insert_with(Instant::now).elapsed() > STALLED_AFTER {
                record.stalled(job.as_str());
                let _ = scheduler.cancel_job(job.clone()).await;
            }
        }
    }
}

/// An error of Ballista or of its transport as one of ours.
pub(super) fn failed(error: impl std::error::Error) -> DataFusionError {
    DataFusionError::Execution(error.to_string())
}
