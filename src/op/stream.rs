//! Memory bandwidth: read, write, copy and triad over a working set, several passes in one launch.
//!
//! Pass p uses the scalar `s + p·δ`, loaded at run time, so that no pass can be hoisted out of the launch. `write`, `copy` and
//! `triad` leave the last pass behind. `read` leaves one sum a part, `Σ_p 2^(p+1−passes) (s + p·δ) Σ a`: halving the total before
//! each pass keeps it bounded however many passes there are. STREAM's rules hold: write-allocate traffic is not counted.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Definition, Entry, OpRole, Real, TensorSpec, Tensors, Traffic, parse_over};
use crate::error::{Error, Result};
use crate::host;
use crate::plan::{Demand, Dispatch, Implementation, Language, Precision, Source, Tunable, Unit, Variant, fold};

/// Which streams a pass has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `Σ s·a[i]`.
    Read,
    /// `out[i] = s`.
    Write,
    /// `out[i] = s·a[i]`.
    Copy,
    /// `out[i] = b[i] + s·a[i]`.
    Triad,
}

impl Kind {
    /// All kinds.
    pub const ALL: [Kind; 4] = [Kind::Read, Kind::Write, Kind::Copy, Kind::Triad];

    /// Arrays read and written.
    pub const fn arrays(self) -> (u64, u64) {
        match self {
            Kind::Read => (1, 0),
            Kind::Write => (0, 1),
            Kind::Copy => (1, 1),
            Kind::Triad => (2, 1),
        }
    }

    /// Name in records.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Read => "read",
            Kind::Write => "write",
            Kind::Copy => "copy",
            Kind::Triad => "triad",
        }
    }
}

/// `passes` passes of one kind over arrays of `elements` f32.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// Which streams.
    pub kind: Kind,
    /// Elements of each array.
    pub elements: u64,
    /// Passes over the arrays in one launch.
    pub passes: u64,
    /// `read` alone: contiguous, equal parts (the last may be shorter), each with a sum of its own.
    pub parts: u64,
}

impl Stream {
    /// Bytes of all arrays together.
    pub fn working_set(&self) -> u64 {
        let (read, written) = self.kind.arrays();
        (read + written) * self.elements * 4
    }

    /// Elements of a part of `read`.
    pub fn part(&self) -> u64 {
        self.elements.div_ceil(self.parts.max(1))
    }
}

/// The first pass's scalar.
pub const SCALAR: f64 = 1.0;
/// What the scalar grows by from pass to pass.
pub const STEP: f64 = 1.0 / 1024.0;

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: Stream::NAME,
    role: OpRole::Probe,
    fields: &["kind", "elements", "passes", "parts"],
    parse: |fields| parse_over(ENTRY.fields, &Stream { kind: Kind::Triad, elements: 1 << 20, passes: 1, parts: 64 }, fields),
    awkward: || {
        let sizes = [(1u64, 1u64, 1u64), (37, 3, 5), (1000, 2, 7), (65_537, 3, 64), (12_345, 1, 12_345), (19_501, 2, 3)];
        let case = |kind: Kind| move |(elements, passes, parts): &(u64, u64, u64)| json!({"kind": kind.name(), "elements": elements, "passes": passes, "parts": parts});
        Kind::ALL.iter().flat_map(|&kind| sizes.iter().map(case(kind)).collect::<Vec<_>>()).collect()
    },
};

impl Definition for Stream {
    const NAME: &'static str = "stream";
    const ROLE: OpRole = OpRole::Probe;
    const VARIANTS: &'static [Variant<Self>] = &[LINEAR];

    /// `coef`, `out`, then the arrays that are read, so that one source serves all kinds.
    fn tensors(&self, precision: Precision) -> Result<Vec<TensorSpec>> {
        let dtype = precision.storage();
        if self.passes == 0 || self.parts == 0 || self.parts > self.elements {
            return Err(Error::usage(format!(
                "stream: passes {} and parts {} must be at least 1, and parts at most elements ({})",
                self.passes, self.parts, self.elements
            )));
        }
        let out = if self.kind == Kind::Read { self.parts } else { self.elements };
        let mut tensors = vec![TensorSpec::scalars("coef", &[SCALAR, STEP], dtype), TensorSpec::output("out", &[out], dtype)];
        for name in ["a", "b"].iter().take(self.kind.arrays().0 as usize) {
            tensors.push(TensorSpec::input(name, &[self.elements], dtype));
        }
        Ok(tensors)
    }

    fn macs(&self) -> u64 {
        match self.kind {
            Kind::Write => 0,
            _ => self.elements,
        }
    }

    fn row<R: Real, T: Tensors>(&self, x: &T, _row: u64, cols: Range<u64>, out: &mut [R]) {
        let (s, delta): (R, R) = (x.at(0, 0), x.at(0, 1));
        let half = R::from_f64(0.5);
        let (mut last, mut weight) = (s, s);
        for _ in 1..self.passes {
            last = last.plus(delta);
            weight = weight.times(half).plus(last);
        }
        for (y, i) in out.iter_mut().zip(cols) {
            *y = match self.kind {
                Kind::Write => last,
                Kind::Copy => R::from_f64(0.0).mac(last, x.at(2, i)),
                Kind::Triad => x.at::<R>(3, i).mac(last, x.at(2, i)),
                Kind::Read => {
                    let part = i * self.part()..((i + 1) * self.part()).min(self.elements);
                    part.fold(R::from_f64(0.0), |sum, j| sum.mac(weight, x.at(2, j)))
                }
            };
        }
    }

    fn dims(&self) -> Vec<(&'static str, u64)> {
        vec![("elements", self.elements), ("passes", self.passes), ("parts", self.parts), ("part", self.part())]
    }

    /// The scalar has at most 14 bits up to 4096 passes, an exact draw 8.
    fn exact(&self) -> bool {
        self.kind != Kind::Read && self.passes <= 4096
    }

    fn uniform(&self) -> bool {
        self.kind == Kind::Write
    }

    fn label(&self) -> String {
        format!("{} {} x{}", self.kind.name(), crate::units::Capacity(self.working_set()), self.passes)
    }

    fn traffic(&self, precision: Precision) -> Option<Traffic> {
        let (read, written) = self.kind.arrays();
        let bytes = self.elements * self.passes * precision.storage().bytes();
        Some(Traffic { read: read * bytes, written: written * bytes })
    }
}

/// Invocations of a work-group on devices.
const BLOCK: Tunable = Tunable { name: "BLOCK", values: &[256, 64, 128] };
/// The same in WGSL. A software device runs a group as one subgroup of eight lanes after another, each through the whole part:
/// only a block of one subgroup walks memory in order there.
const WGSL_BLOCK: Tunable = Tunable { name: "BLOCK", values: &[64, 8, 256] };

/// Entry point of a kind. WGSL has a word `read` of its own, which a function of that name would hide.
const fn entry(kind: Kind, language: Language) -> &'static str {
    match (language, kind) {
        (Language::Wgsl, Kind::Read) => "stream_read",
        (Language::Wgsl, Kind::Write) => "stream_write",
        (Language::Wgsl, Kind::Copy) => "stream_copy",
        (Language::Wgsl, Kind::Triad) => "stream_triad",
        _ => kind.name(),
    }
}

/// Every worker (host: thread; device: work-group) walks a contiguous part, pass after pass.
const LINEAR: Variant<Stream> = Variant {
    name: "linear",
    unit: Unit::Memory,
    sources: &[
        Implementation {
            source: Source::Host(host::stream::linear),
            precisions: &[Precision::F32],
            tunables: &[host::stream::STORE, host::stream::UNROLL, host::stream::ABREAST],
        },
        Implementation {
            source: Source::Wgsl(include_str!("../../shaders/stream/linear.wgsl")),
            precisions: &[Precision::F32],
            tunables: &[WGSL_BLOCK],
        },
        Implementation {
            source: Source::Cuda(include_str!("../../kernels/stream/linear.cu")),
            precisions: &[Precision::F32],
            tunables: &[BLOCK],
        },
    ],
    dispatches: |p, s| {
        // One work-group a part; the output is tensor 1, the arrays that are read follow it.
        let tensors = 2 + p.kind.arrays().0 as usize;
        let block = s.tuned.0.get("BLOCK").copied().unwrap_or(1);
        let mut dispatch = Dispatch::over(tensors, entry(p.kind, s.language), fold(p.parts), [block, 1, 1]);
        // `read` alone sums its lanes in workgroup memory; the module declares it for all.
        dispatch.shared_bytes = block * s.precision.storage().bytes() as u32;
        dispatch.reads = (0..tensors).filter(|&t| t != 1).collect();
        dispatch.writes = vec![1];
        vec![dispatch]
    },
    // Replaced by `traffic`.
    demand: |_, _| Demand::new(0, 0),
};
