//! What happens to weights before similarity: term weighting and centring.

use super::csr::Csr;

/// How entries are weighted before a metric sees them. With `N` entities, `df` the number of entities that have the
/// feature, `w` the entry's weight, `len` the sum of the entity's weights and `avg` the mean of `len`:
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd)]
pub enum Weighting {
    /// `w`
    None,
    /// `w · ln(1 + N / df)` (Manning, Raghavan and Schütze 2008, smoothed so that no weight is 0)
    Tfidf,
    /// `idf · w (k1 + 1) / (w + k1 (1 - b + b len / avg))` with `idf = ln(1 + (N - df + 0.5) / (df + 0.5))`, `k1 = 1.2`,
    /// `b = 0.75` (Robertson and Zaragoza 2009, the idf as in Lucene, never negative)
    Bm25,
    /// `1`
    Binary,
}

impl Weighting {
    /// Every weighting under the name it has in SQL.
    pub const NAMES: [(&'static str, Self); 4] =
        [("none", Self::None), ("tfidf", Self::Tfidf), ("bm25", Self::Bm25), ("binary", Self::Binary)];

    /// The name it has in SQL.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, weighting)| *weighting == self).map_or("", |(name, _)| name)
    }
}

/// Applies a weighting to a matrix of entities (rows) by features (columns).
pub fn weigh(matrix: &mut Csr, weighting: Weighting) {
    if weighting == Weighting::None {
        return;
    }
    if weighting == Weighting::Binary {
        matrix.values = Vec::new();
        return;
    }
    if matrix.values.is_empty() {
        matrix.values = vec![1.0; matrix.entries()];
    }
    let entities = (0..matrix.rows()).filter(|&row| matrix.row_len(row) > 0).count() as f64;
    let mut frequency = vec![0u32; matrix.columns];
    matrix.indices.iter().for_each(|&feature| frequency[feature as usize] += 1);
    let idf: Vec<f64> = frequency
        .iter()
        .map(|&df| match weighting {
            Weighting::Tfidf => (entities / f64::from(df)).ln_1p(),
            _ => ((entities - f64::from(df) + 0.5) / (f64::from(df) + 0.5)).ln_1p(),
        })
        .collect();
    let total: f64 = matrix.values.iter().map(|&v| f64::from(v)).sum();
    let average = total / entities;
    for row in 0..matrix.rows() {
        let range = matrix.offsets[row]..matrix.offsets[row + 1];
        let length: f64 = matrix.values[range.clone()].iter().map(|&v| f64::from(v)).sum();
        for at in range {
            let weight = f64::from(matrix.values[at]);
            let term = match weighting {
                Weighting::Tfidf => weight,
                _ => weight * (K1 + 1.0) / (weight + K1 * (1.0 - B + B * length / average)).max(f64::MIN_POSITIVE),
            };
            matrix.values[at] = (term * idf[matrix.indices[at] as usize]) as f32;
        }
    }
}

const K1: f64 = 1.2;
const B: f64 = 0.75;

/// Subtracts from each entry the mean of its row's entries.
pub fn centre_rows(matrix: &mut Csr) {
    for row in 0..matrix.rows() {
        let values = &mut matrix.values[matrix.offsets[row]..matrix.offsets[row + 1]];
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / values.len() as f64;
        values.iter_mut().for_each(|v| *v = (f64::from(*v) - mean) as f32);
    }
}

/// Subtracts from each entry the mean of its column's entries.
pub fn centre_columns(matrix: &mut Csr) {
    let mut sums = vec![(0f64, 0u32); matrix.columns];
    for (&column, &value) in matrix.indices.iter().zip(&matrix.values) {
        sums[column as usize].0 += f64::from(value);
        sums[column as usize].1 += 1;
    }
    for (&column, value) in matrix.indices.iter().zip(&mut matrix.values) {
        let (sum, count) = sums[column as usize];
        *value = (f64::from(*value) - sum / f64::from(count)) as f32;
    }
}

/// Multiplies the values of each row by a power of two that brings its largest near 1, where they are so large or small
/// that products of singles would overflow or vanish. Returns the factor of each row, or nothing if no row needed one;
/// scaling by it is exact.
pub fn tame(matrix: &mut Csr) -> Vec<f64> {
    let factor = |values: &[f32]| {
        let largest = values.iter().fold(0f32, |max, v| max.max(v.abs()));
        let exponent = f64::from(largest).log2().floor();
        if largest == 0.0 || exponent.abs() <= 30.0 { 1.0 } else { (-exponent).exp2() }
    };
    let factors: Vec<f64> = (0..matrix.rows()).map(|row| factor(matrix.row(row).1)).collect();
    if factors.iter().all(|factor| *factor == 1.0) {
        return Vec::new();
    }
    for (row, factor) in factors.iter().enumerate() {
        let range = matrix.offsets[row]..matrix.offsets[row + 1];
        matrix.values[range].iter_mut().for_each(|v| *v = (f64::from(*v) * factor) as f32);
    }
    factors
}
