-- What to offer each customer next, and why.
-- key: user_id, item_id
SELECT *
FROM recommend(history => (SELECT user_id, item_id, quantity FROM purchases), item_neighbors => item_neighbors, k => 5, explain => 2)
ORDER BY user_id, rank
