//! Writing aside: a query's result as staged files.

use std::sync::Arc;

use datafusion::arrow::record_batch::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::{DataFusionError, Result};
use datafusion::dataframe::DataFrame;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::{ExecutionPlan, common, execute_stream_partitioned};
use object_store::path::Path;

use super::{Kind, Lake, PRIVATE};
use crate::operators::write::{Target, WriteNode, WrittenFile, write_empty, written_files};
use crate::session::files;

/// A table that is written but not published.
#[derive(Debug, Clone)]
pub struct Staged {
    /// The run that wrote it.
    pub run: String,
    /// The table that it will be.
    pub table: String,
    /// Its files, below its folder.
    pub files: Vec<WrittenFile>,
}

impl Staged {
    /// The folder that holds its files, below the lake.
    pub fn folder(&self) -> String {
        staging(&self.run, &self.table)
    }
}

/// Runs all partitions to their end, even where one fails, so that no writer is still at work when this returns.
async fn collect_all(plan: Arc<dyn ExecutionPlan>, task: Arc<TaskContext>) -> Result<Vec<RecordBatch>> {
    let streams = execute_stream_partitioned(plan, task)?;
    let writers: Vec<_> = streams.into_iter().map(|stream| SpawnedTask::spawn(common::collect(stream))).collect();
    let mut batches = Ok(Vec::new());
    for writer in writers {
        let written = writer.join_unwind().await.map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)))?;
        batches = match (batches, written) {
            (Ok(mut all), Ok(written)) => {
                all.extend(written);
                Ok(all)
            }
            (Err(first), _) | (Ok(_), Err(first)) => Err(first),
        };
    }
    batches
}

fn staging(run: &str, table: &str) -> String {
    format!("{PRIVATE}/staging/{run}/{table}")
}

impl Lake {
    /// Runs a query and writes its result aside, under names made of run and partition.
    pub async fn stage(&self, run: &str, table: &str, query: DataFrame, partition_by: &[String]) -> Result<Staged> {
        let target = Target {
            store: self.store_url().to_owned(),
            folder: self.folder(&staging(run, table))?,
            stem: format!("part-{run}"),
            partition_by: partition_by.to_vec(),
        };
        let schema = Arc::new(query.schema().as_arrow().clone());
        let (state, plan) = query.into_parts();
        let write = DataFrame::new(state, WriteNode::plan(plan, target.clone())?);
        let task = Arc::new(write.task_ctx());
        let mut files = written_files(&collect_all(write.create_physical_plan().await?, task).await?)?;
        if files.is_empty() {
            let store = self.session.context().runtime_env().object_store_registry.get_store(&self.url)?;
            files = write_empty(store, &target, schema).await?;
        }
        Ok(Staged { run: run.to_owned(), table: table.to_owned(), files })
    }

    /// What was staged, to be looked at.
    pub async fn staged_table(&self, staged: &Staged) -> Result<Arc<dyn TableProvider>> {
        let folder = staged.folder();
        let urls = staged.files.iter().map(|file| self.file_url(&folder, &file.path)).collect::<Result<_>>()?;
        files::open_parquet(self.session.context(), urls).await
    }

    fn store_url(&self) -> &str {
        &self.url[..url::Position::BeforePath]
    }

    /// A folder of the lake as a path in its store.
    fn folder(&self, below: &str) -> Result<String> {
        match &self.kind {
            Kind::Remote(lake) => Ok(lake.path(below).to_string()),
            Kind::Local(lake) => Path::from_absolute_path(lake.path(below))
                .map(|path| path.to_string())
                .map_err(|e| DataFusionError::Configuration(format!("lake {}: {e}", self.url))),
        }
    }
}
