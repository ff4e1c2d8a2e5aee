//! `fold_in`: vectors of new users from those of items.

mod build;

use std::sync::Arc;

use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{Documentation, LogicalPlan};

pub use self::build::FoldInTask;
use super::arguments::Arguments;
use super::factorize::feedback;
use super::input::Input;
use super::neighbors::on_null;
use super::node::OperatorNode;
use super::planner::{OPERATORS, Operator};
use super::vectors::VectorInput;
use crate::kernels::als::Feedback;

const NAME: &str = "fold_in";

/// `FROM fold_in(interactions, item_vectors => .., ..)`
#[derive(Debug)]
pub struct FoldInOperator;

impl Operator for FoldInOperator {
    fn name(&self) -> &'static str {
        NAME
    }

    fn relation_arguments(&self) -> &'static [&'static str] {
        &["interactions", "item_vectors"]
    }

    fn documentation(&self) -> Documentation {
        Documentation::builder(
            OPERATORS,
            "Vectors of users who were not there when `factorize(.., method => 'als')` found those of the items, or who have done more \
since: each is the minimum of the same loss while the items stand still, so nothing is trained anew. Give the arguments that \
factorize was given. Items without a vector do not count; a user without any item that has one gets none. To fold in new items, \
change the roles of users and items (with ratings, only users fold in).

Result: the user under its own name and type, and `vector`.",
            "fold_in(interactions, item_vectors => .. [, name => value ..])",
        )
        .with_sql_example(
            "SELECT * FROM nearest(
  queries => (SELECT * FROM fold_in(todays_clicks, item_vectors => (SELECT id, vector FROM vectors WHERE side = 'item'), alpha => 20)),
  candidates => (SELECT id AS item_id, vector FROM vectors WHERE side = 'item'), metric => 'dot', k => 20);",
        )
        .with_argument("interactions", "Columns user_id, item_id and weight or rating, or user, item and weight by position.")
        .with_argument("item_vectors", "Rows of an item and its vector.")
        .with_argument("implicit", "Whether weights are confidence, or ratings. Default true.")
        .with_argument("regularization", "What large vectors cost, above 0. Default 0.05.")
        .with_argument("alpha", "Implicit: how much a weight adds to the confidence, at least 0. Default 1.")
        .with_argument("on_null", "'error' or 'skip' rows with a NULL. Default 'error'.")
        .build()
    }

    fn plan(&self, mut arguments: Arguments, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
        let (Some(interactions), Some(vectors)) =
            (arguments.relation("interactions", context)?, arguments.relation("item_vectors", context)?)
        else {
            return plan_err!(
                "{NAME}: give interactions (user_id, item_id, weight) and item_vectors => (item, vector)"
            );
        };
        let (feedback, regularization) = feedback(NAME, &mut arguments, context)?;
        let skip_nulls = on_null(&mut arguments, context)?;
        arguments.finish()?;
        let input = Input::new(NAME, "interactions", interactions);
        let (user, _, weight) = input.interactions()?;
        if feedback == Feedback::Explicit && weight.is_none() {
            return plan_err!("{}", input.wants("a third column of numbers, the rating, with implicit => false"));
        }
        let user_type = input.data_type(user);
        let (columns, plan) = input.into_interactions(skip_nulls)?;
        let vectors = VectorInput::new(Input::new(NAME, "item_vectors", vectors), Some(&columns.types[1]))?.plan;
        let task = FoldInTask::new(columns, user_type, feedback, regularization);
        OperatorNode::plan(Arc::new(task), vec![plan, vectors])
    }
}
