-- The models side by side: how good their lists are at foretelling products that are new to a household. The true mean
-- lies between low and high in 95 of 100 cases.
-- grain: one row per model
-- materialize: view
SELECT
    model,
    max(value) FILTER (WHERE metric = 'recall') AS recall,
    max(ci_low) FILTER (WHERE metric = 'recall') AS recall_low,
    max(ci_high) FILTER (WHERE metric = 'recall') AS recall_high,
    max(value) FILTER (WHERE metric = 'ndcg') AS ndcg,
    max(ci_low) FILTER (WHERE metric = 'ndcg') AS ndcg_low,
    max(ci_high) FILTER (WHERE metric = 'ndcg') AS ndcg_high
FROM metrics
WHERE rule = 'new'
GROUP BY model
ORDER BY ndcg DESC
