//! A Parquet file of lists, written a row group at a time.
//!
//! Rows wait until a row group is full; then its columns are encoded side by side, while the next rows come. What is known of a
//! whole column before it is encoded, such as how many ids are in it, need not be found out value by value.

use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{FieldRef, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_writer::{
    ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, ArrowWriterOptions, compute_leaves,
};
use datafusion::parquet::column::writer::ColumnCloseResult;
use datafusion::parquet::file::properties::{DEFAULT_MAX_ROW_GROUP_ROW_COUNT, WriterPropertiesPtr};
use datafusion::parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use datafusion::parquet::schema::types::ColumnDescPtr;
use object_store::buffered::BufWriter;
use tokio::io::AsyncWriteExt;

use super::{ids, numbers};
use crate::operators::keys;

/// A row group is full when its rows hold so many bytes: a million rows of lists have less, other tables may have more in each.
const MOST_BYTES: usize = 64 << 20;

/// A row group of fewer rows is not worth its place in the file: where memory is short, so many may wait all the same.
const LEAST_ROWS: usize = 1 << 16;

/// A file to which rows are written.
pub struct ListFile {
    out: BufWriter,
    schema: SchemaRef,
    writer: SerializedFileWriter<Vec<u8>>,
    columns: ArrowRowGroupWriterFactory,
    /// Rows of the row group that comes next.
    waiting: Vec<RecordBatch>,
    rows: usize,
    /// The columns of the row group before it.
    encoding: Vec<SpawnedTask<Result<Chunk>>>,
    /// For the rows that wait.
    memory: MemoryReservation,
    /// For those that are encoded.
    encoding_memory: MemoryReservation,
}

/// A column of a row group, encoded.
enum Chunk {
    Pages(Bytes, Box<ColumnCloseResult>),
    Values(Vec<ArrowColumnChunk>),
}

impl ListFile {
    /// A file of this schema without rows yet. Ids may come as keys of dictionaries all the same.
    pub fn new(
        out: BufWriter,
        schema: SchemaRef,
        options: ArrowWriterOptions,
        memory: MemoryReservation,
    ) -> Result<Self> {
        let writer = ArrowWriter::try_new_with_options(Vec::new(), Arc::clone(&schema), options)?;
        let (writer, columns) = writer.into_serialized_writer()?;
        let encoding_memory = memory.new_empty();
        let (waiting, encoding) = (Vec::new(), Vec::new());
        Ok(Self { out, schema, writer, columns, waiting, rows: 0, encoding, memory, encoding_memory })
    }

    /// Adds rows.
    pub async fn write(&mut self, mut batch: RecordBatch) -> Result<()> {
        let most = self.writer.properties().max_row_group_row_count().unwrap_or(DEFAULT_MAX_ROW_GROUP_ROW_COUNT);
        while batch.num_rows() > 0 {
            let some = batch.slice(0, batch.num_rows().min(most - self.rows));
            batch = batch.slice(some.num_rows(), batch.num_rows() - some.num_rows());
            let bytes = held(&some, self.waiting.last())?;
            if self.memory.try_grow(bytes).is_err() {
                if self.rows >= LEAST_ROWS {
                    self.begin_row_group().await?;
                    self.end_row_group().await?;
                }
                // What came has to be written, and there is no way to do so in less.
                self.memory.grow(bytes);
            }
            self.rows += some.num_rows();
            self.waiting.push(some);
            if self.rows == most || self.memory.size() >= MOST_BYTES {
                self.begin_row_group().await?;
            }
        }
        Ok(())
    }

    /// The bytes of its row groups that were encoded.
    pub fn bytes(&self) -> usize {
        self.writer.bytes_written()
    }

    /// Closes the file; returns its rows and bytes.
    pub async fn close(mut self) -> Result<(i64, usize)> {
        self.begin_row_group().await?;
        self.end_row_group().await?;
        let rows = self.writer.finish()?.file_metadata().num_rows();
        self.put().await?;
        self.out.shutdown().await?;
        Ok((rows, self.bytes()))
    }

    /// Lets the rows that wait be encoded.
    async fn begin_row_group(&mut self) -> Result<()> {
        if self.rows == 0 {
            return Ok(());
        }
        self.end_row_group().await?;
        let waiting = std::mem::take(&mut self.waiting);
        self.rows = 0;
        self.encoding_memory = self.memory.take();
        let described = self.writer.schema_descr();
        let mut writers = self.columns.create_column_writers(self.writer.flushed_row_groups().len())?.into_iter();
        let mut leaf = 0;
        for (at, field) in self.schema.fields().iter().enumerate() {
            let leaves = (leaf..described.num_columns()).take_while(|&leaf| described.get_column_root_idx(leaf) == at);
            let column = Column {
                field: Arc::clone(field),
                first_leaf: described.column(leaf),
                properties: Arc::clone(self.writer.properties()),
                writers: writers.by_ref().take(leaves.count()).collect(),
                values: waiting.iter().map(|batch| Arc::clone(batch.column(at))).collect(),
                keyed: waiting.iter().all(|batch| keys::are_in(batch.schema_ref().field(at))),
            };
            leaf += column.writers.len();
            self.encoding.push(SpawnedTask::spawn(async { column.encode() }));
        }
        Ok(())
    }

    /// Writes the row group that was encoded, if any.
    async fn end_row_group(&mut self) -> Result<()> {
        if self.encoding.is_empty() {
            return Ok(());
        }
        let mut chunks = Vec::with_capacity(self.encoding.len());
        for task in std::mem::take(&mut self.encoding) {
            chunks.push(task.join_unwind().await.map_err(|e| DataFusionError::ExecutionJoin(Box::new(e)))??);
        }
        let bytes = chunks.iter().map(Chunk::bytes).sum();
        self.writer.inner_mut().reserve_exact(bytes);
        let mut group = self.writer.next_row_group()?;
        chunks.into_iter().try_for_each(|chunk| chunk.append_to(&mut group))?;
        group.close()?;
        self.encoding_memory.free();
        self.put().await
    }

    async fn put(&mut self) -> Result<()> {
        let bytes = std::mem::take(self.writer.inner_mut());
        Ok(self.out.put(bytes.into()).await?)
    }
}

/// The bytes that a batch holds beside the one before it: strings that operators hand out are all in the same buffers.
fn held(batch: &RecordBatch, before: Option<&RecordBatch>) -> Result<usize> {
    let mut bytes = 0;
    for (at, column) in batch.columns().iter().enumerate() {
        bytes += match column.as_string_view_opt() {
            Some(texts) => {
                let known = before.and_then(|batch| batch.column(at).as_string_view_opt());
                let shared = known.is_some_and(|known| ids::share_buffers(known, texts));
                let lengths: usize = texts.views().iter().map(|&view| view as u32 as usize).sum();
                size_of_val(&texts.views()[..]) + if shared { 0 } else { lengths }
            }
            None if keys::are_in(batch.schema_ref().field(at)) => keys::bytes(column),
            None => column.to_data().get_slice_memory_size()?,
        };
    }
    Ok(bytes)
}

/// A column of a row group, to be encoded.
struct Column {
    field: FieldRef,
    first_leaf: ColumnDescPtr,
    properties: WriterPropertiesPtr,
    /// Of each leaf, where values are nested.
    writers: Vec<ArrowColumnWriter>,
    values: Vec<ArrayRef>,
    /// Whether they are keys of a dictionary in order.
    keyed: bool,
}

impl Column {
    /// The values in the type of the file, where they came as keys.
    fn plain(&self) -> Result<Vec<ArrayRef>> {
        let plain = |values: &ArrayRef| match values.data_type() == self.field.data_type() {
            true => Ok(Arc::clone(values)),
            false => Ok(cast(values, self.field.data_type())?),
        };
        self.values.iter().map(plain).collect()
    }

    fn encode(mut self) -> Result<Chunk> {
        if !self.keyed {
            self.values = self.plain()?;
        }
        let (column, properties) = (&self.first_leaf, &self.properties);
        let mut own = ids::chunk(&self.field, column, properties, &self.values)?;
        if own.is_none() {
            self.values = self.plain()?;
            own = numbers::chunk(&self.field, column, properties, &self.values)?;
        }
        if let Some((bytes, close)) = own {
            return Ok(Chunk::Pages(bytes, Box::new(close)));
        }
        for values in &self.values {
            for (writer, leaf) in self.writers.iter_mut().zip(compute_leaves(&self.field, values)?) {
                writer.write(&leaf)?;
            }
        }
        let chunks = self.writers.into_iter().map(ArrowColumnWriter::close);
        Ok(Chunk::Values(chunks.collect::<Result<_, _>>()?))
    }
}

impl Chunk {
    fn bytes(&self) -> usize {
        match self {
            Self::Pages(bytes, _) => bytes.len(),
            Self::Values(chunks) => chunks.iter().map(|chunk| chunk.close().bytes_written as usize).sum(),
        }
    }

    fn append_to(self, group: &mut SerializedRowGroupWriter<'_, Vec<u8>>) -> Result<()> {
        match self {
            Self::Pages(bytes, close) => group.append_column(&bytes, *close)?,
            Self::Values(chunks) => chunks.into_iter().try_for_each(|chunk| chunk.append_to_row_group(group))?,
        }
        Ok(())
    }
}
