//! Numbers for byte strings and for whole numbers, in the order in which they first come.
//!
//! A look at a table that is larger than the caches waits for memory: for the slot, and for the string that it stands
//! for. Values are looked up many at a time, each step for all of them, so that the waits overlap.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;

use super::prefetch::prefetch;

/// Distinct byte strings, numbered.
#[derive(Debug, Default)]
pub struct Texts {
    /// Open addressing with linear probing; at most half of the slots are taken.
    slots: Vec<Slot>,
    /// All strings one after the other, and where each ends.
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// A slot of the table.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    /// The upper half of the string's hash, which tells most other strings apart.
    tag: u32,
    /// The number of the string plus one; 0 for a free slot.
    next: u32,
}

/// Values looked up together: their slots and bytes fit the nearest cache.
const AT_ONCE: usize = 64;

/// Distinct words of 64 bits, numbered.
#[derive(Debug, Default)]
pub struct Words {
    /// The number plus one of each small word, 0 for one that has not come: what most registers count by needs no hash.
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
    pub fn intern(&mut self, words: impl ExactSizeIterator<Item = u64> + Clone) -> Vec<u32> {
        let mut numbers = Vec::with_capacity(words.len());
        let mut left = words;
        while left.len() > 0 {
            let some = left.clone().take(AT_ONCE);
            self.make_room(some.clone());
            if some.clone().all(|word| word < self.small.len() as u64) {
                numbers.extend(some.map(|word| self.find_small(word)));
            } else {
                some.clone().for_each(|word| prefetch(std::slice::from_ref(&self.slots[self.home(word)])));
                numbers.extend(some.map(|word| self.find(word)));
            }
            left.by_ref().take(AT_ONCE).for_each(drop);
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
    fn make_room(&mut self, more: impl ExactSizeIterator<Item = u64> + Clone) {
        let largest = more.clone().filter(|word| *word < SMALL).max().map_or(0, |word| word as usize + 1);
        let small = self.small.len().max(largest.next_power_of_two() * usize::from(largest > 0));
        let hashed = self.hashed + more.filter(|word| *word >= small as u64).count();
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

impl Texts {
    /// The number of each string. At most `u32::MAX - 1` distinct strings can be told apart; who calls sees to it by
    /// [`Texts::len`].
    pub fn intern(&mut self, texts: &[&[u8]]) -> Vec<u32> {
        let mut numbers = Vec::with_capacity(texts.len());
        for texts in texts.chunks(AT_ONCE) {
            self.make_room(texts.len());
            let mut hashes = [0u64; AT_ONCE];
            for (hash, text) in hashes.iter_mut().zip(texts) {
                *hash = self.hash(text);
                prefetch(std::slice::from_ref(&self.slots[self.home(*hash)]));
            }
            // The string that each is most likely: first where it ends, then what it is.
            let mut likely = [0usize; AT_ONCE];
            for (number, hash) in likely.iter_mut().zip(&hashes[..texts.len()]) {
                *number = (self.slots[self.home(*hash)].next as usize).saturating_sub(1);
                prefetch(self.ends.get(number.saturating_sub(1)..=*number).unwrap_or_default());
            }
            for &number in likely[..texts.len()].iter().filter(|number| **number < self.ends.len()) {
                prefetch(self.get(number));
            }
            numbers.extend(texts.iter().zip(hashes).map(|(text, hash)| self.find(text, hash)));
        }
        numbers
    }

    /// The number of distinct strings.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The string of a number.
    #[inline(always)]
    pub fn get(&self, number: usize) -> &[u8] {
        let start = if number == 0 { 0 } else { self.ends[number - 1] };
        &self.bytes[start..self.ends[number]]
    }

    /// The bytes that it holds.
    pub fn allocated(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>() + self.bytes.capacity() + self.ends.capacity() * size_of::<usize>()
    }

    #[inline(always)]
    fn hash(&self, text: &[u8]) -> u64 {
        FixedState::default().hash_one(text)
    }

    #[inline(always)]
    fn home(&self, hash: u64) -> usize {
        hash as usize & (self.slots.len() - 1)
    }

    #[inline(always)]
    fn find(&mut self, text: &[u8], hash: u64) -> u32 {
        let tag = (hash >> 32) as u32;
        let mut at = self.home(hash);
        loop {
            let slot = self.slots[at];
            if slot.next == 0 {
                self.bytes.extend_from_slice(text);
                self.ends.push(self.bytes.len());
                let next = self.ends.len() as u32;
                self.slots[at] = Slot { tag, next };
                return next - 1;
            }
            if slot.tag == tag && self.get(slot.next as usize - 1) == text {
                return slot.next - 1;
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    /// Doubles the table until so many more strings leave half of it free.
    fn make_room(&mut self, more: usize) {
        let wanted = (2 * (self.ends.len() + more)).next_power_of_two();
        if wanted <= self.slots.len() {
            return;
        }
        self.slots = vec![Slot::default(); wanted];
        for number in 0..self.ends.len() {
            let hash = self.hash(self.get(number));
            let mut at = self.home(hash);
            while self.slots[at].next != 0 {
                at = (at + 1) & (wanted - 1);
            }
            self.slots[at] = Slot { tag: (hash >> 32) as u32, next: number as u32 + 1 };
        }
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
                for (&word, number) in words.iter().zip(interned.intern(words.iter().copied())) {
                    let next = expected.len() as u32;
                    prop_assert_eq!(number, *expected.entry(word).or_insert(next));
                    prop_assert_eq!(interned.words()[number as usize], word);
                }
            }
            prop_assert_eq!(interned.len(), expected.len());
        }

        #[test]
        fn numbers_are_those_of_first_coming(
            batches in prop::collection::vec(prop::collection::vec("[ab]{0,6}", 0..200), 1..5)
        ) {
            let mut texts = Texts::default();
            let mut expected: HashMap<String, u32> = HashMap::new();
            for batch in &batches {
                let slices: Vec<&[u8]> = batch.iter().map(String::as_bytes).collect();
                for (text, number) in batch.iter().zip(texts.intern(&slices)) {
                    let next = expected.len() as u32;
                    prop_assert_eq!(number, *expected.entry(text.clone()).or_insert(next));
                    prop_assert_eq!(texts.get(number as usize), text.as_bytes());
                }
            }
            prop_assert_eq!(texts.len(), expected.len());
        }
    }
}
