//! What the k best of an entity must beat, judged by a sample of all entities before most of its pairs are known.
//!
//! A long list would else fill with pairs that better ones push out later: as many as stay in it. A sample of entities that stand
//! first, from the most to the least popular, meets every other entity before all others do. Of `n` entities, `s` of them sampled,
//! `k s / n` of the k best are expected in the sample, and hardly more than three standard deviations (their root) beyond that: the
//! score at this place of the sample is what must be beaten. Lists in which fewer than k do so in the end are made again without
//! it: what a sample says shows in the time that a search takes, and in nothing else.
//!
//! That a sample stands first may show in the last bits of weights, as sums over entities are taken in the order of their numbers.
//! Entities are therefore numbered so whether or not a search can use the sample, and its answer does not depend on that.

use super::block::MOST_ROWS;

/// From this k on a sample pays for itself.
const LONG_LIST: usize = 256;

/// One of so many entities is in the sample.
const ONE_OF: usize = 16;

/// How many entities a search for `k` neighbors should have in its sample; 0 if none.
pub fn size(entities: usize, k: usize) -> usize {
    match k >= LONG_LIST && entities / 4 >= k && entities <= MOST_ROWS {
        true => entities / ONE_OF,
        false => 0,
    }
}

/// The numbers of all entities, so that a sample of this size stands before all others.
pub fn first(entities: usize, size: usize) -> Vec<u32> {
    let is_in = |&number: &u32| number as usize % ONE_OF == ONE_OF / 2 && number as usize / ONE_OF < size;
    let all = || 0..entities as u32;
    all().filter(is_in).chain(all().filter(|number| !is_in(number))).collect()
}

/// The place in a sample of this size of what must be beaten.
pub(super) fn place(entities: usize, k: usize, size: usize) -> usize {
    let expected = k as f64 * size as f64 / entities as f64;
    (expected + 3.0 * expected.sqrt()) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_stand_first_and_are_spread_over_all() {
        let size = size(1100, 256);
        assert_eq!(
            (size, super::size(1023, 256), super::size(1100, 255), super::size(MOST_ROWS + 1, 256)),
            (68, 0, 0, 0)
        );
        let numbers = first(1100, size);
        assert_eq!((&numbers[..3], numbers[67], &numbers[68..70]), (&[8, 24, 40][..], 1080, &[0, 1][..]));
        let mut sorted = numbers;
        sorted.sort_unstable();
        assert!(sorted.into_iter().eq(0..1100));
        // 64 of 1024 neighbors are expected, and 8 is the root of that.
        assert_eq!(place(16384, 1024, 1024), 64 + 3 * 8);
    }
}
