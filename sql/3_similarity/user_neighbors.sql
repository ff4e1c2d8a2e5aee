-- Households that like the same products more, and less, than their own average: pearson over what both bought.
-- grain: one row per household and neighbor, rank 1 being the most similar
-- key: user_id, neighbor_id
-- check: score > 0 AND score <= 1
SELECT *
FROM neighbors(
    interactions,
    entity => 'user_id', feature => 'item_id', weight => 'weight',
    metric => 'pearson', k => $neighbors, shrink => $user_shrink
)
