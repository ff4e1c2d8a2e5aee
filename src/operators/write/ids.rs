//! The chunk of a column of ids in a row group: a dictionary, and the place of each id in it.
//!
//! Parquet's writer looks ids up one after the other, each by its bytes in a table that it has to wait for. Here they are
//! numbered as those that come in are ([`Words`]): whole numbers by themselves, and strings by where they stand, which is the
//! same each time that an operator hands one out. Those that operators hand out as keys of a dictionary in order are numbered
//! already.

use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::{Array, ArrayRef, AsArray, DictionaryArray, RunArray, StringViewArray};
use datafusion::arrow::datatypes::{DataType, Field, Int32Type, Int64Type, UInt32Type};
use datafusion::common::Result;
use datafusion::parquet::basic::{Encoding, Type};
use datafusion::parquet::column::writer::ColumnCloseResult;
use datafusion::parquet::file::properties::{DEFAULT_DICTIONARY_PAGE_SIZE_LIMIT, WriterProperties};
use datafusion::parquet::file::statistics::Statistics;
use datafusion::parquet::schema::types::ColumnDescPtr;

use super::ZSTD_LEVEL;
use super::pages::{Pages, each_page, level, most_rows};
use super::places::Places;
use crate::kernels::ranges::range_of_words;
use crate::kernels::words::Words;

/// Strings up to this length stand in their views.
const INLINE: u32 = 12;

/// Longer strings are cut in statistics, as Parquet's writer does.
const LONGEST: u32 = 64;

/// Whether ids of this type are written here.
pub fn may_be(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Int32 | DataType::Int64 | DataType::Utf8View)
}

/// The chunk of a column of these values, or of keys of them in order; none where they are no ids, the properties ask for what is
/// not done here, strings cannot be told apart by where they stand, there are several dictionaries, statistics cut some strings, or
/// a dictionary would not be smaller.
pub fn chunk(
    field: &Field,
    column: &ColumnDescPtr,
    properties: &WriterProperties,
    values: &[ArrayRef],
) -> Result<Option<(Bytes, ColumnCloseResult)>> {
    let path = column.path();
    let usual = properties.dictionary_enabled(path)
        && properties.column_dictionary_page_size_limit(path) == DEFAULT_DICTIONARY_PAGE_SIZE_LIMIT;
    let usual = usual && !field.is_nullable() && may_be(field.data_type());
    let (Some(level), rows) = (level(properties, path).filter(|_| usual), most_rows(properties)) else {
        return Ok(None);
    };
    let Some(ids) = Ids::of(field.data_type(), values, rows)? else {
        return Ok(None);
    };
    let Ids { places, ranges, distinct, dictionary, bytes_of } = ids;
    let length = places.len();
    let bits = usize::BITS - distinct.saturating_sub(1).max(1).leading_zeros();
    let plain_bytes = dictionary.len() / distinct.max(1) * length;
    let bytes = dictionary.len() + length * bits as usize / 8;
    if bytes >= plain_bytes || i32::try_from(dictionary.len()).is_err() {
        return Ok(None);
    }
    let mut pages = Pages::new(column, properties.compression(path), level, bytes)?;
    let (mut encoded, mut page) = (Vec::new(), 0);
    places.each_page(rows, |places| {
        encoded.clear();
        encoded.push(bits as u8);
        places.encode(bits, &mut encoded);
        if page == 0 {
            if level == ZSTD_LEVEL {
                pages.compress_if_worth(&[(&dictionary, 1), (&encoded, ranges.len())])?;
            }
            pages.dictionary(&dictionary, distinct)?;
        }
        pages.data(&encoded, places.len(), Encoding::RLE_DICTIONARY, ranges[page].map(&bytes_of))?;
        page += 1;
        Ok(())
    })?;
    let rising = ranges.is_sorted_by_key(|page| page[0]) && ranges.is_sorted_by_key(|page| page[1]);
    let ends = ranges.iter().fold(ranges[0], |[least, most], page| [least.min(page[0]), most.max(page[1])]);
    pages.close(statistics(column.physical_type(), ends.map(&bytes_of)), rising).map(Some)
}

/// The least and the largest of a chunk.
fn statistics(kind: Type, [least, most]: [Vec<u8>; 2]) -> Statistics {
    fn number<const N: usize>(bytes: Vec<u8>) -> Option<[u8; N]> {
        bytes.try_into().ok()
    }
    match kind {
        Type::INT32 => {
            let [least, most] = [least, most].map(|bytes| number(bytes).map(i32::from_le_bytes));
            Statistics::int32(least, most, None, Some(0), false)
        }
        Type::INT64 => {
            let [least, most] = [least, most].map(|bytes| number(bytes).map(i64::from_le_bytes));
            Statistics::int64(least, most, None, Some(0), false)
        }
        _ => Statistics::byte_array(Some(least.into()), Some(most.into()), None, Some(0), false),
    }
}

/// Appends a value in Parquet's plain encoding, but for the length before strings.
fn append(values: &ArrayRef, at: usize, to: &mut Vec<u8>) {
    match values.data_type() {
        DataType::Int32 => to.extend(values.as_primitive::<Int32Type>().value(at).to_le_bytes()),
        DataType::Int64 => to.extend(values.as_primitive::<Int64Type>().value(at).to_le_bytes()),
        _ => to.extend(values.as_string_view().value(at).as_bytes()),
    }
}

/// The dictionary that all of these have keys of, and the keys; none where they are no keys, or of several dictionaries.
fn keys_of(values: &[ArrayRef]) -> Option<(&ArrayRef, Places<'_>)> {
    let runs: Option<Vec<_>> =
        values.iter().map(|array| array.as_any().downcast_ref::<RunArray<Int32Type>>()).collect();
    let keys: Option<Vec<_>> = match &runs {
        Some(runs) => runs.iter().map(|runs| runs.values().as_dictionary_opt::<UInt32Type>()).collect(),
        None => values.iter().map(|array| array.as_dictionary_opt::<UInt32Type>()).collect(),
    };
    let keys = keys?;
    let dictionary = keys.first()?.values();
    if !keys.iter().all(|keys| Arc::ptr_eq(keys.values(), dictionary)) {
        return None;
    }
    let places = match runs {
        Some(runs) => Places::Runs(runs.iter().zip(&keys).flat_map(|(runs, keys)| runs_of(runs, keys)).collect()),
        None => Places::Each(keys.iter().map(|keys| keys.keys().values()[..].into()).collect()),
    };
    Some((dictionary, places))
}

/// The runs of an array, which may be a part of another one, and their lengths.
fn runs_of(array: &RunArray<Int32Type>, keys: &DictionaryArray<UInt32Type>) -> impl Iterator<Item = (u32, usize)> {
    let (ends, mut start) = (array.run_ends(), 0);
    let keys = &keys.keys().values()[ends.get_start_physical_index()..];
    ends.sliced_values().zip(keys).map(move |(end, &key)| (key, (end - std::mem::replace(&mut start, end)) as usize))
}

/// The ids of a column.
struct Ids<'a> {
    /// The place of each among the distinct ones.
    places: Places<'a>,
    /// The least and the largest of each page, as numbers that are ordered as ids are.
    ranges: Vec<[i64; 2]>,
    distinct: usize,
    /// The distinct ones in Parquet's plain encoding.
    dictionary: Vec<u8>,
    /// The id of such a number, as statistics of pages have it.
    bytes_of: Box<dyn Fn(i64) -> Vec<u8> + 'a>,
}

impl<'a> Ids<'a> {
    /// Those of a type, in pages of so many `rows`; none where values are of another one.
    fn of(kind: &DataType, values: &'a [ArrayRef], rows: usize) -> Result<Option<Self>> {
        if let Some((dictionary, keys)) = keys_of(values) {
            return Self::keys(kind, dictionary, keys, rows);
        }
        if !values.iter().all(|array| array.data_type() == kind) {
            return Ok(None);
        }
        match kind {
            DataType::Utf8View => {
                Ok(Self::texts(&values.iter().map(|array| array.as_string_view()).collect::<Vec<_>>(), rows))
            }
            _ => Self::numbers(kind, values, rows),
        }
    }

    /// Keys of a dictionary in order. None where strings in it are so long that statistics cut them.
    fn keys(kind: &DataType, values: &'a ArrayRef, keys: Places<'a>, rows: usize) -> Result<Option<Self>> {
        if values.data_type() != kind {
            return Ok(None);
        }
        let mut ranges = Vec::new();
        keys.each_page(rows, |page| {
            ranges.extend(page.range().map(|range| range.map(i64::from)));
            Ok(())
        })?;
        let (places, occurring) = keys.close_up(values.len());
        let mut dictionary = Vec::new();
        for &key in &occurring {
            if let Some(texts) = values.as_string_view_opt() {
                let length = texts.value(key as usize).len() as u32;
                if length > LONGEST {
                    return Ok(None);
                }
                dictionary.extend(length.to_le_bytes());
            }
            append(values, key as usize, &mut dictionary);
        }
        Ok(Some(Self {
            places,
            ranges,
            distinct: occurring.len(),
            dictionary,
            bytes_of: Box::new(move |key| {
                let mut bytes = Vec::new();
                append(values, key as usize, &mut bytes);
                bytes
            }),
        }))
    }

    /// Whole numbers.
    fn numbers(kind: &DataType, values: &[ArrayRef], rows: usize) -> Result<Option<Self>> {
        let all = values.iter().map(|array| array.len()).sum();
        let (mut known, mut places, mut ranges) = (Words::default(), Vec::with_capacity(all), Vec::new());
        let mut intern = |page: &[u64]| {
            ranges.extend(range_of_words(page));
            places.extend(known.intern(page, 1));
            Ok(())
        };
        if *kind == DataType::Int32 {
            each_page(values.iter().map(|array| &array.as_primitive::<Int32Type>().values()[..]), rows, |page| {
                intern(&page.iter().map(|&number| i64::from(number) as u64).collect::<Vec<_>>())
            })?;
        } else {
            let words = values.iter().map(|array| array.as_primitive::<Int64Type>().values().inner().typed_data());
            each_page(words, rows, intern)?;
        }
        let bytes = kind.primitive_width().unwrap_or(size_of::<i64>());
        let known = known.words();
        Ok(Some(Self {
            places: Places::Each(vec![places.into()]),
            ranges,
            distinct: known.len(),
            dictionary: known.iter().flat_map(|word| word.to_le_bytes().into_iter().take(bytes)).collect(),
            bytes_of: Box::new(move |word| word.to_le_bytes()[..bytes].to_vec()),
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
        Some(Self {
            ranges: places.chunks(rows).filter_map(|page| range_of_words(&ranked(page))).collect(),
            places: Places::Each(vec![places.into()]),
            distinct: texts.len(),
            dictionary,
            bytes_of: Box::new(move |rank| sorted[rank as usize].as_bytes().to_vec()),
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
    use datafusion::arrow::array::{Int64Array, make_view};
    use datafusion::arrow::buffer::Buffer;

    use super::*;
    use crate::operators::keys;

    fn texts(pieces: &[(usize, usize)], buffer: &Buffer) -> StringViewArray {
        let view = |&(start, end): &(usize, usize)| make_view(&buffer[start..end], 0, start as u32);
        StringViewArray::new(pieces.iter().map(view).collect(), vec![buffer.clone()], None)
    }

    fn ids(arrays: &[StringViewArray]) -> Option<Ids<'_>> {
        Ids::texts(&arrays.iter().collect::<Vec<_>>(), 2)
    }

    /// The ids of keys of strings, in pages of two.
    fn of_keys(arrays: &[ArrayRef]) -> Option<Ids<'_>> {
        let (dictionary, keys) = keys_of(arrays)?;
        Ids::keys(&DataType::Utf8View, dictionary, keys, 2).unwrap()
    }

    fn each(places: &Places<'_>) -> Vec<u32> {
        match places {
            Places::Each(pieces) => pieces.concat(),
            Places::Runs(runs) => runs.iter().flat_map(|&(place, length)| vec![place; length]).collect(),
        }
    }

    #[test]
    fn keys_are_places_in_a_dictionary() {
        let dictionary = |texts: Vec<&str>| Arc::new(StringViewArray::from(texts)) as ArrayRef;
        let values = dictionary(vec!["an id", "missing", "the third"]);
        let key = |keys: Vec<u32>| keys::each(keys, &values).unwrap();
        let in_runs = keys::runs([1, 2, 0, 2].into_iter(), &[3, 1, 1, 2], &values).unwrap();
        let (last, none) = (key(vec![2]), keys::runs([].into_iter(), &[], &values).unwrap());
        for arrays in
            [vec![key(vec![2, 0, 2]), last], vec![in_runs.slice(3, 0), in_runs.slice(3, 3), none, in_runs.slice(6, 1)]]
        {
            let found = of_keys(&arrays).unwrap();
            assert_eq!((each(&found.places), found.distinct), (vec![1, 0, 1, 1], 2));
            assert_eq!(found.dictionary, b"\x05\0\0\0an id\x09\0\0\0the third");
            assert_eq!(found.ranges, [[0, 2], [2, 2]]);
            assert_eq!((found.bytes_of)(2), b"the third");
        }
        // Several dictionaries, one of another type, and strings that statistics cut.
        let [third, long] = [dictionary(vec!["the third"]), dictionary(vec![&"long".repeat(20)])];
        assert!(keys_of(&[key(vec![0]), keys::each(vec![0], &third).unwrap()]).is_none());
        assert!(of_keys(&[keys::each(vec![0], &(Arc::new(Int64Array::from(vec![7])) as ArrayRef)).unwrap()]).is_none());
        assert!(of_keys(&[keys::each(vec![0], &long).unwrap()]).is_none());
    }

    #[test]
    fn strings_are_told_apart_by_where_they_stand() {
        let buffer = Buffer::from(b"the first string the other string".to_vec());
        let (first, other) = ((0, 16), (17, 33));
        let two = [texts(&[other, first], &buffer), texts(&[first, first, other], &buffer)];
        let found = ids(&two).unwrap();
        assert_eq!((each(&found.places), found.distinct), (vec![0, 1, 1, 1, 0], 2));
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
