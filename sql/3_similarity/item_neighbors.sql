-- Products that the same households buy: cosine over the households' weights. Two households must agree, and the
-- shrinkage holds back products that few ever bought.
-- grain: one row per product and neighbor, rank 1 being the most similar
-- key: item_id, neighbor_id
-- check: score > 0 AND score <= 1
SELECT *
FROM neighbors(
    interactions,
    entity => 'item_id', feature => 'user_id', weight => 'weight',
    metric => 'cosine', k => $neighbors, shrink => $item_shrink, min_overlap => 2
)
