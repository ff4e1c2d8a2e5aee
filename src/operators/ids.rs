//! Ids of any type, interned to compact numbers that do not depend on the order of input.

use std::cmp::Reverse;
use std::num::NonZeroU32;
use std::sync::Arc;

use datafusion::arrow::array::{
    AnyDictionaryArray, Array, ArrayRef, AsArray, BinaryArrayType, BinaryViewArray, GenericByteViewArray, Int64Array,
    StringArrayType, StringViewArray, UInt32Array, UInt64Array, new_empty_array,
};
use datafusion::arrow::compute::{cast, take};
use datafusion::arrow::datatypes::{ByteViewType, DataType, Field, Int64Type, Schema, UInt64Type};
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::common::{Result, exec_err, internal_datafusion_err, internal_err};
use datafusion::logical_expr::EmitTo;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;
use rayon::prelude::*;

use crate::kernels::texts::Texts;
use crate::kernels::words::{Words, count};

/// Gives each distinct id a number, in the order in which they come.
pub struct Interner {
    data_type: DataType,
    ids: Distinct,
    /// How often each id came that `ids` did not count: words only as keys of a dictionary, others always. May end before the
    /// last id.
    counts: Vec<u32>,
    dictionary: Dictionary,
}

/// The values of the dictionary that came last, with the number of each that was met; usually the next batch has it too.
#[derive(Default)]
struct Dictionary {
    values: Option<ArrayRef>,
    numbers: Vec<Option<NonZeroU32>>,
}

/// The distinct ids so far.
enum Distinct {
    /// Of whole numbers of 64 bits, with or without a sign.
    Words(Words),
    /// Of strings and bytes.
    Texts(Texts),
    /// Of any type that can be grouped.
    Groups(Box<dyn GroupValues>, Vec<usize>),
}

impl Interner {
    /// For ids of this type.
    pub fn try_new(data_type: &DataType) -> Result<Self> {
        let ids = if matches!(data_type, DataType::Int64 | DataType::UInt64) {
            Distinct::Words(Words::default())
        } else if data_type.is_string() || data_type.is_binary() {
            Distinct::Texts(Texts::default())
        } else {
            let schema = Arc::new(Schema::new(vec![Field::new("id", data_type.clone(), true)]));
            Distinct::Groups(new_group_values(schema, &GroupOrdering::None)?, Vec::new())
        };
        Ok(Self { data_type: data_type.clone(), ids, counts: Vec::new(), dictionary: Dictionary::default() })
    }

    /// The number of each of these ids, which may be keys of a dictionary of ids.
    pub fn intern(&mut self, ids: &ArrayRef) -> Result<Vec<u32>> {
        let codes = match (ids.as_any_dictionary_opt(), &self.ids) {
            (Some(ids), _) => self.intern_keys(ids)?,
            // Counted as they are looked up.
            (None, Distinct::Words(_)) => return self.intern_values(ids, 1),
            (None, _) => self.intern_values(ids, 1)?,
        };
        self.counts.resize(self.distinct(), 0);
        count(&codes, &mut self.counts);
        Ok(codes)
    }

    /// Looks up each value of the dictionary that occurs, and no value twice.
    fn intern_keys(&mut self, ids: &dyn AnyDictionaryArray) -> Result<Vec<u32>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let keys = ids.normalized_keys();
        let mut known = std::mem::take(&mut self.dictionary);
        if !known.values.as_ref().is_some_and(|values| values.to_data().ptr_eq(&ids.values().to_data())) {
            known = Dictionary { values: Some(Arc::clone(ids.values())), numbers: vec![None; ids.values().len()] };
        }
        let mut new: Vec<u32> =
            keys.iter().filter(|&&key| known.numbers[key].is_none()).map(|&key| key as u32).collect();
        new.sort_unstable();
        new.dedup();
        let values = take(ids.values(), &UInt32Array::from(new.clone()), None)?;
        for (key, number) in new.into_iter().zip(self.intern_values(&values, 0)?) {
            known.numbers[key as usize] = NonZeroU32::new(number + 1);
        }
        let number = |key: &usize| known.numbers[*key].map_or(0, |number| number.get() - 1);
        let numbers = keys.iter().map(number).collect();
        self.dictionary = known;
        Ok(numbers)
    }

    /// Looks up each value, which words count so many times.
    fn intern_values(&mut self, ids: &ArrayRef, times: u32) -> Result<Vec<u32>> {
        let codes = match &mut self.ids {
            Distinct::Words(words) => words.intern(words_of(ids), times),
            Distinct::Texts(texts) => intern_texts(texts, ids)?,
            Distinct::Groups(groups, scratch) => {
                scratch.clear();
                groups.intern(std::slice::from_ref(ids), scratch)?;
                scratch.iter().map(|&code| code as u32).collect()
            }
        };
        if self.distinct() >= u32::MAX as usize {
            return exec_err!("more than {} distinct ids", u32::MAX - 1);
        }
        Ok(codes)
    }

    /// The number of distinct ids.
    pub fn distinct(&self) -> usize {
        match &self.ids {
            Distinct::Words(words) => words.len(),
            Distinct::Texts(texts) => texts.len(),
            Distinct::Groups(groups, _) => groups.len(),
        }
    }

    /// The distinct ids by number, and how often each came.
    pub fn finish(self) -> Result<(ArrayRef, Vec<u32>)> {
        let (ids, mut counts): (ArrayRef, _) = match self.ids {
            Distinct::Words(words) => {
                let ids: ArrayRef = match self.data_type {
                    DataType::Int64 => {
                        Arc::new(Int64Array::from_iter_values(words.words().iter().map(|&word| word as i64)))
                    }
                    _ => Arc::new(UInt64Array::from_iter_values(words.words().iter().copied())),
                };
                (ids, words.counts())
            }
            Distinct::Texts(texts) => (texts_to_array(&texts, &self.data_type)?, Vec::new()),
            // Some kinds of groups cannot give out what they never held.
            Distinct::Groups(groups, _) if groups.is_empty() => (new_empty_array(&self.data_type), Vec::new()),
            Distinct::Groups(mut groups, _) => (groups.emit(EmitTo::All)?.swap_remove(0), Vec::new()),
        };
        counts.resize(counts.len().max(self.counts.len()), 0);
        counts.iter_mut().zip(self.counts).for_each(|(count, more)| *count = count.wrapping_add(more));
        Ok((ids, counts))
    }

    /// The bytes it holds.
    pub fn size(&self) -> usize {
        let ids = match &self.ids {
            Distinct::Words(words) => words.allocated(),
            Distinct::Texts(texts) => texts.allocated(),
            Distinct::Groups(groups, _) => groups.size(),
        };
        ids + (self.dictionary.numbers.capacity() + self.counts.capacity()) * size_of::<u32>()
    }
}

/// The type of ids themselves, where they may be given by keys of a dictionary.
pub fn value_type(ids: &DataType) -> DataType {
    match ids {
        DataType::Dictionary(_, values) => values.as_ref().clone(),
        other => other.clone(),
    }
}

/// Whole numbers of 64 bits, whatever their sign.
fn words_of(ids: &ArrayRef) -> &[u64] {
    match ids.data_type() {
        DataType::Int64 => ids.as_primitive::<Int64Type>().values().inner().typed_data(),
        _ => ids.as_primitive::<UInt64Type>().values(),
    }
}

/// The number of each string of an array of strings or bytes without NULLs.
fn intern_texts(texts: &mut Texts, ids: &ArrayRef) -> Result<Vec<u32>> {
    fn strings<'a>(texts: &mut Texts, values: impl StringArrayType<'a>) -> Vec<u32> {
        texts.intern((0..values.len()).map(|row| values.value(row).as_bytes()))
    }
    fn bytes<'a>(texts: &mut Texts, values: impl BinaryArrayType<'a>) -> Vec<u32> {
        texts.intern((0..values.len()).map(|row| values.value(row)))
    }
    fn views<T: ByteViewType>(texts: &mut Texts, values: &GenericByteViewArray<T>) -> Vec<u32> {
        let buffers: Vec<&[u8]> = values.data_buffers().iter().map(|buffer| &buffer[..]).collect();
        texts.intern_views(values.views().inner().as_chunks().0, &buffers)
    }
    Ok(match ids.data_type() {
        DataType::Utf8 => strings(texts, ids.as_string::<i32>()),
        DataType::LargeUtf8 => strings(texts, ids.as_string::<i64>()),
        DataType::Utf8View => views(texts, ids.as_string_view()),
        DataType::Binary => bytes(texts, ids.as_binary::<i32>()),
        DataType::LargeBinary => bytes(texts, ids.as_binary::<i64>()),
        DataType::BinaryView => views(texts, ids.as_binary_view()),
        DataType::FixedSizeBinary(_) => {
            let values = ids.as_fixed_size_binary();
            texts.intern((0..values.len()).map(|row| values.value(row)))
        }
        other => return internal_err!("{other} was taken for text"),
    })
}

fn texts_to_array(texts: &Texts, data_type: &DataType) -> Result<ArrayRef> {
    let values = (0..texts.len()).map(|number| texts.get(number));
    if data_type.is_string() {
        let strings = values.map(std::str::from_utf8).collect::<Result<Vec<_>, _>>();
        let strings = strings.map_err(|e| internal_datafusion_err!("a string is not UTF-8: {e}"))?;
        return Ok(cast(&StringViewArray::from_iter_values(strings), data_type)?);
    }
    Ok(cast(&BinaryViewArray::from_iter_values(values), data_type)?)
}

/// The numbers of ids: by falling count in what was ranked by, equal counts by id, until they are arranged otherwise.
pub struct Numbering {
    /// The distinct ids by number, in the type in which they go out.
    pub ids: ArrayRef,
    /// The place of each numbered id among all ids in order; what breaks ties.
    pub order: Vec<u32>,
    /// How often each numbered id occurs.
    pub counts: Vec<u64>,
}

impl Numbering {
    /// The ids in order.
    pub fn sorted(&self) -> Result<ArrayRef> {
        Ok(take(&self.ids, &UInt32Array::from(inverse(&self.order)), None)?)
    }

    /// The numbers of all ids in another order: of those of the same count by what they are grouped by, then by id.
    pub fn grouped(&self, group: &[u32]) -> Vec<u32> {
        // Equal counts stand together, by id: what sorts them by group and number needs no look at either.
        let mut keys: Vec<u64> = group.iter().zip(0..).map(|(&group, old)| u64::from(group) << 32 | old).collect();
        let count = |key: u64| self.counts[key as u32 as usize];
        keys.chunk_by_mut(|a, b| count(*a) == count(*b)).for_each(|same| same.par_sort_unstable());
        keys.into_iter().map(|key| key as u32).collect()
    }

    /// Numbers ids anew, given the old number of each new one. Returns the new number of each old one.
    pub fn arrange(&mut self, arranged: Vec<u32>) -> Result<Vec<u32>> {
        self.order = arranged.iter().map(|&old| self.order[old as usize]).collect();
        self.counts = arranged.iter().map(|&old| self.counts[old as usize]).collect();
        let numbers = inverse(&arranged);
        self.ids = take(&self.ids, &UInt32Array::from(arranged), None)?;
        Ok(numbers)
    }
}

/// Where each number stands in an order of all of them.
pub fn inverse(order: &[u32]) -> Vec<u32> {
    let mut places = vec![0; order.len()];
    order.iter().zip(0..).for_each(|(&number, place)| places[number as usize] = place);
    places
}

/// All ids of one kind, from several columns; columns are added, then numbered together.
pub struct Space {
    interner: Interner,
}

impl Space {
    /// For ids of this type.
    pub fn try_new(data_type: &DataType) -> Result<Self> {
        Ok(Self { interner: Interner::try_new(data_type)? })
    }

    /// Adds ids that were interned apart, and tells their numbers in this space.
    pub fn add(&mut self, distinct: &ArrayRef) -> Result<Vec<u32>> {
        // The first to come are all new; a table that grows step by step is filled several times over.
        match &mut self.interner.ids {
            Distinct::Words(words) if words.is_empty() => words.reserve(words_of(distinct)),
            Distinct::Texts(texts) if texts.is_empty() => texts.reserve(distinct.len()),
            _ => (),
        }
        self.interner.intern(distinct)
    }

    /// The number of ids so far.
    pub fn size(&self) -> usize {
        self.interner.distinct()
    }

    /// Numbers the ids anew, by falling `ranked`, on the threads of the current pool. Returns the numbering, its ids cast to
    /// `out`, and the new number of each old one.
    pub fn number(self, counts: &[u64], ranked: &[u64], out: &DataType) -> Result<(Numbering, Vec<u32>)> {
        let (ids, _) = self.interner.finish()?;
        let place = places(&ids)?;
        let keys = ranked.iter().zip(&place).zip(0..);
        let mut keys: Vec<_> = keys.map(|((&rank, &place), old)| (Reverse(rank), place, old)).collect();
        keys.par_sort_unstable();
        let by_count: Vec<u32> = keys.into_iter().map(|(_, _, old)| old).collect();
        let numbers = inverse(&by_count);
        let order = by_count.iter().map(|&old| place[old as usize]).collect();
        let counts = by_count.iter().map(|&old| counts[old as usize]).collect();
        let ids = take(&ids, &UInt32Array::from(by_count), None)?;
        let ids = if ids.data_type() == out { ids } else { cast(&ids, out)? };
        Ok((Numbering { ids, order, counts }, numbers))
    }
}

/// The place of each id when all are sorted. Works on the threads of the current pool.
pub fn places(ids: &ArrayRef) -> Result<Vec<u32>> {
    let converter = RowConverter::new(vec![SortField::new(ids.data_type().clone())])?;
    let rows = converter.convert_columns(std::slice::from_ref(ids))?;
    // Whole rows are far apart in memory, and most are told apart by how they begin.
    let begin = |row: &[u8]| {
        let mut bytes = [0; size_of::<u128>()];
        let length = row.len().min(bytes.len());
        bytes[..length].copy_from_slice(&row[..length]);
        u128::from_be_bytes(bytes)
    };
    let mut sorted: Vec<(u128, u32)> = rows.iter().zip(0..).map(|(row, old)| (begin(row.data()), old)).collect();
    sorted.par_sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| rows.row(a.1 as usize).cmp(&rows.row(b.1 as usize))));
    let sorted: Vec<u32> = sorted.into_iter().map(|(_, old)| old).collect();
    Ok(inverse(&sorted))
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{DictionaryArray, Int32Array, StringArray};
    use datafusion::arrow::datatypes::Int32Type;

    use super::*;

    /// Whatever way ids come, each has one number, and all times that it came are counted.
    #[test]
    fn ids_are_counted_by_value_and_by_key() {
        let values: [ArrayRef; 3] = [
            Arc::new(StringArray::from(vec!["b", "unused", "a", "b"])),
            Arc::new(Int64Array::from(vec![7, 8, -1, 7])),
            Arc::new(Int32Array::from(vec![7, 8, -1, 7])),
        ];
        for values in values {
            let mut interner = Interner::try_new(values.data_type()).unwrap();
            let keys = |keys: Vec<i32>| -> ArrayRef {
                Arc::new(DictionaryArray::<Int32Type>::new(keys.into(), Arc::clone(&values)))
            };
            let plain = take(&values, &UInt32Array::from(vec![2, 0, 2]), None).unwrap();
            // The first and the last value of the dictionary are equal, and so is their number.
            let batches = [plain, keys(vec![0, 3, 2, 0]), keys(vec![3, 3]), keys(vec![]), values.slice(0, 1)];
            let numbers: Vec<_> = batches.iter().map(|ids| interner.intern(ids).unwrap()).collect();
            assert_eq!(numbers, [vec![0, 1, 0], vec![1, 1, 0, 1], vec![1, 1], vec![], vec![1]]);
            let (ids, counts) = interner.finish().unwrap();
            assert_eq!(&ids, &take(&values, &UInt32Array::from(vec![2, 0]), None).unwrap());
            assert_eq!(counts, [3, 7]);
        }
    }
}
