//! A device that fails over the stand-in: every fault is one item's, with its state and reason; what was measured before is kept, and the
//! rest goes on.

use std::path::Path;
use std::time::{Duration, Instant};

use rooftrace::record::{Record, State, read};
use rooftrace::worker::{Answer, Bench, Child, Item, Launch};
use serde_json::{Value, json};

use crate::stand_in::{CACHE, program, stand_in};

/// Long enough for whatever does not hang.
const AMPLE: Duration = Duration::from_secs(120);

/// A device that has this fault when it comes to `matmul/tiled`.
fn device(folder: &Path, fault: &str, more: &[(&str, &str)]) -> Child {
    let launch = Launch::new("cuda:0").program(env!("CARGO_BIN_EXE_rooftrace")).variable("LD_LIBRARY_PATH", folder).variable(CACHE, "");
    let launch = launch.variable("CUDACPU_REFUSES", fault).variable("CUDACPU_AT", "matmul_tiled");
    more.iter().fold(launch, |launch, (name, value)| launch.variable(name, value)).start().expect("the stand-in has a device")
}

fn item(variant: &str, order: u32) -> Item {
    let effort = json!({"samples": 3, "least_ns": 1_000_000, "budget_ns": 20_000_000, "canary": false});
    let fields = json!({"id": format!("{variant}-{order}"), "op": "matmul", "problem": {"m": 15, "n": 4, "k": 8}, "variant": variant,
        "precision": "f32", "cache": "warm", "draw": "dense", "seed": 1, "goal": {"measure": effort}, "order": order});
    serde_json::from_value(fields).expect("an item")
}

fn measured(child: &mut Child, variant: &str, order: u32) {
    match child.run(&item(variant, order), AMPLE) {
        Answer::Done(m) => assert!(m.verification.is_some() && m.state != State::Wrong, "{m:?}"),
        Answer::Failed(state, why) => panic!("{variant}: {state:?}: {why}"),
    }
}

#[test]
fn every_fault_of_a_device_is_one_items_with_its_state_and_reason_and_the_next_item_runs() {
    let Some(folder) = stand_in("faults", |op, text| ["fma", "matmul"].contains(&op).then_some(text)) else { return };
    let cases = [
        ("launch", State::DeviceLost, "matmul/tiled failed with CUDA_ERROR_LAUNCH_FAILED"),
        ("lost", State::DeviceLost, "failed with CUDA_ERROR_ILLEGAL_ADDRESS; run again"),
        ("watchdog", State::Timeout, "was ended by the watchdog (CUDA_ERROR_LAUNCH_TIMEOUT); choose a smaller problem"),
        ("slow", State::Timeout, "matmul/tiled gave no answer within 3.0s and was ended"),
        (
            "resources",
            State::Unsupported,
            "needs more registers or shared memory for a group, and this device has fewer (CUDA_ERROR_LAUNCH_OUT_OF",
        ),
    ];
    for (fault, state, said) in cases {
        let mut child = device(&folder, fault, &[("CUDACPU_AFTER", "2")]);
        measured(&mut child, "naive", 0);
        let (limit, started) = (if fault == "slow" { Duration::from_secs(3) } else { AMPLE }, Instant::now());
        let Answer::Failed(found, why) = child.run(&item("tiled", 1), limit) else { panic!("{fault}: it was measured") };
        assert!(started.elapsed() < limit + Duration::from_secs(5), "{fault} took {:?}", started.elapsed());
        assert!(found == state && why.contains(said) && why.contains("matmul/tiled"), "{fault}: {found:?}: {why}");
        measured(&mut child, "naive", 2);
        measured(&mut child, "register", 3);
    }
    // What a driver refuses to load is nobody else's loss, nor the device's.
    let mut child = device(&folder, "module", &[]);
    let process = child.process_id();
    let Answer::Failed(state, why) = child.run(&item("tiled", 0), AMPLE) else { panic!("it was measured") };
    let said = "the code of matmul/tiled.cu compiled for sm_90a needs a driver that takes what NVRTC 13.0 makes, and this device has one that \
                refuses it (CUDA_ERROR_NO_BINARY_FOR_GPU); use an NVRTC that is no newer than the driver";
    assert_eq!((state, why.as_str()), (State::Unsupported, said));
    measured(&mut child, "naive", 1);
    assert_eq!(child.process_id(), process, "the device is not opened again");
    memory_ends_anywhere(&folder);
    program_goes_on(&folder);
    other_devices(&folder);
    let _ = std::fs::remove_dir_all(&folder);
}

/// Whatever is refused its memory, by the driver, not by what it tells of free memory: the item says so, or goes another way, and the next runs.
fn memory_ends_anywhere(folder: &Path) {
    let mark = folder.join("short");
    let mut states = Vec::new();
    for after in 0..200 {
        let _ = std::fs::remove_file(&mark);
        let after = after.to_string();
        let launch = Launch::new("cuda:0").program(env!("CARGO_BIN_EXE_rooftrace")).variable("LD_LIBRARY_PATH", folder).variable(CACHE, "");
        let launch = launch.variable("CUDACPU_REFUSES", "memory").variable("CUDACPU_AFTER", &after).variable("CUDACPU_ONCE", &mark);
        let mut child = match launch.start() {
            Ok(child) => child,
            Err(why) => {
                assert!(mark.exists() && why.to_string().contains("out of memory"), "at {after}: {why}");
                continue;
            }
        };
        match child.run(&item("tiled", 0), AMPLE) {
            Answer::Done(m) => {
                assert!(m.verification.is_some(), "at {after}: {m:?}");
                states.push(State::Ok);
            }
            Answer::Failed(State::OutOfMemory, why) => {
                assert!(why.contains("out of memory") && why.ends_with("choose a smaller problem"), "at {after}: {why}");
                states.push(State::OutOfMemory);
            }
            Answer::Failed(state, why) => panic!("at {after}: {state:?}: {why}"),
        }
        // The item took less often than that.
        if !mark.exists() {
            break;
        }
        measured(&mut child, "tiled", 1);
    }
    assert!(!mark.exists());
    assert_eq!(states.last(), Some(&State::Ok), "no end of allocations was found: {states:?}");
    assert!(states.iter().filter(|state| **state == State::OutOfMemory).count() >= 4, "{states:?}");
}

/// Devices that no code is made for, that have no such units, or whose driver takes nothing that the compiler makes.
fn other_devices(folder: &Path) {
    for command in ["run", "trace", "verify", "devices"] {
        let (status, stdout, stderr) = program(
            folder,
            &[command, "--device", "cuda:0", "--quiet"][..if command == "devices" { 1 } else { 4 }],
            &[("CUDACPU_ARCH", "70"), ("CUDACPU_COMPILES", "75")],
        );
        match command {
            "devices" => assert_eq!(status, 0, "{stdout}{stderr}"),
            _ => assert!(
                status == 3 && stderr.contains("NVRTC 13.0 does not compile for this device's sm_70"),
                "{command}: {status}: {stderr}"
            ),
        }
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
    let verify = [
        "verify",
        "--device",
        "cuda:0",
        "--op",
        "matmul",
        "--variant",
        "naive",
        "--variant",
        "mma",
        "--variant",
        "wgmma",
        "--json",
        "--quiet",
    ];
    let (status, stdout, stderr) = program(folder, &verify, &[("CUDACPU_ARCH", "75")]);
    assert!(status == 0 && stdout.contains("needs sm_80 or later") && stdout.contains("needs sm_90a"), "{status}: {stdout}{stderr}");
    let (status, _, stderr) = program(folder, &verify, &[("CUDACPU_REFUSES", "module")]);
    assert!(status == 3 && stderr.contains("use an NVRTC that is no newer than the driver"), "{status}: {stderr}");
}

/// The program itself ends with a status that tells, and has run what the fault did not strike.
fn program_goes_on(folder: &Path) {
    let arguments = ["verify", "--device", "cuda:0", "--op", "matmul", "--precision", "f32", "--json", "--quiet"];
    let variants = ["naive", "tiled", "register"].map(|variant| ["--variant", variant]);
    let arguments: Vec<&str> = arguments.into_iter().chain(variants.into_iter().flatten()).collect();
    for (fault, code) in [("launch", "CUDA_ERROR_LAUNCH_FAILED"), ("lost", "CUDA_ERROR_ILLEGAL_ADDRESS")] {
        let (status, stdout, stderr) = program(folder, &arguments, &[("CUDACPU_REFUSES", fault), ("CUDACPU_AT", "matmul_tiled")]);
        let report: Value = serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}{stderr}"));
        let all = report[0]["variants"].as_array().unwrap_or_else(|| panic!("{stdout}"));
        let failures: Vec<String> = all.iter().map(|variant| variant["failures"].to_string()).collect();
        let told = failures.iter().map(|text| text.contains(code)).collect::<Vec<_>>();
        assert!(status != 0 && told == [false, true, false] && failures[0] == "[]" && failures[2] == "[]", "{fault}: {status}: {stdout}");
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
    // What the device cannot run is no failure of the kernel: it is left out, and named.
    for (fault, code) in [("module", "CUDA_ERROR_NO_BINARY_FOR_GPU"), ("resources", "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES")] {
        let (status, stdout, stderr) = program(folder, &arguments, &[("CUDACPU_REFUSES", fault), ("CUDACPU_AT", "matmul_tiled")]);
        let report: Value = serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}{stderr}"));
        assert!(status == 0 && report.to_string().contains(code), "{fault}: {status}: {stdout}{stderr}");
    }
}

#[test]
fn a_device_that_is_lost_in_a_trace_leaves_what_was_measured_before_and_after_in_the_journal() {
    const PROBES: [&str; 7] = ["fma", "stream", "exp", "shared", "launch", "chase", "ramp"];
    let kept = |op: &str, text: String| PROBES.contains(&op).then_some(text);
    let Some(folder) = stand_in("lost", kept) else { return };
    let (out, mark) = (folder.join("out"), folder.join("mark"));
    let [out, mark] = [&out, &mark].map(|path| path.to_str().expect("a plain path"));
    let fault = [("CUDACPU_REFUSES", "lost"), ("CUDACPU_AT", "stream_linear"), ("CUDACPU_AFTER", "40"), ("CUDACPU_ONCE", mark)];
    let variables = [&fault[..], &[("CUDACPU_L2", "16384")]].concat();
    let arguments = ["trace", "--device", "cuda:0", "--size", "small", "--budget", "30s", "--quiet", "--out", out];
    let (status, stdout, stderr) = program(&folder, &arguments, &variables);
    // Of other settings than the default ones the stand-in has no kernels: they are wrong, which is worse than a hole.
    assert!([4, 5].contains(&status) && Path::new(mark).exists(), "{status}: {stdout}{stderr}");
    let records = read(&Path::new(out).join("records.jsonl")).expect("it reads").records;
    let lost = |record: &Record| match record {
        Record::Measurement(m) => m.state == State::DeviceLost,
        Record::Skip(skip) => skip.state == State::DeviceLost && skip.why.contains("CUDA_ERROR_ILLEGAL_ADDRESS"),
        _ => false,
    };
    let at: Vec<usize> = (0..records.len()).filter(|&i| lost(&records[i])).collect();
    let sound = |records: &[Record]| {
        records.iter().filter(|r| matches!(r, Record::Measurement(m) if [State::Ok, State::Suspect].contains(&m.state))).count()
    };
    let [at] = at[..] else { panic!("{at:?} of {} records: {stderr}", records.len()) };
    assert!(sound(&records[..at]) > 0 && sound(&records[at..]) > 0, "{at} of {}", records.len());
    assert!(matches!(records.last(), Some(Record::End(_))), "the journal ends as it should");
    let _ = std::fs::remove_dir_all(&folder);
}
