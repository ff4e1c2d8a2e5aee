//! Reads tables of vectors: ids, each with a list of numbers.

use datafusion::arrow::array::{Array, ArrayRef, AsArray, UInt32Array};
use datafusion::arrow::compute::{cast, concat, take};
use datafusion::arrow::datatypes::{DataType, Float32Type};
use datafusion::common::{Result, exec_err, plan_err};
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::logical_expr::LogicalPlan;
use futures::StreamExt;

use super::ids::{Space, inverse, places, value_type};
use super::input::Input;
use super::input_rows::InputRows;
use super::node::on_pool;
use crate::kernels::simd::padded;
use crate::kernels::vectors::Vectors;

/// An input of ids and vectors, planned.
pub struct VectorInput {
    /// Yields the id and the vector.
    pub plan: LogicalPlan,
    /// How the column of ids is called.
    pub name: String,
    /// The type of ids.
    pub id_type: DataType,
    /// The type in which they are interned.
    pub value_type: DataType,
}

impl VectorInput {
    /// The vector is the column of that name, else the second; the id is the first of the others. Ids are read as the type
    /// that they are to match, if there is one.
    pub fn new(mut input: Input, as_type: Option<&DataType>) -> Result<Self> {
        let vector = match input.find("vector") {
            Some(at) => at,
            None => input.at(1, "vector")?,
        };
        let id = usize::from(vector == 0);
        input.at(id, "id")?;
        let data_type = input.data_type(vector);
        if !matches!(data_type, DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..)) {
            return plan_err!("{}", input.wants(&format!("a list of numbers as vector, not {data_type}")));
        }
        let (name, id_type) = (input.name(id), input.data_type(id));
        let value_type = as_type.cloned().unwrap_or_else(|| value_type(&id_type));
        input.choose_id(id, &value_type)?;
        input.choose_vector(vector)?;
        Ok(Self { plan: input.into_plan()?, name, id_type, value_type })
    }
}

/// Ids and their vectors by number, which is the place of the id among all in order: it is the same wherever the rows
/// came in another order.
pub struct VectorTable {
    /// The ids in order.
    pub ids: ArrayRef,
    /// The number of each id, for whoever has ids to look up.
    pub space: Space,
    /// Their vectors.
    pub vectors: Vectors,
}

impl VectorTable {
    /// From ids and vectors in any order. Works on the threads of the current pool.
    fn sorted(ids: ArrayRef, vectors: Vectors) -> Result<Self> {
        let sorted = inverse(&places(&ids)?);
        let values = sorted.iter().flat_map(|&at| vectors.row(at as usize)).copied().collect();
        let ids = take(&ids, &UInt32Array::from(sorted), None)?;
        let mut space = Space::try_new(ids.data_type())?;
        space.add(&ids)?;
        Ok(Self { ids, space, vectors: Vectors { values, ..vectors } })
    }

    /// The vectors, and where among them that of each of these ids is.
    pub fn placed(mut self, ids: &ArrayRef) -> Result<(Vectors, Vec<Option<u32>>)> {
        let known = self.ids.len() as u32;
        let places = self.space.add(ids)?.into_iter().map(|place| Some(place).filter(|place| *place < known)).collect();
        Ok((self.vectors, places))
    }
}

/// Reads all rows, and sorts them on so many threads. `operator` and `what` name the input in messages.
pub async fn read(
    rows: InputRows,
    operator: &str,
    what: &str,
    value_type: &DataType,
    memory: &MemoryReservation,
    threads: usize,
) -> Result<VectorTable> {
    let (mut ids, mut values, mut factors) = (Vec::new(), Vec::<f32>::new(), None);
    let mut stream = rows.stream()?;
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        if batch.columns().iter().any(|column| column.logical_null_count() > 0) {
            return exec_err!("{operator}: argument '{what}' has NULLs; filter them out");
        }
        let lists = batch.column(1).as_list::<i32>();
        let components = lists.values().as_primitive::<Float32Type>();
        for ends in lists.value_offsets().windows(2) {
            let vector = ends[0] as usize..ends[1] as usize;
            let length = *factors.get_or_insert(vector.len());
            if vector.len() != length || length == 0 {
                let found = vector.len();
                return exec_err!(
                    "{operator}: argument '{what}' has vectors of {length} and of {found} numbers; all must be of one length above 0"
                );
            }
            let numbers = &components.values()[vector.clone()];
            if components.slice(vector.start, length).null_count() > 0 || numbers.iter().any(|v| !v.is_finite()) {
                return exec_err!("{operator}: argument '{what}' has vectors with NULL, NaN or infinite numbers");
            }
            values.extend_from_slice(numbers);
            values.resize(values.len() + padded(length) - length, 0.0);
        }
        memory.try_resize(size_of_val(&values[..]))?;
        ids.push(cast(batch.column(0), value_type)?);
    }
    let parts: Vec<&dyn Array> = ids.iter().map(|ids| ids as &dyn Array).collect();
    let ids = match parts.is_empty() {
        true => datafusion::arrow::array::new_empty_array(value_type),
        false => concat(&parts)?,
    };
    let vectors = Vectors { factors: factors.unwrap_or(0), values };
    // They are copied into their order.
    let bytes = size_of_val(&vectors.values[..]);
    memory.try_grow(bytes)?;
    let table = on_pool(threads, move || VectorTable::sorted(ids, vectors)).await?;
    memory.try_resize(bytes)?;
    if table.space.size() != table.ids.len() {
        return exec_err!("{operator}: argument '{what}' has an id twice; each id has one vector");
    }
    Ok(table)
}
