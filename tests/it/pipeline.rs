//! Projects: order, checks, publishing, selecting, and the shipped project.

use crate::support::{TestProject, project_at, root, run};

const PURCHASES: &str = "user,item,n\na,x,1\na,y,2\nb,x,3\nb,z,1\nc,y,1\n";
const SOURCE: &str = "[sources.raw]\nurl = \"raw.csv\"\n[vars]\nleast = 1\n";

fn shop() -> TestProject {
    TestProject::new(
        SOURCE,
        &[
            ("raw.csv", PURCHASES),
            (
                "1/purchases.sql",
                "-- Purchases.\n-- key: user, item\n-- check: n >= $least\nSELECT \"user\", item, n FROM raw WHERE n >= $least\n",
            ),
            ("1/users.sql", "-- materialize: view\nSELECT \"user\", sum(n) AS n FROM purchases GROUP BY \"user\"\n"),
            (
                "2/neighbors_of_items.sql",
                "SELECT * FROM neighbors((SELECT item, \"user\", n FROM purchases), k => 2)\n",
            ),
            ("2/heavy.sql", "SELECT * FROM users WHERE n > 2\n"),
        ],
    )
}

#[test]
fn runs_in_order_and_publishes_plain_parquet() {
    let project = shop();
    let ran = project.run("run", &[]).ok();
    assert!(ran.stderr.contains("4 of 4 steps done"), "{}", ran.stderr);
    assert_eq!(ran.stdout, "", "data goes to stdout, everything else to stderr");
    let files = project.lake_files();
    let tables: Vec<&str> =
        files.iter().filter(|f| f.ends_with(".parquet")).map(|f| f.split('/').next().unwrap()).collect();
    assert!(tables.contains(&"purchases") && tables.contains(&"heavy") && !tables.contains(&"users"), "{files:?}");
    assert!(!files.iter().any(|file| file.contains("staging/")), "{files:?}");
    assert_eq!(project.sql("SELECT * FROM heavy ORDER BY n").ok().stdout, "user,n\na,3\nb,4\n");
    let glob = format!("SELECT count(*) AS n FROM '{}/lake/purchases/*.parquet'", project.path().display());
    assert_eq!(run(&["sql", "--format", "csv", "-c", &glob]).ok().stdout, "n\n5\n");
}

#[test]
fn a_variable_can_be_overridden() {
    let project = shop();
    project.run("run", &["--var", "least=2"]).ok();
    assert_eq!(project.sql("SELECT count(*) AS n FROM purchases").ok().stdout, "n\n2\n");
    project.run("run", &["--var", "lest=2"]).failed(2, &["the project has no variable 'lest', did you mean 'least'?"]);
    project.run("run", &["--var", "least"]).failed(2, &["--var name=value"]);
}

#[test]
fn select_takes_what_it_needs_and_no_more() {
    let project = shop();
    let ran = project.run("run", &["--select", "heavy"]).ok();
    assert!(ran.stderr.contains("3 of 3 steps done"), "{}", ran.stderr);
    assert!(!project.lake_files().iter().any(|file| file.starts_with("neighbors_of_items")));
    project.run("run", &["--select", "hevy"]).failed(2, &["no such step", "did you mean 'heavy'?"]);
}

#[test]
fn a_broken_promise_publishes_nothing_and_others_still_run() {
    let project = shop();
    project.run("run", &[]).ok();
    project.write("1/purchases.sql", "-- key: user\nSELECT \"user\", item, n + 10 AS n FROM raw\n");
    project.write("2/other.sql", "SELECT count(*) AS n FROM raw\n");
    let ran = project.run("run", &[]);
    let ran = ran
        .failed(1, &["purchases.sql:1: key (user) is not unique: 2 values repeat", "skipped, as it needs purchases"]);
    assert!(ran.stderr.contains("1 of 5 steps done"), "{}", ran.stderr);
    assert_eq!(
        project.sql("SELECT max(n) AS n FROM purchases").ok().stdout,
        "n\n3\n",
        "the last published table stays"
    );
    assert_eq!(project.sql("SELECT n FROM other").ok().stdout, "n\n5\n");
    project.write("1/purchases.sql", "-- key: user, item\n-- check: n > 1\nSELECT \"user\", item, n FROM raw\n");
    project.run("run", &[]).failed(1, &["purchases.sql:2: check (n > 1) does not hold in 3 rows, such as {user:"]);
    project.write(
        "1/purchases.sql",
        "-- key: user\nSELECT CASE WHEN n > 1 THEN \"user\" END AS \"user\", item, n FROM raw\n",
    );
    project.run("run", &[]).failed(1, &["key (user) is NULL in 3 rows"]);
}

#[test]
fn files_can_be_partitioned_by_columns() {
    let project = TestProject::new(
        SOURCE,
        &[
            ("raw.csv", PURCHASES),
            ("t.sql", "-- partition_by: item\n-- key: user, item\nSELECT \"user\", item, n FROM raw\n"),
        ],
    );
    project.run("run", &[]).ok();
    let files = project.lake_files();
    for folder in ["t/item=x/", "t/item=y/", "t/item=z/"] {
        assert!(files.iter().any(|file| file.starts_with(folder)), "{files:?}");
    }
    assert_eq!(project.sql("SELECT n FROM t WHERE item = 'z'").ok().stdout, "n\n1\n");
}

#[test]
fn an_empty_table_is_published_with_its_columns() {
    let project = TestProject::new(
        SOURCE,
        &[("raw.csv", PURCHASES), ("none.sql", "-- key: user\nSELECT * FROM raw WHERE n > 99\n")],
    );
    project.write("lists.sql", "SELECT * FROM neighbors((SELECT item, \"user\" FROM none))\n");
    project.run("run", &[]).ok();
    assert_eq!(project.sql("SELECT * FROM none").ok().stdout, "user,item,n\n");
    assert_eq!(project.sql("SELECT count(*) AS n FROM lists").ok().stdout, "n\n0\n");
}

#[test]
fn sources_of_every_format_are_read() {
    let project = TestProject::new(
        "[sources.c]\nurl = \"in/c.csv\"\n[sources.j]\nurl = \"in/j.json\"\n[sources.p]\nurl = \"in/p/\"\n[sources.g]\nurl = \"in/g/*/*.parquet\"\n",
        &[("in/c.csv", "n\n1\n"), ("in/j.json", "{\"n\": 2}\n")],
    );
    let write = |path: &str, n: i32| {
        let query = format!("COPY (SELECT {n} AS n) TO '{}/{path}' STORED AS PARQUET", project.path().display());
        run(&["sql", "-c", &query]).ok();
    };
    write("in/p/month=2017-01/a.parquet", 3);
    write("in/p/month=2017-02/a.parquet", 4);
    write("in/g/x/b.parquet", 5);
    project.write("all.sql", "SELECT n, '' AS month FROM c UNION ALL SELECT n, '' FROM j UNION ALL SELECT n, month FROM p UNION ALL SELECT n, '' FROM g\n");
    project.run("run", &[]).ok();
    let rows = project.sql("SELECT n, month FROM \"all\" ORDER BY n").ok().stdout;
    assert_eq!(rows, "n,month\n1,\n2,\n3,2017-01\n4,2017-02\n5,\n");
}

#[test]
fn init_makes_a_project_that_runs() {
    let folder = tempfile::TempDir::new().unwrap();
    let shop = folder.path().join("shop");
    let shop = shop.to_str().unwrap();
    run(&["init", shop]).ok();
    run(&["check", shop]).ok();
    let ran = run(&["run", shop]).ok();
    assert!(ran.stdout.contains("because"), "{}", ran.stdout);
    run(&["init", shop]).failed(2, &["exists and is not an empty folder"]);
}

/// The shipped project runs, cleans exactly as sample-data/README.md says is right, shows its models and ten recommendations, and its
/// answers have the same bits for any number of threads.
#[test]
fn the_shipped_project_is_right_and_deterministic() {
    let work = tempfile::TempDir::new().unwrap();
    let tables = |threads: &str| -> Vec<(String, Vec<String>)> {
        let folder = work.path().join(threads);
        let lake = folder.join("lake");
        project_at(&folder, &format!("{}/sample-data/", root().display()), lake.to_str().unwrap());
        let ran = run(&["run", folder.to_str().unwrap(), "--threads", threads]).ok();
        let frame = 4;
        let lines = ran.stdout.lines().count();
        assert_eq!(lines, 7 + frame + 10 + frame, "seven models and ten recommendations:\n{}", ran.stdout);
        let names = std::fs::read_dir(&lake).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.filter(|name| !name.starts_with('.')).collect();
        names.sort();
        let rows = |name: &String| {
            let query = format!("SELECT * FROM '{}/{name}/'", lake.display());
            let text = run(&["sql", "--format", "json", "-c", &query]).ok().stdout;
            let mut rows: Vec<String> = text.lines().map(str::to_owned).collect();
            rows.sort();
            rows
        };
        names.iter().map(|name| (name.clone(), rows(name))).collect()
    };
    let (one, three) = (tables("1"), tables("3"));
    assert_eq!(one.len(), three.len());
    for (table, right) in [("transactions", 411_868), ("products", 41_790), ("customers", 804)] {
        let rows = one.iter().find(|(name, _)| name == table).map(|(_, rows)| rows.len());
        assert_eq!(rows, Some(right), "{table}");
    }
    for ((name, one), (_, three)) in one.iter().zip(&three) {
        assert!(one == three, "{name} differs between 1 and 3 threads");
    }
}

/// What the README says of a new model: one file, and one more SELECT, put it beside the others.
#[test]
fn a_model_is_one_file() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let (_, about) = readme.split_once("A model is a table, and so one SQL file").unwrap();
    let mut queries = about.split("```sql\n").skip(1).map(|rest| rest.split_once("```").unwrap().0);
    let (model, lists) = (queries.next().unwrap(), queries.next().unwrap());
    let work = tempfile::TempDir::new().unwrap();
    let (folder, lake) = (work.path().join("sql"), work.path().join("lake"));
    project_at(&folder, &format!("{}/sample-data/", root().display()), lake.to_str().unwrap());
    std::fs::write(folder.join("5_evaluate/train_overlap.sql"), model).unwrap();
    let trial = folder.join("5_evaluate/trial_lists.sql");
    let others = std::fs::read_to_string(&trial).unwrap();
    std::fs::write(&trial, others + lists).unwrap();
    let folder = folder.to_str().unwrap();
    run(&["run", folder, "--select", "models"]).ok();
    let query = "SELECT count(*) AS n, sum(CAST(model = 'by_overlap' AND recall > 0.01 AS INT)) AS new FROM models";
    let answer = run(&["sql", "--project", folder, "--format", "csv", "-c", query]).ok();
    assert_eq!(answer.stdout, "n,new\n8,1\n");
}

/// Neither the order of input rows nor the number of threads changes a bit of a result.
#[test]
fn the_order_of_input_does_not_show() {
    let events = "SELECT value AS n, value % 97 AS item, value * value % 211 AS u, 1 + value % 9 * 0.37 AS w FROM generate_series(1, 4000)";
    for metric in ["cosine", "pearson", "adjusted_cosine", "jaccard", "euclidean"] {
        let answer = |order: &str, threads: &str| {
            let rows = format!("SELECT item, u, w FROM ({events}) ORDER BY {order}");
            let query = format!("SELECT * FROM neighbors(({rows}), metric => '{metric}', k => 7) ORDER BY 1, 4");
            run(&["sql", "--threads", threads, "--format", "json", "-c", &query]).ok().stdout
        };
        let expected = answer("n", "1");
        assert!(expected.lines().count() > 97, "{expected}");
        for (order, threads) in [("n DESC", "2"), ("hash_uniform(n)", "7"), ("w, u, item", "3")] {
            assert!(answer(order, threads) == expected, "{metric} by {order} with {threads} threads differs");
        }
    }
}

/// With too little memory for all of it `neighbors` works on blocks, with the rest on disk, and finds the same.
#[test]
fn a_memory_limit_does_not_show() {
    let rows = "SELECT value % 1999 AS item, value * 7919 % 20011 AS u, 1 + value % 9 * 0.37 AS w FROM generate_series(1, 600000)";
    for settings in ["metric => 'cosine'", "metric => 'pearson'", "metric => 'adjusted_cosine'", "weighting => 'bm25'"]
    {
        cut_within(&format!("SELECT * FROM neighbors(({rows}), {settings}, k => 7)"), "11M");
    }
    let history = "SELECT value * 7919 % 20011 AS user_id, value % 1999 AS item_id, 1 + value % 9 * 0.37 AS weight FROM generate_series(1, 1200000)";
    let similar = "SELECT value % 1999 AS id, value * 31 % 1999 AS neighbor_id, value % 17 * 0.1 AS score FROM generate_series(1, 30000)";
    let users = "SELECT value % 20011 AS id, value * 31 % 20011 AS neighbor_id, value % 17 * 0.1 AS score FROM generate_series(1, 60000)";
    let pairs = "SELECT value % 20011 AS user_id, value * 3 % 1999 AS item_id FROM generate_series(1, 90000)";
    let lists = |neighbors: &str| format!("SELECT * FROM recommend(history => ({history}), {neighbors}, k => 3)");
    cut_within(&lists(&format!("item_neighbors => ({similar}), exclude => ({pairs}), explain => 2")), "10M");
    cut_within(&lists(&format!("item_neighbors => ({similar}), candidates => ({pairs}), normalize => true")), "10M");
    same_within(&lists(&format!("user_neighbors => ({users}), exclude => (SELECT 7)")), "16M");
    let fewer = rows.replace("600000", "100000");
    let ease =
        format!("SELECT * FROM ease((SELECT u AS user_id, item AS item_id, w AS weight FROM ({fewer})), k => 7)");
    same_within(&ease, "15M");
    let explained = ask(&format!("EXPLAIN ANALYZE {ease}"), "3", "15M");
    assert!(explained.contains("spilled_bytes="), "{explained}");
    refused_within(&ease, "9M", "ease needs");
    // What cannot be cut has to fit: the lists of neighbors, and the table that users' rows are multiplied with.
    refused_within(&format!("SELECT * FROM neighbors(({rows}), k => 1999)"), "8M", "neighbors needs at least");
    refused_within(&lists(&format!("user_neighbors => ({users})")), "9M", "recommend needs at least");
}

/// First rows of keys are found by sorting where memory does not hold all rows.
#[test]
fn first_rows_beyond_memory_are_the_same() {
    let rows = "SELECT value % 50000 AS k, concat('more than twelve bytes ', value % 7) AS s, value AS v FROM generate_series(1, 600000)";
    let first =
        format!("SELECT k, s, v FROM ({rows}) QUALIFY row_number() OVER (PARTITION BY k, s ORDER BY v DESC) = 1");
    same_within(&first, "60M");
    for (memory, sorted) in [("60M", 3), ("10G", 0)] {
        let explained = ask(&format!("EXPLAIN ANALYZE {first}"), "3", memory);
        assert!(explained.contains(&format!("sorted_partitions={sorted}")), "{explained}");
    }
}

fn ask(query: &str, threads: &str, memory: &str) -> String {
    run(&["sql", "--threads", threads, "--memory-limit", memory, "--format", "json", "-c", query]).ok().stdout
}

/// Asks with so much memory and with plenty, by one and by three threads: the rows are the same.
fn same_within(call: &str, memory: &str) {
    // Sorted here, since sorting in SQL wants memory as well.
    let rows = |threads: &str, memory: &str| {
        let answer = ask(call, threads, memory);
        let mut rows: Vec<String> = answer.lines().map(str::to_owned).collect();
        rows.sort();
        rows
    };
    let expected = rows("2", "10G");
    assert!(expected.len() > 1999, "{expected:?}");
    for threads in ["1", "3"] {
        assert!(rows(threads, memory) == expected, "{call} with {threads} threads differs");
    }
}

/// Less memory makes for several blocks.
fn cut_within(call: &str, memory: &str) {
    same_within(call, memory);
    let explained = ask(&format!("EXPLAIN ANALYZE {call}"), "3", memory);
    let blocks = explained.split_once(" blocks=").map(|(_, rest)| rest.split([',', ']']).next());
    assert!(matches!(blocks, Some(Some(count)) if count != "1"), "{explained}");
}

fn refused_within(call: &str, memory: &str, reason: &str) {
    let refused = run(&["sql", "--threads", "2", "--memory-limit", memory, "-c", call]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains(reason), "{}", refused.stderr);
}
