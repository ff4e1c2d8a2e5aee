//! `hash_uniform`: a number that looks random and never changes, for splits and samples.

use std::hash::Hasher;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, Float64Array};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, cast::as_binary_array};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDFImpl, Signature, Volatility,
};
use datafusion_macros::user_doc;
use twox_hash::XxHash64;

/// See the documentation attribute.
#[user_doc(
    doc_section(label = "Hashing Functions"),
    description = "A number in [0, 1) that looks random but is always the same for the same values, on every machine: XXH64 of the values' text. For splits and samples that stay put when rows are added. NULL is a value like any other. Give a word of your own as one of the values to get another split.",
    syntax_example = "hash_uniform(value [, value ..])",
    sql_example = r#"> SELECT user_id FROM users WHERE hash_uniform(user_id, 'holdout') < 0.1;"#,
    argument(name = "value", description = "Values of any type that can be cast to text.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct HashUniform {
    signature: Signature,
}

impl Default for HashUniform {
    fn default() -> Self {
        Self { signature: Signature::variadic_any(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for HashUniform {
    fn name(&self) -> &str {
        "hash_uniform"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = args.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let mut hashes = vec![XxHash64::with_seed(0); arrays.first().map_or(0, |array| array.len())];
        for array in &arrays {
            // Bytes are hashed as they are, everything else as its text.
            let text = if array.data_type().is_binary() { Arc::clone(array) } else { cast(array, &DataType::Utf8)? };
            let bytes = cast(&text, &DataType::Binary)?;
            for (hash, value) in hashes.iter_mut().zip(as_binary_array(&bytes)?) {
                // A byte that text cannot hold marks what stands before: a value, or NULL.
                hash.write(value.unwrap_or_default());
                hash.write(&[if value.is_some() { 0xff } else { 0xfe }]);
            }
        }
        // The upper 53 bits fill the mantissa of a double.
        let uniform = |hash: XxHash64| (hash.finish() >> 11) as f64 / (1u64 << 53) as f64;
        let values = Float64Array::from_iter_values(hashes.into_iter().map(uniform));
        super::result(Arc::new(values) as ArrayRef, scalar)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}
