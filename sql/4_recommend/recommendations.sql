-- What to recommend to each household: one list, blended from five.
-- A product scores weight / (60 + rank) in each list that has it (reciprocal rank fusion, Cormack et al. 2009): ranks
-- can be added up, where the scores of different methods cannot. Source is the list that gave most.
-- grain: one row per household and product, rank 1 being the best
-- key: user_id, item_id
-- check: rank BETWEEN 1 AND $top
WITH known AS (
    -- One trip to the shop is too little to tell a taste by; such a household is served from the popular list alone.
    SELECT user_id
    FROM interactions
    GROUP BY user_id
    HAVING count(*) >= $least_history
),

learned AS (
    SELECT 'by_item' AS source, user_id, item_id, rank FROM by_item
    UNION ALL
    SELECT 'by_user', user_id, item_id, rank FROM by_user
    UNION ALL
    SELECT 'by_factors', user_id, item_id, rank FROM by_factors
    UNION ALL
    SELECT 'by_content', user_id, item_id, rank FROM by_content
),

lists AS (
    SELECT learned.* FROM learned JOIN known USING (user_id)
    UNION ALL
    SELECT 'popular', user_id, item_id, rank FROM popular
),

-- Decimals, as sums of floating-point numbers depend on the order of the rows.
parts AS (
    SELECT user_id, item_id, source, CAST(weight / (60 + rank) AS DECIMAL(18, 12)) AS part
    FROM lists
    JOIN blend USING (source)
    WHERE weight > 0
),

blended AS (
    SELECT user_id, item_id, sum(part) AS score, first_value(source ORDER BY part DESC, source) AS source
    FROM parts
    GROUP BY user_id, item_id
)

SELECT
    user_id,
    item_id,
    CAST(score AS REAL) AS score,
    CAST(row_number() OVER (PARTITION BY user_id ORDER BY blended.score DESC, item_id) AS INT) AS rank,
    source
FROM blended
QUALIFY rank <= $top
