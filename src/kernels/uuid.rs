//! UUIDs as text: reading their digits, those of many at once.

/// The length of a UUID as text: 32 digits and four dashes.
pub const LENGTH: usize = 36;

/// Its digits.
pub const DIGITS: usize = 32;

/// What may be the digits of a UUID; None for a text without its dashes.
#[inline(always)]
pub fn digits(text: &[u8; LENGTH]) -> Option<[u8; DIGITS]> {
    if [text[8], text[13], text[18], text[23]] != [b'-'; 4] {
        return None;
    }
    let mut digits = [0; DIGITS];
    digits[..8].copy_from_slice(&text[..8]);
    digits[8..12].copy_from_slice(&text[9..13]);
    digits[12..16].copy_from_slice(&text[14..18]);
    digits[16..20].copy_from_slice(&text[19..23]);
    digits[20..].copy_from_slice(&text[24..]);
    Some(digits)
}

/// Puts the values of hexadecimal digits in lower case in their places, and tells of each what is not 0 if it is no such.
#[inline(always)]
pub fn read<const N: usize>(digits: &mut [[u8; DIGITS]; N]) -> [[u8; DIGITS]; N] {
    const LETTERS: u8 = b'a' - b'0' - 10;
    let mut faults = [[0; DIGITS]; N];
    for (digit, fault) in digits.as_flattened_mut().iter_mut().zip(faults.as_flattened_mut()) {
        // Letters have the bit of 64, which digits lack. What is neither has a value above 15, or does not come back.
        let value = (*digit & 15) + (*digit >> 6 & 1) * 9;
        let back = value + b'0' + if value > 9 { LETTERS } else { 0 };
        *fault = (back ^ *digit) | (value & 16);
        *digit = value;
    }
    faults
}

/// A UUID of digits with these values, if none is at fault.
#[inline(always)]
pub fn words(values: &[u8; DIGITS], faults: &[u8; DIGITS]) -> Option<[u64; 2]> {
    let eights = |bytes: &[u8; DIGITS]| -> [u64; 4] {
        let eights = bytes.as_chunks().0;
        std::array::from_fn(|at| u64::from_le_bytes(eights[at]))
    };
    let [a, b, c, d] = eights(values);
    (eights(faults) == [0; 4]).then_some([a | b << 4, c | d << 4])
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: [u8; LENGTH] = *b"01234567-89ab-cdef-fedc-ba9876543210";

    /// The form of a UUID says that all of it can be had back from the key: each digit and no other byte.
    #[test]
    fn only_uuids_in_lower_case_have_their_form() {
        let uuid = |text: &[u8; LENGTH]| {
            let mut both = [digits(&EXAMPLE)?, digits(text)?];
            let faults = read(&mut both);
            words(&both[1], &faults[1])
        };
        let Some([a, b]) = uuid(&EXAMPLE) else { panic!("a UUID is not seen") };
        assert_ne!(a, b);
        for at in 0..LENGTH {
            for byte in 0..=u8::MAX {
                let mut other = EXAMPLE;
                other[at] = byte;
                let dash = [8, 13, 18, 23].contains(&at);
                let digit = byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
                let found = uuid(&other);
                assert_eq!(found.is_some(), if dash { byte == b'-' } else { digit }, "{byte} at {at}");
                assert_eq!(found == Some([a, b]), other == EXAMPLE, "{byte} at {at}");
            }
        }
    }
}
