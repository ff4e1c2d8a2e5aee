-- What is known about each household, as numbers that can be compared: one row per feature, ready for neighbors().
-- Numbers are scaled to robust standard deviations from the median and cut at 3, so that one extreme household does
-- not outweigh the rest. A category becomes one feature per value, 'age 25-34', with weight 1. What is not known has
-- no row.
-- grain: one row per household and feature
-- key: user_id, feature
-- check: weight BETWEEN -3 AND 3
WITH coupons AS (
    SELECT household_id, count(*) AS redeemed
    FROM coupon_redemptions
    GROUP BY household_id
),

behaviour AS (
    SELECT
        household_id AS user_id,
        ln(count(DISTINCT basket_id)) AS baskets,
        -- Decimals, as sums of floating-point numbers depend on the order of the rows.
        ln(1 + sum(CAST(sales_value AS DECIMAL(18, 2))) / count(DISTINCT basket_id)) AS spend_per_basket,
        avg(CAST(brand = 'private' AS INT)) AS own_brand_share,
        avg(CAST(department = 'produce' AS INT)) AS produce_share,
        avg(CAST(date_part('dow', bought_at) IN (0, 6) AS INT)) AS weekend_share,
        ln(1 + coalesce(max(redeemed), 0)) AS coupons_redeemed
    FROM transactions
    JOIN products USING (product_id)
    LEFT JOIN coupons USING (household_id)
    GROUP BY household_id
),

numbers AS (
    SELECT
        user_id,
        unnest(['baskets', 'spend_per_basket', 'own_brand_share', 'produce_share', 'weekend_share', 'coupons_redeemed'])
            AS feature,
        unnest([baskets, spend_per_basket, own_brand_share, produce_share, weekend_share, coupons_redeemed]) AS value
    FROM behaviour
),

scales AS (
    SELECT feature, robust_bounds(value, 1) AS usual
    FROM numbers
    GROUP BY feature
),

categories AS (
    SELECT
        household_id AS user_id,
        unnest(['age', 'income', 'home', 'marital_status', 'household_size', 'household', 'kids']) AS feature,
        unnest([age, income, home_ownership, marital_status, household_size, household_comp, kids_count]) AS value
    FROM demographics
)

SELECT
    user_id,
    feature,
    greatest(-3, least(3, 2 * (value - usual['lower']) / (usual['upper'] - usual['lower']) - 1)) AS weight
FROM numbers
JOIN scales USING (feature)
UNION ALL
SELECT user_id, feature || ' ' || value, 1
FROM categories
WHERE value IS NOT NULL
