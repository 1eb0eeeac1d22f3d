//! A plan is everything a backend needs to run one variant on one problem, as plain data that prints as JSON.
//!
//! Ops know no backends and backends know no ops; they meet here. A [`Variant`] is one table entry of an op: its sources (at
//! most one a language), its tunables and two functions that lay out its dispatches and count its traffic. [`Plan::of`] turns
//! it into text, shapes and numbers.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::host::Call;
use crate::op::{DType, Definition, Role, TensorSpec};

mod cost;
mod custom;
mod device;
mod grid;
mod library;
mod render;
mod transfer;
mod variant;

pub use cost::Cost;
pub use custom::Custom;
pub use device::{DeviceInfo, DeviceKind, Limits, Sensors};
pub use grid::Grid;
pub use library::{Conv, FilterLayout, Gemm, Library, LibraryCall, Routine};
pub(crate) use render::written_out;
pub use render::{coop_feature, fnv1a};
pub use transfer::Direction;
pub use variant::{Demand, Implementation, Language, Precision, Setting, Source, SourceInfo, Tunable, Tuned, Unit, Variant, VariantInfo};

/// One argument of a dispatch, in binding order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Arg {
    /// Tensor number i.
    Tensor(usize),
    /// Scratch number i, which lies behind the tensors: WGSL binds it as number `tensors + i`.
    Scratch(usize),
    /// The sizes, as a uniform buffer (WGSL) or a by-value struct (CUDA).
    Dims,
    /// Tensor number `tensor`, read as a matrix of its last extent's columns, by the unit of CUDA devices that copies boxes of it: `rows`
    /// by `columns`, a line's 128 bytes exchanged in units of 16 by its number.
    Map {
        /// The tensor.
        tensor: usize,
        /// Rows of a box.
        rows: u32,
        /// Columns of a box.
        columns: u32,
    },
}

/// One launch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Dispatch {
    /// Entry point in the source.
    pub entry: Cow<'static, str>,
    /// Work-groups.
    pub grid: [u32; 3],
    /// Invocations of a group.
    pub block: [u32; 3],
    /// Statically declared workgroup (shared) memory in bytes, which wgpu 30 does not check itself.
    pub shared_bytes: u32,
    /// Shared memory given at launch on top of what is declared; CUDA alone has it, and past 48 KiB no other kind.
    pub dynamic_bytes: u32,
    /// Arguments: by default every tensor, then `Dims`.
    pub args: Vec<Arg>,
    /// Tensors it reads; scratch i counts as number `tensors + i`.
    pub reads: Vec<usize>,
    /// Tensors it writes, counted likewise.
    pub writes: Vec<usize>,
    /// Scratch that it is the first of a call's launches to use: numbers go on from those of earlier launches.
    pub scratch: Vec<TensorSpec>,
}

impl Dispatch {
    /// A launch over all tensors: the last is written, the others are read, `Dims` follows.
    pub fn over(tensors: usize, entry: impl Into<Cow<'static, str>>, grid: [u32; 3], block: [u32; 3]) -> Self {
        let args = (0..tensors).map(Arg::Tensor).chain([Arg::Dims]).collect();
        let reads = (0..tensors - 1).collect();
        let writes = vec![tensors - 1];
        let entry = entry.into();
        Dispatch { entry, grid, block, shared_bytes: 0, dynamic_bytes: 0, args, reads, writes, scratch: Vec::new() }
    }

    /// A call of a library, or a copy, over all tensors: the last is written. How many groups it launches is not known.
    pub fn library(tensors: usize, entry: &'static str) -> Self {
        Dispatch::over(tensors, entry, [0; 3], [0; 3])
    }

    /// Work-groups in all; 0 where they are not known.
    pub fn groups(&self) -> u64 {
        self.grid.iter().map(|&g| g as u64).product()
    }
}

/// `groups` folded into two dimensions below every API's 65,535; kernels compute `y · grid.x + x` and guard the tail.
pub fn fold(groups: u64) -> [u32; 3] {
    let y = groups.div_ceil(32_768).max(1);
    let x = groups.div_ceil(y).max(1);
    [x.min(u32::MAX as u64) as u32, y.min(u32::MAX as u64) as u32, 1]
}

/// Work-groups along an axis of that extent, a tile each.
pub const fn tiles(extent: u64, tile: u64) -> u32 {
    let count = extent.div_ceil(tile);
    if count > u32::MAX as u64 { u32::MAX } else { count as u32 }
}

/// The program of a plan.
#[derive(Clone, Serialize)]
pub enum Code {
    /// A Rust closure over the problem.
    #[serde(skip)]
    Host(Arc<dyn Fn(&Call<'_>) + Send + Sync>),
    /// Rendered WGSL: one prefix on the first line, so line numbers are the file's own.
    Wgsl(String),
    /// CUDA C++ with its `-D` defines.
    Cuda {
        /// Text; its first line begins with the aliases `T` (storage) and `S` (sums) and the struct `Dims`.
        text: String,
        /// `NAME=value` pairs for `-D`.
        defines: Vec<String>,
    },
    /// A routine of a vendor's library.
    Library(LibraryCall),
    /// A copy of the first tensor to the last between host and device memory: one of them lies in page-locked host memory.
    Transfer(Direction),
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Code::Host(_) => f.write_str("Host"),
            Code::Wgsl(text) => write!(f, "Wgsl({} bytes)", text.len()),
            Code::Cuda { text, defines } => write!(f, "Cuda({} bytes, {defines:?})", text.len()),
            Code::Library(call) => write!(f, "{call:?}"),
            Code::Transfer(direction) => write!(f, "Transfer({direction:?})"),
        }
    }
}

/// Everything a backend needs to run one variant on one problem.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// Op's name.
    pub op: &'static str,
    /// The problem's fields.
    pub problem: Value,
    /// Variant's name.
    pub variant: Cow<'static, str>,
    /// Unit that does the arithmetic.
    pub unit: Unit,
    /// Number formats.
    pub precision: Precision,
    /// Language of `code`.
    pub language: Language,
    /// Chosen tunables.
    pub tuned: Tuned,
    /// Tensors in binding order.
    pub tensors: Vec<TensorSpec>,
    /// Memory that launches of one call hand on to each other: one for all sets, of arbitrary content between calls.
    pub scratch: Vec<TensorSpec>,
    /// Sizes for `Dims`.
    pub dims: Vec<(&'static str, u32)>,
    /// Launches of one call.
    pub dispatches: Vec<Dispatch>,
    /// Work of one call.
    pub cost: Cost,
    /// The program.
    pub code: Code,
    /// Whether the program is a user's own ([`Custom`]): held to the op's tensors, but not to our rules for registers.
    pub own: bool,
    /// Hash of the unrendered source text, recorded so that a changed kernel is seen (0 for Rust kernels, for which the executable's hash
    /// stands, for libraries, whose version stands in the facts, and for copies).
    pub source_hash: u64,
}

impl Plan {
    /// Lays out `variant` for `problem`.
    ///
    /// # Errors
    /// [`Error::Usage`] for an unknown tunable or value, [`Error::Unsupported`] where there is no source for this language and
    /// precision or a size does not fit the kernels' 32-bit indices, [`Error::OutOfMemory`] where scratch could never fit.
    pub fn of<P: Definition>(
        problem: &P,
        variant: &Variant<P>,
        precision: Precision,
        language: Language,
        tuned: &Tuned,
        device: &DeviceInfo,
    ) -> Result<Plan> {
        let named = format!("{}/{}", P::NAME, variant.name);
        let found = variant.sources.iter().find(|s| s.source.language() == language);
        let &Implementation { ref source, precisions, tunables } =
            found.ok_or_else(|| Error::unsupported(&named, format!("a {language:?} source"), "none"))?;
        if !precisions.contains(&precision) {
            let have: Vec<_> = precisions.iter().map(|p| p.name()).collect();
            return Err(Error::unsupported(&named, format!("precision {precision}"), format!("it in {}", have.join(", "))));
        }
        let tuned = checked_tunables(&named, tunables, tuned)?;
        let tensors = Definition::tensors(problem, precision)?;
        for tensor in &tensors {
            crate::op::checked_shape(P::NAME, tensor.name, &tensor.shape)?;
        }
        let setting = Setting { tuned: &tuned, device, language, precision };
        problem.fits(variant.name, &setting)?;
        let dispatches = (variant.dispatches)(problem, &setting);
        let scratch: Vec<TensorSpec> = dispatches.iter().flat_map(|d| d.scratch.clone()).collect();
        let memory: Vec<TensorSpec> = tensors.iter().chain(&scratch).cloned().collect();
        let dims = checked_dims(&named, problem.dims(), &memory, language)?;
        let (code, source_hash) = render::render(problem, source, precision, tunables, &tuned, &dims, &tensors);
        // Nobody knows what a library's groups load.
        let demand = if matches!(code, Code::Library(_)) { None } else { Some((variant.demand)(problem, &setting)) };
        let mut cost = cost::of(problem, precision, &memory, &dispatches, demand);
        if let Code::Library(call) = &code {
            cost.workspace += call.workspace;
        }
        checked_scratch(&named, &memory, device)?;
        Ok(Plan {
            op: P::NAME,
            problem: serde_json::to_value(problem).unwrap_or(Value::Null),
            variant: variant.name.into(),
            unit: variant.unit,
            precision,
            language,
            tuned,
            tensors,
            scratch,
            dims,
            dispatches,
            cost,
            code,
            own: false,
            source_hash,
        })
    }

    /// The call of a vendor's library that it is, where it is no kernel.
    pub fn library(&self) -> Option<&LibraryCall> {
        match &self.code {
            Code::Library(call) => Some(call),
            _ => None,
        }
    }

    /// Number of the output tensor.
    pub fn output(&self) -> usize {
        self.tensors.iter().position(|t| t.role == Role::Output).unwrap_or(0)
    }

    /// The first feature that the program needs and this device lacks; only WGSL devices are asked.
    pub fn missing(&self, device: &DeviceInfo) -> Option<String> {
        let features = if self.language == Language::Wgsl { self.features() } else { Vec::new() };
        features.into_iter().find(|feature| !device.has(feature))
    }

    /// What a WGSL device must have for this program, by the names of [`DeviceInfo::features`]: its number formats, and what its text uses.
    pub fn features(&self) -> Vec<String> {
        let uses = |dtype: DType| self.precision.storage() == dtype || self.memory().any(|t| t.dtype == dtype);
        let formats = [(DType::F16, "shader-f16"), (DType::F64, "shader-f64")].into_iter().filter(|&(dtype, _)| uses(dtype));
        let mut features: Vec<_> = formats.map(|(_, feature)| feature.to_string()).collect();
        if let Code::Wgsl(text) = &self.code {
            features.extend(render::wgsl_extensions(text, self.precision));
        }
        features
    }

    /// Tensors, then scratch.
    pub fn memory(&self) -> impl Iterator<Item = &TensorSpec> {
        self.tensors.iter().chain(&self.scratch)
    }

    /// Bytes of one set: inputs, weights, outputs and scratch.
    pub fn set_bytes(&self) -> u64 {
        self.pool_bytes(1) + self.cost.workspace
    }

    /// Bytes that launches on `sets` sets rotate through: their tensors. Scratch is one for all.
    pub fn pool_bytes(&self, sets: u32) -> u64 {
        self.tensors.iter().map(TensorSpec::bytes).sum::<u64>().saturating_mul(sets as u64)
    }

    /// Sets that cold launches rotate through: more than twice a last-level cache of `llc_bytes`, two at least, in half of the device's memory
    /// at most.
    pub fn cold_sets(&self, device: &DeviceInfo, llc_bytes: u64) -> u32 {
        let each = self.pool_bytes(1).max(1);
        let fit = (device.memory_bytes / 2 / each).max(1);
        (2 * llc_bytes / each + 1).clamp(2, 4096).min(fit) as u32
    }
}

fn checked_tunables(named: &str, tunables: &'static [Tunable], chosen: &Tuned) -> Result<Tuned> {
    let mut tuned = Tuned::defaults(tunables);
    for (name, &value) in &chosen.0 {
        let known = tunables.iter().find(|t| t.name == name);
        let known = known.ok_or_else(|| Error::usage(format!("{named} has no tunable '{name}'")))?;
        if !known.values.contains(&value) {
            return Err(Error::usage(format!("{named}: {name}={value} is not one of {:?}", known.values)));
        }
        tuned.0.insert(name.clone(), value);
    }
    Ok(tuned)
}

fn checked_dims(
    named: &str,
    dims: Vec<(&'static str, u64)>,
    tensors: &[TensorSpec],
    language: Language,
) -> Result<Vec<(&'static str, u32)>> {
    if language != Language::Host {
        for tensor in tensors {
            if tensor.elements() > u32::MAX as u64 {
                return Err(Error::unsupported(
                    format!("{named}: tensor {}", tensor.name),
                    format!("{} elements", tensor.elements()),
                    "32-bit indices",
                ));
            }
        }
    }
    let narrow = |(name, value): (&'static str, u64)| match u32::try_from(value) {
        Ok(value) => Ok((name, value)),
        Err(_) => Err(Error::unsupported(format!("{named}: {name}"), value, u32::MAX)),
    };
    dims.into_iter().map(narrow).collect()
}

/// Refuses scratch that no device memory of this size holds beside the tensors.
fn checked_scratch(named: &str, memory: &[TensorSpec], device: &DeviceInfo) -> Result<()> {
    let Some(largest) = memory.iter().filter(|t| t.role == Role::Scratch).max_by_key(|t| t.bytes()) else { return Ok(()) };
    let need = memory.iter().fold(0u64, |sum, t| sum.saturating_add(t.bytes()));
    match need <= device.memory_bytes {
        true => Ok(()),
        false => {
            let what = format!("{named} with its {} of {:?}", largest.name, largest.shape);
            Err(Error::OutOfMemory { what, need, have: device.memory_bytes })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folded_grids_cover_all_groups_and_stay_below_the_limit() {
        for groups in [1, 2, 32_768, 32_769, 65_535, 65_536, 1_000_003, 1 << 30] {
            let [x, y, z] = fold(groups);
            assert!(x as u64 * y as u64 >= groups && x <= 65_535 && y <= 65_535 && z == 1, "{groups}: {x}x{y}");
        }
    }
}
