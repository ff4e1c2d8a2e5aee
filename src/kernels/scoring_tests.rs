//! Recommendations against their definition, written out over dense tables, and examples worked by hand.
//!
//! Weights are halves and similarities eighths, so products and sums are exact in single precision and the lists can
//! be compared bit for bit, ties included.

use std::sync::atomic::AtomicBool;

use proptest::prelude::*;

use super::*;

use crate::metric::{Exponents, Metric, Settings};
use crate::rows::Rows;
use crate::similarity::Similarity;
use crate::topk::{Candidates, Order};
use crate::weighting::Weighting;

/// A table of pairs, dense: one row per left id, None where there is no entry. A stored 0 is an entry.
type Table = Vec<Vec<Option<f32>>>;

/// Masked items, as lists.
#[derive(Debug, Clone)]
enum Listed {
    Items(Vec<u32>),
    Pairs(Vec<Vec<u32>>),
}

impl Listed {
    fn names(&self, user: usize, item: usize) -> bool {
        match self {
            Self::Items(items) => items.contains(&(item as u32)),
            Self::Pairs(lists) => lists[user].contains(&(item as u32)),
        }
    }

    /// Pairs as a matrix; what holds for all users is applied to the links instead.
    fn pairs(&self, items: usize) -> Option<Csr> {
        let Self::Pairs(lists) = self else {
            return None;
        };
        let mut pairs = Csr { columns: items, offsets: vec![0], ..Csr::default() };
        for list in lists {
            let distinct: std::collections::BTreeSet<u32> = list.iter().copied().collect();
            pairs.entries.extend(distinct.into_iter().map(|item| entry::pack(item, 1.0)));
            pairs.offsets.push(pairs.entries.len());
        }
        Some(pairs)
    }
}

#[derive(Debug, Clone)]
struct Case {
    side: Side,
    /// Users by items.
    history: Table,
    /// Items by items, or users by users.
    similar: Table,
    history_weighted: bool,
    user_order: Vec<u32>,
    item_order: Vec<u32>,
    k: usize,
    normalize: bool,
    reasons: usize,
    exclude_seen: bool,
    exclude: Option<Listed>,
    candidates: Option<Listed>,
}

impl Case {
    fn scoring(&self) -> Arc<Scoring> {
        let items = self.item_order.len();
        let history = csr(&self.history, self.history_weighted);
        let similar = csr(&self.similar, true);
        let (a, mut b, link_order) = match self.side {
            Side::Items => (history, similar, &self.item_order),
            Side::Users => (similar, history, &self.user_order),
        };
        for (listed, kept) in [(&self.exclude, false), (&self.candidates, true)] {
            if let Some(Listed::Items(named)) = listed {
                b.retain_columns(|item| named.contains(&item) == kept);
            }
        }
        let pairs = |listed: &Option<Listed>| listed.as_ref().and_then(|listed| listed.pairs(items));
        Arc::new(Scoring {
            a: a.into(),
            b,
            side: self.side,
            k: self.k,
            normalize: self.normalize,
            reasons: self.reasons,
            exclude_seen: self.exclude_seen,
            exclude: pairs(&self.exclude).map(Rows::from),
            candidates: pairs(&self.candidates).map(Rows::from),
            item_order: Order::new(self.item_order.clone()),
            link_order: link_order.clone(),
        })
    }

    /// What leads from a user to an item: (link, what it adds to the sum, what it adds to the divisor).
    fn paths(&self, user: usize, item: usize) -> Vec<(usize, f64, f64)> {
        let (first, second) = match self.side {
            Side::Items => (&self.history, &self.similar),
            Side::Users => (&self.similar, &self.history),
        };
        let path = |link: usize| -> Option<(usize, f64, f64)> {
            let (a, b) = (f64::from(first[user][link]?), f64::from(second[link][item]?));
            let similarity = if self.side == Side::Items { b } else { a };
            Some((link, a * b, similarity.abs()))
        };
        (0..second.len()).filter_map(path).collect()
    }

    /// Whether the item is left among the links: not if it is recommended to nobody.
    fn is_linked(&self, item: usize) -> bool {
        let named = |listed: &Option<Listed>| match listed {
            Some(Listed::Items(items)) => Some(items.contains(&(item as u32))),
            _ => None,
        };
        named(&self.exclude) != Some(true) && named(&self.candidates) != Some(false)
    }

    /// Whether the item may be recommended to the user.
    fn allowed(&self, user: usize, item: usize) -> bool {
        let seen = self.exclude_seen && self.history[user][item].is_some();
        let excluded = self.exclude.as_ref().is_some_and(|listed| listed.names(user, item));
        !seen && !excluded && self.candidates.as_ref().is_none_or(|listed| listed.names(user, item))
    }

    /// The score of an item and its reasons, strongest first; None if nothing leads to it or the score is 0.
    fn scored(&self, user: usize, item: usize) -> Option<(f32, Vec<(u32, f32)>)> {
        let paths = self.paths(user, item);
        let sum: f64 = paths.iter().map(|path| path.1).sum();
        let divisor: f64 = if self.normalize { paths.iter().map(|path| path.2).sum() } else { 1.0 };
        let link_order = if self.side == Side::Items { &self.item_order } else { &self.user_order };
        let contribution = |&(link, product, _): &(usize, f64, f64)| (link as u32, (product / divisor) as f32);
        let mut reasons: Vec<(u32, f32)> = paths.iter().map(contribution).collect();
        reasons.sort_by_key(|reason| link_order[reason.0 as usize]);
        reasons.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
        reasons.truncate(self.reasons);
        (sum != 0.0).then(|| ((sum / divisor) as f32, reasons))
    }

    fn expected(&self) -> Recommendations {
        let mut expected = Recommendations::default();
        for user in 0..self.history.len() {
            let items = 0..self.item_order.len();
            expected.work += items
                .clone()
                .filter(|item| self.is_linked(*item))
                .map(|item| self.paths(user, item).len())
                .sum::<usize>();
            let allowed = items.filter(|&item| self.allowed(user, item));
            let mut list: Vec<Entry> = allowed
                .filter_map(|item| self.scored(user, item).map(|(score, reasons)| (item, score, reasons)))
                .collect();
            list.sort_by_key(|entry| self.item_order[entry.0]);
            list.sort_by(|a, b| b.1.total_cmp(&a.1));
            list.truncate(self.k);
            for (at, (item, score, reasons)) in list.into_iter().enumerate() {
                expected.user.push(user as u32);
                expected.item.push(item as u32);
                expected.score.push(score);
                expected.rank.push(at as i32 + 1);
                if self.reasons > 0 {
                    expected.reasons.push(reasons);
                }
            }
        }
        expected
    }
}

/// An item, its score and its reasons.
type Entry = (usize, f32, Vec<(u32, f32)>);

fn csr(table: &Table, weighted: bool) -> Csr {
    let columns = table.first().map_or(0, Vec::len);
    let mut matrix = Csr { columns, offsets: vec![0], ..Csr::default() };
    for row in table {
        let stored = row.iter().enumerate().filter_map(|(column, cell)| Some((column as u32, (*cell)?)));
        let weight = |value: f32| if weighted { value } else { 1.0 };
        matrix.entries.extend(stored.map(|(column, value)| entry::pack(column, weight(value))));
        matrix.offsets.push(matrix.entries.len());
    }
    matrix
}

fn score_all(scoring: &Arc<Scoring>) -> Recommendations {
    let mut found = Recommendations::default();
    scoring.scorer().score(0..scoring.users(), &mut found).unwrap();
    found
}

fn table(rows: usize, columns: usize, density: u8, value: impl Strategy<Value = f32>) -> impl Strategy<Value = Table> {
    let cell = (0u8..10, value).prop_map(move |(chance, value)| (chance < density).then_some(value));
    prop::collection::vec(prop::collection::vec(cell, columns), rows)
}

fn order(ids: usize) -> impl Strategy<Value = Vec<u32>> {
    Just((0..ids as u32).collect::<Vec<u32>>()).prop_shuffle()
}

/// No mask, items or pairs; items may be named twice.
fn listed(users: usize, items: usize) -> impl Strategy<Value = Option<Listed>> {
    let list = prop::collection::vec(0..items as u32, 0..=2 * items);
    let lists = prop::collection::vec(prop::collection::vec(0..items as u32, 0..=items), users);
    prop_oneof![
        Just(None::<Listed>),
        list.prop_map(|items| Some(Listed::Items(items))),
        lists.prop_map(|pairs| Some(Listed::Pairs(pairs))),
    ]
}

/// Tables of a given size; most have few entries per row, so that the workspace is sparse for some users.
fn tables(side: Side, users: usize, items: usize, weighted: bool) -> impl Strategy<Value = (Table, Table)> {
    let weight = (-4i8..=10).prop_map(move |half| if weighted { f32::from(half) / 2.0 } else { 1.0 });
    let similarity = (-4i8..=8).prop_map(|eighth| f32::from(eighth) / 8.0);
    let links = if side == Side::Items { items } else { users };
    (1u8..=6, 1u8..=6).prop_flat_map(move |(density, similar_density)| {
        let history = table(users, items, density, weight.clone());
        (history, table(links, links, similar_density, similarity.clone()))
    })
}

fn cases() -> impl Strategy<Value = Case> {
    let side = prop_oneof![Just(Side::Items), Just(Side::Users)];
    (side, 1usize..=12, 1usize..=20, any::<bool>()).prop_flat_map(|(side, users, items, history_weighted)| {
        let switches = (any::<bool>(), any::<bool>(), 0usize..=3, 1..=items + 3);
        let tables = tables(side, users, items, history_weighted);
        let masks = (listed(users, items), listed(users, items));
        (tables, order(users), order(items), switches, masks).prop_map(
            move |((history, similar), user_order, item_order, switches, (exclude, candidates))| {
                let (normalize, exclude_seen, reasons, k) = switches;
                Case {
                    side,
                    history,
                    similar,
                    history_weighted,
                    user_order,
                    item_order,
                    k,
                    normalize,
                    reasons,
                    exclude_seen,
                    exclude,
                    candidates,
                }
            },
        )
    })
}

proptest! {
    #[test]
    fn lists_follow_their_definition(case in cases()) {
        prop_assert_eq!(score_all(&case.scoring()), case.expected());
    }

    #[test]
    fn all_reasons_together_make_the_score(mut case in cases()) {
        case.reasons = usize::MAX;
        let found = score_all(&case.scoring());
        prop_assert_eq!(found.reasons.len(), found.score.len());
        for (score, reasons) in found.score.iter().zip(&found.reasons) {
            let total: f64 = reasons.iter().map(|reason| f64::from(reason.1)).sum();
            prop_assert!((total - f64::from(*score)).abs() < 1e-4, "{score} from {reasons:?}");
            prop_assert!(reasons.is_sorted_by(|a, b| a.1.abs() >= b.1.abs()), "{reasons:?}");
        }
    }

    #[test]
    fn blocks_do_not_show(case in cases(), most_rows in 1usize..=15, blocks in 1usize..=8) {
        let scoring = case.scoring();
        let bounds = scoring.blocks(most_rows, blocks).unwrap();
        prop_assert_eq!((bounds[0], bounds.last().copied()), (0, Some(scoring.users())));
        // Two scorers in turn, as two threads would share the blocks.
        let mut scorers = [scoring.scorer(), scoring.scorer()];
        let mut joined = Recommendations::default();
        for (at, pair) in bounds.windows(2).enumerate() {
            prop_assert!(pair[0] < pair[1] && pair[1] - pair[0] <= most_rows, "{bounds:?}");
            scorers[at % 2].score(pair[0]..pair[1], &mut joined).unwrap();
        }
        prop_assert_eq!(joined, score_all(&scoring));
    }
}

/// Item-based scoring without masks; 0 stands for no entry.
fn plain(history: &[&[f32]], similar: &[&[f32]]) -> Case {
    let table = |rows: &[&[f32]]| -> Table {
        rows.iter().map(|row| row.iter().map(|&value| (value != 0.0).then_some(value)).collect()).collect()
    };
    Case {
        side: Side::Items,
        history: table(history),
        similar: table(similar),
        history_weighted: true,
        user_order: (0..history.len() as u32).collect(),
        item_order: (0..similar.len() as u32).collect(),
        k: 10,
        normalize: false,
        reasons: 0,
        exclude_seen: true,
        exclude: None,
        candidates: None,
    }
}

#[test]
fn the_third_user_is_recommended_the_one_unseen_item() {
    // Users 1 to 3 by items 1001 to 1003, and the same the other way round.
    let ratings: [&[f32]; 3] = [&[5.0, 3.0, 0.0], &[4.0, 0.0, 2.0], &[0.0, 5.0, 1.0]];
    let mut case = plain(&ratings, &[&[0.0; 3], &[0.0; 3], &[0.0; 3]]);
    let weighting = Weighting::None;
    let (metric, alpha, beta) = (Metric::Cosine, 1.0, 1.0);
    let settings = Settings {
        metric,
        k: 50,
        shrink: 0.0,
        threshold: 0.0,
        min_overlap: 1,
        max_features: None,
        weighting,
        alpha,
        beta,
        walk: Exponents::default(),
    };
    let by_item = (0..3).map(|item| case.history.iter().map(|user| user[item]).collect()).collect();
    let found = Candidates::new(2, vec![0, 1, 2], settings.least());
    Similarity::new(csr(&by_item, true), settings).unwrap().search(&found, &AtomicBool::new(false)).unwrap();
    for item in 0..3 {
        found.take(item, |score, neighbor| case.similar[item][neighbor as usize] = Some(score));
    }
    case.reasons = 5;
    let mut found = Recommendations::default();
    case.scoring().scorer().score(2..3, &mut found).unwrap();
    assert_eq!((&found.user[..], &found.item[..], &found.rank[..]), (&[2][..], &[0][..], &[1][..]));
    // 5 · 15 / sqrt(41 · 34) for item 1002, then 1 · 8 / sqrt(41 · 5) for item 1003.
    let [(1, first), (2, second)] = found.reasons[0][..] else { panic!("{:?}", found.reasons) };
    assert!((first - 2.008_77).abs() < 1e-4 && (second - 0.558_74).abs() < 1e-4, "{first} {second}");
    assert!((found.score[0] - 2.567_52).abs() < 1e-4, "{:?}", found.score);
}

#[test]
fn ties_go_to_the_smaller_item() {
    let mut case = plain(&[&[1.0, 0.0, 0.0, 0.0]], &[&[0.0, 0.5, 0.5, 0.5], &[0.0; 4], &[0.0; 4], &[0.0; 4]]);
    case.item_order = vec![0, 3, 1, 2];
    case.k = 2;
    assert_eq!(score_all(&case.scoring()).item, [2, 3]);
    case.k = usize::MAX;
    assert_eq!(score_all(&case.scoring()).item, [2, 3, 1]);
}

#[test]
fn users_without_rows_get_nothing() {
    let mut case = plain(&[&[0.0, 0.0], &[1.0, 0.0], &[0.0, 0.0]], &[&[0.0, 0.5], &[0.5, 0.0]]);
    assert_eq!(score_all(&case.scoring()).user, [1]);
    case.history.clear();
    assert_eq!(score_all(&case.scoring()), Recommendations::default());
}

/// The two ways to 0: contributions that cancel, and weights that are 0. Neither is a recommendation.
#[test]
fn a_score_of_zero_is_no_recommendation() {
    let mut case = plain(&[&[1.0, 1.0, 0.0]], &[&[0.0, 0.0, 0.5], &[0.0, 0.0, -0.5], &[0.0; 3]]);
    for weight in [1.0, 0.0] {
        case.history[0][..2].fill(Some(weight));
        for normalize in [false, true] {
            case.normalize = normalize;
            assert!(score_all(&case.scoring()).item.is_empty(), "weight {weight}, normalize {normalize}");
        }
    }
}
