-- Products reached by walks from product to household to product, popular ones less: RP3beta on what was known before
-- the holdout weeks.
-- materialize: view
SELECT *
FROM neighbors(
    train,
    entity => 'item_id', feature => 'user_id', weight => 'weight',
    metric => 'rp3beta', alpha => 0.6, beta => 0.2, k => 100
)
