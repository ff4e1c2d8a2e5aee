-- What is nearest to a household by vectors, of all that it has not bought.
-- grain: one row per household and product it has not bought
-- key: user_id, item_id
SELECT *
FROM nearest(
    queries => (SELECT id AS user_id, vector FROM vectors WHERE side = 'user'),
    candidates => (SELECT id AS item_id, vector FROM vectors WHERE side = 'item'),
    metric => 'dot', k => $candidates, exclude => (SELECT user_id, item_id FROM interactions)
)
