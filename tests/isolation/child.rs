//! The child that the tests start, what it measures, and how its answers are taken.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rooftrace::backend::{self, Backend, Checks, fake::VARIABLE};
use rooftrace::draw::{Drawn, Seeded};
use rooftrace::op;
use rooftrace::plan::DeviceInfo;
use rooftrace::record::{Clock, File, Measurement, Record, State, parse};
use rooftrace::worker::{self, Answer, Child, Effort, Goal, Item, Launch, Runner, Stay};
use rooftrace::{Error, Result};
use serde_json::{Value, json};

/// A run that was recorded.
pub fn golden() -> File {
    parse("golden", include_bytes!("../golden/records-1.0.jsonl")).expect("reads")
}

/// Long enough for whatever does not hang.
pub const AMPLE: Duration = Duration::from_secs(30);

/// The smallest honest runner: loads, samples, compares every element with the oracle.
pub struct Small(pub Box<dyn Backend>);

pub fn small(selector: &str, _stay: Stay) -> Result<Box<dyn Runner>> {
    Ok(Box::new(Small(backend::open(selector)?)))
}

impl Small {
    fn measure(&mut self, item: &Item) -> Result<Measurement> {
        let op = (op::find(&item.op)?.parse)(&item.problem)?;
        let device = self.0.device().clone();
        let plan = op.plan(&item.variant, item.precision, device.language, &item.tunables, &device)?;
        let seeded = Seeded { draw: item.draw, seed: item.seed };
        let mut loaded = self.0.load(&plan, seeded, 2, Checks::Trusted)?;
        let samples = (0..5).map(|_| loaded.sample(2, 0)).collect::<Result<Vec<_>>>()?;
        loaded.poison(1)?;
        let checked = loaded.sample(1, 1)?;
        let spec = &plan.tensors[plan.output()];
        let out = loaded.read(plan.output(), 1, 0..spec.elements())?;
        let columns = spec.shape.last().copied().unwrap_or(1);
        let inputs = Drawn::new(&plan.tensors, seeded);
        let rows = 0..spec.elements() / columns;
        let expected = rows.flat_map(|row| op.row(op.arithmetic(item.precision, plan.unit), &inputs, row, 0..columns));
        let worst = out.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, |w: f64, e| if w.is_nan() || e <= w { w } else { e });
        if worst != 0.0 || loaded.audit(1)? != Default::default() {
            return Err(Error::Wrong(format!("{} differs from the oracle", item.named())));
        }
        let nanos = |time: std::time::Duration| time.as_nanos() as u64;
        let Record::Measurement(example) = golden().records[1].clone() else { unreachable!("its second line is one") };
        Ok(Measurement {
            id: item.id.clone(),
            op: item.op.clone(),
            problem: op.problem(),
            variant: item.variant.clone(),
            state: State::Ok,
            samples_ns: samples.iter().map(|s| nanos(s.device.unwrap_or(s.wall))).collect(),
            wall_ns: samples.iter().map(|s| nanos(s.wall)).collect(),
            checked_ns: nanos(checked.wall),
            order: item.order,
            ..example
        })
    }
}

impl Runner for Small {
    fn device(&self) -> (DeviceInfo, Clock) {
        (self.0.device().clone(), Clock { source: "device".into(), resolution_ns: 10, launch_ns: 1000, ..Clock::default() })
    }
    fn run(&mut self, item: &Item) -> Result<Measurement, (State, String)> {
        self.measure(item).map_err(|error| worker::failed(&error))
    }
    /// A compiler that crashes over one op.
    fn prepare(&mut self, items: &[Item], _within: Duration) {
        assert!(items.iter().all(|item| item.op != "fma"), "the compiler crashed");
    }
}

/// A small matmul, or a stream: faults are scripted for the former only.
pub fn item(op: &str, order: u32) -> Item {
    let (problem, variant) = match op {
        "matmul" => (json!({"m": 5, "n": 6, "k": 7}), "naive"),
        _ => (json!({"kind": "copy", "elements": 64, "passes": 2, "parts": 4}), "linear"),
    };
    let effort = Effort { samples: 5, least_ns: 0, budget_ns: 1_000_000, canary: false };
    let fields = json!({"id": format!("{op}-{order}"), "op": op, "problem": problem, "variant": variant, "precision": "f32",
        "cache": "warm", "draw": "exact", "seed": 1, "order": order, "goal": Goal::Measure(effort)});
    serde_json::from_value(fields).expect("an item")
}

/// This binary as a child on the fake device. `script` is JSON or the name of a file.
pub fn launch(script: &str) -> Launch {
    Launch::new("fake")
        .program(std::env::current_exe().expect("this binary"))
        .arguments([worker::ARGUMENT, "fake", "child_process", "--exact", "--ignored", "--nocapture"])
        .variable(VARIABLE, script)
        .limit(AMPLE)
}

pub fn start(script: Value) -> Child {
    launch(&script.to_string()).start().expect("starts")
}

#[track_caller]
pub fn done(answer: Answer) -> Measurement {
    match answer {
        Answer::Done(measurement) => measurement,
        Answer::Failed(state, why) => panic!("{state:?}: {why}"),
    }
}

#[track_caller]
pub fn failed(answer: Answer) -> (State, String) {
    match answer {
        Answer::Failed(state, why) => (state, why),
        Answer::Done(m) => panic!("{} was measured", m.id),
    }
}

pub fn signal(name: &str, process: &str) {
    let sent = Command::new("sh").args(["-c", &format!("kill -{name} {process}")]).stderr(Stdio::null()).status();
    sent.expect("a shell");
}

/// State of a process as `/proc` tells it: `R`, `S`, `Z`; absent once it is gone.
pub fn process_state(id: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    stat.rsplit(')').next()?.trim().chars().next()
}

pub fn within(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + limit;
    while Instant::now() < until {
        if holds() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    holds()
}

/// A file name of its own.
pub fn scratch(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("rooftrace-isolation-{}-{name}", std::process::id()));
    let _ = std::fs::remove_file(&path);
    path
}
