//! The wgpu backend: WGSL kernels on any Vulkan, Metal or DX12 device, the software one included.
//!
//! Timed modules are *trusted* (no bounds checks, no loop counters); `verify` runs *checked* ones too and compares their outputs
//! to the bit. Every tensor is filled, poisoned and audited on the device and stands between guard words. wgpu panics on an
//! error that nobody handles, does not check workgroup memory, and names no lost device in a result: so handlers are installed
//! first, limits are added up here, and every answer is followed by a look at the device's health.
//!
//! ABI of a kernel: tensor i is `@group(0) @binding(i)`, a storage buffer, padded to a whole vector of four elements so that
//! it can be declared as `array<T>` or `array<vec4<T>>`; `Dims` is the uniform `@group(1) @binding(0)`.

use std::path::Path;
use std::time::Duration;

use super::meter::rapl::{self, Rapl};
use super::meter::{self, Meter};
use super::{Backend, Checks, Found, Loaded, Occupied};
use crate::draw::Seeded;
use crate::error::{Error, Result};
use crate::plan::{Code, DeviceInfo, DeviceKind, Plan};

mod adapter;
mod device;
mod limits;
mod loaded;
mod memory;
mod own;
mod program;

use device::Device;
use memory::Filler;
pub(super) use own::stated_group;

/// Every adapter of every API on this machine, best first: discrete, integrated, virtual, other, software.
///
/// Opens no device. Where there is none, one [`Error::Unavailable`] that says what to install.
pub fn devices() -> Vec<Found> {
    let adapters = adapter::all();
    if adapters.is_empty() {
        return vec![Found::Absent(adapter::absent())];
    }
    adapters.iter().enumerate().map(|(index, adapter)| Found::Device(adapter::info(index, adapter))).collect()
}

/// An open device.
pub struct Wgpu {
    info: DeviceInfo,
    device: Device,
    filler: Filler,
}

impl Wgpu {
    /// Opens adapter number `index` of [`devices`], with all its limits and the features that kernels and clocks can use.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where there is no such adapter or its driver refuses, [`Error::Backend`] where it cannot compile
    /// the fill kernel.
    pub fn open(index: usize) -> Result<Self> {
        let adapters = adapter::all();
        let Some(adapter) = adapters.get(index) else {
            return Err(match adapters.len() {
                0 => adapter::absent(),
                count => Error::Unavailable {
                    backend: "wgpu".into(),
                    why: format!("there is no adapter {index}; this machine has {count}"),
                    remedy: format!("use --device wgpu:0{}", if count > 1 { format!(" to wgpu:{}", count - 1) } else { String::new() }),
                },
            });
        };
        let info = adapter::info(index, adapter);
        let device = Device::open(adapter)?;
        let filler = Filler::new(&device)?;
        Ok(Wgpu { info, device, filler })
    }

    /// Sets how long a sample, a read or an audit may take before [`Error::Timeout`]; 20 s unless set.
    ///
    /// After a timeout the kernel still runs, and some drivers wait for it when the process ends: have a parent end the process.
    pub fn set_timeout(&mut self, timeout: Duration) {
        self.device.timeout = timeout;
    }
}

impl Backend for Wgpu {
    fn device(&self) -> &DeviceInfo {
        &self.info
    }

    fn load<'a>(&'a self, plan: &Plan, seeded: Seeded, sets: u32, checks: Checks) -> Result<Box<dyn Loaded + 'a>> {
        let Code::Wgsl(text) = &plan.code else {
            return Err(Error::unsupported(
                format!("{}/{} on wgpu", plan.op, plan.variant),
                "a WGSL source",
                format!("{:?}", plan.language),
            ));
        };
        let own = if plan.own { Some(own::completed(plan, text)?) } else { None };
        let plan = own.as_ref().unwrap_or(plan);
        limits::check(plan, sets, &self.info, &self.device)?;
        let program = program::Program::compile(&self.device, plan, text, checks)?;
        Ok(Box::new(loaded::LoadedPlan::new(&self.device, &self.filler, plan, program, seeded, sets.max(1))?))
    }

    fn occupied(&self) -> Occupied {
        match (self.info.kind, self.device.raw.generate_allocator_report()) {
            (DeviceKind::Cpu, _) => Occupied::Process,
            (DeviceKind::Gpu, Some(report)) => Occupied::Device(report.total_allocated_bytes),
            (DeviceKind::Gpu, None) => Occupied::Unknown,
        }
    }

    fn meter(&self) -> Result<Box<dyn Meter + '_>> {
        match self.info.kind {
            DeviceKind::Cpu => Ok(Box::new(Rapl::open(Path::new(rapl::ROOT))?)),
            DeviceKind::Gpu => Err(meter::unreadable(
                "no counter of a GPU is read behind Vulkan, Metal or DX12",
                "measure an NVIDIA GPU with --device cuda:0",
            )),
        }
    }
}
