//! The shell of `lakeside sql`.

use std::borrow::Cow;
use std::path::PathBuf;

use datafusion::logical_expr::registry::FunctionRegistry;
use rustyline::completion::{Completer, Pair};
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Editor, Helper, Hinter};

use super::output::Format;
use super::sql::Place;
use crate::error::{Error, Result};

const KEYWORDS: [&str; 32] = [
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP BY",
    "ORDER BY",
    "HAVING",
    "LIMIT",
    "JOIN",
    "LEFT JOIN",
    "ON",
    "USING",
    "WITH",
    "AS",
    "AND",
    "OR",
    "NOT",
    "IN",
    "IS NULL",
    "BETWEEN",
    "LIKE",
    "CASE",
    "WHEN",
    "THEN",
    "ELSE",
    "END",
    "DISTINCT",
    "UNION ALL",
    "DESCRIBE",
    "SHOW TABLES",
    "EXPLAIN",
    "EXPLAIN ANALYZE",
    "COPY",
];

const TABLES: &str =
    "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY table_name";

const HELP: &str = "Statements end with a semicolon and may span lines. Tab completes tables, functions and keywords.
  \\d         list the tables          \\d TABLE   show the columns of a table
  \\h         this help                \\q         leave (or Ctrl-D)
Ctrl-C stops a query that runs.";

/// Reads statements from the terminal until it is left.
pub(super) async fn shell(place: &Place, format: Format) -> Result<()> {
    let mut editor: Editor<SqlHelper, _> = Editor::new().map_err(terminal)?;
    editor.set_helper(Some(SqlHelper { words: words(place).await }));
    let history = history_file();
    if let Some(file) = &history {
        // The first shell has no history yet.
        let _ = editor.load_history(file);
    }
    eprintln!("lakeside {}; \\h for help", env!("CARGO_PKG_VERSION"));
    loop {
        let line = match editor.readline("lakeside> ") {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(e) => return Err(terminal(e)),
        };
        if line.trim().is_empty() {
            continue;
        }
        let _ = editor.add_history_entry(line.as_str());
        match line.trim() {
            "\\q" | "exit" | "quit" => break,
            "\\h" | "\\?" | "help" => eprintln!("{HELP}"),
            "\\d" => report(run(place, TABLES, format).await),
            command if command.starts_with("\\d ") => {
                let table = command[3..].trim().trim_end_matches(';');
                report(run(place, &format!("DESCRIBE {table}"), format).await);
            }
            command if command.starts_with('\\') => eprintln!("error: no command '{command}'; \\h for help"),
            sql => report(run(place, sql, format).await),
        }
    }
    if let Some(file) = &history {
        save_history(&mut editor, file);
    }
    Ok(())
}

fn save_history(editor: &mut Editor<SqlHelper, rustyline::history::FileHistory>, file: &std::path::Path) {
    let saved = file.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(|e| e.to_string());
    if let Err(e) = saved.and_then(|()| editor.save_history(file).map_err(|e| e.to_string())) {
        eprintln!("warning: the history was not saved to {}: {e}", file.display());
    }
}

fn terminal(error: ReadlineError) -> Error {
    Error::Io("the terminal".to_owned(), std::io::Error::other(error))
}

fn report(result: Result<()>) {
    if let Err(error) = result {
        eprintln!("error: {error}");
    }
}

/// Runs statements; Ctrl-C drops them, which cancels what they do.
async fn run(place: &Place, sql: &str, format: Format) -> Result<()> {
    let start = std::time::Instant::now();
    tokio::select! {
        result = place.run(sql, format) => {
            result?;
            eprintln!("{:.2} s", start.elapsed().as_secs_f64());
            Ok(())
        }
        _ = tokio::signal::ctrl_c() => {
            place.engine.cancel().await;
            Err(Error::Steps("cancelled".to_owned()))
        }
    }
}

fn history_file() -> Option<PathBuf> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from).or_else(home)?;
    Some(state.join("lakeside/history"))
}

/// What Tab completes to.
async fn words(place: &Place) -> Vec<String> {
    let mut words: Vec<String> = KEYWORDS.map(str::to_owned).to_vec();
    if let Some(project) = &place.project {
        words.extend(project.config.sources.keys().cloned());
        words.extend(project.graph.steps().iter().map(|step| step.name.clone()));
    }
    words.extend(crate::operators::ALL.map(|operator| operator.name().to_owned()));
    let state = place.session.context().state();
    words.extend(state.udfs().into_iter().chain(state.udafs()).filter(|name| name.len() > 2));
    words.sort();
    words.dedup();
    words
}

#[derive(Helper, Hinter)]
struct SqlHelper {
    words: Vec<String>,
}

impl Completer for SqlHelper {
    type Candidate = Pair;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        let start = line[..at].char_indices().rev().take_while(|(_, c)| is_part(*c)).last().map_or(at, |(i, _)| i);
        let begun = line[start..at].to_lowercase();
        if begun.is_empty() {
            return Ok((start, Vec::new()));
        }
        let fits = self.words.iter().filter(|word| word.to_lowercase().starts_with(&begun));
        Ok((start, fits.map(|word| Pair { display: word.clone(), replacement: word.clone() }).collect()))
    }
}

impl Highlighter for SqlHelper {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        Cow::Borrowed(prompt)
    }
}

impl Validator for SqlHelper {
    fn validate(&self, context: &mut ValidationContext) -> rustyline::Result<ValidationResult> {
        let text = context.input().trim();
        let complete = text.is_empty()
            || text.starts_with('\\')
            || text.ends_with(';')
            || ["exit", "quit", "help"].contains(&text);
        Ok(if complete { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustyline::history::DefaultHistory;

    fn helper() -> SqlHelper {
        SqlHelper { words: ["FROM", "neighbors", "normalize_text", "recommendations"].map(str::to_owned).to_vec() }
    }

    #[test]
    fn tab_completes_the_word_at_the_cursor() {
        let history = DefaultHistory::new();
        let complete = |line: &str| {
            let (start, found) = helper().complete(line, line.len(), &Context::new(&history)).unwrap();
            (start, found.into_iter().map(|pair| pair.replacement).collect::<Vec<_>>())
        };
        assert_eq!(complete("SELECT * fr"), (9, vec!["FROM".to_owned()]));
        assert_eq!(complete("FROM n"), (5, vec!["neighbors".to_owned(), "normalize_text".to_owned()]));
        assert_eq!(complete("FROM recommendations, n").0, 22);
        assert_eq!(complete("SELECT "), (7, vec![]));
    }
}
