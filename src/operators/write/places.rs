//! Places of ids in a dictionary, page by page.

use std::borrow::Cow;

use datafusion::common::Result;

use super::pages::each_page;
use crate::kernels::dictionary::close_up;
use crate::kernels::hybrid;
use crate::kernels::ranges::range_of_keys;

/// Places of the ids of a column.
pub enum Places<'a> {
    /// That of each, in one piece or several.
    Each(Vec<Cow<'a, [u32]>>),
    /// Those that come so many times, one after the other.
    Runs(Vec<(u32, usize)>),
}

/// Those of a page.
#[derive(Clone, Copy)]
pub enum Page<'a> {
    /// That of each.
    Each(&'a [u32]),
    /// As in [`Places::Runs`].
    Runs(&'a [(u32, usize)]),
}

impl<'a> Places<'a> {
    /// How many ids they are of.
    pub fn len(&self) -> usize {
        match self {
            Self::Each(pieces) => pieces.iter().map(|piece| piece.len()).sum(),
            Self::Runs(runs) => length(runs),
        }
    }

    /// Numbers keys of so many `values` anew, as [`close_up`] does. Returns the numbers, and the keys that have one.
    pub fn close_up(self, values: usize) -> (Self, Vec<u32>) {
        match self {
            Self::Each(keys) => {
                let (numbers, occurring) = close_up(keys, values);
                (Self::Each(numbers), occurring)
            }
            Self::Runs(runs) => {
                let keys: Vec<u32> = runs.iter().map(|&(key, _)| key).collect();
                let (numbers, occurring) = close_up(vec![keys.into()], values);
                let numbers = numbers.iter().flat_map(|numbers| numbers.iter().copied());
                (Self::Runs(numbers.zip(runs.iter().map(|&(_, length)| length)).collect()), occurring)
            }
        }
    }

    /// Visits pages of so many rows, the last of which may have fewer.
    pub fn each_page(&self, rows: usize, mut visit: impl FnMut(Page<'_>) -> Result<()>) -> Result<()> {
        let runs = match self {
            Self::Each(pieces) => {
                return each_page(pieces.iter().map(|piece| &**piece), rows, |page| visit(Page::Each(page)));
            }
            Self::Runs(runs) => runs,
        };
        let (mut page, mut room) = (Vec::new(), rows);
        for &(place, mut length) in runs {
            while length > 0 {
                let here = length.min(room);
                page.push((place, here));
                (length, room) = (length - here, room - here);
                if room == 0 {
                    visit(Page::Runs(&page))?;
                    page.clear();
                    room = rows;
                }
            }
        }
        if page.is_empty() { Ok(()) } else { visit(Page::Runs(&page)) }
    }
}

impl Page<'_> {
    /// How many ids they are of.
    pub fn len(self) -> usize {
        match self {
            Self::Each(places) => places.len(),
            Self::Runs(runs) => length(runs),
        }
    }

    /// The least and the largest.
    pub fn range(self) -> Option<[u32; 2]> {
        match self {
            Self::Each(places) => range_of_keys(places),
            Self::Runs(runs) => range_of_keys(&runs.iter().map(|&(place, _)| place).collect::<Vec<_>>()),
        }
    }

    /// Appends them in Parquet's hybrid of runs and packed numbers.
    pub fn encode(self, bits: u32, out: &mut Vec<u8>) {
        match self {
            Self::Each(places) => hybrid::encode(places, bits, out),
            Self::Runs(runs) => hybrid::encode_runs(runs, bits, out),
        }
    }
}

fn length(runs: &[(u32, usize)]) -> usize {
    runs.iter().map(|&(_, length)| length).sum()
}
