//! The SQL files of a project: one file, one query, one table.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use datafusion::common::DataFusionError;

use super::header::Header;
use crate::error::{self, Error, Result};
use crate::operators::ALL;
use crate::session::Session;
use crate::session::statement::Statement;

/// One step.
#[derive(Debug, Clone)]
pub struct Step {
    /// The table it makes: the stem of its file.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// What its header says.
    pub header: Header,
    /// Its query.
    pub statement: Statement,
    /// The text of the file.
    pub sql: String,
}

impl Step {
    /// An engine's error in this step, with the line where it is known.
    pub fn error(&self, error: &DataFusionError) -> Error {
        located(&self.file, &self.sql, error)
    }

    /// The first line outside of comments that names a word.
    pub fn line_naming(&self, word: &str) -> Option<usize> {
        line_naming(&self.sql, word)
    }
}

fn line_naming(sql: &str, word: &str) -> Option<usize> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let names = |line: &str| {
        let code = line.split("--").next().unwrap_or("");
        code.match_indices(word).any(|(at, _)| {
            let before = code[..at].chars().next_back();
            let after = code[at + word.len()..].chars().next();
            !before.is_some_and(is_part) && !after.is_some_and(is_part)
        })
    };
    sql.lines().position(names).map(|at| at + 1)
}

/// An engine's error in a file, with the line that it tells, or else that of the variable or operator that it names.
fn located(file: &Path, sql: &str, error: &DataFusionError) -> Error {
    let message = error::explain(error);
    let variable = || message.strip_prefix("variable '")?.split('\'').next();
    let operator = || ALL.iter().map(|operator| operator.name()).find(|name| message.starts_with(name));
    let told = error::position(error).map(|(line, _)| line);
    let line = told.or_else(|| line_naming(sql, variable().or_else(operator)?));
    Error::project(file, line, message)
}

/// Reads all SQL files below the folder, in the order of their paths.
pub fn discover(root: &Path, session: &Session) -> Result<Vec<Step>> {
    let mut files = Vec::new();
    sql_files(root, &mut files)?;
    files.sort();
    let mut seen: BTreeMap<String, PathBuf> = BTreeMap::new();
    let mut steps = Vec::new();
    for file in files {
        let step = read(&file, session)?;
        if let Some(other) = seen.insert(step.name.clone(), file.clone()) {
            let message =
                format!("'{}' makes the table '{}' as well; rename one of the two files", other.display(), step.name);
            return Err(Error::project(file, None, message));
        }
        steps.push(step);
    }
    if steps.is_empty() {
        return Err(Error::project(
            root.join(super::FILE),
            None,
            "the project has no .sql files; a step is a file with one query",
        ));
    }
    Ok(steps)
}

fn sql_files(folder: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    let problem = |e| Error::Io(folder.display().to_string(), e);
    for entry in std::fs::read_dir(folder).map_err(problem)? {
        let path = entry.map_err(problem)?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        match path {
            _ if hidden => {}
            path if path.is_dir() => sql_files(&path, files)?,
            path if path.extension().is_some_and(|ending| ending == "sql") => files.push(path),
            _ => {}
        }
    }
    Ok(())
}

fn read(file: &Path, session: &Session) -> Result<Step> {
    let sql = std::fs::read_to_string(file).map_err(|e| Error::Io(file.display().to_string(), e))?;
    // Some editors put a byte order mark first.
    let sql = sql.trim_start_matches('\u{feff}').to_owned();
    let name = file.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let is_word = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if !is_word {
        let message = "the file's name is the table's name; it must begin with a letter and hold only a-z, 0-9 and _";
        return Err(Error::project(file, None, message));
    }
    let header = Header::read(file, &sql)?;
    let mut statements = session.parse(&sql).map_err(|e| located(file, &sql, &e))?;
    match (statements.pop(), statements.is_empty()) {
        (Some(statement), true) if statement.is_query() => {
            Ok(Step { name, file: file.to_owned(), header, statement, sql })
        }
        (Some(_), true) => {
            Err(Error::project(file, None, "a step is one query (SELECT .. or WITH ..); this is another statement"))
        }
        (None, _) => Err(Error::project(file, None, "the file holds no query")),
        _ => Err(Error::project(
            file,
            None,
            "a step is one query, and one file one table; this file holds several statements",
        )),
    }
}
