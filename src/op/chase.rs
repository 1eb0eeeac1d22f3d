//! How long a load takes that waits for the one before it: one lane goes from line to line of a [`Cycle`] drawn into memory.
//!
//! A launch ends at the line and after the whole turns that its number of hops asks for, both known without walking (see [`Cycle`]), so
//! one hop more or fewer shows. Lines are of 128 bytes: what GPUs cache together, and two lines of most CPUs, which like to fetch such
//! pairs. What is loaded is added to a base: one add in the load's own address.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Definition, Entry, OpRole, Real, TensorSpec, Tensors, Traffic, parse_over};
use crate::draw::{Cycle, Fill};
use crate::error::{Error, Result};
use crate::host;
use crate::plan::{Demand, Dispatch, Implementation, Precision, Source, Unit, Variant};

/// So many hops through a cycle of so many lines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Chase {
    /// Lines of 128 bytes, hence the working set: a power of two, 2 to 2^20.
    pub lines: u64,
    /// Loads that wait for each other; a multiple of 16, so that kernels unroll without a tail; 2^22 at most.
    pub hops: u64,
}

/// Elements of a line.
const LINE: u64 = 32;
/// Bytes of a line.
pub const LINE_BYTES: u64 = 4 * LINE;
/// Lines at most: a line's number stays exact in f32.
pub const MOST_LINES: u64 = 1 << 20;
/// Hops that kernels unroll.
pub const UNROLLED: u64 = 16;
/// Hops of a launch at most: two seconds of the slowest memory.
const MOST_HOPS: u64 = 1 << 22;

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: Chase::NAME,
    role: OpRole::Probe,
    fields: &["lines", "hops"],
    parse: |fields| parse_over(ENTRY.fields, &Chase { lines: 1024, hops: 4096 }, fields),
    awkward: || {
        let cases = [(2u64, 16u64), (16, 16), (16, 64), (64, 80), (512, 4112), (1024, 1024), (4096, 1008)];
        cases.iter().map(|(lines, hops)| json!({"lines": lines, "hops": hops})).collect()
    },
};

impl Chase {
    fn cycle(&self) -> Cycle {
        Cycle { line: LINE as u32, lines: self.lines as u32 }
    }
}

impl Definition for Chase {
    const NAME: &'static str = "chase";
    const ROLE: OpRole = OpRole::Probe;
    const VARIANTS: &'static [Variant<Self>] = &[CYCLE];

    fn tensors(&self, precision: Precision) -> Result<Vec<TensorSpec>> {
        let (lines, hops) = (self.lines, self.hops);
        if !lines.is_power_of_two() || !(2..=MOST_LINES).contains(&lines) {
            return Err(Error::usage(format!("chase: {lines} lines are no power of two in 2 to {MOST_LINES}; choose one")));
        }
        if !(UNROLLED..=MOST_HOPS).contains(&hops) || !hops.is_multiple_of(UNROLLED) {
            return Err(Error::usage(format!("chase: {hops} hops are no multiple of {UNROLLED} up to {MOST_HOPS}; choose one")));
        }
        let dtype = precision.storage();
        let x = TensorSpec { fill: Fill::Cycle(self.cycle()), ..TensorSpec::input("x", &[lines, LINE], dtype) };
        Ok(vec![x, TensorSpec::output("y", &[2], dtype)])
    }

    fn macs(&self) -> u64 {
        0
    }

    /// The line that the hops end at, and how often they came back to the first.
    fn row<R: Real, T: Tensors>(&self, _x: &T, _row: u64, cols: Range<u64>, out: &mut [R]) {
        let place = self.cycle().place((self.hops % self.lines) as u32);
        for (y, i) in out.iter_mut().zip(cols) {
            *y = R::from_f64(if i == 0 { place as f64 } else { (self.hops / self.lines) as f64 });
        }
    }

    fn dims(&self) -> Vec<(&'static str, u64)> {
        vec![("line", LINE_BYTES), ("hops", self.hops)]
    }

    fn exact(&self) -> bool {
        true
    }

    fn label(&self) -> String {
        format!("{} hops in {}", self.hops, crate::units::Capacity(self.lines * LINE_BYTES))
    }

    fn traffic(&self, precision: Precision) -> Option<Traffic> {
        let bytes = precision.storage().bytes();
        Some(Traffic { read: self.hops * bytes, written: 2 * bytes })
    }
}

/// One lane; the host's is a thread, and the others wait.
const CYCLE: Variant<Chase> = Variant {
    name: "cycle",
    unit: Unit::Memory,
    sources: &[
        Implementation { source: Source::Host(host::chase::cycle), precisions: &[Precision::F32], tunables: &[] },
        Implementation {
            source: Source::Wgsl(include_str!("../../shaders/chase/cycle.wgsl")),
            precisions: &[Precision::F32],
            tunables: &[],
        },
        Implementation { source: Source::Cuda(include_str!("../../kernels/chase/cycle.cu")), precisions: &[Precision::F32], tunables: &[] },
    ],
    dispatches: |_, _| vec![Dispatch::over(2, "walk", [1, 1, 1], [1, 1, 1])],
    // Replaced by `traffic`.
    demand: |_, _| Demand::new(0, 0),
};
