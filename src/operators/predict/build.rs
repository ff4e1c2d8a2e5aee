//! From pairs, ratings and a model to predictions.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, Float32Array, UInt32Array};
use datafusion::arrow::compute::{cast, take};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::{Result, exec_err};
use datafusion::execution::memory_pool::MemoryReservation;
use serde::{Deserialize, Serialize};
use serde_with::{DisplayFromStr, serde_as};

use super::{From, NAME};
use crate::kernels::csr::{Csr, entry};
use crate::kernels::predict::{Baseline, Neighborhood};
use crate::kernels::scoring::Side;
use crate::kernels::simd::dot;
use crate::kernels::vectors::Vectors;
use crate::operators::codec::encode;
use crate::operators::collect::{Chunk, Columns, check_rated_once, collect, matrix, number_by};
use crate::operators::input_rows::InputRows;
use crate::operators::node::{Built, Resources, Task, Worker, on_pool};
use crate::operators::sorted::blocks_of_rows;
use crate::operators::vectors::{VectorTable, read};

const PAIRS: usize = 0;
const HISTORY: usize = 1;
const NEIGHBORS: usize = 2;

/// What predicts.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) enum Model {
    Baseline,
    Neighbors { side: Side, k: usize, least: usize, from: From },
    Vectors,
}

/// `predict` with all its settings fixed. Its inputs are pairs, the history, and the table or tables of the model.
#[serde_as]
#[derive(Debug, Serialize, Deserialize)]
pub struct PredictTask {
    columns: Vec<Columns>,
    /// How users and items are called in the result, and their types.
    #[serde_as(as = "[(_, DisplayFromStr); 2]")]
    out: [(String, DataType); 2],
    model: Model,
    clip: bool,
}

impl PredictTask {
    pub(super) fn new(columns: Vec<Columns>, out: [(String, DataType); 2], model: Model, clip: bool) -> Self {
        Self { columns, out, model, clip }
    }
}

#[async_trait]
impl Task for PredictTask {
    fn name(&self) -> &'static str {
        "Predict"
    }

    fn settings(&self) -> String {
        let model = match self.model {
            Model::Baseline => "model=baseline".to_owned(),
            Model::Vectors => "model=vectors".to_owned(),
            Model::Neighbors { side, k, least, from } => {
                let side = if side == Side::Items { "items" } else { "users" };
                format!("model={side}, k={k}, min_k={least}, baseline={from:?}")
            }
        };
        let skip = if self.columns[HISTORY].skip_nulls { ", on_null=skip" } else { "" };
        format!("{model}, clip={}{skip}", self.clip)
    }

    fn schema(&self) -> SchemaRef {
        let [user, item] = self.out.each_ref().map(|(name, data_type)| Field::new(name, data_type.clone(), false));
        Arc::new(Schema::new(vec![user, item, Field::new("prediction", DataType::Float32, false)]))
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
        let mut vectors = Vec::new();
        let memory = [resources.memory.new_empty(), resources.memory.new_empty()];
        for (side, stream) in inputs.enumerate() {
            let what = ["user_vectors", "item_vectors"][side];
            vectors.push(
                read(stream, NAME, what, &self.columns[HISTORY].types[side], &memory[side], resources.threads).await?,
            );
        }
        if let [users, items] = &vectors[..]
            && users.vectors.factors != items.vectors.factors
            && !users.ids.is_empty()
            && !items.ids.is_empty()
        {
            let (a, b) = (users.vectors.factors, items.vectors.factors);
            return exec_err!("{NAME}: vectors of users have {a} numbers and those of items {b}; they must be as many");
        }
        let (types, model, clip) = (self.columns[HISTORY].types.clone(), self.model, self.clip);
        let (out, schema) = (self.out.clone().map(|(_, data_type)| data_type), self.schema());
        let threads = resources.threads;
        let build = move || {
            let built = Predictions::build(tables, vectors, &types, &out, model, schema, &resources)?;
            let memory = memory.into_iter().chain([resources.memory]).collect();
            Ok(Predictions { clip: built.clip.filter(|_| clip), _memory: memory, ..built })
        };
        Ok(Arc::new(on_pool(threads, build).await?))
    }
}

/// What predicts, ready.
enum Predictor {
    Baseline(Baseline),
    Neighbors(Neighborhood),
    Vectors(Pairs),
}

/// Vectors of users and of items.
struct Pairs {
    sides: [Vectors; 2],
    /// The place of each user's and each item's vector, where there is one.
    places: [Vec<Option<u32>>; 2],
    baseline: Baseline,
}

impl Pairs {
    fn predict(&self, user: usize, item: usize) -> f64 {
        let vector = |side: usize, at: usize| self.places[side][at].map(|place| self.sides[side].row(place as usize));
        match (vector(0, user), vector(1, item)) {
            (Some(x), Some(y)) => f64::from(dot(x, y)),
            _ => self.baseline.of(user, item),
        }
    }
}

struct Predictions {
    predictor: Predictor,
    pairs: Csr,
    /// Where each block of users begins, and where the last ends.
    bounds: Vec<usize>,
    ids: [ArrayRef; 2],
    /// The lowest and the highest rating.
    clip: Option<(f32, f32)>,
    schema: SchemaRef,
    _memory: Vec<MemoryReservation>,
}

/// Pairs that are predicted together.
const PAIRS_AT_ONCE: usize = 8192;

impl Predictions {
    fn build(
        mut tables: Vec<Vec<Chunk>>,
        vectors: Vec<VectorTable>,
        types: &[DataType],
        out: &[DataType; 2],
        model: Model,
        schema: SchemaRef,
        resources: &Resources,
    ) -> Result<Self> {
        let neighbors_of = |kind: Side| match model {
            Model::Neighbors { side, .. } if side == kind => vec![(NEIGHBORS, 0), (NEIGHBORS, 1)],
            _ => Vec::new(),
        };
        let places = |column, kind| [vec![(PAIRS, column), (HISTORY, column)], neighbors_of(kind)].concat();
        let users = number_by(&mut tables, HISTORY, &places(0, Side::Users), &types[0], &types[0])?;
        let items = number_by(&mut tables, HISTORY, &places(1, Side::Items), &types[1], &types[1])?;
        let (n, m) = (users.ids.len(), items.ids.len());
        let rows = |table: usize| tables.get(table).map_or(0, |chunks| chunks.iter().map(Chunk::rows).sum::<usize>());
        let held: usize = tables.iter().flatten().map(Chunk::bytes).sum();
        let matrices = Csr::bytes_for(n + m, 2 * rows(HISTORY)) + Csr::bytes_for(n, rows(PAIRS));
        let baseline = (n + m) * 3 * size_of::<f64>();
        resources.memory.try_resize(held + matrices + Csr::bytes_for(n.max(m), rows(NEIGHBORS)) + baseline)?;
        let build = |table: usize, row, size, columns| matrix(&tables[table], row, 1 - row, 0..size, columns);
        let (by_user, by_item) = (build(HISTORY, 0, n, m)?, build(HISTORY, 1, m, n)?);
        check_rated_once(NAME, "history", rows(HISTORY), by_user.entries.len())?;
        let ratings = by_user.entries.iter().map(|&e| entry::value(e));
        let clip = ratings.clone().reduce(f32::min).zip(ratings.reduce(f32::max));
        let pairs = build(PAIRS, 0, n, m)?;
        let ids = [cast(&users.ids, &out[0])?, cast(&items.ids, &out[1])?];
        let predictor = match model {
            Model::Baseline => Predictor::Baseline(Baseline::biases(&by_user, &by_item)),
            Model::Vectors => {
                let mut sides = vectors.into_iter();
                let (Some(x), Some(y)) = (sides.next(), sides.next()) else {
                    return datafusion::common::internal_err!("predict has no vectors");
                };
                let (x, of_users) = x.placed(&users.ids)?;
                let (y, of_items) = y.placed(&items.ids)?;
                let baseline = Baseline::biases(&by_user, &by_item);
                Predictor::Vectors(Pairs { sides: [x, y], places: [of_users, of_items], baseline })
            }
            Model::Neighbors { side, k, least, from } => {
                let (size, order) = match side {
                    Side::Users => (n, users.order),
                    Side::Items => (m, items.order),
                };
                let neighbors = build(NEIGHBORS, 0, size, size)?;
                let baseline = match from {
                    From::Nothing => Baseline::mean(&by_user, &by_item),
                    From::Means => Baseline::means(&by_user, &by_item, side),
                    From::Biases => Baseline::biases(&by_user, &by_item),
                };
                let (users, items) = (by_user, by_item);
                Predictor::Neighbors(Neighborhood { users, items, side, neighbors, order, baseline, k, least })
            }
        };
        let bounds = blocks_of_rows(&pairs, PAIRS_AT_ONCE);
        Ok(Self { predictor, pairs, bounds, ids, clip, schema, _memory: Vec::new() })
    }
}

impl Built for Predictions {
    fn blocks(&self) -> usize {
        self.bounds.len() - 1
    }

    fn worker_bytes(&self) -> usize {
        0
    }

    fn worker(self: Arc<Self>) -> Box<dyn Worker> {
        Box::new(Predicting { predictions: self, found: Vec::new() })
    }
}

struct Predicting {
    predictions: Arc<Predictions>,
    /// The neighbors of a pair.
    found: Vec<(f32, u32, f32)>,
}

impl Worker for Predicting {
    fn run(&mut self, block: usize) -> Result<(RecordBatch, usize)> {
        let predictions = &*self.predictions;
        let (mut users, mut items, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for user in predictions.bounds[block]..predictions.bounds[block + 1] {
            for &pair in predictions.pairs.row(user) {
                let item = entry::column(pair) as usize;
                let rating = match &predictions.predictor {
                    Predictor::Baseline(baseline) => baseline.of(user, item),
                    Predictor::Neighbors(neighbors) => neighbors.predict(user, item, &mut self.found),
                    Predictor::Vectors(pairs) => pairs.predict(user, item),
                } as f32;
                if !rating.is_finite() {
                    return exec_err!(
                        "{NAME}: a prediction leaves the range of Float32; scale ratings or vectors down"
                    );
                }
                users.push(user as u32);
                items.push(item as u32);
                values.push(predictions.clip.map_or(rating, |(least, most)| rating.clamp(least, most)));
            }
        }
        let work = values.len();
        let columns: Vec<ArrayRef> = vec![
            take(&predictions.ids[0], &UInt32Array::from(users), None)?,
            take(&predictions.ids[1], &UInt32Array::from(items), None)?,
            Arc::new(Float32Array::from(values)),
        ];
        Ok((RecordBatch::try_new(Arc::clone(&predictions.schema), columns)?, work))
    }
}
