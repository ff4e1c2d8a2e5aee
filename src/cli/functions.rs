//! `lakeside functions`

use std::fmt::Write;

use clap::Args;
use datafusion::logical_expr::Documentation;

use super::output::print_text;
use crate::error::{Error, Result};
use crate::operators::arguments::nearest;
use crate::{functions, operators};

/// Show the reference of Lakeside's functions and operators
#[derive(Debug, Args)]
#[command(after_help = "Example: lakeside functions neighbors")]
pub(super) struct FunctionsArgs {
    /// Only this one
    name: Option<String>,
}

pub(super) fn functions(args: &FunctionsArgs) -> Result<()> {
    let entries = entries();
    match &args.name {
        None => print_text(&reference()),
        Some(name) => {
            let found = entries.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
            let Some((name, documentation)) = found else {
                let names: Vec<&str> = entries.iter().map(|(name, _)| name.as_str()).collect();
                let near = nearest(name, &names).map_or(String::new(), |near| format!(", did you mean '{near}'?"));
                return Err(Error::Usage(format!(
                    "Lakeside adds no function '{name}'{near}; it adds {}. DataFusion's own are listed by `lakeside sql -c 'SHOW FUNCTIONS'`",
                    names.join(", ")
                )));
            };
            print_text(&entry(name, documentation))
        }
    }
}

/// Every operator and function with its documentation, operators first.
fn entries() -> Vec<(String, Documentation)> {
    let mut entries: Vec<(String, Documentation)> =
        operators::ALL.iter().map(|operator| (operator.name().to_owned(), operator.documentation())).collect();
    entries.extend(functions::documentation());
    entries
}

/// The whole reference, in Markdown.
pub fn reference() -> String {
    let mut out =
        "# Functions and operators\n\nWhat Lakeside adds to DataFusion's SQL. Made by `lakeside functions`.\n"
            .to_owned();
    let mut section = "";
    let entries = entries();
    for (name, documentation) in &entries {
        if documentation.doc_section.label != section {
            section = documentation.doc_section.label;
            let _ = write!(out, "\n## {section}\n");
        }
        let _ = write!(out, "\n{}", entry(name, documentation));
    }
    out
}

fn entry(name: &str, documentation: &Documentation) -> String {
    let mut out =
        format!("### {name}\n\n```sql\n{}\n```\n\n{}\n", documentation.syntax_example, documentation.description);
    if let Some(arguments) = &documentation.arguments {
        let _ = write!(out, "\n| argument | meaning |\n| --- | --- |\n");
        for (argument, meaning) in arguments {
            let _ = writeln!(out, "| `{argument}` | {meaning} |");
        }
    }
    if let Some(example) = &documentation.sql_example {
        let _ = write!(out, "\n```sql\n{}\n```\n", example.trim());
    }
    out
}
