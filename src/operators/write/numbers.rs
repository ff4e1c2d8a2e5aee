//! The chunk of a column of numbers in a row group, as they are: scores, of which hardly two are equal, ranks, which come again
//! and again in the same order, and what else is to have no dictionary.

use bytes::Bytes;
use datafusion::arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray};
use datafusion::arrow::datatypes::{DataType, Field, Float32Type, Int32Type, ToByteSlice};
use datafusion::common::Result;
use datafusion::parquet::basic::Encoding;
use datafusion::parquet::column::writer::ColumnCloseResult;
use datafusion::parquet::file::properties::WriterProperties;
use datafusion::parquet::file::statistics::Statistics;
use datafusion::parquet::schema::types::ColumnDescPtr;

use super::ZSTD_LEVEL;
use super::pages::{Pages, each_page, level, most_rows};
use crate::kernels::ranges::{range_of_singles, range_of_whole};

/// The chunk of a column of these values; none where they are no such numbers, or the properties ask for what is not done here.
pub fn chunk(
    field: &Field,
    column: &ColumnDescPtr,
    properties: &WriterProperties,
    values: &[ArrayRef],
) -> Result<Option<(Bytes, ColumnCloseResult)>> {
    let path = column.path();
    let plain = !properties.dictionary_enabled(path) && properties.encoding(path).is_none_or(|e| e == Encoding::PLAIN);
    let plain = plain && !field.is_nullable() && values.iter().all(|array| array.data_type() == field.data_type());
    match field.data_type() {
        DataType::Float32 if plain => {
            chunk_of::<Float32Type>(column, properties, values, range_of_singles, |[least, most]| {
                Statistics::float(Some(least), Some(most), None, Some(0), false)
            })
        }
        DataType::Int32 if plain => {
            chunk_of::<Int32Type>(column, properties, values, range_of_whole, |[least, most]| {
                Statistics::int32(Some(least), Some(most), None, Some(0), false)
            })
        }
        _ => Ok(None),
    }
}

fn chunk_of<T: ArrowPrimitiveType>(
    column: &ColumnDescPtr,
    properties: &WriterProperties,
    values: &[ArrayRef],
    range: impl Fn(&[T::Native]) -> Option<[T::Native; 2]>,
    statistics: impl Fn([T::Native; 2]) -> Statistics,
) -> Result<Option<(Bytes, ColumnCloseResult)>> {
    let (Some(level), rows) = (level(properties, column.path()), most_rows(properties)) else {
        return Ok(None);
    };
    let all: usize = values.iter().map(|array| array.len()).sum();
    let mut pages = Pages::new(column, properties.compression(column.path()), level, size_of::<T::Native>() * all)?;
    // None of a page where one of its values is no number.
    let mut ranges = Vec::new();
    each_page(values.iter().map(|array| &array.as_primitive::<T>().values()[..]), rows, |page| {
        if ranges.last() == Some(&None) {
            return Ok(());
        }
        // Who asks for another level wants to have them compressed.
        if ranges.is_empty() && level == ZSTD_LEVEL {
            pages.compress_if_worth(&[(page.to_byte_slice(), 1)])?;
        }
        let found = range(page);
        if let Some(found) = found {
            let bytes = found.map(|value| value.to_byte_slice().to_vec());
            pages.data(page.to_byte_slice(), page.len(), Encoding::PLAIN, bytes)?;
        }
        ranges.push(found);
        Ok(())
    })?;
    let Some(ranges) = ranges.into_iter().collect::<Option<Vec<_>>>() else {
        return Ok(None);
    };
    let ends: Vec<T::Native> = ranges.iter().flatten().copied().collect();
    let Some(whole) = range(&ends) else {
        return Ok(None);
    };
    let rising = ranges.is_sorted_by_key(|page| page[0]) && ranges.is_sorted_by_key(|page| page[1]);
    pages.close(statistics(whole), rising).map(Some)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::Int32Array;
    use datafusion::arrow::datatypes::Schema;
    use datafusion::parquet::arrow::ArrowSchemaConverter;
    use datafusion::parquet::basic::{Compression, ZstdLevel};
    use datafusion::parquet::column::page::PageReader;
    use datafusion::parquet::file::serialized_reader::SerializedPageReader;

    use super::*;

    #[test]
    fn pages_like_the_one_before_come_back_too() {
        const ROWS: usize = 256;
        let field = Field::new("rank", DataType::Int32, false);
        let schema = ArrowSchemaConverter::new().convert(&Schema::new(vec![field.clone()])).unwrap();
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL).unwrap()))
            .set_dictionary_enabled(false)
            .set_data_page_row_count_limit(ROWS)
            .build();
        let pages = [7, 7, 9, 7];
        let values: Vec<i32> = pages.iter().flat_map(|&rank| [rank; ROWS]).collect();
        // Pieces end where pages do not.
        let (first, second) = values.split_at(ROWS + 50);
        let values = [first, second].map(|values| Arc::new(Int32Array::from(values.to_vec())) as ArrayRef);
        let (bytes, close) = chunk(&field, &schema.column(0), &properties, &values).unwrap().unwrap();
        assert!(bytes.len() < ROWS * size_of::<i32>(), "{} bytes are not compressed", bytes.len());
        let mut reader = SerializedPageReader::new(Arc::new(bytes), &close.metadata, pages.len() * ROWS, None).unwrap();
        for rank in pages {
            assert_eq!(reader.get_next_page().unwrap().unwrap().buffer()[..], *[rank; ROWS].to_byte_slice());
        }
        assert!(reader.get_next_page().unwrap().is_none());
    }
}
