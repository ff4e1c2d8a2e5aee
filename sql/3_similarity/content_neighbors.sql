-- Products described by the same words. It needs no purchases, so it reaches products that are new.
-- grain: one row per product and neighbor, rank 1 being the most similar
-- key: item_id, neighbor_id
-- check: score > 0 AND score <= 1
SELECT *
FROM neighbors(
    (SELECT item_id, token, weight FROM product_tokens JOIN products ON item_id = product_id WHERE is_goods),
    metric => 'cosine', weighting => 'tfidf', min_overlap => 2, k => 10
)
