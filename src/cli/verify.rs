//! `rooftrace verify`: every variant against the oracle on awkward shapes, both module kinds, no timing.

use std::time::Duration;

use serde_json::{Value, json};

use super::run::worse;
use super::{Verifying, devices, output};
use crate::draw::Draw;
use crate::error::{Error, Result};
use crate::interrupt;
use crate::mutant;
use crate::op::{self, Size};
use crate::plan::{DeviceInfo, Precision};
use crate::record::{Cache, Measurement, State};
use crate::worker::{Answer, Bench, Child, Goal, Item};

/// Longest that one problem may take before its child is given up.
const LIMIT: Duration = Duration::from_secs(120);
/// Exit code of what is not as it must be, though no output was wrong.
const CHECK_FAILED: i32 = 1;
/// Awkward problems of a variant at `--size small`, for slow checkers around this program.
const FEW: usize = 3;

/// What came of one variant in one precision.
struct Tally {
    name: String,
    expected: usize,
    passed: usize,
    worst: Option<(f64, f64)>,
    failures: Vec<String>,
    skips: Vec<String>,
    /// Exit code that stands for the failures.
    status: i32,
}

/// Verifies the devices chosen.
pub fn run(args: &Verifying) -> Result<i32> {
    args.scope.check()?;
    let selectors = devices::choose(args.scope.common.device.as_deref(), &args.scope.common.require)?;
    interrupt::install()?;
    let (mut status, mut report) = (0, Vec::new());
    for selector in &selectors {
        let mut bench = Child::spawn(selector, &[])?;
        let device = bench.device().clone();
        let tallies = if args.mutants { mutants(args, &mut bench, &device)? } else { variants(args, &mut bench, &device)? };
        drop(bench);
        status = tallies.iter().fold(status, |status, tally| worse(status, tally.status));
        if !args.scope.common.json {
            output::print(&table(&device, &tallies, args.mutants))?;
        }
        report.push(json!({"device": device, "variants": tallies.iter().map(Tally::json).collect::<Vec<_>>()}));
    }
    if args.scope.common.json {
        output::print(&format!("{:#}\n", Value::Array(report)))?;
    }
    Ok(status)
}

fn variants(args: &Verifying, bench: &mut dyn Bench, device: &DeviceInfo) -> Result<Vec<Tally>> {
    let mut groups = Vec::new();
    for entry in op::OPS.iter().filter(|e| args.scope.op.is_empty() || args.scope.op.iter().any(|o| o == e.name)) {
        for variant in (entry.parse)(&json!({}))?.variants() {
            if !args.scope.variant.is_empty() && !args.scope.variant.iter().any(|v| v == variant.name) {
                continue;
            }
            for precision in Precision::ALL.into_iter().filter(|&p| variant.has(device.language, p)) {
                if !args.scope.precision.is_empty() && !args.scope.precision.contains(&precision) {
                    continue;
                }
                let mut problems = entry.awkward_in(precision);
                if args.scope.common.size == Size::Small {
                    problems.truncate(FEW);
                }
                let whose = if variant.library().is_some() { " (reference)" } else { "" };
                let tally = Tally::new(format!("{}/{} {precision}{whose}", entry.name, variant.name), problems.len());
                groups
                    .push((tally, problems.iter().map(|problem| item(args, entry.name, variant.name, precision, problem, None)).collect()));
            }
        }
    }
    let firsts: Vec<Item> = groups.iter().filter_map(|(_, items): &(Tally, Vec<Item>)| items.first().cloned()).collect();
    bench.prepare(&firsts, LIMIT);
    let mut tallies = Vec::new();
    for (mut tally, items) in groups {
        for item in &items {
            tally.take(ask(bench, item)?);
        }
        progress(args, &tally);
        tallies.push(tally);
    }
    Ok(tallies)
}

/// Each mutant must be refused on at least one awkward problem.
fn mutants(args: &Verifying, bench: &mut dyn Bench, device: &DeviceInfo) -> Result<Vec<Tally>> {
    let mut tallies = Vec::new();
    let wanted = |list: &[String], name: &str| list.is_empty() || list.iter().any(|l| l == name);
    for mutant in
        mutant::all().filter(|m| m.language == device.language && wanted(&args.scope.op, m.op) && wanted(&args.scope.variant, m.variant))
    {
        let mut tally = Tally::new(format!("{}/{}: {}", mutant.op, mutant.variant, mutant.name), 1);
        let mut survived = true;
        let entry = op::find(mutant.op)?;
        let precision = first_precision(entry, mutant.variant, device)?;
        for problem in entry.awkward_in(precision).iter().rev() {
            match ask(bench, &item(args, mutant.op, mutant.variant, precision, problem, Some(mutant.name)))? {
                Answer::Done(_) => {}
                Answer::Failed(State::Wrong | State::DeviceLost | State::Timeout, _) => {
                    survived = false;
                    break;
                }
                Answer::Failed(State::Unsupported, why) => {
                    tally.skips.push(why);
                    break;
                }
                // A mistake that does not compile is none that a kernel could have: its table is to be mended.
                Answer::Failed(state, why) => {
                    tally.fail(state, format!("was not tried: {why}"));
                    break;
                }
            }
        }
        if survived && tally.failures.is_empty() && tally.skips.is_empty() {
            tally.failures.push("survived every awkward problem".into());
            tally.status = CHECK_FAILED;
        }
        tally.passed = usize::from(!survived);
        progress(args, &tally);
        tallies.push(tally);
    }
    Ok(tallies)
}

/// The first precision that a variant lists: f32 wherever it has that.
fn first_precision(entry: &op::Entry, variant: &str, device: &DeviceInfo) -> Result<Precision> {
    let variants = (entry.parse)(&json!({}))?.variants();
    let source = variants.iter().find(|v| v.name == variant).and_then(|v| v.source(device.language));
    Ok(source.map_or(Precision::F32, |source| source.precisions[0]))
}

fn item(args: &Verifying, op: &str, variant: &str, precision: Precision, problem: &Value, mutant: Option<&str>) -> Item {
    Item {
        id: "v".into(),
        op: op.into(),
        problem: problem.clone(),
        variant: variant.into(),
        precision,
        tunables: Default::default(),
        cache: Cache::Warm,
        draw: Draw::Dense,
        seed: args.scope.common.seed,
        goal: Goal::Verify,
        llc_bytes: None,
        custom: None,
        mutant: mutant.map(str::to_string),
        order: 0,
    }
}

fn ask(bench: &mut dyn Bench, item: &Item) -> Result<Answer> {
    match interrupt::requested() {
        true => Err(Error::Interrupted),
        false => Ok(bench.run(item, LIMIT)),
    }
}

fn progress(args: &Verifying, tally: &Tally) {
    if !args.scope.common.quiet {
        eprintln!("{}: {}", tally.name, tally.outcome());
    }
}

impl Tally {
    fn new(name: String, expected: usize) -> Self {
        Tally { name, expected, passed: 0, worst: None, failures: Vec::new(), skips: Vec::new(), status: 0 }
    }

    fn take(&mut self, answer: Answer) {
        match answer {
            Answer::Done(measured) => {
                self.passed += 1;
                self.worst = worst(self.worst, &measured);
            }
            Answer::Failed(State::Unsupported, why) => self.skips.push(why),
            Answer::Failed(state, why) => self.fail(state, why),
        }
    }

    fn fail(&mut self, state: State, why: String) {
        self.failures.push(why);
        self.status = worse(self.status, status_of(state));
    }

    fn outcome(&self) -> &'static str {
        match (self.failures.is_empty(), self.passed) {
            (false, _) => "FAILED",
            (true, 0) => "skipped",
            (true, _) => "ok",
        }
    }

    fn json(&self) -> Value {
        json!({"name": self.name, "expected": self.expected, "run": self.passed + self.failures.len(), "skipped": self.skips.len(),
            "failures": self.failures, "reasons": self.skips})
    }
}

/// The exit code that stands for a problem that ended so: 4 only where there was an output, and it was wrong.
fn status_of(state: State) -> i32 {
    match state {
        State::Wrong => 4,
        State::NotCompiled => CHECK_FAILED,
        _ => 5,
    }
}

fn worst(so_far: Option<(f64, f64)>, measured: &Measurement) -> Option<(f64, f64)> {
    let now = measured.verification.as_ref().map(|v| (v.worst_error, v.allowed));
    let share = |(error, allowed): (f64, f64)| if allowed > 0.0 { error / allowed } else { 0.0 };
    match (so_far, now) {
        (Some(a), Some(b)) => Some(if share(b) > share(a) { b } else { a }),
        (a, b) => a.or(b),
    }
}

fn table(device: &DeviceInfo, tallies: &[Tally], mutants: bool) -> String {
    let mut text = format!("{} ({})\n", device.id, device.name);
    let width = tallies.iter().map(|t| t.name.len()).max().unwrap_or(0);
    for t in tallies {
        let worst = t.worst.map_or(String::new(), |(error, allowed)| format!("  worst {error:.1e} of {allowed:.1e} allowed"));
        text += &format!("  {:<width$}  {:>2} of {:>2}  {}{worst}\n", t.name, t.passed, t.expected, t.outcome());
        for failure in t.failures.iter().take(3) {
            text += &format!("      {failure}\n");
        }
        for skip in t.skips.iter().take(1) {
            text += &format!("      {} skipped: {skip}\n", t.skips.len());
        }
    }
    let sum = |of: fn(&Tally) -> usize| tallies.iter().map(of).sum::<usize>();
    let (expected, passed, failed, skipped) = (sum(|t| t.expected), sum(|t| t.passed), sum(|t| t.failures.len()), sum(|t| t.skips.len()));
    let what = if mutants { "mutants" } else { "problems" };
    let verb = if mutants { "refused" } else { "right" };
    text + &format!("{expected} {what} expected, {} run, {passed} {verb}, {failed} failed, {skipped} skipped\n", passed + failed)
}
