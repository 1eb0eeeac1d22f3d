//! Which adapters there are, and what is known of them without opening a device.

use wgpu::{Backends, DeviceType, Features, Instance, InstanceDescriptor};

use crate::error::Error;
use crate::plan::{DeviceInfo, DeviceKind, Language, Limits, Precision, coop_feature};

/// Features asked for where the adapter has them, by the name under which records list them.
const WANTED: [(Features, &str); 6] = [
    (Features::TIMESTAMP_QUERY, "timestamp-query"),
    (Features::SHADER_F16, "shader-f16"),
    (Features::SHADER_F64, "shader-f64"),
    (Features::SUBGROUP, "subgroup"),
    (Features::SUBGROUP_BARRIER, "subgroup-barrier"),
    (Features::EXPERIMENTAL_COOPERATIVE_MATRIX, "cooperative-matrix"),
];

/// Old Mesa stops every shader loop after 65,535 trips, without an error.
const CPU_LOOP_TRIPS: u64 = 60_000;
/// Windows ends launches after 2 s unless told otherwise; other systems grant more.
const GPU_LAUNCH_NS: u64 = 2_000_000_000;
/// No API behind wgpu tells the number of compute units of a GPU, nor its memory. These stand in for them, and
/// `compute-units-assumed` and `memory-assumed` among the device's features say so in every record.
const ASSUMED_UNITS: (u32, u32) = (64, 16);
const ASSUMED_MEMORY: u64 = 4 << 30;

/// The error of a machine without adapters.
pub(super) fn absent() -> Error {
    let remedy = match std::env::consts::OS {
        "linux" => "install the GPU's Vulkan driver, or mesa-vulkan-drivers and libvulkan1 for software Vulkan; --device host always works",
        "macos" => "macOS 10.13 or later with Metal is needed; --device host always works",
        _ => "install the GPU's driver; --device host always works",
    };
    Error::Unavailable { backend: "wgpu".into(), why: "no Vulkan, Metal or DX12 driver was found".into(), remedy: remedy.into() }
}

/// All adapters, best kind first, otherwise in the system's order.
pub(super) fn all() -> Vec<wgpu::Adapter> {
    let backends = Backends::VULKAN | Backends::METAL | Backends::DX12;
    let instance = Instance::new(InstanceDescriptor { backends, ..InstanceDescriptor::new_without_display_handle() });
    let mut adapters = pollster::block_on(instance.enumerate_adapters(backends));
    adapters.sort_by_key(|adapter| match adapter.get_info().device_type {
        DeviceType::DiscreteGpu => 0,
        DeviceType::IntegratedGpu => 1,
        DeviceType::VirtualGpu => 2,
        DeviceType::Other => 3,
        DeviceType::Cpu => 4,
    });
    adapters
}

/// The wanted features that this adapter has.
pub(super) fn features(adapter: &wgpu::Adapter) -> Features {
    adapter.features() & WANTED.iter().fold(Features::empty(), |all, (feature, _)| all | *feature)
}

/// The adapter as recorded.
pub(super) fn info(index: usize, adapter: &wgpu::Adapter) -> DeviceInfo {
    let (about, limits, features) = (adapter.get_info(), adapter.limits(), features(adapter));
    let cpu = about.device_type == DeviceType::Cpu;
    let mut names: Vec<String> = WANTED.iter().filter(|(f, _)| features.contains(*f)).map(|(_, name)| name.to_string()).collect();
    names.extend(matrices(adapter, features));
    let mut precisions = vec![Precision::F32];
    if features.contains(Features::SHADER_F64) {
        precisions.push(Precision::F64);
    }
    if features.contains(Features::SHADER_F16) {
        precisions.push(Precision::F16);
    }
    let host = || crate::backend::host::device();
    let (compute_units, caches, memory_bytes) = if cpu {
        let cpus = std::thread::available_parallelism().map_or(1, |n| n.get() as u32);
        (cpus, host().caches, available_memory().map_or(ASSUMED_MEMORY, |bytes| bytes / 2))
    } else {
        names.extend(["compute-units-assumed".to_string(), "memory-assumed".to_string()]);
        let units = if about.device_type == DeviceType::DiscreteGpu { ASSUMED_UNITS.0 } else { ASSUMED_UNITS.1 };
        (units, Vec::new(), limits.max_buffer_size.min(ASSUMED_MEMORY))
    };
    DeviceInfo {
        id: format!("wgpu:{index}"),
        backend: "wgpu".into(),
        name: about.name,
        kind: if cpu { DeviceKind::Cpu } else { DeviceKind::Gpu },
        language: Language::Wgsl,
        driver: format!("{} {} {}", about.backend, about.driver, about.driver_info).trim().to_string(),
        compute_units,
        caches,
        memory_bytes,
        precisions,
        features: names,
        limits: Limits {
            // A binding holds the guard behind its tensor as well.
            binding_bytes: limits.max_storage_buffer_binding_size.min(limits.max_buffer_size) - super::memory::GUARD,
            grid: limits.max_compute_workgroups_per_dimension,
            block: limits.max_compute_invocations_per_workgroup,
            shared_bytes: limits.max_compute_workgroup_storage_size,
            launch_ns: (!cpu).then_some(GPU_LAUNCH_NS),
            loop_trips: cpu.then_some(CPU_LOOP_TRIPS),
        },
        simulated: false,
        sensors: None,
    }
}

/// Configurations of cooperative matrices, as plans name them. Groups of our kernels are 32 lanes, which must fill a subgroup.
fn matrices(adapter: &wgpu::Adapter, features: Features) -> Vec<String> {
    if !features.contains(Features::EXPERIMENTAL_COOPERATIVE_MATRIX) || adapter.get_info().subgroup_max_size > 32 {
        return Vec::new();
    }
    let of = |t: wgpu::CooperativeScalarType| format!("{t:?}").to_lowercase();
    let all = adapter.cooperative_matrix_properties().into_iter();
    all.map(|p| coop_feature([p.m_size, p.n_size, p.k_size], &of(p.ab_type), &of(p.cr_type))).collect()
}

/// Memory that the system could still hand out, in bytes, where it says.
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("MemAvailable:"))?;
    Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
}
