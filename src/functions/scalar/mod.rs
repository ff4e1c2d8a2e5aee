//! Functions of one row.

pub mod array_jaccard;
pub mod array_pearson;
pub mod hash_uniform;
pub mod normalize_text;
pub mod one_hot;
pub mod scale;
pub mod tokenize;
pub mod width_bucket;

use datafusion::arrow::array::{Array, ArrayRef};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::ColumnarValue;

/// One value where all arguments were one value, else a column.
fn result(values: ArrayRef, scalar: bool) -> Result<ColumnarValue> {
    Ok(match scalar && values.len() == 1 {
        true => ColumnarValue::Scalar(ScalarValue::try_from_array(&values, 0)?),
        false => ColumnarValue::Array(values),
    })
}

fn check_lists(function: &str, types: &[DataType]) -> Result<()> {
    for (at, data_type) in types.iter().enumerate() {
        let is_list = matches!(
            data_type,
            DataType::List(_)
                | DataType::LargeList(_)
                | DataType::FixedSizeList(_, _)
                | DataType::ListView(_)
                | DataType::Null
        );
        if !is_list {
            return plan_err!("{function}: argument {} must be a list, not {data_type}", at + 1);
        }
    }
    Ok(())
}

/// The type of a list's elements.
pub fn element_type(list: &DataType) -> DataType {
    match list {
        DataType::List(field)
        | DataType::LargeList(field)
        | DataType::FixedSizeList(field, _)
        | DataType::ListView(field) => field.data_type().clone(),
        other => other.clone(),
    }
}
