//! `vector_mean`: the weighted mean of vectors.

use std::mem::size_of_val;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Float32Array, ListArray};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Float32Type, Float64Type};
use datafusion::common::cast::{as_binary_array, as_list_array};
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::{Accumulator, AggregateUDFImpl, Documentation, Signature, TypeSignature, Volatility};
use datafusion_macros::user_doc;

use crate::functions::scalar::element_type;

/// See the documentation attribute.
#[user_doc(
    doc_section(label = "Array Functions"),
    description = "The mean of vectors, number by number, such as a user's profile from the vectors of the user's items: sum(weight * vector) / sum(abs(weight)). The same, bit for bit, for any order of rows: products are summed in steps of 2^-60, and must stay below 1e20. NULL without vectors, or where all weights are 0. Rows with a NULL are left out.",
    syntax_example = "vector_mean(vector [, weight])",
    sql_example = r#"> SELECT user_id, vector_mean(vector, weight) AS vector FROM interactions JOIN item_vectors USING (item_id) GROUP BY user_id;"#,
    argument(name = "vector", description = "A list of numbers, of one length in each group."),
    argument(name = "weight", description = "A number. Default 1.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct VectorMean {
    signature: Signature,
}

impl Default for VectorMean {
    fn default() -> Self {
        let counts = vec![TypeSignature::Any(1), TypeSignature::Any(2)];
        Self { signature: Signature::one_of(counts, Volatility::Immutable) }
    }
}

fn vectors() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(DataType::Float32, true)))
}

impl AggregateUDFImpl for VectorMean {
    fn name(&self) -> &str {
        "vector_mean"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        if !matches!(
            types[0],
            DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) | DataType::Null
        ) {
            return plan_err!("vector_mean: vector must be a list of numbers, not {}", types[0]);
        }
        match element_type(&types[0]) {
            element if element.is_numeric() || element.is_null() => {}
            other => return plan_err!("vector_mean: vector must be a list of numbers, not of {other}"),
        }
        match types.get(1) {
            Some(weight) if !(weight.is_numeric() || weight.is_null()) => {
                plan_err!("vector_mean: weight must be a number, not {weight}")
            }
            _ => Ok(vectors()),
        }
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return plan_err!("vector_mean: DISTINCT is not possible; select distinct rows in a subquery");
        }
        Ok(Box::new(Sums { weighted: args.exprs.len() > 1, sums: Vec::new() }))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        Ok(vec![Arc::new(Field::new(format!("{}[sums]", args.name), DataType::Binary, true))])
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}

/// Steps in which sums are counted: in these the order of summands does not show.
const STEPS: f64 = (1u64 << 60) as f64;
/// Beyond this, sums of many products could leave 128 bits.
const LARGEST: f64 = 1e20;

fn steps(number: f64) -> Result<i128> {
    // Not so for NaN.
    match number.abs() < LARGEST {
        true => Ok((number * STEPS) as i128),
        false => exec_err!("vector_mean: a product of weight and number is {number}; it must stay below 1e20"),
    }
}

#[derive(Debug)]
struct Sums {
    /// Whether the second column is the weight: it may be what rows are ordered by.
    weighted: bool,
    /// The sum of weights, then those of the numbers; empty before the first vector.
    sums: Vec<i128>,
}

impl Sums {
    fn add(&mut self, others: impl ExactSizeIterator<Item = Result<i128>>) -> Result<()> {
        if self.sums.is_empty() {
            self.sums.resize(others.len(), 0);
        }
        if self.sums.len() != others.len() {
            let (a, b) = (self.sums.len() - 1, others.len() - 1);
            return exec_err!("vector_mean: vectors of {a} and of {b} numbers; they must be as many");
        }
        for (sum, other) in self.sums.iter_mut().zip(others) {
            let Some(added) = sum.checked_add(other?) else {
                return exec_err!("vector_mean: sums leave the range of 1e20; scale weights or vectors down");
            };
            *sum = added;
        }
        Ok(())
    }
}

impl Accumulator for Sums {
    fn update_batch(&mut self, columns: &[ArrayRef]) -> Result<()> {
        let lists = cast(&columns[0], &vectors())?;
        let lists = as_list_array(&lists)?;
        let weights =
            columns.get(1).filter(|_| self.weighted).map(|weights| cast(weights, &DataType::Float64)).transpose()?;
        let weights = weights.as_ref().map(|weights| weights.as_primitive::<Float64Type>());
        for row in 0..lists.len() {
            if lists.is_null(row) || weights.is_some_and(|weights| weights.is_null(row)) {
                continue;
            }
            let vector = lists.value(row);
            let vector = vector.as_primitive::<Float32Type>();
            if vector.null_count() > 0 {
                return exec_err!("vector_mean: a vector has a NULL in it");
            }
            let weight = weights.map_or(1.0, |weights| weights.value(row));
            let numbers = vector.values();
            self.add((0..numbers.len() + 1).map(|at| match at.checked_sub(1) {
                None => steps(weight.abs()),
                Some(at) => steps(weight * f64::from(numbers[at])),
            }))?;
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let states: &BinaryArray = as_binary_array(&states[0])?;
        for state in states.iter().flatten().filter(|state| !state.is_empty()) {
            let (sums, _) = state.as_chunks::<16>();
            self.add(sums.iter().map(|bytes| Ok(i128::from_le_bytes(*bytes))))?;
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Ok(vec![ScalarValue::Binary(Some(self.sums.iter().flat_map(|sum| sum.to_le_bytes()).collect()))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let Some((&weights, sums)) = self.sums.split_first().filter(|(weights, _)| **weights != 0) else {
            return ScalarValue::try_from(&vectors());
        };
        let means: Float32Array = sums.iter().map(|&sum| Some((sum as f64 / weights as f64) as f32)).collect();
        let field = Arc::new(Field::new_list_field(DataType::Float32, true));
        let offsets = OffsetBuffer::from_lengths([means.len()]);
        Ok(ScalarValue::List(Arc::new(ListArray::try_new(field, offsets, Arc::new(means), None)?)))
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.sums.capacity() * size_of::<i128>()
    }
}
