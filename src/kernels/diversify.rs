//! Lists that are reordered so that what stands near each other differs: maximal marginal relevance (Carbonell and Goldstein
//! 1998).

use super::simd::dot;
use super::vectors::Vectors;

/// A place that a list may give away: the item's vector, if there is one, and its score.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Place {
    /// The row of its vector.
    pub vector: Option<u32>,
    /// The larger the better.
    pub score: f32,
}

/// Chooses up to `k` places of a list that is given best first: in turn the one of the largest
/// `lambda · relevance - (1 - lambda) · similarity`, the first of equals. The relevance is the score, brought between 0 and 1
/// over the list; the similarity is the largest inner product with what was chosen before, 0 where a vector is missing.
/// Gives the places in the new order with these values.
pub fn choose(list: &[Place], vectors: &Vectors, lambda: f32, k: usize) -> Vec<(usize, f32)> {
    let lowest = list.iter().map(|place| place.score).fold(f32::INFINITY, f32::min);
    let highest = list.iter().map(|place| place.score).fold(f32::NEG_INFINITY, f32::max);
    let width = if highest > lowest { highest - lowest } else { 1.0 };
    let relevance = |place: &Place| if highest > lowest { (place.score - lowest) / width } else { 1.0 };
    let mut open: Vec<(usize, f32, Option<f32>)> =
        list.iter().enumerate().map(|(at, place)| (at, relevance(place), None)).collect();
    let mut chosen = Vec::with_capacity(k.min(list.len()));
    while chosen.len() < k && !open.is_empty() {
        let value = |(_, relevance, nearest): &(usize, f32, Option<f32>)| {
            lambda * relevance - (1.0 - lambda) * nearest.unwrap_or(0.0)
        };
        let mut best = 0;
        for at in 1..open.len() {
            if value(&open[at]) > value(&open[best]) {
                best = at;
            }
        }
        let worth = value(&open[best]);
        // Removed in order, as the first of equals is taken.
        let (place, ..) = open.remove(best);
        chosen.push((place, worth));
        let Some(taken) = list[place].vector else {
            continue;
        };
        for (other, _, nearest) in &mut open {
            if let Some(vector) = list[*other].vector {
                let similarity = dot(vectors.row(taken as usize), vectors.row(vector as usize));
                *nearest = Some(nearest.map_or(similarity, |nearest| nearest.max(similarity)));
            }
        }
    }
    chosen
}

/// Brings all vectors to length 1; those of zeros stay.
pub fn normalize(vectors: &mut Vectors) {
    let stride = vectors.stride();
    for vector in vectors.values.chunks_exact_mut(stride.max(1)) {
        let length = vector.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
        if length > 0.0 {
            vector.iter_mut().for_each(|value| *value = (f64::from(*value) / length) as f32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alike_items_stand_apart() {
        let mut vectors = Vectors::zeros(4, 2);
        for (row, vector) in [[1.0, 0.0], [2.0, 0.0], [0.0, 3.0], [1.0, 1.0]].iter().enumerate() {
            vectors.row_mut(row)[..2].copy_from_slice(vector);
        }
        normalize(&mut vectors);
        let list: Vec<Place> =
            [4.0, 3.9, 2.0, 0.0].iter().zip(0..).map(|(&score, row)| Place { vector: Some(row), score }).collect();
        let order = |lambda| choose(&list, &vectors, lambda, 4).iter().map(|(at, _)| *at).collect::<Vec<_>>();
        assert_eq!(order(1.0), [0, 1, 2, 3]);
        assert_eq!(order(0.5), [0, 2, 1, 3]);
        assert_eq!(order(0.0), [0, 2, 3, 1]);
        assert_eq!(choose(&list, &vectors, 0.5, 2).len(), 2);
        assert!(choose(&[], &vectors, 0.5, 2).is_empty());
        // Without vectors and with equal scores the order stays.
        let alike = vec![Place { vector: None, score: 1.0 }; 3];
        assert_eq!(choose(&alike, &vectors, 0.3, 3).iter().map(|(at, _)| *at).collect::<Vec<_>>(), [0, 1, 2]);
    }
}
