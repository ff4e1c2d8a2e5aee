-- What was bought in the weeks after the training: the answers.
-- grain: one row per household and product it bought then
-- key: user_id, item_id
WITH bought AS (
    SELECT DISTINCT household_id AS user_id, product_id AS item_id
    FROM transactions
    JOIN products USING (product_id)
    WHERE is_goods
      AND week >= $first_holdout_week
      AND week < $first_holdout_week + $holdout_weeks
)

SELECT user_id, item_id, train.item_id IS NULL AS is_new
FROM bought
LEFT JOIN train USING (user_id, item_id)
