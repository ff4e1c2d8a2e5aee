-- What goes with the products a household bought, and which of them say so.
-- grain: one row per household and product it has not bought
-- key: user_id, item_id
SELECT *
FROM recommend(history => interactions, item_neighbors => item_neighbors, k => $candidates, explain => 3)
