//! Numbers for byte strings, in the order in which they first come.
//!
//! A look at a table that is larger than the caches waits for memory. What tells a string from all others therefore
//! stands in the table itself where it fits: so it does for most ids of customers and articles. Strings are looked up
//! many at a time, each step for all of them, so that the waits overlap.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;

use super::prefetch::prefetch;

/// Distinct byte strings, numbered.
#[derive(Debug, Default)]
pub struct Texts {
    /// Open addressing with linear probing; at most three quarters of the slots are taken.
    slots: Vec<Slot>,
    /// All strings one after the other, and where each ends.
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

/// A slot of the table.
#[derive(Debug, Clone, Copy, Default)]
struct Slot {
    key: Key,
    /// The number of the string plus one; 0 for a free slot.
    next: u32,
}

/// What strings are told apart by.
#[derive(Debug, Clone, Copy, Default)]
struct Key {
    /// The string itself in a short form; or a hash of it, which others may share, and in a slot where its bytes begin.
    words: [u64; 2],
    /// The string's length in bytes, up to [`LONGEST`]; [`UUID_FORM`] for a UUID.
    form: u32,
}

/// Strings of up to so many bytes stand in their keys.
const SHORT: usize = 16;

/// The length of a UUID as text: 32 digits and four dashes.
const UUID: usize = 36;

/// The form of a key that is a UUID.
const UUID_FORM: u32 = u32::MAX;

/// Strings from here on have the same form and are told apart by their hashes; no file that is read has such.
const LONGEST: u32 = UUID_FORM - 1;

/// Strings looked up together: their slots and bytes fit the nearest cache.
const AT_ONCE: usize = 64;

impl Texts {
    /// The number of each string. At most `u32::MAX - 1` distinct strings can be told apart; who calls sees to it by
    /// [`Texts::len`].
    pub fn intern<'a>(&mut self, mut texts: impl ExactSizeIterator<Item = &'a [u8]>) -> Vec<u32> {
        let mut numbers = Vec::with_capacity(texts.len());
        let mut some: [&[u8]; AT_ONCE] = [&[]; AT_ONCE];
        while texts.len() > 0 {
            let some = &mut some[..texts.len().min(AT_ONCE)];
            some.iter_mut().zip(&mut texts).for_each(|(place, text)| *place = text);
            self.intern_some(some, &mut numbers);
        }
        numbers
    }

    /// Not generic, or it would be compiled where it is used, and not for speed.
    fn intern_some(&mut self, texts: &[&[u8]], numbers: &mut Vec<u32>) {
        self.make_room(texts.len());
        let mut keys = [Key::default(); AT_ONCE];
        for (key, text) in keys.iter_mut().zip(texts) {
            *key = Key::of(text);
            prefetch(std::slice::from_ref(&self.slots[self.home(key)]));
        }
        let some = texts.iter().zip(&keys);
        // Most likely a string is the first one with its hash.
        for (text, key) in some.clone().filter(|(_, key)| key.is_hash()) {
            prefetch(self.held(&self.slots[self.like(key, self.home(key))], text.len()));
        }
        numbers.extend(some.map(|(text, key)| self.find(text, key)));
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
    pub fn get(&self, number: usize) -> &[u8] {
        let start = if number == 0 { 0 } else { self.ends[number - 1] };
        &self.bytes[start..self.ends[number]]
    }

    /// The bytes that it holds.
    pub fn allocated(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>() + self.bytes.capacity() + self.ends.capacity() * size_of::<usize>()
    }

    /// Where the search for a key begins.
    #[inline(always)]
    fn home(&self, key: &Key) -> usize {
        key.hash() as usize & (self.slots.len() - 1)
    }

    /// The first slot from `at` on that may hold the string of this key, or is free.
    #[inline(always)]
    fn like(&self, key: &Key, mut at: usize) -> usize {
        while self.slots[at].next > 0 && !self.slots[at].key.is_like(key) {
            at = (at + 1) & (self.slots.len() - 1);
        }
        at
    }

    #[inline(always)]
    fn find(&mut self, text: &[u8], key: &Key) -> u32 {
        let mut at = self.like(key, self.home(key));
        loop {
            let slot = &self.slots[at];
            if slot.next == 0 {
                return self.add(text, *key, at);
            }
            if !key.is_hash() || self.held(slot, text.len()) == text {
                return slot.next - 1;
            }
            at = self.like(key, (at + 1) & (self.slots.len() - 1));
        }
    }

    /// The bytes of the string of a slot that has a hash and a string of this length.
    #[inline(always)]
    fn held(&self, slot: &Slot, length: usize) -> &[u8] {
        let start = slot.key.words[1] as usize;
        self.bytes.get(start..start.saturating_add(length)).unwrap_or_default()
    }

    /// Adds a string at a free slot.
    #[cold]
    fn add(&mut self, text: &[u8], mut key: Key, at: usize) -> u32 {
        if key.is_hash() {
            key.words[1] = self.bytes.len() as u64;
        }
        self.bytes.extend_from_slice(text);
        self.ends.push(self.bytes.len());
        let next = self.ends.len() as u32;
        self.slots[at] = Slot { key, next };
        next - 1
    }

    /// Doubles the table until so many more strings leave a quarter of it free.
    fn make_room(&mut self, more: usize) {
        let wanted = ((self.ends.len() + more) * 4).div_ceil(3).next_power_of_two();
        if wanted <= self.slots.len() {
            return;
        }
        let slots = std::mem::replace(&mut self.slots, vec![Slot::default(); wanted]);
        for slot in slots.into_iter().filter(|slot| slot.next > 0) {
            let mut at = self.home(&slot.key);
            while self.slots[at].next > 0 {
                at = (at + 1) & (wanted - 1);
            }
            self.slots[at] = slot;
        }
    }
}

impl Key {
    #[inline(always)]
    fn of(text: &[u8]) -> Self {
        if let Some(words) = text.try_into().ok().and_then(uuid) {
            return Self { words, form: UUID_FORM };
        }
        let form = text.len().min(LONGEST as usize) as u32;
        if text.len() <= SHORT {
            return Self { words: short(text), form };
        }
        Self { words: [FixedState::default().hash_one(text), 0], form }
    }

    /// Whether it may be the key of other strings, too.
    #[inline(always)]
    fn is_hash(&self) -> bool {
        (SHORT as u32 + 1..=LONGEST).contains(&self.form)
    }

    /// Whether the strings of both may be the same; in a short form they are.
    #[inline(always)]
    fn is_like(&self, other: &Key) -> bool {
        let same = self.form == other.form && self.words[0] == other.words[0];
        same && (self.words[1] == other.words[1] || self.is_hash())
    }

    /// Of a short form, both halves of the product of its words: each bit of them reaches all of it.
    #[inline(always)]
    fn hash(&self) -> u64 {
        if self.is_hash() {
            return self.words[0];
        }
        let a = self.words[0] ^ 0x9e37_79b9_7f4a_7c15;
        let b = self.words[1] ^ 0xd1b5_4a32_d192_ed03 ^ u64::from(self.form);
        let product = u128::from(a) * u128::from(b);
        product as u64 ^ (product >> 64) as u64
    }
}

/// The bytes of a string of up to [`SHORT`]; no other string of its length gives the same.
#[inline(always)]
fn short(text: &[u8]) -> [u64; 2] {
    if let (Some(first), Some(last)) = (text.first_chunk(), text.last_chunk()) {
        return [u64::from_le_bytes(*first), u64::from_le_bytes(*last)];
    }
    let mut bytes = [0; 8];
    bytes[..text.len()].copy_from_slice(text);
    [u64::from_le_bytes(bytes), 0]
}

/// The digits of a UUID in lower case; None for any other text.
#[inline(always)]
fn uuid(text: &[u8; UUID]) -> Option<[u64; 2]> {
    if [text[8], text[13], text[18], text[23]] != [b'-'; 4] {
        return None;
    }
    let four = |at: usize| u64::from(u32::from_le_bytes([text[at], text[at + 1], text[at + 2], text[at + 3]]));
    let (a, first) = digits(four(0) | four(4) << 32);
    let (b, second) = digits(four(9) | four(14) << 32);
    let (c, third) = digits(four(19) | four(24) << 32);
    let (d, fourth) = digits(four(28) | four(32) << 32);
    (first & second & third & fourth).then_some([a | b << 4, c | d << 4])
}

/// The values of eight hexadecimal digits, one in each byte, and whether they are such.
#[inline(always)]
fn digits(characters: u64) -> (u64, bool) {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const LETTERS: u64 = (b'a' - b'0' - 10) as u64;
    // Letters have the bit of 64, which digits lack. What is neither has a value above 15, or does not come back.
    let values = (characters & (15 * EACH)) + ((characters >> 6) & EACH) * 9;
    let back = values + u64::from(b'0') * EACH + (((values + 6 * EACH) >> 4) & EACH) * LETTERS;
    (values, (values & (16 * EACH) == 0) & (back == characters))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// Texts in each of the forms, and such as are nearly in another.
    fn text() -> impl Strategy<Value = Vec<u8>> {
        let uuid = "[0-2]{8}-[ab]{4}-[ef]{4}-00f[01]-[0-9a-f]{12}";
        let changed = (uuid, 0..UUID, any::<u8>()).prop_map(|(text, at, byte)| {
            let mut text = text.into_bytes();
            text[at] = byte;
            text
        });
        prop_oneof![
            prop::collection::vec(0u8..2, 0..20),
            "[ab]{30,40}".prop_map(String::into_bytes),
            (0u8..50).prop_map(|n| format!("{n:08x}-0000-0000-0000-000000000000").into_bytes()),
            changed,
        ]
    }

    proptest! {
        #[test]
        fn numbers_are_those_of_first_coming(
            batches in prop::collection::vec(prop::collection::vec(text(), 0..200), 1..5)
        ) {
            let mut texts = Texts::default();
            let mut expected: HashMap<Vec<u8>, u32> = HashMap::new();
            for batch in &batches {
                for (text, number) in batch.iter().zip(texts.intern(batch.iter().map(Vec::as_slice))) {
                    let next = expected.len() as u32;
                    prop_assert_eq!(number, *expected.entry(text.clone()).or_insert(next));
                    prop_assert_eq!(texts.get(number as usize), &text[..]);
                }
            }
            prop_assert_eq!(texts.len(), expected.len());
        }
    }

    /// The form of a UUID says that all of it can be had back from the key: each digit and no other byte.
    #[test]
    fn only_uuids_in_lower_case_have_their_form() {
        let text = *b"01234567-89ab-cdef-fedc-ba9876543210";
        let Some([a, b]) = uuid(&text) else { panic!("a UUID is not seen") };
        assert_ne!(a, b);
        for at in 0..UUID {
            for byte in 0..=u8::MAX {
                let mut other = text;
                other[at] = byte;
                let dash = [8, 13, 18, 23].contains(&at);
                let digit = byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
                let found = uuid(&other);
                assert_eq!(found.is_some(), if dash { byte == b'-' } else { digit }, "{byte} at {at}");
                assert_eq!(found == Some([a, b]), other == text, "{byte} at {at}");
            }
        }
    }
}
