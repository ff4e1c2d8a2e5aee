//! How a cluster and its jobs are, asked of the scheduler's `/api`.

use std::collections::BTreeMap;

use axum::http::Request;
use datafusion::common::{Result, exec_datafusion_err, exec_err};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tonic::body::Body;
use tonic::transport::Channel;
use tower_service::Service;

use super::calls::GivenUp;
use super::errors::with_causes;

/// An executor as the scheduler knows it.
#[derive(Debug, Clone, Deserialize)]
pub struct ExecutorInfo {
    /// Its name.
    pub id: String,
    /// The host at which others reach it.
    pub host: String,
    /// The port at which they do.
    pub port: u16,
    /// When it was heard of last, in milliseconds since 1970.
    #[serde(default)]
    pub last_seen: Option<u64>,
    /// What it has.
    pub specification: Specification,
}

/// What an executor has.
#[derive(Debug, Clone, Deserialize)]
pub struct Specification {
    /// The partitions that it works on at once.
    pub vcores: u32,
}

/// A job as the scheduler knows it.
#[derive(Debug, Clone, Deserialize)]
pub struct JobInfo {
    /// Its name.
    #[serde(rename = "job_id")]
    pub id: String,
    /// The name that its client gave it.
    #[serde(rename = "job_name", default)]
    pub name: String,
    /// `Queued`, `Running`, `Completed` or `Failed`.
    pub status: String,
    /// All its stages.
    #[serde(rename = "num_stages")]
    pub stages: usize,
    /// Those that are done.
    pub completed_stages: usize,
    /// In milliseconds since 1970.
    #[serde(default)]
    pub start_time: u64,
    /// In milliseconds since 1970; 0 while it runs.
    #[serde(default)]
    pub end_time: u64,
}

/// A stage of a job.
#[derive(Debug, Clone, Deserialize)]
pub struct StageInfo {
    /// Its number.
    #[serde(rename = "stage_id")]
    pub id: String,
    /// `UnResolved`, `Resolved`, `Running`, `Successful` or `Failed`.
    #[serde(rename = "stage_status")]
    pub status: String,
    /// Rows that it left behind so far.
    #[serde(default)]
    pub output_rows: u64,
    /// Its tasks so far.
    #[serde(default)]
    pub tasks: Vec<TaskInfo>,
    /// How many of them each executor was handed.
    #[serde(skip)]
    pub executors: BTreeMap<String, usize>,
}

/// A task of a stage.
#[derive(Debug, Clone, Deserialize)]
pub struct TaskInfo {
    /// `Running` or `Successful`; of a task that failed, an object with the reason.
    pub status: serde_json::Value,
}

#[derive(Deserialize)]
struct Stages {
    stages: Vec<StageInfo>,
}

/// All executors.
pub async fn executors(channel: &mut Channel) -> Result<Vec<ExecutorInfo>> {
    let mut executors: Vec<ExecutorInfo> = ask(channel, "/api/executors").await?;
    executors.sort_by(|a, b| (&a.host, a.port).cmp(&(&b.host, b.port)));
    Ok(executors)
}

/// All jobs that are remembered, the last one first.
pub async fn jobs(channel: &mut Channel) -> Result<Vec<JobInfo>> {
    let mut jobs: Vec<JobInfo> = ask(channel, "/api/jobs").await?;
    jobs.sort_by(|a, b| b.start_time.cmp(&a.start_time).then(b.id.cmp(&a.id)));
    Ok(jobs)
}

/// The stages of a job in their order.
pub async fn stages(channel: &mut Channel, job: &str) -> Result<Vec<StageInfo>> {
    let Stages { mut stages } = ask(channel, &format!("/api/job/{job}/stages")).await?;
    let mut handed: BTreeMap<String, BTreeMap<String, usize>> =
        ask(channel, &format!("/api/job/{job}/executors")).await?;
    for stage in &mut stages {
        stage.executors = handed.remove(&stage.id).unwrap_or_default();
    }
    stages.sort_by_key(|stage| stage.id.parse::<usize>().unwrap_or(usize::MAX));
    Ok(stages)
}

/// Why the scheduler gave a job up, if it did.
pub async fn given_up(channel: &mut Channel, job: &str) -> Result<Option<GivenUp>> {
    ask(channel, &format!("/api/job/{job}/given_up")).await
}

async fn ask<T: DeserializeOwned>(channel: &mut Channel, path: &str) -> Result<T> {
    let request = Request::get(path).body(Body::empty()).map_err(|e| exec_datafusion_err!("{path}: {e}"))?;
    std::future::poll_fn(|context| channel.poll_ready(context))
        .await
        .map_err(|e| exec_datafusion_err!("{}", with_causes(&e)))?;
    let answer = channel.call(request).await.map_err(|e| exec_datafusion_err!("{}", with_causes(&e)))?;
    let status = answer.status();
    let body = answer.into_body().collect().await.map_err(|e| exec_datafusion_err!("{path}: {e}"))?.to_bytes();
    if !status.is_success() {
        return exec_err!("{path}: {status} {}", String::from_utf8_lossy(&body));
    }
    serde_json::from_slice(&body).map_err(|e| exec_datafusion_err!("{path}: {e}"))
}
