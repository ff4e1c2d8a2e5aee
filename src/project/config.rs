//! `lakeside.toml`.

use std::collections::BTreeMap;
use std::path::Path;

use datafusion::common::ScalarValue;
use serde::Deserialize;
use serde_with::{OneOrMany, serde_as};

use crate::error::{Error, Result};
use crate::operators::arguments::nearest;

/// What `lakeside.toml` says, with `--var` applied.
#[derive(Debug)]
pub struct Config {
    /// The project's name.
    pub name: String,
    /// Where its tables go.
    pub lake: LakeConfig,
    /// Where its inputs come from, by name.
    pub sources: BTreeMap<String, Source>,
    /// The variables of its SQL.
    pub vars: BTreeMap<String, ScalarValue>,
    /// The tables of which `run` shows the first rows at its end.
    pub show: Vec<String>,
    /// What `tune` tries.
    pub tune: Tune,
    text: String,
}

/// `[lake]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LakeConfig {
    /// A path relative to the file, or a URL.
    pub url: String,
}

/// `[sources.NAME]`
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// A file, a folder or a glob; a path relative to `lakeside.toml`, or a URL.
    pub url: String,
}

#[serde_as]
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    /// One, or a list of them.
    #[serde_as(as = "OneOrMany<_>")]
    #[serde(default)]
    show: Vec<String>,
    lake: LakeConfig,
    #[serde(default)]
    sources: BTreeMap<String, Source>,
    #[serde(default)]
    vars: BTreeMap<String, toml::Value>,
    #[serde(default)]
    tune: TuneFile,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct TuneFile {
    objective: Option<String>,
    #[serde(default)]
    vary: BTreeMap<String, toml::Value>,
    #[serde(default)]
    folds: BTreeMap<String, toml::Value>,
}

/// `[tune]`
#[derive(Debug, Default)]
pub struct Tune {
    /// A query for the value of a trial.
    pub objective: Option<String>,
    /// The variables that are varied, and their values.
    pub vary: BTreeMap<String, Values>,
    /// The variables that make folds, and their values.
    pub folds: BTreeMap<String, Values>,
}

/// Values of a variable, of one type.
#[derive(Debug, Clone, PartialEq)]
pub struct Values(pub Vec<ScalarValue>);

impl Values {
    /// Each value once; whole numbers beside others become such. None where types differ, or nothing is there.
    fn of_one_type(values: Vec<ScalarValue>) -> Option<Self> {
        let fractions = values.iter().any(|value| matches!(value, ScalarValue::Float64(_)));
        let widened = |value: ScalarValue| match value {
            ScalarValue::Int64(Some(number)) if fractions => ScalarValue::from(number as f64),
            other => other,
        };
        let mut distinct: Vec<ScalarValue> = Vec::new();
        for value in values.into_iter().map(widened) {
            if !distinct.contains(&value) {
                distinct.push(value);
            }
        }
        let values = distinct;
        let first = values.first()?.data_type();
        values.iter().all(|value| value.data_type() == first).then_some(Self(values))
    }

    fn of_toml(value: &toml::Value) -> Option<Self> {
        Self::of_one_type(value.as_array()?.iter().map(scalar).collect::<Option<_>>()?)
    }
}

/// `--vary name=value,value`: each value is what it would be in TOML, else a string.
pub fn parse_values(setting: &str) -> Result<(String, Values)> {
    let parsed = setting.split_once('=').and_then(|(name, list)| {
        let values = list.split(',').map(|value| parse_value(value.trim())).collect();
        Some((name.to_owned(), Values::of_one_type(values)?))
    });
    parsed.ok_or_else(|| Error::Usage(format!("'{setting}': write name=value,value with values of one type")))
}

/// A `name=value` setting that gives a variable this value.
pub fn setting(name: &str, value: &ScalarValue) -> String {
    match value {
        ScalarValue::Utf8(Some(text)) => format!("{name}={}", toml::Value::String(text.clone())),
        // With its point, so that it stays a fraction.
        ScalarValue::Float64(Some(number)) => format!("{name}={number:?}"),
        other => format!("{name}={other}"),
    }
}

/// The settings of the `[vars]` of a file.
pub fn settings_of(path: &Path) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Vars {
        vars: BTreeMap<String, toml::Value>,
    }
    let text = std::fs::read_to_string(path).map_err(|e| Error::Io(path.display().to_string(), e))?;
    let file: Vars = toml::from_str(&text).map_err(|e| toml_error(path, &text, &e))?;
    Ok(file.vars.iter().map(|(name, value)| format!("{name}={value}")).collect())
}

fn toml_error(path: &Path, text: &str, error: &toml::de::Error) -> Error {
    let line = error.span().map(|span| text[..span.start].matches('\n').count() + 1);
    Error::project(path, line, error.message())
}

impl Config {
    /// Reads the file; `overrides` are `name=value`, each for a variable that the file sets.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::Io(path.display().to_string(), e))?;
        let file: File = toml::from_str(&text).map_err(|e| toml_error(path, &text, &e))?;
        let mut vars = BTreeMap::new();
        for (name, value) in file.vars {
            let Some(value) = scalar(&value) else {
                let line = line_of(&text, &name);
                return Err(Error::project(
                    path,
                    line,
                    format!("variable '{name}' must be a number, a string, true or false"),
                ));
            };
            vars.insert(name, value);
        }
        for setting in overrides {
            let (name, value) = parse_override(setting, &vars)?;
            vars.insert(name, value);
        }
        let values = |of: BTreeMap<String, toml::Value>| {
            let checked = of.into_iter().map(|(name, value)| {
                let wrong =
                    |message| Error::project(path, line_of(&text, "[tune"), format!("variable '{name}' {message}"));
                if !vars.contains_key(&name) {
                    return Err(wrong("is tuned, but [vars] does not set it"));
                }
                let values = Values::of_toml(&value).ok_or_else(|| wrong("needs a list of values of one type"))?;
                Ok((name, values))
            });
            checked.collect::<Result<BTreeMap<_, _>>>()
        };
        let TuneFile { objective, vary, folds } = file.tune;
        let tune = Tune { objective, vary: values(vary)?, folds: values(folds)? };
        Ok(Self { name: file.name, lake: file.lake, sources: file.sources, vars, show: file.show, tune, text })
    }

    /// The line on which a source is set.
    pub fn source_line(&self, name: &str) -> Option<usize> {
        line_of(&self.text, &format!("[sources.{name}]"))
    }

    /// The line on which a key is set.
    pub fn line_of(&self, key: &str) -> Option<usize> {
        line_of(&self.text, key)
    }
}

fn line_of(text: &str, start: &str) -> Option<usize> {
    text.lines().position(|line| line.trim_start().starts_with(start)).map(|at| at + 1)
}

fn scalar(value: &toml::Value) -> Option<ScalarValue> {
    match value {
        toml::Value::Integer(number) => Some(ScalarValue::from(*number)),
        toml::Value::Float(number) => Some(ScalarValue::from(*number)),
        toml::Value::Boolean(flag) => Some(ScalarValue::from(*flag)),
        toml::Value::String(text) => Some(ScalarValue::from(text.as_str())),
        _ => None,
    }
}

/// `--var name=value`: the value is what it would be in TOML, else a string.
fn parse_override(setting: &str, known: &BTreeMap<String, ScalarValue>) -> Result<(String, ScalarValue)> {
    let Some((name, value)) = setting.split_once('=') else {
        return Err(Error::Usage(format!("--var {setting}: write --var name=value")));
    };
    if !known.contains_key(name) {
        let names: Vec<&str> = known.keys().map(String::as_str).collect();
        let near = nearest(name, &names).map_or(String::new(), |near| format!(", did you mean '{near}'?"));
        let set = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        return Err(Error::Usage(format!("the project has no variable '{name}'{near}; it has {set}")));
    }
    Ok((name.to_owned(), parse_value(value)))
}

/// What a text would be in TOML, else a string.
fn parse_value(text: &str) -> ScalarValue {
    let parsed: Option<toml::Table> = toml::from_str(&format!("value = {text}")).ok();
    parsed.and_then(|table| scalar(table.get("value")?)).unwrap_or_else(|| ScalarValue::from(text))
}
