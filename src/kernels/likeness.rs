//! How alike the items of a list are, to each other and to what the user had (Zhang et al. 2012).

use super::csr::{Csr, entry};
use super::simd::dot;
use super::vectors::Vectors;

/// The metrics of how alike items are, known where items have vectors.
pub const OF_VECTORS: [&str; 2] = ["diversity", "serendipity"];

/// Vectors of items; those of length 0 say nothing.
#[derive(Debug)]
pub struct Likeness {
    /// Of length 1, or 0.
    pub vectors: Vectors,
    /// Where the vector of each item is.
    pub places: Vec<Option<u32>>,
    /// Users by the items that they had.
    pub history: Option<Csr>,
}

impl Likeness {
    fn vector(&self, item: u32) -> Option<&[f32]> {
        let vector = self.vectors.row(self.places[item as usize]? as usize);
        vector.iter().any(|value| *value != 0.0).then_some(vector)
    }

    /// The sum of the vectors of items, and how many have one.
    fn sum(&self, items: impl Iterator<Item = u32>) -> (Vec<f32>, usize) {
        let (mut sum, mut count) = (vec![0f64; self.vectors.stride()], 0);
        for vector in items.filter_map(|item| self.vector(item)) {
            sum.iter_mut().zip(vector).for_each(|(sum, value)| *sum += f64::from(*value));
            count += 1;
        }
        (sum.into_iter().map(|value| value as f32).collect(), count)
    }

    /// 1 minus the mean cosine of all pairs of items; `None` of fewer than two items with vectors.
    pub fn diversity(&self, items: impl Iterator<Item = u32>) -> Option<f64> {
        // The square of the sum of unit vectors has each pair twice, and each vector once with itself.
        let (sum, count) = self.sum(items);
        let (square, n) = (f64::from(dot(&sum, &sum)), count as f64);
        (count > 1).then(|| 1.0 - (square - n) / (n * (n - 1.0)))
    }

    /// The sum over hits of 1 minus the mean cosine to what the user had, divided by `k`; a hit without a vector adds nothing.
    /// `None` where nothing the user had has a vector.
    pub fn serendipity(&self, user: usize, hits: impl Iterator<Item = u32>, k: usize) -> Option<f64> {
        let history = self.history.as_ref()?.row(user);
        let (sum, count) = self.sum(history.iter().map(|&e| entry::column(e)));
        let new = |vector: &[f32]| 1.0 - f64::from(dot(vector, &sum)) / count as f64;
        (count > 0).then(|| hits.filter_map(|item| self.vector(item)).map(new).sum::<f64>() / k as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn worked_by_hand() {
        let mut vectors = Vectors::zeros(4, 2);
        for (row, vector) in [[1.0, 0.0], [0.0, 1.0], [0.6, 0.8], [0.0, 0.0]].iter().enumerate() {
            vectors.row_mut(row)[..2].copy_from_slice(vector);
        }
        let history =
            Csr { columns: 5, offsets: vec![0, 2, 2], entries: vec![entry::pack(0, 1.0), entry::pack(1, 1.0)] };
        let places = vec![Some(0), Some(1), Some(2), Some(3), None];
        let likeness = Likeness { vectors, places, history: Some(history) };
        let close = |a: Option<f64>, b: f64| assert!((a.unwrap() - b).abs() < 1e-6, "{a:?} {b}");
        close(likeness.diversity([0, 1].into_iter()), 1.0);
        close(likeness.diversity([0, 1, 2].into_iter()), 1.0 - (0.0 + 0.6 + 0.8) / 3.0);
        assert_eq!(likeness.diversity([0, 3, 4].into_iter()), None);
        // Item 2 is alike to 0 by 0.6 and to 1 by 0.8; items 3 and 4 have nothing to go by.
        close(likeness.serendipity(0, [2, 3, 4].into_iter(), 5), (1.0 - 0.7) / 5.0);
        assert_eq!(likeness.serendipity(1, [2].into_iter(), 5), None);
    }
}
