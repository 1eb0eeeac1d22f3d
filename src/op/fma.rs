//! The compute ceiling: independent chains `x ← a·x + b` with |a| < 1 and a, b loaded at run time.
//!
//! `b` grows by δ once per trip, so that values stay bounded (x tends to b / (1 − a)) and yet tell how many trips were run: in
//! f32, one trip in a thousand left out is refused. Steps inside a trip are counted by time instead: the probe is refused when
//! doubling the trips does not double its time.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Arithmetic, Definition, Entry, OpRole, Real, TensorSpec, Tensors, Traffic, parse_over};
use crate::error::{Error, Result};
use crate::host;
use crate::plan::{Demand, Dispatch, Implementation, Language, Precision, Source, Tunable, Tuned, Unit, Variant, fold};

/// `elements` chains of `trips × steps` multiply-adds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fma {
    /// Independent chains over the whole device.
    pub elements: u64,
    /// Outer trips; `b` grows after each. At most 64 in f16, whose eleven bits cannot tell more apart.
    pub trips: u64,
    /// Multiply-adds of a chain in one trip; a multiple of 8, so that kernels unroll without a tail.
    pub steps: u64,
}

/// The factor: exact in f16, its powers vanish within a trip.
pub const A: f64 = 0.6875;
/// The addend of the first trip.
pub const B: f64 = 1.0;
/// What the addend grows by after each trip: sums stay exact up to 2^14 in f32.
pub const STEP: f64 = 1.0 / 1024.0;
/// The same in f16, where 64 trips stay exact.
pub const STEP_F16: f64 = 1.0 / 16.0;

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: Fma::NAME,
    role: OpRole::Probe,
    fields: &["elements", "trips", "steps"],
    parse: |fields| parse_over(ENTRY.fields, &Fma { elements: 4096, trips: 16, steps: 64 }, fields),
    awkward: || {
        let cases = [(1u64, 1u64, 8u64), (97, 3, 16), (4096, 16, 64), (10_007, 5, 8)];
        cases.iter().map(|(elements, trips, steps)| json!({"elements": elements, "trips": trips, "steps": steps})).collect()
    },
};

impl Definition for Fma {
    const NAME: &'static str = "fma";
    const ROLE: OpRole = OpRole::Probe;
    const VARIANTS: &'static [Variant<Self>] = &[CHAINS];

    fn tensors(&self, precision: Precision) -> Result<Vec<TensorSpec>> {
        let dtype = precision.storage();
        if self.trips == 0 || self.steps == 0 || !self.steps.is_multiple_of(8) {
            return Err(Error::usage(format!("fma: trips {} must be at least 1 and steps {} a multiple of 8", self.trips, self.steps)));
        }
        if precision == Precision::F16 && self.trips > 64 {
            return Err(Error::usage(format!("fma: {} trips in f16 cannot be told apart; use at most 64 and more steps", self.trips)));
        }
        let step = if precision == Precision::F16 { STEP_F16 } else { STEP };
        Ok(vec![
            TensorSpec::scalars("coef", &[A, B, step], dtype),
            TensorSpec::input("x", &[self.elements], dtype),
            TensorSpec::output("y", &[self.elements], dtype),
        ])
    }

    fn macs(&self) -> u64 {
        self.elements.saturating_mul(self.trips).saturating_mul(self.steps)
    }

    fn row<R: Real, T: Tensors>(&self, x: &T, _row: u64, cols: Range<u64>, out: &mut [R]) {
        let (a, mut b, step): (R, R, R) = (x.at(0, 0), x.at(0, 1), x.at(0, 2));
        for (y, i) in out.iter_mut().zip(cols) {
            *y = x.at(1, i);
        }
        for _ in 0..self.trips {
            for _ in 0..self.steps {
                for y in out.iter_mut() {
                    *y = b.mac(a, *y);
                }
            }
            b = b.plus(step);
        }
    }

    fn dims(&self) -> Vec<(&'static str, u64)> {
        vec![("elements", self.elements), ("trips", self.trips), ("steps", self.steps)]
    }

    /// After 256 steps a start of at most 2 weighs less than 2^-136: every chain ends at the same value.
    fn uniform(&self) -> bool {
        self.trips.saturating_mul(self.steps) >= 256
    }

    fn label(&self) -> String {
        format!("{} chains x{}x{}", self.elements, self.trips, self.steps)
    }

    /// The chains run in the storage type itself: an f16 ceiling is one of f16 arithmetic.
    fn arithmetic(&self, precision: Precision, _unit: Unit) -> Arithmetic {
        Arithmetic::of(precision.storage())
    }

    fn traffic(&self, precision: Precision) -> Option<Traffic> {
        Some(Traffic::through(self.elements, precision))
    }
}

/// Chains of a lane on devices: enough to hide the latency of a multiply-add, few enough to stay in registers.
pub(super) const DEVICE_CHAINS: Tunable = Tunable { name: "CHAINS", values: &[8, 4, 2, 1, 12, 16] };
/// Invocations of a work-group on devices.
pub(super) const BLOCK: Tunable = Tunable { name: "BLOCK", values: &[64, 128, 256] };
/// The WGSL kernel also chooses how many steps it unrolls; 16 candidates in all, because a software device takes a quarter of
/// a second to compile each.
const WGSL_TUNABLES: &[Tunable] = &[
    Tunable { name: "CHAINS", values: &[3, 2, 4, 1] },
    Tunable { name: "BLOCK", values: &[64, 256] },
    Tunable { name: "UNROLL", values: &[4, 8] },
];

/// Chains that go together: WGSL's in vectors of four, and CUDA has an instruction for two of f16.
pub const fn of_register(language: Language, precision: Precision) -> u64 {
    match (language, precision) {
        (Language::Wgsl, _) => 4,
        (Language::Cuda, Precision::F16) => 2,
        _ => 1,
    }
}

/// One dispatch whose lanes hold `CHAINS` registers each, in groups of `BLOCK`; `registers` is how many there are in all.
pub(super) fn in_lanes(entry: &'static str, registers: u64, tuned: &Tuned) -> Dispatch {
    let chains = tuned.0.get("CHAINS").copied().unwrap_or(1) as u64;
    let block = tuned.0.get("BLOCK").copied().unwrap_or(1);
    Dispatch::over(3, entry, fold(registers.div_ceil(chains).div_ceil(block as u64)), [block, 1, 1])
}

/// Each lane holds its chains in `CHAINS` registers: chain c of lane l is element `c · lanes + l`, lanes = ⌈elements / chains of a lane⌉.
const CHAINS: Variant<Fma> = Variant {
    name: "chains",
    unit: Unit::Vector,
    sources: &[
        Implementation {
            source: Source::Host(host::fma::chains),
            precisions: &[Precision::F32, Precision::F64],
            tunables: &[host::fma::CHAINS],
        },
        Implementation {
            source: Source::Wgsl(include_str!("../../shaders/fma/chains.wgsl")),
            precisions: &[Precision::F32, Precision::F64, Precision::F16],
            tunables: WGSL_TUNABLES,
        },
        Implementation {
            source: Source::Cuda(include_str!("../../kernels/fma/chains.cu")),
            precisions: &[Precision::F32, Precision::F64, Precision::F16],
            tunables: &[DEVICE_CHAINS, BLOCK],
        },
    ],
    dispatches: |p, s| vec![in_lanes("chains", p.elements.div_ceil(of_register(s.language, s.precision)), s.tuned)],
    // Replaced by `traffic`.
    demand: |_, _| Demand::new(0, 0),
};
