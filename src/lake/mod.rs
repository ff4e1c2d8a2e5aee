//! Named tables on object stores: open, list, write aside, check, publish.
//!
//! A table is the folder `<lake>/<table>/` of Parquet files. What is being written stands aside in
//! `<lake>/.lakeside/staging/<run>/<table>/` until it is published:
//!
//! - on a local disk the staged folder and the published one change places in one system call;
//! - on an object store the files are copied into the folder under new names, then one PUT of
//!   `.lakeside/tables/<table>.json`, which lists them, makes them the table, then the old files are deleted.
//!   Lakeside reads what the list says. A reader that globs the folder meanwhile may see both generations for a
//!   moment; object stores have no operation that could prevent it.
//!
//! The files of the last generation are deleted at once, so a reader that is in the middle of them has to ask again.
//! Whatever a run that died has left is removed when the next begins.

mod local;
mod remote;
mod write;

use std::path::PathBuf;

use datafusion::common::{DataFusionError, Result, plan_err};
use datafusion::datasource::listing::ListingTableUrl;
use object_store::path::Path;
use url::Url;

use crate::operators::write::WrittenFile;
use crate::session::{Session, files};

use self::local::LocalLake;
use self::remote::RemoteLake;
pub use self::write::Staged;

/// The folder of a lake in which Lakeside keeps what is not a table.
const PRIVATE: &str = ".lakeside";

/// A place for tables.
pub struct Lake {
    session: Session,
    url: Url,
    kind: Kind,
}

enum Kind {
    Local(LocalLake),
    Remote(RemoteLake),
}

/// A table as it was published.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Published {
    /// Its rows.
    pub rows: u64,
    /// The bytes of its files.
    pub bytes: u64,
    /// The number of its files.
    pub files: usize,
}

impl Lake {
    /// The lake at a URL or a path; a path is taken relative to `base`. Creates nothing.
    pub fn open(session: &Session, url: &str, base: &std::path::Path) -> Result<Self> {
        let url = resolve(url, base)?;
        let kind = match url.to_file_path() {
            Ok(folder) if url.scheme() == "file" => Kind::Local(LocalLake::new(folder)),
            _ => {
                let store = session.context().runtime_env().object_store_registry.get_store(&url)?;
                let prefix = Path::from_url_path(url.path())
                    .map_err(|e| DataFusionError::Configuration(format!("lake url '{url}': {e}")))?;
                Kind::Remote(RemoteLake::new(store, prefix))
            }
        };
        Ok(Self { session: session.clone(), url, kind })
    }

    /// Where it is.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// Removes what a run that died has left of these tables. On a local disk it makes sure that nobody else writes; on an
    /// object store that is up to whoever schedules runs.
    pub async fn begin(&mut self, tables: &[String]) -> Result<()> {
        match &mut self.kind {
            Kind::Local(lake) => lake.begin(tables),
            Kind::Remote(lake) => lake.begin(tables).await,
        }
    }

    /// The names of all published tables.
    pub async fn tables(&self) -> Result<Vec<String>> {
        match &self.kind {
            Kind::Local(lake) => lake.tables(),
            Kind::Remote(lake) => lake.tables().await,
        }
    }

    /// Makes a published table known to the session under its name. False where there is none.
    pub async fn register(&self, table: &str) -> Result<bool> {
        if table.is_empty() || table.starts_with('.') || table.contains(['/', '\\']) {
            return Ok(false);
        }
        let files = match &self.kind {
            Kind::Local(lake) => lake.files(table)?,
            Kind::Remote(lake) => lake.files(table).await?,
        };
        if files.is_empty() {
            return Ok(false);
        }
        let urls = files.iter().map(|file| self.file_url(table, file)).collect::<Result<_>>()?;
        let provider = files::open_parquet(self.session.context(), urls).await;
        let provider = provider.map_err(|e| e.context(format!("table '{table}' of lake {}", self.url)))?;
        self.session.set_table(table, provider)?;
        Ok(true)
    }

    /// Makes what was staged the table, all at once.
    pub async fn publish(&self, staged: &Staged) -> Result<Published> {
        match &self.kind {
            Kind::Local(lake) => lake.publish(staged)?,
            Kind::Remote(lake) => lake.publish(staged).await?,
        }
        Ok(Published {
            rows: staged.files.iter().map(|file| file.rows).sum(),
            bytes: staged.files.iter().map(|file| file.bytes).sum(),
            files: staged.files.len(),
        })
    }

    /// Removes what this run has staged, while others go on.
    pub async fn discard(&self, run: &str) -> Result<()> {
        match &self.kind {
            Kind::Local(lake) => lake.discard(run),
            Kind::Remote(lake) => lake.discard(run).await,
        }
    }

    /// Removes what this run has staged, and lets others write.
    pub async fn end(&mut self, run: &str) -> Result<()> {
        match &mut self.kind {
            Kind::Local(lake) => lake.end(run),
            Kind::Remote(lake) => lake.discard(run).await,
        }
    }

    fn file_url(&self, folder: &str, file: &str) -> Result<ListingTableUrl> {
        let mut url = self.url.clone();
        // Names of partition folders may hold percent signs, which in a URL want to be escaped themselves.
        match url.path_segments_mut() {
            Ok(mut segments) => {
                segments.pop_if_empty().extend(folder.split('/').chain(file.split('/')));
            }
            Err(()) => return plan_err!("lake url '{}' cannot hold tables", self.url),
        }
        ListingTableUrl::try_new(url, None)
    }
}

/// An absolute URL of a path or URL; a path is taken relative to `base`.
fn resolve(url: &str, base: &std::path::Path) -> Result<Url> {
    if let Ok(url) = Url::parse(url)
        && url.scheme().len() > 1
    {
        return Ok(url);
    }
    let joined = base.join(url);
    let absolute = std::path::absolute(&joined).map_err(DataFusionError::from)?;
    let clean: PathBuf = normal(&absolute);
    Url::from_directory_path(&clean)
        .map_err(|()| DataFusionError::Configuration(format!("'{}' is not a path", clean.display())))
}

/// The path without `.` and `..`, so that messages show where things really are.
fn normal(path: &std::path::Path) -> PathBuf {
    use std::path::Component;
    path.components().fold(PathBuf::new(), |mut clean, part| {
        match part {
            Component::ParentDir => {
                clean.pop();
            }
            Component::CurDir => {}
            other => clean.push(other),
        }
        clean
    })
}

/// Of a list of files below a folder, those that belong to the table.
fn is_data_file(path: &str) -> bool {
    let hidden = |part: &str| part.starts_with('.') || part.starts_with('_');
    path.ends_with(".parquet") && !path.split('/').any(hidden)
}

fn file_names(files: &[WrittenFile]) -> Vec<String> {
    files.iter().map(|file| file.path.clone()).collect()
}
