-- Products with their text in one form, so that ' Grocery' and 'GROCERY' are one department.
-- Repeats differ in form only, so that DISTINCT leaves one of each; if one did not, the key would tell.
-- 41,874 rows of the sample become 41,790.
-- grain: one row per product
-- key: product_id
-- check: department <> '' AND product_type <> ''
WITH normalized AS (
    SELECT DISTINCT
        CAST(btrim(product_id) AS BIGINT) AS product_id,
        coalesce(nullif(normalize_text(department), ''), 'unknown') AS department,
        coalesce(nullif(normalize_text(product_category), ''), 'unknown') AS category,
        coalesce(nullif(normalize_text(product_type), ''), 'unknown') AS product_type,
        nullif(normalize_text(brand), '') AS brand,
        -- 'N/A', '?' and '-' stand for nothing; a size keeps its form, as '1/2 GAL' would become '1 2 gal'.
        nullif(nullif(nullif(regexp_replace(btrim(package_size), '\s+', ' ', 'g'), 'N/A'), '?'), '-') AS package_size,
        manufacturer_id
    FROM raw_products
    WHERE product_id IS NOT NULL
)

SELECT
    *,
    concat_ws(' ', product_type, lower(package_size), CASE WHEN brand = 'private' THEN '(own brand)' END) AS product,
    -- Fuel, coupons and gift cards are sold as products, too, but nobody wants them recommended; tobacco nobody should.
    department NOT IN ('fuel', 'coupon', 'miscellaneous', 'unknown')
        AND category NOT IN ('coupon misc items', 'coupon', 'cigarettes', 'tobacco other') AS is_goods
FROM normalized
