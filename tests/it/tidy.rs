//! The rules of the house, held on the source itself.

use std::path::{Path, PathBuf};

use crate::support::root;

const LONGEST_FILE: usize = 500;
const LONGEST_FUNCTION: usize = 80;

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(rust_files(&path)),
            false if path.extension().is_some_and(|ending| ending == "rs") => files.push(path),
            false => {}
        }
    }
    files.sort();
    files
}

fn sources() -> Vec<(String, String)> {
    let files = ["src", "tests", "benches"].map(|folder| root().join(folder)).into_iter().filter(|f| f.is_dir());
    let name = |path: &Path| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
    files
        .flat_map(|folder| rust_files(&folder))
        .map(|path| (name(&path), std::fs::read_to_string(&path).unwrap()))
        .collect()
}

#[test]
fn files_and_functions_are_short() {
    let mut faults = Vec::new();
    for (name, text) in sources() {
        let lines: Vec<&str> = text.lines().collect();
        if lines.len() > LONGEST_FILE {
            faults.push(format!("{name} has {} lines", lines.len()));
        }
        for (at, line) in lines.iter().enumerate() {
            let code = line.trim_start();
            let begins =
                ["fn ", "pub fn ", "async fn ", "pub async fn ", "pub(super) fn ", "pub(super) async fn ", "const fn "];
            if !begins.iter().any(|begin| code.starts_with(begin)) || code.ends_with(';') {
                continue;
            }
            let indent = &line[..line.len() - code.len()];
            let end = lines[at..].iter().position(|l| *l == format!("{indent}}}")).unwrap_or(0);
            if end + 1 > LONGEST_FUNCTION {
                faults.push(format!("{name}:{}: a function of {} lines", at + 1, end + 1));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// `cli -> project -> lake -> session -> {operators, functions} -> kernels`
#[test]
fn dependencies_point_one_way() {
    let layers = ["kernels", "functions", "operators", "session", "lake", "project", "cli"];
    let mut faults = Vec::new();
    for (name, text) in sources().into_iter().filter(|(name, _)| name.starts_with("src/")) {
        let module = name.trim_start_matches("src/").split(['/', '.']).next().unwrap().to_owned();
        let Some(layer) = layers.iter().position(|layer| *layer == module) else {
            continue;
        };
        for above in &layers[layer + 1..] {
            if text.contains(&format!("crate::{above}")) {
                faults.push(format!("{name} names crate::{above}, which is above it"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn kernels_are_pure() {
    let mut faults = Vec::new();
    for (name, text) in sources().into_iter().filter(|(name, _)| name.starts_with("src/kernels/")) {
        for word in ["datafusion", "arrow::", "tokio", "async fn", "std::fs", "object_store"] {
            if text.contains(word) {
                faults.push(format!("{name} names {word}"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn no_utils() {
    let catch_all = |name: &str| {
        ["utils.rs", "util.rs", "helpers.rs", "common.rs", "misc.rs"].iter().any(|n| name.ends_with(&format!("/{n}")))
    };
    let found: Vec<String> = sources().into_iter().map(|(name, _)| name).filter(|name| catch_all(name)).collect();
    assert!(found.is_empty(), "name these for what they hold: {found:?}");
}

/// Every registered function and operator is documented, stands in `docs/functions.md`, and is used in an .slt.
#[test]
fn the_reference_is_complete() {
    let reference = lakeside::reference();
    let path = root().join("docs/functions.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &reference).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == reference,
        "docs/functions.md is not what `lakeside functions` prints; renew it with UPDATE_DOCS=1 cargo test --release reference"
    );
    let mut names: Vec<String> = lakeside::operators::ALL.iter().map(|operator| operator.name().to_owned()).collect();
    names.extend(lakeside::functions::scalars().iter().map(|function| function.name().to_owned()));
    names.extend(lakeside::functions::aggregates().iter().map(|function| function.name().to_owned()));
    let slt: String = std::fs::read_dir(root().join("tests/slt"))
        .unwrap()
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    for name in names {
        assert!(reference.contains(&format!("### {name}\n")), "{name} is not documented");
        assert!(slt.contains(&format!("{name}(")), "{name} is in no .slt");
    }
}
