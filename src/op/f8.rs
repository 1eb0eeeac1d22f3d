//! Numbers of 8 bits in E4M3 (Open Compute Project, "OCP 8-bit Floating Point Specification", revision 1.0): a sign, four bits of exponent
//! with a bias of 7, three of fraction. The largest is 448, the smallest above zero 2⁻⁹; there is no infinity, and all seven bits
//! set are no number.

/// The largest value that rounds to 448: half way to 480, whose code stands for no number.
const LARGEST: f64 = 464.0;

/// 2 to this power, which must be one of a normal number.
fn power(exponent: i32) -> f64 {
    f64::from_bits(((1023 + exponent) as u64) << 52)
}

/// The bits of the nearest number, ties to even; what is too large is no number.
pub fn f8_of(value: f64) -> u8 {
    let (sign, magnitude) = ((value.to_bits() >> 56 & 0x80) as u8, value.abs());
    if magnitude.is_nan() || magnitude > LARGEST {
        return sign | 0x7f;
    }
    // Eight steps make an octave; below 2⁻⁶ they stay what they are there.
    let exponent = ((magnitude.to_bits() >> 52) as i32 - 1023).max(-6);
    let steps = (magnitude / power(exponent - 3)).round_ties_even();
    sign | ((((exponent + 6) as u8) << 3) + steps as u8)
}

/// The value of these bits.
pub fn f8_value(bits: u8) -> f64 {
    let (exponent, fraction) = ((bits >> 3 & 15) as i32, (bits & 7) as f64);
    let magnitude = match (bits & 0x7f, exponent) {
        (0x7f, _) => f64::NAN,
        (_, 0) => fraction * power(-9),
        _ => (8.0 + fraction) * power(exponent - 10),
    };
    if bits & 0x80 == 0 { magnitude } else { -magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_the_value_that_the_specification_gives_it_and_comes_back() {
        for bits in 0..=255u8 {
            let (exponent, fraction) = ((bits >> 3 & 15) as i32, (bits & 7) as f64 / 8.0);
            let magnitude = if exponent == 0 { fraction * 2f64.powi(-6) } else { (1.0 + fraction) * 2f64.powi(exponent - 7) };
            let value = f8_value(bits);
            match bits & 0x7f {
                0x7f => assert!(value.is_nan() && f8_of(value) & 0x7f == 0x7f),
                _ => assert_eq!((value.abs(), value.is_sign_negative(), f8_of(value)), (magnitude, bits > 0x7f, bits)),
            }
        }
        assert_eq!([0x00, 0x01, 0x07, 0x08, 0x38, 0x7e, 0xb9].map(f8_value), [0.0, 0.001953125, 0.013671875, 0.015625, 1.0, 448.0, -1.125]);
    }

    #[test]
    fn between_two_codes_the_nearer_is_taken_and_half_way_the_even_one() {
        for low in 0..0x7eu8 {
            let (below, above) = (f8_value(low), f8_value(low + 1));
            let middle = (below + above) / 2.0;
            let little = middle * f64::EPSILON;
            assert_eq!(f8_of(middle), low + low % 2, "{middle:e}");
            assert_eq!((f8_of(middle - little), f8_of(middle + little)), (low, low + 1), "{middle:e}");
            assert_eq!(f8_of(-middle - little), 0x80 | (low + 1));
        }
    }

    #[test]
    fn what_is_too_large_is_no_number_and_what_is_too_small_is_zero() {
        assert_eq!((f8_of(464.0), f8_of(-464.0)), (0x7e, 0xfe));
        assert!([464.0 + 1e-9, 480.0, 1e300, f64::INFINITY, f64::NAN].iter().all(|&x| f8_of(x) & 0x7f == 0x7f));
        assert_eq!([0.0, -0.0, 2f64.powi(-10), -1e-300, f64::MIN_POSITIVE / 2.0].map(f8_of), [0, 0x80, 0, 0x80, 0]);
    }
}
