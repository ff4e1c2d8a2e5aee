//! The k most similar entities of each entity, for every metric of `neighbors`.

use std::ops::Range;
use std::sync::Arc;

use super::csr::Csr;
use super::product::{Cell, Count, Counted, Dot, Moments, PreciseDot, RowProduct};
use super::topk::TopK;
use super::weighting::{self, Weighting};

/// A similarity of two entities i and j. `r_ik` is the weight of entity i for feature k, `F_i` the set of its
/// features, `c = |F_i ∩ F_j|`, `N` the number of features, and `h` the shrinkage that is added to the denominator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd)]
pub enum Metric {
    /// `Σ r_ik r_jk / (|r_i| |r_j| + h)`, the norms over all of `F_i` and `F_j`
    Cosine,
    /// Cosine after subtracting from each weight the mean of its entity (LensKit's item-item form)
    CenteredCosine,
    /// Cosine after subtracting from each weight the mean of its feature (Sarwar et al. 2001)
    AdjustedCosine,
    /// Entity means subtracted; numerator and both norms over the common features (Resnick 1994, Herlocker 1999)
    Pearson,
    /// `c / (|F_i| + |F_j| - c + h)` (Jaccard 1901)
    Jaccard,
    /// `2c / (|F_i| + |F_j| + h)` (Dice 1945)
    Dice,
    /// `c / (c + alpha (|F_i| - c) + beta (|F_j| - c) + h)` (Tversky 1977)
    Tversky,
    /// `c`
    Overlap,
    /// `c N / (|F_i| |F_j| + h)`: observed over expected co-occurrence
    Lift,
    /// `Σ r_ik r_jk / (|r_i|^(2 alpha) |r_j|^(2 (1 - alpha)) + h)` (Aiolli 2013)
    AsymmetricCosine,
    /// `1 / (1 + |r_i - r_j| + h)`, absent weights being 0
    Euclidean,
}

impl Metric {
    /// Every metric under the name it has in SQL.
    pub const NAMES: [(&'static str, Self); 11] = [
        ("cosine", Self::Cosine),
        ("centered_cosine", Self::CenteredCosine),
        ("adjusted_cosine", Self::AdjustedCosine),
        ("pearson", Self::Pearson),
        ("jaccard", Self::Jaccard),
        ("dice", Self::Dice),
        ("tversky", Self::Tversky),
        ("overlap", Self::Overlap),
        ("lift", Self::Lift),
        ("asymmetric_cosine", Self::AsymmetricCosine),
        ("euclidean", Self::Euclidean),
    ];

    /// The name it has in SQL.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, metric)| *metric == self).map_or("", |(name, _)| name)
    }

    /// Whether only the sets of features count, not the weights.
    pub fn ignores_weights(self) -> bool {
        matches!(self, Self::Jaccard | Self::Dice | Self::Tversky | Self::Overlap | Self::Lift)
    }
}

/// What is asked of a similarity search.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Settings {
    /// The formula.
    pub metric: Metric,
    /// Neighbors per entity, at least 1.
    pub k: usize,
    /// Added to the formula's denominator, at least 0.
    pub shrink: f64,
    /// Only scores above it count.
    pub threshold: f32,
    /// Only pairs with at least this many common features count.
    pub min_overlap: u32,
    /// What happens to the weights first.
    pub weighting: Weighting,
    /// `alpha` of `tversky` and `asymmetric_cosine`.
    pub alpha: f64,
    /// `beta` of `tversky`.
    pub beta: f64,
}

/// Found neighbors, one entry per pair, grouped by entity and best first.
#[derive(Debug, Default, PartialEq)]
pub struct Neighbors {
    /// The entity whose neighbor this is.
    pub entity: Vec<u32>,
    /// The neighbor.
    pub neighbor: Vec<u32>,
    /// How similar they are.
    pub score: Vec<f32>,
    /// The place in the entity's list, from 1.
    pub rank: Vec<i32>,
    /// Multiply-adds that were done to find them.
    pub work: usize,
}

/// The prepared matrix, shared by all who search in it.
#[derive(Debug)]
pub struct Similarity {
    settings: Settings,
    /// Entities by features and the transpose of it, weighted and centred as the metric wants.
    by_entity: Csr,
    by_feature: Csr,
    /// The place of each entity among the sorted ids: how ties are broken.
    order: Vec<u32>,
    /// Euclidean norm of each entity's row, squared for `euclidean`; the size of its set for metrics that ignore weights.
    norm: Vec<f64>,
    /// For `asymmetric_cosine`: the norm to the power of 2 (1 - alpha).
    second_norm: Vec<f64>,
    /// The factor by which each entity's weights were tamed, if any was; scores that depend on the scale undo it.
    scale: Vec<f64>,
}

impl Similarity {
    /// Prepares a search over a matrix of entities by features; the columns of each row rise and are distinct.
    ///
    /// Cost grows with the popularity of entities, and cells of popular entities stay in the cache if these have
    /// the small indices, so number entities by falling popularity.
    pub fn new(mut matrix: Csr, order: Vec<u32>, settings: Settings) -> Self {
        if settings.metric.ignores_weights() {
            matrix.values = Vec::new();
        } else {
            weighting::weigh(&mut matrix, settings.weighting);
            if matrix.values.is_empty() {
                matrix.values = vec![1.0; matrix.entries()];
            }
        }
        match settings.metric {
            Metric::CenteredCosine | Metric::Pearson => weighting::centre_rows(&mut matrix),
            Metric::AdjustedCosine => weighting::centre_columns(&mut matrix),
            _ => {}
        }
        let scale = weighting::tame(&mut matrix);
        let mut norm: Vec<f64> = (0..matrix.rows())
            .map(|row| match matrix.row(row) {
                (features, []) => features.len() as f64,
                (_, values) => values.iter().map(|&v| f64::from(v) * f64::from(v)).sum::<f64>(),
            })
            .collect();
        // The square is what makes the distance of equal rows exactly 0.
        if !settings.metric.ignores_weights() && settings.metric != Metric::Euclidean {
            norm.iter_mut().for_each(|n| *n = n.sqrt());
        }
        if matches!(settings.metric, Metric::Euclidean | Metric::AsymmetricCosine) && !scale.is_empty() {
            let power = if settings.metric == Metric::Euclidean { 2 } else { 1 };
            norm.iter_mut().zip(&scale).for_each(|(n, scale)| *n /= scale.powi(power));
        }
        let mut second_norm = Vec::new();
        if settings.metric == Metric::AsymmetricCosine {
            second_norm = norm.iter().map(|n| n.powf(2.0 * (1.0 - settings.alpha))).collect();
            norm.iter_mut().for_each(|n| *n = n.powf(2.0 * settings.alpha));
        }
        let by_feature = matrix.transposed();
        Self { settings, by_entity: matrix, by_feature, order, norm, second_norm, scale }
    }

    /// The number of entities.
    pub fn entities(&self) -> usize {
        self.by_entity.rows()
    }

    /// The bytes it holds.
    pub fn bytes(&self) -> usize {
        let vectors =
            self.order.len() * size_of::<u32>() + (self.norm.len() + self.second_norm.len()) * size_of::<f64>();
        self.by_entity.bytes() + self.by_feature.bytes() + vectors
    }

    /// Cuts the entities into blocks of about equal work and at most `most_rows` entities; returns where each begins
    /// and where the last ends.
    pub fn blocks(&self, most_rows: usize, blocks: usize) -> Vec<usize> {
        super::product::blocks(&self.by_entity, &self.by_feature, most_rows, blocks)
    }

    /// The bytes that a search of one thread will hold at the most.
    pub fn searcher_bytes(&self) -> usize {
        RowProduct::<Counted<Moments>>::bytes_for(self.entities())
    }

    /// A search with its own cells, for one thread.
    pub fn searcher(self: &Arc<Self>) -> Box<dyn Search> {
        let h = self.settings.shrink;
        let (alpha, beta) = (self.settings.alpha, self.settings.beta);
        let features = (0..self.by_feature.rows()).filter(|&row| self.by_feature.row_len(row) > 0).count() as f64;
        match self.settings.metric {
            Metric::Cosine | Metric::CenteredCosine | Metric::AdjustedCosine => {
                self.search_with(move |s: &Self, dot: Dot, i, j| {
                    at_most_one(f64::from(dot.0) / (s.norm[i] * s.norm[j] + h * s.pair_scale(i, j)))
                })
            }
            Metric::AsymmetricCosine => self.search_with(move |s: &Self, dot: Dot, i, j| {
                // The scales cancel out only where both norms have the same power.
                let dot = f64::from(dot.0) / s.pair_scale(i, j);
                dot / (s.norm[i] * s.second_norm[j] + h)
            }),
            Metric::Pearson => self.search_with(move |s: &Self, m: Moments, i, j| {
                let norms = (f64::from(m.aa) * f64::from(m.bb)).sqrt();
                at_most_one(f64::from(m.ab) / (norms + h * s.pair_scale(i, j)))
            }),
            Metric::Euclidean => self.search_with(move |s: &Self, dot: PreciseDot, i, j| {
                let squared = s.norm[i] + s.norm[j] - 2.0 * dot.0 / s.pair_scale(i, j);
                1.0 / (1.0 + squared.max(0.0).sqrt() + h)
            }),
            Metric::Jaccard => self.search_with(move |s: &Self, common: Count, i, j| {
                let c = f64::from(common.0);
                c / (s.norm[i] + s.norm[j] - c + h)
            }),
            Metric::Dice => self.search_with(move |s: &Self, common: Count, i, j| {
                2.0 * f64::from(common.0) / (s.norm[i] + s.norm[j] + h)
            }),
            Metric::Tversky => self.search_with(move |s: &Self, common: Count, i, j| {
                let c = f64::from(common.0);
                c / (c + alpha * (s.norm[i] - c) + beta * (s.norm[j] - c) + h)
            }),
            Metric::Overlap => self.search_with(move |_: &Self, common: Count, _, _| f64::from(common.0)),
            Metric::Lift => self.search_with(move |s: &Self, common: Count, i, j| {
                f64::from(common.0) * features / (s.norm[i] * s.norm[j] + h)
            }),
        }
    }

    /// The factor by which a product of weights of these two entities was multiplied.
    #[inline]
    fn pair_scale(&self, i: usize, j: usize) -> f64 {
        if self.scale.is_empty() { 1.0 } else { self.scale[i] * self.scale[j] }
    }

    fn search_with<C: Cell, F>(self: &Arc<Self>, score: F) -> Box<dyn Search>
    where
        F: Fn(&Self, C, usize, usize) -> f64 + Send + 'static,
    {
        let min_overlap = self.settings.min_overlap;
        // Below a threshold of 0 a sum of 0 counts too, and only the number of common features tells it from none.
        // So for distances, which are finite where the products are 0.
        let counts = self.settings.metric == Metric::Euclidean;
        if counts || min_overlap > 1 || self.settings.threshold < 0.0 {
            let counted = move |s: &Self, cell: Counted<C>, i, j| {
                if cell.count < min_overlap { f64::NAN } else { score(s, cell.sums, i, j) }
            };
            Box::new(Searcher::new(self, counted))
        } else {
            Box::new(Searcher::new(self, score))
        }
    }
}

/// Rounding may carry a correlation of equal rows past 1.
fn at_most_one(score: f64) -> f64 {
    score.clamp(-1.0, 1.0)
}

/// Finds the neighbors of ranges of entities.
pub trait Search: Send {
    /// Appends the neighbors of each entity in the range to `found`.
    fn search(&mut self, entities: Range<usize>, found: &mut Neighbors);
}

struct Searcher<C, F> {
    index: Arc<Similarity>,
    product: RowProduct<C>,
    best: TopK,
    score: F,
}

impl<C: Cell, F> Searcher<C, F> {
    fn new(index: &Arc<Similarity>, score: F) -> Self {
        let product = RowProduct::new(index.entities());
        // k beyond the number of entities would only reserve room for what cannot come.
        let best = TopK::new(index.settings.k.min(index.entities().max(1)));
        Self { index: Arc::clone(index), product, best, score }
    }
}

impl<C: Cell, F> Search for Searcher<C, F>
where
    F: Fn(&Similarity, C, usize, usize) -> f64 + Send,
{
    fn search(&mut self, entities: Range<usize>, found: &mut Neighbors) {
        let index = &*self.index;
        for i in entities {
            let (features, weights) = index.by_entity.row(i);
            found.work += self.product.accumulate(features, weights, &index.by_feature);
            let (best, score, threshold) = (&mut self.best, &self.score, index.settings.threshold);
            self.product.drain(|j, cell| {
                let j = j as usize;
                let value = score(index, cell, i, j) as f32;
                // A score that is not a number (0 / 0) is not above anything.
                if value > threshold && j != i {
                    best.push(value, j as u32, &index.order);
                }
            });
            for (at, (value, j)) in best.drain(&index.order).enumerate() {
                found.entity.push(i as u32);
                found.neighbor.push(j);
                found.score.push(value);
                found.rank.push(at as i32 + 1);
            }
        }
    }
}

#[cfg(test)]
#[path = "similarity_tests.rs"]
mod tests;
