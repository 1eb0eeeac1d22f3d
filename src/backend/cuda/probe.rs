//! Finds the driver, its devices and NVRTC, and says what is missing in one sentence.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, set_hook, take_hook};
use std::sync::Once;

use cudarc::driver::result as driver;
use cudarc::driver::sys::{CUdevice, CUdevice_attribute_enum as Attribute, CUresult};
use cudarc::nvrtc::sys as nvrtc;

use super::compile::architecture_name;
use super::failed;
use super::sensors::{Address, Board};
use crate::error::{Error, Result};
use crate::plan::{DeviceInfo, DeviceKind, Language, Limits, Precision};

fn unavailable(why: impl Into<String>, remedy: impl Into<String>) -> Error {
    Error::Unavailable { backend: "cuda".into(), why: why.into(), remedy: remedy.into() }
}

/// The error for an index past the last device.
pub fn no_such_device(index: usize, count: usize) -> Error {
    unavailable(format!("there is no cuda:{index}"), format!("this machine has {count}, counted from cuda:0"))
}

/// Makes calls that look for a device and open it into libraries whose missing symbols make cudarc panic, and turns a panic into an error.
///
/// # Errors
/// The call's own, or [`Error::Unavailable`] with the panic's message.
pub fn guarded<T>(call: impl FnOnce() -> Result<T>) -> Result<T> {
    quietly(call).unwrap_or_else(|panic| Err(unavailable(discord(&*panic), TOGETHER)))
}

/// The same of calls on a device that is open: there a missing symbol is a failure, and no reason to pass a kernel by.
///
/// # Errors
/// The call's own, or [`Error::Backend`] with the panic's message.
pub fn running<T>(call: impl FnOnce() -> Result<T>) -> Result<T> {
    quietly(call).unwrap_or_else(|panic| Err(Error::Backend { backend: "cuda", why: format!("{}; {TOGETHER}", discord(&*panic)) }))
}

const TOGETHER: &str = "install the driver and NVRTC of one CUDA release";

fn discord(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("the NVIDIA libraries do not work together ({})", text.unwrap_or("no reason given"))
}

/// The error for a driver that does not take what the compiler makes.
pub fn discordant(why: Error) -> Error {
    unavailable(why.to_string(), TOGETHER)
}

/// Catches a panic of this thread in this call, without the words that a panic prints; all others print theirs.
fn quietly<T>(call: impl FnOnce() -> T) -> std::thread::Result<T> {
    thread_local!(static QUIET: Cell<bool> = const { Cell::new(false) });
    static HOOKED: Once = Once::new();
    HOOKED.call_once(|| {
        let usual = take_hook();
        set_hook(Box::new(move |panic| {
            if !QUIET.get() {
                usual(panic);
            }
        }));
    });
    let before = QUIET.replace(true);
    let caught = catch_unwind(AssertUnwindSafe(call));
    QUIET.set(before);
    caught
}

/// Every device, in the driver's order.
///
/// # Errors
/// [`Error::Unavailable`] where the driver, any device or NVRTC is missing.
pub fn list() -> Result<Vec<DeviceInfo>> {
    libraries()?;
    guarded(|| {
        let count = start()?;
        let compiler = nvrtc_release()?;
        (0..count).map(|index| describe(index, &compiler)).collect()
    })
}

/// The architecture that kernels for device `index` are compiled for.
///
/// # Errors
/// [`Error::Unavailable`] where NVRTC does not compile for it.
pub fn architecture(index: usize) -> Result<String> {
    guarded(|| {
        let device = driver::device::get(index as i32).map_err(|e| failed("opening the device", e))?;
        let (major, minor) = capability(device)?;
        match supported(&known_architectures()?, major, minor) {
            true => Ok(architecture_name(major, minor)),
            false => {
                let release = nvrtc_release()?;
                Err(unavailable(
                    format!("NVRTC {release} does not compile for this device's sm_{major}{minor}"),
                    "install an NVRTC of a CUDA release that does, such as 12.9 for devices before sm_75",
                ))
            }
        }
    })
}

/// Looks for the libraries first: cudarc panics on the first call into one that is not there.
fn libraries() -> Result<()> {
    // SAFETY: loads and closes libraries that ship with the driver and the toolkit; their initialisers are theirs to answer for.
    let (cuda, nvrtc) = unsafe { (cudarc::driver::sys::is_culib_present(), nvrtc::is_culib_present()) };
    missing(cuda, nvrtc)
}

fn missing(cuda: bool, nvrtc: bool) -> Result<()> {
    match (cuda, nvrtc) {
        (true, true) => Ok(()),
        // Without a driver, NVRTC would help nobody, so it is not mentioned. With one, devices are counted before it is missed.
        (false, _) => Err(unavailable(
            "the NVIDIA driver (libcuda) is not installed",
            "install the driver, or measure with --device wgpu:0 or --device host",
        )),
        (true, false) => {
            guarded(start)?;
            Err(unavailable(
                "the run-time compiler NVRTC (libnvrtc) is not found",
                "install the CUDA toolkit, or `pip install nvidia-cuda-nvrtc` and put its lib folder on LD_LIBRARY_PATH",
            ))
        }
    }
}

/// Starts the driver and counts its devices.
fn start() -> Result<usize> {
    driver::init().map_err(|e| refused(e.0))?;
    match driver::device::get_count().map_err(|e| refused(e.0))? {
        count if count > 0 => Ok(count as usize),
        _ => Err(refused(CUresult::CUDA_ERROR_NO_DEVICE)),
    }
}

fn refused(code: CUresult) -> Error {
    match code {
        CUresult::CUDA_ERROR_NO_DEVICE => unavailable(
            "the NVIDIA driver finds no device (CUDA_ERROR_NO_DEVICE)",
            "check nvidia-smi and CUDA_VISIBLE_DEVICES, or measure with --device wgpu:0 or --device host",
        ),
        CUresult::CUDA_ERROR_STUB_LIBRARY => unavailable(
            "the libcuda found is the toolkit's stub, not a driver (CUDA_ERROR_STUB_LIBRARY)",
            "take the toolkit's stubs folder off LD_LIBRARY_PATH",
        ),
        other => unavailable(format!("the NVIDIA driver does not start ({other:?})"), "check that nvidia-smi works"),
    }
}

/// NVRTC's release, such as `13.0`.
///
/// # Errors
/// [`Error::Unavailable`] where NVRTC does not answer.
pub fn nvrtc_release() -> Result<String> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: both pointers are to live integers.
    unsafe { nvrtc::nvrtcVersion(&mut major, &mut minor) }.result().map_err(|e| broken_compiler(e.0))?;
    Ok(format!("{major}.{minor}"))
}

fn broken_compiler(code: nvrtc::nvrtcResult) -> Error {
    unavailable(format!("NVRTC does not answer ({code:?})"), "install it anew, with libnvrtc-builtins in the same folder")
}

/// Architectures that NVRTC compiles for, as major · 10 + minor.
fn known_architectures() -> Result<Vec<i32>> {
    let mut count = 0;
    // SAFETY: the pointer is to a live integer.
    unsafe { nvrtc::nvrtcGetNumSupportedArchs(&mut count) }.result().map_err(|e| broken_compiler(e.0))?;
    let mut known = vec![0; count.max(0) as usize];
    // SAFETY: NVRTC writes as many numbers as it has just told.
    unsafe { nvrtc::nvrtcGetSupportedArchs(known.as_mut_ptr()) }.result().map_err(|e| broken_compiler(e.0))?;
    Ok(known)
}

fn supported(known: &[i32], major: i32, minor: i32) -> bool {
    known.contains(&(major * 10 + minor))
}

fn attribute(device: CUdevice, which: Attribute) -> Result<i32> {
    // SAFETY: the device comes from cuDeviceGet.
    unsafe { driver::device::get_attribute(device, which) }.map_err(|e| failed("asking for a device attribute", e))
}

fn capability(device: CUdevice) -> Result<(i32, i32)> {
    let major = attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    Ok((major, attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?))
}

/// The board of device `index`, as NVML knows it.
///
/// # Errors
/// One sentence why NVML tells nothing of it.
pub fn board_of(index: usize) -> Result<Board, String> {
    board(driver::device::get(index as i32).map_err(|e| failed("opening the device", e).to_string())?)
}

fn board(device: CUdevice) -> Result<Board, String> {
    let number = |which| attribute(device, which).map(|value| value.max(0) as u32).map_err(|e| e.to_string());
    Board::at(Address {
        domain: number(Attribute::CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID)?,
        bus: number(Attribute::CU_DEVICE_ATTRIBUTE_PCI_BUS_ID)?,
        device: number(Attribute::CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID)?,
    })
}

/// CUDA release that the driver serves, from its number such as 13000.
fn release(number: i32) -> String {
    format!("{}.{}", number / 1000, number % 1000 / 10)
}

fn describe(index: usize, compiler: &str) -> Result<DeviceInfo> {
    let device = driver::device::get(index as i32).map_err(|e| failed("opening the device", e))?;
    let mut served = 0;
    // SAFETY: the pointer is to a live integer.
    unsafe { cudarc::driver::sys::cuDriverGetVersion(&mut served) }.result().map_err(|e| failed("asking for the driver's version", e))?;
    // SAFETY: the device comes from cuDeviceGet.
    let memory = unsafe { driver::device::total_mem(device) }.map_err(|e| failed("asking for the memory", e))? as u64;
    let (major, minor) = capability(device)?;
    let number = |which| attribute(device, which).map(|value| value.max(0) as u32);
    let l2 = number(Attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE)? as u64;
    let watched = number(Attribute::CU_DEVICE_ATTRIBUTE_KERNEL_EXEC_TIMEOUT)? != 0;
    Ok(DeviceInfo {
        id: format!("cuda:{index}"),
        backend: "cuda".into(),
        name: driver::device::get_name(device).map_err(|e| failed("asking for the device's name", e))?,
        kind: DeviceKind::Gpu,
        language: Language::Cuda,
        driver: format!("CUDA {}, NVRTC {}", release(served), compiler),
        compute_units: number(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        caches: if l2 > 0 { vec![(2, l2)] } else { Vec::new() },
        memory_bytes: memory,
        precisions: precisions(major, minor),
        features: vec![format!("sm_{major}{minor}")],
        limits: Limits {
            binding_bytes: memory,
            grid: number(Attribute::CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y)?,
            block: number(Attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK)?,
            shared_bytes: number(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
            // The driver tells that there is a watchdog, not when it bites: two seconds is where systems set it.
            launch_ns: watched.then_some(2_000_000_000),
            loop_trips: None,
        },
        simulated: false,
        sensors: Some(Board::about(&board(device))),
    })
}

/// Precisions with instructions of their own: f16 arithmetic came with sm_53 (CUDA C++ Programming Guide, "Arithmetic Instructions").
fn precisions(major: i32, minor: i32) -> Vec<Precision> {
    let mut all = vec![Precision::F32, Precision::F64];
    if (major, minor) >= (5, 3) {
        all.push(Precision::F16);
    }
    // The matrix units' formats, with the instructions that convert to them.
    if major >= 8 {
        all.extend([Precision::BF16, Precision::TF32]);
    }
    // Matrix units that take E4M3 (PTX ISA, "mma").
    if (major, minor) >= (8, 9) {
        all.push(Precision::Fp8);
    }
    // Products of four 8-bit integers.
    if (major, minor) >= (6, 1) {
        all.push(Precision::Int8);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_one_sentence_with_a_way_out() {
        let text = missing(false, true).unwrap_err().to_string();
        assert!(text.contains("libcuda") && text.contains("--device host"), "{text}");
        assert!(missing(false, false).unwrap_err().to_string().contains("libcuda"));
    }

    #[test]
    fn codes_of_a_driver_that_does_not_start_name_the_cause() {
        assert!(refused(CUresult::CUDA_ERROR_NO_DEVICE).to_string().contains("CUDA_VISIBLE_DEVICES"));
        assert!(refused(CUresult::CUDA_ERROR_STUB_LIBRARY).to_string().contains("stubs folder"));
        assert!(refused(CUresult::CUDA_ERROR_SYSTEM_DRIVER_MISMATCH).to_string().contains("SYSTEM_DRIVER_MISMATCH"));
        assert_eq!(refused(CUresult::CUDA_ERROR_NO_DEVICE).exit_code(), 3);
    }

    #[test]
    fn a_panic_of_the_bindings_becomes_an_error() {
        let opening = guarded::<()>(|| panic!("Missing symbol {}", "cuSomething")).unwrap_err();
        assert!(matches!(&opening, Error::Unavailable { why, .. } if why.contains("Missing symbol cuSomething")), "{opening}");
        let using = running::<()>(|| panic!("Missing symbol cuSomething")).unwrap_err();
        assert!(matches!(&using, Error::Backend { why, .. } if why.contains("Missing symbol cuSomething")), "{using}");
    }

    #[test]
    fn driver_numbers_read_as_releases() {
        assert_eq!((release(13000), release(12080), release(11040)), ("13.0".into(), "12.8".into(), "11.4".into()));
    }

    #[test]
    fn each_precision_comes_with_the_architecture_that_has_instructions_for_it() {
        use Precision::*;
        assert_eq!(precisions(5, 2), [F32, F64]);
        assert_eq!(precisions(6, 0), [F32, F64, F16]);
        assert_eq!(precisions(7, 5), [F32, F64, F16, Int8]);
        assert_eq!(precisions(8, 6), [F32, F64, F16, BF16, TF32, Int8]);
        assert_eq!(precisions(8, 9), [F32, F64, F16, BF16, TF32, Fp8, Int8]);
        assert_eq!(precisions(9, 0), precisions(8, 9));
    }

    #[test]
    fn an_architecture_is_supported_only_if_the_compiler_lists_it() {
        let thirteen = [75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121];
        assert!(supported(&thirteen, 9, 0) && supported(&thirteen, 12, 1) && !supported(&thirteen, 7, 0) && !supported(&thirteen, 13, 0));
    }
}
