//! `lakeside init`

use std::path::PathBuf;

use clap::Args;

use crate::error::{Error, Result};

/// Make a new project that runs as it stands
#[derive(Debug, Args)]
#[command(after_help = "Example: lakeside init shop && lakeside run shop")]
pub(super) struct InitArgs {
    /// The folder to make; it must not hold anything yet
    dir: PathBuf,
}

/// The files of a new project.
const FILES: [(&str, &str); 6] = [
    ("lakeside.toml", include_str!("init/lakeside.toml")),
    ("data/purchases.csv", include_str!("init/purchases.csv")),
    ("1_clean/purchases.sql", include_str!("init/purchases.sql")),
    ("2_similarity/item_neighbors.sql", include_str!("init/item_neighbors.sql")),
    ("3_recommend/recommendations.sql", include_str!("init/recommendations.sql")),
    (".gitignore", "lake/\n"),
];

pub(super) fn init(args: &InitArgs) -> Result<()> {
    let problem = |e| Error::Io(args.dir.display().to_string(), e);
    if args.dir.exists() {
        let is_empty = args.dir.is_dir() && std::fs::read_dir(&args.dir).map_err(problem)?.next().is_none();
        if !is_empty {
            return Err(Error::Usage(format!(
                "'{}' exists and is not an empty folder; name a new one",
                args.dir.display()
            )));
        }
    }
    for (name, text) in FILES {
        let path = args.dir.join(name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(problem)?;
        }
        std::fs::write(&path, text).map_err(|e| Error::Io(path.display().to_string(), e))?;
    }
    eprintln!("made {} files in {}; run it with: lakeside run {}", FILES.len(), args.dir.display(), args.dir.display());
    Ok(())
}
