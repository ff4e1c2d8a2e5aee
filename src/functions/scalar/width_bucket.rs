//! `width_bucket`: the number of the bucket in which a value falls.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, Int32Array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::cast::{as_float64_array, as_list_array};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use datafusion_macros::user_doc;

/// See the documentation attribute.
#[user_doc(
    doc_section(label = "Math Functions"),
    description = "The number of the bucket in which a value falls, as in PostgreSQL: how many of the rising thresholds are at most the value, from 0 below the first to the number of thresholds. NULL where the value or the thresholds are NULL.",
    syntax_example = "width_bucket(value, thresholds)",
    sql_example = r#"> SELECT width_bucket(7, [0, 5, 10]);
2"#,
    argument(name = "value", description = "A number."),
    argument(name = "thresholds", description = "A list of rising numbers.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct WidthBucket {
    signature: Signature,
}

impl Default for WidthBucket {
    fn default() -> Self {
        Self { signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for WidthBucket {
    fn name(&self) -> &str {
        "width_bucket"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        if !(types[0].is_numeric() || types[0].is_null()) {
            return plan_err!("width_bucket: value must be a number, not {}", types[0]);
        }
        let element = super::element_type(&types[1]);
        let numbers = (types[1].is_null() || element != types[1]) && (element.is_numeric() || element.is_null());
        if !numbers {
            return plan_err!("width_bucket: thresholds must be a list of numbers, not {}", types[1]);
        }
        Ok(DataType::Int32)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = args.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let values = cast(&arrays[0], &DataType::Float64)?;
        let values = as_float64_array(&values)?;
        let lists = cast(&arrays[1], &DataType::List(Arc::new(Field::new_list_field(DataType::Float64, true))))?;
        let lists = as_list_array(&lists)?;
        let thresholds = as_float64_array(lists.values())?;
        let mut buckets = Vec::with_capacity(values.len());
        for row in 0..values.len() {
            if values.is_null(row) || lists.is_null(row) {
                buckets.push(None);
                continue;
            }
            let ends = &lists.value_offsets()[row..row + 2];
            let own = &thresholds.values()[ends[0] as usize..ends[1] as usize];
            if !own.is_sorted() || thresholds.slice(ends[0] as usize, own.len()).null_count() > 0 {
                return exec_err!("width_bucket: thresholds must rise and none be NULL");
            }
            buckets.push(Some(own.partition_point(|threshold| *threshold <= values.value(row)) as i32));
        }
        super::result(Arc::new(Int32Array::from(buckets)) as ArrayRef, scalar)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}
