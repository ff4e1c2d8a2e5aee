//! `diversify`: lists in which what stands near each other differs.

mod build;

use std::sync::Arc;

use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{Documentation, LogicalPlan};

pub use self::build::DiversifyTask;
use super::arguments::Arguments;
use super::collect::Columns;
use super::input::Input;
use super::neighbors::on_null;
use super::node::OperatorNode;
use super::planner::{OPERATORS, Operator};
use super::vectors::VectorInput;

const NAME: &str = "diversify";

/// `FROM diversify(recommendations, items => .., ..)`
#[derive(Debug)]
pub struct DiversifyOperator;

impl Operator for DiversifyOperator {
    fn name(&self) -> &'static str {
        NAME
    }

    fn relation_arguments(&self) -> &'static [&'static str] {
        &["recommendations", "items"]
    }

    fn documentation(&self) -> Documentation {
        Documentation::builder(
            OPERATORS,
            "Lists reordered so that what stands near each other differs: maximal marginal relevance (Carbonell and Goldstein 1998). \
In turn each place goes to the item of the list with the largest `lambda * relevance - (1 - lambda) * similarity`: the relevance \
is the score, brought between 0 and 1 over the user's list; the similarity is the largest cosine to what was chosen before, 0 where \
an item has no vector. Equal ones go by score, then by the smaller item. Give lists that are longer than the ones that are to come out.

Result: `user_id, item_id, score, rank` under the ids' own names; the score is the value by which the item was chosen.

To have no more than some items of one category in a list, plain SQL does: `QUALIFY row_number() OVER (PARTITION BY user_id, \
category ORDER BY rank) <= 3`.",
            "diversify(recommendations, items => .. [, name => value ..])",
        )
        .with_sql_example(
            "SELECT * FROM diversify((SELECT * FROM recommend(history => train, item_neighbors => near, k => 100)),
                        items => (SELECT item_id, vector FROM item_vectors), lambda => 0.7, k => 20);",
        )
        .with_argument("recommendations", "Columns user_id, item_id and score, or user, item and score by position.")
        .with_argument("items", "Rows of an item and a vector: of `factorize`, or of features.")
        .with_argument("lambda", "How much relevance counts, 0 to 1. Default 0.7.")
        .with_argument("k", "Items per user, at least 1. Default 20.")
        .with_argument("on_null", "'error' or 'skip' rows of the lists with a NULL. Default 'error'.")
        .build()
    }

    fn plan(&self, mut arguments: Arguments, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
        let Some(lists) = arguments.relation("recommendations", context)? else {
            return plan_err!(
                "{NAME}: argument 'recommendations' is missing; give lists of user_id, item_id and score"
            );
        };
        let Some(items) = arguments.relation("items", context)? else {
            return plan_err!("{NAME}: argument 'items' is missing; give (SELECT item_id, vector ..)");
        };
        let lambda = arguments.number("lambda", 0.0..=1.0, context)?.unwrap_or(0.7) as f32;
        let k = arguments.integer("k", 1..=i64::from(i32::MAX), context)?.unwrap_or(20) as usize;
        let skip_nulls = on_null(&mut arguments, context)?;
        arguments.finish()?;
        let mut lists = Input::new(NAME, "recommendations", lists);
        let (user, item, score) = match (lists.find("user_id"), lists.find("item_id"), lists.find("score")) {
            (Some(user), Some(item), Some(score)) => (user, item, score),
            (_, _, None) if lists.find("rank").is_some() || lists.width() > 3 => {
                return plan_err!("{}", lists.wants("columns user_id, item_id and score, of one model"));
            }
            _ => (lists.at(0, "user")?, lists.at(1, "item")?, lists.at(2, "score")?),
        };
        let columns = Columns {
            operator: NAME.into(),
            ids: vec![lists.name(user), lists.name(item)],
            types: vec![lists.id_type(user), lists.id_type(item)],
            weight: Some(lists.name(score)),
            skip_nulls,
        };
        let out = [lists.data_type(user), lists.data_type(item)];
        lists.choose_id(user, &columns.types[0])?;
        lists.choose_id(item, &columns.types[1])?;
        lists.choose_weight(score)?;
        let items = VectorInput::new(Input::new(NAME, "items", items), Some(&columns.types[1]))?.plan;
        let task = DiversifyTask::new(columns, out, lambda, k);
        OperatorNode::plan(Arc::new(task), vec![lists.into_plan()?, items])
    }
}
