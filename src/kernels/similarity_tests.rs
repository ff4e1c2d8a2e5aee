//! Every metric against its definition, written out over dense rows in double precision, and examples worked by hand.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::*;

use crate::cpu::Cpu;

#[path = "similarity_cases.rs"]
mod cases;

use cases::{cases, cases_of_one_feature};

/// The weights of an entity, one place per feature. A stored 0 is a feature that the entity has, None is not.
type Row<T> = Vec<Option<T>>;
type Checked = Result<(), TestCaseError>;

/// A matrix and a question to ask of it.
#[derive(Debug, Clone)]
struct Case {
    rows: Vec<Row<f32>>,
    weighted: bool,
    order: Vec<u32>,
    settings: Settings,
}

/// Found neighbors, one entry per pair, grouped by entity and best first.
#[derive(Debug, Default, PartialEq)]
struct Neighbors {
    entity: Vec<u32>,
    neighbor: Vec<u32>,
    score: Vec<f32>,
    rank: Vec<usize>,
}

/// How a search is cut up.
#[derive(Debug, Clone, Copy)]
struct Cut {
    threads: usize,
    rows: usize,
    entries: usize,
    sample: usize,
    cpu: Cpu,
}

const WHOLE: Cut = Cut { threads: 1, rows: usize::MAX, entries: usize::MAX, sample: 0, cpu: Cpu::Any };

impl Case {
    fn search(&self, settings: Settings) -> Neighbors {
        self.search_cut(settings, WHOLE)
    }

    fn search_cut(&self, settings: Settings, cut: Cut) -> Neighbors {
        search(csr(&self.rows, self.weighted), self.order.clone(), settings, cut)
    }

    /// The question once for each metric.
    fn each_metric(&self) -> impl Iterator<Item = Settings> {
        let weights = || self.rows.iter().flatten().flatten();
        let signed = self.weighted && weights().any(|weight| *weight < 0.0);
        let metrics = Metric::NAMES.into_iter().filter(move |(_, metric)| !(signed && metric.is_walk()));
        metrics.map(move |(_, metric)| Settings { metric, ..self.settings })
    }
}

fn search(matrix: Csr, order: Vec<u32>, settings: Settings, cut: Cut) -> Neighbors {
    search_share(matrix, order, settings, cut, &[true])
}

fn search_share(matrix: Csr, order: Vec<u32>, settings: Settings, cut: Cut, mine: &[bool]) -> Neighbors {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(cut.threads).build().unwrap();
    let Csr { columns, offsets, entries } = matrix;
    let bounds = blocks(&offsets, cut.rows.min(MOST_ROWS), cut.entries);
    let entities = order.len();
    let candidates = Candidates::new(settings.k.min(entities.max(1)), order, settings.least());
    pool.install(|| {
        let index = Similarity::prepare(Box::new(entries), offsets, bounds, columns, settings).unwrap();
        index.with_sample(cut.sample).search_on(cut.cpu, &candidates, mine, &AtomicBool::new(false)).unwrap();
    });
    let mut found = Neighbors::default();
    for entity in 0..entities {
        let first = found.entity.len();
        candidates.take(entity, |score, neighbor| {
            found.entity.push(entity as u32);
            found.neighbor.push(neighbor);
            found.score.push(score);
            found.rank.push(found.entity.len() - first);
        });
    }
    found
}

fn csr(rows: &[Row<f32>], weighted: bool) -> Csr {
    let columns = rows.first().map_or(0, Vec::len);
    let mut matrix = Csr { columns, offsets: vec![0], ..Csr::default() };
    for row in rows {
        let stored = row.iter().enumerate().filter_map(|(feature, cell)| Some((feature as u32, (*cell)?)));
        let weight = |weight: f32| if weighted { weight } else { 1.0 };
        matrix.entries.extend(stored.map(|(feature, value)| entry::pack(feature, weight(value))));
        matrix.offsets.push(matrix.entries.len());
    }
    matrix
}

/// Prepared weights are kept in single precision. Whether a weight is exactly its mean, so that a norm is 0, depends
/// on that, and so a definition that is to agree on it has to round at the same places.
fn single(value: f64) -> f64 {
    f64::from(value as f32)
}

fn total(row: &[Option<f64>]) -> f64 {
    row.iter().flatten().sum()
}

fn size(row: &[Option<f64>]) -> f64 {
    row.iter().flatten().count() as f64
}

fn norm(row: &[Option<f64>]) -> f64 {
    row.iter().flatten().map(|r| r * r).sum::<f64>().sqrt()
}

fn flipped(rows: &[Row<f64>]) -> Vec<Row<f64>> {
    let columns = rows.first().map_or(0, Vec::len);
    (0..columns).map(|column| rows.iter().map(|row| row[column]).collect()).collect()
}

fn centred(rows: &[Row<f64>]) -> Vec<Row<f64>> {
    let centre = |row: &Row<f64>| -> Row<f64> {
        let mean = total(row) / size(row);
        row.iter().map(|cell| cell.map(|weight| single(weight - mean))).collect()
    };
    rows.iter().map(centre).collect()
}

fn weighed(rows: &[Row<f64>], weighting: Weighting) -> Vec<Row<f64>> {
    let entities = rows.iter().filter(|row| size(row) > 0.0).count() as f64;
    let average = rows.iter().map(|row| total(row)).sum::<f64>() / entities;
    let frequency: Vec<f64> = flipped(rows).iter().map(|column| size(column)).collect();
    let weigh = |w: f64, df: f64, length: f64| match weighting {
        Weighting::None => w,
        Weighting::Binary => 1.0,
        Weighting::Tfidf => single(w * (1.0 + entities / df).ln()),
        // Also where all are 0, and their mean with them.
        Weighting::Bm25 if w == 0.0 => 0.0,
        Weighting::Bm25 => {
            let idf = (1.0 + (entities - df + 0.5) / (df + 0.5)).ln();
            single(idf * w * (1.2 + 1.0) / (w + 1.2 * (1.0 - 0.75 + 0.75 * length / average)))
        }
    };
    let weigh_row = |row: &Row<f64>| -> Row<f64> {
        let cells = row.iter().zip(&frequency);
        cells.map(|(cell, df)| cell.map(|w| weigh(w, *df, total(row)))).collect()
    };
    rows.iter().map(weigh_row).collect()
}

/// The score of two rows, whether or not they may be neighbors; NaN where it is not defined.
fn formula(a: &[Option<f64>], b: &[Option<f64>], features: f64, degrees: &[f64], settings: &Settings) -> f64 {
    if let Some(walk) = settings.exponents() {
        let paths = a.iter().zip(b).zip(degrees).filter_map(|((x, y), d)| Some(((*x)?, (*y)?, *d)));
        let step =
            |(x, y, d): (f64, f64, f64)| if x * y == 0.0 { 0.0 } else { (x * y).powf(walk.weight) / d.powf(walk.b) };
        let sum = paths.map(step).sum::<f64>();
        return if sum == 0.0 { 0.0 } else { sum / total(a).powf(walk.a) / total(b).powf(walk.c) };
    }
    let common: Vec<(f64, f64)> = a.iter().zip(b).filter_map(|(x, y)| (*x).zip(*y)).collect();
    let dot: f64 = common.iter().map(|(x, y)| x * y).sum();
    let (c, h) = (common.len() as f64, settings.shrink);
    let (alpha, beta) = (settings.alpha, settings.beta);
    match settings.metric {
        Metric::Cosine | Metric::CenteredCosine | Metric::AdjustedCosine => dot / (norm(a) * norm(b) + h),
        Metric::AsymmetricCosine => dot / (norm(a).powf(2.0 * alpha) * norm(b).powf(2.0 * (1.0 - alpha)) + h),
        Metric::Pearson => {
            let (aa, bb) = common.iter().fold((0f64, 0f64), |(aa, bb), (x, y)| (aa + x * x, bb + y * y));
            dot / (f64::sqrt(aa * bb) + h)
        }
        Metric::Jaccard => c / (size(a) + size(b) - c + h),
        Metric::Dice => 2.0 * c / (size(a) + size(b) + h),
        Metric::Tversky => c / (c + alpha * (size(a) - c) + beta * (size(b) - c) + h),
        Metric::Overlap => c,
        Metric::Lift => c * features / (size(a) * size(b) + h),
        Metric::Euclidean => {
            let differences = a.iter().zip(b).map(|(x, y)| x.unwrap_or(0.0) - y.unwrap_or(0.0));
            1.0 / (1.0 + differences.map(|d| d * d).sum::<f64>().sqrt() + h)
        }
        Metric::Walk | Metric::P3alpha | Metric::Rp3beta | Metric::Gfcf => unreachable!("walks have exponents"),
    }
}

/// The scores of all pairs that may be neighbors, before threshold and k.
fn definition(rows: &[Row<f32>], settings: &Settings) -> Vec<Row<f64>> {
    let exact: Vec<Row<f64>> = rows.iter().map(|row| row.iter().map(|cell| cell.map(f64::from)).collect()).collect();
    let exact = weighed(&exact, settings.weighting);
    let exact = match settings.metric {
        Metric::CenteredCosine | Metric::Pearson => centred(&exact),
        Metric::AdjustedCosine => flipped(&centred(&flipped(&exact))),
        _ => exact,
    };
    let columns = flipped(&exact);
    let features = columns.iter().filter(|column| size(column) > 0.0).count() as f64;
    let degrees: Vec<f64> = columns.iter().map(|column| total(column)).collect();
    let score = |i: usize, j: usize| {
        let common = exact[i].iter().zip(&exact[j]).filter(|(x, y)| x.is_some() && y.is_some()).count();
        let possible = i != j && common >= settings.min_overlap as usize;
        possible.then(|| formula(&exact[i], &exact[j], features, &degrees, settings)).filter(|score| !score.is_nan())
    };
    (0..rows.len()).map(|i| (0..rows.len()).map(|j| score(i, j)).collect()).collect()
}

/// How far single precision may be off.
fn tolerance(score: f64) -> f64 {
    1e-4 * score.abs().max(1.0)
}

/// Checks the list of one entity against the scores that it should be made from.
fn check_list(list: &[(usize, f32)], expected: &[Option<f64>], order: &[u32], asked: &Settings) -> Checked {
    for pair in list.windows(2) {
        let ((j, score), (next, next_score)) = (pair[0], pair[1]);
        let tied = score == next_score && order[j] < order[next];
        prop_assert!(score > next_score || tied, "{asked:?}: {j} with {score} before {next} with {next_score}");
    }
    for &(j, score) in list {
        let Some(exact) = expected[j] else {
            return Err(TestCaseError::fail(format!("{asked:?}: {j} with {score} is no neighbor")));
        };
        let close = (f64::from(score) - exact).abs() <= tolerance(exact);
        prop_assert!(close && score > asked.threshold, "{asked:?}: {j} has {score}, not {exact}");
    }
    // What is left out is below the threshold or beaten, as far as rounding can tell.
    let last = list.last().map_or(f64::INFINITY, |(_, score)| f64::from(*score));
    for (j, exact) in expected.iter().enumerate().filter_map(|(j, exact)| Some((j, (*exact)?))) {
        let listed = list.iter().any(|(other, _)| *other == j);
        let low = exact <= f64::from(asked.threshold) + tolerance(exact);
        let beaten = list.len() == asked.k && exact <= last + tolerance(exact);
        prop_assert!(listed || low || beaten, "{asked:?}: {j} with {exact} is missing");
    }
    Ok(())
}

fn check(case: &Case, asked: &Settings) -> Checked {
    let found = case.search(*asked);
    prop_assert!(found.entity.is_sorted(), "{asked:?}: not grouped by entity");
    let mut lists: Vec<Vec<(usize, f32)>> = vec![Vec::new(); case.rows.len()];
    for (at, &i) in found.entity.iter().enumerate() {
        let list = &mut lists[i as usize];
        list.push((found.neighbor[at] as usize, found.score[at]));
        prop_assert!(found.rank[at] == list.len() && list.len() <= asked.k, "{asked:?}: rank of {i}");
    }
    let expected = definition(&case.rows, asked);
    lists.iter().zip(&expected).try_for_each(|(list, scores)| check_list(list, scores, &case.order, asked))
}

fn is_symmetric(settings: &Settings) -> bool {
    let Settings { metric, alpha, beta, .. } = *settings;
    if let Some(walk) = settings.exponents() {
        return walk.a == walk.c;
    }
    (metric != Metric::AsymmetricCosine || alpha == 0.5) && (metric != Metric::Tversky || alpha == beta)
}

proptest! {
    #[test]
    fn every_metric_follows_its_definition(case in cases()) {
        for asked in case.each_metric() {
            check(&case, &asked)?;
        }
    }

    #[test]
    fn entities_of_one_feature_follow_it_too(case in cases_of_one_feature(), threads in 1usize..=3, rows in 1usize..=40) {
        for asked in case.each_metric() {
            check(&case, &asked)?;
            prop_assert_eq!(case.search_cut(asked, Cut { threads, rows, ..WHOLE }), case.search(asked));
        }
    }

    #[test]
    fn both_ends_of_a_pair_see_the_same_score(case in cases()) {
        for asked in case.each_metric().filter(is_symmetric) {
            let found = case.search(Settings { k: case.rows.len(), ..asked });
            let pairs = found.entity.iter().copied().zip(found.neighbor.iter().copied());
            let scores: HashMap<(u32, u32), u32> = pairs.zip(found.score.iter().map(|s| s.to_bits())).collect();
            for (&(i, j), &bits) in &scores {
                prop_assert!(scores.get(&(j, i)) == Some(&bits), "{asked:?}: {i} and {j}");
            }
        }
    }

    #[test]
    fn the_best_of_all_shares_are_the_best(case in cases(), of in 1usize..=3, rows in 1usize..=30) {
        let mut padded = case.clone();
        // Rows are shared out some at a time, so there are to be a few.
        padded.rows.extend(case.rows.iter().cycle().take(3 * case.rows.len()).cloned());
        padded.order = (0..padded.rows.len() as u32).rev().collect();
        for asked in padded.each_metric() {
            let mut lists: Vec<(u32, f32, u32)> = Vec::new();
            for here in 0..of {
                let mine: Vec<bool> = (0..of).map(|share| share == here).collect();
                let (matrix, order) = (csr(&padded.rows, padded.weighted), padded.order.clone());
                let found = search_share(matrix, order, asked, Cut { rows, ..WHOLE }, &mine);
                lists.extend((0..found.entity.len()).map(|at| (found.entity[at], found.score[at], found.neighbor[at])));
            }
            let place = |neighbor: u32| padded.order[neighbor as usize];
            lists.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.total_cmp(&a.1)).then(place(a.2).cmp(&place(b.2))));
            let best = lists.chunk_by(|a, b| a.0 == b.0).flat_map(|list| &list[..list.len().min(asked.k)]);
            let whole = padded.search(asked);
            prop_assert!(best.map(|(_, score, neighbor)| (score, neighbor)).eq(whole.score.iter().zip(&whole.neighbor)));
        }
    }

    #[test]
    fn blocks_threads_and_processors_do_not_show(case in cases(), threads in 1usize..=4, rows in 1usize..=30, entries in 1usize..=40) {
        // Entities without features are in nobody's way, but with so many of them the work of every row is sparse.
        let mut padded = case.clone();
        let all = case.rows.len() + 8 * case.rows.iter().flatten().flatten().count();
        padded.rows.splice(0..0, vec![vec![None; case.rows[0].len()]; all]);
        padded.order = (case.rows.len() as u32..(case.rows.len() + all) as u32).chain(case.order.iter().copied()).collect();
        for asked in case.each_metric() {
            let whole = case.search(asked);
            for cpu in Cpu::available() {
                prop_assert_eq!(&case.search_cut(asked, Cut { threads, rows, entries, cpu, ..WHOLE }), &whole);
            }
            let mut sparse = padded.search(asked);
            sparse.entity.iter_mut().chain(&mut sparse.neighbor).for_each(|entity| *entity -= all as u32);
            prop_assert_eq!(&sparse, &whole);
        }
    }

    /// Whatever stands first, and whether a sample says that all or none of a row's best come later.
    #[test]
    fn samples_do_not_show(case in cases(), times in 2usize..=8, sample in 1usize..=100, threads in 1usize..=3, k in 1usize..=8) {
        let mut many = case.clone();
        many.rows = (0..times).flat_map(|_| case.rows.iter().cloned()).collect();
        many.rows.resize(many.rows.len().max(40), vec![Some(1.0); case.rows[0].len()]);
        many.order = (0..many.rows.len() as u32).rev().collect();
        for asked in many.each_metric() {
            let asked = Settings { k, ..asked };
            let whole = many.search(asked);
            for cpu in Cpu::available() {
                prop_assert_eq!(&many.search_cut(asked, Cut { threads, sample, cpu, ..WHOLE }), &whole, "{:?}", asked);
            }
        }
    }

    /// A power of two changes exponents only, so it may not change a bit of what does not depend on the scale.
    #[test]
    fn scale_does_not_show(case in cases(), exponent in -100i32..=100) {
        let mut scaled = case.clone();
        scaled.weighted = true;
        scaled.rows.iter_mut().flatten().flatten().for_each(|weight| *weight *= 2f32.powi(exponent));
        for metric in [Metric::Cosine, Metric::CenteredCosine, Metric::AdjustedCosine, Metric::Pearson] {
            let asked = Settings { metric, weighting: Weighting::None, ..case.settings };
            let shrink = asked.shrink * 2f64.powi(2 * exponent);
            let found = scaled.search(Settings { shrink, ..asked });
            prop_assert_eq!(found, case.search(asked));
        }
    }
}

fn plain(metric: Metric) -> Settings {
    let weighting = Weighting::None;
    Settings {
        metric,
        k: 50,
        shrink: 0.0,
        threshold: 0.0,
        min_overlap: 1,
        max_features: None,
        weighting,
        alpha: 0.5,
        beta: 1.0,
        walk: Exponents::default(),
    }
}

/// The neighbors among rows of which every weight is stored, as (entity, neighbor, score).
fn neighbors(rows: &[Vec<f32>], settings: Settings) -> Vec<(u32, u32, f32)> {
    neighbors_of(rows.iter().map(|row| row.iter().copied().map(Some).collect()).collect(), settings)
}

fn neighbors_of(rows: Vec<Row<f32>>, settings: Settings) -> Vec<(u32, u32, f32)> {
    let order = (0..rows.len() as u32).collect();
    let found = Case { rows, weighted: true, order, settings }.search(settings);
    let pairs = found.entity.into_iter().zip(found.neighbor);
    pairs.zip(found.score).map(|((i, j), score)| (i, j, score)).collect()
}

#[test]
fn two_rows_at_any_scale() {
    for scale in [1.0f32, 1e30, 1e-30] {
        let rows = [[5.0f32, 4.0, 3.0, 2.0, 1.0], [5.0, 3.0, 2.0, 1.0, 0.0]].map(|row| row.map(|w| w * scale).to_vec());
        for (metric, score) in [
            (Metric::Cosine, "0.9716"),
            (Metric::AsymmetricCosine, "0.9716"),
            (Metric::CenteredCosine, "0.9864"),
            (Metric::Pearson, "0.9864"),
        ] {
            let found = neighbors(&rows, plain(metric));
            assert_eq!(found.len(), 2, "{metric:?} {scale}");
            assert!(found.iter().all(|(_, _, s)| format!("{s:.4}") == score), "{metric:?} {scale}: {found:?}");
        }
        // They differ by one in four places.
        let expected = 1.0 / (1.0 + 2.0 * scale);
        let found = neighbors(&rows, plain(Metric::Euclidean));
        assert!((found[0].2 - expected).abs() <= 1e-5 * expected, "{scale}: {found:?}");
    }
}

#[test]
fn set_measures_by_hand() {
    let (x, o) = (Some(1.0), None);
    // Three and four features of six, two of them common; a third entity makes the sixth occur.
    let rows = vec![vec![x, x, x, o, o, o], vec![o, x, x, x, x, o], vec![o, o, o, o, o, x]];
    for (metric, score) in [
        (Metric::Jaccard, 2.0 / 5.0),
        (Metric::Dice, 4.0 / 7.0),
        (Metric::Tversky, 2.0 / (2.0 + 0.5 + 2.0)),
        (Metric::Overlap, 2.0),
        (Metric::Lift, 2.0 * 6.0 / 12.0),
    ] {
        assert_eq!(neighbors_of(rows.clone(), plain(metric))[0], (0, 1, score), "{metric:?}");
    }
}

#[test]
fn identical_rows_score_exactly_one() {
    for row in [vec![5.0f32, 4.0, 3.0, 2.0, 1.0], vec![3.0, 7.0], vec![1.0, 2.0], vec![1.0, 1.0, 2.0]] {
        // Powers of two leave products exact, so that the cosine has no excuse either.
        for scale in [2f32.powi(-100), 1.0, 2f32.powi(20), 2f32.powi(100)] {
            let row: Vec<f32> = row.iter().map(|w| w * scale).collect();
            for metric in [Metric::Cosine, Metric::Pearson, Metric::Euclidean] {
                let found = neighbors(&[row.clone(), row.clone()], plain(metric));
                assert_eq!(found, [(0, 1, 1.0), (1, 0, 1.0)], "{metric:?} of {row:?}");
            }
        }
    }
}

#[test]
fn constant_rows_correlate_with_nothing() {
    for (constant, threshold) in [(2.0, 0.0), (0.1, 0.0), (2.0, -2.0), (0.7, -2.0)] {
        let rows = [vec![constant; 3], vec![1.0, 2.0, 4.0], vec![constant; 3]];
        for metric in [Metric::CenteredCosine, Metric::Pearson] {
            assert!(neighbors(&rows, Settings { threshold, ..plain(metric) }).is_empty(), "{metric:?} {constant}");
        }
    }
}

/// The row of 100 is close to none of those before it in its block, but known to have a neighbor in the other.
#[test]
fn what_one_row_must_beat_is_not_asked_of_the_next() {
    let row = |feature: usize, weight: f32| (0..4).map(|at| (at == feature).then_some(weight)).collect::<Row<f32>>();
    let mut rows = vec![row(0, 90.0), row(0, 80.0)];
    rows.resize(48, row(2, 1.0));
    rows.resize(88, row(3, 1.0));
    rows.extend([row(0, 1.0), row(0, 1.0), row(0, 1.0), row(0, 100.0), row(1, 1000.0), row(1, 2000.0)]);
    let order = (0..rows.len() as u32).collect();
    let case = Case { rows, weighted: true, order, settings: Settings { k: 1, ..plain(Metric::Euclidean) } };
    let found = case.search_cut(case.settings, Cut { rows: 48, ..WHOLE });
    assert_eq!(found, case.search(case.settings));
    assert_eq!(found.neighbor.last_chunk(), Some(&[0, 93, 92]));
}

/// Rows may be at a distance although the sum of their products is 0.
#[test]
fn euclidean_does_not_need_a_product() {
    let found = neighbors(&[vec![1.0, 1.0], vec![1.0, -1.0]], plain(Metric::Euclidean));
    assert_eq!(found, [(0, 1, 1.0 / 3.0), (1, 0, 1.0 / 3.0)]);
    let found = neighbors_of(vec![vec![Some(0.0), Some(3.0)], vec![Some(4.0), None]], plain(Metric::Euclidean));
    assert_eq!(found, [(0, 1, 1.0 / 6.0), (1, 0, 1.0 / 6.0)]);
}

/// A matrix without entries.
fn none(rows: usize, columns: usize) -> Csr {
    Csr::build(0..rows, columns, &[]).unwrap()
}

#[test]
fn degenerate_matrices() {
    for (_, metric) in Metric::NAMES {
        for (_, weighting) in Weighting::NAMES {
            let asked = Settings { k: usize::MAX, threshold: -2.0, weighting, ..plain(metric) };
            for nothing in [Csr::default(), none(0, 0), none(3, 2)] {
                let order = (0..nothing.rows() as u32).collect();
                assert_eq!(search(nothing, order, asked, WHOLE), Neighbors::default(), "{asked:?}");
            }
            assert!(neighbors(&[vec![1.0, 2.0]], asked).is_empty(), "{asked:?}");
        }
        // One feature, and k beyond the number of entities. Centring leaves 0, or the deviations -, - and +.
        let found = neighbors(&[vec![2.0], vec![3.0], vec![5.0]], Settings { k: usize::MAX, ..plain(metric) });
        let exceptions = [(Metric::CenteredCosine, 0), (Metric::Pearson, 0), (Metric::AdjustedCosine, 2)];
        let pairs = exceptions.iter().find(|(other, _)| *other == metric).map_or(6, |(_, pairs)| *pairs);
        assert_eq!(found.len(), pairs, "{metric:?}");
    }
}
