//! What the scheduler is called for, handed on to Ballista's, with a record of which executor got which tasks.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::extract::{Path, State};
use ballista_core::serde::protobuf::scheduler_grpc_server::SchedulerGrpc;
use ballista_core::serde::protobuf::{
    CancelJobParams, CancelJobResult, CleanJobDataParams, CleanJobDataResult, CreateUpdateSessionParams,
    CreateUpdateSessionResult, ExecuteQueryParams, ExecuteQueryResult, ExecutorStoppedParams, ExecutorStoppedResult,
    GetJobMetricsParams, GetJobMetricsResult, GetJobStatusParams, GetJobStatusResult, HeartBeatParams, HeartBeatResult,
    PollWorkParams, PollWorkResult, RegisterExecutorParams, RegisterExecutorResult, RemoveSessionParams,
    RemoveSessionResult, TaskDefinition, TaskStatus, UpdateTaskStatusParams, UpdateTaskStatusResult, task_status,
};
use serde::{Deserialize, Serialize};
use tonic::{Request, Response, Status};

use super::scheduler::Scheduler;
use super::tasks::POLL;

/// The tasks of each stage of a job, by executor.
pub type Handed = BTreeMap<u32, BTreeMap<String, usize>>;

/// How many jobs are remembered.
const MOST_JOBS: usize = 1000;

/// What happened to the tasks of the last jobs.
#[derive(Debug, Clone, Default)]
pub struct Record(Arc<Mutex<BTreeMap<String, Job>>>);

#[derive(Debug, Default)]
struct Job {
    handed: Handed,
    /// The latest attempt at each stage that a task has succeeded in.
    succeeded: BTreeMap<u32, u32>,
    /// How many operators the first report of each stage told of.
    operators: BTreeMap<u32, usize>,
    given_up: Option<GivenUp>,
}

/// Why a job was cancelled by its own scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum GivenUp {
    /// Rows of it might have been counted twice; it is to be begun anew.
    Spoilt,
    /// It had tasks to do no more, but was not done.
    Stalled,
}

impl Record {
    /// Jobs are named by the time at which they came, so the first is the oldest.
    fn with<T>(&self, job: &str, change: impl FnOnce(&mut Job) -> T) -> T {
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if jobs.len() >= MOST_JOBS && !jobs.contains_key(job) {
            jobs.pop_first();
        }
        change(jobs.entry(job.to_owned()).or_default())
    }

    fn add(&self, executor: &str, work: &PollWorkResult) {
        for task in &work.tasks {
            self.with(&task.job_id, |job| {
                *job.handed.entry(task.stage_id).or_default().entry(executor.to_owned()).or_default() += 1;
            });
        }
    }

    fn succeeded(&self, reports: &[TaskStatus]) {
        for task in reports.iter().filter(|task| matches!(task.status, Some(task_status::Status::Successful(_)))) {
            self.with(&task.job_id, |job| {
                let latest = job.succeeded.entry(task.stage_id).or_default();
                *latest = task.stage_attempt_num.max(*latest);
            });
        }
    }

    /// Drops metrics of tasks whose part of a stage has another number of operators than that of the first: tasks of a UNION
    /// may have some of its inputs only. Ballista 55.0 would refuse the report, and wait for the task for ever.
    fn level(&self, reports: &mut [TaskStatus]) {
        for task in reports.iter_mut().filter(|task| !task.metrics.is_empty()) {
            let count = task.metrics.len();
            if self.with(&task.job_id, |job| *job.operators.entry(task.stage_id).or_insert(count)) != count {
                task.metrics.clear();
            }
        }
    }

    /// The jobs of tasks that do a stage once more after some of its tasks had succeeded. Ballista 55.0 keeps what these
    /// left behind beside what is done anew, so that the next stage would read rows twice.
    fn spoilt_by(&self, tasks: &[TaskDefinition]) -> Vec<String> {
        let mut spoilt: Vec<String> = Vec::new();
        for task in tasks {
            let again = self.with(&task.job_id, |job| {
                let again = job.succeeded.get(&task.stage_id).is_some_and(|attempt| *attempt < task.stage_attempt_num);
                if again {
                    job.given_up = Some(GivenUp::Spoilt);
                }
                again
            });
            if again && !spoilt.contains(&task.job_id) {
                spoilt.push(task.job_id.clone());
            }
        }
        spoilt
    }

    /// Answers `/api/job/{job}/executors`.
    pub async fn handed(State(record): State<Self>, Path(job): Path<String>) -> Json<Handed> {
        Json(
            record
                .0
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .get(&job)
                .map(|job| job.handed.clone())
                .unwrap_or_default(),
        )
    }

    /// Takes note of a job that goes on no more.
    pub fn stalled(&self, job: &str) {
        self.with(job, |job| job.given_up = Some(GivenUp::Stalled));
    }

    /// Answers `/api/job/{job}/given_up`.
    pub async fn given_up(State(record): State<Self>, Path(job): Path<String>) -> Json<Option<GivenUp>> {
        Json(record.0.lock().unwrap_or_else(PoisonError::into_inner).get(&job).and_then(|job| job.given_up))
    }
}

/// Ballista's scheduler, with the record.
#[derive(Clone)]
pub struct Calls {
    scheduler: Scheduler,
    record: Record,
    /// The last poll of each executor and what it was answered.
    answers: Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<LastPoll>>>>>,
}

#[derive(Default)]
struct LastPoll {
    number: Option<String>,
    answer: PollWorkResult,
}

impl Calls {
    /// Hands on to this scheduler.
    pub fn new(scheduler: Scheduler, record: Record) -> Self {
        Self { scheduler, record, answers: Arc::default() }
    }

    /// Answers a poll for the first time.
    async fn poll(&self, executor: &str, mut request: Request<PollWorkParams>) -> Result<PollWorkResult, Status> {
        self.record.level(&mut request.get_mut().task_status);
        self.record.succeeded(&request.get_ref().task_status);
        let mut answer = self.scheduler.poll_work(request).await?.into_inner();
        for job in self.record.spoilt_by(&answer.tasks) {
            // The client begins anew.
            let _ = self.scheduler.cancel_job(job.clone().into()).await;
            answer.tasks.retain(|task| task.job_id != job);
        }
        self.record.add(executor, &answer);
        Ok(answer)
    }
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl SchedulerGrpc for Calls {
    type ExecuteQueryPushStream = <Scheduler as SchedulerGrpc>::ExecuteQueryPushStream;

    async fn poll_work(&self, request: Request<PollWorkParams>) -> Answer<PollWorkResult> {
        let executor = request.get_ref().metadata.as_ref().map(|executor| executor.id.clone()).unwrap_or_default();
        let number = request.metadata().get(POLL).and_then(|number| Some(number.to_str().ok()?.to_owned()));
        let last = {
            let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(answers.entry(executor.clone()).or_default())
        };
        let mut last = last.lock().await;
        if number.is_none() || last.number != number {
            let answer = self.poll(&executor, request).await?;
            *last = LastPoll { number, answer };
        }
        Ok(Response::new(last.answer.clone()))
    }

    async fn register_executor(&self, request: Request<RegisterExecutorParams>) -> Answer<RegisterExecutorResult> {
        self.scheduler.register_executor(request).await
    }

    async fn heart_beat_from_executor(&self, request: Request<HeartBeatParams>) -> Answer<HeartBeatResult> {
        self.scheduler.heart_beat_from_executor(request).await
    }

    async fn update_task_status(&self, request: Request<UpdateTaskStatusParams>) -> Answer<UpdateTaskStatusResult> {
        self.scheduler.update_task_status(request).await
    }

    async fn create_update_session(
        &self,
        request: Request<CreateUpdateSessionParams>,
    ) -> Answer<CreateUpdateSessionResult> {
        self.scheduler.create_update_session(request).await
    }

    async fn remove_session(&self, request: Request<RemoveSessionParams>) -> Answer<RemoveSessionResult> {
        self.scheduler.remove_session(request).await
    }

    async fn execute_query_push(&self, request: Request<ExecuteQueryParams>) -> Answer<Self::ExecuteQueryPushStream> {
        self.scheduler.execute_query_push(request).await
    }

    async fn execute_query(&self, request: Request<ExecuteQueryParams>) -> Answer<ExecuteQueryResult> {
        self.scheduler.execute_query(request).await
    }

    async fn get_job_status(&self, request: Request<GetJobStatusParams>) -> Answer<GetJobStatusResult> {
        self.scheduler.get_job_status(request).await
    }

    async fn get_job_metrics(&self, request: Request<GetJobMetricsParams>) -> Answer<GetJobMetricsResult> {
        self.scheduler.get_job_metrics(request).await
    }

    async fn executor_stopped(&self, request: Request<ExecutorStoppedParams>) -> Answer<ExecutorStoppedResult> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner).remove(&request.get_ref().executor_id);
        self.scheduler.executor_stopped(request).await
    }

    async fn cancel_job(&self, request: Request<CancelJobParams>) -> Answer<CancelJobResult> {
        SchedulerGrpc::cancel_job(&self.scheduler, request).await
    }

    async fn clean_job_data(&self, request: Request<CleanJobDataParams>) -> Answer<CleanJobDataResult> {
        self.scheduler.clean_job_data(request).await
    }
}
