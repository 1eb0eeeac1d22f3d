//! How weights are stored, and how far off they come.

use std::sync::Arc;

use serde_json::json;

use crate::draw::mix;
use crate::error::Result;
use crate::op::{self, Op};
use crate::plan::Precision;

/// How weights are stored.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Form {
    /// As numbers, like all else.
    Numbers(Precision),
    /// As integers of so many bits, with a scale for each group.
    Integers(u32),
}

/// In table order.
pub(super) const FORMS: [Form; 6] = [
    Form::Numbers(Precision::F32),
    Form::Numbers(Precision::TF32),
    Form::Numbers(Precision::F16),
    Form::Numbers(Precision::BF16),
    Form::Integers(8),
    Form::Integers(4),
];
/// Weights that share a scale.
pub(super) const GROUP: u64 = 128;

impl Form {
    pub(super) fn name(self) -> String {
        match self {
            Form::Numbers(precision) => precision.name().into(),
            Form::Integers(bits) => format!("int{bits}"),
        }
    }

    /// The product of m rows with a square of weights.
    pub(super) fn op(self, m: u64, extent: u64) -> Result<Arc<dyn Op>> {
        match self {
            Form::Numbers(_) => (op::find("matmul")?.parse)(&json!({"m": m, "n": extent, "k": extent})),
            Form::Integers(bits) => {
                (op::find("quantized")?.parse)(&json!({"m": m, "n": extent, "k": extent, "bits": bits, "group_size": GROUP}))
            }
        }
    }

    /// Mean square of a weight under a dense draw: σ² is ⅓; integers are uniform, so are scales, over an octave from 1/64.
    pub(super) fn square(self) -> f64 {
        match self {
            Form::Numbers(_) => 1.0 / 3.0,
            Form::Integers(bits) => (4f64.powi(bits as i32) + 2.0) / 12.0 * (7.0 / 3.0) / 4096.0,
        }
    }

    /// A group of weights as they come back from storage.
    fn stored(self, weights: &[f64]) -> Vec<f64> {
        match self {
            Form::Numbers(precision) => weights.iter().map(|&w| precision.storage().round(w)).collect(),
            Form::Integers(bits) => {
                let most = f64::from((1 << (bits - 1)) - 1);
                let step = weights.iter().fold(0f64, |largest, w| largest.max(w.abs())) / most;
                weights.iter().map(|w| (w / step).round() * step).collect()
            }
        }
    }

    /// rms(w − ŵ) / rms(w) over groups of normal weights.
    pub(super) fn storing(self) -> f64 {
        let (mut off, mut all) = (0.0, 0.0);
        for group in 0..GROUPS {
            let weights: Vec<f64> = (0..GROUP as u32).map(|at| normal(group * GROUP as u32 + at)).collect();
            off += weights.iter().zip(self.stored(&weights)).map(|(w, kept)| (w - kept).powi(2)).sum::<f64>();
            all += weights.iter().map(|w| w * w).sum::<f64>();
        }
        (off / all).sqrt()
    }
}

/// Groups of weights that are rounded to see how far off they come.
const GROUPS: u32 = 512;

/// Number `at` of a normal distribution (Box and Muller, 1958), the same on every machine but for what its logarithm and cosine round.
fn normal(at: u32) -> f64 {
    let uniform = |which: u32| (f64::from(mix(2 * at + which)) + 0.5) / 4_294_967_296.0;
    (-2.0 * uniform(0).ln()).sqrt() * (std::f64::consts::TAU * uniform(1)).cos()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_numbers_are_normal() {
        let all: Vec<f64> = (0..100_000).map(normal).collect();
        let moment = |power: i32| all.iter().map(|x| x.powi(power)).sum::<f64>() / all.len() as f64;
        assert!(moment(1).abs() < 0.01 && (moment(2) - 1.0).abs() < 0.01 && (moment(4) - 3.0).abs() < 0.1, "{} {}", moment(2), moment(4));
    }

    #[test]
    fn storing_errs_by_what_a_step_makes() {
        // The largest of 128 normal numbers is about 2.8; a step is a 127th or a 7th of it, and an error a step over the root of 12.
        for (bits, most) in [(8, 127.0), (4, 7.0)] {
            let (found, expected) = (Form::Integers(bits).storing(), 2.8 / most / 12f64.sqrt());
            assert!((found / expected - 1.0).abs() < 0.05, "int{bits}: {found} and {expected}");
        }
        // Within an octave from 1 a number of p bits errs by 2^(1 - p) / √12: over all, 0.7 of that, over the square.
        for (precision, bits) in [(Precision::F32, 24), (Precision::F16, 11), (Precision::BF16, 8)] {
            let found = Form::Numbers(precision).storing() * f64::from(2u32.pow(bits - 1)) * 12f64.sqrt();
            assert!((0.5..1.0).contains(&found), "{precision}: {found}");
        }
        assert_eq!(Form::Numbers(Precision::TF32).storing(), Form::Numbers(Precision::F32).storing(), "it is stored as f32");
    }

    #[test]
    fn the_magnitude_of_weights_is_that_of_the_draw() {
        use crate::draw::{Draw, Drawn, Seeded};
        for form in [Form::Numbers(Precision::F32), Form::Integers(8), Form::Integers(4)] {
            let op = form.op(1, 512).expect("a shape");
            let drawn = Drawn::new(&op.tensors(Precision::F32).expect("a shape"), Seeded { draw: Draw::Dense, seed: 5 });
            // A product with a row of A is a sum of k weights, each times an element whose mean square is a third.
            let out = op.row(crate::op::Arithmetic::F64, &drawn, 0, 0..512);
            let found = out.iter().map(|c| c * c).sum::<f64>() / 512.0 / 512.0 * 3.0;
            assert!((found / form.square() - 1.0).abs() < 0.3, "{}: {found} and {}", form.name(), form.square());
        }
    }
}
