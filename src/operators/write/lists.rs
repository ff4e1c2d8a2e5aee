//! Lists of the best, which operators answer with: which tables hold them, and which of their columns have no dictionary.
//!
//! A dictionary is what Parquet writes by default: it looks each value up and writes its place. Nothing is gained by that for
//! scores, as hardly two are equal, and for ranks, which come again and again in the same order. Ids have theirs: those in whose
//! lists others are come in runs, and where those of candidates are large numbers, places take half the bytes.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::datasource::file_format::parquet::ParquetSink;
use datafusion::datasource::physical_plan::FileSink;
use datafusion::datasource::sink::DataSinkExec;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;

use super::list_sink::ListSink;
use super::{WriteExec, ids};
use crate::operators::exec::OperatorExec;

/// The columns of a table of lists that need no dictionary: a `score`, and beside it a `rank`. None if it has no lists.
pub fn dispensable(schema: &Schema) -> Vec<&str> {
    let kind = |name| schema.field_with_name(name).map(|field| field.data_type());
    if !kind("score").is_ok_and(DataType::is_floating) {
        return Vec::new();
    }
    match kind("rank").is_ok_and(DataType::is_integer) {
        true => vec!["score", "rank"],
        false => vec!["score"],
    }
}

/// Lets `COPY .. TO` Parquet files write lists by a [`ListSink`], without the dictionaries that are not needed unless options
/// speak of them; and operators whose lists are written hand out keys for ids.
#[derive(Debug)]
pub struct WriteLists;

impl WriteLists {
    fn instead_of(exec: &DataSinkExec) -> Option<Arc<dyn ExecutionPlan>> {
        let sink = exec.sink().downcast_ref::<ParquetSink>()?;
        let (config, options) = (sink.config(), sink.parquet_options());
        let columns = dispensable(config.output_schema());
        let plain = config.table_partition_cols.is_empty()
            && options.crypto == Default::default()
            && options.global.max_row_group_bytes.is_none()
            && !options.global.content_defined_chunking.enabled;
        // Tables with a declared order write it into their files, which only the sink itself knows.
        if columns.is_empty() || !plain || exec.sort_order().is_some() {
            return None;
        }
        let mut options = options.clone();
        for column in columns {
            options.column_specific_options.entry(column.into()).or_default().dictionary_enabled.get_or_insert(false);
        }
        let input = with_keys(exec.input()).unwrap_or_else(|| Arc::clone(exec.input()));
        let sink = ListSink::new(config.clone(), options);
        Some(Arc::new(DataSinkExec::new(input, Arc::new(sink), None)))
    }
}

/// A plan whose rows are those of an operator, with keys for ids; none if it is another one, or its ids are not written by key.
fn with_keys(plan: &Arc<dyn ExecutionPlan>) -> Option<Arc<dyn ExecutionPlan>> {
    if let Some(all) = plan.downcast_ref::<CoalescePartitionsExec>() {
        let keyed = CoalescePartitionsExec::new(with_keys(all.input())?).with_fetch(all.fetch());
        return Some(Arc::new(keyed));
    }
    let keyed = plan.downcast_ref::<OperatorExec>()?.with_keys()?;
    let same = |(plain, keyed): (&FieldRef, &FieldRef)| plain == keyed || ids::may_be(plain.data_type());
    let written = plan.schema().fields().iter().zip(keyed.schema().fields()).all(same);
    written.then(|| Arc::new(keyed) as Arc<dyn ExecutionPlan>)
}

impl PhysicalOptimizerRule for WriteLists {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            if let Some(sink) = plan.downcast_ref::<DataSinkExec>().and_then(Self::instead_of) {
                return Ok(Transformed::yes(sink));
            }
            match plan.downcast_ref::<WriteExec>().and_then(|write| write.with_keys(with_keys)) {
                Some(write) => Ok(Transformed::yes(Arc::new(write?))),
                None => Ok(Transformed::no(plan)),
            }
        })
        .data()
    }

    fn name(&self) -> &str {
        "write_lists"
    }

    fn schema_check(&self) -> bool {
        true
    }
}
