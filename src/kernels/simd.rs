//! Loops over vectors of singles, with the widest instructions that the processor has.
//!
//! Sums are taken in 16 lanes whatever the processor, and products are not fused with sums, so results do not depend on it.

/// The singles that are worked on at once; vectors are filled up with zeros to a multiple.
pub const LANES: usize = 16;

/// The length of a vector of so many dimensions when filled up.
pub fn padded(dimensions: usize) -> usize {
    dimensions.next_multiple_of(LANES)
}

/// The inner product of two vectors of a multiple of [`LANES`].
#[inline(always)]
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; LANES];
    for (a, b) in a.as_chunks::<LANES>().0.iter().zip(b.as_chunks::<LANES>().0) {
        lanes = std::array::from_fn(|at| lanes[at] + a[at] * b[at]);
    }
    // Out of sight: else the compiler, which sees pairs of lanes added up below, works on two lanes at a time above, too.
    let eight: [f32; 8] = std::hint::black_box(std::array::from_fn(|at| lanes[at] + lanes[at + 8]));
    let four: [f32; 4] = std::array::from_fn(|at| eight[at] + eight[at + 4]);
    (four[0] + four[2]) + (four[1] + four[3])
}

/// Adds `factor` times the values to the sums, which go by value so that they stay in registers.
#[inline(always)]
pub fn add_product(sums: [f32; LANES], factor: f32, values: &[f32; LANES]) -> [f32; LANES] {
    std::array::from_fn(|lane| sums[lane] + factor * values[lane])
}

/// Adds `factor` times b to a.
#[inline(always)]
pub fn add_scaled(a: &mut [f32], factor: f32, b: &[f32]) {
    for (a, b) in a.as_chunks_mut::<LANES>().0.iter_mut().zip(b.as_chunks::<LANES>().0) {
        *a = add_product(*a, factor, b);
    }
}
