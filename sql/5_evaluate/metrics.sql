-- How good the lists are at foretelling the holdout weeks, and how much better than recommending what is popular.
-- Recall: the share of a household's answers that its list has. Ndcg: the same, hits at the top counting more, against
-- the best order there could be. Both are averaged over all households with answers; one without a list scores 0.
-- Coverage: the share of all products known that is on any list.
-- grain: one row per rule, model and metric
-- key: rule, model, metric
-- check: value BETWEEN 0 AND 1
WITH lists AS (
    SELECT rule, model, user_id, item_id, rank FROM trial_lists WHERE rank <= $top
    UNION ALL
    SELECT rule, model, user_id, item_id, rank FROM trial_blend
),

models AS (
    SELECT rule, model, count(DISTINCT item_id) AS products
    FROM lists
    GROUP BY rule, model
),

answers AS (
    SELECT 'new' AS rule, user_id, item_id FROM holdout WHERE is_new
    UNION ALL
    SELECT 'any', user_id, item_id FROM holdout
),

asked AS (
    SELECT rule, user_id, count(*) AS answers
    FROM answers
    GROUP BY rule, user_id
),

hits AS (
    SELECT rule, model, user_id, count(*) AS hits, sum(1 / log2(rank + 1)) AS gain
    FROM lists
    JOIN answers USING (rule, user_id, item_id)
    GROUP BY rule, model, user_id
),

-- The gain of a list whose first n places are all hits.
best AS (
    SELECT value AS n, sum(1 / log2(value + 1)) OVER (ORDER BY value) AS gain
    FROM generate_series(1, $top)
),

by_household AS (
    SELECT
        models.rule,
        models.model,
        products,
        coalesce(hits.hits, 0) / CAST(answers AS DOUBLE) AS recall,
        coalesce(hits.gain, 0) / best.gain AS ndcg
    FROM models
    JOIN asked ON asked.rule = models.rule
    JOIN best ON n = least(answers, $top)
    LEFT JOIN hits ON hits.rule = models.rule AND hits.model = models.model AND hits.user_id = asked.user_id
),

by_model AS (
    SELECT
        rule,
        model,
        count(*) AS households,
        unnest(['recall', 'ndcg', 'coverage']) AS metric,
        unnest([avg(recall), avg(ndcg), max(products) / (SELECT CAST(count(DISTINCT item_id) AS DOUBLE) FROM train)])
            AS value
    FROM by_household
    GROUP BY rule, model
)

SELECT
    rule,
    model,
    metric,
    $top AS k,
    round(value, 4) AS value,
    round(value / max(value) FILTER (WHERE model = 'popular') OVER (PARTITION BY rule, metric) - 1, 3)
        AS better_than_popular,
    households
FROM by_model
ORDER BY rule, metric, value DESC
