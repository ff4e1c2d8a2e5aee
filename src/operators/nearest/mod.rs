//! `nearest`: the k candidates whose vectors are nearest to each query's.

mod build;

use std::sync::Arc;

use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{Documentation, LogicalPlan};

pub use self::build::NearestTask;
use self::build::Settings;
use super::arguments::Arguments;
use super::collect::Columns;
use super::input::Input;
use super::node::OperatorNode;
use super::planner::{OPERATORS, Operator};
use super::vectors::VectorInput;
use crate::kernels::nearest::Nearness;

const NAME: &str = "nearest";

/// `FROM nearest(queries => .., candidates => .., ..)`
#[derive(Debug)]
pub struct NearestOperator;

impl Operator for NearestOperator {
    fn name(&self) -> &'static str {
        NAME
    }

    fn relation_arguments(&self) -> &'static [&'static str] {
        &["queries", "candidates", "exclude"]
    }

    fn documentation(&self) -> Documentation {
        Documentation::builder(
            OPERATORS,
            "The `k` candidates nearest to each query, by vectors such as `factorize` makes. Both inputs have an id and \
a `vector`, a list of numbers; all vectors are of one length.

| metric | score |
| --- | --- |
| `cosine` | inner product over both lengths; 0 with a vector of zeros |
| `dot` | inner product |
| `euclidean` | `1 / (1 + distance)` |

Result: the query's id and the candidate's id under their own names and types (`neighbor_id` where both have one name; an id \
is then not its own neighbor), `score` (Float32) and `rank` (Int32 from 1). Equal scores are ordered by the smaller id.",
            "nearest(queries => .., candidates => .. [, name => value ..])",
        )
        .with_sql_example(
            "SELECT * FROM nearest(
  queries => (SELECT id AS user_id, vector FROM vectors WHERE side = 'user'),
  candidates => (SELECT id AS item_id, vector FROM vectors WHERE side = 'item'), metric => 'dot', k => 20);",
        )
        .with_argument("queries", "Rows of an id and a vector.")
        .with_argument("candidates", "Rows of an id and a vector.")
        .with_argument("metric", "One of the above. Default 'cosine'.")
        .with_argument("k", "Candidates per query, at least 1. Default 20.")
        .with_argument(
            "search_fraction",
            "For very large sets of candidates: the share of them that a query looks at, above 0. They are put into as many \
groups of near ones as the square root of their number, and a query looks at those whose middles are nearest to it. Default \
1: all of them, and what is found is exact; below it lists may be shorter than `k`.",
        )
        .with_argument("exclude", "Pairs of query and candidate that are left out, such as what a user has seen: two columns by position.")
        .build()
    }

    fn plan(&self, mut arguments: Arguments, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
        let (Some(queries), Some(candidates)) =
            (arguments.relation("queries", context)?, arguments.relation("candidates", context)?)
        else {
            return plan_err!("{NAME}: give queries => and candidates =>, each rows of an id and a vector");
        };
        let exclude = arguments.relation("exclude", context)?;
        let nearness = arguments.choice("metric", &Nearness::NAMES, context)?.unwrap_or(Nearness::Cosine);
        let k = arguments.integer("k", 1..=i64::from(i32::MAX), context)?.unwrap_or(20) as usize;
        let search_fraction = arguments.number("search_fraction", 0.0..=1.0, context)?.unwrap_or(1.0);
        if search_fraction == 0.0 {
            return plan_err!("{NAME}: argument 'search_fraction' must be above 0, or nothing would be looked at");
        }
        arguments.finish()?;
        let queries = VectorInput::new(Input::new(NAME, "queries", queries), None)?;
        let candidates = VectorInput::new(Input::new(NAME, "candidates", candidates), None)?;
        let same = queries.name == candidates.name;
        let mut plans = vec![queries.plan, candidates.plan];
        let mut excluded = None;
        if let Some(exclude) = exclude {
            let mut input = Input::new(NAME, "exclude", exclude);
            let (query, candidate) = (input.at(0, "query")?, input.at(1, "candidate")?);
            excluded = Some(Columns {
                operator: NAME.into(),
                ids: vec![input.name(query), input.name(candidate)],
                types: vec![queries.value_type.clone(), candidates.value_type.clone()],
                weight: None,
                skip_nulls: true,
            });
            input.choose_id(query, &queries.value_type)?;
            input.choose_id(candidate, &candidates.value_type)?;
            plans.push(input.into_plan()?);
        }
        let names = [queries.name.clone(), if same { "neighbor_id".to_owned() } else { candidates.name.clone() }];
        let types = [queries.id_type, candidates.id_type];
        let settings = Settings { nearness, k, search_fraction, not_itself: same };
        let task = NearestTask::new(names, types, settings, excluded);
        OperatorNode::plan(Arc::new(task), plans)
    }
}
