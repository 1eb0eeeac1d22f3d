//! How the elements of a tensor are stored.

use serde::{Deserialize, Serialize};

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
    /// 32 bits that hold several small integers: no number by itself.
    U32,
}

impl DType {
    /// Bytes of one element.
    pub const fn bytes(self) -> u64 {
        match self {
            DType::F64 => 8,
            DType::F32 | DType::U32 => 4,
            DType::F16 | DType::BF16 => 2,
        }
    }

    /// Distance from 1 to the next larger number.
    pub const fn epsilon(self) -> f64 {
        match self {
            DType::F64 => f64::EPSILON,
            DType::F32 => f32::EPSILON as f64,
            DType::F16 => 9.765625e-4,
            DType::BF16 => 7.8125e-3,
            DType::U32 => 1.0,
        }
    }

    /// `value` rounded once to this type.
    pub fn round(self, value: f64) -> f64 {
        match self {
            DType::F64 => value,
            DType::F32 => value as f32 as f64,
            DType::F16 => half::f16::from_f64(value).to_f64(),
            DType::BF16 => bf16_of(value).to_f64(),
            DType::U32 => value as u32 as f64,
        }
    }
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
