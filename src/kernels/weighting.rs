//! What happens to weights before similarity: term weighting and centring.
//!
//! All of it works on rows in pieces, as an update of their entries, since not all rows may be in memory at once.

use serde::{Deserialize, Serialize};

use super::csr::entry;

/// How entries are weighted before a metric sees them. With `N` entities, `df` the number of entities that have the
/// feature, `w` the entry's weight, `len` the sum of the entity's weights and `avg` the mean of `len`:
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Serialize, Deserialize)]
pub enum Weighting {
    /// `w`
    None,
    /// `w · ln(1 + N / df)` (Manning, Raghavan and Schütze 2008, smoothed so that no weight is 0)
    Tfidf,
    /// `idf · w (k1 + 1) / (w + k1 (1 - b + b len / avg))` with `idf = ln(1 + (N - df + 0.5) / (df + 0.5))`, `k1 = 1.2`,
    /// `b = 0.75` (Robertson and Zaragoza 2009, the idf as in Lucene, never negative); 0 for a weight of 0, also where all are
    Bm25,
    /// `1`
    Binary,
}

const K1: f64 = 1.2;
const B: f64 = 0.75;

impl Weighting {
    /// Every weighting under the name it has in SQL.
    pub const NAMES: [(&'static str, Self); 4] =
        [("none", Self::None), ("tfidf", Self::Tfidf), ("bm25", Self::Bm25), ("binary", Self::Binary)];

    /// The name it has in SQL.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, weighting)| *weighting == self).map_or("", |(name, _)| name)
    }
}

/// What term weighting knows of all rows.
#[derive(Debug)]
pub struct Terms {
    weighting: Weighting,
    /// For each column the number of its rows, later its idf.
    idf: Vec<f64>,
    rows: f64,
    /// The sum of all weights, later the mean of each row's sum.
    length: f64,
}

impl Terms {
    /// Nothing known yet of rows over this many columns.
    pub fn new(weighting: Weighting, columns: usize) -> Self {
        Self { weighting, idf: vec![0.0; columns], rows: 0.0, length: 0.0 }
    }

    /// Takes note of a row; rows come in their order, as sums of doubles depend on it.
    pub fn add(&mut self, row: &[u64]) {
        self.rows += f64::from(u8::from(!row.is_empty()));
        self.length += sum(row);
        row.iter().for_each(|&e| self.idf[entry::column(e) as usize] += 1.0);
    }

    /// Ends the taking of notes.
    pub fn finish(&mut self) {
        let rows = self.rows;
        self.length /= rows;
        self.idf.iter_mut().for_each(|df| {
            *df = match self.weighting {
                Weighting::Tfidf => (rows / *df).ln_1p(),
                _ => ((rows - *df + 0.5) / (*df + 0.5)).ln_1p(),
            }
        });
    }

    /// Weighs a row.
    pub fn weigh(&self, row: &mut [u64]) {
        let length = sum(row);
        update(row, |column, value| {
            let weight = f64::from(value);
            let term = match self.weighting {
                Weighting::Tfidf => weight,
                _ => weight * (K1 + 1.0) / (weight + K1 * (1.0 - B + B * length / self.length)).max(f64::MIN_POSITIVE),
            };
            (term * self.idf[column as usize]) as f32
        });
    }
}

/// The mean of each column's entries.
#[derive(Debug)]
pub struct ColumnMeans {
    sums: Vec<(f64, u32)>,
}

impl ColumnMeans {
    /// Nothing known yet of rows over this many columns.
    pub fn new(columns: usize) -> Self {
        Self { sums: vec![(0.0, 0); columns] }
    }

    /// Takes note of a row; rows come in their order, as sums of doubles depend on it.
    pub fn add(&mut self, row: &[u64]) {
        for &e in row {
            let (sum, count) = &mut self.sums[entry::column(e) as usize];
            *sum += f64::from(entry::value(e));
            *count += 1;
        }
    }

    /// Subtracts from each entry of a row the mean of its column.
    pub fn centre(&self, row: &mut [u64]) {
        update(row, |column, value| {
            let (sum, count) = self.sums[column as usize];
            (f64::from(value) - sum / f64::from(count)) as f32
        });
    }
}

/// The degree of each column: the sum of its entries.
#[derive(Debug)]
pub struct Degrees {
    sums: Vec<f64>,
}

impl Degrees {
    /// Nothing known yet of rows over this many columns.
    pub fn new(columns: usize) -> Self {
        Self { sums: vec![0.0; columns] }
    }

    /// Takes note of a row; rows come in their order, as sums of doubles depend on it.
    pub fn add(&mut self, row: &[u64]) {
        row.iter().for_each(|&e| self.sums[entry::column(e) as usize] += f64::from(entry::value(e)));
    }

    /// What to multiply by to divide by this power of the degree of each column, with the digits of a single.
    pub fn scales(&self, exponent: f64) -> Vec<f64> {
        self.sums.iter().map(|&sum| rounded(divisor(sum, exponent))).collect()
    }
}

/// Raises each entry of a row to a power, where 0 stays 0, and multiplies it by the scale of its column.
pub fn raise(row: &mut [u64], power: f64, scales: &[f64]) {
    update(row, |column, value| {
        let raised = if value == 0.0 { 0.0 } else { f64::from(value).powf(power) };
        (raised * scales[column as usize]) as f32
    });
}

/// A number of at least 0, rounded to as many digits as a single has. Unlike a single it keeps its exponent.
fn rounded(number: f64) -> f64 {
    const CUT: u32 = f64::MANTISSA_DIGITS - f32::MANTISSA_DIGITS;
    f64::from_bits((number.to_bits() + (1 << (CUT - 1))) >> CUT << CUT)
}

/// The degree of a row: the sum of its entries.
pub fn degree(row: &[u64]) -> f64 {
    sum(row)
}

/// What to multiply by to divide by a power of a degree. Nothing comes by way of what has degree 0.
pub fn divisor(degree: f64, exponent: f64) -> f64 {
    if degree > 0.0 { degree.powf(-exponent) } else { 0.0 }
}

/// Subtracts from each entry of a row the mean of the row.
pub fn centre(row: &mut [u64]) {
    let mean = sum(row) / row.len() as f64;
    update(row, |_, value| (f64::from(value) - mean) as f32);
}

/// Replaces each value of a row.
pub fn update(row: &mut [u64], mut value: impl FnMut(u32, f32) -> f32) {
    for e in row {
        *e = entry::pack(entry::column(*e), value(entry::column(*e), entry::value(*e)));
    }
}

fn sum(row: &[u64]) -> f64 {
    row.iter().map(|&e| f64::from(entry::value(e))).sum()
}

/// The steps in which the values of a matrix lie.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Steps {
    /// All values in sixteenths, their bits joined; `None` if a value is no whole number of them, negative or too large.
    joined: Option<u32>,
    smallest: u32,
    largest: u32,
}

const FINEST: f32 = 16.0;

impl Steps {
    /// The steps of these entries.
    pub fn of(entries: &[u64]) -> Self {
        let (mut joined, mut smallest, mut largest, mut exact) = (0, u32::MAX, 0, true);
        for &e in entries {
            let scaled = entry::value(e) * FINEST;
            let whole = scaled as u32;
            exact &= whole as f32 == scaled && whole < 1 << 20;
            joined |= whole;
            smallest = smallest.min(whole);
            largest = largest.max(whole);
        }
        Self { joined: exact.then_some(joined), smallest, largest }
    }

    /// The steps of both.
    pub fn and(self, other: Self) -> Self {
        let joined = self.joined.zip(other.joined).map(|(a, b)| a | b);
        let (smallest, largest) = (self.smallest.min(other.smallest), self.largest.max(other.largest));
        Self { joined, smallest, largest }
    }

    /// Whether every value is 1.
    pub fn ones(self) -> bool {
        self.joined == Some(FINEST as u32) && self.smallest == self.largest
    }

    /// The power of two by which values become whole numbers up to 65,535, and the largest of these; `None` if there is none.
    pub fn whole(self) -> Option<(f32, u32)> {
        let shift = self.joined?.trailing_zeros().min(4);
        let largest = self.largest >> shift;
        (largest <= u16::MAX.into()).then(|| (FINEST / (1u32 << shift) as f32, largest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(values: &[f32]) -> Option<(f32, u32)> {
        let entries: Vec<u64> = values.iter().map(|&value| entry::pack(0, value)).collect();
        Steps::of(&entries[..1]).and(Steps::of(&entries[1..])).whole()
    }

    #[test]
    fn the_narrowest_exact_steps() {
        assert_eq!(whole(&[0.5, 5.0]), Some((2.0, 10)));
        assert_eq!(whole(&[1.0, 255.0, 0.0]), Some((1.0, 255)));
        assert_eq!(whole(&[4.0, 8.0]), Some((1.0, 8)));
        assert_eq!(whole(&[0.0625, 15.9375]), Some((16.0, 255)));
        assert_eq!(whole(&[0.5, 32767.0]), Some((2.0, 65_534)));
        for inexact in [[0.1, 1.0], [1.0, 65_536.0], [-1.0, 1.0], [0.5, 32768.0], [1e30, 1.0], [f32::MIN_POSITIVE, 1.0]]
        {
            assert_eq!(whole(&inexact), None, "{inexact:?}");
        }
    }

    #[test]
    fn scales_have_the_digits_of_singles_and_the_range_of_doubles() {
        for number in [0.0, 1.0, 1.0 / 3.0, 0.1, 7e30, 1e-30, f64::from(f32::MAX)] {
            assert_eq!(rounded(number), f64::from(number as f32));
        }
        let small = rounded(1e-300);
        assert!((small / 1e-300 - 1.0).abs() < 1e-7 && small.to_bits().trailing_zeros() >= 29);
        assert_eq!(rounded(f64::INFINITY), f64::INFINITY);
    }
}
