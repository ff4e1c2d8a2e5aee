-- Which products are bought by the same customers.
-- key: item_id, neighbor_id
SELECT *
FROM neighbors((SELECT item_id, user_id, ln(1 + quantity) FROM purchases), metric => 'cosine', k => $neighbors)
