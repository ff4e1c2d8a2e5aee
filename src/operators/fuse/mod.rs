//! `fuse`: one list of each user from the lists of several models.

use datafusion::common::{Result, plan_err};
use datafusion::logical_expr::planner::RelationPlannerContext;
use datafusion::logical_expr::{Documentation, LogicalPlan};
use datafusion::sql::sqlparser::ast::Query;

use super::arguments::{Arguments, planned};
use super::input::Input;
use super::planner::{OPERATORS, Operator};
use super::template;

const NAME: &str = "fuse";

/// `FROM fuse(lists, ..)`
#[derive(Debug)]
pub struct FuseOperator;

/// What a place in a list is worth, over the window of its model and user.
const METHODS: [(&str, &str); 4] = [
    ("rrf", "1 / ($c + CAST(rank AS DOUBLE))"),
    ("zscore", "coalesce((CAST(score AS DOUBLE) - avg(score) OVER list) / nullif(stddev_pop(score) OVER list, 0), 0)"),
    ("norm", "coalesce(score / nullif(sqrt(sum(CAST(score AS DOUBLE) * score) OVER list), 0), 0)"),
    ("max", "coalesce(CAST(score AS DOUBLE) / nullif(max(abs(score)) OVER list, 0), 0)"),
];

/// The places of lists, each item of a list once, with the better of two: $value is the rank or the score, $best its least or
/// greatest.
const PLACES: &str = "
places AS (
    SELECT model, user_id, item_id, $best($value) AS $value
    FROM fused_lists
    WHERE model IS NOT NULL AND user_id IS NOT NULL AND item_id IS NOT NULL
        AND abs(CAST($value AS DOUBLE)) < CAST('Infinity' AS DOUBLE)
    GROUP BY model, user_id, item_id
),";

/// Worths are added as decimals: sums of doubles would depend on the order of rows.
const QUERY: &str = "
WITH fused_lists AS (SELECT 1),
fused_weights AS (SELECT DISTINCT model, 1.0 AS weight FROM fused_lists),$places
worth AS (
    SELECT model, user_id, item_id, $worth AS worth
    FROM places
    WINDOW list AS (PARTITION BY model, user_id)
),
summed AS (
    SELECT user_id, item_id, CAST(sum(CAST(worth * weight AS DECIMAL(38, 15))) AS DOUBLE) AS score
    FROM worth
    JOIN fused_weights USING (model)
    WHERE abs(CAST(weight AS DOUBLE)) < CAST('Infinity' AS DOUBLE)
    GROUP BY user_id, item_id
)
SELECT
    user_id,
    item_id,
    CAST(score AS REAL) AS score,
    CAST(row_number() OVER (PARTITION BY user_id ORDER BY score DESC, item_id) AS INT) AS rank
FROM summed
QUALIFY rank <= $k";

/// One list after the other: models by falling weight, then by name.
const CHAIN: &str = "
WITH fused_lists AS (SELECT 1),
fused_weights AS (SELECT DISTINCT model, 1.0 AS weight FROM fused_lists),$places
turns AS (
    SELECT model, row_number() OVER (ORDER BY weight DESC, model) AS turn
    FROM fused_weights
    WHERE abs(CAST(weight AS DOUBLE)) < CAST('Infinity' AS DOUBLE)
),
placed AS (
    SELECT user_id, item_id, row_number() OVER (PARTITION BY user_id ORDER BY turn, rank, item_id) AS place
    FROM places
    JOIN turns USING (model)
),
firsts AS (
    SELECT user_id, item_id, min(place) AS place
    FROM placed
    GROUP BY user_id, item_id
),
ranked AS (
    SELECT user_id, item_id, CAST(row_number() OVER (PARTITION BY user_id ORDER BY place) AS INT) AS rank
    FROM firsts
)
SELECT user_id, item_id, CAST(1.0 / rank AS REAL) AS score, rank
FROM ranked
WHERE rank <= $k";

impl Operator for FuseOperator {
    fn name(&self) -> &'static str {
        NAME
    }

    fn relation_arguments(&self) -> &'static [&'static str] {
        &["lists", "weights"]
    }

    fn documentation(&self) -> Documentation {
        Documentation::builder(
            OPERATORS,
            "One list of each user from the lists of several models. What an item is worth in a list is multiplied by the weight \
of the list's model and added over the models; an item that a list does not have is worth 0 there.

| method | what an item is worth in a list |
| --- | --- |
| `rrf` | `1 / (c + rank)`: reciprocal rank fusion (Cormack et al. 2009) |
| `zscore` | score minus the mean of the list's scores, over their standard deviation |
| `norm` | score over the Euclidean norm of the list's scores |
| `max` | score over the largest absolute score of the list |
| `chain` | nothing is added: a user gets the list of the model that weighs most, then what the next has beside it, and so on; models of one weight follow by name. For fallbacks, such as popular items for whom no model has enough. The score is `1 / rank` |

Where all scores of a list are equal (`zscore`) or 0 (`norm`, `max`) its items are worth 0. Rows with a NULL, or with a rank or score that is NaN or infinite, count as if they were not there, and an item that a list has twice counts with the better of its places. Give lists that are longer than the one that is to come out.

Result: `user_id, item_id, score, rank`, equal scores ordered by the smaller item.",
            "fuse(lists [, name => value ..])",
        )
        .with_sql_example(
            "SELECT * FROM fuse(
  (SELECT 'by_item' AS model, * FROM by_item UNION ALL SELECT 'by_user', * FROM by_user),
  method => 'zscore', weights => (SELECT * FROM (VALUES ('by_item', 1.0), ('by_user', 0.5)) AS w(model, weight)), k => 20);",
        )
        .with_argument("lists", "Columns model, user_id, item_id, rank (for rrf and chain) and score (for the others).")
        .with_argument("method", "One of the above. Default 'rrf'.")
        .with_argument("weights", "Columns model and weight; models without a row, or whose weight is NULL, NaN or infinite, are left out. Default: every model weighs 1.")
        .with_argument("k", "Items per user, at least 1. Default 20.")
        .with_argument("c", "For rrf: how little the first places stand out, at least 0. Default 60.")
        .build()
    }

    fn plan(&self, mut arguments: Arguments, context: &mut dyn RelationPlannerContext) -> Result<LogicalPlan> {
        let Some(lists) = arguments.query("lists")? else {
            return plan_err!(
                "{NAME}: argument 'lists' is missing; give rows of model, user_id, item_id, rank and score"
            );
        };
        let weights = arguments.query("weights")?;
        if let Some(weights) = &weights {
            check(weights, "weights", &["model", "weight"], context)?;
        }
        let methods: Vec<(&str, Option<&str>)> =
            METHODS.iter().map(|(name, worth)| (*name, Some(*worth))).chain([("chain", None)]).collect();
        let worth = arguments.choice("method", &methods, context)?.unwrap_or(Some(METHODS[0].1));
        let k = arguments.integer("k", 1..=i64::from(i32::MAX), context)?.unwrap_or(20);
        let c = arguments.number("c", 0.0..=f64::INFINITY, context)?;
        let is_rrf = worth == Some(METHODS[0].1);
        if c.is_some() && !is_rrf {
            return plan_err!("{NAME}: argument 'c' belongs to the method rrf");
        }
        arguments.finish()?;
        let c = format!("CAST({} AS DOUBLE)", c.unwrap_or(60.0));
        let query = worth.map_or_else(|| CHAIN.to_owned(), |worth| QUERY.replace("$worth", worth));
        let (value, best) = if is_rrf || worth.is_none() { ("rank", "min") } else { ("score", "max") };
        check(&lists, "lists", &["model", "user_id", "item_id", value], context)?;
        let places = PLACES.replace("$value", value).replace("$best", best);
        let sql = query.replace("$places", &places).replace("$k", &k.to_string()).replace("$c", &c);
        template::plan(&sql, vec![("fused_lists", Some(lists)), ("fused_weights", weights)], context)
    }
}

/// Sees that the relation given for an argument has these columns, the last of which is a number. The relation is planned for
/// this alone; the template plans it again, under a name.
fn check(
    relation: &Query,
    argument: &'static str,
    columns: &[&str],
    context: &mut dyn RelationPlannerContext,
) -> Result<()> {
    let input = Input::new(NAME, argument, planned(Box::new(relation.clone()), context)?);
    let names = input.names();
    let places: Vec<usize> = columns.iter().filter_map(|column| names.iter().position(|name| name == column)).collect();
    match places[..] {
        [.., last] if places.len() == columns.len() && input.data_type(last).is_numeric() => Ok(()),
        _ => plan_err!("{}", input.wants(&format!("columns {}, the last a number", columns.join(", ")))),
    }
}
