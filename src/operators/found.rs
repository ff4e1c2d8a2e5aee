//! Lists of neighbors that were found, handed out by all partitions.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::arrow::array::{Array, ArrayRef, Float32Array, Int32Array, UInt32Array};
use datafusion::arrow::compute::take;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::{Column, Result, internal_err};
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{Expr, ExprFunctionExt, LogicalPlan, LogicalPlanBuilder, cast, lit};

use super::ids::Numbering;
use super::keys;
use super::node::{Built, Worker, rows_per_block};
use crate::kernels::topk::{Candidates, Lists};

/// The columns of a neighbor table for a column of ids of this name and type; with `keyed`, ids are [`keys`].
pub fn schema(id_name: &str, id_type: &DataType, keyed: bool) -> SchemaRef {
    let [id, neighbor] = match keyed {
        true => [keys::field_of_runs(id_name, id_type), keys::field("neighbor_id", id_type)],
        false => [id_name, "neighbor_id"].map(|name| Field::new(name, id_type.clone(), false)),
    };
    let [score, rank] =
        [("score", DataType::Float32), ("rank", DataType::Int32)].map(|(name, kind)| Field::new(name, kind, false));
    Arc::new(Schema::new(vec![id, neighbor, score, rank]))
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

    /// The ids of these lists, as the schema has them: of whom they are, and of those that are in them.
    fn ids_of(&self, rows: Range<usize>, lengths: &[usize], places: Vec<u32>) -> Result<[ArrayRef; 2]> {
        let entities = &self.places[rows];
        if keys::are_in(self.schema.field(0)) {
            return Ok([keys::runs(entities.iter().copied(), lengths, &self.ids)?, keys::each(places, &self.ids)?]);
        }
        let mut of_each = Vec::with_capacity(places.len());
        entities.iter().zip(lengths).for_each(|(&place, length)| of_each.resize(of_each.len() + length, place));
        let at = |places: Vec<u32>| take(&self.ids, &UInt32Array::from(places), None);
        Ok([at(of_each)?, at(places)?])
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
        Box::new(HandingOut { found: self, ranked: Vec::new(), ranks: Vec::<i32>::new().into() })
    }
}

struct HandingOut {
    found: Arc<Found>,
    /// The ranks in the lists of the last block, which are as long as these. Most lists are full, so that the next block's are
    /// the same.
    ranks: Int32Array,
    ranked: Vec<usize>,
}

impl HandingOut {
    fn ranks(&mut self, lengths: Vec<usize>) -> ArrayRef {
        if self.ranked != lengths {
            let mut ranks = Vec::with_capacity(lengths.iter().sum());
            lengths.iter().for_each(|&length| ranks.extend(1..=length as i32));
            (self.ranks, self.ranked) = (ranks.into(), lengths);
        }
        Arc::new(self.ranks.clone())
    }
}

impl Worker for HandingOut {
    fn run(&mut self, block: usize) -> Result<(RecordBatch, usize)> {
        let found = Arc::clone(&self.found);
        let rows = rows_per_block(found.k);
        let rows = block * rows..(block * rows + rows).min(found.ids.len());
        let Lists { lengths, places, scores } = found.lists(rows.clone());
        let [entities, neighbors] = found.ids_of(rows, &lengths, places)?;
        let columns = vec![entities, neighbors, Arc::new(Float32Array::from(scores)) as ArrayRef, self.ranks(lengths)];
        Ok((RecordBatch::try_new(Arc::clone(&found.schema), columns)?, 0))
    }
}
