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
    pub fn begin(&mut self, tables: &[String]) -> Result<()> {
        let private = self.path(PRIVATE);
        fs::create_dir_all(&private).map_err(|e| at(&private, e))?;
        let path = private.join("lock");
        let lock = File::create(&path).map_err(|e| at(&path, e))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            return exec_err!("another run is writing the lake {}; wait until it is done", self.root.display());
        }
        self.lock = Some(lock);
        self.restore()?;
        tables.iter().try_for_each(|table| self.check_is_ours(table))?;
        remove(&private.join("staging"))
    }

    /// Publishing takes the place of a whole folder, so nothing may be in it that Lakeside did not write.
    fn check_is_ours(&self, table: &str) -> Result<()> {
        let folder = self.path(table);
        let mut files = Vec::new();
        collect_files(&folder, String::new(), &mut files)?;
        let foreign = |file: &&String| !file.rsplit('/').next().is_some_and(|name| name.starts_with("part-"));
        match files.iter().find(foreign) {
            Some(file) => exec_err!(
                "table '{table}' would take the place of {}, which holds '{file}' that Lakeside did not write; move it away, or give the lake another url",
                folder.display()
            ),
            None => Ok(()),
        }
    }

    pub fn discard(&self, run: &str) -> Result<()> {
        remove(&self.path(PRIVATE).join("staging").join(run))
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
        // Only what is listed: attempts at tasks that failed on a cluster may have left files, and may still be at it.
        let written = new;
        let new = self.path(&format!("{PRIVATE}/staging/{}/.whole/{}", staged.run, staged.table));
        for file in &staged.files {
            let (from, to) = (written.join(&file.path), new.join(&file.path));
            let folder = to.parent().unwrap_or(&new);
            fs::create_dir_all(folder).map_err(|e| at(folder, e))?;
            fs::rename(&from, &to).map_err(|e| at(&from, e))?;
            // What a crash of the machine may lose must be on the disk before it is pointed at.
            sync(&to)?;
        }
        sync(&new)?;
        match renameat_with(CWD, &new, CWD, &place, RenameFlags::EXCHANGE) {
            Ok(()) => {}
            Err(rustix::io::Errno::NOENT) => fs::rename(&new, &place).map_err(|e| at(&place, e))?,
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS | rustix::io::Errno::NOTSUP) => {
                self.publish_in_two_steps(&new, &place, &staged.table)?;
            }
            Err(e) => return Err(at(&place, e.into())),
        }
        // The table is published; what fails from here on is made good when the next run begins. After the exchange the
        // old files are where the new ones were.
        let _ = sync(&self.root).and_then(|()| remove(&new));
        Ok(())
    }

    /// For file systems that cannot exchange two folders: the table is gone for a moment, but never half there.
    fn publish_in_two_steps(&self, new: &Path, place: &Path, table: &str) -> Result<()> {
        let old = self.path(PRIVATE).join("old");
        fs::create_dir_all(&old).map_err(|e| at(&old, e))?;
        let aside = old.join(table);
        fs::rename(place, &aside).map_err(|e| at(place, e))?;
        if let Err(e) = fs::rename(new, place) {
            fs::rename(&aside, place).map_err(|e| at(place, e))?;
            return Err(at(place, e));
        }
        remove(&aside)
    }

    /// Puts tables back that a run has moved aside and died before it put others in their place.
    fn restore(&self) -> Result<()> {
        let old = self.path(PRIVATE).join("old");
        for entry in entries(&old)? {
            let place = self.root.join(entry.file_name());
            if !place.exists() {
                fs::rename(entry.path(), &place).map_err(|e| at(&place, e))?;
            }
        }
        remove(&old)
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
