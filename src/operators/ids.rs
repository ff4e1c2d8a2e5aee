//! Ids of any type, interned to compact numbers that do not depend on the order of input.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, UInt32Array, new_empty_array};
use datafusion::arrow::compute::{cast, take};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::row::{RowConverter, SortField};
use datafusion::common::{Result, exec_err};
use datafusion::logical_expr::EmitTo;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

/// Gives each distinct id a number, in the order in which they come.
pub struct Interner {
    data_type: DataType,
    groups: Box<dyn GroupValues>,
    /// How often each id came.
    counts: Vec<u32>,
    scratch: Vec<usize>,
}

impl Interner {
    /// For ids of this type.
    pub fn try_new(data_type: &DataType) -> Result<Self> {
        let schema = Arc::new(Schema::new(vec![Field::new("id", data_type.clone(), true)]));
        let groups = new_group_values(schema, &GroupOrdering::None)?;
        Ok(Self { data_type: data_type.clone(), groups, counts: Vec::new(), scratch: Vec::new() })
    }

    /// The number of each of these ids.
    pub fn intern(&mut self, ids: &ArrayRef) -> Result<Vec<u32>> {
        self.scratch.clear();
        self.groups.intern(std::slice::from_ref(ids), &mut self.scratch)?;
        if self.groups.len() >= u32::MAX as usize {
            return exec_err!("more than {} distinct ids", u32::MAX - 1);
        }
        self.counts.resize(self.groups.len(), 0);
        let counts = &mut self.counts[..];
        let count = |&code: &usize| {
            counts[code] += 1;
            code as u32
        };
        Ok(self.scratch.iter().map(count).collect())
    }

    /// The distinct ids by number, and how often each came.
    pub fn finish(mut self) -> Result<(ArrayRef, Vec<u32>)> {
        if self.groups.is_empty() {
            // Some kinds of groups cannot give out what they never held.
            return Ok((new_empty_array(&self.data_type), self.counts));
        }
        Ok((self.groups.emit(EmitTo::All)?.swap_remove(0), self.counts))
    }

    /// The bytes it holds.
    pub fn size(&self) -> usize {
        self.groups.size()
    }
}

/// The final numbers of ids: by falling count, equal counts by id.
pub struct Numbering {
    /// The distinct ids by number, in the type in which they go out.
    pub ids: ArrayRef,
    /// The place of each numbered id among all ids in order; what breaks ties.
    pub order: Vec<u32>,
    /// How often each numbered id occurs.
    pub counts: Vec<u64>,
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
        self.interner.intern(distinct)
    }

    /// The number of ids so far.
    pub fn size(&self) -> usize {
        self.interner.groups.len()
    }

    /// Numbers the ids anew. Returns the numbering, its ids cast to `out`, and the new number of each old one.
    pub fn number(self, counts: &[u64], out: &DataType) -> Result<(Numbering, Vec<u32>)> {
        let (ids, _) = self.interner.finish()?;
        let place = places(&ids)?;
        let mut by_count: Vec<u32> = (0..ids.len() as u32).collect();
        by_count.sort_unstable_by_key(|&old| (std::cmp::Reverse(counts[old as usize]), place[old as usize]));
        let mut number = vec![0u32; ids.len()];
        for (new, &old) in by_count.iter().enumerate() {
            number[old as usize] = new as u32;
        }
        let order = by_count.iter().map(|&old| place[old as usize]).collect();
        let counts = by_count.iter().map(|&old| counts[old as usize]).collect();
        let ids = take(&ids, &UInt32Array::from(by_count), None)?;
        let ids = if ids.data_type() == out { ids } else { cast(&ids, out)? };
        Ok((Numbering { ids, order, counts }, number))
    }
}

/// The place of each id when all are sorted.
fn places(ids: &ArrayRef) -> Result<Vec<u32>> {
    let converter = RowConverter::new(vec![SortField::new(ids.data_type().clone())])?;
    let rows = converter.convert_columns(std::slice::from_ref(ids))?;
    let mut sorted: Vec<u32> = (0..ids.len() as u32).collect();
    sorted.sort_unstable_by(|&a, &b| rows.row(a as usize).cmp(&rows.row(b as usize)));
    let mut place = vec![0u32; ids.len()];
    for (at, &id) in sorted.iter().enumerate() {
        place[id as usize] = at as u32;
    }
    Ok(place)
}
