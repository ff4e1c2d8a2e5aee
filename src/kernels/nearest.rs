//! The k nearest of many vectors for each of many others, exactly: a product of dense matrices that is never written down.
//!
//! An inner product is at most the product of both lengths, so candidates are met longest first, and a query is done when
//! none of the rest can reach the worst of its best. Vectors of items are longer the more popular the item is, so most
//! queries are done after a small part of the candidates (Teflioudi, Gemulla and Mykytiuk 2015, LEMP, begins with the same
//! bound).

use std::cmp::Reverse;

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

    /// The best score that a query can have with candidates of at most this length.
    fn reach(self, query: f64, candidate: f64, factors: usize) -> f32 {
        match self {
            // Rounding may carry products and their sums past what they are.
            Self::Dot => {
                let rounding = 1.0 + factors as f64 * f64::from(f32::EPSILON);
                (query * candidate * rounding + f64::from(f32::MIN_POSITIVE)) as f32
            }
            Self::Cosine | Self::Euclidean => f32::INFINITY,
        }
    }

    /// What moves all vectors without a change to their scores, and makes them as short as can be.
    pub(super) fn center(self, vectors: &Vectors, count: usize) -> Vec<f32> {
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
        let square = square(vector);
        match self {
            Self::Dot => 0.0,
            Self::Cosine if square == 0.0 => 0.0,
            Self::Cosine => square.sqrt().recip() as f32,
            Self::Euclidean => square as f32,
        }
    }
}

/// The square of a vector's length.
pub(super) fn square(vector: &[f32]) -> f64 {
    vector.iter().map(|&v| f64::from(v).powi(2)).sum()
}

/// Queries that meet a group of candidates at once.
const QUERIES: usize = 8;
/// Candidates of a tile that stays in the cache while a block of queries meets it, in groups of [`LANES`].
const GROUPS: usize = 16;

/// Candidates, laid out for many queries, the longest first.
#[derive(Debug)]
pub struct Candidates {
    nearness: Nearness,
    factors: usize,
    /// Which candidate is where.
    ids: Vec<u32>,
    /// The length of the first, and longest, of each tile.
    lengths: Vec<f64>,
    /// What is subtracted from all vectors first: with `euclidean` the middle of the candidates, without which distances that
    /// are small beside the vectors would be lost in rounding.
    center: Vec<f32>,
    /// Groups of [`LANES`] candidates, of each group all first components, then all second ones, and so on.
    values: Vec<f32>,
    /// What a score needs of each.
    norms: Vec<f32>,
}

impl Candidates {
    /// Lays out so many vectors of finite numbers, which are in the order of their ids.
    pub fn new(vectors: &Vectors, count: usize, nearness: Nearness) -> Self {
        Self::of(vectors, (0..count as u32).collect(), nearness, nearness.center(vectors, count))
    }

    /// Lays out the vectors of these ids.
    pub(super) fn of(vectors: &Vectors, mut ids: Vec<u32>, nearness: Nearness, center: Vec<f32>) -> Self {
        let factors = vectors.factors;
        let moved = |id: u32| moved(&vectors.row(id as usize)[..factors], &center);
        let length = |&id: &u32| square(&moved(id)).sqrt();
        ids.sort_by_cached_key(|id| Reverse(length(id).to_bits()));
        let lengths = ids.iter().step_by(GROUPS * LANES).map(length).collect();
        let groups = ids.len().div_ceil(LANES);
        let mut values = vec![0f32; groups * LANES * factors];
        let mut norms = vec![0f32; groups * LANES];
        for (at, (norm, &id)) in norms.iter_mut().zip(&ids).enumerate() {
            let vector = &moved(id);
            *norm = nearness.of(vector);
            let group = at / LANES * LANES * factors + at % LANES;
            vector.iter().enumerate().for_each(|(dimension, &value)| values[group + dimension * LANES] = value);
        }
        Self { nearness, factors, ids, lengths, center, values, norms }
    }

    /// The bytes that it holds.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.values[..]) + size_of_val(&self.norms[..]) + size_of_val(&self.ids[..])
    }

    /// The nearest `k` of each of these queries, best first, to `found` by query. What `exclude` names is left out; its rows
    /// are those of the queries. Returns the multiply-adds done.
    pub fn nearest(
        &self,
        queries: &[&[f32]],
        k: usize,
        exclude: Option<(&RowsRead<'_>, usize)>,
        found: impl FnMut(usize, f32, u32),
    ) -> usize {
        let all = (0..queries.len()).collect();
        let mut queries = Queries::new(queries, self, k, exclude);
        let work = self.offer(&mut queries, all);
        queries.finish(found);
        work
    }

    /// Offers all candidates to these of the queries. Returns the multiply-adds done.
    pub(super) fn offer(&self, queries: &mut Queries<'_>, mut open: Vec<usize>) -> usize {
        let (cpu, mut work) = (Cpu::detect(), 0);
        let groups = self.norms.len() / LANES;
        let mut packs = Vec::new();
        for (tile, &longest) in self.lengths.iter().enumerate() {
            open.retain(|&query| {
                let reach = self.nearness.reach(queries.lengths[query], longest, self.factors);
                reach >= queries.best[query].floor().score
            });
            if tile == 0 || open.len().div_ceil(QUERIES) < packs.len() {
                packs = open.chunks(QUERIES).map(|open| self.pack(open, queries)).collect();
            }
            let groups = tile * GROUPS..((tile + 1) * GROUPS).min(groups);
            for pack in &packs {
                let (exclude, best) = (queries.exclude, &mut queries.best[..]);
                Tile { candidates: self, cpu, groups: groups.clone(), pack, exclude, best }.run();
                work += pack.ids.len() * groups.len() * LANES * self.factors;
            }
        }
        work
    }

    fn pack(&self, ids: &[usize], queries: &Queries<'_>) -> Pack {
        let of = |value: &dyn Fn(&[f32]) -> f32| {
            std::array::from_fn(|at| ids.get(at).map_or(0.0, |&query| value(&queries.vectors[query])))
        };
        let values = (0..self.factors).map(|dimension| of(&|query| query[dimension])).collect();
        Pack { ids: ids.to_vec(), values, norms: of(&|query| self.nearness.of(query)) }
    }
}

/// Queries, and the best that each has found so far.
pub(super) struct Queries<'a> {
    /// Less the center of the candidates.
    vectors: Vec<Vec<f32>>,
    lengths: Vec<f64>,
    /// What is left out, and which row is that of the first query.
    exclude: Option<(&'a RowsRead<'a>, usize)>,
    best: Vec<TopK>,
}

impl<'a> Queries<'a> {
    /// Queries for candidates of the same center as these.
    pub(super) fn new(
        queries: &[&[f32]],
        candidates: &Candidates,
        k: usize,
        exclude: Option<(&'a RowsRead<'a>, usize)>,
    ) -> Self {
        let moved = |query: &&[f32]| moved(&query[..candidates.factors], &candidates.center);
        let vectors: Vec<Vec<f32>> = queries.iter().map(moved).collect();
        let lengths = vectors.iter().map(|query| square(query).sqrt()).collect();
        let best = queries.iter().map(|_| TopK::new(k, f32::NEG_INFINITY)).collect();
        Self { vectors, lengths, exclude, best }
    }

    /// Hands out the best of each, best first.
    pub(super) fn finish(mut self, mut found: impl FnMut(usize, f32, u32)) {
        for (query, best) in self.best.iter_mut().enumerate() {
            best.drain(f32::NEG_INFINITY).for_each(|(score, candidate)| found(query, score, candidate));
        }
    }
}

/// A few queries side by side.
struct Pack {
    /// Which queries they are, at most [`QUERIES`].
    ids: Vec<usize>,
    /// The first components of all, then the second ones, and so on; zeros where queries are fewer.
    values: Vec<[f32; QUERIES]>,
    /// What a score needs of each.
    norms: [f32; QUERIES],
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

#[inline(always)]
fn products(values: &[f32], queries: &[[f32; QUERIES]]) -> [[f32; LANES]; QUERIES] {
    let ([a, b, c, d], [e, f, g, h]) = (products_of_four::<0>(values, queries), products_of_four::<4>(values, queries));
    [a, b, c, d, e, f, g, h]
}

/// Sums of four queries and what is added to them fit the 16 registers of 8 lanes that AVX2 has. They are written out and go
/// by value, or they would not stay there.
#[inline(always)]
fn products_of_four<const FIRST: usize>(values: &[f32], queries: &[[f32; QUERIES]]) -> [[f32; LANES]; 4] {
    let [mut a, mut b, mut c, mut d] = [[0f32; LANES]; 4];
    for (values, query) in values.as_chunks::<LANES>().0.iter().zip(queries) {
        a = add_product(a, query[FIRST], values);
        b = add_product(b, query[FIRST + 1], values);
        c = add_product(c, query[FIRST + 2], values);
        d = add_product(d, query[FIRST + 3], values);
    }
    [a, b, c, d]
}

/// A vector less the center.
fn moved(vector: &[f32], center: &[f32]) -> Vec<f32> {
    vector.iter().zip(center).map(|(value, center)| value - center).collect()
}

/// A few queries against a tile of candidates.
struct Tile<'a, 'b> {
    candidates: &'a Candidates,
    cpu: Cpu,
    groups: std::ops::Range<usize>,
    pack: &'a Pack,
    exclude: Option<(&'a RowsRead<'b>, usize)>,
    /// Of all queries.
    best: &'a mut [TopK],
}

impl Tile<'_, '_> {
    fn run(self) {
        let Candidates { nearness, factors, .. } = *self.candidates;
        let Pack { ids: queries, values, norms } = self.pack;
        // Where queries are fewer than fit, nothing reaches the others.
        let mut floors = [f32::INFINITY; QUERIES];
        floors.iter_mut().zip(queries).for_each(|(floor, &query)| *floor = self.best[query].floor().score);
        let mut scores = [[0f32; LANES]; QUERIES];
        for group in self.groups {
            let reached = self.cpu.run(Scores {
                nearness,
                values: &self.candidates.values[group * LANES * factors..(group + 1) * LANES * factors],
                norms: &self.candidates.norms[group * LANES..(group + 1) * LANES],
                queries: values,
                query_norms: norms,
                floors: &floors,
                scores: &mut scores,
            });
            let ids = &self.candidates.ids[group * LANES..];
            for (at, &query) in queries.iter().enumerate().filter(|(at, _)| reached[*at]) {
                let best = &mut self.best[query];
                let seen = self.exclude.map(|(rows, first)| rows.row(first + query));
                // The last group may have lanes without a candidate.
                for (&score, &id) in scores[at].iter().zip(ids).filter(|(score, _)| **score >= floors[at]) {
                    let is_seen = |seen: &[u64]| seen.binary_search_by_key(&id, |&e| entry::column(e)).is_ok();
                    if !seen.is_some_and(is_seen) {
                        best.push(score, id);
                    }
                }
                floors[at] = best.floor().score;
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
