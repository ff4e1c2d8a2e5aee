//! From histories and neighbors to a scoring, and from its findings to rows.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{Array, ArrayRef, Float32Array, Int32Array, ListArray, StructArray, UInt32Array};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::compute::take;
use datafusion::arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::{Result, exec_err};
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::physical_plan::metrics::MetricBuilder;
use serde::{Deserialize, Serialize};

use super::IdTypes;
use crate::kernels::csr::Csr;
use crate::kernels::rows::Rows;
use crate::kernels::scoring::{Recommendations, Score, Scoring, Side};
use crate::kernels::topk::Order;
use crate::operators::codec::encode;
use crate::operators::collect::{Chunk, Columns, collect, matrix, number_by};
use crate::operators::ids::Numbering;
use crate::operators::input_rows::InputRows;
use crate::operators::node::{BLOCKS_PER_THREAD, Built, Resources, Task, Worker, on_pool, rows_per_block};
use crate::operators::sorted::{fit, largest, offsets_of, spill_rows};
use crate::operators::spill::from_kernel;

/// The settings of a call.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Settings {
    pub side: Side,
    pub k: usize,
    pub exclude_seen: bool,
    pub reasons: usize,
    pub normalize: bool,
}

/// Which inputs are masks, and whether they hold pairs.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Parts {
    pub exclude: Option<(usize, bool)>,
    pub candidates: Option<(usize, bool)>,
}

const HISTORY: usize = 0;
const NEIGHBORS: usize = 1;

/// `recommend` with all its settings fixed. Its inputs are the history, the neighbors, and the masks there are.
#[derive(Debug, Serialize, Deserialize)]
pub struct RecommendTask {
    columns: Vec<Columns>,
    types: IdTypes,
    settings: Settings,
    parts: Parts,
}

impl RecommendTask {
    pub(super) fn new(columns: Vec<Columns>, types: IdTypes, settings: Settings, parts: Parts) -> Self {
        Self { columns, types, settings, parts }
    }
}

/// One reason: the item of the history or the neighboring user, and what it adds to the score.
fn reason_field(types: &IdTypes, side: Side) -> Arc<Field> {
    let id_type = match side {
        Side::Items => types.item.clone(),
        Side::Users => types.user.clone(),
    };
    let fields =
        Fields::from(vec![Field::new("id", id_type, false), Field::new("contribution", DataType::Float32, false)]);
    Arc::new(Field::new("item", DataType::Struct(fields), false))
}

#[async_trait]
impl Task for RecommendTask {
    fn name(&self) -> &'static str {
        "Recommend"
    }

    fn settings(&self) -> String {
        let s = &self.settings;
        let neighbors = match s.side {
            Side::Items => "items",
            Side::Users => "users",
        };
        let mut text = format!("neighbors={neighbors}, k={}, exclude_seen={}", s.k, s.exclude_seen);
        text += &format!(", normalize={}, explain={}", s.normalize, s.reasons);
        for (name, part) in [("exclude", self.parts.exclude), ("candidates", self.parts.candidates)] {
            match part {
                Some((_, true)) => text += &format!(", {name}=pairs"),
                Some((_, false)) => text += &format!(", {name}=items"),
                None => {}
            }
        }
        let weight = self.columns[HISTORY].weight.as_deref().unwrap_or("1");
        text += &format!(", weight={weight}");
        text + if self.columns[HISTORY].skip_nulls { ", on_null=skip" } else { "" }
    }

    fn schema(&self) -> SchemaRef {
        let mut fields = vec![
            Field::new("user_id", self.types.user.clone(), false),
            Field::new("item_id", self.types.item.clone(), false),
            Field::new("score", DataType::Float32, false),
            Field::new("rank", DataType::Int32, false),
        ];
        if self.settings.reasons > 0 {
            let reason = reason_field(&self.types, self.settings.side);
            fields.push(Field::new("because", DataType::List(reason), false));
        }
        Arc::new(Schema::new(fields))
    }

    fn encode(&self) -> Result<Vec<u8>> {
        encode(self)
    }

    /// Everything that is looked up by user is by users' rows.
    fn divisible(&self) -> Vec<Option<usize>> {
        let by_user = by_user(self.settings.side, self.parts);
        (0..self.columns.len()).map(|table| by_user.contains(&table).then_some(0)).collect()
    }

    async fn build(&self, inputs: Vec<InputRows>, resources: Resources) -> Result<Arc<dyn Built>> {
        let Resources { threads, disk, memory, .. } = &resources;
        let mut tables: Vec<Vec<Chunk>> = Vec::new();
        for (rows, columns) in inputs.into_iter().zip(&self.columns) {
            // The next table wants room, too: those before it stay in memory while that is as much as they take.
            let held = memory.size();
            if memory.try_grow(held).is_ok() {
                memory.shrink(held);
            } else {
                for chunk in tables.iter_mut().flatten() {
                    memory.shrink(chunk.spill(disk)?);
                }
            }
            tables.push(collect(rows, columns, *threads, memory, Some(Arc::clone(disk))).await?);
        }
        let (types, settings, parts, schema) = (self.types.clone(), self.settings, self.parts, self.schema());
        let threads = resources.threads;
        let build = move || Lists::build(tables, &types, settings, parts, schema, resources);
        Ok(Arc::new(on_pool(threads, build).await?))
    }
}

/// The shared state of the scoring.
struct Lists {
    scoring: Arc<Scoring>,
    users: Numbering,
    items: Numbering,
    bounds: Vec<usize>,
    schema: SchemaRef,
    _memory: MemoryReservation,
}

impl Lists {
    fn build(
        mut tables: Vec<Vec<Chunk>>,
        types: &IdTypes,
        settings: Settings,
        parts: Parts,
        schema: SchemaRef,
        resources: Resources,
    ) -> Result<Self> {
        let (first, second) = match settings.side {
            Side::Items => (HISTORY, NEIGHBORS),
            Side::Users => (NEIGHBORS, HISTORY),
        };
        // Sums are added up by falling count of the links: it is taken from the one table that each process has whole.
        let mut number = |kind, value_type: DataType, id_type| {
            let places = columns_of(kind, settings.side, parts);
            number_by(&mut tables, second, &places, &value_type, id_type)
        };
        let users = number(Kind::User, types.user_values(), &types.user)?;
        let items = number(Kind::Item, types.item_values(), &types.item)?;
        let ids = users.ids.get_array_memory_size() + items.ids.get_array_memory_size();
        let mut matrices = Matrices {
            tables: &mut tables,
            users: users.ids.len(),
            items: items.ids.len(),
            offsets: offsets_of(&users.counts),
            fixed: ids + users.ids.len() * 2 * size_of::<u64>(),
            blocks: None,
            resources: &resources,
        };
        let (exclude, candidates) = (pairs(parts.exclude), pairs(parts.candidates));
        matrices.make_room(second, &by_user(settings.side, parts))?;
        let (link_order, links) = match settings.side {
            Side::Items => (items.order.clone(), items.ids.len()),
            Side::Users => (users.order.clone(), users.ids.len()),
        };
        let mut b = matrices.matrix(second, 0..links, items.ids.len())?;
        // What holds for all users need not be looked up for each.
        for (part, kept) in [(parts.exclude, false), (parts.candidates, true)] {
            if let Some((table, false)) = part {
                let named = matrices.named_items(table)?;
                b.retain_columns(|item| named[item as usize] == kept);
            }
        }
        let scoring = Arc::new(Scoring {
            a: matrices.rows(first, links)?,
            b,
            side: settings.side,
            k: settings.k,
            normalize: settings.normalize,
            reasons: settings.reasons,
            exclude_seen: settings.exclude_seen,
            exclude: exclude.map(|table| matrices.rows(table, items.ids.len())).transpose()?,
            candidates: candidates.map(|table| matrices.rows(table, items.ids.len())).transpose()?,
            item_order: Order::new(items.order.clone()),
            link_order,
        });
        let blocks = matrices.blocks.as_ref().map_or(1, |bounds| bounds.len() - 1);
        let Resources { memory, metrics, shares, .. } = resources;
        let count = |name: &'static str, value| MetricBuilder::new(&metrics).counter(name, 0).add(value);
        count("users", users.ids.len());
        count("items", items.ids.len());
        count("blocks", blocks);
        drop(tables);
        memory.try_resize(ids + scoring.bytes())?;
        // Cut the same wherever it is built, as each process does some of the blocks.
        let bounds = scoring.blocks(rows_per_block(settings.k), shares.of * BLOCKS_PER_THREAD).map_err(from_kernel)?;
        Ok(Self { scoring, users, items, bounds, schema, _memory: memory })
    }
}

/// Makes matrices of numbered tables: in memory where there is room for all of them. Else those whose rows are users go to
/// files, sorted a block of users at a time, and are read from there by whoever scores these users.
struct Matrices<'a> {
    tables: &'a mut Vec<Vec<Chunk>>,
    users: usize,
    items: usize,
    /// Where each user's entries would begin if those of all tables were in one.
    offsets: Vec<usize>,
    /// The bytes of ids and of what is kept for each.
    fixed: usize,
    /// Blocks of users, where rows go to files.
    blocks: Option<Vec<usize>>,
    resources: &'a Resources,
}

impl Matrices<'_> {
    /// Reserves what the matrices need: the one that is looked up by links, and those looked up by users.
    fn make_room(&mut self, by_link: usize, by_user: &[usize]) -> Result<()> {
        let held = |tables: &[Vec<Chunk>]| tables.iter().flatten().map(Chunk::bytes).sum::<usize>();
        let rows = |table: usize| self.tables[table].iter().map(Chunk::rows).sum::<usize>();
        let codes = |chunks: &Vec<Chunk>| chunks.iter().map(|chunk| chunk.distinct(0)).sum();
        let beside = Csr::build_bytes_for(self.tables.iter().map(codes).max().unwrap_or(0));
        let fixed = self.fixed + beside + Csr::bytes_for(self.users.max(self.items), rows(by_link));
        let whole = by_user.iter().map(|&table| Csr::bytes_for(self.users, rows(table))).sum::<usize>();
        if self.resources.memory.try_resize(held(self.tables) + fixed + whole).is_ok() {
            return Ok(());
        }
        for chunk in self.tables.iter_mut().flatten() {
            chunk.spill(&self.resources.disk)?;
        }
        let fixed = held(self.tables) + fixed + by_user.len() * self.offsets.len() * size_of::<usize>();
        let needs = |bounds: &[usize]| fixed + largest(&self.offsets, bounds) * size_of::<u64>();
        self.blocks = Some(fit(&self.resources.memory, &self.offsets, ("recommend", "users"), needs)?);
        Ok(())
    }

    fn matrix(&self, table: usize, rows: Range<usize>, columns: usize) -> Result<Csr> {
        matrix(&self.tables[table], 0, 1, rows, columns)
    }

    /// The rows of users in a table.
    fn rows(&self, table: usize, columns: usize) -> Result<Rows> {
        let Some(blocks) = &self.blocks else {
            return Ok(self.matrix(table, 0..self.users, columns)?.into());
        };
        let build = |rows| self.matrix(table, rows, columns);
        let (file, offsets) = spill_rows(&self.resources.disk, blocks, build)?;
        Ok(Rows::new(Box::new(file), offsets))
    }

    /// Which items a table of items names.
    fn named_items(&self, table: usize) -> Result<Vec<bool>> {
        let mut named = vec![false; self.items];
        for chunk in &self.tables[table] {
            chunk.each_number(0, |item| named[item as usize] = true)?;
        }
        Ok(named)
    }
}

/// The table of a mask of pairs.
fn pairs(part: Option<(usize, bool)>) -> Option<usize> {
    part.filter(|(_, pairs)| *pairs).map(|(table, _)| table)
}

/// The tables whose rows are looked up by user.
fn by_user(side: Side, parts: Parts) -> Vec<usize> {
    let first = match side {
        Side::Items => HISTORY,
        Side::Users => NEIGHBORS,
    };
    [Some(first), pairs(parts.exclude), pairs(parts.candidates)].into_iter().flatten().collect()
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    User,
    Item,
}

/// The (table, column) places that hold ids of a kind.
fn columns_of(kind: Kind, side: Side, parts: Parts) -> Vec<(usize, usize)> {
    let mut places = vec![(HISTORY, if kind == Kind::User { 0 } else { 1 })];
    if (side == Side::Items) == (kind == Kind::Item) {
        places.extend([(NEIGHBORS, 0), (NEIGHBORS, 1)]);
    }
    for (table, pairs) in [parts.exclude, parts.candidates].into_iter().flatten() {
        match (pairs, kind) {
            (true, Kind::User) => places.push((table, 0)),
            (true, Kind::Item) => places.push((table, 1)),
            (false, Kind::Item) => places.push((table, 0)),
            (false, Kind::User) => {}
        }
    }
    places
}

impl Built for Lists {
    fn blocks(&self) -> usize {
        self.bounds.len().saturating_sub(1)
    }

    fn worker_bytes(&self) -> usize {
        self.scoring.scorer_bytes(&self.bounds)
    }

    fn worker(self: Arc<Self>) -> Box<dyn Worker> {
        let scorer = self.scoring.scorer();
        Box::new(ListWorker { lists: self, scorer })
    }
}

struct ListWorker {
    lists: Arc<Lists>,
    scorer: Box<dyn Score>,
}

impl Worker for ListWorker {
    fn run(&mut self, block: usize) -> Result<(RecordBatch, usize)> {
        let lists = &*self.lists;
        let mut found = Recommendations::default();
        let users = lists.bounds[block]..lists.bounds[block + 1];
        self.scorer.score(users, &mut found).map_err(from_kernel)?;
        if found.score.iter().any(|score| !score.is_finite()) {
            return exec_err!("recommend: scores leave the range of Float32; scale the weights or the scores down");
        }
        let mut columns: Vec<ArrayRef> = vec![
            take(&lists.users.ids, &UInt32Array::from(found.user), None)?,
            take(&lists.items.ids, &UInt32Array::from(found.item), None)?,
            Arc::new(Float32Array::from(found.score)),
            Arc::new(Int32Array::from(found.rank)),
        ];
        if lists.scoring.reasons > 0 {
            columns.push(lists.because(&found.reasons)?);
        }
        Ok((RecordBatch::try_new(Arc::clone(&lists.schema), columns)?, found.work))
    }
}

impl Lists {
    fn because(&self, reasons: &[Vec<(u32, f32)>]) -> Result<ArrayRef> {
        let ids = match self.scoring.side {
            Side::Items => &self.items.ids,
            Side::Users => &self.users.ids,
        };
        let links = UInt32Array::from_iter_values(reasons.iter().flatten().map(|reason| reason.0));
        let contributions = Float32Array::from_iter_values(reasons.iter().flatten().map(|reason| reason.1));
        let field = self.schema.field(4);
        let DataType::List(item) = field.data_type() else {
            return datafusion::common::internal_err!("because is not a list");
        };
        let DataType::Struct(fields) = item.data_type() else {
            return datafusion::common::internal_err!("because is not a list of structs");
        };
        let structs =
            StructArray::try_new(fields.clone(), vec![take(ids, &links, None)?, Arc::new(contributions)], None)?;
        let offsets = OffsetBuffer::from_lengths(reasons.iter().map(Vec::len));
        Ok(Arc::new(ListArray::try_new(Arc::clone(item), offsets, Arc::new(structs), None)?))
    }
}
