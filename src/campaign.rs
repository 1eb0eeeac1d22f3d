//! A campaign: the items of `run` and `trace` in their order, on one device, into one journal.
//!
//! Search first (every candidate is recorded), then three blocks of the winners around the kernels: before, amid, after. A
//! ceiling stands on the three blocks together. Items whose canaries moved are measured once more at the end. Nothing here
//! prints: what happens is told to a [`Watcher`].

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::draw::Draw;
use crate::error::{Error, Result};
use crate::op::{self, Size};
use crate::plan::{Custom, DeviceInfo, Precision, Tuned};
use crate::record::{Cache, Ceiling, CeilingKind, Measurement, Record, Skip, State};
use crate::roofline::{self, Roof};
use crate::worker::{Answer, Bench, Effort, Goal, Item};

mod ahead;
mod energy;
mod exp;
mod kernels;
mod latency;
mod own;
mod peak;
mod ramp;
mod roofs;
mod search;
mod shared;
mod study;
mod sweep;
mod transfer;
mod tune;

pub use roofs::{roof_time, roofs, taken_over};

/// Who is told what happens: the command line draws progress and writes the journal.
pub trait Watcher {
    /// A record was made: keep it.
    ///
    /// # Errors
    /// The journal's own; the campaign ends with it.
    fn record(&mut self, record: &Record) -> Result<()>;
    /// A stage begins; `items` is how many it expects.
    fn stage(&mut self, name: &str, items: usize);
    /// An item begins.
    fn item(&mut self, name: &str);
}

/// What a campaign may do.
#[derive(Debug, Clone)]
pub struct Scope {
    /// How many problems and how much time each.
    pub size: Size,
    /// Seed of all draws.
    pub seed: u32,
    /// When to stop starting items.
    pub deadline: Option<Instant>,
    /// Only these ops; all where empty.
    pub ops: Vec<String>,
    /// Only these variants; all where empty.
    pub variants: Vec<String>,
    /// Only these precisions; all that the device has where empty.
    pub precisions: Vec<Precision>,
    /// One problem in place of the grid, with its op.
    pub problem: Option<(String, Value)>,
    /// Whether every placed kernel gets a pass of its own for its energy.
    pub energy: bool,
}

/// A campaign under way.
pub struct Campaign<'a> {
    bench: &'a mut dyn Bench,
    watcher: &'a mut dyn Watcher,
    scope: Scope,
    /// All records made so far but the header.
    records: Vec<Record>,
    order: u32,
    winners: Vec<Winner>,
    /// Bytes that a launch of a bandwidth probe moves at least.
    launch_bytes: u64,
    /// Largest cache that the sweep found, in bytes.
    llc: Option<u64>,
    /// Peak memory of the kernels so far, by all that it depends on.
    peaks: HashMap<String, peak::Peak>,
    /// Energy of the kernels so far, likewise.
    energies: HashMap<String, energy::Said>,
    /// Whether what is run now is one of several settings.
    trying: bool,
    /// The size that kernels' effort follows; roofs follow the scope's.
    kernel_size: Size,
    /// The user's kernel that is tried.
    own: Option<Custom>,
    /// When it began.
    began: Instant,
    /// When a study's time ends: kernels that have not begun by then are left out.
    ends: Option<Instant>,
}

/// The best configuration of a probe, measured again in each block.
struct Winner {
    ceiling: Ceiling,
    item: Item,
}

/// How often roofs that a kernel lies above are measured again.
const LIFTS: u32 = 3;
/// Share of the kernels' time that measuring suspects again may take.
const AGAIN: f64 = 0.15;

/// Longest an item may take before its child is given up: its budget and generous room for loading and verifying.
fn limit(goal: &Goal) -> Duration {
    match goal {
        Goal::Verify | Goal::Peak => Duration::from_secs(60),
        Goal::Energy => Duration::from_secs(90),
        Goal::Measure(effort) => Duration::from_nanos(effort.budget_ns) * 4 + Duration::from_secs(30),
    }
}

impl<'a> Campaign<'a> {
    /// A campaign on an open bench.
    pub fn new(bench: &'a mut dyn Bench, watcher: &'a mut dyn Watcher, scope: Scope) -> Self {
        let (launch_bytes, kernel_size) = (search::LAUNCH, scope.size);
        Campaign {
            bench,
            watcher,
            scope,
            records: Vec::new(),
            order: 0,
            winners: Vec::new(),
            launch_bytes,
            llc: None,
            peaks: HashMap::new(),
            energies: HashMap::new(),
            trying: false,
            kernel_size,
            own: None,
            began: Instant::now(),
            ends: None,
        }
    }

    /// Roofs only.
    ///
    /// # Errors
    /// The journal's, or [`Error::Interrupted`].
    pub fn trace(mut self) -> Result<Vec<Record>> {
        let outcome = self.search_all().and_then(|()| {
            self.block(1)?;
            self.ramp()?;
            self.block(2)?;
            self.block(3)
        });
        self.close(outcome)
    }

    /// Roofs, and every kernel amid them.
    ///
    /// # Errors
    /// As [`Campaign::trace`].
    pub fn run(mut self) -> Result<Vec<Record>> {
        let items = self.kernel_items()?;
        let outcome = self.amid_roofs(items);
        self.close(outcome)
    }

    /// Searches the probes' and the kernels' settings, and measures these items between the blocks of the roofs.
    fn amid_roofs(&mut self, mut items: Vec<Item>) -> Result<()> {
        self.search_all()?;
        self.tune(&mut items, f64::INFINITY)?;
        self.block(1)?;
        if self.own.is_none() {
            self.ramp()?;
        }
        self.amid_blocks(&items)
    }

    /// Measures these around the second block of the roofs, those that moved once more, and the third block.
    fn amid_blocks(&mut self, items: &[Item]) -> Result<()> {
        let (first, second) = items.split_at(items.len() / 2);
        let started = Instant::now();
        self.kernels(first, 2)?;
        let half = started.elapsed();
        self.block(2)?;
        let started = Instant::now();
        self.kernels(second, 1)?;
        self.repeat_suspects(half + started.elapsed())?;
        self.block(3)?;
        self.lift_roofs()
    }

    fn device(&self) -> DeviceInfo {
        self.bench.device().clone()
    }

    /// Runs one item and keeps its record. `None` where it brought no measurement.
    fn run_item(&mut self, item: Item) -> Result<Option<Measurement>> {
        self.run_kept(item, |_| false)
    }

    /// The same, for one of several settings to choose from: kept, but never a row.
    fn run_candidate(&mut self, item: Item) -> Result<Option<Measurement>> {
        self.run_kept(item, |_| true)
    }

    /// The same, where the measurement itself tells which it is.
    fn run_kept(&mut self, item: Item, candidate: impl Fn(&Measurement) -> bool) -> Result<Option<Measurement>> {
        if self.late() {
            self.skip(&item, State::NotRun, "the budget ended before it; raise --budget".into())?;
            return Ok(None);
        }
        self.watcher.item(&format!("{}/{} {}", item.op, item.variant, short(&item)));
        match self.bench.run(&item, limit(&item.goal)) {
            Answer::Done(mut measurement) => {
                measurement.candidate = candidate(&measurement);
                self.weigh(&item, &mut measurement);
                self.spend(&item, &mut measurement);
                self.keep(Record::Measurement(measurement.clone()))?;
                Ok(Some(measurement))
            }
            Answer::Failed(State::NotRun, _) if crate::interrupt::requested() => Err(Error::Interrupted),
            Answer::Failed(state, why) => {
                self.skip(&item, state, why)?;
                Ok(None)
            }
        }
    }

    fn skip(&mut self, item: &Item, state: State, why: String) -> Result<()> {
        self.keep(Record::Skip(Skip {
            id: item.id.clone(),
            op: item.op.clone(),
            variant: item.variant.clone(),
            problem: Some(item.problem.clone()),
            precision: Some(item.precision),
            state,
            why,
            candidate: self.trying,
            extra: Default::default(),
        }))
    }

    fn keep(&mut self, record: Record) -> Result<()> {
        self.watcher.record(&record)?;
        self.records.push(record);
        Ok(())
    }

    fn late(&self) -> bool {
        self.scope.deadline.is_some_and(|deadline| Instant::now() >= deadline)
    }

    /// Whether the time of a study is over, so that what is left of it is left out.
    fn over(&self) -> bool {
        self.ends.is_some_and(|ends| Instant::now() >= ends)
    }

    /// An item in f32, warm, with default tunables; callers change what differs.
    fn item(&mut self, op: &str, variant: &str, problem: Value, effort: Effort) -> Item {
        self.numbered(Item {
            id: String::new(),
            op: op.into(),
            problem,
            variant: variant.into(),
            precision: Precision::F32,
            tunables: Tuned::default(),
            cache: Cache::Warm,
            draw: Draw::Dense,
            seed: self.scope.seed,
            goal: Goal::Measure(effort),
            llc_bytes: self.llc,
            mutant: None,
            custom: None,
            order: 0,
        })
    }

    /// The item as the next one of the run.
    fn numbered(&mut self, item: Item) -> Item {
        self.order += 1;
        Item { id: format!("m{}", self.order), order: self.order, ..item }
    }

    /// Measures every winner afresh, once, for its ceiling.
    fn block(&mut self, number: u32) -> Result<()> {
        self.remeasure(&format!("roofs, block {number} of 3"), |_| true)
    }

    /// While a kernel, or a point of the ramp, lies above what bounds it, that is measured once more, [`LIFTS`] times at most: the kernel shows that the device can
    /// do more than it did in the three moments of its roofs.
    fn lift_roofs(&mut self) -> Result<()> {
        for _ in 0..LIFTS {
            let above = roofline::above(&self.records, &self.roof());
            if above.is_empty() || self.late() {
                break;
            }
            self.remeasure("roofs again, as a kernel lies above them", |ceiling| {
                let bounds = |(level, precision): &(Option<String>, Precision)| match ceiling.kind {
                    CeilingKind::Bandwidth => ceiling.level == *level,
                    CeilingKind::Compute => ceiling.precision == Some(*precision),
                    CeilingKind::Latency => false,
                };
                above.iter().any(bounds)
            })?;
        }
        Ok(())
    }

    /// The roof as far as it is known.
    fn roof(&self) -> Roof {
        let copied = self.records.iter().filter_map(|record| if let Record::Ceiling(ceiling) = record { Some(ceiling) } else { None });
        let ceilings = self.winners.iter().map(|winner| &winner.ceiling).chain(copied);
        roofline::traced(&self.records, ceilings, self.bench.device(), self.bench.clock())
    }

    /// Measures the winners of these ceilings afresh, once.
    fn remeasure(&mut self, stage: &str, wanted: impl Fn(&Ceiling) -> bool) -> Result<()> {
        let wanted: Vec<usize> = (0..self.winners.len()).filter(|&at| wanted(&self.winners[at].ceiling)).collect();
        self.watcher.stage(stage, wanted.len());
        for at in wanted {
            let item = self.numbered(self.winners[at].item.clone());
            if let Some(measured) = self.run_item(item)?
                && measured.state != State::Wrong
            {
                self.winners[at].ceiling.from.push(measured.id);
            }
        }
        Ok(())
    }

    /// Items whose canaries moved are measured once more, and those that went at another speed than their roof for as long as that is
    /// mended by it; all for `spent` times [`AGAIN`] at most. The later record takes the first one's place in tables. A machine that
    /// never rests marks every item, and repeating them all would only double the run.
    fn repeat_suspects(&mut self, spent: Duration) -> Result<()> {
        let roof = self.roof();
        let (moved, off) = roofline::suspects(&self.records, &roof);
        let suspects: Vec<(Measurement, bool)> =
            moved.into_iter().map(|m| (m.clone(), false)).chain(off.into_iter().map(|m| (m.clone(), true))).collect();
        self.watcher.stage("again, where the machine changed speed", suspects.len());
        let started = Instant::now();
        for (suspect, off) in suspects {
            if started.elapsed() > spent.mul_f64(AGAIN) || self.over() {
                break;
            }
            let custom = self.own.clone().filter(|own| own.name == suspect.variant);
            let plain = self.item(&suspect.op, &suspect.variant, suspect.problem, kernels::effort(self.kernel_size));
            let item = Item { precision: suspect.precision, tunables: suspect.tunables, cache: suspect.cache, custom, ..plain };
            let again = self.run_item(item)?;
            if off && again.is_some_and(|m| roofline::place(&m, &roof).state == State::Suspect) {
                break;
            }
        }
        Ok(())
    }

    /// Writes the ceilings on whatever was measured, then passes the outcome on: an interrupted run keeps its roofs.
    fn close(mut self, outcome: Result<()>) -> Result<Vec<Record>> {
        for winner in std::mem::take(&mut self.winners) {
            if !winner.ceiling.from.is_empty() {
                self.keep(Record::Ceiling(winner.ceiling))?;
            }
        }
        outcome.map(|()| self.records)
    }
}

fn short(item: &Item) -> String {
    op::find(&item.op).and_then(|entry| (entry.parse)(&item.problem)).map(|op| op.label()).unwrap_or_default()
}

/// Watches nothing.
#[cfg(test)]
struct Silent;

#[cfg(test)]
impl Watcher for Silent {
    fn record(&mut self, _: &Record) -> Result<()> {
        Ok(())
    }
    fn stage(&mut self, _: &str, _: usize) {}
    fn item(&mut self, _: &str) {}
}
