//! Codes and weights that wait for all rows to be read, in as few bytes as those at hand need.
//!
//! They are written once and read once or twice, far apart: what they cost is memory that is touched for the first time, more
//! than packing them.

/// Codes of rows.
#[derive(Debug)]
pub enum Codes {
    /// All below 2^16.
    Short(Vec<u16>),
    /// Any.
    Long(Vec<u32>),
}

impl Codes {
    /// Packs codes that are all below `distinct`.
    pub fn pack(codes: Vec<u32>, distinct: usize) -> Self {
        if distinct > 1 << u16::BITS {
            return Self::Long(codes);
        }
        Self::Short(codes.iter().map(|&code| code as u16).collect())
    }

    /// The codes as they were, in `room` if they are packed.
    pub fn unpack<'a>(&'a self, room: &'a mut Vec<u32>) -> &'a [u32] {
        match self {
            Self::Long(codes) => codes,
            Self::Short(codes) => {
                room.clear();
                room.extend(codes.iter().map(|&code| u32::from(code)));
                room
            }
        }
    }

    /// The bytes that it holds.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Short(codes) => size_of_val(&codes[..]),
            Self::Long(codes) => size_of_val(&codes[..]),
        }
    }
}

/// Weights of rows.
#[derive(Debug)]
pub enum Weights {
    /// Twice each weight: ratings by halves and counts, from 0 to 127.5.
    Halves(Vec<u8>),
    /// Any.
    Singles(Vec<f32>),
}

impl Weights {
    /// Packs weights, of which it keeps every bit.
    pub fn pack(weights: &[f32]) -> Self {
        let halves: Vec<u8> = weights.iter().map(|&weight| to_halves(weight) as u8).collect();
        let lost = |(&half, weight): (&u8, &f32)| from_halves(half).to_bits() ^ weight.to_bits();
        match halves.iter().zip(weights).fold(0, |all, pair| all | lost(pair)) {
            0 => Self::Halves(halves),
            _ => Self::Singles(weights.to_vec()),
        }
    }

    /// The weights as they were, in `room` if they are packed.
    pub fn unpack<'a>(&'a self, room: &'a mut Vec<f32>) -> &'a [f32] {
        match self {
            Self::Singles(weights) => weights,
            Self::Halves(halves) => {
                room.clear();
                room.extend(halves.iter().map(|&half| from_halves(half)));
                room
            }
        }
    }

    /// The bytes that it holds.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Halves(halves) => halves.len(),
            Self::Singles(weights) => size_of_val(&weights[..]),
        }
    }
}

/// Between this and twice as much, the next single is larger by a half.
const STEP_OF_HALF: f32 = 4_194_304.0;

/// Twice a weight, if that is a whole number from 0 to 255; else anything.
fn to_halves(weight: f32) -> u32 {
    (weight + STEP_OF_HALF).to_bits().wrapping_sub(STEP_OF_HALF.to_bits())
}

fn from_halves(half: u8) -> f32 {
    f32::from(half) * 0.5
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn codes_come_back(codes in prop_oneof![prop::collection::vec(0u32..100, 0..50), prop::collection::vec(0u32..70_000, 0..50)]) {
            let distinct = codes.iter().max().map_or(0, |&code| code as usize + 1);
            let packed = Codes::pack(codes.clone(), distinct);
            let mut room = vec![7];
            prop_assert_eq!(packed.unpack(&mut room), &codes[..]);
            prop_assert_eq!(packed.bytes(), codes.len() * if distinct > 65_536 { 4 } else { 2 });
        }

        #[test]
        fn weights_come_back_bit_by_bit(
            halves in prop::collection::vec(0u8..=255, 0..50),
            other in prop::option::of(prop_oneof![any::<u32>().prop_map(f32::from_bits), Just(-0.0), Just(128.0), Just(0.25), Just(-0.5)]),
        ) {
            let mut weights: Vec<f32> = halves.iter().map(|&half| f32::from(half) / 2.0).collect();
            weights.extend(other);
            let packed = Weights::pack(&weights);
            let bits = |weights: &[f32]| weights.iter().map(|weight| weight.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(packed.unpack(&mut vec![7.0])), bits(&weights));
            if other.is_none() {
                prop_assert_eq!(packed.bytes(), halves.len());
            }
        }
    }
}
