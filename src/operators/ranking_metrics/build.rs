//! From lists and what users chose to the table of metrics.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{Array, ArrayRef, Float64Array, Int32Array, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::cast::as_string_array;
use datafusion::common::{DataFusionError, Result, exec_err};
use datafusion::execution::memory_pool::MemoryReservation;
use serde::{Deserialize, Serialize};
use serde_with::{DisplayFromStr, serde_as};

use super::compare::{self, Comparison};
use crate::kernels::csr::{Csr, entry};
use crate::kernels::diversify::normalize;
use crate::kernels::likeness::{Likeness, OF_VECTORS};
use crate::kernels::ranking::{Found, Lists, Mean, OF_ALL, OF_LIST, OF_POPULARITY, Popularity};
use crate::operators::codec::encode;
use crate::operators::collect::{Chunk, Columns, collect, matrix, number};
use crate::operators::ids::Numbering;
use crate::operators::input_rows::InputRows;
use crate::operators::node::{Built, Resources, Task, Worker, on_pool};
use crate::operators::vectors::{VectorTable, read};

const LISTS: usize = 0;
const TRUTH: usize = 1;
const USER: usize = 0;
const ITEM: usize = 1;
const MODEL: usize = 2;
const SEGMENT: usize = 1;

/// What lists are ordered by.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) enum RankedBy {
    Rank,
    Score,
}

/// Where the inputs stand that need not be there, and the types of words.
#[serde_as]
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Parts {
    pub history: Option<usize>,
    pub segments: Option<usize>,
    #[serde_as(as = "Option<DisplayFromStr>")]
    pub model_type: Option<DataType>,
    #[serde_as(as = "Option<DisplayFromStr>")]
    pub segment_type: Option<DataType>,
    /// Whether the last input is of items and their vectors.
    pub vectors: bool,
    /// Whether lists are ordered by whole numbers.
    pub whole: bool,
}

/// `ranking_metrics` with all its settings fixed.
#[serde_as]
#[derive(Debug, Serialize, Deserialize)]
pub struct MetricsTask {
    columns: Vec<Columns>,
    /// The types of users and items.
    #[serde_as(as = "[DisplayFromStr; 2]")]
    types: [DataType; 2],
    ranked_by: RankedBy,
    /// Rising.
    ks: Vec<usize>,
    parts: Parts,
    /// Whether models are compared in pairs.
    paired: bool,
}

impl MetricsTask {
    pub(super) fn new(
        columns: Vec<Columns>,
        types: [DataType; 2],
        ranked_by: RankedBy,
        ks: Vec<usize>,
        parts: Parts,
        paired: bool,
    ) -> Self {
        Self { columns, types, ranked_by, ks, parts, paired }
    }
}

#[async_trait]
impl Task for MetricsTask {
    fn name(&self) -> &'static str {
        "RankingMetrics"
    }

    fn settings(&self) -> String {
        let by = if self.ranked_by == RankedBy::Rank { "rank" } else { "score" };
        let mut text = format!("k={:?}, by={by}", self.ks);
        for (name, given) in [
            ("models", self.parts.model_type.is_some()),
            ("history", self.parts.history.is_some()),
            ("segments", self.parts.segments.is_some()),
            ("items", self.parts.vectors),
            ("paired", self.paired),
        ] {
            text += &if given { format!(", {name}") } else { String::new() };
        }
        text + if self.columns[LISTS].skip_nulls { ", on_null=skip" } else { "" }
    }

    fn schema(&self) -> SchemaRef {
        if self.paired {
            return compare::schema();
        }
        Arc::new(Schema::new(vec![
            Field::new("model", DataType::Utf8, false),
            Field::new("metric", DataType::Utf8, false),
            Field::new("k", DataType::Int32, false),
            Field::new("segment", DataType::Utf8, false),
            Field::new("value", DataType::Float64, true),
            Field::new("ci_low", DataType::Float64, true),
            Field::new("ci_high", DataType::Float64, true),
        ]))
    }

    fn encode(&self) -> Result<Vec<u8>> {
        encode(self)
    }

    async fn build(&self, inputs: Vec<InputRows>, resources: Resources) -> Result<Arc<dyn Built>> {
        let mut tables = Vec::new();
        let mut inputs = inputs.into_iter();
        for (rows, columns) in inputs.by_ref().take(self.columns.len()).zip(&self.columns) {
            tables.push(collect(rows, columns, resources.threads, &resources.memory, None).await?);
        }
        let memory_of_vectors = resources.memory.new_empty();
        let vectors = match inputs.next() {
            Some(items) => {
                Some(read(items, super::NAME, "items", &self.types[1], &memory_of_vectors, resources.threads).await?)
            }
            None => None,
        };
        let (paired, threads) = (self.paired, resources.threads);
        let question = Question { types: self.types.clone(), ranked_by: self.ranked_by, parts: self.parts.clone() };
        let (ks, schema) = (self.ks.clone(), self.schema());
        let answer = move || {
            let table = question.answer(tables, vectors, &ks, schema, &resources.memory, paired)?;
            drop(memory_of_vectors);
            Ok(Answer(table))
        };
        Ok(Arc::new(on_pool(threads, answer).await?))
    }
}

/// The table of metrics, all of it.
struct Answer(RecordBatch);

impl Built for Answer {
    fn blocks(&self) -> usize {
        1
    }

    fn worker_bytes(&self) -> usize {
        0
    }

    fn worker(self: Arc<Self>) -> Box<dyn Worker> {
        Box::new(Telling(self))
    }
}

struct Telling(Arc<Answer>);

impl Worker for Telling {
    fn run(&mut self, _: usize) -> Result<(RecordBatch, usize)> {
        Ok((self.0.0.clone(), 0))
    }
}

/// Up to this, singles are different for all whole numbers.
const EXACT: f32 = 16_777_216.0;

struct Question {
    types: [DataType; 2],
    ranked_by: RankedBy,
    parts: Parts,
}

/// One place of a list.
#[derive(Clone, Copy)]
struct Place {
    model: u32,
    user: u32,
    item: u32,
    /// Rising from the first place on.
    key: f32,
}

impl Question {
    fn answer(
        &self,
        mut tables: Vec<Vec<Chunk>>,
        vectors: Option<VectorTable>,
        ks: &[usize],
        schema: SchemaRef,
        memory: &MemoryReservation,
        paired: bool,
    ) -> Result<RecordBatch> {
        let Parts { history, segments, model_type, segment_type, .. } = &self.parts;
        let with_items = [Some(LISTS), Some(TRUTH), *history].into_iter().flatten();
        let item_places: Vec<_> = with_items.clone().map(|table| (table, ITEM)).collect();
        let user_places: Vec<_> = with_items.chain(*segments).map(|table| (table, USER)).collect();
        let users = number(&mut tables, &user_places, &self.types[0], &self.types[0])?.ids.len();
        let items = number(&mut tables, &item_places, &self.types[1], &self.types[1])?;
        let mut words = |place: Option<(usize, usize)>, data_type: &Option<DataType>, only: &str| match place
            .zip(data_type.as_ref())
        {
            Some((place, data_type)) => number(&mut tables, &[place], data_type, &DataType::Utf8).map(|n| n.ids),
            None => Ok(Arc::new(StringArray::from(vec![only])) as ArrayRef),
        };
        let models = words(model_type.as_ref().map(|_| (LISTS, MODEL)), model_type, "list")?;
        let names = words(segments.map(|table| (table, SEGMENT)), segment_type, "all")?;
        let rows: usize = tables.iter().flatten().map(Chunk::rows).sum();
        memory.try_grow(rows * (size_of::<Place>() + size_of::<u64>()) + Csr::bytes_for(2 * users, 0))?;

        let operator = if paired { super::COMPARE } else { super::NAME };
        let places = self.places(&tables[LISTS], &items, model_type.is_some(), operator)?;
        let chosen = matrix(&tables[TRUTH], USER, ITEM, 0..users, items.ids.len())?;
        let history = history.map(|table| matrix(&tables[table], USER, ITEM, 0..users, items.ids.len())).transpose()?;
        let popularity = history.as_ref().map(|by_user| popularity(by_user, items.ids.len()));
        let likeness = vectors.map(|vectors| likeness(vectors, &items.ids, history)).transpose()?;
        let segment_of_user = segments.map(|table| segment_of_user(&tables[table], users, names.len())).transpose()?;
        let segment_names: Vec<&str> = match segments {
            Some(_) => std::iter::once("all").chain(as_string_array(&names)?.iter().flatten()).collect(),
            None => vec!["all"],
        };
        if segments.is_some() && as_string_array(&names)?.iter().flatten().any(|name| name == "all") {
            return exec_err!(
                "ranking_metrics: a segment is called 'all', which is what all users together are; rename it"
            );
        }
        let groups = segment_names.len() + usize::from(segments.is_some());
        if !paired {
            reserve_shown(memory, ks.len(), groups, items.ids.len())?;
        }
        let mut table = Rows::default();
        let mut compared = Comparison::default();
        // By name, so that rows stand in the same order whatever came first.
        let models = as_string_array(&models)?;
        let mut by_name: Vec<u32> = (0..models.len() as u32).collect();
        by_name.sort_by_key(|&model| models.value(model as usize));
        for model in by_name {
            let name = models.value(model as usize);
            let own =
                &places[places.partition_point(|p| p.model < model)..places.partition_point(|p| p.model <= model)];
            let places = &lists(own, users, name, operator)?;
            let segments = segment_of_user.as_deref();
            let (popularity, likeness) = (popularity.as_ref(), likeness.as_ref());
            let lists = Lists { places, chosen: &chosen, catalogue: items.ids.len(), segments, popularity, likeness };
            if paired {
                let room = users * OF_LIST.len() * size_of::<f64>() * ks.len();
                memory.try_grow(room)?;
                compared.add(name, ks.iter().map(|&k| lists.of_users(k)).collect());
                continue;
            }
            for (k, found) in ks.iter().zip(lists.evaluate(ks, groups)) {
                segment_names
                    .iter()
                    .enumerate()
                    .for_each(|(group, segment)| table.add((name, *k, segment), &found, group, &lists));
            }
        }
        match paired {
            true => compared.into_batch(ks, schema),
            false => table.into_batch(schema),
        }
    }

    /// All places of all lists, by model, user and place.
    fn places(&self, chunks: &[Chunk], items: &Numbering, with_model: bool, operator: &str) -> Result<Vec<Place>> {
        let mut places = Vec::new();
        for chunk in chunks {
            let first = places.len();
            let key = |weight: f32| if self.ranked_by == RankedBy::Rank { weight } else { -weight };
            chunk.each_number(USER, |user| places.push(Place { model: 0, user, item: 0, key: 0.0 }))?;
            let mut at = first;
            chunk.each_number(ITEM, |item| {
                places[at].item = item;
                at += 1;
            })?;
            at = first;
            let mut largest = 0f32;
            chunk.each_weight(|weight| {
                largest = largest.max(weight.abs());
                places[at].key = key(weight) + 0.0;
                at += 1;
            })?;
            if self.parts.whole && largest > EXACT {
                return exec_err!(
                    "{operator}: argument 'recommendations' orders lists by whole numbers beyond {EXACT}, where neighbours cannot be told apart any more; give row_number() OVER (PARTITION BY user_id ORDER BY ..) AS rank instead"
                );
            }
            if with_model {
                at = first;
                chunk.each_number(MODEL, |model| {
                    places[at].model = model;
                    at += 1;
                })?;
            }
        }
        places.sort_unstable_by(|a, b| {
            let by_list = (a.model, a.user).cmp(&(b.model, b.user));
            by_list.then(a.key.total_cmp(&b.key)).then(items.order[a.item as usize].cmp(&items.order[b.item as usize]))
        });
        Ok(places)
    }
}

/// Reserves the counts of how often each item is shown, for each k and group of users.
fn reserve_shown(memory: &MemoryReservation, ks: usize, groups: usize, items: usize) -> Result<()> {
    let bytes = ks * groups * items * size_of::<u32>();
    memory.try_grow(bytes).map_err(|_| {
        DataFusionError::ResourcesExhausted(format!(
            "ranking_metrics needs {} MB for {ks} values of k, {groups} groups of users and {items} items; fewer segments need less",
            bytes.div_ceil(1_000_000)
        ))
    })
}

/// The lists of one model: users by items, with the place of each.
fn lists(places: &[Place], users: usize, model: &str, operator: &str) -> Result<Csr> {
    let mut lists = Csr { columns: 0, offsets: vec![0; users + 1], entries: Vec::with_capacity(places.len()) };
    for list in places.chunk_by(|a, b| a.user == b.user) {
        let first = lists.entries.len();
        lists.entries.extend(list.iter().zip(1u32..).map(|(place, at)| entry::pack(place.item, at as f32)));
        let row = &mut lists.entries[first..];
        row.sort_unstable();
        if row.windows(2).any(|pair| entry::column(pair[0]) == entry::column(pair[1])) {
            return exec_err!(
                "{operator}: model '{model}' recommends an item to a user twice; lists need one row per user and item"
            );
        }
        lists.offsets[list[0].user as usize + 1] = row.len();
    }
    (0..users).for_each(|user| lists.offsets[user + 1] += lists.offsets[user]);
    Ok(lists)
}

fn popularity(by_user: &Csr, items: usize) -> Popularity {
    let mut users_of_item = vec![0u32; items];
    by_user.entries.iter().for_each(|&e| users_of_item[entry::column(e) as usize] += 1);
    let users = (0..by_user.rows()).filter(|&user| by_user.row_len(user) > 0).count();
    Popularity { users_of_item, users: users.max(1) }
}

fn likeness(items: VectorTable, ids: &ArrayRef, history: Option<Csr>) -> Result<Likeness> {
    let (mut vectors, places) = items.placed(ids)?;
    normalize(&mut vectors);
    Ok(Likeness { vectors, places, history })
}

/// The group of each user among all groups, the first of which is everyone; who is in no segment is in one more at the end,
/// which nothing is told of.
fn segment_of_user(chunks: &[Chunk], users: usize, segments: usize) -> Result<Vec<u32>> {
    let by_user = matrix(chunks, USER, SEGMENT, 0..users, segments)?;
    if (0..users).any(|user| by_user.row_len(user) > 1) {
        return exec_err!("ranking_metrics: argument 'segments' gives a user several segments; each has at most one");
    }
    let segment = |user: usize| by_user.row(user).first().map_or(segments as u32, |&e| entry::column(e));
    Ok((0..users).map(|user| 1 + segment(user)).collect())
}

/// The table of metrics as it grows.
#[derive(Default)]
struct Rows {
    models: Vec<String>,
    metrics: Vec<&'static str>,
    ks: Vec<i32>,
    segments: Vec<String>,
    values: Vec<Option<f64>>,
    margins: Vec<Option<f64>>,
}

impl Rows {
    fn add(&mut self, (model, k, segment): (&str, usize, &str), found: &Found, group: usize, of: &Lists<'_>) {
        let mut add = |metric: &'static str, value: Option<f64>, margin: Option<f64>| {
            self.models.push(model.to_owned());
            self.metrics.push(metric);
            self.ks.push(k as i32);
            self.segments.push(segment.to_owned());
            self.values.push(value);
            self.margins.push(margin);
        };
        let mut add_mean = |(metric, mean): (&&'static str, &Mean)| add(metric, mean.value(), mean.margin());
        OF_LIST.iter().zip(&found.of_list[group]).for_each(&mut add_mean);
        if of.popularity.is_some() {
            OF_POPULARITY.iter().zip(&found.of_popularity[group]).for_each(&mut add_mean);
        }
        if let Some(likeness) = of.likeness {
            let known = if likeness.history.is_some() { 2 } else { 1 };
            OF_VECTORS.iter().zip(&found.of_vectors[group]).take(known).for_each(&mut add_mean);
        }
        OF_ALL.iter().zip(found.of_all[group]).for_each(|(metric, value)| add(metric, Some(value), None));
    }

    fn into_batch(self, schema: SchemaRef) -> Result<RecordBatch> {
        let end = |sign: f64| {
            let ends = self.values.iter().zip(&self.margins);
            Float64Array::from_iter(ends.map(|(value, margin)| Some((*value)? + sign * (*margin)?)))
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(StringArray::from(self.models.clone())),
            Arc::new(StringArray::from(self.metrics.clone())),
            Arc::new(Int32Array::from(self.ks.clone())),
            Arc::new(StringArray::from(self.segments.clone())),
            Arc::new(Float64Array::from(self.values.clone())),
            Arc::new(end(-1.0)),
            Arc::new(end(1.0)),
        ];
        Ok(RecordBatch::try_new(schema, columns)?)
    }
}
