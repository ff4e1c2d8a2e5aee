//! `lakeside.toml` and SQL files -> an ordered graph of steps -> a run.

pub mod checks;
pub mod config;
pub mod graph;
pub mod header;
pub mod run;
pub mod steps;
pub mod tune;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use datafusion::common::DataFusionError;

use self::config::Config;
use self::graph::Graph;
use self::steps::Step;
use crate::error::{Error, Result};
use crate::lake::Lake;
use crate::session::statement::Statement;
use crate::session::{Limits, Session, files};

/// The name of the file that makes a folder a project.
pub const FILE: &str = "lakeside.toml";

/// A project that was read and whose steps are ordered; nothing has run.
pub struct Project {
    /// The folder of `lakeside.toml`.
    pub root: PathBuf,
    /// What `lakeside.toml` says.
    pub config: Config,
    /// The session in which its steps run.
    pub session: Session,
    /// The steps, each after those it needs.
    pub graph: Graph,
}

/// The folder of the project that a command means: the one given, else `.`, else `./sql`.
pub fn find(given: Option<&Path>) -> Result<PathBuf> {
    match given {
        Some(path) if path.join(FILE).is_file() => Ok(path.to_owned()),
        Some(path) if path.file_name().is_some_and(|name| name == FILE) && path.is_file() => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
            Ok(parent.unwrap_or(Path::new(".")).to_owned())
        }
        Some(path) => Err(Error::Usage(format!(
            "there is no {FILE} in '{}'; give the folder of a project, or make one with `lakeside init {}`",
            path.display(),
            path.display()
        ))),
        None => {
            let places = [".", "sql"].map(PathBuf::from);
            places.into_iter().find(|place| place.join(FILE).is_file()).ok_or_else(|| {
                Error::Usage(format!(
                    "there is no {FILE} here or in ./sql; go to a project, name its folder, or make one with `lakeside init DIR`"
                ))
            })
        }
    }
}

impl Project {
    /// Reads a project; `variables` are `name=value` settings that override its `[vars]`.
    pub fn read(root: &Path, limits: &Limits, variables: &[String]) -> Result<Self> {
        let config = Config::read(&root.join(FILE), variables)?;
        let session = Session::try_new(limits, config.vars.clone())?.at(root);
        let steps = steps::discover(root, &session)?;
        let graph = Graph::new(root, &config, steps)?;
        Ok(Self { root: root.to_owned(), config, session, graph })
    }

    /// Reads a project for queries alone: steps that are wrong are told and left out, sources and tables are there.
    pub fn read_for_queries(root: &Path, limits: &Limits, variables: &[String]) -> Result<(Self, Option<Error>)> {
        match Self::read(root, limits, variables) {
            Ok(project) => Ok((project, None)),
            Err(error) => {
                let config = Config::read(&root.join(FILE), variables)?;
                let session = Session::try_new(limits, config.vars.clone())?;
                let project = Self { root: root.to_owned(), config, session, graph: Graph::default() };
                Ok((project, Some(error)))
            }
        }
    }

    /// The lake it writes.
    pub fn lake(&self) -> Result<Lake> {
        Lake::open(&self.session, &self.config.lake.url, &self.root).map_err(|e| self.lake_error(&e))
    }

    /// What is wrong with the lake, with the line that says where it is.
    pub fn lake_error(&self, error: &DataFusionError) -> Error {
        let message = format!("[lake]: {}", crate::error::explain(error));
        Error::project(self.root.join(FILE), self.config.line_of("[lake]"), message)
    }

    /// Makes a source known to the session under its name.
    pub async fn register_source(&self, name: &str) -> Result<()> {
        let source = &self.config.sources[name];
        let url = match source.url.contains("://") {
            true => source.url.clone(),
            false => self.root.join(&source.url).to_string_lossy().into_owned(),
        };
        let context = self.session.context();
        let opened = files::open(context, &url).await;
        let registered = opened.and_then(|table| self.session.set_table(name, table));
        registered.map_err(|e| {
            let line = self.config.source_line(name);
            Error::project(self.root.join(FILE), line, format!("source '{name}': {}", crate::error::explain(&e)))
        })
    }

    /// Makes known what a statement reads of sources, published tables and views; everything, if it asks what there
    /// is.
    pub async fn provide(&self, statement: &Statement) -> Result<()> {
        let lake = self.lake()?;
        let mut open: Vec<String> = match statement.asks_for_tables() {
            true => {
                let views = self.graph.steps().iter().filter(|step| step.header.is_view());
                let names = views.map(|step| step.name.clone()).chain(self.config.sources.keys().cloned());
                names.chain(lake.tables().await?).collect()
            }
            false => statement.tables()?.into_iter().collect(),
        };
        let mut views = Vec::new();
        let mut seen = BTreeSet::new();
        while let Some(name) = open.pop() {
            if files::looks_like_path(&name) || !seen.insert(name.clone()) {
                continue;
            }
            if self.config.sources.contains_key(&name) {
                self.register_source(&name).await?;
            } else if let Some(view) =
                self.graph.steps().iter().position(|step| step.name == name && step.header.is_view())
            {
                views.push(view);
                open.extend(self.graph.steps()[view].statement.tables()?);
            } else {
                lake.register(&name).await?;
            }
        }
        // Steps are in order, so a view that reads another comes after it.
        views.sort_unstable();
        for view in views {
            self.register_view(&self.graph.steps()[view]).await?;
        }
        Ok(())
    }

    /// Makes a step that is a view known to the session.
    pub async fn register_view(&self, step: &Step) -> Result<()> {
        let view = self.session.query(step.statement.clone()).await.map_err(|e| step.error(&e))?.into_view();
        Ok(self.session.set_table(&step.name, view)?)
    }
}
