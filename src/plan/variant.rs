//! One table entry of an op: sources, tunables, layout and demand.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{DeviceInfo, Direction, Dispatch, Library, Routine};
use crate::host::Call;
use crate::op::DType;

/// The number formats of a kernel: storage, sums and output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// f32 in, sums and out.
    F32,
    /// f64 in, sums and out.
    F64,
    /// f16 in and out, f32 sums (the `fma` probe alone also sums in f16).
    F16,
    /// bf16 in and out, f32 sums.
    BF16,
    /// f32 in, sums and out; factors rounded to tf32's eleven bits.
    TF32,
    /// E4M3 in, f32 sums and outputs; of probes alone.
    Fp8,
    /// 8-bit integers in, 32-bit integer sums and outputs; of probes alone.
    Int8,
}

impl Precision {
    /// Every precision, in table order.
    pub const ALL: [Precision; 7] =
        [Precision::F32, Precision::F64, Precision::F16, Precision::BF16, Precision::TF32, Precision::Fp8, Precision::Int8];

    /// Type of inputs and outputs in memory; the outputs of fp8 and int8 have that of their sums.
    pub const fn storage(self) -> DType {
        match self {
            Precision::F32 | Precision::TF32 => DType::F32,
            Precision::F64 => DType::F64,
            Precision::F16 => DType::F16,
            Precision::BF16 => DType::BF16,
            Precision::Fp8 => DType::F8,
            Precision::Int8 => DType::I8,
        }
    }

    /// Type of sums.
    pub const fn sum(self) -> DType {
        match self {
            Precision::F32 | Precision::F16 | Precision::BF16 | Precision::TF32 | Precision::Fp8 => DType::F32,
            Precision::F64 => DType::F64,
            Precision::Int8 => DType::I32,
        }
    }

    /// Whether probes alone compute in it: no kernel is placed under its ceilings.
    pub const fn is_of_probes(self) -> bool {
        matches!(self, Precision::Fp8 | Precision::Int8)
    }

    /// Whether it computes in integers: its rates are of operations, not FLOPs.
    pub const fn is_integer(self) -> bool {
        self.storage().is_integer()
    }

    /// Name in commands and records.
    pub const fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::F64 => "f64",
            Precision::F16 => "f16",
            Precision::BF16 => "bf16",
            Precision::TF32 => "tf32",
            Precision::Fp8 => "fp8",
            Precision::Int8 => "int8",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The unit of the processor that does a variant's arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Ordinary multiply-add units, vector or scalar.
    Vector,
    /// Exponentials, on whatever computes them: a probe of their rate.
    Exp,
    /// No arithmetic to speak of: a bandwidth probe.
    Memory,
    /// Matrix units, a warp at a time, operands in registers (CUDA: `mma.sync`, compute capability 8.0 and later; in fp8 8.9, 12.0
    /// and later).
    Mma,
    /// Matrix units, four warps at a time, operands in shared memory (CUDA: `wgmma`, compute capability 9.0 only).
    Wgmma,
    /// Matrix units, a subgroup at a time, through WGSL's cooperative matrices.
    Coop,
    /// Whatever a vendor's library chooses: ordinary units in f32, matrix units in narrower types.
    Library,
}

impl Unit {
    /// Whether it takes matrices at a time, in their storage type; a library may, where there is such a unit for the type.
    pub const fn multiplies_matrices(self) -> bool {
        matches!(self, Unit::Mma | Unit::Wgmma | Unit::Coop | Unit::Library)
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Unit::Vector => "vector",
            Unit::Exp => "exp",
            Unit::Memory => "memory",
            Unit::Mma => "mma",
            Unit::Wgmma => "wgmma",
            Unit::Coop => "coop",
            Unit::Library => "library",
        })
    }
}

/// The language of a source, hence the kind of backend that runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Language {
    /// Rust, on the host backend.
    Host,
    /// WGSL, on the wgpu backend.
    Wgsl,
    /// CUDA C++, on the cuda backend.
    Cuda,
}

/// One source of a variant.
pub enum Source<P: 'static> {
    /// A Rust kernel, given the problem and a [`Call`].
    Host(fn(&P, &Call<'_>)),
    /// WGSL text.
    Wgsl(&'static str),
    /// CUDA C++ text.
    Cuda(&'static str),
    /// A routine of a vendor's library, on the cuda backend.
    Library(Library, fn(&P) -> Routine),
    /// A copy of the first tensor to the last between host and device memory, on the cuda backend.
    Transfer(fn(&P) -> Direction),
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Language::Host => "Rust",
            Language::Wgsl => "WGSL",
            Language::Cuda => "CUDA C++",
        })
    }
}

impl<P> Source<P> {
    pub(super) const fn language(&self) -> Language {
        match self {
            Source::Host(_) => Language::Host,
            Source::Wgsl(_) => Language::Wgsl,
            Source::Cuda(_) | Source::Library(..) | Source::Transfer(_) => Language::Cuda,
        }
    }
}

/// A variant in one language.
pub struct Implementation<P: 'static> {
    /// The program.
    pub source: Source<P>,
    /// Precisions it can be rendered in.
    pub precisions: &'static [Precision],
    /// What the search may choose; every one of them is used by the source.
    pub tunables: &'static [Tunable],
}

/// A constant of a kernel that the search may choose: rendered as `-DNAME=v` and `const NAME: u32 = vu;`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Tunable {
    /// Name in the sources.
    pub name: &'static str,
    /// Allowed values; the first is the default.
    pub values: &'static [u32],
}

/// Chosen values of a variant's tunables, by name.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Tuned(pub std::collections::BTreeMap<String, u32>);

impl Tuned {
    /// The defaults of these tunables.
    pub fn defaults(tunables: &[Tunable]) -> Self {
        Tuned(tunables.iter().map(|t| (t.name.to_string(), t.values[0])).collect())
    }

    /// Every choice of these tunables, defaults first.
    pub fn all(tunables: &[Tunable]) -> Vec<Self> {
        tunables.iter().fold(vec![Tuned::default()], |all, tunable| {
            let with = |value: u32, tuned: &Tuned| {
                let mut tuned = tuned.clone();
                tuned.0.insert(tunable.name.to_string(), value);
                tuned
            };
            tunable.values.iter().flat_map(|&value| all.iter().map(move |tuned| with(value, tuned))).collect()
        })
    }

    /// The value of a tunable that the variant declares; `Plan::of` has checked that all are there.
    pub fn get(&self, name: &str) -> u32 {
        self.0.get(name).copied().unwrap_or_else(|| panic!("tunable {name} is not declared by its variant"))
    }
}

/// Requested and lane bytes of one launch (METHODOLOGY.md, "Counting"), and its scratch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// Distinct bytes each work-group loads and stores, summed over groups.
    pub requested: u64,
    /// Bytes that all lanes' loads and stores name.
    pub lane: u64,
    /// Bytes of scratch beyond the tensors.
    pub workspace: u64,
}

impl Demand {
    /// None at all.
    pub const NONE: Demand = Demand::new(0, 0);

    /// That of a launch without scratch.
    pub const fn new(requested: u64, lane: u64) -> Self {
        Demand { requested, lane, workspace: 0 }
    }
}

/// What the layout functions of a variant may look at.
pub struct Setting<'a> {
    /// Chosen tunables.
    pub tuned: &'a Tuned,
    /// Device the plan is for.
    pub device: &'a DeviceInfo,
    /// Language of the chosen source.
    pub language: Language,
    /// Number formats.
    pub precision: Precision,
}

/// One rung of an op's ladder.
pub struct Variant<P: 'static> {
    /// Name in commands, records and file names.
    pub name: &'static str,
    /// Unit that does the arithmetic.
    pub unit: Unit,
    /// At most one a language.
    pub sources: &'static [Implementation<P>],
    /// Launches of one call, in order. The host ignores their grids.
    pub dispatches: fn(&P, &Setting<'_>) -> Vec<Dispatch>,
    /// Demand of one call. That of a library is not known: [`Demand::NONE`] stands there, and nobody looks at it.
    pub demand: fn(&P, &Setting<'_>) -> Demand,
}

/// Facts about a variant that do not depend on its problem type.
#[derive(Debug, Clone, Serialize)]
pub struct VariantInfo {
    /// Name.
    pub name: &'static str,
    /// Unit.
    pub unit: Unit,
    /// The languages it has a source for.
    pub sources: Vec<SourceInfo>,
}

/// Facts about a variant in one language.
#[derive(Debug, Clone, Serialize)]
pub struct SourceInfo {
    /// Language.
    pub language: Language,
    /// Precisions.
    pub precisions: &'static [Precision],
    /// Tunables.
    pub tunables: &'static [Tunable],
    /// Text as shipped, unrendered; empty for Rust, libraries and copies.
    #[serde(skip)]
    pub text: &'static str,
    /// The vendor's library that it calls, in place of a text of ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub library: Option<Library>,
    /// Whether it is a copy between host and device memory, in place of a text of ours.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub transfer: bool,
}

impl SourceInfo {
    /// Whether it is a text of ours, that a compiler takes and a mutant patches.
    pub fn is_text(&self) -> bool {
        self.language != Language::Host && self.library.is_none() && !self.transfer
    }
}

impl VariantInfo {
    /// Whether this variant has a source in `language` for `precision`.
    pub fn has(&self, language: Language, precision: Precision) -> bool {
        self.source(language).is_some_and(|s| s.precisions.contains(&precision))
    }

    /// The source in `language`.
    pub fn source(&self, language: Language) -> Option<&SourceInfo> {
        self.sources.iter().find(|s| s.language == language)
    }

    /// The vendor's library that it is a reference to, where it is none of ours.
    pub fn library(&self) -> Option<Library> {
        self.sources.iter().find_map(|source| source.library)
    }
}

impl<P> Variant<P> {
    /// The problem-independent facts.
    pub fn info(&self) -> VariantInfo {
        let sources = self.sources.iter().map(|s| SourceInfo {
            language: s.source.language(),
            precisions: s.precisions,
            tunables: s.tunables,
            text: match s.source {
                Source::Host(_) | Source::Library(..) | Source::Transfer(_) => "",
                Source::Wgsl(text) | Source::Cuda(text) => text,
            },
            library: match s.source {
                Source::Library(library, _) => Some(library),
                _ => None,
            },
            transfer: matches!(s.source, Source::Transfer(_)),
        });
        VariantInfo { name: self.name, unit: self.unit, sources: sources.collect() }
    }
}
