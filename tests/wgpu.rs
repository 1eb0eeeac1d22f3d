//! The wgpu backend on whatever adapter is there; software Vulkan will do.
//!
//! With no adapter every test prints `SKIPPED: <reason>` and returns; where `ROOFTRACE_REQUIRE` names `wgpu` it fails instead.
#![cfg(feature = "wgpu")]

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rooftrace::backend::wgpu::{Wgpu, devices};
use rooftrace::backend::{Audit, Backend, Checks};
use rooftrace::draw::{Draw, Drawn, Seeded};
use rooftrace::error::Error;
use rooftrace::op::{self, Arithmetic, DType, Op};
use rooftrace::plan::{Code, DeviceInfo, Language, Plan, Precision, Tuned};
use serde_json::{Value, json};

const DENSE: Seeded = Seeded { draw: Draw::Dense, seed: 7 };
const EXACT: Seeded = Seeded { draw: Draw::Exact, seed: 7 };

/// An open adapter, or `None` after saying why the test is skipped.
fn adapter() -> Option<Wgpu> {
    match Wgpu::open(0) {
        Ok(wgpu) => Some(wgpu),
        Err(error) if std::env::var("ROOFTRACE_REQUIRE").is_ok_and(|v| v.split(',').any(|v| v == "wgpu")) => {
            panic!("wgpu is required here: {error}")
        }
        Err(error) => {
            println!("SKIPPED: {error}");
            None
        }
    }
}

fn problem(op: &str, fields: Value) -> Arc<dyn Op> {
    (op::find(op).expect("a built-in op").parse)(&fields).expect("a legal problem")
}

fn plan(problem: &dyn Op, variant: &str, precision: Precision, tuned: &Tuned, device: &DeviceInfo) -> Plan {
    problem.plan(variant, precision, Language::Wgsl, tuned, device).expect("a WGSL source")
}

/// The output after one launch over poisoned memory.
fn output(wgpu: &Wgpu, plan: &Plan, seeded: Seeded, checks: Checks) -> Vec<f64> {
    let mut loaded = wgpu.load(plan, seeded, 1, checks).unwrap_or_else(|e| panic!("{}/{}: {e}", plan.op, plan.variant));
    loaded.sample(1, 0).expect("it runs");
    let number = plan.output();
    let output = loaded.read(number, 0, 0..plan.tensors[number].elements()).expect("it can be read");
    let audit = loaded.audit(0).expect("it can be audited");
    assert_eq!(audit, Audit::default(), "{}/{} on {}", plan.op, plan.variant, plan.problem);
    output
}

/// The f64 oracle's whole output.
fn oracle(problem: &dyn Op, plan: &Plan, seeded: Seeded) -> Vec<f64> {
    let drawn = Drawn::new(&plan.tensors, seeded);
    let spec = &plan.tensors[plan.output()];
    let columns = *spec.shape.last().expect("a shape");
    (0..spec.elements() / columns).flat_map(|row| problem.row(Arithmetic::F64, &drawn, row, 0..columns)).collect()
}

/// Runs a plan trusted and checked, with each of the draws, against the oracle and each other.
fn verify(wgpu: &Wgpu, problem: &dyn Op, plan: &Plan, draws: &[Seeded]) {
    let named = format!("{}/{} {} {} {:?}", plan.op, plan.variant, plan.precision, plan.problem, plan.tuned.0);
    for &seeded in draws {
        let trusted = output(wgpu, plan, seeded, Checks::Trusted);
        let checked = output(wgpu, plan, seeded, Checks::Checked);
        let bits = |values: &[f64]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&trusted), bits(&checked), "{named}: trusted and checked modules differ");
        // Rounding errors of a sum grow with its terms; those of fma's chains die out with the powers of a.
        let terms = if plan.op == "fma" { 0.0 } else { plan.cost.macs as f64 / trusted.len() as f64 };
        let allowed = 4.0 * (terms + 8.0) * problem.arithmetic(plan.precision, plan.unit).epsilon();
        let stored = plan.tensors[plan.output()].dtype;
        let is_exact = seeded.draw == Draw::Exact && ["matmul", "conv2d", "depthwise", "quantized"].contains(&plan.op);
        for (at, (got, want)) in trusted.iter().zip(oracle(problem, plan, seeded)).enumerate() {
            // Written so that NaN fails.
            let good =
                if is_exact { *got == stored.round(want) } else { (got - want).abs() <= allowed + 0.5 * stored.epsilon() * want.abs() };
            assert!(good, "{named}, {:?} draw: element {at} is {got}, the oracle says {want}", seeded.draw);
        }
    }
}

/// Whether the device lacks a feature of this plan; then the backend says so, and which.
fn lacks(wgpu: &Wgpu, plan: &Plan) -> bool {
    let Some(missing) = plan.missing(wgpu.device()) else { return false };
    match wgpu.load(plan, DENSE, 1, Checks::Checked).err() {
        Some(Error::Unsupported { need, .. }) if need.contains(&missing) => println!("SKIPPED: {}/{}: {need}", plan.op, plan.variant),
        other => panic!("{}/{} without {missing}: {other:?}", plan.op, plan.variant),
    }
    true
}

fn every_awkward_problem(op: &str) {
    let Some(wgpu) = adapter() else { return };
    let device = wgpu.device().clone();
    let mut ran = 0;
    for fields in (op::find(op).expect("a built-in op").awkward)() {
        let problem = problem(op, fields);
        for variant in problem.variants() {
            for &precision in device.precisions.iter().filter(|&&p| variant.has(Language::Wgsl, p)) {
                let plan = plan(&*problem, variant.name, precision, &Tuned::default(), &device);
                if lacks(&wgpu, &plan) {
                    continue;
                }
                verify(&wgpu, &*problem, &plan, &[DENSE, EXACT]);
                ran += 1;
            }
        }
    }
    assert!(ran > 0);
}

#[test]
fn every_matmul_shader_agrees_with_its_definition() {
    every_awkward_problem("matmul");
}

#[test]
fn every_conv2d_shader_agrees_with_its_definition() {
    every_awkward_problem("conv2d");
}

#[test]
fn every_depthwise_shader_agrees_with_its_definition() {
    every_awkward_problem("depthwise");
}

#[test]
fn every_attention_shader_agrees_with_its_definition() {
    every_awkward_problem("attention");
}

#[test]
fn every_quantized_shader_agrees_with_its_definition() {
    every_awkward_problem("quantized");
}

#[test]
fn every_linformer_shader_agrees_with_its_definition() {
    every_awkward_problem("linformer");
}

#[test]
fn every_performer_shader_agrees_with_its_definition() {
    every_awkward_problem("performer");
}

#[test]
fn every_stream_shader_agrees_with_its_definition() {
    every_awkward_problem("stream");
}

#[test]
fn every_ramp_shader_agrees_with_its_definition() {
    every_awkward_problem("ramp");
}

#[test]
fn every_launch_shader_agrees_with_its_definition() {
    every_awkward_problem("launch");
}

#[test]
fn every_chase_shader_agrees_with_its_definition() {
    every_awkward_problem("chase");
}

#[test]
fn every_shared_shader_agrees_with_its_definition() {
    every_awkward_problem("shared");
}

#[test]
fn every_exp_shader_agrees_with_its_definition() {
    every_awkward_problem("exp");
}

#[test]
fn every_fma_shader_agrees_with_its_definition() {
    every_awkward_problem("fma");
}

#[test]
fn other_tunables_give_right_outputs_too() {
    let Some(wgpu) = adapter() else { return };
    let device = wgpu.device().clone();
    let cases = [
        ("matmul", json!({"m": 37, "n": 68, "k": 20})),
        ("matmul", json!({"m": 37, "n": 67, "k": 21})),
        ("conv2d", json!({"n": 1, "h": 9, "w": 11, "c_in": 16, "c_out": 136, "k": 3, "groups": 2})),
        ("conv2d", json!({"n": 2, "h": 9, "w": 11, "c_in": 5, "c_out": 40, "k": 3, "stride": 2})),
        ("depthwise", json!({"n": 2, "h": 7, "w": 70, "c": 12, "k": 3, "stride": 1, "padding": 1, "dilation": 1})),
        ("depthwise", json!({"n": 1, "h": 9, "w": 40, "c": 8, "k": 3, "stride": 3, "padding": 2, "dilation": 1})),
        ("attention", json!({"heads": 2, "seq_q": 45, "seq_kv": 71, "head_dim": 40, "causal": true})),
        ("attention", json!({"heads": 4, "kv_heads": 2, "seq": 37, "head_dim": 101})),
        ("stream", json!({"kind": "read", "elements": 5003, "passes": 2, "parts": 3})),
        ("fma", json!({"elements": 1003, "trips": 3, "steps": 24})),
        ("ramp", json!({"elements": 2003, "steps": 45})),
        ("exp", json!({"elements": 1003, "trips": 3, "steps": 12})),
        ("shared", json!({"groups": 5, "passes": 24})),
    ];
    for (op, fields) in cases {
        let problem = problem(op, fields);
        for variant in problem.variants() {
            let Some(source) = variant.source(Language::Wgsl) else { continue };
            for tunable in source.tunables {
                for &value in &tunable.values[1..] {
                    let tuned = Tuned([(tunable.name.to_string(), value)].into());
                    verify(&wgpu, &*problem, &plan(&*problem, variant.name, Precision::F32, &tuned, &device), &[DENSE]);
                }
            }
        }
    }
}

#[test]
fn draws_on_the_device_have_the_bits_of_the_definition() {
    let Some(wgpu) = adapter() else { return };
    let device = wgpu.device().clone();
    for elements in [1u64, 2, 97, 70_001] {
        let problem = problem("fma", json!({"elements": elements, "trips": 1, "steps": 8}));
        for &precision in &device.precisions {
            for seeded in [DENSE, EXACT, Seeded { draw: Draw::Dense, seed: u32::MAX }] {
                let plan = plan(&*problem, "chains", precision, &Tuned::default(), &device);
                let drawn = Drawn::new(&plan.tensors, seeded);
                let mut loaded = wgpu.load(&plan, seeded, 2, Checks::Checked).expect("it loads");
                for (tensor, set) in [(0, 0), (1, 0), (1, 1)] {
                    let values = loaded.read(tensor, set, 0..plan.tensors[tensor].elements()).expect("it can be read");
                    for (i, value) in values.iter().enumerate() {
                        let want = drawn.value(tensor, i as u64);
                        assert_eq!(value.to_bits(), want.to_bits(), "{precision} {seeded:?}: element {i} is {value}, not {want}");
                    }
                }
                let fresh = loaded.read(2, 1, 0..elements).expect("it can be read");
                assert!(fresh.iter().all(|v| v.is_nan()), "an output that nobody wrote is not NaN");
                assert_eq!(loaded.audit(1).expect("it can be audited"), Audit::default());
            }
        }
    }
}

/// The first three tensors of a problem, read back in every precision and under either draw.
fn inputs_have_the_bits_of_the_definition(wgpu: &Wgpu, problem: &dyn Op) {
    let device = wgpu.device().clone();
    for &precision in &device.precisions {
        for seeded in [DENSE, EXACT] {
            // One program stands for all storage types: only the tensors are looked at.
            let mut plan = plan(problem, "naive", Precision::F32, &Tuned::default(), &device);
            plan.tensors = problem.tensors(precision).expect("legal");
            let drawn = Drawn::new(&plan.tensors, seeded);
            let mut loaded = wgpu.load(&plan, seeded, 2, Checks::Checked).expect("it loads");
            for tensor in 0..3 {
                let values = loaded.read(tensor, 1, 0..plan.tensors[tensor].elements()).expect("it can be read");
                for (i, value) in values.iter().enumerate() {
                    let want = drawn.value(tensor, i as u64);
                    assert_eq!(value.to_bits(), want.to_bits(), "{precision} {seeded:?}: element {i} of {tensor} is {value}, not {want}");
                }
            }
            for set in [0, 1] {
                assert_eq!(loaded.audit(set).expect("it can be audited"), Audit::default());
            }
        }
    }
}

#[test]
fn queries_and_keys_on_the_device_have_the_bits_of_the_definition_and_scratch_is_poisoned() {
    let Some(wgpu) = adapter() else { return };
    let device = wgpu.device().clone();
    let problem = problem("attention", json!({"heads": 4, "kv_heads": 2, "seq_q": 13, "seq_kv": 29, "head_dim": 7, "causal": true}));
    inputs_have_the_bits_of_the_definition(&wgpu, &*problem);
    // Without its first launch, the others make NaN of a poisoned scratch.
    let mut cut = plan(&*problem, "naive", Precision::F32, &Tuned::default(), &device);
    let mut whole = wgpu.load(&cut, DENSE, 2, Checks::Checked).expect("it loads");
    whole.sample(2, 0).expect("it runs");
    assert!(whole.read(3, 1, 0..28).expect("it can be read").iter().all(|v| v.is_finite()));
    drop(whole);
    cut.dispatches.remove(0);
    let mut loaded = wgpu.load(&cut, DENSE, 2, Checks::Checked).expect("it loads");
    loaded.poison(0).expect("it can be poisoned");
    loaded.sample(1, 0).expect("it runs");
    assert!(loaded.read(3, 0, 0..28).expect("it can be read").iter().all(|v| v.is_nan()));
}

#[test]
fn words_and_scales_on_the_device_have_the_bits_of_the_definition() {
    let Some(wgpu) = adapter() else { return };
    let problem = problem("quantized", json!({"n": 1003, "k": 96, "bits": 8, "group_size": 8}));
    inputs_have_the_bits_of_the_definition(&wgpu, &*problem);
}

#[test]
fn a_cycle_on_the_device_has_the_bits_of_the_definition() {
    let Some(wgpu) = adapter() else { return };
    let problem = problem("chase", json!({"lines": 2048, "hops": 16}));
    let mut plan = plan(&*problem, "cycle", Precision::F32, &Tuned::default(), wgpu.device());
    for dtype in [DType::F32, DType::F64] {
        // One program stands for both storage types: only the tensor is looked at.
        plan.tensors[0].dtype = dtype;
        let drawn = Drawn::new(&plan.tensors, DENSE);
        let mut loaded = wgpu.load(&plan, DENSE, 1, Checks::Checked).expect("it loads");
        let values = loaded.read(0, 0, 0..2048 * 32).expect("it can be read");
        assert!(values.iter().enumerate().all(|(i, value)| value.to_bits() == drawn.value(0, i as u64).to_bits()), "{dtype:?}");
        assert_eq!(loaded.audit(0).expect("it can be audited"), Audit::default());
    }
}

#[test]
fn poison_refills_the_output_of_one_set_and_nothing_else() {
    let Some(wgpu) = adapter() else { return };
    let device = wgpu.device().clone();
    let problem = problem("fma", json!({"elements": 97, "trips": 2, "steps": 8}));
    for &precision in &device.precisions {
        let plan = plan(&*problem, "chains", precision, &Tuned::default(), &device);
        let mut loaded = wgpu.load(&plan, DENSE, 2, Checks::Checked).expect("it loads");
        loaded.sample(2, 1).expect("it runs");
        loaded.poison(0).expect("it can be poisoned");
        assert!(loaded.read(2, 0, 0..97).expect("it can be read").iter().all(|v| v.is_nan()));
        assert!(loaded.read(2, 1, 0..97).expect("it can be read").iter().all(|v| v.is_finite()));
        assert_eq!(loaded.audit(0).expect("it can be audited"), Audit::default());
        assert_eq!(loaded.read(2, 1, 95..97).expect("it can be read").len(), 2);
    }
}

/// The fma plan with another program, which may write all tensors.
fn rigged(device: &DeviceInfo, precision: Precision, body: &str) -> Plan {
    let problem = problem("fma", json!({"elements": 97, "trips": 1, "steps": 8}));
    let mut plan = plan(&*problem, "chains", precision, &Tuned::default(), device);
    let dispatch = &mut plan.dispatches[0];
    (dispatch.entry, dispatch.grid, dispatch.block, dispatch.writes) = ("main".into(), [1, 1, 1], [1, 1, 1], vec![0, 1, 2]);
    let name = precision.name();
    let enable = if precision == Precision::F16 { "enable f16;" } else { "" };
    plan.code = Code::Wgsl(format!(
        "{enable} alias T = {name};
        struct Dims {{ elements: u32, trips: u32, steps: u32 }}
        @group(0) @binding(0) var<storage, read_write> coef: array<T>;
        @group(0) @binding(1) var<storage, read_write> x: array<T>;
        @group(0) @binding(2) var<storage, read_write> y: array<T>;
        @group(1) @binding(0) var<uniform> dims: Dims;
        @compute @workgroup_size(1) fn main() {{ let n = dims.elements; {body} }}"
    ));
    plan
}

#[test]
fn audit_counts_changed_inputs_and_writes_past_the_end() {
    let Some(wgpu) = adapter() else { return };
    let device = wgpu.device().clone();
    for &precision in &device.precisions {
        // The first word past 97 elements is shared with the last element in f16, and half an element in f64.
        let words = if precision == Precision::F64 { 2 } else { 1 };
        let cases = [
            ("y[0] = x[0];", Audit::default()),
            ("x[96] = x[96] + T(1);", Audit { guards_broken: 0, inputs_changed: 1 }),
            ("x[3] = x[4]; x[5] = T(0); coef[1] = T(7); y[96] = T(1);", Audit { guards_broken: 0, inputs_changed: 3 }),
            ("y[n] = T(0);", Audit { guards_broken: words, inputs_changed: 0 }),
            ("x[n] = T(0); y[n] = T(0);", Audit { guards_broken: 2 * words, inputs_changed: 0 }),
        ];
        for (body, want) in cases {
            let plan = rigged(&device, precision, body);
            let mut loaded = wgpu.load(&plan, DENSE, 2, Checks::Checked).expect("it loads");
            loaded.sample(1, 1).expect("it runs");
            assert_eq!(loaded.audit(1).expect("it can be audited"), want, "{precision}: {body}");
            assert_eq!(loaded.audit(0).expect("it can be audited"), Audit::default(), "{precision}: {body}, other set");
        }
    }
}

#[test]
fn both_clocks_grow_with_launches_and_the_device_is_never_ahead_of_the_wall() {
    let Some(wgpu) = adapter() else { return };
    let device = wgpu.device().clone();
    let problem = problem("fma", json!({"elements": 4096, "trips": 8, "steps": 512}));
    let plan = plan(&*problem, "chains", Precision::F32, &Tuned::default(), &device);
    let mut loaded = wgpu.load(&plan, DENSE, 3, Checks::Trusted).expect("it loads");
    loaded.sample(1, 0).expect("it runs");
    let mut best = |launches| {
        let samples: Vec<_> = (0..7).map(|_| loaded.sample(launches, 0).expect("it runs")).collect();
        for sample in &samples {
            assert!(sample.device.is_none_or(|time| !time.is_zero() && time <= sample.wall), "{sample:?}");
        }
        samples.into_iter().min_by_key(|sample| sample.wall).expect("seven samples")
    };
    let (one, many) = (best(1), best(16));
    assert!(many.wall > one.wall * 4, "{one:?} {many:?}");
    if let (Some(one), Some(many)) = (one.device, many.device) {
        assert!(many > one * 4, "{one:?} {many:?}");
    }
    let facts = loaded.facts();
    assert!(facts.compile_ns.is_some_and(|ns| ns > 0) && facts.first_launch_ns.is_some_and(|ns| ns > 0), "{facts:?}");
    assert_eq!(facts.checks, Some(Checks::Trusted));
}

#[test]
#[ignore = "a figure, not a check: run it by name on a quiet machine"]
fn the_best_chains_beat_a_plain_kernel_of_four_by_six_tenths_on_software_vulkan() {
    let candidates: Vec<Tuned> = [(1, 64, 8), (2, 64, 4), (3, 64, 4), (4, 64, 4), (3, 256, 4), (4, 256, 4)]
        .map(|(chains, block, unroll)| Tuned([("CHAINS", chains), ("BLOCK", block), ("UNROLL", unroll)].map(|(n, v)| (n.into(), v)).into()))
        .into();
    // One device each, so that all stay loaded and their samples alternate.
    let mut devices: Vec<Wgpu> = candidates.iter().map_while(|_| adapter()).collect();
    let Some(device) = devices.first().map(|wgpu| wgpu.device().clone()) else { return };
    let problem = problem("fma", json!({"elements": 8192, "trips": 16, "steps": 512}));
    let mut loaded: Vec<_> = devices
        .iter_mut()
        .zip(&candidates)
        .map(|(wgpu, tuned)| {
            wgpu.load(&plan(&*problem, "chains", Precision::F32, tuned, &device), DENSE, 1, Checks::Trusted).expect("it loads")
        })
        .collect();
    let mut time = |number: usize| loaded[number].sample(1, 0).expect("it runs").wall.as_secs_f64();
    let warm: f64 = (0..candidates.len()).map(&mut time).sum();
    assert!(warm > 0.0);
    let mut best = 0.0f64;
    for (number, tuned) in candidates.iter().enumerate().skip(1) {
        let mut ratios: Vec<f64> = (0..101).map(|_| time(0) / time(number)).collect();
        ratios.sort_by(f64::total_cmp);
        println!("{:?}: median of 101 interleaved ratios {:.2}", tuned.0, ratios[50]);
        best = best.max(ratios[50]);
    }
    assert!(best >= 1.6, "{best}");
}

#[test]
fn plans_over_a_limit_are_refused_by_its_name() {
    let Some(wgpu) = adapter() else { return };
    let device = wgpu.device().clone();
    let small = || rigged(&device, Precision::F32, "y[0] = x[0];");
    let refused = |wgpu: &Wgpu, plan: &Plan, words: &[&str]| {
        let error = wgpu.load(plan, DENSE, 1, Checks::Trusted).err().unwrap_or_else(|| panic!("{words:?} was not refused"));
        assert!(matches!(error, Error::Unsupported { .. }), "{error:?}");
        let message = error.to_string();
        assert!(words.iter().all(|word| message.contains(word)), "'{message}' does not name {words:?}");
    };
    let mut over = small();
    over.dispatches[0].grid = [1, device.limits.grid + 1, 1];
    refused(&wgpu, &over, &["work-groups along y", &(device.limits.grid + 1).to_string(), &device.limits.grid.to_string()]);
    let mut over = small();
    over.dispatches[0].block = [1, 1, 1 << 20];
    refused(&wgpu, &over, &["invocations", "along z", "1048576"]);
    let mut over = small();
    over.dispatches[0].block = [device.limits.block, 2, 1];
    refused(&wgpu, &over, &["invocations of a work-group", &(2 * device.limits.block).to_string()]);
    let mut over = small();
    over.dispatches[0].shared_bytes = device.limits.shared_bytes + 4;
    refused(&wgpu, &over, &["workgroup memory", &device.limits.shared_bytes.to_string()]);
    let mut over = small();
    over.tensors[1].shape = vec![device.limits.binding_bytes / 4 + 1];
    refused(&wgpu, &over, &["tensor x", "binding", &device.limits.binding_bytes.to_string()]);
    let host = problem("fma", json!({})).plan("chains", Precision::F32, Language::Host, &Tuned::default(), &device).expect("a host plan");
    refused(&wgpu, &host, &["WGSL"]);
    for (precision, feature) in [(Precision::F16, "shader-f16"), (Precision::F64, "shader-f64")] {
        if !device.precisions.contains(&precision) {
            let plan = rigged(&device, precision, "y[0] = x[0];");
            refused(&wgpu, &plan, &[feature]);
        }
    }
    let error = wgpu.load(&small(), DENSE, u32::MAX, Checks::Trusted).err().expect("4 billion sets do not fit");
    assert!(matches!(error, Error::OutOfMemory { need, have, .. } if need > have), "{error:?}");
    // The device is as good as before.
    assert!(wgpu.load(&small(), DENSE, 1, Checks::Trusted).expect("it loads").sample(1, 0).is_ok());
}

#[test]
fn a_shader_that_does_not_compile_is_refused_with_its_line_and_column() {
    let Some(wgpu) = adapter() else { return };
    let device = wgpu.device().clone();
    for (body, word) in [("y[0] = nonsense;", "nonsense"), ("y[0] = 1u;", "f32"), ("y[0] = x[0]", ";")] {
        for checks in [Checks::Trusted, Checks::Checked] {
            let error = wgpu.load(&rigged(&device, Precision::F32, body), DENSE, 1, checks).err().expect("it does not compile");
            let Error::Compile { kernel, log } = &error else { panic!("{error:?}") };
            assert!(kernel.contains("fma/chains") && log.starts_with("7:") && log.contains(word), "{kernel}: {log}");
        }
    }
    let mut plan = rigged(&device, Precision::F32, "y[0] = x[0];");
    plan.dispatches[0].entry = "elsewhere".into();
    let error = wgpu.load(&plan, DENSE, 1, Checks::Checked).err().expect("there is no such entry");
    assert!(matches!(&error, Error::Compile { log, .. } if log.contains("elsewhere")), "{error:?}");
    // An output that the plan declares read-only.
    let mut plan = rigged(&device, Precision::F32, "y[0] = x[0];");
    plan.dispatches[0].writes = vec![2];
    assert!(matches!(wgpu.load(&plan, DENSE, 1, Checks::Checked).err(), Some(Error::Compile { .. })));
}

#[test]
fn reads_and_sets_out_of_range_are_refused() {
    let Some(wgpu) = adapter() else { return };
    let plan = rigged(&wgpu.device().clone(), Precision::F32, "y[0] = x[0];");
    let mut loaded = wgpu.load(&plan, DENSE, 1, Checks::Checked).expect("it loads");
    assert!(loaded.read(2, 0, 0..98).is_err() && loaded.read(3, 0, 0..1).is_err() && loaded.read(2, 1, 0..1).is_err());
    assert!(loaded.poison(1).is_err() && loaded.audit(1).is_err());
    assert_eq!(loaded.read(2, 0, 5..5).expect("nothing can be read"), Vec::<f64>::new());
}

#[test]
fn an_adapter_that_is_not_there_is_unavailable_with_a_remedy() {
    let Err(error) = Wgpu::open(99) else { panic!("there is no hundredth adapter") };
    assert!(matches!(&error, Error::Unavailable { backend, .. } if backend == "wgpu"), "{error:?}");
    assert!(error.to_string().contains("--device"), "{error}");
    assert!(!devices().is_empty(), "an absent driver is listed, too");
}

const INSIDE: &str = "ROOFTRACE_TEST_ENDLESS";

#[test]
fn an_endless_loop_times_out() {
    if std::env::var_os(INSIDE).is_some() {
        return spin();
    }
    if adapter().is_none() {
        return;
    }
    // The kernel cannot be ended, and the driver waits for it when the process ends; so a child is killed.
    let mut child = Command::new(std::env::current_exe().expect("the test's own file"))
        .args(["--exact", "an_endless_loop_times_out", "--nocapture"])
        .env(INSIDE, "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the test starts again");
    let started = Instant::now();
    let lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
    let answer = lines.map_while(Result::ok).find_map(|line| line.split_once("ANSWER ").map(|(_, answer)| answer.to_string()));
    let waited = started.elapsed();
    child.kill().expect("it can be killed");
    child.wait().expect("it ends");
    let answer = answer.expect("the child answers before it ends");
    assert!(answer.contains("timed out") && answer.contains("1.0 s"), "{answer}");
    assert!(waited < Duration::from_secs(30), "the answer took {waited:?}");
}

fn spin() {
    let mut wgpu = adapter().expect("the parent had one");
    wgpu.set_timeout(Duration::from_secs(1));
    let plan = rigged(&wgpu.device().clone(), Precision::F32, "while (coef[0] < 100.0) { y[0] = y[0] + coef[1]; }");
    let mut loaded = wgpu.load(&plan, DENSE, 1, Checks::Trusted).expect("it loads");
    let answer = loaded.sample(1, 0);
    println!("ANSWER {}", answer.map_or_else(|e| e.to_string(), |sample| format!("{sample:?}")));
    std::thread::sleep(Duration::from_secs(60));
}
