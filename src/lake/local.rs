//! A lake on a local disk.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use datafusion::common::{DataFusionError, Result, exec_err};
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};

use super::{PRIVATE, Staged, is_data_file};

/// A folder of tables.
pub struct LocalLake {
    root: PathBuf,
    /// Held while a run writes; the system releases it when the process ends, however it ends.
    lock: Option<File>,
}

impl LocalLake {
    pub fn new(root: PathBuf) -> Self {
        Self { root, lock: None }
    }

    pub fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    /// Takes the lock and removes what runs that died have staged.
    pub fn begin(&mut self) -> Result<()> {
        let private = self.path(PRIVATE);
        fs::create_dir_all(&private).map_err(|e| at(&private, e))?;
        let path = private.join("lock");
        let lock = File::create(&path).map_err(|e| at(&path, e))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return exec_err!("another run is writing the lake {}; wait until it is done", self.root.display());
        }
        self.lock = Some(lock);
        remove(&private.join("staging"))
    }

    pub fn end(&mut self, _run: &str) -> Result<()> {
        let removed = remove(&self.path(PRIVATE).join("staging"));
        self.lock = None;
        removed
    }

    pub fn tables(&self) -> Result<Vec<String>> {
        let mut tables = Vec::new();
        for entry in entries(&self.root)? {
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.path().is_dir() && !name.starts_with('.') && !self.files(&name)?.is_empty() {
                tables.push(name);
            }
        }
        tables.sort();
        Ok(tables)
    }

    /// The files of a table below its folder.
    pub fn files(&self, table: &str) -> Result<Vec<String>> {
        let mut files = Vec::new();
        collect_files(&self.path(table), String::new(), &mut files)?;
        files.retain(|file| is_data_file(file));
        files.sort();
        Ok(files)
    }

    /// Puts the staged folder in the place of the published one.
    pub fn publish(&self, staged: &Staged) -> Result<()> {
        let (new, place) = (self.path(&staged.folder()), self.path(&staged.table));
        // What a crash of the machine may lose must be on the disk before it is pointed at.
        for file in &staged.files {
            let path = new.join(&file.path);
            sync(&path)?;
        }
        sync(&new)?;
        match renameat_with(CWD, &new, CWD, &place, RenameFlags::EXCHANGE) {
            Ok(()) => {}
            Err(rustix::io::Errno::NOENT) => fs::rename(&new, &place).map_err(|e| at(&place, e))?,
            // A file system that cannot exchange: the table is gone for a moment, never half there.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {
                let aside = new.with_extension("old");
                fs::rename(&place, &aside).map_err(|e| at(&place, e))?;
                fs::rename(&new, &place).map_err(|e| at(&place, e))?;
                remove(&aside)?;
            }
            Err(e) => return Err(at(&place, e.into())),
        }
        sync(&self.root)?;
        // After the exchange the old files are where the new ones were.
        remove(&new)
    }
}

fn at(path: &Path, error: io::Error) -> DataFusionError {
    DataFusionError::Execution(format!("{}: {error}", path.display()))
}

fn sync(path: &Path) -> Result<()> {
    File::open(path).and_then(|file| file.sync_all()).map_err(|e| at(path, e))
}

fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(at(folder, e)),
        _ => Ok(()),
    }
}

fn entries(folder: &Path) -> Result<Vec<fs::DirEntry>> {
    match fs::read_dir(folder) {
        Ok(entries) => entries.collect::<io::Result<_>>().map_err(|e| at(folder, e)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(at(folder, e)),
    }
}

fn collect_files(folder: &Path, below: String, files: &mut Vec<String>) -> Result<()> {
    for entry in entries(folder)? {
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        match entry.path().is_dir() {
            true => collect_files(&entry.path(), format!("{name}/"), files)?,
            false => files.push(name),
        }
    }
    Ok(())
}
