//! `lakeside graph`

use std::fmt::Write;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::output::print_text;
use super::variables::VariableArgs;
use crate::error::Result;
use crate::project::{self, Project};
use crate::session::Limits;

/// Show the steps and what ties them
#[derive(Debug, Args)]
#[command(after_help = "Example: lakeside graph sql --format mermaid")]
pub(super) struct GraphArgs {
    /// The folder of lakeside.toml [default: . or ./sql]
    project: Option<PathBuf>,
    /// How it is drawn
    #[arg(long, value_enum, default_value_t = GraphFormat::Text)]
    format: GraphFormat,
    #[command(flatten)]
    variables: VariableArgs,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum GraphFormat {
    /// One step a line, with what it reads
    Text,
    /// A flowchart for Markdown
    Mermaid,
    /// A graph for Graphviz
    Dot,
}

pub(super) fn graph(args: &GraphArgs) -> Result<()> {
    let root = project::find(args.project.as_deref())?;
    let project = Project::read(&root, &Limits::default(), &args.variables.settings()?)?;
    print_text(&match args.format {
        GraphFormat::Text => text(&project),
        GraphFormat::Mermaid => mermaid(&project),
        GraphFormat::Dot => dot(&project),
    })
}

/// The names that a step reads: sources, then steps.
fn inputs(project: &Project, step: usize) -> Vec<&str> {
    let steps = project.graph.steps();
    let sources = project.graph.sources(step).iter().map(String::as_str);
    sources.chain(project.graph.needs(step).iter().map(|&need| steps[need].name.as_str())).collect()
}

/// The folder that a step's file stands in, below the project.
fn stage(project: &Project, step: usize) -> String {
    let file = &project.graph.steps()[step].file;
    let folder = file.parent().and_then(|folder| folder.strip_prefix(&project.root).ok());
    folder.map_or(String::new(), |folder| folder.display().to_string())
}

fn text(project: &Project) -> String {
    let steps = project.graph.steps();
    let width = steps.iter().map(|step| step.name.len()).max().unwrap_or(0);
    let (mut out, mut last) = (String::new(), None);
    for (at, step) in steps.iter().enumerate() {
        let stage = stage(project, at);
        if last.as_ref() != Some(&stage) {
            let _ = writeln!(out, "{}", if stage.is_empty() { "." } else { &stage });
        }
        last = Some(stage);
        let inputs = inputs(project, at).join(", ");
        let line = format!("  {:<width$}  <- {inputs}", step.name);
        let _ = writeln!(out, "{}", line.trim_end_matches([' ', '<', '-']));
    }
    out
}

fn mermaid(project: &Project) -> String {
    let mut out = "flowchart LR\n".to_owned();
    for source in project.config.sources.keys() {
        let _ = writeln!(out, "  {source}[({source})]");
    }
    edges(project, |from, to| {
        let _ = writeln!(out, "  {from} --> {to}");
    });
    out
}

fn dot(project: &Project) -> String {
    let mut out = "digraph lakeside {\n  rankdir=LR;\n  node [shape=box];\n".to_owned();
    for source in project.config.sources.keys() {
        let _ = writeln!(out, "  \"{source}\" [shape=cylinder];");
    }
    edges(project, |from, to| {
        let _ = writeln!(out, "  \"{from}\" -> \"{to}\";");
    });
    out + "}\n"
}

fn edges(project: &Project, mut edge: impl FnMut(&str, &str)) {
    for (at, step) in project.graph.steps().iter().enumerate() {
        inputs(project, at).into_iter().for_each(|input| edge(input, &step.name));
    }
}
