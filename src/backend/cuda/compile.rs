//! CUDA C++ to machine code for one architecture, by NVRTC, with its log read even when it succeeds.
//!
//! A CUBIN is asked for, never PTX: only then does the assembler run, which finds what is illegal on the architecture and tells
//! registers and spills. A spill is an error: a kernel that spills is not the kernel that was written. So is a remark C75nn, which NVRTC
//! makes no error of even under `-Werror`: products of a warpgroup are serialised, waits are put
//! between them, or a request for registers is ignored.

use std::collections::HashMap;
use std::ffi::CString;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cudarc::driver::sys::CUresult;
use cudarc::driver::{CudaContext, CudaModule, DriverError};
use cudarc::nvrtc::{Ptx, result, sys};

use super::cache::{Cache, Entry};
use super::failed;
use crate::backend::Checks;
use crate::error::{Error, Result};

/// All that a module's code depends on.
pub struct Request<'a> {
    /// File name for the log.
    pub name: &'a str,
    /// Rendered text.
    pub text: &'a str,
    /// `NAME=value` pairs.
    pub defines: &'a [String],
    /// Such as `sm_90a`.
    pub architecture: &'a str,
    /// Whether line numbers go into the code.
    pub checks: Checks,
    /// Whether spills and remarks C75nn are errors: in our kernels they are, in a user's they are their choice.
    pub strict: bool,
    /// The compiler's release, such as `13.0`.
    pub release: &'a str,
}

impl Request<'_> {
    /// The compiler's options.
    pub fn options(&self) -> Vec<String> {
        let mut options = vec![format!("--gpu-architecture={}", self.architecture), "--std=c++17".into(), "--ptxas-options=-v".into()];
        if self.strict {
            options.extend(["--ptxas-options=--warn-on-spills".into(), "--ptxas-options=-Werror".into()]);
        }
        if self.checks == Checks::Checked {
            options.push("-lineinfo".into());
        }
        options.extend(self.defines.iter().map(|define| format!("-D{define}")));
        options
    }

    /// Equal keys give equal code.
    pub fn key(&self) -> String {
        format!("NVRTC {}\0{}\0{}", self.release, self.options().join("\0"), self.text)
    }
}

/// The name of a device's own architecture. 9.0 takes the `a` set, without which warp-group instructions do not exist.
pub fn architecture_name(major: i32, minor: i32) -> String {
    match (major, minor) {
        (9, 0) => "sm_90a".into(),
        _ => format!("sm_{major}{minor}"),
    }
}

/// What the assembler said about one entry point.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Usage {
    /// Entry point.
    pub entry: String,
    /// Registers of a lane.
    pub registers: Option<u32>,
    /// Local memory of a lane in bytes.
    pub stack: Option<u32>,
    /// Bytes stored to and loaded from local memory for want of registers.
    pub spills: Option<u32>,
    /// Statically declared shared memory in bytes; a log that does not mention any means none.
    pub shared: u32,
}

/// Reads the assembler's lines from a log.
pub fn usages(log: &str) -> Vec<Usage> {
    let mut found: Vec<Usage> = Vec::new();
    for line in log.lines() {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let entry = rest.split('\'').next().unwrap_or_default().to_string();
            found.push(Usage { entry, ..Usage::default() });
        }
        let Some(last) = found.last_mut() else { continue };
        if line.contains("bytes stack frame") {
            last.stack = number_before(line, " bytes stack frame");
            last.spills = number_before(line, " bytes spill stores").zip(number_before(line, " bytes spill loads")).map(|(s, l)| s + l);
        }
        if line.contains(" registers") && line.contains("Used ") {
            last.registers = number_before(line, " registers");
            last.shared = number_before(line, " bytes smem").unwrap_or(0);
        }
    }
    found
}

fn number_before(line: &str, unit: &str) -> Option<u32> {
    let (before, _) = line.split_once(unit)?;
    before.rsplit(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// A module in a context.
pub struct Compiled {
    /// The driver's module.
    pub module: Arc<CudaModule>,
    /// What the assembler said.
    pub usages: Vec<Usage>,
    /// Time that NVRTC took, beside others where they were compiled together, or reading what it made earlier, in nanoseconds.
    pub compile_ns: u64,
}

/// Code that was compiled before it was asked for.
pub struct Made {
    entry: Entry,
    compile_ns: u64,
}

/// Compiles these requests, each under its key, on all processors; begins none once `within` is over, and leaves out what fails. NVRTC compiles
/// side by side since CUDA 12.3 and one after the other before (its manual, "Thread Safety").
pub fn ahead(requests: &HashMap<String, Request<'_>>, cache: &Cache, within: Duration) -> HashMap<String, Made> {
    let (started, next) = (Instant::now(), Mutex::new(requests.iter()));
    let made = Mutex::new(HashMap::new());
    let take = || next.lock().unwrap_or_else(PoisonError::into_inner).next().filter(|_| started.elapsed() < within);
    let work = || {
        while let Some((key, request)) = take() {
            let begun = Instant::now();
            let Ok((cubin, log)) = cubin(request) else { continue };
            let entry = Entry { cubin, log };
            let compile_ns = begun.elapsed().as_nanos() as u64;
            cache.put(key, &entry);
            made.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone(), Made { entry, compile_ns });
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(requests.len());
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    made.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// Compiles, or takes what was compiled before under the request's key, and loads.
///
/// # Errors
/// [`Error::Compile`] with options and the log; those of the driver, [`Error::Unsupported`] where it refuses the code.
pub fn compile(context: &Arc<CudaContext>, request: &Request<'_>, key: &str, cache: &Cache, ahead: Option<Made>) -> Result<Compiled> {
    let made = ahead.map_or_else(|| now(request, key, cache), Ok)?;
    let Made { entry: Entry { cubin, log }, compile_ns } = made;
    as_written(request, &log)?;
    let module = context.load_module(Ptx::from_binary(cubin)).map_err(|e| refused(request, e))?;
    Ok(Compiled { module, usages: usages(&log), compile_ns })
}

/// Refuses what the assembler compiled to something slower than was written, by its remarks.
fn as_written(request: &Request<'_>, log: &str) -> Result<()> {
    let remarks: Vec<&str> = log.lines().filter(|line| request.strict && is_remark(line)).collect();
    match remarks.is_empty() {
        true => Ok(()),
        false => Err(Error::Compile {
            kernel: request.name.into(),
            log: format!("the assembler does not keep to it with {}\n{}", request.options().join(" "), remarks.join("\n")),
        }),
    }
}

/// Whether a line of the log holds a code from C7500 to C7599.
fn is_remark(line: &str) -> bool {
    line.split("(C75").skip(1).any(|rest| matches!(rest.as_bytes(), [a, b, b')', ..] if a.is_ascii_digit() && b.is_ascii_digit()))
}

/// What the driver says of code that it does not load.
fn refused(request: &Request<'_>, error: DriverError) -> Error {
    use CUresult::*;
    match error.0 {
        CUDA_ERROR_NO_BINARY_FOR_GPU | CUDA_ERROR_INVALID_IMAGE | CUDA_ERROR_INVALID_PTX | CUDA_ERROR_UNSUPPORTED_PTX_VERSION => {
            Error::unsupported(
                format!("the code of {} compiled for {}", request.name, request.architecture),
                format!("a driver that takes what NVRTC {} makes", request.release),
                format!("one that refuses it ({:?}); use an NVRTC that is no newer than the driver", error.0),
            )
        }
        _ => failed(&format!("loading the code of {}", request.name), error),
    }
}

/// Code from the cache, or compiled now and kept there.
fn now(request: &Request<'_>, key: &str, cache: &Cache) -> Result<Made> {
    let started = Instant::now();
    let entry = match cache.get(key) {
        Some(kept) => kept,
        None => {
            let (cubin, log) = cubin(request)?;
            let entry = Entry { cubin, log };
            cache.put(key, &entry);
            entry
        }
    };
    Ok(Made { entry, compile_ns: started.elapsed().as_nanos() as u64 })
}

/// An NVRTC program, destroyed with its owner; the text and the name outlive it.
struct Program {
    handle: sys::nvrtcProgram,
    _text: CString,
    _name: CString,
}

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: the handle comes from create_program and is destroyed once. A failure leaks it, which harms nobody.
        let _ = unsafe { result::destroy_program(self.handle) };
    }
}

fn cubin(request: &Request<'_>) -> Result<(Vec<u8>, String)> {
    let wrong = |why: String| Error::Compile { kernel: request.name.into(), log: why };
    let c = |text: &str| CString::new(text).map_err(|_| wrong("its text holds a zero byte".into()));
    let (text, name) = (c(request.text)?, c(request.name)?);
    let handle = result::create_program(&text, Some(&name)).map_err(|e| wrong(format!("NVRTC refuses it ({e})")))?;
    let program = Program { handle, _text: text, _name: name };
    let options = request.options();
    // SAFETY: the handle is live until `program` drops.
    let compiled = unsafe { result::compile_program(program.handle, &options) };
    let log = log_of(&program);
    compiled.map_err(|e| wrong(format!("{e} with {}\n{log}", options.join(" "))))?;
    let mut size = 0;
    // SAFETY: the handle is live, the pointer is to a live integer.
    unsafe { sys::nvrtcGetCUBINSize(program.handle, &mut size) }.result().map_err(|e| wrong(format!("it has no machine code ({e})")))?;
    let mut cubin = vec![0u8; size];
    // SAFETY: NVRTC writes exactly the size that it has just told.
    unsafe { sys::nvrtcGetCUBIN(program.handle, cubin.as_mut_ptr().cast()) }
        .result()
        .map_err(|e| wrong(format!("no machine code ({e})")))?;
    match cubin.is_empty() {
        true => Err(wrong(format!("NVRTC made no machine code for {}\n{log}", request.architecture))),
        false => Ok((cubin, log)),
    }
}

fn log_of(program: &Program) -> String {
    // SAFETY: the handle is live.
    match unsafe { result::get_program_log(program.handle) } {
        Ok(raw) => {
            let bytes: Vec<u8> = raw.into_iter().map(|c| c as u8).take_while(|&c| c != 0).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
        Err(error) => format!("(its log cannot be read: {error})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As NVRTC 13.0 prints it, with two entries and a C75xx remark between.
    const LOG: &str = "ptxas info    : 0 bytes gmem\n\
        ptxas info    : Compiling entry function 'read' for 'sm_90a'\n\
        ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads\n\
        ptxas info    : Used 64 registers, used 1 barriers, 1024 bytes smem\n\
        ptxas info    : (C7515) Potential Performance Loss: wgmma.mma_async instructions are serialized in the function 'read'\n\
        ptxas info    : Compiling entry function 'spilly' for 'sm_90a'\n\
        ptxas         .     1232 bytes stack frame, 1224 bytes spill stores, 1300 bytes spill loads\n\
        ptxas info    : Used 40 registers, used 0 barriers, 1232 bytes cumulative stack size\n";

    /// Reads and writes sums between products of a warpgroup.
    const SERIAL: &str = r#"extern "C" __global__ void __launch_bounds__(128) k(float* out, unsigned long long a, unsigned long long b) {
        float d[4] = {out[0], out[1], out[2], out[3]};
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
        for (int i = 0; i < 4; i++) {
            asm volatile("wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%0, %1, %2, %3}, %4, %5, 1, 1, 1, 0, 0;"
                         : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]) : "l"(a), "l"(b));
            d[0] += 1;
        }
        asm volatile("wgmma.commit_group.sync.aligned; wgmma.wait_group.sync.aligned 0;" ::: "memory");
        for (int i = 0; i < 4; i++) out[4 * threadIdx.x + i] = d[i];
    }"#;

    fn request<'a>(defines: &'a [String], checks: Checks) -> Request<'a> {
        Request { name: "op/variant.cu", text: "text", defines, architecture: "sm_80", checks, strict: true, release: "13.0" }
    }

    #[test]
    fn the_log_tells_registers_stack_spills_and_shared_memory_of_each_entry() {
        let found = usages(LOG);
        assert_eq!(found.len(), 2);
        let read = Usage { entry: "read".into(), registers: Some(64), stack: Some(0), spills: Some(0), shared: 1024 };
        assert_eq!(found[0], read);
        let spilly = Usage { entry: "spilly".into(), registers: Some(40), stack: Some(1232), spills: Some(2524), shared: 0 };
        assert_eq!(found[1], spilly);
    }

    #[test]
    fn a_log_without_the_assembler_tells_nothing() {
        assert_eq!(usages("warning: unused variable\n"), []);
        let cut = usages("ptxas info    : Compiling entry function 'a' for 'sm_80'\n");
        assert_eq!(cut[0].registers, None);
    }

    #[test]
    fn a_remark_that_products_are_serialised_is_an_error_of_ours_and_a_users_choice() {
        let ours = request(&[], Checks::Trusted);
        let said = as_written(&ours, LOG).unwrap_err().to_string();
        assert!(said.starts_with("op/variant.cu does not compile: ") && said.contains("(C7515)") && said.contains("serialized"), "{said}");
        assert!(!said.contains("spill stores"), "remarks alone: {said}");
        assert!(as_written(&Request { strict: false, ..request(&[], Checks::Trusted) }, LOG).is_ok());
        let others = "ptxas info    : (C7600) other\nptxas info    : (C750x) none\nnote: C7510\n(C75";
        assert!(as_written(&ours, others).is_ok());
        let ignored = as_written(&ours, "ptxas info    : (C7508) Potential Performance Loss: 'setmaxnreg' ignored").unwrap_err();
        assert!(ignored.to_string().contains("(C7508)"), "{ignored}");
    }

    #[test]
    fn only_code_of_another_release_is_blamed_on_nvrtc() {
        let said = |code| refused(&request(&[], Checks::Trusted), DriverError(code));
        for code in [CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU, CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION] {
            let why = said(code).to_string();
            assert!(why.contains("op/variant.cu") && why.contains("no newer than the driver"), "{why}");
            assert!(matches!(said(code), Error::Unsupported { .. }), "the device is not lost by it");
        }
        let short = said(CUresult::CUDA_ERROR_OUT_OF_MEMORY);
        assert!(matches!(&short, Error::NoMemory(_)) && !short.to_string().contains("NVRTC"), "{short}");
        assert!(matches!(said(CUresult::CUDA_ERROR_LAUNCH_FAILED), Error::DeviceLost(_)));
    }

    #[test]
    fn options_hold_the_architecture_the_gates_and_every_define() {
        let defines = ["BLOCK=256".to_string(), "T=float".to_string()];
        let options = request(&defines, Checks::Trusted).options();
        for wanted in
            ["--gpu-architecture=sm_80", "--ptxas-options=--warn-on-spills", "--ptxas-options=-Werror", "-DBLOCK=256", "-DT=float"]
        {
            assert!(options.iter().any(|o| o == wanted), "{wanted} is not in {options:?}");
        }
        assert!(request(&defines, Checks::Checked).options().contains(&"-lineinfo".to_string()));
        let lenient = Request { strict: false, ..request(&defines, Checks::Trusted) }.options();
        assert!(lenient.iter().all(|o| !o.contains("spills") && !o.contains("-Werror")), "{lenient:?}");
    }

    #[test]
    fn keys_differ_wherever_the_code_may() {
        let (a, b) = (["T=float".to_string()], ["T=double".to_string()]);
        let base = request(&a, Checks::Trusted).key();
        assert_eq!(base, request(&a, Checks::Trusted).key());
        assert_ne!(base, request(&b, Checks::Trusted).key());
        assert_ne!(base, request(&a, Checks::Checked).key());
        assert_ne!(base, Request { text: "other", ..request(&a, Checks::Trusted) }.key());
        assert_ne!(base, Request { architecture: "sm_90a", ..request(&a, Checks::Trusted) }.key());
        assert_ne!(base, Request { release: "12.9", ..request(&a, Checks::Trusted) }.key());
    }

    #[test]
    fn hopper_takes_its_own_instructions_and_others_their_plain_name() {
        let names = [(7, 5), (8, 6), (9, 0), (10, 0), (12, 1)].map(|(major, minor)| architecture_name(major, minor));
        assert_eq!(names, ["sm_75", "sm_86", "sm_90a", "sm_100", "sm_121"]);
    }

    /// Needs NVRTC but neither driver nor device: `scripts/check-cuda-kernels.sh` puts one into the target folder.
    #[test]
    fn where_nvrtc_is_installed_code_is_made_and_a_bad_text_gives_the_whole_log() {
        // SAFETY: loads and closes libraries that ship with the toolkit.
        if !unsafe { sys::is_culib_present() } {
            eprintln!("SKIPPED: NVRTC through the backend: libnvrtc is not found");
            return;
        }
        let bad = Request { text: "__global__ void k() { nonsense; }", ..request(&[], Checks::Trusted) };
        let log = cubin(&bad).unwrap_err().to_string();
        assert!(log.contains("op/variant.cu") && log.contains("nonsense") && log.contains("--gpu-architecture=sm_80"), "{log}");
        // It succeeds, and only the log tells.
        let serial = Request { text: SERIAL, architecture: "sm_90a", ..request(&[], Checks::Trusted) };
        let (_, log) = cubin(&serial).unwrap();
        assert!(log.contains("wgmma.mma_async instructions are serialized"), "{log}");
        let said = as_written(&serial, &log).unwrap_err().to_string();
        assert!(said.contains("are serialized") && said.contains("(C75"), "{said}");
        let draws = Request { text: crate::backend::cuda::fill::SOURCE, ..request(&[], Checks::Checked) };
        let (code, log) = cubin(&draws).unwrap();
        assert!(code.starts_with(b"\x7fELF"));
        let found = usages(&log);
        assert_eq!(found.len(), 16, "{log}");
        assert!(found.iter().all(|usage| usage.registers > Some(0) && usage.spills == Some(0)), "{found:?}");
    }
}
