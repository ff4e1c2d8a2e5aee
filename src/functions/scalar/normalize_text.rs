//! `normalize_text`: text brought to one form for comparing.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, StringBuilder};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::Result;
use datafusion::common::cast::as_string_array;
use datafusion::common::types::logical_string;
use datafusion::logical_expr::{
    Coercion, ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDFImpl, Signature, TypeSignatureClass,
    Volatility,
};
use datafusion_macros::user_doc;

use crate::kernels::text;
use crate::kernels::texts::Texts;

/// See the documentation attribute.
#[user_doc(
    doc_section(label = "String Functions"),
    description = "Text in one form, so that equal things compare equal: compatibility forms folded (NFKC), accents dropped, lower case, everything but letters and digits of any script turned into single spaces, none at the ends; apostrophes close up. NULL stays NULL; text without letters and digits becomes the empty string.",
    syntax_example = "normalize_text(text)",
    sql_example = r#"> SELECT normalize_text('  Crème-BRÛLÉE ');
creme brulee"#,
    argument(name = "text", description = "Text of any string type.")
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct NormalizeText {
    signature: Signature,
}

impl Default for NormalizeText {
    fn default() -> Self {
        let string = Coercion::new_exact(TypeSignatureClass::Native(logical_string()));
        Self { signature: Signature::coercible(vec![string], Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for NormalizeText {
    fn name(&self) -> &str {
        "normalize_text"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = matches!(args.args[0], ColumnarValue::Scalar(_));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let strings = datafusion::arrow::compute::cast(&arrays[0], &DataType::Utf8)?;
        let strings = as_string_array(&strings)?;
        let mut builder = StringBuilder::with_capacity(strings.len(), strings.value_data().len());
        // Columns that want this repeat themselves, and to find a text again costs a tenth of bringing it to its form.
        let mut texts = Texts::default();
        let values: Vec<&str> = strings.iter().flatten().collect();
        let mut numbers = texts.intern(values.iter().map(|value| value.as_bytes())).into_iter();
        let mut forms: Vec<String> = Vec::new();
        for value in strings {
            let (Some(value), Some(number)) = (value, value.and_then(|_| numbers.next())) else {
                builder.append_null();
                continue;
            };
            let number = number as usize;
            if number == forms.len() {
                let mut form = String::new();
                text::normalize(value, &mut form);
                forms.push(form);
            }
            builder.append_value(&forms[number]);
        }
        super::result(Arc::new(builder.finish()) as ArrayRef, scalar)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}
