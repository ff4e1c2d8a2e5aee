//! Matrices and questions that similarities are tried with.

use super::*;

/// Whole and half weights: few enough values that rows repeat, products cancel and scores tie.
fn weight() -> impl Strategy<Value = f32> {
    prop_oneof![
        3 => (1u8..=5).prop_map(f32::from),
        2 => (-10i8..=10).prop_map(|half| f32::from(half) / 2.0),
        1 => Just(0.0f32),
    ]
}

fn settings(most_k: usize) -> impl Strategy<Value = Settings> {
    let shrink = prop::sample::select(vec![0.0f64, 0.0, 0.5, 10.0]);
    let threshold = prop::sample::select(vec![0.0f32, 0.0, -0.5, -2.0, 0.2]);
    let weighting = prop::sample::select(Weighting::NAMES.map(|(_, weighting)| weighting).to_vec());
    let exponent = prop::sample::select(vec![0.0f64, 0.25, 0.5, 1.0]);
    (1..=most_k, shrink, threshold, 1u32..=3, weighting, exponent.clone(), exponent).prop_map(
        |(k, shrink, threshold, min_overlap, weighting, alpha, beta)| {
            let metric = Metric::Cosine;
            let walk = Exponents { a: alpha, b: 0.7, c: beta, weight: 1.0 };
            Settings { metric, k, shrink, threshold, min_overlap, max_features: None, weighting, alpha, beta, walk }
        },
    )
}

pub fn cases() -> impl Strategy<Value = Case> {
    (1usize..=25, 1usize..=15, 1u8..=9, any::<bool>()).prop_flat_map(|(entities, features, density, weighted)| {
        let cell = (0u8..10, weight()).prop_map(move |(chance, weight)| {
            let weight = if weighted { weight } else { 1.0 };
            (chance < density).then_some(weight)
        });
        asked_of(prop::collection::vec(prop::collection::vec(cell, features), entities), entities, entities, weighted)
    })
}

/// More entities than are searched without blocks, each with one feature, such as items seen once, and fewer neighbors than
/// share a feature.
pub fn cases_of_one_feature() -> impl Strategy<Value = Case> {
    (64usize..=120, 1usize..=25, any::<bool>()).prop_flat_map(|(entities, features, weighted)| {
        let row = (0..features, weight()).prop_map(move |(feature, weight)| {
            let weight = if weighted { weight } else { 1.0 };
            (0..features).map(|at| (at == feature).then_some(weight)).collect()
        });
        asked_of(prop::collection::vec(row, entities), entities, 3, weighted)
    })
}

fn asked_of(
    rows: impl Strategy<Value = Vec<Row<f32>>>,
    entities: usize,
    most_k: usize,
    weighted: bool,
) -> impl Strategy<Value = Case> {
    let order = Just((0..entities as u32).collect::<Vec<u32>>()).prop_shuffle();
    (rows, order, settings(most_k), any::<bool>()).prop_map(move |(mut rows, order, settings, positive)| {
        // BM25 weighs counts; with negative ones its denominator may be 0. Walks know no negative weights either.
        if settings.weighting == Weighting::Bm25 || positive {
            rows.iter_mut().flatten().flatten().for_each(|weight| *weight = weight.abs());
        }
        Case { rows, weighted, order, settings }
    })
}
