//! The whole pipe on the fake device: scripted times in, records, table and picture out.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rooftrace::op::OpRole;
use rooftrace::record::{self, CeilingKind, Record, State};
use rooftrace::roofline;
use rooftrace::view::View;
use serde_json::Value;

fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("pipeline-{name}"));
    let _ = std::fs::remove_dir_all(&folder);
    folder
}

fn run(name: &str, script: &str, extra: &[&str]) -> (Output, PathBuf) {
    let out = scratch(name);
    let mut command = Command::new(env!("CARGO_BIN_EXE_rooftrace"));
    command.args(["run", "--device", "fake", "--size", "small", "--quiet", "--out"]).arg(&out).args(extra);
    command.env("NO_COLOR", "1").env("COLUMNS", "120").env("ROOFTRACE_FAKE", script);
    (command.output().expect("the program starts"), out)
}

fn view(out: &Path) -> View {
    let file = record::read(&out.join("records.jsonl")).expect("a readable file");
    assert!(file.warnings.is_empty(), "{:?}", file.warnings);
    roofline::view(&file.records).expect("a view")
}

/// A device of 100 GFLOP/s and 20 GB/s with two caches.
const DEVICE: &str = r#"{}"#;

#[test]
fn a_run_leaves_records_a_picture_and_a_table_that_agree() {
    let (output, out) = run("agree", DEVICE, &[]);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stderr}\n{stdout}");
    let view = view(&out);
    assert!(view.header.device.simulated);
    assert!(!view.rows.is_empty() && !view.ceilings.is_empty() && !view.curves.is_empty());
    let picture = std::fs::read_to_string(out.join("roofline.svg")).expect("a picture");
    for row in &view.rows {
        assert_eq!(picture.matches(&format!("data-row=\"{}\"", row.id)).count(), 1, "one marker for {}", row.id);
        assert!(row.verification.is_some() && row.time_ns.is_some(), "{row:?}");
        assert!(stdout.contains(&row.variant), "the table names {}", row.variant);
    }
    assert!(picture.to_lowercase().contains("simulated"), "a fake device is marked on the picture");
    let shown =
        Command::new(env!("CARGO_BIN_EXE_rooftrace")).args(["show", "--json"]).arg(out.join("records.jsonl")).output().expect("starts");
    let again: View = serde_json::from_slice(&shown.stdout).expect("a view as JSON");
    assert_eq!(again, view, "show derives what run showed");
}

#[test]
fn json_has_the_one_documented_form() {
    let (output, _) = run("json", DEVICE, &["--json"]);
    let json: Value = serde_json::from_slice(&output.stdout).expect("JSON alone on standard output");
    for key in ["header", "ceilings", "rows", "skips"] {
        assert!(!json[key].is_null(), "{key}");
    }
    let row = &json["rows"][0];
    for key in [
        "id",
        "op",
        "problem",
        "variant",
        "role",
        "backend",
        "precision",
        "unit",
        "cache",
        "clock",
        "state",
        "time_ns",
        "flop_per_s",
        "byte_per_s",
        "intensity",
        "intensity_moved",
        "roof_fraction",
        "level",
        "limiter",
        "limiter_share",
        "macs",
        "bytes_compulsory",
        "bytes_moved",
        "bytes_requested",
        "peak_bytes",
        "workspace_bytes",
    ] {
        assert!(row.get(key).is_some(), "{key} in {row}");
    }
    let ceiling = &json["ceilings"][0];
    for key in ["name", "kind", "precision", "unit", "level", "direction", "capacity", "value", "low", "high", "state"] {
        assert!(ceiling.get(key).is_some(), "{key} in {ceiling}");
    }
}

#[test]
fn every_kernel_record_carries_the_peak_memory_of_one_set_and_no_probe_does() {
    let (output, out) = run("peak", DEVICE, &["--op", "matmul", "--m", "40", "--n", "24", "--k", "48"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let file = record::read(&out.join("records.jsonl")).expect("a readable file");
    let measured = file.records.iter().filter_map(|r| if let Record::Measurement(m) = r { Some(m) } else { None });
    let (kernels, probes): (Vec<_>, Vec<_>) = measured.filter(|m| !m.candidate).partition(|m| m.role == OpRole::Kernel);
    for m in &kernels {
        let tensors = 4 * (40 * 48 + 48 * 24 + 40 * 24);
        assert_eq!((m.peak_bytes, m.set_bytes), (Some(m.set_bytes), tensors + m.workspace_bytes), "{}", m.variant);
        assert_eq!(m.workspace_bytes > 0, m.variant == "packed", "packed panels are scratch, and naive has none");
        assert!(!m.reasons.iter().any(|r| r.contains("peak memory")), "{:?}", m.reasons);
    }
    assert!(kernels.len() > 2 && probes.iter().all(|m| m.peak_bytes.is_none()) && !probes.is_empty());
}

#[test]
fn kernels_are_measured_with_the_fastest_of_all_settings_and_what_was_tried_is_no_row() {
    let script = r#"{"ease": [{"op": "matmul", "variant": "packed", "tunables": {"KC": 512}, "factor": 0.5}]}"#;
    let (output, out) = run("tune", script, &["--op", "matmul"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let file = record::read(&out.join("records.jsonl")).expect("a readable file");
    let packed = file.records.iter().filter_map(|r| match r {
        Record::Measurement(m) if m.variant == "packed" => Some(m),
        _ => None,
    });
    let (tried, measured): (Vec<_>, Vec<_>) = packed.partition(|m| m.candidate);
    for problem in measured.iter().map(|m| &m.problem) {
        let mut depths: Vec<u32> = tried.iter().filter(|m| m.problem == *problem).map(|m| m.tunables.get("KC")).collect();
        depths.sort_unstable();
        assert_eq!(depths, [256, 384, 512, 1024], "each setting is tried once for {problem}");
    }
    assert!(tried.iter().all(|m| m.verification.is_some() && m.peak_bytes.is_none()), "{tried:?}");
    assert!(measured.len() >= 6 && measured.iter().all(|m| m.tunables.get("KC") == 512), "{measured:?}");
    let view = roofline::view(&file.records).expect("a view");
    assert!(tried.iter().all(|m| view.rows.iter().all(|row| row.id != m.id)), "no candidate is a row");
}

#[test]
fn a_budget_that_ends_early_lists_what_was_not_run_and_ends_with_status_5() {
    let (output, out) = run("budget", DEVICE, &["--budget", "1ms"]);
    assert_eq!(output.status.code(), Some(5), "{}", String::from_utf8_lossy(&output.stderr));
    let file = record::read(&out.join("records.jsonl")).expect("a readable file");
    let not_run = file.records.iter().filter(|r| matches!(r, Record::Skip(s) if s.state == State::NotRun)).count();
    assert!(not_run > 0 && file.records.iter().any(|r| matches!(r, Record::End(e) if e.status == 5)));
}

#[test]
fn every_ceiling_stands_on_three_blocks_of_its_winner() {
    let (_, out) = run("blocks", DEVICE, &[]);
    let file = record::read(&out.join("records.jsonl")).expect("a readable file");
    let ceilings: Vec<_> = file.records.iter().filter_map(|r| if let Record::Ceiling(c) = r { Some(c) } else { None }).collect();
    assert!(ceilings.iter().any(|c| c.name == "f32 vector") && ceilings.iter().any(|c| c.level.as_deref() == Some("dram")));
    for ceiling in ceilings {
        assert_eq!(ceiling.from.len(), 3, "{}", ceiling.name);
    }
}

#[test]
fn roofs_that_a_kernel_lies_above_are_measured_again_and_no_others() {
    let slow = r#"{"ease": [{"op": "stream", "factor": 3}]}"#;
    let (_, out) = run("lifted", slow, &["--op", "depthwise"]);
    let rows = view(&out).rows;
    assert!(rows.iter().any(|row| row.above_roof), "a roof three times too low is seen");
    let file = record::read(&out.join("records.jsonl")).expect("a readable file");
    let ceilings: Vec<_> = file.records.iter().filter_map(|r| if let Record::Ceiling(c) = r { Some(c) } else { None }).collect();
    let levels: Vec<_> = rows.iter().filter(|row| row.above_roof).filter_map(|row| row.level.as_deref()).collect();
    let mut lifted = 0;
    for ceiling in ceilings.iter().filter(|c| c.kind == CeilingKind::Bandwidth) {
        let above = ceiling.level.as_deref().is_some_and(|level| levels.contains(&level));
        assert_eq!(ceiling.from.len(), if above { 6 } else { 3 }, "{}", ceiling.name);
        lifted += above as u32;
    }
    assert!(lifted > 0 && ceilings.iter().filter(|c| c.kind == CeilingKind::Latency).all(|c| c.from.len() == 3));
}

#[test]
fn a_launch_on_a_fast_device_moves_enough_to_hide_its_overhead_and_shows_its_cache() {
    let script = r#"{"device": {"caches": [[2, 4194304]]},
        "speed": {"levels": [{"capacity": 4194304, "byte_per_s": 5.5e12}], "dram_byte_per_s": 3e12, "launch_ns": 3000}}"#;
    let (output, out) = run("fast", script, &["--op", "matmul", "--m", "40", "--n", "24", "--k", "48"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let file = record::read(&out.join("records.jsonl")).expect("a readable file");
    let streams: Vec<_> = file
        .records
        .iter()
        .filter_map(|r| if let Record::Measurement(m) = r { Some(m) } else { None })
        .filter(|m| m.op == "stream" && m.set_bytes >= 1 << 20)
        .collect();
    // But for the look that sizes them, every launch takes fifty times its overhead.
    let short = streams.iter().filter(|m| m.samples_ns.iter().any(|&ns| ns < 150_000 * m.launches as u64)).count();
    assert!(streams.len() > 20 && short <= 1, "{short} of {}", streams.len());
    let levels: Vec<_> = file.records.iter().filter_map(|r| if let Record::Ceiling(c) = r { c.level.clone() } else { None }).collect();
    assert!(levels.contains(&"l2".to_string()) && !levels.contains(&"l1".to_string()), "{levels:?}");
}

fn said_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn the_ramp_follows_the_roof_it_is_measured_under_and_is_drawn_over_it() {
    let (output, out) = run("ramp", r#"{"speed": {"dram_byte_per_s": 20e9}}"#, &["--op", "matmul", "--m", "40", "--n", "24", "--k", "48"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let view = view(&out);
    // 100 GFLOP/s over 20 GB/s: the ridge is at 5. A fake kernel reaches the larger of both bounds, and so does the ramp.
    assert!(view.ramp.len() >= 7 && view.ramp.windows(2).all(|pair| pair[0].intensity < pair[1].intensity));
    for point in &view.ramp {
        assert!(!point.above_roof && point.roof_fraction.is_some_and(|f| (0.9..1.01).contains(&f)), "{point:?}");
        let roof = 100e9f64.min(20e9 * point.intensity);
        assert!((point.flop_per_s.expect("a rate") / roof - 1.0).abs() < 0.1, "{point:?}");
    }
    assert!(view.rows.iter().all(|row| row.op != "ramp"), "its points are no rows of the table");
    // The fake's dispatches take 1 µs.
    let launch = view.ceilings.iter().find(|c| c.name == "launch").expect("a launch ceiling");
    assert!((launch.value / 1000.0 - 1.0).abs() < 0.02, "{launch:?}");
    // And each level's loads one after another, further out the slower.
    let chased: Vec<_> = view.ceilings.iter().filter(|c| c.name.ends_with(" latency")).collect();
    assert!(chased.len() >= 2 && chased.iter().all(|c| c.level.as_deref() == c.name.strip_suffix(" latency")), "{chased:?}");
    assert!(chased.windows(2).all(|pair| pair[0].value < pair[1].value), "{chased:?}");
    let exp = view.ceilings.iter().find(|c| c.name == "f32 exp").expect("a ceiling of exponentials");
    assert!((exp.value / 10e9 - 1.0).abs() < 0.1 && said_of(&output).contains("Gexp/s"), "{exp:?}");
    let said = said_of(&output);
    let ridge = said.split("Up the ramp").nth(1).and_then(|rest| rest.split("ridge (").nth(1)?.split(' ').next()?.parse::<f64>().ok());
    assert!(ridge.is_some_and(|ridge| (ridge / 5.0 - 1.0).abs() < 0.01), "{said}");
    let picture = std::fs::read_to_string(out.join("roofline.svg")).expect("a picture");
    assert_eq!(picture.matches("<g class=\"ramp\"").count(), view.ramp.len());
}
