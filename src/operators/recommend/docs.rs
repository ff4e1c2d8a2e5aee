//! What the reference says about `recommend`.

use datafusion::logical_expr::Documentation;

use crate::operators::planner::OPERATORS;

pub(super) fn documentation() -> Documentation {
    Documentation::builder(
        OPERATORS,
        "The `k` best items of each user. With `item_neighbors`, `score(u, j)` is the sum over the user's items `i` of \
`weight(u, i) * score(i, j)`; with `user_neighbors`, the sum over the user's neighbors `v` of `score(u, v) * weight(v, j)`. \
Items that nothing leads to, or whose score is exactly 0, are not recommended.

Result: `user_id` and `item_id` in the types of the history, `score` (Float32), `rank` (Int32 from 1) and, with \
`explain`, `because`. Equal scores are ordered by the smaller item id. The result is the same, bit for bit, for any \
number of threads and any order of the inputs.",
        "recommend(history => table, item_neighbors | user_neighbors => table [, name => value ..])",
    )
    .with_sql_example(
        "SELECT * FROM recommend(history => interactions, item_neighbors => item_neighbors, k => 20);
SELECT * FROM recommend(history => interactions, user_neighbors => user_neighbors, k => 20, explain => 3,
                        candidates => (SELECT item_id FROM in_stock));",
    )
    .with_argument(
        "history",
        "What users did: the columns user_id, item_id and weight where it has these names, else user, item[, weight] by position; of three columns the third is the weight. Weight 1 where absent; repeated pairs are summed.",
    )
    .with_argument(
        "item_neighbors",
        "A neighbor table of items: id, neighbor_id, score, as `neighbors` makes it. One of the two must be given.",
    )
    .with_argument("user_neighbors", "A neighbor table of users.")
    .with_argument("k", "Items per user, at least 1. Default 20.")
    .with_argument("exclude_seen", "Whether items of the user's history are left out. Default true.")
    .with_argument("exclude", "Items never to recommend: one column of items, or pairs (user_id, item_id).")
    .with_argument("candidates", "The only items to recommend: one column of items, or pairs (user_id, item_id).")
    .with_argument(
        "explain",
        "n adds `because`, the n strongest reasons: a list of struct(id, contribution), where id is an item of the history or a neighboring user. Without a limit reached, contributions add up to the score. Default 0.",
    )
    .with_argument(
        "normalize",
        "Whether a score is divided by the sum of the absolute similarities that made it, which turns it into a weighted mean. Default false.",
    )
    .with_argument("on_null", "'error' or 'skip' rows with a NULL. Default 'error'.")
    .build()
}
