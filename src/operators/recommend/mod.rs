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
use super::collect::Columns;
use super::ids::value_type;
use super::input::Input;
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
        let mut inputs = Inputs { skip_nulls, plans: Vec::new(), columns: Vec::new(), types: None };
        inputs.add_history(Input::new("recommend", "history", history))?;
        inputs.add_neighbors(Input::new("recommend", argument, neighbors), side)?;
        let parts = Parts {
            exclude: inputs.add_mask("exclude", exclude)?,
            candidates: inputs.add_mask("candidates", candidates)?,
        };
        let types = inputs.types()?;
        let task = RecommendTask::new(inputs.columns, types, settings, parts);
        OperatorNode::plan(Arc::new(task), inputs.plans)
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

struct Inputs {
    skip_nulls: bool,
    plans: Vec<LogicalPlan>,
    columns: Vec<Columns>,
    types: Option<IdTypes>,
}

impl Inputs {
    /// What the history settled; it is added first.
    fn types(&self) -> Result<IdTypes> {
        match &self.types {
            Some(types) => Ok(types.clone()),
            None => datafusion::common::internal_err!("recommend has no history"),
        }
    }

    /// User, item and weight: by name where columns are called user_id and item_id, else by position.
    fn add_history(&mut self, input: Input) -> Result<()> {
        let (user, item, weight) = input.interactions()?;
        self.types = Some(IdTypes { user: input.data_type(user), item: input.data_type(item) });
        let types = self.types()?;
        self.add(input, &[(user, types.user_values()), (item, types.item_values())], weight)
    }

    fn add_neighbors(&mut self, input: Input, side: Side) -> Result<()> {
        let types = self.types()?;
        let id_type = match side {
            Side::Items => types.item_values(),
            Side::Users => types.user_values(),
        };
        let (id, neighbor, score) = input.neighbors()?;
        self.add(input, &[(id, id_type.clone()), (neighbor, id_type)], Some(score))
    }

    /// Items, or pairs of user and item. Returns where the input stands and whether it has pairs.
    fn add_mask(&mut self, argument: &'static str, plan: Option<LogicalPlan>) -> Result<Option<(usize, bool)>> {
        let Some(plan) = plan else {
            return Ok(None);
        };
        let types = self.types()?;
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
        match user {
            Some(user) => self.add(input, &[(user, types.user_values()), (item, types.item_values())], None)?,
            None => self.add(input, &[(item, types.item_values())], None)?,
        }
        Ok(Some((self.plans.len() - 1, user.is_some())))
    }

    fn add(&mut self, mut input: Input, ids: &[(usize, DataType)], weight: Option<usize>) -> Result<()> {
        self.columns.push(Columns {
            operator: "recommend".into(),
            ids: ids.iter().map(|(column, _)| input.name(*column)).collect(),
            types: ids.iter().map(|(_, data_type)| data_type.clone()).collect(),
            weight: weight.map(|column| input.name(column)),
            skip_nulls: self.skip_nulls,
        });
        for (column, data_type) in ids {
            input.choose_id(*column, data_type)?;
        }
        if let Some(weight) = weight {
            input.choose_weight(weight)?;
        }
        self.plans.push(input.into_plan()?);
        Ok(())
    }
}
