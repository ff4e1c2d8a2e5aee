-- Households that are alike in who they are and how they shop.
-- grain: one row per household and neighbor, rank 1 being the most similar
-- key: user_id, neighbor_id
-- check: score > 0 AND score <= 1
SELECT *
FROM neighbors(customer_features, metric => 'cosine', k => $neighbors, min_overlap => 3)
