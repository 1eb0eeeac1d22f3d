//! The ceilings of the link between host and device: a copy out of page-locked host memory, or into it.
//!
//! Nothing is computed: the output is the input, to the bit. Up is what the device can be fed with, down what it can give back; which of its
//! two tensors lies in host memory meanwhile is the backend's business. Devices whose memory is the host's have no such probe.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Definition, Entry, OpRole, Real, TensorSpec, Tensors, Traffic, parse_over};
use crate::error::Result;
use crate::plan::{Demand, Direction, Dispatch, Implementation, Precision, Source, Unit, Variant};

/// A copy of `elements` f32 in one direction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transfer {
    /// Elements copied.
    pub elements: u64,
    /// Which way.
    pub direction: Direction,
}

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: Transfer::NAME,
    role: OpRole::Probe,
    fields: &["elements", "direction"],
    parse: |fields| parse_over(ENTRY.fields, &Transfer { elements: 1 << 20, direction: Direction::Up }, fields),
    awkward: || {
        let case = |elements: u64| Direction::ALL.map(|way| json!({"elements": elements, "direction": way.name()}));
        [1001, 1, 65_537].into_iter().flat_map(case).collect()
    },
};

impl Definition for Transfer {
    const NAME: &'static str = "transfer";
    const ROLE: OpRole = OpRole::Probe;
    const VARIANTS: &'static [Variant<Self>] = &[COPIED];

    fn tensors(&self, precision: Precision) -> Result<Vec<TensorSpec>> {
        let dtype = precision.storage();
        Ok(vec![TensorSpec::input("x", &[self.elements], dtype), TensorSpec::output("y", &[self.elements], dtype)])
    }

    fn macs(&self) -> u64 {
        0
    }

    fn row<R: Real, T: Tensors>(&self, x: &T, _row: u64, cols: Range<u64>, out: &mut [R]) {
        for (y, i) in out.iter_mut().zip(cols) {
            *y = x.at(0, i);
        }
    }

    fn dims(&self) -> Vec<(&'static str, u64)> {
        vec![("elements", self.elements)]
    }

    fn exact(&self) -> bool {
        true
    }

    fn label(&self) -> String {
        format!("{} {}", self.elements, self.direction.name())
    }

    /// What crosses the link, once: read from the host, or written to it.
    fn traffic(&self, precision: Precision) -> Option<Traffic> {
        let bytes = self.elements * precision.storage().bytes();
        Some(match self.direction {
            Direction::Up => Traffic { read: bytes, written: 0 },
            Direction::Down => Traffic { read: 0, written: bytes },
        })
    }
}

/// One copy a call, by the device's copy engine.
const COPIED: Variant<Transfer> = Variant {
    name: "copied",
    unit: Unit::Memory,
    sources: &[Implementation { source: Source::Transfer(|p| p.direction), precisions: &[Precision::F32], tunables: &[] }],
    dispatches: |_, _| vec![Dispatch::library(2, "copied")],
    // Replaced by `traffic`.
    demand: |_, _| Demand::NONE,
};
