//! Where a plan runs: one seam, four machines behind it.
//!
//! A backend knows no op and keeps no statistics: it loads a [`Plan`] into device memory that it fills itself, times launches
//! and gives outputs back. `fake` behind the same seam has scripted times and faults, so that everything above is tested
//! without a device.

use std::ops::Range;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::draw::Seeded;
use crate::error::{Error, Result};
#[cfg(feature = "wgpu")]
use crate::plan::Code;
use crate::plan::{DeviceInfo, Library, Plan};

#[cfg(feature = "cuda")]
pub mod cuda;
pub mod fake;
pub mod host;
pub mod meter;
pub(crate) mod process;
mod vitals;
#[cfg(feature = "wgpu")]
pub mod wgpu;

use meter::Meter;
pub use vitals::{Tick, Vitals};

/// Time of one sample, on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sample {
    /// Time between device timestamps around the launches; absent where the device has no clock of its own.
    pub device: Option<Duration>,
    /// Host wall clock from submission until the device is idle.
    pub wall: Duration,
}

/// Which run-time checks a kernel is compiled with (bounds, loop bounding, zero-initialised workgroup memory).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Checks {
    /// None: what is timed.
    Trusted,
    /// All that the API offers: `verify` runs both and compares their outputs to the bit.
    Checked,
}

/// What a backend knows about a loaded plan.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Facts {
    /// Compile time in nanoseconds, where there is a compiler.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub compile_ns: Option<u64>,
    /// Wall time of the first launch, just-in-time compilation included.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub first_launch_ns: Option<u64>,
    /// Registers of a lane.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub registers: Option<u32>,
    /// Spilled or local bytes of a lane.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub local_bytes: Option<u32>,
    /// Workgroup (shared) memory of a group in bytes.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub shared_bytes: Option<u32>,
    /// Run-time checks compiled in.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub checks: Option<Checks>,
    /// Device memory allocated for all sets, in bytes, as the allocator reports it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub allocated_bytes: Option<u64>,
    /// How its launches reach the device, where there are several ways: `graph`, all of a sample as one, or `stream`, one by one, with the
    /// reason where a graph was wanted and refused.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub launched: Option<String>,
    /// Instruction set or other path chosen at run time.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub path: Option<String>,
}

/// What [`Loaded::audit`] found around and in the buffers of a set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audit {
    /// Guard words before and after the buffers that no longer hold their pattern.
    pub guards_broken: u64,
    /// Input elements that differ from their draw.
    pub inputs_changed: u64,
}

/// Where the memory of plans is seen from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occupied {
    /// Nowhere.
    Unknown,
    /// In the resident set of this process.
    Process,
    /// On the device, where this many bytes are taken now.
    Device(u64),
}

/// Elements as they came from a device: whoever looks at them widens them to f64, on a thread of their own.
pub type Fetched = Box<dyn FnOnce() -> Vec<f64> + Send>;

/// A plan in device memory. Sets are copies of all its tensors; rotating through them keeps a launch from finding its data in
/// cache.
pub trait Loaded {
    /// Runs `launches` calls of the plan, call i on set `(first + i) mod sets`, and waits for them.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] or [`Error::Timeout`] when the device stops answering.
    fn sample(&mut self, launches: u32, first: u32) -> Result<Sample>;

    /// Fills output and scratch of a set with NaN.
    ///
    /// # Errors
    /// As [`Loaded::sample`].
    fn poison(&mut self, set: u32) -> Result<()>;

    /// Elements `range` of a tensor of a set, widened to f64.
    ///
    /// # Errors
    /// As [`Loaded::sample`].
    fn read(&mut self, tensor: usize, set: u32, range: Range<u64>) -> Result<Vec<f64>>;

    /// The same, not widened yet where that is worth a thread.
    ///
    /// # Errors
    /// As [`Loaded::sample`].
    fn fetch(&mut self, tensor: usize, set: u32, range: Range<u64>) -> Result<Fetched> {
        let values = self.read(tensor, set, range)?;
        Ok(Box::new(|| values))
    }

    /// Checks the guards around every buffer of a set and compares its inputs with their draw.
    ///
    /// # Errors
    /// As [`Loaded::sample`].
    fn audit(&mut self, set: u32) -> Result<Audit>;

    /// Facts for the record.
    fn facts(&self) -> Facts;
}

/// A device that runs plans.
pub trait Backend {
    /// The device.
    fn device(&self) -> &DeviceInfo;

    /// Compiles a plan and fills `sets` sets of its tensors on the device.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the plan exceeds a limit, [`Error::OutOfMemory`], [`Error::Compile`] with the whole log.
    fn load<'a>(&'a self, plan: &Plan, seeded: Seeded, sets: u32, checks: Checks) -> Result<Box<dyn Loaded + 'a>>;

    /// Compiles what these plans, which are about to be loaded, need, on all processors, and begins nothing once `within` is over. Nothing
    /// where a compiler cannot do that; what fails is told when the plan is loaded.
    fn prepare(&self, plans: &[(Plan, Checks)], within: Duration) {
        let _ = (plans, within);
    }

    /// Where plans' memory is seen from outside, and how much is taken now.
    fn occupied(&self) -> Occupied {
        Occupied::Unknown
    }

    /// Clocks, power and temperature now; absent where the device tells nothing of itself.
    fn vitals(&self) -> Option<Vitals> {
        None
    }

    /// Counters of its cores now, by which their clock is known from two moments; none where it has none to read.
    ///
    /// # Errors
    /// As [`Loaded::sample`], and [`Backend::load`].
    fn ticks(&self) -> Result<Vec<Tick>> {
        Ok(Vec::new())
    }

    /// The counter of its energy.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where there is none that may be read.
    fn meter(&self) -> Result<Box<dyn Meter + '_>> {
        Err(meter::unreadable("no energy counter of this device is known here", "measure with --device host or --device cuda:0"))
    }
}

/// A device that could be opened, or the reason why a backend has none.
#[derive(Debug)]
#[allow(clippy::large_enum_variant)]
pub enum Found {
    /// A device.
    Device(DeviceInfo),
    /// No device of this backend.
    Absent(Error),
}

/// Everything that can be measured here, and why the rest cannot. Order: cuda, wgpu, host.
pub fn devices() -> Vec<Found> {
    let backends: &[fn() -> Vec<Found>] = &[
        #[cfg(feature = "cuda")]
        cuda::devices,
        #[cfg(feature = "wgpu")]
        wgpu::devices,
        || vec![Found::Device(host::device())],
    ];
    backends.iter().flat_map(|devices| devices()).collect()
}

/// Why a vendor's library cannot be called here; none where it can.
pub fn absent(library: Library) -> Option<Error> {
    #[cfg(feature = "cuda")]
    return cuda::absent(library);
    #[cfg(not(feature = "cuda"))]
    Some(Error::Unavailable {
        backend: library.key().into(),
        why: format!("this program was built without CUDA, which calls {library}"),
        remedy: "build it with the feature `cuda`".into(),
    })
}

/// The group that a user's kernel states in its own text; none where its language states none there, or the text cannot be read.
pub fn stated_group(plan: &Plan) -> Option<[u32; 3]> {
    #[cfg(feature = "wgpu")]
    if let (Code::Wgsl(text), Some(dispatch)) = (&plan.code, plan.dispatches.first()) {
        return wgpu::stated_group(text, &dispatch.entry);
    }
    let _ = plan;
    None
}

/// Opens the device that a selector names: `host`, `wgpu:0`, `cuda:0`, `fake`.
///
/// # Errors
/// [`Error::Usage`] for an unknown selector, [`Error::Unavailable`] where the backend or index is not there.
pub fn open(selector: &str) -> Result<Box<dyn Backend>> {
    let (backend, index) = selector.split_once(':').unwrap_or((selector, "0"));
    let index: usize =
        index.parse().map_err(|_| Error::usage(format!("device '{selector}' has no such number; write host, wgpu:0 or cuda:0")))?;
    match backend {
        "host" if index == 0 => Ok(Box::new(host::Host::new()?)),
        "fake" => Ok(Box::new(fake::Fake::from_environment()?)),
        #[cfg(feature = "wgpu")]
        "wgpu" => Ok(Box::new(wgpu::Wgpu::open(index)?)),
        #[cfg(feature = "cuda")]
        "cuda" => Ok(Box::new(cuda::Cuda::open(index)?)),
        _ => {
            Err(Error::usage(format!("there is no device '{selector}'; `rooftrace devices` lists what is here (host, wgpu:0, cuda:0, …)")))
        }
    }
}
