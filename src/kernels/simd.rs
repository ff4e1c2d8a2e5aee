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
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += a * b;
        }
    }
    let mut width = LANES / 2;
    while width > 0 {
        for at in 0..width {
            lanes[at] += lanes[at + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// Adds `factor` times b to a.
#[inline(always)]
pub fn add_scaled(a: &mut [f32], factor: f32, b: &[f32]) {
    for (a, b) in a.as_chunks_mut::<LANES>().0.iter_mut().zip(b.as_chunks::<LANES>().0) {
        for (a, b) in a.iter_mut().zip(b) {
            *a += factor * b;
        }
    }
}
