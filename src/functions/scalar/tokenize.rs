//! `tokenize`: the words of a text.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, ListBuilder, StringBuilder};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field};
use datafusion::common::cast::as_string_array;
use datafusion::common::{Result, ScalarValue, exec_err, plan_err};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};
use datafusion_macros::user_doc;
use stop_words::{Language, get};

use crate::kernels::text;

/// See the documentation attribute.
#[user_doc(
    doc_section(label = "String Functions"),
    description = "The words of a text as a list, in the form that `normalize_text` gives them, repeated where the text repeats them. Scripts without spaces between words (Chinese, Japanese, Korean, Thai and their neighbors) give all pairs of characters that follow each other. With `ngrams` above 1, what stands together in up to so many tokens is added, joined by spaces, after stop words were left out. Unnested and counted it is what `neighbors` takes, with weighting => 'tfidf' or 'bm25'. NULL stays NULL.",
    syntax_example = "tokenize(text [, ngrams [, stop_words]])",
    sql_example = r#"> SELECT tokenize('The green tea, the BIG pack', 1, 'en');
[green, tea, pack]
> SELECT * FROM neighbors((SELECT item_id, unnest(tokenize(name, 2, 'en')) AS token FROM products), weighting => 'bm25');"#,
    argument(name = "text", description = "Text of any string type."),
    argument(
        name = "ngrams",
        description = "The most tokens that are taken together; a constant from 1 to 10. Default 1."
    ),
    argument(
        name = "stop_words",
        description = "Words that are left out: a language by its two letters, such as 'en', whose usual list is taken; or a list of words. A constant. Default none."
    )
)]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Tokenize {
    signature: Signature,
}

impl Default for Tokenize {
    fn default() -> Self {
        let counts = [1, 2, 3].map(TypeSignature::Any).to_vec();
        Self { signature: Signature::one_of(counts, Volatility::Immutable) }
    }
}

/// The languages that have a list of stop words.
const LANGUAGES: [(&str, Language); 20] = [
    ("ar", Language::Arabic),
    ("cs", Language::Czech),
    ("da", Language::Danish),
    ("de", Language::German),
    ("el", Language::Greek),
    ("en", Language::English),
    ("es", Language::Spanish),
    ("fi", Language::Finnish),
    ("fr", Language::French),
    ("hu", Language::Hungarian),
    ("it", Language::Italian),
    ("nl", Language::Dutch),
    ("no", Language::Norwegian),
    ("pl", Language::Polish),
    ("pt", Language::Portuguese),
    ("ro", Language::Romanian),
    ("ru", Language::Russian),
    ("sv", Language::Swedish),
    ("tr", Language::Turkish),
    ("uk", Language::Ukrainian),
];

impl ScalarUDFImpl for Tokenize {
    fn name(&self) -> &str {
        "tokenize"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match &types[0] {
            DataType::Dictionary(_, values) if values.is_string() => {}
            text if text.is_string() || text.is_null() => {}
            other => return plan_err!("tokenize: text must be a string, not {other}"),
        }
        if let Some(other) = types.get(1).filter(|ngrams| !ngrams.is_integer()) {
            return plan_err!("tokenize: ngrams must be a whole number, not {other}");
        }
        Ok(DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let ngrams = ngrams(args.args.get(1))?;
        let stop_words = stop_words(args.args.get(2))?;
        let scalar = matches!(args.args[0], ColumnarValue::Scalar(_));
        let texts = cast(&args.args[0].to_array(if scalar { 1 } else { args.number_rows })?, &DataType::Utf8)?;
        let mut lists = ListBuilder::new(StringBuilder::new());
        let mut form = String::new();
        for text in as_string_array(&texts)? {
            let Some(text) = text else {
                lists.append_null();
                continue;
            };
            text::normalize(text, &mut form);
            let mut tokens = Vec::new();
            text::tokens(&form, |token| tokens.push(token));
            tokens.retain(|token| !stop_words.contains(*token));
            for n in 1..=ngrams.min(tokens.len()) {
                tokens.windows(n).for_each(|gram| lists.values().append_value(gram.join(" ")));
            }
            lists.append(true);
        }
        super::result(Arc::new(lists.finish()) as ArrayRef, scalar)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.doc()
    }
}

fn ngrams(given: Option<&ColumnarValue>) -> Result<usize> {
    let Some(given) = given else {
        return Ok(1);
    };
    let ColumnarValue::Scalar(value) = given else {
        return exec_err!("tokenize: ngrams must be a constant from 1 to 10");
    };
    match value.cast_to(&DataType::Int64)? {
        ScalarValue::Int64(Some(ngrams @ 1..=10)) => Ok(ngrams as usize),
        _ => exec_err!("tokenize: ngrams must be a constant from 1 to 10, not {value}"),
    }
}

/// The words that are left out, in the form of tokens.
fn stop_words(given: Option<&ColumnarValue>) -> Result<HashSet<String>> {
    let words: Vec<String> = match given {
        None => return Ok(HashSet::new()),
        Some(ColumnarValue::Scalar(value)) => match (value.try_as_str().flatten(), value) {
            (Some(language), _) => match LANGUAGES.iter().find(|(known, _)| *known == language) {
                Some((_, language)) => get(*language).iter().map(|word| (*word).to_owned()).collect(),
                None => {
                    let known: Vec<&str> = LANGUAGES.iter().map(|(known, _)| *known).collect();
                    return exec_err!(
                        "tokenize: there are no stop words of '{language}'; there are those of {}",
                        known.join(", ")
                    );
                }
            },
            (None, ScalarValue::List(list)) if list.values().is_empty() => Vec::new(),
            (None, ScalarValue::List(list)) if list.value_type().is_string() => {
                let words = cast(list.values(), &DataType::Utf8)?;
                words.as_string::<i32>().iter().flatten().map(str::to_owned).collect()
            }
            _ => return exec_err!("tokenize: stop_words must be a language such as 'en', or a list of words"),
        },
        Some(ColumnarValue::Array(_)) => return exec_err!("tokenize: stop_words must be a constant"),
    };
    let mut forms = HashSet::new();
    for word in words {
        let mut form = String::new();
        text::normalize(&word, &mut form);
        text::tokens(&form, |token| forms.extend([token.to_owned()]));
    }
    Ok(forms)
}
