//! What the reference says about `factorize`.

use datafusion::logical_expr::Documentation;

use crate::operators::planner::OPERATORS;

pub(super) fn documentation() -> Documentation {
    Documentation::builder(
        OPERATORS,
        "Vectors of users and items whose inner products tell what users like. Repeated (user, item) rows are summed.

| method | what it finds |
| --- | --- |
| `als` | alternating least squares on implicit feedback (Hu, Koren and Volinsky 2008): a weight `w` is the confidence `c = 1 + alpha w` in the preference 1, all other pairs have confidence 1 in the preference 0, and the vectors make `sum c (preference - x.y)^2 + regularization (sum |x|^2 + sum |y|^2)` small |
| `als` with `implicit => false` | the same on ratings: `sum (rating - mean - b_u - b_i - x.y)^2 + regularization (sum n_u (|x|^2 + b_u^2) + sum n_i (|y|^2 + b_i^2))` over the pairs that have one, `n` being the number of ratings (Zhou et al. 2008). Vectors are two numbers longer than `factors`: a user's ends with `b_u, 1`, an item's with `1, mean + b_i`, so that `dot` is the predicted rating; for how alike items are take the factors alone, `vector[1:factors]` |
| `svd` | the largest singular values of the matrix divided by powers of the degrees `d`, which are sums of weights: `d_u^-a w d_i^-b = U S V'`, by random projection (Halko, Martinsson and Tropp 2011). A user's vector is `d_u^a U S^power`, an item's `d_i^b V`. The usual exponents are the ideal low-pass filter of GF-CF (Shen et al. 2021); with `a => 0, b => 0` it is PureSVD |
| `bpr` | Bayesian personalised ranking (Rendle et al. 2009): `ln sigmoid(x_u.(y_i - y_j))` is made large for what a user has (weight above 0) and an item drawn at random that the user has not, less `regularization (|x_u|^2 + |y_i|^2 + |y_j|^2) / 2`, by AdaGrad over groups of users |

Each iteration of `als` moves users, then items: to their minimum with `solver => 'cholesky'`, or towards it by three steps of \
conjugate gradients from where they were (Takacs, Pilaszy and Tikk 2011), which is much faster with many factors.

Result: a vector table for `nearest` and `predict`: `side` ('user' or 'item'), `id` (the type of the ids; where users and items differ, \
Int64 for integers and text for all else) and `vector` (list of Float32). The result is the same, bit for bit, for a seed and any number of threads. Where \
there are fewer users or items than factors, `svd` fills vectors up with zeros. Make a table of it, as below or as a step of a \
project: a view or WITH that is named twice, once for each side, is computed twice. Of ratings a pair given twice is an error.",
        "factorize(interactions [, name => value ..])",
    )
    .with_sql_example(
        "CREATE TABLE vectors AS SELECT * FROM factorize(interactions, factors => 64, alpha => 20);
SELECT * FROM nearest(
  queries => (SELECT id AS user_id, vector FROM vectors WHERE side = 'user'),
  candidates => (SELECT id AS item_id, vector FROM vectors WHERE side = 'item'),
  metric => 'dot', exclude => (SELECT user_id, item_id FROM interactions), k => 20);",
    )
    .with_argument(
        "interactions",
        "Columns user_id, item_id and weight, or user, item and weight by position; without a weight each is 1. Weights are at least 0, ratings any number.",
    )
    .with_argument("method", "'als', 'svd' or 'bpr'. Default 'als'.")
    .with_argument("factors", "The length of vectors, 1 to 4096. Default 64.")
    .with_argument("iterations", "als: how often users and items are moved, default 15. svd: how often the space of the projection is improved, default 5. bpr: how often all rows are taken, default 50.")
    .with_argument("implicit", "als: whether weights are confidence, or ratings to be predicted. Default true.")
    .with_argument("regularization", "als: what large vectors cost, above 0, default 0.05. bpr: the same, default 0.01.")
    .with_argument("alpha", "als, implicit: how much a weight adds to the confidence, at least 0. Default 1.")
    .with_argument("solver", "als: 'cg' or 'cholesky'. Default 'cg'.")
    .with_argument("learning_rate", "bpr: how far a step goes at first. Default 0.1.")
    .with_argument("a", "svd: by which power of their degrees users' rows are divided. Default 0.5.")
    .with_argument("b", "svd: by which power of their degrees items' columns are divided. Default 0.5.")
    .with_argument("power", "svd: the power of the singular values in users' vectors. Default 1.")
    .with_argument("seed", "Another number begins elsewhere. Default 0.")
    .with_argument("on_null", "'error' or 'skip' rows with a NULL. Default 'error'.")
    .build()
}
