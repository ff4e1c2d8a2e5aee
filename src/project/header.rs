//! The comment lines at the top of a step's file.

use std::path::Path;

use crate::error::{Error, Result};
use crate::operators::arguments::nearest;

/// The keys that a header may have.
const KEYS: [&str; 5] = ["grain", "key", "check", "materialize", "partition_by"];

/// What a step's header says.
#[derive(Debug, Clone, Default)]
pub struct Header {
    /// The free text.
    pub description: String,
    /// What one row is, in words.
    pub grain: Option<String>,
    /// Columns that are not NULL and together unique, with the line that says so.
    pub key: Option<(Vec<String>, usize)>,
    /// Conditions that hold on every row, each with its line.
    pub checks: Vec<(String, usize)>,
    /// Columns by whose values the files are put into folders.
    pub partition_by: Vec<String>,
    view: bool,
}

impl Header {
    /// Whether the step is a view: planned where it is used, never written.
    pub fn is_view(&self) -> bool {
        self.view
    }

    /// Reads the comment lines before the query.
    pub fn read(file: &Path, sql: &str) -> Result<Self> {
        let mut header = Self::default();
        let mut text = Vec::new();
        let mut seen: Vec<String> = Vec::new();
        for (at, line) in sql.lines().enumerate() {
            let Some(comment) = line.trim().strip_prefix("--") else {
                if line.trim().is_empty() {
                    continue;
                }
                break;
            };
            match key_and_value(comment.trim()) {
                Some((key, _)) if key != "check" && seen.iter().any(|known| known == key) => {
                    let message = format!("header key '{key}' stands twice; a step has one");
                    return Err(Error::project(file, Some(at + 1), message));
                }
                Some((key, value)) => {
                    seen.push(key.to_owned());
                    header.set(file, at + 1, key, value)?;
                }
                None => text.push(comment.trim()),
            }
        }
        header.description = text.join(" ").trim().to_owned();
        if let (true, Some((_, line))) = (header.view, &header.key) {
            return Err(Error::project(
                file,
                Some(*line),
                "a view is not written, so its key cannot be tested; drop one of the two",
            ));
        }
        if let (true, Some((_, line))) = (header.view, header.checks.first()) {
            return Err(Error::project(
                file,
                Some(*line),
                "a view is not written, so it cannot be checked; drop one of the two",
            ));
        }
        Ok(header)
    }

    fn set(&mut self, file: &Path, line: usize, key: &str, value: &str) -> Result<()> {
        let is_list = matches!(key, "key" | "partition_by");
        if value.is_empty() || (is_list && columns(value).is_empty()) {
            return Err(Error::project(file, Some(line), format!("header key '{key}' has no value")));
        }
        match key {
            "grain" => self.grain = Some(value.to_owned()),
            "key" => self.key = Some((columns(value), line)),
            "check" => self.checks.push((value.to_owned(), line)),
            "partition_by" => self.partition_by = columns(value),
            "materialize" => match value {
                "parquet" => self.view = false,
                "view" => self.view = true,
                other => {
                    return Err(Error::project(
                        file,
                        Some(line),
                        format!("materialize is '{other}'; allowed are parquet, view"),
                    ));
                }
            },
            unknown => {
                let near = nearest(unknown, &KEYS).map_or(String::new(), |near| format!(", did you mean '{near}'?"));
                return Err(Error::project(
                    file,
                    Some(line),
                    format!(
                        "unknown header key '{unknown}'{near}; known are {}. Free text must not look like `word: ..`",
                        KEYS.join(", ")
                    ),
                ));
            }
        }
        Ok(())
    }
}

fn columns(list: &str) -> Vec<String> {
    list.split(',').map(|column| column.trim().to_owned()).filter(|column| !column.is_empty()).collect()
}

/// `word: value`, where the word is lower case; everything else is free text.
fn key_and_value(comment: &str) -> Option<(&str, &str)> {
    let (key, value) = comment.split_once(':')?;
    let is_word = !key.is_empty() && key.chars().all(|c| c.is_ascii_lowercase() || c == '_');
    (is_word && (value.is_empty() || value.starts_with(' '))).then(|| (key, value.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_keys_and_text() {
        let sql = "-- Purchases: with refunds removed.\n-- grain: one row per line\n-- key: a, b\n\n-- check: q > 0\nSELECT 1 -- key: x\n";
        let header = Header::read(Path::new("x.sql"), sql).unwrap();
        assert_eq!(header.description, "Purchases: with refunds removed.");
        assert_eq!(header.key, Some((vec!["a".to_owned(), "b".to_owned()], 3)));
        assert_eq!(header.checks, [("q > 0".to_owned(), 5)]);
    }

    #[test]
    fn an_unknown_key_is_an_error_with_its_line() {
        let error = Header::read(Path::new("x.sql"), "-- text\n-- chek: q > 0\nSELECT 1").unwrap_err().to_string();
        assert!(error.starts_with("x.sql:2: unknown header key 'chek', did you mean 'check'?"), "{error}");
    }
}
