//! Numbers put aside in a temporary file when memory is short.

use std::fmt::{self, Debug};
use std::fs::File;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use datafusion::arrow::buffer::MutableBuffer;
use datafusion::arrow::datatypes::{ArrowNativeType, ToByteSlice};
use datafusion::common::{DataFusionError, Result, exec_err};
use datafusion::execution::SpillFile;
use datafusion::execution::disk_manager::DiskManager;

use crate::kernels::Error;
use crate::kernels::held::Held;
use crate::kernels::panels::Panels;
use crate::kernels::rows::Entries;

/// A temporary file that is gone when this is dropped.
pub struct Spill {
    /// Removes the file.
    _kept: Arc<dyn SpillFile>,
    path: PathBuf,
    file: File,
    bytes: u64,
}

impl Debug for Spill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.path.display(), self.bytes)
    }
}

impl Spill {
    /// An empty file where the session puts its temporary files.
    pub fn try_new(disk: &Arc<DiskManager>, what: &str) -> Result<Self> {
        let kept = disk.create_tmp_file(what)?;
        let Some(path) = kept.path().map(Path::to_owned) else {
            return exec_err!("temporary files must be on a local disk to be read out of order");
        };
        let file = File::options().read(true).write(true).open(&path)?;
        Ok(Self { _kept: kept, path, file, bytes: 0 })
    }

    /// Appends numbers and tells where in the file they begin.
    pub fn append<T: ArrowNativeType>(&mut self, numbers: &[T]) -> Result<u64>
    where
        [T]: ToByteSlice,
    {
        let at = self.bytes;
        self.write(at, numbers)?;
        self.bytes += size_of_val(numbers) as u64;
        Ok(at)
    }

    fn write<T>(&self, at: u64, numbers: &[T]) -> Result<()>
    where
        [T]: ToByteSlice,
    {
        self.file.write_all_at(numbers.to_byte_slice(), at).map_err(|e| self.failed("writing", e))
    }

    /// Reads numbers from where they begin in the file.
    pub fn read<T: ArrowNativeType>(&self, at: u64, count: usize) -> Result<Numbers<T>> {
        let mut bytes = MutableBuffer::from_len_zeroed(count * size_of::<T>());
        self.file.read_exact_at(bytes.as_slice_mut(), at).map_err(|e| self.failed("reading", e))?;
        Ok(Numbers(bytes, PhantomData))
    }

    fn failed(&self, doing: &str, error: std::io::Error) -> DataFusionError {
        let path = self.path.display();
        DataFusionError::External(format!("{doing} the temporary file {path}: {error}").into())
    }
}

/// Numbers read from a file, of the type they were written in.
pub struct Numbers<T>(MutableBuffer, PhantomData<T>);

impl<T: ArrowNativeType> Deref for Numbers<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.0.typed_data()
    }
}

impl<T: ArrowNativeType> DerefMut for Numbers<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.0.typed_data_mut()
    }
}

/// Entries of rows, in a file of nothing else.
impl Entries for Spill {
    fn read(&self, range: Range<usize>) -> Result<Held<'_, u64>, Error> {
        Ok(Held::Read(Box::new(self.read::<u64>(place(range.start), range.len())?)))
    }

    fn update(&mut self, range: Range<usize>, change: &mut dyn FnMut(&mut [u64])) -> Result<(), Error> {
        let mut numbers = self.read::<u64>(place(range.start), range.len())?;
        change(&mut numbers);
        Ok(self.write(place(range.start), &numbers[..])?)
    }

    fn bytes(&self) -> usize {
        0
    }
}

/// Panels in a file of nothing else.
pub struct SpilledPanels {
    file: Spill,
    /// Where each begins, and how many values it has.
    places: Vec<(u64, usize)>,
}

impl SpilledPanels {
    /// None so far, in a file of this one.
    pub fn new(file: Spill) -> Self {
        Self { file, places: Vec::new() }
    }
}

impl Panels for SpilledPanels {
    fn push(&mut self, values: Vec<f64>) -> Result<(), Error> {
        self.places.push((self.file.append(&values)?, values.len()));
        Ok(())
    }

    fn get(&self, panel: usize) -> Result<Held<'_, f64>, Error> {
        let (at, count) = self.places[panel];
        Ok(Held::Read(Box::new(self.file.read::<f64>(at, count)?)))
    }
}

fn place(entry: usize) -> u64 {
    (entry * size_of::<u64>()) as u64
}

/// An error that went through a kernel, as what it was.
pub fn from_kernel(error: Error) -> DataFusionError {
    error.downcast().map_or_else(DataFusionError::External, |error| *error)
}
