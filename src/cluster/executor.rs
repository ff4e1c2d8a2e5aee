//! An executor: asks the scheduler for tasks, runs them, keeps what they shuffle and hands it out.
//!
//! Ballista's own loop for this counts a task of several partitions as one slot and lets the tasks of a cancelled job
//! run to their end; this one does neither. It asks again as soon as a task is done.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ballista_core::extension::SessionConfigHelperExt;
use ballista_core::registry::BallistaFunctionRegistry;
use ballista_core::serde::protobuf::scheduler_grpc_client::SchedulerGrpcClient;
use ballista_core::serde::protobuf::{
    ExecutorRegistration, GetJobStatusParams, PollWorkParams, SuccessfulTask, TaskDefinition, TaskStatus, job_status,
    task_status,
};
use ballista_core::serde::scheduler::{ExecutorOperatingSystemSpecification, ExecutorSpecification, TaskKey};
use ballista_core::utils::{GrpcClientConfig, create_grpc_client_endpoint};
use ballista_core::{BALLISTA_PROTOCOL_VERSION, JobId};
use ballista_executor::execution_engine::{DefaultExecutionEngine, ExecutionEngine, QueryStageExecutor};
use ballista_executor::executor::Executor;
use ballista_executor::flight_service::BallistaFlightService;
use ballista_executor::metrics::LoggingMetricsCollector;
use datafusion::common::{DataFusionError, Result, exec_datafusion_err};
use datafusion::execution::TaskContext;
use datafusion_proto::physical_plan::AsExecutionPlan;
use datafusion_proto::protobuf::PhysicalPlanNode;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tonic::transport::Channel;

use super::codec::PhysicalCodec;
use super::errors;
use super::flight;
use super::planner::ClusterPlanner;
use super::scheduler::failed;
use super::security::Security;
use super::session::{MESSAGE_BYTES, configs};
use crate::session::{self, runtime};

/// How long an executor without work waits before it asks again, while work comes and when none has come for a while.
const EAGER: Duration = Duration::from_millis(5);
const IDLE: Duration = Duration::from_millis(25);
const EAGER_FOR: Duration = Duration::from_secs(2);

/// How often a busy executor says that it is there, and asks whether its jobs are still wanted.
const HEARTBEAT: Duration = Duration::from_secs(1);

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
    let executor = executor(&settings, id, address, &work_dir.0)?;
    let flight = flight::serve(listener, BallistaFlightService::new(executor.work_dir.clone()), &settings.security);
    let mut tasks = Tasks::try_new(executor)?;
    tokio::select! {
        served = flight => served,
        refused = tasks.work(&mut scheduler) => refused,
        () = stop => {
            tasks.leave(&mut scheduler).await;
            Ok(())
        }
    }
}

/// A folder that goes when the executor goes.
struct WorkDir(PathBuf);

impl WorkDir {
    fn create(below: &Path, id: &str) -> Result<Self> {
        let folder = below.join(format!("lakeside-executor-{id}"));
        std::fs::create_dir_all(&folder)
            .map_err(|e| DataFusionError::from(e).context(format!("making {}", folder.display())))?;
        Ok(Self(folder))
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

type SchedulerClient = SchedulerGrpcClient<Channel>;

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

/// The tasks that an executor has.
struct Tasks {
    executor: Arc<Executor>,
    /// Threads of their own, so that computing does not keep the executor from answering.
    threads: Option<tokio::runtime::Runtime>,
    running: HashMap<TaskKey, usize>,
    done: mpsc::UnboundedReceiver<(TaskKey, TaskStatus)>,
    report: mpsc::UnboundedSender<(TaskKey, TaskStatus)>,
}

impl Drop for Tasks {
    fn drop(&mut self) {
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}

impl Tasks {
    fn try_new(executor: Executor) -> Result<Self> {
        let mut threads = tokio::runtime::Builder::new_multi_thread();
        let threads = threads.worker_threads(executor.vcores).thread_name("task").enable_all().build()?;
        let (report, done) = mpsc::unbounded_channel();
        Ok(Self { executor: Arc::new(executor), threads: Some(threads), running: HashMap::new(), done, report })
    }

    /// Asks for tasks and reports on them, for ever, or until the scheduler refuses.
    async fn work(&mut self, scheduler: &mut SchedulerClient) -> Result<()> {
        let mut reports = Vec::new();
        let mut last_work = std::time::Instant::now();
        let mut last_watch = std::time::Instant::now();
        loop {
            let free = self.executor.vcores.saturating_sub(self.running.values().sum());
            let asked = PollWorkParams {
                metadata: Some(self.executor.metadata.clone()),
                num_free_vcores: u32::try_from(free).unwrap_or(u32::MAX),
                task_status: reports.clone(),
            };
            match scheduler.poll_work(asked).await {
                Ok(answer) => {
                    reports.clear();
                    let answer = answer.into_inner();
                    if !answer.tasks.is_empty() {
                        last_work = std::time::Instant::now();
                    }
                    answer.tasks.into_iter().for_each(|task| self.start(task));
                    for job in answer.jobs_to_clean {
                        remove_job(&self.executor.work_dir, &job.job_id, &job.remove_stage_ids);
                    }
                }
                Err(refused) if errors::is_refusal(&refused) => {
                    return Err(exec_datafusion_err!("the scheduler refuses this executor: {}", refused.message()));
                }
                // It may be starting anew; what was to be reported is kept.
                Err(lost) => eprintln!("the scheduler does not answer: {}", lost.message()),
            }
            if last_watch.elapsed() >= HEARTBEAT {
                last_watch = std::time::Instant::now();
                self.cancel_unwanted(scheduler).await;
            }
            let wait = match last_work.elapsed() < EAGER_FOR {
                _ if free == 0 => HEARTBEAT,
                true => EAGER,
                false => IDLE,
            };
            if let Ok(Some(first)) = tokio::time::timeout(wait, self.done.recv()).await {
                reports.push(self.finished(first));
                last_work = std::time::Instant::now();
            }
            while let Ok(next) = self.done.try_recv() {
                reports.push(self.finished(next));
            }
        }
    }

    fn finished(&mut self, (key, status): (TaskKey, TaskStatus)) -> TaskStatus {
        self.running.remove(&key);
        status
    }

    fn start(&mut self, task: TaskDefinition) {
        let key = TaskKey {
            job_id: task.job_id.clone().into(),
            stage_id: task.stage_id as usize,
            task_id: task.task_id as usize,
        };
        self.running.insert(key.clone(), (task.vcores_consumed as usize).max(1));
        let (executor, report) = (Arc::clone(&self.executor), self.report.clone());
        let Some(threads) = &self.threads else { return };
        threads.spawn(async move {
            let begun = now();
            let status = run(&executor, &key, &task).await;
            let status = TaskStatus {
                task_id: task.task_id,
                job_id: task.job_id,
                stage_id: task.stage_id,
                stage_attempt_num: task.stage_attempt_num,
                launch_time: task.launch_time,
                start_exec_time: begun,
                end_exec_time: now(),
                ..status
            };
            // Nobody listens any more when the executor ends.
            let _ = report.send((key, status));
        });
    }

    /// Stops tasks of jobs that have failed or were cancelled.
    async fn cancel_unwanted(&self, scheduler: &mut SchedulerClient) {
        let jobs: std::collections::HashSet<&JobId> = self.running.keys().map(|key| &key.job_id).collect();
        for job in jobs {
            let asked = GetJobStatusParams { job_id: job.to_string() };
            let Ok(answer) = scheduler.get_job_status(asked).await else { continue };
            let status = answer.into_inner().status.and_then(|status| status.status);
            if !matches!(status, Some(job_status::Status::Failed(_))) {
                continue;
            }
            for key in self.running.keys().filter(|key| key.job_id == *job) {
                let _ = self.executor.cancel_task(key.job_id.clone(), key.stage_id, key.task_id).await;
            }
        }
    }

    /// Tells the scheduler that this executor goes, so that its tasks are done elsewhere at once.
    async fn leave(&mut self, scheduler: &mut SchedulerClient) {
        let gone = ballista_core::serde::protobuf::ExecutorStoppedParams {
            executor_id: self.executor.metadata.id.clone(),
            reason: "stopped".to_owned(),
        };
        let _ = tokio::time::timeout(Duration::from_secs(2), scheduler.executor_stopped(gone)).await;
    }
}

/// Runs one task and tells what became of it; times and names are for the caller to fill in.
async fn run(executor: &Executor, key: &TaskKey, task: &TaskDefinition) -> TaskStatus {
    let stage = match stage(executor, task) {
        Ok(stage) => stage,
        Err(e) => {
            return TaskStatus {
                status: Some(task_status::Status::Failed(errors::failure(e.into()))),
                ..Default::default()
            };
        }
    };
    let (stage, context) = stage;
    let result = executor.execute_query_stage(key.clone(), Arc::clone(&stage), context).await;
    let window_state = stage.collect_window_state_reports();
    let metrics = stage.collect_plan_metrics().into_iter().filter_map(|metrics| metrics.try_into().ok()).collect();
    let status = match (result, window_state) {
        (Ok(partitions), Ok(window_state)) => task_status::Status::Successful(SuccessfulTask {
            executor_id: executor.metadata.id.clone(),
            partitions,
            runtime_stats: stage.collect_runtime_stats_reports(),
            task_column_stats: stage.collect_column_stats(),
            window_state,
        }),
        (Err(e), _) => task_status::Status::Failed(errors::failure(e)),
        (_, Err(e)) => task_status::Status::Failed(errors::failure(e.into())),
    };
    TaskStatus { metrics, status: Some(status), ..Default::default() }
}

fn stage(executor: &Executor, task: &TaskDefinition) -> Result<(Arc<dyn QueryStageExecutor>, Arc<TaskContext>)> {
    let config = executor.produce_config().update_from_key_value_pair(&task.props);
    let name = format!(
        "TID {}/{}.{}/{}.{}",
        task.job_id, task.stage_id, task.stage_attempt_num, task.task_id, task.task_attempt_num
    );
    let runtime = executor.produce_runtime_for_session(&task.session_id, &config, task.vcores_consumed)?;
    let functions = &executor.function_registry;
    let context = Arc::new(TaskContext::new(
        Some(name),
        task.session_id.clone(),
        config,
        functions.scalar_functions.clone(),
        functions.higher_order_functions.clone(),
        functions.aggregate_functions.clone(),
        functions.window_functions.clone(),
        runtime,
    ));
    let plan = PhysicalPlanNode::try_decode(&task.plan)?;
    let plan = plan.try_into_physical_plan(&context, &PhysicalCodec::default())?;
    let stage = DefaultExecutionEngine::new().create_query_stage_exec(
        task.job_id.clone().into(),
        task.stage_id as usize,
        task.task_id as usize,
        task.global_output_partition_ids.iter().map(|&partition| partition as usize).collect(),
        plan,
        &executor.work_dir,
        context.session_config(),
    )?;
    Ok((stage, context))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}

/// Removes what stages of a job have shuffled here; all of it where none is named.
fn remove_job(work_dir: &str, job: &str, stages: &[u32]) {
    // A job's name is one folder, whatever it is.
    if job.is_empty() || job.contains(['/', '\\']) || job.starts_with('.') {
        return;
    }
    let folder = Path::new(work_dir).join(job);
    if stages.is_empty() {
        let _ = std::fs::remove_dir_all(&folder);
    }
    for stage in stages {
        let _ = std::fs::remove_dir_all(folder.join(stage.to_string()));
    }
}
