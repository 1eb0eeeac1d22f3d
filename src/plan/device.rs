//! A device, its limits and its kind, as plans and records see it.

use serde::{Deserialize, Serialize};

use super::{Language, Precision};

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

/// What tells clocks, power and temperature of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sensors {
    /// Version of the driver.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub driver: Option<String>,
    /// Power that the board may take, in mW.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub power_limit_mw: Option<u64>,
    /// Why nothing is told, where nothing is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub absent: Option<String>,
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
    /// What tells of its state; absent for devices that nothing is asked of.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sensors: Option<Sensors>,
}

impl DeviceInfo {
    /// Last-level cache in bytes: the system's largest, or 256 MiB where it reports none, which no cache of today passes.
    pub fn llc_bytes(&self) -> u64 {
        self.caches.iter().map(|&(_, bytes)| bytes).max().unwrap_or(256 << 20)
    }

    /// Whether this is a CPU behind a language of devices: its loops, launches and compilations cost what those of no GPU do.
    pub fn is_software(&self) -> bool {
        self.language != Language::Host && self.kind == DeviceKind::Cpu
    }

    /// Whether a feature was found.
    pub fn has(&self, feature: &str) -> bool {
        self.features.iter().any(|f| f == feature)
    }
}
