//! From pairs, a history and a model to reasons.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, Float32Array, Int32Array, UInt32Array};
use datafusion::arrow::compute::{cast, take};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::{Result, exec_err};
use datafusion::execution::memory_pool::MemoryReservation;
use serde::{Deserialize, Serialize};
use serde_with::{DisplayFromStr, serde_as};

use super::NAME;
use crate::kernels::als::{self, Feedback, Settings};
use crate::kernels::csr::{Csr, entry};
use crate::kernels::scoring::Side;
use crate::kernels::vectors::Vectors;
use crate::operators::codec::encode;
use crate::operators::collect::{Chunk, Columns, collect, matrix, number_by};
use crate::operators::input_rows::InputRows;
use crate::operators::node::{Built, Resources, Task, Worker, on_pool};
use crate::operators::sorted::blocks_of_rows;
use crate::operators::vectors::{VectorTable, read};

const PAIRS: usize = 0;
const HISTORY: usize = 1;
const NEIGHBORS: usize = 2;

/// What scores.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) enum Model {
    Neighbors(Side),
    Vectors { feedback: Feedback, regularization: f32 },
}

/// `explain_pair` with all its settings fixed. Its inputs are pairs, the history, and the table of the model.
#[serde_as]
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ExplainTask {
    columns: Vec<Columns>,
    /// How users and items are called in the result, and their types.
    #[serde_as(as = "[(_, DisplayFromStr); 2]")]
    out: [(String, DataType); 2],
    #[serde_as(as = "DisplayFromStr")]
    reason: DataType,
    model: Model,
    k: usize,
}

impl ExplainTask {
    pub(super) fn new(
        columns: Vec<Columns>,
        out: [(String, DataType); 2],
        reason: DataType,
        model: Model,
        k: usize,
    ) -> Self {
        Self { columns, out, reason, model, k }
    }
}

#[async_trait]
impl Task for ExplainTask {
    fn name(&self) -> &'static str {
        "ExplainPair"
    }

    fn settings(&self) -> String {
        format!("model={:?}, k={}", self.model, self.k)
    }

    fn schema(&self) -> SchemaRef {
        let [user, item] = self.out.each_ref().map(|(name, data_type)| Field::new(name, data_type.clone(), false));
        Arc::new(Schema::new(vec![
            user,
            item,
            Field::new("id", self.reason.clone(), false),
            Field::new("contribution", DataType::Float32, false),
            Field::new("rank", DataType::Int32, false),
        ]))
    }

    fn encode(&self) -> Result<Vec<u8>> {
        encode(self)
    }

    fn divisible(&self) -> Vec<Option<usize>> {
        vec![Some(0)]
    }

    async fn build(&self, inputs: Vec<InputRows>, resources: Resources) -> Result<Arc<dyn Built>> {
        let mut inputs = inputs.into_iter();
        let mut tables: Vec<Vec<Chunk>> = Vec::new();
        for (rows, columns) in inputs.by_ref().take(self.columns.len()).zip(&self.columns) {
            tables.push(collect(rows, columns, resources.threads, &resources.memory, None).await?);
        }
        let memory = resources.memory.new_empty();
        let vectors = match inputs.next() {
            Some(stream) => Some(
                read(stream, NAME, "item_vectors", &self.columns[HISTORY].types[1], &memory, resources.threads).await?,
            ),
            None => None,
        };
        let (task, threads) = (self.clone(), resources.threads);
        Ok(Arc::new(on_pool(threads, move || task.explanations(tables, vectors, resources, memory)).await?))
    }
}

impl ExplainTask {
    fn explanations(
        &self,
        mut tables: Vec<Vec<Chunk>>,
        vectors: Option<VectorTable>,
        resources: Resources,
        of_vectors: MemoryReservation,
    ) -> Result<Explanations> {
        let types = &self.columns[HISTORY].types;
        let neighbors_of = |kind: Side| match self.model {
            Model::Neighbors(side) if side == kind => vec![(NEIGHBORS, 0), (NEIGHBORS, 1)],
            _ => Vec::new(),
        };
        let places = |column, kind| [vec![(PAIRS, column), (HISTORY, column)], neighbors_of(kind)].concat();
        let users = number_by(&mut tables, HISTORY, &places(0, Side::Users), &types[0], &types[0])?;
        let items = number_by(&mut tables, HISTORY, &places(1, Side::Items), &types[1], &types[1])?;
        let (n, m) = (users.ids.len(), items.ids.len());
        let rows = |table: usize| tables.get(table).map_or(0, |chunks| chunks.iter().map(Chunk::rows).sum::<usize>());
        let held: usize = tables.iter().flatten().map(Chunk::bytes).sum();
        let all: usize = (0..tables.len()).map(|table| Csr::bytes_for(n.max(m), rows(table))).sum();
        resources.memory.try_resize(held + all)?;
        let build = |table: usize, size, columns| matrix(&tables[table], 0, 1, 0..size, columns);
        let history = build(HISTORY, n, m)?;
        let pairs = build(PAIRS, n, m)?;
        let scored = match (self.model, vectors) {
            (Model::Vectors { feedback, regularization }, Some(table)) => {
                // Of no vectors there are no reasons, whatever their length would be.
                let width = if table.ids.is_empty() { 3 } else { table.vectors.factors };
                let Some(settings) = Settings::of_vectors(width, feedback, regularization) else {
                    return exec_err!(
                        "{NAME}: vectors of ratings end with 1 and a bias, so they have three numbers at least"
                    );
                };
                let implicit = feedback != Feedback::Explicit;
                if implicit && history.entries.iter().any(|&e| entry::value(e) < 0.0) {
                    return exec_err!(
                        "{NAME}: weights must be at least 0, as they make confidence; leave such rows out"
                    );
                }
                let (vectors, places) = table.placed(&items.ids)?;
                resources.memory.try_grow(vectors.stride().pow(2) * size_of::<f32>())?;
                let square = als::Reasons::square(&vectors, &settings);
                Scored::Vectors { vectors, places, square, settings }
            }
            (Model::Neighbors(Side::Users), _) => Scored::Users(build(NEIGHBORS, n, n)?),
            _ => Scored::Items(build(NEIGHBORS, m, m)?),
        };
        let (reasons, order) = match scored {
            Scored::Users(_) => (&users.ids, users.order),
            _ => (&items.ids, items.order),
        };
        Ok(Explanations {
            bounds: blocks_of_rows(&pairs, 256),
            reasons: cast(reasons, &self.reason)?,
            ids: [cast(&users.ids, &self.out[0].1)?, cast(&items.ids, &self.out[1].1)?],
            history,
            pairs,
            scored,
            order,
            k: self.k,
            schema: self.schema(),
            _memory: [resources.memory, of_vectors],
        })
    }
}

/// What scores, ready.
enum Scored {
    /// Items by their neighbors.
    Items(Csr),
    /// Users by their neighbors.
    Users(Csr),
    /// The vectors, where that of each item is, what [`als::Reasons::square`] gives for them, and how they were found.
    Vectors { vectors: Vectors, places: Vec<Option<u32>>, square: Vec<f32>, settings: Settings },
}

struct Explanations {
    history: Csr,
    pairs: Csr,
    scored: Scored,
    /// Where each block of users begins, and where the last ends.
    bounds: Vec<usize>,
    ids: [ArrayRef; 2],
    reasons: ArrayRef,
    /// The place of each reason among the sorted ids.
    order: Vec<u32>,
    k: usize,
    schema: SchemaRef,
    _memory: [MemoryReservation; 2],
}

/// The value of a column in a row, if it is there.
fn value(row: &[u64], column: u32) -> Option<f32> {
    row.binary_search_by_key(&column, |&e| entry::column(e)).ok().map(|at| entry::value(row[at]))
}

impl Built for Explanations {
    fn blocks(&self) -> usize {
        self.bounds.len() - 1
    }

    fn worker_bytes(&self) -> usize {
        0
    }

    fn worker(self: Arc<Self>) -> Box<dyn Worker> {
        Box::new(Explaining(self))
    }
}

struct Explaining(Arc<Explanations>);

impl Worker for Explaining {
    fn run(&mut self, block: usize) -> Result<(RecordBatch, usize)> {
        let all = &*self.0;
        let mut of_vectors = match &all.scored {
            Scored::Vectors { vectors, square, settings, .. } => Some(als::Reasons::new(vectors, square, *settings)),
            _ => None,
        };
        let (mut users, mut items, mut reasons) = (Vec::new(), Vec::new(), Vec::new());
        let (mut contributions, mut ranks) = (Vec::new(), Vec::new());
        for user in all.bounds[block]..all.bounds[block + 1] {
            for item in all.pairs.row(user).iter().map(|&pair| entry::column(pair)) {
                let mut found = all.contributions(user, item, of_vectors.as_mut());
                found.sort_unstable_by(|a, b| {
                    let by_strength = b.1.abs().total_cmp(&a.1.abs());
                    by_strength.then(all.order[a.0 as usize].cmp(&all.order[b.0 as usize]))
                });
                for ((reason, contribution), rank) in found.into_iter().take(all.k).zip(1..) {
                    users.push(user as u32);
                    items.push(item);
                    reasons.push(reason);
                    contributions.push(contribution);
                    ranks.push(rank);
                }
            }
        }
        if contributions.iter().any(|contribution| !contribution.is_finite()) {
            return exec_err!("{NAME}: contributions leave the range of Float32; scale the weights or the scores down");
        }
        let columns: Vec<ArrayRef> = vec![
            take(&all.ids[0], &UInt32Array::from(users), None)?,
            take(&all.ids[1], &UInt32Array::from(items), None)?,
            take(&all.reasons, &UInt32Array::from(reasons), None)?,
            Arc::new(Float32Array::from(contributions)),
            Arc::new(Int32Array::from(ranks)),
        ];
        Ok((RecordBatch::try_new(Arc::clone(&all.schema), columns)?, 0))
    }
}

impl Explanations {
    /// Every reason of a pair and what it adds, those that add nothing left out.
    fn contributions(&self, user: usize, item: u32, of_vectors: Option<&mut als::Reasons<'_>>) -> Vec<(u32, f32)> {
        let history = self.history.row(user);
        let mut found: Vec<(u32, f32)> = match (&self.scored, of_vectors) {
            (Scored::Items(neighbors), _) => {
                let adds = |&e: &u64| {
                    let score = value(neighbors.row(entry::column(e) as usize), item)?;
                    Some((entry::column(e), entry::value(e) * score))
                };
                history.iter().filter_map(adds).collect()
            }
            (Scored::Users(neighbors), _) => {
                let adds = |&e: &u64| {
                    let weight = value(self.history.row(entry::column(e) as usize), item)?;
                    Some((entry::column(e), entry::value(e) * weight))
                };
                neighbors.row(user).iter().filter_map(adds).collect()
            }
            (Scored::Vectors { places, .. }, Some(reasons)) => {
                let Some(asked) = places[item as usize] else {
                    return Vec::new();
                };
                let known = history.iter().filter_map(|&e| {
                    let place = places[entry::column(e) as usize]?;
                    Some((entry::column(e), entry::pack(place, entry::value(e))))
                });
                let (items, row): (Vec<u32>, Vec<u64>) = known.unzip();
                let shares = reasons.of(&row, asked as usize);
                items.into_iter().zip(shares).map(|(item, (_, share))| (item, share)).collect()
            }
            (Scored::Vectors { .. }, None) => Vec::new(),
        };
        found.retain(|(_, contribution)| *contribution != 0.0);
        found
    }
}
