-- What was known before the first holdout week.
-- grain: one row per household and product it had bought by then
-- materialize: view
SELECT user_id, item_id, weight
FROM affinity
WHERE snapshot = 'train'
