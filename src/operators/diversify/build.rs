//! From lists and vectors to lists in another order.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, Float32Array, Int32Array, UInt32Array};
use datafusion::arrow::compute::{cast, take};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::{Result, exec_err, internal_err};
use datafusion::execution::memory_pool::MemoryReservation;
use serde::{Deserialize, Serialize};
use serde_with::{DisplayFromStr, serde_as};

use super::NAME;
use crate::kernels::csr::{Csr, entry};
use crate::kernels::diversify::{Place, choose, normalize};
use crate::kernels::vectors::Vectors;
use crate::operators::codec::encode;
use crate::operators::collect::{Chunk, Columns, collect, matrix, number};
use crate::operators::input_rows::InputRows;
use crate::operators::node::{Built, Resources, Task, Worker, on_pool};
use crate::operators::sorted::blocks_of_rows;
use crate::operators::vectors::{VectorTable, read};

/// `diversify` with all its settings fixed. Its inputs are lists, and items with their vectors.
#[serde_as]
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DiversifyTask {
    columns: Columns,
    /// The types in which users and items go out.
    #[serde_as(as = "[DisplayFromStr; 2]")]
    out: [DataType; 2],
    lambda: f32,
    k: usize,
}

impl DiversifyTask {
    pub(super) fn new(columns: Columns, out: [DataType; 2], lambda: f32, k: usize) -> Self {
        Self { columns, out, lambda, k }
    }
}

#[async_trait]
impl Task for DiversifyTask {
    fn name(&self) -> &'static str {
        "Diversify"
    }

    fn settings(&self) -> String {
        format!("lambda={}, k={}", self.lambda, self.k)
    }

    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new(&self.columns.ids[0], self.out[0].clone(), false),
            Field::new(&self.columns.ids[1], self.out[1].clone(), false),
            Field::new("score", DataType::Float32, false),
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
        let (Some(lists), Some(items)) = (inputs.next(), inputs.next()) else {
            return internal_err!("{NAME} has no lists or items");
        };
        let types = &self.columns.types;
        let lists = collect(lists, &self.columns, resources.threads, &resources.memory, None).await?;
        let memory = resources.memory.new_empty();
        let items = read(items, NAME, "items", &types[1], &memory, resources.threads).await?;
        let (task, threads) = (self.clone(), resources.threads);
        Ok(Arc::new(on_pool(threads, move || task.lists(lists, items, resources, memory)).await?))
    }
}

impl DiversifyTask {
    fn lists(
        &self,
        chunks: Vec<Chunk>,
        items_with_vectors: VectorTable,
        resources: Resources,
        of_vectors: MemoryReservation,
    ) -> Result<Lists> {
        let types = &self.columns.types;
        let mut tables = [chunks];
        let users = number(&mut tables, &[(0, 0)], &types[0], &types[0])?;
        let items = number(&mut tables, &[(0, 1)], &types[1], &types[1])?;
        let [chunks] = tables;
        let rows: usize = chunks.iter().map(Chunk::rows).sum();
        let held: usize = chunks.iter().map(Chunk::bytes).sum();
        resources.memory.try_resize(held + Csr::bytes_for(users.ids.len(), rows))?;
        let lists = matrix(&chunks, 0, 1, 0..users.ids.len(), items.ids.len())?;
        if lists.entries.len() < rows {
            return exec_err!(
                "{NAME}: a list has an item twice; give one row per user and item, and lists of one model"
            );
        }
        let (mut vectors, places) = items_with_vectors.placed(&items.ids)?;
        normalize(&mut vectors);
        Ok(Lists {
            bounds: blocks_of_rows(&lists, 8192),
            lists,
            vectors,
            places,
            ids: [cast(&users.ids, &self.out[0])?, cast(&items.ids, &self.out[1])?],
            order: items.order,
            lambda: self.lambda,
            k: self.k,
            schema: self.schema(),
            _memory: [resources.memory, of_vectors],
        })
    }
}

struct Lists {
    /// Users by items, and their scores.
    lists: Csr,
    /// Where each block of users begins, and where the last ends.
    bounds: Vec<usize>,
    /// Of length 1.
    vectors: Vectors,
    /// Where the vector of each item is.
    places: Vec<Option<u32>>,
    ids: [ArrayRef; 2],
    /// The place of each item among the sorted ids.
    order: Vec<u32>,
    lambda: f32,
    k: usize,
    schema: SchemaRef,
    _memory: [MemoryReservation; 2],
}

impl Built for Lists {
    fn blocks(&self) -> usize {
        self.bounds.len() - 1
    }

    fn worker_bytes(&self) -> usize {
        0
    }

    fn worker(self: Arc<Self>) -> Box<dyn Worker> {
        Box::new(Choosing(self))
    }
}

struct Choosing(Arc<Lists>);

impl Worker for Choosing {
    fn run(&mut self, block: usize) -> Result<(RecordBatch, usize)> {
        let lists = &*self.0;
        let (mut users, mut items, mut scores, mut ranks) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut work = 0;
        for user in lists.bounds[block]..lists.bounds[block + 1] {
            let mut list: Vec<(u32, f32)> =
                lists.lists.row(user).iter().map(|&e| (entry::column(e), entry::value(e))).collect();
            let order = |item: u32| lists.order[item as usize];
            list.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(order(a.0).cmp(&order(b.0))));
            let places: Vec<Place> =
                list.iter().map(|&(item, score)| Place { vector: lists.places[item as usize], score }).collect();
            let chosen = choose(&places, &lists.vectors, lists.lambda, lists.k);
            work += chosen.len() * list.len() * lists.vectors.factors;
            for ((place, value), rank) in chosen.into_iter().zip(1..) {
                users.push(user as u32);
                items.push(list[place].0);
                scores.push(value);
                ranks.push(rank);
            }
        }
        let columns: Vec<ArrayRef> = vec![
            take(&lists.ids[0], &UInt32Array::from(users), None)?,
            take(&lists.ids[1], &UInt32Array::from(items), None)?,
            Arc::new(Float32Array::from(scores)),
            Arc::new(Int32Array::from(ranks)),
        ];
        Ok((RecordBatch::try_new(Arc::clone(&lists.schema), columns)?, work))
    }
}
