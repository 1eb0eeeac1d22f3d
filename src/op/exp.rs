//! The ceiling of exponentials: independent chains `x ← 2^−(x + b)`.
//!
//! `b` grows by δ once per trip, as in `fma`: values stay bounded (x tends to where x = 2^−(x + b)) and tell how many trips were run. Steps
//! inside a trip are counted by time: the probe is refused when doubling the trips does not double its time. A power of two is what fused
//! attention computes: the factor log₂ e goes into its scale.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::fma::in_lanes;
use super::{Definition, Entry, OpRole, Real, TensorSpec, Tensors, Traffic, parse_over};
use crate::error::{Error, Result};
use crate::host;
use crate::plan::{Demand, Implementation, Precision, Source, Tunable, Unit, Variant};

/// `elements` chains of `trips × steps` exponentials.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exp {
    /// Independent chains over the whole device.
    pub elements: u64,
    /// Outer trips, 1024 at most; `b` grows after each.
    pub trips: u64,
    /// Exponentials of a chain in one trip; a multiple of 4, so that kernels unroll without a tail.
    pub steps: u64,
}

/// The addend of the first trip.
const B: f64 = 0.0;
/// What it grows by after each: a trip more moves the value by 2e-4 or more.
const STEP: f64 = 1.0 / 1024.0;
/// Trips at most: the addend stays at 1 or below.
const MOST: u64 = 1024;

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: Exp::NAME,
    role: OpRole::Probe,
    fields: &["elements", "trips", "steps"],
    parse: |fields| parse_over(ENTRY.fields, &Exp { elements: 4096, trips: 64, steps: 8 }, fields),
    awkward: || {
        let cases = [(1u64, 1u64, 4u64), (97, 3, 8), (4096, 64, 8), (10_007, 5, 4), (333, 1, 8)];
        cases.iter().map(|(elements, trips, steps)| json!({"elements": elements, "trips": trips, "steps": steps})).collect()
    },
};

impl Definition for Exp {
    const NAME: &'static str = "exp";
    const ROLE: OpRole = OpRole::Probe;
    const VARIANTS: &'static [Variant<Self>] = &[CHAINS];

    fn tensors(&self, precision: Precision) -> Result<Vec<TensorSpec>> {
        let dtype = precision.storage();
        if !(1..=MOST).contains(&self.trips) || self.steps == 0 || !self.steps.is_multiple_of(4) {
            return Err(Error::usage(format!("exp: trips {} must be 1 to {MOST} and steps {} a multiple of 4", self.trips, self.steps)));
        }
        Ok(vec![
            TensorSpec::scalars("coef", &[B, STEP], dtype),
            TensorSpec::input("x", &[self.elements], dtype),
            TensorSpec::output("y", &[self.elements], dtype),
        ])
    }

    fn macs(&self) -> u64 {
        0
    }

    fn exponentials(&self) -> u64 {
        self.elements.saturating_mul(self.trips).saturating_mul(self.steps)
    }

    fn row<R: Real, T: Tensors>(&self, x: &T, _row: u64, cols: Range<u64>, out: &mut [R]) {
        let (zero, ln2) = (R::from_f64(0.0), R::from_f64(std::f64::consts::LN_2));
        let (first, step): (R, R) = (x.at(0, 0), x.at(0, 1));
        for (y, i) in out.iter_mut().zip(cols) {
            let mut b = first;
            *y = x.at(1, i);
            for _ in 0..self.trips {
                for _ in 0..self.steps {
                    *y = zero.minus(y.plus(b)).times(ln2).exp();
                }
                b = b.plus(step);
            }
        }
    }

    fn dims(&self) -> Vec<(&'static str, u64)> {
        vec![("elements", self.elements), ("trips", self.trips), ("steps", self.steps)]
    }

    /// A step shrinks what is left of the start to less than a half: after 256 of them every chain has one value.
    fn uniform(&self) -> bool {
        self.trips.saturating_mul(self.steps) >= 256
    }

    fn label(&self) -> String {
        format!("{} chains x{}x{}", self.elements, self.trips, self.steps)
    }

    fn traffic(&self, precision: Precision) -> Option<Traffic> {
        Some(Traffic::through(self.elements, precision))
    }

    /// 3 + 2·|x| units in the last place of 2ˣ in WGSL, the most of any language, for |x| ≤ 2; steps before count for less than as much again.
    fn promised(&self, precision: Precision) -> f64 {
        2.0 * (3.0 + 2.0 * 2.0) * precision.sum().epsilon()
    }
}

/// Chains of a lane on devices.
const DEVICE_CHAINS: Tunable = Tunable { name: "CHAINS", values: &[4, 2, 8, 1, 6, 3] };
/// The same in WGSL: a software device takes a quarter of a second to compile each.
const WGSL_CHAINS: Tunable = Tunable { name: "CHAINS", values: &[4, 2, 8, 1] };
/// Invocations of a work-group on devices.
const BLOCK: Tunable = Tunable { name: "BLOCK", values: &[64, 256] };

/// Each lane holds `CHAINS` chains in registers: chain c of lane l is element `c · lanes + l`, lanes = ⌈elements / CHAINS⌉.
const CHAINS: Variant<Exp> = Variant {
    name: "chains",
    unit: Unit::Exp,
    sources: &[
        Implementation { source: Source::Host(host::powers::chains), precisions: &[Precision::F32], tunables: &[host::powers::CHAINS] },
        Implementation {
            source: Source::Wgsl(include_str!("../../shaders/exp/chains.wgsl")),
            precisions: &[Precision::F32],
            tunables: &[WGSL_CHAINS, BLOCK],
        },
        Implementation {
            source: Source::Cuda(include_str!("../../kernels/exp/chains.cu")),
            precisions: &[Precision::F32],
            tunables: &[DEVICE_CHAINS, BLOCK],
        },
    ],
    dispatches: |p, s| vec![in_lanes("powers", p.elements, s.tuned)],
    // Replaced by `traffic`.
    demand: |_, _| Demand::new(0, 0),
};
