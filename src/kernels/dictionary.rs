//! Keys of a dictionary of which not all values are used.

use super::words::Words;

/// Numbers keys of so many `values` anew, so that only those that occur have a number, unless nearly all do: few values more cost
/// less than a look at each key. Returns the keys that have a number. Takes time and room for as many as there are keys.
pub fn close_up(keys: &mut [u32], values: usize) -> Vec<u32> {
    if values > keys.len() {
        let words: Vec<u64> = keys.iter().map(|&key| u64::from(key)).collect();
        let mut known = Words::default();
        keys.copy_from_slice(&known.intern(&words, 1));
        return known.words().iter().map(|&word| word as u32).collect();
    }
    let mut occurs = vec![false; values];
    keys.iter().for_each(|&key| occurs[key as usize] = true);
    let all = 0..values as u32;
    let occurring: Vec<u32> = all.clone().zip(&occurs).filter_map(|(key, occurs)| occurs.then_some(key)).collect();
    if 8 * occurring.len() >= 7 * values {
        return all.collect();
    }
    let mut numbers = vec![0; values];
    occurring.iter().zip(0..).for_each(|(&key, number)| numbers[key as usize] = number);
    keys.iter_mut().for_each(|key| *key = numbers[*key as usize]);
    occurring
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn keys_keep_their_values(values in 1u32..100, keys in prop::collection::vec(any::<u32>(), 0..200)) {
            let keys: Vec<u32> = keys.into_iter().map(|key| key % values).collect();
            let mut closed = keys.clone();
            let numbered = close_up(&mut closed, values as usize);
            let back: Vec<u32> = closed.iter().map(|&number| numbered[number as usize]).collect();
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
