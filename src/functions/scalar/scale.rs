//! `scale`: a value on a common scale.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, Float64Array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::cast::{as_float64_array, as_struct_array};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use datafusion_macros::user_doc;

use crate::functions::aggregate::scaling::fields;

/// See the documentation attribute.
#[user_doc(
    doc_section(label = "Statistical Functions"),
    description = "A value on the scale that `scaling` has learned: (value - center) / width, and 0 where all learned values were equal, so that the width is 0. NULL where the value or the scaling is NULL.",
    syntax_example = "scale(value, scaling)",
    sql_example = r#"> SELECT item_id, scale(price, learned) AS price
FROM items CROSS JOIN (SELECT scaling(price, 'robust') AS learned FROM train_items);"#,
    argument(name = "value", description = "A number."),
    argument(name = "scaling", description = "What `scaling` gives: a struct of center and width.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Scale {
    signature: Signature,
}

impl Default for Scale {
    fn default() -> Self {
        Self { signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Scale {
    fn name(&self) -> &str {
        "scale"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        if !(types[0].is_numeric() || types[0].is_null()) {
            return plan_err!("scale: value must be a number, not {}", types[0]);
        }
        match &types[1] {
            DataType::Null => Ok(DataType::Float64),
            DataType::Struct(given)
                if given.len() == 2 && given.iter().zip(&fields()).all(|(a, b)| a.name() == b.name()) =>
            {
                Ok(DataType::Float64)
            }
            other => plan_err!(
                "scale: scaling must be what the function scaling gives, a struct of center and width, not {other}"
            ),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = args.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let values = cast(&arrays[0], &DataType::Float64)?;
        let values = as_float64_array(&values)?;
        if arrays[1].data_type().is_null() {
            let nothing = Float64Array::from(vec![None; values.len()]);
            return super::result(Arc::new(nothing) as ArrayRef, scalar);
        }
        let learned = as_struct_array(&arrays[1])?;
        let [centers, widths] = [0, 1].map(|at| cast(learned.column(at), &DataType::Float64));
        let (centers, widths) = (centers?, widths?);
        let (centers, widths) = (as_float64_array(&centers)?, as_float64_array(&widths)?);
        let scaled = |row: usize| {
            let known = values.is_valid(row) && learned.is_valid(row) && centers.is_valid(row) && widths.is_valid(row);
            let width = widths.value(row);
            known.then(|| if width == 0.0 { 0.0 } else { (values.value(row) - centers.value(row)) / width })
        };
        let scaled = Float64Array::from_iter((0..values.len()).map(scaled));
        super::result(Arc::new(scaled) as ArrayRef, scalar)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}
