//! The host backend: Rust kernels on a pinned thread pool, wall clock only.

use std::ops::Range;

use super::{Audit, Backend, Checks, Facts, Loaded, Sample};
use crate::draw::Seeded;
use crate::error::{Error, Result};
use crate::plan::{DeviceInfo, DeviceKind, Language, Limits, Plan, Precision};

/// The host as a device; opens nothing.
pub fn device() -> DeviceInfo {
    DeviceInfo {
        id: "host".into(),
        backend: "host".into(),
        name: "CPU".into(),
        kind: DeviceKind::Cpu,
        language: Language::Host,
        driver: "portable".into(),
        compute_units: 1,
        caches: Vec::new(),
        memory_bytes: 1 << 30,
        precisions: vec![Precision::F32, Precision::F64],
        features: Vec::new(),
        limits: Limits {
            binding_bytes: u64::MAX,
            grid: u32::MAX,
            block: u32::MAX,
            shared_bytes: u32::MAX,
            launch_ns: None,
            loop_trips: None,
        },
        simulated: false,
    }
}

/// The host.
pub struct Host {
    info: DeviceInfo,
}

impl Host {
    /// Opens the host.
    ///
    /// # Errors
    /// None yet.
    pub fn new() -> Result<Self> {
        Ok(Host { info: device() })
    }
}

impl Backend for Host {
    fn device(&self) -> &DeviceInfo {
        &self.info
    }
    fn load<'a>(&'a self, _plan: &Plan, _seeded: Seeded, _sets: u32, _checks: Checks) -> Result<Box<dyn Loaded + 'a>> {
        Err(Error::Backend { backend: "host", why: "not built yet".into() })
    }
}

struct _Unbuilt;
impl Loaded for _Unbuilt {
    fn sample(&mut self, _: u32, _: u32) -> Result<Sample> {
        unreachable!()
    }
    fn poison(&mut self, _: u32) -> Result<()> {
        unreachable!()
    }
    fn read(&mut self, _: usize, _: u32, _: Range<u64>) -> Result<Vec<f64>> {
        unreachable!()
    }
    fn audit(&mut self, _: u32) -> Result<Audit> {
        unreachable!()
    }
    fn facts(&self) -> Facts {
        Facts::default()
    }
}
