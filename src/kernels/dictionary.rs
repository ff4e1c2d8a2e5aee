//! Keys of a dictionary of which not all values are used.

use std::borrow::Cow;

use super::words::Words;

/// Numbers keys of so many `values` anew, so that only those that occur have a number, unless nearly all do: few values more cost
/// less than a look at each key. Returns the numbers, in one piece or in those in which keys came, and the keys that have one.
/// Takes time and room for as many as there are keys.
pub fn close_up(keys: Vec<Cow<'_, [u32]>>, values: usize) -> (Vec<Cow<'_, [u32]>>, Vec<u32>) {
    if values > keys.iter().map(|keys| keys.len()).sum() {
        let mut known = Words::default();
        let words: Vec<u64> = keys.iter().flat_map(|keys| keys.iter().copied()).map(u64::from).collect();
        let numbers = known.intern(&words, 1);
        return (vec![numbers.into()], known.words().iter().map(|&word| word as u32).collect());
    }
    let mut occurs = vec![false; values];
    for keys in &keys {
        keys.iter().for_each(|&key| occurs[key as usize] = true);
    }
    let occurring: Vec<u32> = (0..).zip(&occurs).filter_map(|(key, occurs)| occurs.then_some(key)).collect();
    if 8 * occurring.len() >= 7 * values {
        return (keys, (0..values as u32).collect());
    }
    let mut numbers = vec![0; values];
    occurring.iter().zip(0..).for_each(|(&key, number)| numbers[key as usize] = number);
    let renumbered = |keys: &Cow<'_, [u32]>| keys.iter().map(|&key| numbers[key as usize]).collect();
    (keys.iter().map(renumbered).collect(), occurring)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_keep_their_values(
            values in 1u32..100,
            keys in prop::collection::vec(any::<u32>(), 0..200),
            cut in 0usize..200,
        ) {
            let keys: Vec<u32> = keys.into_iter().map(|key| key % values).collect();
            let (first, second) = keys.split_at(cut.min(keys.len()));
            let (closed, numbered) = close_up(vec![first.into(), second.into()], values as usize);
            let back: Vec<u32> = closed.iter().flat_map(|keys| &**keys).map(|&number| numbered[number as usize]).collect();
            prop_assert_eq!(&back, &keys);
            let mut occurring = keys;
            occurring.sort_unstable();
            occurring.dedup();
            let all = numbered.len() == values as usize && 8 * occurring.len() >= 7 * numbered.len();
            let mut rising = numbered.clone();
            rising.sort_unstable();
            prop_assert!(all || rising == occurring, "{numbered:?}");
        }
    }
}
