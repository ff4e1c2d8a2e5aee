//! Bad input and broken machines: a clear message, the right exit code, nothing published lost or half-changed.

use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::support::{Ran, TestProject, files_below, lakeside, run};

const SOURCE: &str = "[sources.raw]\nurl = \"raw.csv\"\n";
const ROWS: &str = "a,b,w\n1,2,3\n4,5,6\n";

fn project(files: &[(&str, &str)]) -> TestProject {
    let project = TestProject::new(SOURCE, files);
    project.write("raw.csv", ROWS);
    project
}

#[test]
fn a_missing_source_is_named_with_its_line() {
    let project = TestProject::new(SOURCE, &[("t.sql", "SELECT * FROM raw")]);
    let said = ["lakeside.toml:4: source 'raw': there is no file at", "raw.csv"];
    project.run("run", &[]).failed(1, &said);
    project.run("check", &[]).failed(1, &said);
}

#[test]
fn a_wrong_column_is_named_with_its_line() {
    let project = project(&[("t.sql", "-- Text.\nSELECT a,\n  bb\nFROM raw\n")]);
    project.run("run", &[]).failed(1, &["t.sql:3: ", "bb"]);
}

#[test]
fn a_wrong_type_is_told() {
    let project = project(&[("t.sql", "SELECT * FROM neighbors((SELECT a, b, 'heavy' AS w FROM raw))\n")]);
    project.run("check", &[]).failed(1, &["t.sql", "column 'w'", "a number is needed"]);
}

#[test]
fn an_unknown_table_is_told_with_its_line() {
    let project = project(&[("t.sql", "SELECT *\nFROM rwa\n")]);
    project.run("run", &[]).failed(1, &["t.sql:2: table 'rwa' is neither a step nor a source, did you mean 'raw'?"]);
}

#[test]
fn a_schema_that_changes_between_files_names_both() {
    let project = TestProject::new("[sources.raw]\nurl = \"raw/\"\n", &[("t.sql", "SELECT * FROM raw")]);
    for (name, value) in [("a", "1"), ("b", "'one'")] {
        let path = project.path().join(format!("raw/{name}.parquet"));
        run(&["sql", "-c", &format!("COPY (SELECT {value} AS x) TO '{}'", path.display())]).ok();
    }
    project.run("run", &[]).failed(1, &["source 'raw'", "column 'x' is Int64 in", "a.parquet", "b.parquet"]);
}

#[test]
fn nulls_and_nan_are_counted() {
    let ask = |query: &str| run(&["sql", "-c", query]);
    ask("SELECT * FROM neighbors((SELECT CAST(NULL AS INT) AS item, 2 AS u UNION ALL SELECT 1, 2))")
        .failed(1, &["column 'item' has 1 NULL", "on_null => 'skip'"]);
    ask("SELECT * FROM neighbors((SELECT 1 AS item, 2 AS u, CAST('NaN' AS DOUBLE) AS w))")
        .failed(1, &["column 'w' has 1 weight that is NaN"]);
}

#[test]
fn unknown_arguments_and_metrics_suggest_the_nearest() {
    let ask = |query: &str| run(&["sql", "-c", query]);
    ask("SELECT * FROM neighbors((SELECT 1 AS a, 2 AS b), metrik => 'cosine')")
        .failed(1, &["no argument 'metrik', did you mean 'metric'?"]);
    ask("SELECT * FROM neighbors((SELECT 1 AS a, 2 AS b), metric => 'jacard')")
        .failed(1, &["did you mean 'jaccard'?", "allowed are cosine"]);
}

#[test]
fn steps_in_a_circle_are_told() {
    let project = project(&[("x.sql", "SELECT * FROM y"), ("y.sql", "SELECT * FROM z"), ("z.sql", "SELECT * FROM x")]);
    project.run("run", &[]).failed(1, &["x.sql:1: steps need each other in a circle: x needs y needs z needs x"]);
}

#[test]
fn two_files_for_one_table_are_told() {
    let project = project(&[("1/t.sql", "SELECT 1 AS a"), ("2/t.sql", "SELECT 2 AS a")]);
    project.run("run", &[]).failed(1, &["2/t.sql: ", "1/t.sql", "makes the table 't' as well"]);
    let project = self::project(&[("raw.sql", "SELECT 1 AS a")]);
    project.run("run", &[]).failed(1, &["'raw' is a source"]);
}

#[test]
fn unknown_keys_are_told() {
    let project = project(&[("t.sql", "-- Text.\n-- cheque: a > 0\nSELECT * FROM raw")]);
    project.run("run", &[]).failed(1, &["t.sql:2: unknown header key 'cheque', did you mean 'check'?"]);
    project.write("t.sql", "SELECT * FROM raw");
    project.write("lakeside.toml", "name = \"t\"\nlak = 1\n[lake]\nurl = \"lake\"\n");
    project.run("run", &[]).failed(1, &["lakeside.toml:2: unknown field `lak`"]);
}

#[test]
fn an_unset_variable_is_told_with_those_that_are_set() {
    let project = project(&[("t.sql", "SELECT * FROM raw WHERE a > $leest")]);
    project.write(
        "lakeside.toml",
        "name = \"t\"\n[lake]\nurl = \"lake\"\n[sources.raw]\nurl = \"raw.csv\"\n[vars]\nleast = 1\n",
    );
    project.run("check", &[]).failed(1, &["t.sql", "variable '$leest' is not set, did you mean '$least'?"]);
}

#[test]
fn a_file_that_is_not_parquet_is_named() {
    let project = TestProject::new(
        "[sources.raw]\nurl = \"raw/\"\n",
        &[("t.sql", "SELECT * FROM raw"), ("raw/x.parquet", "this is text")],
    );
    project.run("run", &[]).failed(1, &["source 'raw'", "x.parquet"]);
    project.write("raw/x.parquet", "");
    project.run("run", &[]).failed(1, &["source 'raw'"]);
}

#[test]
fn a_disk_without_room_keeps_what_was_published() {
    let project = project(&[("t.sql", "SELECT * FROM raw")]);
    project.run("run", &[]).ok();
    project.write("t.sql", "SELECT value AS a, hash_uniform(value) AS b FROM generate_series(1, 3000000)");
    // A limit on the size of files stands in for a full disk: the same write fails in the same place.
    let command =
        format!("ulimit -f 64; trap '' XFSZ; exec {} run {}", env!("CARGO_BIN_EXE_lakeside"), project.path().display());
    let ran: Ran = Command::new("bash").args(["-c", &command]).output().unwrap().into();
    ran.failed(1, &["t.sql: ", "File too large"]);
    assert_eq!(project.sql("SELECT count(*) AS n FROM t").ok().stdout, "n\n2\n");
    assert!(!project.lake_files().iter().any(|file| file.contains("staging/")), "{:?}", project.lake_files());
}

#[test]
fn a_lake_that_cannot_be_written_is_named() {
    let project = project(&[("t.sql", "SELECT * FROM raw")]);
    project.write("lake", "a file where the folder should be");
    project.run("run", &[]).failed(1, &["lake"]);
}

#[test]
fn two_runs_at_once_do_not_mix() {
    let project =
        project(&[("t.sql", "SELECT count(*) AS n FROM generate_series(1, 40000000) a WHERE hash_uniform(value) < 2")]);
    let folder = project.path().to_str().unwrap().to_owned();
    let mut first = lakeside(&["run", &folder]).spawn().unwrap();
    let lock = project.path().join("lake/.lakeside/lock");
    while !lock.exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(50));
    project.run("run", &[]).failed(1, &["another run is writing the lake"]);
    first.kill().unwrap();
    first.wait().unwrap();
}

/// Kills a run at many moments: the last published table stays whole, and the next run leaves nothing behind.
#[test]
fn a_killed_run_loses_nothing() {
    let project = project(&[("t.sql", "SELECT value AS a, $shift AS shift FROM generate_series(1, 400000)")]);
    let toml = |shift: i32| {
        format!("name = \"t\"\n[lake]\nurl = \"lake\"\n[sources.raw]\nurl = \"raw.csv\"\n[vars]\nshift = {shift}\n")
    };
    project.write("lakeside.toml", &toml(0));
    project.run("run", &[]).ok();
    let folder = project.path().to_str().unwrap().to_owned();
    let mut shift_there = 0;
    for moment in 0..12 {
        project.write("lakeside.toml", &toml(moment + 1));
        let mut child = lakeside(&["run", &folder]).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(20 * moment as u64));
        child.kill().unwrap();
        child.wait().unwrap();
        // Read as DuckDB would: by globbing the folder.
        let query =
            format!("SELECT count(*) AS n, min(shift) AS low, max(shift) AS high FROM '{folder}/lake/t/*.parquet'");
        let answer = run(&["sql", "--format", "csv", "-c", &query]).ok().stdout;
        let values: Vec<i32> = answer.lines().nth(1).unwrap().split(',').map(|value| value.parse().unwrap()).collect();
        assert_eq!((values[0], values[1]), (400_000, values[2]), "moment {moment}: {answer}");
        assert!(values[1] == shift_there || values[1] == moment + 1, "moment {moment}: {answer}");
        shift_there = values[1];
    }
    project.run("run", &[]).ok();
    let files = files_below(&project.path().join("lake"));
    assert!(!files.iter().any(|file| file.contains("staging/")), "{files:?}");
    assert!(files.iter().filter(|file| file.ends_with(".parquet")).count() <= 2, "{files:?}");
}

#[test]
fn too_little_memory_is_an_error_that_says_so() {
    let query =
        "SELECT count(*) FROM neighbors((SELECT value % 1000 AS a, value AS b FROM generate_series(1, 3000000)))";
    run(&["sql", "--memory-limit", "8M", "-c", query]).failed(1, &["memory", "--memory-limit"]);
    run(&["sql", "--memory-limit", "2G", "-c", query]).ok();
}

#[test]
fn files_of_others_are_never_deleted() {
    let project = TestProject::new("[sources.raw]\nurl = \"lake/t/mine.csv\"\n", &[("t.sql", "SELECT * FROM raw")]);
    project.write("lake/t/mine.csv", ROWS);
    project.run("run", &[]).failed(1, &["lakeside.toml:2: [lake]: ", "'mine.csv' that Lakeside did not write"]);
    assert!(project.path().join("lake/t/mine.csv").exists());
}

#[test]
fn csv_files_whose_columns_differ_are_told() {
    let project = TestProject::new("[sources.raw]\nurl = \"raw/\"\n", &[("t.sql", "SELECT * FROM raw")]);
    project.write("raw/a.csv", "id,qty\n1,100\n");
    project.write("raw/b.csv", "qty,id\n200,2\n");
    project.run("run", &[]).failed(1, &["source 'raw'", "a.csv' are id, qty but those of", "b.csv' are qty, id"]);
    project.write("raw/b.csv", "id,qty\n2,many\n");
    project.run("run", &[]).ok();
    assert_eq!(project.sql("SELECT qty FROM t ORDER BY id").ok().stdout, "qty\n100\nmany\n");
}

#[test]
fn a_missing_source_stops_only_what_reads_it() {
    let project =
        project(&[("t.sql", "SELECT * FROM gone"), ("u.sql", "SELECT * FROM raw"), ("v.sql", "SELECT * FROM t")]);
    let toml = format!("name = \"t\"\n[lake]\nurl = \"lake\"\n{SOURCE}[sources.gone]\nurl = \"gone/\"\n");
    project.write("lakeside.toml", &toml);
    project
        .run("run", &[])
        .failed(1, &["lakeside.toml:6: source 'gone'", "v", "skipped, as it needs t", "1 of 3 steps done"]);
    assert_eq!(project.sql("SELECT count(*) AS n FROM u").ok().stdout, "n\n2\n");
}

#[test]
fn a_header_key_that_stands_twice_is_told() {
    let project = project(&[("t.sql", "-- key: a\n-- key: b\nSELECT * FROM raw")]);
    project.run("run", &[]).failed(1, &["t.sql:2: header key 'key' stands twice"]);
}

/// A query that fails while its rows are written leaves the file as it was and nothing beside it, whatever is in it, in one
/// request or in parts; so do rows that a file cannot hold.
#[test]
fn a_copy_that_fails_replaces_no_file() {
    let folder = TempDir::new().unwrap();
    let hash = |salt: char| format!("encode(sha512('{salt}' || value), 'hex') AS {salt}");
    let wide = format!("value % 70000 AS id, {}, {}, {}", hash('a'), hash('b'), hash('c'));
    let files = ["lists.parquet", "rows.arrow", "rows.csv", "rows.json", "rows.parquet"];
    for (name, column) in files.into_iter().zip(["score", "n", "n", "n", "n"]) {
        for columns in ["value % 70000 AS id", &wide] {
            let file = folder.path().join(name);
            let copy = |last: &str| {
                let text = format!("CASE WHEN value < 60000 THEN '1' ELSE '{last}' END");
                let rows = format!("SELECT {columns}, CAST({text} AS REAL) AS {column} FROM generate_series(1, 60000)");
                run(&["sql", "--threads", "1", "-c", &format!("COPY ({rows}) TO '{}'", file.display())])
            };
            copy("2").ok();
            let written = std::fs::read(&file).unwrap();
            copy("two").failed(1, &["two"]);
            if name == "rows.csv" {
                run(&["sql", "-c", &format!("COPY (SELECT [1, 2] AS list) TO '{}'", file.display())])
                    .failed(1, &["Csv error"]);
            }
            assert!(std::fs::read(&file).unwrap() == written, "{name} is not as it was");
        }
    }
    assert_eq!(files_below(folder.path()), files);
}

/// A query that is stopped while its rows are written leaves nothing.
#[test]
fn a_copy_that_is_stopped_leaves_nothing() {
    let folder = TempDir::new().unwrap();
    let rows = "SELECT value % 7 AS id, encode(sha512('a' || value), 'hex') AS a FROM generate_series(1, 10000000000)";
    for name in ["rows.parquet", "rows.csv"] {
        let copy = format!("COPY ({rows}) TO '{}'", folder.path().join(name).display());
        let mut child = lakeside(&["sql", "-c", &copy]).stderr(Stdio::piped()).spawn().unwrap();
        // What waits for its end has a name of its own.
        while files_below(folder.path()).is_empty() {
            assert!(child.try_wait().unwrap().is_none(), "{name} was not written in parts");
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
        Ran::from(child.wait_with_output().unwrap()).failed(1, &["stopped"]);
        assert_eq!(files_below(folder.path()), [""; 0], "{name}");
    }
}
