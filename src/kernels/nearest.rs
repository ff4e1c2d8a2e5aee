//! The k nearest of many vectors for each of many others, exactly: a product of dense matrices that is never written down.

use serde::{Deserialize, Serialize};

use super::cpu::{Cpu, Work};
use super::csr::entry;
use super::rows::RowsRead;
use super::simd::{LANES, add_product};
use super::topk::TopK;
use super::vectors::Vectors;

/// What makes vectors near, by the names they have in SQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Nearness {
    /// The inner product.
    Dot,
    /// The inner product over both lengths; 0 with a vector of length 0.
    Cosine,
    /// `1 / (1 + distance)`.
    Euclidean,
}

impl Nearness {
    /// Every nearness under the name it has in SQL.
    pub const NAMES: [(&'static str, Self); 3] =
        [("cosine", Self::Cosine), ("dot", Self::Dot), ("euclidean", Self::Euclidean)];

    /// The name it has in SQL.
    pub fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, nearness)| *nearness == self).map_or("", |(name, _)| name)
    }

    #[inline(always)]
    fn score(self, dot: f32, a: f32, b: f32) -> f32 {
        match self {
            Self::Dot => dot,
            Self::Cosine => dot * a * b,
            Self::Euclidean => 1.0 / (1.0 + (a + b - 2.0 * dot).max(0.0).sqrt()),
        }
    }

    /// What moves all vectors without a change to their scores, and makes them as short as can be.
    fn center(self, vectors: &Vectors, count: usize) -> Vec<f32> {
        let middle = |dimension: usize| {
            let values = (0..count).map(|at| f64::from(vectors.row(at)[dimension]));
            let (low, high) =
                values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
            if low >= high {
                return low as f32;
            }
            // Not finer than the values are spread, so that what is whole stays whole and ties stay ties.
            let step = (high - low).log2().floor().exp2();
            (((low + high) / 2.0 / step).round() * step) as f32
        };
        match self {
            Self::Euclidean if count > 0 => (0..vectors.factors).map(middle).collect(),
            _ => vec![0.0; vectors.factors],
        }
    }

    /// What a score needs of a vector beside the inner product.
    fn of(self, vector: &[f32]) -> f32 {
        let square = vector.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
        match self {
            Self::Dot => 0.0,
            Self::Cosine if square == 0.0 => 0.0,
            Self::Cosine => square.sqrt().recip() as f32,
            Self::Euclidean => square as f32,
        }
    }
}

/// Queries that meet a candidate at once, as many as accumulators fit the registers.
const QUERIES: usize = 8;
/// Candidates of a tile that stays in the cache while a block of queries meets it, in groups of [`LANES`].
const GROUPS: usize = 16;

/// Candidates, laid out for many queries.
#[derive(Debug)]
pub struct Candidates {
    nearness: Nearness,
    count: usize,
    factors: usize,
    /// What is subtracted from all vectors first: with `euclidean` the middle of the candidates, without which distances that
    /// are small beside the vectors would be lost in rounding.
    center: Vec<f32>,
    /// Groups of [`LANES`] candidates, of each group all first components, then all second ones, and so on.
    values: Vec<f32>,
    /// What a score needs of each.
    norms: Vec<f32>,
}

impl Candidates {
    /// Lays out so many vectors, which are in the order of their ids.
    pub fn new(vectors: &Vectors, count: usize, nearness: Nearness) -> Self {
        let factors = vectors.factors;
        let groups = count.div_ceil(LANES);
        let center = nearness.center(vectors, count);
        let mut values = vec![0f32; groups * LANES * factors];
        let mut norms = vec![0f32; groups * LANES];
        for (at, norm) in norms.iter_mut().take(count).enumerate() {
            let vector = &moved(&vectors.row(at)[..factors], &center);
            *norm = nearness.of(vector);
            let group = at / LANES * LANES * factors + at % LANES;
            vector.iter().enumerate().for_each(|(dimension, &value)| values[group + dimension * LANES] = value);
        }
        Self { nearness, count, factors, center, values, norms }
    }

    /// The bytes that it holds.
    pub fn bytes(&self) -> usize {
        (self.values.len() + self.norms.len()) * size_of::<f32>()
    }

    /// The nearest `k` of each of these queries, best first, to `found` by query. What `exclude` names is left out; its rows
    /// are those of the queries.
    pub fn nearest(
        &self,
        queries: &[&[f32]],
        k: usize,
        exclude: Option<(&RowsRead<'_>, usize)>,
        mut found: impl FnMut(usize, f32, u32),
    ) {
        let cpu = Cpu::detect();
        let mut best: Vec<TopK> = queries.iter().map(|_| TopK::new(k, f32::NEG_INFINITY)).collect();
        let queries: Vec<Vec<f32>> = queries.iter().map(|query| moved(&query[..self.factors], &self.center)).collect();
        let groups = self.norms.len() / LANES;
        let packed: Vec<Vec<[f32; QUERIES]>> =
            queries.chunks(QUERIES).map(|queries| pack(queries, self.factors)).collect();
        let of = |queries: &[Vec<f32>]| std::array::from_fn(|at| queries.get(at).map_or(0.0, |q| self.nearness.of(q)));
        let norms: Vec<[f32; QUERIES]> = queries.chunks(QUERIES).map(of).collect();
        for tile in (0..groups).step_by(GROUPS) {
            let tile = tile..(tile + GROUPS).min(groups);
            for first in (0..queries.len()).step_by(QUERIES) {
                let last = (first + QUERIES).min(queries.len());
                let tile = Tile {
                    candidates: self,
                    cpu,
                    tile: tile.clone(),
                    queries: &packed[first / QUERIES],
                    norms: &norms[first / QUERIES],
                    exclude: exclude.map(|(rows, row)| (rows, row + first)),
                    best: &mut best[first..last],
                };
                tile.run();
            }
        }
        for (query, best) in best.iter_mut().enumerate() {
            best.drain(f32::NEG_INFINITY).for_each(|(score, candidate)| found(query, score, candidate));
        }
    }
}

/// The scores of a group of candidates with a few queries.
struct Scores<'a> {
    nearness: Nearness,
    values: &'a [f32],
    norms: &'a [f32],
    queries: &'a [[f32; QUERIES]],
    query_norms: &'a [f32; QUERIES],
    /// The least score that each query looks at.
    floors: &'a [f32; QUERIES],
    scores: &'a mut [[f32; LANES]; QUERIES],
}

impl Work for Scores<'_> {
    /// Whether a query has such scores.
    type Output = [bool; QUERIES];

    #[inline(always)]
    fn run(self) -> [bool; QUERIES] {
        *self.scores = products(self.values, self.queries);
        let mut reached = [false; QUERIES];
        for (at, scores) in self.scores.iter_mut().enumerate() {
            let (norm, floor) = (self.query_norms[at], self.floors[at]);
            let mut lanes = [false; LANES];
            for ((score, other), lane) in scores.iter_mut().zip(self.norms).zip(&mut lanes) {
                *score = self.nearness.score(*score, norm, *other);
                *lane = *score >= floor;
            }
            reached[at] = lanes.iter().fold(false, |any, lane| any | lane);
        }
        reached
    }
}

/// Sums are written out and go by value, or they would not stay in registers.
#[inline(always)]
fn products(values: &[f32], queries: &[[f32; QUERIES]]) -> [[f32; LANES]; QUERIES] {
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = [[0f32; LANES]; QUERIES];
    for (values, query) in values.as_chunks::<LANES>().0.iter().zip(queries) {
        a = add_product(a, query[0], values);
        b = add_product(b, query[1], values);
        c = add_product(c, query[2], values);
        d = add_product(d, query[3], values);
        e = add_product(e, query[4], values);
        f = add_product(f, query[5], values);
        g = add_product(g, query[6], values);
        h = add_product(h, query[7], values);
    }
    [a, b, c, d, e, f, g, h]
}

/// A vector less the center.
fn moved(vector: &[f32], center: &[f32]) -> Vec<f32> {
    vector.iter().zip(center).map(|(value, center)| value - center).collect()
}

/// The components of a few queries side by side.
fn pack(queries: &[Vec<f32>], factors: usize) -> Vec<[f32; QUERIES]> {
    let component = |dimension: usize| std::array::from_fn(|at| queries.get(at).map_or(0.0, |query| query[dimension]));
    (0..factors).map(component).collect()
}

/// A few queries against a tile of candidates.
struct Tile<'a, 'b> {
    candidates: &'a Candidates,
    cpu: Cpu,
    tile: std::ops::Range<usize>,
    /// The first components of all queries, then the second ones, and so on; zeros where queries are fewer.
    queries: &'a [[f32; QUERIES]],
    norms: &'a [f32; QUERIES],
    exclude: Option<(&'a RowsRead<'b>, usize)>,
    best: &'a mut [TopK],
}

impl Tile<'_, '_> {
    fn run(self) {
        let Candidates { nearness, count, factors, .. } = *self.candidates;
        // Where queries are fewer than fit, nothing reaches the others.
        let mut floors = [f32::INFINITY; QUERIES];
        floors.iter_mut().zip(&*self.best).for_each(|(floor, best)| *floor = best.floor().score);
        let mut scores = [[0f32; LANES]; QUERIES];
        for group in self.tile {
            let reached = self.cpu.run(Scores {
                nearness,
                values: &self.candidates.values[group * LANES * factors..(group + 1) * LANES * factors],
                norms: &self.candidates.norms[group * LANES..(group + 1) * LANES],
                queries: self.queries,
                query_norms: self.norms,
                floors: &floors,
                scores: &mut scores,
            });
            for (at, best) in self.best.iter_mut().enumerate() {
                if reached[at] {
                    let seen = self.exclude.map(|(rows, first)| rows.row(first + at));
                    let floor = floors[at];
                    for (lane, &score) in scores[at].iter().enumerate().filter(|(_, score)| **score >= floor) {
                        let candidate = group * LANES + lane;
                        let is_seen = |seen: &[u64]| {
                            seen.binary_search_by_key(&(candidate as u32), |&e| entry::column(e)).is_ok()
                        };
                        if candidate < count && !seen.is_some_and(is_seen) {
                            best.push(score, candidate as u32);
                        }
                    }
                    floors[at] = best.floor().score;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::csr::Csr;
    use crate::rows::Rows;
    use crate::simd::padded;

    fn vectors(rows: &[Vec<i8>], factors: usize) -> Vectors {
        let mut values = Vec::new();
        for row in rows {
            values.extend(row.iter().map(|&v| f32::from(v)));
            values.resize(values.len() + padded(factors) - factors, 0.0);
        }
        Vectors { factors, values }
    }

    fn inputs() -> impl Strategy<Value = (Vec<Vec<i8>>, Vec<Vec<i8>>, usize, usize)> {
        (1usize..20, 1usize..12).prop_flat_map(|(factors, k)| {
            let rows = |most| prop::collection::vec(prop::collection::vec(-3i8..4, factors), 1..most);
            (rows(20), rows(600), Just(factors), Just(k))
        })
    }

    #[test]
    fn far_from_zero_distances_are_not_lost() {
        let row = |x: f32| [vec![3000.0, x], vec![0.0; padded(2) - 2]].concat();
        let vectors = Vectors { factors: 2, values: (1..10).flat_map(|at| row(1.0 - 0.1 * at as f32)).collect() };
        let candidates = Candidates::new(&vectors, 9, Nearness::Euclidean);
        let mut found = Vec::new();
        candidates.nearest(&[&row(0.0)], 9, None, |_, score, candidate| found.push((candidate, score)));
        assert_eq!(found.iter().map(|f| f.0).collect::<Vec<_>>(), (0..9).rev().collect::<Vec<u32>>());
        for (candidate, score) in found {
            let distance = f64::from(1.0 - 0.1 * (candidate + 1) as f32);
            assert!((f64::from(score) - 1.0 / (1.0 + distance.abs())).abs() < 1e-6);
        }
    }

    proptest! {
        #[test]
        fn the_nearest_are_found((a, b, factors, k) in inputs(), excluded in prop::collection::vec((0usize..20, 0u32..600), 0..60)) {
            let mut rows = Csr { columns: 600, offsets: vec![0], entries: Vec::new() };
            for query in 0..a.len() {
                let mut items: Vec<u32> = excluded.iter().filter(|e| e.0 == query).map(|e| e.1).collect();
                items.sort_unstable();
                items.dedup();
                rows.entries.extend(items.iter().map(|&item| entry::pack(item, 1.0)));
                rows.offsets.push(rows.entries.len());
            }
            let rows = Rows::from(rows);
            let read = rows.read(0..a.len()).unwrap();
            let queries = vectors(&a, factors);
            let queries: Vec<&[f32]> = (0..a.len()).map(|at| queries.row(at)).collect();
            for (_, nearness) in Nearness::NAMES {
                let candidates = Candidates::new(&vectors(&b, factors), b.len(), nearness);
                let mut found = vec![Vec::new(); a.len()];
                candidates.nearest(&queries, k, Some((&read, 0)), |query, score, candidate| found[query].push((score, candidate)));
                for (query, found) in found.iter().enumerate() {
                    let score = |candidate: usize| {
                        let dot: f32 = a[query].iter().zip(&b[candidate]).map(|(x, y)| f32::from(*x) * f32::from(*y)).sum();
                        let of = |v: &[i8]| nearness.of(&v.iter().map(|&v| f32::from(v)).collect::<Vec<_>>());
                        nearness.score(dot, of(&a[query]), of(&b[candidate])) + 0.0
                    };
                    let allowed = (0..b.len()).filter(|c| !excluded.contains(&(query, *c as u32)));
                    let mut all: Vec<(f32, u32)> = allowed.map(|c| (score(c), c as u32)).collect();
                    all.sort_by(|x, y| y.0.total_cmp(&x.0).then(x.1.cmp(&y.1)));
                    all.truncate(k);
                    prop_assert_eq!(found.clone(), all, "{:?}", nearness);
                }
            }
        }
    }
}
