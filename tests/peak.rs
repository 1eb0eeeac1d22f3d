//! Peak memory: measured in fresh processes of the program itself, held against the plan, and never worth a measurement.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use rooftrace::campaign::{Campaign, Scope, Watcher};
use rooftrace::measure::Engine;
use rooftrace::op::{self, OpRole, Size};
use rooftrace::plan::{DeviceInfo, Language, Precision};
use rooftrace::record::{Clock, Measurement, Record, State};
use rooftrace::worker::{Answer, Bench, Child, Goal, Item, Launch, Local, Stay};
use rooftrace::{Error, Result};
use serde_json::{Value, json};

const MIB: u64 = 1 << 20;
const AMPLE: Duration = Duration::from_secs(60);

fn open(selector: &str) -> Result<Child> {
    Launch::new(selector).program(env!("CARGO_BIN_EXE_rooftrace")).start()
}

/// Whether this system tells a process its high-water mark; says so where it does not.
fn told() -> bool {
    let told = Path::new("/proc/self/clear_refs").exists();
    if !told {
        println!("SKIPPED: this system keeps no high-water mark that can be reset");
    }
    told
}

fn item(op: &str, problem: &Value, variant: &str, precision: &str) -> Item {
    let fields = json!({"id": "peak", "op": op, "problem": problem, "variant": variant, "precision": precision, "cache": "warm",
        "draw": "dense", "seed": 1, "goal": Goal::Peak, "order": 1});
    serde_json::from_value(fields).expect("an item")
}

/// Every variant of both ops in every precision, on problems from a few bytes to over 64 MiB.
fn items(device: &DeviceInfo, language: Language) -> Vec<Item> {
    let problems = [
        ("matmul", json!({"m": 5, "n": 6, "k": 7})),
        ("matmul", json!({"m": 512, "n": 384, "k": 640})),
        ("matmul", json!({"m": 4096, "n": 4096, "k": 16})),
        ("matmul", json!({"m": 64, "n": 64, "k": 140_000})),
        ("conv2d", json!({"n": 1, "h": 5, "w": 7, "c_in": 3, "c_out": 5, "k": 3})),
        ("conv2d", json!({"n": 4, "h": 128, "w": 128, "c_in": 32, "c_out": 96, "k": 1, "padding": 0})),
        ("attention", json!({"heads": 2, "seq": 33, "head_dim": 20, "causal": true})),
        ("attention", json!({"heads": 2, "seq": 1536, "head_dim": 64, "causal": true})),
        ("attention", json!({"batch": 4, "heads": 16, "kv_heads": 4, "seq_q": 1, "seq_kv": 4096, "head_dim": 64, "causal": true})),
        ("quantized", json!({"m": 3, "n": 8192, "k": 8192, "bits": 8})),
        ("linformer", json!({"batch": 2, "heads": 8, "seq": 4096, "head_dim": 64, "rank": 256})),
        ("performer", json!({"batch": 2, "heads": 8, "seq": 4096, "head_dim": 64, "features": 256})),
        ("depthwise", json!({"n": 1, "h": 7, "w": 7, "c": 5, "k": 3})),
        ("depthwise", json!({"n": 1, "h": 256, "w": 256, "c": 128, "k": 3})),
    ];
    let mut items = Vec::new();
    for (name, fields) in &problems {
        let problem = (op::find(name).expect("an op").parse)(fields).expect("a problem");
        for variant in problem.variants() {
            for &precision in device.precisions.iter().filter(|&&p| variant.has(language, p)) {
                let plan = match problem.plan(variant.name, precision, language, &Default::default(), device) {
                    Ok(plan) => plan,
                    Err(why @ Error::Unsupported { .. }) => {
                        println!("SKIPPED: {name}/{} {}: {why}", variant.name, problem.label());
                        continue;
                    }
                    Err(why) => panic!("{name}/{}: {why}", variant.name),
                };
                if let Some(missing) = plan.missing(device) {
                    println!("SKIPPED: {name}/{}: this device has no {missing}", variant.name);
                    continue;
                }
                items.push(item(name, &problem.problem(), variant.name, precision.name()));
            }
        }
    }
    items
}

fn measured(child: &mut Child, item: &Item) -> Measurement {
    match child.fresh(item, AMPLE).expect("a child has processes") {
        Answer::Done(measurement) => measurement,
        Answer::Failed(state, why) => panic!("{state:?}: {why}"),
    }
}

/// Every item within 2 % and 8 MiB of its plan.
fn agrees(mut child: Child, language: Language) {
    let items = items(&child.device().clone(), language);
    for item in &items {
        let m = measured(&mut child, item);
        let named = format!("{} {} {}", item.named(), item.precision, item.problem);
        let peak = m.peak_bytes.expect("this system tells");
        println!("{named}: {peak} bytes, planned {}: {:+.2} MiB", m.set_bytes, (peak as f64 - m.set_bytes as f64) / MIB as f64);
        assert!(peak.abs_diff(m.set_bytes) <= m.set_bytes / 50 + 8 * MIB, "{named}: {peak} bytes, planned {}", m.set_bytes);
        assert!(m.samples_ns.is_empty() && m.clock.is_empty(), "{named}: nothing is timed, no clock examined");
    }
    assert!(items.iter().any(|item| item.problem["k"] == 140_000), "one of them is large");
}

#[test]
fn on_the_host_every_variant_takes_the_memory_that_its_plan_says() {
    if told() {
        agrees(open("host").expect("the host"), Language::Host);
    }
}

/// Over 6 MiB of panels: more than the others may be off by.
#[test]
fn the_scratch_of_packed_panels_is_in_the_plan() {
    if !told() {
        return;
    }
    let mut child = open("host").expect("the host");
    let m = measured(&mut child, &item("matmul", &json!({"m": 1536, "n": 1536, "k": 1024}), "packed", "f32"));
    let peak = m.peak_bytes.expect("this system tells");
    assert_eq!(m.set_bytes, 4 * (2 * 1536 * 1024 + 1536 * 1536) + m.workspace_bytes);
    assert!(m.workspace_bytes > 6 * MIB && peak.abs_diff(m.set_bytes) < 2 * MIB, "{peak} bytes, {} planned", m.set_bytes);
}

#[test]
#[cfg(feature = "wgpu")]
fn on_wgpu_every_variant_takes_the_memory_that_its_plan_says() {
    match open("wgpu:0") {
        Ok(child) if child.device().kind == rooftrace::plan::DeviceKind::Gpu || told() => agrees(child, Language::Wgsl),
        Ok(_) => {}
        Err(error) if std::env::var("ROOFTRACE_REQUIRE").is_ok_and(|v| v.split(',').any(|v| v == "wgpu")) => {
            panic!("wgpu is required here: {error}")
        }
        Err(error) => println!("SKIPPED: {error}"),
    }
}

/// The fake device in this process, with a memory pass that answers otherwise for each variant and precision.
struct Pass {
    local: Local<'static>,
    asked: Vec<String>,
}

impl Bench for Pass {
    fn device(&self) -> &DeviceInfo {
        self.local.device()
    }
    fn clock(&self) -> &Clock {
        self.local.clock()
    }
    fn run(&mut self, item: &Item, limit: Duration) -> Answer {
        self.local.run(item, limit)
    }
    fn fresh(&mut self, item: &Item, limit: Duration) -> Option<Answer> {
        assert_eq!(item.goal, Goal::Peak);
        let asked = format!("{} {}", item.variant, item.precision);
        self.asked.push(asked.clone());
        match (asked.as_str(), self.local.run(item, limit)) {
            ("naive f32", Answer::Done(m)) => Some(Answer::Done(Measurement { peak_bytes: Some(20 * MIB), ..m })),
            ("naive f64", _) => None,
            ("packed f32", _) => Some(Answer::Failed(State::DeviceLost, "the device is gone".into())),
            (_, answer) => Some(answer),
        }
    }
}

struct Silent;

impl Watcher for Silent {
    fn record(&mut self, _: &Record) -> Result<()> {
        Ok(())
    }
    fn stage(&mut self, _: &str, _: usize) {}
    fn item(&mut self, _: &str) {}
}

#[test]
fn a_campaign_keeps_every_measurement_whatever_the_memory_pass_says() {
    let local = Local::new(Engine::open("fake", Stay::Long).expect("opens"));
    let mut pass = Pass { local, asked: Vec::new() };
    let problem = Some(("matmul".to_string(), json!({"m": 16, "n": 16, "k": 16})));
    let (ops, precisions) = (vec!["matmul".to_string()], vec![Precision::F32, Precision::F64]);
    let scope = Scope { size: Size::Small, seed: 1, deadline: None, ops, variants: Vec::new(), precisions, problem, energy: false };
    let records = Campaign::new(&mut pass, &mut Silent, scope).run().expect("runs");
    let mut rows: BTreeMap<String, Vec<&Measurement>> = BTreeMap::new();
    for record in &records {
        match record {
            Record::Measurement(m) if m.role == OpRole::Kernel && !m.candidate => {
                rows.entry(format!("{} {}", m.variant, m.precision)).or_default().push(m)
            }
            _ => {}
        }
    }
    for (named, rows) in &rows {
        for m in rows {
            let said: Vec<&str> = m.reasons.iter().map(String::as_str).filter(|reason| reason.contains("peak memory")).collect();
            let expected: (Option<u64>, &[&str]) = match named.as_str() {
                "naive f32" => (Some(20 * MIB), &["its peak memory was 20.0 MiB, where 3.00 KiB were planned"]),
                "naive f64" => (None, &[]),
                "packed f32" => (None, &["its peak memory is not known: the device is gone"]),
                _ => (Some(m.set_bytes), &[]),
            };
            assert_eq!((m.peak_bytes, &said[..]), expected, "{named}");
            assert!(m.state == State::Ok && m.samples_ns.len() >= 10 && m.verification.is_some(), "{named}: {m:?}");
        }
    }
    // Cold and warm rows share a pass; where there is none, each asks.
    assert_eq!(rows.keys().collect::<Vec<_>>(), ["naive f32", "naive f64", "packed f32", "packed f64"]);
    assert!(rows["packed f64"].len() > 1 && pass.asked.iter().filter(|asked| *asked == "packed f64").count() == 1, "{:?}", pass.asked);
}
