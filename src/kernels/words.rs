//! Numbers for whole numbers, in the order in which they first come.
//!
//! A look at a table that is larger than the caches waits for memory. Words are looked up many at a time, each step for
//! all of them, so that the waits overlap.

use super::prefetch::prefetch;

/// Words looked up together: their slots fit the nearest cache.
const AT_ONCE: usize = 64;

/// Distinct words of 64 bits, numbered.
#[derive(Debug, Default)]
pub struct Words {
    /// The number plus one of each small word, 0 for one that has not come: what most registers count by needs no hash. As many
    /// as a power of two, or none.
    small: Vec<u32>,
    /// Open addressing with linear probing; at most half of the slots are taken. A word, and its number plus one.
    slots: Vec<(u64, u32)>,
    /// How many slots are taken.
    hashed: usize,
    words: Vec<u64>,
}

/// Words below this may have their number looked up by themselves.
const SMALL: u64 = 1 << 20;

impl Words {
    /// The number of each word. At most `u32::MAX - 1` distinct words can be told apart; who calls sees to it by
    /// [`Words::len`].
    pub fn intern(&mut self, words: &[u64]) -> Vec<u32> {
        let mut numbers = Vec::with_capacity(words.len());
        for some in words.chunks(AT_ONCE) {
            // There are as many small ones as a power of two: words are small if all their bits together are.
            let joined = some.iter().fold(0, |joined, word| joined | word);
            if joined >= self.small.len() as u64 {
                self.make_room(some);
            }
            if joined < self.small.len() as u64 {
                numbers.extend(some.iter().map(|&word| self.find_small(word)));
            } else {
                some.iter().for_each(|&word| prefetch(std::slice::from_ref(&self.slots[self.home(word)])));
                numbers.extend(some.iter().map(|&word| self.find(word)));
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

    /// The bytes that it holds.
    pub fn allocated(&self) -> usize {
        let small = self.small.capacity() * size_of::<u32>();
        small + self.slots.capacity() * size_of::<(u64, u32)>() + self.words.capacity() * size_of::<u64>()
    }

    /// Where the search for a word begins (Fibonacci hashing, which spreads words that follow each other).
    #[inline(always)]
    fn home(&self, word: u64) -> usize {
        let hash = (word ^ (word >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (hash >> 32) as usize & (self.slots.len() - 1)
    }

    #[inline(always)]
    fn find_small(&mut self, word: u64) -> u32 {
        let next = &mut self.small[word as usize];
        if *next == 0 {
            self.words.push(word);
            *next = self.words.len() as u32;
        }
        *next - 1
    }

    #[inline(always)]
    fn find(&mut self, word: u64) -> u32 {
        if word < self.small.len() as u64 {
            return self.find_small(word);
        }
        let mut at = self.home(word);
        loop {
            let (known, next) = self.slots[at];
            if next == 0 {
                self.words.push(word);
                self.hashed += 1;
                self.slots[at] = (word, self.words.len() as u32);
                return self.words.len() as u32 - 1;
            }
            if known == word {
                return next - 1;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    /// Makes the tables large enough for these words.
    fn make_room(&mut self, more: &[u64]) {
        let largest = more.iter().filter(|word| **word < SMALL).max().map_or(0, |&word| word as usize + 1);
        let small = self.small.len().max(largest.next_power_of_two() * usize::from(largest > 0));
        let hashed = self.hashed + more.iter().filter(|word| **word >= small as u64).count();
        let slots = (2 * hashed).next_power_of_two() * usize::from(hashed > 0);
        if small == self.small.len() && slots <= self.slots.len() {
            return;
        }
        self.small = vec![0; small];
        self.slots = vec![(0, 0); slots.max(self.slots.len())];
        self.hashed = 0;
        for word in std::mem::take(&mut self.words) {
            self.find(word);
        }
    }
}

/// Adds to the count of each of these numbers. It stands here as the crate of kernels is compiled for speed.
pub fn count(numbers: &[u32], counts: &mut [u32]) {
    for &number in numbers {
        counts[number as usize] += 1;
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
            words in prop::collection::vec(prop_oneof![0u64..50, 0u64..5000, any::<u64>()], 0..400)
        ) {
            let mut interned = Words::default();
            let mut expected: HashMap<u64, u32> = HashMap::new();
            for words in words.chunks(150) {
                for (&word, number) in words.iter().zip(interned.intern(words)) {
                    let next = expected.len() as u32;
                    prop_assert_eq!(number, *expected.entry(word).or_insert(next));
                    prop_assert_eq!(interned.words()[number as usize], word);
                }
            }
            prop_assert_eq!(interned.len(), expected.len());
        }
    }
}
