//! Clusters of processes on loopback: the same answers as one process, and what happens when something of it dies.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::s3::{S3, rows};
use crate::support::{Ran, TestProject, copy, files_below, lakeside, project_at, root, tables_in};

/// How the binary is called.
pub type Call = Box<dyn Fn(&[&str]) -> Command>;

/// A scheduler and executors, each a process.
pub struct Cluster {
    scheduler: Process,
    executors: Vec<Process>,
    port: u16,
    command: Call,
    pub work: TempDir,
}

impl Cluster {
    pub fn start(executors: usize) -> Self {
        Self::start_with(executors, Box::new(lakeside))
    }

    /// As `command` calls the binary.
    pub fn start_with(executors: usize, command: Call) -> Self {
        let work = TempDir::new().unwrap();
        let (scheduler, port) = start_scheduler(&*command, 0, work.path());
        let mut cluster = Self { scheduler, executors: Vec::new(), port, command, work };
        (0..executors).for_each(|_| cluster.add_executor(&[]));
        cluster
    }

    pub fn url(&self) -> String {
        format!("df://127.0.0.1:{}", self.port)
    }

    /// Starts one more executor, of one slot and at any port unless `more` says otherwise, and waits until the scheduler knows it.
    pub fn add_executor(&mut self, more: &[&str]) {
        let (port, work) = (self.port.to_string(), self.work.path().to_str().unwrap().to_owned());
        let mut args = vec!["executor", "--scheduler-port", &port, "--work-dir", &work];
        args.extend(more);
        for [name, value] in [["--bind-port", "0"], ["--vcores", "1"]] {
            if !more.contains(&name) {
                args.extend([name, value]);
            }
        }
        let log =
            std::fs::File::create(self.work.path().join(format!("executor-{}.log", self.executors.len()))).unwrap();
        self.executors.push(Process((self.command)(&args).stderr(log).spawn().unwrap()));
        let (expected, begun) = (self.executors.len(), Instant::now());
        while self.status().matches("s ago").count() < expected {
            assert!(begun.elapsed() < Duration::from_secs(20), "the executor did not come: {}", self.status());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn status(&self) -> String {
        let ran: Ran = (self.command)(&["cluster", "status", &self.url()]).output().unwrap().into();
        ran.ok().stdout
    }

    pub fn kill_executor(&mut self, at: usize) {
        drop(self.executors.remove(at));
    }

    /// A command whose queries run here.
    pub fn run(&self, args: &[&str]) -> Ran {
        (self.command)(args).env("LAKESIDE_CLUSTER", self.url()).output().unwrap().into()
    }

    pub fn spawn(&self, args: &[&str]) -> Child {
        let mut command = (self.command)(args);
        command.env("LAKESIDE_CLUSTER", self.url()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }
}

/// Killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().and_then(|()| self.0.wait()).unwrap();
    }
}

/// A scheduler that gives executors up soon, and its port. It logs to a file in `work`.
fn start_scheduler(command: &dyn Fn(&[&str]) -> Command, port: u16, work: &Path) -> (Process, u16) {
    let (port, log) = (port.to_string(), work.join("scheduler.log"));
    let args = ["scheduler", "--bind-port", &port, "--executor-timeout-seconds", "3"];
    let args = [&args[..], &["--no-executors-timeout-seconds", "3"]].concat();
    let scheduler = Process(command(&args).stderr(std::fs::File::create(&log).unwrap()).spawn().unwrap());
    let begun = Instant::now();
    loop {
        let text = std::fs::read_to_string(&log).unwrap();
        let port =
            text.lines().find_map(|line| line.strip_prefix("scheduler listens at ")?.rsplit(':').next()?.parse().ok());
        if let Some(port) = port {
            return (scheduler, port);
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "the scheduler did not start: {text}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn finish(child: Child, within: Duration) -> Ran {
    let id = child.id();
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output().unwrap()));
    match receiver.recv_timeout(within) {
        Ok(output) => output.into(),
        Err(_) => {
            let _ = Command::new("kill").args(["-9", &id.to_string()]).status();
            panic!("a command was not done in {within:?}")
        }
    }
}

pub fn run_is_on(child: &Child) -> bool {
    Path::new(&format!("/proc/{}/exe", child.id())).exists()
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

/// Interactions of many users, as a step, and what is made of them.
pub fn shop(rows: usize, users: usize) -> TestProject {
    let events = format!(
        "SELECT CAST(hash_uniform(value, 1) * {users} AS INT) AS user_id, CAST(pow(hash_uniform(value, 2), 2) * 8000 AS INT) AS item_id, \
         1 + value % 5 AS weight FROM generate_series(1, {rows})"
    );
    let project = TestProject::new("", &[]);
    // Made once and alone, as rows that only this process knows are sent along up to a size.
    let file = project.path().join("events.parquet");
    crate::support::run(&["sql", "-c", &format!("COPY ({events}) TO '{}'", file.display())]).ok();
    project.write(
        "lakeside.toml",
        "name = \"test\"\n[lake]\nurl = \"lake\"\n[sources.events]\nurl = \"events.parquet\"\n",
    );
    project.write("near.sql", "-- key: item_id, neighbor_id\nSELECT * FROM neighbors(events, entity => 'item_id', feature => 'user_id', weight => 'weight')");
    project.write(
        "lists.sql",
        "-- key: user_id, item_id\nSELECT * FROM recommend(history => (SELECT user_id, item_id, weight FROM events), item_neighbors => near, k => 10)",
    );
    project.write("popular.sql", "SELECT item_id, count(*) AS n FROM events GROUP BY item_id ORDER BY n DESC, item_id");
    project
}

const TABLES: [&str; 3] = ["near", "lists", "popular"];

/// Every table's rows, as one process reads them.
pub fn tables(project: &TestProject) -> Vec<Vec<String>> {
    TABLES.map(|table| rows(project.sql(&format!("SELECT * FROM {table}")))).to_vec()
}

/// Nothing but the published files and their lists is in the lake.
pub fn assert_clean(project: &TestProject) {
    let files = project.lake_files();
    let stray: Vec<&String> = files.iter().filter(|file| file.contains("staging") || file.contains('#')).collect();
    assert!(stray.is_empty(), "{stray:?}");
    for table in TABLES {
        let query = format!("SELECT count(*) FROM '{}/lake/{table}/'", project.path().display());
        let all = crate::support::run(&["sql", "--format", "csv", "-c", &query]).ok().stdout;
        let known = project.sql(&format!("SELECT count(*) FROM {table}")).ok().stdout;
        assert_eq!(all, known, "{table} has files that do not belong to it");
    }
}

#[test]
fn the_shipped_project_on_two_executors_and_s3_equals_the_local_run() {
    let s3 = std::sync::Arc::new(S3::start(&["shop"]));
    copy(&root().join("sample-data"), &s3.folder.path().join("shop/raw"));
    let work = TempDir::new().unwrap();
    let (local, remote) = (work.path().join("local"), work.path().join("remote"));
    project_at(&local, &format!("{}/sample-data/", root().display()), work.path().join("lake").to_str().unwrap());
    project_at(&remote, "s3://shop/raw/", "s3://shop/lake");
    let (local, remote) = (local.to_str().unwrap(), remote.to_str().unwrap());
    let store = std::sync::Arc::clone(&s3);
    let cluster = Cluster::start_with(2, Box::new(move |args| store.lakeside(args)));
    s3.run(&["run", local]).ok();
    cluster.run(&["run", remote]).ok();
    let names = tables_in(&work.path().join("lake"));
    assert!(names.len() > 10, "{names:?}");
    for table in &names {
        let query = format!("SELECT * FROM {table}");
        let ask = |project: &str| s3.run(&["sql", "--project", project, "--format", "json", "-c", &query]);
        assert!(rows(ask(local)) == rows(ask(remote)), "{table} differs");
    }
    let files = files_below(&s3.folder.path().join("shop/lake"));
    assert!(!files.iter().any(|file| file.contains("staging")), "{files:#?}");
    // Both executors have worked on the stages of the larger jobs.
    let jobs = cluster.status();
    let jobs = jobs.lines().skip_while(|line| !line.starts_with("job")).skip(1);
    let spread = jobs.map(|line| line.split_whitespace().next().unwrap()).any(|job| {
        let stages = cluster.run(&["cluster", "status", &cluster.url(), "--job", job]).ok().stdout;
        stages.lines().any(|stage| stage.matches(": ").count() == 2)
    });
    assert!(spread, "no stage had tasks on both executors");
}

#[test]
fn an_executor_killed_at_any_moment_costs_time_only() {
    let project = shop(5_000_000, 60_000);
    project.run("run", &[]).ok();
    let expected = tables(&project);
    let mut cluster = Cluster::start(2);
    let folder = project.path().to_str().unwrap().to_owned();
    // How long a run takes here: fast machines are done in a second.
    let began = Instant::now();
    cluster.run(&["run", &folder]).ok();
    let whole = began.elapsed();
    for after in [8, 4, 2].map(|part| whole / part) {
        let run = cluster.spawn(&["run", &folder]);
        std::thread::sleep(after);
        assert!(run_is_on(&run), "the run was too short to kill an executor after {after:?} of {whole:?}");
        cluster.kill_executor(0);
        finish(run, Duration::from_secs(60)).ok();
        assert!(tables(&project) == expected, "other rows after a kill after {after:?}");
        assert_clean(&project);
        cluster = Cluster::start(2);
    }
}

#[test]
fn without_executors_a_run_fails_in_time_and_keeps_what_was_published() {
    let project = shop(5_000_000, 60_000);
    project.run("run", &[]).ok();
    let expected = tables(&project);
    let mut cluster = Cluster::start(2);
    let folder = project.path().to_str().unwrap().to_owned();
    let run = cluster.spawn(&["run", &folder]);
    std::thread::sleep(Duration::from_millis(300));
    (0..2).for_each(|_| cluster.kill_executor(0));
    let ran = finish(run, Duration::from_secs(60));
    ran.failed(1, &["executor"]);
    assert!(tables(&project) == expected, "what was published has changed");
    cluster.add_executor(&[]);
    cluster.run(&["run", &folder]).ok();
    assert!(tables(&project) == expected);
    assert_clean(&project);
}

#[test]
fn without_a_scheduler_a_run_fails_in_time_and_a_new_one_goes_on() {
    let project = shop(5_000_000, 60_000);
    project.run("run", &[]).ok();
    let expected = tables(&project);
    let mut cluster = Cluster::start(1);
    let folder = project.path().to_str().unwrap().to_owned();
    let run = cluster.spawn(&["run", &folder]);
    std::thread::sleep(Duration::from_millis(400));
    cluster.scheduler.0.kill().unwrap();
    cluster.scheduler.0.wait().unwrap();
    finish(run, Duration::from_secs(60)).failed(1, &["scheduler"]);
    assert!(tables(&project) == expected, "what was published has changed");
    // Executors come back by themselves.
    cluster.scheduler = start_scheduler(&*cluster.command, cluster.port, cluster.work.path()).0;
    cluster.run(&["run", &folder]).ok();
    assert!(tables(&project) == expected);
    assert_clean(&project);
}

#[test]
fn a_store_that_is_away_for_a_moment_costs_time_only() {
    let s3 = std::sync::Arc::new(S3::start(&["shop"]));
    let store = std::sync::Arc::clone(&s3);
    let cluster = Cluster::start_with(2, Box::new(move |args| store.lakeside(args)));
    let project = TestProject::new(
        "",
        &[("n.sql", "SELECT value % 7 AS g, count(*) AS n FROM generate_series(1, 90000) GROUP BY 1")],
    );
    project.write("lakeside.toml", "name = \"test\"\n[lake]\nurl = \"s3://shop/lake\"\n");
    let folder = project.path().to_str().unwrap().to_owned();
    let ask = || rows(s3.run(&["sql", "--project", &folder, "--format", "csv", "-c", "SELECT * FROM n"]));
    cluster.run(&["run", &folder]).ok();
    let expected = ask();
    s3.refuse(true);
    let run = cluster.spawn(&["run", &folder]);
    std::thread::sleep(Duration::from_secs(1));
    s3.refuse(false);
    finish(run, Duration::from_secs(60)).ok();
    assert_eq!(ask(), expected);
}

#[test]
fn a_task_without_memory_is_an_error_that_says_so() {
    let project = shop(5_000_000, 60_000);
    let mut cluster = Cluster::start(0);
    cluster.add_executor(&["--memory-pool-size", "300K"]);
    let folder = project.path().to_str().unwrap().to_owned();
    finish(cluster.spawn(&["run", &folder, "--select", "near"]), Duration::from_secs(60)).failed(1, &["memory"]);
    assert!(!project.lake_files().iter().any(|file| file.ends_with(".parquet")), "{:?}", project.lake_files());
}

#[test]
fn interrupting_a_command_cancels_its_job() {
    let project = shop(5_000_000, 60_000);
    let cluster = Cluster::start(1);
    let query =
        "SELECT count(*) FROM events a JOIN events b ON a.user_id = b.user_id JOIN events c ON b.item_id = c.item_id";
    let asked = cluster.spawn(&["sql", "--project", project.path().to_str().unwrap(), "-c", query]);
    let begun = Instant::now();
    while !cluster.status().contains("Running") {
        assert!(begun.elapsed() < Duration::from_secs(20), "{}", cluster.status());
    }
    signal(&asked, "-INT");
    finish(asked, Duration::from_secs(10)).failed(1, &["stopped"]);
    let begun = Instant::now();
    while cluster.status().contains("Running") {
        assert!(begun.elapsed() < Duration::from_secs(5), "{}", cluster.status());
    }
    // The only slot is free again.
    let ran = finish(
        cluster.spawn(&["sql", "--format", "csv", "-c", "SELECT count(*) FROM (VALUES (1))"]),
        Duration::from_secs(20),
    );
    assert_eq!(ran.ok().stdout.trim_end(), "count(*)\n1");
}

#[test]
fn a_token_is_asked_of_everyone() {
    let with = |token: Option<&'static str>| {
        move |args: &[&str]| {
            let mut command = lakeside(args);
            if let Some(token) = token {
                command.env("LAKESIDE_CLUSTER_TOKEN", token);
            }
            command
        }
    };
    let cluster = Cluster::start_with(1, Box::new(with(Some("s3cret-token"))));
    let query = ["sql", "--format", "csv", "-c", "SELECT count(*) FROM (VALUES (1), (2))"];
    assert_eq!(cluster.run(&query).ok().stdout.trim_end(), "count(*)\n2");
    for token in [None, Some("wrong")] {
        let ran: Ran = with(token)(&query).env("LAKESIDE_CLUSTER", cluster.url()).output().unwrap().into();
        let ran = ran.failed(1, &["token", "LAKESIDE_CLUSTER_TOKEN"]);
        assert!(!ran.stderr.contains("s3cret"), "{}", ran.stderr);
        let port = cluster.port.to_string();
        let executor = with(token)(&["executor", "--scheduler-port", &port, "--bind-port", "0"]);
        let mut executor = executor;
        let executor = executor.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        finish(executor, Duration::from_secs(20)).failed(1, &["refuses", "token"]);
    }
    let url = format!("http://127.0.0.1:{}/api/jobs", cluster.port);
    let curl = |more: &[&str]| {
        let output =
            Command::new("curl").args(["-s", "-o", "/dev/null", "-w", "%{http_code}", &url]).args(more).output();
        String::from_utf8(output.unwrap().stdout).unwrap()
    };
    assert_eq!((curl(&[]), curl(&["-H", "Authorization: Bearer s3cret-token"])), ("401".into(), "200".into()));
}

/// An authority, and a certificate of it for this machine.
fn certificates(folder: &Path) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::<String>::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let certificate = authority.self_signed(&key).unwrap();
    std::fs::write(folder.join("ca.pem"), certificate.pem()).unwrap();
    let issuer = Issuer::new(authority, key);
    let key = KeyPair::generate().unwrap();
    let member = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    std::fs::write(folder.join("cert.pem"), member.signed_by(&key, &issuer).unwrap().pem()).unwrap();
    std::fs::write(folder.join("key.pem"), key.serialize_pem()).unwrap();
}

#[test]
fn with_certificates_only_those_who_have_one_get_in() {
    let folder = TempDir::new().unwrap();
    certificates(folder.path());
    let place = folder.path().to_owned();
    let with = move |args: &[&str]| {
        let mut command = lakeside(args);
        for (name, file) in [("CA", "ca.pem"), ("CERT", "cert.pem"), ("KEY", "key.pem")] {
            command.env(format!("LAKESIDE_TLS_{name}"), place.join(file));
        }
        command
    };
    let cluster = Cluster::start_with(2, Box::new(with));
    let project = shop(100_000, 500);
    let folder = project.path().to_str().unwrap().to_owned();
    cluster.run(&["run", &folder]).ok();
    let there = tables(&project);
    project.run("run", &[]).ok();
    assert!(tables(&project) == there, "other rows over TLS");
    let query = ["sql", "-c", "SELECT count(*) FROM (VALUES (1))"];
    let ran: Ran = lakeside(&query).env("LAKESIDE_CLUSTER", cluster.url()).output().unwrap().into();
    ran.failed(1, &["scheduler"]);
}
