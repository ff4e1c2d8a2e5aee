-- How much each list counts in the blend: `lakeside tune` has found it on weeks 42 to 49, so that the weeks of 5_evaluate
-- stay unseen. Popular counts next to nothing: it fills the places that the others leave open.
-- grain: one row per list
-- key: source
-- check: weight >= 0
SELECT column1 AS source, column2 AS weight
FROM (VALUES
    ('by_item', $blend_item),
    ('by_user', $blend_user),
    ('by_factors', $blend_factors),
    ('by_content', $blend_content),
    ('popular', 0.02)
)
