//! Parquet's hybrid of runs and packed numbers, in which it writes numbers of dictionaries.
//!
//! A sequence of runs, each after a header: an even one is twice the length of a run of one number, which follows in whole bytes;
//! an odd one tells how many times eight numbers follow side by side, the first in the lowest bits
//! (<https://parquet.apache.org/docs/file-format/data-pages/encodings/#RLE>).

/// Numbers that are packed together.
const GROUP: usize = 8;

/// Appends numbers of at most so many `bits`, up to 32; the last group is filled up with zeros.
pub fn encode(numbers: &[u32], bits: u32, out: &mut Vec<u8>) {
    let mut rest = numbers;
    while !rest.is_empty() {
        let run = rest.iter().take_while(|&&number| number == rest[0]).count();
        if run >= GROUP {
            append_run(rest[0], run, bits, out);
            rest = &rest[run..];
            continue;
        }
        let is_run = |group: &[u32]| group.len() == GROUP && group.iter().all(|&number| number == group[0]);
        let groups = rest.chunks(GROUP).take_while(|group| !is_run(group)).count();
        let (packed, after) = rest.split_at(rest.len().min(groups * GROUP));
        header(groups << 1 | 1, out);
        pack(packed, bits, out);
        rest = after;
    }
}

/// Appends numbers that come so many times each, without a look at each unless that is seldom.
pub fn encode_runs(runs: &[(u32, usize)], bits: u32, out: &mut Vec<u8>) {
    if runs.len() * GROUP <= runs.iter().map(|&(_, length)| length).sum() {
        return runs.iter().for_each(|&(number, length)| append_run(number, length, bits, out));
    }
    let numbers: Vec<u32> = runs.iter().flat_map(|&(number, length)| std::iter::repeat_n(number, length)).collect();
    encode(&numbers, bits, out);
}

fn append_run(number: u32, length: usize, bits: u32, out: &mut Vec<u8>) {
    header(length << 1, out);
    out.extend(&number.to_le_bytes()[..bits.div_ceil(8) as usize]);
}

/// A number in the fewest bytes, seven bits in each, the lowest first.
fn header(mut number: usize, out: &mut Vec<u8>) {
    while number >= 1 << 7 {
        out.push(number as u8 | 1 << 7);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Numbers side by side, filled up to a multiple of [`GROUP`].
fn pack(numbers: &[u32], bits: u32, out: &mut Vec<u8>) {
    let end = out.len() + numbers.len().div_ceil(GROUP) * bits as usize;
    let (mut word, mut filled) = (0u64, 0);
    for &number in numbers {
        word |= u64::from(number) << filled;
        filled += bits;
        if filled >= u32::BITS {
            out.extend((word as u32).to_le_bytes());
            word >>= u32::BITS;
            filled -= u32::BITS;
        }
    }
    out.extend(&word.to_le_bytes()[..filled.div_ceil(8) as usize]);
    out.resize(end, 0);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the format says, word by word.
    fn decode(mut bytes: &[u8], bits: u32, length: usize) -> Vec<u32> {
        let mut numbers = Vec::new();
        while !bytes.is_empty() {
            let (mut header, mut shift) = (0usize, 0);
            loop {
                let byte = bytes[0];
                bytes = &bytes[1..];
                header |= usize::from(byte & 127) << shift;
                shift += 7;
                if byte < 128 {
                    break;
                }
            }
            let count = header >> 1;
            let size = if header % 2 == 0 { bits.div_ceil(8) as usize } else { count * bits as usize };
            let (run, rest) = bytes.split_at(size);
            let bit = |at: usize| u32::from(run[at / 8] >> (at % 8) & 1);
            let number = |first: usize| (0..bits as usize).map(|at| bit(first + at) << at).sum::<u32>();
            match header % 2 {
                0 => numbers.extend(std::iter::repeat_n(number(0), count)),
                _ => numbers.extend((0..count * GROUP).map(|at| number(at * bits as usize))),
            }
            bytes = rest;
        }
        assert!(numbers[length..].iter().all(|&number| number == 0) && numbers.len() < length + GROUP);
        numbers.truncate(length);
        numbers
    }

    proptest! {
        #[test]
        fn numbers_come_back(
            bits in 1u32..=32,
            runs in prop::collection::vec((any::<u32>(), prop_oneof![Just(1usize), 1usize..20, 100usize..200]), 0..40),
        ) {
            let low = |number: u32| number & u32::MAX >> (u32::BITS - bits);
            let numbers: Vec<u32> = runs.iter().flat_map(|&(number, run)| std::iter::repeat_n(low(number), run)).collect();
            let mut bytes = Vec::new();
            encode(&numbers, bits, &mut bytes);
            prop_assert_eq!(decode(&bytes, bits, numbers.len()), &numbers[..]);
            let runs: Vec<(u32, usize)> = runs.into_iter().map(|(number, run)| (low(number), run)).collect();
            bytes.clear();
            encode_runs(&runs, bits, &mut bytes);
            prop_assert_eq!(decode(&bytes, bits, numbers.len()), numbers);
        }
    }

    #[test]
    fn the_example_of_the_format_comes_out() {
        let mut bytes = Vec::new();
        encode(&[0, 1, 2, 3, 4, 5, 6, 7], 3, &mut bytes);
        assert_eq!(bytes, [3, 0b1000_1000, 0b1100_0110, 0b1111_1010]);
        bytes.clear();
        encode(&[4; 100], 3, &mut bytes);
        assert_eq!(bytes, [200, 1, 4]);
    }
}
