//! `scaling`: what brings a column to a common scale.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Float64Array, StructArray};
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Documentation, Signature, Volatility};
use datafusion_macros::user_doc;

use super::sorted::{Sorted, check_number, constant};
use crate::kernels::robust::quantile;

/// See the documentation attribute.
#[user_doc(
    doc_section(label = "Statistical Functions"),
    description = "What brings a column to a common scale, learned from these values for `scale` to apply to the same or to others: a struct of center and width. 'standard' is the mean and the standard deviation of the population, 'min_max' the least value and what the greatest is above it, 'robust' the median and the distance between the quartiles (linear between neighbors), or, where that is 0, between the least and the greatest value. NULL without values. NULL and NaN are left out.",
    syntax_example = "scaling(value, method)",
    sql_example = r#"> SELECT item_id, scale(price, learned) AS price
FROM items CROSS JOIN (SELECT scaling(price, 'standard') AS learned FROM train_items);"#,
    argument(name = "value", description = "A number."),
    argument(name = "method", description = "'standard', 'min_max' or 'robust'; a constant.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Scaling {
    signature: Signature,
}

impl Default for Scaling {
    fn default() -> Self {
        Self { signature: Signature::any(2, Volatility::Immutable) }
    }
}

/// The fields of a scaling.
pub fn fields() -> Fields {
    Fields::from(vec![Field::new("center", DataType::Float64, true), Field::new("width", DataType::Float64, true)])
}

type Method = fn(&[f64]) -> (f64, f64);

const METHODS: [(&str, Method); 3] = [("standard", standard), ("min_max", min_max), ("robust", robust)];

fn standard(values: &[f64]) -> (f64, f64) {
    if values[0] == values[values.len() - 1] {
        // Exactly, where sums would be rounded.
        return (values[0], 0.0);
    }
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n).sqrt())
}

fn min_max(values: &[f64]) -> (f64, f64) {
    (values[0], values[values.len() - 1] - values[0])
}

fn robust(values: &[f64]) -> (f64, f64) {
    let quartiles = quantile(values, 0.75) - quantile(values, 0.25);
    // Most counts are 0 for most rows; a width of 0 would make them all equal.
    (quantile(values, 0.5), if quartiles > 0.0 { quartiles } else { min_max(values).1 })
}

impl AggregateUDFImpl for Scaling {
    fn name(&self) -> &str {
        "scaling"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        check_number("scaling", types)?;
        Ok(DataType::Struct(fields()))
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let given = constant(&args, 1, "scaling", "method")?;
        let named = given.try_as_str().flatten().and_then(|name| METHODS.iter().find(|(known, _)| *known == name));
        let Some((_, method)) = named else {
            return plan_err!("scaling: method must be standard, min_max or robust, not {given}");
        };
        Ok(Box::new(Sorted::new(args.is_distinct, |values| {
            if values.is_empty() {
                return ScalarValue::try_from(&DataType::Struct(fields()));
            }
            let (center, width) = method(values);
            let columns: Vec<ArrayRef> =
                [center, width].map(|number| Arc::new(Float64Array::from(vec![number])) as ArrayRef).to_vec();
            Ok(ScalarValue::Struct(Arc::new(StructArray::try_new(fields(), columns, None)?)))
        })))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(Sorted::state_fields(&args))
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}
