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
    RemoveSessionResult, UpdateTaskStatusParams, UpdateTaskStatusResult,
};
use tonic::{Request, Response, Status};

use super::scheduler::Scheduler;

/// The tasks of each stage of a job, by executor.
pub type Handed = BTreeMap<u32, BTreeMap<String, usize>>;

/// How many jobs are remembered.
const MOST_JOBS: usize = 1000;

/// Which executor got which tasks, by job.
#[derive(Debug, Clone, Default)]
pub struct Record(Arc<Mutex<HashMap<String, Handed>>>);

impl Record {
    fn add(&self, executor: &str, work: &PollWorkResult) {
        if work.tasks.is_empty() {
            return;
        }
        let mut jobs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for task in &work.tasks {
            if jobs.len() >= MOST_JOBS && !jobs.contains_key(&task.job_id) {
                jobs.clear();
            }
            let stages = jobs.entry(task.job_id.clone()).or_default();
            *stages.entry(task.stage_id).or_default().entry(executor.to_owned()).or_default() += 1;
        }
    }

    /// Answers `/api/job/{job}/executors`.
    pub async fn answer(State(record): State<Self>, Path(job): Path<String>) -> Json<Handed> {
        Json(record.0.lock().unwrap_or_else(PoisonError::into_inner).get(&job).cloned().unwrap_or_default())
    }
}

/// Ballista's scheduler, with the record.
#[derive(Clone)]
pub struct Calls {
    pub scheduler: Scheduler,
    pub record: Record,
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl SchedulerGrpc for Calls {
    type ExecuteQueryPushStream = <Scheduler as SchedulerGrpc>::ExecuteQueryPushStream;

    async fn poll_work(&self, request: Request<PollWorkParams>) -> Answer<PollWorkResult> {
        let executor = request.get_ref().metadata.as_ref().map(|executor| executor.id.clone());
        let answer = self.scheduler.poll_work(request).await?;
        self.record.add(&executor.unwrap_or_default(), answer.get_ref());
        Ok(answer)
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
        self.scheduler.executor_stopped(request).await
    }

    async fn cancel_job(&self, request: Request<CancelJobParams>) -> Answer<CancelJobResult> {
        SchedulerGrpc::cancel_job(&self.scheduler, request).await
    }

    async fn clean_job_data(&self, request: Request<CleanJobDataParams>) -> Answer<CleanJobDataResult> {
        self.scheduler.clean_job_data(request).await
    }
}
