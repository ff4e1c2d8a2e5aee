//! An executor: asks the scheduler for tasks, runs them ([`super::tasks`]), keeps what they shuffle and hands it out
//! ([`super::flight`]).

use std::fs::File;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ballista_core::BALLISTA_PROTOCOL_VERSION;
use ballista_core::registry::BallistaFunctionRegistry;
use ballista_core::serde::protobuf::ExecutorRegistration;
use ballista_core::serde::protobuf::scheduler_grpc_client::SchedulerGrpcClient;
use ballista_core::serde::scheduler::{ExecutorOperatingSystemSpecification, ExecutorSpecification};
use ballista_core::utils::{GrpcClientConfig, create_grpc_client_endpoint};
use ballista_executor::execution_engine::DefaultExecutionEngine;
use ballista_executor::executor::Executor;
use ballista_executor::flight_service::BallistaFlightService;
use ballista_executor::metrics::LoggingMetricsCollector;
use datafusion::common::{DataFusionError, Result, exec_datafusion_err};
use rustix::fs::{FlockOperation, flock};
use tokio::net::TcpListener;
use tonic::transport::Channel;

use super::errors;
use super::flight;
use super::planner::ClusterPlanner;
use super::scheduler::failed;
use super::security::Security;
use super::session::{MESSAGE_BYTES, configs};
use super::tasks::Tasks;
use crate::session::{self, runtime};

/// How an executor behaves.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where the scheduler is: `host:port`.
    pub scheduler: String,
    /// How long to wait for it at the start.
    pub connect_timeout: Duration,
    /// The address to listen at.
    pub bind: SocketAddr,
    /// The name or address by which others reach it.
    pub external_host: String,
    /// How many partitions it works on at once.
    pub slots: usize,
    /// Bytes that its tasks may take together; no limit where not given.
    pub memory: Option<usize>,
    /// A folder for shuffled rows and what finds no room in memory; it makes one of its own in it and removes it.
    pub work_dir: PathBuf,
    /// Who may use it, and how it introduces itself.
    pub security: Security,
}

/// Runs until `stop` is done or the scheduler refuses it.
pub async fn serve(settings: Settings, stop: impl Future<Output = ()>) -> Result<()> {
    let id = uuid::Uuid::now_v7().to_string();
    let work_dir = WorkDir::create(&settings.work_dir, &id)?;
    let listener = TcpListener::bind(settings.bind)
        .await
        .map_err(|e| DataFusionError::from(e).context(format!("listening at {}", settings.bind)))?;
    let address = listener.local_addr()?;
    let mut scheduler = connect(&settings).await?;
    let executor = executor(&settings, id, address, &work_dir.folder)?;
    let flight = flight::serve(listener, BallistaFlightService::new(executor.work_dir.clone()), &settings.security);
    let mut tasks = Tasks::try_new(executor)?;
    tokio::select! {
        served = flight => served,
        ended = tasks.work(&mut scheduler, stop) => ended,
    }
}

/// A folder that goes when the executor goes.
struct WorkDir {
    folder: PathBuf,
    /// Held as long as the executor lives; the system releases it however that ends.
    _lock: File,
}

const PREFIX: &str = "lakeside-executor-";

impl WorkDir {
    fn create(below: &Path, id: &str) -> Result<Self> {
        remove_left_behind(below);
        let folder = below.join(format!("{PREFIX}{id}"));
        let at = |e: std::io::Error| DataFusionError::from(e).context(format!("making {}", folder.display()));
        // Others of the machine are not to read what is shuffled.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(at)?;
        let lock = File::create(folder.join(LOCK)).map_err(at)?;
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|e| at(e.into()))?;
        Ok(Self { folder, _lock: lock })
    }
}

/// The file in a work folder that tells whether its executor lives.
const LOCK: &str = ".lock";

/// Removes the folders of executors that were killed.
fn remove_left_behind(below: &Path) {
    let entries = std::fs::read_dir(below).into_iter().flatten().flatten();
    for entry in entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(PREFIX)) {
        // One that is just being made may not be locked yet.
        let made = entry.metadata().and_then(|data| data.modified()).ok().and_then(|made| made.elapsed().ok());
        let lock = File::open(entry.path().join(LOCK));
        let is_free = |lock: File| flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok();
        if made.is_some_and(|age| age > Duration::from_secs(60)) && lock.is_ok_and(is_free) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// How the scheduler is called.
pub(super) type SchedulerClient = SchedulerGrpcClient<Channel>;

/// Connects to the scheduler, which may begin later than its executors.
async fn connect(settings: &Settings) -> Result<SchedulerClient> {
    let begun = std::time::Instant::now();
    loop {
        match channel(&settings.scheduler, &settings.security).await {
            Ok(channel) => {
                return Ok(SchedulerGrpcClient::new(channel)
                    .max_decoding_message_size(MESSAGE_BYTES)
                    .max_encoding_message_size(MESSAGE_BYTES));
            }
            Err(e) if begun.elapsed() >= settings.connect_timeout => {
                return Err(exec_datafusion_err!("no scheduler answers at {}: {e}", settings.scheduler));
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

/// A connection to a scheduler at `host:port`.
pub(super) async fn channel(scheduler: &str, security: &Security) -> Result<Channel> {
    let config = GrpcClientConfig::default();
    let endpoint = create_grpc_client_endpoint(format!("http://{scheduler}"), Some(&config)).map_err(failed)?;
    let endpoint = security.endpoint(endpoint).map_err(failed)?;
    endpoint.connect().await.map_err(|e| exec_datafusion_err!("{}", errors::with_causes(&e)))
}

fn executor(settings: &Settings, id: String, address: SocketAddr, work_dir: &Path) -> Result<Executor> {
    let runtime = runtime(settings.memory).with_temp_file_path(work_dir).build_arc()?;
    let configs = configs(&settings.security);
    let context = session::context(configs(), Arc::clone(&runtime), Arc::new(ClusterPlanner))?;
    let slots = u32::try_from(settings.slots).unwrap_or(u32::MAX);
    let registration = ExecutorRegistration {
        id,
        host: Some(settings.external_host.clone()),
        port: u32::from(address.port()),
        grpc_port: u32::from(address.port()),
        specification: Some(ExecutorSpecification::default().with_vcores(slots).into()),
        os_info: Some(ExecutorOperatingSystemSpecification::default().into()),
        ballista_protocol_version: BALLISTA_PROTOCOL_VERSION,
    };
    Ok(Executor::new(
        registration,
        &work_dir.to_string_lossy(),
        // All tasks share one pool: the one that has to hold a whole table may need more than its share.
        Arc::new(move |_| Ok(Arc::clone(&runtime))),
        configs,
        Arc::new(BallistaFunctionRegistry::from(&context.state())),
        Arc::new(LoggingMetricsCollector::default()),
        settings.slots,
        Arc::new(DefaultExecutionEngine::new()),
    ))
}
