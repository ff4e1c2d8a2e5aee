-- The shipped cleaning steps (sql/1_clean) on the dirty retail table, with the functions that they use.
-- {data} is the folder of the table. DuckDB gets normalize_text and robust_bounds as macros, see peers.py.

-- Products: each once, with the text that most of its lines have; of equally many the first.
COPY (
    WITH normalized AS (
        SELECT
            upper(trim(stock_code)) AS product_id,
            nullif(normalize_text(description), '') AS description
        FROM '{data}/*.parquet'
        WHERE stock_code IS NOT NULL
    ),
    described AS (
        SELECT product_id, description, count(*) AS lines
        FROM normalized
        WHERE description IS NOT NULL
        GROUP BY product_id, description
    )
    SELECT
        product_id,
        description,
        split_part(description, ' ', -1) AS kind,
        sum(lines) OVER (PARTITION BY product_id) AS lines,
        NOT (description LIKE '%postage%' OR description LIKE '%charges%' OR description IN ('manual', 'discount')) AS is_goods
    FROM described
    QUALIFY row_number() OVER (PARTITION BY product_id ORDER BY lines DESC, description) = 1
) TO 'clean_products.parquet';

-- Transactions: typed, each once, and none that cannot be true.
COPY (
    WITH typed AS (
        SELECT
            try_cast(invoice AS BIGINT) AS basket_id,
            upper(trim(stock_code)) AS product_id,
            customer_id,
            normalize_text(country) AS country,
            invoice_ts AS bought_at,
            quantity,
            price,
            quantity * price AS sales_value
        FROM '{data}/*.parquet'
        WHERE customer_id IS NOT NULL
          AND stock_code IS NOT NULL
          AND invoice NOT LIKE 'C%'
          AND quantity > 0
          AND price >= 0
    ),
    possible AS (
        SELECT typed.*, coalesce(kind, 'unknown') AS kind
        FROM typed
        LEFT JOIN 'clean_products.parquet' AS products USING (product_id)
        WHERE date_part('year', bought_at) BETWEEN 2009 AND 2011
    ),
    priced AS (
        SELECT *, ln(nullif(price, 0)) AS ln_price
        FROM possible
    ),
    usual AS (
        SELECT kind, robust_bounds(ln_price, 7.0) AS limits
        FROM priced
        GROUP BY kind
    ),
    plausible AS (
        SELECT priced.*
        FROM priced
        JOIN usual USING (kind)
        WHERE ln_price IS NULL
           OR (ln_price <= limits['upper'] AND (quantity = 1 OR ln_price >= limits['lower']))
    )
    SELECT basket_id, product_id, customer_id, country, bought_at, quantity, price, sales_value, kind
    FROM plausible
    QUALIFY row_number() OVER (PARTITION BY basket_id, product_id ORDER BY bought_at DESC, quantity DESC, price DESC) = 1
) TO 'clean_transactions.parquet';

-- Lines: exact repeats out, lines of one basket and product that differ kept.
COPY (
    SELECT DISTINCT
        invoice,
        stock_code,
        nullif(normalize_text(description), '') AS description,
        quantity,
        invoice_ts,
        price,
        customer_id,
        country
    FROM '{data}/*.parquet'
    WHERE customer_id IS NOT NULL
) TO 'clean_lines.parquet';

-- Customers: each once, with the country they were seen in last.
COPY (
    WITH normalized AS (
        SELECT DISTINCT
            customer_id,
            invoice,
            nullif(nullif(normalize_text(country), ''), 'unspecified') AS country,
            invoice_ts
        FROM '{data}/*.parquet'
        WHERE customer_id IS NOT NULL
    )
    SELECT
        customer_id,
        first_value(country ORDER BY invoice_ts, invoice) AS country,
        first_value(invoice ORDER BY invoice_ts, invoice) AS invoice,
        min(invoice_ts) AS registered_on,
        max(invoice_ts) AS last_seen,
        count(*) AS registrations
    FROM normalized
    GROUP BY customer_id
) TO 'clean_customers.parquet';
