//! A sparse matrix in compressed rows, the shape in which every kernel takes its input.

/// A sparse matrix by rows: row `r` has its entries at `offsets[r]..offsets[r + 1]`.
///
/// An unweighted matrix keeps no values: each of its entries counts as 1.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Csr {
    /// Number of columns; every entry of `indices` is below it.
    pub columns: usize,
    /// `rows + 1` positions into `indices`, rising.
    pub offsets: Vec<usize>,
    /// The column of each entry.
    pub indices: Vec<u32>,
    /// The value of each entry, or nothing for an unweighted matrix.
    pub values: Vec<f32>,
}

impl Csr {
    /// Groups entries by row, by counting; within a row they keep the order they came in.
    ///
    /// `chunks` are slices of `(row, column, value)`, the values empty for an unweighted matrix.
    pub fn from_entries(rows: usize, columns: usize, chunks: &[(&[u32], &[u32], &[f32])]) -> Self {
        let mut offsets = vec![0usize; rows + 1];
        for (chunk_rows, _, _) in chunks {
            for &row in *chunk_rows {
                offsets[row as usize + 1] += 1;
            }
        }
        for row in 0..rows {
            offsets[row + 1] += offsets[row];
        }
        let entries = offsets[rows];
        let weighted = chunks.iter().any(|(_, _, values)| !values.is_empty());
        let mut indices = vec![0u32; entries];
        let mut values = vec![0f32; if weighted { entries } else { 0 }];
        let mut next = offsets.clone();
        for (chunk_rows, chunk_columns, chunk_values) in chunks {
            for (at, (&row, &column)) in chunk_rows.iter().zip(*chunk_columns).enumerate() {
                let slot = next[row as usize];
                next[row as usize] += 1;
                indices[slot] = column;
                if weighted {
                    values[slot] = chunk_values[at];
                }
            }
        }
        Self { columns, offsets, indices, values }
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.offsets.len().saturating_sub(1)
    }

    /// The number of entries.
    pub fn entries(&self) -> usize {
        self.indices.len()
    }

    /// Whether entries carry values.
    pub fn weighted(&self) -> bool {
        !self.values.is_empty()
    }

    /// The columns and values of a row; the values are empty for an unweighted matrix.
    pub fn row(&self, row: usize) -> (&[u32], &[f32]) {
        let range = self.offsets[row]..self.offsets[row + 1];
        let values = if self.weighted() { &self.values[range.clone()] } else { &[] };
        (&self.indices[range], values)
    }

    /// The number of entries in a row.
    pub fn row_len(&self, row: usize) -> usize {
        self.offsets[row + 1] - self.offsets[row]
    }

    /// The transposed matrix; the columns of each of its rows rise.
    pub fn transposed(&self) -> Self {
        let mut offsets = vec![0usize; self.columns + 1];
        for &column in &self.indices {
            offsets[column as usize + 1] += 1;
        }
        for column in 0..self.columns {
            offsets[column + 1] += offsets[column];
        }
        let mut indices = vec![0u32; self.entries()];
        let mut values = vec![0f32; self.values.len()];
        let mut next = offsets.clone();
        for row in 0..self.rows() {
            for at in self.offsets[row]..self.offsets[row + 1] {
                let slot = &mut next[self.indices[at] as usize];
                indices[*slot] = row as u32;
                if self.weighted() {
                    values[*slot] = self.values[at];
                }
                *slot += 1;
            }
        }
        Self { columns: self.rows(), offsets, indices, values }
    }

    /// Sums entries of the same row and column; the columns of each row must rise. An unweighted matrix with repeats
    /// becomes one of their counts.
    ///
    /// The summands are ordered by value first, so the sum does not depend on the order they came in.
    pub fn sum_duplicates(&mut self) {
        let repeats = |pair: &[u32]| pair[0] == pair[1];
        if !(0..self.rows()).any(|row| self.row(row).0.windows(2).any(repeats)) {
            return;
        }
        if self.values.is_empty() {
            self.values = vec![1.0; self.entries()];
        }
        let mut kept = 0;
        let mut start = 0;
        for row in 0..self.rows() {
            let end = self.offsets[row + 1];
            let mut at = start;
            while at < end {
                let column = self.indices[at];
                let run = at + self.indices[at..end].iter().take_while(|&&c| c == column).count();
                self.indices[kept] = column;
                let summands = &mut self.values[at..run];
                summands.sort_unstable_by(f32::total_cmp);
                self.values[kept] = summands.iter().map(|&v| f64::from(v)).sum::<f64>() as f32;
                kept += 1;
                at = run;
            }
            start = end;
            self.offsets[row + 1] = kept;
        }
        self.indices.truncate(kept);
        self.values.truncate(kept);
    }

    /// The bytes that its vectors hold.
    pub fn bytes(&self) -> usize {
        Self::bytes_for(self.rows(), self.entries(), self.weighted())
    }

    /// The bytes that a matrix of this shape will hold, for reserving them first.
    pub fn bytes_for(rows: usize, entries: usize, weighted: bool) -> usize {
        (rows + 1) * size_of::<usize>() + entries * if weighted { 8 } else { 4 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transposing_twice_sorts_rows_and_keeps_entries() {
        let m = Csr::from_entries(2, 3, &[(&[1, 0, 1], &[2, 1, 0], &[5.0, 6.0, 7.0])]);
        let sorted = m.transposed().transposed();
        assert_eq!(sorted.row(0), (&[1u32][..], &[6.0f32][..]));
        assert_eq!(sorted.row(1), (&[0u32, 2][..], &[7.0f32, 5.0][..]));
    }

    #[test]
    fn duplicates_are_summed_in_any_order() {
        let sum = |values: [f32; 4]| {
            let mut m = Csr::from_entries(1, 2, &[(&[0; 4], &[1; 4], &values)]);
            m.sum_duplicates();
            assert_eq!(m.entries(), 1);
            m.values[0]
        };
        assert_eq!(sum([1e8, 1.0, -1e8, 0.5]).to_bits(), sum([0.5, -1e8, 1.0, 1e8]).to_bits());
    }

    #[test]
    fn an_unweighted_matrix_counts_duplicates() {
        let mut m = Csr::from_entries(2, 2, &[(&[0, 0, 1], &[1, 1, 0], &[])]);
        m.sum_duplicates();
        assert_eq!((m.offsets, m.indices, m.values), (vec![0, 1, 2], vec![1, 0], vec![2.0, 1.0]));
    }
}
