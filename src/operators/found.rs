//! Lists of neighbors that were found, handed out by all partitions.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::arrow::array::{Array, ArrayRef, DictionaryArray, Float32Array, Int32Array, UInt32Array};
use datafusion::arrow::compute::take;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::{Column, Result, internal_err};
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, cast, lit};

use super::ids::Numbering;
use super::node::{Built, Worker, rows_per_block};
use crate::kernels::topk::{Candidates, Lists};

/// The columns of a neighbor table for a column of ids of this name and type; with `keys`, ids are keys of a dictionary of
/// them in order.
pub fn schema(id_name: &str, id_type: &DataType, keys: bool) -> SchemaRef {
    let id_type = match keys {
        true => DataType::Dictionary(Box::new(DataType::UInt32), Box::new(id_type.clone())),
        false => id_type.clone(),
    };
    let id = |name| Field::new(name, id_type.clone(), false).with_dict_is_ordered(keys);
    Arc::new(Schema::new(vec![
        id(id_name),
        id("neighbor_id"),
        Field::new("score", DataType::Float32, false),
        Field::new("rank", DataType::Int32, false),
    ]))
}

/// Whether ids of this type can be given by keys; those that are given so already have a dictionary of their own.
pub fn may_be_keyed(id_type: &DataType) -> bool {
    !matches!(id_type, DataType::Dictionary(..))
}

/// The plan of the best `k` rows of each id of neighbor tables that were found apart from each other.
pub fn best(lists: LogicalPlan, k: usize) -> Result<LogicalPlan> {
    let columns: Vec<Expr> = lists.schema().columns().into_iter().map(Expr::Column).collect();
    let [id, neighbor, score, _] = columns.as_slice() else {
        return internal_err!("a neighbor table of {} columns", columns.len());
    };
    let order = vec![score.clone().sort(false, false), neighbor.clone().sort(true, false)];
    let place = row_number().partition_by(vec![id.clone()]).order_by(order).build()?;
    let placed = Expr::Column(Column::from_name(place.schema_name().to_string()));
    let rank = cast(placed.clone(), DataType::Int32).alias("rank");
    LogicalPlanBuilder::from(lists)
        .window(vec![place])?
        .filter(placed.lt_eq(lit(u64::try_from(k).unwrap_or(u64::MAX))))?
        .project(vec![id.clone(), neighbor.clone(), score.clone(), rank])?
        .build()
}

/// Tells threads that compute to stop, once nobody waits for them.
#[derive(Default)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Set when this is dropped.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The lists of a neighbor table.
pub struct Found {
    candidates: Candidates,
    /// All ids in order.
    ids: ArrayRef,
    /// The place of each entity among them.
    places: Vec<u32>,
    k: usize,
    /// Whether candidates are kept by strength, with the sign beside the number.
    signed: bool,
    schema: SchemaRef,
    _memory: MemoryReservation,
}

impl Found {
    /// Lists of at most `k` candidates whose scores are what they were kept by; ids go out as `schema` says.
    pub fn new(
        candidates: Candidates,
        entities: Numbering,
        k: usize,
        schema: SchemaRef,
        memory: MemoryReservation,
    ) -> Result<Self> {
        let ids = entities.sorted()?;
        Ok(Self { candidates, ids, places: entities.order, k, signed: false, schema, _memory: memory })
    }

    /// Candidates are numbered as [`crate::kernels::ease::signed`] does.
    pub fn signed(self) -> Self {
        Self { signed: true, ..self }
    }

    /// The ids at these places, as the schema has them.
    fn ids_at(&self, places: Vec<u32>) -> Result<ArrayRef> {
        let places = UInt32Array::from(places);
        if self.schema.field(0).dict_is_ordered() == Some(true) {
            return Ok(Arc::new(DictionaryArray::try_new(places, Arc::clone(&self.ids))?));
        }
        Ok(take(&self.ids, &places, None)?)
    }

    /// The lists of a range of entities, best first.
    fn lists(&self, rows: Range<usize>) -> Lists {
        let mut lists = self.candidates.take_lists(rows);
        if self.signed {
            let mut start = 0;
            for &length in &lists.lengths {
                let own = start..start + length;
                give_signs(&mut lists.places[own.clone()], &mut lists.scores[own]);
                start += length;
            }
        }
        lists
    }
}

/// Turns a list by strength into one by score. An id and its negative stand at places that follow each other.
fn give_signs(places: &mut [u32], scores: &mut [f32]) {
    let signed = places.iter().zip(&*scores).map(|(&place, &strength)| {
        let negative = place % 2 == 1;
        (if negative { -strength } else { strength }, place / 2)
    });
    let mut list: Vec<(f32, u32)> = signed.collect();
    list.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    for ((place, score), signed) in places.iter_mut().zip(scores).zip(list) {
        (*score, *place) = signed;
    }
}

impl Built for Found {
    fn blocks(&self) -> usize {
        self.ids.len().div_ceil(rows_per_block(self.k))
    }

    fn worker_bytes(&self) -> usize {
        0
    }

    fn worker(self: Arc<Self>) -> Box<dyn Worker> {
        Box::new(HandingOut(self))
    }
}

struct HandingOut(Arc<Found>);

impl Worker for HandingOut {
    fn run(&mut self, block: usize) -> Result<(RecordBatch, usize)> {
        let found = &*self.0;
        let rows = rows_per_block(found.k);
        let rows = block * rows..(block * rows + rows).min(found.ids.len());
        let lists = found.lists(rows.clone());
        let length = lists.places.len();
        let (mut entity, mut ranks) = (Vec::with_capacity(length), Vec::with_capacity(length));
        for (row, &length) in rows.zip(&lists.lengths) {
            entity.resize(entity.len() + length, found.places[row]);
            ranks.extend(1..=length as i32);
        }
        let columns: Vec<ArrayRef> = vec![
            found.ids_at(entity)?,
            found.ids_at(lists.places)?,
            Arc::new(Float32Array::from(lists.scores)),
            Arc::new(Int32Array::from(ranks)),
        ];
        Ok((RecordBatch::try_new(Arc::clone(&found.schema), columns)?, 0))
    }
}
