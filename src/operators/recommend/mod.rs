//! `recommend`: the k best items of each user, from histories and neighbors.

mod build;
mod docs;

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{Documentation, LogicalPlan};
use serde::{Deserialize, Serialize};
use serde_with::{DisplayFromStr, serde_as};

pub use self::build::RecommendTask;
use self::build::{Parts, Settings};
use super::arguments::Arguments;
use super::ids::value_type;
use super::input::{Input, Inputs};
use super::neighbors::on_null;
use super::node::OperatorNode;
use super::planner::Operator;
use crate::kernels::scoring::Side;

/// `FROM recommend(history => .., item_neighbors => .., ..)`
#[derive(Debug)]
pub struct RecommendOperator;

impl Operator for RecommendOperator {
    fn name(&self) -> &'static str {
        "recommend"
    }

    fn relation_arguments(&self) -> &'static [&'static str] {
        &["history", "item_neighbors", "user_neighbors", "exclude", "candidates"]
    }

    fn documentation(&self) -> Documentation {
        docs::documentation()
    }

    fn plan(&self, mut arguments: Arguments, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
        let Some(history) = arguments.relation("history", context)? else {
            return plan_err!(
                "recommend: argument 'history' is missing; give a table or (SELECT user_id, item_id, weight ..)"
            );
        };
        let by_item = arguments.relation("item_neighbors", context)?;
        let by_user = arguments.relation("user_neighbors", context)?;
        let (side, argument, neighbors) = match (by_item, by_user) {
            (Some(plan), None) => (Side::Items, "item_neighbors", plan),
            (None, Some(plan)) => (Side::Users, "user_neighbors", plan),
            (None, None) => return plan_err!("recommend: give item_neighbors => or user_neighbors =>"),
            _ => {
                return plan_err!(
                    "recommend: item_neighbors and user_neighbors exclude each other; make two lists and blend them"
                );
            }
        };
        let exclude = arguments.relation("exclude", context)?;
        let candidates = arguments.relation("candidates", context)?;
        let settings = Settings {
            side,
            k: arguments.integer("k", 1..=i64::from(i32::MAX), context)?.unwrap_or(20) as usize,
            exclude_seen: arguments.boolean("exclude_seen", context)?.unwrap_or(true),
            reasons: arguments.integer("explain", 0..=1000, context)?.unwrap_or(0) as usize,
            normalize: arguments.boolean("normalize", context)?.unwrap_or(false),
        };
        let skip_nulls = on_null(&mut arguments, context)?;
        arguments.finish()?;
        let mut inputs = Inputs::new("recommend", skip_nulls);
        let history = Input::new("recommend", "history", history);
        let (user, item, weight) = history.interactions()?;
        let types = IdTypes { user: history.data_type(user), item: history.data_type(item) };
        let (users, items) = (types.user_values(), types.item_values());
        inputs.add(history, &[(user, &users), (item, &items)], weight)?;
        let links = if side == Side::Items { &items } else { &users };
        inputs.add_neighbors(Input::new("recommend", argument, neighbors), links)?;
        let parts = Parts {
            exclude: add_mask(&mut inputs, [&users, &items], "exclude", exclude)?,
            candidates: add_mask(&mut inputs, [&users, &items], "candidates", candidates)?,
        };
        let Inputs { plans, columns, .. } = inputs;
        let task = RecommendTask::new(columns, types, settings, parts);
        OperatorNode::plan(Arc::new(task), plans)
    }
}

/// The types of ids: as users and items go out.
#[serde_as]
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct IdTypes {
    #[serde_as(as = "DisplayFromStr")]
    pub user: DataType,
    #[serde_as(as = "DisplayFromStr")]
    pub item: DataType,
}

impl IdTypes {
    /// The type in which users are interned.
    pub fn user_values(&self) -> DataType {
        value_type(&self.user)
    }

    /// The type in which items are interned.
    pub fn item_values(&self) -> DataType {
        value_type(&self.item)
    }
}

/// Adds items, or pairs of user and item. Returns where the input stands and whether it has pairs.
fn add_mask(
    inputs: &mut Inputs,
    types: [&DataType; 2],
    argument: &'static str,
    plan: Option<LogicalPlan>,
) -> Result<Option<(usize, bool)>> {
    let Some(plan) = plan else {
        return Ok(None);
    };
    let input = Input::new("recommend", argument, plan);
    let (user, item) = match (input.find("user_id"), input.find("item_id")) {
        (user, Some(item)) => (user, item),
        _ if input.width() == 1 => (None, 0),
        _ if input.width() == 2 => (Some(0), 1),
        _ => {
            return plan_err!(
                "recommend: argument '{argument}' is one column of items or two of users and items; these columns are {}",
                input.names().join(", ")
            );
        }
    };
    let columns: Vec<(usize, &DataType)> =
        user.map(|user| (user, types[0])).into_iter().chain([(item, types[1])]).collect();
    Ok(Some((inputs.add(input, &columns, None)?, user.is_some())))
}
