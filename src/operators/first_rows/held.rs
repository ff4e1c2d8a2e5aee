//! Which rows are the first of their keys, found without sorting them.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, BooleanArray, BooleanBufferBuilder, UInt64Array};
use datafusion::arrow::compute::{filter_record_batch, interleave};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::row::{RowConverter, Rows, SortField};
use datafusion::common::Result;
use datafusion::common::hash_utils::{RandomState, create_hashes};

/// A row: the hash of its keys in the upper half, then 32 bits each for its batch and its place there.
type Entry = u128;

fn hash(entry: Entry) -> u64 {
    (entry >> 64) as u64
}

fn batch(entry: Entry) -> usize {
    (entry >> 32) as u32 as usize
}

fn row(entry: Entry) -> usize {
    entry as u32 as usize
}

/// Rows are divided by hashes of the same keys before; these are to differ from those.
const SEED: RandomState = RandomState::with_seed(0x6c61_6b65_7369_6465);

/// How many rows are compared at once.
const AT_ONCE: usize = 1 << 16;

/// Rows of which the first of each key are wanted.
pub struct Held {
    /// How to compare keys, and how to compare rows of equal keys.
    fields: [Vec<SortField>; 2],
    batches: Vec<RecordBatch>,
    /// The columns of keys, and then those that rows of equal keys are ordered by; of each, its part in every batch.
    values: Vec<Vec<ArrayRef>>,
    entries: Vec<Entry>,
}

impl Held {
    /// The most bytes that it needs for a row beside its columns: a growing vector may be half empty.
    pub const ROW_BYTES: usize = 2 * size_of::<Entry>();

    /// No rows yet.
    pub fn new(keys: Vec<SortField>, order: Vec<SortField>) -> Self {
        let values = vec![Vec::new(); keys.len() + order.len()];
        Self { fields: [keys, order], batches: Vec::new(), values, entries: Vec::new() }
    }

    /// Adds rows; `values` has the columns of their keys and then those that they are ordered by.
    pub fn push(&mut self, batch: RecordBatch, values: Vec<ArrayRef>) -> Result<()> {
        let mut hashes = vec![0; batch.num_rows()];
        create_hashes(&values[..self.fields[0].len()], &SEED, &mut hashes)?;
        let at = (self.batches.len() as Entry) << 32;
        self.entries.extend(hashes.iter().zip(0..).map(|(&hash, row)| Entry::from(hash) << 64 | at | row));
        self.values.iter_mut().zip(values).for_each(|(all, part)| all.push(part));
        self.batches.push(batch);
        Ok(())
    }

    /// All rows.
    pub fn into_batches(self) -> Vec<RecordBatch> {
        self.batches
    }

    /// The first row of each key with a further column that says so, batch by batch, as `schema` has them. Of rows that are
    /// equal in all that they are ordered by, the first that was added is the first.
    pub fn first(mut self, schema: &SchemaRef) -> Result<impl Iterator<Item = Result<RecordBatch>> + use<>> {
        let lost = self.lost()?;
        let schema = SchemaRef::clone(schema);
        Ok(self.batches.into_iter().zip(lost).map(move |(batch, lost)| {
            let batch = if lost.is_empty() { batch } else { without(&batch, &lost)? };
            let mut columns = batch.columns().to_vec();
            columns.push(Arc::new(UInt64Array::from_value(1, batch.num_rows())));
            Ok(RecordBatch::try_new(SchemaRef::clone(&schema), columns)?)
        }))
    }

    /// The rows of each batch that are not the first of their keys.
    fn lost(&mut self) -> Result<Vec<Vec<usize>>> {
        let mut entries = std::mem::take(&mut self.entries);
        entries.sort_unstable();
        let mut lost = vec![Vec::new(); self.batches.len()];
        let mut some = Vec::new();
        let is_hash_of = |other: Option<&Entry>, entry| other.is_some_and(|&other| hash(other) == hash(entry));
        for (at, &entry) in entries.iter().enumerate() {
            // Most keys have one row, and nothing has to be known of it.
            if is_hash_of(entries.get(at + 1), entry) || is_hash_of(at.checked_sub(1).map(|at| &entries[at]), entry) {
                some.push(entry);
            }
            if some.len() == AT_ONCE {
                // There may be more rows of the last hash.
                some = self.compare(&some, &mut lost)?;
            }
        }
        self.compare(&some, &mut lost)?;
        Ok(lost)
    }

    /// Compares rows, sorted by their hashes, and tells which are `lost`. Returns those of the last hash that are not.
    fn compare(&self, some: &[Entry], lost: &mut [Vec<usize>]) -> Result<Vec<Entry>> {
        if some.is_empty() {
            return Ok(Vec::new());
        }
        let (keys, order) = self.sortable(some)?;
        let mut places: Vec<usize> = (0..some.len()).collect();
        let mut first = Vec::new();
        for same_hash in places.chunk_by_mut(|&a, &b| hash(some[a]) == hash(some[b])) {
            let rank = |at: usize| (keys.row(at), order.as_ref().map(|order| order.row(at)), at);
            same_hash.sort_unstable_by(|&a, &b| rank(a).cmp(&rank(b)));
            first.clear();
            for same_key in same_hash.chunk_by(|&a, &b| keys.row(a) == keys.row(b)) {
                first.push(some[same_key[0]]);
                same_key[1..].iter().for_each(|&at| lost[batch(some[at])].push(row(some[at])));
            }
        }
        Ok(first)
    }

    /// The keys of some rows and what rows of equal keys are ordered by, if anything, in a form that compares as bytes.
    fn sortable(&self, some: &[Entry]) -> Result<(Rows, Option<Rows>)> {
        let places: Vec<(usize, usize)> = some.iter().map(|&entry| (batch(entry), row(entry))).collect();
        let of = |parts: &Vec<ArrayRef>| {
            let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
            interleave(&parts, &places)
        };
        let (keys, order) = self.values.split_at(self.fields[0].len());
        let rows = |fields: &[SortField], values: &[Vec<ArrayRef>]| -> Result<Rows> {
            let columns: Vec<ArrayRef> = values.iter().map(of).collect::<Result<_, _>>()?;
            Ok(RowConverter::new(fields.to_vec())?.convert_columns(&columns)?)
        };
        let order = (!order.is_empty()).then(|| rows(&self.fields[1], order)).transpose()?;
        Ok((rows(&self.fields[0], keys)?, order))
    }
}

/// A batch without some of its rows.
fn without(batch: &RecordBatch, rows: &[usize]) -> Result<RecordBatch> {
    let mut keep = BooleanBufferBuilder::new(batch.num_rows());
    keep.append_n(batch.num_rows(), true);
    rows.iter().for_each(|&row| keep.set_bit(row, false));
    Ok(filter_record_batch(batch, &BooleanArray::new(keep.finish(), None))?)
}
