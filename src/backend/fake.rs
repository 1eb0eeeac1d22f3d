//! The fake device: scripted times, outputs and faults behind the real seam, for tests.

use super::{Backend, Checks, Loaded};
use crate::draw::Seeded;
use crate::error::{Error, Result};
use crate::plan::{DeviceInfo, Plan};

/// The fake device.
pub struct Fake {
    info: DeviceInfo,
}

impl Fake {
    /// Opens the fake device with the script named by the environment.
    ///
    /// # Errors
    /// [`Error::Usage`] for a script that cannot be read.
    pub fn from_environment() -> Result<Self> {
        Ok(Fake { info: DeviceInfo { id: "fake".into(), backend: "fake".into(), simulated: true, ..super::host::device() } })
    }
}

impl Backend for Fake {
    fn device(&self) -> &DeviceInfo {
        &self.info
    }
    fn load<'a>(&'a self, _plan: &Plan, _seeded: Seeded, _sets: u32, _checks: Checks) -> Result<Box<dyn Loaded + 'a>> {
        Err(Error::Backend { backend: "fake", why: "not built yet".into() })
    }
}
