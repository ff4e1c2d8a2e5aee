//! Candidates by groups of near ones, so that a query may look at the most promising groups alone.
//!
//! Groups are those of k-means (Lloyd 1982), as many as the square root of the number of candidates; directions are grouped
//! where scores are inner products. Everything is a product of dense matrices that all threads share, and all queries of a
//! block that look at a group meet it together. Neither threads nor the order of rows show in the result, which graphs that
//! are built by insertions from many threads cannot promise.

use rayon::prelude::*;

use super::nearest::{Candidates, Nearness, Queries, square};
use super::rows::RowsRead;
use super::vectors::{ROWS_AT_ONCE, Vectors};

/// Candidates that groups are found by, per group.
const SAMPLED: usize = 64;
/// How often the middles of groups are moved.
const ROUNDS: usize = 8;

/// All candidates, in one group or in many.
#[derive(Debug)]
pub struct Index {
    groups: Vec<Candidates>,
    /// Where there are many groups: their middles, and at how many of them a query looks.
    middles: Option<(Candidates, usize)>,
}

impl Index {
    /// Lays out so many vectors of finite numbers, which are in the order of their ids, for queries that look at a share of
    /// the groups, above 0; at 1 there is one group, and what is found is exact. Works on all threads of the current pool.
    pub fn new(vectors: &Vectors, count: usize, nearness: Nearness, share: f64) -> Self {
        let groups = (count as f64).sqrt().ceil() as usize;
        if share >= 1.0 || groups < 2 {
            return Self { groups: vec![Candidates::new(vectors, count, nearness)], middles: None };
        }
        let looked_at = ((groups as f64 * share).ceil() as usize).clamp(1, groups);
        // Inner products would draw all candidates to the longest middle, so they are grouped by direction. A query
        // then meets each group's mean: of directions where lengths do not count, else of the vectors, so that groups of
        // long ones come first.
        let (near, mean_of_directions) = match nearness {
            Nearness::Euclidean => (Nearness::Euclidean, false),
            Nearness::Cosine => (Nearness::Cosine, true),
            Nearness::Dot => (Nearness::Cosine, false),
        };
        let sampled = (SAMPLED * groups).min(count);
        let sample: Vec<u32> = (0..sampled).map(|at| (at * count / sampled) as u32).collect();
        let mut middles = Vectors::zeros(groups, vectors.factors);
        for group in 0..groups {
            middles.row_mut(group).copy_from_slice(vectors.row(sample[group * sampled / groups] as usize));
        }
        let directions = near == Nearness::Cosine;
        for _ in 0..ROUNDS {
            let of = nearest_middle(vectors, &sample, &middles, near);
            move_middles(vectors, &sample, &of, &mut middles, directions);
        }
        let all: Vec<u32> = (0..count as u32).collect();
        let of = nearest_middle(vectors, &all, &middles, near);
        move_middles(vectors, &all, &of, &mut middles, mean_of_directions);
        let mut members = vec![Vec::new(); groups];
        all.iter().zip(of).for_each(|(&candidate, group)| members[group as usize].push(candidate));
        let center = nearness.center(vectors, count);
        let lay_out = |ids: Vec<u32>| Candidates::of(vectors, ids, nearness, center.clone());
        let laid_out = members.into_par_iter().map(lay_out).collect();
        let middles = Candidates::of(&middles, (0..groups as u32).collect(), nearness, center.clone());
        Self { groups: laid_out, middles: Some((middles, looked_at)) }
    }

    /// The bytes that it holds.
    pub fn bytes(&self) -> usize {
        let middles = self.middles.as_ref().map_or(0, |(middles, _)| middles.bytes());
        self.groups.iter().map(Candidates::bytes).sum::<usize>() + middles
    }

    /// How many queries are best asked together: with many groups enough that several meet in each.
    pub fn queries_at_once(&self) -> usize {
        if self.middles.is_some() { 1024 } else { 128 }
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
        let Some((middles, looked_at)) = &self.middles else {
            return self.groups[0].nearest(queries, k, exclude, found);
        };
        let mut lookers = vec![Vec::new(); self.groups.len()];
        let looking = |query, _, group: u32| lookers[group as usize].push(query);
        let mut work = middles.nearest(queries, *looked_at, None, looking);
        let mut queries = Queries::new(queries, middles, k, exclude);
        for (group, lookers) in self.groups.iter().zip(lookers) {
            work += group.offer(&mut queries, lookers);
        }
        queries.finish(found);
        work
    }
}

/// The group of each of these candidates.
fn nearest_middle(vectors: &Vectors, candidates: &[u32], middles: &Vectors, nearness: Nearness) -> Vec<u32> {
    let count = middles.values.len() / middles.stride().max(1);
    let middles = Candidates::new(middles, count, nearness);
    let mut of = vec![0; candidates.len()];
    of.par_chunks_mut(ROWS_AT_ONCE).zip(candidates.par_chunks(ROWS_AT_ONCE)).for_each(|(of, candidates)| {
        let rows: Vec<&[f32]> = candidates.iter().map(|&candidate| vectors.row(candidate as usize)).collect();
        middles.nearest(&rows, 1, None, |at, _, group| of[at] = group);
    });
    of
}

/// Moves each middle to the mean of its members, or of their directions; one without members stays.
fn move_middles(vectors: &Vectors, candidates: &[u32], of: &[u32], middles: &mut Vectors, directions: bool) {
    let mut members = vec![Vec::new(); middles.values.len() / middles.stride().max(1)];
    candidates.iter().zip(of).for_each(|(&candidate, &group)| members[group as usize].push(candidate));
    let stride = middles.stride().max(1);
    middles.values.par_chunks_mut(stride).zip(members).filter(|(_, members)| !members.is_empty()).for_each(
        |(middle, members)| {
            let mut sum = vec![0f64; stride];
            for &member in &members {
                let vector = vectors.row(member as usize);
                let length = if directions { square(vector).sqrt() } else { 1.0 };
                let by = if length > 0.0 { length.recip() } else { 1.0 };
                sum.iter_mut().zip(vector).for_each(|(sum, &value)| *sum += f64::from(value) * by);
            }
            middle.iter_mut().zip(sum).for_each(|(middle, sum)| *middle = (sum / members.len() as f64) as f32);
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is found at this share, of 3000 candidates around 60 corners, for queries near some of them, and the work.
    fn found(nearness: Nearness, share: f64, threads: usize) -> (Vec<Vec<(f32, u32)>>, usize) {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let (corners, noise) = (Vectors::random(60, 8, 1, 0), Vectors::random(3000, 8, 2, 1));
        let mut vectors = Vectors::zeros(3000, 8);
        for row in 0..3000 {
            let parts = corners.row(row % 60).iter().zip(noise.row(row));
            let values: Vec<f32> = parts.map(|(corner, noise)| corner - 0.5 + 0.1 * noise).collect();
            vectors.row_mut(row)[..8].copy_from_slice(&values[..8]);
        }
        let index = pool.install(|| Index::new(&vectors, 3000, nearness, share));
        let queries: Vec<&[f32]> = (0..100).map(|at| vectors.row(at * 7)).collect();
        let mut lists = vec![Vec::new(); queries.len()];
        let work = index.nearest(&queries, 10, None, |query, score, candidate| lists[query].push((score, candidate)));
        (lists, work)
    }

    #[test]
    fn a_share_of_the_groups_has_most_of_the_nearest_and_threads_do_not_show() {
        for (_, nearness) in Nearness::NAMES {
            let (exact, few) = (found(nearness, 1.0, 1), found(nearness, 0.1, 1));
            let hits = exact.0.iter().zip(&few.0).map(|(a, b)| a.iter().filter(|a| b.contains(a)).count());
            let hits: usize = hits.sum();
            assert!(hits >= 900, "{nearness:?}: {hits} of 1000");
            assert!(few.1 < exact.1 / 2, "{nearness:?}: {} of {}", few.1, exact.1);
            assert_eq!(few, found(nearness, 0.1, 3));
        }
    }
}
