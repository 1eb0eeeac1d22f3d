//! What a dispatch costs that does nothing: a chain of them, each of which adds one to a number.
//!
//! The first takes the number from the input, the last leaves it in the output, and one more or fewer shows in the value. A dispatch waits
//! for the one before it, as those of a real call do. Its time is a slope: that of many dispatches less that of few, which takes the
//! cost of a call and of reading the clock away.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Definition, Entry, OpRole, Real, TensorSpec, Tensors, Traffic, parse_over};
use crate::error::{Error, Result};
use crate::host;
use crate::plan::{Arg, Demand, Dispatch, Implementation, Precision, Source, Tunable, Unit, Variant};

/// A call of so many dispatches.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Launch {
    /// Dispatches of a call: 2 at least, 2^16 at most, so that their number stays exact.
    pub dispatches: u64,
}

/// Dispatches at most.
const MOST: u64 = 1 << 16;

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: Launch::NAME,
    role: OpRole::Probe,
    fields: &["dispatches"],
    parse: |fields| parse_over(ENTRY.fields, &Launch { dispatches: 16 }, fields),
    awkward: || [2u64, 3, 17].iter().map(|dispatches| json!({"dispatches": dispatches})).collect(),
};

impl Definition for Launch {
    const NAME: &'static str = "launch";
    const ROLE: OpRole = OpRole::Probe;
    const VARIANTS: &'static [Variant<Self>] = &[COUNTED];

    fn tensors(&self, precision: Precision) -> Result<Vec<TensorSpec>> {
        let dtype = precision.storage();
        if !(2..=MOST).contains(&self.dispatches) {
            return Err(Error::usage(format!("launch: {} dispatches are not in 2 to {MOST}; choose some that are", self.dispatches)));
        }
        Ok(vec![TensorSpec::input("x", &[1], dtype), TensorSpec::output("y", &[1], dtype)])
    }

    fn macs(&self) -> u64 {
        0
    }

    fn row<R: Real, T: Tensors>(&self, x: &T, _row: u64, cols: Range<u64>, out: &mut [R]) {
        for (y, i) in out.iter_mut().zip(cols) {
            *y = (1..self.dispatches).fold(x.at(0, i), |count: R, _| count.plus(R::from_f64(1.0)));
        }
    }

    fn dims(&self) -> Vec<(&'static str, u64)> {
        vec![("dispatches", self.dispatches)]
    }

    /// The input has at most six bits behind the point.
    fn exact(&self) -> bool {
        true
    }

    fn label(&self) -> String {
        format!("{} dispatches", self.dispatches)
    }

    fn traffic(&self, precision: Precision) -> Option<Traffic> {
        Some(Traffic::through(self.dispatches, precision))
    }
}

/// Invocations of the one work-group; the first of them alone does something.
const BLOCK: Tunable = Tunable { name: "BLOCK", values: &[64, 32, 256] };

/// `first`, `next` as often as is left, `last`.
const COUNTED: Variant<Launch> = Variant {
    name: "counted",
    unit: Unit::Memory,
    sources: &[
        Implementation { source: Source::Host(host::launch::counted), precisions: &[Precision::F32], tunables: &[] },
        Implementation {
            source: Source::Wgsl(include_str!("../../shaders/launch/counted.wgsl")),
            precisions: &[Precision::F32],
            tunables: &[BLOCK],
        },
        Implementation {
            source: Source::Cuda(include_str!("../../kernels/launch/counted.cu")),
            precisions: &[Precision::F32],
            tunables: &[BLOCK],
        },
    ],
    dispatches: |p, s| {
        let block = s.tuned.0.get("BLOCK").copied().unwrap_or(1);
        let dispatch = |entry, args: &[Arg], reads: usize, writes: usize| {
            let args = args.iter().copied().chain([Arg::Scratch(0), Arg::Dims]).collect();
            Dispatch { args, reads: vec![reads], writes: vec![writes], ..Dispatch::over(2, entry, [1, 1, 1], [block, 1, 1]) }
        };
        let count = TensorSpec::scratch("count", &[1], s.precision.storage());
        let first = Dispatch { scratch: vec![count], ..dispatch("first", &[Arg::Tensor(0)], 0, 2) };
        let next = (2..p.dispatches).map(|_| dispatch("next", &[], 2, 2));
        [first].into_iter().chain(next).chain([dispatch("last", &[Arg::Tensor(1)], 2, 1)]).collect()
    },
    // Replaced by `traffic`.
    demand: |_, _| Demand::new(0, 0),
};
