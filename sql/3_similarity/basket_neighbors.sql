-- Products that lie in the same baskets: what goes with what, rather than what is bought instead.
-- grain: one row per product and neighbor, rank 1 being the most similar
-- key: item_id, neighbor_id
-- check: score > 0 AND score <= 1
SELECT *
FROM neighbors(
    (SELECT product_id AS item_id, basket_id FROM transactions JOIN products USING (product_id) WHERE is_goods),
    metric => 'jaccard', k => 20, min_overlap => 3, shrink => 10
)
