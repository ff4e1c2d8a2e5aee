//! The first row of each key, for `QUALIFY row_number() OVER (PARTITION BY key ORDER BY ..) = 1`.
//!
//! DataFusion sorts all rows for that, or keeps a heap for each key, which is slow where there are many keys. Only rows whose
//! keys repeat have to be compared, which in the cleaning of tables are few: here rows are held as they come, the hashes of
//! their keys are sorted, and rows of equal hashes are compared. Rows come out in the order in which they came in. Where
//! memory does not hold them, those that are held and those to come are sorted, on disk, and numbered.

mod held;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::row::SortField;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::utils::memory::RecordBatchMemoryCounter;
use datafusion::common::{ColumnStatistics, Result, ScalarValue, Statistics, internal_datafusion_err};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{BinaryExpr, Column, Literal};
use datafusion::physical_expr::utils::split_conjunction;
use datafusion::physical_expr::{EquivalenceProperties, LexOrdering, PhysicalExpr, PhysicalSortExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::execution_plan::{
    CardinalityEffect, EmissionType, PlanProperties, ReplaceChildrenOptions, replace_children_if_necessary,
};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::metrics::{
    BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet, RecordOutput,
};
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::statistics::{ChildStats, StatisticsArgs};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::streaming::{PartitionStream, StreamingTableExec};
use datafusion::physical_plan::windows::BoundedWindowAggExec;
use datafusion::physical_plan::{DisplayAs, Distribution, ExecutionPlan, ExecutionPlanProperties};
use futures::{StreamExt, TryStreamExt};

use self::held::Held;
use super::row_number::{RowNumberExec, is_row_number};

/// Puts a [`FirstRowsExec`] in the place of a window operator that numbers rows of which only the first ones are kept.
///
/// To be asked before rules that divide and sort the input of windows.
#[derive(Debug)]
pub struct KeepFirstRows;

impl PhysicalOptimizerRule for KeepFirstRows {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let kept = |plan: Arc<dyn ExecutionPlan>| {
            Ok(match plan.downcast_ref::<FilterExec>().and_then(FirstRowsExec::below) {
                Some(rows) => Transformed::yes(replace_children_if_necessary(plan, vec![rows])?),
                None => Transformed::no(plan),
            })
        };
        plan.transform_up(kept).data()
    }

    fn name(&self) -> &str {
        "keep_first_rows"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The first row of each key of its input, with a further column of ones.
#[derive(Debug)]
pub struct FirstRowsExec {
    input: Arc<dyn ExecutionPlan>,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    order: Vec<PhysicalSortExpr>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl FirstRowsExec {
    /// The input of a filter with one of these in the place of a window operator, which a projection may stand above.
    fn below(filter: &FilterExec) -> Option<Arc<dyn ExecutionPlan>> {
        let projection = filter.input().downcast_ref::<ProjectionExec>();
        let window = projection.map_or(filter.input(), ProjectionExec::input).downcast_ref::<BoundedWindowAggExec>()?;
        let [expr] = window.window_expr() else {
            return None;
        };
        let input = window.input();
        let number = input.schema().fields().len();
        let is_number =
            |expr: &Arc<dyn PhysicalExpr>| expr.downcast_ref::<Column>().is_some_and(|c| c.index() == number);
        let filtered = match projection {
            Some(projection) => projection.expr().iter().position(|column| is_number(&column.expr))?,
            None => number,
        };
        let keeps_first = split_conjunction(filter.predicate()).into_iter().any(|part| is_first(part, filtered));
        if !keeps_first || expr.partition_by().is_empty() || !is_row_number(expr) {
            return None;
        }
        let (keys, order) = (expr.partition_by().to_vec(), expr.order_by().to_vec());
        // Rows that come sorted, as those of a file may, are numbered at once.
        if input.equivalence_properties().ordering_satisfy(by(&keys, &order)).ok()? {
            return None;
        }
        let first: Arc<dyn ExecutionPlan> = Arc::new(Self::over(Arc::clone(input), keys, order, window.schema()));
        match projection {
            Some(_) => replace_children_if_necessary(Arc::clone(filter.input()), vec![first]).ok(),
            None => Some(first),
        }
    }

    /// The first rows of `input` by `order`; `schema` has its columns and that of the number, which is always 1.
    pub fn over(
        input: Arc<dyn ExecutionPlan>,
        keys: Vec<Arc<dyn PhysicalExpr>>,
        order: Vec<PhysicalSortExpr>,
        schema: SchemaRef,
    ) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            input.output_partitioning().clone(),
            EmissionType::Final,
            input.boundedness(),
        );
        Self { input, keys, order, schema, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() }
    }

    /// What rows have in common of which one is kept.
    pub fn keys(&self) -> &[Arc<dyn PhysicalExpr>] {
        &self.keys
    }

    /// What tells which row is the first.
    pub fn order(&self) -> &[PhysicalSortExpr] {
        &self.order
    }
}

/// By keys, and by an order where these are equal.
fn by<'a>(
    keys: &'a [Arc<dyn PhysicalExpr>],
    order: &'a [PhysicalSortExpr],
) -> impl Iterator<Item = PhysicalSortExpr> + 'a {
    keys.iter().map(|key| PhysicalSortExpr::new_default(Arc::clone(key))).chain(order.iter().cloned())
}

/// Whether a condition is true of the number 1 in this column alone.
fn is_first(condition: &Arc<dyn PhysicalExpr>, number: usize) -> bool {
    let Some(compared) = condition.downcast_ref::<BinaryExpr>() else { return false };
    let (column, value) = (compared.left().downcast_ref::<Column>(), compared.right().downcast_ref::<Literal>());
    let (Some(column), Some(value)) = (column, value) else { return false };
    let last = match (compared.op(), value.value()) {
        (Operator::Eq | Operator::LtEq, ScalarValue::UInt64(Some(last))) => *last,
        (Operator::Lt, ScalarValue::UInt64(Some(end))) => end.saturating_sub(1),
        _ => return false,
    };
    column.index() == number && last == 1
}

impl DisplayAs for FirstRowsExec {
    fn fmt_as(&self, _: datafusion::physical_plan::DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let keys: Vec<String> = self.keys.iter().map(ToString::to_string).collect();
        let order: Vec<String> = self.order.iter().map(ToString::to_string).collect();
        write!(f, "FirstRowsExec: partition_by=[{}], order_by=[{}]", keys.join(", "), order.join(", "))
    }
}

impl ExecutionPlan for FirstRowsExec {
    fn name(&self) -> &str {
        "FirstRowsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        vec![Distribution::KeyPartitioned(self.keys.clone())]
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::LowerEqual
    }

    fn child_stats_requests(&self, partition: Option<usize>) -> Vec<ChildStats> {
        vec![ChildStats::At(partition)]
    }

    fn statistics_from_inputs(&self, input: &[Arc<Statistics>], _: &StatisticsArgs) -> Result<Arc<Statistics>> {
        let mut statistics = input[0].as_ref().clone().to_inexact();
        statistics.column_statistics.push(ColumnStatistics::new_unknown());
        Ok(Arc::new(statistics))
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (keys, order) = (self.keys.clone(), self.order.clone());
        Ok(Arc::new(Self::over(children.swap_remove(0), keys, order, Arc::clone(&self.schema))))
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let (keys, order) = (self.keys.clone(), self.order.clone());
        Ok(Arc::new(Self::over(children.swap_remove(0), keys, order, Arc::clone(&self.schema))))
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        for expr in self.keys.iter().chain(self.order.iter().map(|order| &order.expr)) {
            if visit(expr)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let search = Search {
            keys: self.keys.clone(),
            order: self.order.clone(),
            schema: Arc::clone(&self.schema),
            metrics: BaselineMetrics::new(&self.metrics, partition),
            sorted: MetricBuilder::new(&self.metrics).counter("sorted_partitions", partition),
        };
        let input = self.input.execute(partition, Arc::clone(&context))?;
        let rows = futures::stream::once(search.run(input, context)).try_flatten();
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// The work on one partition.
struct Search {
    keys: Vec<Arc<dyn PhysicalExpr>>,
    order: Vec<PhysicalSortExpr>,
    schema: SchemaRef,
    metrics: BaselineMetrics,
    /// Counts the partitions that memory did not hold.
    sorted: Count,
}

impl Search {
    async fn run(
        self,
        mut input: SendableRecordBatchStream,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        let memory = MemoryConsumer::new("FirstRowsExec").with_can_spill(true).register(context.memory_pool());
        let mut counter = RecordBatchMemoryCounter::new();
        let elapsed = self.metrics.elapsed_compute().clone();
        let mut held = self.held(&input.schema())?;
        while let Some(batch) = input.next().await.transpose()? {
            let _timer = elapsed.timer();
            let values = self.values(&batch)?;
            // Columns are shared with the batch; what is computed has arrays of its own.
            let computed =
                values.iter().filter(|value| !batch.columns().iter().any(|column| Arc::ptr_eq(column, value)));
            let computed: usize = computed.map(|value| value.get_array_memory_size()).sum();
            let needed = counter.count_batch(&batch) + computed + batch.num_rows() * Held::ROW_BYTES;
            if memory.try_grow(needed).is_err() {
                // Who sorts them has to account for them.
                drop(memory);
                let mut batches = held.into_batches();
                batches.push(batch);
                return self.sorted(batches, input, context);
            }
            held.push(batch, values)?;
        }
        let timer = elapsed.timer();
        let first = held.first(&self.schema)?;
        drop(timer);
        let metrics = self.metrics;
        // What it holds is given back with the last of it.
        let first = first.map(move |batch| {
            let _held = &memory;
            batch.record_output(&metrics)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema, futures::stream::iter(first))))
    }

    fn held(&self, schema: &SchemaRef) -> Result<Held> {
        let keys = self.keys.iter().map(|key| Ok(SortField::new(key.data_type(schema)?)));
        let order = self.order.iter().map(|by| Ok(SortField::new_with_options(by.expr.data_type(schema)?, by.options)));
        Ok(Held::new(keys.collect::<Result<_>>()?, order.collect::<Result<_>>()?))
    }

    /// The columns of keys, and of what rows are ordered by.
    fn values(&self, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
        let exprs = self.keys.iter().chain(self.order.iter().map(|order| &order.expr));
        exprs.map(|expr| expr.evaluate(batch)?.into_array(batch.num_rows())).collect()
    }

    /// All rows that were held and all that are to come, sorted and numbered.
    fn sorted(
        self,
        held: Vec<RecordBatch>,
        rest: SendableRecordBatchStream,
        context: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        self.sorted.add(1);
        let schema = rest.schema();
        let rows = futures::stream::iter(held.into_iter().map(Ok)).chain(rest);
        let rows = Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&schema), rows));
        let once = Once { schema: Arc::clone(&schema), rows: Mutex::new(Some(rows)) };
        let rows = StreamingTableExec::try_new(schema, vec![Arc::new(once)], None, [], false, None)?;
        let order = LexOrdering::new(by(&self.keys, &self.order))
            .ok_or_else(|| internal_datafusion_err!("first rows without keys"))?;
        let sorted = Arc::new(SortExec::new(order.clone(), Arc::new(rows)));
        RowNumberExec::over(sorted, self.keys, self.schema, Some(order)).execute(0, context)
    }
}

/// A stream as a plan's input, once.
struct Once {
    schema: SchemaRef,
    rows: Mutex<Option<SendableRecordBatchStream>>,
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("Once")
    }
}

impl PartitionStream for Once {
    fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    fn execute(&self, _: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner).take();
        let again = || Err(internal_datafusion_err!("rows that can be read once are read again"));
        rows.unwrap_or_else(|| {
            Box::pin(RecordBatchStreamAdapter::new(
                Arc::clone(&self.schema),
                futures::stream::once(async move { again() }),
            ))
        })
    }
}
