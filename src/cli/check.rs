//! `lakeside check`

use std::path::PathBuf;

use clap::Args;
use datafusion::common::TableReference;
use datafusion::datasource::empty::EmptyTable;

use std::sync::Arc;

use super::variables::VariableArgs;
use crate::error::{Error, Result};
use crate::project::steps::Step;
use crate::project::{self, Project, checks};
use crate::session::Limits;

/// Parse and plan every step against the schemas of the sources; run none
#[derive(Debug, Args)]
#[command(after_help = "Example: lakeside check sql")]
pub(super) struct CheckArgs {
    /// The folder of lakeside.toml [default: . or ./sql]
    project: Option<PathBuf>,
    #[command(flatten)]
    variables: VariableArgs,
}

pub(super) async fn check(args: &CheckArgs) -> Result<()> {
    let root = project::find(args.project.as_deref())?;
    let project = Project::read(&root, &Limits::default(), &args.variables.settings()?)?;
    let mut problems = Vec::new();
    for source in project.config.sources.keys() {
        problems.extend(project.register_source(source).await.err());
    }
    let steps = project.graph.steps();
    let mut planned = vec![false; steps.len()];
    let mut skipped = 0;
    for (at, step) in steps.iter().enumerate() {
        let has_sources = project.graph.sources(at).iter().all(|source| is_known(&project, source));
        if !has_sources || !project.graph.needs(at).iter().all(|&need| planned[need]) {
            skipped += 1;
            continue;
        }
        match plan(&project, step).await {
            Ok(()) => planned[at] = true,
            Err(error) => problems.push(error),
        }
    }
    problems.iter().for_each(|problem| eprintln!("error: {problem}"));
    if problems.is_empty() {
        eprintln!("{} steps and {} sources are in order", steps.len(), project.config.sources.len());
        return Ok(());
    }
    let rest = if skipped > 0 { format!("; {skipped} steps that need them were not looked at") } else { String::new() };
    Err(Error::Steps(format!("{} problem{}{rest}", problems.len(), if problems.len() == 1 { "" } else { "s" })))
}

fn is_known(project: &Project, table: &str) -> bool {
    project.session.context().table_exist(TableReference::bare(table)).unwrap_or(false)
}

/// Plans a step and stands an empty table of its columns in for what it would make.
async fn plan(project: &Project, step: &Step) -> Result<()> {
    let session = &project.session;
    let frame = session.query(step.statement.clone()).await.map_err(|e| step.error(&e))?;
    checks::validate(session, step, frame.schema())?;
    let schema = Arc::clone(frame.schema().inner());
    // The physical plan finds what the logical one does not look at.
    frame.create_physical_plan().await.map_err(|e| step.error(&e))?;
    let table = Arc::new(EmptyTable::new(schema));
    session.set_table(&step.name, table).map_err(|e| step.error(&e))
}
