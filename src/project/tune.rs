//! Runs a project over combinations of its variables and keeps what each is worth.
//!
//! A step's result is kept under the text of its query, in which variables are values, and those of the steps it reads; a
//! trial makes only what no trial has made before it. Nothing is published but the table of trials.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use datafusion::arrow::array::{ArrayRef, Float64Array, Float64Builder, Int32Array, ListBuilder, StringArray};
use datafusion::arrow::datatypes::{Field, Schema};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::{DataFusionError, ScalarValue, exec_err};
use twox_hash::XxHash64;

use super::config::{Values, setting};
use super::run::{run_id, stage};
use super::{FILE, Project};
use crate::error::{Error, Result};
use crate::lake::{Lake, Staged};
use crate::session::{Limits, Session};

/// The table that every trial stands in.
pub const TRIALS: &str = "trials";

/// The columns of the table beside the variables.
const COLUMNS: [&str; 9] =
    ["trial", "value", "ci_low", "ci_high", "fold_values", "seconds", "steps_made", "steps_kept", "error"];

/// The most combinations that are looked at.
const MOST: usize = 1_000_000;

/// What is tried.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The folder of the project.
    pub root: PathBuf,
    /// What queries may use.
    pub limits: Limits,
    /// `name=value` settings that hold for all trials.
    pub variables: Vec<String>,
    /// A query whose only row has a `value`, the larger the better, and may have its interval as `ci_low` and `ci_high`.
    pub objective: String,
    /// The values of each variable that is varied.
    pub vary: BTreeMap<String, Values>,
    /// Values of variables that make folds: each trial runs once for each combination, and is worth the mean.
    pub folds: BTreeMap<String, Values>,
    /// How many combinations are tried, where not all are.
    pub trials: Option<usize>,
    /// Another number chooses others.
    pub seed: u64,
}

/// What a trial is worth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Worth {
    /// The mean over folds.
    pub value: f64,
    /// Where the true value lies in 95 of 100 cases, if that is known.
    pub interval: Option<(f64, f64)>,
}

/// A trial that is done.
#[derive(Debug)]
pub struct Trial {
    /// Its number, from 1.
    pub number: usize,
    /// The values of the variables that are varied.
    pub values: Vec<ScalarValue>,
    /// What it is worth.
    pub worth: Result<Worth>,
    /// What it is worth in each fold that was done, in the order of folds.
    fold_values: Vec<f64>,
    /// The time that it took.
    pub seconds: f64,
    /// How many steps it has made.
    pub made: usize,
    /// How many steps it has found made.
    pub kept: usize,
}

/// All combinations of values, the last variable changing first.
fn combinations(of: &BTreeMap<String, Values>) -> Vec<Vec<ScalarValue>> {
    of.values().fold(vec![Vec::new()], |before, values| {
        let extended = |start: &Vec<ScalarValue>| {
            let start = start.clone();
            values.0.iter().map(move |value| [start.clone(), vec![value.clone()]].concat())
        };
        before.iter().flat_map(extended).collect()
    })
}

/// A project with the variables of one fold of one trial.
struct Fold {
    project: Project,
    /// The steps that the objective needs, in order.
    steps: BTreeSet<usize>,
    /// For each step of the project, what its result is kept under.
    keys: Vec<String>,
}

/// Trials under way.
pub struct Tuning {
    plan: Plan,
    id: String,
    lake: Lake,
    session: Session,
    /// Combinations still to be tried, the next one last.
    open: Vec<(usize, Vec<ScalarValue>)>,
    folds: Vec<Vec<ScalarValue>>,
    /// Results of steps.
    kept: HashMap<String, Staged>,
    /// How many folds to come will read each.
    uses: HashMap<String, usize>,
    /// How often each step was made.
    made: BTreeMap<String, usize>,
    /// The runs under whose names steps were begun that are not kept.
    unfinished: Vec<String>,
    /// Values of variables that are the same for all trials, where they are not those of the project.
    fixed: Vec<(String, ScalarValue)>,
    done: Vec<Trial>,
}

impl Tuning {
    /// Reads the project and sees what there is to try.
    pub async fn begin(plan: Plan) -> Result<Self> {
        let project = Project::read(&plan.root, &plan.limits, &plan.variables)?;
        if project.graph.steps().iter().any(|step| step.name == TRIALS) || project.config.sources.contains_key(TRIALS) {
            let message = format!("tune writes the table '{TRIALS}', which the project has already; rename that one");
            return Err(Error::project(plan.root.join(FILE), None, message));
        }
        if let Some(name) = plan.vary.keys().find(|name| COLUMNS.contains(&name.as_str())) {
            let others = COLUMNS.join(", ");
            return Err(Error::Usage(format!(
                "variable '{name}' has the name of a column of {TRIALS}, which has {others}; rename it"
            )));
        }
        let fixed = project.config.vars.iter().filter(|(name, _)| {
            let set = |setting: &String| setting.split_once('=').is_some_and(|(set, _)| set == name.as_str());
            plan.variables.iter().any(set) && !plan.vary.contains_key(*name) && !plan.folds.contains_key(*name)
        });
        let fixed = fixed.map(|(name, value)| (name.clone(), value.clone())).collect();
        let size = plan.vary.values().try_fold(1usize, |size, values| size.checked_mul(values.0.len()));
        if size.is_none_or(|size| size > MOST) {
            return Err(Error::Usage(format!("more than {MOST} combinations; give fewer values")));
        }
        let mut open: Vec<_> = combinations(&plan.vary).into_iter().enumerate().collect();
        if let Some(most) = plan.trials {
            open.sort_by_cached_key(|(at, _)| XxHash64::oneshot(plan.seed, &at.to_le_bytes()));
            open.truncate(most);
            open.sort_by_key(|(at, _)| *at);
        }
        open.iter_mut().zip(1..).for_each(|(trial, number)| trial.0 = number);
        open.reverse();
        let mut lake = project.lake()?;
        lake.begin(&[TRIALS.to_owned()]).await.map_err(|e| project.lake_error(&e))?;
        let folds = combinations(&plan.folds);
        let mut tuning = Self {
            id: run_id(),
            lake,
            session: project.session,
            open,
            folds,
            kept: HashMap::new(),
            uses: HashMap::new(),
            made: BTreeMap::new(),
            unfinished: Vec::new(),
            fixed,
            done: Vec::new(),
            plan,
        };
        for (_, values) in &tuning.open {
            for fold in &tuning.folds {
                let Fold { steps, keys, .. } = tuning.fold(values, fold)?;
                steps.iter().for_each(|&step| *tuning.uses.entry(keys[step].clone()).or_default() += 1);
            }
        }
        Ok(tuning)
    }

    /// The number of trials still to come.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// The names of the variables that are varied.
    pub fn names(&self) -> Vec<&str> {
        self.plan.vary.keys().map(String::as_str).collect()
    }

    /// Values of variables that are the same for all trials, where they are not those of the project.
    pub fn fixed(&self) -> &[(String, ScalarValue)] {
        &self.fixed
    }

    /// The trials that are done.
    pub fn done(&self) -> &[Trial] {
        &self.done
    }

    /// How often each step was made.
    pub fn made(&self) -> &BTreeMap<String, usize> {
        &self.made
    }

    /// The best trial, the first of equals.
    pub fn best(&self) -> Option<(&Trial, Worth)> {
        let worths = self.done.iter().filter_map(|trial| trial.worth.as_ref().ok().map(|worth| (trial, *worth)));
        worths.reduce(|best, next| if next.1.value > best.1.value { next } else { best })
    }

    /// Makes the next trial; `told` hears of each step that is made. None where all are done.
    pub async fn next(&mut self, mut told: impl FnMut(&str)) -> Result<Option<&Trial>> {
        let Some((number, values)) = self.open.pop() else {
            return Ok(None);
        };
        let start = Instant::now();
        let (mut made, mut kept, mut worths) = (0, 0, Vec::new());
        let mut failed = None;
        for at in 0..self.folds.len() {
            let fold = self.fold(&values, &self.folds[at])?;
            if failed.is_none() {
                match self.run(&fold, &mut made, &mut kept, &mut told).await {
                    Ok(worth) => worths.push(worth),
                    Err(error) => failed = Some(error),
                }
            }
            self.release(&fold).await;
        }
        let worth = failed.map_or_else(|| Ok(mean(&worths)), Err);
        let seconds = start.elapsed().as_secs_f64();
        let fold_values = worths.iter().map(|worth| worth.value).collect();
        self.done.push(Trial { number, values, worth, fold_values, seconds, made, kept });
        self.publish().await?;
        Ok(self.done.last())
    }

    /// Makes sure that all trials are in the table, and removes all that was put aside.
    pub async fn end(mut self) -> Result<()> {
        let published = if self.done.is_empty() { Ok(()) } else { self.publish().await };
        let kept = std::mem::take(&mut self.kept).into_values().map(|staged| staged.run);
        for run in kept.chain(std::mem::take(&mut self.unfinished)) {
            // What cannot be removed now is removed when the next run begins.
            let _ = self.lake.discard(&run).await;
        }
        let _ = self.lake.end(&self.id).await;
        published
    }

    fn fold(&self, values: &[ScalarValue], fold: &[ScalarValue]) -> Result<Fold> {
        let varied = self.plan.vary.keys().zip(values).chain(self.plan.folds.keys().zip(fold));
        let variables: Vec<String> =
            self.plan.variables.iter().cloned().chain(varied.map(|(name, value)| setting(name, value))).collect();
        let project = Project::read(&self.plan.root, &self.plan.limits, &variables)?;
        let (_, tables) = objective(&project.session, &self.plan.objective)?;
        let wanted: Vec<String> =
            tables.into_iter().filter(|table| !project.config.sources.contains_key(table)).collect();
        if wanted.is_empty() {
            return Err(Error::Usage(format!("the objective reads no step of the project: {}", self.plan.objective)));
        }
        let steps = project.graph.select(&wanted)?;
        let mut keys: Vec<String> = Vec::new();
        for (at, step) in project.graph.steps().iter().enumerate() {
            let read = project.graph.needs(at).iter().map(|&need| keys[need].as_str());
            // Whether promises hold is part of what was made, and they may name variables, too.
            let header = &step.header;
            let promises = format!("{:?}{:?}", header.key.as_ref().map(|(columns, _)| columns), header.partition_by);
            let mut parts = vec![step.statement.text(), promises];
            for (check, _) in &header.checks {
                // What cannot be parsed fails where the step is made.
                parts.push(project.session.condition_text(check).unwrap_or_else(|_| check.clone()));
            }
            parts.extend(read.map(str::to_owned));
            let text = parts.join("\0");
            keys.push(format!("{:016x}", XxHash64::oneshot(0, text.as_bytes())));
        }
        Ok(Fold { project, steps, keys })
    }

    /// Makes what a fold needs and is not there, and asks what it is worth.
    async fn run(
        &mut self,
        fold: &Fold,
        made: &mut usize,
        kept: &mut usize,
        told: &mut impl FnMut(&str),
    ) -> Result<Worth> {
        let Fold { project, steps, keys } = fold;
        let (statement, tables) = objective(&project.session, &self.plan.objective)?;
        let sources = steps.iter().flat_map(|&step| project.graph.sources(step).iter().cloned());
        let read = tables.into_iter().filter(|table| project.config.sources.contains_key(table));
        for source in sources.chain(read).collect::<BTreeSet<_>>() {
            project.register_source(&source).await?;
        }
        for &at in steps {
            let step = &project.graph.steps()[at];
            if step.header.is_view() {
                project.register_view(step).await?;
                continue;
            }
            if self.kept.contains_key(&keys[at]) {
                *kept += 1;
            } else {
                told(&step.name);
                let run = format!("{}-{}", self.id, keys[at]);
                self.unfinished.push(run.clone());
                let staged = stage(&project.session, &self.lake, step, &run).await?;
                self.unfinished.pop();
                self.kept.insert(keys[at].clone(), staged);
                *made += 1;
                *self.made.entry(step.name.clone()).or_default() += 1;
            }
            let table = self.lake.staged_table(&self.kept[&keys[at]]).await.map_err(|e| step.error(&e))?;
            project.session.set_table(&step.name, table)?;
        }
        let rows = project.session.query(statement).await?.collect().await?;
        Ok(worth(&rows)?)
    }

    /// Removes results that no fold to come will read.
    async fn release(&mut self, fold: &Fold) {
        for key in fold.steps.iter().map(|&step| &fold.keys[step]) {
            let left = self.uses.get_mut(key).map_or(0, |uses| {
                *uses -= 1;
                *uses
            });
            if left == 0
                && let Some(staged) = self.kept.remove(key)
            {
                let _ = self.lake.discard(&staged.run).await;
            }
        }
    }

    /// Publishes the table of all trials that are done.
    async fn publish(&self) -> Result<()> {
        let frame = self.session.context().read_batch(self.table()?)?;
        let staged = self.lake.stage(&self.id, TRIALS, frame, &[]).await?;
        self.lake.publish(&staged).await?;
        Ok(())
    }

    fn table(&self) -> Result<RecordBatch, DataFusionError> {
        let mut columns: Vec<(String, ArrayRef)> = Vec::new();
        let numbers = |of: &dyn Fn(&Trial) -> usize| {
            Arc::new(Int32Array::from_iter_values(self.done.iter().map(|trial| of(trial) as i32))) as ArrayRef
        };
        columns.push(("trial".to_owned(), numbers(&|trial| trial.number)));
        for (at, name) in self.plan.vary.keys().enumerate() {
            let values = self.done.iter().map(|trial| trial.values[at].clone());
            columns.push((name.clone(), ScalarValue::iter_to_array(values)?));
        }
        let worth = |of: &dyn Fn(&Worth) -> Option<f64>| {
            let values = self.done.iter().map(|trial| trial.worth.as_ref().ok().and_then(of));
            Arc::new(Float64Array::from_iter(values)) as ArrayRef
        };
        columns.push(("value".to_owned(), worth(&|worth| Some(worth.value))));
        columns.push(("ci_low".to_owned(), worth(&|worth| worth.interval.map(|ends| ends.0))));
        columns.push(("ci_high".to_owned(), worth(&|worth| worth.interval.map(|ends| ends.1))));
        let mut folds = ListBuilder::new(Float64Builder::new());
        self.done.iter().for_each(|trial| folds.append_value(trial.fold_values.iter().map(|value| Some(*value))));
        columns.push(("fold_values".to_owned(), Arc::new(folds.finish())));
        let seconds = self.done.iter().map(|trial| trial.seconds);
        columns.push(("seconds".to_owned(), Arc::new(Float64Array::from_iter_values(seconds))));
        columns.push(("steps_made".to_owned(), numbers(&|trial| trial.made)));
        columns.push(("steps_kept".to_owned(), numbers(&|trial| trial.kept)));
        let errors = self.done.iter().map(|trial| trial.worth.as_ref().err().map(ToString::to_string));
        columns.push(("error".to_owned(), Arc::new(StringArray::from_iter(errors))));
        let fields: Vec<Field> =
            columns.iter().map(|(name, array)| Field::new(name, array.data_type().clone(), true)).collect();
        let arrays = columns.into_iter().map(|(_, array)| array).collect();
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
    }
}

type Objective = (crate::session::statement::Statement, BTreeSet<String>);

/// The objective's query and the tables it reads.
fn objective(session: &Session, sql: &str) -> Result<Objective> {
    let wrong = |e: &DataFusionError| Error::Usage(format!("objective: {}", crate::error::explain(e)));
    let mut statements = session.parse(sql).map_err(|e| wrong(&e))?;
    match (statements.pop(), statements.is_empty()) {
        (Some(statement), true) if statement.is_query() => {
            let tables = statement.tables().map_err(|e| wrong(&e))?;
            Ok((statement, tables))
        }
        _ => Err(Error::Usage(format!("the objective must be one query, not: {sql}"))),
    }
}

/// What the only row of an answer says.
fn worth(batches: &[RecordBatch]) -> Result<Worth, DataFusionError> {
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    let Some(batch) = batches.iter().find(|batch| batch.num_rows() > 0).filter(|_| rows == 1) else {
        return exec_err!("the objective must give one row, not {rows}");
    };
    let number = |column: &ArrayRef| {
        let value =
            ScalarValue::try_from_array(column, 0)?.cast_to(&datafusion::arrow::datatypes::DataType::Float64)?;
        match value {
            ScalarValue::Float64(value) => Ok(value.filter(|value| !value.is_nan())),
            other => exec_err!("the objective must be a number, not {other}"),
        }
    };
    let named = |name: &str| batch.column_by_name(name).map(number).transpose().map(Option::flatten);
    let value = match batch.column_by_name("value") {
        Some(column) => number(column)?,
        None => number(batch.column(0))?,
    };
    match value {
        Some(value) => Ok(Worth { value, interval: named("ci_low")?.zip(named("ci_high")?) }),
        None => exec_err!("the objective's value is NULL"),
    }
}

/// The mean of folds. Its interval is made of those of the folds, which are taken as independent; where these have none, of
/// how the folds differ.
fn mean(worths: &[Worth]) -> Worth {
    let n = worths.len() as f64;
    let value = worths.iter().map(|worth| worth.value).sum::<f64>() / n;
    let halves: Option<Vec<f64>> =
        worths.iter().map(|worth| worth.interval.map(|(low, high)| (high - low) / 2.0)).collect();
    let half = match halves {
        Some(halves) => Some(halves.iter().map(|half| half * half).sum::<f64>().sqrt() / n),
        None if worths.len() > 1 => {
            let squares: f64 = worths.iter().map(|worth| (worth.value - value).powi(2)).sum();
            Some(1.96 * (squares / (n - 1.0) / n).sqrt())
        }
        None => None,
    };
    Worth { value, interval: half.map(|half| (value - half, value + half)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_of_folds() {
        let worth = |value: f64, half: Option<f64>| Worth { value, interval: half.map(|h| (value - h, value + h)) };
        assert_eq!(mean(&[worth(2.0, None)]), worth(2.0, None));
        assert_eq!(mean(&[worth(2.0, Some(0.5))]), worth(2.0, Some(0.5)));
        assert_eq!(mean(&[worth(1.0, Some(3.0)), worth(3.0, Some(4.0))]), worth(2.0, Some(2.5)));
        let (low, high) = mean(&[worth(1.0, None), worth(3.0, None)]).interval.unwrap();
        assert!((high - low - 2.0 * 1.96).abs() < 1e-12);
    }
}
