-- How much each household is drawn to each product: at the end of the data, and at the end of the training weeks.
-- One definition for both, so that what is evaluated is what is served. A line counts 1 + ln(pieces), and half
-- of that after each half_life_weeks; the logarithm of the sum keeps weekly milk from drowning everything else.
-- grain: one row per snapshot, household and product
-- key: snapshot, user_id, item_id
-- check: weight > 0
WITH snapshots AS (
    SELECT 'all' AS snapshot, max(week) + 1 AS before_week FROM transactions
    UNION ALL
    SELECT 'train', $first_holdout_week
),

lines AS (
    SELECT
        snapshot,
        household_id AS user_id,
        product_id AS item_id,
        (1 + ln(pieces)) * power(0.5, CAST(before_week - week AS DOUBLE) / $half_life_weeks) AS line_weight
    FROM transactions
    JOIN products USING (product_id)
    JOIN snapshots ON week < before_week
    WHERE is_goods
)

-- Decimals, as sums of floating-point numbers depend on the order of the rows.
SELECT snapshot, user_id, item_id, ln(1 + CAST(sum(CAST(line_weight AS DECIMAL(18, 9))) AS DOUBLE)) AS weight
FROM lines
GROUP BY snapshot, user_id, item_id
