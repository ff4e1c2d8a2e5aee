//! The answers of a cluster within this process, whatever way it plans, against those of one process.

use std::sync::Arc;

use datafusion::arrow::util::pretty::pretty_format_batches;
use lakeside::cluster::local::LocalCluster;
use lakeside::error::explain;
use lakeside::session::{Limits, Remote, Session};

use crate::support::root;

/// Tables of some rows to more than a batch of them, in files of different number, some without partners in others.
async fn tables(session: &Session, folder: &str) {
    let tables = [
        ("few", "SELECT value AS id, 'n' || (value % 7) AS name, value * 2.5 AS v FROM generate_series(1, 60)", 1),
        ("many", "SELECT value % 90 AS id, value % 11 AS g, value AS w FROM generate_series(1, 4000)", 3),
        ("seen", "SELECT value % 90 AS id, value % 8 AS g FROM generate_series(1, 20000) WHERE value % 7 > 2", 1),
        ("nulls", "SELECT CASE WHEN value % 5 = 0 THEN NULL ELSE value END AS id FROM generate_series(1, 40)", 1),
    ];
    for (name, query, files) in tables {
        for file in 0..files {
            let part = format!("SELECT * FROM ({query}) WHERE coalesce(id, 0) % {files} = {file}");
            ask(session, &format!("COPY ({part}) TO '{folder}/{name}/{file}.parquet'")).await.unwrap();
        }
    }
}

async fn ask(session: &Session, sql: &str) -> Result<String, String> {
    let failed = |e| explain(&e);
    let mut text = String::new();
    for statement in session.parse(sql).map_err(failed)? {
        let batches = session.query(statement).await.map_err(failed)?.collect().await.map_err(failed)?;
        text = pretty_format_batches(&batches).map_err(|e| e.to_string())?.to_string();
    }
    // Types of text differ, rows do not; which order they come in is up to ORDER BY.
    Ok(text)
}

fn queries(folder: &str) -> Vec<String> {
    let (few, many, nulls) = (format!("'{folder}/few/'"), format!("'{folder}/many/'"), format!("'{folder}/nulls/'"));
    let mut queries = Vec::new();
    for join in ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"] {
        for (a, b, v, w) in [(&few, &many, "a.v", "b.w"), (&many, &few, "b.v", "a.w"), (&few, &few, "a.v", "b.v")] {
            let joined = format!("{a} a {join} {b} b ON a.id = b.id");
            queries.push(format!("SELECT count(*), sum({v}), sum({w}), count(a.id), count(b.id) FROM {joined}"));
            queries.push(format!(
                "SELECT coalesce(a.id, b.id) AS id, count(*), sum({w}) FROM {joined} GROUP BY 1 ORDER BY 1"
            ));
        }
    }
    for condition in ["IN", "NOT IN"] {
        queries.push(format!(
            "SELECT count(*), sum(w) FROM {many} WHERE id {condition} (SELECT id FROM {few} WHERE id % 3 = 0)"
        ));
        queries.push(format!("SELECT count(*) FROM {many} WHERE id {condition} (SELECT id FROM {nulls})"));
    }
    queries.extend(joins_by_any_condition(&many, &few));
    let neighbors = format!("neighbors((SELECT g, id FROM {many}), metric => 'jaccard', k => 3)");
    queries.extend(operators_by_user(&many, &few, &format!("'{folder}/seen/'")));
    queries.extend([
        format!("SELECT count(id), max(v) FROM {few} WHERE 1 = 0"),
        format!("SELECT count(*), sum(w) FROM {many} m, (SELECT max(v) AS top FROM {few}) t WHERE m.w > t.top"),
        format!("SELECT count(*) FROM {many} WHERE w > (SELECT avg(w) FROM {many})"),
        format!("SELECT id, w, max(w) FILTER (WHERE g = 3) OVER (PARTITION BY id) AS m FROM {many} ORDER BY w LIMIT 20"),
        format!("SELECT count(*) FROM (SELECT * FROM {many} ORDER BY w LIMIT 77 OFFSET 5)"),
        format!("SELECT m.g, turn, count(*) FROM {many} m JOIN (SELECT g, row_number() OVER (ORDER BY n DESC, g) AS turn FROM (SELECT g, count(*) AS n FROM {many} GROUP BY g)) t ON m.g = t.g GROUP BY 1, 2 ORDER BY 1"),
        format!("SELECT * FROM {neighbors} ORDER BY g, rank"),
        format!("SELECT n.g, f.name, count(*) FROM {neighbors} n JOIN {few} f ON f.id = n.neighbor_id GROUP BY 1, 2 ORDER BY 1, 2"),
        "SELECT * FROM (VALUES (1, 'a'), (2, 'b')) UNION ALL SELECT * FROM (VALUES (1, 'a'), (2, 'b')) UNION ALL SELECT 1, 'd' ORDER BY 1, 2".to_owned(),
        format!("SELECT 'a' AS x, g FROM {neighbors} UNION ALL SELECT 'b', id FROM {few} ORDER BY 1, 2"),
        format!(
            "SELECT * FROM recommend(history => (SELECT id, g FROM {many} WHERE id % 2 = 0), item_neighbors => (SELECT g, neighbor_id, score FROM {neighbors}), k => 2) ORDER BY user_id, rank"
        ),
        format!("SELECT count(*) FROM '{}/sample-data/demographics/*.csv' d JOIN {few} f ON d.household_id % 60 = f.id", root().display()),
    ]);
    queries
}

/// Joins by something else than equal columns, in which rows of either side have no partner.
fn joins_by_any_condition(many: &str, few: &str) -> Vec<String> {
    let mut queries = Vec::new();
    for (a, b) in [(few, many), (many, few)] {
        for join in ["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"] {
            queries.push(format!(
                "SELECT count(*), count(a.id), count(b.id), sum(a.id - b.id) FROM {a} a {join} {b} b ON a.id > b.id AND a.id < b.id + 4 AND b.id > 20"
            ));
        }
        for condition in ["EXISTS", "NOT EXISTS"] {
            queries.push(format!(
                "SELECT count(*), sum(a.id) FROM {a} a WHERE {condition} (SELECT 1 FROM {b} b WHERE b.id > a.id + 20)"
            ));
        }
        queries.push(format!(
            "SELECT id, (SELECT max(id) FROM {b} GROUP BY id HAVING id = 7) AS one FROM {a} ORDER BY id"
        ));
    }
    queries.push(format!("SELECT g, (SELECT w FROM {many} WHERE w = 77) FROM (VALUES (1), (2)) AS t(g) ORDER BY g"));
    queries
}

/// Calls of operators whose rows are looked up by user, from files, from a subquery of few rows, and from aggregates.
fn operators_by_user(many: &str, few: &str, seen: &str) -> Vec<String> {
    let near = |entity: &str, feature: &str| {
        let counts = format!("SELECT {entity}, {feature}, count(*) FROM {many} WHERE w % 7 > 2 GROUP BY 1, 2");
        format!("(SELECT * FROM neighbors(({counts}), k => 6))")
    };
    let vectors = |id: &str| {
        format!("(SELECT {id} AS {id}, [sum(w % 5), sum(w % 3), count(*)] AS vector FROM {many} GROUP BY {id})")
    };
    let histories = [
        format!("(SELECT id AS user_id, g AS item_id, w % 9 + 0.1 AS weight FROM {many} WHERE w % 7 > 2)"),
        "(SELECT * FROM (VALUES (1, 2, 0.3), (1, 3, 0.1), (7, 4, 1.7)))".to_owned(),
        format!("(SELECT id, g, avg(w % 13) FROM {many} WHERE w % 3 = 0 GROUP BY id, g)"),
    ];
    // One file as it is, and what comes as one partition of unknown size.
    let unknown = "(SELECT 1, unnest(generate_series(1, 8)))";
    let histories = histories.into_iter().chain([format!("(SELECT * FROM {seen})"), unknown.to_owned()]);
    let masks = format!(
        ", exclude => (SELECT id, g FROM {many} WHERE w % 5 = 0), candidates => (SELECT id % 8 AS item_id FROM {few})"
    );
    let mut queries = Vec::new();
    for history in histories {
        for (side, neighbors) in [("item", near("g", "id")), ("user", near("id", "g"))] {
            for masks in ["", &masks] {
                queries.push(format!(
                    "SELECT * FROM recommend(history => {history}, {side}_neighbors => {neighbors}, k => 3, explain => 2{masks}) ORDER BY user_id, rank"
                ));
            }
        }
    }
    let items = vectors("g");
    for exclude in ["".to_owned(), format!("(SELECT id, g FROM {many} WHERE w % 5 < 3)"), unknown.to_owned()] {
        let exclude = if exclude.is_empty() { exclude } else { format!(", exclude => {exclude}") };
        let users = [
            vectors("id"),
            "(SELECT 1 AS id, [3.0, 2.0, 1.0] AS vector)".to_owned(),
            // Of several partitions until all rows are numbered or summed.
            format!("(SELECT row_number() OVER (ORDER BY w) AS id, [w % 5 + 0.5, g, 1.0] AS vector FROM {many})"),
            format!("(SELECT 1 AS id, [avg(w % 5), avg(g), 1.0] AS vector FROM {many})"),
        ];
        for users in users {
            queries.push(format!(
                "SELECT * FROM nearest(queries => {users}, candidates => {items}, k => 4{exclude}) ORDER BY id, rank"
            ));
        }
    }
    queries.push(format!("SELECT * FROM nearest(queries => {items}, candidates => {items}, k => 4) ORDER BY g, rank"));
    queries
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_way_to_plan_gives_the_rows_of_one_process() {
    let folder = tempfile::TempDir::new().unwrap();
    let folder = folder.path().to_str().unwrap();
    let local = Session::try_new(&Limits::default(), Default::default()).unwrap();
    tables(&local, folder).await;
    let cluster = LocalCluster::start(2, 2, None).await.unwrap();
    let remote: Arc<dyn Remote> = Arc::new(cluster.cluster().clone());
    let limits = Limits { remote: Some(remote), ..Limits::default() };
    let mut failures = Vec::new();
    for setting in [
        "ballista.optimizer.broadcast_join_threshold_bytes = 134217728",
        "ballista.optimizer.broadcast_join_threshold_bytes = 0",
        "ballista.scheduler.max_partitions_per_task = 1",
        "datafusion.optimizer.prefer_hash_join = false",
        "ballista.planner.adaptive.enabled = true",
    ] {
        let there = Session::try_new(&limits, Default::default()).unwrap();
        ask(&there, &format!("SET {setting}")).await.unwrap();
        for query in queries(folder) {
            let (expected, answer) = (
                ask(&local, &query).await,
                tokio::time::timeout(std::time::Duration::from_secs(20), ask(&there, &query)).await,
            );
            match answer {
                Ok(answer) if answer == expected && expected.is_ok() => {}
                Ok(answer) => failures.push(format!("{setting}\n{query}\n{expected:?}\n{answer:?}")),
                Err(_) => failures.push(format!("{setting}\n{query}\nno answer")),
            }
        }
    }
    assert!(failures.is_empty(), "{} differ\n{}", failures.len(), failures.join("\n\n"));
}

/// Rows that the tasks of a cluster write themselves, lists and others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_are_inserted_into_folders() {
    let folder = tempfile::TempDir::new().unwrap();
    let local = Session::try_new(&Limits::default(), Default::default()).unwrap();
    let cluster = LocalCluster::start(2, 2, None).await.unwrap();
    let remote: Arc<dyn Remote> = Arc::new(cluster.cluster().clone());
    let there = Session::try_new(&Limits { remote: Some(remote), ..Limits::default() }, Default::default()).unwrap();
    for (name, column) in [("lists", "score"), ("rows", "n")] {
        let table = format!("{}/{name}/", folder.path().display());
        let rows =
            |last| format!("SELECT value AS id, CAST(value AS REAL) AS {column} FROM generate_series(1, {last})");
        ask(&local, &format!("COPY ({}) TO '{table}0.parquet'", rows(100))).await.unwrap();
        ask(&there, &format!("INSERT INTO '{table}' {}", rows(5000))).await.unwrap();
        let counted = ask(&local, &format!("SELECT count(*), sum({column}) FROM '{table}'")).await.unwrap();
        assert!(counted.contains("5100") && counted.contains("12507550"), "{counted}");
    }
}
