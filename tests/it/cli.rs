//! The commands as a user types them: what is on the screen, and the exit codes.

use std::io::Write;
use std::process::Stdio;

use crate::support::{Ran, TestProject, lakeside, run};

fn shop() -> TestProject {
    TestProject::new(
        "[sources.raw]\nurl = \"raw.csv\"\n",
        &[
            ("raw.csv", "user_id,item_id,weight\n1,10,1\n1,11,2\n2,10,3\n"),
            ("1_clean/purchases.sql", "-- Purchases.\nSELECT * FROM raw WHERE weight > 0\n"),
            (
                "2_lists/item_neighbors.sql",
                "SELECT * FROM neighbors(purchases, entity => 'item_id', feature => 'user_id')\n",
            ),
            ("2_lists/lists.sql", "SELECT * FROM recommend(history => purchases, item_neighbors => item_neighbors)\n"),
        ],
    )
}

#[test]
fn help_has_an_example_for_every_command() {
    let help = run(&["--help"]).ok().stdout;
    for command in ["init", "run", "check", "graph", "sql", "functions"] {
        assert!(help.contains(&format!("\n  {command} ")), "{help}");
        let text = run(&[command, "--help"]).ok().stdout;
        assert!(text.contains("Example"), "{command}: {text}");
    }
}

#[test]
fn wrong_use_is_exit_code_2() {
    run(&["rum"]).failed(2, &["unrecognized subcommand 'rum'", "run"]);
    run(&["run", "--treads", "2"]).failed(2, &["--treads", "--threads"]);
    run(&["run", "/nowhere"]).failed(2, &["there is no lakeside.toml in '/nowhere'", "lakeside init"]);
    run(&["sql", "--threads", "0", "-c", "SELECT 1"]).failed(2, &["--threads"]);
    run(&["sql", "--memory-limit", "lots", "-c", "SELECT 1"]).failed(2, &["'lots' is not a size"]);
    run(&["sql", "-f", "/nowhere.sql"]).failed(2, &["/nowhere.sql"]);
    run(&["functions", "neighbours"]).failed(2, &["did you mean 'neighbors'?"]);
}

#[test]
fn check_plans_everything_and_runs_nothing() {
    let project = shop();
    let ran = project.run("check", &[]).ok();
    assert!(ran.stderr.contains("3 steps and 1 sources are in order"), "{}", ran.stderr);
    assert!(project.lake_files().is_empty());
    project.write("2_lists/lists.sql", "SELECT *\nFROM purchases\nWHERE wieght > 1\n");
    project.run("check", &[]).failed(1, &["2_lists/lists.sql:3: ", "wieght", "1 problem"]);
    project.write("1_clean/purchases.sql", "-- check: wait > 0\nSELECT * FROM raw\n");
    project
        .run("check", &[])
        .failed(1, &["purchases.sql:1: check: ", "wait", "2 steps that need them were not looked at"]);
    project.write("1_clean/purchases.sql", "SELECT *\nFROM raw WHERE (weight > 0\n");
    project.run("check", &[]).failed(1, &["purchases.sql:"]);
}

#[test]
fn graph_shows_what_ties_steps() {
    let project = shop();
    let text = project.run("graph", &[]).ok().stdout;
    assert_eq!(
        text,
        "1_clean\n  purchases       <- raw\n2_lists\n  item_neighbors  <- purchases\n  lists           <- item_neighbors, purchases\n"
    );
    let mermaid = project.run("graph", &["--format", "mermaid"]).ok().stdout;
    assert!(mermaid.starts_with("flowchart LR\n") && mermaid.contains("  purchases --> item_neighbors\n"), "{mermaid}");
    let dot = project.run("graph", &["--format", "dot"]).ok().stdout;
    assert!(dot.starts_with("digraph lakeside {") && dot.contains("\"raw\" -> \"purchases\";"), "{dot}");
}

#[test]
fn sql_answers_in_every_format() {
    let ask = |format: &str| {
        run(&["sql", "--format", format, "-c", "SELECT 1 AS a, 'x' AS b UNION ALL SELECT 2, NULL ORDER BY a"]).ok()
    };
    assert_eq!(ask("csv").stdout, "a,b\n1,x\n2,\n");
    assert_eq!(ask("json").stdout, "{\"a\":1,\"b\":\"x\"}\n{\"a\":2}\n");
    assert_eq!(
        ask("table").stdout,
        "+---+------+\n| a | b    |\n+---+------+\n| 1 | x    |\n| 2 | NULL |\n+---+------+\n"
    );
    let output = lakeside(&["sql", "--format", "parquet", "-c", "SELECT 7 AS a"]).output().unwrap();
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("x.parquet");
    std::fs::write(&file, output.stdout).unwrap();
    let read = run(&["sql", "--format", "csv", "-c", &format!("SELECT * FROM '{}'", file.display())]);
    assert_eq!(read.ok().stdout, "a\n7\n");
    assert_eq!(run(&["sql", "--format", "csv", "-c", "SELECT 1 AS a WHERE false"]).ok().stdout, "a\n");
    assert_eq!(run(&["sql", "--format", "csv", "-c", "SELECT [1, 2] AS a"]).ok().stdout, "a\n\"[1, 2]\"\n");
}

#[test]
fn sql_reads_statements_from_files_and_pipes() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("q.sql");
    std::fs::write(&file, "CREATE VIEW v AS SELECT 1 AS a;\nSELECT a + 1 AS b FROM v;\n").unwrap();
    let ran = run(&["sql", "--format", "csv", "-f", file.to_str().unwrap()]).ok();
    assert_eq!(ran.stdout, "b\n2\n");
    let mut child = lakeside(&["sql", "--format", "csv"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"SELECT 3 AS c").unwrap();
    let ran: Ran = child.wait_with_output().unwrap().into();
    assert_eq!(ran.ok().stdout, "c\n3\n");
}

#[test]
fn sql_knows_sources_tables_and_what_there_is() {
    let project = shop();
    assert_eq!(project.sql("SELECT count(*) AS n FROM raw").ok().stdout, "n\n3\n", "sources before any run");
    project.run("run", &[]).ok();
    assert_eq!(project.sql("SELECT item_id FROM lists WHERE user_id = 2").ok().stdout, "item_id\n11\n");
    let tables = project.sql("SHOW TABLES").ok().stdout;
    for name in ["raw", "purchases", "item_neighbors", "lists"] {
        assert!(tables.contains(&format!(",{name},")), "{tables}");
    }
    project.sql("SELECT * FROM purchase").failed(1, &["table 'purchase' not found, did you mean 'purchases'?"]);
}

#[test]
fn an_error_points_at_its_place() {
    run(&["sql", "-c", "SELECT 1 AS a\nFROM (SELECT 2 AS b) t\nWHERE c = 1"])
        .failed(1, &["No field named c", "3 | WHERE c = 1", "  |       ^"]);
    run(&["sql", "-c", "SELEC 1"]).failed(1, &["SELEC"]);
    run(&["sql", "-c", "SELECT * FROM 'no/such.parquet'"]).failed(1, &["there is no file at 'no/such.parquet'"]);
}

#[test]
fn copy_writes_where_a_path_says() {
    let folder = tempfile::TempDir::new().unwrap();
    let path = folder.path().join("out.csv");
    run(&["sql", "-c", &format!("COPY (SELECT 1 AS a) TO '{}' STORED AS CSV", path.display())]).ok();
    assert_eq!(std::fs::read_to_string(path).unwrap(), "a\n1\n");
}

#[test]
fn functions_prints_the_reference() {
    let all = run(&["functions"]).ok().stdout;
    for name in
        ["neighbors", "recommend", "normalize_text", "hash_uniform", "robust_bounds", "array_jaccard", "array_pearson"]
    {
        assert!(all.contains(&format!("### {name}\n")), "{all}");
    }
    let one = run(&["functions", "neighbors"]).ok().stdout;
    assert!(one.starts_with("### neighbors\n") && one.contains("| `min_overlap` |"), "{one}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let mut child = lakeside(&["sql", "--format", "csv", "-c", "SELECT * FROM generate_series(1, 3000000)"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let ran: Ran = child.wait_with_output().unwrap().into();
    assert_eq!((ran.ok().stderr.as_str()), "");
}

#[test]
fn a_table_can_be_named_again_and_again() {
    let project = shop();
    project.run("run", &[]).ok();
    let ran = project.sql("SELECT count(*) AS n FROM lists; SELECT count(*) AS m FROM lists; SHOW TABLES").ok();
    assert!(ran.stdout.starts_with("n\n") && ran.stdout.contains("\nm\n"), "{}", ran.stdout);
    let file = project.path().join("raw.csv");
    let twice = format!("SELECT count(*) AS n FROM '{0}'; SELECT count(*) AS m FROM '{0}'", file.display());
    assert_eq!(run(&["sql", "--format", "csv", "-c", &twice]).ok().stdout, "n\n3\nm\n3\n");
}

#[test]
fn globs_reach_into_partition_folders() {
    let folder = tempfile::TempDir::new().unwrap();
    for month in ["01", "02", "03"] {
        let file = folder.path().join(format!("month=2017-{month}/a.csv"));
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, "n\n1\n").unwrap();
    }
    let count = |glob: &str| {
        let query = format!("SELECT count(*) AS n FROM '{}/{glob}'", folder.path().display());
        run(&["sql", "--format", "csv", "-c", &query]).ok().stdout
    };
    assert_eq!(count("month=2017-0[12]/*.csv"), "n\n2\n");
    assert_eq!(count("*/*.csv"), "n\n3\n");
    assert_eq!(count("*.csv"), "n\n3\n", "partition folders do not count");
}
