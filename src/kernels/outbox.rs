//! Candidates on their way from the thread that found them to the lists of others.

use super::block::MOST_ROWS;
use super::digits::put_by_digit;
use super::topk::{Key, key};

/// Candidates that one thread has for rows of others. A list is far away in memory and has a lock, so it is better visited
/// once for many candidates than once for each.
#[derive(Debug)]
pub struct Outbox {
    /// The row of each, and the candidate as a number.
    rows: Vec<u32>,
    keys: Vec<Key>,
    /// The candidates by rows.
    sorted: Vec<Key>,
    /// Where those of each row end.
    ends: Vec<u32>,
    /// So many should be delivered.
    full: usize,
}

impl Outbox {
    /// What is delivered together: a few candidates a row where there are many, and not so many that what others must beat is
    /// known late. Long lists are visited for more at once: what they must beat changes little with each.
    fn full(rows: usize, k: usize) -> usize {
        (k / 256).clamp(1, 3) * (4 * rows).min(1 << 17)
    }

    /// Empty, for so many rows with lists of k.
    pub fn new(rows: usize, k: usize) -> Self {
        let room = Self::room(rows, k);
        let keys = || Vec::with_capacity(room);
        Self {
            rows: Vec::with_capacity(room),
            keys: keys(),
            sorted: keys(),
            ends: vec![0; rows],
            full: Self::full(rows, k),
        }
    }

    /// How many it may hold: what one entity's row finds in a block is collected before it is seen to be full.
    fn room(rows: usize, k: usize) -> usize {
        Self::full(rows, k) + rows.min(MOST_ROWS)
    }

    /// The bytes that it may hold.
    pub fn bytes_for(rows: usize, k: usize) -> usize {
        Self::room(rows, k) * (size_of::<u32>() + 2 * size_of::<Key>()) + rows * size_of::<u32>()
    }

    /// Whether it should be delivered.
    pub fn is_full(&self) -> bool {
        self.keys.len() >= self.full
    }

    /// Collects a candidate for a row. Its score is a number.
    #[inline(always)]
    pub(super) fn push(&mut self, row: usize, score: f32, place: u32) {
        self.rows.push(row as u32);
        self.keys.push(key(score, place));
    }

    /// The candidates of each row that has some.
    pub(super) fn by_rows(&mut self) -> impl Iterator<Item = (usize, &[Key])> {
        self.ends.fill(0);
        self.sorted.resize(self.keys.len(), 0);
        let keys = self.rows.iter().zip(&self.keys).map(|(&row, &key)| (row as usize, key));
        put_by_digit(keys, &mut self.sorted, &mut self.ends);
        let Self { sorted, ends, .. } = self;
        let mut rest = &sorted[..];
        let mut start = 0;
        let of_rows = ends.iter().map(move |&end| {
            let (keys, after) = rest.split_at((end - start) as usize);
            (rest, start) = (after, end);
            keys
        });
        of_rows.enumerate().filter(|(_, keys)| !keys.is_empty())
    }

    /// Empties it.
    pub(super) fn clear(&mut self) {
        self.rows.clear();
        self.keys.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_are_handed_out_by_rows() {
        let mut outbox = Outbox::new(4, 1);
        // The second time there are fewer, and other rows have none.
        for offers in [&[(2, 5), (0, 4), (2, 3)][..], &[(1, 7)], &[]] {
            offers.iter().for_each(|&(row, place)| outbox.push(row, 0.5, place));
            let mut expected: Vec<(usize, u32)> = offers.to_vec();
            expected.sort_by_key(|&(row, _)| row);
            let of_row = |(row, keys): (usize, &[Key])| keys.iter().map(|&key| (row, key as u32)).collect::<Vec<_>>();
            assert_eq!(outbox.by_rows().flat_map(of_row).collect::<Vec<_>>(), expected);
            outbox.clear();
        }
    }
}
