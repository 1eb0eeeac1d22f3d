//! What is written: one JSON object a line, flushed as it is made, one file a device.
//!
//! A record holds what was observed: integers for times, bytes and counts, every sample, and how the output was verified.
//! Rates, ceilings and placements are derived on load ([`crate::roofline`]). No host name, user or path is ever written, and a
//! number that is not finite cannot be. Unknown fields and unknown ops are kept.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::backend::Facts;
use crate::draw::Draw;
use crate::op::OpRole;
use crate::plan::{DeviceInfo, Precision, Tuned, Unit};

mod journal;
mod reader;
mod telemetry;
mod tracked;
mod versions;

pub(crate) use journal::unwritable;
pub use journal::{Journal, encode};
pub use reader::{File, parse, read};
pub use telemetry::{Canary, Energy, Telemetry};

/// Schema name and version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schema {
    /// `rooftrace`.
    pub name: String,
    /// A newer major is refused with advice.
    pub major: u32,
    /// A newer minor is read; what it adds is kept.
    pub minor: u32,
}

impl Schema {
    /// The version this program writes.
    pub fn current() -> Self {
        Schema { name: "rooftrace".into(), major: 1, minor: 3 }
    }
}

/// The program that wrote a file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tool {
    /// Crate version.
    pub version: String,
    /// Commit it was built from, or `unknown`.
    pub commit: String,
    /// Whether the work tree had changes.
    pub dirty: bool,
    /// Hash of the executable.
    pub executable: String,
}

/// Where it ran, without names: operating system, architecture, memory, CPU model.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Operating system.
    pub os: String,
    /// Architecture.
    pub arch: String,
    /// The host's CPU model.
    pub cpu: String,
    /// CPUs this process may use.
    pub cpus: u32,
    /// The host's memory in bytes.
    pub memory_bytes: u64,
}

/// What was learnt about the clocks before measuring.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Clock {
    /// Which clock times are taken from: `device` or `wall`.
    pub source: String,
    /// Why the device clock was rejected, where it was.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rejected: Option<String>,
    /// Smallest step of the clock in nanoseconds.
    pub resolution_ns: u64,
    /// Time of a launch that does next to nothing, in nanoseconds.
    pub launch_ns: u64,
    /// Core clock in MHz and how it was found, where it could be.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub core_mhz: Option<(u64, String)>,
}

/// Settings of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// `run`, `trace`, `try`, `study`.
    pub command: String,
    /// `small`, `standard`, `large`.
    pub size: String,
    /// Budget in nanoseconds, where one was set.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub budget_ns: Option<u64>,
    /// Seed of all draws.
    pub seed: u32,
    /// Name of the study, for `study`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub study: Option<String>,
    /// Seconds since 1970 when the run began whose roof was taken over, where one was.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub roof_started: Option<u64>,
}

/// First line of a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Version of the file.
    pub schema: Schema,
    /// Seconds since 1970 when the run began.
    pub started: u64,
    /// Program.
    pub tool: Tool,
    /// Machine.
    pub environment: Environment,
    /// Device measured.
    pub device: DeviceInfo,
    /// Its clocks.
    pub clock: Clock,
    /// Settings.
    pub settings: Settings,
    /// Fields of a newer minor version.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// How an item ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Verified, and nothing odd was seen.
    Ok,
    /// Verified, but something about the time is odd; see `reasons`.
    Suspect,
    /// Verified under a power cap.
    PowerLimited,
    /// The output is wrong; no rate is ever shown.
    Wrong,
    /// The device cannot run it.
    Unsupported,
    /// Its code does not compile, or not to what was written: a failure of whoever wrote it.
    NotCompiled,
    /// Left out on purpose.
    Skipped,
    /// Memory was not enough.
    OutOfMemory,
    /// No answer within the limit.
    Timeout,
    /// The device or its process died.
    DeviceLost,
    /// Never started: the budget ended, or the user did.
    NotRun,
}

/// Whether a launch finds its data in cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cache {
    /// Rotates through more than twice the last-level cache.
    Cold,
    /// One set, again and again.
    Warm,
}

/// How an output was checked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Verification {
    /// Largest deviation of a checked element from the f64 oracle.
    pub worst_error: f64,
    /// Largest deviation allowed at that element.
    pub allowed: f64,
    /// Elements compared with the oracle; every element was also checked for being finite and written.
    pub elements_checked: u64,
    /// 64 × 64 output tiles, each with at least four of them.
    pub tiles_checked: u64,
    /// Distribution of the inputs.
    pub draw: Draw,
}

fn none(exponentials: &u64) -> bool {
    *exponentials == 0
}

/// One measured and verified item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Unique in its file.
    pub id: String,
    /// Op's name; may be unknown to this program.
    pub op: String,
    /// The problem's fields.
    pub problem: Value,
    /// Short text of the problem for tables.
    pub label: String,
    /// Variant's name.
    pub variant: String,
    /// Probe, kernel, or a vendor's library as a reference.
    pub role: OpRole,
    /// Backend's name.
    pub backend: String,
    /// Number formats.
    pub precision: Precision,
    /// Unit that did the arithmetic.
    pub unit: Unit,
    /// Chosen tunables.
    pub tunables: Tuned,
    /// Hash of the kernel's source text.
    pub source_hash: u64,
    /// How it ended.
    pub state: State,
    /// Why, where the state is not `ok`; also the stopping rule that was not met.
    #[serde(default)]
    pub reasons: Vec<String>,
    /// Launches in each sample.
    pub launches: u32,
    /// Sets rotated through.
    pub sets: u32,
    /// Time of each sample (of all its launches) on the chosen clock, in order.
    pub samples_ns: Vec<u64>,
    /// Wall time of each sample.
    pub wall_ns: Vec<u64>,
    /// Time of the sample whose output was verified.
    pub checked_ns: u64,
    /// `device` or `wall`: where `samples_ns` come from.
    pub clock: String,
    /// Cold or warm.
    pub cache: Cache,
    /// Multiply-adds of one launch.
    pub macs: u64,
    /// FLOPs of one launch.
    pub flops: u64,
    /// Exponentials of one launch.
    #[serde(default, skip_serializing_if = "none")]
    pub exponentials: u64,
    /// Each tensor once.
    pub bytes_compulsory: u64,
    /// The written part of `bytes_compulsory`.
    pub bytes_written: u64,
    /// Summed over dispatches.
    pub bytes_moved: u64,
    /// Summed over work-groups; absent for a kernel whose traffic nobody counted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bytes_requested: Option<u64>,
    /// Summed over lanes; absent likewise.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bytes_lane: Option<u64>,
    /// Scratch beyond the tensors.
    pub workspace_bytes: u64,
    /// Measured peak of one set, where a pass of its own was made.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub peak_bytes: Option<u64>,
    /// All sets together.
    pub pool_bytes: u64,
    /// Bytes of one set, as planned.
    pub set_bytes: u64,
    /// Dispatches of one call.
    pub dispatches: u32,
    /// Work-groups of the largest dispatch (host: threads).
    pub groups: u64,
    /// One of several settings that were tried before a kernel was measured with the fastest; never placed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub candidate: bool,
    /// Canaries around the item.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub canary_ns: Option<Canary>,
    /// How the output was checked; absent only where the state is not `ok`, `suspect` or `power_limited`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub verification: Option<Verification>,
    /// What the backend knows.
    #[serde(default)]
    pub facts: Facts,
    /// Seed of the inputs.
    pub seed: u32,
    /// Position in the run.
    pub order: u32,
    /// The device before and after the timed samples; absent where it tells nothing of itself.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub telemetry: Option<Telemetry>,
    /// Energy, where a pass of its own was made.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub energy: Option<Energy>,
    /// Fields of a newer minor version.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// What a ceiling limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CeilingKind {
    /// FLOP/s; of the unit `exp`, exponentials a second.
    Compute,
    /// byte/s.
    Bandwidth,
    /// ns.
    Latency,
}

/// One ceiling: which measurements of its winner it stands on. Its value is computed on load.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ceiling {
    /// Unique in its file.
    pub id: String,
    /// Name for tables: `f32 vector`, `dram triad (non-temporal)`.
    pub name: String,
    /// What it limits.
    pub kind: CeilingKind,
    /// Precision, for compute.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub precision: Option<Precision>,
    /// Unit, for compute.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub unit: Option<Unit>,
    /// `l1 l2 l3 dram shared`, for bandwidth.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub level: Option<String>,
    /// `read write copy triad`, for bandwidth.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub direction: Option<String>,
    /// Capacity of the level in bytes, as the sweep found it; absent for DRAM.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub capacity: Option<u64>,
    /// Ids of the measurements it is computed from.
    pub from: Vec<String>,
    /// Ids of those whose time is taken off theirs: the lower end of a slope.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub base: Vec<String>,
    /// `ok`, or `suspect` with `reasons`.
    pub state: State,
    /// Why it is suspect.
    #[serde(default)]
    pub reasons: Vec<String>,
    /// Fields of a newer minor version.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Something that was not measured, and why.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Skip {
    /// Unique in its file.
    pub id: String,
    /// Op's name.
    pub op: String,
    /// Variant's name.
    pub variant: String,
    /// The problem, where it is one problem that is skipped.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub problem: Option<Value>,
    /// Precision, where it matters.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub precision: Option<Precision>,
    /// How it ended.
    pub state: State,
    /// The reason, one sentence.
    pub why: String,
    /// One of several settings that were tried, as in [`Measurement::candidate`]: no loss where another was measured.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub candidate: bool,
    /// Fields of a newer minor version.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Last line of a complete file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Measurements written.
    pub measurements: u64,
    /// Ceilings written.
    pub ceilings: u64,
    /// Skips written.
    pub skips: u64,
    /// Wall seconds of the run.
    pub seconds: u64,
    /// Exit status the program was about to return.
    pub status: i32,
}

/// One line of a file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "lowercase")]
#[allow(clippy::large_enum_variant)]
pub enum Record {
    /// First line.
    Header(Header),
    /// A measured item.
    Measurement(Measurement),
    /// A ceiling.
    Ceiling(Ceiling),
    /// Something left out.
    Skip(Skip),
    /// Last line.
    End(End),
}
