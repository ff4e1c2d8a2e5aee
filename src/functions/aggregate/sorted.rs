//! What aggregates share that look at all values at once, in order: so the answer does not depend on the order of rows.

use std::mem::size_of_val;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, Float64Array, ListArray};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::cast::{as_float64_array, as_list_array};
use datafusion::common::{Result, ScalarValue, plan_err};
use datafusion::logical_expr::Accumulator;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::physical_expr::expressions::Literal;

/// Values as they come, for what is made of them when all are there, sorted. NULL and NaN are left out.
pub struct Sorted {
    values: Vec<f64>,
    distinct: bool,
    finish: Box<Finish>,
}

/// What is made of sorted values.
type Finish = dyn Fn(&[f64]) -> Result<ScalarValue> + Send + Sync;

impl std::fmt::Debug for Sorted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Sorted({} values)", self.values.len())
    }
}

impl Sorted {
    /// Ends with `finish`, of equal values of one where only distinct ones count.
    pub fn new(distinct: bool, finish: impl Fn(&[f64]) -> Result<ScalarValue> + Send + Sync + 'static) -> Self {
        Self { values: Vec::new(), distinct, finish: Box::new(finish) }
    }

    /// The columns in which partial aggregates go from one stage to the next.
    pub fn state_fields(args: &StateFieldsArgs) -> Vec<FieldRef> {
        let values = Arc::new(Field::new("item", DataType::Float64, true));
        vec![Arc::new(Field::new(format!("{}[values]", args.name), DataType::List(values), true))]
    }

    fn add(&mut self, values: &Float64Array) {
        self.values.extend(values.iter().flatten().filter(|value| !value.is_nan()));
    }
}

impl Accumulator for Sorted {
    fn update_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        self.add(as_float64_array(&cast(&columns[0], &DataType::Float64)?)?);
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let lists = as_list_array(&states[0])?;
        for row in (0..lists.len()).filter(|&row| lists.is_valid(row)) {
            self.add(as_float64_array(&lists.value(row))?);
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![list(std::mem::take(&mut self.values))?])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.values.sort_unstable_by(f64::total_cmp);
        if self.distinct {
            self.values.dedup();
        }
        (self.finish)(&self.values)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.values.capacity() * size_of::<f64>()
    }
}

/// A list of numbers as one value.
pub fn list(values: Vec<f64>) -> Result<ScalarValue> {
    let offsets = OffsetBuffer::from_lengths([values.len()]);
    let field = Arc::new(Field::new("item", DataType::Float64, true));
    Ok(ScalarValue::List(Arc::new(ListArray::try_new(field, offsets, Arc::new(Float64Array::from(values)), None)?)))
}

/// The constant that an argument must be.
pub fn constant(args: &AccumulatorArgs, at: usize, function: &str, name: &str) -> Result<ScalarValue> {
    match args.exprs.get(at).and_then(|expr| expr.downcast_ref::<Literal>()) {
        Some(literal) => Ok(literal.value().clone()),
        None => plan_err!("{function}: {name} must be a constant"),
    }
}

/// Fails where the first argument is no number.
pub fn check_number(function: &str, types: &[DataType]) -> Result<()> {
    match &types[0] {
        data_type if data_type.is_numeric() || data_type.is_null() => Ok(()),
        other => plan_err!("{function}: value must be a number, not {other}"),
    }
}
