//! Rows of codes and weights that wait until all have been read: in memory, or put aside.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::execution::disk_manager::DiskManager;

use super::spill::Spill;
use crate::kernels::csr;
use crate::kernels::packed::{Codes, Weights};

/// Rows in the order in which they came.
pub struct Rows {
    /// The number of columns of codes.
    columns: usize,
    /// Whether rows have weights.
    weighted: bool,
    pieces: Vec<Piece>,
    /// What all pieces hold, in bytes.
    bytes: usize,
    spilled: Option<Spilled>,
}

/// The rows of a batch. They are kept as they came: joined vectors would be copied, and memory touched anew, as they grow.
struct Piece {
    rows: usize,
    codes: Vec<Codes>,
    /// Of no rows where there are no weights.
    weights: Weights,
}

/// Rows that were put aside.
struct Spilled {
    file: Spill,
    /// Where each piece begins, and its number of rows; columns stand one after the other, the weights last.
    pieces: Vec<(u64, usize)>,
}

impl Rows {
    /// No rows yet.
    pub fn new(columns: usize, weighted: bool) -> Self {
        Self { columns, weighted, pieces: Vec::new(), bytes: 0, spilled: None }
    }

    /// Adds the rows of a batch: the codes of each column, and the weights, if there are any.
    pub fn push(&mut self, rows: usize, codes: Vec<Codes>, weights: Weights) {
        self.bytes += codes.iter().map(Codes::bytes).sum::<usize>() + weights.bytes();
        self.pieces.push(Piece { rows, codes, weights });
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        let spilled = self.spilled.iter().flat_map(|spilled| &spilled.pieces).map(|(_, rows)| rows).sum::<usize>();
        spilled + self.pieces.iter().map(|piece| piece.rows).sum::<usize>()
    }

    /// The bytes of those in memory.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The most bytes that a row takes.
    pub fn row_bytes(&self) -> usize {
        size_of::<u32>() * self.columns + size_of::<f32>() * usize::from(self.weighted)
    }

    /// Visits two columns of codes, and the weights.
    pub fn each_piece(&self, first: usize, second: usize, visit: &mut dyn FnMut(csr::Piece<'_>)) -> Result<()> {
        if let Some(spilled) = &self.spilled {
            for &(at, rows) in &spilled.pieces {
                let column_at = |column: usize| at + (column * rows * size_of::<u32>()) as u64;
                let codes = |column| spilled.file.read::<u32>(column_at(column), rows);
                let weighted = if self.weighted { rows } else { 0 };
                let weights = spilled.file.read::<f32>(column_at(self.columns), weighted)?;
                visit((&codes(first)?, &codes(second)?, &weights));
            }
        }
        let (mut one, mut other, mut room) = (Vec::new(), Vec::new(), Vec::new());
        for Piece { codes, weights, .. } in &self.pieces {
            let codes = (codes[first].unpack(&mut one), codes[second].unpack(&mut other));
            visit((codes.0, codes.1, weights.unpack(&mut room)));
        }
        Ok(())
    }

    /// Puts all rows that are in memory aside. Returns the bytes that this freed.
    pub fn spill(&mut self, disk: &Arc<DiskManager>) -> Result<usize> {
        let (mut codes_room, mut weights_room) = (Vec::new(), Vec::new());
        for piece in self.pieces.drain(..) {
            let to = match &mut self.spilled {
                Some(to) => to,
                None => self.spilled.insert(Spilled { file: Spill::try_new(disk, "rows")?, pieces: Vec::new() }),
            };
            let mut at = None;
            for codes in &piece.codes {
                at = at.or(Some(to.file.append(codes.unpack(&mut codes_room))?));
            }
            to.file.append(piece.weights.unpack(&mut weights_room))?;
            to.pieces.extend(at.map(|at| (at, piece.rows)));
        }
        Ok(std::mem::take(&mut self.bytes))
    }
}
