//! Numbers for byte strings, in the order in which they first come.
//!
//! A look at a table that is larger than the caches waits for memory. What tells a string from all others therefore
//! stands in the table itself where it fits, as that of most ids of customers and articles does, and what may be looked
//! at together is one line of the caches. Strings are looked up many at a time, each step for all of them, so that the
//! waits overlap.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;

use super::cpu::{Cpu, Work};
use super::pages::with_large_pages;
use super::prefetch::{prefetch, prefetch_ends};
use super::uuid;

/// Distinct byte strings, numbered.
#[derive(Debug)]
pub struct Texts {
    cpu: Cpu,
    /// A string is in the bucket that its key names, or in the first after it that had room. At most half of the places are
    /// taken: then one string in seventeen is not where it is looked for first, and of three quarters one in seven.
    buckets: Vec<Bucket>,
    /// All strings one after the other, each behind its length, and where the length of each begins.
    bytes: Vec<u8>,
    starts: Vec<usize>,
}

/// A few strings; free places come last. What tells them apart is in one line of the caches.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C, align(64))]
struct Bucket {
    /// [`Key::words`] of each.
    words: [[u64; 2]; WIDTH],
    /// The number of each.
    numbers: [u32; WIDTH],
    /// [`Key::form`] of each.
    forms: [u8; WIDTH],
}

/// The strings of a bucket: as many as fit a line.
const WIDTH: usize = 3;

/// What strings are told apart by.
#[derive(Clone, Copy)]
struct Key {
    /// The string itself in a short form; or a hash of it, which others may share, and, once it is known, where it is held.
    words: [u64; 2],
    /// The length of a string of up to [`SHORT`] bytes plus one, or one of those below.
    form: u8,
}

/// Strings that are looked up together, and what is known of each.
struct Group<'a> {
    length: usize,
    texts: [&'a [u8]; AT_ONCE],
    /// Those of strings as long as a UUID; of others 0.
    parts: [[u64; AT_ONCE]; uuid::PARTS],
    /// [`Key::words`].
    words: [[u64; AT_ONCE]; 2],
    /// [`Key::form`].
    forms: [u8; AT_ONCE],
    /// [`Key::hash`].
    hashes: [u64; AT_ONCE],
}

/// The form of no string.
const FREE: u8 = 0;

/// Strings of up to so many bytes stand in their keys.
const SHORT: usize = 16;

/// The form of a UUID.
const UUID: u8 = 18;

/// The form of a hash.
const HASH: u8 = 19;

/// The length before each string.
const LENGTH: usize = size_of::<u64>();

/// Strings looked up together: their buckets and bytes fit the nearest cache.
const AT_ONCE: usize = 64;

impl Default for Texts {
    fn default() -> Self {
        Self { cpu: Cpu::detect(), buckets: Vec::new(), bytes: Vec::new(), starts: Vec::new() }
    }
}

impl Texts {
    /// The number of each string. At most `u32::MAX - 1` distinct strings can be told apart; who calls sees to it by
    /// [`Texts::len`].
    ///
    /// The bytes of a group of strings are fetched before the first of them is read, and its buckets while the group before it
    /// is looked up.
    pub fn intern<'a>(&mut self, mut texts: impl ExactSizeIterator<Item = &'a [u8]>) -> Vec<u32> {
        let mut numbers = Vec::with_capacity(texts.len());
        let (mut next, mut before) = (&mut Group::empty(), &mut Group::empty());
        loop {
            next.fill(&mut texts);
            if next.length + before.length == 0 {
                return numbers;
            }
            self.intern_some(next, before, &mut numbers);
            std::mem::swap(&mut next, &mut before);
        }
    }

    /// The same for strings given by views as Arrow has them. A view has the length in its first four bytes; behind it stand the
    /// bytes of a string of up to 12, or else, in the last eight bytes, the buffer and where the string begins there.
    pub fn intern_views(&mut self, views: &[[u8; 16]], buffers: &[&[u8]]) -> Vec<u32> {
        const INLINE: usize = 12;
        self.intern(views.iter().map(|bytes| {
            let view = u128::from_le_bytes(*bytes);
            let length = view as u32 as usize;
            if length <= INLINE {
                &bytes[size_of::<u32>()..][..length]
            } else {
                let (buffer, start) = ((view >> 64) as u32 as usize, (view >> 96) as usize);
                &buffers[buffer][start..start + length]
            }
        }))
    }

    /// Not generic, or it would be compiled where it is used, and not for speed.
    fn intern_some<'a>(&mut self, next: &mut Group<'a>, before: &Group<'a>, numbers: &mut Vec<u32>) {
        // For both, or a new table would make it useless to have fetched from the old one.
        self.reserve(before.length + next.length);
        self.cpu.run(Intern { known: self, next, before, numbers });
    }

    /// The number of distinct strings.
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// The string of a number.
    pub fn get(&self, number: usize) -> &[u8] {
        self.held(self.starts[number])
    }

    /// The bytes that it holds.
    pub fn allocated(&self) -> usize {
        let strings = self.bytes.capacity() + self.starts.capacity() * size_of::<usize>();
        self.buckets.capacity() * size_of::<Bucket>() + strings
    }

    /// The bucket in which the search for a key of this hash begins.
    #[inline(always)]
    fn home(&self, hash: u64) -> usize {
        hash as usize & (self.buckets.len() - 1)
    }

    /// The string whose length begins here.
    #[inline(always)]
    fn held(&self, start: usize) -> &[u8] {
        match self.bytes[start..].split_first_chunk::<LENGTH>() {
            Some((length, bytes)) => &bytes[..u64::from_le_bytes(*length) as usize],
            None => &[],
        }
    }

    /// The bucket after another.
    #[inline(always)]
    fn after(&self, bucket: usize) -> usize {
        (bucket + 1) & (self.buckets.len() - 1)
    }

    /// The number of a string, which is added if it has not come.
    #[inline(never)]
    fn find_or_add(&mut self, text: &[u8], key: Key, home: usize) -> u32 {
        let mut at = home;
        loop {
            for which in 0..WIDTH {
                if self.buckets[at].forms[which] == FREE {
                    let (key, number) = self.add(text, key);
                    self.buckets[at].put(which, &key, number);
                } else if !self.is(at, which, text, &key) {
                    continue;
                }
                return self.buckets[at].numbers[which];
            }
            at = self.after(at);
        }
    }

    /// The numbers of strings whose buckets have been fetched.
    #[inline(always)]
    fn find_all(&mut self, group: &Group<'_>, numbers: &mut Vec<u32>) {
        let mut found = [0; AT_ONCE];
        let (mut others, mut rest) = ([0; AT_ONCE], 0);
        for (at, found) in found[..group.length].iter_mut().enumerate() {
            let key = group.key(at);
            let bucket = &self.buckets[self.home(group.hashes[at])];
            let like = bucket.first_like(&key);
            let place = like.min(WIDTH - 1);
            *found = bucket.numbers[place];
            // Others have to be compared or added. Whether it is one is not asked: a branch that cannot be foreseen costs more.
            others[rest] = at;
            let alike = (like < WIDTH) & (bucket.forms[place] == key.form);
            rest += usize::from(!alike | (key.form == HASH));
        }
        let others = &others[..rest];
        for &at in others {
            let home = self.home(group.hashes[at]);
            match self.buckets[home].words.get(self.buckets[home].first_like(&group.key(at))) {
                None => prefetch(std::slice::from_ref(&self.buckets[self.after(home)])),
                // Most likely a string is the first one with its hash.
                Some(words) => {
                    let start = words[1] as usize;
                    let end = start.saturating_add(LENGTH + group.texts[at].len());
                    prefetch(self.bytes.get(start..end).unwrap_or_default());
                }
            }
        }
        for &at in others {
            found[at] = self.find_or_add(group.texts[at], group.key(at), self.home(group.hashes[at]));
        }
        numbers.extend_from_slice(&found[..group.length]);
    }

    /// Whether what is at a place of a bucket is the string of this key.
    #[inline(always)]
    fn is(&self, bucket: usize, which: usize, text: &[u8], key: &Key) -> bool {
        let bucket = &self.buckets[bucket];
        let alike = bucket.forms[which] == key.form && key.differs(&bucket.words[which]) == 0;
        alike && (key.form != HASH || self.held(bucket.words[which][1] as usize) == text)
    }

    /// Adds a string that has not come yet; returns its key and number.
    fn add(&mut self, text: &[u8], mut key: Key) -> (Key, u32) {
        let start = self.bytes.len();
        if key.form == HASH {
            key.words[1] = start as u64;
        }
        self.bytes.extend_from_slice(&(text.len() as u64).to_le_bytes());
        self.bytes.extend_from_slice(text);
        self.starts.push(start);
        (key, self.starts.len() as u32 - 1)
    }

    /// Makes room in the table for so many more distinct strings.
    pub fn reserve(&mut self, more: usize) {
        let wanted = (2 * (self.starts.len() + more)).div_ceil(WIDTH).next_power_of_two();
        if wanted <= self.buckets.len() {
            return;
        }
        let mut buckets = with_large_pages(wanted);
        buckets.resize(wanted, Bucket::default());
        let before = std::mem::replace(&mut self.buckets, buckets);
        for (key, number) in before.iter().flat_map(Bucket::taken) {
            let mut at = self.home(key.hash());
            let free = loop {
                match self.buckets[at].forms.iter().position(|form| *form == FREE) {
                    Some(free) => break free,
                    None => at = self.after(at),
                }
            };
            self.buckets[at].put(free, &key, number);
        }
    }
}

/// [`Texts::intern_some`], for which there is room.
struct Intern<'s, 'a> {
    known: &'s mut Texts,
    next: &'s mut Group<'a>,
    before: &'s Group<'a>,
    numbers: &'s mut Vec<u32>,
}

impl Work for Intern<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run(self) {
        let Self { known, next, before, numbers } = self;
        next.read();
        for &hash in &next.hashes[..next.length] {
            prefetch(std::slice::from_ref(&known.buckets[known.home(hash)]));
        }
        known.find_all(before, numbers);
    }
}

impl<'a> Group<'a> {
    fn empty() -> Self {
        let (parts, words) = ([[0; AT_ONCE]; uuid::PARTS], [[0; AT_ONCE]; 2]);
        Self { length: 0, texts: [&[]; AT_ONCE], parts, words, forms: [FREE; AT_ONCE], hashes: [0; AT_ONCE] }
    }

    /// Takes the next strings, and fetches their bytes.
    fn fill(&mut self, texts: &mut impl ExactSizeIterator<Item = &'a [u8]>) {
        self.length = texts.len().min(AT_ONCE);
        for (place, text) in self.texts.iter_mut().zip(texts) {
            prefetch_ends(text);
            *place = text;
        }
    }

    /// Makes the keys of its strings. What stands behind the last of them is worked on, too: loops of one length are faster.
    #[inline(always)]
    fn read(&mut self) {
        for (at, text) in self.texts[..self.length].iter().enumerate() {
            let [a, b, c, d, e] = (*text).try_into().map_or([0; uuid::PARTS], uuid::parts);
            let parts = &mut self.parts;
            (parts[0][at], parts[1][at], parts[2][at], parts[3][at], parts[4][at]) = (a, b, c, d, e);
        }
        let (words, faults) = uuid::read(&self.parts);
        (self.words, self.forms) = (words, [UUID; AT_ONCE]);
        for (at, text) in self.texts[..self.length].iter().enumerate() {
            if faults[at] != 0 {
                let key = Key::of(text);
                (self.words[0][at], self.words[1][at], self.forms[at]) = (key.words[0], key.words[1], key.form);
            }
        }
        for at in 0..AT_ONCE {
            self.hashes[at] = self.key(at).hash();
        }
    }

    #[inline(always)]
    fn key(&self, at: usize) -> Key {
        Key { words: [self.words[0][at], self.words[1][at]], form: self.forms[at] }
    }
}

impl Bucket {
    /// The first place with the words of this key, or else [`WIDTH`]. Without branches: which one it is cannot be foreseen.
    #[inline(always)]
    fn first_like(&self, key: &Key) -> usize {
        let alike = |which: usize| u32::from(key.differs(&self.words[which]) == 0) << which;
        (0..WIDTH).fold(1 << WIDTH, |all, which| all | alike(which)).trailing_zeros() as usize
    }

    /// The strings in it, and their numbers.
    fn taken(&self) -> impl Iterator<Item = (Key, u32)> {
        let key = |which: usize| Key { words: self.words[which], form: self.forms[which] };
        (0..WIDTH).map(move |which| (key(which), self.numbers[which])).filter(|(key, _)| key.form != FREE)
    }

    fn put(&mut self, which: usize, key: &Key, number: u32) {
        (self.words[which], self.forms[which], self.numbers[which]) = (key.words, key.form, number);
    }
}

impl Key {
    /// That of a string other than a UUID.
    #[inline(always)]
    fn of(text: &[u8]) -> Self {
        if text.len() <= SHORT {
            return Self { words: short(text), form: text.len() as u8 + 1 };
        }
        Self { words: [FixedState::default().hash_one(text), 0], form: HASH }
    }

    /// The bits in which other words are not those of a string that is looked up; of a hash only the first counts.
    #[inline(always)]
    fn differs(&self, words: &[u64; 2]) -> u64 {
        let second = if self.form == HASH { 0 } else { u64::MAX };
        (self.words[0] ^ words[0]) | ((self.words[1] ^ words[1]) & second)
    }

    /// Of a short form, by products that the widest vectors have: a bit of the words reaches those above it by the first
    /// ones, and all by the last. Both words of a string of eight bytes are the same, and one is turned.
    #[inline(always)]
    fn hash(&self) -> u64 {
        let [a, b] = self.words;
        let b = (b ^ u64::from(self.form)).rotate_left(32);
        let product = a.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ b.wrapping_mul(0xd1b5_4a32_d192_ed03);
        let mixed = (product ^ product >> 32).wrapping_mul(0xbea2_25f9_eb34_556d);
        if self.form == HASH { a } else { mixed ^ mixed >> 32 }
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

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    /// Texts in each of the forms, and such as are nearly in another.
    fn text() -> impl Strategy<Value = Vec<u8>> {
        let uuid = "[0-2]{8}-[ab]{4}-[ef]{4}-00f[01]-[0-9a-f]{12}";
        let changed = (uuid, 0..uuid::LENGTH, any::<u8>()).prop_map(|(text, at, byte)| {
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

    /// Views of texts, of which every other long one stands in the second buffer.
    fn views(texts: &[Vec<u8>]) -> (Vec<[u8; 16]>, [Vec<u8>; 2]) {
        let mut buffers = [Vec::new(), Vec::new()];
        let view = |(at, text): (usize, &Vec<u8>)| {
            let mut view = [0; 16];
            view[..4].copy_from_slice(&(text.len() as u32).to_le_bytes());
            if text.len() <= 12 {
                view[4..4 + text.len()].copy_from_slice(text);
            } else {
                let buffer = &mut buffers[at % 2];
                view[4..8].copy_from_slice(&text[..4]);
                view[8..12].copy_from_slice(&(at as u32 % 2).to_le_bytes());
                view[12..].copy_from_slice(&(buffer.len() as u32).to_le_bytes());
                buffer.extend_from_slice(text);
            }
            view
        };
        (texts.iter().enumerate().map(view).collect(), buffers)
    }

    proptest! {
        #[test]
        fn numbers_are_those_of_first_coming(
            batches in prop::collection::vec(prop::collection::vec(text(), 0..200), 1..5)
        ) {
            for cpu in Cpu::available() {
                let (mut texts, mut viewed) = (Texts { cpu, ..Texts::default() }, Texts { cpu, ..Texts::default() });
                let mut expected: HashMap<Vec<u8>, u32> = HashMap::new();
                for batch in &batches {
                    let numbers = texts.intern(batch.iter().map(Vec::as_slice));
                    let (views, buffers) = views(batch);
                    prop_assert_eq!(&viewed.intern_views(&views, &buffers.each_ref().map(Vec::as_slice)), &numbers);
                    for (text, number) in batch.iter().zip(numbers) {
                        let next = expected.len() as u32;
                        prop_assert_eq!(number, *expected.entry(text.clone()).or_insert(next));
                        prop_assert_eq!(texts.get(number as usize), &text[..]);
                    }
                }
                prop_assert_eq!(texts.len(), expected.len());
            }
        }
    }
}
