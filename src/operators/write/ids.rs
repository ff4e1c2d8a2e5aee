//! The chunk of a column of ids in a row group: a dictionary, and the place of each id in it.
//!
//! Parquet's writer looks ids up one after the other, each by its bytes in a table that it has to wait for. Here they are
//! numbered as those that come in are ([`Words`]): whole numbers by themselves, and strings by where they stand, which is the
//! same each time that an operator hands one out.

use bytes::Bytes;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringViewArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::common::Result;
use datafusion::parquet::basic::{Encoding, Type};
use datafusion::parquet::column::writer::ColumnCloseResult;
use datafusion::parquet::file::properties::{DEFAULT_DICTIONARY_PAGE_SIZE_LIMIT, WriterProperties};
use datafusion::parquet::file::statistics::Statistics;
use datafusion::parquet::schema::types::ColumnDescPtr;

use super::pages::{Pages, level, most_rows};
use crate::kernels::hybrid;
use crate::kernels::ranges::range_of_words;
use crate::kernels::words::Words;

/// Strings up to this length stand in their views.
const INLINE: u32 = 12;

/// Longer strings are cut in statistics, as Parquet's writer does.
const LONGEST: u32 = 64;

/// Whether a column of this field may be written as ids, if these are its values.
fn may_be(field: &Field, values: &[ArrayRef]) -> bool {
    !field.is_nullable()
        && matches!(field.data_type(), DataType::Int32 | DataType::Int64 | DataType::Utf8View)
        && values.iter().all(|array| array.data_type() == field.data_type())
}

/// The chunk of a column of these values; none where they are no ids, the properties ask for what is not done here,
/// strings cannot be told apart by where they stand, or a dictionary would not be smaller.
pub fn chunk(
    field: &Field,
    column: &ColumnDescPtr,
    properties: &WriterProperties,
    values: &[ArrayRef],
) -> Result<Option<(Bytes, ColumnCloseResult)>> {
    let path = column.path();
    let usual = properties.dictionary_enabled(path)
        && properties.column_dictionary_page_size_limit(path) == DEFAULT_DICTIONARY_PAGE_SIZE_LIMIT;
    let usual = usual && may_be(field, values);
    let (Some(level), rows) = (level(properties, path).filter(|_| usual), most_rows(properties)) else {
        return Ok(None);
    };
    let Some(ids) = Ids::of(column.physical_type(), values, rows)? else {
        return Ok(None);
    };
    let Ids { places, ranges, distinct, dictionary, bytes_of, statistics } = ids;
    let bits = usize::BITS - distinct.saturating_sub(1).max(1).leading_zeros();
    let plain_bytes = dictionary.len() / distinct.max(1) * places.len();
    let bytes = dictionary.len() + places.len() * bits as usize / 8;
    if bytes >= plain_bytes || i32::try_from(dictionary.len()).is_err() {
        return Ok(None);
    }
    let mut pages = Pages::new(column, properties.compression(path), level, bytes)?;
    pages.dictionary(&dictionary, distinct)?;
    let mut encoded = Vec::new();
    for (places, range) in places.chunks(rows).zip(&ranges) {
        encoded.clear();
        encoded.push(bits as u8);
        hybrid::encode(places, bits, &mut encoded);
        pages.data(&encoded, places.len(), Encoding::RLE_DICTIONARY, range.map(&bytes_of))?;
    }
    let rising = ranges.is_sorted_by_key(|page| page[0]) && ranges.is_sorted_by_key(|page| page[1]);
    pages.close(statistics, rising).map(Some)
}

/// The ids of a column.
struct Ids<'a> {
    /// The place of each among the distinct ones.
    places: Vec<u32>,
    /// The least and the largest of each page, as words that are ordered as ids are, with a sign.
    ranges: Vec<[i64; 2]>,
    distinct: usize,
    /// The distinct ones in Parquet's plain encoding.
    dictionary: Vec<u8>,
    /// The id of a word, as statistics of pages have it.
    bytes_of: Box<dyn Fn(i64) -> Vec<u8> + 'a>,
    statistics: Statistics,
}

impl<'a> Ids<'a> {
    /// Those of pages of so many `rows`.
    fn of(kind: Type, values: &'a [ArrayRef], rows: usize) -> Result<Option<Self>> {
        match kind {
            Type::BYTE_ARRAY => {
                Ok(Self::texts(&values.iter().map(|array| array.as_string_view()).collect::<Vec<_>>(), rows))
            }
            Type::INT32 => Self::numbers(values, rows, size_of::<i32>(), |least, most| {
                Statistics::int32(Some(least as i32), Some(most as i32), None, Some(0), false)
            }),
            _ => Self::numbers(values, rows, size_of::<i64>(), |least, most| {
                Statistics::int64(Some(least), Some(most), None, Some(0), false)
            }),
        }
    }

    /// Whole numbers of so many bytes.
    fn numbers(
        values: &[ArrayRef],
        rows: usize,
        bytes: usize,
        statistics: impl Fn(i64, i64) -> Statistics,
    ) -> Result<Option<Self>> {
        let all = values.iter().map(|array| array.len()).sum();
        let (mut known, mut places, mut ranges) = (Words::default(), Vec::with_capacity(all), Vec::new());
        let mut page: Vec<u64> = Vec::new();
        let mut end = |page: &mut Vec<u64>| {
            ranges.push(range_of_words(page));
            places.extend(known.intern(page, 1));
            page.clear();
        };
        for array in values {
            let words = cast(array, &DataType::Int64)?;
            let mut words: &[u64] = words.as_primitive::<Int64Type>().values().inner().typed_data();
            while !words.is_empty() {
                let (some, after) = words.split_at(words.len().min(rows - page.len()));
                page.extend_from_slice(some);
                words = after;
                if page.len() == rows {
                    end(&mut page);
                }
            }
        }
        if !page.is_empty() {
            end(&mut page);
        }
        let known = known.words();
        let [least, most] = range_of_words(known);
        Ok(Some(Self {
            places,
            ranges,
            distinct: known.len(),
            dictionary: known.iter().flat_map(|word| word.to_le_bytes().into_iter().take(bytes)).collect(),
            bytes_of: Box::new(move |word| word.to_le_bytes()[..bytes].to_vec()),
            statistics: statistics(least, most),
        }))
    }

    /// Strings, told apart by the upper halves of their views: the buffer and where they begin in it. None where buffers differ,
    /// strings are so short that they stand in the view or so long that statistics cut them, or some of different length begin
    /// at the same place.
    fn texts(values: &[&'a StringViewArray], rows: usize) -> Option<Self> {
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
        let ranked = |page: &[u32]| page.iter().map(|&place| ranks[place as usize]).collect::<Vec<u64>>();
        let sorted: Vec<&str> = order.into_iter().map(|place| texts[place]).collect();
        let [least, most] = [sorted.first(), sorted.last()].map(|text| text.map(|&text| text.into()));
        Some(Self {
            ranges: places.chunks(rows).map(|page| range_of_words(&ranked(page))).collect(),
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
        Ids::texts(&arrays.iter().collect::<Vec<_>>(), 2)
    }

    #[test]
    fn strings_are_told_apart_by_where_they_stand() {
        let buffer = Buffer::from(b"the first string the other string".to_vec());
        let (first, other) = ((0, 16), (17, 33));
        let two = [texts(&[other, first], &buffer), texts(&[first, first, other], &buffer)];
        let found = ids(&two).unwrap();
        assert_eq!((found.places, found.distinct), (vec![0, 1, 1, 1, 0], 2));
        assert_eq!(found.ranges, [[0, 1], [0, 0], [1, 1]]);
        assert_eq!((found.bytes_of)(1), b"the other string");
        assert_eq!(found.dictionary, b"\x10\0\0\0the other string\x10\0\0\0the first string");
        // Strings of several buffers, of several lengths from one place, and such as stand in their views.
        let elsewhere = Buffer::from(buffer.to_vec());
        assert!(ids(&[texts(&[first], &buffer), texts(&[first], &elsewhere)]).is_none());
        assert!(ids(&[texts(&[first, (0, 20)], &buffer)]).is_none());
        assert!(ids(&[texts(&[first, (0, 9)], &buffer)]).is_none());
    }
}
