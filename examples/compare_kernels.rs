//! Kernels side by side on any device, in interleaved samples of one machine state: for tuning.
//!
//! ```text
//! compare_kernels [--cold] [--json] DEVICE OP FIELDS KERNEL … [--also OP FIELDS KERNEL …] …
//! compare_kernels cuda:0 matmul '{"m":4096,"n":4096,"k":4096}' mma:bf16:* wgmma:bf16 --also matmul '{}' mma:bf16
//! ```
//! A KERNEL is `VARIANT:PRECISION[:NAME=VALUE,…|:*]`, where `*` stands for every setting of the tunables; settings that the device refuses
//! are left out with the reason. Kernels of all problems are timed in the same rounds, on the clock that a run of the device believes, after
//! half a second of such rounds that do not count: warm, or with `--cold` over copies of all tensors that together pass twice the
//! last-level cache. Then each writes one more output, poisoned before, which is verified and its memory audited; only who passes is printed.
//! `--json` prints an object a line as soon as that is done (`scripts/gpu_figures.py` reads them), with the names and meanings of records;
//! `median_ns` and `least_ns` are of one launch.
//! Exit code: 0 done, 2 wrong usage or a lost device, 4 an output was wrong.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rooftrace::backend::{Backend, Checks, Loaded, open};
use rooftrace::draw::{Draw, Seeded};
use rooftrace::measure::Engine;
use rooftrace::op::{Op, find};
use rooftrace::oracle::{Oracle, named};
use rooftrace::plan::{Plan, Precision, Tuned};
use rooftrace::record::{Cache, Clock, Verification};
use rooftrace::worker::Runner;
use rooftrace::{Error, stats};
use serde_json::json;

/// Rounds behind a median.
const ROUNDS: usize = 11;
/// How long rounds do not count: a GPU that has waited for a compiler or an oracle is slow until it has worked for a while.
const WAKING: Duration = Duration::from_millis(500);
/// When no more kernels are compiled ahead.
const COMPILING: Duration = Duration::from_secs(60);
/// Length of a sample.
const SAMPLE_NS: u64 = 3_000_000;
/// Inputs.
const SEEDED: Seeded = Seeded { draw: Draw::Dense, seed: 1 };

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() {
    match compare() {
        Ok(status) => std::process::exit(status),
        Err(error) => {
            eprintln!("compare_kernels: {error}");
            std::process::exit(2);
        }
    }
}

/// One kernel in one setting.
struct Lane<'b> {
    op: Arc<dyn Op>,
    plan: Plan,
    loaded: Box<dyn Loaded + 'b>,
    launches: u32,
    sets: u32,
    /// Set of the next sample's first launch.
    first: u32,
    samples_ns: Vec<u64>,
}

fn compare() -> Outcome<i32> {
    let (flags, arguments): (Vec<String>, Vec<String>) = std::env::args().skip(1).partition(|argument| is_flag(argument));
    let [cold, as_json] = ["--cold", "--json"].map(|flag| flags.iter().any(|given| given == flag));
    let Some((device, problems)) = arguments.split_first() else { return Err("give DEVICE OP FIELDS VARIANT:PRECISION …".into()) };
    let backend = open(device)?;
    let mut asked = Vec::new();
    for problem in problems.split(|argument| argument == "--also") {
        asked.extend(plans(backend.as_ref(), problem)?);
    }
    backend.prepare(&asked.iter().map(|(_, plan)| (plan.clone(), Checks::Trusted)).collect::<Vec<_>>(), COMPILING);
    let (_, clock) = Engine::new(backend.as_ref())?.device();
    let mut lanes = Vec::new();
    for (op, plan) in asked {
        let name = name(&plan);
        match Lane::new(op, plan, backend.as_ref(), cold, &clock) {
            Ok(lane) => lanes.push(lane),
            Err(why) => eprintln!("left out {name}: {why}"),
        }
    }
    round(&mut lanes, &clock, WAKING)?;
    lanes.iter_mut().for_each(Lane::fit);
    round(&mut lanes, &clock, Duration::ZERO)?;
    lanes.iter_mut().for_each(|lane| lane.samples_ns.clear());
    for _ in 0..ROUNDS {
        round(&mut lanes, &clock, Duration::ZERO)?;
    }
    let (mut status, mut oracle, mut problem) = (0, Oracle::default(), String::new());
    for mut lane in lanes {
        let verification = match lane.verified(&mut oracle) {
            Ok(verification) => verification,
            Err(why) => {
                eprintln!("left out {}: {why}", name(&lane.plan));
                status = if matches!(why, Error::Wrong(_)) { 4 } else { status };
                continue;
            }
        };
        if as_json {
            println!("{}", lane.line(backend.as_ref(), &clock, cold, &verification));
            continue;
        }
        let heading = format!("{} {}", lane.op.name(), lane.op.label());
        if problem != heading {
            println!("{heading}");
            problem = heading;
        }
        let (time, best, cost) = (lane.median_ns(), lane.least_ns(), &lane.plan.cost);
        let (flops, bytes) = (cost.flops as f64 / time / 1e3, cost.compulsory as f64 / time);
        println!("{:60} {:10.2} us (least {:.2})  {flops:8.2} TFLOP/s {bytes:8.1} GB/s", name(&lane.plan), time / 1e3, best / 1e3);
    }
    Ok(status)
}

fn is_flag(argument: &str) -> bool {
    ["--cold", "--json"].contains(&argument)
}

fn name(plan: &Plan) -> String {
    format!("{} {} {:?}", plan.variant, plan.precision, plan.tuned.0)
}

/// The plans of `OP FIELDS KERNEL …` that the device takes.
fn plans(backend: &dyn Backend, words: &[String]) -> Outcome<Vec<(Arc<dyn Op>, Plan)>> {
    let [op, fields, kernels @ ..] = words else { return Err("give OP FIELDS VARIANT:PRECISION …".into()) };
    let op: Arc<dyn Op> = (find(op)?.parse)(&serde_json::from_str(fields)?)?;
    let mut plans = Vec::new();
    for kernel in kernels {
        let mut parts = kernel.splitn(3, ':');
        let (variant, precision) = (parts.next().unwrap_or_default(), parts.next().unwrap_or("f32"));
        if let Some(odd) = Some(variant).filter(|variant| variant.starts_with("--")) {
            return Err(format!("there is no flag {odd}; --cold, --json and --also are known").into());
        }
        let precision: Precision = serde_json::from_str(&format!("\"{precision}\""))?;
        for tuned in settings(op.as_ref(), backend, variant, parts.next().unwrap_or_default())? {
            match op.plan(variant, precision, backend.device().language, &tuned, backend.device()) {
                Ok(plan) => plans.push((op.clone(), plan)),
                Err(why) => eprintln!("left out {variant} {precision} {:?}: {why}", tuned.0),
            }
        }
    }
    Ok(plans)
}

/// The settings that `text` names: `*` all, nothing the defaults; where there is nothing to set, planning tells why.
fn settings(op: &dyn Op, backend: &dyn Backend, variant: &str, text: &str) -> Outcome<Vec<Tuned>> {
    if text == "*" {
        let variants = op.variants();
        let source = variants.iter().find(|v| v.name == variant).and_then(|v| v.source(backend.device().language));
        return Ok(source.map_or(vec![Tuned::default()], |source| Tuned::all(source.tunables)));
    }
    let mut tuned = Tuned::default();
    for pair in text.split(',').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or("a setting is NAME=VALUE")?;
        tuned.0.insert(name.into(), value.parse()?);
    }
    Ok(vec![tuned])
}

/// Samples every kernel in turn, once and until that time is over.
fn round(lanes: &mut [Lane<'_>], clock: &Clock, least: Duration) -> Outcome<()> {
    let started = Instant::now();
    loop {
        for lane in &mut *lanes {
            lane.sample(clock).map_err(|why| format!("{}: {why}", name(&lane.plan)))?;
        }
        if lanes.is_empty() || started.elapsed() >= least {
            return Ok(());
        }
    }
}

impl<'b> Lane<'b> {
    /// Loads one kernel and launches it.
    fn new(op: Arc<dyn Op>, plan: Plan, backend: &'b dyn Backend, cold: bool, clock: &Clock) -> rooftrace::Result<Self> {
        let device = backend.device();
        let sets = if cold { plan.cold_sets(device, device.llc_bytes()) } else { 1 };
        let loaded = backend.load(&plan, SEEDED, sets, Checks::Trusted)?;
        let mut lane = Lane { op, plan, loaded, launches: 1, sets, first: 0, samples_ns: Vec::new() };
        for _ in 0..2 {
            lane.sample(clock)?;
        }
        lane.fit();
        Ok(lane)
    }

    fn sample(&mut self, clock: &Clock) -> rooftrace::Result<()> {
        let sample = self.loaded.sample(self.launches, self.first)?;
        self.first = (self.first + self.launches) % self.sets;
        let time = sample.device.filter(|_| clock.source == "device").unwrap_or(sample.wall);
        self.samples_ns.push(time.as_nanos() as u64);
        Ok(())
    }

    /// Sizes the samples by the last, which had as many launches as those to come until now.
    fn fit(&mut self) {
        let last = self.samples_ns.last().copied().unwrap_or(SAMPLE_NS).max(1);
        let launches = (SAMPLE_NS as f64 * self.launches as f64 / last as f64).clamp(1.0, 4096.0) as u32;
        // A cold sample goes through whole rounds of the copies where it can.
        self.launches = if launches > self.sets { launches / self.sets * self.sets } else { launches };
    }

    /// Verifies the output of one more sample, poisoned just before it, and audits its memory.
    fn verified(&mut self, oracle: &mut Oracle) -> rooftrace::Result<Verification> {
        let (output, set) = (self.plan.output(), (self.launches - 1) % self.sets);
        self.loaded.poison(set)?;
        self.loaded.sample(self.launches, 0)?;
        let expectation = oracle.expect(self.op.as_ref(), self.plan.precision, self.plan.unit, SEEDED)?;
        let named = named(self.op.as_ref(), &self.plan);
        let read = &mut |range| self.loaded.fetch(output, set, range);
        let verification = expectation.compare(&named, SEEDED.draw, read)?;
        let audit = self.loaded.audit(set)?;
        match (audit.guards_broken, audit.inputs_changed) {
            (0, 0) => Ok(verification),
            (guards, inputs) => Err(Error::Wrong(format!("{named}: {guards} guard words and {inputs} input elements changed"))),
        }
    }

    fn median_ns(&self) -> f64 {
        stats::median(&self.samples_ns).unwrap_or(f64::NAN) / self.launches as f64
    }

    fn least_ns(&self) -> f64 {
        self.samples_ns.iter().min().map_or(f64::NAN, |&least| least as f64 / self.launches as f64)
    }

    fn line(&self, backend: &dyn Backend, clock: &Clock, cold: bool, verification: &Verification) -> serde_json::Value {
        let (device, plan) = (backend.device(), &self.plan);
        json!({
            "device": {"id": device.id, "name": device.name, "driver": device.driver},
            "op": plan.op, "problem": plan.problem, "label": self.op.label(),
            "variant": plan.variant, "precision": plan.precision, "unit": plan.unit, "tunables": plan.tuned, "source_hash": plan.source_hash,
            "clock": clock.source, "cache": if cold { Cache::Cold } else { Cache::Warm },
            "launches": self.launches, "sets": self.sets, "samples_ns": self.samples_ns,
            "median_ns": self.median_ns(), "least_ns": self.least_ns(),
            "flops": plan.cost.flops, "bytes_compulsory": plan.cost.compulsory,
            "verification": verification, "seed": SEEDED.seed, "facts": self.loaded.facts(),
        })
    }
}
