//! `ranking_metrics`: how good recommendation lists are.

mod build;
mod compare;
mod docs;

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{Documentation, LogicalPlan};

pub use self::build::MetricsTask;
use self::build::{Parts, RankedBy};
use super::arguments::Arguments;
use super::collect::Columns;
use super::ids::value_type;
use super::input::Input;
use super::neighbors::on_null;
use super::node::OperatorNode;
use super::planner::Operator;
use super::vectors::VectorInput;

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
    let mut inputs = Inputs { name, skip_nulls, plans: Vec::new(), columns: Vec::new() };
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
    let model = lists.find("model");
    if paired && model.is_none() {
        return plan_err!("{}", lists.wants("a column model, and lists of at least two"));
    }
    let model_type = model.map(|column| lists.id_type(column));
    let [user, item] = [(ids[0], types[0].clone()), (ids[1], types[1].clone())];
    let model = model.zip(model_type.clone());
    inputs.add(lists, [Some(user), Some(item), model].into_iter().flatten().collect(), Some(ranked_by.0))?;
    let users_and_items = |input: Input, inputs: &mut Inputs| {
        let [user, item] = pair(&input, "user_id", "item_id")?;
        inputs.add(input, vec![(user, types[0].clone()), (item, types[1].clone())], None)
    };
    users_and_items(Input::new(name, "truth", truth), &mut inputs)?;
    let history = history.map(|plan| users_and_items(Input::new(name, "history", plan), &mut inputs)).transpose()?;
    let mut segment_type = None;
    let segments = segments
        .map(|plan| {
            let input = Input::new(name, "segments", plan);
            let [user, segment] = pair(&input, "user_id", "segment")?;
            let words = input.id_type(segment);
            segment_type = Some(words.clone());
            inputs.add(input, vec![(user, types[0].clone()), (segment, words)], None)
        })
        .transpose()?;
    let vectors = items.is_some();
    let value_type = value_type(&types[1]);
    if let Some(items) = items {
        inputs.plans.push(VectorInput::new(Input::new(name, "items", items), Some(&value_type))?.plan);
    }
    let parts = Parts { history, segments, model_type, segment_type, vectors };
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

struct Inputs {
    name: &'static str,
    skip_nulls: bool,
    plans: Vec<LogicalPlan>,
    columns: Vec<Columns>,
}

impl Inputs {
    /// Adds an input with these columns as ids; returns where it stands.
    fn add(&mut self, mut input: Input, ids: Vec<(usize, DataType)>, weight: Option<usize>) -> Result<usize> {
        self.columns.push(Columns {
            operator: self.name.into(),
            ids: ids.iter().map(|(column, _)| input.name(*column)).collect(),
            types: ids.iter().map(|(_, data_type)| value_type(data_type)).collect(),
            weight: weight.map(|column| input.name(column)),
            skip_nulls: self.skip_nulls,
        });
        for (column, data_type) in &ids {
            input.choose_id(*column, data_type)?;
        }
        if let Some(weight) = weight {
            input.choose_weight(weight)?;
        }
        self.plans.push(input.into_plan()?);
        Ok(self.plans.len() - 1)
    }
}
