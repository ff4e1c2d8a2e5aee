//! Reads a stream of (id, id[, weight]) rows to its end, into compact codes.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, BooleanArray};
use datafusion::arrow::compute::{filter, is_not_null};
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::cast::as_float32_array;
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::{Result, exec_err, internal_datafusion_err, internal_err};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::execution::disk_manager::DiskManager;
use datafusion::execution::memory_pool::MemoryReservation;
use futures::StreamExt;
use futures::future::try_join_all;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use serde_with::{DisplayFromStr, serde_as};
use tokio::sync::Mutex;

use super::ids::{Interner, Numbering, Space, value_type};
use super::input_rows::InputRows;
use super::rows::Rows;
use super::spill::from_kernel;
use crate::kernels::Error;
use crate::kernels::csr::{self, Csr};
use crate::kernels::packed::{Codes, Weights};

/// How an input is read and how its columns are called in messages.
#[serde_as]
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Columns {
    /// The operator, for messages.
    pub operator: Cow<'static, str>,
    /// The names of the id columns as the user knows them.
    pub ids: Vec<String>,
    /// The types in which ids are interned.
    #[serde_as(as = "Vec<DisplayFromStr>")]
    pub types: Vec<DataType>,
    /// The name of the weight column, if there is one; it comes last, as Float32.
    pub weight: Option<String>,
    /// Whether rows with NULL are left out instead of refused.
    pub skip_nulls: bool,
}

/// What one reader took from the stream.
pub struct Chunk {
    rows: Rows,
    /// For each id column, the distinct ids by code.
    distinct: Vec<ArrayRef>,
    /// For each id column, how often each code occurs.
    counts: Vec<Vec<u32>>,
    /// For each id column, the number of each code once ids have been numbered.
    numbers: Vec<Vec<u32>>,
}

impl Chunk {
    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows.count()
    }

    /// The number of distinct ids in a column.
    pub fn distinct(&self, column: usize) -> usize {
        self.counts[column].len()
    }

    /// The bytes that it holds in memory.
    pub fn bytes(&self) -> usize {
        let ids = self.numbers.iter().chain(&self.counts).map(Vec::len).sum::<usize>();
        let distinct: usize = self.distinct.iter().map(|ids| ids.get_array_memory_size()).sum();
        self.rows.bytes() + ids * size_of::<u32>() + distinct
    }

    /// Visits the numbers of the ids in a column, in the order of rows.
    pub fn each_number(&self, column: usize, mut visit: impl FnMut(u32)) -> Result<()> {
        let numbers = &self.numbers[column];
        self.rows.each_piece(column, column, &mut |(codes, _, _)| {
            codes.iter().for_each(|&code| visit(numbers[code as usize]));
        })
    }

    /// Visits the weights, in the order of rows.
    pub fn each_weight(&self, mut visit: impl FnMut(f32)) -> Result<()> {
        self.rows.each_piece(0, 0, &mut |(_, _, weights)| weights.iter().for_each(|&weight| visit(weight)))
    }

    /// Gives the ids of a column the numbers that a space has for them.
    pub fn number_by(&mut self, column: usize, space: &mut Space) -> Result<()> {
        self.numbers[column] = space.add(&self.distinct[column])?;
        Ok(())
    }

    /// Puts all rows that are in memory aside. Returns the bytes that this freed.
    pub fn spill(&mut self, disk: &Arc<DiskManager>) -> Result<usize> {
        self.rows.spill(disk)
    }
}

/// The matrix of a range of rows, from two numbered id columns: which are rows, and which are columns.
pub fn matrix(chunks: &[Chunk], row: usize, column: usize, rows: Range<usize>, columns: usize) -> Result<Csr> {
    let parts: Vec<ChunkTriples<'_>> = chunks.iter().map(|chunk| ChunkTriples { chunk, row, column }).collect();
    let parts: Vec<&dyn csr::Triples> = parts.iter().map(|part| part as &dyn csr::Triples).collect();
    Csr::build(rows, columns, &parts).map_err(from_kernel)
}

/// Rows of a chunk as triples, one id column for the rows and one for the columns of a matrix.
struct ChunkTriples<'a> {
    chunk: &'a Chunk,
    row: usize,
    column: usize,
}

impl csr::Triples for ChunkTriples<'_> {
    fn rows(&self) -> &[u32] {
        &self.chunk.numbers[self.row]
    }

    fn columns(&self) -> &[u32] {
        &self.chunk.numbers[self.column]
    }

    fn counts(&self) -> Cow<'_, [u32]> {
        (&self.chunk.counts[self.row]).into()
    }

    fn each_piece(&self, visit: &mut dyn FnMut(csr::Piece<'_>)) -> Result<(), Error> {
        Ok(self.chunk.rows.each_piece(self.row, self.column, visit)?)
    }
}

/// Numbers the ids at all these places, each a table and a column of it, together.
pub fn number(
    tables: &mut [Vec<Chunk>],
    places: &[(usize, usize)],
    data_type: &DataType,
    out: &DataType,
) -> Result<Numbering> {
    number_where(tables, places, |_| true, data_type, out)
}

/// The same, by falling count of the ids in one of the tables.
pub fn number_by(
    tables: &mut [Vec<Chunk>],
    counted: usize,
    places: &[(usize, usize)],
    data_type: &DataType,
    out: &DataType,
) -> Result<Numbering> {
    number_where(tables, places, |table| table == counted, data_type, out)
}

fn number_where(
    tables: &mut [Vec<Chunk>],
    places: &[(usize, usize)],
    counted: impl Fn(usize) -> bool,
    data_type: &DataType,
    out: &DataType,
) -> Result<Numbering> {
    let columns = places.iter().flat_map(|&(table, column)| {
        let counted = counted(table);
        tables[table].iter().map(move |chunk| (chunk, column, counted))
    });
    let (numbering, numbers) = numbering(columns, data_type, out)?;
    let mut numbers = numbers.into_iter();
    for &(table, column) in places {
        tables[table].iter_mut().zip(&mut numbers).for_each(|(chunk, numbers)| chunk.numbers[column] = numbers);
    }
    Ok(numbering)
}

/// Numbers the ids of two columns of a table, each for itself but both at the same time, on the threads of the current pool. For
/// each there are the type in which ids are numbered and that in which they go out. What is held while ids are put
/// together and sorted is not reserved: about 100 bytes an id that is a number, and twice as much for strings.
pub fn number_both(
    chunks: &mut [Chunk],
    columns: [usize; 2],
    types: [(&DataType, &DataType); 2],
) -> Result<[Numbering; 2]> {
    let number = |at: usize| {
        let (data_type, out) = types[at];
        numbering(chunks.iter().map(|chunk| (chunk, columns[at], true)), data_type, out)
    };
    let (first, second) = rayon::join(|| number(0), || number(1));
    let (first, second) = (first?, second?);
    for (column, numbers) in columns.into_iter().zip([first.1, second.1]) {
        chunks.iter_mut().zip(numbers).for_each(|(chunk, numbers)| chunk.numbers[column] = numbers);
    }
    Ok([first.0, second.0])
}

/// Numbers the ids of columns of chunks together; only some are `counted` for the order. Returns the numbers of each one's codes.
fn numbering<'a>(
    columns: impl Iterator<Item = (&'a Chunk, usize, bool)>,
    data_type: &DataType,
    out: &DataType,
) -> Result<(Numbering, Vec<Vec<u32>>)> {
    let mut space = Space::try_new(data_type)?;
    let (mut counts, mut ranked): (Vec<u64>, Vec<u64>) = Default::default();
    let mut numbers = Vec::new();
    for (chunk, column, counted) in columns {
        let codes = space.add(&chunk.distinct[column])?;
        counts.resize(space.size(), 0);
        ranked.resize(space.size(), 0);
        for (&code, &n) in codes.iter().zip(&chunk.counts[column]) {
            counts[code as usize] += u64::from(n);
            ranked[code as usize] += if counted { u64::from(n) } else { 0 };
        }
        numbers.push(codes);
    }
    let (numbering, renumbered) = space.number(&counts, &ranked, out)?;
    numbers.iter_mut().for_each(|numbers| renumber(numbers, &renumbered));
    Ok((numbering, numbers))
}

/// Puts new numbers in the place of old ones.
fn renumber(numbers: &mut [u32], renumbered: &[u32]) {
    numbers.iter_mut().for_each(|number| *number = renumbered[*number as usize]);
}

/// Numbers the rows of a matrix anew, so that of those with equal counts the ones with the same first column stand side by
/// side. Works on the threads of the current pool.
pub fn group(chunks: &mut [Chunk], row: usize, column: usize, numbering: &mut Numbering) -> Result<()> {
    let firsts = chunks.par_iter().map(|chunk| {
        let (rows, columns) = (&chunk.numbers[row], &chunk.numbers[column]);
        let mut firsts = vec![u32::MAX; rows.len()];
        chunk.rows.each_piece(row, column, &mut |(rows, places, _)| {
            for (&row, &place) in rows.iter().zip(places) {
                let first = &mut firsts[row as usize];
                *first = columns[place as usize].min(*first);
            }
        })?;
        Ok(firsts)
    });
    let firsts: Vec<Vec<u32>> = firsts.collect::<Result<_>>()?;
    let mut first = vec![u32::MAX; numbering.ids.len()];
    for (chunk, firsts) in chunks.iter().zip(firsts) {
        for (&row, found) in chunk.numbers[row].iter().zip(firsts) {
            first[row as usize] = first[row as usize].min(found);
        }
    }
    let grouped = numbering.grouped(&first);
    arrange(chunks, row, numbering, grouped)
}

/// Numbers the rows of a matrix anew, given the old number of each new one.
pub fn arrange(chunks: &mut [Chunk], row: usize, numbering: &mut Numbering, arranged: Vec<u32>) -> Result<()> {
    let renumbered = numbering.arrange(arranged)?;
    chunks.iter_mut().for_each(|chunk| renumber(&mut chunk.numbers[row], &renumbered));
    Ok(())
}

#[derive(Default)]
struct Faults {
    nulls: Vec<usize>,
    not_finite: usize,
}

/// What a reader leaves.
struct Finished {
    chunk: Chunk,
    faults: Faults,
    /// For what the chunk holds.
    reserved: MemoryReservation,
}

struct Reader {
    columns: Columns,
    interners: Vec<Interner>,
    rows: Rows,
    /// Where rows go that find no room, if they may go anywhere.
    disk: Option<Arc<DiskManager>>,
    faults: Faults,
    memory: MemoryReservation,
    reserved: usize,
}

/// Reads rows with several readers at once, each from a stream of its own where there is one, then from what others have not
/// read yet. Which reader sees which batch does not matter to who numbers the ids by [`Space::number`]. Rows that find no
/// memory go to `disk`, where one is given.
pub async fn collect(
    rows: InputRows,
    columns: &Columns,
    threads: usize,
    memory: &MemoryReservation,
    disk: Option<Arc<DiskManager>>,
) -> Result<Vec<Chunk>> {
    let readers = threads.max(1);
    let streams: Arc<[_]> = rows.streams(readers)?.into_iter().map(|stream| Mutex::new(Some(stream))).collect();
    let mut tasks = Vec::new();
    for first in 0..readers {
        let mut reader = Reader::try_new(columns.clone(), memory.new_empty(), disk.clone())?;
        let streams = Arc::clone(&streams);
        tasks.push(SpawnedTask::spawn(async move {
            for at in 0..streams.len() {
                // Others may read from it while this reader works on what it got.
                while let Some(batch) = next(&streams[(first + at) % streams.len()]).await {
                    reader.read(&batch?)?;
                }
            }
            reader.finish()
        }));
    }
    let mut faults = Faults { nulls: vec![0; columns.ids.len() + 1], not_finite: 0 };
    let mut chunks = Vec::new();
    // The first to fail ends all others.
    let finished = try_join_all(tasks.into_iter().map(|task| async {
        task.join_unwind().await.map_err(|e| internal_datafusion_err!("a reader was cut off: {e}"))?
    }));
    for Finished { chunk, faults: found, reserved } in finished.await? {
        for (total, count) in faults.nulls.iter_mut().zip(&found.nulls) {
            *total += count;
        }
        faults.not_finite += found.not_finite;
        let held = reserved.size();
        // From here on the caller's reservation covers what the readers hold.
        reserved.free();
        memory.try_grow(held)?;
        chunks.push(chunk);
    }
    faults.check(columns)?;
    Ok(chunks)
}

/// The next rows of a stream, which goes when it ends or fails: it may hold much, and others may wait for what it leaves.
async fn next(stream: &Mutex<Option<SendableRecordBatchStream>>) -> Option<Result<RecordBatch>> {
    let mut stream = stream.lock().await;
    let next = stream.as_mut()?.next().await;
    if !matches!(next, Some(Ok(_))) {
        *stream = None;
    }
    next
}

impl Reader {
    fn try_new(columns: Columns, memory: MemoryReservation, disk: Option<Arc<DiskManager>>) -> Result<Self> {
        let interners: Vec<Interner> = columns.types.iter().map(Interner::try_new).collect::<Result<_>>()?;
        let faults = Faults { nulls: vec![0; columns.ids.len() + 1], not_finite: 0 };
        let rows = Rows::new(interners.len(), columns.weight.is_some());
        Ok(Self { columns, interners, rows, disk, faults, memory, reserved: 0 })
    }

    fn read(&mut self, batch: &RecordBatch) -> Result<()> {
        let nulls: Vec<usize> = batch.columns().iter().map(|column| column.logical_null_count()).collect();
        if nulls.iter().any(|&count| count > 0) {
            for (total, count) in self.faults.nulls.iter_mut().zip(&nulls) {
                *total += count;
            }
            if self.columns.skip_nulls {
                let keep = complete_rows(batch)?;
                let kept: Vec<ArrayRef> =
                    batch.columns().iter().map(|column| filter(column, &keep)).collect::<Result<_, _>>()?;
                return self.intern(&kept);
            }
            // The faults are reported at the end, with their number; until then there is nothing to intern.
            return Ok(());
        }
        self.intern(batch.columns())
    }

    fn intern(&mut self, columns: &[ArrayRef]) -> Result<()> {
        let rows = columns.first().map_or(0, |column| column.len());
        self.reserve(rows)?;
        for (planned, ids) in self.columns.types.iter().zip(columns) {
            if *planned != value_type(ids.data_type()) {
                return internal_err!("ids are {} where {planned} was planned", ids.data_type());
            }
        }
        let intern = |(interner, ids): (&mut Interner, &ArrayRef)| {
            let codes = interner.intern(ids)?;
            Ok(Codes::pack(codes, interner.distinct()))
        };
        let codes = self.interners.iter_mut().zip(columns).map(intern).collect::<Result<_>>()?;
        let weights = match &self.columns.weight {
            Some(_) => Weights::pack(as_float32_array(&columns[self.columns.ids.len()])?.values()),
            None => Weights::pack(&[]),
        };
        // Others are halves from 0 to 127.5.
        if let Weights::Singles(weights) = &weights {
            self.faults.not_finite += weights.iter().filter(|weight| !is_usable(**weight)).count();
        }
        self.rows.push(rows, codes, weights);
        Ok(())
    }

    /// Asks the pool for what the next rows will take, in steps of growing vectors; rows that find no room go to disk.
    fn reserve(&mut self, rows: usize) -> Result<()> {
        let interned: usize = self.interners.iter().map(Interner::size).sum();
        let next = rows * self.rows.row_bytes() + interned;
        let wanted = self.rows.bytes() + next;
        if wanted <= self.reserved {
            return Ok(());
        }
        let step = (wanted - self.reserved).max(1 << 20);
        let grown = self.memory.try_grow(step);
        if let (Err(_), Some(disk), true) = (&grown, &self.disk, self.rows.bytes() > 0) {
            self.rows.spill(disk)?;
            self.reserved = next.max(1 << 20);
            return self.memory.try_resize(self.reserved);
        }
        self.reserved += step;
        grown
    }

    fn finish(self) -> Result<Finished> {
        let numbers = vec![Vec::new(); self.interners.len()];
        let interned = self.interners.into_iter().map(Interner::finish).collect::<Result<Vec<_>>>()?;
        let (distinct, counts) = interned.into_iter().unzip();
        let chunk = Chunk { rows: self.rows, distinct, counts, numbers };
        Ok(Finished { chunk, faults: self.faults, reserved: self.memory })
    }
}

/// Refuses a table of ratings that has a pair more than once, as the sum of two ratings is none.
pub fn check_rated_once(operator: &str, argument: &str, rows: usize, pairs: usize) -> Result<()> {
    let twice = rows - pairs;
    if twice > 0 {
        return exec_err!(
            "{operator}: argument '{argument}' rates {twice} pair{} of user and item more than once; take one rating of each, such as avg(rating) with GROUP BY",
            if twice == 1 { "" } else { "s" }
        );
    }
    Ok(())
}

/// Beyond this, sums of weights may leave the range of Float32.
pub const LARGEST_WEIGHT: f32 = 1e36;

fn is_usable(weight: f32) -> bool {
    // Not so for NaN.
    weight.abs() <= LARGEST_WEIGHT
}

fn complete_rows(batch: &RecordBatch) -> Result<BooleanArray> {
    let mut keep = BooleanArray::from(vec![true; batch.num_rows()]);
    for column in batch.columns() {
        keep = datafusion::arrow::compute::and(&keep, &is_not_null(column)?)?;
    }
    Ok(keep)
}

impl Faults {
    fn check(&self, columns: &Columns) -> Result<()> {
        let operator = &columns.operator;
        let mut missing = columns.ids.iter().chain(&columns.weight).zip(&self.nulls).filter(|(_, count)| **count > 0);
        if let (false, Some((name, &count))) = (columns.skip_nulls, missing.next()) {
            return exec_err!(
                "{operator}: column '{name}' has {count} NULL{}; filter them out, or leave such rows out with on_null => 'skip'",
                if count == 1 { "" } else { "s" }
            );
        }
        match (&columns.weight, self.not_finite) {
            (Some(name), count) if count > 0 => exec_err!(
                "{operator}: column '{name}' has {count} weight{} that {} NaN, infinite or beyond 1e36",
                if count == 1 { "" } else { "s" },
                if count == 1 { "is" } else { "are" }
            ),
            _ => Ok(()),
        }
    }
}
