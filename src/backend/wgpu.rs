//! The wgpu backend.

use super::{Backend, Checks, Found, Loaded};
use crate::draw::Seeded;
use crate::error::{Error, Result};
use crate::plan::{DeviceInfo, Plan};

fn absent() -> Error {
    Error::Unavailable { backend: "wgpu".into(), why: "this build has no wgpu backend yet".into(), remedy: "use --device host".into() }
}

/// All wgpu devices.
pub fn devices() -> Vec<Found> {
    vec![Found::Absent(absent())]
}

/// A wgpu device.
pub struct Wgpu {
    info: DeviceInfo,
}

impl Wgpu {
    /// Opens device number `index`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where there is none.
    pub fn open(_index: usize) -> Result<Self> {
        Err(absent())
    }
}

impl Backend for Wgpu {
    fn device(&self) -> &DeviceInfo {
        &self.info
    }
    fn load<'a>(&'a self, _plan: &Plan, _seeded: Seeded, _sets: u32, _checks: Checks) -> Result<Box<dyn Loaded + 'a>> {
        Err(absent())
    }
}
