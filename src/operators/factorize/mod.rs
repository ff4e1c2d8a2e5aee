//! `factorize`: vectors of users and items whose products tell preferences.

mod build;

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{Documentation, LogicalPlan};

pub use self::build::FactorizeTask;
use super::arguments::Arguments;
use super::input::Input;
use super::neighbors::on_null;
use super::node::OperatorNode;
use super::planner::{OPERATORS, Operator};
use crate::kernels::als::Settings;

/// `FROM factorize(interactions, ..)`
#[derive(Debug)]
pub struct FactorizeOperator;

/// How vectors are found.
#[derive(Debug, Clone, Copy)]
enum Method {
    Als,
}

impl Operator for FactorizeOperator {
    fn name(&self) -> &'static str {
        "factorize"
    }

    fn relation_arguments(&self) -> &'static [&'static str] {
        &["interactions"]
    }

    fn documentation(&self) -> Documentation {
        Documentation::builder(
            OPERATORS,
            "Vectors of users and items whose inner products tell what users like. Method 'als' is alternating least squares \
on implicit feedback (Hu, Koren and Volinsky 2008): a weight `w` is the confidence `c = 1 + alpha w` in the preference 1, all \
other pairs have confidence 1 in the preference 0, and the vectors make `sum c (preference - x.y)^2 + regularization \
(sum |x|^2 + sum |y|^2)` small. Each iteration moves users, then items, by three steps of conjugate gradients from where \
they were (Takacs, Pilaszy and Tikk 2011). Repeated (user, item) rows are summed.

Result: a vector table for `nearest`: `side` ('user' or 'item'), `id` (the type of the ids; text where users and items differ) \
and `vector` (list of Float32). The result is the same, bit for bit, for a seed and any number of threads.",
            "factorize(interactions [, name => value ..])",
        )
        .with_sql_example(
            "CREATE VIEW vectors AS SELECT * FROM factorize(interactions, factors => 64, alpha => 20);
SELECT * FROM nearest(
  queries => (SELECT id AS user_id, vector FROM vectors WHERE side = 'user'),
  candidates => (SELECT id AS item_id, vector FROM vectors WHERE side = 'item'),
  metric => 'dot', exclude => (SELECT user_id, item_id FROM interactions), k => 20);",
        )
        .with_argument(
            "interactions",
            "Columns user_id, item_id and weight, or user, item and weight by position; without a weight each is 1. Weights are at least 0.",
        )
        .with_argument("method", "'als'. Default 'als'.")
        .with_argument("factors", "The length of vectors, 1 to 4096. Default 64.")
        .with_argument("iterations", "How often users and items are moved. Default 15.")
        .with_argument("regularization", "What large vectors cost, above 0. Default 0.05.")
        .with_argument("alpha", "How much a weight adds to the confidence, at least 0. Default 1.")
        .with_argument("seed", "Another number begins elsewhere. Default 0.")
        .with_argument("on_null", "'error' or 'skip' rows with a NULL. Default 'error'.")
        .build()
    }

    fn plan(&self, mut arguments: Arguments, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
        let Some(interactions) = arguments.relation("interactions", context)? else {
            return plan_err!(
                "factorize: argument 'interactions' is missing; give a table or (SELECT user_id, item_id, weight ..)"
            );
        };
        arguments.choice("method", &[("als", Method::Als)], context)?;
        let regularization = arguments.number("regularization", 0.0..=f64::INFINITY, context)?.unwrap_or(0.05);
        if regularization == 0.0 {
            return plan_err!(
                "factorize: argument 'regularization' must be above 0; without it vectors grow without end"
            );
        }
        let settings = Settings {
            factors: arguments.integer("factors", 1..=4096, context)?.unwrap_or(64) as usize,
            iterations: arguments.integer("iterations", 1..=100_000, context)?.unwrap_or(15) as usize,
            regularization: regularization as f32,
            alpha: arguments.number("alpha", 0.0..=f64::INFINITY, context)?.unwrap_or(1.0) as f32,
            seed: arguments.integer("seed", i64::MIN..=i64::MAX, context)?.unwrap_or(0) as u64,
        };
        let skip_nulls = on_null(&mut arguments, context)?;
        arguments.finish()?;
        let (columns, plan) = Input::new("factorize", "interactions", interactions).into_interactions(skip_nulls)?;
        let id_type = if columns.types[0] == columns.types[1] { columns.types[0].clone() } else { DataType::Utf8 };
        OperatorNode::plan(Arc::new(FactorizeTask::new(columns, id_type, settings)), vec![plan])
    }
}
