//! `lakeside sql`

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use clap::Args;
use indicatif::{ProgressBar, ProgressFinish};

use super::limits::{Engine, LimitArgs};
use super::output::{Format, print};
use super::shell;
use super::variables::VariableArgs;
use crate::error::{Error, Result};
use crate::operators::arguments::nearest;
use crate::project::{self, Project};
use crate::session::Session;
use crate::session::statement::Statement;

/// Ask the project's sources and tables, or files named in the query
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  lakeside sql -c 'SELECT * FROM recommendations LIMIT 5'
  lakeside sql -c \"SELECT count(*) FROM 's3://bucket/events/*.parquet'\" --format csv
  lakeside sql            (a shell; statements end with a semicolon)")]
pub(super) struct SqlArgs {
    /// Statements to run, separated by semicolons
    #[arg(short, long, value_name = "SQL", conflicts_with = "file", allow_hyphen_values = true)]
    command: Option<String>,
    /// A file of statements; - is stdin
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The folder of lakeside.toml [default: . or ./sql, if it has one]
    #[arg(long, value_name = "DIR")]
    project: Option<PathBuf>,
    /// How results are written
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
    #[command(flatten)]
    variables: VariableArgs,
    #[command(flatten)]
    pub(super) limits: LimitArgs,
}

/// Where queries run: in a project if there is one.
pub(super) struct Place {
    pub(super) session: Session,
    pub(super) project: Option<Project>,
    pub(super) engine: Engine,
}

pub(super) async fn sql(args: &SqlArgs) -> Result<()> {
    let place = Place::open(args).await?;
    let text = match (&args.command, &args.file) {
        (Some(text), _) => text.clone(),
        (None, Some(file)) if file.as_os_str() == "-" => stdin()?,
        (None, Some(file)) => {
            std::fs::read_to_string(file).map_err(|e| Error::Usage(format!("-f {}: {e}", file.display())))?
        }
        (None, None) if std::io::stdin().is_terminal() => return shell::shell(&place, args.format).await,
        (None, None) => stdin()?,
    };
    let terminal = std::io::stderr().is_terminal();
    tokio::select! {
        () = place.engine.watch(terminal.then(line)) => Ok(()),
        done = place.run(&text, args.format) => done,
        _ = tokio::signal::ctrl_c() => {
            place.engine.cancel().await;
            Err(Error::Steps("stopped".to_owned()))
        }
    }
}

/// A line on the terminal that goes when it is done.
fn line() -> ProgressBar {
    ProgressBar::new_spinner().with_finish(ProgressFinish::AndClear)
}

fn stdin() -> Result<String> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|e| Error::Io("reading stdin".to_owned(), e))?;
    Ok(text)
}

impl Place {
    async fn open(args: &SqlArgs) -> Result<Self> {
        let root = match (project::find(args.project.as_deref()), &args.project) {
            (Ok(root), _) => Some(root),
            (Err(error), Some(_)) => return Err(error),
            (Err(_), None) if args.variables.is_empty() => None,
            (Err(error), None) => return Err(error),
        };
        let engine = args.limits.engine().await?;
        match root {
            Some(root) => {
                let (project, problem) = Project::read_for_queries(&root, &engine.limits, &args.variables.settings()?)?;
                if let Some(problem) = problem {
                    eprintln!("warning: {problem}");
                }
                // What a user types is relative to where the user is, not to the project.
                let here = std::path::Path::new("");
                Ok(Self { session: project.session.at(here), project: Some(project), engine })
            }
            None => Ok(Self { session: Session::try_new(&engine.limits, Default::default())?, project: None, engine }),
        }
    }

    /// Runs statements one after the other and writes the result of each.
    pub(super) async fn run(&self, text: &str, format: Format) -> Result<()> {
        let statements = self.session.parse(text).map_err(|e| located(text, &e))?;
        if format == Format::Parquet && statements.iter().filter(|statement| statement.is_query()).count() > 1 {
            return Err(Error::Usage("--format parquet writes one file, so it takes one query".to_owned()));
        }
        for statement in statements {
            let frame = self.plan(statement, text).await?;
            let columns = frame.schema().fields().len();
            match columns {
                // Statements such as CREATE VIEW answer with nothing.
                0 => drop(frame.collect().await?),
                _ => drop(print(frame, format).await?),
            }
        }
        Ok(())
    }

    async fn plan(&self, statement: Statement, text: &str) -> Result<datafusion::dataframe::DataFrame> {
        if let Some(project) = &self.project {
            project.provide(&statement).await?;
        }
        self.session.query(statement).await.map_err(|e| match located(text, &e) {
            Error::Steps(message) => Error::Steps(self.suggest(message)),
            other => other,
        })
    }

    /// Adds to a message about a table that is not there the name most like it.
    fn suggest(&self, message: String) -> String {
        let missing = message.split_once("table '").and_then(|(_, rest)| rest.split_once("' not found"));
        let (Some((name, _)), Some(project)) = (missing, &self.project) else {
            return message;
        };
        let steps = project.graph.steps().iter().map(|step| step.name.as_str());
        let known: Vec<&str> = steps.chain(project.config.sources.keys().map(String::as_str)).collect();
        let hint = match nearest(name, &known) {
            Some(near) if near == name => "; `lakeside run` makes it".to_owned(),
            Some(near) => format!(", did you mean '{near}'?"),
            None => String::new(),
        };
        // The lines that follow point at the place.
        message.replacen("' not found", &format!("' not found{hint}"), 1)
    }
}

/// An error with the line of the statement that it is about.
fn located(text: &str, error: &datafusion::common::DataFusionError) -> Error {
    let message = crate::error::explain(error);
    let place = crate::error::position(error).and_then(|(line, column)| {
        let shown = text.lines().nth(line.checked_sub(1)?)?;
        // A tab is one column wide for whoever counted the columns.
        Some(format!(
            "\n  {line} | {}\n  {:width$} | {:>column$}",
            shown.replace('\t', " "),
            "",
            "^",
            width = line.to_string().len()
        ))
    });
    Error::Steps(format!("{message}{}", place.unwrap_or_default()))
}
