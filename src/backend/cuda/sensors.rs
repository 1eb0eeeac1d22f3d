//! What NVML tells of the board behind a device: clocks, power, temperature, throttling, energy. All of it is optional: neither the
//! library nor any of its answers is needed for a measurement, and nothing is ever set.

use std::sync::OnceLock;

use nvml_wrapper::bitmasks::device::ThrottleReasons;
use nvml_wrapper::enum_wrappers::device::{Clock, PerformancePolicy, TemperatureSensor};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};

use crate::backend::Vitals;
use crate::backend::meter::{Meter, Reading, Tally, unreadable};
use crate::error::Result;
use crate::plan::Sensors;

/// The board at an address of the PCI bus, as `cuDeviceGetAttribute` numbers it. Indices would not do: the driver and NVML order devices
/// differently, and `CUDA_VISIBLE_DEVICES` hides them from the driver alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// Domain, bus and device.
    pub domain: u32,
    pub bus: u32,
    pub device: u32,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:08X}:{:02X}:{:02X}.0", self.domain, self.bus, self.device)
    }
}

/// The library, loaded once a process, or why it is not.
fn library() -> Result<&'static Nvml, String> {
    static LIBRARY: OnceLock<Result<Nvml, String>> = OnceLock::new();
    let load = || {
        Nvml::init().map_err(|error| match error {
            NvmlError::LibloadingError(_) => "NVML (libnvidia-ml) is not installed; it comes with the NVIDIA driver".into(),
            other => format!("NVML does not start ({other}); check that nvidia-smi works"),
        })
    };
    LIBRARY.get_or_init(load).as_ref().map_err(Clone::clone)
}

/// A board.
pub struct Board(Device<'static>);

impl Board {
    /// Looks for it.
    ///
    /// # Errors
    /// One sentence why NVML tells nothing.
    pub fn at(address: Address) -> Result<Board, String> {
        let found = library()?.device_by_pci_bus_id(address.to_string());
        found.map(Board).map_err(|error| format!("NVML does not know the device on the PCI bus ({error}); check that nvidia-smi lists it"))
    }

    /// What does not change.
    pub fn about(board: &Result<Board, String>) -> Sensors {
        match board {
            Ok(Board(device)) => Sensors {
                driver: library().ok().and_then(|nvml| nvml.sys_driver_version().ok()),
                power_limit_mw: device.enforced_power_limit().ok().map(u64::from),
                absent: None,
            },
            Err(why) => Sensors { absent: Some(why.clone()), ..Sensors::default() },
        }
    }

    /// What it says now.
    pub fn vitals(&self) -> Vitals {
        let Board(device) = self;
        let held_ns = |policy| device.violation_status(policy).ok().map(|status| status.violation_time);
        Vitals {
            sm_mhz: device.clock_info(Clock::SM).ok(),
            memory_mhz: device.clock_info(Clock::Memory).ok(),
            power_mw: device.power_usage().ok().map(u64::from),
            celsius: device.temperature(TemperatureSensor::Gpu).ok(),
            throttle: device.current_throttle_reasons().map(names).unwrap_or_default(),
            capped_ns: held_ns(PerformancePolicy::Power),
            hot_ns: held_ns(PerformancePolicy::Thermal),
        }
    }

    /// Its energy counter, or, on boards before Volta, its power, integrated.
    ///
    /// # Errors
    /// [`crate::Error::Unavailable`] where neither is told, or not for this part of the board alone.
    pub fn meter(&self) -> Result<Box<dyn Meter + '_>> {
        let Board(device) = self;
        // Where the mode is not known there is none.
        if device.mig_mode().is_ok_and(|mode| mode.current != 0) {
            return Err(unreadable("NVML counts the whole board, and MIG shares it", "measure on a board without MIG"));
        }
        match (device.total_energy_consumption(), device.power_usage()) {
            (Ok(last), _) => Ok(Box::new(Counter { device, last, tally: Tally::new() })),
            (Err(_), Ok(last)) => Ok(Box::new(Power { device, last, at: 0, tally: Tally::new() })),
            (Err(error), Err(_)) => Err(unreadable(
                format!("NVML tells neither energy nor power of this board ({error})"),
                "measure on one where nvidia-smi shows it",
            )),
        }
    }
}

/// NVML's names of what holds clocks down, but for an idle device, which is held by nothing.
fn names(reasons: ThrottleReasons) -> Vec<String> {
    reasons.difference(ThrottleReasons::GPU_IDLE).iter_names().map(|(name, _)| name.to_lowercase()).collect()
}

/// The board's own counter, in mJ since the driver was loaded.
struct Counter<'a> {
    device: &'a Device<'static>,
    last: u64,
    tally: Tally,
}

impl Meter for Counter<'_> {
    fn source(&self) -> &str {
        "NVML energy counter"
    }

    fn read(&mut self) -> Result<Reading> {
        let now = self.device.total_energy_consumption().map_err(lost)?;
        let grown = now.checked_sub(self.last).ok_or_else(|| unreadable("NVML's energy counter fell", "run again"))?;
        self.last = now;
        Ok(self.tally.add(grown.saturating_mul(1000), grown > 0))
    }
}

/// The board's power in mW, integrated by us: between two readings it counts as the mean of both.
struct Power<'a> {
    device: &'a Device<'static>,
    last: u32,
    /// When it was read last.
    at: u64,
    tally: Tally,
}

impl Meter for Power<'_> {
    fn source(&self) -> &str {
        "NVML power, integrated"
    }

    fn adds_up(&self) -> bool {
        false
    }

    fn read(&mut self) -> Result<Reading> {
        let (now, at) = (self.device.power_usage().map_err(lost)?, self.tally.ns());
        // mW · ns = 1e-6 µJ.
        let uj = (f64::from(self.last) + f64::from(now)) / 2.0 * (at - self.at) as f64 / 1e6;
        let moved = now != self.last;
        (self.last, self.at) = (now, at);
        Ok(self.tally.add(uj.round() as u64, moved))
    }
}

fn lost(error: NvmlError) -> crate::Error {
    unreadable(format!("NVML stopped telling it ({error})"), "run again, and check nvidia-smi if this returns")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_nvml_wants_them() {
        assert_eq!(Address { domain: 0, bus: 0x3b, device: 0 }.to_string(), "00000000:3B:00.0");
        assert_eq!(Address { domain: 0x10000, bus: 0xe1, device: 0x1f }.to_string(), "00010000:E1:1F.0");
    }

    #[test]
    fn reasons_have_nvmls_names_and_idle_is_none() {
        assert_eq!(names(ThrottleReasons::GPU_IDLE), Vec::<String>::new());
        let both = ThrottleReasons::SW_POWER_CAP | ThrottleReasons::HW_THERMAL_SLOWDOWN | ThrottleReasons::GPU_IDLE;
        assert_eq!(names(both), ["sw_power_cap", "hw_thermal_slowdown"]);
    }
}
