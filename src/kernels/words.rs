//! Numbers for whole numbers, in the order in which they first come, and how often they come.
//!
//! A look at a table that is larger than the caches waits for memory. Words are looked up many at a time, each step for
//! all of them, so that the waits overlap.

use super::prefetch::prefetch;

/// Words looked up together: their slots fit the nearest cache.
const AT_ONCE: usize = 64;

/// Distinct words of 64 bits, numbered.
#[derive(Debug, Default)]
pub struct Words {
    /// Of each small word: what most registers count by needs no hash. As many as a power of two, or none.
    small: Vec<Known>,
    /// Open addressing with linear probing; at most half of the slots are taken.
    slots: Vec<(u64, Known)>,
    /// How many slots are taken.
    hashed: usize,
    words: Vec<u64>,
}

/// What is known of a word, side by side as both are asked for each time.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    /// Its number plus one, 0 if it has not come.
    next: u32,
    /// How often it has come.
    count: u32,
}

/// Words below this may have their number looked up by themselves.
const SMALL: u64 = 1 << 20;

impl Words {
    /// The number of each word, which is counted so many times. At most `u32::MAX - 1` distinct words can be told apart;
    /// who calls sees to it by [`Words::len`].
    pub fn intern(&mut self, words: &[u64], times: u32) -> Vec<u32> {
        let mut numbers = Vec::with_capacity(words.len());
        for some in words.chunks(AT_ONCE) {
            // There are as many small ones as a power of two: words are small if all their bits together are.
            let joined = some.iter().fold(0, |joined, word| joined | word);
            if joined >= self.small.len() as u64 {
                self.reserve(some);
            }
            if some.iter().all(|word| *word == some[0]) {
                // Tables are often sorted by one of their columns, and lists by those that they belong to.
                let number = self.find(some[0], times.wrapping_mul(some.len() as u32));
                numbers.extend(std::iter::repeat_n(number, some.len()));
            } else if joined < self.small.len() as u64 {
                numbers.extend(some.iter().map(|&word| self.find_small(word, times)));
            } else {
                some.iter().for_each(|&word| prefetch(std::slice::from_ref(&self.slots[self.home(word)])));
                numbers.extend(some.iter().map(|&word| self.find(word, times)));
            }
        }
        numbers
    }

    /// The number of distinct words.
    pub fn len(&self) -> usize {
        self.words.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.words.is_empty()
    }

    /// The distinct words by number.
    pub fn words(&self) -> &[u64] {
        &self.words
    }

    /// How often each word has come, by number; beyond `u32::MAX` times, from 0 again.
    pub fn counts(&self) -> Vec<u32> {
        let mut counts = vec![0; self.words.len()];
        for known in self.small.iter().chain(self.slots.iter().map(|(_, known)| known)) {
            if known.next > 0 {
                counts[known.next as usize - 1] = known.count;
            }
        }
        counts
    }

    /// The bytes that it holds.
    pub fn allocated(&self) -> usize {
        let small = self.small.capacity() * size_of::<Known>();
        small + self.slots.capacity() * size_of::<(u64, Known)>() + self.words.capacity() * size_of::<u64>()
    }

    /// Where the search for a word begins (Fibonacci hashing, which spreads words that follow each other).
    #[inline(always)]
    fn home(&self, word: u64) -> usize {
        let hash = (word ^ (word >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (hash >> 32) as usize & (self.slots.len() - 1)
    }

    /// The number of a small word that has come so many more times.
    #[inline(always)]
    fn find_small(&mut self, word: u64, times: u32) -> u32 {
        let known = &mut self.small[word as usize];
        if known.next == 0 {
            self.words.push(word);
            known.next = self.words.len() as u32;
        }
        known.count = known.count.wrapping_add(times);
        known.next - 1
    }

    /// The number of any word that has come so many more times.
    #[inline(always)]
    fn find(&mut self, word: u64, times: u32) -> u32 {
        if word < self.small.len() as u64 {
            return self.find_small(word, times);
        }
        let mut at = self.home(word);
        loop {
            let (held, known) = &mut self.slots[at];
            if known.next == 0 {
                self.words.push(word);
                self.hashed += 1;
                (*held, known.next) = (word, self.words.len() as u32);
            }
            if *held == word {
                known.count = known.count.wrapping_add(times);
                return known.next - 1;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    /// Makes the tables large enough for these words, all of which may be new.
    pub fn reserve(&mut self, more: &[u64]) {
        let largest = more.iter().filter(|word| **word < SMALL).max().map_or(0, |&word| word as usize + 1);
        let small = self.small.len().max(largest.next_power_of_two() * usize::from(largest > 0));
        let hashed = self.hashed + more.iter().filter(|word| **word >= small as u64).count();
        let slots = (2 * hashed).next_power_of_two() * usize::from(hashed > 0);
        if small == self.small.len() && slots <= self.slots.len() {
            return;
        }
        let counts = self.counts();
        self.small = vec![Known::default(); small];
        self.slots = vec![(0, Known::default()); slots.max(self.slots.len())];
        self.hashed = 0;
        for (word, count) in std::mem::take(&mut self.words).into_iter().zip(counts) {
            self.find(word, count);
        }
    }
}

/// Adds to the count of each of these numbers, beyond `u32::MAX` from 0 again. Not inlined, or it would be compiled where it is
/// used, and not for speed.
#[inline(never)]
pub fn count(numbers: &[u32], counts: &mut [u32]) {
    for &number in numbers {
        counts[number as usize] = counts[number as usize].wrapping_add(1);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn words_are_numbered_as_they_come(
            runs in prop::collection::vec(
                (prop_oneof![0u64..50, 0u64..5000, any::<u64>()], prop_oneof![4 => Just(1usize), 1 => 1usize..200]),
                0..400,
            )
        ) {
            let words: Vec<u64> = runs.into_iter().flat_map(|(word, length)| std::iter::repeat_n(word, length)).collect();
            let mut interned = Words::default();
            let mut expected: HashMap<u64, u32> = HashMap::new();
            let mut counts = Vec::new();
            for words in words.chunks(150) {
                for (&word, number) in words.iter().zip(interned.intern(words, 3)) {
                    let next = expected.len() as u32;
                    prop_assert_eq!(number, *expected.entry(word).or_insert(next));
                    prop_assert_eq!(interned.words()[number as usize], word);
                    counts.resize(expected.len(), 0);
                    counts[number as usize] += 3;
                }
            }
            prop_assert_eq!(interned.len(), expected.len());
            prop_assert_eq!(interned.counts(), counts);
        }
    }
}
