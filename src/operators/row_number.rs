//! `row_number()` over sorted rows, a batch at a time.
//!
//! DataFusion's window operator works partition by partition: some microseconds each, which is all the time there is where
//! partitions are small, as in `QUALIFY row_number() OVER (PARTITION BY key ORDER BY ..) = 1` that leaves one row of each
//! repeated key. Its input is sorted by the keys already, so all that is left to do is to find where they change.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, UInt64Array};
use datafusion::arrow::compute::{concat, partition};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::window::{StandardWindowExpr, WindowExpr};
use datafusion::physical_expr::{EquivalenceProperties, LexOrdering, OrderingRequirements, PhysicalExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::execution_plan::{CardinalityEffect, PlanProperties, ReplaceChildrenOptions};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowUDFExpr};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, Distribution, ExecutionPlan, ExecutionPlanProperties, InputOrderMode,
};
use futures::StreamExt;

/// Puts a [`RowNumberExec`] in the place of a window operator that only numbers sorted rows.
#[derive(Debug)]
pub struct NumberSortedRows;

impl PhysicalOptimizerRule for NumberSortedRows {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let numbered = |plan: Arc<dyn ExecutionPlan>| {
            Ok(match plan.downcast_ref::<BoundedWindowAggExec>().and_then(RowNumberExec::instead_of) {
                Some(rows) => Transformed::yes(Arc::new(rows) as Arc<dyn ExecutionPlan>),
                None => Transformed::no(plan),
            })
        };
        plan.transform_up(numbered).data()
    }

    fn name(&self) -> &str {
        "number_sorted_rows"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// Whether a window expression is `row_number()`.
pub fn is_row_number(expr: &Arc<dyn WindowExpr>) -> bool {
    let standard = expr.as_any().downcast_ref::<StandardWindowExpr>();
    let function = standard.and_then(|expr| expr.get_standard_func_expr().as_any().downcast_ref::<WindowUDFExpr>());
    function.is_some_and(|function| function.fun().name() == "row_number")
}

/// Adds to its input, whose rows of equal keys follow each other, the number of each row among those of its keys.
#[derive(Debug)]
pub struct RowNumberExec {
    input: Arc<dyn ExecutionPlan>,
    keys: Vec<Arc<dyn PhysicalExpr>>,
    schema: SchemaRef,
    /// How the input is sorted, which whoever plans anew must not undo.
    order: Option<LexOrdering>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl RowNumberExec {
    fn instead_of(window: &BoundedWindowAggExec) -> Option<Self> {
        let [expr] = window.window_expr() else {
            return None;
        };
        if window.input_order_mode != InputOrderMode::Sorted || !is_row_number(expr) {
            return None;
        }
        let order = window.input().output_ordering().cloned();
        Some(Self::over(Arc::clone(window.input()), expr.partition_by().to_vec(), window.schema(), order))
    }

    /// Numbers the rows of `input`, sorted by `order`; `schema` has its columns and that of the number.
    pub fn over(
        input: Arc<dyn ExecutionPlan>,
        keys: Vec<Arc<dyn PhysicalExpr>>,
        schema: SchemaRef,
        order: Option<LexOrdering>,
    ) -> Self {
        // Rows stay where they are and in their order, whose columns come before the new one.
        let mut equivalences = EquivalenceProperties::new(Arc::clone(&schema));
        equivalences.add_orderings(input.output_ordering().cloned());
        let properties = PlanProperties::new(
            equivalences,
            input.output_partitioning().clone(),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        Self { input, keys, schema, order, properties: Arc::new(properties), metrics: ExecutionPlanMetricsSet::new() }
    }

    /// The columns whose equal values follow each other.
    pub fn keys(&self) -> &[Arc<dyn PhysicalExpr>] {
        &self.keys
    }
}

impl DisplayAs for RowNumberExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter) -> fmt::Result {
        let keys: Vec<String> = self.keys.iter().map(ToString::to_string).collect();
        write!(f, "RowNumberExec: partition_by=[{}]", keys.join(", "))
    }
}

impl ExecutionPlan for RowNumberExec {
    fn name(&self) -> &str {
        "RowNumberExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn required_input_distribution(&self) -> Vec<Distribution> {
        // Whoever plans anew, as a cluster does when it changes joins, must leave all rows of equal keys together.
        vec![match self.keys.is_empty() {
            true => Distribution::SinglePartition,
            false => Distribution::KeyPartitioned(self.keys.clone()),
        }]
    }

    fn required_input_ordering(&self) -> Vec<Option<OrderingRequirements>> {
        vec![self.order.clone().map(OrderingRequirements::from)]
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (schema, order) = (Arc::clone(&self.schema), self.order.clone());
        Ok(Arc::new(Self::over(children.swap_remove(0), self.keys.clone(), schema, order)))
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let (schema, order) = (Arc::clone(&self.schema), self.order.clone());
        Ok(Arc::new(Self::over(children.swap_remove(0), self.keys.clone(), schema, order)))
    }

    fn apply_expressions(
        &self,
        visit: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        for key in &self.keys {
            if visit(key)? == TreeNodeRecursion::Stop {
                return Ok(TreeNodeRecursion::Stop);
            }
        }
        Ok(TreeNodeRecursion::Continue)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let input = self.input.execute(partition, context)?;
        let baseline = BaselineMetrics::new(&self.metrics, partition);
        let mut counter = Counter { keys: self.keys.clone(), last: Vec::new(), count: 0 };
        let schema = self.schema();
        let stream = input.map(move |batch| {
            let batch = batch?;
            let _timer = baseline.elapsed_compute().timer();
            baseline.record_output(batch.num_rows());
            let mut columns = batch.columns().to_vec();
            columns.push(Arc::new(counter.number(&batch)?));
            Ok(RecordBatch::try_new(Arc::clone(&schema), columns)?)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// Numbers rows from batch to batch.
struct Counter {
    keys: Vec<Arc<dyn PhysicalExpr>>,
    /// The keys of the last row so far, one row each.
    last: Vec<ArrayRef>,
    /// The number of the last row so far.
    count: u64,
}

impl Counter {
    fn number(&mut self, batch: &RecordBatch) -> Result<UInt64Array> {
        let rows = batch.num_rows();
        if rows == 0 {
            return Ok(UInt64Array::from(Vec::<u64>::new()));
        }
        let value = |key: &Arc<dyn PhysicalExpr>| key.evaluate(batch)?.into_array(rows);
        let keys: Vec<ArrayRef> = self.keys.iter().map(value).collect::<Result<_>>()?;
        let goes_on = !self.last.is_empty() || self.keys.is_empty();
        let mut before = if goes_on && self.same(&keys)? { self.count } else { 0 };
        let mut numbers = Vec::with_capacity(rows);
        for range in ranges(&keys, rows)? {
            numbers.extend((1..=range.len() as u64).map(|number| before + number));
            before = 0;
        }
        self.count = numbers[rows - 1];
        self.last = keys.iter().map(|values| values.slice(rows - 1, 1)).collect();
        Ok(UInt64Array::from(numbers))
    }

    /// Whether the first row of these has the keys of the last row so far.
    fn same(&self, keys: &[ArrayRef]) -> Result<bool> {
        let pair = |(last, values): (&ArrayRef, &ArrayRef)| concat(&[last.as_ref(), values.slice(0, 1).as_ref()]);
        let pairs: Vec<ArrayRef> = self.last.iter().zip(keys).map(pair).collect::<Result<_, _>>()?;
        Ok(ranges(&pairs, 2)?.len() == 1)
    }
}

/// The runs of rows with equal keys.
fn ranges(keys: &[ArrayRef], rows: usize) -> Result<Vec<Range<usize>>> {
    match keys {
        [] => Ok(std::iter::once(0..rows).collect()),
        keys => Ok(partition(keys)?.ranges()),
    }
}
