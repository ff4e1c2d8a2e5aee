//! `lakeside run`

use std::path::PathBuf;

use clap::Args;

use super::limits::LimitArgs;
use super::variables::VariableArgs;
use super::{output, progress};
use crate::error::{Error, Result};
use crate::project::run::{self, Outcome, Report};
use crate::project::{self, Project};

/// Run all steps of a project in order, check them, publish their tables
#[derive(Debug, Args)]
#[command(after_help = "Example: lakeside run sql --select recommendations --var neighbors=20")]
pub(super) struct RunArgs {
    /// The folder of lakeside.toml [default: . or ./sql]
    project: Option<PathBuf>,
    /// Only these steps and what they need; repeat it or separate names by commas
    #[arg(long, value_name = "STEP", value_delimiter = ',')]
    select: Vec<String>,
    #[command(flatten)]
    variables: VariableArgs,
    #[command(flatten)]
    pub(super) limits: LimitArgs,
}

pub(super) async fn run(args: &RunArgs) -> Result<()> {
    let root = project::find(args.project.as_deref())?;
    let engine = args.limits.engine().await?;
    let project = Project::read(&root, &engine.limits, &args.variables.settings()?)?;
    let total = project.graph.select(&args.select)?.len();
    let start = std::time::Instant::now();
    let mut progress = progress::RunProgress::new(total);
    let line = progress.line_below();
    let reports = tokio::select! {
        () = engine.watch(line) => Vec::new(),
        reports = run::run(&project, &args.select, &mut progress) => reports?,
        _ = tokio::signal::ctrl_c() => {
            engine.cancel().await;
            return Err(Error::Steps("stopped; nothing of the steps under way was published".to_owned()));
        }
    };
    progress.finish();
    let (done, failed) = (count(&reports, is_done), count(&reports, |outcome| matches!(outcome, Outcome::Failed(_))));
    let skipped = reports.len() - done - failed;
    let lake = project.lake()?;
    eprintln!();
    eprintln!("{}", summary(&reports));
    eprintln!(
        "{done} of {total} steps done in {:.1} s{}; tables are in {}",
        start.elapsed().as_secs_f64(),
        if failed + skipped > 0 { format!(", {failed} failed, {skipped} skipped") } else { String::new() },
        place(lake.url())
    );
    if failed > 0 {
        return Err(Error::Steps(format!("{failed} of {total} steps failed; nothing of them was published")));
    }
    show(&project, &reports).await
}

fn count(reports: &[Report], of: impl Fn(&Outcome) -> bool) -> usize {
    reports.iter().filter(|report| of(&report.outcome)).count()
}

fn is_done(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Published(_) | Outcome::View)
}

/// A path where the URL is one.
fn place(url: &url::Url) -> String {
    url.to_file_path().map_or_else(|()| url.to_string(), |path| path.display().to_string())
}

fn summary(reports: &[Report]) -> String {
    let mut rows = vec![["step", "rows", "seconds", "size", ""].map(str::to_owned)];
    for report in reports {
        let seconds = format!("{:.2}", report.time.as_secs_f64());
        let (rows_text, size, remark) = match &report.outcome {
            Outcome::Published(table) => (output::grouped(table.rows), output::size(table.bytes), String::new()),
            Outcome::View => (String::new(), String::new(), "view".to_owned()),
            Outcome::Failed(_) => (String::new(), String::new(), "failed".to_owned()),
            Outcome::Skipped(missing) => (String::new(), String::new(), format!("skipped, as it needs {missing}")),
        };
        rows.push([report.step.clone(), rows_text, seconds, size, remark]);
    }
    output::columns(&rows)
}

/// Shows the first rows of the tables that the project names, if this run made them.
async fn show(project: &Project, reports: &[Report]) -> Result<()> {
    let made = |name: &&String| reports.iter().any(|report| report.step == **name && is_done(&report.outcome));
    for name in project.config.show.iter().filter(made) {
        let frame = project.session.context().table(name.as_str()).await?.limit(0, Some(10))?;
        eprintln!();
        output::print_table(frame, usize::MAX).await?;
    }
    Ok(())
}
