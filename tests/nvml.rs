//! What NVML tells, over a stand-in for it (`cudacpu/nvml.cpp`) beside the stand-in for the driver: every call of ours, its refusals,
//! and a machine without it.
#![cfg(all(feature = "cuda", target_os = "linux"))]

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

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use rooftrace::plan::{DeviceInfo, Sensors};
use rooftrace::record::{Measurement, State, Telemetry};
use rooftrace::worker::{Answer, Bench, Effort, Goal, Item, Launch};
use serde_json::json;
use stand_in::{CACHE, NVML, beside, library, stand_in};

/// Folders with the stand-in for the driver, without NVML and with it; `None`, said aloud, where there is no compiler.
fn folders() -> Option<&'static (PathBuf, PathBuf)> {
    static MADE: OnceLock<Option<(PathBuf, PathBuf)>> = OnceLock::new();
    MADE.get_or_init(|| {
        let kept = |op: &str, text: String| ["fma", "stream", "launch", "matmul"].contains(&op).then_some(text);
        let without = stand_in("no-nvml", kept)?;
        let with = beside(&without, "nvml");
        library("nvml.cpp", &with.join(NVML));
        Some((without, with))
    })
    .as_ref()
}

fn launch(folder: &Path, script: &str) -> Launch {
    let launch = Launch::new("cuda:0").program(env!("CARGO_BIN_EXE_rooftrace")).variable("LD_LIBRARY_PATH", folder);
    launch.variable(CACHE, "").variable("CUDACPU_NVML", script)
}

/// The device as a process sees it, and how one item ends there.
fn asked(folder: &Path, script: &str, goal: Goal) -> (DeviceInfo, Answer) {
    let mut child = launch(folder, script).start().expect("the stand-in has a device");
    let fields = json!({"id": "m1", "op": "matmul", "problem": {"m": 24, "n": 20, "k": 16}, "variant": "naive", "precision": "f32",
        "cache": "warm", "draw": "dense", "seed": 1, "goal": goal, "order": 1});
    let item: Item = serde_json::from_value(fields).expect("an item");
    let answer = child.run(&item, Duration::from_secs(60));
    (child.device().clone(), answer)
}

/// Little, with canaries: what they stand around is what the device is looked at for.
fn brief() -> Goal {
    Goal::Measure(Effort { samples: 10, least_ns: 1_000_000, budget_ns: 100_000_000, canary: true })
}

fn measured(folder: &Path, script: &str, goal: Goal) -> Measurement {
    match asked(folder, script, goal).1 {
        Answer::Done(measurement) => measurement,
        Answer::Failed(state, why) => panic!("{script}: {state:?}: {why}"),
    }
}

fn refused(folder: &Path, script: &str) -> String {
    match asked(folder, script, Goal::Energy).1 {
        Answer::Failed(State::Unsupported, why) if why.starts_with("energy is not available: ") => why,
        other => panic!("{script}: {other:?}"),
    }
}

#[test]
fn the_board_is_found_by_its_address_and_tells_clocks_power_and_temperature() {
    let Some((_, with)) = folders() else { return };
    let (device, answer) = asked(with, "", brief());
    let told = Sensors { driver: Some("580.95.05".into()), power_limit_mw: Some(700_000), absent: None };
    assert_eq!(device.sensors, Some(told));
    let Answer::Done(m) = answer else { panic!("{answer:?}") };
    let telemetry = m.telemetry.expect("the board tells");
    assert_eq!(telemetry.core_mhz, Some(1750), "as counted between both moments");
    for moment in [&telemetry.before, &telemetry.after] {
        assert_eq!((moment.sm_mhz, moment.memory_mhz, moment.celsius), (Some(1980), Some(2619), Some(61)));
        assert!(matches!(moment.power_mw, Some(100_000 | 100_001)) && moment.throttle.is_empty(), "{moment:?}");
        assert_eq!((moment.capped_ns, moment.hot_ns), (Some(0), Some(0)));
    }
    assert!(m.state != State::PowerLimited && !m.reasons.iter().any(|reason| reason.contains("held its clocks")), "{:?}", m.reasons);
}

#[test]
fn what_holds_the_clocks_down_is_named() {
    let Some((_, with)) = folders() else { return };
    // Canaries of a shared machine may make any item suspect, which a power cap does not undo.
    for script in ["capped", "capped,no-times"] {
        let m = measured(with, script, brief());
        assert_eq!(m.telemetry.as_ref().map(|t| t.after.throttle.clone()), Some(vec!["sw_power_cap".to_string()]));
        assert!(matches!(m.state, State::PowerLimited | State::Suspect), "{m:?}");
        assert!(m.reasons.iter().any(|r| r.starts_with("power held its clocks down") && r.contains("1750 MHz")), "{:?}", m.reasons);
    }
    let m = measured(with, "hot", brief());
    assert_eq!(m.state, State::Suspect);
    assert!(m.reasons.iter().any(|r| r.starts_with("heat held its clocks down") && r.contains("61 °C")), "{:?}", m.reasons);
}

#[test]
fn energy_comes_from_the_counter_or_from_power_and_says_which() {
    let Some((_, with)) = folders() else { return };
    for (script, source) in [("", "NVML energy counter"), ("no-energy", "NVML power, integrated")] {
        let m = measured(with, script, Goal::Energy);
        let energy = m.energy.expect("energy");
        let watts = energy.uj as f64 / 1e6 / (energy.wall_ns as f64 / 1e9);
        assert_eq!(energy.source, source);
        assert!((watts / 100.0 - 1.0).abs() < 0.1 && (energy.idle_uw as f64 / 100e6 - 1.0).abs() < 0.2, "{watts} W: {energy:?}");
        assert!(energy.updates >= 20 && energy.launches > 100 && m.verification.is_some(), "{energy:?}");
    }
    assert!(refused(with, "no-energy,no-power").contains("neither energy nor power"));
    assert!(refused(with, "stuck").contains("(NVML energy counter) stood still"));
    assert!(refused(with, "mig").contains("MIG shares it"));
    assert!(refused(with, "lost").contains("neither energy nor power"));
}

#[test]
fn what_is_not_told_is_absent_and_the_reason_is_known_once() {
    let Some((without, with)) = folders() else { return };
    let m = measured(with, "no-power,no-clocks,no-times", brief());
    let after = m.telemetry.expect("its temperature is told").after;
    assert_eq!((after.sm_mhz, after.power_mw, after.capped_ns, after.celsius), (None, None, None, Some(61)));
    for (folder, script, says) in [
        (without, "", "NVML (libnvidia-ml) is not installed; it comes with the NVIDIA driver"),
        (with, "closed", "NVML does not start (NVIDIA driver is not loaded); check that nvidia-smi works"),
        (with, "elsewhere", "NVML does not know the device on the PCI bus"),
    ] {
        let (device, answer) = asked(folder, script, brief());
        let absent = device.sensors.and_then(|sensors| sensors.absent).expect("a reason");
        assert!(absent.contains(says), "{script}: {absent}");
        let Answer::Done(m) = answer else { panic!("{script}: {answer:?}") };
        let counted = Telemetry { core_mhz: Some(1750), ..Telemetry::default() };
        assert!(m.telemetry == Some(counted) && m.verification.is_some(), "{script}: {m:?}");
        assert!(refused(folder, script).contains(says), "{script}");
        let mut devices = Command::new(env!("CARGO_BIN_EXE_rooftrace"));
        devices.arg("devices").env("LD_LIBRARY_PATH", folder).env("CUDACPU_NVML", script);
        let listed = String::from_utf8(devices.output().expect("it starts").stdout).expect("text");
        assert!(listed.contains(&format!("clocks, power and energy are not read: {absent}")), "{listed}");
    }
    let mut devices = Command::new(env!("CARGO_BIN_EXE_rooftrace"));
    let listed = devices.arg("devices").env("LD_LIBRARY_PATH", with).output().expect("it starts");
    let listed = String::from_utf8(listed.stdout).expect("text");
    assert!(listed.contains("\n          driver 580.95.05, 700 W at most"), "{listed}");
}

#[test]
fn nothing_is_ever_set() {
    let source = include_str!("../src/backend/cuda/sensors.rs");
    assert!(!source.contains(".set_") && !source.contains("reset"), "a measurement changes no setting of the device");
}
