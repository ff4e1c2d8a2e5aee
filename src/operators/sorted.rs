//! Rows too many for memory: cut into blocks that fit, and sorted block by block into a file.

use std::ops::Range;
use std::sync::Arc;

use datafusion::common::{DataFusionError, Result};
use datafusion::execution::disk_manager::DiskManager;
use datafusion::execution::memory_pool::MemoryReservation;

use super::spill::Spill;
use crate::kernels::block::MOST_ROWS;
use crate::kernels::csr::Csr;
use crate::kernels::similarity::blocks;

/// Where each row would begin if rows of so many entries stood one after the other, and where the last would end.
pub fn offsets_of(counts: &[u64]) -> Vec<usize> {
    let mut offsets = Vec::with_capacity(counts.len() + 1);
    offsets.push(0);
    offsets.extend(counts.iter().scan(0, |end, count| {
        *end += *count as usize;
        Some(*end)
    }));
    offsets
}

/// Cuts rows into blocks of about as many entries; where each begins, and where the last ends.
pub fn blocks_of_rows(matrix: &Csr, entries: usize) -> Vec<usize> {
    let mut bounds = vec![0];
    let mut held = 0;
    for row in 0..matrix.rows() {
        held += matrix.row_len(row);
        if held >= entries || row + 1 == matrix.rows() {
            bounds.push(row + 1);
            held = 0;
        }
    }
    bounds
}

/// The number of entries of the largest block.
pub fn largest(offsets: &[usize], bounds: &[usize]) -> usize {
    bounds.windows(2).map(|block| offsets[block[1]] - offsets[block[0]]).max().unwrap_or(0)
}

/// Cuts rows into the largest blocks for which the pool gives the bytes that they need. `operator` and `what` say who
/// needs the memory, and for how many of what, where even small blocks need more than there is.
pub fn fit(
    memory: &MemoryReservation,
    offsets: &[usize],
    (operator, what): (&str, &str),
    needs: impl Fn(&[usize]) -> usize,
) -> Result<Vec<usize>> {
    let mut most = offsets.last().copied().unwrap_or(0).max(1);
    loop {
        let bounds = blocks(offsets, MOST_ROWS, most.min(u32::MAX as usize));
        let needed = needs(&bounds);
        if memory.try_resize(needed).is_ok() {
            return Ok(bounds);
        }
        // Halving blocks that are rows already, or nothing beside the rest, gains nothing.
        if most <= largest(offsets, &bounds) / 2 || most < 1024 {
            return Err(DataFusionError::ResourcesExhausted(format!(
                "{operator} needs at least {} MB for {} {what}, even block by block",
                needed.div_ceil(1_000_000),
                offsets.len() - 1
            )));
        }
        most /= 2;
    }
}

/// Builds one block of rows after the other and puts their entries into a file. Returns it, and where in it rows begin.
pub fn spill_rows(
    disk: &Arc<DiskManager>,
    bounds: &[usize],
    mut build: impl FnMut(Range<usize>) -> Result<Csr>,
) -> Result<(Spill, Vec<usize>)> {
    let mut file = Spill::try_new(disk, "sorted rows")?;
    let mut offsets = vec![0];
    for range in bounds.windows(2) {
        let matrix = build(range[0]..range[1])?;
        let first = offsets[range[0]];
        offsets.extend(matrix.offsets[1..].iter().map(|offset| first + offset));
        file.append(&matrix.entries)?;
    }
    Ok((file, offsets))
}
