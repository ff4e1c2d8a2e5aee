//! Which step needs which: read from the SQL, ordered, selected.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::config::Config;
use super::steps::Step;
use crate::error::{Error, Result};
use crate::operators::arguments::nearest;
use crate::operators::planner::operator;

/// The steps of a project in an order in which each comes after those it needs.
#[derive(Debug, Default)]
pub struct Graph {
    steps: Vec<Step>,
    /// For each step, the places of the steps it reads.
    needs: Vec<Vec<usize>>,
    /// For each step, the names of the sources it reads.
    sources: Vec<Vec<String>>,
}

impl Graph {
    /// Ties the steps together. Fails where a table is not known, a name is taken twice, or steps need each other in
    /// a circle.
    pub fn new(root: &Path, config: &Config, steps: Vec<Step>) -> Result<Self> {
        let names = steps.iter().map(|step| step.name.as_str()).chain(config.sources.keys().map(String::as_str));
        if let Some(name) = names.into_iter().find(|name| operator(name).is_some()) {
            let message = format!("a table cannot be called '{name}', as that is an operator; rename it");
            return Err(Error::project(root.join(super::FILE), None, message));
        }
        for step in &steps {
            if config.sources.contains_key(&step.name) {
                let message = format!(
                    "'{}' is a source in {} as well; rename one of the two",
                    step.name,
                    root.join(super::FILE).display()
                );
                return Err(Error::project(&step.file, None, message));
            }
        }
        let place: BTreeMap<&str, usize> =
            steps.iter().enumerate().map(|(at, step)| (step.name.as_str(), at)).collect();
        let (mut needs, mut sources) = (Vec::new(), Vec::new());
        for step in &steps {
            let (mut step_needs, mut step_sources) = (Vec::new(), Vec::new());
            for table in step.statement.tables().map_err(|e| step.error(&e))? {
                match place.get(table.as_str()) {
                    Some(&at) => step_needs.push(at),
                    None if config.sources.contains_key(&table) => step_sources.push(table),
                    None if crate::session::files::looks_like_path(&table) => {}
                    None => return Err(unknown(step, &table, config, &place)),
                }
            }
            needs.push(step_needs);
            sources.push(step_sources);
        }
        if let Some(name) = config.show.iter().find(|name| !place.contains_key(name.as_str())) {
            let message = format!("show names '{name}', which is not a step");
            return Err(Error::project(root.join(super::FILE), config.line_of("show"), message));
        }
        let order = order(&steps, &needs)?;
        Ok(Self { steps, needs, sources }.sorted(&order))
    }

    fn sorted(self, order: &[usize]) -> Self {
        let mut new_place = vec![0; order.len()];
        order.iter().enumerate().for_each(|(new, &old)| new_place[old] = new);
        let steps = order.iter().map(|&old| self.steps[old].clone()).collect();
        let needs = order.iter().map(|&old| self.needs[old].iter().map(|&need| new_place[need]).collect()).collect();
        let sources = order.iter().map(|&old| self.sources[old].clone()).collect();
        Self { steps, needs, sources }
    }

    /// The steps, each after those it needs.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// The places of the steps that a step reads.
    pub fn needs(&self, step: usize) -> &[usize] {
        &self.needs[step]
    }

    /// The sources that a step reads.
    pub fn sources(&self, step: usize) -> &[String] {
        &self.sources[step]
    }

    /// The places of the named steps and of all they need; of all steps where none is named.
    pub fn select(&self, names: &[String]) -> Result<BTreeSet<usize>> {
        if names.is_empty() {
            return Ok((0..self.steps.len()).collect());
        }
        let mut open = Vec::new();
        for name in names {
            let Some(at) = self.steps.iter().position(|step| step.name == *name) else {
                let known: Vec<&str> = self.steps.iter().map(|step| step.name.as_str()).collect();
                let near = nearest(name, &known).map_or(String::new(), |near| format!(", did you mean '{near}'?"));
                return Err(Error::Usage(format!(
                    "--select {name}: there is no such step{near}; there are {}",
                    known.join(", ")
                )));
            };
            open.push(at);
        }
        let mut selected = BTreeSet::new();
        while let Some(at) = open.pop() {
            if selected.insert(at) {
                open.extend(&self.needs[at]);
            }
        }
        Ok(selected)
    }
}

fn unknown(step: &Step, table: &str, config: &Config, place: &BTreeMap<&str, usize>) -> Error {
    let known: Vec<&str> = place.keys().copied().chain(config.sources.keys().map(String::as_str)).collect();
    let near = nearest(table, &known).map_or(String::new(), |near| format!(", did you mean '{near}'?"));
    let message = format!("table '{table}' is neither a step nor a source{near}; a source is set in {}", super::FILE);
    Error::project(&step.file, step.line_naming(table), message)
}

/// An order in which each step comes after those it needs; among those that could come next, the first by path.
fn order(steps: &[Step], needs: &[Vec<usize>]) -> Result<Vec<usize>> {
    let mut order = Vec::new();
    let mut done = vec![false; steps.len()];
    while order.len() < steps.len() {
        let ready = |&at: &usize| !done[at] && needs[at].iter().all(|&need| done[need]);
        match (0..steps.len()).find(ready) {
            Some(at) => {
                done[at] = true;
                order.push(at);
            }
            None => return Err(cycle(steps, needs, &done)),
        }
    }
    Ok(order)
}

fn cycle(steps: &[Step], needs: &[Vec<usize>], done: &[bool]) -> Error {
    // Every step that is left needs another that is left, so following these must come round.
    let mut path = vec![done.iter().position(|done| !done).unwrap_or(0)];
    loop {
        let last = path[path.len() - 1];
        let next = needs[last].iter().copied().find(|&need| !done[need]).unwrap_or(last);
        if let Some(start) = path.iter().position(|&at| at == next) {
            path.drain(..start);
            path.push(next);
            break;
        }
        path.push(next);
    }
    let names: Vec<&str> = path.iter().map(|&at| steps[at].name.as_str()).collect();
    let first = &steps[path[0]];
    let line = first.line_naming(&steps[path[1]].name);
    Error::project(&first.file, line, format!("steps need each other in a circle: {}", names.join(" needs ")))
}
