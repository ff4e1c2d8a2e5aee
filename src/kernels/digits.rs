//! Sorting by what stands in the upper half of a number, digit by digit (radix sort, least digit first).

use std::ops::Range;

/// More bits a digit would need more counts than the nearest cache holds.
const MOST_BITS: u32 = 11;

/// Sorts words whose upper halves are in a range by these, or as whole words where they are few: then comparing is faster. `room`
/// grows to as many words.
///
/// Words outside the range are sorted wrongly. Words with equal upper halves stay in the order in which they came, or are sorted: the caller must not count on either.
pub fn sort_by_upper(words: &mut [u64], range: Range<usize>, room: &mut Vec<u64>) {
    let bits = range.len().max(2).next_power_of_two().trailing_zeros();
    let least = (range.start as u64) << u32::BITS;
    let passes = bits.div_ceil(MOST_BITS);
    let digit_bits = bits.div_ceil(passes);
    if words.len() < 1 << digit_bits {
        return words.sort_unstable();
    }
    let length = words.len();
    room.resize(room.len().max(length), 0);
    let (mut from, mut to) = (words, &mut room[..length]);
    for pass in 0..passes {
        let digit = |word: u64| ((word - least) >> (u32::BITS + pass * digit_bits)) as usize & ((1 << digit_bits) - 1);
        let mut next = [0u32; 1 << MOST_BITS];
        from.iter().for_each(|&word| next[digit(word)] += 1);
        let mut sum = 0;
        for next in &mut next[..1 << digit_bits] {
            sum += std::mem::replace(next, sum);
        }
        for &word in &*from {
            let next = &mut next[digit(word)];
            to[*next as usize] = word;
            *next += 1;
        }
        (from, to) = (to, from);
    }
    if passes % 2 == 1 {
        to.copy_from_slice(from);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// In one, two and three digits.
        #[test]
        fn words_are_sorted_by_their_upper_half(
            start in prop_oneof![Just(0usize), Just(77)],
            length in prop_oneof![Just(1usize), Just(300), Just(1 << 17), Just(1 << 23), Just((1 << 32) - 77)],
            seeds in prop::collection::vec(any::<u64>(), 0..5000),
        ) {
            let mut words: Vec<u64> = (0..).zip(seeds).map(|(at, seed)| (start as u64 + seed % length as u64) << 32 | at).collect();
            let mut expected = words.clone();
            expected.sort_unstable();
            sort_by_upper(&mut words, start..start + length, &mut Vec::new());
            prop_assert_eq!(words, expected);
        }
    }
}
