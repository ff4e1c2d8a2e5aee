//! `array_pearson`: the correlation of two lists of numbers.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, Float64Array, ListArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::cast::{as_float64_array, as_list_array};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use datafusion_macros::user_doc;

use crate::kernels::lists;

/// See the documentation attribute.
#[user_doc(
    doc_section(label = "Array Functions"),
    description = "Pearson's correlation of two lists of numbers of equal length, over the places where both have a value: sum (x - mean x)(y - mean y) / sqrt(sum (x - mean x)^2 sum (y - mean y)^2), from -1 to 1. NULL with fewer than two such places, or where one of the lists is constant. Lists of different length are an error.",
    syntax_example = "array_pearson(array1, array2)",
    sql_example = r#"> SELECT array_pearson([1, 2, 3, 4], [1, 3, 2, 4]);
0.8"#,
    argument(name = "array1", description = "A list of numbers."),
    argument(name = "array2", description = "A list of numbers of the same length.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ArrayPearson {
    signature: Signature,
}

impl Default for ArrayPearson {
    fn default() -> Self {
        Self { signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for ArrayPearson {
    fn name(&self) -> &str {
        "array_pearson"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        super::check_lists(self.name(), types)?;
        for element in types.iter().map(super::element_type) {
            if !(element.is_numeric() || element.is_null()) {
                return plan_err!("array_pearson: the lists must hold numbers, not {element}");
            }
        }
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = args.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let numbers = DataType::List(Arc::new(Field::new("item", DataType::Float64, true)));
        let (x, y) = (cast(&arrays[0], &numbers)?, cast(&arrays[1], &numbers)?);
        let (x, y) = (as_list_array(&x)?, as_list_array(&y)?);
        let correlations: Vec<Option<f64>> = (0..x.len()).map(|row| correlation(x, y, row)).collect::<Result<_>>()?;
        super::result(Arc::new(Float64Array::from(correlations)) as ArrayRef, scalar)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}

fn correlation(x: &ListArray, y: &ListArray, row: usize) -> Result<Option<f64>> {
    if x.is_null(row) || y.is_null(row) {
        return Ok(None);
    }
    let (x, y) = (x.value(row), y.value(row));
    if x.len() != y.len() {
        return exec_err!(
            "array_pearson: the lists have {} and {} values; they must have the same length",
            x.len(),
            y.len()
        );
    }
    let (x, y) = (as_float64_array(&x)?, as_float64_array(&y)?);
    Ok(lists::pearson(x.iter().zip(y).filter_map(|(x, y)| x.zip(y))))
}
