//! `explain_pair`: what makes the score of a user and an item.

mod build;

use std::sync::Arc;

use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{Documentation, LogicalPlan};

pub use self::build::ExplainTask;
use self::build::Model;
use super::arguments::Arguments;
use super::factorize::feedback;
use super::input::{Input, Inputs};
use super::neighbors::on_null;
use super::node::OperatorNode;
use super::planner::{OPERATORS, Operator};
use crate::kernels::als::Feedback;
use crate::kernels::scoring::Side;

const NAME: &str = "explain_pair";

/// `FROM explain_pair(pairs => .., history => .., ..)`
#[derive(Debug)]
pub struct ExplainPairOperator;

impl Operator for ExplainPairOperator {
    fn name(&self) -> &'static str {
        NAME
    }

    fn relation_arguments(&self) -> &'static [&'static str] {
        &["pairs", "history", "item_neighbors", "user_neighbors", "item_vectors"]
    }

    fn documentation(&self) -> Documentation {
        Documentation::builder(
            OPERATORS,
            "What makes the score of a user and an item, whether it is recommended or not: for each pair the `k` reasons that add \
most to it or take most from it.

| given | a reason | adds |
| --- | --- | --- |
| `item_neighbors` | an item `i` of the user's history | `weight(u, i) * score(i, item)` |
| `user_neighbors` | a neighbor `v` of the user who has the item | `score(u, v) * weight(v, item)` |
| `item_vectors` of `factorize(.., method => 'als')` | an item `i` of the user's history | `c_i y_i' A^-1 y_item`, with `A = Y'Y + Y'(C - 1)Y + regularization` of the user (Hu, Koren and Volinsky 2008, section 5); with ratings, what they are above the last number of the item's vector, `mean + b_i`, takes the place of `c_i`. Give the arguments that factorize was given |

Without a limit reached, the reasons of a pair add up to its score (with ratings, to what it is above mean and bias): exactly so where the user's vector is one of \
`fold_in`, nearly so with those of `factorize`, whose items have moved once more after the users.

Result: user and item under the names and in the types of `pairs`, `id` (the reason), `contribution` (Float32) and `rank` \
(Int32 from 1, by falling absolute contribution, equal ones by the smaller id).",
            "explain_pair(pairs => table, history => table, model => table [, name => value ..])",
        )
        .with_sql_example(
            "SELECT * FROM explain_pair(pairs => (SELECT 7 AS user_id, 42 AS item_id), history => interactions, item_neighbors => item_neighbors);",
        )
        .with_argument("pairs", "Columns user_id and item_id, or user and item by position; each pair is told of once.")
        .with_argument("history", "Columns user_id, item_id and weight or rating, or user, item and weight by position; weight 1 where absent.")
        .with_argument("item_neighbors", "A neighbor table of items: id, neighbor_id, score. One model must be given.")
        .with_argument("user_neighbors", "A neighbor table of users.")
        .with_argument("item_vectors", "Rows of an item and its vector.")
        .with_argument("k", "Reasons per pair, at least 1. Default 5.")
        .with_argument("on_null", "'error' or 'skip' rows with a NULL. Default 'error'.")
        .with_argument("implicit", "For vectors: whether weights are confidence, or ratings. Default true.")
        .with_argument("regularization", "For vectors: what large vectors cost, above 0. Default 0.05.")
        .with_argument("alpha", "For vectors, implicit: how much a weight adds to the confidence, at least 0. Default 1.")
        .build()
    }

    fn plan(&self, mut arguments: Arguments, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
        let (Some(pairs), Some(history)) =
            (arguments.relation("pairs", context)?, arguments.relation("history", context)?)
        else {
            return plan_err!("{NAME}: give pairs => (user_id, item_id) and history => (user_id, item_id, weight)");
        };
        let mut given = |name| arguments.relation(name, context);
        let models = (given("item_neighbors")?, given("user_neighbors")?, given("item_vectors")?);
        let of_vectors = ["implicit", "regularization", "alpha"].into_iter().find(|name| arguments.has(name));
        if let (None, Some(name)) = (&models.2, of_vectors) {
            return plan_err!("{NAME}: argument '{name}' belongs to item_vectors");
        }
        let k = arguments.integer("k", 1..=i64::from(i32::MAX), context)?.unwrap_or(5) as usize;
        let pairs = Input::new(NAME, "pairs", pairs);
        let history = Input::new(NAME, "history", history);
        let (user, item, weight) = history.interactions()?;
        let types = [history.id_type(user), history.id_type(item)];
        let reasons = [history.data_type(user), history.data_type(item)];
        let ids = [pairs.interactions()?.0, pairs.interactions()?.1];
        let out = ids.map(|column| (pairs.name(column), pairs.data_type(column)));
        let mut inputs = Inputs::new(NAME, on_null(&mut arguments, context)?);
        inputs.add(pairs, &[(ids[0], &types[0]), (ids[1], &types[1])], None)?;
        inputs.add(history, &[(user, &types[0]), (item, &types[1])], weight)?;
        let (side, model) = match models {
            (Some(plan), None, None) => {
                inputs.add_neighbors(Input::new(NAME, "item_neighbors", plan), &types[1])?;
                (Side::Items, Model::Neighbors(Side::Items))
            }
            (None, Some(plan), None) => {
                inputs.add_neighbors(Input::new(NAME, "user_neighbors", plan), &types[0])?;
                (Side::Users, Model::Neighbors(Side::Users))
            }
            (None, None, Some(plan)) => {
                let (feedback, regularization) = feedback(NAME, &mut arguments, context)?;
                if feedback == Feedback::Explicit && weight.is_none() {
                    return plan_err!(
                        "{NAME}: argument 'history' needs a third column of numbers, the rating, with implicit => false"
                    );
                }
                inputs.add_vectors(Input::new(NAME, "item_vectors", plan), &types[1])?;
                (Side::Items, Model::Vectors { feedback, regularization })
            }
            _ => return plan_err!("{NAME}: give one model: item_neighbors, user_neighbors or item_vectors"),
        };
        arguments.finish()?;
        let reason = reasons[usize::from(side == Side::Items)].clone();
        let task = ExplainTask::new(inputs.columns, out, reason, model, k);
        OperatorNode::plan(Arc::new(task), inputs.plans)
    }
}
