//! What was seen of the device around an item, beside the times: canaries, clocks, power, energy.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::backend::Vitals;

/// Canary times around an item, in nanoseconds a launch: one fma, one stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canary {
    /// fma before.
    pub fma_before: u64,
    /// stream before.
    pub stream_before: u64,
    /// fma after.
    pub fma_after: u64,
    /// stream after.
    pub stream_after: u64,
    /// Bytes that a launch of the stream reads and writes; 0 in records older than this field.
    #[serde(default, skip_serializing_if = "unknown")]
    pub stream_bytes: u64,
}

fn unknown(bytes: &u64) -> bool {
    *bytes == 0
}

/// The device just before and just after the timed samples of an item.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Telemetry {
    /// Before, awake.
    #[serde(skip_serializing_if = "Vitals::is_empty", default)]
    pub before: Vitals,
    /// After.
    #[serde(skip_serializing_if = "Vitals::is_empty", default)]
    pub after: Vitals,
    /// Nanoseconds between both on the wall clock: sizing and warming up lie there too. Absent in records older than this field.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub between_ns: Option<u64>,
    /// Clock of the multiprocessors over the samples in MHz: their cycles over nanoseconds, both counted by the device, in the median of all.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub core_mhz: Option<u32>,
    /// Fields of a newer minor version.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Energy of launches back to back, as a counter told it, the device's idle share included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Energy {
    /// What counted, and what it covers: `RAPL: package-0, dram`.
    pub source: String,
    /// Launches in the window.
    pub launches: u64,
    /// Length of the window on the wall clock.
    pub wall_ns: u64,
    /// Energy in the window in µJ.
    pub uj: u64,
    /// Updates of the counter that the window spans.
    pub updates: u64,
    /// Power of the idle device in µW, recorded for a second before.
    pub idle_uw: u64,
}

impl Energy {
    /// Joules of one launch.
    pub fn joules(&self) -> f64 {
        self.uj as f64 / 1e6 / self.launches as f64
    }

    /// Joules of one launch beyond what the idle device would have taken meanwhile; below 0 where it took less.
    pub fn joules_above_idle(&self) -> f64 {
        (self.uj as f64 / 1e6 - self.idle_uw as f64 / 1e6 * (self.wall_ns as f64 / 1e9)) / self.launches as f64
    }
}
