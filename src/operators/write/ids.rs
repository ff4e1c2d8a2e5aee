//! The chunk of a column of ids in a row group: a dictionary, and the place of each id in it.
//!
//! Parquet's writer looks ids up one after the other, each by its bytes in a table that it has to wait for; for long lists that
//! took as long as all else of writing. Here they are numbered as those that come in are ([`Words`]): whole numbers by
//! themselves, and strings by where they stand, which is the same each time that an operator hands one out.

use bytes::Bytes;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringViewArray};
use datafusion::arrow::datatypes::{DataType, Field, Int32Type, Int64Type};
use datafusion::common::Result;
use datafusion::parquet::basic::{BoundaryOrder, Compression, Encoding, PageType, Type};
use datafusion::parquet::column::page::{CompressedPage, Page, PageWriteSpec, PageWriter};
use datafusion::parquet::column::writer::ColumnCloseResult;
use datafusion::parquet::file::metadata::{
    ColumnChunkMetaData, ColumnIndexBuilder, OffsetIndexBuilder, PageEncodingStats,
};
use datafusion::parquet::file::properties::{
    DEFAULT_DICTIONARY_PAGE_SIZE_LIMIT, DEFAULT_PAGE_SIZE, EnabledStatistics, WriterProperties, WriterVersion,
};
use datafusion::parquet::file::statistics::Statistics;
use datafusion::parquet::file::writer::{SerializedPageWriter, TrackedWrite};
use datafusion::parquet::schema::types::{ColumnDescPtr, ColumnPath};
use zstd::bulk::Compressor;

use crate::kernels::hybrid;
use crate::kernels::words::{Words, range};

/// Strings up to this length stand in their views.
const INLINE: u32 = 12;

/// Longer strings are cut in statistics, as Parquet's writer does.
const LONGEST: u32 = 64;

/// Whether a column of this field may be written as ids, if these are its values.
pub fn may_be(field: &Field, values: &[ArrayRef]) -> bool {
    !field.is_nullable()
        && matches!(field.data_type(), DataType::Int32 | DataType::Int64 | DataType::Utf8View)
        && values.iter().all(|array| array.data_type() == field.data_type())
}

/// The level of compression, unless the properties of a column ask for what is not done here.
fn level(properties: &WriterProperties, column: &ColumnPath) -> Option<i32> {
    let Compression::ZSTD(level) = properties.compression(column) else {
        return None;
    };
    let usual = properties.dictionary_enabled(column)
        && properties.bloom_filter_properties(column).is_none()
        && properties.statistics_enabled(column) == EnabledStatistics::Page
        && properties.writer_version() == WriterVersion::PARQUET_1_0
        && properties.column_dictionary_page_size_limit(column) == DEFAULT_DICTIONARY_PAGE_SIZE_LIMIT
        && properties.column_data_page_size_limit(column) == DEFAULT_PAGE_SIZE;
    usual.then(|| level.compression_level())
}

/// The chunk of a column of these values, of which [`may_be`] holds; none where the properties ask for what is not done here,
/// strings cannot be told apart by where they stand, or a dictionary would not be smaller.
pub fn chunk(
    column: &ColumnDescPtr,
    properties: &WriterProperties,
    values: &[ArrayRef],
) -> Result<Option<(Bytes, ColumnCloseResult)>> {
    let Some(level) = level(properties, column.path()) else {
        return Ok(None);
    };
    let Some(ids) = Ids::of(column.physical_type(), values) else {
        return Ok(None);
    };
    let Ids { words, places, distinct, dictionary, bytes_of, statistics } = ids;
    let bits = usize::BITS - distinct.saturating_sub(1).max(1).leading_zeros();
    let plain_bytes = dictionary.len() / distinct.max(1) * places.len();
    let smaller = dictionary.len() + places.len() * bits as usize / 8 < plain_bytes;
    if !smaller || i32::try_from(dictionary.len()).is_err() {
        return Ok(None);
    }
    let mut pages = Pages::new(level)?;
    pages.write(&dictionary, |buf| Page::DictionaryPage {
        buf,
        num_values: distinct as u32,
        encoding: Encoding::PLAIN,
        is_sorted: false,
    })?;
    let data_offset = pages.sink.bytes_written();
    let (mut offsets, mut ranges) = (OffsetIndexBuilder::new(), ColumnIndexBuilder::new(column.physical_type()));
    let rows = properties.data_page_row_count_limit().max(1);
    let (mut encoded, mut known) = (Vec::new(), Vec::new());
    for (places, words) in places.chunks(rows).zip(words.chunks(rows)) {
        encoded.clear();
        encoded.push(bits as u8);
        hybrid::encode(places, bits, &mut encoded);
        let written = pages.write(&encoded, |buf| Page::DataPage {
            buf,
            num_values: places.len() as u32,
            encoding: Encoding::RLE_DICTIONARY,
            def_level_encoding: Encoding::RLE,
            rep_level_encoding: Encoding::RLE,
            statistics: None,
        })?;
        offsets.append_row_count(places.len() as i64);
        offsets.append_offset_and_size(written.offset as i64, written.bytes_written as i32);
        let [least, most] = range(words);
        ranges.append(false, bytes_of(least), bytes_of(most), 0);
        known.push([least, most]);
    }
    if known.is_sorted_by_key(|page| page[0]) && known.is_sorted_by_key(|page| page[1]) {
        ranges.set_boundary_order(BoundaryOrder::ASCENDING);
    }
    let Pages { sink, uncompressed, .. } = pages;
    let bytes_written = sink.bytes_written();
    let pages = |page_type, encoding, count| PageEncodingStats { page_type, encoding, count };
    let metadata = ColumnChunkMetaData::builder(column.clone())
        .set_compression(properties.compression(column.path()))
        .set_encodings(vec![Encoding::PLAIN, Encoding::RLE, Encoding::RLE_DICTIONARY])
        .set_page_encoding_stats(vec![
            pages(PageType::DICTIONARY_PAGE, Encoding::PLAIN, 1),
            pages(PageType::DATA_PAGE, Encoding::RLE_DICTIONARY, known.len() as i32),
        ])
        .set_total_compressed_size(bytes_written as i64)
        .set_total_uncompressed_size(uncompressed as i64)
        .set_num_values(places.len() as i64)
        .set_dictionary_page_offset(Some(0))
        .set_data_page_offset(data_offset as i64)
        .set_statistics(statistics);
    let close = ColumnCloseResult {
        bytes_written: bytes_written as u64,
        rows_written: places.len() as u64,
        metadata: metadata.build()?,
        bloom_filter: None,
        column_index: Some(ranges.build()?),
        offset_index: Some(offsets.build()),
    };
    Ok(Some((sink.into_inner()?.into(), close)))
}

/// The ids of a column.
struct Ids<'a> {
    /// A word for each that is ordered as ids are, with a sign.
    words: Vec<u64>,
    /// The place of each among the distinct ones.
    places: Vec<u32>,
    distinct: usize,
    /// The distinct ones in Parquet's plain encoding.
    dictionary: Vec<u8>,
    /// The id of a word, as statistics of pages have it.
    bytes_of: Box<dyn Fn(i64) -> Vec<u8> + 'a>,
    statistics: Statistics,
}

impl<'a> Ids<'a> {
    fn of(kind: Type, values: &'a [ArrayRef]) -> Option<Self> {
        match kind {
            Type::INT32 => {
                let each = values.iter().flat_map(|array| array.as_primitive::<Int32Type>().values());
                let known =
                    |least, most| Statistics::int32(Some(least as i32), Some(most as i32), None, Some(0), false);
                Some(Self::numbers(each.map(|&id| i64::from(id) as u64).collect(), size_of::<i32>(), known))
            }
            Type::INT64 => {
                let each = values.iter().flat_map(|array| array.as_primitive::<Int64Type>().values());
                let known = |least, most| Statistics::int64(Some(least), Some(most), None, Some(0), false);
                Some(Self::numbers(each.map(|&id| id as u64).collect(), size_of::<i64>(), known))
            }
            _ => Self::texts(&values.iter().map(|array| array.as_string_view()).collect::<Vec<_>>()),
        }
    }

    /// Whole numbers of so many bytes.
    fn numbers(words: Vec<u64>, bytes: usize, statistics: impl Fn(i64, i64) -> Statistics) -> Self {
        let mut known = Words::default();
        let places = known.intern(&words, 1);
        let known = known.words();
        let dictionary = known.iter().flat_map(|word| word.to_le_bytes().into_iter().take(bytes)).collect();
        let [least, most] = range(known);
        Self {
            words,
            places,
            distinct: known.len(),
            dictionary,
            bytes_of: Box::new(move |word| word.to_le_bytes()[..bytes].to_vec()),
            statistics: statistics(least, most),
        }
    }

    /// Strings, told apart by the upper halves of their views: the buffer and where they begin in it. None where buffers differ,
    /// strings are so short that they stand in the view or so long that statistics cut them, or some of different length begin
    /// at the same place.
    fn texts(values: &[&'a StringViewArray]) -> Option<Self> {
        let first = values.first()?;
        let mut words = Vec::with_capacity(values.iter().map(|array| array.len()).sum());
        for array in values {
            let fits = |&view: &u128| (INLINE + 1..=LONGEST).contains(&(view as u32));
            if !share_buffers(first, array) || !array.views().iter().all(fits) {
                return None;
            }
            words.extend(array.views().iter().map(|view| (view >> u64::BITS) as u64));
        }
        let mut known = Words::default();
        let places = known.intern(&words, 1);
        let (mut distinct, mut texts) = (Vec::with_capacity(known.len()), Vec::with_capacity(known.len()));
        let views = values.iter().flat_map(|array| array.views().iter().enumerate().map(move |view| (array, view)));
        for (&place, (array, (at, &view))) in places.iter().zip(views) {
            if place as usize == distinct.len() {
                distinct.push(view);
                texts.push(array.value(at));
            }
            if distinct[place as usize] != view {
                return None;
            }
        }
        let mut dictionary = Vec::new();
        for text in &texts {
            dictionary.extend((text.len() as u32).to_le_bytes());
            dictionary.extend(text.as_bytes());
        }
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_unstable_by_key(|&place| texts[place]);
        let mut ranks = vec![0; texts.len()];
        order.iter().zip(0..).for_each(|(&place, rank)| ranks[place] = rank);
        let sorted: Vec<&str> = order.into_iter().map(|place| texts[place]).collect();
        let [least, most] = [sorted.first(), sorted.last()].map(|text| text.map(|&text| text.into()));
        Some(Self {
            words: places.iter().map(|&place| ranks[place as usize]).collect(),
            places,
            distinct: texts.len(),
            dictionary,
            bytes_of: Box::new(move |rank| sorted[rank as usize].as_bytes().to_vec()),
            statistics: Statistics::byte_array(least, most, None, Some(0), false),
        })
    }
}

/// Whether the strings of both are in the same places of memory.
pub fn share_buffers(a: &StringViewArray, b: &StringViewArray) -> bool {
    let (a, b) = (a.data_buffers(), b.data_buffers());
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.ptr_eq(b))
}

/// The pages of a chunk, one after the other.
struct Pages {
    sink: TrackedWrite<Vec<u8>>,
    compressor: Compressor<'static>,
    uncompressed: usize,
}

impl Pages {
    fn new(level: i32) -> Result<Self> {
        Ok(Self { sink: TrackedWrite::new(Vec::new()), compressor: Compressor::new(level)?, uncompressed: 0 })
    }

    fn write(&mut self, bytes: &[u8], page: impl FnOnce(Bytes) -> Page) -> Result<PageWriteSpec> {
        let page = CompressedPage::new(page(self.compressor.compress(bytes)?.into()), bytes.len());
        let written = SerializedPageWriter::new(&mut self.sink).write_page(page)?;
        self.uncompressed += written.uncompressed_size;
        Ok(written)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::make_view;
    use datafusion::arrow::buffer::Buffer;

    use super::*;

    fn texts(pieces: &[(usize, usize)], buffer: &Buffer) -> StringViewArray {
        let view = |&(start, end): &(usize, usize)| make_view(&buffer[start..end], 0, start as u32);
        StringViewArray::new(pieces.iter().map(view).collect(), vec![buffer.clone()], None)
    }

    fn ids(arrays: &[StringViewArray]) -> Option<Ids<'_>> {
        Ids::texts(&arrays.iter().collect::<Vec<_>>())
    }

    #[test]
    fn strings_are_told_apart_by_where_they_stand() {
        let buffer = Buffer::from(b"the first string the other string".to_vec());
        let (first, other) = ((0, 16), (17, 33));
        let two = [texts(&[other, first], &buffer), texts(&[first, first, other], &buffer)];
        let found = ids(&two).unwrap();
        assert_eq!((found.places, found.words, found.distinct), (vec![0, 1, 1, 1, 0], vec![1, 0, 0, 0, 1], 2));
        assert_eq!((found.bytes_of)(1), b"the other string");
        assert_eq!(found.dictionary, b"\x10\0\0\0the other string\x10\0\0\0the first string");
        // Strings of several buffers, of several lengths from one place, and such as stand in their views.
        let elsewhere = Buffer::from(buffer.to_vec());
        assert!(ids(&[texts(&[first], &buffer), texts(&[first], &elsewhere)]).is_none());
        assert!(ids(&[texts(&[first, (0, 20)], &buffer)]).is_none());
        assert!(ids(&[texts(&[first, (0, 9)], &buffer)]).is_none());
    }
}
