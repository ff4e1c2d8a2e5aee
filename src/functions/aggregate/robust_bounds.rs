//! `robust_bounds`: limits beyond which a value is an outlier.

use std::mem::size_of_val;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, Float64Array, ListArray, StructArray};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Fields};
use datafusion::common::cast::{as_float64_array, as_list_array};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Documentation, Signature, Volatility};
use datafusion_macros::user_doc;

use crate::kernels::robust;

/// See the documentation attribute.
#[user_doc(
    doc_section(label = "Statistical Functions"),
    description = "Limits beyond which a value is an outlier, which outliers cannot move: median -/+ width * 1.4826 * MAD, where MAD is the median absolute deviation from the median (Iglewicz and Hoaglin 1993). Where more than half of the values are equal, so that the MAD is 0, 1.2533 times the mean absolute deviation stands for 1.4826 * MAD. Returns a struct with the fields lower and upper; NULL without values. NULL and NaN are left out.",
    syntax_example = "robust_bounds(value, width)",
    sql_example = r#"> SELECT robust_bounds(price, 3.5)['upper'] FROM sales;"#,
    argument(name = "value", description = "A number."),
    argument(
        name = "width",
        description = "How many robust standard deviations are still normal; a constant above 0. 3.5 is usual."
    )
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct RobustBounds {
    signature: Signature,
}

impl Default for RobustBounds {
    fn default() -> Self {
        Self { signature: Signature::any(2, Volatility::Immutable) }
    }
}

fn fields() -> Fields {
    Fields::from(vec![Field::new("lower", DataType::Float64, true), Field::new("upper", DataType::Float64, true)])
}

impl AggregateUDFImpl for RobustBounds {
    fn name(&self) -> &str {
        "robust_bounds"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        for (name, data_type) in ["value", "width"].iter().zip(types) {
            if !(data_type.is_numeric() || data_type.is_null()) {
                return plan_err!("robust_bounds: {name} must be a number, not {data_type}");
            }
        }
        Ok(DataType::Struct(fields()))
    }

    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        Ok(Box::new(Values::default()))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let values = Field::new("item", DataType::Float64, true);
        Ok(vec![
            Arc::new(Field::new(format!("{}[values]", args.name), DataType::List(Arc::new(values)), true)),
            Arc::new(Field::new(format!("{}[width]", args.name), DataType::Float64, true)),
        ])
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}

#[derive(Debug, Default)]
struct Values {
    values: Vec<f64>,
    width: Option<f64>,
}

impl Values {
    fn add(&mut self, values: &Float64Array) {
        self.values.extend(values.iter().flatten().filter(|value| !value.is_nan()));
    }

    fn set_width(&mut self, widths: &Float64Array) -> Result<()> {
        for width in widths.iter().flatten() {
            if !(width > 0.0 && width.is_finite()) {
                return exec_err!("robust_bounds: width is {width}; it must be above 0");
            }
            if self.width.is_some_and(|known| known != width) {
                return exec_err!("robust_bounds: width must be the same on every row");
            }
            self.width = Some(width);
        }
        Ok(())
    }
}

impl Accumulator for Values {
    fn update_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        let values = cast(&columns[0], &DataType::Float64)?;
        self.add(as_float64_array(&values)?);
        let widths = cast(&columns[1], &DataType::Float64)?;
        self.set_width(as_float64_array(&widths)?)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let lists = as_list_array(&states[0])?;
        for row in (0..lists.len()).filter(|&row| lists.is_valid(row)) {
            self.add(as_float64_array(&lists.value(row))?);
        }
        self.set_width(as_float64_array(&states[1])?)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let values = std::mem::take(&mut self.values);
        let offsets = OffsetBuffer::from_lengths([values.len()]);
        let field = Arc::new(Field::new("item", DataType::Float64, true));
        let list = ListArray::try_new(field, offsets, Arc::new(Float64Array::from(values)), None)?;
        Ok(vec![ScalarValue::List(Arc::new(list)), ScalarValue::Float64(self.width)])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        // As a running window it is asked again and again, so the values must stay as they are.
        let mut values = self.values.clone();
        let bounds = self.width.and_then(|width| robust::bounds(&mut values, width));
        let Some((lower, upper)) = bounds else {
            return ScalarValue::try_from(&DataType::Struct(fields()));
        };
        let columns: Vec<ArrayRef> =
            vec![Arc::new(Float64Array::from(vec![lower])), Arc::new(Float64Array::from(vec![upper]))];
        Ok(ScalarValue::Struct(Arc::new(StructArray::try_new(fields(), columns, None)?)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.capacity() * size_of::<f64>()
    }
}
