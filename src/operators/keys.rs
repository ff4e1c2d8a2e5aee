//! Ids as keys of a dictionary in order, which operators hand out to who writes lists: nothing has to be looked up then.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, DictionaryArray, Int32Array, RunArray, UInt32Array};
use datafusion::arrow::datatypes::{DataType, Field, Int32Type};
use datafusion::common::Result;

/// A column of keys of ids of this type.
pub fn field(name: &str, id_type: &DataType) -> Field {
    Field::new(name, dictionary(id_type), false).with_dict_is_ordered(true)
}

/// The same where most keys come several times in a row: each is told once a run.
pub fn field_of_runs(name: &str, id_type: &DataType) -> Field {
    // As arrays of runs name their parts.
    let ends = Field::new("run_ends", DataType::Int32, false);
    let values = Field::new("values", dictionary(id_type), true).with_dict_is_ordered(true);
    Field::new(name, DataType::RunEndEncoded(Arc::new(ends), Arc::new(values)), false)
}

fn dictionary(id_type: &DataType) -> DataType {
    DataType::Dictionary(Box::new(DataType::UInt32), Box::new(id_type.clone()))
}

/// Whether a column is one of keys of a dictionary in order, in runs or not.
pub fn are_in(field: &Field) -> bool {
    let ordered = match field.data_type() {
        DataType::RunEndEncoded(_, values) => values.dict_is_ordered(),
        _ => field.dict_is_ordered(),
    };
    ordered == Some(true)
}

/// The bytes that keys take, but for their dictionary, which is held by the operator that hands them out.
pub fn bytes(keys: &ArrayRef) -> usize {
    match keys.as_any().downcast_ref::<RunArray<Int32Type>>() {
        Some(runs) => runs.values().len() * (size_of::<i32>() + size_of::<u32>()),
        None => keys.len() * size_of::<u32>(),
    }
}

/// Keys of these ids, which are in order.
pub fn each(keys: Vec<u32>, ids: &ArrayRef) -> Result<ArrayRef> {
    Ok(Arc::new(DictionaryArray::try_new(UInt32Array::from(keys), Arc::clone(ids))?))
}

/// Keys of these ids, each as many times as its length says.
pub fn runs(keys: impl Iterator<Item = u32>, lengths: &[usize], ids: &ArrayRef) -> Result<ArrayRef> {
    let (mut ends, mut of_runs, mut end) = (Vec::new(), Vec::new(), 0);
    for (key, &length) in keys.zip(lengths).filter(|(_, length)| **length > 0) {
        end += length as i32;
        ends.push(end);
        of_runs.push(key);
    }
    let runs = RunArray::<Int32Type>::try_new(&Int32Array::from(ends), &UInt32Array::from(of_runs.clone()))?;
    // An array of runs has its values taken apart and put together again where it is made, so that they would not be known any
    // more by where they are.
    Ok(Arc::new(runs.with_values(each(of_runs, ids)?)))
}
