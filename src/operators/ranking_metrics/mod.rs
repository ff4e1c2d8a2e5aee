//! `ranking_metrics`: how good recommendation lists are.

mod build;
mod compare;
mod docs;

use std::sync::Arc;

use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{Documentation, LogicalPlan};

pub use self::build::MetricsTask;
use self::build::{Parts, RankedBy};
use super::arguments::Arguments;
use super::input::{Input, Inputs};
use super::neighbors::on_null;
use super::node::OperatorNode;
use super::planner::Operator;

const NAME: &str = "ranking_metrics";
const COMPARE: &str = "compare_rankings";

/// `FROM ranking_metrics(recommendations, truth, ..)`
#[derive(Debug)]
pub struct RankingMetricsOperator;

impl Operator for RankingMetricsOperator {
    fn name(&self) -> &'static str {
        NAME
    }

    fn relation_arguments(&self) -> &'static [&'static str] {
        &["recommendations", "truth", "history", "segments", "items"]
    }

    fn documentation(&self) -> Documentation {
        docs::documentation()
    }

    fn plan(&self, arguments: Arguments, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
        plan(NAME, arguments, context, false)
    }
}

/// `FROM compare_rankings(recommendations, truth, ..)`
#[derive(Debug)]
pub struct CompareRankingsOperator;

impl Operator for CompareRankingsOperator {
    fn name(&self) -> &'static str {
        COMPARE
    }

    fn relation_arguments(&self) -> &'static [&'static str] {
        &["recommendations", "truth"]
    }

    fn documentation(&self) -> Documentation {
        docs::comparison()
    }

    fn plan(&self, arguments: Arguments, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
        plan(COMPARE, arguments, context, true)
    }
}

/// Plans either operator; what one of them has no argument for is not given.
fn plan(
    name: &'static str,
    mut arguments: Arguments,
    context: &mut dyn RelationPlannerContext,
    paired: bool,
) -> Result<LogicalPlan> {
    let Some(lists) = arguments.relation("recommendations", context)? else {
        return plan_err!("{name}: argument 'recommendations' is missing; give lists of user_id, item_id and rank");
    };
    let Some(truth) = arguments.relation("truth", context)? else {
        return plan_err!("{name}: argument 'truth' is missing; give user_id and item_id of what users chose");
    };
    let history = arguments.relation("history", context)?;
    let segments = arguments.relation("segments", context)?;
    let items = arguments.relation("items", context)?;
    let mut ks = arguments.integers("k", context)?.unwrap_or_else(|| vec![10]);
    ks.sort_unstable();
    ks.dedup();
    let skip_nulls = on_null(&mut arguments, context)?;
    arguments.finish()?;
    let mut inputs = Inputs::new(name, skip_nulls);
    let lists = Input::new(name, "recommendations", lists);
    let ids = pair(&lists, "user_id", "item_id")?;
    let types = ids.map(|column| lists.id_type(column));
    let ranked_by = match (lists.find("rank"), lists.find("score")) {
        (Some(rank), _) => (rank, RankedBy::Rank),
        (None, Some(score)) => (score, RankedBy::Score),
        (None, None) => {
            return plan_err!(
                "{name}: argument 'recommendations' needs a column rank or score; its columns are {}",
                lists.names().join(", ")
            );
        }
    };
    let whole = lists.data_type(ranked_by.0).is_integer();
    let model = lists.find("model");
    if paired && model.is_none() {
        return plan_err!("{}", lists.wants("a column model, and lists of at least two"));
    }
    let model_type = model.map(|column| lists.id_type(column));
    let model = model.zip(model_type.as_ref());
    let columns: Vec<_> = [(ids[0], &types[0]), (ids[1], &types[1])].into_iter().chain(model).collect();
    inputs.add(lists, &columns, Some(ranked_by.0))?;
    let users_and_items = |input: Input, inputs: &mut Inputs| {
        let [user, item] = pair(&input, "user_id", "item_id")?;
        inputs.add(input, &[(user, &types[0]), (item, &types[1])], None)
    };
    users_and_items(Input::new(name, "truth", truth), &mut inputs)?;
    let history = history.map(|plan| users_and_items(Input::new(name, "history", plan), &mut inputs)).transpose()?;
    let mut segment_type = None;
    let segments = segments
        .map(|plan| {
            let input = Input::new(name, "segments", plan);
            let [user, segment] = pair(&input, "user_id", "segment")?;
            let words = input.id_type(segment);
            let added = inputs.add(input, &[(user, &types[0]), (segment, &words)], None);
            segment_type = Some(words);
            added
        })
        .transpose()?;
    let vectors = items.is_some();
    if let Some(items) = items {
        inputs.add_vectors(Input::new(name, "items", items), &types[1])?;
    }
    let parts = Parts { history, segments, model_type, segment_type, vectors, whole };
    let task = MetricsTask::new(inputs.columns, types, ranked_by.1, ks, parts, paired);
    OperatorNode::plan(Arc::new(task), inputs.plans)
}

/// Where two columns stand: by name, else the only two by position.
fn pair(input: &Input, first: &str, second: &str) -> Result<[usize; 2]> {
    match (input.find(first), input.find(second)) {
        (Some(first), Some(second)) => Ok([first, second]),
        _ if input.width() == 2 => Ok([0, 1]),
        _ => plan_err!("{}", input.wants(&format!("columns {first} and {second}"))),
    }
}
