//! `array_jaccard`: how alike two lists are as sets.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, Float64Array, ListArray};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::arrow::row::{OwnedRow, RowConverter, SortField};
use datafusion::common::cast::as_list_array;
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use datafusion_macros::user_doc;

use crate::kernels::lists;

/// See the documentation attribute.
#[user_doc(
    doc_section(label = "Array Functions"),
    description = "How alike two lists are as sets: the number of distinct values in both over the number in either, from 0 to 1. NULL elements are left out; two empty lists give NULL.",
    syntax_example = "array_jaccard(array1, array2)",
    sql_example = r#"> SELECT array_jaccard(['milk', 'bread'], ['milk', 'eggs', 'tea']);
0.25"#,
    argument(name = "array1", description = "A list of any comparable type."),
    argument(name = "array2", description = "A list of the same type.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ArrayJaccard {
    signature: Signature,
}

impl Default for ArrayJaccard {
    fn default() -> Self {
        Self { signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for ArrayJaccard {
    fn name(&self) -> &str {
        "array_jaccard"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        super::check_lists(self.name(), types)?;
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = args.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let element =
            common_type(&super::element_type(arrays[0].data_type()), &super::element_type(arrays[1].data_type()))?;
        let list = DataType::List(Arc::new(Field::new("item", element.clone(), true)));
        let strict = CastOptions { safe: false, ..CastOptions::default() };
        let (a, b) = (cast_with_options(&arrays[0], &list, &strict)?, cast_with_options(&arrays[1], &list, &strict)?);
        let (a, b) = (as_list_array(&a)?, as_list_array(&b)?);
        let converter = RowConverter::new(vec![SortField::new(element)])?;
        let mut values = Vec::with_capacity(a.len());
        for row in 0..a.len() {
            values.push(match (set(&converter, a, row)?, set(&converter, b, row)?) {
                (Some(a), Some(b)) => lists::jaccard(&a, &b),
                _ => None,
            });
        }
        super::result(Arc::new(Float64Array::from(values)) as ArrayRef, scalar)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}

/// The distinct values of a list, sorted.
fn set(converter: &RowConverter, lists: &ListArray, row: usize) -> Result<Option<Vec<OwnedRow>>> {
    if lists.is_null(row) {
        return Ok(None);
    }
    let values = lists.value(row);
    let rows = converter.convert_columns(std::slice::from_ref(&values))?;
    let mut set: Vec<OwnedRow> =
        (0..values.len()).filter(|&at| values.is_valid(at)).map(|at| rows.row(at).owned()).collect();
    set.sort_unstable();
    set.dedup();
    Ok(Some(set))
}

fn common_type(a: &DataType, b: &DataType) -> Result<DataType> {
    use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
    match comparison_coercion(a, b) {
        Some(common) => Ok(common),
        None => plan_err!("array_jaccard: lists of {a} and of {b} cannot be compared"),
    }
}
