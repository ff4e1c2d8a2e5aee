//! The k best items of each user: a sparse product of two tables, with masks and reasons.
//!
//! Item-based: row u of A holds the user's items and weights, row i of B the neighbors of item i.
//! User-based: row u of A holds the user's neighbors and their scores, row v of B the items of user v.
//! What stands between user and item (an item of the history, a neighboring user) is called the link.

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Error;
use super::cells::{Cell, SingleDot, Weighted};
use super::csr::{Csr, entry};
use super::product::RowProduct;
use super::rows::{Rows, RowsRead};
use super::topk::{Order, TopK};

/// Which of the two tables holds the similarities, by whose absolute sum a normalised score is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Serialize, Deserialize)]
pub enum Side {
    /// A: neighbors of users.
    Users,
    /// B: neighbors of items.
    Items,
}

/// Everything that scoring reads; shared by all threads.
#[derive(Debug)]
pub struct Scoring {
    /// Users by links.
    pub a: Rows,
    /// Links by items, without items that are recommended to nobody.
    pub b: Csr,
    /// Where the similarities are.
    pub side: Side,
    /// Items per user, at least 1.
    pub k: usize,
    /// Whether a score is divided by the sum of the absolute similarities that made it.
    pub normalize: bool,
    /// How many reasons are kept per recommendation.
    pub reasons: usize,
    /// Whether items of the user's own history are left out.
    pub exclude_seen: bool,
    /// Users by items that are not recommended to them.
    pub exclude: Option<Rows>,
    /// If given, users by the only items that are recommended to them.
    pub candidates: Option<Rows>,
    /// The place of each item among the sorted ids.
    pub item_order: Order,
    /// The place of each link among the sorted ids.
    pub link_order: Vec<u32>,
}

/// Recommended items, one entry per pair, grouped by user and best first.
#[derive(Debug, Default, PartialEq)]
pub struct Recommendations {
    /// The user.
    pub user: Vec<u32>,
    /// The item recommended to the user.
    pub item: Vec<u32>,
    /// How much.
    pub score: Vec<f32>,
    /// The place in the user's list, from 1.
    pub rank: Vec<i32>,
    /// For each entry the strongest links with what they add to the score, strongest first.
    pub reasons: Vec<Vec<(u32, f32)>>,
    /// Multiply-adds that were done.
    pub work: usize,
}

impl Scoring {
    /// The number of users.
    pub fn users(&self) -> usize {
        self.a.len()
    }

    /// The number of items.
    pub fn items(&self) -> usize {
        self.item_order.len()
    }

    /// The bytes it holds.
    pub fn bytes(&self) -> usize {
        let masks = self.exclude.iter().chain(&self.candidates).map(Rows::bytes).sum::<usize>();
        let orders = Order::bytes_for(self.item_order.len()) + self.link_order.len() * size_of::<u32>();
        self.a.bytes() + self.b.bytes() + masks + orders
    }

    /// Cuts the users into blocks of about equal work and at most `most_rows` users; returns where each begins and
    /// where the last ends.
    pub fn blocks(&self, most_rows: usize, blocks: usize) -> Result<Vec<usize>, Error> {
        super::product::blocks(&self.a, &self.b, most_rows, blocks)
    }

    /// The bytes that the scorer of one thread will hold, with these blocks.
    pub fn scorer_bytes(&self, blocks: &[usize]) -> usize {
        let tables = || [Some(&self.a), self.exclude.as_ref(), self.candidates.as_ref()].into_iter().flatten();
        let entries = |block: &[usize]| tables().map(|table| table.entries_of(block[0]..block[1])).sum::<usize>();
        let read = blocks.windows(2).map(entries).max().unwrap_or(0) * size_of::<u64>();
        let items = self.items();
        read + RowProduct::<Weighted<true>>::bytes_for(items) + items * (size_of::<f32>() + size_of::<u32>())
    }

    /// A scorer with its own cells, for one thread.
    pub fn scorer(self: &Arc<Self>) -> Box<dyn Score> {
        match (self.normalize, self.side) {
            (false, _) => Box::new(Scorer::new(self, |cell: SingleDot| (cell.0, 1.0))),
            (true, Side::Users) => Box::new(Scorer::new(self, |cell: Weighted<true>| (cell.ab, cell.weight))),
            (true, Side::Items) => Box::new(Scorer::new(self, |cell: Weighted<false>| (cell.ab, cell.weight))),
        }
    }
}

/// Finds the recommendations of ranges of users.
pub trait Score: Send {
    /// Appends the recommendations of each user in the range to `found`.
    fn score(&mut self, users: Range<usize>, found: &mut Recommendations) -> Result<(), Error>;
}

struct Scorer<C, F> {
    input: Arc<Scoring>,
    product: RowProduct<C>,
    best: TopK,
    /// Splits a cell into sum and divisor.
    parts: F,
    /// The divisor of each item reached, kept for its reasons.
    divisor: Vec<f32>,
    links: Links,
}

impl<C: Cell<Row = f32, Column = f32>, F: Fn(C) -> (f32, f32)> Scorer<C, F> {
    fn new(input: &Arc<Scoring>, parts: F) -> Self {
        let items = input.items();
        Self {
            product: RowProduct::new(items),
            best: TopK::new(input.k.min(items.max(1)), f32::NEG_INFINITY),
            parts,
            divisor: vec![1.0; if input.normalize { items } else { 0 }],
            links: Links::default(),
            input: Arc::clone(input),
        }
    }

    fn score_user(&mut self, user: usize, tables: &Tables<'_>, found: &mut Recommendations) {
        let input = &*self.input;
        let links = tables.a.row(user);
        let work = self.product.add(links, &input.b);
        found.work += work;
        if let Some(exclude) = &tables.exclude {
            self.product.forget(exclude.row(user));
        }
        if input.exclude_seen {
            // Users by items they have seen.
            self.product.forget(match input.side {
                Side::Items => links,
                Side::Users => input.b.row(user),
            });
        }
        let (parts, divisors) = (&self.parts, &mut self.divisor);
        let best = std::cell::RefCell::new(&mut self.best);
        let score = |cell: C| {
            let (sum, divisor) = parts(cell);
            sum / divisor
        };
        let offer = |item: u32, cell: C| {
            let (sum, divisor) = parts(cell);
            if sum == 0.0 {
                return;
            }
            if let Some(kept) = divisors.get_mut(item as usize) {
                *kept = divisor;
            }
            best.borrow_mut().push(sum / divisor, input.item_order.places()[item as usize]);
        };
        if let Some(candidates) = &tables.candidates {
            self.product.visit(candidates.row(user), offer);
            self.product.take(links, work, &input.b, |_| true, |_, _| {});
        } else {
            let beaten = |cells: &[C]| {
                let floor = best.borrow().floor().score;
                !cells.iter().fold(false, |any, cell| any | (score(*cell) >= floor))
            };
            self.product.take(links, work, &input.b, beaten, offer);
        }
        let first = found.item.len();
        for (at, (score, place)) in self.best.drain(f32::NEG_INFINITY).enumerate() {
            found.user.push(user as u32);
            found.item.push(input.item_order.column(place));
            found.score.push(score);
            found.rank.push(at as i32 + 1);
        }
        if input.reasons > 0 {
            self.links.find(input, links, &found.item[first..], &self.divisor, &mut found.reasons);
        }
    }
}

impl<C: Cell<Row = f32, Column = f32>, F: Fn(C) -> (f32, f32) + Send> Score for Scorer<C, F> {
    fn score(&mut self, users: Range<usize>, found: &mut Recommendations) -> Result<(), Error> {
        let input = Arc::clone(&self.input);
        let tables = Tables {
            a: input.a.read(users.clone())?,
            exclude: input.exclude.as_ref().map(|table| table.read(users.clone())).transpose()?,
            candidates: input.candidates.as_ref().map(|table| table.read(users.clone())).transpose()?,
        };
        users.for_each(|user| self.score_user(user, &tables, found));
        Ok(())
    }
}

/// What is looked up by user, for a block of users.
struct Tables<'a> {
    a: RowsRead<'a>,
    exclude: Option<RowsRead<'a>>,
    candidates: Option<RowsRead<'a>>,
}

/// Finds what made each winner, by a second walk over the user's row that looks at winners only.
#[derive(Debug, Default)]
struct Links {
    /// The place of each item among the winners, plus one; 0 for all others.
    place: Vec<u32>,
}

impl Links {
    fn find(
        &mut self,
        input: &Scoring,
        row: &[u64],
        winners: &[u32],
        divisors: &[f32],
        reasons: &mut Vec<Vec<(u32, f32)>>,
    ) {
        self.place.resize(input.items(), 0);
        for (at, &item) in winners.iter().enumerate() {
            self.place[item as usize] = at as u32 + 1;
        }
        let first = reasons.len();
        reasons.resize_with(first + winners.len(), Vec::new);
        for &e in row {
            let link = entry::column(e);
            for &o in input.b.row(link as usize) {
                let item = entry::column(o) as usize;
                if let Some(winner) = (self.place[item] as usize).checked_sub(1) {
                    let divisor = divisors.get(item).copied().unwrap_or(1.0);
                    reasons[first + winner].push((link, entry::value(e) * entry::value(o) / divisor));
                }
            }
        }
        for list in &mut reasons[first..] {
            list.sort_unstable_by(|a, b| {
                let by_strength = b.1.abs().total_cmp(&a.1.abs());
                by_strength.then(input.link_order[a.0 as usize].cmp(&input.link_order[b.0 as usize]))
            });
            list.truncate(input.reasons);
        }
        winners.iter().for_each(|&item| self.place[item as usize] = 0);
    }
}

#[cfg(test)]
#[path = "scoring_tests.rs"]
mod tests;
