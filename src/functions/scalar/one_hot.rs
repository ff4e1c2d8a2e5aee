//! `one_hot`: a category as a vector.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, Float32Array, ListArray, StringArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::cast::{as_list_array, as_string_array};
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use datafusion_macros::user_doc;

use datafusion::arrow::buffer::{NullBuffer, OffsetBuffer};

/// See the documentation attribute.
#[user_doc(
    doc_section(label = "Array Functions"),
    description = "A category as a vector: 1 at the place of the value among the categories, 0 elsewhere; all 0 for a NULL or a value that is not among them. Learn categories on one table with `array_agg(DISTINCT column ORDER BY column)`, apply them to the same or to others. Vectors of several columns join with `array_concat`, weigh with `array_scale`, and feed `nearest`. For very many categories hash them: `one_hot(CAST(hash_uniform(brand) * 64 AS INT), range(64))`.",
    syntax_example = "one_hot(value, categories)",
    sql_example = r#"> SELECT one_hot('red', ['blue', 'green', 'red']);
[0.0, 0.0, 1.0]"#,
    argument(name = "value", description = "A value of any type that can be cast to text."),
    argument(name = "categories", description = "A list of the distinct values.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct OneHot {
    signature: Signature,
}

impl Default for OneHot {
    fn default() -> Self {
        Self { signature: Signature::any(2, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for OneHot {
    fn name(&self) -> &str {
        "one_hot"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        if types[0].is_nested() {
            return plan_err!("one_hot: value must be one value, not {}", types[0]);
        }
        if !types[1].is_null() && super::element_type(&types[1]) == types[1] {
            return plan_err!("one_hot: categories must be a list, not {}", types[1]);
        }
        Ok(DataType::List(Arc::new(Field::new_list_field(DataType::Float32, true))))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = args.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        // As categories are written: 1 is 1.0 among doubles.
        let element = super::element_type(arrays[1].data_type());
        let values = if element.is_null() { Arc::clone(&arrays[0]) } else { cast(&arrays[0], &element)? };
        let values = cast(&values, &DataType::Utf8)?;
        let values = as_string_array(&values)?;
        let lists = cast(&arrays[1], &DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))))?;
        let lists = as_list_array(&lists)?;
        let categories = as_string_array(lists.values())?;
        let mut lengths = Vec::with_capacity(lists.len());
        let mut numbers: Vec<f32> = Vec::new();
        // The categories are mostly the same on every row, and then the same slice or equal ones.
        let mut known: Option<(std::ops::Range<usize>, HashMap<&str, usize>)> = None;
        for row in 0..lists.len() {
            let list = lists.value_offsets()[row] as usize..lists.value_offsets()[row + 1] as usize;
            let same = |(other, _): &(std::ops::Range<usize>, _)| {
                other.len() == list.len()
                    && other.clone().zip(list.clone()).all(|(a, b)| text(categories, a) == text(categories, b))
            };
            if !known.as_ref().is_some_and(same) {
                let places = list.clone().filter_map(|at| Some((text(categories, at)?, at - list.start))).collect();
                known = Some((list.clone(), places));
            }
            let first = numbers.len();
            numbers.resize(first + list.len(), 0.0);
            let place =
                known.as_ref().filter(|_| values.is_valid(row)).and_then(|(_, places)| places.get(values.value(row)));
            if let Some(place) = place {
                numbers[first + place] = 1.0;
            }
            lengths.push(list.len());
        }
        let nulls: Option<NullBuffer> = lists.nulls().cloned();
        let field = Arc::new(Field::new_list_field(DataType::Float32, true));
        let vectors = ListArray::try_new(
            field,
            OffsetBuffer::from_lengths(lengths),
            Arc::new(Float32Array::from(numbers)),
            nulls,
        )?;
        super::result(Arc::new(vectors) as ArrayRef, scalar)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}

fn text(texts: &StringArray, at: usize) -> Option<&str> {
    texts.is_valid(at).then(|| texts.value(at))
}
