//! Kernels alone, on a synthetic matrix with the skew of real interactions. `cargo bench --bench kernels`

use std::hint::black_box;
use std::sync::atomic::AtomicBool;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use lakeside::kernels::cells::SingleDot;
use lakeside::kernels::csr::{Csr, Slices};
use lakeside::kernels::metric::{Exponents, Metric, Settings};
use lakeside::kernels::product::RowProduct;
use lakeside::kernels::similarity::Similarity;
use lakeside::kernels::topk::Candidates;
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

/// Events as (item, user, weight), popular items first, as `neighbors` numbers them.
struct Events {
    items: Vec<u32>,
    users: Vec<u32>,
    weights: Vec<f32>,
    /// Codes are the numbers themselves.
    numbers: Vec<u32>,
}

impl Events {
    fn new() -> Self {
        let mut state = 7;
        let skewed = |state: &mut u64, n: usize| ((n as f64).powf(uniform(state)) - 1.0) as u32;
        let items = (0..EVENTS).map(|_| skewed(&mut state, ITEMS)).collect();
        let users = (0..EVENTS).map(|_| skewed(&mut state, USERS)).collect();
        let weights = (0..EVENTS).map(|_| 0.5 + (uniform(&mut state) * 10.0).floor() as f32 / 2.0).collect();
        Self { items, users, weights, numbers: (0..ITEMS.max(USERS) as u32).collect() }
    }

    fn by_item(&self) -> Csr {
        let pieces = vec![(&self.items[..], &self.users[..], &self.weights[..])];
        let slices = Slices { pieces, rows: &self.numbers, columns: &self.numbers };
        Csr::build(0..ITEMS, USERS, &[&slices]).expect("memory can be read")
    }

    fn by_user(&self) -> Csr {
        let pieces = vec![(&self.users[..], &self.items[..], &self.weights[..])];
        let slices = Slices { pieces, rows: &self.numbers, columns: &self.numbers };
        Csr::build(0..USERS, ITEMS, &[&slices]).expect("memory can be read")
    }
}

fn build(criterion: &mut Criterion) {
    let events = Events::new();
    let mut group = criterion.benchmark_group("matrix");
    group.throughput(Throughput::Elements(EVENTS as u64));
    group.bench_function("build", |bencher| bencher.iter(|| black_box(events.by_item())));
    group.finish();
}

fn similarity(criterion: &mut Criterion) {
    let matrix = Events::new().by_item();
    let mut group = criterion.benchmark_group("similarity");
    group.sample_size(10);
    for (name, metric) in Metric::NAMES {
        let (shrink, threshold, weighting) = (0.0, 0.0, Weighting::None);
        let settings = Settings {
            metric,
            k: 50,
            shrink,
            threshold,
            min_overlap: 1,
            max_features: None,
            weighting,
            alpha: 0.5,
            beta: 0.5,
            walk: Exponents::default(),
        };
        let index = Similarity::new(matrix.clone(), settings).expect("memory can be read");
        let search = || {
            let found = Candidates::new(settings.k, (0..ITEMS as u32).collect(), settings.least());
            let work = index.search(&found, &AtomicBool::new(false)).expect("memory can be read");
            (found, work)
        };
        group.throughput(Throughput::Elements(search().1 as u64));
        group.bench_function(name, |bencher| bencher.iter(|| black_box(search())));
    }
    group.finish();
}

/// The product behind `recommend`: rows of users times rows of items.
fn product(criterion: &mut Criterion) {
    let events = Events::new();
    let (a, b) = (events.by_user(), events.by_item());
    let mut group = criterion.benchmark_group("product");
    group.sample_size(10);
    let run = || {
        let mut product = RowProduct::<SingleDot>::new(USERS);
        let rows = (0..a.rows()).map(|row| {
            let work = product.add(a.row(row), &b);
            product.take(a.row(row), work, &b, |_| true, |_, _| {});
            work
        });
        rows.sum::<usize>()
    };
    group.throughput(Throughput::Elements(run() as u64));
    group.bench_function("rows", |bencher| bencher.iter(|| black_box(run())));
    group.finish();
}

criterion_group!(benches, build, similarity, product);
criterion_main!(benches);
