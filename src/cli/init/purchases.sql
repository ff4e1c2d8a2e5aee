-- Purchases without repeats, returns and lines that name nobody.
-- grain: one row per customer, product and day
-- key: user_id, item_id, bought
-- check: quantity > 0
SELECT customer AS user_id, normalize_text(product) AS item_id, bought, max(quantity) AS quantity
FROM raw_purchases
WHERE customer IS NOT NULL AND quantity > 0
GROUP BY customer, normalize_text(product), bought
