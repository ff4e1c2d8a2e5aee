//! `ease`: the weights by which items speak for items, of a linear autoencoder.

use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{Documentation, LogicalPlan};

use super::arguments::Arguments;
use super::linear::{Method, plan};
use super::planner::{OPERATORS, Operator};

/// `FROM ease(interactions, ..)`
#[derive(Debug)]
pub struct EaseOperator;

impl Operator for EaseOperator {
    fn name(&self) -> &'static str {
        "ease"
    }

    fn relation_arguments(&self) -> &'static [&'static str] {
        &["interactions"]
    }

    fn documentation(&self) -> Documentation {
        Documentation::builder(
            OPERATORS,
            "EASE (Steck 2019): for each item the items that speak for or against it, as the weights of a linear \
autoencoder that may not look at the item itself. With `X` the matrix of users by items and `P = (X'X + regularization)^-1`, \
the weight of item `i` for item `j` is `-P_ij / P_jj`. Repeated (user, item) rows are summed.

Result: a neighbor table for `recommend(item_neighbors => ..)`: the item's column under its own name and type, `neighbor_id`, \
`score` (Float32, of either sign) and `rank` (Int32 from 1), by falling score. Of each item the `k` neighbors of the largest \
absolute weight are kept. The inverse is dense and exact: some operations for each pair of items and one more item, so it is for up to some ten \
thousand items. Its factor takes 4 bytes for each pair of items, on disk where memory is short; the result is the same.",
            "ease(interactions [, name => value ..])",
        )
        .with_sql_example(
            "SELECT * FROM recommend(history => interactions, item_neighbors => (SELECT * FROM ease(interactions, regularization => 300)), k => 20);",
        )
        .with_argument(
            "interactions",
            "Columns user_id, item_id and weight, or user, item and weight by position; without a weight each is 1.",
        )
        .with_argument("regularization", "Added to the diagonal of X'X, above 0: the more, the smaller the weights. Default 300.")
        .with_argument("k", "Neighbors per item, at least 1. Default 1000.")
        .with_argument("on_null", "'error' or 'skip' rows with a NULL. Default 'error'.")
        .build()
    }

    fn plan(&self, mut arguments: Arguments, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
        let Some(interactions) = arguments.relation("interactions", context)? else {
            return plan_err!(
                "ease: argument 'interactions' is missing; give a table or (SELECT user_id, item_id, weight ..)"
            );
        };
        let regularization = arguments.number("regularization", 0.0..=f64::INFINITY, context)?.unwrap_or(300.0);
        if regularization == 0.0 {
            return plan_err!("ease: argument 'regularization' must be above 0; without it the weights may not exist");
        }
        plan("ease", arguments, interactions, Method::Ease { regularization }, context)
    }
}
