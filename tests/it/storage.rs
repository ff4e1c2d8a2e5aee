//! The shipped project against a real S3 server on loopback.

use tempfile::TempDir;

use crate::s3::{S3, rows};
use crate::support::{Ran, copy, files_below, project_at, root, tables_in};

#[test]
fn the_shipped_project_on_s3_equals_the_local_run() {
    let s3 = S3::start(&["shop"]);
    copy(&root().join("sample-data"), &s3.folder.path().join("shop/raw"));
    let work = TempDir::new().unwrap();
    let (local, remote) = (work.path().join("local"), work.path().join("remote"));
    project_at(&local, &format!("{}/sample-data/", root().display()), work.path().join("lake").to_str().unwrap());
    project_at(&remote, "s3://shop/raw/", "s3://shop/lake");
    let (local, remote) = (local.to_str().unwrap(), remote.to_str().unwrap());
    s3.run(&["run", local]).ok();
    let first = s3.run(&["run", remote]).ok();
    assert!(first.stderr.contains("tables are in s3://shop/lake"), "{}", first.stderr);
    let lake = s3.folder.path().join("shop/lake");
    let tables = tables_in(&work.path().join("lake"));
    assert!(tables.len() > 10, "{tables:?}");
    for table in &tables {
        let query = format!("SELECT * FROM {table}");
        let ask = |project: &str| s3.run(&["sql", "--project", project, "--format", "json", "-c", &query]);
        assert!(rows(ask(local)) == rows(ask(remote)), "{table} differs");
        let glob = format!("SELECT * FROM 's3://shop/lake/{table}/*.parquet'");
        let globbed = s3.run(&["sql", "--project", remote, "--format", "json", "-c", &glob]);
        assert!(rows(globbed) == rows(ask(remote)), "{table} globbed differs");
    }
    // A second run leaves as many files as the first, and nothing staged.
    let count = files_below(&lake).len();
    s3.run(&["run", remote]).ok();
    let files = files_below(&lake);
    assert_eq!(files.len(), count, "{files:#?}");
    assert!(!files.iter().any(|file| file.contains("staging")), "{files:#?}");
}

#[test]
fn what_a_dead_run_left_is_not_seen_and_goes_away() {
    let s3 = S3::start(&["shop"]);
    let work = TempDir::new().unwrap();
    let project = crate::support::TestProject::new("", &[("numbers.sql", "SELECT 1 AS n")]);
    project.write("lakeside.toml", "name = \"test\"\n[lake]\nurl = \"s3://shop/lake\"\n");
    let folder = project.path().to_str().unwrap();
    s3.run(&["run", folder]).ok();
    // As if a run had died between copying its files and listing them, and another while it staged.
    let lake = s3.folder.path().join("shop/lake");
    let published = files_below(&lake.join("numbers"));
    let stray = lake.join("numbers/part-20000101T000000000-1-00000-000.parquet");
    std::fs::copy(lake.join("numbers").join(&published[0]), &stray).unwrap();
    let staged = lake.join(".lakeside/staging/20000101T000000000-1/numbers/x.parquet");
    std::fs::create_dir_all(staged.parent().unwrap()).unwrap();
    std::fs::write(&staged, "half").unwrap();
    let count =
        |s3: &S3| s3.run(&["sql", "--project", folder, "--format", "csv", "-c", "SELECT count(*) FROM numbers"]).ok();
    assert_eq!(count(&s3).stdout.trim_end(), "count(*)\n1");
    s3.run(&["run", folder]).ok();
    assert_eq!(count(&s3).stdout.trim_end(), "count(*)\n1");
    assert!(!stray.exists() && !staged.exists(), "{:#?}", files_below(&lake));
    drop(work);
}

#[test]
fn a_missing_bucket_or_object_is_named() {
    let s3 = S3::start(&["shop"]);
    let ask = |url: &str| s3.run(&["sql", "-c", &format!("SELECT * FROM '{url}'")]);
    ask("s3://nowhere/events.parquet").failed(1, &["s3://nowhere/events.parquet"]);
    ask("s3://shop/events.parquet").failed(1, &["there is no file at 's3://shop/events.parquet'"]);
    let project = crate::support::TestProject::new("", &[("numbers.sql", "SELECT 1 AS n")]);
    project.write("lakeside.toml", "name = \"test\"\n[lake]\nurl = \"s3://nowhere/lake\"\n");
    s3.run(&["run", project.path().to_str().unwrap()]).failed(1, &["lake", "nowhere"]);
}

#[test]
fn wrong_credentials_are_an_error() {
    let s3 = S3::start(&["shop"]);
    let mut command = s3.lakeside(&["sql", "-c", "SELECT * FROM 's3://shop/x.parquet'"]);
    let ran: Ran = command.env("AWS_SECRET_ACCESS_KEY", "wrong").output().unwrap().into();
    let ran = ran.failed(1, &["s3://shop/x.parquet"]);
    assert!(!ran.stderr.contains("wrong"), "a secret was shown: {}", ran.stderr);
}

#[test]
fn a_store_that_is_away_for_a_moment_costs_time_only() {
    let s3 = S3::start(&["shop"]);
    let project = crate::support::TestProject::new("", &[("numbers.sql", "SELECT 1 AS n")]);
    project.write("lakeside.toml", "name = \"test\"\n[lake]\nurl = \"s3://shop/lake\"\n");
    s3.refuse(true);
    let run =
        s3.lakeside(&["run", project.path().to_str().unwrap()]).stderr(std::process::Stdio::piped()).spawn().unwrap();
    std::thread::sleep(std::time::Duration::from_secs(1));
    s3.refuse(false);
    Ran::from(run.wait_with_output().unwrap()).ok();
}
