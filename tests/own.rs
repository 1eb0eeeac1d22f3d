//! `try`: kernels of a user's own. Templates are right, and what is wrong is told in a sentence and costs nothing else.
#![cfg(all(feature = "wgpu", feature = "cuda"))]

// Each test program uses a part of these.
#[allow(dead_code)]
#[path = "cudacpu/cases.rs"]
mod cases;
#[allow(dead_code)]
#[path = "cudacpu/harness.rs"]
mod harness;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use cases::{cases, module};
use harness::{Job, build, compiler, folder, skipped};
use rooftrace::backend::{Backend, host, wgpu};
use rooftrace::measure::Engine;
use rooftrace::op::{self, Entry, OpRole, Size};
use rooftrace::plan::{Custom, DeviceInfo, Language, Plan, Precision, Tuned};
use rooftrace::record::{self, Record, State};
use rooftrace::template;
use rooftrace::worker::{Answer, Bench, Child, Effort, Goal, Item, Launch};
use serde_json::{Value, json};

/// Ops that have templates: those of whom some variant is one launch.
fn kernels() -> impl Iterator<Item = &'static Entry> {
    op::OPS.iter().filter(|entry| entry.role == OpRole::Kernel && !["linformer", "performer"].contains(&entry.name))
}

fn device(language: Language) -> DeviceInfo {
    DeviceInfo { language, ..host::device() }
}

fn parsed(entry: &Entry, problem: &Value) -> std::sync::Arc<dyn op::Op> {
    (entry.parse)(problem).expect("a legal problem")
}

/// Whether a template's entry is the one for a problem: those of attention take heads whose vectors are whole, and so wide.
fn meant(entry: &Entry, problem: &Value) -> bool {
    entry.name != "attention" || problem["head_dim"].as_u64().is_some_and(|d| d % 4 == 0 && d <= 64)
}

/// Whether there is an adapter; says so where there is none.
fn adapter() -> bool {
    match wgpu::Wgpu::open(0) {
        Ok(_) => true,
        Err(error) if std::env::var("ROOFTRACE_REQUIRE").is_ok_and(|v| v.split(',').any(|v| v == "wgpu")) => {
            panic!("wgpu is required here: {error}")
        }
        Err(error) => {
            println!("SKIPPED: {error}");
            false
        }
    }
}

#[test]
fn the_launch_of_a_template_is_that_of_the_source_it_was_made_from() {
    for entry in kernels() {
        for language in [Language::Wgsl, Language::Cuda] {
            let (custom, device) = (template::start(entry, language).expect("a template"), device(language));
            let problems = (entry.awkward)().into_iter().chain(entry.grid(Size::Large, &device));
            let mut same = 0;
            for problem in problems.filter(|problem| meant(entry, problem)) {
                let op = parsed(entry, &problem);
                let own = custom.plan(&*op, Precision::F32, &device).expect("it can be laid out");
                let shipped = op.variants().into_iter().find_map(|v| {
                    let plan = op.plan(v.name, Precision::F32, language, &Tuned::default(), &device).ok()?;
                    v.source(language).is_some_and(|s| custom.text.ends_with(behind_includes(s.text))).then_some(plan)
                });
                let shipped = shipped.expect("a template ends with a shipped source");
                assert_eq!(own.dispatches.len(), shipped.dispatches.len());
                let (a, b) = (&own.dispatches[0], &shipped.dispatches[0]);
                assert_eq!((&a.entry, a.grid, &a.args), (&b.entry, b.grid, &b.args), "{} {problem}", entry.name);
                assert!(language == Language::Wgsl || a.block == b.block, "{} {problem}", entry.name);
                assert_eq!((own.cost.requested, own.cost.lane), (None, None), "nobody counted them, and that is not 0");
                assert_eq!((own.cost.compulsory, own.cost.macs), (shipped.cost.compulsory, shipped.cost.macs));
                same += 1;
            }
            assert!(same > 3, "{} in {language}", entry.name);
        }
    }
    let probe = op::find("fma").expect("built in");
    assert!(template::start(probe, Language::Wgsl).is_err_and(|e| e.to_string().contains("no template for fma")));
}

/// What of a source stands behind the line that includes another, which a template writes out.
fn behind_includes(text: &str) -> &str {
    text.rsplit_once("#include").and_then(|(_, after)| after.split_once('\n')).map_or(text, |(_, behind)| behind)
}

#[test]
fn every_wgsl_template_is_right_on_awkward_problems() {
    if !adapter() {
        return;
    }
    let backend = wgpu::Wgpu::open(0).expect("it opened before");
    let mut engine = Engine::new(&backend).expect("an engine");
    for entry in kernels() {
        let custom = template::start(entry, Language::Wgsl).expect("a template");
        let mut right = 0;
        for problem in (entry.awkward)().iter().filter(|problem| meant(entry, problem)).take(5) {
            let op = parsed(entry, problem);
            let plain = Item::new(&*op, &custom.name, Goal::Verify);
            let item = Item { tunables: custom.tile.clone(), custom: Some(custom.clone()), ..plain };
            let measured = engine.perform(&*op, &item).unwrap_or_else(|e| panic!("{} {problem}: {e}", entry.name));
            assert!(measured.verification.is_some() && measured.bytes_requested.is_none(), "{} {problem}", entry.name);
            right += 1;
        }
        assert!(right > 2, "{}", entry.name);
    }
}

#[test]
fn every_cuda_template_is_right_on_a_cpu() {
    let Some(cxx) = compiler() else { return skipped("CUDA templates against their definition") };
    let device = device(Language::Cuda);
    for entry in kernels() {
        let custom = template::start(entry, Language::Cuda).expect("a template");
        let folder = folder(&format!("own-{}", entry.name));
        let precisions = if entry.name == "attention" { vec![Precision::F32] } else { vec![Precision::F32, Precision::BF16] };
        for precision in precisions {
            let cases: Vec<_> = cases(&folder, entry, &[precision]).into_iter().filter(|c| meant(entry, &c.op.problem())).collect();
            let plans: Vec<Plan> = cases.iter().map(|c| custom.plan(&*c.op, precision, &device).expect("laid out")).collect();
            let program = build(&cxx, &folder, &[module("own".into(), &plans)]).unwrap_or_else(|log| panic!("{}: {log}", entry.name));
            let jobs: Vec<Job> = cases.iter().zip(&plans).flat_map(|(case, plan)| case.jobs("own", plan, 0)).collect();
            assert_eq!(jobs.len(), cases.len(), "a template is one launch");
            // One at a time: cases of one problem share their files.
            for (case, job) in cases.iter().zip(jobs) {
                program.run(&[job]).remove(0).and_then(|()| case.verdict(&folder)).unwrap_or_else(|why| panic!("{}: {why}", case.label()));
            }
        }
        let _ = std::fs::remove_dir_all(&folder);
    }
}

#[test]
fn a_cuda_kernel_with_other_parameters_or_a_mistake_does_not_compile_and_says_which_and_where() {
    let Some(cxx) = compiler() else { return skipped("a CUDA kernel with other parameters") };
    let entry = op::find("matmul").expect("built in");
    let start = template::start(entry, Language::Cuda).expect("a template");
    let folder = folder("own-bad");
    let refused = |find: &str, replace: &str| {
        assert_eq!(start.text.matches(find).count(), 1, "{find}");
        let custom = Custom { text: start.text.replace(find, replace), ..start.clone() };
        let plan = custom.plan(&*parsed(entry, &json!({})), Precision::F32, &device(Language::Cuda)).expect("laid out");
        let line = start.text[..start.text.find(find).expect("it is there")].lines().count();
        let built = build(&cxx, &folder, &[module("own".into(), &[plan])]);
        (built.err().unwrap_or_else(|| panic!("'{replace}' compiles")), line)
    };
    let (log, _) = refused("const T* __restrict__ b, ", "");
    assert!(log.contains("matmul must take 3 pointers (a, b, c), then Dims by value"), "{log}");
    let (log, line) = refused("if (row >= d.m || col >= d.n) return;", "if (row >= d.q) return;");
    assert!(log.contains(&format!("my.cu:{line}:")), "line {line}: {log}");
    let _ = std::fs::remove_dir_all(&folder);
}

/// The template of matmul with changes, each of which must be found once.
fn changed(changes: &[(&str, &str)]) -> Custom {
    let start = template::start(op::find("matmul").expect("built in"), Language::Wgsl).expect("a template");
    let text = changes.iter().fold(start.text.clone(), |text, (find, replace)| {
        assert_eq!(text.matches(find).count(), 1, "{find}");
        text.replace(find, replace)
    });
    Custom { text, ..start }
}

fn item(custom: &Custom) -> Item {
    let entry = op::find("matmul").expect("built in");
    let op = parsed(entry, &json!({"m": 33, "n": 20, "k": 17}));
    let effort = Effort { samples: 3, least_ns: 1, budget_ns: 50_000_000, canary: false };
    let plain = Item::new(&*op, &custom.name, Goal::Measure(effort));
    Item { llc_bytes: Some(1 << 16), tunables: custom.tile.clone(), custom: Some(custom.clone()), ..plain }
}

fn child() -> Child {
    Launch::new("wgpu:0").program(env!("CARGO_BIN_EXE_rooftrace")).start().expect("it opened before")
}

#[test]
fn what_is_wrong_with_a_kernel_is_told_with_the_users_own_lines_and_the_next_item_runs() {
    if !adapter() {
        return;
    }
    let mut child = child();
    let line = |custom: &Custom, word: &str| custom.text.lines().position(|l| l.contains(word)).expect("it is there") + 1;
    let unknown = changed(&[("    c[id.y", "    oops(1);\n    c[id.y")]);
    let typed = changed(&[("var sum = S();", "var sum: u32 = 1.5;")]);
    let at = |custom: &Custom, word: &str, column: usize| format!("my.wgsl:{}:{column}", line(custom, word));
    let cases = [
        (unknown.clone(), at(&unknown, "oops", 5)),
        (typed.clone(), format!("my.wgsl:{}:", line(&typed, "1.5"))),
        (
            changed(&[("@binding(2) var", "@binding(3) var")]),
            "it binds @group(0) @binding(3), and matmul has 3 tensors at @group(0)".into(),
        ),
        (
            changed(&[
                ("@group(0) @binding(1) var<storage, read> b: array<T>;", ""),
                ("T(sum)", "T(0)"),
                ("S(b[p * dims.n + id.x])", "S(1)"),
            ]),
            "it does not bind tensor b".into(),
        ),
        (changed(&[("@binding(1) var<storage, read> b", "@binding(1) var<storage, read_write> b")]), "does not compile".into()),
        (Custom { entry: "main".into(), ..changed(&[]) }, "no entry point 'main'; name one of matmul with --entry".into()),
        (Custom { entry: "main".into(), text: "// nothing".into(), ..changed(&[]) }, "no entry point; mark a function".into()),
        (changed(&[("@workgroup_size(16, 16)", "@workgroup_size(64, 64)")]), "4096 invocations of a work-group".into()),
        (Custom { tile: Tuned([("K".to_string(), 7)].into()), ..changed(&[("p < dims.k", "p < K + nothing")]) }, "nothing".into()),
    ];
    for (custom, says) in cases {
        let Answer::Failed(state, why) = child.run(&item(&custom), Duration::from_secs(60)) else { panic!("accepted: {says}") };
        assert_eq!(state, State::Unsupported, "{why}");
        assert!(why.contains(&says), "should say '{says}': {why}");
    }
    let half = changed(&[("p < dims.k", "p + 1u < dims.k")]);
    let Answer::Done(wrong) = child.run(&item(&half), Duration::from_secs(60)) else { panic!("a wrong output is a record") };
    assert!(wrong.state == State::Wrong && wrong.verification.is_none(), "{wrong:?}");
    let endless = changed(&[("p < dims.k; p++", "p < dims.k; p += dims.k - dims.k")]);
    let Answer::Failed(state, why) = child.run(&item(&endless), Duration::from_secs(5)) else { panic!("it never ends") };
    assert_eq!(state, State::Timeout, "{why}");
    assert!(!why.contains('\n'), "one sentence: {why}");
    let tiled =
        Custom { tile: Tuned([("WIDE".to_string(), 16)].into()), ..changed(&[("@workgroup_size(16, 16)", "@workgroup_size(WIDE, 16)")]) };
    let Answer::Done(right) = child.run(&item(&tiled), Duration::from_secs(60)) else { panic!("the next item runs") };
    assert!(right.state == State::Ok || right.state == State::Suspect, "{right:?}");
    assert_eq!((right.tunables.get("WIDE"), right.bytes_requested, right.variant.as_str()), (16, None, "try:my.wgsl"));
}

fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("own-{name}"));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).expect("a scratch folder");
    folder
}

/// `rooftrace try matmul` in a folder, on a small problem, with a budget that ends soon after the first look.
fn tried(folder: &Path, text: &str) -> Output {
    std::fs::write(folder.join("my.wgsl"), text).expect("a file");
    let mut command = Command::new(env!("CARGO_BIN_EXE_rooftrace"));
    command.args(["try", "matmul", "my.wgsl", "--entry", "matmul", "--grid", "n/16,m/16", "--m", "33", "--n", "20", "--k", "17"]);
    command.args(["--size", "small", "--budget", "1s", "--quiet", "--out", "out"]).current_dir(folder).output().expect("it starts")
}

#[test]
fn a_kernel_is_placed_under_the_roof_of_a_file_that_has_one_and_none_is_traced() {
    if !adapter() {
        return;
    }
    let folder = scratch("roof");
    let run = |args: &[&str]| Command::new(env!("CARGO_BIN_EXE_rooftrace")).args(args).current_dir(&folder).output().expect("it starts");
    std::fs::write(folder.join("my.wgsl"), changed(&[]).text).expect("a file");
    let own = [
        "try",
        "matmul",
        "my.wgsl",
        "--entry",
        "matmul",
        "--grid",
        "n/16,m/16",
        "--m",
        "33",
        "--n",
        "20",
        "--k",
        "17",
        "--size",
        "small",
        "--quiet",
    ];
    let under = |roof: &str, out: &str| run(&[&own[..], &["--roof", roof, "--out", out]].concat());
    // A recording of another day, as if it were of this device: tracing one takes a minute.
    let recorded = Path::new(env!("CARGO_MANIFEST_DIR")).join("results/llvmpipe-zen5-2cpu/2026-11-27T0900/records.jsonl");
    let mut lines: Vec<String> = std::fs::read_to_string(recorded).expect("it is committed").lines().map(str::to_string).collect();
    let mut header: Value = serde_json::from_str(&lines[0]).expect("a header");
    header["device"] = serde_json::to_value(wgpu::Wgpu::open(0).expect("there is one").device()).expect("a device");
    lines[0] = header.to_string();
    std::fs::write(folder.join("traced.jsonl"), lines.join("\n") + "\n").expect("a file");
    let output = under("traced.jsonl", "out");
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && stdout.contains("The roof was recorded on ") && stdout.contains("f32 vector"), "{stdout}{stderr}");
    let records = record::read(&folder.join("out/records.jsonl")).expect("a readable file").records;
    let mut measured = records.iter().filter_map(|record| if let Record::Measurement(m) = record { Some(m) } else { None });
    assert!(measured.clone().any(|m| m.variant == "try:my.wgsl" && !m.candidate && m.state != State::Wrong));
    assert!(measured.all(|m| m.op == "matmul" || m.id.starts_with("roof-")), "every probe is the file's");
    let refused = under("nowhere.jsonl", "none");
    assert!(refused.status.code() == Some(6) && !folder.join("none").exists(), "{}", String::from_utf8_lossy(&refused.stderr));
}

#[test]
fn the_command_shows_a_compilers_whole_log_and_ends_with_status_5_and_a_wrong_output_with_4() {
    if !adapter() {
        return;
    }
    for (name, find, replace, status, says) in [
        ("syntax", "var sum = S();", "var sum = S(;", 5, "does not compile"),
        ("wrong", "p < dims.k", "p + 1u < dims.k", 4, "matmul/try:my.wgsl 33x20x17 f32"),
    ] {
        let folder = scratch(name);
        let output = tried(&folder, &changed(&[(find, replace)]).text);
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(output.status.code(), Some(status), "{stderr}");
        assert!(stderr.contains(says) && !stderr.contains("panicked"), "{stderr}");
        assert!(status == 4 || stderr.contains("my.wgsl:") && stderr.contains(replace), "the user's own line stands there: {stderr}");
        assert!(stdout.contains("try:my.wgsl"), "{stdout}");
        let file = record::read(&folder.join("out/records.jsonl")).expect("a readable file");
        let own = file.records.iter().find_map(|record| match record {
            Record::Skip(s) if s.variant == "try:my.wgsl" => Some(s.state),
            Record::Measurement(m) if m.variant == "try:my.wgsl" => Some(m.state),
            _ => None,
        });
        assert_eq!(own, Some(if status == 4 { State::Wrong } else { State::Unsupported }));
        assert!(matches!(file.records.last(), Some(Record::End(end)) if end.status == status));
    }
}
