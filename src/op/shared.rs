//! The ceiling of shared memory: groups read one tile of it again and again, 16 bytes a lane at a time, without bank conflicts.
//!
//! Each pass reads the whole tile, one vector further on for every lane, so that no load is the same in two passes; all that is read is
//! summed, and a group's sum stored. The host has no such memory.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Definition, Entry, OpRole, Real, TensorSpec, Tensors, Traffic, parse_over};
use crate::draw::mix;
use crate::error::{Error, Result};
use crate::plan::{Demand, Dispatch, Implementation, Precision, Source, Tunable, Unit, Variant, fold};

/// `groups` that each read the same tile `passes` times.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shared {
    /// Work-groups.
    pub groups: u64,
    /// Passes over the tile; a multiple of 8, so that kernels unroll without a tail, and 4096 at most, so that a lane's sums stay exact.
    pub passes: u64,
}

/// Elements of the tile: 512 vectors of 16 bytes.
const TILE: u64 = 2048;
/// Passes at most.
const MOST: u64 = 4096;

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: Shared::NAME,
    role: OpRole::Probe,
    fields: &["groups", "passes"],
    parse: |fields| parse_over(ENTRY.fields, &Shared { groups: 4, passes: 8 }, fields),
    awkward: || [(1u64, 8u64), (3, 16), (7, 40)].iter().map(|(groups, passes)| json!({"groups": groups, "passes": passes})).collect(),
};

impl Definition for Shared {
    const NAME: &'static str = "shared";
    const ROLE: OpRole = OpRole::Probe;
    const VARIANTS: &'static [Variant<Self>] = &[ROTATED];

    /// The tile holds multiples of 1/64 from 1 up to 2, so that no sum forgives what is left out.
    fn tensors(&self, precision: Precision) -> Result<Vec<TensorSpec>> {
        if !(1..=MOST).contains(&self.passes) || !self.passes.is_multiple_of(8) {
            return Err(Error::usage(format!("shared: {} passes are no multiple of 8 up to {MOST}; choose one", self.passes)));
        }
        let dtype = precision.storage();
        let tile: Vec<f64> = (0..TILE as u32).map(|i| 1.0 + (mix(i) >> 26) as f64 / 64.0).collect();
        Ok(vec![TensorSpec::scalars("x", &tile, dtype), TensorSpec::output("y", &[self.groups], dtype)])
    }

    fn macs(&self) -> u64 {
        self.groups * TILE
    }

    fn row<R: Real, T: Tensors>(&self, x: &T, _row: u64, cols: Range<u64>, out: &mut [R]) {
        let passes = R::from_f64(self.passes as f64);
        for (y, _) in out.iter_mut().zip(cols) {
            *y = (0..TILE).fold(R::from_f64(0.0), |sum, i| sum.mac(passes, x.at(0, i)));
        }
    }

    /// Sums, whose factor one is.
    fn flops(&self) -> u64 {
        0
    }

    fn dims(&self) -> Vec<(&'static str, u64)> {
        vec![("groups", self.groups), ("passes", self.passes)]
    }

    fn uniform(&self) -> bool {
        true
    }

    fn label(&self) -> String {
        format!("{} groups x{}", self.groups, self.passes)
    }

    /// What is read of shared memory, and the sums.
    fn traffic(&self, precision: Precision) -> Option<Traffic> {
        let bytes = precision.storage().bytes();
        Some(Traffic { read: self.groups * self.passes * TILE * bytes, written: self.groups * bytes })
    }
}

/// Invocations of a work-group.
const BLOCK: Tunable = Tunable { name: "BLOCK", values: &[256, 128, 512, 64] };
/// Passes of one trip of the loop.
const UNROLL: Tunable = Tunable { name: "UNROLL", values: &[2, 1, 4, 8] };
/// The same in WGSL: a software device takes a quarter of a second to compile each.
const WGSL_BLOCK: Tunable = Tunable { name: "BLOCK", values: &[256, 64, 128] };
const WGSL_UNROLL: Tunable = Tunable { name: "UNROLL", values: &[2, 1, 4] };

/// A group loads the tile once; lane l then reads vector l + pass of every BLOCK of them.
const ROTATED: Variant<Shared> = Variant {
    name: "rotated",
    unit: Unit::Memory,
    sources: &[
        Implementation {
            source: Source::Wgsl(include_str!("../../shaders/shared/rotated.wgsl")),
            precisions: &[Precision::F32],
            tunables: &[WGSL_BLOCK, WGSL_UNROLL],
        },
        Implementation {
            source: Source::Cuda(include_str!("../../kernels/shared/rotated.cu")),
            precisions: &[Precision::F32],
            tunables: &[BLOCK, UNROLL],
        },
    ],
    dispatches: |p, s| {
        let block = s.tuned.0.get("BLOCK").copied().unwrap_or(1);
        let shared_bytes = (TILE as u32 + block) * s.precision.storage().bytes() as u32;
        vec![Dispatch { shared_bytes, ..Dispatch::over(2, "rotated", fold(p.groups), [block, 1, 1]) }]
    },
    // Replaced by `traffic`.
    demand: |_, _| Demand::new(0, 0),
};
