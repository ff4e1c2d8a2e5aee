//! Tuning: what trials share is made once, the best is found and can be used, failures and stops cost no trial that is done.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Ran, TestProject, lakeside, tables_in};

const PURCHASES: &str = "user,item,n\na,x,1\na,y,2\nb,x,3\nb,z,1\nc,y,1\n";
const VARS: &str = "[sources.raw]\nurl = \"raw.csv\"\n[vars]\nleast = 1\na = 0\nb = 0.0\nfold = 0\n";
/// The best is a = 3 and b = 2.5.
const ANSWER: &str = "SELECT -abs(sum(points) - 24) - abs($b - 2.5) AS value FROM points\n";
const OBJECTIVE: [&str; 2] = ["--objective", "SELECT value FROM answer"];
const THIRTY: [&str; 4] = ["--vary", "a=1,2,3,4,5", "--vary", "b=0,0.5,1.5,2.5,3.5,4"];

/// Two shared steps, a view, one step for each of the two variables, and one that the objective does not need.
fn shop(tune: &str) -> TestProject {
    TestProject::new(
        &format!("{VARS}{tune}"),
        &[
            ("raw.csv", PURCHASES),
            ("1/items.sql", "SELECT DISTINCT item FROM raw\n"),
            (
                "1/clean.sql",
                "-- key: user, item\nSELECT \"user\", item, n FROM raw JOIN items USING (item) WHERE n >= $least\n",
            ),
            ("1/users.sql", "-- materialize: view\nSELECT \"user\", sum(n) AS n FROM clean GROUP BY \"user\"\n"),
            ("2/points.sql", "SELECT \"user\", n * $a AS points FROM users\n"),
            ("2/answer.sql", ANSWER),
            ("2/unused.sql", "SELECT count(*) AS n FROM raw\n"),
        ],
    )
}

fn tune(project: &TestProject, more: &[&str]) -> Ran {
    project.run("tune", &[&OBJECTIVE[..], more].concat())
}

/// These columns of all trials, in order, without the heading.
fn trials(project: &TestProject, columns: &str) -> Vec<String> {
    let answer = project.sql(&format!("SELECT {columns} FROM trials ORDER BY trial")).ok().stdout;
    answer.lines().skip(1).map(str::to_owned).collect()
}

#[track_caller]
fn says(ran: &Ran, said: &str) {
    assert!(ran.stderr.contains(said), "no '{said}' in stderr:\n{}", ran.stderr);
}

fn nothing_staged(project: &TestProject) {
    assert!(!project.lake_files().iter().any(|file| file.contains("staging/")), "{:?}", project.lake_files());
}

#[test]
fn trials_share_steps_and_the_best_can_be_used() {
    let project = shop("");
    let ran = tune(&project, &THIRTY).ok();
    assert_eq!(ran.stdout, "");
    says(&ran, "\nsteps run: answer 30, clean 1, items 1, points 5\n");
    says(&ran, "\nbest: trial 16, a=3, b=2.5: 0.0000\n");
    let rows = trials(&project, "trial, a, b, value, ci_low, steps_made, steps_kept, error");
    assert_eq!(rows.len(), 30);
    // The first trial makes all, the first with another `a` two steps, others one.
    let some = [
        "1,1,0.0,-18.5,,4,0,",
        "2,1,0.5,-18.0,,1,3,",
        "7,2,0.0,-10.5,,2,2,",
        "16,3,2.5,0.0,,1,3,",
        "30,5,4.0,-17.5,,1,3,",
    ];
    some.iter().for_each(|row| assert!(rows.contains(&(*row).to_owned()), "{row} of {rows:?}"));
    let sums = project.sql("SELECT sum(steps_made) AS made, sum(steps_kept) AS kept FROM trials").ok().stdout;
    assert_eq!(sums, "made,kept\n37,83\n");

    let path = project.path().join("tuned.toml");
    let tuned = std::fs::read_to_string(&path).unwrap();
    assert!(tuned.starts_with("# The best of 30 trials") && tuned.ends_with("\n[vars]\na = 3\nb = 2.5\n"), "{tuned}");
    let path = path.to_str().unwrap();
    let value = || project.sql("SELECT value FROM answer").ok().stdout;
    project.run("run", &["--vars", path]).ok();
    assert_eq!(value(), "value\n0.0\n");
    project.run("run", &["--var", "a=4", "--vars", path]).ok();
    assert_eq!(value(), "value\n-8.0\n", "--var comes after --vars");
    project.write("other.toml", "[vars]\nleest = 1\n");
    let other = project.path().join("other.toml");
    project.run("run", &["--vars", other.to_str().unwrap()]).failed(2, &["did you mean 'least'?"]);
    project.run("run", &["--vars", "none.toml"]).failed(1, &["none.toml: No such file"]);
}

#[test]
fn only_the_table_of_trials_is_published() {
    let project = shop("");
    tune(&project, &THIRTY).ok();
    assert_eq!(tables_in(&project.path().join("lake")), ["trials"]);
    nothing_staged(&project);
    project.run("run", &["--var", "a=7"]).ok();
    let published = || {
        let files = project.lake_files().into_iter().filter(|file| file.ends_with(".parquet"));
        let read = |file: &String| std::fs::read(project.path().join("lake").join(file)).unwrap();
        files.filter(|file| !file.starts_with("trials/")).map(|file| (read(&file), file)).collect::<Vec<_>>()
    };
    let before = published();
    assert_eq!(tables_in(&project.path().join("lake")).len(), 6, "{:?}", project.lake_files());
    tune(&project, &["--vary", "a=1,2"]).ok();
    assert!(published() == before, "published tables changed");
    assert_eq!(trials(&project, "a, value"), ["1,-18.5", "2,-10.5"]);
    nothing_staged(&project);
}

#[test]
fn options_come_before_the_project_s_settings() {
    let project = shop(
        "[tune]\nobjective = \"SELECT value + $fold AS value FROM answer\"\n[tune.vary]\na = [2, 3]\n[tune.folds]\nfold = [1, 3]\n",
    );
    let ran = project.run("tune", &[]).ok();
    says(&ran, "steps run: answer 2, clean 1, items 1, points 2\n");
    // The mean of value + 1 and value + 3, 1.96 standard errors to either side.
    let columns = "a, value, round(ci_low, 4), round(ci_high, 4), steps_made, steps_kept";
    assert_eq!(trials(&project, columns), ["2,-8.5,-10.46,-6.54,4,4", "3,-0.5,-2.46,1.46,2,6"]);
    assert_eq!(trials(&project, "fold_values[1], fold_values[2]"), ["-9.5,-7.5", "-1.5,0.5"]);
    project.run("tune", &["--vary", "a=4", "--folds", "fold=10"]).ok();
    assert_eq!(trials(&project, "a, value, ci_low"), ["4,-0.5,"]);
    // What is kept of [tune] is what no option names, and an interval that the objective gives counts.
    let query = "SELECT value, value - 6 - $fold AS ci_low, value + 6 + $fold AS ci_high FROM answer";
    project.run("tune", &["--vary", "b=2.5", "--folds", "fold=0,2", "--objective", query, "--var", "least=1"]).ok();
    assert_eq!(trials(&project, "a, b, value, ci_low, ci_high"), ["2,2.5,-8.0,-13.0,-3.0", "3,2.5,0.0,-5.0,5.0"]);

    for (tune, said) in [
        ("vary.a = []", "lakeside.toml:11: variable 'a' needs a list of values of one type"),
        ("vary.a = [1, \"x\"]", "variable 'a' needs a list of values of one type"),
        ("folds.zz = [1]", "lakeside.toml:11: variable 'zz' is tuned, but [vars] does not set it"),
        ("vry.a = [1]", "lakeside.toml:12: unknown field `vry`"),
    ] {
        shop(&format!("[tune]\n{tune}\n")).run("tune", &[]).failed(1, &[said]);
    }
}

#[test]
fn a_seed_chooses_trials() {
    let project = shop("");
    let chosen = |trials_of: &str, seed: &str| {
        tune(&project, &[&THIRTY[..], &["--trials", trials_of, "--seed", seed]].concat()).ok();
        trials(&project, "a, b")
    };
    let first = chosen("12", "1");
    assert_eq!(first.len(), 12);
    assert_eq!(first.iter().collect::<std::collections::BTreeSet<_>>().len(), 12, "{first:?}");
    assert_eq!(chosen("12", "1"), first);
    assert_ne!(chosen("12", "2"), first);
    let all = chosen("99", "1");
    assert_eq!(all.len(), 30);
    assert!(first.iter().all(|trial| all.contains(trial)), "{first:?}");
}

#[test]
fn a_failed_trial_stops_no_other() {
    let project = shop("");
    project.write("2/points.sql", "SELECT \"user\", n * $a / ($a - 2) AS points FROM users\n");
    project.write("2/answer.sql", &format!("-- check: value > -50\n{ANSWER}"));
    let ran = tune(&project, &["--vary", "a=1,2,3", "--vary", "b=0,10,100"]).ok();
    says(&ran, "a=2, b=10  failed: ");
    says(&ran, "best: trial 7, a=3, b=0: -2.5000");
    let errors = trials(&project, "error LIKE '%/points.sql: Divide by zero%', error LIKE '%check (value > -50)%'");
    let (fine, divided, checked) = (",", "true,false", "false,true");
    assert_eq!(errors, [fine, fine, checked, divided, divided, divided, fine, fine, checked]);
    assert_eq!(trials(&project, "a, value")[2..7], ["1,", "2,", "2,", "2,", "3,-2.5"]);
    nothing_staged(&project);
    std::fs::remove_file(project.path().join("tuned.toml")).unwrap();
    tune(&project, &["--vary", "a=2", "--vary", "b=0,10"]).failed(1, &["all trials failed"]);
    assert_eq!(trials(&project, "a, b, value"), ["2,0,", "2,10,"]);
    assert!(!project.path().join("tuned.toml").exists());
    nothing_staged(&project);
    // One fold of two: the trial has no value.
    let ran = tune(&project, &["--vary", "b=0,10", "--folds", "a=3,2"]);
    ran.failed(1, &["Divide by zero", "all trials failed"]);
    assert_eq!(trials(&project, "array_length(fold_values)"), ["1", "1"]);
}

#[test]
fn an_objective_is_one_row_with_a_number() {
    let project = shop("");
    for (query, said) in [
        ("SELECT value FROM answer UNION ALL SELECT 1.0", "the objective must give one row, not 2"),
        ("SELECT value FROM answer WHERE value > 99", "the objective must give one row, not 0"),
        ("SELECT CASE WHEN $a = 2 THEN value END AS value FROM answer", "the objective's value is NULL"),
        ("SELECT CASE WHEN $a = 2 THEN value ELSE 'NaN' END FROM answer", "the objective's value is NULL"),
        ("SELECT 'many' AS value FROM answer", "Cannot cast string 'many'"),
        ("SELECT valu FROM answer", "Did you mean 'answer.value'?"),
    ] {
        let ran = project.run("tune", &["--vary", "a=1,2", "--objective", query]);
        let failed: Vec<bool> = trials(&project, "error IS NULL").iter().map(|none| none == "false").collect();
        assert!(failed[0], "{query}");
        assert_eq!(ran.code, i32::from(failed[1]), "{query}: {}", ran.stderr);
        says(&ran, said);
        assert!(trials(&project, "error")[0].contains(said), "{query}: {:?}", trials(&project, "error"));
    }
}

#[test]
fn an_interrupt_keeps_what_is_done() {
    let project = TestProject::new(
        "[vars]\nrows = 1\n",
        &[("t.sql", "SELECT count(*) AS n FROM generate_series(1, $rows) WHERE hash_uniform(value) < 2\n")],
    );
    let folder = project.path().to_str().unwrap();
    let args = ["tune", folder, "--vary", "rows=10,20,40000000000", "--objective", "SELECT n FROM t"];
    let mut child = lakeside(&args).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut stderr = String::new();
    while !stderr.contains("[2/3]") {
        assert_ne!(lines.read_line(&mut stderr).unwrap(), 0, "{stderr}");
    }
    std::thread::sleep(Duration::from_millis(200));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    lines.read_to_string(&mut stderr).unwrap();
    let code = child.wait().unwrap().code().unwrap_or(-1);
    let ran = Ran { code, stdout: String::new(), stderr };
    ran.failed(1, &["best: trial 2, rows=20: 20.0000", "stopped after 2 of 3 trials; they are in the table 'trials'"]);
    assert_eq!(trials(&project, "trial, rows, value, error"), ["1,10,10.0,", "2,20,20.0,"]);
    assert!(project.path().join("tuned.toml").exists());
    nothing_staged(&project);
}

#[test]
fn wrong_use_is_told() {
    let project = shop("");
    project.run("tune", &["--vary", "a=1"]).failed(2, &["give --objective 'SELECT value ..'"]);
    let wrong = |more: &[&str], said: &[&str]| drop(tune(&project, more).failed(2, said));
    wrong(&[], &["give --vary name=value,value, or set [tune.vary]"]);
    wrong(&["--vary", "leest=1,2"], &["the project has no variable 'leest', did you mean 'least'?"]);
    wrong(&["--vary", "a=1", "--folds", "fould=1"], &["the project has no variable 'fould', did you mean 'fold'?"]);
    wrong(&["--vary", "a=1,x"], &["'a=1,x': write name=value,value with values of one type"]);
    wrong(&["--vary", "a"], &["'a': write name=value,value"]);
    wrong(&["--vary", "a=1,2", "--folds", "a=3"], &["variable 'a' is both varied and makes folds"]);
    wrong(&["--vary", "a=1", "--trials", "0"], &["--trials"]);
    let objective = |query: &str, said: &str| {
        project.run("tune", &["--vary", "a=1", "--objective", query]).failed(2, &[said]);
    };
    objective("SELECT count(*) FROM raw", "the objective reads no step of the project");
    objective("SELECT value FROM anser", "did you mean 'answer'?");
    objective("DROP TABLE answer", "the objective must be one query");
    objective("SELEC", "objective: Expected: an SQL statement");
    assert!(!project.path().join("lake/trials").exists());
    project.write("2/trials.sql", "SELECT 1 AS a\n");
    tune(&project, &["--vary", "a=1"]).failed(1, &["tune writes the table 'trials', which the project has already"]);
}
