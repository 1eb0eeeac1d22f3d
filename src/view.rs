//! The derived view: one form for `--json` of every command, and all that tables and charts look at.
//!
//! Values are FLOP/s, byte/s and ns; `intensity` is compulsory. [`crate::roofline`] derives it from records.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::op::OpRole;
use crate::plan::{Precision, Unit};
use crate::record::{Cache, CeilingKind, End, Energy, Header, State, Telemetry, Verification};
use crate::stats::Estimate;

/// A whole file, derived.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct View {
    /// The file's first line.
    pub header: Header,
    /// Roofs.
    pub ceilings: Vec<CeilingView>,
    /// Kernels, placed.
    pub rows: Vec<Row>,
    /// What was left out, and why.
    pub skips: Vec<SkipView>,
    /// Bandwidth by working set, for each direction measured.
    #[serde(default)]
    pub curves: Vec<Curve>,
    /// The `ramp` probe, placed: one kernel by intensity, ascending. Empty where it was not measured.
    #[serde(default)]
    pub ramp: Vec<Row>,
    /// How the run ended; absent where the file ends before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
    /// A study's answer, sentence by sentence, as [`crate::study::fill`] derives it; empty for all else.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answer: Vec<String>,
}

/// A roof.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CeilingView {
    /// Name for tables.
    pub name: String,
    /// What it limits.
    pub kind: CeilingKind,
    /// For compute.
    pub precision: Option<Precision>,
    /// For compute.
    pub unit: Option<Unit>,
    /// `l1 l2 l3 dram shared`, for bandwidth.
    pub level: Option<String>,
    /// `read write copy triad`, for bandwidth.
    pub direction: Option<String>,
    /// Bytes; absent for DRAM and compute.
    pub capacity: Option<u64>,
    /// FLOP/s, byte/s or ns: from the 10th percentile of time.
    pub value: f64,
    /// Lower end of its 95 % interval.
    pub low: f64,
    /// Upper end of its 95 % interval.
    pub high: f64,
    /// Time of the canary around its fastest block: of arithmetic, ns of a launch; of DRAM, ns of a byte. Absent for all else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary_ns: Option<f64>,
    /// `ok`, `power_limited` or `suspect`.
    pub state: State,
    /// Why it is not `ok`; also where the system reports another capacity.
    #[serde(default)]
    pub reasons: Vec<String>,
}

impl CeilingView {
    /// Its value with the interval.
    pub fn estimate(&self) -> Estimate {
        Estimate { value: self.value, low: self.low, high: self.high }
    }
}

/// Median time of one launch and its 95 % interval, in ns.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Median.
    pub median: f64,
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// What one resource would take of a kernel's time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// `compute (vector)`, `exp`, `dram`, `l2`, …
    pub resource: String,
    /// Its time alone over the kernel's, 1 for all of it.
    pub share: f64,
}

/// One placed kernel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// The measurement's id.
    pub id: String,
    /// Op.
    pub op: String,
    /// The problem's fields.
    pub problem: Value,
    /// Short text of the problem.
    pub label: String,
    /// Variant.
    pub variant: String,
    /// Kernel, probe, or a vendor's library as a reference.
    pub role: OpRole,
    /// Backend.
    pub backend: String,
    /// Number formats.
    pub precision: Precision,
    /// Unit.
    pub unit: Unit,
    /// Cold or warm.
    pub cache: Cache,
    /// `device` or `wall`.
    pub clock: String,
    /// How it ended; `wrong` and worse have no rates.
    pub state: State,
    /// Why.
    pub reasons: Vec<String>,
    /// Time of one launch; absent where nothing may be shown.
    pub time_ns: Option<Interval>,
    /// FLOPs / median; absent where nothing is computed.
    pub flop_per_s: Option<f64>,
    /// Compulsory bytes / median.
    pub byte_per_s: Option<f64>,
    /// FLOP per compulsory byte.
    pub intensity: f64,
    /// FLOP per moved byte.
    pub intensity_moved: f64,
    /// t_best / t; above 1 is flagged in `above_roof`, never clamped.
    pub roof_fraction: Option<f64>,
    /// FLOP/s of the point that `roof_fraction` compares with.
    pub roof_flop_per_s: Option<f64>,
    /// The whole interval lies above the roof's own uncertainty.
    pub above_roof: bool,
    /// Memory level that must supply the compulsory bytes.
    pub level: Option<String>,
    /// What limits it: `compute (vector)`, `dram`, `l3`, `l2`, `launch`, `parallelism`, `unexplained`, two joined by ` + `.
    /// `, power` or `, suspect` follows where the state says so; empty where nothing was timed.
    pub limiter: String,
    /// The share of time behind `limiter` (`parallelism`: of the device left idle; `unexplained`: the largest share found).
    pub limiter_share: Option<f64>,
    /// Multiply-adds.
    pub macs: u64,
    /// Each tensor once.
    pub bytes_compulsory: u64,
    /// Summed over dispatches.
    pub bytes_moved: u64,
    /// Summed over work-groups; absent where nobody counted them.
    pub bytes_requested: Option<u64>,
    /// Measured peak of one set.
    pub peak_bytes: Option<u64>,
    /// Scratch.
    pub workspace_bytes: u64,
    /// Shares of its time that each resource would take alone, largest first: what the limiter was chosen from.
    #[serde(default)]
    pub shares: Vec<Share>,
    /// How it was checked.
    pub verification: Option<Verification>,
    /// The device before and after it; absent where it told nothing of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub telemetry: Option<Telemetry>,
    /// Its energy, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub energy: Option<Energy>,
    /// What it costs; absent unless asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost: Option<Cost>,
}

/// What one problem costs by this kernel; [`crate::cost`] derives it. Whether its data was cold or warm is the row's `cache`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Elements of all weights; absent for an op that this program does not know.
    pub params: Option<u64>,
    /// Elements of all outputs; absent likewise.
    pub activations: Option<u64>,
    /// Measured memory of one set; absent where it was not measured.
    pub peak_bytes: Option<u64>,
    /// Median time of one problem in ns; absent where none may be shown.
    pub latency_ns: Option<f64>,
    /// One problem after the other.
    pub problems_per_s: Option<f64>,
    /// Images or sequences a second; absent for an op without a batch.
    pub samples_per_s: Option<f64>,
    /// FLOP/s over the best measured compute ceiling of the precision; absent where there is none.
    pub mfu: Option<f64>,
    /// Compulsory byte/s over the measured DRAM read ceiling; absent for warm data and where there is none.
    pub mbu: Option<f64>,
    /// FLOP/s over the compute peak given for its precision; absent where none was given.
    #[serde(default)]
    pub mfu_nominal: Option<f64>,
    /// Compulsory byte/s over the bandwidth given; absent for warm data and where none was given.
    #[serde(default)]
    pub mbu_nominal: Option<f64>,
    /// Joules of one problem, the idle device's share included; absent where they were not measured.
    #[serde(default)]
    pub energy_j: Option<f64>,
    /// Joules of one problem beyond what the idle device would have taken meanwhile.
    #[serde(default)]
    pub energy_above_idle_j: Option<f64>,
    /// FLOP per joule, which is FLOP/s per watt, the idle share included.
    #[serde(default)]
    pub flop_per_j: Option<f64>,
    /// A million problems at the price asked for, in its currency.
    pub price_per_million: Option<f64>,
    /// Whether it keeps to the limits; absent where none was asked for or one cannot be checked.
    pub fits: Option<bool>,
    /// The limits that it breaks, or what is not known to check them.
    pub why: Vec<String>,
}

impl Row {
    /// The variant as tables name it: with its precision where that is not f32.
    pub fn kernel(&self) -> String {
        match self.precision {
            Precision::F32 => self.variant.clone(),
            other => format!("{} {other}", self.variant),
        }
    }

    /// `compute (vector) 82%`, `unexplained 35%`: the limiter with its share of time, where there is one.
    pub fn limited_by(&self) -> String {
        match self.limiter_share {
            Some(share) if share.is_finite() => format!("{} {:.0}%", self.limiter, share * 100.0),
            _ => self.limiter.clone(),
        }
    }
}

/// Something left out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SkipView {
    /// Op.
    pub op: String,
    /// Variant.
    pub variant: String,
    /// Short text of the problem; absent where it is no one problem, or of an unknown op.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// Number formats, where they matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub precision: Option<Precision>,
    /// How it ended.
    pub state: State,
    /// The reason.
    pub why: String,
}

/// Bandwidth by working set, in one direction.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Curve {
    /// `read write copy triad`.
    pub direction: String,
    /// Working set in bytes and byte/s, ascending.
    pub points: Vec<(u64, f64)>,
}
