//! `COPY .. TO` Parquet files of lists of the best.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::runtime::{JoinSet, SpawnedTask};
use datafusion::common::{DataFusionError, Result};
use datafusion::config::TableParquetOptions;
use datafusion::datasource::physical_plan::{FileSink, FileSinkConfig};
use datafusion::datasource::sink::DataSink;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::parquet::arrow::arrow_writer::ArrowWriterOptions;
use datafusion::parquet::file::properties::WriterPropertiesBuilder;
use datafusion::physical_plan::metrics::{ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::{DisplayAs, DisplayFormatType};
use object_store::ObjectStore;
use object_store::buffered::BufWriter;
use object_store::path::Path;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver};

use super::bytes_at_once;
use super::list_file::ListFile;

/// Writes each file by a [`ListFile`].
#[derive(Debug)]
pub struct ListSink {
    config: FileSinkConfig,
    options: TableParquetOptions,
    metrics: ExecutionPlanMetricsSet,
}

impl ListSink {
    /// Writes what `config` says as `options` say.
    pub fn new(config: FileSinkConfig, options: TableParquetOptions) -> Self {
        Self { config, options, metrics: ExecutionPlanMetricsSet::new() }
    }

    fn writer_options(&self) -> Result<ArrowWriterOptions> {
        let mut options = self.options.clone();
        let omit = options.global.skip_arrow_metadata;
        if !omit {
            options.arrow_schema(self.config.output_schema());
        }
        let properties = WriterPropertiesBuilder::try_from(&options)?.build();
        Ok(ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(omit))
    }
}

impl DisplayAs for ListSink {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ListSink")
    }
}

#[async_trait]
impl FileSink for ListSink {
    fn config(&self) -> &FileSinkConfig {
        &self.config
    }

    async fn spawn_writer_tasks_and_join(
        &self,
        context: &Arc<TaskContext>,
        demux_task: SpawnedTask<Result<()>>,
        mut files: UnboundedReceiver<(Path, Receiver<RecordBatch>)>,
        store: Arc<dyn ObjectStore>,
    ) -> Result<u64> {
        let rows_written = MetricBuilder::new(&self.metrics).global_counter("rows_written");
        let most = context.session_config().options().execution.objectstore_writer_buffer_size;
        let capacity = bytes_at_once(self.config.object_store_url.as_str(), most);
        let bytes_written = MetricBuilder::new(&self.metrics).global_counter("bytes_written");
        let mut tasks: JoinSet<Result<(i64, usize)>> = JoinSet::new();
        while let Some((path, mut batches)) = files.recv().await {
            let memory = MemoryConsumer::new(format!("ListSink[{path}]")).register(context.memory_pool());
            let out = BufWriter::with_capacity(Arc::clone(&store), path, capacity);
            let schema = Arc::clone(self.config.output_schema());
            let mut file = ListFile::new(out, schema, self.writer_options()?, memory)?;
            tasks.spawn(async move {
                while let Some(batch) = batches.recv().await {
                    file.write(batch).await?;
                }
                file.close().await
            });
        }
        while let Some(closed) = tasks.join_next().await {
            let (rows, bytes) = closed.map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)))??;
            rows_written.add(usize::try_from(rows).unwrap_or(0));
            bytes_written.add(bytes);
        }
        demux_task.join_unwind().await.map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)))??;
        Ok(rows_written.value() as u64)
    }
}

#[async_trait]
impl DataSink for ListSink {
    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }

    fn schema(&self) -> &SchemaRef {
        self.config.output_schema()
    }

    async fn write_all(&self, data: SendableRecordBatchStream, context: &Arc<TaskContext>) -> Result<u64> {
        FileSink::write_all(self, data, context).await
    }
}
