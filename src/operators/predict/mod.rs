//! `predict`: ratings of pairs of users and items.

mod build;
mod docs;

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{Documentation, LogicalPlan};

use self::build::Model;
pub use self::build::PredictTask;
use super::arguments::Arguments;
use super::input::{Input, Inputs};
use super::neighbors::on_null;
use super::node::OperatorNode;
use super::planner::Operator;
use crate::kernels::scoring::Side;

const NAME: &str = "predict";

/// `FROM predict(pairs => .., history => .., ..)`
#[derive(Debug)]
pub struct PredictOperator;

/// What neighbors' ratings are measured from.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
pub(super) enum From {
    Nothing,
    Means,
    Biases,
}

const BASELINES: [(&str, From); 3] = [("none", From::Nothing), ("mean", From::Means), ("bias", From::Biases)];

impl Operator for PredictOperator {
    fn name(&self) -> &'static str {
        NAME
    }

    fn relation_arguments(&self) -> &'static [&'static str] {
        &["pairs", "history", "item_neighbors", "user_neighbors", "user_vectors", "item_vectors"]
    }

    fn documentation(&self) -> Documentation {
        docs::documentation()
    }

    fn plan(&self, mut arguments: Arguments, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
        let Some(pairs) = arguments.relation("pairs", context)? else {
            return plan_err!("{NAME}: argument 'pairs' is missing; give (SELECT user_id, item_id ..)");
        };
        let Some(history) = arguments.relation("history", context)? else {
            return plan_err!("{NAME}: argument 'history' is missing; give (SELECT user_id, item_id, rating ..)");
        };
        let pairs = Input::new(NAME, "pairs", pairs);
        let history = Input::new(NAME, "history", history);
        let (user, item, rating) = history.interactions()?;
        if rating.is_none() {
            return plan_err!("{}", history.wants("a third column of numbers, the rating"));
        }
        let types = [history.id_type(user), history.id_type(item)];
        let mut inputs = Inputs::new(NAME, false);
        let ids = [pairs.interactions()?.0, pairs.interactions()?.1];
        let out = ids.map(|column| (pairs.name(column), pairs.data_type(column)));
        inputs.skip_nulls = on_null(&mut arguments, context)?;
        inputs.add(pairs, &[(ids[0], &types[0]), (ids[1], &types[1])], None)?;
        inputs.add(history, &[(user, &types[0]), (item, &types[1])], rating)?;
        let model = add_model(&mut inputs, &mut arguments, &types, context)?;
        let clip = arguments.boolean("clip", context)?.unwrap_or(true);
        arguments.finish()?;
        let task = PredictTask::new(inputs.columns, out, model, clip);
        OperatorNode::plan(Arc::new(task), inputs.plans)
    }
}

/// Adds the tables of the model that is given.
fn add_model(
    inputs: &mut Inputs,
    arguments: &mut Arguments,
    types: &[DataType; 2],
    context: &mut dyn RelationPlannerContext,
) -> Result<Model> {
    let mut given = |name| arguments.relation(name, context);
    let neighbors = (given("item_neighbors")?, given("user_neighbors")?);
    let vectors = (given("user_vectors")?, given("item_vectors")?);
    let from = arguments.choice("baseline", &BASELINES, context)?;
    let k = arguments.integer("k", 1..=i64::from(i32::MAX), context)?;
    let least = arguments.integer("min_k", 1..=i64::from(i32::MAX), context)?;
    let (side, argument, plan) = match (neighbors, vectors) {
        ((Some(plan), None), (None, None)) => (Side::Items, "item_neighbors", plan),
        ((None, Some(plan)), (None, None)) => (Side::Users, "user_neighbors", plan),
        ((None, None), (None, None) | (Some(_), Some(_))) if k.is_some() || least.is_some() => {
            return plan_err!(
                "{NAME}: arguments 'k' and 'min_k' belong to neighbors; give item_neighbors or user_neighbors"
            );
        }
        ((None, None), (Some(users), Some(items))) if from.is_none() => {
            for (argument, plan, data_type) in [("user_vectors", users, &types[0]), ("item_vectors", items, &types[1])]
            {
                inputs.add_vectors(Input::new(NAME, argument, plan), data_type)?;
            }
            return Ok(Model::Vectors);
        }
        ((None, None), (Some(_), Some(_))) => {
            return plan_err!("{NAME}: argument 'baseline' belongs to neighbors; vectors have their own");
        }
        ((None, None), (None, None)) if !matches!(from, None | Some(From::Biases)) => {
            return plan_err!("{NAME}: without a model argument 'baseline' can only be 'bias'");
        }
        ((None, None), (None, None)) => return Ok(Model::Baseline),
        _ => {
            return plan_err!(
                "{NAME}: give one model: item_neighbors, or user_neighbors, or both user_vectors and item_vectors"
            );
        }
    };
    inputs.add_neighbors(Input::new(NAME, argument, plan), &types[usize::from(side == Side::Items)])?;
    Ok(Model::Neighbors {
        side,
        k: k.unwrap_or(40) as usize,
        least: least.unwrap_or(1) as usize,
        from: from.unwrap_or(From::Biases),
    })
}
