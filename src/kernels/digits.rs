//! Sorting by digits: by what stands in the upper half of a number, digit by digit (radix sort, least digit first), or by the
//! first digit alone.

use std::ops::Range;

/// More bits a digit would need more counts than the nearest cache holds.
const MOST_BITS: u32 = 11;

/// Puts what has smaller digits first; what has the same digit stays in the order in which it came. `ends` has a 0 for each digit
/// and, afterwards, where what has it ends.
#[inline(always)]
pub fn put_by_digit<T>(from: impl Iterator<Item = (usize, T)> + Clone, to: &mut [T], ends: &mut [u32]) {
    from.clone().for_each(|(digit, _)| ends[digit] += 1);
    let mut sum = 0;
    for end in &mut *ends {
        sum += std::mem::replace(end, sum);
    }
    for (digit, item) in from {
        let next = &mut ends[digit];
        to[*next as usize] = item;
        *next += 1;
    }
}

/// Sorts words whose upper halves are in a range by these, or as whole words where they are few: then comparing is faster. `room`
/// grows to as many words.
///
/// Words outside the range are sorted wrongly. Words with equal upper halves stay in the order in which they came, or are sorted:
/// the caller must not count on either.
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
        let digits = from.iter().map(|&word| (digit(word), word));
        put_by_digit(digits, to, &mut [0; 1 << MOST_BITS][..1 << digit_bits]);
        (from, to) = (to, from);
    }
    if passes % 2 == 1 {
        to.copy_from_slice(from);
    }
}

/// Sorts words, fast where they are spread over their range: each is put where its share of the range says, and little is left
/// to sort.
///
/// `room` is where they are put; what it holds afterwards means nothing.
pub fn sort_by_range(words: &mut Vec<u64>, room: &mut Vec<u64>) {
    const SHARES: usize = 1 << MOST_BITS;
    /// Longer runs of one share are sorted by themselves.
    const SHORT: usize = 16;
    let (least, most) = words.iter().fold((u64::MAX, 0), |(least, most), &word| (least.min(word), most.max(word)));
    // The share is (word - least) * scale / 2^64, rounded down. In ranges of no more words than there are shares the scale has
    // no room and is a little less, so that the first two words have the same.
    let scale = (SHARES as u128) << u64::BITS;
    let scale = u64::try_from(scale / (u128::from(most.saturating_sub(least)) + 1)).unwrap_or(u64::MAX);
    let share = |word: u64| ((u128::from(word - least) * u128::from(scale)) >> u64::BITS) as usize;
    let mut ends = [0; SHARES];
    room.resize(words.len(), 0);
    put_by_digit(words.iter().map(|&word| (share(word), word)), room, &mut ends);
    std::mem::swap(words, room);
    // Most often there is no such run, which is seen for many shares at once.
    let longest = ends.windows(2).map(|ends| ends[1] - ends[0]).fold(ends[0], u32::max);
    if longest as usize > SHORT {
        let mut start = 0;
        for end in ends.iter().map(|&end| end as usize) {
            if end - start > SHORT {
                words[start..end].sort_unstable();
            }
            start = end;
        }
    }
    for at in 1..words.len() {
        let word = words[at];
        let mut to = at;
        while to > 0 && words[to - 1] > word {
            words[to] = words[to - 1];
            to -= 1;
        }
        words[to] = word;
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

        /// Spread over all bits or few, in runs of one value, and with one far from all others.
        #[test]
        fn words_are_sorted_by_their_range(
            start in prop_oneof![Just(0u64), Just(u64::MAX / 3)],
            length in prop_oneof![Just(1u64), Just(300), Just(1 << 17), Just(u64::MAX / 2)],
            seeds in prop::collection::vec(any::<u64>(), 0..3000),
            far in prop::option::of(any::<u64>()),
        ) {
            let mut words: Vec<u64> = seeds.iter().map(|seed| start + seed % length).chain(far).collect();
            let mut expected = words.clone();
            expected.sort_unstable();
            let mut room = vec![7; 5];
            sort_by_range(&mut words, &mut room);
            prop_assert_eq!(words, expected);
        }
    }
}
