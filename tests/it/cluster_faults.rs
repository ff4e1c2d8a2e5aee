//! What a cluster does when executors go at a bad moment, when stores are slow or away, and when it is put together unevenly;
//! and that it keeps secrets.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, assert_clean, finish, run_is_on, shop, tables};
use crate::cut::Cut;
use crate::s3::{S3, SECRET, rows};
use crate::support::{TestProject, files_below, run};

/// A line of `lakeside cluster status --job`.
#[derive(Debug)]
struct Stage {
    state: String,
    /// Who was handed tasks of it, and how many, counting those that were tried again.
    executors: Vec<(String, usize)>,
}

impl Stage {
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, state, _, "of", _, _, executors @ ..] = &words[..] else { return None };
        let handed = |pair: &[&str]| {
            let [executor, tasks] = pair else { panic!("{line}") };
            (executor.trim_end_matches(':').to_owned(), tasks.trim_end_matches(',').parse().unwrap())
        };
        let executors = executors.chunks(2).map(handed).collect();
        Some(Self { state: (*state).to_owned(), executors })
    }

    fn handed(&self) -> usize {
        self.executors.iter().map(|(_, tasks)| tasks).sum()
    }
}

/// The stages of a job; none where the scheduler does not know it yet.
fn stages(cluster: &Cluster, job: &str) -> Vec<Stage> {
    let ran = cluster.run(&["cluster", "status", &cluster.url(), "--job", job]);
    ran.stdout.lines().skip(1).filter_map(Stage::parse).collect()
}

/// All jobs and their states, the last one first.
fn jobs(cluster: &Cluster) -> Vec<(String, String)> {
    let status = cluster.status();
    let lines = status.lines().skip_while(|line| !line.starts_with("job")).skip(1);
    let words = lines.map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
    words.map(|words| (words[0].clone(), words[1].clone())).collect()
}

fn running(cluster: &Cluster) -> Option<String> {
    jobs(cluster).into_iter().find(|(_, state)| state == "Running").map(|(job, _)| job)
}

/// Names of executors and their slots in the order in which they were started: names begin with the time.
fn executors(cluster: &Cluster) -> Vec<(String, usize)> {
    let status = cluster.status();
    let lines = status.lines().skip(1).take_while(|line| !line.is_empty());
    let words = lines.map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut executors: Vec<(String, usize)> =
        words.map(|words| (words[0].to_owned(), words[2].parse().unwrap())).collect();
    executors.sort();
    executors
}

/// Asks again until there is an answer.
#[track_caller]
fn wait_for<T>(what: &str, within: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(begun.elapsed() < within, "{what}: not seen in {within:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

const SOON: Duration = Duration::from_secs(20);
const LATE: Duration = Duration::from_secs(60);

/// A search over rows that other stages have grouped and shuffled before.
fn write_near(project: &TestProject, k: usize) {
    let grouped = "(SELECT item_id, user_id, max(weight) AS weight FROM events GROUP BY 1, 2)";
    let near = format!(
        "SELECT * FROM neighbors({grouped}, entity => 'item_id', feature => 'user_id', weight => 'weight', k => {k})"
    );
    project.write("near.sql", &format!("-- key: item_id, neighbor_id\n{near}"));
}

/// An S3 server, and a cluster of two executors that know it.
fn on_s3() -> (Arc<S3>, Cluster) {
    let s3 = Arc::new(S3::start(&["shop"]));
    let store = Arc::clone(&s3);
    let cluster = Cluster::start_with(2, Box::new(move |args| store.lakeside(args)));
    (s3, cluster)
}

/// A project whose lake is there and whose only step takes about a second until it begins to write.
fn shop_on_s3() -> TestProject {
    let project = shop(5_000_000, 60_000);
    let sources = "[sources.events]\nurl = \"events.parquet\"\n";
    project.write("lakeside.toml", &format!("name = \"test\"\n[lake]\nurl = \"s3://shop/lake\"\n{sources}"));
    for step in ["lists.sql", "popular.sql"] {
        std::fs::remove_file(project.path().join(step)).unwrap();
    }
    write_near(&project, 20);
    project
}

/// All rows of a table of a project whose lake is on S3.
fn ask(s3: &S3, project: &TestProject, table: &str) -> Vec<String> {
    let query = format!("SELECT * FROM {table}");
    rows(s3.run(&["sql", "--project", project.path().to_str().unwrap(), "--format", "csv", "-c", &query]))
}

#[test]
fn an_executor_killed_when_its_stage_is_done_and_the_next_is_not_costs_time_only() {
    let project = shop(5_000_000, 60_000);
    write_near(&project, 20);
    project.run("run", &[]).ok();
    let (expected, before) = (tables(&project), project.lake_files());
    // On a busy machine the job may be over before the executor is gone; then there is another, on a new cluster.
    let in_time = (0..5).any(|_| {
        let in_time = kill_an_executor_that_has_shuffled(&project);
        assert!(tables(&project) == expected, "other rows after an executor was killed");
        in_time
    });
    assert!(in_time, "every job was over before the executor was killed");
    assert!(project.lake_files() != before, "nothing new was published");
    assert_clean(&project);
}

/// Runs the step on two executors, and kills one that has shuffled what is read by a search under way. Whether it was under
/// way until then.
fn kill_an_executor_that_has_shuffled(project: &TestProject) -> bool {
    let mut cluster = Cluster::start(2);
    // The third stage is the search, which is what takes long; the second has shuffled what it reads.
    let searching = || {
        let job = running(&cluster)?;
        let stages = stages(&cluster, &job);
        let done = stages.iter().position(|stage| stage.state != "Successful")?;
        let next = &stages[done];
        let begun = done == 2 && next.state == "Running" && next.handed() > 0;
        begun.then(|| (job, stages[1].executors[0].0.clone()))
    };
    let (run, job, killed) = wait_for("a search under way", LATE, || {
        let run = cluster.spawn(&["run", project.path().to_str().unwrap(), "--select", "near"]);
        while run_is_on(&run) {
            if let Some((job, executor)) = searching() {
                return Some((run, job, executor));
            }
        }
        // On a busy machine a search may be over before it is seen; then there is another.
        finish(run, LATE).ok();
        None
    });
    let at = executors(&cluster).iter().position(|(executor, _)| *executor == killed).unwrap();
    cluster.kill_executor(at);
    let in_time = running(&cluster) == Some(job);
    finish(run, LATE).ok();
    in_time
}

/// A cluster whose executors are reached by ways that break once.
fn behind_cuts(executors: usize) -> (Cluster, Vec<Cut>) {
    let mut cluster = Cluster::start(0);
    let cuts: Vec<Cut> = (0..executors).map(|_| Cut::start()).collect();
    for cut in &cuts {
        cluster.add_executor(&["--external-host", Cut::HOST, "--bind-port", &cut.port.to_string()]);
    }
    (cluster, cuts)
}

#[test]
fn a_connection_that_breaks_before_the_first_rows_costs_time_only() {
    let project = shop(2_000_000, 60_000);
    // Of one executor only the client fetches rows.
    let (cluster, cuts) = behind_cuts(1);
    let query = format!("SELECT count(*) AS n FROM '{}/events.parquet'", project.path().display());
    let counted = rows(cluster.run(&["sql", "--format", "csv", "-c", &query]));
    assert_eq!(counted, ["2000000", "n"]);
    assert!(cuts[0].is_broken(), "no connection broke");
    // Of two, each fetches from the other what a task reads; the client fetches from one of them.
    let (cluster, cuts) = behind_cuts(2);
    project.run("run", &[]).ok();
    let expected = tables(&project);
    cluster.run(&["run", project.path().to_str().unwrap()]).ok();
    assert!(cuts.iter().all(Cut::is_broken), "no task fetched rows of another executor");
    assert!(tables(&project) == expected, "other rows after connections broke");
    assert_clean(&project);
}

#[test]
fn a_slow_store_costs_time_only() {
    let (s3, cluster) = on_s3();
    let raw = s3.folder.path().join("shop/raw");
    std::fs::create_dir(&raw).unwrap();
    for part in 0..3 {
        let query = format!("SELECT value FROM generate_series(1, 90000) WHERE value % 3 = {part}");
        run(&["sql", "-c", &format!("COPY ({query}) TO '{}/{part}.parquet'", raw.display())]).ok();
    }
    let project = TestProject::new("", &[("n.sql", "SELECT value % 7 AS g, sum(value) AS n FROM raw GROUP BY 1")]);
    let sources = "[sources.raw]\nurl = \"s3://shop/raw/\"\n";
    project.write("lakeside.toml", &format!("name = \"test\"\n[lake]\nurl = \"s3://shop/lake\"\n{sources}"));
    let delay = Duration::from_millis(200);
    s3.delay(delay);
    let begun = Instant::now();
    finish(cluster.spawn(&["run", project.path().to_str().unwrap()]), LATE).ok();
    // Else it was no slow store.
    assert!(begun.elapsed() > 5 * delay, "{:?}", begun.elapsed());
    s3.delay(Duration::ZERO);
    let query = "SELECT value % 7 AS g, sum(value) AS n FROM generate_series(1, 90000) GROUP BY 1";
    assert_eq!(ask(&s3, &project, "n"), rows(run(&["sql", "--format", "csv", "-c", query])));
    let files = files_below(&s3.folder.path().join("shop/lake"));
    assert!(!files.iter().any(|file| file.contains("staging")), "{files:#?}");
}

#[test]
fn a_store_that_is_away_for_good_ends_a_run_in_time_and_keeps_what_was_published() {
    let (s3, cluster) = on_s3();
    let project = shop_on_s3();
    let folder = project.path().to_str().unwrap().to_owned();
    let published = || files_below(&s3.folder.path().join("shop/lake/near"));
    cluster.run(&["run", &folder]).ok();
    let (expected, files) = (ask(&s3, &project, "near"), published());
    // Other rows, so that one can tell which are published.
    write_near(&project, 5);
    let run = cluster.spawn(&["run", &folder]);
    let job = wait_for("a job", SOON, || running(&cluster));
    s3.refuse(true);
    // Each of 4 attempts at a task asks up to 11 times in some 3 s, and so does the run when it tidies up.
    finish(run, Duration::from_secs(45)).failed(1, &["near.sql", "503", "nothing of them was published"]);
    s3.refuse(false);
    // What has failed can be looked at.
    cluster.run(&["cluster", "status", &cluster.url(), "--job", &job]).ok();
    assert_eq!(published(), files);
    assert!(ask(&s3, &project, "near") == expected, "what was published has changed");
    cluster.run(&["run", &folder]).ok();
    assert!(ask(&s3, &project, "near").len() < expected.len(), "nothing new was published");
    // What a task of the failed run has written when the store was back goes with the next run after that. Such a task asks
    // for some seconds more, so that it may write while that run is on.
    wait_for("nothing staged", LATE, || {
        cluster.run(&["run", &folder]).ok();
        let all = files_below(&s3.folder.path().join("shop/lake"));
        (!all.iter().any(|file| file.contains("staging"))).then_some(())
    });
}

#[test]
fn a_task_that_cannot_write_is_tried_again() {
    let (s3, cluster) = on_s3();
    let project = shop_on_s3();
    let folder = project.path().to_str().unwrap().to_owned();
    cluster.run(&["run", &folder]).ok();
    let expected = ask(&s3, &project, "near");
    let run = cluster.spawn(&["run", &folder]);
    let job = wait_for("a job", SOON, || running(&cluster));
    s3.refuse(true);
    // The requests of a first attempt are all refused, and a second one begins: no stage has more than two tasks here.
    wait_for("a second attempt", LATE, || {
        assert!(run_is_on(&run), "the run ended without a second attempt");
        stages(&cluster, &job).iter().any(|stage| stage.handed() > 2).then_some(())
    });
    s3.refuse(false);
    finish(run, LATE).ok();
    assert!(ask(&s3, &project, "near") == expected, "other rows after a second attempt");
    let all = files_below(&s3.folder.path().join("shop/lake"));
    assert!(!all.iter().any(|file| file.contains("staging")), "{all:#?}");
}

const TOKEN: &str = "token-that-nobody-is-to-see";

/// What the scheduler answers at all of its addresses, by address.
fn answers(cluster: &Cluster) -> Vec<(String, String)> {
    let mut paths: Vec<String> =
        ["", "api/openapi.json", "api/state", "api/version", "api/executors", "api/jobs", "api/metrics"]
            .map(str::to_owned)
            .to_vec();
    paths.extend(executors(cluster).iter().map(|(executor, _)| format!("api/executor/{executor}")));
    for (job, _) in jobs(cluster) {
        let of = ["", "/config", "/stages", "/dot", "/stage/1/dot", "/executors", "/given_up"];
        paths.extend(of.map(|more| format!("api/job/{job}{more}")));
    }
    let authorization = format!("Authorization: Bearer {TOKEN}");
    let ask = |path: &String| {
        let url = cluster.url().replace("df://", "http://");
        let mut curl = Command::new("curl");
        curl.args(["-s", "-i", "-m", "10", "-H", &authorization, &format!("{url}/{path}")]);
        let answer = String::from_utf8_lossy(&curl.output().unwrap().stdout).into_owned();
        assert!(answer.starts_with("HTTP/1.1 ") && !answer.starts_with("HTTP/1.1 401"), "{path}: {answer}");
        (path.clone(), answer)
    };
    paths.iter().map(ask).collect()
}

#[test]
fn no_secret_is_logged_or_answered() {
    let s3 = Arc::new(S3::start(&["shop"]));
    let store = Arc::clone(&s3);
    let command = move |args: &[&str]| {
        let mut command = store.lakeside(args);
        command.env("LAKESIDE_CLUSTER_TOKEN", TOKEN).env("LAKESIDE_LOG", "trace");
        command
    };
    let cluster = Cluster::start_with(2, Box::new(command));
    let project = TestProject::new("", &[("n.sql", "SELECT value % 7 AS g FROM generate_series(1, 9000)")]);
    project.write("lakeside.toml", "name = \"test\"\n[lake]\nurl = \"s3://shop/lake\"\n");
    let folder = project.path().to_str().unwrap();
    let ran = cluster.run(&["run", folder]).ok();
    // A task that fails after it has read from the store tells what it was about.
    let query = "SELECT count(CAST('x' || g AS INT)) FROM n";
    let failed = cluster.run(&["sql", "--project", folder, "-c", query]).failed(1, &["Cannot cast"]);
    let mut texts = answers(&cluster);
    let known = |path: &str, text: &str| texts.iter().any(|(at, answer)| at.ends_with(path) && answer.contains(text));
    // They have told what there is to tell, and the members have logged all that they can.
    assert!(known("/stages", "ShuffleWriterExec") && known("/config", "datafusion."), "{texts:#?}");
    for client in [ran, failed] {
        texts.push(("the client".to_owned(), client.stdout + &client.stderr));
    }
    for member in ["scheduler", "executor-0", "executor-1"] {
        let log = std::fs::read(cluster.work.path().join(format!("{member}.log"))).unwrap();
        let log = String::from_utf8_lossy(&log).into_owned();
        assert!(log.contains(" TRACE "), "{member}: {log}");
        texts.push((member.to_owned(), log));
    }
    for (place, text) in &texts {
        for secret in [SECRET, TOKEN] {
            let line = text.lines().find(|line| line.contains(secret));
            assert!(line.is_none(), "{place} tells {secret}: {line:?}");
        }
    }
}

#[test]
fn executors_with_unequal_slots_share_the_work() {
    let project = shop(5_000_000, 60_000);
    project.run("run", &[]).ok();
    let expected = tables(&project);
    let mut cluster = Cluster::start(0);
    for slots in ["1", "3"] {
        cluster.add_executor(&["--vcores", slots]);
    }
    let members = executors(&cluster);
    assert_eq!(members.iter().map(|(_, slots)| *slots).collect::<Vec<_>>(), [1, 3]);
    cluster.run(&["run", project.path().to_str().unwrap()]).ok();
    assert!(tables(&project) == expected, "other rows with unequal slots");
    assert_clean(&project);
    let stages: Vec<Stage> = jobs(&cluster).iter().flat_map(|(job, _)| stages(&cluster, job)).collect();
    for (member, slots) in members {
        let worked = stages.iter().any(|stage| stage.executors.iter().any(|(executor, _)| *executor == member));
        assert!(worked, "the executor with {slots} slots had nothing to do: {stages:#?}");
    }
}
