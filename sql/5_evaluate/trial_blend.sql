-- The lists of the trial blended as 4_recommend/recommendations.sql blends those that are served.
-- grain: one row per household and product
-- key: user_id, item_id
WITH known AS (
    SELECT user_id
    FROM train
    GROUP BY user_id
    HAVING count(*) >= $least_history
),

parts AS (
    SELECT trial_lists.user_id, item_id, CAST(weight / (60 + rank) AS DECIMAL(18, 12)) AS part
    FROM trial_lists
    JOIN blend ON source = model
    LEFT JOIN known ON known.user_id = trial_lists.user_id
    WHERE rule = 'new' AND weight > 0 AND (model = 'popular' OR known.user_id IS NOT NULL)
),

blended AS (
    SELECT user_id, item_id, sum(part) AS score
    FROM parts
    GROUP BY user_id, item_id
)

SELECT
    'new' AS rule,
    'blend' AS model,
    user_id,
    item_id,
    CAST(row_number() OVER (PARTITION BY user_id ORDER BY score DESC, item_id) AS INT) AS rank
FROM blended
QUALIFY rank <= $top
