//! The metrics of `neighbors` and what can be asked of them.

use serde::{Deserialize, Serialize};

use super::weighting::Weighting;

/// A similarity of two entities i and j. `r_ik` is the weight of entity i for feature k, `F_i` the set of its
/// features, `c = |F_i ∩ F_j|`, `N` the number of features, and `h` the shrinkage that is added to the denominator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Serialize, Deserialize)]
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
    /// `d_i^-a d_j^-c Σ d_k^-b r_ik r_jk`, the degrees `d` being sums of the weights of an entity or a feature: a walk from
    /// entity to feature to entity, with free exponents
    Walk,
    /// `d_i^-alpha Σ d_k^-alpha (r_ik r_jk)^alpha`: the walk whose probabilities are raised to alpha (Cooper et al. 2014)
    P3alpha,
    /// `p3alpha` over `d_j^beta`, against popular entities (Paudel et al. 2017)
    Rp3beta,
    /// `d_i^-½ d_j^-½ Σ d_k^-1 r_ik r_jk`: the linear filter of GF-CF (Shen et al. 2021)
    Gfcf,
}

impl Metric {
    /// Every metric under the name it has in SQL.
    pub const NAMES: [(&'static str, Self); 15] = [
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
        ("walk", Self::Walk),
        ("p3alpha", Self::P3alpha),
        ("rp3beta", Self::Rp3beta),
        ("gfcf", Self::Gfcf),
    ];

    /// The name it has in SQL.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, metric)| *metric == self).map_or("", |(name, _)| name)
    }

    /// Whether only the sets of features count, not the weights.
    pub fn ignores_weights(self) -> bool {
        matches!(self, Self::Jaccard | Self::Dice | Self::Tversky | Self::Overlap | Self::Lift)
    }

    /// Whether it is a walk, which needs weights of at least 0 and divides by degrees alone.
    pub fn is_walk(self) -> bool {
        matches!(self, Self::Walk | Self::P3alpha | Self::Rp3beta | Self::Gfcf)
    }
}

/// What is asked of a similarity search.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
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
    /// The most features of an entity that count, see [`super::csr::Csr::cap_rows`]; all of them where not given.
    pub max_features: Option<usize>,
    /// What happens to the weights first.
    pub weighting: Weighting,
    /// `alpha` of `tversky`, `asymmetric_cosine`, `p3alpha` and `rp3beta`.
    pub alpha: f64,
    /// `beta` of `tversky` and `rp3beta`.
    pub beta: f64,
    /// The exponents of `walk`.
    pub walk: Exponents,
}

/// The exponents of a walk from entity i over features k to entity j.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Exponents {
    /// By whose power the degree of i divides.
    pub a: f64,
    /// By whose power the degree of each k divides.
    pub b: f64,
    /// By whose power the degree of j divides.
    pub c: f64,
    /// To whose power weights are raised.
    pub weight: f64,
}

impl Default for Exponents {
    /// Those of `gfcf`.
    fn default() -> Self {
        Self { a: 0.5, b: 1.0, c: 0.5, weight: 1.0 }
    }
}

impl Settings {
    /// The least score that counts.
    pub fn least(&self) -> f32 {
        self.threshold.next_up()
    }

    /// The exponents, where the metric is a walk.
    pub fn exponents(&self) -> Option<Exponents> {
        let Self { alpha, beta, .. } = *self;
        match self.metric {
            Metric::Walk => Some(self.walk),
            Metric::P3alpha => Some(Exponents { a: alpha, b: alpha, c: 0.0, weight: alpha }),
            Metric::Rp3beta => Some(Exponents { a: alpha, b: alpha, c: beta, weight: alpha }),
            Metric::Gfcf => Some(Exponents::default()),
            _ => None,
        }
    }
}
