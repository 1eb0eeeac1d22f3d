//! How the elements of a tensor are stored.

use serde::{Deserialize, Serialize};

use super::{f8_of, f8_value};

/// Storage type of a tensor's elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DType {
    /// IEEE binary64.
    F64,
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// The upper half of an IEEE binary32.
    BF16,
    /// E4M3: eight bits, four of them exponent, three fraction.
    F8,
    /// 32 bits that hold several small integers: no number by itself.
    U32,
    /// A signed integer of 8 bits; of inputs only, as no value of it could stand for "not written".
    I8,
    /// A signed integer of 32 bits. All ones, −1, is none of its values: that is what unwritten memory holds, and ops that store it never make it.
    I32,
}

impl DType {
    /// Bytes of one element.
    pub const fn bytes(self) -> u64 {
        match self {
            DType::F64 => 8,
            DType::F32 | DType::U32 | DType::I32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::F8 | DType::I8 => 1,
        }
    }

    /// Distance from 1 to the next larger number.
    pub const fn epsilon(self) -> f64 {
        match self {
            DType::F64 => f64::EPSILON,
            DType::F32 => f32::EPSILON as f64,
            DType::F16 => 9.765625e-4,
            DType::BF16 => 7.8125e-3,
            DType::F8 => 0.125,
            DType::U32 | DType::I8 | DType::I32 => 1.0,
        }
    }

    /// `value` rounded once to this type.
    pub fn round(self, value: f64) -> f64 {
        match self {
            DType::F64 => value,
            DType::F32 => value as f32 as f64,
            DType::F16 => half::f16::from_f64(value).to_f64(),
            DType::BF16 => bf16_of(value).to_f64(),
            DType::F8 => f8_value(f8_of(value)),
            DType::U32 => value as u32 as f64,
            DType::I8 => value as i8 as f64,
            DType::I32 => value as i32 as f64,
        }
    }

    /// Whether its elements are integers, whose sums nothing rounds.
    pub const fn is_integer(self) -> bool {
        matches!(self, DType::I8 | DType::I32)
    }
}

/// The value of an [`DType::I32`]: not a number where its bits are those of unwritten memory.
pub const fn stored_i32(bits: i32) -> f64 {
    if bits == -1 { f64::NAN } else { bits as f64 }
}

/// The nearest bf16, rounded once. `half` drops half of an f64's bits first and then takes what lies just above a tie for one.
pub(crate) fn bf16_of(value: f64) -> half::bf16 {
    let near = value as f32;
    let exact = near as f64;
    if exact == value || !near.is_finite() {
        return half::bf16::from_f32(near);
    }
    // An f32 whose last bit says that there was more: cut, not rounded, so that no tie is made.
    let cut = if exact.abs() > value.abs() { near.to_bits() - 1 } else { near.to_bits() };
    half::bf16::from_f32(f32::from_bits(cut | 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_32_bits_are_themselves_but_for_those_of_unwritten_memory() {
        assert!([0, 1, -2, i32::MIN, i32::MAX].iter().all(|&x| stored_i32(x) == x as f64) && stored_i32(-1).is_nan());
        assert_eq!((DType::I8.round(-128.0), DType::I32.round(2147483647.0)), (-128.0, 2147483647.0));
    }

    #[test]
    fn a_value_just_off_a_tie_rounds_to_its_own_side_in_bf16() {
        let tie = 1.0 + f64::powi(2.0, -8);
        assert_eq!(DType::BF16.round(tie), 1.0, "a tie goes to the even one");
        for little in [f64::powi(2.0, -23), f64::powi(2.0, -40), f64::powi(2.0, -52)] {
            assert_eq!(DType::BF16.round(tie + little), 1.0 + f64::powi(2.0, -7));
            assert_eq!(DType::BF16.round(-tie - little), -1.0 - f64::powi(2.0, -7));
            assert_eq!(DType::BF16.round(tie - little), 1.0);
        }
        assert!(DType::BF16.round(f64::NAN).is_nan() && DType::BF16.round(1e300).is_infinite());
    }
}
