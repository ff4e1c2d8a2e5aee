//! From interactions and vectors of items to vectors of users.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, Float32Array, ListArray, UInt32Array};
use datafusion::arrow::buffer::OffsetBuffer;
use datafusion::arrow::compute::take;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::{Result, exec_err, internal_err};
use datafusion::execution::memory_pool::MemoryReservation;
use serde::{Deserialize, Serialize};
use serde_with::{DisplayFromStr, serde_as};

use super::NAME;
use crate::kernels::als::{Feedback, Settings, fold_in};
use crate::kernels::csr::{Csr, entry};
use crate::kernels::vectors::Vectors;
use crate::operators::codec::encode;
use crate::operators::collect::{Chunk, Columns, check_rated_once, collect, matrix, number};
use crate::operators::input_rows::InputRows;
use crate::operators::node::{Built, Resources, Task, Worker, on_pool, rows_per_block};
use crate::operators::vectors::{VectorTable, read};

/// `fold_in` with all its settings fixed. Its inputs are interactions, and items with their vectors.
#[serde_as]
#[derive(Debug, Serialize, Deserialize)]
pub struct FoldInTask {
    columns: Columns,
    #[serde_as(as = "DisplayFromStr")]
    user_type: DataType,
    feedback: Feedback,
    regularization: f32,
}

impl FoldInTask {
    pub(super) fn new(columns: Columns, user_type: DataType, feedback: Feedback, regularization: f32) -> Self {
        Self { columns, user_type, feedback, regularization }
    }
}

fn component() -> Arc<Field> {
    Arc::new(Field::new("item", DataType::Float32, false))
}

#[async_trait]
impl Task for FoldInTask {
    fn name(&self) -> &'static str {
        "FoldIn"
    }

    fn settings(&self) -> String {
        let skip = if self.columns.skip_nulls { ", on_null=skip" } else { "" };
        match self.feedback {
            Feedback::Implicit { alpha } => format!("regularization={}, alpha={alpha}{skip}", self.regularization),
            Feedback::Explicit => format!("implicit=false, regularization={}{skip}", self.regularization),
        }
    }

    fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new(&self.columns.ids[0], self.user_type.clone(), false),
            Field::new("vector", DataType::List(component()), false),
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
        let (Some(interactions), Some(vectors)) = (inputs.next(), inputs.next()) else {
            return internal_err!("{NAME} has no interactions or vectors");
        };
        let chunks = collect(interactions, &self.columns, resources.threads, &resources.memory, None).await?;
        let memory = resources.memory.new_empty();
        let items = read(vectors, NAME, "item_vectors", &self.columns.types[1], &memory, resources.threads).await?;
        let Some(settings) = Settings::of_vectors(items.vectors.factors.max(3), self.feedback, self.regularization)
        else {
            return internal_err!("vectors of no numbers");
        };
        if self.feedback == Feedback::Explicit && (1..3).contains(&items.vectors.factors) {
            return exec_err!("{NAME}: vectors of ratings end with 1 and a bias, so they have three numbers at least");
        }
        let (user_type, schema) = (self.user_type.clone(), self.schema());
        let value_type = self.columns.types[0].clone();
        let threads = resources.threads;
        let fold = move || fold(chunks, items, &settings, (&value_type, &user_type), schema, resources, memory);
        Ok(Arc::new(on_pool(threads, fold).await?))
    }
}

fn fold(
    chunks: Vec<Chunk>,
    mut items: VectorTable,
    settings: &Settings,
    (value_type, user_type): (&DataType, &DataType),
    schema: SchemaRef,
    resources: Resources,
    of_items: MemoryReservation,
) -> Result<Folded> {
    let mut tables = [chunks];
    let users = number(&mut tables, &[(0, 0)], value_type, user_type)?;
    let [mut chunks] = tables;
    chunks.iter_mut().try_for_each(|chunk| chunk.number_by(1, &mut items.space))?;
    let (n, known) = (users.ids.len(), items.ids.len());
    let rows: usize = chunks.iter().map(Chunk::rows).sum();
    let held: usize = chunks.iter().map(Chunk::bytes).sum();
    let vectors = Vectors::bytes_for(n, items.vectors.factors);
    resources.memory.try_resize(held + Csr::bytes_for(n, rows) + vectors)?;
    let mut by_user = matrix(&chunks, 0, 1, 0..n, items.space.size())?;
    drop(chunks);
    let implicit = settings.feedback != Feedback::Explicit;
    if !implicit {
        check_rated_once(NAME, "interactions", rows, by_user.entries.len())?;
    }
    by_user.retain_columns(|item| (item as usize) < known);
    if implicit && by_user.entries.iter().any(|&e| entry::value(e) < 0.0) {
        return exec_err!("{NAME}: weights must be at least 0, as they make confidence; leave such rows out");
    }
    let folded = match known {
        0 => Vectors::zeros(n, items.vectors.factors),
        _ => fold_in(&by_user, &items.vectors, settings),
    };
    if folded.values.iter().any(|value| !value.is_finite()) {
        return exec_err!(
            "{NAME}: vectors leave the range of Float32; choose smaller arguments, or scale the weights down"
        );
    }
    drop(of_items);
    resources.memory.try_resize(folded.bytes() + users.ids.get_array_memory_size())?;
    let rows = (0..n as u32).filter(|&user| by_user.row_len(user as usize) > 0).collect();
    Ok(Folded { ids: users.ids, rows, vectors: folded, schema, _memory: resources.memory })
}

struct Folded {
    ids: ArrayRef,
    /// The users that have a vector.
    rows: Vec<u32>,
    vectors: Vectors,
    schema: SchemaRef,
    _memory: MemoryReservation,
}

impl Folded {
    fn rows_per_block(&self) -> usize {
        rows_per_block(self.vectors.factors)
    }
}

impl Built for Folded {
    fn blocks(&self) -> usize {
        self.rows.len().div_ceil(self.rows_per_block())
    }

    fn worker_bytes(&self) -> usize {
        0
    }

    fn worker(self: Arc<Self>) -> Box<dyn Worker> {
        Box::new(HandingOut(self))
    }
}

struct HandingOut(Arc<Folded>);

impl Worker for HandingOut {
    fn run(&mut self, block: usize) -> Result<(RecordBatch, usize)> {
        let folded = &*self.0;
        let size = folded.rows_per_block();
        let rows = &folded.rows[block * size..(block * size + size).min(folded.rows.len())];
        let factors = folded.vectors.factors;
        let values: Vec<f32> =
            rows.iter().flat_map(|&row| &folded.vectors.row(row as usize)[..factors]).copied().collect();
        let lengths = OffsetBuffer::from_repeated_length(factors, rows.len());
        let columns: Vec<ArrayRef> = vec![
            take(&folded.ids, &UInt32Array::from(rows.to_vec()), None)?,
            Arc::new(ListArray::try_new(component(), lengths, Arc::new(Float32Array::from(values)), None)?),
        ];
        Ok((RecordBatch::try_new(Arc::clone(&folded.schema), columns)?, 0))
    }
}
