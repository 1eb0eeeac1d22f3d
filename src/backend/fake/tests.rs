use serde_json::json;

use super::Fake;
use crate::backend::{Backend, Checks, Sample};
use crate::draw::{Draw, Drawn, Seeded};
use crate::error::Error;
use crate::op::{self, Arithmetic};
use crate::plan::{DeviceInfo, Language, Plan, Precision, Tuned};

const SEEDED: Seeded = Seeded { draw: Draw::Exact, seed: 5 };

fn fake(script: serde_json::Value) -> Fake {
    Fake::scripted(&script.to_string()).expect("a script")
}

fn plan(name: &str, problem: serde_json::Value, variant: &str, device: &DeviceInfo) -> Plan {
    let op = (op::find(name).expect("an op").parse)(&problem).expect("a problem");
    op.plan(variant, Precision::F32, Language::Host, &Tuned::default(), device).expect("a plan")
}

fn matmul(device: &DeviceInfo) -> Plan {
    plan("matmul", json!({"m": 13, "n": 17, "k": 9}), "naive", device)
}

fn stream(bytes: u64, passes: u64, device: &DeviceInfo) -> Plan {
    plan("stream", json!({"kind": "copy", "elements": bytes / 8, "passes": passes, "parts": 1}), "linear", device)
}

/// Output of the last launch, and what the oracle says.
fn outputs(script: serde_json::Value, launches: u32) -> (Vec<f64>, Vec<f64>) {
    let fake = fake(script);
    let plan = matmul(&fake.info.clone());
    let op = (op::find(plan.op).expect("an op").parse)(&plan.problem).expect("a problem");
    let inputs = Drawn::new(&plan.tensors, SEEDED);
    let expected = (0..13).flat_map(|row| op.row(Arithmetic::F64, &inputs, row, 0..17)).collect();
    let mut loaded = fake.load(&plan, SEEDED, 1, Checks::Trusted).expect("loads");
    loaded.sample(launches, 0).expect("samples");
    loaded.poison(0).expect("poisons");
    loaded.sample(1, 0).expect("samples");
    (loaded.read(plan.output(), 0, 0..13 * 17).expect("reads"), expected)
}

fn sampled(script: serde_json::Value, launches: u32) -> Sample {
    let fake = fake(script);
    let plan = stream(1 << 20, 1, &fake.info.clone());
    fake.load(&plan, SEEDED, 1, Checks::Trusted).expect("loads").sample(launches, 0).expect("samples")
}

/// Nanoseconds of one call on a device without noise.
fn call_ns(mut script: serde_json::Value, plan_of: impl Fn(&DeviceInfo) -> Plan, sets: u32) -> f64 {
    script["speed"]["noise"] = json!(0);
    let fake = fake(script);
    fake.script.call_ns(&plan_of(&fake.info), sets)
}

#[test]
fn outputs_are_true_unless_a_fault_says_otherwise() {
    let (out, expected) = outputs(json!({}), 3);
    assert_eq!(out, expected);
    let (nan, _) = outputs(json!({"faults": [{"kind": "nan"}]}), 1);
    assert!(nan.iter().all(|v| v.is_nan()));
    let (shifted, _) = outputs(json!({"faults": [{"kind": "shifted"}]}), 1);
    assert_eq!(shifted[1..], expected[..expected.len() - 1]);
    assert_eq!(shifted[0], expected[expected.len() - 1]);
    let (bad, _) = outputs(json!({"faults": [{"kind": "one_bad", "element": 40}]}), 1);
    let different: Vec<usize> = (0..bad.len()).filter(|&i| bad[i] != expected[i]).collect();
    assert_eq!(different, [40]);
}

#[test]
fn an_output_can_go_wrong_after_the_tenth_launch_or_stop_being_written() {
    for kind in ["one_nan", "stops_writing"] {
        let script = json!({"faults": [{"kind": kind, "after": 10}]});
        let (early, expected) = outputs(script.clone(), 9);
        assert_eq!(early, expected, "{kind}: the tenth launch is still right");
        let (late, _) = outputs(script, 10);
        assert!(late.iter().any(|v| v.is_nan()), "{kind}: the eleventh is not");
    }
}

#[test]
fn faults_strike_only_the_kernel_that_they_name() {
    let (out, expected) = outputs(json!({"faults": [{"kind": "nan", "op": "stream"}, {"kind": "nan", "variant": "tiled"}]}), 1);
    assert_eq!(out, expected);
}

#[test]
fn broken_guards_and_changed_inputs_show_in_the_audit() {
    for (kind, guards, inputs) in [("nan", 0, 0), ("breaks_guard", 1, 0), ("writes_inputs", 0, 1)] {
        let fake = fake(json!({"faults": [{"kind": kind}]}));
        let plan = matmul(&fake.info.clone());
        let mut loaded = fake.load(&plan, SEEDED, 2, Checks::Checked).expect("loads");
        assert_eq!(loaded.audit(1).expect("audits"), Default::default(), "{kind}: nothing was launched yet");
        loaded.sample(2, 0).expect("samples");
        let audit = loaded.audit(1).expect("audits");
        assert_eq!((audit.guards_broken, audit.inputs_changed), (guards, inputs), "{kind}");
    }
}

#[test]
fn every_element_type_is_filled_from_its_draw() {
    let seeded = Seeded { draw: Draw::Dense, seed: 3 };
    let fake = fake(json!({}));
    for precision in [Precision::F32, Precision::F64] {
        let op = (op::find("matmul").expect("an op").parse)(&json!({"m": 2, "n": 3, "k": 5})).expect("a problem");
        let plan = op.plan("naive", precision, Language::Host, &Tuned::default(), &fake.info.clone());
        let Ok(plan) = plan else { continue };
        let drawn = Drawn::new(&plan.tensors, seeded);
        let mut loaded = fake.load(&plan, seeded, 1, Checks::Trusted).expect("loads");
        let held = loaded.read(0, 0, 0..10).expect("reads");
        assert_eq!(held, (0..10).map(|i| drawn.value(0, i)).collect::<Vec<_>>(), "{precision}");
    }
}

#[test]
fn bandwidth_falls_at_the_capacities_of_the_script() {
    let script = json!({"speed": {"levels": [{"capacity": 65536, "byte_per_s": 4e11}, {"capacity": 1048576, "byte_per_s": 1e11}],
        "dram_byte_per_s": 2e10, "launch_ns": 0}});
    // Passes beyond the first find the set where it lies; many of them make the first one vanish.
    let rate = |bytes: u64, sets| bytes as f64 * 1000.0 / call_ns(script.clone(), |d| stream(bytes, 1000, d), sets) * 1e9;
    for (bytes, expected) in [(60_000, 4e11), (1_000_000, 1e11), (1_100_000, 2e10), (64_000_000, 2e10)] {
        let found = rate(bytes, 1);
        assert!((found / expected - 1.0).abs() < 0.01, "{bytes} bytes: {found:.3e}");
    }
    // One cold pass comes from where the whole pool lies.
    let cold = call_ns(script.clone(), |d| stream(60_000, 1, d), 100);
    assert!((60_000.0 / cold * 1e9 / 2e10 - 1.0).abs() < 0.01, "cold: {cold} ns");
    let soft =
        json!({"speed": {"levels": [{"capacity": 65536, "byte_per_s": 4e11}], "dram_byte_per_s": 2e10, "softness": 1, "launch_ns": 0}});
    let half = 131_072e3 / call_ns(soft, |d| stream(131_072, 1000, d), 1) * 1e9;
    assert!(half > 3e10 && half < 1e11, "half of the accesses still hit: {half:.3e}");
}

#[test]
fn the_slowest_resource_sets_the_time_of_a_call() {
    let compute = json!({"speed": {"flop_per_s": {"f32": 1e6}, "launch_ns": 0}});
    let flops = 2.0 * 13.0 * 17.0 * 9.0;
    assert!((call_ns(compute, matmul, 1) / (flops * 1e3) - 1.0).abs() < 1e-9);
    let launch = json!({"speed": {"launch_ns": 1e6}});
    assert!(call_ns(launch, matmul, 1) > 1e6);
    let eased = json!({"ease": [{"op": "stream", "factor": 9}, {"op": "matmul", "variant": "naive", "ns": 500, "factor": 2}]});
    assert_eq!(call_ns(eased, matmul, 1), 1000.0);
}

#[test]
fn the_device_clock_misbehaves_as_scripted() {
    let with = |kind: &str| sampled(json!({"clock": {"device": kind, "step_ns": 1000}, "speed": {"noise": 0}}), 8);
    let honest = with("true");
    let device = honest.device.expect("a device clock");
    assert!(device < honest.wall && device.as_nanos().is_multiple_of(1000), "{honest:?}");
    assert_eq!(with("absent").device, None);
    assert_eq!(with("zero").device.map(|d| d.as_nanos()), Some(0));
    assert_eq!(with("negative").device.map(|d| d.as_nanos()), Some(0));
    assert!(with("above_wall").device > Some(honest.wall));
    assert!(with("wrapping").device > Some(honest.wall * 1000));
    assert!(with("half").device.expect("a clock").abs_diff(device / 2).as_nanos() <= 1000);
    let constant = |launches| sampled(json!({"clock": {"device": "constant"}, "speed": {"noise": 0}}), launches).device;
    assert_eq!(constant(1), constant(64));
}

#[test]
fn pace_steps_or_ramps_over_the_samples_and_noise_stays_small() {
    let step = fake(json!({"speed": {"noise": 0}, "pace": [{"after": 10, "factor": 2}]})).script;
    assert_eq!((step.factor(9), step.factor(10), step.factor(99)), (1.0, 2.0, 2.0));
    let ramp = fake(json!({"speed": {"noise": 0}, "ramp": true, "pace": [{"after": 10, "factor": 2}]})).script;
    assert_eq!((ramp.factor(0), ramp.factor(5), ramp.factor(10)), (1.0, 1.5, 2.0));
    let spiky = fake(json!({"speed": {"noise": 0, "spike_every": 4}})).script;
    assert_eq!((0..8).filter(|&n| spiky.factor(n) == 3.0).count(), 2);
    let noisy = fake(json!({"speed": {"noise": 0.01}, "seed": 3})).script;
    let factors: Vec<f64> = (0..1000).map(|n| noisy.factor(n)).collect();
    let mean = factors.iter().sum::<f64>() / 1000.0;
    assert!((mean - 1.0).abs() < 1e-3 && factors.iter().all(|f| (f - 1.0).abs() <= 0.02), "mean {mean}");
    assert!(factors.iter().any(|f| (f - 1.0).abs() > 0.005));
}

#[test]
fn memory_watchdog_and_lost_device_are_answers() {
    let small = fake(json!({"device": {"memory_bytes": 1000}}));
    let plan = matmul(&small.info.clone());
    assert!(matches!(small.load(&plan, SEEDED, 1, Checks::Trusted).err(), Some(Error::OutOfMemory { have: 1000, .. })));
    for script in [json!({"device": {"limits": {"launch_ns": 100}}}), json!({"faults": [{"kind": "device_lost", "call": 2}]})] {
        let fake = fake(script.clone());
        let mut loaded = fake.load(&plan, SEEDED, 1, Checks::Trusted).expect("loads");
        let first = loaded.sample(1, 0);
        assert_eq!(first.is_ok(), script.get("faults").is_some());
        for _ in 0..2 {
            assert!(matches!(loaded.sample(1, 0), Err(Error::DeviceLost(_))), "once lost, always lost");
        }
        drop(loaded);
        assert!(matches!(fake.load(&plan, SEEDED, 1, Checks::Trusted).err(), Some(Error::DeviceLost(_))));
    }
}

#[test]
fn a_script_dresses_the_device_up_but_never_as_a_real_one() {
    let device =
        fake(json!({"device": {"name": "Big", "compute_units": 132, "simulated": false, "id": "cuda:0", "limits": {"grid": 7}}})).info;
    assert_eq!((device.name.as_str(), device.compute_units, device.limits.grid), ("Big", 132, 7));
    assert!(device.simulated && device.id == "fake" && device.limits.block == 1024);
}

#[test]
fn a_script_that_makes_no_sense_is_a_usage_error_that_names_the_place() {
    let cases = [
        ("{\"devise\": {}}", "devise"),
        ("{\"device\": {\"colour\": 1}}", "colour"),
        ("{\"speed\": {\"dram_byte_per_s\": 0}}", "0 is no rate"),
        ("{\"faults\": [{\"kind\": \"boredom\"}]}", "boredom"),
        ("{", "EOF"),
        ("no/such/file", "no/such/file"),
    ];
    for (script, named) in cases {
        match Fake::scripted(script).err() {
            Some(Error::Usage(why)) => assert!(why.contains(named), "{script}: {why}"),
            other => panic!("{script}: {other:?}"),
        }
    }
}

#[test]
fn reading_past_the_end_is_refused() {
    let fake = fake(json!({}));
    let plan = matmul(&fake.info.clone());
    let mut loaded = fake.load(&plan, SEEDED, 1, Checks::Trusted).expect("loads");
    assert!(loaded.read(plan.output(), 0, 0..13 * 17 + 1).is_err());
    assert!(loaded.read(9, 0, 0..1).is_err());
    assert!(loaded.read(0, 1, 0..1).is_err());
}
