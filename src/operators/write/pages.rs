//! The pages of a chunk of a column, one after the other, and what a file tells of them.

use bytes::Bytes;
use datafusion::common::Result;
use datafusion::parquet::basic::{BoundaryOrder, Compression, Encoding, PageType};
use datafusion::parquet::column::page::{CompressedPage, Page, PageWriteSpec, PageWriter};
use datafusion::parquet::column::writer::ColumnCloseResult;
use datafusion::parquet::file::metadata::{
    ColumnChunkMetaData, ColumnIndexBuilder, OffsetIndexBuilder, PageEncodingStats,
};
use datafusion::parquet::file::properties::{DEFAULT_PAGE_SIZE, EnabledStatistics, WriterProperties, WriterVersion};
use datafusion::parquet::file::statistics::Statistics;
use datafusion::parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use datafusion::parquet::schema::types::{ColumnDescPtr, ColumnPath};
use zstd::bulk::Compressor;

/// The level of compression, unless the properties of a column ask for what is not done here.
pub fn level(properties: &WriterProperties, column: &ColumnPath) -> Option<i32> {
    let Compression::ZSTD(level) = properties.compression(column) else {
        return None;
    };
    let usual = properties.bloom_filter_properties(column).is_none()
        && properties.statistics_enabled(column) == EnabledStatistics::Page
        && properties.writer_version() == WriterVersion::PARQUET_1_0
        && properties.column_data_page_size_limit(column) == DEFAULT_PAGE_SIZE;
    usual.then(|| level.compression_level())
}

/// The most rows of a page, of values of up to four bytes.
pub fn most_rows(properties: &WriterProperties) -> usize {
    properties.data_page_row_count_limit().clamp(1, DEFAULT_PAGE_SIZE / size_of::<u32>())
}

/// Visits values in pages of so many rows, the last of which may have fewer. They are copied only where a page has to be put
/// together from several pieces.
pub fn each_page<'a, T: Copy + 'a>(
    pieces: impl IntoIterator<Item = &'a [T]>,
    rows: usize,
    mut visit: impl FnMut(&[T]) -> Result<()>,
) -> Result<()> {
    let mut page = Vec::new();
    for mut piece in pieces {
        while !piece.is_empty() {
            let (some, after) = piece.split_at(piece.len().min(rows - page.len()));
            piece = after;
            if some.len() == rows {
                visit(some)?;
                continue;
            }
            page.extend_from_slice(some);
            if page.len() == rows {
                visit(&page)?;
                page.clear();
            }
        }
    }
    if page.is_empty() { Ok(()) } else { visit(&page) }
}

/// Bytes of the headers of a few hundred pages.
const HEADERS: usize = 1 << 14;

/// A chunk that pages are added to.
pub struct Pages<'a> {
    column: &'a ColumnDescPtr,
    compression: Compression,
    compressor: Compressor<'static>,
    /// The page of data that was compressed last, and what it became.
    last: (Vec<u8>, Bytes),
    sink: TrackedWrite<Vec<u8>>,
    uncompressed: usize,
    rows: usize,
    written: Vec<PageEncodingStats>,
    data_offset: usize,
    offsets: OffsetIndexBuilder,
    ranges: ColumnIndexBuilder,
}

impl<'a> Pages<'a> {
    /// None yet, to be compressed at this level. There is room for so many bytes, and headers, before more has to be found.
    pub fn new(column: &'a ColumnDescPtr, compression: Compression, level: i32, bytes: usize) -> Result<Self> {
        Ok(Self {
            column,
            compression,
            compressor: Compressor::new(level)?,
            last: (Vec::new(), Bytes::new()),
            sink: TrackedWrite::new(Vec::with_capacity(bytes + HEADERS)),
            uncompressed: 0,
            rows: 0,
            written: Vec::new(),
            data_offset: 0,
            offsets: OffsetIndexBuilder::new(),
            ranges: ColumnIndexBuilder::new(column.physical_type()),
        })
    }

    /// Does not compress pages, all of which are to come, if that would make them less than a fifth smaller: readers have less
    /// to do then, too. Judged by some of them, and how many of each there will be.
    pub fn compress_if_worth(&mut self, pages: &[(&[u8], usize)]) -> Result<()> {
        let (mut bytes, mut compressed) = (0, 0);
        for (page, count) in pages {
            bytes += page.len() * count;
            compressed += self.compressor.compress(page)?.len() * count;
        }
        if compressed > bytes / 5 * 4 {
            self.compression = Compression::UNCOMPRESSED;
        }
        Ok(())
    }

    /// The dictionary, of so many values; it comes first.
    pub fn dictionary(&mut self, bytes: &[u8], values: usize) -> Result<()> {
        let held = match self.compression {
            Compression::UNCOMPRESSED => Bytes::copy_from_slice(bytes),
            _ => self.compressor.compress(bytes)?.into(),
        };
        self.write(bytes.len(), held, |buf| Page::DictionaryPage {
            buf,
            num_values: values as u32,
            encoding: Encoding::PLAIN,
            is_sorted: false,
        })?;
        self.data_offset = self.sink.bytes_written();
        Ok(())
    }

    /// A page of so many rows, with the least and the largest value as statistics have them.
    pub fn data(&mut self, bytes: &[u8], rows: usize, encoding: Encoding, range: [Vec<u8>; 2]) -> Result<()> {
        let held = match self.compression {
            Compression::UNCOMPRESSED => Bytes::copy_from_slice(bytes),
            _ => self.compressed(bytes)?,
        };
        let written = self.write(bytes.len(), held, |buf| Page::DataPage {
            buf,
            num_values: rows as u32,
            encoding,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        })?;
        self.rows += rows;
        self.offsets.append_row_count(rows as i64);
        self.offsets.append_offset_and_size(written.offset as i64, written.bytes_written as i32);
        let [least, most] = range;
        self.ranges.append(false, least, most, 0);
        Ok(())
    }

    /// Writes a page of so many bytes, as it is held in the file.
    fn write(&mut self, bytes: usize, held: Bytes, page: impl FnOnce(Bytes) -> Page) -> Result<PageWriteSpec> {
        let page = page(held);
        let (page_type, encoding) = (page.page_type(), page.encoding());
        let written = SerializedPageWriter::new(&mut self.sink).write_page(CompressedPage::new(page, bytes))?;
        self.uncompressed += written.uncompressed_size;
        match self.written.last_mut().filter(|last| (last.page_type, last.encoding) == (page_type, encoding)) {
            Some(last) => last.count += 1,
            None => self.written.push(PageEncodingStats { page_type, encoding, count: 1 }),
        }
        Ok(written)
    }

    /// Pages of ranks are often alike: comparing takes less time than compressing.
    fn compressed(&mut self, bytes: &[u8]) -> Result<Bytes> {
        let (last, compressed) = &mut self.last;
        if compressed.is_empty() || last != bytes {
            *compressed = self.compressor.compress(bytes)?.into();
            last.clear();
            last.extend_from_slice(bytes);
        }
        Ok(compressed.clone())
    }

    /// All of it. Whether ranges of pages rise from one to the next is for others to know.
    pub fn close(mut self, statistics: Statistics, rising: bool) -> Result<(Bytes, ColumnCloseResult)> {
        if rising {
            self.ranges.set_boundary_order(BoundaryOrder::ASCENDING);
        }
        let bytes_written = self.sink.bytes_written();
        let has_dictionary = self.written.iter().any(|pages| pages.page_type == PageType::DICTIONARY_PAGE);
        let mut encodings: Vec<Encoding> = self.written.iter().map(|pages| pages.encoding).collect();
        encodings.push(Encoding::RLE);
        let metadata = ColumnChunkMetaData::builder(self.column.clone())
            .set_compression(self.compression)
            .set_encodings(encodings)
            .set_page_encoding_stats(self.written)
            .set_total_compressed_size(bytes_written as i64)
            .set_total_uncompressed_size(self.uncompressed as i64)
            .set_num_values(self.rows as i64)
            .set_dictionary_page_offset(has_dictionary.then_some(0))
            .set_data_page_offset(self.data_offset as i64)
            .set_statistics(statistics);
        let close = ColumnCloseResult {
            bytes_written: bytes_written as u64,
            rows_written: self.rows as u64,
            metadata: metadata.build()?,
            bloom_filter: None,
            column_index: Some(self.ranges.build()?),
            offset_index: Some(self.offsets.build()),
        };
        Ok((self.sink.into_inner()?.into(), close))
    }
}
