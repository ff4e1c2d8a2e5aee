-- How much each list counts in the blend. Found on weeks 46 to 49, with `--var first_holdout_week=46`, so that the
-- weeks of 5_evaluate stay unseen. Popular counts next to nothing: it fills the places that the others leave open.
-- grain: one row per list
-- key: source
-- check: weight > 0
SELECT column1 AS source, column2 AS weight
FROM (VALUES ('by_item', 1.0), ('by_user', 0.5), ('by_content', 0.2), ('popular', 0.02))
