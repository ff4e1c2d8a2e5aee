//! `slim`: sparse weights by which items speak for items.

use datafusion::common::{DataFusionError, Result, plan_err};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{Documentation, LogicalPlan};

use super::arguments::Arguments;
use super::linear::{Method, plan};
use super::planner::{OPERATORS, Operator};

/// `FROM slim(interactions, ..)`
#[derive(Debug)]
pub struct SlimOperator;

impl Operator for SlimOperator {
    fn name(&self) -> &'static str {
        "slim"
    }

    fn relation_arguments(&self) -> &'static [&'static str] {
        &["interactions"]
    }

    fn documentation(&self) -> Documentation {
        Documentation::builder(
            OPERATORS,
            "SLIM (Ning and Karypis 2011): for each item the items that speak for it, few and each with a weight above 0. The weights \
`w` for item `j` make `1/2 |x_j - X w|^2 + l2/2 |w|^2 + l1 sum w` least over `w >= 0, w_j = 0`, with `X` the matrix of users by \
items; they are found by coordinate descent. The larger `l1`, the fewer. Repeated (user, item) rows are summed; weights are at least 0.

Result: a neighbor table for `recommend(item_neighbors => ..)`: the item's column under its own name and type, `neighbor_id`, \
`score` (Float32) and `rank` (Int32 from 1), by falling score, the `k` largest of each item. It looks at all pairs of items, \
which takes 4 bytes of memory each; where memory is short the error says how much is needed.",
            "slim(interactions [, name => value ..])",
        )
        .with_sql_example(
            "SELECT * FROM recommend(history => interactions, item_neighbors => (SELECT * FROM slim(interactions, l1 => 2, l2 => 50)), k => 20);",
        )
        .with_argument(
            "interactions",
            "Columns user_id, item_id and weight, or user, item and weight by position; without a weight each is 1.",
        )
        .with_argument("l1", "What each weight costs, at least 0. Default 1.")
        .with_argument("l2", "What squares of weights cost, at least 0. Default 10.")
        .with_argument("k", "Neighbors per item, at least 1. Default 1000.")
        .with_argument("on_null", "'error' or 'skip' rows with a NULL. Default 'error'.")
        .build()
    }

    fn plan(&self, mut arguments: Arguments, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
        let Some(interactions) = arguments.relation("interactions", context)? else {
            return plan_err!(
                "slim: argument 'interactions' is missing; give a table or (SELECT user_id, item_id, weight ..)"
            );
        };
        let mut cost = |name, usual: f64| {
            let given = arguments.number(name, 0.0..=f64::INFINITY, context)?;
            Ok::<f32, DataFusionError>(given.unwrap_or(usual) as f32)
        };
        let (l1, l2) = (cost("l1", 1.0)?, cost("l2", 10.0)?);
        plan("slim", arguments, interactions, Method::Slim { l1, l2 }, context)
    }
}
