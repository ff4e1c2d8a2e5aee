//! What the reference says about `neighbors`.

use datafusion::logical_expr::Documentation;

use crate::operators::planner::OPERATORS;

pub(super) fn documentation() -> Documentation {
    Documentation::builder(
        OPERATORS,
        "The `k` most similar entities of each entity. An entity is a row of weights over features: items over the users \
who bought them, users over their items, items over the words of their text. Entities without a common feature are \
never neighbors. Repeated (entity, feature) rows are summed. With `r_ik` the weight of entity `i` for feature `k`, \
`norm_i` their Euclidean norm, `n_i` the number of its features, `c` the number of common features, `N` the number of all features and `h` the shrinkage:

| metric | score |
| --- | --- |
| `cosine` | `sum r_ik r_jk / (norm_i norm_j + h)`, norms over all features |
| `centered_cosine` | cosine after subtracting from each weight its entity's mean (LensKit) |
| `adjusted_cosine` | cosine after subtracting from each weight its feature's mean (Sarwar et al. 2001) |
| `pearson` | entity means subtracted; numerator and norms over the common features only (Resnick et al. 1994) |
| `jaccard` | `c / (n_i + n_j - c + h)` |
| `dice` | `2c / (n_i + n_j + h)` |
| `tversky` | `c / (c + alpha (n_i - c) + beta (n_j - c) + h)` (Tversky 1977) |
| `overlap` | `c` |
| `lift` | `c N / (n_i n_j + h)` |
| `asymmetric_cosine` | `sum r_ik r_jk / (norm_i^(2 alpha) norm_j^(2 (1 - alpha)) + h)` (Aiolli 2013) |
| `euclidean` | `1 / (1 + d + h)`, `d` the Euclidean distance, absent weights being 0 |
| `walk` | `d_i^-a d_j^-c sum d_k^-b r_ik r_jk`, the degrees `d_i` and `d_k` being the sums of the weights of an entity and of a feature: a random walk from entity to feature to entity |
| `p3alpha` | `d_i^-alpha sum d_k^-alpha (r_ik r_jk)^alpha` (Cooper et al. 2014); for weights of 1 a `walk` with `a = b = alpha`, `c = 0` |
| `rp3beta` | `p3alpha / d_j^beta` (Paudel et al. 2017); for weights of 1 a `walk` with `a = b = alpha`, `c = beta` |
| `gfcf` | `walk` with `a = 0.5`, `b = 1`, `c = 0.5`: the linear filter of GF-CF (Shen et al. 2021) |

Walks are not symmetric unless `a = c`, need weights of at least 0, and are at their best with `k` of several hundred.

Result: the entity's column under its own name and type, `neighbor_id` of the same type, `score` (Float32) and `rank` \
(Int32 from 1). Equal scores are ordered by the smaller id. The result is the same, bit for bit, for any number of \
threads and any order of the input.",
        "neighbors(input [, name => value ..])",
    )
    .with_sql_example(
        "SELECT * FROM neighbors(interactions, entity => 'item_id', feature => 'user_id', metric => 'cosine', k => 50);
SELECT * FROM neighbors((SELECT basket_id, product_id FROM lines), metric => 'jaccard', k => 10, shrink => 5);",
    )
    .with_argument("input", "A table, a quoted path or (SELECT ..): (entity, feature[, weight]) by position, or see the next three.")
    .with_argument("entity", "Name of the entity's column. Default: the first column that is not named otherwise.")
    .with_argument("feature", "Name of the feature's column. Default: the next column.")
    .with_argument(
        "weight",
        "Name of a numeric column. Default: the third of three columns; where entity or feature are named, a column called weight; else every weight is 1. NaN and infinite weights are errors.",
    )
    .with_argument("metric", "One of the above. Default 'cosine'.")
    .with_argument("k", "Neighbors per entity, at least 1. Default 50.")
    .with_argument("shrink", "h, at least 0: damps the scores of pairs with little in common. Default 0.")
    .with_argument("threshold", "Only scores above it. Default 0.")
    .with_argument("min_overlap", "Only pairs with at least this many common features. Default 1.")
    .with_argument(
        "max_features",
        "Entities with more features count with so many of them: those of the largest absolute weights, equal ones by a hash that picks the same features for all entities. Bounds the cost of a few entities that have nearly everything; sizes and norms are those of what is left. Default: all features.",
    )
    .with_argument(
        "weighting",
        "What happens to weights first: 'none', 'tfidf' (w ln(1 + entities / df)), 'bm25' (k1 1.2, b 0.75), 'binary'. Default 'none'.",
    )
    .with_argument("alpha", "For tversky, p3alpha and rp3beta (default 1) and asymmetric_cosine (0 to 1, default 0.5).")
    .with_argument("beta", "For tversky (default 1) and rp3beta (default 0.3; the higher, the fewer popular neighbors, at its best mostly from 0 to 0.6).")
    .with_argument("a", "For walk: the exponent of the entity's degree. Default 0.5.")
    .with_argument("b", "For walk: the exponent of the features' degrees. Default 1.")
    .with_argument("c", "For walk: the exponent of the neighbor's degree. Default 0.5.")
    .with_argument("on_null", "'error' or 'skip' rows with a NULL. Default 'error'.")
    .build()
}
