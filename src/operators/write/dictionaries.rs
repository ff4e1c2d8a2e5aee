//! Columns of Parquet files that have no dictionary.
//!
//! A dictionary is what Parquet writes by default: it looks each value up and writes its place. Nothing is gained by that for
//! some columns of the lists of the best that operators answer with. Hardly two scores are equal. Ranks come again and again in
//! the same order, and the ids of those whose lists they are in runs, of which compression leaves next to nothing. Ids of
//! candidates keep theirs: where they are large numbers, places take half the bytes.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::datasource::file_format::parquet::ParquetSink;
use datafusion::datasource::physical_plan::FileSink;
use datafusion::datasource::sink::DataSinkExec;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;

/// The columns of a table that need no dictionary: a `score`, and beside it a `rank` and the first column if it holds numbers.
pub fn dispensable(schema: &Schema) -> Vec<&str> {
    let kind = |name| schema.field_with_name(name).map(|field| field.data_type());
    if !kind("score").is_ok_and(DataType::is_floating) {
        return Vec::new();
    }
    if !kind("rank").is_ok_and(DataType::is_integer) {
        return vec!["score"];
    }
    let first = schema.fields().first().filter(|field| field.data_type().is_numeric());
    first.map(|field| field.name().as_str()).into_iter().chain(["score", "rank"]).collect()
}

/// Lets `COPY .. TO` a Parquet file do without the dictionaries that are not needed, unless its options speak of them.
#[derive(Debug)]
pub struct OmitDictionaries;

impl OmitDictionaries {
    fn instead_of(exec: &DataSinkExec) -> Option<Arc<dyn ExecutionPlan>> {
        let sink = exec.sink().downcast_ref::<ParquetSink>()?;
        let columns = dispensable(sink.config().output_schema());
        // Tables with a declared order write it into their files, which only the sink itself knows.
        if columns.is_empty() || exec.sort_order().is_some() {
            return None;
        }
        let mut options = sink.parquet_options().clone();
        for column in columns {
            options.column_specific_options.entry(column.into()).or_default().dictionary_enabled.get_or_insert(false);
        }
        let sink = ParquetSink::new(sink.config().clone(), options);
        Some(Arc::new(DataSinkExec::new(Arc::clone(exec.input()), Arc::new(sink), None)))
    }
}

impl PhysicalOptimizerRule for OmitDictionaries {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            let omitting = plan.downcast_ref::<DataSinkExec>().and_then(Self::instead_of);
            Ok(omitting.map_or(Transformed::no(plan), Transformed::yes))
        })
        .data()
    }

    fn name(&self) -> &str {
        "omit_dictionaries"
    }

    fn schema_check(&self) -> bool {
        true
    }
}
