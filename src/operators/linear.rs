//! Linear models, whose weights of items for items make neighbor tables: what `ease` and `slim` share.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::Array;
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::{DataFusionError, Result, exec_err};
use datafusion::logical_expr::LogicalPlan;
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::physical_plan::metrics::MetricBuilder;
use serde::{Deserialize, Serialize};
use serde_with::{DisplayFromStr, serde_as};

use crate::kernels::csr::{Csr, entry};
use crate::kernels::panels::{self, Panels};
use crate::kernels::topk::Candidates;
use crate::kernels::{ease, slim};
use crate::operators::arguments::Arguments;
use crate::operators::codec::encode;
use crate::operators::collect::{Chunk, Columns, collect, matrix, number_both};
use crate::operators::found::{Found, Stop, schema};
use crate::operators::input::Input;
use crate::operators::input_rows::InputRows;
use crate::operators::neighbors::on_null;
use crate::operators::node::{Built, OperatorNode, Resources, Task, on_pool};
use crate::operators::spill::{Spill, SpilledPanels, from_kernel};

const USER: usize = 0;
const ITEM: usize = 1;

/// How weights are found.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Method {
    /// In closed form.
    Ease {
        /// Added to the diagonal, above 0.
        regularization: f64,
    },
    /// By coordinate descent.
    Slim {
        /// What each weight costs.
        l1: f32,
        /// What the squares of weights cost.
        l2: f32,
    },
}

/// Reads the arguments that linear models share, and plans one.
pub fn plan(
    operator: &'static str,
    mut arguments: Arguments,
    interactions: LogicalPlan,
    method: Method,
    context: &mut dyn RelationPlannerContext,
) -> Result<LogicalPlan> {
    let k = arguments.integer("k", 1..=i64::from(i32::MAX), context)?.unwrap_or(1000) as usize;
    let skip_nulls = on_null(&mut arguments, context)?;
    arguments.finish()?;
    let input = Input::new(operator, "interactions", interactions);
    let id_type = input.data_type(input.interactions()?.1);
    let (columns, plan) = input.into_interactions(skip_nulls)?;
    OperatorNode::plan(Arc::new(LinearTask { columns, id_type, method, k, keys: false }), vec![plan])
}

/// A linear model with all its settings fixed.
#[serde_as]
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct LinearTask {
    columns: Columns,
    /// The type in which items go out.
    #[serde_as(as = "DisplayFromStr")]
    id_type: DataType,
    method: Method,
    k: usize,
    /// Whether ids go out as keys of a dictionary.
    keys: bool,
}

#[async_trait]
impl Task for LinearTask {
    fn name(&self) -> &'static str {
        match self.method {
            Method::Ease { .. } => "Ease",
            Method::Slim { .. } => "Slim",
        }
    }

    fn settings(&self) -> String {
        let method = match self.method {
            Method::Ease { regularization } => format!("regularization={regularization}"),
            Method::Slim { l1, l2 } => format!("l1={l1}, l2={l2}"),
        };
        let weight = self.columns.weight.as_deref().unwrap_or("1");
        let skip = if self.columns.skip_nulls { ", on_null=skip" } else { "" };
        let [user, item] = [USER, ITEM].map(|at| &self.columns.ids[at]);
        let keys = if self.keys { ", keys" } else { "" };
        format!("user={user}, item={item}, weight={weight}, {method}, k={}{skip}{keys}", self.k)
    }

    fn schema(&self) -> SchemaRef {
        schema(&self.columns.ids[ITEM], &self.id_type, self.keys)
    }

    fn with_keys(&self) -> Option<Arc<dyn Task>> {
        Some(Arc::new(Self { keys: true, ..self.clone() }))
    }

    fn encode(&self) -> Result<Vec<u8>> {
        encode(self)
    }

    async fn build(&self, mut inputs: Vec<InputRows>, resources: Resources) -> Result<Arc<dyn Built>> {
        let disk = Some(Arc::clone(&resources.disk));
        let chunks = collect(inputs.swap_remove(0), &self.columns, resources.threads, &resources.memory, disk).await?;
        let (types, id_type) = (self.columns.types.clone(), self.id_type.clone());
        let (method, k, schema) = (self.method, self.k, self.schema());
        let stop = Stop::default();
        let stopped = stop.flag();
        let threads = resources.threads;
        let solve = move || solve(chunks, &types, &id_type, (method, k), schema, resources, &stopped);
        Ok(Arc::new(on_pool(threads, solve).await?))
    }
}

fn solve(
    mut chunks: Vec<Chunk>,
    types: &[DataType],
    id_type: &DataType,
    (method, k): (Method, usize),
    schema: SchemaRef,
    resources: Resources,
    stop: &std::sync::atomic::AtomicBool,
) -> Result<Found> {
    let types = [(&types[USER], &types[USER]), (&types[ITEM], id_type)];
    let [users, items] = number_both(&mut chunks, [USER, ITEM], types)?;
    let (users, n) = (users.ids.len(), items.ids.len());
    let k = k.min(n.max(1));
    let rows: usize = chunks.iter().map(Chunk::rows).sum();
    let matrices = Csr::bytes_for(users, rows) + Csr::bytes_for(n, rows);
    let lists = Candidates::bytes_for(k, (0..n).map(|_| n));
    let needed = chunks.iter().map(Chunk::bytes).sum::<usize>() + matrices + lists;
    let (mut panels, at_once) = match method {
        Method::Ease { .. } => room_for_panels(n, needed, &resources)?,
        Method::Slim { .. } => {
            reserve(needed + slim::bytes_for(n, resources.threads), n, "slim", &resources)?;
            (Box::new(Vec::new()) as Box<dyn Panels>, 0)
        }
    };
    let (by_user, by_item) = (matrix(&chunks, USER, ITEM, 0..users, n)?, matrix(&chunks, ITEM, USER, 0..n, users)?);
    drop(chunks);
    let places: Vec<u32> = match method {
        // An item and its negative stand next to each other.
        Method::Ease { .. } => items.order.iter().flat_map(|&place| [2 * place, 2 * place + 1]).collect(),
        Method::Slim { .. } => items.order.clone(),
    };
    let negative = matches!(method, Method::Slim { .. }) && by_user.entries.iter().any(|&e| entry::value(e) < 0.0);
    if negative {
        return exec_err!(
            "slim: weights must be at least 0, as only such weights of items are looked for; leave such rows out"
        );
    }
    let found = Candidates::new(k, places, f32::MIN_POSITIVE);
    let time = MetricBuilder::new(&resources.metrics).subset_time("solve_time", 0);
    {
        let _timer = time.timer();
        let solved = match method {
            Method::Ease { regularization } => {
                ease::ease((&by_user, &by_item), regularization, &found, panels.as_mut(), at_once, stop)
            }
            Method::Slim { l1, l2 } => slim::slim(&by_user, &by_item, l1, l2, &found, stop),
        };
        solved.map_err(from_kernel)?;
    }
    MetricBuilder::new(&resources.metrics).counter("items", 0).add(n);
    drop((by_user, by_item, panels));
    let ids = items.ids.get_array_memory_size() + 2 * n * size_of::<u32>();
    resources.memory.try_resize(ids + found.bytes())?;
    let found = Found::new(found, items, k, schema, resources.memory)?;
    Ok(match method {
        Method::Ease { .. } => found.signed(),
        Method::Slim { .. } => found,
    })
}

/// Room for the panels of `ease` beside so many bytes: in memory, or else on disk with as many at work at once as there is
/// room for. Returns where they go and how many that is.
fn room_for_panels(items: usize, beside: usize, resources: &Resources) -> Result<(Box<dyn Panels>, usize)> {
    let threads = resources.threads.max(1);
    let whole = beside + panels::bytes_for(items) + ease::bytes_for(items, threads);
    if resources.memory.try_resize(whole).is_ok() {
        return Ok((Box::new(Vec::new()), threads));
    }
    let mut at_once = items.div_ceil(panels::WIDTH);
    while at_once > 1 && resources.memory.try_resize(beside + ease::bytes_for(items, at_once)).is_err() {
        at_once /= 2;
    }
    reserve(beside + ease::bytes_for(items, at_once), items, "ease", resources)?;
    let file = Spill::try_new(&resources.disk, "ease")?;
    MetricBuilder::new(&resources.metrics).spilled_bytes(0).add(panels::bytes_for(items));
    Ok((Box::new(SpilledPanels::new(file)), at_once))
}

fn reserve(bytes: usize, items: usize, operator: &str, resources: &Resources) -> Result<()> {
    resources.memory.try_resize(bytes).map_err(|_| {
        DataFusionError::ResourcesExhausted(format!(
            "{operator} needs {} MB for {items} items, as it looks at all pairs of them; leave out items that few users have",
            bytes.div_ceil(1_000_000)
        ))
    })
}
