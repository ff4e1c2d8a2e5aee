-- What is described like the products a household bought.
-- grain: one row per household and product it has not bought
-- key: user_id, item_id
SELECT *
FROM recommend(history => interactions, item_neighbors => content_neighbors, k => $candidates)
