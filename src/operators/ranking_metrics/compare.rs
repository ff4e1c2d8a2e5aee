//! Two models on the same users: how much one is better, and whether that may be chance.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Float64Array, Int32Array, Int64Array, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::Result;
use statrs::distribution::{ContinuousCDF, StudentsT};
use statrs::function::beta::beta_reg;

use crate::kernels::ranking::{Mean, OF_LIST};

/// The columns of a comparison.
pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("model_a", DataType::Utf8, false),
        Field::new("model_b", DataType::Utf8, false),
        Field::new("metric", DataType::Utf8, false),
        Field::new("k", DataType::Int32, false),
        Field::new("users", DataType::Int64, false),
        Field::new("difference", DataType::Float64, true),
        Field::new("ci_low", DataType::Float64, true),
        Field::new("ci_high", DataType::Float64, true),
        Field::new("p_value", DataType::Float64, true),
    ]))
}

/// The metrics of each user, by model and k.
#[derive(Default)]
pub(super) struct Comparison {
    models: Vec<(String, Vec<Vec<[f64; 7]>>)>,
}

/// A paired test of one metric.
struct Test {
    users: u64,
    difference: Option<f64>,
    /// Half the width of the interval.
    margin: Option<f64>,
    p_value: Option<f64>,
}

impl Comparison {
    pub fn add(&mut self, model: &str, of_users: Vec<Vec<[f64; 7]>>) {
        self.models.push((model.to_owned(), of_users));
    }

    /// Every pair of models, in the order in which they were added.
    pub fn into_batch(self, ks: &[usize], schema: SchemaRef) -> Result<RecordBatch> {
        let (mut names, mut metrics, mut places) = (Vec::new(), Vec::new(), Vec::new());
        let mut tests = Vec::new();
        for (at, (a, of_a)) in self.models.iter().enumerate() {
            for (b, of_b) in &self.models[at + 1..] {
                for ((k, of_a), of_b) in ks.iter().zip(of_a).zip(of_b) {
                    for (metric, name) in OF_LIST.iter().enumerate() {
                        names.push((a.as_str(), b.as_str()));
                        metrics.push(*name);
                        places.push(*k as i32);
                        tests.push(test(of_a.iter().zip(of_b).map(|(a, b)| a[metric] - b[metric])));
                    }
                }
            }
        }
        let end = |sign: f64| {
            let ends = tests.iter().map(|test| Some(test.difference? + sign * test.margin?));
            Arc::new(Float64Array::from_iter(ends)) as ArrayRef
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(names.iter().map(|(a, _)| a))),
            Arc::new(StringArray::from_iter_values(names.iter().map(|(_, b)| b))),
            Arc::new(StringArray::from(metrics)),
            Arc::new(Int32Array::from(places)),
            Arc::new(Int64Array::from_iter_values(tests.iter().map(|test| test.users as i64))),
            Arc::new(Float64Array::from_iter(tests.iter().map(|test| test.difference))),
            end(-1.0),
            end(1.0),
            Arc::new(Float64Array::from_iter(tests.iter().map(|test| test.p_value))),
        ];
        Ok(RecordBatch::try_new(schema, columns)?)
    }
}

/// The paired t-test, two-sided: `t = mean / (s / sqrt(n))` with `n - 1` degrees of freedom.
fn test(differences: impl Iterator<Item = f64>) -> Test {
    let mut mean = Mean::default();
    differences.for_each(|difference| mean.add(difference));
    let (users, difference) = (mean.count(), mean.value());
    let Some((value, error)) = difference.zip(mean.error()) else {
        return Test { users, difference, margin: None, p_value: None };
    };
    let freedom = users as f64 - 1.0;
    let quantile = StudentsT::new(0.0, 1.0, freedom).map_or(f64::NAN, |t| t.inverse_cdf(0.975));
    // What rounding alone has made is no spread.
    let error = if error < 1e-12 * value.abs() { 0.0 } else { error };
    let p_value = match (error > 0.0, value == 0.0) {
        (true, _) => {
            let t = value / error;
            // The tail as an incomplete beta function, which stays exact where 1 - cdf has no digits left.
            Some(beta_reg(freedom / 2.0, 0.5, freedom / (freedom + t * t)))
        }
        // Alike for every user.
        (false, true) => Some(1.0),
        (false, false) => None,
    };
    Test { users, difference, margin: Some(quantile * error), p_value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_a_table_of_the_distribution_says() {
        // Mean 1 and deviation 1 of 3: with 2 degrees of freedom p is 1 - t / sqrt(t^2 + 2), and the 0.975 quantile 4.3026527.
        let found = test([1.0, 2.0, 0.0].into_iter());
        let t = 3f64.sqrt();
        assert_eq!((found.users, found.difference), (3, Some(1.0)));
        let p_value = 1.0 - t / (t * t + 2.0).sqrt();
        assert!((found.p_value.unwrap() - p_value).abs() < 1e-9, "{:?} {p_value}", found.p_value);
        assert!((found.margin.unwrap() - 4.302_652_729_911_275 / t).abs() < 1e-6, "{:?}", found.margin);
        let alike = test([0.0; 4].into_iter());
        assert_eq!((alike.difference, alike.margin, alike.p_value), (Some(0.0), Some(0.0), Some(1.0)));
        let one = test([0.3].into_iter());
        assert_eq!((one.difference, one.margin, one.p_value), (Some(0.3), None, None));
        assert_eq!(test([0.5; 3].into_iter()).p_value, None);
    }
}
