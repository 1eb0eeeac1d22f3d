//! The cuda backend.

use super::{Backend, Checks, Found, Loaded};
use crate::draw::Seeded;
use crate::error::{Error, Result};
use crate::plan::{DeviceInfo, Plan};

fn absent() -> Error {
    Error::Unavailable { backend: "cuda".into(), why: "this build has no cuda backend yet".into(), remedy: "use --device host".into() }
}

/// All cuda devices.
pub fn devices() -> Vec<Found> {
    vec![Found::Absent(absent())]
}

/// A cuda device.
pub struct Cuda {
    info: DeviceInfo,
}

impl Cuda {
    /// Opens device number `index`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where there is none.
    pub fn open(_index: usize) -> Result<Self> {
        Err(absent())
    }
}

impl Backend for Cuda {
    fn device(&self) -> &DeviceInfo {
        &self.info
    }
    fn load<'a>(&'a self, _plan: &Plan, _seeded: Seeded, _sets: u32, _checks: Checks) -> Result<Box<dyn Loaded + 'a>> {
        Err(absent())
    }
}
