//! `quantiles`: thresholds between buckets of about as many values.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Documentation, Signature, Volatility};
use datafusion_macros::user_doc;

use super::sorted::{Sorted, check_number, constant, list};
use crate::kernels::robust::quantile;

/// See the documentation attribute.
#[user_doc(
    doc_section(label = "Statistical Functions"),
    description = "The thresholds that cut values into buckets of about as many, learned from these values for `width_bucket` to apply to the same or to others: the quantiles 1/n, 2/n .. (n-1)/n, exact and linear between neighbors; equal ones once, so there may be fewer. NULL without values. NULL and NaN are left out.",
    syntax_example = "quantiles(value, n)",
    sql_example = r#"> SELECT item_id, width_bucket(price, learned) AS price_class
FROM items CROSS JOIN (SELECT quantiles(price, 10) AS learned FROM train_items);"#,
    argument(name = "value", description = "A number."),
    argument(name = "n", description = "The number of buckets, from 2 to 100000; a constant.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Quantiles {
    signature: Signature,
}

impl Default for Quantiles {
    fn default() -> Self {
        Self { signature: Signature::any(2, Volatility::Immutable) }
    }
}

fn data_type() -> DataType {
    DataType::List(Arc::new(Field::new("item", DataType::Float64, true)))
}

impl AggregateUDFImpl for Quantiles {
    fn name(&self) -> &str {
        "quantiles"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        check_number("quantiles", types)?;
        Ok(data_type())
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let given = constant(&args, 1, "quantiles", "n")?;
        let whole = given.data_type().is_integer();
        let n = match given.cast_to(&DataType::Int64) {
            Ok(ScalarValue::Int64(Some(n @ 2..=100_000))) if whole => n,
            _ => return plan_err!("quantiles: n must be a whole number from 2 to 100000, not {given}"),
        };
        Ok(Box::new(Sorted::new(args.is_distinct, move |values| {
            if values.is_empty() {
                return ScalarValue::try_from(&data_type());
            }
            let mut thresholds: Vec<f64> = (1..n).map(|at| quantile(values, at as f64 / n as f64)).collect();
            thresholds.dedup();
            list(thresholds)
        })))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(Sorted::state_fields(&args))
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}
