//! A plan is everything a backend needs to run one variant on one problem, as plain data that prints as JSON.
//!
//! Ops know no backends and backends know no ops; they meet here. A [`Variant`] is one table entry of an op: its sources (at
//! most one a language), its tunables and two functions that lay out its dispatches and count its traffic. [`Plan::of`] turns
//! it into text, shapes and numbers.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::host::Call;
use crate::op::{DType, Definition, Role, TensorSpec};

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
}

impl Precision {
    /// Every precision, in table order.
    pub const ALL: [Precision; 3] = [Precision::F32, Precision::F64, Precision::F16];

    /// Type of inputs and outputs in memory.
    pub const fn storage(self) -> DType {
        match self {
            Precision::F32 => DType::F32,
            Precision::F64 => DType::F64,
            Precision::F16 => DType::F16,
        }
    }

    /// Type of sums.
    pub const fn sum(self) -> DType {
        match self {
            Precision::F32 | Precision::F16 => DType::F32,
            Precision::F64 => DType::F64,
        }
    }

    /// Name in commands and records.
    pub const fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::F64 => "f64",
            Precision::F16 => "f16",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// The unit of the processor that does a variant's arithmetic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Ordinary multiply-add units, vector or scalar.
    Vector,
    /// No arithmetic to speak of: a bandwidth probe.
    Memory,
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Unit::Vector => "vector",
            Unit::Memory => "memory",
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
}

impl<P> Source<P> {
    const fn language(&self) -> Language {
        match self {
            Source::Host(_) => Language::Host,
            Source::Wgsl(_) => Language::Wgsl,
            Source::Cuda(_) => Language::Cuda,
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

    /// The value of a tunable that the variant declares; `Plan::of` has checked that all are there.
    pub fn get(&self, name: &str) -> u32 {
        self.0.get(name).copied().unwrap_or_else(|| panic!("tunable {name} is not declared by its variant"))
    }
}

/// Requested and lane bytes of one launch (METHODOLOGY.md, "Counting").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Demand {
    /// Distinct bytes each work-group loads and stores, summed over groups.
    pub requested: u64,
    /// Bytes that all lanes' loads and stores name.
    pub lane: u64,
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
    /// Demand of one call.
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
    /// Text as shipped, unrendered; empty for Rust.
    #[serde(skip)]
    pub text: &'static str,
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
}

impl<P> Variant<P> {
    /// The problem-independent facts.
    pub fn info(&self) -> VariantInfo {
        let sources = self.sources.iter().map(|s| SourceInfo {
            language: s.source.language(),
            precisions: s.precisions,
            tunables: s.tunables,
            text: match s.source {
                Source::Host(_) => "",
                Source::Wgsl(text) | Source::Cuda(text) => text,
            },
        });
        VariantInfo { name: self.name, unit: self.unit, sources: sources.collect() }
    }
}

/// One argument of a dispatch, in binding order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Arg {
    /// Tensor number i.
    Tensor(usize),
    /// The sizes, as a uniform buffer (WGSL) or a by-value struct (CUDA).
    Dims,
}

/// One launch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Dispatch {
    /// Entry point in the source.
    pub entry: &'static str,
    /// Work-groups.
    pub grid: [u32; 3],
    /// Invocations of a group.
    pub block: [u32; 3],
    /// Statically declared workgroup (shared) memory in bytes, which wgpu 30 does not check itself.
    pub shared_bytes: u32,
    /// Arguments: by default every tensor, then `Dims`.
    pub args: Vec<Arg>,
    /// Tensors it reads.
    pub reads: Vec<usize>,
    /// Tensors it writes.
    pub writes: Vec<usize>,
}

impl Dispatch {
    /// A launch over all tensors: the last is written, the others are read, `Dims` follows.
    pub fn over(tensors: usize, entry: &'static str, grid: [u32; 3], block: [u32; 3]) -> Self {
        let args = (0..tensors).map(Arg::Tensor).chain([Arg::Dims]).collect();
        let reads = (0..tensors - 1).collect();
        Dispatch { entry, grid, block, shared_bytes: 0, args, reads, writes: vec![tensors - 1] }
    }

    /// Work-groups in all.
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

/// The work of one call. Multiply-adds and bytes are never mixed; METHODOLOGY.md, "Counting", says what each column means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Multiply-adds, padding taps included; softmax, scaling and index arithmetic not.
    pub macs: u64,
    /// Floating-point operations: 2 × MACs.
    pub flops: u64,
    /// Each tensor once at its storage width.
    pub compulsory: u64,
    /// The written part of `compulsory`.
    pub written: u64,
    /// Tensors that each dispatch reads and writes, summed.
    pub moved: u64,
    /// Distinct bytes each work-group loads and stores, summed.
    pub requested: u64,
    /// Bytes that all lanes name.
    pub lane: u64,
    /// Scratch memory beyond the tensors.
    pub workspace: u64,
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
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Code::Host(_) => f.write_str("Host"),
            Code::Wgsl(text) => write!(f, "Wgsl({} bytes)", text.len()),
            Code::Cuda { text, defines } => write!(f, "Cuda({} bytes, {defines:?})", text.len()),
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
    pub variant: &'static str,
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
    /// Sizes for `Dims`.
    pub dims: Vec<(&'static str, u32)>,
    /// Launches of one call.
    pub dispatches: Vec<Dispatch>,
    /// Work of one call.
    pub cost: Cost,
    /// The program.
    pub code: Code,
    /// Hash of the unrendered source text, recorded so that a changed kernel is seen (0 for Rust kernels: the executable's hash stands for them).
    pub source_hash: u64,
}

impl Plan {
    /// Lays out `variant` for `problem`.
    ///
    /// # Errors
    /// [`Error::Usage`] for an unknown tunable or value, [`Error::Unsupported`] where there is no source for this language and
    /// precision or a size does not fit the kernels' 32-bit indices.
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
            return Err(Error::unsupported(&named, format!("precision {precision}"), have.join(", ")));
        }
        let tuned = checked_tunables(&named, tunables, tuned)?;
        let tensors = Definition::tensors(problem, precision)?;
        for tensor in &tensors {
            crate::op::checked_shape(P::NAME, tensor.name, &tensor.shape)?;
        }
        let dims = checked_dims(&named, problem.dims(), &tensors, language)?;
        let setting = Setting { tuned: &tuned, device, language, precision };
        let dispatches = (variant.dispatches)(problem, &setting);
        let cost = cost_of(problem, precision, &tensors, &dispatches, (variant.demand)(problem, &setting));
        let (code, source_hash) = render(problem, source, precision, tunables, &tuned, &dims);
        Ok(Plan {
            op: P::NAME,
            problem: serde_json::to_value(problem).unwrap_or(Value::Null),
            variant: variant.name,
            unit: variant.unit,
            precision,
            language,
            tuned,
            tensors,
            dims,
            dispatches,
            cost,
            code,
            source_hash,
        })
    }

    /// Number of the output tensor.
    pub fn output(&self) -> usize {
        self.tensors.iter().position(|t| t.role == Role::Output).unwrap_or(0)
    }

    /// Bytes of one set: inputs, weights, outputs and scratch.
    pub fn set_bytes(&self) -> u64 {
        self.tensors.iter().map(TensorSpec::bytes).sum::<u64>() + self.cost.workspace
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

fn cost_of<P: Definition>(problem: &P, precision: Precision, tensors: &[TensorSpec], dispatches: &[Dispatch], demand: Demand) -> Cost {
    let macs = Definition::macs(problem);
    let flops = Definition::flops(problem);
    if let Some(traffic) = Definition::traffic(problem, precision) {
        let all = traffic.read + traffic.written;
        return Cost { macs, flops, compulsory: all, written: traffic.written, moved: all, requested: all, lane: all, workspace: 0 };
    }
    let bytes = |numbers: &[usize]| numbers.iter().map(|&t| tensors[t].bytes()).sum::<u64>();
    Cost {
        macs,
        flops,
        compulsory: tensors.iter().map(TensorSpec::bytes).sum(),
        written: tensors.iter().filter(|t| t.role == Role::Output).map(TensorSpec::bytes).sum(),
        moved: dispatches.iter().map(|d| bytes(&d.reads) + bytes(&d.writes)).sum(),
        requested: demand.requested,
        lane: demand.lane,
        workspace: 0,
    }
}

fn render<P: Definition>(
    problem: &P,
    source: &Source<P>,
    precision: Precision,
    tunables: &[Tunable],
    tuned: &Tuned,
    dims: &[(&'static str, u32)],
) -> (Code, u64) {
    match *source {
        Source::Host(kernel) => {
            let problem = problem.clone();
            (Code::Host(Arc::new(move |call: &Call<'_>| kernel(&problem, call))), 0)
        }
        Source::Wgsl(text) => (Code::Wgsl(wgsl(text, precision, tunables, tuned, dims)), fnv1a(text.as_bytes())),
        Source::Cuda(text) => {
            let names: Vec<_> = dims.iter().map(|(name, _)| *name).collect();
            let defines = tunables.iter().map(|t| format!("{}={}", t.name, tuned.get(t.name))).collect();
            // Aliases, not macros: NVRTC's own headers have templates over a T.
            let (storage, sum) = (cuda_type(precision.storage()), cuda_type(precision.sum()));
            let prefix = format!("using T = {storage}; using S = {sum}; struct Dims {{ unsigned {}; }};", names.join(", "));
            (Code::Cuda { text: format!("{prefix} {text}"), defines }, fnv1a(text.as_bytes()))
        }
    }
}

/// WGSL with its prefix on the first line: `enable f16;`, the aliases `T` (storage) and `S` (sums), tunables and `Dims`.
fn wgsl(text: &str, precision: Precision, tunables: &[Tunable], tuned: &Tuned, dims: &[(&'static str, u32)]) -> String {
    let mut prefix = String::new();
    if precision == Precision::F16 {
        prefix.push_str("enable f16; ");
    }
    prefix += &format!("alias T = {}; alias S = {}; ", wgsl_type(precision.storage()), wgsl_type(precision.sum()));
    for tunable in tunables {
        prefix += &format!("const {}: u32 = {}u; ", tunable.name, tuned.get(tunable.name));
    }
    let fields: Vec<_> = dims.iter().map(|(name, _)| format!("{name}: u32")).collect();
    format!("{prefix}struct Dims {{ {} }} {text}", fields.join(", "))
}

const fn wgsl_type(dtype: DType) -> &'static str {
    match dtype {
        DType::F64 => "f64",
        DType::F32 => "f32",
        DType::F16 => "f16",
    }
}

const fn cuda_type(dtype: DType) -> &'static str {
    match dtype {
        DType::F64 => "double",
        DType::F32 => "float",
        DType::F16 => "__half",
    }
}

/// 64-bit FNV-1a, for source and input hashes that must stay equal across versions of Rust.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ byte as u64).wrapping_mul(0x100_0000_01b3))
}

/// What kind of processor a device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// A CPU, or a software rasteriser on one: plumbing, not GPU performance.
    Cpu,
    /// A GPU.
    Gpu,
}

/// Limits of a device that plans are checked against.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Largest buffer or binding in bytes.
    pub binding_bytes: u64,
    /// Work-groups in one grid dimension.
    pub grid: u32,
    /// Invocations in a work-group.
    pub block: u32,
    /// Workgroup (shared) memory in bytes.
    pub shared_bytes: u32,
    /// Longest launch before a watchdog may step in, in nanoseconds; absent where there is none.
    pub launch_ns: Option<u64>,
    /// Most loop trips an invocation may run (old Mesa cuts at 65,535 without an error); absent where there is no such limit.
    pub loop_trips: Option<u64>,
}

/// A device, as recorded: no host name, user or path.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceInfo {
    /// Selector that reaches it: `host`, `wgpu:0`, `cuda:0`, `fake`.
    pub id: String,
    /// Backend's name.
    pub backend: String,
    /// The processor's own name.
    pub name: String,
    /// CPU or GPU.
    pub kind: DeviceKind,
    /// Language it runs.
    pub language: Language,
    /// Driver and version, or the instruction set chosen on the host.
    pub driver: String,
    /// Cores, compute units or streaming multiprocessors that work in parallel.
    pub compute_units: u32,
    /// Caches that the system reports, level and total bytes over the compute units used; empty where it reports none.
    pub caches: Vec<(u32, u64)>,
    /// Memory in bytes that a run may use.
    pub memory_bytes: u64,
    /// Precisions it computes in natively.
    pub precisions: Vec<Precision>,
    /// Instruction sets or API features found.
    pub features: Vec<String>,
    /// Limits.
    pub limits: Limits,
    /// True on the fake device; never compared with real ones.
    pub simulated: bool,
}

impl DeviceInfo {
    /// Last-level cache in bytes: the system's largest, or 256 MiB where it reports none, which no cache of today passes.
    pub fn llc_bytes(&self) -> u64 {
        self.caches.iter().map(|&(_, bytes)| bytes).max().unwrap_or(256 << 20)
    }

    /// Whether a feature was found.
    pub fn has(&self, feature: &str) -> bool {
        self.features.iter().any(|f| f == feature)
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
