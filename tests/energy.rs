//! Energy and the state of the device: counters that are scripted, that wrap, stand still, or may not be read.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rooftrace::Error;
use rooftrace::backend::fake::Fake;
use rooftrace::backend::host::Host;
use rooftrace::backend::meter::Meter;
use rooftrace::backend::meter::rapl::Rapl;
use rooftrace::measure::Engine;
use rooftrace::op::{self, Op, OpRole};
use rooftrace::record::{self, Energy, Measurement, Record, State};
use rooftrace::view::View;
use rooftrace::worker::{Effort, Goal, Item};
use serde_json::json;

fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("energy-{name}"));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("the target folder can be written");
    folder
}

/// A counter's folder.
fn domain(root: &Path, folder: &str, name: &str, uj: u64, range: Option<u64>) {
    let folder = root.join(folder);
    fs::create_dir_all(&folder).expect("a folder");
    fs::write(folder.join("name"), format!("{name}\n")).expect("a file");
    set(root, folder.file_name().and_then(|name| name.to_str()).expect("a name"), uj);
    if let Some(range) = range {
        fs::write(folder.join("max_energy_range_uj"), format!("{range}\n")).expect("a file");
    }
}

/// Whole, as the system does it: no reader sees half a number.
fn set(root: &Path, folder: &str, uj: u64) {
    let folder = root.join(folder);
    fs::write(folder.join("next"), format!("{uj}\n")).expect("a file");
    fs::rename(folder.join("next"), folder.join("energy_uj")).expect("a file");
}

fn refused(root: &Path) -> String {
    let why = Rapl::open(root).expect_err("it has no counter");
    assert!(matches!(&why, Error::Unavailable { backend, .. } if backend == "energy"), "{why}");
    why.to_string()
}

#[test]
fn packages_and_their_memory_are_added_up_and_nothing_is_counted_twice() {
    let root = scratch("domains");
    domain(&root, "intel-rapl:0", "package-0", 1_000, Some(10_000));
    domain(&root, "intel-rapl:0:0", "core", 500, Some(10_000));
    domain(&root, "intel-rapl:0:1", "dram", 100, Some(10_000));
    domain(&root, "intel-rapl:1", "package-1", 2_000, Some(10_000));
    domain(&root, "intel-rapl:2", "psys", 7_000, Some(10_000));
    domain(&root, "intel-rapl-mmio:0", "package-0", 1_000, Some(10_000));
    fs::create_dir_all(root.join("dtpm")).expect("a folder");
    let mut rapl = Rapl::open(&root).expect("it has counters");
    assert_eq!((rapl.source(), rapl.adds_up()), ("RAPL: package-0, dram, package-1", true));
    let still = rapl.read().expect("reads");
    assert_eq!((still.uj, still.updates), (0, 0), "a counter begins where it stands");
    for (folder, uj) in [("intel-rapl:0", 1_100), ("intel-rapl:0:0", 9_000), ("intel-rapl:0:1", 107), ("intel-rapl:1", 2_030)] {
        set(&root, folder, uj);
    }
    set(&root, "intel-rapl-mmio:0", 9_999);
    let moved = rapl.read().expect("reads");
    assert_eq!((moved.uj, moved.updates), (137, 1));
    // Both packages pass their range: 10,000 is where they begin anew.
    set(&root, "intel-rapl:0", 50);
    set(&root, "intel-rapl:1", 30);
    let wrapped = rapl.read().expect("reads");
    assert_eq!((wrapped.uj, wrapped.updates), (137 + 8_950 + 8_000, 2));
    assert_eq!(rapl.read().expect("reads").uj, wrapped.uj);
    fs::remove_file(root.join("intel-rapl:1/energy_uj")).expect("removes");
    assert!(rapl.read().expect_err("gone").to_string().contains("of package-1 cannot be read"));
}

#[test]
fn a_counter_that_is_missing_broken_or_falls_is_a_sentence_and_never_zero() {
    let root = scratch("broken");
    assert!(refused(&root.join("nowhere")).contains("shows no RAPL counters"));
    assert!(refused(&root).contains("virtual machines"));
    domain(&root, "intel-rapl:0", "psys", 1, None);
    assert!(refused(&root).contains("shows no RAPL counters"), "a platform's counter alone is no processor's");
    domain(&root, "intel-rapl:0", "package-0", 1_000, None);
    let mut rapl = Rapl::open(&root).expect("it has a counter");
    set(&root, "intel-rapl:0", 900);
    let fell = rapl.read().expect_err("it fell").to_string();
    assert!(fell.contains("of package-0 fell") && fell.contains("max_energy_range_uj"), "{fell}");
    fs::write(root.join("intel-rapl:0/energy_uj"), "much\n").expect("a file");
    assert!(refused(&root).contains("is no number"));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let file = root.join("intel-rapl:0/energy_uj");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o000)).expect("it is ours");
        match fs::read_to_string(&file) {
            Ok(_) => println!("SKIPPED: this user may read everything"),
            Err(_) => assert!(refused(&root).contains("may be read by root alone; run as root")),
        }
    }
}

fn matmul() -> std::sync::Arc<dyn Op> {
    (op::find("matmul").expect("an op").parse)(&json!({"m": 64, "n": 48, "k": 32})).expect("a problem")
}

/// The energy pass of matmul/naive on a scripted device, or why there is none.
fn passed(script: &str) -> Result<Measurement, Error> {
    let fake = Fake::scripted(script).expect("a script");
    let op = matmul();
    Engine::new(&fake).expect("clocks").perform(&*op, &Item::new(&*op, "naive", Goal::Energy))
}

fn energy(script: &str) -> Energy {
    let m = passed(script).expect("energy");
    assert!(m.verification.is_some() && m.samples_ns.is_empty(), "{m:?}");
    m.energy.expect("energy")
}

fn near(got: f64, want: f64, part: f64) -> bool {
    (got / want - 1.0).abs() <= part
}

#[test]
fn joules_of_a_launch_are_power_times_time_whatever_the_counters_steps() {
    // 250 W busy, 50 W idle; a launch of 0.1 ms takes 25 mJ, 20 mJ of them beyond the idle device.
    for update_ns in [1_000, 1_000_000, 20_000_000, 100_000_000, 300_000_000] {
        let script = json!({"energy": {"update_ns": update_ns}, "ease": [{"ns": 1e5}], "clock": {"submit_ns": 0}});
        let energy = energy(&script.to_string());
        assert!(near(energy.joules(), 0.025, 0.02) && near(energy.joules_above_idle(), 0.020, 0.02), "{update_ns}: {energy:?}");
        assert!(near(energy.idle_uw as f64, 50e6, 0.01), "{update_ns}: {energy:?}");
        assert!(energy.updates >= 20 && energy.wall_ns >= 2_000_000_000, "{update_ns}: {energy:?}");
        assert!(energy.wall_ns >= 20 * update_ns - update_ns, "{update_ns}: {energy:?}");
        assert!(energy.launches >= 19_000 && energy.source == "scripted", "{update_ns}: {energy:?}");
    }
}

#[test]
fn launches_longer_than_a_step_do_not_wait_for_twenty_of_them() {
    let script = json!({"energy": {"update_ns": 1_000_000}, "ease": [{"ns": 0.9e9}], "clock": {"submit_ns": 0}});
    let long = energy(&script.to_string());
    assert!(long.launches <= 4 && long.updates >= 20, "{long:?}");
    assert!(near(long.joules(), 225.0, 0.01), "{long:?}");
    // Power that is integrated knows nothing of what lay between two readings.
    let script = json!({"energy": {"update_ns": 1_000_000, "integrated": true}, "ease": [{"ns": 0.5e9}], "clock": {"submit_ns": 0}});
    let each = energy(&script.to_string());
    assert!(each.launches >= 20 && each.updates >= 20 && near(each.joules(), 125.0, 0.01), "{each:?}");
    let script = json!({"energy": {"update_ns": 1_000_000, "integrated": true}, "ease": [{"ns": 2e9}]});
    let why = passed(&script.to_string()).expect_err("too few readings").to_string();
    assert!(why.starts_with("energy is not available: ") && why.contains("in 20 s of work, and 20 are needed"), "{why}");
}

#[test]
fn no_counter_none_that_moves_and_none_that_may_be_read_are_told_apart() {
    let why = |script: &str| passed(script).expect_err("no energy").to_string();
    assert!(why("{}").contains("has no counter"));
    assert!(why(r#"{"energy": {"update_ns": 0}}"#).contains("stood still in 1.0 s"));
    assert!(why(r#"{"energy": {"update_ns": 900000000}}"#).contains("moved once in 1.0 s"));
    assert!(why(r#"{"energy": {"refused": "it is locked"}}"#).contains("it is locked"));
    for script in ["{}", r#"{"energy": {"update_ns": 0}}"#] {
        assert!(matches!(passed(script), Err(Error::Unavailable { .. })), "{script}");
    }
}

#[test]
fn a_wrong_output_has_no_energy() {
    let script = r#"{"energy": {}, "faults": [{"at": "sample", "kind": "one_bad", "after": 30}]}"#;
    match passed(script) {
        Err(Error::Wrong(why)) => assert!(why.contains("matmul"), "{why}"),
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn the_host_counts_with_the_counters_that_it_is_given() {
    let root = scratch("host");
    // 30 W of a counter that wraps on the way.
    let range = 100_000_000;
    domain(&root, "intel-rapl:0", "package-0", range - 30_000_000, Some(range));
    let (done, folder) = (AtomicBool::new(false), root.clone());
    let measured = std::thread::scope(|scope| {
        scope.spawn(|| {
            let started = std::time::Instant::now();
            while !done.load(Ordering::Relaxed) {
                let uj = (started.elapsed().as_secs_f64() * 30e6) as u64;
                set(&folder, "intel-rapl:0", (range - 30_000_000 + uj) % range);
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        let host = Host::new().expect("the host").counters_under(&root);
        let op = matmul();
        let pass = Engine::new(&host).and_then(|mut engine| engine.perform(&*op, &Item::new(&*op, "naive", Goal::Energy)));
        done.store(true, Ordering::Relaxed);
        pass
    });
    let energy = measured.expect("energy").energy.expect("energy");
    assert_eq!(energy.source, "RAPL: package-0");
    let watts = energy.uj as f64 / 1e6 / (energy.wall_ns as f64 / 1e9);
    // A busy machine may keep the counter's own thread from its work: steps are then late, and the idle second has few.
    assert!(near(watts, 30.0, 0.2) && energy.idle_uw > 0, "{watts} W: {energy:?}");
    assert!(energy.updates >= 20 && energy.launches > 100, "{energy:?}");
    let none = Host::new().expect("the host").counters_under(root.join("nowhere"));
    let op = matmul();
    let why = Engine::new(&none).expect("clocks").perform(&*op, &Item::new(&*op, "naive", Goal::Energy)).expect_err("none").to_string();
    assert!(why.contains("shows no RAPL counters"), "{why}");
}

/// The state of a measured item whose device says this of itself, with its reasons and what was recorded.
fn judged(vitals: serde_json::Value) -> Measurement {
    let fake = Fake::scripted(&json!({"vitals": vitals}).to_string()).expect("a script");
    let op = matmul();
    let item = Item::new(&*op, "naive", Goal::Measure(Effort::default()));
    Engine::new(&fake).expect("clocks").perform(&*op, &item).expect("measures")
}

#[test]
fn a_power_cap_and_heat_are_named_where_they_held_the_clocks_down() {
    let quiet = judged(json!([]));
    assert_eq!((quiet.state, quiet.telemetry), (State::Ok, None), "a device that tells nothing is ok");
    let fine =
        judged(json!([{"sm_mhz": 1980, "capped_ns": 5_000_000}, {"sm_mhz": 1965, "capped_ns": 6_000_000, "throttle": ["sw_power_cap"]}]));
    assert_eq!((fine.state, &fine.reasons[..]), (State::Ok, &[][..]), "a millisecond is no cap, whatever is on at the end");
    let telemetry = fine.telemetry.expect("it was told");
    assert_eq!((telemetry.before.sm_mhz, telemetry.after.sm_mhz), (Some(1980), Some(1965)));
    let capped = judged(json!([{"capped_ns": 0}, {"sm_mhz": 1410, "power_mw": 699_400, "celsius": 61, "capped_ns": 10_000_000_000u64}]));
    assert_eq!(capped.state, State::PowerLimited);
    assert_eq!(capped.reasons, ["power held its clocks down (100 % of the time, 1410 MHz, 699 W, 61 °C)"]);
    assert!(capped.verification.is_some() && capped.samples_ns.len() >= 10);
    let flagged = judged(json!([{"sm_mhz": 1980}, {"sm_mhz": 1400, "throttle": ["sw_power_cap"]}]));
    assert_eq!(flagged.state, State::PowerLimited, "where no time is told, the end counts");
    assert_eq!(flagged.reasons, ["power held its clocks down at its end (sw_power_cap, 1400 MHz)"]);
    let kept = judged(json!([{"capped_ns": 0}, {"capped_ns": 0, "throttle": ["sw_power_cap"]}]));
    assert_eq!(kept.state, State::PowerLimited, "a time that stands still meanwhile is not kept");
    let before = judged(json!([{"sm_mhz": 1400, "throttle": ["sw_power_cap"]}, {"sm_mhz": 1980}]));
    assert_eq!(before.state, State::Ok, "what came before is another's");
    let hot =
        judged(json!([{"hot_ns": 0}, {"celsius": 92, "hot_ns": 10_000_000_000u64, "throttle": ["hw_thermal_slowdown", "sw_power_cap"]}]));
    assert_eq!(hot.state, State::Suspect);
    assert!(hot.reasons[0].starts_with("heat held its clocks down (100 % of the time, 92 °C)"), "{:?}", hot.reasons);
    assert!(hot.reasons[1].contains("power") && hot.reasons.len() == 2, "{:?}", hot.reasons);
}

fn run(name: &str, script: &str, args: &[&str]) -> (Output, PathBuf) {
    let out = scratch(name);
    let mut command = Command::new(env!("CARGO_BIN_EXE_rooftrace"));
    command.args(args).args(["--device", "fake", "--size", "small", "--quiet", "--out"]).arg(&out);
    command.env("NO_COLOR", "1").env("COLUMNS", "160").env("ROOFTRACE_FAKE", script);
    (command.output().expect("the program starts"), out)
}

fn kernels(out: &Path) -> Vec<Measurement> {
    let file = record::read(&out.join("records.jsonl")).expect("a readable file");
    let measured = file.records.into_iter().filter_map(|r| if let Record::Measurement(m) = r { Some(m) } else { None });
    measured.filter(|m| m.role == OpRole::Kernel && !m.candidate).collect()
}

const MATMUL: [&str; 9] = ["run", "--op", "matmul", "--m", "256", "--n", "192", "--k", "128"];

#[test]
fn a_run_with_energy_measures_every_placed_kernel_and_shows_what_it_costs() {
    let (output, out) = run("run", r#"{"energy": {}}"#, &[&MATMUL[..], &["--energy", "--max-energy", "5J"]].concat());
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stderr}\n{stdout}");
    let kernels = kernels(&out);
    assert!(kernels.len() > 2);
    for m in &kernels {
        let energy = m.energy.as_ref().expect("energy");
        // Cold and warm are passes apart: each has the time of its own launches.
        let wall = energy.wall_ns as f64 / energy.launches as f64;
        assert!(near(energy.joules(), 250.0 * wall / 1e9, 0.02), "{energy:?}");
        assert!(!m.reasons.iter().any(|reason| reason.contains("energy")) && m.samples_ns.len() >= 10, "{m:?}");
    }
    assert!(stdout.contains("FLOP/J") && stdout.contains("above idle") && stdout.contains("(scripted, idle 50.0 W)"), "{stdout}");
    let json = Command::new(env!("CARGO_BIN_EXE_rooftrace"))
        .args(["show", "--json", "--max-energy", "5J"])
        .arg(out.join("records.jsonl"))
        .output();
    let view: View = serde_json::from_slice(&json.expect("starts").stdout).expect("a view");
    for (row, m) in view.rows.iter().zip(&kernels) {
        let (cost, energy) = (row.cost.as_ref().expect("a cost"), m.energy.as_ref().expect("energy"));
        assert_eq!((cost.energy_j, cost.energy_above_idle_j), (Some(energy.joules()), Some(energy.joules_above_idle())));
        assert!(near(cost.flop_per_j.expect("FLOPs"), m.flops as f64 / energy.joules(), 1e-9));
        assert_eq!((cost.fits, row.energy.as_ref()), (Some(energy.joules() <= 5.0), m.energy.as_ref()));
    }
}
