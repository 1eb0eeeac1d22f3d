//! The command line from outside: exit codes, one clear sentence for every bad input, and nothing lost.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A device whose small caches make for a short sweep.
const SMALL: &str = r#""device":{"caches":[[1,16384],[2,131072]]}"#;

/// Runs the program, on a small healthy device where the fake is meant.
fn rooftrace(args: &[&str]) -> Output {
    scripted(args, &format!("{{{SMALL}}}"))
}

fn scripted(args: &[&str], script: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rooftrace"));
    command.args(args).env("ROOFTRACE_FAKE", script).env("NO_COLOR", "1").output().expect("the program starts")
}

/// A folder of its own for one test.
fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("cli-{name}"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a scratch folder");
    folder
}

fn golden() -> String {
    let folder = scratch("golden");
    let out = folder.join("run");
    let done = rooftrace(&["run", "--device", "fake", "--size", "small", "--quiet", "--out", &out.to_string_lossy()]);
    assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    std::fs::read_to_string(out.join("records.jsonl")).expect("records")
}

#[track_caller]
fn refused(args: &[&str], status: i32, says: &str) {
    let output = rooftrace(args);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{args:?}: {stderr}");
    assert!(stderr.contains(says), "{args:?} should say '{says}': {stderr}");
    assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{args:?} printed: {}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn bad_arguments_are_refused_with_status_2_and_the_offending_value() {
    let cases: &[(&[&str], &str)] = &[
        (&["frobnicate"], "frobnicate"),
        (&["run", "extra"], "extra"),
        (&["--size", "huge"], "huge"),
        (&["--siez", "small"], "--siez"),
        (&["run", "--op", "conv9"], "no op 'conv9'"),
        (&["run", "--variant", "warp9"], "no variant 'warp9'"),
        (&["run", "--op", "matmul", "--variant", "window"], "no variant 'window'"),
        (&["run", "--precision", "f8"], "f8"),
        (&["run", "--device", "tpu"], "tpu"),
        (&["run", "--device", "wgpu:x"], "wgpu:x"),
        (&["run", "--device", "host:7"], "host:7"),
        (&["run", "--require", "tpu"], "tpu"),
        (&["run", "--op", "matmul", "--m", "0"], "extent 0"),
        (&["run", "--op", "matmul", "--m", "99999999999999999999"], "99999999999999999999"),
        (&["run", "--op", "matmul", "--m", "18446744073709551615"], "2^44"),
        (&["run", "--op", "matmul", "--m=-5"], "-5"),
        (&["run", "--op", "matmul", "--m", "many"], "many"),
        (&["run", "--m", "5"], "--op"),
        (&["run", "--op", "matmul,depthwise", "--m", "5"], "--op"),
        (&["run", "--op", "matmul", "--stride", "2"], "no field 'stride'"),
        (&["run", "--op", "conv2d", "--groups", "5"], "5 groups do not divide"),
        (&["run", "--op", "conv2d", "--c-in", "0"], "extent 0"),
        (&["run", "--op", "conv2d", "--kh", "99"], "99x3 filter"),
        (&["run", "--op", "conv2d", "--c", "8"], "no field 'c'"),
        (&["run", "--op", "depthwise", "--stride", "0"], "stride 0"),
        (&["run", "--op", "depthwise", "--dilation", "0"], "dilation 0"),
        (&["run", "--op", "depthwise", "--k", "99"], "99x99"),
        (&["run", "--op", "depthwise", "--padding", "18446744073709551615"], "does not fit"),
        (&["run", "--budget", "soon"], "soon"),
        (&["run", "--budget", "0s"], "0s"),
        (&["run", "--budget", "5q"], "'q'"),
        (&["run", "--budget=-1s"], "-1s"),
        (&["run", "--budget", "1e99s"], "1e99s"),
        (&["run", "--seed", "-1"], "-1"),
        (&["run", "--seed", "99999999999"], "99999999999"),
        (&["run", "--device", "fake", "--precision", "tf32"], "nothing to measure"),
        (&["trace", "--op", "nothing"], "no op 'nothing'"),
        (&["verify", "--op", "conv9"], "no op 'conv9'"),
        (&["verify", "--variant", "warp9"], "no variant 'warp9'"),
        (&["verify", "--device", "tpu"], "tpu"),
        (&["try"], "<OP>"),
        (&["try", "matmul"], "<FILE>"),
        (&["try", "conv9", "my.wgsl", "--grid", "1"], "no op 'conv9'"),
        (&["try", "fma", "--template", "cu"], "fma is a probe"),
        (&["try", "matmul", "--template", "rs"], "rs"),
        (&["try", "matmul", "nowhere.wgsl", "--grid", "1"], "nowhere.wgsl: cannot be read"),
        (&["try", "matmul", "Cargo.toml", "--grid", "1"], "call it .wgsl or .cu"),
        (&["try", "matmul", "shaders/matmul/naive.wgsl"], "--grid n/BN,m/BM"),
        (&["try", "matmul", "shaders/matmul/naive.wgsl", "--grid", "n/"], "it ends where"),
        (&["try", "matmul", "shaders/matmul/naive.wgsl", "--grid", "1", "--tile", "BM"], "--tile BM: there is no value"),
        (&["try", "matmul", "shaders/matmul/naive.wgsl", "--grid", "1", "--tile", "B=1,B=2"], "--tile B=2: the name is given twice"),
        (&["try", "matmul", "shaders/matmul/naive.wgsl", "--grid", "1", "--group", "16x0"], "--group 16x0"),
        (&["try", "matmul", "shaders/matmul/naive.wgsl", "--grid", "1", "--device", "host"], "--device host does not run WGSL"),
        (&["try", "matmul", "kernels/matmul/naive.cu", "--grid", "1", "--device", "wgpu:0"], "does not run CUDA C++"),
        (&["try", "matmul", "kernels/matmul/naive.cu", "--grid", "1", "--device", "all"], "one device at a time"),
        (&["try", "matmul", "shaders/matmul/naive.wgsl", "--grid", "1", "--m", "0"], "extent 0"),
        (&["study", "everything"], "there is no study 'everything'; there are depthwise (why"),
        (&["study", "--roof", "x"], "<NAME>"),
        (&["study", "depthwise", "--size", "huge"], "huge"),
        (&["study", "depthwise", "--budget", "soon"], "soon"),
        (&["study", "depthwise", "--m", "5"], "--m"),
        (&["study", "depthwise", "--device", "tpu"], "tpu"),
        (&["run", "--price", "-2.50/h"], "'-2.50/h' is no price above 0; write something like 2.50/h"),
        (&["run", "--price", "0"], "'0' is no price above 0"),
        (&["run", "--price", "2.50/month"], "'2.50/month' is not a price for an hour"),
        (&["run", "--price", "$2.50/h"], "'$2.50/h' has no plain number"),
        (&["run", "--max-latency", "-30ms"], "'-30ms' is no time above 0; write something like 30ms"),
        (&["trace", "--max-latency", "30min"], "'30min' is in none of ns, us, ms, s"),
        (&["show", "x", "--max-memory", "4Gib"], "'4Gib' is in none of B, kB"),
        (&["show", "x", "--max-memory", "0GiB"], "'0GiB' is no size above 0; write something like 4GiB"),
        (&["show", "x", "--max-memory", "lots"], "'lots' has no number"),
        (&["study", "depthwise", "--columns", "energy"], "energy"),
        (&["run", "--max-energy", "-5mJ"], "'-5mJ' is no energy above 0; write something like 5mJ"),
        (&["show", "x", "--max-energy", "5mW"], "'5mW' is in none of nJ, uJ, mJ, J, kJ, Wh"),
        (&["show", "x", "--max-energy", "little"], "'little' has no number"),
        (&["show", "x", "--energy"], "--energy"),
        (&["trace", "--energy"], "trace places none; use rooftrace run"),
        (&["run", "--peak", "989TB/s"], "'989TB/s' is not in FLOP/s"),
        (&["run", "--peak", "fp4=9PFLOP/s"], "'fp4' is none of f32, f64, f16, bf16, tf32"),
        (&["show", "x", "--bandwidth", "-1TB/s"], "'-1TB/s' is no rate above 0"),
        (&["study", "depthwise", "--bandwidth", "fast"], "'fast' has no number"),
        (&["devices", "--what"], "--what"),
        (&["show"], "FILE"),
        (&["show", "--json", "--markdown", "x"], "--markdown"),
    ];
    let left = || std::fs::read_dir("rooftrace-out").map_or(0, Iterator::count);
    let before = left();
    for (args, says) in cases {
        refused(args, 2, says);
    }
    assert_eq!(left(), before, "what is refused leaves no folder behind");
}

#[test]
fn a_folder_that_cannot_be_written_is_named_with_the_way_out() {
    let folder = scratch("folders");
    let file = folder.join("a-file");
    std::fs::write(&file, "x").expect("a file");
    let taken = folder.join("taken");
    std::fs::create_dir_all(&taken).expect("a folder");
    std::fs::write(taken.join("records.jsonl"), "precious").expect("a file");
    refused(&["run", "--device", "fake", "--quiet", "--out", &file.to_string_lossy()], 2, "--out");
    refused(&["run", "--device", "fake", "--quiet", "--out", "/proc/nowhere"], 2, "/proc/nowhere");
    refused(&["run", "--device", "fake", "--quiet", "--out", &taken.to_string_lossy()], 2, "already there");
    assert_eq!(std::fs::read_to_string(taken.join("records.jsonl")).expect("the file"), "precious");
}

/// Two runs of one minute, neither of which names a folder.
#[test]
fn runs_of_one_minute_have_folders_of_their_own() {
    let here = scratch("minute");
    let once = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rooftrace"));
        command.args(["run", "--device", "fake", "--size", "small", "--op", "matmul", "--m", "64", "--quiet"]).current_dir(&here);
        let done = command.env("ROOFTRACE_FAKE", format!("{{{SMALL}}}")).output().expect("the program starts");
        assert_eq!(done.status.code(), Some(0), "{}", String::from_utf8_lossy(&done.stderr));
    };
    (0..3).for_each(|_| once());
    let folders: Vec<_> = std::fs::read_dir(here.join("rooftrace-out")).expect("a folder").flatten().map(|entry| entry.path()).collect();
    assert!(folders.len() == 3 && folders.iter().all(|folder| folder.join("records.jsonl").exists()), "{folders:?}");
    // What a study looks for is looked for there.
    let study = |quiet: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rooftrace"));
        let args = ["study", "misnomer", "--device", "fake", "--size", "small"];
        let out = here.join(format!("study-{}", quiet.len()));
        command.args(args).args(quiet).arg("--out").arg(&out).current_dir(&here).env("ROOFTRACE_FAKE", format!("{{{SMALL}}}"));
        String::from_utf8_lossy(&command.output().expect("the program starts").stderr).to_string()
    };
    assert!(study(&[]).contains("the roof is that of rooftrace-out/fake-"));
    std::fs::remove_dir_all(here.join("rooftrace-out")).expect("it is ours");
    assert!(study(&["--verbose"]).contains("no roof of this device from the last day under rooftrace-out, so it is traced"));
}

#[test]
fn devices_that_are_not_there_end_with_status_3() {
    refused(&["run", "--device", "wgpu:99", "--quiet"], 3, "wgpu");
    let cuda = rooftrace(&["devices"]);
    if String::from_utf8_lossy(&cuda.stdout).contains("cuda:0") {
        println!("SKIPPED: this machine has a CUDA device, so its absence cannot be tested");
        return;
    }
    refused(&["run", "--device", "cuda:0", "--quiet"], 3, "cuda");
    refused(&["verify", "--device", "cuda", "--quiet"], 3, "cuda");
    refused(&["run", "--device", "host", "--require", "cuda", "--quiet"], 3, "cuda");
}

#[test]
fn unreadable_record_files_end_with_status_6_and_say_where() {
    let folder = scratch("files");
    let golden = golden();
    let header = golden.lines().next().expect("a header");
    let measurement = golden.lines().find(|l| l.contains("\"record\":\"measurement\"")).expect("a measurement");
    let ceiling = golden.lines().find(|l| l.contains("\"record\":\"ceiling\"")).expect("a ceiling");
    let cases = [
        ("empty", String::new(), "empty"),
        ("garbage", "not json at all\n{}\n".into(), "line 1"),
        ("newer", header.replacen("\"major\":1", "\"major\":9", 1) + "\n", "9"),
        ("headless", format!("{measurement}\n"), "header"),
        ("twice", format!("{header}\n{measurement}\n{measurement}\n"), "line 3"),
        ("dangling", format!("{header}\n{ceiling}\n"), "line 2"),
        ("negative", format!("{header}\n{}\n", measurement.replacen("\"launches\":", "\"launches\":-", 1)), "launches"),
        ("huge", format!("{header}\n{}\n", measurement.replacen("\"launches\":", "\"launches\":1e999,\"x\":", 1)), "line 2"),
        ("nan", format!("{header}\n{}\n", measurement.replacen("\"launches\":", "\"launches\":NaN,\"x\":", 1)), "line 2"),
        ("binary", "\u{0}\u{1}\u{2}\n".into(), "line 1"),
        ("deep", format!("{header}\n{}\n", "[".repeat(100_000)), "line 2"),
    ];
    for (name, text, says) in cases {
        let path = folder.join(name);
        std::fs::write(&path, text).expect("a file");
        refused(&["show", &path.to_string_lossy()], 6, says);
    }
    refused(&["show", &folder.join("missing").to_string_lossy()], 6, "missing");
    refused(&["study", "depthwise", "--roof", &folder.join("missing").to_string_lossy()], 6, "missing");
    refused(&["study", "depthwise", "--roof", &folder.join("garbage").to_string_lossy()], 6, "line 1");
    refused(&["show", &folder.to_string_lossy()], 6, "cli-files");
}

#[test]
fn a_file_cut_anywhere_still_shows_what_it_holds() {
    let folder = scratch("cut");
    let golden = golden();
    let path = folder.join("cut.jsonl");
    let header = golden.find('\n').expect("a line");
    for cut in (header + 1..golden.len()).step_by(golden.len() / 23) {
        std::fs::write(&path, &golden.as_bytes()[..cut]).expect("a file");
        let shown = rooftrace(&["show", &path.to_string_lossy()]);
        assert_eq!(shown.status.code(), Some(0), "cut at {cut}: {}", String::from_utf8_lossy(&shown.stderr));
    }
}

#[test]
fn help_version_and_devices_work_and_start_quickly() {
    for args in [
        ["--help"].as_slice(),
        &["--version"],
        &["run", "--help"],
        &["verify", "--help"],
        &["show", "--help"],
        &["try", "--help"],
        &["try", "matmul", "--template", "wgsl"],
        &["try", "attention", "--template", "cu"],
        &["study"],
        &["study", "--help"],
        &["devices"],
        &["devices", "--json"],
    ] {
        let output = rooftrace(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(!output.stdout.is_empty(), "{args:?}");
    }
    let listed = rooftrace(&["devices", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    assert!(json.as_array().is_some_and(|list| list.iter().any(|d| d["device"]["id"] == "host")), "{json}");
}

#[test]
fn faults_of_the_child_cost_one_item_and_the_rest_is_saved() {
    for fault in ["segfault", "abort", "exit", "half_line", "garbage"] {
        let folder = scratch(&format!("fault-{fault}"));
        let out = folder.join("run");
        let script = format!(r#"{{{SMALL},"faults":[{{"op":"matmul","variant":"naive","call":1,"kind":"{fault}"}}]}}"#);
        let output = scripted(
            &["run", "--device", "fake", "--size", "small", "--op", "matmul,depthwise", "--json", "--out", &out.to_string_lossy()],
            &script,
        );
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(5), "{fault}: {stderr}");
        let view: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON on standard output");
        assert!(!view["rows"].as_array().expect("rows").is_empty(), "{fault}: the next items ran");
        assert!(!view["skips"].as_array().expect("skips").is_empty(), "{fault}: the fault is listed");
        assert!(out.join("roofline.svg").exists() && out.join("records.jsonl").exists());
    }
}

/// A run of one problem by `matmul/naive` under faults: exit code and view.
fn run_under(faults: &str, name: &str) -> (Option<i32>, serde_json::Value) {
    let out = scratch(name).join("run");
    let folder = out.to_string_lossy();
    let mut args = vec!["run", "--device", "fake", "--size", "small", "--op", "matmul", "--variant", "naive", "--quiet", "--json"];
    args.extend(["--m", "60", "--n", "70", "--k", "80", "--out", &folder]);
    let output = scripted(&args, &format!(r#"{{{SMALL},"faults":[{faults}]}}"#));
    let view = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), view)
}

#[test]
fn a_kernel_that_does_not_compile_is_a_hole_and_one_setting_of_several_is_none() {
    let (status, view) = run_under(r#"{"op":"matmul","kind":"uncompilable"}"#, "uncompilable");
    let skip = &view["skips"][0];
    assert_eq!((status, &skip["state"]), (Some(5), &"not_compiled".into()), "{skip}");
    assert!(skip["why"].as_str().is_some_and(|why| why.starts_with("matmul/naive does not compile: its script says so")), "{skip}");

    // One of the loads of `stream` that its settings are tried by: a point of a sweep would be a hole.
    let (status, view) = run_under(r#"{"op":"stream","kind":"uncompilable","call":6}"#, "one-setting");
    let skips = view["skips"].as_array().expect("a list");
    assert!(skips.len() == 1 && skips[0]["op"] == "stream" && skips[0]["state"] == "not_compiled", "{skips:?}");
    assert_eq!(status, Some(0), "others of its settings are right");

    let (status, view) = run_under(r#"{"op":"stream","kind":"uncompilable","at":"load"}"#, "no-setting");
    assert_eq!(status, Some(5), "{}", view["skips"]);
}

#[test]
fn verify_tells_a_wrong_output_from_what_does_not_compile_and_what_could_not_be_run() {
    let verified = |kind: &str| {
        let script = format!(r#"{{{SMALL},"faults":[{{"op":"matmul","variant":"naive","kind":"{kind}"}}]}}"#);
        let args =
            ["verify", "--device", "fake", "--op", "matmul", "--variant", "naive", "--precision", "f32", "--size", "small", "--quiet"];
        let output = scripted(&args, &script);
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    for (kind, status) in [("one_bad", 4), ("uncompilable", 1), ("out_of_memory", 5), ("device_lost", 5), ("segfault", 5)] {
        let (found, stdout) = verified(kind);
        assert_eq!(found, Some(status), "{kind}: {stdout}");
        assert!(stdout.contains("FAILED") && stdout.contains(" 0 skipped"), "{kind}: {stdout}");
    }
    let (status, stdout) = verified("unsupported");
    assert!(status == Some(0) && stdout.contains("skipped: matmul/naive needs a feature"), "{stdout}");
}

#[test]
fn wrong_outputs_end_with_status_4_and_show_no_rate() {
    let kinds = ["nan", "one_nan", "shifted", "one_bad", "stops_writing", "writes_inputs", "breaks_guard"];
    // From the first launch on; and some from the eleventh.
    let late = [("nan", 10), ("one_bad", 10), ("stops_writing", 10)];
    for (kind, after) in kinds.into_iter().map(|kind| (kind, 0)).chain(late) {
        let script = format!(r#"{{{SMALL},"faults":[{{"op":"matmul","variant":"naive","kind":"{kind}","after":{after}}}]}}"#);
        let out = scratch(&format!("wrong-{kind}-{after}")).join("run");
        let mut args = vec!["run", "--device", "fake", "--size", "small", "--op", "matmul", "--variant", "naive", "--json"];
        let folder = out.to_string_lossy();
        args.extend(["--m", "60", "--n", "70", "--k", "80", "--out", &folder]);
        let output = scripted(&args, &script);
        assert_eq!(output.status.code(), Some(4), "{kind}: {}", String::from_utf8_lossy(&output.stderr));
        let view: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON on standard output");
        for row in view["rows"].as_array().expect("rows") {
            assert_eq!(row["state"], "wrong", "{kind}: {row}");
            assert!(row["time_ns"].is_null() && row["flop_per_s"].is_null(), "{kind}: a wrong output has no rate: {row}");
        }
    }
}

#[test]
fn a_problem_beyond_memory_is_an_answer_and_not_a_crash() {
    let out = scratch("memory").join("run");
    let output = rooftrace(&[
        "run",
        "--device",
        "fake",
        "--size",
        "small",
        "--quiet",
        "--json",
        "--op",
        "matmul",
        "--m",
        "4000000",
        "--n",
        "4000000",
        "--k",
        "1",
        "--out",
        &out.to_string_lossy(),
    ]);
    assert_eq!(output.status.code(), Some(5), "{}", String::from_utf8_lossy(&output.stderr));
    let view: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON on standard output");
    let why = view["skips"].to_string();
    assert!(why.contains("out of memory"), "{why}");
}

#[test]
#[cfg(unix)]
fn ctrl_c_saves_and_exits_130_at_once() {
    use std::time::{Duration, Instant};
    let out = scratch("interrupt").join("run");
    let mut child = Command::new(env!("CARGO_BIN_EXE_rooftrace"))
        .args(["run", "--device", "host", "--size", "large", "--quiet", "--out", &out.to_string_lossy()])
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("the program starts");
    let records = out.join("records.jsonl");
    let waiting = Instant::now();
    while std::fs::read_to_string(&records).map_or(0, |text| text.lines().count()) < 4 {
        assert!(waiting.elapsed() < Duration::from_secs(60), "no records after a minute");
        std::thread::sleep(Duration::from_millis(50));
    }
    let pressed = Instant::now();
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill").success());
    let status = child.wait().expect("an end");
    assert_eq!(status.code(), Some(130));
    assert!(pressed.elapsed() < Duration::from_secs(3), "took {:?}", pressed.elapsed());
    let shown = rooftrace(&["show", &records.to_string_lossy()]);
    assert_eq!(shown.status.code(), Some(0), "{}", String::from_utf8_lossy(&shown.stderr));
}
