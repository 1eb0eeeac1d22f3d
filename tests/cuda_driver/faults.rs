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
    // What a driver refuses to load is nobody else's loss.
    let mut child = device(&folder, "module", &[]);
    let Answer::Failed(_, why) = child.run(&item("tiled", 0), AMPLE) else { panic!("it was measured") };
    assert!(why.contains("the driver refuses the code of matmul/tiled.cu compiled for sm_90a (CUDA_ERROR_NO_BINARY_FOR_GPU)"), "{why}");
    measured(&mut child, "naive", 1);
    program_goes_on(&folder);
    let _ = std::fs::remove_dir_all(&folder);
}

/// The program itself ends with a status that tells, and has run what the fault did not strike.
fn program_goes_on(folder: &Path) {
    let arguments = ["verify", "--device", "cuda:0", "--op", "matmul", "--precision", "f32", "--json", "--quiet"];
    let variants = ["naive", "tiled", "register"].map(|variant| ["--variant", variant]);
    let arguments: Vec<&str> = arguments.into_iter().chain(variants.into_iter().flatten()).collect();
    for (fault, code) in
        [("launch", "CUDA_ERROR_LAUNCH_FAILED"), ("lost", "CUDA_ERROR_ILLEGAL_ADDRESS"), ("module", "CUDA_ERROR_NO_BINARY")]
    {
        let (status, stdout, stderr) = program(folder, &arguments, &[("CUDACPU_REFUSES", fault), ("CUDACPU_AT", "matmul_tiled")]);
        let report: Value = serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}{stderr}"));
        let all = report[0]["variants"].as_array().unwrap_or_else(|| panic!("{stdout}"));
        let failures: Vec<String> = all.iter().map(|variant| variant["failures"].to_string()).collect();
        let told = failures.iter().map(|text| text.contains(code)).collect::<Vec<_>>();
        assert!(status != 0 && told == [false, true, false] && failures[0] == "[]" && failures[2] == "[]", "{fault}: {status}: {stdout}");
        assert!(!stderr.contains("panicked"), "{stderr}");
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
