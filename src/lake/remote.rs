//! A lake on an object store.

use std::sync::Arc;

use datafusion::common::{DataFusionError, Result, exec_datafusion_err};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};

use super::{PRIVATE, Staged, file_names, is_data_file};

/// How many copies or deletions are under way at once.
const REQUESTS: usize = 16;

/// A prefix of tables.
pub struct RemoteLake {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
}

/// Which files a table has; written by one PUT, which is what publishes it.
#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    run: String,
    files: Vec<String>,
}

impl RemoteLake {
    pub fn new(store: Arc<dyn ObjectStore>, prefix: Path) -> Self {
        Self { store, prefix }
    }

    pub fn path(&self, below: &str) -> Path {
        // Names come from listings and manifests and are valid paths as they are.
        let whole = format!("{}/{below}", self.prefix);
        Path::parse(&whole).unwrap_or_else(|_| Path::from(whole))
    }

    fn manifest_path(&self, table: &str) -> Path {
        self.path(&format!("{PRIVATE}/tables/{table}.json"))
    }

    /// Marks the prefix as a lake, so that only manifests count from here on, and removes what runs that died have
    /// left: all that is staged, and files of these tables that no manifest lists.
    pub async fn begin(&self, tables: &[String]) -> Result<()> {
        let mark = self.path(&format!("{PRIVATE}/lake.json"));
        if !self.is_marked().await? {
            // Tables that were put here by other means get a manifest, or they would not be seen any more.
            for table in self.tables().await? {
                let files = self.files(&table).await?;
                self.put_manifest(&table, &Manifest { run: "before".to_owned(), files }).await?;
            }
            self.store.put(&mark, "{\"version\": 1}".into()).await.map_err(|e| self.at(&mark, e))?;
        }
        self.delete(self.list(&self.path(&format!("{PRIVATE}/staging"))).await?).await?;
        for table in tables {
            self.delete_unlisted(table).await?;
        }
        Ok(())
    }

    pub async fn discard(&self, run: &str) -> Result<()> {
        self.delete(self.list(&self.path(&format!("{PRIVATE}/staging/{run}"))).await?).await
    }

    async fn is_marked(&self) -> Result<bool> {
        let mark = self.path(&format!("{PRIVATE}/lake.json"));
        match self.store.head(&mark).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(e) => Err(self.at(&mark, e)),
        }
    }

    pub async fn tables(&self) -> Result<Vec<String>> {
        let mut tables: Vec<String> = match self.is_marked().await? {
            true => {
                let listed = self.list(&self.path(&format!("{PRIVATE}/tables"))).await?;
                let names = listed.iter().filter_map(|path| path.filename()?.strip_suffix(".json"));
                names.map(str::to_owned).collect()
            }
            false => {
                let prefix = (!self.prefix.as_ref().is_empty()).then_some(&self.prefix);
                let listed = self.store.list_with_delimiter(prefix).await.map_err(|e| self.at(&self.prefix, e))?;
                let names = listed.common_prefixes.iter().filter_map(|path| path.filename());
                names.filter(|name| !name.starts_with('.')).map(str::to_owned).collect()
            }
        };
        tables.sort();
        Ok(tables)
    }

    /// The files of a table below its folder: what the manifest lists, or all, in a lake that Lakeside never wrote.
    pub async fn files(&self, table: &str) -> Result<Vec<String>> {
        if let Some(manifest) = self.manifest(table).await? {
            return Ok(manifest.files);
        }
        if self.is_marked().await? {
            return Ok(Vec::new());
        }
        let mut files = self.files_below(table).await?;
        files.retain(|file| is_data_file(file));
        Ok(files)
    }

    async fn files_below(&self, table: &str) -> Result<Vec<String>> {
        let folder = self.path(table);
        let listed = self.list(&folder).await?;
        let below = |path: &Path| {
            path.as_ref().strip_prefix(folder.as_ref()).map(|rest| rest.trim_start_matches('/').to_owned())
        };
        Ok(listed.iter().filter_map(below).collect())
    }

    async fn manifest(&self, table: &str) -> Result<Option<Manifest>> {
        let path = self.manifest_path(table);
        let bytes = match self.store.get(&path).await {
            Ok(found) => found.bytes().await.map_err(|e| self.at(&path, e))?,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(e) => return Err(self.at(&path, e)),
        };
        let manifest = serde_json::from_slice(&bytes);
        manifest
            .map(Some)
            .map_err(|e| exec_datafusion_err!("{path} is not a list of files: {e}; delete it and run again"))
    }

    async fn put_manifest(&self, table: &str, manifest: &Manifest) -> Result<()> {
        let path = self.manifest_path(table);
        let text = serde_json::to_vec_pretty(manifest).map_err(|e| DataFusionError::External(Box::new(e)))?;
        self.store.put(&path, text.into()).await.map_err(|e| self.at(&path, e))?;
        Ok(())
    }

    /// Copies the staged files into the table's folder, lists them, deletes what was there before.
    pub async fn publish(&self, staged: &Staged) -> Result<()> {
        let folder = staged.folder();
        let files = file_names(&staged.files);
        let copy = async |from: Path, to: Path| self.store.copy(&from, &to).await.map_err(|e| self.at(&to, e));
        let places = files
            .iter()
            .map(|file| (self.path(&format!("{folder}/{file}")), self.path(&format!("{}/{file}", staged.table))));
        let copies: Vec<_> = places.map(|(from, to)| copy(from, to)).collect();
        futures::stream::iter(copies).buffer_unordered(REQUESTS).try_collect::<Vec<()>>().await?;
        self.put_manifest(&staged.table, &Manifest { run: staged.run.clone(), files }).await?;
        // The table is published; what fails from here on is made good when the next run begins.
        let _ = self.delete_unlisted(&staged.table).await;
        let _ = async { self.delete(self.list(&self.path(&folder)).await?).await }.await;
        Ok(())
    }

    /// Deletes files that Lakeside wrote to a table's folder and that are not part of the table.
    async fn delete_unlisted(&self, table: &str) -> Result<()> {
        let Some(Manifest { files: listed, .. }) = self.manifest(table).await? else {
            return Ok(());
        };
        let written_by_us = |file: &String| file.rsplit('/').next().is_some_and(|name| name.starts_with("part-"));
        let old: Vec<Path> = self
            .files_below(table)
            .await?
            .into_iter()
            .filter(|file| is_data_file(file) && !listed.contains(file))
            .filter(written_by_us)
            .map(|file| self.path(&format!("{table}/{file}")))
            .collect();
        self.delete(old).await
    }

    async fn list(&self, folder: &Path) -> Result<Vec<Path>> {
        let mut found: Vec<Path> = self
            .store
            .list(Some(folder))
            .map_ok(|object| object.location)
            .try_collect()
            .await
            .map_err(|e| self.at(folder, e))?;
        found.sort();
        Ok(found)
    }

    async fn delete(&self, paths: Vec<Path>) -> Result<()> {
        let delete = async |path: Path| match self.store.delete(&path).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(e) => Err(self.at(&path, e)),
        };
        let deletions: Vec<_> = paths.into_iter().map(delete).collect();
        futures::stream::iter(deletions).buffer_unordered(REQUESTS).try_collect::<Vec<()>>().await?;
        Ok(())
    }

    fn at(&self, path: &Path, error: object_store::Error) -> DataFusionError {
        DataFusionError::from(error).context(format!("lake object '{path}'"))
    }
}
