//! The way up the roof: a kernel whose intensity is chosen, so that its points show what the roof's corner hides.
//!
//! Every eight elements take `steps` multiply-adds `x ← a·x + b` among them and move 64 bytes, 32 loaded and 32 stored: steps / 32 FLOP
//! a byte. Elements are taken by lines of 16; of every eight lines the first `steps mod 8` take one step more than the others. The
//! factor is a little below 1 (a = 1 − 2⁻¹¹), so a chain of a thousand steps still tells each of them apart.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Definition, Entry, OpRole, Real, TensorSpec, Tensors, Traffic, parse_over};
use crate::error::{Error, Result};
use crate::host;
use crate::plan::{Demand, Dispatch, Implementation, Precision, Source, Tunable, Unit, Variant, fold};

/// `elements` chains, out of place; every eight of them take `steps` multiply-adds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ramp {
    /// Elements loaded, and stored.
    pub elements: u64,
    /// Multiply-adds of eight elements, hence of 64 bytes.
    pub steps: u64,
}

/// The factor: 1 − 2⁻¹¹.
const A: f64 = 2047.0 / 2048.0;
/// The addend: chains tend to a half.
const B: f64 = 1.0 / 4096.0;
/// Elements of a line.
pub(crate) const LINE: u64 = 16;
/// Lines that the steps are dealt out to.
pub(crate) const LINES: u64 = 8;
/// Steps of eight elements at most: 256 FLOP a byte. Longer chains would forget their first steps.
pub const MOST: u64 = 8192;
/// Steps of eight elements at least: an eighth of a FLOP a byte.
pub const LEAST: u64 = 4;

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: Ramp::NAME,
    role: OpRole::Probe,
    fields: &["elements", "steps"],
    parse: |fields| parse_over(ENTRY.fields, &Ramp { elements: 1 << 20, steps: 64 }, fields),
    awkward: || {
        let cases = [(1u64, 1u64), (37, 6), (129, 12), (1000, 4), (4099, 31), (10_007, 64), (128, 8192), (777, 100)];
        cases.iter().map(|(elements, steps)| json!({"elements": elements, "steps": steps})).collect()
    },
};

impl Ramp {
    /// Steps that every element takes.
    pub(crate) fn common(&self) -> u64 {
        self.steps / LINES
    }

    /// Lines of every eight that take one step more.
    pub(crate) fn longer(&self) -> u64 {
        self.steps % LINES
    }
}

impl Definition for Ramp {
    const NAME: &'static str = "ramp";
    const ROLE: OpRole = OpRole::Probe;
    const VARIANTS: &'static [Variant<Self>] = &[CHAINS];

    fn tensors(&self, precision: Precision) -> Result<Vec<TensorSpec>> {
        let dtype = precision.storage();
        if self.steps == 0 || self.steps > MOST {
            return Err(Error::usage(format!("ramp: {} steps of eight elements are not in 1 to {MOST}; choose some that are", self.steps)));
        }
        Ok(vec![
            TensorSpec::scalars("coef", &[A, B], dtype),
            TensorSpec::input("x", &[self.elements], dtype),
            TensorSpec::output("y", &[self.elements], dtype),
        ])
    }

    fn macs(&self) -> u64 {
        let block = LINE * LINES;
        let rest = self.elements % block;
        (self.elements / block * LINE * self.steps).saturating_add(rest * self.common() + rest.min(LINE * self.longer()))
    }

    fn row<R: Real, T: Tensors>(&self, x: &T, _row: u64, cols: Range<u64>, out: &mut [R]) {
        let (a, b): (R, R) = (x.at(0, 0), x.at(0, 1));
        for (y, i) in out.iter_mut().zip(cols) {
            let steps = self.common() + (i / LINE % LINES < self.longer()) as u64;
            *y = (0..steps).fold(x.at(1, i), |y, _| b.mac(a, y));
        }
    }

    fn dims(&self) -> Vec<(&'static str, u64)> {
        vec![("elements", self.elements), ("steps", self.common()), ("longer", self.longer())]
    }

    fn label(&self) -> String {
        format!("{} at {} FLOP/B", crate::units::Capacity(8 * self.elements), self.steps as f64 / 32.0)
    }

    fn traffic(&self, precision: Precision) -> Option<Traffic> {
        Some(Traffic::through(self.elements, precision))
    }
}

/// Vectors of four elements that a lane holds: its chains are four times as many.
const VECTORS: Tunable = Tunable { name: "VECTORS", values: &[4, 2, 1] };
/// Invocations of a work-group in WGSL; those of one subgroup walk memory in order on software devices.
const WGSL_BLOCK: Tunable = Tunable { name: "BLOCK", values: &[64, 8, 256] };
/// The same in CUDA.
const BLOCK: Tunable = Tunable { name: "BLOCK", values: &[256, 128] };

/// A lane holds some vectors of four elements, BLOCK vectors apart; the host some registers.
const CHAINS: Variant<Ramp> = Variant {
    name: "chains",
    unit: Unit::Vector,
    sources: &[
        Implementation {
            source: Source::Host(host::ramp::chains),
            precisions: &[Precision::F32],
            tunables: &[host::ramp::CHAINS, host::ramp::STORE],
        },
        Implementation {
            source: Source::Wgsl(include_str!("../../shaders/ramp/chains.wgsl")),
            precisions: &[Precision::F32],
            tunables: &[VECTORS, WGSL_BLOCK],
        },
        Implementation {
            source: Source::Cuda(include_str!("../../kernels/ramp/chains.cu")),
            precisions: &[Precision::F32],
            tunables: &[VECTORS, BLOCK],
        },
    ],
    dispatches: |p, s| {
        let vectors = s.tuned.0.get("VECTORS").copied().unwrap_or(1) as u64;
        let block = s.tuned.0.get("BLOCK").copied().unwrap_or(1);
        vec![Dispatch::over(3, "ramp", fold(p.elements.div_ceil(4 * vectors * block as u64)), [block, 1, 1])]
    },
    // Replaced by `traffic`.
    demand: |_, _| Demand::new(0, 0),
};
