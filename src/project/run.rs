//! Runs the steps of a project: each as soon as its inputs are there, checked, then published.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

use datafusion::common::DataFusionError;
use datafusion::dataframe::DataFrame;
use tokio::task::{Id, JoinSet};

use super::steps::Step;
use super::{Project, checks};
use crate::error::{Error, Result};
use crate::lake::{Lake, Published, Staged};
use crate::session::Session;

/// What became of a step.
#[derive(Debug)]
pub enum Outcome {
    /// It was published.
    Published(Published),
    /// It is a view; nothing was written.
    View,
    /// It failed; nothing of it was published.
    Failed(Error),
    /// A step that it needs did not come about.
    Skipped(String),
}

/// A step that is done, and how long it took.
#[derive(Debug)]
pub struct Report {
    /// The step's name.
    pub step: String,
    /// What became of it.
    pub outcome: Outcome,
    /// The time that it ran.
    pub time: Duration,
}

/// Told what happens while a project runs.
pub trait Progress {
    /// A step begins.
    fn started(&mut self, step: &str);
    /// A step is done.
    fn finished(&mut self, report: &Report);
}

/// Runs the selected steps. Steps that do not depend on one that failed still run.
pub async fn run(project: &Project, select: &[String], progress: &mut dyn Progress) -> Result<Vec<Report>> {
    let selected = project.graph.select(select)?;
    let sources: BTreeSet<&String> = selected.iter().flat_map(|&step| project.graph.sources(step)).collect();
    let mut missing = BTreeMap::new();
    for source in sources {
        if let Err(error) = project.register_source(source).await {
            missing.insert(source.clone(), error);
        }
    }
    let mut lake = project.lake()?;
    let tables: Vec<String> = project.graph.steps().iter().map(|step| step.name.clone()).collect();
    lake.begin(&tables).await.map_err(|e| project.lake_error(&e))?;
    let run = Run { project, id: run_id(), lake: std::sync::Arc::new(lake), selected, missing };
    let reports = run.all(progress).await;
    let Run { lake, id, .. } = run;
    // The steps are done, so nobody else holds the lake.
    if let Some(mut lake) = std::sync::Arc::into_inner(lake) {
        // What cannot be removed now is removed when the next run begins; it takes nothing from what was published.
        let _ = lake.end(&id).await;
    }
    Ok(reports)
}

/// A name for this run that sorts by time and that no other run has.
pub(super) fn run_id() -> String {
    format!("{}-{:x}", chrono::Utc::now().format("%Y%m%dT%H%M%S%3f"), std::process::id())
}

struct Run<'a> {
    project: &'a Project,
    id: String,
    lake: std::sync::Arc<Lake>,
    selected: BTreeSet<usize>,
    /// The sources that cannot be read, and why.
    missing: BTreeMap<String, Error>,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Waiting,
    Running,
    There,
    Missing,
}

impl Run<'_> {
    async fn all(&self, progress: &mut dyn Progress) -> Vec<Report> {
        let steps = self.project.graph.steps();
        let mut states = vec![State::Waiting; steps.len()];
        let mut running: JoinSet<Report> = JoinSet::new();
        let mut places: HashMap<Id, usize> = HashMap::new();
        let mut reports = Vec::new();
        for &at in &self.selected {
            let error = self.project.graph.sources(at).iter().find_map(|source| self.missing.get(source));
            if let Some(error) = error {
                states[at] = State::Missing;
                let outcome = Outcome::Failed(error.same());
                let report = Report { step: steps[at].name.clone(), outcome, time: Duration::ZERO };
                progress.finished(&report);
                reports.push(report);
            }
        }
        loop {
            while let Some((at, missing)) = self.next_blocked(&states) {
                states[at] = State::Missing;
                let outcome = Outcome::Skipped(steps[missing].name.clone());
                let report = Report { step: steps[at].name.clone(), outcome, time: Duration::ZERO };
                progress.finished(&report);
                reports.push(report);
            }
            let ready: Vec<usize> = self.selected.iter().copied().filter(|&at| self.is_ready(at, &states)).collect();
            for at in ready {
                states[at] = State::Running;
                progress.started(&steps[at].name);
                let (session, lake) = (self.project.session.clone(), std::sync::Arc::clone(&self.lake));
                let (step, id) = (steps[at].clone(), self.id.clone());
                let task = running.spawn(async move { report(&session, &lake, &step, &id).await });
                places.insert(task.id(), at);
            }
            let (task, report) = match running.join_next_with_id().await {
                None => return reports,
                Some(Ok((task, report))) => (task, Ok(report)),
                Some(Err(e)) => (e.id(), Err(e)),
            };
            let Some(at) = places.remove(&task) else {
                continue;
            };
            let report = report.unwrap_or_else(|e| {
                let outcome = Outcome::Failed(Error::Engine(DataFusionError::ExecutionJoin(Box::new(e))));
                Report { step: steps[at].name.clone(), outcome, time: Duration::ZERO }
            });
            let there = matches!(report.outcome, Outcome::Published(_) | Outcome::View);
            states[at] = if there { State::There } else { State::Missing };
            progress.finished(&report);
            reports.push(report);
        }
    }

    fn is_ready(&self, at: usize, states: &[State]) -> bool {
        states[at] == State::Waiting && self.project.graph.needs(at).iter().all(|&need| states[need] == State::There)
    }

    /// A waiting step with a step it needs that will not come about.
    fn next_blocked(&self, states: &[State]) -> Option<(usize, usize)> {
        let blocked = |&at: &usize| {
            let missing = self.project.graph.needs(at).iter().find(|&&need| states[need] == State::Missing);
            (states[at] == State::Waiting).then_some(())?;
            missing.map(|&missing| (at, missing))
        };
        self.selected.iter().find_map(blocked)
    }
}

async fn report(session: &Session, lake: &Lake, step: &Step, run: &str) -> Report {
    let start = Instant::now();
    let outcome = match make(session, lake, step, run).await {
        Ok(outcome) => outcome,
        Err(error) => Outcome::Failed(error),
    };
    Report { step: step.name.clone(), outcome, time: start.elapsed() }
}

/// Makes one step: plan, write aside, check, publish, make known.
async fn make(session: &Session, lake: &Lake, step: &Step, run: &str) -> Result<Outcome> {
    if step.header.is_view() {
        let query = query(session, step).await?;
        session.set_table(&step.name, query.into_view()).map_err(|e| step.error(&e))?;
        return Ok(Outcome::View);
    }
    let staged = stage(session, lake, step, run).await?;
    let published = lake.publish(&staged).await.map_err(|e| step.error(&e))?;
    lake.register(&step.name).await.map_err(|e| step.error(&e))?;
    Ok(Outcome::Published(published))
}

async fn query(session: &Session, step: &Step) -> Result<DataFrame> {
    let query = session.query(step.statement.clone()).await.map_err(|e| step.error(&e))?;
    checks::validate(session, step, query.schema())?;
    Ok(query)
}

/// Writes a step aside and checks it.
pub(super) async fn stage(session: &Session, lake: &Lake, step: &Step, run: &str) -> Result<Staged> {
    let query = query(session, step).await?;
    let staged = lake.stage(run, &step.name, query, &step.header.partition_by).await.map_err(|e| step.error(&e))?;
    if step.header.key.is_some() || !step.header.checks.is_empty() {
        let table = lake.staged_table(&staged).await.map_err(|e| step.error(&e))?;
        checks::test(session, step, table).await?;
    }
    Ok(staged)
}
