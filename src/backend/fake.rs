//! The fake device: scripted times, outputs and faults behind the real seam, so that everything above is tested without a device.
//!
//! It runs Rust kernels, and its outputs are true unless a fault says otherwise. Times come from a [`Script`] and a virtual
//! clock: nothing sleeps. A set is filled and computed only when it is read, so that a sweep over gigabytes costs nothing.
//! The script is JSON, inline or in a file, in the variable `ROOFTRACE_FAKE`; without one a plain, healthy device answers.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use super::meter::Meter;
use super::{Backend, Checks, Loaded, Occupied, Vitals};
use crate::draw::Seeded;
use crate::error::{Error, Result};
use crate::host::Pool;
use crate::plan::{Code, DeviceInfo, Plan};

mod battery;
mod fault;
mod loaded;
mod memory;
mod model;
mod script;
#[cfg(test)]
mod tests;

pub use battery::Battery;
pub use fault::{Fault, FaultKind, Moment};
pub use model::{Ease, Level, Speed};
pub use script::{DeviceClock, Pace, Script, Timing};

/// The variable that holds the script or names its file.
pub const VARIABLE: &str = "ROOFTRACE_FAKE";

/// The fake device.
pub struct Fake {
    info: DeviceInfo,
    script: Script,
    pool: Arc<Pool>,
    /// Samples since it was opened: what noise and pace are functions of.
    samples: Cell<u64>,
    /// Matching calls so far, for each fault of the script.
    calls: RefCell<Vec<u64>>,
    /// Bytes of the plans that are loaded.
    taken: Cell<u64>,
    /// Energy taken.
    drain: battery::Drain,
    /// How often its vitals were asked for.
    asked: Cell<usize>,
    /// Set by a `device_lost` fault or the watchdog; nothing works afterwards.
    lost: Cell<bool>,
}

impl Fake {
    /// Opens the fake device with the script that [`VARIABLE`] holds or names.
    ///
    /// # Errors
    /// [`Error::Usage`] for a script that cannot be read, and whatever its faults at `open` say.
    pub fn from_environment() -> Result<Self> {
        match std::env::var(VARIABLE) {
            Ok(text) => Fake::scripted(&text),
            Err(std::env::VarError::NotPresent) => Fake::new(Script::default()),
            Err(std::env::VarError::NotUnicode(_)) => Err(Error::usage(format!("{VARIABLE} is not UTF-8 text; write JSON or a file name"))),
        }
    }

    /// Opens the fake device with a script: JSON, or the name of a file that holds it.
    ///
    /// # Errors
    /// As [`Fake::from_environment`].
    pub fn scripted(text: &str) -> Result<Self> {
        Fake::new(Script::read(text)?)
    }

    /// Opens the fake device with a script.
    ///
    /// # Errors
    /// [`Error::Usage`] for a device field that does not exist, and whatever the script's faults at `open` say.
    pub fn new(script: Script) -> Result<Self> {
        let info = script.device()?;
        let calls = RefCell::new(vec![0; script.faults.len()]);
        let fake = Fake {
            info,
            script,
            pool: Arc::new(Pool::new()),
            samples: Cell::new(0),
            calls,
            taken: Cell::new(0),
            drain: battery::Drain::default(),
            asked: Cell::new(0),
            lost: Cell::new(false),
        };
        fake.fire(Moment::Open, None)?;
        Ok(fake)
    }
}

impl Backend for Fake {
    fn device(&self) -> &DeviceInfo {
        &self.info
    }

    fn load<'a>(&'a self, plan: &Plan, seeded: Seeded, sets: u32, checks: Checks) -> Result<Box<dyn Loaded + 'a>> {
        let named = format!("{}/{}", plan.op, plan.variant);
        let Code::Host(kernel) = &plan.code else {
            return Err(Error::unsupported(named, format!("a device that runs {:?}", plan.language), "Rust kernels only"));
        };
        self.fire(Moment::Load, Some(plan))?;
        let need = plan.pool_bytes(sets.max(1)).saturating_add(plan.cost.workspace);
        if need > self.info.memory_bytes {
            return Err(Error::OutOfMemory { what: format!("{sets} sets of {named}"), need, have: self.info.memory_bytes });
        }
        let limit = self.info.limits.binding_bytes;
        if let Some(tensor) = plan.tensors.iter().find(|t| t.bytes() > limit) {
            return Err(Error::unsupported(format!("{named}: tensor {}", tensor.name), format!("{} bytes", tensor.bytes()), limit));
        }
        let kernel = Arc::clone(kernel);
        Ok(Box::new(loaded::Resident::new(self, plan.clone(), kernel, seeded, sets.max(1), checks)))
    }

    fn occupied(&self) -> Occupied {
        Occupied::Device(self.taken.get())
    }

    fn vitals(&self) -> Option<Vitals> {
        let asked = self.asked.replace(self.asked.get() + 1);
        self.script.vitals.get(asked).or(self.script.vitals.last()).cloned()
    }

    fn meter(&self) -> Result<Box<dyn Meter + '_>> {
        Ok(Box::new(battery::Gauge::open(self)?))
    }
}
