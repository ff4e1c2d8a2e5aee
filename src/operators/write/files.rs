//! The files that one partition writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use datafusion::arrow::compute::{cast, partition, take_record_batch};
use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::parquet::arrow::AsyncArrowWriter;
use datafusion::parquet::arrow::arrow_writer::ArrowWriterOptions;
use datafusion::parquet::basic::{Compression, ZstdLevel};
use datafusion::parquet::file::properties::WriterProperties;
use object_store::ObjectStore;
use object_store::buffered::BufWriter;
use object_store::path::Path;

use super::list_file::ListFile;
use super::lists::dispensable;
use super::{Target, WrittenFile, ZSTD_LEVEL, bytes_at_once};

/// A file is closed and the next begun when it has grown to this; object stores copy files of up to 5 GB at once.
const FILE_BYTES: usize = 1 << 30;

/// Objects are put in parts of so many bytes; stores take at most 10,000 parts.
const PART_BYTES: usize = 10 << 20;

/// What an empty value is called in the name of a folder, as in Hive.
const NULL_FOLDER: &str = "__HIVE_DEFAULT_PARTITION__";

/// A file to which rows are written.
enum Writer {
    /// Of a table of lists.
    Lists(ListFile),
    /// Of any other.
    Rows(AsyncArrowWriter<BufWriter>),
}

impl Writer {
    async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        match self {
            Self::Lists(file) => file.write(batch).await,
            Self::Rows(writer) => Ok(writer.write(&batch).await?),
        }
    }

    /// The bytes that it has, but for those of the row group that lists wait for.
    fn bytes(&self) -> usize {
        match self {
            Self::Lists(file) => file.bytes(),
            Self::Rows(writer) => writer.bytes_written() + writer.in_progress_size(),
        }
    }

    /// Closes the file; returns its rows and bytes.
    async fn close(self) -> Result<(i64, usize)> {
        Ok(match self {
            Self::Lists(file) => file.close().await?,
            Self::Rows(mut writer) => (writer.finish().await?.file_metadata().num_rows(), writer.bytes_written()),
        })
    }
}

/// Writers of one partition: one open file for each sub-folder.
pub struct PartitionFiles {
    store: Arc<dyn ObjectStore>,
    target: Target,
    name: String,
    keys: Vec<usize>,
    schema: SchemaRef,
    memory: MemoryReservation,
    open: BTreeMap<String, (String, Writer)>,
    begun: usize,
    written: Vec<WrittenFile>,
}

impl PartitionFiles {
    /// No files yet. They will be in the folder of `target`, which is in `store`, and their names begin with `name`; the values of
    /// the columns `keys` name sub-folders. What waits to be written is reserved beside `memory`, from the same pool.
    pub fn new(
        store: Arc<dyn ObjectStore>,
        target: Target,
        name: String,
        keys: Vec<usize>,
        schema: SchemaRef,
        memory: MemoryReservation,
    ) -> Self {
        Self { store, target, name, keys, schema, memory, open: BTreeMap::new(), begun: 0, written: Vec::new() }
    }

    /// Writes the rows of a batch, each to the file of its sub-folder.
    pub async fn write(&mut self, batch: RecordBatch) -> Result<()> {
        if batch.num_rows() == 0 {
            return Ok(());
        }
        if self.keys.is_empty() {
            return self.write_to(String::new(), batch).await;
        }
        for (folder, rows) in by_folder(&batch, &self.keys)? {
            self.write_to(folder, rows).await?;
        }
        Ok(())
    }

    /// Writes a batch to the file of a sub-folder, or of none.
    pub async fn write_to(&mut self, folder: String, batch: RecordBatch) -> Result<()> {
        if !self.open.contains_key(&folder) {
            let begun = self.begin(&folder)?;
            self.open.insert(folder.clone(), begun);
        }
        let Some((_, writer)) = self.open.get_mut(&folder) else {
            return Ok(());
        };
        writer.write(batch).await?;
        if writer.bytes() >= FILE_BYTES
            && let Some((path, writer)) = self.open.remove(&folder)
        {
            self.close(path, writer).await?;
        }
        Ok(())
    }

    fn begin(&mut self, folder: &str) -> Result<(String, Writer)> {
        let number = self.begun;
        self.begun += 1;
        let file = format!("{}-{number:03}.parquet", self.name);
        let path = if folder.is_empty() { file } else { format!("{folder}/{file}") };
        let location = Path::parse(format!("{}/{path}", self.target.folder))
            .map_err(|e| DataFusionError::Execution(format!("'{path}' cannot name a file: {e}")))?;
        let mut properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
            .set_created_by(concat!("lakeside ", env!("CARGO_PKG_VERSION")).to_owned());
        let dispensable = dispensable(&self.schema);
        for &column in &dispensable {
            properties = properties.set_column_dictionary_enabled(column.into(), false);
        }
        let options = ArrowWriterOptions::new().with_properties(properties.build());
        let capacity = bytes_at_once(&self.target.store, PART_BYTES);
        let object = BufWriter::with_capacity(Arc::clone(&self.store), location, capacity);
        let schema = Arc::clone(&self.schema);
        let writer = match dispensable.is_empty() {
            true => Writer::Rows(AsyncArrowWriter::try_new_with_options(object, schema, options)?),
            false => Writer::Lists(ListFile::new(object, schema, options, self.memory.new_empty())?),
        };
        Ok((path, writer))
    }

    async fn close(&mut self, path: String, writer: Writer) -> Result<()> {
        let (rows, bytes) = writer.close().await?;
        self.written.push(WrittenFile { path, rows: u64::try_from(rows).unwrap_or(0), bytes: bytes as u64 });
        Ok(())
    }

    /// Closes all files and tells what was written.
    pub async fn finish(mut self) -> Result<Vec<WrittenFile>> {
        for (path, writer) in std::mem::take(&mut self.open).into_values() {
            self.close(path, writer).await?;
        }
        Ok(self.written)
    }
}

/// Splits rows by the folder that the values of their keys name.
fn by_folder(batch: &RecordBatch, keys: &[usize]) -> Result<Vec<(String, RecordBatch)>> {
    let columns: Vec<ArrayRef> = keys.iter().map(|&key| Arc::clone(batch.column(key))).collect();
    let sort: Vec<_> = columns
        .iter()
        .map(|values| datafusion::arrow::compute::SortColumn { values: Arc::clone(values), options: None })
        .collect();
    let order: UInt32Array = datafusion::arrow::compute::lexsort_to_indices(&sort, None)?;
    let sorted = take_record_batch(batch, &order)?;
    let columns: Vec<ArrayRef> = keys.iter().map(|&key| Arc::clone(sorted.column(key))).collect();
    let mut parts = Vec::new();
    for range in partition(&columns)?.ranges() {
        let rows = sorted.slice(range.start, range.len());
        let mut folder = Vec::new();
        for (&key, values) in keys.iter().zip(&columns) {
            let text = cast(&values.slice(range.start, 1), &DataType::Utf8)?;
            let text = text.as_string::<i32>();
            let value = if text.is_valid(0) { escape(text.value(0)) } else { NULL_FOLDER.to_owned() };
            folder.push(format!("{}={value}", batch.schema().field(key).name()));
        }
        parts.push((folder.join("/"), rows));
    }
    Ok(parts)
}

/// Percent-encodes what cannot stand in the name of a folder.
fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '/' | '\\' | '%' | '=' | ':' | '*' | '?' | '"' | '<' | '>' | '|' | '#' | '[' | ']' | '{' | '}' | '^'
            | '~' | '`' => {
                let mut bytes = [0u8; 4];
                c.encode_utf8(&mut bytes).bytes().for_each(|b| escaped.push_str(&format!("%{b:02X}")));
            }
            c if c.is_control() => escaped.push_str(&format!("%{:02X}", c as u32)),
            c => escaped.push(c),
        }
    }
    escaped
}
