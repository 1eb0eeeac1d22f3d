//! Kernels of one problem side by side on any device, in interleaved samples of one machine state: for tuning.
//!
//! ```text
//! compare_kernels [--cold] [--json] DEVICE OP FIELDS VARIANT:PRECISION[:NAME=VALUE,…|:*] …
//! compare_kernels cuda:0 matmul '{"m":4096,"n":4096,"k":4096}' mma:bf16:* wgmma:bf16
//! ```
//! `*` stands for every setting of the tunables; settings that the device refuses are left out with the reason. Each is verified once,
//! then timed in rounds, on the device's clock where it has one: warm, or with `--cold` over copies of all tensors that together pass
//! twice the last-level cache. `--json` prints an object a line (`scripts/gpu_figures.py` reads them).

use std::sync::Arc;
use std::time::Duration;

use rooftrace::backend::{Backend, Checks, Loaded, open};
use rooftrace::draw::{Draw, Seeded};
use rooftrace::op::{Op, find};
use rooftrace::oracle::Oracle;
use rooftrace::plan::{Plan, Precision, Tuned};

/// Rounds behind a median.
const ROUNDS: usize = 11;
/// When no more kernels are compiled ahead.
const COMPILING: Duration = Duration::from_secs(60);
/// Length of a sample.
const SAMPLE_NS: u128 = 3_000_000;

fn main() {
    if let Err(error) = compare() {
        eprintln!("compare_kernels: {error}");
        std::process::exit(2);
    }
}

struct Lane<'b> {
    name: String,
    plan: Plan,
    loaded: Box<dyn Loaded + 'b>,
    launches: u32,
    sets: u32,
    /// Set of the next sample's first launch.
    first: u32,
    samples: Vec<f64>,
}

fn compare() -> Result<(), Box<dyn std::error::Error>> {
    let (flags, arguments): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|argument| argument.starts_with("--"));
    if let Some(odd) = flags.iter().find(|flag| !["--cold", "--json"].contains(&flag.as_str())) {
        return Err(format!("there is no flag {odd}; --cold and --json are known").into());
    }
    let [cold, json] = ["--cold", "--json"].map(|flag| flags.iter().any(|given| given == flag));
    let [device, op, fields, kernels @ ..] = arguments.as_slice() else { return Err("give DEVICE OP FIELDS VARIANT:PRECISION …".into()) };
    let op: Arc<dyn Op> = (find(op)?.parse)(&serde_json::from_str(fields)?)?;
    let backend = open(device)?;
    let (mut plans, mut lanes, mut oracle) = (Vec::new(), Vec::new(), Oracle::default());
    for kernel in kernels {
        let mut parts = kernel.splitn(3, ':');
        let (variant, precision) = (parts.next().unwrap_or_default(), parts.next().unwrap_or("f32"));
        let precision: Precision = serde_json::from_str(&format!("\"{precision}\""))?;
        for tuned in settings(op.as_ref(), backend.as_ref(), variant, parts.next().unwrap_or_default())? {
            match op.plan(variant, precision, backend.device().language, &tuned, backend.device()) {
                Ok(plan) => plans.push((plan, Checks::Trusted)),
                Err(why) => eprintln!("left out {variant} {precision} {:?}: {why}", tuned.0),
            }
        }
    }
    backend.prepare(&plans, COMPILING);
    for (plan, _) in plans {
        let name = format!("{} {} {:?}", plan.variant, plan.precision, plan.tuned.0);
        match lane(op.as_ref(), backend.as_ref(), plan, &name, cold, &mut oracle) {
            Ok(lane) => lanes.push(lane),
            Err(why) => eprintln!("left out {name}: {why}"),
        }
    }
    for _ in 0..ROUNDS {
        for lane in &mut lanes {
            let sample = lane.loaded.sample(lane.launches, lane.first)?;
            lane.first = (lane.first + lane.launches) % lane.sets;
            lane.samples.push(sample.device.unwrap_or(sample.wall).as_nanos() as f64 / lane.launches as f64);
        }
    }
    for lane in &mut lanes {
        lane.samples.sort_by(f64::total_cmp);
        let (time, best, cost) = (lane.samples[ROUNDS / 2], lane.samples[0], &lane.plan.cost);
        if json {
            let line = serde_json::json!({"kernel": lane.name, "median_ns": time, "least_ns": best, "flops": cost.flops, "bytes": cost.compulsory});
            println!("{line}");
            continue;
        }
        let (flops, bytes) = (cost.flops as f64 / time / 1e3, cost.compulsory as f64 / time);
        println!("{:60} {:10.2} us (least {:.2})  {flops:8.2} TFLOP/s {bytes:8.1} GB/s", lane.name, time / 1e3, best / 1e3);
    }
    Ok(())
}

/// The settings that `text` names: `*` all, nothing the defaults.
fn settings(op: &dyn Op, backend: &dyn Backend, variant: &str, text: &str) -> Result<Vec<Tuned>, Box<dyn std::error::Error>> {
    if text == "*" {
        let variants = op.variants();
        let info = variants.iter().find(|v| v.name == variant).ok_or("no such variant")?;
        return Ok(Tuned::all(info.source(backend.device().language).ok_or("it has no source for this device")?.tunables));
    }
    let mut tuned = Tuned::default();
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or("a setting is NAME=VALUE")?;
        tuned.0.insert(name.into(), value.parse()?);
    }
    Ok(vec![tuned])
}

/// Loads one kernel, verifies its output and sizes its sample.
fn lane<'b>(
    op: &dyn Op,
    backend: &'b dyn Backend,
    plan: Plan,
    name: &str,
    cold: bool,
    oracle: &mut Oracle,
) -> Result<Lane<'b>, Box<dyn std::error::Error>> {
    let device = backend.device();
    let seeded = Seeded { draw: Draw::Dense, seed: 1 };
    let sets = if cold { plan.cold_sets(device, device.llc_bytes()) } else { 1 };
    let mut loaded = backend.load(&plan, seeded, sets, Checks::Trusted)?;
    let sample = loaded.sample(1, 0)?;
    let output = plan.output();
    oracle.expect(op, plan.precision, plan.unit, seeded)?.compare(name, seeded.draw, &mut |range| loaded.read(output, 0, range))?;
    let sample = loaded.sample(1, 0).unwrap_or(sample);
    let one = sample.device.unwrap_or(sample.wall).as_nanos().max(1);
    let launches = (SAMPLE_NS / one).clamp(1, 4096) as u32;
    // A cold sample goes through whole rounds of the copies where it can.
    let launches = if launches > sets { launches / sets * sets } else { launches };
    Ok(Lane { name: name.into(), plan, loaded, launches, sets, first: 0, samples: Vec::new() })
}
