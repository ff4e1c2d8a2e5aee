//! `lakeside tune`

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use datafusion::common::ScalarValue;
use indicatif::ProgressBar;

use super::limits::LimitArgs;
use super::output;
use super::variables::VariableArgs;
use crate::error::{Error, Result};
use crate::project::config::{Config, Values, parse_values, setting};
use crate::project::tune::{Plan, TRIALS, Trial, Tuning, Worth};
use crate::project::{self, FILE};

/// Where the winning variables go.
const TUNED: &str = "tuned.toml";

/// How many trials are shown at the end.
const SHOWN: usize = 5;

/// Try combinations of variables, keep every trial in the table `trials`, and write the best to tuned.toml
///
/// A trial runs the steps that the objective reads. A step whose query, variables and inputs are those of an earlier trial is
/// not run again, and nothing is published but the table of trials. What is tried stands under [tune] in lakeside.toml, and
/// options come before it.
#[derive(Debug, Args)]
#[command(after_help = "Example: lakeside tune sql --vary neighbors=20,50,100 --vary item_shrink=0,5,20 --trials 6
  --objective \"SELECT value, ci_low, ci_high FROM metrics WHERE model = 'by_item' AND metric = 'ndcg' AND rule = 'new'\"")]
pub(super) struct TuneArgs {
    /// The folder of lakeside.toml [default: . or ./sql]
    project: Option<PathBuf>,
    /// Try these values of a variable; repeat it for others
    #[arg(long, value_name = "NAME=VALUE,VALUE")]
    vary: Vec<String>,
    /// Run each trial once for each of these values of a variable; it is worth the mean
    #[arg(long, value_name = "NAME=VALUE,VALUE")]
    folds: Vec<String>,
    /// A query of one row with a value, the larger the better, and perhaps ci_low and ci_high
    #[arg(long, value_name = "SQL")]
    objective: Option<String>,
    /// Try so many combinations, chosen at random, instead of all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    trials: Option<u32>,
    /// Another number chooses other combinations
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    variables: VariableArgs,
    #[command(flatten)]
    pub(super) limits: LimitArgs,
}

pub(super) async fn tune(args: &TuneArgs) -> Result<()> {
    let root = project::find(args.project.as_deref())?;
    let engine = args.limits.engine().await?;
    let plan = plan(args, root, engine.limits.clone())?;
    let root = plan.root.clone();
    let mut tuning = Tuning::begin(plan).await?;
    let total = tuning.open();
    let bar = std::io::stderr().is_terminal().then(ProgressBar::new_spinner);
    if let Some(bar) = &bar {
        bar.enable_steady_tick(Duration::from_millis(100));
    }
    let mut stopped = false;
    // Once for all trials: between two of them nobody would hear it.
    let stop = tokio::signal::ctrl_c();
    tokio::pin!(stop);
    loop {
        let told = |step: &str| bar.iter().for_each(|bar| bar.set_message(step.to_owned()));
        let next = tokio::select! {
            next = tuning.next(told) => next?.is_some(),
            _ = &mut stop => {
                engine.cancel().await;
                stopped = true;
                false
            }
        };
        let (true, Some(trial)) = (next, tuning.done().last()) else {
            break;
        };
        let width = total.to_string().len();
        let line = format!("[{:>width$}/{total}] {}", trial.number, line(trial, &tuning.names()));
        match &bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }
    if let Some(bar) = &bar {
        bar.finish_and_clear();
    }
    let told = tell(&tuning, &root);
    let done = tuning.done().len();
    tuning.end().await?;
    told?;
    match stopped {
        true => Err(Error::Steps(format!("stopped after {done} of {total} trials; they are in the table '{TRIALS}'"))),
        false => Ok(()),
    }
}

fn plan(args: &TuneArgs, root: PathBuf, limits: crate::session::Limits) -> Result<Plan> {
    let variables = args.variables.settings()?;
    let config = Config::read(&root.join(FILE), &variables)?;
    let over = |from: &[String], mut values: BTreeMap<String, Values>| {
        for given in from {
            let (name, given) = parse_values(given)?;
            // An unknown name is refused as --var refuses it.
            let settings: Vec<String> = given.0.iter().map(|value| setting(&name, value)).collect();
            Config::read(&root.join(FILE), &settings)?;
            values.insert(name, given);
        }
        Ok::<_, Error>(values)
    };
    let (vary, folds) = (over(&args.vary, config.tune.vary)?, over(&args.folds, config.tune.folds)?);
    let Some(objective) = args.objective.clone().or(config.tune.objective) else {
        return Err(Error::Usage(format!(
            "give --objective 'SELECT value ..', or set objective under [tune] in {FILE}: a query of one row, the larger the better"
        )));
    };
    if vary.is_empty() {
        return Err(Error::Usage(format!("give --vary name=value,value, or set [tune.vary] in {FILE}")));
    }
    if let Some(name) = vary.keys().find(|name| folds.contains_key(*name)) {
        return Err(Error::Usage(format!("variable '{name}' is both varied and makes folds; drop one of the two")));
    }
    let trials = args.trials.map(|trials| trials as usize);
    Ok(Plan { root, limits, variables, objective, vary, folds, trials, seed: args.seed })
}

/// The values of a trial's variables.
fn values(names: &[&str], values: &[ScalarValue]) -> String {
    names.iter().zip(values).map(|(name, value)| setting(name, value)).collect::<Vec<_>>().join(", ")
}

fn worth(worth: &Worth) -> String {
    match worth.interval {
        Some((low, high)) => format!("{:.4} ({low:.4} to {high:.4})", worth.value),
        None => format!("{:.4}", worth.value),
    }
}

fn line(trial: &Trial, names: &[&str]) -> String {
    let result = match &trial.worth {
        Ok(found) => worth(found),
        Err(error) => format!("failed: {error}"),
    };
    let Trial { seconds, made, kept, .. } = trial;
    format!("{}  {result}  {seconds:.2} s, {made} steps run, {kept} kept", values(names, &trial.values))
}

/// Says which trials were best, and writes the best to a file.
fn tell(tuning: &Tuning, root: &Path) -> Result<()> {
    let names = tuning.names();
    let Some((best, found)) = tuning.best() else {
        return match tuning.done().is_empty() {
            true => Ok(()),
            false => Err(Error::Steps("all trials failed".to_owned())),
        };
    };
    let mut order: Vec<(&Trial, &Worth)> =
        tuning.done().iter().filter_map(|trial| Some((trial, trial.worth.as_ref().ok()?))).collect();
    order.sort_by(|a, b| b.1.value.total_cmp(&a.1.value));
    let mut rows = vec![["trial".to_owned(), names.join(", "), "value".to_owned()]];
    for (trial, found) in order.into_iter().take(SHOWN) {
        let values: Vec<String> = trial.values.iter().map(ToString::to_string).collect();
        rows.push([trial.number.to_string(), values.join(", "), worth(found)]);
    }
    eprintln!("\n{}", output::columns(&rows));
    let made: Vec<String> = tuning.made().iter().map(|(step, times)| format!("{step} {times}")).collect();
    eprintln!("steps run: {}", made.join(", "));
    let path = root.join(TUNED);
    let about = format!("# The best of {} trials of `lakeside tune`: {}", tuning.done().len(), worth(&found));
    let fixed = tuning.fixed().iter().map(|(name, value)| (name.as_str(), value));
    let vars = names.iter().copied().zip(&best.values).chain(fixed);
    let vars: Vec<String> = vars.map(|(name, value)| setting(name, value).replacen('=', " = ", 1)).collect();
    std::fs::write(&path, format!("{about}\n[vars]\n{}\n", vars.join("\n")))
        .map_err(|e| Error::Io(path.display().to_string(), e))?;
    eprintln!("best: trial {}, {}: {}", best.number, values(&names, &best.values), worth(&found));
    eprintln!(
        "all trials are in the table '{TRIALS}'; to use the best: lakeside run {} --vars {}",
        root.display(),
        path.display()
    );
    Ok(())
}
