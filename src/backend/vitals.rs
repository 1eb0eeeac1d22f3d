//! Clocks, power and temperature of a device, as it tells them.

use serde::{Deserialize, Serialize};

/// What a device says of itself at one moment; what it does not tell is absent.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vitals {
    /// Clock of the multiprocessors in MHz.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sm_mhz: Option<u32>,
    /// Clock of the memory in MHz.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub memory_mhz: Option<u32>,
    /// Power of the whole board in mW.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub power_mw: Option<u64>,
    /// Temperature in °C.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub celsius: Option<u32>,
    /// Why its clocks are held down: `sw_power_cap`, `hw_thermal_slowdown`, …, as NVML calls its clock throttle reasons.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub throttle: Vec<String>,
    /// For how long the power cap has held its clocks down so far, in ns from any start.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub capped_ns: Option<u64>,
    /// The same of its temperature.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub hot_ns: Option<u64>,
}

/// Two counters of one core, read together on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tick {
    /// Number of the core.
    pub unit: u32,
    /// Its cycles so far.
    pub cycles: u64,
    /// Nanoseconds so far, from any start.
    pub ns: u64,
}

impl Vitals {
    /// Whether it tells nothing.
    pub fn is_empty(&self) -> bool {
        *self == Vitals::default()
    }
}
