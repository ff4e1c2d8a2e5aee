//! The least and the largest of many numbers. The loops stand here as the crate of kernels is compiled for speed.

use super::cpu::{Cpu, Work};

/// Of whole numbers; none if there are none.
pub fn range_of_whole(numbers: &[i32]) -> Option<[i32; 2]> {
    Cpu::detect().run(Range(numbers.iter().copied()))
}

/// Of keys; none if there are none.
pub fn range_of_keys(keys: &[u32]) -> Option<[u32; 2]> {
    Cpu::detect().run(Range(keys.iter().copied()))
}

/// Of words as whole numbers with a sign; none if there are none.
pub fn range_of_words(words: &[u64]) -> Option<[i64; 2]> {
    Cpu::detect().run(Range(words.iter().map(|&word| word as i64)))
}

struct Range<I>(I);

impl<T: Copy + Ord, I: Iterator<Item = T>> Work for Range<I> {
    type Output = Option<[T; 2]>;

    #[inline(always)]
    fn run(mut self) -> Self::Output {
        let first = self.0.next()?;
        let (mut least, mut most) = (first, first);
        for number in self.0 {
            least = least.min(number);
            most = most.max(number);
        }
        Some([least, most])
    }
}

/// Of singles, where the least 0 is negative and the largest positive, as in statistics of Parquet; none if there are none or one
/// is not a number.
pub fn range_of_singles(numbers: &[f32]) -> Option<[f32; 2]> {
    let mut any_nan = numbers.is_empty();
    let [mut least, mut most] = [f32::INFINITY, f32::NEG_INFINITY];
    for &number in numbers {
        any_nan |= number.is_nan();
        least = if number < least { number } else { least };
        most = if number > most { number } else { most };
    }
    let zero = |number: f32, zero: f32| if number == 0.0 { zero } else { number };
    (!any_nan).then(|| [zero(least, -0.0), zero(most, 0.0)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_by_hand() {
        assert_eq!(range_of_whole(&[]), None);
        assert_eq!(range_of_whole(&[3, -7, i32::MAX]), Some([-7, i32::MAX]));
        assert_eq!(range_of_keys(&[7, u32::MAX]), Some([7, u32::MAX]));
        assert_eq!(range_of_words(&[7, u64::MAX]), Some([-1, 7]));
        assert_eq!(range_of_singles(&[]), None);
        assert_eq!(range_of_singles(&[1.0, f32::NAN, 2.0]), None);
        assert_eq!(range_of_singles(&[f32::NEG_INFINITY, 2.0]), Some([f32::NEG_INFINITY, 2.0]));
        let [least, most] = range_of_singles(&[0.0, -0.0]).unwrap();
        assert!(least.is_sign_negative() && most.is_sign_positive());
    }
}
