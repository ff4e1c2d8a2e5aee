//! The rows of an operator's input, which it reads once, by one reader or several.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties};

use super::context;
use super::gather::GatherExec;

/// All rows of an input, not yet asked for.
pub struct InputRows {
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
}

/// A batch has at most so many rows: of several columns of strings, what was decoded is still in the nearer caches when it is
/// looked up.
const MOST_ROWS: usize = 4096;

impl InputRows {
    /// The rows of all partitions of a plan.
    pub fn new(plan: &Arc<dyn ExecutionPlan>, context: &Arc<TaskContext>) -> Self {
        let config = context.session_config().clone();
        let rows = config.batch_size().min(MOST_ROWS);
        let context = context::with(context, config.with_batch_size(rows), context.runtime_env());
        Self { plan: Arc::clone(parts(plan)), context: Arc::new(context) }
    }

    /// All rows in one stream; partitions work side by side.
    pub fn stream(&self) -> Result<SendableRecordBatchStream> {
        CoalescePartitionsExec::new(Arc::clone(&self.plan)).execute(0, Arc::clone(&self.context))
    }

    /// All rows, each partition in a stream of its own if there are as many readers: who decodes rows has them at hand. With
    /// fewer readers in one stream: a partition that nobody reads may collect what others send it, and others may wait for it,
    /// as in joins, for ever. Where a plan puts partitions together, its node is then not run and shows no metrics.
    pub fn streams(&self, readers: usize) -> Result<Vec<SendableRecordBatchStream>> {
        if self.partitions() > readers {
            return Ok(vec![self.stream()?]);
        }
        (0..self.partitions()).map(|partition| self.plan.execute(partition, Arc::clone(&self.context))).collect()
    }

    fn partitions(&self) -> usize {
        self.plan.output_partitioning().partition_count()
    }
}

/// What a plan puts together, if it does no more.
fn parts(plan: &Arc<dyn ExecutionPlan>) -> &Arc<dyn ExecutionPlan> {
    let all = plan.downcast_ref::<CoalescePartitionsExec>().filter(|all| all.fetch().is_none());
    let gathered = || plan.downcast_ref::<GatherExec>().map(GatherExec::input);
    all.map(CoalescePartitionsExec::input).or_else(gathered).unwrap_or(plan)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use datafusion::arrow::array::{ArrayRef, Int64Array};
    use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
    use datafusion::arrow::record_batch::RecordBatch;
    use datafusion::common::exec_err;
    use datafusion::execution::memory_pool::{MemoryConsumer, MemoryPool, UnboundedMemoryPool};
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
    use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
    use futures::StreamExt;
    use futures::stream;

    use super::*;
    use crate::operators::collect::{Columns, collect};

    /// Rows, and what comes after them: the end, an error, or nothing ever.
    #[derive(Debug, Clone, Copy)]
    enum Then {
        Ends,
        Fails,
        Waits,
    }

    #[derive(Debug)]
    struct Part(SchemaRef, Then);

    impl PartitionStream for Part {
        fn schema(&self) -> &SchemaRef {
            &self.0
        }

        fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
            let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
            let rows = RecordBatch::try_new(Arc::clone(&self.0), vec![Arc::clone(&ids), ids]).unwrap();
            let rows = stream::iter([Ok(rows)]);
            let rows = match self.1 {
                Then::Ends => rows.boxed(),
                Then::Fails => rows.chain(stream::iter([exec_err!("a partition fails")])).boxed(),
                Then::Waits => rows.chain(stream::pending()).boxed(),
            };
            Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.0), rows))
        }
    }

    /// The rows that readers get, in time.
    async fn read(partitions: &[Then], readers: usize) -> Result<usize> {
        let fields: Vec<Field> = ["a", "b"].map(|name| Field::new(name, DataType::Int64, false)).into();
        let schema = Arc::new(Schema::new(fields));
        let part = |then: &Then| Arc::new(Part(Arc::clone(&schema), *then)) as Arc<dyn PartitionStream>;
        let partitions = partitions.iter().map(part).collect();
        let plan = StreamingTableExec::try_new(Arc::clone(&schema), partitions, None, [], false, None)?;
        let plan: Arc<dyn ExecutionPlan> = Arc::new(CoalescePartitionsExec::new(Arc::new(plan)));
        let pool: Arc<dyn MemoryPool> = Arc::new(UnboundedMemoryPool::default());
        let memory = MemoryConsumer::new("test").register(&pool);
        let columns = Columns {
            operator: "test".into(),
            ids: vec!["a".to_owned(), "b".to_owned()],
            types: vec![DataType::Int64; 2],
            weight: None,
            skip_nulls: false,
        };
        let rows = InputRows::new(&plan, &Arc::new(TaskContext::default()));
        let chunks = collect(rows, &columns, readers, &memory, None);
        let chunks = tokio::time::timeout(Duration::from_secs(60), chunks).await.expect("reading ends")?;
        Ok(chunks.iter().map(|chunk| chunk.rows()).sum())
    }

    #[tokio::test]
    async fn all_rows_are_read_by_as_many_readers_as_partitions_or_not() {
        for partitions in 1..5 {
            for readers in 1..5 {
                assert_eq!(read(&vec![Then::Ends; partitions], readers).await.unwrap(), 3 * partitions);
            }
        }
    }

    /// What another partition waits for may be the end of the one that fails.
    #[tokio::test]
    async fn a_partition_that_fails_ends_all() {
        for partitions in [[Then::Waits, Then::Fails], [Then::Fails, Then::Waits], [Then::Ends, Then::Fails]] {
            for readers in 1..4 {
                let error = read(&partitions, readers).await.unwrap_err();
                assert!(error.to_string().contains("a partition fails"), "{error}");
            }
        }
    }
}
