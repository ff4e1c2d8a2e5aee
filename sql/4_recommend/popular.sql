-- What everyone buys, without what a household knows already.
-- grain: one row per household and product it has not bought, for every household known, buying or not
-- key: user_id, item_id
WITH households AS (
    SELECT household_id FROM customers
    UNION
    SELECT household_id FROM transactions
),

-- A household 0 that bought everything, and is the one neighbor of each: recommend() then adds up, and leaves out what
-- each has seen.
history AS (
    SELECT user_id, item_id, weight FROM interactions
    UNION ALL
    SELECT 0, item_id, weight FROM interactions
)

SELECT *
FROM recommend(
    history => history,
    user_neighbors => (SELECT household_id AS user_id, 0 AS neighbor_id, 1.0 AS score FROM households),
    k => $candidates
)
