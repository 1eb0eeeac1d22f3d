//! The ceiling of products of narrow numbers summed in a wider type on vector units: independent chains `s ← s + a · b`, a and b four numbers
//! each, of 8-bit integers in 32 bits, of f16 or bf16 in f32.
//!
//! `b` grows once per trip. All numbers are integers, so sums are exact but for where a chain began, and never shrink: every trip and step that
//! is left out shows in the value, and no tolerance hides it. Doubling the trips must double the time all the same.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::fma::{BLOCK, DEVICE_CHAINS, in_lanes};
use super::{Definition, Entry, OpRole, Real, TensorSpec, Tensors, Traffic, parse_over};
use crate::error::{Error, Result};
use crate::host;
use crate::plan::{Demand, Implementation, Precision, Source, Unit, Variant};

/// `elements` chains of `trips × steps` products of four numbers each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dot {
    /// Independent chains over the whole device.
    pub elements: u64,
    /// Outer trips, 64 at most; `b` grows after each.
    pub trips: u64,
    /// Products of a chain in one trip; a multiple of 8, so that kernels unroll without a tail.
    pub steps: u64,
}

/// Numbers of one product.
pub(crate) const FOUR: u64 = 4;
/// a, b and what b grows by after each trip: a · b is 116 in the first trip and 1 more in each that follows. Elements of b begin at 0 or
/// above and stay below 128 for [`MOST`] trips, so that a kernel may add to all four at once.
const COEF: [f64; 12] = [11.0, -7.0, 5.0, -8.0, 40.0, 23.0, 17.0, 31.0, 1.0, 1.0, 1.0, 1.0];
/// a · b in the first trip.
const FIRST: u64 = 116;
/// Trips at most.
const MOST: u64 = 64;

/// Bits of the sums' integers: those of an i32, or of an f32. A problem that is not yet of any precision is held to the more.
const fn exact_bits(precision: Precision) -> u32 {
    if matches!(precision, Precision::F16 | Precision::BF16) { 24 } else { 31 }
}

/// Steps of all trips that a chain's sum holds exactly. A start is 15 at most.
pub const fn longest(precision: Precision) -> u64 {
    ((1 << exact_bits(precision)) - 16) / (FIRST + MOST)
}

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: Dot::NAME,
    role: OpRole::Probe,
    fields: &["elements", "trips", "steps"],
    parse: |fields| parse_over(ENTRY.fields, &Dot { elements: 4096, trips: 16, steps: 64 }, fields),
    awkward: || {
        let cases = [(1u64, 1u64, 8u64), (97, 3, 16), (4096, 16, 64), (10_007, 64, 8)];
        cases.iter().map(|(elements, trips, steps)| json!({"elements": elements, "trips": trips, "steps": steps})).collect()
    },
};

impl Definition for Dot {
    const NAME: &'static str = "dot";
    const ROLE: OpRole = OpRole::Probe;
    const VARIANTS: &'static [Variant<Self>] = &[CHAINS];

    fn tensors(&self, precision: Precision) -> Result<Vec<TensorSpec>> {
        if !(1..=MOST).contains(&self.trips) || self.steps == 0 || !self.steps.is_multiple_of(8) {
            return Err(Error::usage(format!("dot: trips {} must be 1 to {MOST} and steps {} a multiple of 8", self.trips, self.steps)));
        }
        if self.steps.saturating_mul(self.trips) > longest(precision) {
            return Err(Error::usage(format!(
                "dot: {} steps of {} trips sum to more than {} bits hold; take {} steps at most",
                self.steps,
                self.trips,
                exact_bits(precision),
                longest(precision) / self.trips / 8 * 8
            )));
        }
        let dtype = precision.storage();
        Ok(vec![
            TensorSpec { shape: vec![3, FOUR], ..TensorSpec::scalars("coef", &COEF, dtype) },
            TensorSpec::input("x", &[self.elements], dtype),
            TensorSpec::output("y", &[self.elements], precision.sum()),
        ])
    }

    /// Those of the closed form: all chains add the same, and all steps of a trip.
    fn macs(&self) -> u64 {
        FOUR * self.trips
    }

    fn flops(&self) -> u64 {
        (2 * FOUR).saturating_mul(self.elements).saturating_mul(self.trips).saturating_mul(self.steps)
    }

    fn row<R: Real, T: Tensors>(&self, x: &T, _row: u64, cols: Range<u64>, out: &mut [R]) {
        let (steps, mut added) = (R::from_f64(self.steps as f64), R::from_f64(0.0));
        for trip in 0..self.trips {
            let grown = R::from_f64(trip as f64);
            let b = |j: u64| x.at::<R>(0, FOUR + j).plus(grown.times(x.at(0, 2 * FOUR + j)));
            let product = (0..FOUR).fold(R::from_f64(0.0), |sum, j| sum.mac(x.at(0, j), b(j)));
            added = added.plus(steps.times(product));
        }
        for (y, i) in out.iter_mut().zip(cols) {
            *y = x.at::<R>(1, i).plus(added);
        }
    }

    fn dims(&self) -> Vec<(&'static str, u64)> {
        vec![("elements", self.elements), ("trips", self.trips), ("steps", self.steps)]
    }

    fn label(&self) -> String {
        format!("{} chains x{}x{}", self.elements, self.trips, self.steps)
    }

    fn traffic(&self, precision: Precision) -> Option<Traffic> {
        Some(Traffic { read: self.elements * precision.storage().bytes(), written: self.elements * precision.sum().bytes() })
    }
}

/// Each lane holds `CHAINS` sums in registers: on devices chain c of lane l is element `c · lanes + l`, lanes = ⌈elements / CHAINS⌉.
const CHAINS: Variant<Dot> = Variant {
    name: "chains",
    unit: Unit::Vector,
    sources: &[
        Implementation {
            source: Source::Host(host::dot::chains),
            precisions: &[Precision::F16, Precision::BF16],
            tunables: &[host::fma::CHAINS],
        },
        Implementation {
            source: Source::Cuda(include_str!("../../kernels/dot/chains.cu")),
            precisions: &[Precision::Int8],
            tunables: &[DEVICE_CHAINS, BLOCK],
        },
    ],
    dispatches: |p, s| vec![in_lanes("chains", p.elements, s.tuned)],
    // Replaced by `traffic`.
    demand: |_, _| Demand::new(0, 0),
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_trip_adds_a_positive_product_and_no_element_of_b_passes_seven_bits() {
        let [a, b, growth]: [&[f64]; 3] = [&COEF[..4], &COEF[4..8], &COEF[8..]];
        for trip in 0..MOST {
            let grown: Vec<f64> = b.iter().zip(growth).map(|(b, by)| b + trip as f64 * by).collect();
            assert!(grown.iter().all(|x| (0.0..128.0).contains(x)), "{grown:?}");
            assert_eq!(a.iter().zip(&grown).map(|(a, b)| a * b).sum::<f64>(), (FIRST + trip) as f64);
        }
        // One more growth comes after the last trip, and may not carry either.
        assert!(b.iter().zip(growth).all(|(b, by)| b + MOST as f64 * by < 128.0));
    }

    #[test]
    fn sums_that_could_be_inexact_are_refused() {
        let of = |trips, steps, precision| Dot { elements: 1, trips, steps }.tensors(precision);
        assert!(of(64, 65_536, Precision::Int8).is_ok() && of(64, 1456, Precision::BF16).is_ok());
        assert!(
            of(64, 1 << 20, Precision::Int8).is_err_and(|e| e.to_string().contains("more than 31 bits hold; take 186408 steps at most"))
        );
        assert!(of(64, 1464, Precision::F16).is_err_and(|e| e.to_string().contains("more than 24 bits hold; take 1456 steps at most")));
        assert!(of(65, 8, Precision::Int8).is_err_and(|e| e.to_string().contains("1 to 64")));
    }
}
