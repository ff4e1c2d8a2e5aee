-- 3_similarity/item_neighbors.sql on what was known before the holdout weeks.
SELECT *
FROM neighbors(
    train,
    entity => 'item_id', feature => 'user_id', weight => 'weight',
    metric => 'cosine', k => $neighbors, shrink => $item_shrink, min_overlap => 2
)
