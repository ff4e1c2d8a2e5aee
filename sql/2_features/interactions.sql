-- What the recommendations are made from: everything known today.
-- grain: one row per household and product it bought
-- key: user_id, item_id
SELECT user_id, item_id, weight
FROM affinity
WHERE snapshot = 'all'
