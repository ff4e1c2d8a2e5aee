-- What households like this one bought.
-- grain: one row per household and product it has not bought
-- key: user_id, item_id
SELECT *
FROM recommend(history => interactions, user_neighbors => user_neighbors, k => $candidates)
