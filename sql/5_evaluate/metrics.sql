-- How good the lists are at foretelling the holdout weeks, and how much better than recommending what is popular.
-- Every household with answers counts, one without a list with 0. The true mean lies between ci_low and ci_high in 95 of
-- 100 cases. `lakeside functions ranking_metrics` has the formulas.
-- grain: one row per rule, model and metric
-- key: rule, model, metric
-- check: value >= 0
WITH lists AS (
    SELECT rule, model, user_id, item_id, rank FROM trial_lists WHERE rank <= $top
    UNION ALL
    SELECT rule, model, user_id, item_id, rank FROM trial_blend
),

measured AS (
    SELECT 'new' AS rule, *
    FROM ranking_metrics(
        (SELECT model, user_id, item_id, rank FROM lists WHERE rule = 'new'),
        (SELECT user_id, item_id FROM holdout WHERE is_new),
        k => $top, history => (SELECT user_id, item_id FROM train)
    )
    UNION ALL
    SELECT 'any', *
    FROM ranking_metrics(
        (SELECT model, user_id, item_id, rank FROM lists WHERE rule = 'any'),
        (SELECT user_id, item_id FROM holdout),
        k => $top, history => (SELECT user_id, item_id FROM train)
    )
)

SELECT
    rule,
    model,
    metric,
    k,
    round(value, 4) AS value,
    round(ci_low, 4) AS ci_low,
    round(ci_high, 4) AS ci_high,
    round(value / max(value) FILTER (WHERE model = 'popular') OVER (PARTITION BY rule, metric) - 1, 3)
        AS better_than_popular
FROM measured
ORDER BY rule, metric, value DESC
