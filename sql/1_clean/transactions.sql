-- Lines of till receipts, as they should have come: typed, each once, and none that cannot be true.
-- On the sample, 415,569 lines come in and 411,868 go out, sold for $1,287,575.61: what its README says is right.
-- grain: one row per basket and product
-- key: basket_id, product_id
-- check: household_id IS NOT NULL
-- check: to_char(bought_at, '%Y-%m') = month
-- check: pieces BETWEEN 1 AND 99
-- check: sales_value BETWEEN 0 AND 4999.99
WITH typed AS (
    SELECT raw_transactions.*, try_cast(transaction_timestamp AS TIMESTAMP) AS bought_at
    FROM raw_transactions
    WHERE household_id IS NOT NULL
      AND product_id IS NOT NULL
      AND quantity > 0
      AND sales_value >= 0
),

possible AS (
    SELECT
        typed.*,
        coalesce(department, 'unknown') AS department,
        -- Fuel comes in thousandths of a gallon; whatever the number, it is one tank filled.
        CASE WHEN product_type LIKE 'gasoline%' THEN 1 ELSE quantity END AS pieces
    FROM typed
    LEFT JOIN products USING (product_id)
    -- A date that does not exist has become NULL, and NULL is no year.
    WHERE date_part('year', bought_at) = $year
),

-- What a piece may cost in each department. In logarithms, since prices differ by factors; around the median, which
-- the wrong ones cannot move. Lines that a coupon paid in full have no price to speak of.
priced AS (
    SELECT *, ln(nullif(sales_value, 0) / pieces) AS ln_price
    FROM possible
),

usual AS (
    SELECT department, robust_bounds(ln_price, $outlier_width) AS limits
    FROM priced
    GROUP BY department
),

plausible AS (
    SELECT priced.*
    -- The few departments come first: the first of two inputs that are not known to be small is held in memory.
    FROM usual
    JOIN priced USING (department)
    WHERE ln_price IS NULL
       -- Too dear is a wrong price. Too cheap is a wrong quantity, but a single piece may be nearly given away.
       OR (ln_price <= limits['upper'] AND (pieces = 1 OR ln_price >= limits['lower']))
)

SELECT
    basket_id, product_id, household_id, store_id, bought_at, week, quantity, pieces, sales_value,
    retail_disc, coupon_disc, coupon_match_disc, loaded_at, month
FROM plausible
-- Of a line that was sent again the last one counts; of a line that was repeated any one does.
QUALIFY row_number() OVER (PARTITION BY basket_id, product_id ORDER BY loaded_at DESC) = 1
