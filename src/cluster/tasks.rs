//! The tasks of an executor: asking for them, running them, reporting on them.
//!
//! Ballista's own loop for this counts a task of several partitions as one slot, lets the tasks of a cancelled job run to
//! their end, and counts a report twice when it did not hear that it arrived; this one does not. It asks again as soon as
//! a task is done.

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ballista_core::JobId;
use ballista_core::error::BallistaError;
use ballista_core::serde::protobuf::{
    ExecutorStoppedParams, GetJobStatusParams, PollWorkParams, PollWorkResult, TaskDefinition, TaskStatus, job_status,
    task_status,
};
use ballista_core::serde::scheduler::TaskKey;
use ballista_executor::executor::Executor;
use datafusion::common::{Result, exec_datafusion_err};
use futures::FutureExt;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tonic::{Request, Status};

use super::errors;
use super::executor::SchedulerClient;
use super::task::{now, run};

/// How long an executor without work waits before it asks again, while work comes and when none has come for a while.
const EAGER: Duration = Duration::from_millis(5);
const IDLE: Duration = Duration::from_millis(25);
const EAGER_FOR: Duration = Duration::from_secs(2);

/// How often a busy executor says that it is there, and asks whether its jobs are still wanted.
const HEARTBEAT: Duration = Duration::from_secs(1);

/// How long an answer is waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);

/// How long tasks have to end when the executor is told to.
const DRAIN_WITHIN: Duration = Duration::from_secs(20);

/// The header that numbers the polls of an executor. One that was not answered is sent again under its number, and the
/// scheduler then answers as before: no report counts twice, and no task gets lost on its way.
pub const POLL: &str = "lakeside-poll";

/// The tasks that an executor has.
pub struct Tasks {
    executor: Arc<Executor>,
    /// Threads of their own, so that computing does not keep the executor from answering.
    threads: Option<tokio::runtime::Runtime>,
    /// By task and attempt at its stage.
    running: HashMap<(TaskKey, u32), Running>,
    done: mpsc::UnboundedReceiver<(TaskKey, TaskStatus)>,
    report: mpsc::UnboundedSender<(TaskKey, TaskStatus)>,
    /// The number of the poll that is to be answered next.
    poll: u64,
}

struct Running {
    slots: usize,
    work: JoinHandle<()>,
}

impl Drop for Tasks {
    fn drop(&mut self) {
        if let Some(threads) = self.threads.take() {
            threads.shutdown_background();
        }
    }
}

impl Tasks {
    /// None yet.
    pub fn try_new(executor: Executor) -> Result<Self> {
        let mut threads = tokio::runtime::Builder::new_multi_thread();
        let threads = threads.worker_threads(executor.vcores).thread_name("task").enable_all().build()?;
        let (report, done) = mpsc::unbounded_channel();
        let (executor, threads) = (Arc::new(executor), Some(threads));
        Ok(Self { executor, threads, running: HashMap::new(), done, report, poll: 0 })
    }

    /// Asks for tasks and reports on them until the scheduler refuses, or until `stop` is done: then the tasks under way
    /// may end before the executor leaves.
    pub async fn work(&mut self, scheduler: &mut SchedulerClient, stop: impl Future<Output = ()>) -> Result<()> {
        let mut stop = pin!(stop);
        let mut leaving: Option<Instant> = None;
        let mut reports = Vec::new();
        let (mut last_work, mut last_watch) = (Instant::now(), Instant::now());
        let mut silent = false;
        loop {
            let busy: usize = self.running.values().map(|task| task.slots).sum();
            let free = if leaving.is_some() { 0 } else { self.executor.vcores.saturating_sub(busy) };
            match self.ask(scheduler, free, &reports).await {
                Ok(answer) => {
                    self.poll += 1;
                    silent = false;
                    reports.clear();
                    if !answer.tasks.is_empty() {
                        last_work = Instant::now();
                    }
                    for task in answer.tasks {
                        self.start(task).await;
                    }
                    for job in answer.jobs_to_clean {
                        let work_dir = self.executor.work_dir.clone();
                        tokio::task::spawn_blocking(move || remove_job(&work_dir, &job.job_id, &job.remove_stage_ids));
                    }
                }
                Err(refused) if errors::is_refusal(&refused) => {
                    return Err(exec_datafusion_err!("the scheduler refuses this executor: {}", refused.message()));
                }
                // It may be starting anew; what was to be reported is kept.
                Err(lost) => {
                    if !silent {
                        tracing::warn!("the scheduler does not answer: {}", lost.message());
                    }
                    silent = true;
                }
            }
            if leaving.is_some_and(|since| self.running.is_empty() && !silent || since.elapsed() > DRAIN_WITHIN) {
                self.leave(scheduler).await;
                return Ok(());
            }
            if last_watch.elapsed() >= HEARTBEAT {
                last_watch = Instant::now();
                self.cancel_unwanted(scheduler).await;
            }
            let wait = match last_work.elapsed() < EAGER_FOR {
                _ if free == 0 || silent => HEARTBEAT,
                true => EAGER,
                false => IDLE,
            };
            tokio::select! {
                done = self.done.recv() => {
                    reports.extend(done.map(|done| self.finished(done)));
                    last_work = Instant::now();
                }
                () = tokio::time::sleep(wait) => {}
                () = &mut stop, if leaving.is_none() => leaving = Some(Instant::now()),
            }
            while let Ok(next) = self.done.try_recv() {
                reports.push(self.finished(next));
            }
        }
    }

    async fn ask(
        &self,
        scheduler: &mut SchedulerClient,
        free: usize,
        reports: &[TaskStatus],
    ) -> Result<PollWorkResult, Status> {
        let mut request = Request::new(PollWorkParams {
            metadata: Some(self.executor.metadata.clone()),
            num_free_vcores: u32::try_from(free).unwrap_or(u32::MAX),
            task_status: reports.to_vec(),
        });
        request.metadata_mut().insert(POLL, self.poll.into());
        match tokio::time::timeout(ANSWER_WITHIN, scheduler.poll_work(request)).await {
            Ok(answer) => answer.map(tonic::Response::into_inner),
            Err(_) => Err(Status::deadline_exceeded(format!("no answer in {} s", ANSWER_WITHIN.as_secs()))),
        }
    }

    fn finished(&mut self, (key, status): (TaskKey, TaskStatus)) -> TaskStatus {
        self.running.remove(&(key, status.stage_attempt_num));
        status
    }

    async fn start(&mut self, task: TaskDefinition) {
        let key = TaskKey {
            job_id: task.job_id.clone().into(),
            stage_id: task.stage_id as usize,
            task_id: task.task_id as usize,
        };
        let slots = (task.vcores_consumed as usize).max(1);
        let overtaken = self.overtaken(&key, task.stage_attempt_num).await;
        let (executor, report, attempt) = (Arc::clone(&self.executor), self.report.clone(), task.stage_attempt_num);
        let Some(threads) = &self.threads else { return };
        let id = key.clone();
        let work = threads.spawn(async move {
            for work in overtaken {
                // Aborted or done, both is the end of it.
                let _ = work.await;
            }
            let begun = now();
            let ran = AssertUnwindSafe(run(&executor, &key, &task)).catch_unwind().await;
            let status = ran.unwrap_or_else(|_| {
                let error = BallistaError::Internal("the task panicked".to_owned());
                let status = Some(task_status::Status::Failed(errors::failure(error)));
                TaskStatus { status, ..Default::default() }
            });
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
        self.running.insert((id, attempt), Running { slots, work });
    }

    /// Cancels the tasks of earlier attempts at a stage, which would write where the next ones do. They have to have ended
    /// before these begin.
    async fn overtaken(&mut self, key: &TaskKey, attempt: u32) -> Vec<JoinHandle<()>> {
        let is_old = |(other, earlier): &(TaskKey, u32)| {
            (&other.job_id, other.stage_id) == (&key.job_id, key.stage_id) && *earlier < attempt
        };
        let old: Vec<_> = self.running.keys().filter(|running| is_old(running)).cloned().collect();
        let mut ends = Vec::new();
        for running in old {
            let (TaskKey { job_id, stage_id, task_id }, _) = running.clone();
            let _ = self.executor.cancel_task(job_id, stage_id, task_id).await;
            // Its slot is free when it reports.
            if let Some(task) = self.running.get_mut(&running) {
                ends.push(std::mem::replace(&mut task.work, tokio::spawn(std::future::ready(()))));
            }
        }
        ends
    }

    /// Stops tasks of jobs that are over: failed, cancelled, or done without them.
    async fn cancel_unwanted(&self, scheduler: &SchedulerClient) {
        let jobs: HashSet<&JobId> = self.running.keys().map(|(key, _)| &key.job_id).collect();
        let asked = jobs.into_iter().map(|job| {
            let mut scheduler = scheduler.clone();
            async move {
                let answer = scheduler.get_job_status(GetJobStatusParams { job_id: job.to_string() });
                let answer = tokio::time::timeout(HEARTBEAT, answer).await.ok()?.ok()?;
                let status = answer.into_inner().status?.status?;
                let over = matches!(status, job_status::Status::Failed(_) | job_status::Status::Successful(_));
                over.then_some(job)
            }
        });
        let over: Vec<&JobId> = futures::future::join_all(asked).await.into_iter().flatten().collect();
        for (key, _) in self.running.keys().filter(|(key, _)| over.contains(&&key.job_id)) {
            let _ = self.executor.cancel_task(key.job_id.clone(), key.stage_id, key.task_id).await;
        }
    }

    /// Tells the scheduler that this executor goes, so that what it did is done elsewhere at once.
    async fn leave(&mut self, scheduler: &mut SchedulerClient) {
        let executor_id = self.executor.metadata.id.clone();
        let gone = ExecutorStoppedParams { executor_id, reason: "stopped".to_owned() };
        let _ = tokio::time::timeout(Duration::from_secs(2), scheduler.executor_stopped(gone)).await;
    }
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
