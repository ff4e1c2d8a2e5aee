//! What the reference says about `ranking_metrics`.

use datafusion::logical_expr::Documentation;

use crate::operators::planner::OPERATORS;

pub(super) fn documentation() -> Documentation {
    Documentation::builder(
        OPERATORS,
        "How good recommendation lists are: against what users chose later (the truth), and by themselves. Of each list the \
first `k` places count; lists are ordered by `rank`, else by falling `score`, equal ones by the smaller item. Scores are compared as singles; whole numbers beyond 16777216 are an error, and `rank` is used \
for its order alone. With `n` the \
number of hits (places from 1 that hold an item of the truth) and `t` the size of the user's truth:

| metric | of a user's list |
| --- | --- |
| `precision` | `n / k`, also where the list is shorter (for this and the next four, Manning et al. 2008, chapter 8) |
| `recall` | `n / t` |
| `hit_rate` | 1 if there is a hit, else 0 |
| `ndcg` | `sum 1 / log2(place + 1)` over hits, divided by the same sum over the places 1 to `min(k, t)` (Jarvelin and Kekalainen 2002, binary gains) |
| `map` | `sum (hits up to the place / place)` over hits, divided by `t` |
| `mrr` | `1 / place` of the first hit, 0 without one |
| `auc` | the share of pairs of a chosen and another item in which the chosen stands first; items beyond the `k` places stand below them, level with each other, which counts a half. The items of recommendations (of all models), truth and history are the catalogue |
| `novelty` | with `history`: mean of `-log2(share of users who had the item)`, an item nobody had counting as if one had (Zhou et al. 2010) |
| `popularity` | with `history`: mean share of users who had the item |
| `diversity` | with `items`: 1 minus the mean cosine of all pairs of items of the list (Ziegler et al. 2005); lists of fewer than two items with vectors have none |
| `serendipity` | with `items` and `history`: `sum (1 - mean cosine to the user's history)` over hits, divided by `k` (Zhang et al. 2012); users nothing of whose history has a vector have none |

Of all lists together: `coverage`, the share of the catalogue that is on any list, and `gini`, how unequally lists show the \
catalogue: `sum (2 i - m - 1) x_i / (m sum x)` over the times `x_i` that each of `m` items is shown, rising (0 all alike, near 1 \
one item only; 0 where nothing is shown). Both of a segment are over the whole catalogue.

Every user of the truth counts: one without a list has 0 (and an `auc` of one half, unless the truth is the whole catalogue). `novelty` and `popularity` are \
means over the places that are filled, and shares are of the users in `history`. Users without truth count in `novelty`, \
`popularity`, `diversity`, `coverage` and `gini` alone. `value` is the mean over users; `ci_low` and `ci_high` hold the true mean in 95 of \
100 cases by the normal approximation, and are NULL where there is no such interval.

Result: `model, metric, k, segment, value, ci_low, ci_high`; one row for each, segment 'all' for all users.",
        "ranking_metrics(recommendations, truth [, name => value ..])",
    )
    .with_sql_example(
        "SELECT * FROM ranking_metrics(lists, (SELECT user_id, item_id FROM holdout), k => [5, 10, 20], history => train);",
    )
    .with_argument("recommendations", "Lists of user_id, item_id, rank or score, and model where there are several.")
    .with_argument("truth", "user_id and item_id of what users chose.")
    .with_argument("k", "How many places count: a number, or a list of them. Default 10.")
    .with_argument("history", "user_id and item_id of what was known when the lists were made; adds novelty and popularity.")
    .with_argument("items", "Rows of an item and a vector, such as of `factorize` or of features; adds diversity and serendipity.")
    .with_argument("segments", "user_id and segment; each user has at most one. Adds rows for each segment.")
    .with_argument("on_null", "'error' or 'skip' rows with a NULL. Default 'error'.")
    .build()
}

pub(super) fn comparison() -> Documentation {
    Documentation::builder(
        OPERATORS,
        "How much better one model's lists are than another's for the same users, and whether that may be chance: for each pair \
of models (by name), metric and k the mean over users of `a - b`, where it lies in 95 of 100 cases, and the p-value of the \
two-sided paired t-test with `users - 1` degrees of freedom (Smucker et al. 2007). Metrics are those of `ranking_metrics` that \
lists have of each user, with every user of the truth counting. With many users small differences are significant: look at \
the difference first; and of many comparisons some are below 0.05 by chance.

Result: `model_a, model_b, metric, k, users, difference, ci_low, ci_high, p_value`. Of one user there is no interval; where all \
differences are equal the p-value is 1 if they are 0, else NULL.",
        "compare_rankings(recommendations, truth [, name => value ..])",
    )
    .with_sql_example(
        "SELECT * FROM compare_rankings(lists, (SELECT user_id, item_id FROM holdout), k => 10) WHERE metric = 'ndcg';",
    )
    .with_argument("recommendations", "Lists of model, user_id, item_id, and rank or score.")
    .with_argument("truth", "user_id and item_id of what users chose.")
    .with_argument("k", "How many places count: a number, or a list of them. Default 10.")
    .with_argument("on_null", "'error' or 'skip' rows with a NULL. Default 'error'.")
    .build()
}
