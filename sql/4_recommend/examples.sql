-- Two recommendations each for five households, from one that buys a lot to one that never bought, in words. Because
-- names the product that speaks most for it by what is bought together, whatever list it came from.
-- materialize: view
WITH households AS (
    SELECT household_id, count(item_id) AS products_bought
    FROM (SELECT DISTINCT user_id AS household_id FROM recommendations)
    LEFT JOIN interactions ON user_id = household_id
    GROUP BY household_id
),

ordered AS (
    SELECT
        *,
        row_number() OVER (ORDER BY products_bought DESC, household_id) AS place,
        count(*) OVER () AS households
    FROM households
)

SELECT
    ordered.household_id,
    products_bought,
    recommendations.rank,
    products.product,
    products.department,
    source,
    reason.product AS because
FROM ordered
JOIN recommendations ON recommendations.user_id = household_id
JOIN products ON products.product_id = recommendations.item_id
LEFT JOIN by_item ON by_item.user_id = household_id AND by_item.item_id = recommendations.item_id
LEFT JOIN products AS reason ON reason.product_id = because[1]['id']
WHERE place IN (households / 10, households / 3, households / 2, households * 92 / 100, households)
  AND recommendations.rank <= 2
ORDER BY place, recommendations.rank
