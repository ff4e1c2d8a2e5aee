//! What the reference says about `predict`.

use datafusion::logical_expr::Documentation;

use crate::operators::planner::OPERATORS;

pub(super) fn documentation() -> Documentation {
    Documentation::builder(
        OPERATORS,
        "The ratings that users would give items, for each of the pairs once.

| given | prediction |
| --- | --- |
| nothing more | the baseline `b_ui = mean + b_u + b_i`, with the biases that make `sum (rating - b_ui)^2 + 15 sum b_u^2 + 10 sum b_i^2` small (Koren 2010), found in 10 rounds of items, then users |
| `item_neighbors` | `b_ui + sum s_ij (r_uj - b_uj) / sum s_ij` over the `k` items `j` most similar to `i` of those that the user has rated |
| `user_neighbors` | the same over the `k` users most similar to `u` of those who have rated the item |
| `user_vectors` and `item_vectors` | the inner product, such as of vectors that `factorize(.., implicit => false)` makes |

`baseline` says what neighbors' ratings are measured from: 'bias' as above, 'mean' (the mean of the side that has neighbors: of \
the item, or of the user) or 'none'. Neighbors with a similarity of 0 or less do not count; with fewer than `min_k` the \
prediction is the baseline, of 'none' the mean of all ratings. Of a user or an item that the history does not have nothing is \
added to the mean; where a vector is missing, too, the prediction is the baseline with biases. Neighbor tables had better be \
long (`neighbors(.., k => 1000)`), as only those count that have a rating.

Result: user and item under the names and in the types of `pairs`, and `prediction` (Float32). Its error is plain SQL: `sqrt(avg(power(prediction - rating, 2)))` is the \
RMSE, `avg(abs(prediction - rating))` the MAE.",
        "predict(pairs => table, history => table [, name => value ..])",
    )
    .with_sql_example(
        "SELECT sqrt(avg(power(prediction - rating, 2))) AS rmse, avg(abs(prediction - rating)) AS mae
FROM predict(pairs => test, history => train, item_neighbors => (
         SELECT * FROM neighbors((SELECT item_id, user_id, rating FROM train), metric => 'pearson', k => 1000)), k => 40)
JOIN test USING (user_id, item_id);",
    )
    .with_argument("pairs", "Columns user_id and item_id, or user and item by position.")
    .with_argument(
        "history",
        "Columns user_id, item_id and rating, or user, item and rating by position: the third of three columns, else the one called rating or weight. A pair that is rated twice is an error.",
    )
    .with_argument("item_neighbors", "A neighbor table of items: id, neighbor_id, score.")
    .with_argument("user_neighbors", "A neighbor table of users.")
    .with_argument("user_vectors", "Rows of a user and a vector; with item_vectors.")
    .with_argument("item_vectors", "Rows of an item and a vector.")
    .with_argument("k", "Neighbors that count, at least 1. Default 40.")
    .with_argument("min_k", "Fewer neighbors than so many do not count. Default 1.")
    .with_argument("baseline", "For neighbors: 'bias', 'mean' or 'none'. Default 'bias'.")
    .with_argument("clip", "Whether predictions are kept between the lowest and the highest rating of the history. Default true.")
    .with_argument("on_null", "'error' or 'skip' rows with a NULL. Default 'error'.")
    .build()
}
