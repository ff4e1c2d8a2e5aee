//! What integration tests share: running the binary, projects in temporary folders, reading what was published.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// The `lakeside` command, with an environment that does not depend on who runs the tests.
pub fn lakeside(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lakeside"));
    command.args(args).env_remove("RUST_BACKTRACE");
    let inherited = std::env::vars_os().map(|(name, _)| name).filter(|name| name.to_string_lossy().starts_with("AWS_"));
    for name in inherited {
        command.env_remove(name);
    }
    command
}

/// What a finished command wrote, as text.
pub struct Ran {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ran {
    /// Asserts that the command succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self
    }

    /// Asserts that the command failed with this code and said all of this on stderr.
    #[track_caller]
    pub fn failed(self, code: i32, said: &[&str]) -> Self {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        for text in said {
            assert!(self.stderr.contains(text), "no '{text}' in stderr:\n{}", self.stderr);
        }
        assert!(!self.stderr.contains("panicked"), "{}", self.stderr);
        self
    }
}

/// Runs the command to its end.
pub fn run(args: &[&str]) -> Ran {
    lakeside(args).output().unwrap().into()
}

/// The checkout.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A project in a temporary folder.
pub struct TestProject {
    pub folder: TempDir,
}

impl TestProject {
    /// A project with these files beside a `lakeside.toml` whose lake is `lake`.
    pub fn new(sources: &str, files: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        let project = Self { folder };
        project.write("lakeside.toml", &format!("name = \"test\"\n[lake]\nurl = \"lake\"\n{sources}"));
        files.iter().for_each(|(name, text)| project.write(name, text));
        project
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    /// Runs `lakeside <command> <folder> <more>`.
    pub fn run(&self, command: &str, more: &[&str]) -> Ran {
        let folder = self.path().to_str().unwrap();
        let mut args = vec![command, folder];
        args.extend(more);
        run(&args)
    }

    /// Runs a query in the project and gives its result as CSV.
    pub fn sql(&self, query: &str) -> Ran {
        run(&["sql", "--project", self.path().to_str().unwrap(), "--format", "csv", "-c", query])
    }

    /// Every file of the lake, below it.
    pub fn lake_files(&self) -> Vec<String> {
        files_below(&self.path().join("lake"))
    }
}

/// Every file below a folder, sorted.
pub fn files_below(folder: &Path) -> Vec<String> {
    let mut files = Vec::new();
    collect(folder, folder, &mut files);
    files.sort();
    files
}

fn collect(root: &Path, folder: &Path, files: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten() {
        let path: PathBuf = entry.unwrap().path();
        match path.is_dir() {
            true => collect(root, &path, files),
            false => files.push(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned()),
        }
    }
}

/// The tables of a lake on disk.
pub fn tables_in(lake: &Path) -> Vec<String> {
    let names = std::fs::read_dir(lake).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.starts_with('.')).collect()
}

/// Copies a folder with all that is in it.
pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy(&path, &target),
            false => drop(std::fs::copy(&path, &target).unwrap()),
        }
    }
}

/// The shipped project with its sources and its lake elsewhere.
pub fn project_at(folder: &Path, sources: &str, lake: &str) {
    copy(&root().join("sql"), folder);
    let file = folder.join("lakeside.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("\"../sample-data/") && text.contains("\"../target/lake\""), "{text}");
    let text = text.replace("../sample-data/", sources).replace("../target/lake", lake);
    std::fs::write(file, text).unwrap();
}
