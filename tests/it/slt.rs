//! Runs `tests/slt/*.slt`. `UPDATE_SLT=1 cargo test --release slt` writes what was answered into the files.

use std::path::{Path, PathBuf};

use datafusion::arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use datafusion::arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use lakeside::error::explain;
use lakeside::session::{Limits, Session};
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner, default_validator, strict_column_validator};

/// A session as a database under test.
struct Engine {
    session: Session,
}

/// An engine's error as a user sees it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Message(String);

#[async_trait::async_trait]
impl AsyncDB for Engine {
    type Error = Message;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Message> {
        let failed = |e| Message(explain(&e));
        let mut output = DBOutput::StatementComplete(0);
        for statement in self.session.parse(sql).map_err(failed)? {
            let frame = self.session.query(statement).await.map_err(failed)?;
            let types: Vec<DefaultColumnType> = frame.schema().fields().iter().map(|f| kind(f.data_type())).collect();
            let batches = frame.collect().await.map_err(failed)?;
            if types.is_empty() {
                continue;
            }
            let mut rows = Vec::new();
            if frame_is_plan(&types, &batches) {
                output = DBOutput::Rows { types: types[..1].to_vec(), rows: plan_rows(&batches[0]) };
                continue;
            }
            for batch in &batches {
                for row in 0..batch.num_rows() {
                    rows.push(batch.columns().iter().map(|column| cell(column, row)).collect());
                }
            }
            output = DBOutput::Rows { types, rows };
        }
        Ok(output)
    }

    async fn shutdown(&mut self) {}
}

fn frame_is_plan(types: &[DefaultColumnType], batches: &[RecordBatch]) -> bool {
    types.len() == 2 && batches.len() == 1 && batches[0].schema().field(0).name() == "plan_type"
}

/// A plan with one row a line, numbered and indented by dashes, as white space does not count.
fn plan_rows(batch: &RecordBatch) -> Vec<Vec<String>> {
    let mut rows = Vec::new();
    for row in 0..batch.num_rows() {
        rows.push(vec![cell(batch.column(0), row)]);
        let plan = batch.column(1).as_string::<i32>().value(row);
        for (at, line) in plan.lines().enumerate() {
            let code = line.trim_start();
            let dashes = "-".repeat(line.len() - code.len());
            rows.push(vec![format!("{:02}){dashes}{code}", at + 1)]);
        }
    }
    rows
}

fn kind(data_type: &DataType) -> DefaultColumnType {
    match data_type {
        t if t.is_integer() => DefaultColumnType::Integer,
        t if t.is_floating() => DefaultColumnType::FloatingPoint,
        _ => DefaultColumnType::Text,
    }
}

/// A value as text: floats with six decimals at the most, as their last bits are tested elsewhere.
fn cell(column: &ArrayRef, row: usize) -> String {
    if column.logical_nulls().is_some_and(|nulls| nulls.is_null(row)) {
        return "NULL".to_owned();
    }
    match column.data_type() {
        DataType::Float32 => float(f64::from(column.as_primitive::<Float32Type>().value(row))),
        DataType::Float64 => float(column.as_primitive::<Float64Type>().value(row)),
        _ => {
            let options = FormatOptions::default().with_null("NULL");
            let formatter = ArrayFormatter::try_new(column, &options).expect("every type of a result can be shown");
            let text = formatter.value(row).to_string();
            if text.is_empty() { "(empty)".to_owned() } else { text.replace('\n', "\\n") }
        }
    }
}

fn float(value: f64) -> String {
    if !value.is_finite() {
        return value.to_string();
    }
    let text = format!("{value:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/slt");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "slt"));
    files.sort();
    files
}

/// Every file passes with one partition, and with more partitions than rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_files_pass() {
    let files = files();
    assert!(files.len() > 4, "the .slt files are not there: {files:?}");
    if std::env::var_os("UPDATE_SLT").is_some() {
        for file in &files {
            let mut runner = Runner::new(|| async { Ok(engine(1)) });
            let (validator, normalizer) = (default_validator, sqllogictest::default_normalizer);
            runner.update_test_file(file, " ", validator, normalizer, strict_column_validator).await.unwrap();
        }
    }
    let mut failures = Vec::new();
    for file in &files {
        for threads in [1, 7] {
            let mut runner = Runner::new(|| async move { Ok(engine(threads)) });
            if let Err(e) = runner.run_file_async(file).await {
                failures.push(format!("with {threads} partitions: {}", e.display(false)));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

/// Every file passes on two executors as it does in one process.
#[cfg(feature = "cluster")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_files_pass_on_a_cluster() {
    let cluster = lakeside::cluster::local::LocalCluster::start(2, 2, None).await.unwrap();
    let remote: std::sync::Arc<dyn lakeside::session::Remote> = std::sync::Arc::new(cluster.cluster().clone());
    let mut failures = Vec::new();
    for file in &files() {
        let limits = Limits { remote: Some(std::sync::Arc::clone(&remote)), ..Limits::default() };
        let mut runner = Runner::new(|| {
            let limits = limits.clone();
            async move { Ok(Engine { session: Session::try_new(&limits, Default::default()).unwrap() }) }
        });
        runner.add_label("cluster");
        if let Err(e) = runner.run_file_async(file).await {
            failures.push(e.display(false).to_string());
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

fn engine(threads: usize) -> Engine {
    let limits = Limits { threads: Some(threads), memory: None, remote: None };
    Engine { session: Session::try_new(&limits, Default::default()).unwrap() }
}
