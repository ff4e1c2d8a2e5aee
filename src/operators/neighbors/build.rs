//! From rows to a similarity index, and from its findings to rows.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::Result;
use datafusion::logical_expr::LogicalPlan;
use serde::{Deserialize, Serialize};
use serde_with::{DisplayFromStr, serde_as};

use super::search::{Search, Types};
use crate::kernels::metric::Settings;
use crate::operators::codec::encode;
use crate::operators::collect::{Columns, collect};
use crate::operators::found::{Found, Stop, best, schema};
use crate::operators::input_rows::InputRows;
use crate::operators::node::{Built, OperatorNode, Resources, Task, on_pool};

pub(super) const ENTITY: usize = 0;
pub(super) const FEATURE: usize = 1;

/// `neighbors` with all its settings fixed.
#[serde_as]
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NeighborsTask {
    columns: Columns,
    /// The type in which ids go out: what they came in, dictionaries included.
    #[serde_as(as = "DisplayFromStr")]
    id_type: DataType,
    settings: Settings,
    /// Whether each process searches its share of the pairs only, and what all found is merged after it.
    shared: bool,
    /// Whether ids go out as keys of a dictionary.
    keys: bool,
}

impl NeighborsTask {
    /// Reads its input as `columns` say.
    pub fn new(columns: Columns, id_type: DataType, settings: Settings) -> Self {
        Self { columns, id_type, settings, shared: false, keys: false }
    }
}

#[async_trait]
impl Task for NeighborsTask {
    fn name(&self) -> &'static str {
        "Neighbors"
    }

    fn settings(&self) -> String {
        let s = &self.settings;
        let weight = self.columns.weight.as_deref().unwrap_or("1");
        let mut text = format!(
            "entity={}, feature={}, weight={weight}, metric={}, k={}",
            self.columns.ids[ENTITY],
            self.columns.ids[FEATURE],
            s.metric.name(),
            s.k
        );
        text += &format!(", weighting={}, shrink={}, threshold={}", s.weighting.name(), s.shrink, s.threshold);
        text += &format!(", min_overlap={}, alpha={}, beta={}", s.min_overlap, s.alpha, s.beta);
        if let Some(walk) = s.exponents() {
            text += &format!(", a={}, b={}, c={}", walk.a, walk.b, walk.c);
        }
        text += &s.max_features.map_or(String::new(), |most| format!(", max_features={most}"));
        text += if self.columns.skip_nulls { ", on_null=skip" } else { "" };
        text += if self.shared { ", shared" } else { "" };
        text + if self.keys { ", keys" } else { "" }
    }

    fn schema(&self) -> SchemaRef {
        schema(&self.columns.ids[ENTITY], &self.id_type, self.keys)
    }

    fn with_keys(&self) -> Option<Arc<dyn Task>> {
        Some(Arc::new(Self { keys: true, ..self.clone() }))
    }

    fn encode(&self) -> Result<Vec<u8>> {
        encode(self)
    }

    fn shared(&self, inputs: &[LogicalPlan]) -> Result<Option<LogicalPlan>> {
        let partial = OperatorNode::plan(Arc::new(Self { shared: true, ..self.clone() }), inputs.to_vec())?;
        best(partial, self.settings.k).map(Some)
    }

    fn is_shared(&self) -> bool {
        self.shared
    }

    async fn build(&self, mut inputs: Vec<InputRows>, resources: Resources) -> Result<Arc<dyn Built>> {
        let disk = Some(Arc::clone(&resources.disk));
        let chunks = collect(inputs.swap_remove(0), &self.columns, resources.threads, &resources.memory, disk).await?;
        let types = Types { ids: self.columns.types.clone(), out: self.id_type.clone() };
        let (settings, schema) = (self.settings, self.schema());
        let (threads, stop) = (resources.threads, Stop::default());
        let stopped = stop.flag();
        let mine = if self.shared { resources.shares.mask() } else { vec![true] };
        let find = move || {
            let search = Search { settings, mine, resources: &resources, stop: &stopped };
            let (candidates, entities) = search.run(chunks, &types)?;
            Found::new(candidates, entities, settings.k, schema, resources.memory)
        };
        Ok(Arc::new(on_pool(threads, find).await?))
    }
}
