//! `lakeside scheduler`, `lakeside executor`, `lakeside cluster`

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use tokio::net::TcpListener;

use super::limits::parse_bytes;
use super::logs::LogArgs;
use super::output;
use crate::cluster::client::Cluster;
use crate::cluster::local::LocalCluster;
use crate::cluster::security::{Security, Tls};
use crate::cluster::status::{ExecutorInfo, JobInfo, StageInfo};
use crate::cluster::{executor, scheduler, status};
use crate::error::{Error, Result};
use crate::session::Limits;

/// Who may use a cluster
#[derive(Debug, Args)]
#[command(next_help_heading = "Security of a cluster")]
pub(super) struct SecurityArgs {
    /// A secret that all members and clients of the cluster share
    #[arg(long = "cluster-token", value_name = "TOKEN", env = "LAKESIDE_CLUSTER_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Certificate of the authority that signed those of all members and clients (PEM); turns TLS on
    #[arg(long, value_name = "FILE", env = "LAKESIDE_TLS_CA", requires_all = ["tls_cert", "tls_key"])]
    tls_ca: Option<PathBuf>,
    /// Certificate of this process (PEM)
    #[arg(long, value_name = "FILE", env = "LAKESIDE_TLS_CERT", requires_all = ["tls_ca", "tls_key"])]
    tls_cert: Option<PathBuf>,
    /// Private key of this process (PEM)
    #[arg(long, value_name = "FILE", env = "LAKESIDE_TLS_KEY", requires_all = ["tls_ca", "tls_cert"])]
    tls_key: Option<PathBuf>,
}

impl SecurityArgs {
    fn security(&self) -> Result<Security> {
        if let Some(token) = &self.token
            && (token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()))
        {
            return Err(Error::Usage(
                "a cluster token is made of letters, digits and punctuation, without blanks".to_owned(),
            ));
        }
        let tls = match (&self.tls_ca, &self.tls_cert, &self.tls_key) {
            (Some(authority), Some(certificate), Some(key)) => Some(Tls::read(authority, certificate, key)?),
            _ => None,
        };
        Ok(Security { token: self.token.clone(), tls })
    }
}

/// A cluster that queries run on, started here or elsewhere.
pub(super) enum Engine {
    Here(LocalCluster),
    Elsewhere(Cluster),
}

impl Engine {
    pub(super) async fn open(url: &str, limits: &Limits, security: &SecurityArgs) -> Result<Self> {
        let executors = url.strip_prefix("local[").and_then(|rest| rest.strip_suffix(']'));
        if let Some(executors) = executors {
            let Some(executors) = executors.parse().ok().filter(|count| (1..=64).contains(count)) else {
                return Err(Error::Usage(format!("--cluster {url}: the number of executors is 1 to 64")));
            };
            let slots = limits.threads().div_ceil(executors);
            return Ok(Self::Here(LocalCluster::start(executors, slots, limits.memory).await?));
        }
        let cluster = Cluster::new(scheduler_address(url)?, security.security()?);
        cluster.check().await?;
        Ok(Self::Elsewhere(cluster))
    }

    pub(super) fn cluster(&self) -> &Cluster {
        match self {
            Self::Here(local) => local.cluster(),
            Self::Elsewhere(cluster) => cluster,
        }
    }

    /// Tells again and again how the jobs of this process are, for ever.
    pub(super) async fn watch(&self, mut tell: impl FnMut(String)) {
        let mut channel = None;
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            if channel.is_none() {
                channel = self.cluster().connect().await.ok();
            }
            let Some(open) = &mut channel else { continue };
            let (mut stages, mut tasks, mut done) = (0, 0, 0);
            let Ok(jobs) = self.cluster().running(open).await else { continue };
            for job in &jobs {
                // A job that is just over is not known any more, or not yet.
                for stage in status::stages(open, &job.id).await.unwrap_or_default() {
                    let finished = |task: &&status::TaskInfo| task.status == "Successful";
                    stages += usize::from(stage.status != "Successful");
                    tasks += stage.tasks.len();
                    done += stage.tasks.iter().filter(finished).count();
                }
            }
            tell(format!("cluster: {} jobs, {stages} stages to do, {done} of {tasks} tasks done", jobs.len()));
        }
    }
}

/// `host:port` of `df://host:port`.
fn scheduler_address(url: &str) -> Result<String> {
    let parsed = url.strip_prefix("df://").map(|rest| rest.trim_end_matches('/'));
    let port = parsed.and_then(|address| address.rsplit_once(':')).and_then(|(_, port)| port.parse::<u16>().ok());
    match (parsed, port) {
        (Some(address), Some(_)) => Ok(address.to_owned()),
        _ => Err(Error::Usage(format!(
            "--cluster {url}: write df://HOST:PORT of a scheduler, such as df://localhost:50050, or local[N]"
        ))),
    }
}

/// Start the scheduler of a cluster
#[derive(Debug, Args)]
#[command(after_help = "Example: lakeside scheduler --bind-host 0.0.0.0 --bind-port 50050")]
pub(super) struct SchedulerArgs {
    /// The address to listen at; the default lets in this machine only
    #[arg(long, default_value = "127.0.0.1")]
    bind_host: IpAddr,
    /// The port to listen at; 0 takes a free one and says which
    #[arg(long, default_value_t = 50050)]
    bind_port: u16,
    /// The name by which others reach it [default: --bind-host]
    #[arg(long)]
    external_host: Option<String>,
    /// After how many seconds without a word an executor counts as lost
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(3..))]
    executor_timeout_seconds: u64,
    /// How many seconds a job waits for executors when there are none, before it fails
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    no_executors_timeout_seconds: u64,
    /// How many seconds results of finished jobs are kept
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(10..))]
    finished_job_data_clean_up_seconds: u64,
    #[command(flatten)]
    logs: LogArgs,
    #[command(flatten)]
    security: SecurityArgs,
}

pub(super) async fn scheduler(args: &SchedulerArgs) -> Result<()> {
    args.logs.begin()?;
    let address = SocketAddr::new(args.bind_host, args.bind_port);
    let listener = TcpListener::bind(address).await.map_err(|e| Error::Io(format!("listening at {address}"), e))?;
    let bound = listener.local_addr().map_err(|e| Error::Io(format!("listening at {address}"), e))?;
    let external = args.external_host.clone().unwrap_or_else(|| args.bind_host.to_string());
    let settings = scheduler::Settings {
        executor_timeout: Duration::from_secs(args.executor_timeout_seconds),
        no_executors_timeout: Duration::from_secs(args.no_executors_timeout_seconds),
        result_ttl: Duration::from_secs(args.finished_job_data_clean_up_seconds),
        ..scheduler::Settings::new(external, args.security.security()?)
    };
    warn_if_open(args.bind_host, &settings.security);
    eprintln!("scheduler listens at {bound}");
    scheduler::serve(listener, settings, Default::default(), stopped()).await?;
    eprintln!("scheduler stopped");
    Ok(())
}

/// Start an executor of a cluster
#[derive(Debug, Args)]
#[command(
    after_help = "Example: lakeside executor --scheduler-host 10.0.0.1 --bind-host 0.0.0.0 --external-host 10.0.0.2"
)]
pub(super) struct ExecutorArgs {
    /// Where the scheduler is
    #[arg(long, default_value = "127.0.0.1")]
    scheduler_host: String,
    /// The port of the scheduler
    #[arg(long, default_value_t = 50050)]
    scheduler_port: u16,
    /// How many seconds to wait for the scheduler at the start
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    scheduler_connect_timeout_seconds: u64,
    /// The address to listen at; the default lets in this machine only
    #[arg(long, default_value = "127.0.0.1")]
    bind_host: IpAddr,
    /// The port at which others fetch shuffled rows; 0 takes a free one
    #[arg(long, default_value_t = 50051)]
    bind_port: u16,
    /// The name or address by which others reach it [default: --bind-host]
    #[arg(long)]
    external_host: Option<String>,
    /// How many partitions it works on at once [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    vcores: Option<u16>,
    /// Memory that its tasks may take together, such as 4G; 0 is no limit [default: 70 % of the machine's]
    #[arg(long, value_name = "BYTES", value_parser = parse_pool)]
    memory_pool_size: Option<usize>,
    /// A folder for shuffled rows and for what finds no room in memory [default: the system's for temporary files]
    #[arg(long, value_name = "DIR")]
    work_dir: Option<PathBuf>,
    #[command(flatten)]
    logs: LogArgs,
    #[command(flatten)]
    security: SecurityArgs,
}

fn parse_pool(text: &str) -> Result<usize, String> {
    if text == "0" { Ok(usize::MAX) } else { parse_bytes(text) }
}

pub(super) async fn executor(args: &ExecutorArgs) -> Result<()> {
    args.logs.begin()?;
    let external = match &args.external_host {
        Some(host) => host.clone(),
        None if args.bind_host.is_unspecified() => {
            return Err(Error::Usage(format!(
                "--bind-host {} is no address that others can use; add --external-host, the name or address of this machine",
                args.bind_host
            )));
        }
        None => args.bind_host.to_string(),
    };
    let settings = executor::Settings {
        scheduler: format!("{}:{}", args.scheduler_host, args.scheduler_port),
        connect_timeout: Duration::from_secs(args.scheduler_connect_timeout_seconds),
        bind: SocketAddr::new(args.bind_host, args.bind_port),
        external_host: external,
        slots: args.vcores.map_or_else(|| Limits::default().threads(), usize::from),
        memory: args.memory_pool_size.or_else(most_memory).filter(|bytes| *bytes != usize::MAX),
        work_dir: args.work_dir.clone().unwrap_or_else(std::env::temp_dir),
        security: args.security.security()?,
    };
    warn_if_open(args.bind_host, &settings.security);
    executor::serve(settings, stopped()).await?;
    eprintln!("executor stopped");
    Ok(())
}

/// 70 % of what this machine, or the container that this runs in, has.
fn most_memory() -> Option<usize> {
    let total = std::fs::read_to_string("/proc/meminfo").ok()?;
    let kilobytes: usize =
        total.lines().find(|line| line.starts_with("MemTotal:"))?.split_whitespace().nth(1)?.parse().ok()?;
    let container = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok().and_then(|text| text.trim().parse().ok());
    Some(container.unwrap_or(usize::MAX).min(kilobytes << 10) / 10 * 7)
}

fn warn_if_open(bind: IpAddr, security: &Security) {
    if bind.is_loopback() || security.tls.is_some() {
        return;
    }
    if security.token.is_some() {
        eprintln!("warning: without --tls-ca the token and all rows go over the network in clear text");
    } else {
        eprintln!(
            "warning: whoever reaches {bind} may use this cluster, with this process's access to files; set LAKESIDE_CLUSTER_TOKEN or --tls-ca"
        );
    }
}

/// Done when the process is asked to end.
async fn stopped() {
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => drop(signal.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        () = terminate => {}
    }
}

/// Ask a cluster how it is
#[derive(Debug, Args)]
#[command(after_help = "Example: lakeside cluster status df://localhost:50050")]
pub(super) struct ClusterArgs {
    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// List executors and jobs, or the stages of one job
    Status {
        /// df://HOST:PORT of the scheduler
        #[arg(env = "LAKESIDE_CLUSTER")]
        url: String,
        /// List the stages of this job, and how many tasks of each the executors got
        #[arg(long, value_name = "ID")]
        job: Option<String>,
        #[command(flatten)]
        security: SecurityArgs,
    },
}

pub(super) async fn cluster(args: &ClusterArgs) -> Result<()> {
    let ClusterCommand::Status { url, job, security } = &args.command;
    let cluster = Cluster::new(scheduler_address(url)?, security.security()?);
    cluster.check().await?;
    let mut channel = cluster.connect().await?;
    if let Some(job) = job {
        return print(&output::columns(&stage_rows(&status::stages(&mut channel, job).await?)));
    }
    print(&output::columns(&executor_rows(&status::executors(&mut channel).await?)))?;
    print("")?;
    print(&output::columns(&job_rows(&status::jobs(&mut channel).await?)))
}

fn print(text: &str) -> Result<()> {
    writeln!(std::io::stdout(), "{text}").map_err(|e| Error::Io("writing".to_owned(), e))
}

fn executor_rows(executors: &[ExecutorInfo]) -> Vec<[String; 5]> {
    let mut rows = vec![["executor", "address", "slots", "seen", ""].map(str::to_owned)];
    for executor in executors {
        let ago = executor.last_seen.map_or(String::new(), |at| format!("{} s ago", now().saturating_sub(at) / 1000));
        let address = format!("{}:{}", executor.host, executor.port);
        rows.push([executor.id.clone(), address, executor.specification.vcores.to_string(), ago, String::new()]);
    }
    rows
}

fn job_rows(jobs: &[JobInfo]) -> Vec<[String; 5]> {
    let mut rows = vec![["job", "state", "stages", "seconds", ""].map(str::to_owned)];
    for job in jobs {
        let end = if job.end_time == 0 { now() } else { job.end_time };
        let seconds = format!("{:.2}", end.saturating_sub(job.start_time) as f64 / 1000.0);
        let stages = format!("{} of {}", job.completed_stages, job.stages);
        rows.push([job.id.clone(), job.status.clone(), stages, seconds, String::new()]);
    }
    rows
}

fn stage_rows(stages: &[StageInfo]) -> Vec<[String; 5]> {
    let mut rows = vec![["stage", "state", "tasks", "rows", "tasks of executors"].map(str::to_owned)];
    for stage in stages {
        let done = stage.tasks.iter().filter(|task| task.status == "Successful").count();
        let of: Vec<String> = stage.executors.iter().map(|(executor, tasks)| format!("{executor}: {tasks}")).collect();
        let tasks = format!("{done} of {}", stage.tasks.len());
        rows.push([stage.id.clone(), stage.status.clone(), tasks, output::grouped(stage.output_rows), of.join(", ")]);
    }
    rows
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_millis() as u64)
}
