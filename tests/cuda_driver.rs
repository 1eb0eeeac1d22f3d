//! The cuda backend without a GPU: what it says where a library or device is missing, and the whole of it over a stand-in for the
//! NVIDIA libraries that runs kernels on the CPU (`cudacpu/driver.h`).
#![cfg(feature = "cuda")]

// Each test program uses a part of these.
#[allow(dead_code)]
#[path = "cudacpu/cases.rs"]
mod cases;
#[allow(dead_code)]
#[path = "cudacpu/harness.rs"]
mod harness;
#[allow(dead_code)]
#[path = "cudacpu/stand_in.rs"]
mod stand_in;

#[path = "cuda_driver/code.rs"]
mod code;
#[path = "cuda_driver/copies.rs"]
mod copies;
#[path = "cuda_driver/faults.rs"]
mod faults;
#[path = "cuda_driver/graphs.rs"]
mod graphs;

use std::collections::HashSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use cases::SEED;
use harness::{compiler, folder, skipped};
use rooftrace::backend::cuda::{Cuda, devices};
use rooftrace::backend::{Backend, Checks, Found, Loaded};
use rooftrace::draw::{Draw, Drawn, Seeded};
use rooftrace::op::{OPS, Op, find};
use rooftrace::plan::{Code, DeviceKind, Language, Precision, Unit};
use rooftrace::worker::{Answer, Bench, Goal, Launch};
use stand_in::{CACHE, again, in_child, install, planned, program, runs_here, stand_in};

/// What `devices` says in a process that sees these libraries and no other of their names.
struct Seen {
    answer: String,
    stderr: String,
}

/// Lists devices in a child process that finds the driver as given, a C++ source or none, and no NVRTC. A file that is no library stands
/// for a missing one. `None` where there is no compiler.
fn devices_seen_with(test: &str, libcuda: Option<&str>) -> Option<Seen> {
    if in_child() {
        for found in devices() {
            match found {
                Found::Device(device) => println!("ANSWER device {} {}", device.id, device.name),
                Found::Absent(why) => println!("ANSWER {why}"),
            }
        }
        if let Err(why) = Cuda::open(0) {
            println!("OPEN {why}");
        }
        std::process::exit(0);
    }
    let folder = folder(test);
    let none = folder.join("none");
    std::fs::write(&none, "no library").expect("the folder can be written");
    install(&folder, &["cuda", "nvcuda", "nvrtc"], &none);
    if let Some(source) = libcuda {
        let library = folder.join("built");
        library_from(&folder, source, &library)?;
        install(&folder, &["cuda", "nvcuda"], &library);
    }
    let (stdout, stderr) = again(test, &folder);
    let after = |mark: &str| stdout.lines().filter_map(|line| line.split_once(mark)).map(|(_, text)| text.to_string()).collect::<Vec<_>>();
    let (answer, opened) = (after("ANSWER "), after("OPEN "));
    assert_eq!(answer.len(), 1, "one sentence: {stdout}");
    assert_eq!(answer, opened, "`open` gives the reason that `devices` gives");
    // The program itself: no such device, in the same words.
    for command in [&["run"][..], &["trace"], &["verify"], &["study", "depthwise"]] {
        let arguments = [command, &["--device", "cuda:0", "--quiet"]].concat();
        let (status, stdout, stderr) = program(&folder, &arguments, &[]);
        assert!(status == 3 && stderr.contains(&answer[0]) && !stderr.contains("panicked"), "{command:?}: {status}: {stdout}{stderr}");
    }
    let _ = std::fs::remove_dir_all(&folder);
    Some(Seen { answer: answer.concat(), stderr })
}

/// Builds a shared library; `None`, said aloud, where there is no compiler.
fn library_from(folder: &Path, source: &str, library: &Path) -> Option<()> {
    let Some(cxx) = compiler() else {
        skipped("a stand-in for the NVIDIA libraries");
        return None;
    };
    let file = folder.join("stub.cpp");
    std::fs::write(&file, source).expect("the folder can be written");
    let done = Command::new(cxx).args(["-shared", "-fPIC", "-o"]).arg(library).arg(&file).output().expect("it starts");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Some(())
}

#[test]
fn without_libcuda_there_is_one_clear_sentence_and_no_panic() {
    let test = "without_libcuda_there_is_one_clear_sentence_and_no_panic";
    let Some(seen) = devices_seen_with(test, None) else { return };
    assert_eq!(
        seen.answer,
        "cuda is not available: the NVIDIA driver (libcuda) is not installed; install the driver, or measure with --device wgpu:0 or --device host"
    );
    assert!(!seen.stderr.contains("panicked"), "{}", seen.stderr);
}

/// Three functions, as little as a driver can be.
fn stub(code: u32) -> String {
    format!(
        "extern \"C\" int cuInit(unsigned) {{ return {code}; }}\n\
         extern \"C\" int cuGetErrorName(int, const char** s) {{ *s = \"NAME\"; return 0; }}\n\
         extern \"C\" int cuGetErrorString(int, const char** s) {{ *s = \"text\"; return 0; }}\n"
    )
}

#[test]
fn a_driver_that_finds_no_device_is_told_from_one_that_is_missing() {
    let test = "a_driver_that_finds_no_device_is_told_from_one_that_is_missing";
    let Some(seen) = devices_seen_with(test, Some(&stub(100))) else { return };
    assert!(
        seen.answer.contains("finds no device (CUDA_ERROR_NO_DEVICE)") && seen.answer.contains("CUDA_VISIBLE_DEVICES"),
        "{}",
        seen.answer
    );
    assert!(!seen.stderr.contains("panicked"), "{}", seen.stderr);
}

#[test]
fn the_toolkits_stub_of_libcuda_is_named_as_such() {
    let test = "the_toolkits_stub_of_libcuda_is_named_as_such";
    let Some(seen) = devices_seen_with(test, Some(&stub(34))) else { return };
    assert!(seen.answer.contains("stub") && seen.answer.contains("LD_LIBRARY_PATH"), "{}", seen.answer);
    assert!(!seen.stderr.contains("panicked"), "{}", seen.stderr);
}

#[test]
fn a_device_without_nvrtc_is_a_missing_compiler_not_a_missing_device() {
    let test = "a_device_without_nvrtc_is_a_missing_compiler_not_a_missing_device";
    let driver = stub(0) + "extern \"C\" int cuDeviceGetCount(int* n) { *n = 1; return 0; }\n";
    let Some(seen) = devices_seen_with(test, Some(&driver)) else { return };
    assert!(
        seen.answer.contains("NVRTC (libnvrtc) is not found") && seen.answer.contains("pip install nvidia-cuda-nvrtc"),
        "{}",
        seen.answer
    );
    assert!(!seen.stderr.contains("panicked"), "{}", seen.stderr);
}

#[test]
fn a_driver_with_symbols_missing_is_an_error_and_ends_nothing() {
    let test = "a_driver_with_symbols_missing_is_an_error_and_ends_nothing";
    let Some(seen) = devices_seen_with(test, Some(&stub(0))) else { return };
    assert!(seen.answer.contains("cuDeviceGetCount"), "{}", seen.answer);
    assert!(!seen.stderr.contains("panicked"), "{}", seen.stderr);
}

/// Loads three sets, launches five times from set 1, and holds what comes back against definition, draw and poison.
fn exercise(device: &Cuda, problem: &Arc<dyn Op>, variant: &str, precision: Precision, checks: Checks) {
    let plan = planned(problem, variant, precision);
    let seeded = Seeded { draw: Draw::Exact, seed: SEED };
    let mut loaded = device.load(&plan, seeded, 3, checks).unwrap_or_else(|e| panic!("{} {}: {e}", plan.op, problem.label()));
    let (output, drawn) = (plan.output(), Drawn::new(&plan.tensors, seeded));
    let read = |loaded: &mut Box<dyn Loaded + '_>, tensor: usize, set: u32| {
        loaded.read(tensor, set, 0..plan.tensors[tensor].elements()).expect("the range is legal")
    };
    for tensor in (0..plan.tensors.len()).filter(|&t| t != output) {
        let found = read(&mut loaded, tensor, 2);
        assert!(found.iter().enumerate().all(|(i, &x)| x == drawn.value(tensor, i as u64)), "{} has other inputs", plan.op);
    }
    assert!(read(&mut loaded, output, 0).iter().all(|x| x.is_nan()), "an output is NaN until it is written");
    // Sets 1 and 2: two launches do not reach set 0.
    let sample = loaded.sample(2, 1).expect("it runs");
    assert!(sample.device.is_some_and(|device| device <= sample.wall));
    let columns = *plan.tensors[output].shape.last().expect("no tensor is a scalar");
    let rows = plan.tensors[output].elements() / columns;
    let stored = plan.tensors[output].dtype;
    let row = |row| problem.row(problem.arithmetic(precision, plan.unit), &drawn, row, 0..columns);
    let expected: Vec<f64> = (0..rows).flat_map(row).map(|x| stored.round(x)).collect();
    for set in [1, 2] {
        let found = read(&mut loaded, output, set);
        let close = |(found, expected): (&f64, &f64)| (found - expected).abs() <= 1e-5 * (1.0 + expected.abs());
        assert!(found.iter().zip(&expected).all(close), "{} {} in set {set}", plan.op, problem.label());
        if found.len() > 2 {
            let some = loaded.read(output, set, 1..3).expect("the range is legal");
            assert_eq!(some, found[1..3], "a range of the output is that part of it");
        }
    }
    assert!(read(&mut loaded, output, 0).iter().all(|x| x.is_nan()), "two launches from set 1 leave set 0 alone");
    loaded.poison(2).expect("it is set");
    assert!(read(&mut loaded, output, 2).iter().all(|x| x.is_nan()) && read(&mut loaded, output, 1).iter().all(|x| !x.is_nan()));
    for set in 0..3 {
        let audit = loaded.audit(set).expect("it is read");
        assert_eq!((audit.guards_broken, audit.inputs_changed), (0, 0), "{} {} set {set}", plan.op, problem.label());
    }
    let facts = loaded.facts();
    assert!(facts.checks == Some(checks) && facts.allocated_bytes >= Some(plan.pool_bytes(3) + plan.cost.workspace));
    let dynamic = plan.dispatches.iter().map(|d| d.dynamic_bytes).max().unwrap_or(0);
    let known = (facts.registers, facts.local_bytes, facts.shared_bytes, facts.compile_ns.is_some());
    match &plan.code {
        Code::Transfer(_) => {
            assert_eq!(known, (None, None, None, false));
            assert!(facts.path.is_some_and(|path| path.contains("page-locked host memory")));
        }
        _ => assert_eq!(known, (Some(42), Some(0), Some(96 + dynamic), true)),
    }
    assert!(loaded.read(output, 3, 0..1).is_err() && loaded.read(output, 0, 0..u64::MAX).is_err(), "what is not there is an error");
}

#[test]
fn the_whole_backend_runs_every_cuda_source_over_a_stand_in_for_the_driver() {
    let test = "the_whole_backend_runs_every_cuda_source_over_a_stand_in_for_the_driver";
    if !in_child() {
        let Some(folder) = stand_in(test, |_, text| Some(text)) else { return };
        again(test, &folder);
        let _ = std::fs::remove_dir_all(&folder);
        return;
    }
    let device = Cuda::open(0).expect("the stand-in has a device");
    let info = device.device();
    assert_eq!((info.id.as_str(), info.name.as_str(), info.kind, info.compute_units), ("cuda:0", "Stand-in", DeviceKind::Gpu, 1));
    assert_eq!((info.driver.as_str(), &info.caches[..], info.limits.block), ("CUDA 13.0, NVRTC 13.0", &[(2, 1 << 20)][..], 1024));
    assert!(info.has("sm_90") && Cuda::open(1).is_err_and(|e| e.to_string().contains("no cuda:1")));
    for entry in OPS {
        // Where tensors lie is the backend's doing, not the problem's: each kernel once with the checked layout.
        let mut checked = HashSet::new();
        for fields in (entry.awkward)() {
            let problem = (entry.parse)(&fields).expect("legal");
            for variant in problem.variants().into_iter().filter(runs_here) {
                let precisions = variant.source(Language::Cuda).map_or(&[][..], |source| source.precisions);
                // Of its architectures none has both warpgroups and `mma` in fp8: `tests/cuda.rs` runs that.
                let absent = |precision| (variant.unit, precision) == (Unit::Mma, Precision::Fp8);
                for &precision in precisions.iter().filter(|&&precision| problem.tensors(precision).is_ok() && !absent(precision)) {
                    exercise(&device, &problem, variant.name, precision, Checks::Trusted);
                    if checked.insert((variant.name, precision)) {
                        exercise(&device, &problem, variant.name, precision, Checks::Checked);
                    }
                }
            }
        }
    }
    // All is freed again, and what cannot be had is told with its size.
    let huge = find("stream").and_then(|e| (e.parse)(&serde_json::json!({"kind": "copy", "elements": 1 << 26}))).expect("legal");
    let refused = device.load(&planned(&huge, "linear", Precision::F32), Seeded { draw: Draw::Dense, seed: 1 }, 1, Checks::Trusted);
    let why = refused.err().expect("512 MiB do not fit 256").to_string();
    assert!(why.contains("out of memory") && why.contains("256 MiB are free"), "{why}");
}

#[test]
fn what_is_prepared_is_loaded_without_a_compiler_and_nothing_else_is() {
    let test = "what_is_prepared_is_loaded_without_a_compiler_and_nothing_else_is";
    if !in_child() {
        let Some(folder) = stand_in(test, |op, text| (op == "matmul").then_some(text)) else { return };
        again(test, &folder);
        let _ = std::fs::remove_dir_all(&folder);
        return;
    }
    let device = Cuda::open(0).expect("the stand-in has a device");
    let problem = find("matmul").and_then(|e| (e.parse)(&serde_json::json!({"m": 15, "n": 4, "k": 8}))).expect("legal");
    let plans = ["naive", "tiled", "register"].map(|variant| (planned(&problem, variant, Precision::F32), Checks::Trusted));
    device.prepare(&plans[2..], Duration::ZERO);
    device.prepare(&plans[..2], Duration::from_secs(60));
    // SAFETY: no other thread of this process reads the environment; the compiler does, when it is asked.
    unsafe { std::env::set_var("CUDACPU_NO_COMPILER", "1") };
    for variant in ["naive", "tiled"] {
        exercise(&device, &problem, variant, Precision::F32, Checks::Trusted);
    }
    for (variant, checks) in [("register", Checks::Trusted), ("naive", Checks::Checked)] {
        let refused = device.load(&planned(&problem, variant, Precision::F32), Seeded { draw: Draw::Dense, seed: 1 }, 1, checks);
        let why = refused.err().expect("nothing compiles it").to_string();
        assert!(why.contains("compiles nothing now"), "{why}");
    }
}

#[test]
fn an_overrun_and_a_written_input_are_found_by_the_audit() {
    let test = "an_overrun_and_a_written_input_are_found_by_the_audit";
    if !in_child() {
        let patched = |op: &str, text: String| match op {
            // The naive rung alone.
            "matmul" if text.contains("row >= d.m || col >= d.n") => Some(
                text.replace("row >= d.m || col >= d.n", "col >= d.n")
                    .replace("    S sum = 0;", "    if (row >= d.m) { c[row * d.n + col] = T(1); return; }\n    S sum = 0;")
                    .replace(
                        "c[row * d.n + col] = T(sum);",
                        "c[row * d.n + col] = T(sum); T* const w = const_cast<T*>(b) + 3; if (row + col == 0) *w = T(S(*w) + S(1));",
                    ),
            ),
            _ => None,
        };
        let Some(folder) = stand_in(test, patched) else { return };
        again(test, &folder);
        let _ = std::fs::remove_dir_all(&folder);
        return;
    }
    let device = Cuda::open(0).expect("the stand-in has a device");
    let problem = find("matmul").and_then(|e| (e.parse)(&serde_json::json!({"m": 15, "n": 4, "k": 8}))).expect("legal");
    let plan = planned(&problem, "naive", Precision::F32);
    let mut loaded = device.load(&plan, Seeded { draw: Draw::Dense, seed: 1 }, 2, Checks::Trusted).expect("it loads");
    loaded.sample(1, 0).expect("it runs");
    let (touched, other) = (loaded.audit(0).expect("it is read"), loaded.audit(1).expect("it is read"));
    assert_eq!((touched.guards_broken, touched.inputs_changed), (4, 1), "one row of four words past C, one element of B");
    assert_eq!(other.inputs_changed, 0);
}

/// Peak memory, from the free memory that the stand-in tells: one set, its guards and eight bytes for the audit.
fn memory_is_what_the_driver_gave_out(folder: &Path) {
    let launch = Launch::new("cuda:0").program(env!("CARGO_BIN_EXE_rooftrace")).variable("LD_LIBRARY_PATH", folder).variable(CACHE, "");
    let mut child = launch.start().expect("the stand-in has a device");
    let fields = serde_json::json!({"id": "peak", "op": "matmul", "problem": {"m": 300, "n": 200, "k": 100}, "variant": "naive",
        "precision": "f32", "cache": "warm", "draw": "dense", "seed": 1, "goal": Goal::Peak, "order": 1});
    let item = serde_json::from_value(fields).expect("an item");
    let answer = child.fresh(&item, Duration::from_secs(30)).expect("a child has processes");
    let Answer::Done(m) = answer else { panic!("{answer:?}") };
    let beyond = m.peak_bytes.expect("the driver tells") - m.set_bytes;
    assert!(m.set_bytes == 440_000 && (4 * 256 + 8..8 * 256).contains(&beyond), "{beyond} bytes beyond {}", m.set_bytes);
}

#[test]
fn every_cuda_source_is_verified_by_the_program_itself_over_the_stand_in() {
    let Some(folder) = stand_in("program", |_, text| Some(text)) else { return };
    let mut program = Command::new(env!("CARGO_BIN_EXE_rooftrace"));
    program.args(["verify", "--device", "cuda:0", "--size", "small", "--quiet"]).env("LD_LIBRARY_PATH", &folder).env(CACHE, "");
    let done = program.output().expect("it starts");
    let (stdout, stderr) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{}: {stdout}{stderr}", done.status);
    let last = stdout.lines().last().unwrap_or_default();
    assert!(last.contains(" 0 failed, ") && !last.starts_with("0 "), "{stdout}");
    // Only what needs a vendor's library or another architecture is left out, with the reason.
    let mut skips = stdout.lines().filter(|line| line.contains(" skipped: ")).peekable();
    let known = |line: &str| line.contains("is not installed") || line.contains("matrix/mma on mma needs sm_89, sm_120 or later in fp8");
    assert!(skips.peek().is_some() && skips.all(known), "{stdout}");
    memory_is_what_the_driver_gave_out(&folder);
    let _ = std::fs::remove_dir_all(&folder);
}

#[test]
fn code_is_compiled_once_and_found_by_the_next_process() {
    let Some(folder) = stand_in("cached", |op, text| ["fma", "matmul"].contains(&op).then_some(text)) else { return };
    let verified = |cache: &Path, compiler: bool| {
        let mut program = Command::new(env!("CARGO_BIN_EXE_rooftrace"));
        program.args(["verify", "--device", "cuda:0", "--op", "matmul", "--variant", "naive", "--size", "small", "--quiet"]);
        program.env("LD_LIBRARY_PATH", &folder).env(CACHE, cache);
        if !compiler {
            program.env("CUDACPU_NO_COMPILER", "1");
        }
        let done = program.output().expect("it starts");
        (done.status.success(), String::from_utf8_lossy(&[done.stdout, done.stderr].concat()).into_owned())
    };
    let cache = folder.join("cache");
    let (made, text) = verified(&cache, true);
    assert!(made, "{text}");
    assert_eq!(verified(&cache, false), (true, text), "the same outcome from the code of the first process");
    let (without, text) = verified(&folder.join("other"), false);
    assert!(!without && text.contains("compiles nothing now"), "{text}");
    let _ = std::fs::remove_dir_all(&folder);
}
