//! What can fail, told to the user: what happened, where, what is allowed, what to do next.

use std::path::PathBuf;

use datafusion::common::DataFusionError;

/// A failure of a command. Its kind decides the exit code.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The command was used wrongly: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// Something in the project's files is wrong.
    #[error("{}{}: {message}", file.display(), line.map_or(String::new(), |line| format!(":{line}")))]
    Project {
        /// The file.
        file: PathBuf,
        /// The line, from 1, where one is known.
        line: Option<usize>,
        /// What is wrong with it.
        message: String,
    },
    /// A query, a lake or a store failed.
    #[error("{}", explain(.0))]
    Engine(#[from] DataFusionError),
    /// Steps failed; each was reported when it did.
    #[error("{0}")]
    Steps(String),
    /// A file or the terminal could not be read or written.
    #[error("{0}: {1}")]
    Io(String, #[source] std::io::Error),
}

/// The result of everything above the engine.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// The exit code of a process that ends with this error.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            _ => 1,
        }
    }

    /// The same error once more, for another step that it stops.
    pub fn same(&self) -> Self {
        match self {
            Self::Project { file, line, message } => Self::project(file, *line, message.as_str()),
            other => Self::Steps(other.to_string()),
        }
    }

    /// An error in a file of the project.
    pub fn project(file: impl Into<PathBuf>, line: Option<usize>, message: impl Into<String>) -> Self {
        Self::Project { file: file.into(), line, message: message.into() }
    }
}

/// An engine's error in words: contexts first, the cause last, without the names of error kinds.
pub fn explain(error: &DataFusionError) -> String {
    match error {
        DataFusionError::Context(context, inner) => format!("{context}: {}", explain(inner)),
        DataFusionError::Diagnostic(_, inner) => explain(inner),
        DataFusionError::Shared(inner) => explain(inner),
        DataFusionError::Collection(errors) if !errors.is_empty() => {
            errors.iter().map(explain).collect::<Vec<_>>().join("; ")
        }
        DataFusionError::ResourcesExhausted(message) => {
            format!("memory ran out: {}; give more with --memory-limit, or use fewer --threads", plain(message))
        }
        DataFusionError::ArrowError(inner, _) => inner.to_string(),
        DataFusionError::ParquetError(inner) => inner.to_string(),
        DataFusionError::ObjectStore(inner) => inner.to_string(),
        DataFusionError::IoError(inner) => inner.to_string(),
        DataFusionError::External(inner) => match inner.downcast_ref::<DataFusionError>() {
            Some(inner) => explain(inner),
            None => inner.to_string(),
        },
        other => plain(&other.strip_backtrace()),
    }
}

const KINDS: [&str; 8] = [
    "Error during planning: ",
    "Execution error: ",
    "Schema error: ",
    "SQL error: ",
    "Invalid or Unsupported Configuration: ",
    "Arrow error: ",
    "External error: ",
    "Resources exhausted: ",
];

fn plain(message: &str) -> String {
    let mut text = message;
    while let Some(rest) = KINDS.iter().find_map(|kind| text.strip_prefix(kind)) {
        text = rest;
    }
    // The catalog and schema that every table is in say nothing to the user.
    let text = text.trim_end().replace("datafusion.public.", "");
    let text = text.as_str();
    match text.strip_prefix("ParserError(\"").and_then(|rest| rest.strip_suffix("\")")) {
        Some(inner) => inner.to_owned(),
        None => text.to_owned(),
    }
}

/// Where in a statement an error is, as line and column from 1, if it tells.
pub fn position(error: &DataFusionError) -> Option<(usize, usize)> {
    if let Some(span) = error.diagnostic().and_then(|diagnostic| diagnostic.span) {
        return Some((span.start.line as usize, span.start.column as usize));
    }
    // The parser tells it in words only.
    let message = error.to_string();
    let number_after = |word: &str| -> Option<usize> {
        let rest = &message[message.rfind(word)? + word.len()..];
        rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().ok()
    };
    number_after("Line: ").zip(number_after("Column: "))
}
