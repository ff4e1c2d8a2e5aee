//! From rows of interactions to vectors, and from these to rows.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use datafusion::arrow::array::{Array, ArrayRef, Float32Array, ListArray, StringArray};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::compute::concat;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::{DataFusionError, Result, exec_err};
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::physical_plan::metrics::MetricBuilder;
use serde::{Deserialize, Serialize};
use serde_with::{DisplayFromStr, serde_as};

use crate::kernels::als::{self, Feedback, Solver};
use crate::kernels::bpr;
use crate::kernels::csr::{Csr, entry};
use crate::kernels::svd;
use crate::kernels::vectors::Vectors;
use crate::operators::codec::encode;
use crate::operators::collect::{Chunk, Columns, LARGEST_WEIGHT, check_rated_once, collect, matrix, number_both};
use crate::operators::found::Stop;
use crate::operators::input_rows::InputRows;
use crate::operators::node::{Built, Resources, Task, Worker, on_pool, rows_per_block};
use crate::operators::spill::from_kernel;

const USER: usize = 0;
const ITEM: usize = 1;

/// How vectors are found.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) enum Method {
    Als(als::Settings),
    Svd(svd::Settings),
    Bpr(bpr::Settings),
}

impl Method {
    /// The bytes that it takes beside the matrices.
    fn bytes(&self, (users, items, entries): (usize, usize, usize), longest: usize, threads: usize) -> usize {
        match self {
            Self::Als(settings) => als::bytes_for(users + items, longest, settings, threads),
            Self::Svd(settings) => svd::bytes_for(users, items, settings),
            Self::Bpr(settings) => bpr::bytes_for(users + items, entries, settings),
        }
    }

    /// Whether rows without a rating mean nothing.
    pub fn needs_ratings(&self) -> bool {
        matches!(self, Self::Als(als::Settings { feedback: Feedback::Explicit, .. }))
    }

    /// Why weights must be as they must.
    fn check(&self, matrix: &Csr) -> Result<()> {
        let reason = match self {
            Self::Als(_) if self.needs_ratings() => return Ok(()),
            Self::Als(_) => "they make confidence",
            Self::Svd(_) => "their sums are degrees",
            Self::Bpr(_) => "they say that the user has the item",
        };
        match matrix.entries.iter().all(|&e| (0.0..=LARGEST_WEIGHT).contains(&entry::value(e))) {
            true => Ok(()),
            false => exec_err!("factorize: weights must be at least 0, as {reason}; leave such rows out"),
        }
    }

    fn fit(&self, by_user: &Csr, by_item: &Csr, go_on: impl Fn() -> bool) -> Result<(Vectors, Vectors)> {
        match self {
            Self::Als(settings) => Ok(als::factorize(by_user, by_item, settings, go_on)),
            Self::Svd(settings) => svd::factorize(by_user, by_item, settings, go_on).map_err(from_kernel),
            Self::Bpr(settings) => Ok(bpr::factorize(by_user, settings, go_on)),
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Als(als::Settings { factors, iterations, regularization, feedback, solver, seed }) => {
                let solver = Solver::NAMES.iter().find(|(_, named)| named == solver).map_or("", |(name, _)| name);
                write!(f, "method=als, factors={factors}, iterations={iterations}, regularization={regularization}, ")?;
                match feedback {
                    Feedback::Implicit { alpha } => write!(f, "alpha={alpha}, solver={solver}, seed={seed}"),
                    Feedback::Explicit => write!(f, "implicit=false, solver={solver}, seed={seed}"),
                }
            }
            Self::Bpr(bpr::Settings { factors, iterations, learning_rate, regularization, seed }) => write!(
                f,
                "method=bpr, factors={factors}, iterations={iterations}, learning_rate={learning_rate}, \
                 regularization={regularization}, seed={seed}"
            ),
            Self::Svd(svd::Settings { factors, iterations, a, b, power, seed }) => {
                write!(
                    f,
                    "method=svd, factors={factors}, iterations={iterations}, a={a}, b={b}, power={power}, seed={seed}"
                )
            }
        }
    }
}

/// `factorize` with all its settings fixed.
#[serde_as]
#[derive(Debug, Serialize, Deserialize)]
pub struct FactorizeTask {
    columns: Columns,
    #[serde_as(as = "DisplayFromStr")]
    id_type: DataType,
    method: Method,
}

impl FactorizeTask {
    pub(super) fn new(columns: Columns, id_type: DataType, method: Method) -> Self {
        Self { columns, id_type, method }
    }
}

fn component() -> Arc<Field> {
    Arc::new(Field::new("item", DataType::Float32, false))
}

#[async_trait]
impl Task for FactorizeTask {
    fn name(&self) -> &'static str {
        "Factorize"
    }

    fn settings(&self) -> String {
        let weight = self.columns.weight.as_deref().unwrap_or("1");
        let skip = if self.columns.skip_nulls { ", on_null=skip" } else { "" };
        let [user, item] = [USER, ITEM].map(|at| &self.columns.ids[at]);
        format!("{}, user={user}, item={item}, weight={weight}{skip}", self.method)
    }

    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("side", DataType::Utf8, false),
            Field::new("id", self.id_type.clone(), false),
            Field::new("vector", DataType::List(component()), false),
        ]))
    }

    fn encode(&self) -> Result<Vec<u8>> {
        encode(self)
    }

    async fn build(&self, mut inputs: Vec<InputRows>, resources: Resources) -> Result<Arc<dyn Built>> {
        let disk = Some(Arc::clone(&resources.disk));
        let chunks = collect(inputs.swap_remove(0), &self.columns, resources.threads, &resources.memory, disk).await?;
        let (types, id_type) = (self.columns.types.clone(), self.id_type.clone());
        let (method, schema) = (self.method, self.schema());
        let stop = Stop::default();
        let stopped = stop.flag();
        let threads = resources.threads;
        let solve = move || solve(chunks, &types, &id_type, method, schema, resources, &stopped);
        Ok(Arc::new(on_pool(threads, solve).await?))
    }
}

fn solve(
    mut chunks: Vec<Chunk>,
    types: &[DataType],
    id_type: &DataType,
    method: Method,
    schema: SchemaRef,
    resources: Resources,
    stop: &AtomicBool,
) -> Result<Table> {
    let types = [(&types[USER], id_type), (&types[ITEM], id_type)];
    let [users, items] = number_both(&mut chunks, [USER, ITEM], types)?;
    // Numbers fall with counts, so the first is the longest.
    let longest = users.counts.first().max(items.counts.first()).map_or(0, |&count| count as usize);
    let (users, items) = (users.ids, items.ids);
    let rows: usize = chunks.iter().map(Chunk::rows).sum();
    let vectors = method.bytes((users.len(), items.len(), rows), longest, resources.threads);
    let matrices = Csr::bytes_for(users.len(), rows) + Csr::bytes_for(items.len(), rows);
    let needed = chunks.iter().map(Chunk::bytes).sum::<usize>() + matrices + vectors;
    resources.memory.try_resize(needed).map_err(|_| {
        DataFusionError::ResourcesExhausted(format!(
            "factorize needs {} MB for {} users and {} items; fewer factors need less",
            needed.div_ceil(1_000_000),
            users.len(),
            items.len()
        ))
    })?;
    let by_user = matrix(&chunks, USER, ITEM, 0..users.len(), items.len())?;
    let by_item = matrix(&chunks, ITEM, USER, 0..items.len(), users.len())?;
    drop(chunks);
    if matches!(method, Method::Als(als::Settings { feedback: Feedback::Explicit, .. })) {
        check_rated_once("factorize", "interactions", rows, by_user.entries.len())?;
    }
    method.check(&by_user)?;
    let time = MetricBuilder::new(&resources.metrics).subset_time("fit_time", 0);
    let (of_users, of_items) = {
        let _timer = time.timer();
        method.fit(&by_user, &by_item, || !stop.load(Ordering::Relaxed))?
    };
    if of_users.values.iter().chain(&of_items.values).any(|value| !value.is_finite()) {
        return exec_err!(
            "factorize: vectors leave the range of Float32; choose smaller arguments, or scale the weights down"
        );
    }
    drop((by_user, by_item));
    let memory = resources.memory;
    let vectors = of_users.bytes() + of_items.bytes();
    memory.try_resize(vectors + users.get_array_memory_size() + items.get_array_memory_size())?;
    let ids = concat(&[&users, &items])?;
    Ok(Table { ids, users: users.len(), sides: [of_users, of_items], schema, _memory: memory })
}

/// The vectors of users, then those of items.
struct Table {
    ids: ArrayRef,
    users: usize,
    sides: [Vectors; 2],
    schema: SchemaRef,
    _memory: MemoryReservation,
}

impl Table {
    fn rows(&self) -> usize {
        rows_per_block(self.sides[0].factors)
    }
}

impl Built for Table {
    fn blocks(&self) -> usize {
        self.ids.len().div_ceil(self.rows())
    }

    fn worker_bytes(&self) -> usize {
        0
    }

    fn worker(self: Arc<Self>) -> Box<dyn Worker> {
        Box::new(HandingOut(self))
    }
}

struct HandingOut(Arc<Table>);

impl Worker for HandingOut {
    fn run(&mut self, block: usize) -> Result<(RecordBatch, usize)> {
        let table = &*self.0;
        let factors = table.sides[0].factors;
        let first = block * table.rows();
        let rows = first..(first + table.rows()).min(table.ids.len());
        let mut values = Vec::with_capacity(rows.len() * factors);
        for row in rows.clone() {
            let vector = match row.checked_sub(table.users) {
                None => table.sides[0].row(row),
                Some(item) => table.sides[1].row(item),
            };
            values.extend_from_slice(&vector[..factors]);
        }
        let side = |row: usize| if row < table.users { "user" } else { "item" };
        let lengths = OffsetBuffer::from_repeated_length(factors, rows.len());
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from_iter_values(rows.clone().map(side))),
            table.ids.slice(first, rows.len()),
            Arc::new(ListArray::try_new(component(), lengths, Arc::new(Float32Array::from(values)), None)?),
        ];
        Ok((RecordBatch::try_new(Arc::clone(&table.schema), columns)?, 0))
    }
}
