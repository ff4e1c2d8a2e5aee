-- Lists made from the training weeks alone, as 4_recommend makes them, under two rules. 'new': what a household had
-- bought is left out, as in the lists that are served. 'any': it may be recommended again, which is easier, as most of
-- what people buy they have bought before; there, the household's own favourites are one more model to compare with.
-- grain: one row per rule, model, household and product
-- key: rule, model, user_id, item_id
WITH everyone AS (
    SELECT user_id, item_id, weight FROM train
    UNION ALL
    SELECT 0, item_id, weight FROM train
),

households AS (
    SELECT DISTINCT user_id, 0 AS neighbor_id, 1.0 AS score FROM holdout
)

SELECT 'new' AS rule, 'by_item' AS model, user_id, item_id, rank
FROM recommend(history => train, item_neighbors => train_item_neighbors, k => $candidates)
UNION ALL
SELECT 'new', 'by_user', user_id, item_id, rank
FROM recommend(history => train, user_neighbors => train_user_neighbors, k => $candidates)
UNION ALL
SELECT 'new', 'by_content', user_id, item_id, rank
FROM recommend(history => train, item_neighbors => content_neighbors, k => $candidates)
UNION ALL
SELECT 'new', 'by_walk', user_id, item_id, rank
FROM recommend(history => train, item_neighbors => train_walks, k => $candidates)
UNION ALL
SELECT 'new', 'by_factors', user_id, item_id, rank
FROM nearest(
    queries => (SELECT id AS user_id, vector FROM train_vectors WHERE side = 'user'),
    candidates => (SELECT id AS item_id, vector FROM train_vectors WHERE side = 'item'),
    metric => 'dot', k => $candidates, exclude => (SELECT user_id, item_id FROM train)
)
UNION ALL
SELECT 'new', 'popular', user_id, item_id, rank
FROM recommend(history => everyone, user_neighbors => households, k => $candidates)
UNION ALL
SELECT 'any', 'by_item', user_id, item_id, rank
FROM recommend(history => train, item_neighbors => train_item_neighbors, k => $top, exclude_seen => false)
UNION ALL
SELECT 'any', 'by_user', user_id, item_id, rank
FROM recommend(history => train, user_neighbors => train_user_neighbors, k => $top, exclude_seen => false)
UNION ALL
SELECT 'any', 'popular', user_id, item_id, rank
FROM recommend(history => everyone, user_neighbors => households, k => $top, exclude_seen => false)
UNION ALL
SELECT
    'any', 'favourites', user_id, item_id,
    CAST(row_number() OVER (PARTITION BY user_id ORDER BY weight DESC, item_id) AS INT) AS rank
FROM train
QUALIFY rank <= $top
