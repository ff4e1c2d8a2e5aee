-- The words that describe each product. The type says most about it, the maker and the department least.
-- grain: one row per product and word
-- key: item_id, token
-- check: weight > 0
WITH texts AS (
    SELECT product_id, 3.0 AS weight, product_type AS words FROM products
    UNION ALL
    SELECT product_id, 2.0, category FROM products
    UNION ALL
    SELECT product_id, 1.0, department FROM products
    UNION ALL
    SELECT product_id, 1.0, brand || ' maker' || manufacturer_id FROM products
),

tokens AS (
    SELECT product_id AS item_id, unnest(string_to_array(words, ' ')) AS token, weight
    FROM texts
),

products_by_token AS (
    SELECT token, count(DISTINCT item_id) AS products
    FROM tokens
    GROUP BY token
)

SELECT item_id, token, sum(weight) AS weight
FROM tokens
JOIN products_by_token USING (token)
-- A word that a thousand products share tells little and costs most: similarity compares all that share one.
WHERE products <= $common_word * (SELECT count(*) FROM products)
GROUP BY item_id, token
