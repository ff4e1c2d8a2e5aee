-- 3_similarity/user_neighbors.sql on what was known before the holdout weeks.
SELECT *
FROM neighbors(
    train,
    entity => 'user_id', feature => 'item_id', weight => 'weight',
    metric => 'pearson', k => $neighbors, shrink => $user_shrink
)
