//! Input data: element i of tensor t is an integer function of (seed, t, i), converted exactly.
//!
//! The same bits come out on every backend: [`element`] here, `shaders/draw.wgsl` and `kernels/draw.cu` on the devices. A
//! *dense* draw is the sum of four 22-bit hashes, near-normal with σ 0.577, rounded once to the storage type; an *exact* draw
//! has multiples of 1/64 in [−1, 1], whose short sums are exact in f32, so that structure can be checked to the bit.
//! The hash is Chris Wellons's `lowbias32` (nullprogram.com/blog/2018/07/31).

use serde::{Deserialize, Serialize};

use crate::op::{DType, Real, TensorSpec, Tensors};

/// Which distribution the drawn tensors have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Draw {
    /// Near-normal, zero mean, σ 0.577, in [−2, 2).
    Dense,
    /// Multiples of 1/64 in [−1, 1].
    Exact,
}

/// Where a tensor's elements come from.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub enum Fill {
    /// From the draw.
    Draw,
    /// These values, each exact in the storage type.
    Values(Vec<f64>),
}

/// A draw and its seed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Seeded {
    /// Distribution.
    pub draw: Draw,
    /// Seed; equal seeds give equal bits for ever.
    pub seed: u32,
}

/// `lowbias32`: a bijection of u32 with full avalanche.
#[inline]
pub const fn mix(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(0x7feb_352d);
    x ^= x >> 15;
    x = x.wrapping_mul(0x846c_a68b);
    x ^ (x >> 16)
}

/// The four keys of a tensor: hash j of element i is `mix(low(i) + keys[j] + high(i) · 0x9e3779b9)`.
pub const fn keys(seed: u32, tensor: u32) -> [u32; 4] {
    let base = mix(seed ^ mix(tensor.wrapping_add(0x51ed_270b)));
    [mix(base ^ 1), mix(base ^ 2), mix(base ^ 3), mix(base ^ 4)]
}

/// Element `index` before rounding to the storage type; exact in f32.
#[inline]
pub fn element(draw: Draw, keys: &[u32; 4], index: u64) -> f32 {
    let at = (index as u32).wrapping_add(((index >> 32) as u32).wrapping_mul(0x9e37_79b9));
    match draw {
        Draw::Dense => {
            let sum = keys.iter().map(|&key| (mix(at.wrapping_add(key)) >> 10) as i32).sum::<i32>();
            (sum - (1 << 23)) as f32 * (1.0 / (1 << 22) as f32)
        }
        Draw::Exact => {
            let step = ((mix(at.wrapping_add(keys[0])) >> 16) * 129) >> 16;
            (step as i32 - 64) as f32 * (1.0 / 64.0)
        }
    }
}

/// Lazily drawn inputs for the oracle.
#[derive(Debug, Clone)]
pub struct Drawn {
    draw: Draw,
    tensors: Vec<(DType, Option<Vec<f64>>, [u32; 4])>,
}

impl Drawn {
    /// The inputs of these tensors under this draw. Tensor numbers are binding positions.
    pub fn new(tensors: &[TensorSpec], seeded: Seeded) -> Self {
        let tensors = tensors.iter().enumerate().map(|(t, spec)| {
            let values = match &spec.fill {
                Fill::Draw => None,
                Fill::Values(values) => Some(values.clone()),
            };
            (spec.dtype, values, keys(seeded.seed, t as u32))
        });
        Drawn { draw: seeded.draw, tensors: tensors.collect() }
    }

    /// Element `index` of tensor `tensor` as stored.
    #[inline]
    pub fn value(&self, tensor: usize, index: u64) -> f64 {
        let (dtype, values, keys) = &self.tensors[tensor];
        match values {
            Some(values) => values[index as usize],
            None => match dtype {
                DType::F16 => half::f16::from_f32(element(self.draw, keys, index)).to_f64(),
                DType::BF16 => half::bf16::from_f32(element(self.draw, keys, index)).to_f64(),
                DType::F32 | DType::F64 => element(self.draw, keys, index) as f64,
            },
        }
    }
}

impl Tensors for Drawn {
    #[inline]
    fn at<R: Real>(&self, tensor: usize, index: u64) -> R {
        R::from_f64(self.value(tensor, index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dense_draws_have_zero_mean_and_the_declared_sigma() {
        let keys = keys(7, 1);
        let n = 1 << 20;
        let (mut sum, mut square) = (0.0, 0.0);
        for i in 0..n {
            let x = element(Draw::Dense, &keys, i) as f64;
            assert!((-2.0..2.0).contains(&x));
            sum += x;
            square += x * x;
        }
        let mean = sum / n as f64;
        let sigma = (square / n as f64 - mean * mean).sqrt();
        assert!(mean.abs() < 3e-3, "mean {mean}");
        assert!((sigma - 1.0 / 3f64.sqrt()).abs() < 3e-3, "sigma {sigma}");
    }

    #[test]
    fn exact_draws_are_multiples_of_a_64th_within_one() {
        let keys = keys(7, 0);
        let drawn: Vec<f32> = (0..10_000).map(|i| element(Draw::Exact, &keys, i)).collect();
        assert!(drawn.iter().all(|x| x.abs() <= 1.0 && (x * 64.0).fract() == 0.0));
        assert!(drawn.contains(&1.0) && drawn.contains(&-1.0) && drawn.contains(&0.0));
    }

    #[test]
    fn the_bits_of_a_draw_never_change() {
        let bits: Vec<u32> = (0..4).map(|i| element(Draw::Dense, &keys(1, 0), i).to_bits()).collect();
        assert_eq!(bits, PINNED, "changing the draw invalidates every recorded seed");
    }

    const PINNED: [u32; 4] = [1059118148, 3206185536, 1066460608, 981704704];
}
