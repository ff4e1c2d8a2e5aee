//! Kernels alone, on a synthetic matrix with the skew of real interactions. `cargo bench --bench kernels`

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lakeside::kernels::csr::Csr;
use lakeside::kernels::similarity::{Metric, Neighbors, Settings, Similarity};
use lakeside::kernels::weighting::Weighting;

const ITEMS: usize = 3_000;
const USERS: usize = 6_000;
const EVENTS: usize = 400_000;

/// A generator of pseudorandom numbers in [0, 1), the same on every run (SplitMix64).
fn uniform(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}

/// Items by users, popular items first, as `neighbors` numbers them.
fn interactions() -> Csr {
    let mut state = 7;
    let skewed = |state: &mut u64, n: usize| ((n as f64).powf(uniform(state)) - 1.0) as u32;
    let items: Vec<u32> = (0..EVENTS).map(|_| skewed(&mut state, ITEMS)).collect();
    let users: Vec<u32> = (0..EVENTS).map(|_| skewed(&mut state, USERS)).collect();
    let weights: Vec<f32> = (0..EVENTS).map(|_| 0.5 + (uniform(&mut state) * 10.0).floor() as f32 / 2.0).collect();
    let mut matrix = Csr::from_entries(USERS, ITEMS, &[(&users, &items, &weights)]).transposed();
    matrix.sum_duplicates();
    matrix
}

fn similarity(criterion: &mut Criterion) {
    let matrix = interactions();
    let order: Vec<u32> = (0..ITEMS as u32).collect();
    let mut group = criterion.benchmark_group("similarity");
    group.sample_size(10);
    for (name, metric) in Metric::NAMES {
        let settings = Settings {
            metric,
            k: 50,
            shrink: 0.0,
            threshold: 0.0,
            min_overlap: 1,
            weighting: Weighting::None,
            alpha: 0.5,
            beta: 0.5,
        };
        let index = Arc::new(Similarity::new(matrix.clone(), order.clone(), settings));
        let search = || {
            let mut found = Neighbors::default();
            index.searcher().search(0..index.entities(), &mut found);
            found
        };
        group.throughput(Throughput::Elements(search().work as u64));
        group.bench_function(name, |bencher| bencher.iter(|| black_box(search())));
    }
    group.finish();
}

criterion_group!(benches, similarity);
criterion_main!(benches);
