//! `lakeside.toml`.

use std::collections::BTreeMap;
use std::path::Path;

use datafusion::common::ScalarValue;
use serde::Deserialize;

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
    /// A table of which `run` shows the first rows at its end.
    pub show: Option<String>,
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    show: Option<String>,
    lake: LakeConfig,
    #[serde(default)]
    sources: BTreeMap<String, Source>,
    #[serde(default)]
    vars: BTreeMap<String, toml::Value>,
}

impl Config {
    /// Reads the file; `overrides` are `name=value`, each for a variable that the file sets.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(|e| Error::Io(path.display().to_string(), e))?;
        let file: File = toml::from_str(&text).map_err(|e| {
            let line = e.span().map(|span| text[..span.start].matches('\n').count() + 1);
            Error::project(path, line, e.message())
        })?;
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
        Ok(Self { name: file.name, lake: file.lake, sources: file.sources, vars, show: file.show, text })
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
        return Err(Error::Usage(format!("--var {name}: the project has no such variable{near}; it has {set}")));
    }
    let parsed: Option<toml::Table> = toml::from_str(&format!("value = {value}")).ok();
    let parsed = parsed.and_then(|table| scalar(table.get("value")?));
    Ok((name.to_owned(), parsed.unwrap_or_else(|| ScalarValue::from(value))))
}
