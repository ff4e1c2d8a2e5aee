//! The k best of a stream of scored columns, ties broken by the smaller id.

/// Keeps the `k` best `(score, column)` pairs pushed into it.
///
/// Better is the higher score, then the smaller `order[column]`; as columns are distinct this is a total order and
/// the result does not depend on the order of pushes. Pairs collect in a buffer of 2k that is cut to k by
/// selection whenever it is full, which costs constant time a pair.
#[derive(Debug, Default)]
pub struct TopK {
    k: usize,
    buffer: Vec<(f32, u32)>,
    /// Scores below this can no longer win.
    floor: f32,
}

impl TopK {
    /// An empty selection of at most `k` pairs.
    pub fn new(k: usize) -> Self {
        Self { k, buffer: Vec::new(), floor: f32::NEG_INFINITY }
    }

    /// The score below which a pair cannot be among the best any more.
    #[inline]
    pub fn floor(&self) -> f32 {
        self.floor
    }

    /// Offers a pair; `order` gives each column's place among the sorted ids.
    #[inline]
    pub fn push(&mut self, score: f32, column: u32, order: &[u32]) {
        if score >= self.floor {
            // Adding 0 turns -0 into 0, which compares as the same score.
            self.buffer.push((score + 0.0, column));
            if self.buffer.len() >= 2 * self.k {
                self.cut(order);
            }
        }
    }

    fn cut(&mut self, order: &[u32]) {
        if self.buffer.len() > self.k {
            self.buffer.select_nth_unstable_by(self.k - 1, |a, b| better_first(a, b, order));
            self.buffer.truncate(self.k);
            self.floor = self.buffer[self.k - 1].0;
        }
    }

    /// Hands out the best pairs, best first, and starts anew.
    pub fn drain(&mut self, order: &[u32]) -> std::vec::Drain<'_, (f32, u32)> {
        self.cut(order);
        self.floor = f32::NEG_INFINITY;
        self.buffer.sort_unstable_by(|a, b| better_first(a, b, order));
        self.buffer.drain(..)
    }
}

fn better_first(a: &(f32, u32), b: &(f32, u32), order: &[u32]) -> std::cmp::Ordering {
    b.0.total_cmp(&a.0).then_with(|| order[a.1 as usize].cmp(&order[b.1 as usize]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn equals_a_full_sort(scores in proptest::collection::vec(0u8..6, 0..80), k in 1usize..12) {
            let order: Vec<u32> = (0..scores.len() as u32).rev().collect();
            let mut top = TopK::new(k);
            let mut all: Vec<(f32, u32)> = Vec::new();
            for (column, &score) in scores.iter().enumerate() {
                top.push(f32::from(score), column as u32, &order);
                all.push((f32::from(score), column as u32));
            }
            all.sort_by(|a, b| b.0.total_cmp(&a.0).then(order[a.1 as usize].cmp(&order[b.1 as usize])));
            all.truncate(k);
            prop_assert_eq!(top.drain(&order).collect::<Vec<_>>(), all);
        }
    }
}
