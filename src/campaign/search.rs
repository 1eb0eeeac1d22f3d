//! The search for every probe's best configuration: all candidates are recorded, the winner is measured again in the blocks.

use serde_json::{Value, json};

use super::sweep::resident;
use super::{Campaign, Winner};
use crate::error::Result;
use crate::op::fma::of_register;
use crate::op::stream::Kind;
use crate::op::{self, Size};
use crate::plan::{DeviceInfo, DeviceKind, Language, Precision, Tuned, Unit};
use crate::record::{Ceiling, CeilingKind, Measurement, State};
use crate::stats;
use crate::worker::{Effort, Item};

/// A sweep point or candidate: 5 ms at least, 50 ms at most.
pub(super) const GLANCE: Effort = Effort { samples: 10, least_ns: 5_000_000, budget_ns: 50_000_000, canary: false };
/// Bytes that a launch of a bandwidth probe moves at least, as long as nothing is known of the device.
pub(super) const LAUNCH: u64 = 64 << 20;
/// The same at most.
const LAUNCH_MOST: u64 = 2 << 30;
/// How long a launch lasts on a GPU at the speed of memory: its overhead of some microseconds must not count.
const LAUNCH_NS: f64 = 500_000.0;
/// Groups of four warps on each processor that the probe of matrix units is tried with.
const GROUPS: [u64; 3] = [2, 1, 3];
/// Trips of that probe: half a millisecond, and few enough that a trip in two hundred shows.
const TRIPS: u64 = 2048;
/// Least bytes of a part that a long sum is cut into.
const PART: u64 = 256 << 10;
/// Doubling the trips of the fma winner must double its time within this share.
const DOUBLING: f64 = 0.05;
/// How often that is tried before it is doubted.
const DOUBLINGS: u32 = 4;

/// One block of a winner.
pub(super) fn block_effort(size: Size) -> Effort {
    let (least_ms, budget_ms) = match size {
        Size::Small => (60, 150),
        Size::Standard => (150, 400),
        Size::Large => (300, 2000),
    };
    Effort { samples: 10, least_ns: least_ms * 1_000_000, budget_ns: budget_ms * 1_000_000, canary: true }
}

impl Campaign<'_> {
    /// Finds the winners of all probes and the levels of the memory.
    pub(super) fn search_all(&mut self) -> Result<()> {
        let device = self.device();
        let wanted = |precision: &Precision| {
            // In a hurry only the precision that kernels have by default.
            let default = *precision == Precision::F32 || self.scope.size != Size::Small;
            let wanted = if self.scope.precisions.is_empty() { default } else { self.scope.precisions.contains(precision) };
            wanted && device.precisions.contains(precision)
        };
        let precisions: Vec<Precision> = Precision::ALL.into_iter().filter(wanted).collect();
        self.prepare_probes(&precisions);
        for precision in precisions {
            self.search_fma(precision, &device)?;
            self.search_matrix(precision, &device)?;
        }
        self.search_memory(&device)?;
        self.search_others()
    }

    /// The one with the highest score, the first of equals; `None` where none has any.
    pub(super) fn best_of<C>(
        &mut self,
        among: impl IntoIterator<Item = C>,
        mut score: impl FnMut(&mut Self, &C) -> Result<Option<f64>>,
    ) -> Result<Option<C>> {
        let mut best: Option<(f64, C)> = None;
        for candidate in among {
            self.trying = true;
            let scored = score(self, &candidate);
            self.trying = false;
            if let Some(score) = scored?
                && best.as_ref().is_none_or(|(best, _)| score > *best)
            {
                best = Some((score, candidate));
            }
        }
        Ok(best.map(|(_, candidate)| candidate))
    }

    /// The item that does the most of this work a second.
    pub(super) fn best_item(&mut self, among: Vec<Item>, work: fn(&Measurement) -> u64) -> Result<Option<Item>> {
        self.best_of(among, |campaign, item| Ok(campaign.run_item(item.clone())?.as_ref().and_then(|m| rate(m, work(m)))))
    }

    fn search_fma(&mut self, precision: Precision, device: &DeviceInfo) -> Result<()> {
        let candidates = candidates(chained(precision, device), "chains", precision, device);
        if candidates.is_empty() {
            return Ok(());
        }
        self.watcher.stage(&format!("{precision} multiply-add, {} candidates", candidates.len()), candidates.len());
        let Some(steps) = self.chain_length(precision, &candidates[0], device)? else { return Ok(()) };
        let items = candidates.iter().map(|tuned| self.fma_item(tuned, steps, precision, device)).collect();
        match self.best_item(items, |m| m.flops)? {
            Some(item) => self.crown(item, precision, Unit::Vector),
            None => Ok(()),
        }
    }

    /// Every kind of matrix unit that the device has, with as many groups on each of its processors as are fastest.
    fn search_matrix(&mut self, precision: Precision, device: &DeviceInfo) -> Result<()> {
        let variants = op::find("matrix").and_then(|entry| (entry.parse)(&json!({})))?.variants();
        for variant in variants.into_iter().filter(|variant| variant.has(device.language, precision)) {
            self.watcher.stage(&format!("{precision} {}, {} candidates", variant.unit, GROUPS.len()), GROUPS.len());
            let of = |groups| {
                let groups = device.compute_units as u64 * groups;
                let problem = json!({"groups": groups, "trips": TRIPS, "depth": op::matrix::depth(precision)});
                Item { precision, ..self.item("matrix", variant.name, problem, GLANCE) }
            };
            let items = GROUPS.map(of);
            let mut absent = false;
            let best = self.best_of(items, |campaign, item| {
                // A device without this unit says so at once.
                let measured = if absent { None } else { campaign.run_item(item.clone())? };
                absent = measured.is_none();
                Ok(measured.and_then(|m| rate(&m, m.flops)))
            })?;
            if let Some(item) = best {
                self.crown(item, precision, variant.unit)?;
            }
        }
        Ok(())
    }

    /// Makes the fastest candidate the probe of a compute ceiling.
    pub(super) fn crown(&mut self, mut item: Item, precision: Precision, unit: Unit) -> Result<()> {
        let doubt = self.doubling(&item, precision)?;
        item.goal = crate::worker::Goal::Measure(block_effort(self.scope.size));
        let ceiling = Ceiling {
            kind: CeilingKind::Compute,
            precision: Some(precision),
            unit: Some(unit),
            ..self.ceiling(&format!("{precision} {unit}"), doubt)
        };
        self.winners.push(Winner { ceiling, item });
        Ok(())
    }

    /// Steps of a chain that make a launch long enough to hide its overhead, short enough for any watchdog: found by growing at
    /// most fourfold.
    fn chain_length(&mut self, precision: Precision, tuned: &Tuned, device: &DeviceInfo) -> Result<Option<u64>> {
        let target = match (device.language, device.kind) {
            (Language::Host, _) => 1_000_000.0,
            _ => 4_000_000.0,
        };
        // Kernels unroll at least four steps, so a trip of their inner loop holds that many.
        let most = device.limits.loop_trips.map_or(1 << 22, |trips| trips.saturating_sub(2048) * 4);
        let most = if chained(precision, device) == "dot" { most.min(op::dot::longest(precision)) } else { most };
        let mut steps = 2048u64.min(most);
        for _ in 0..8 {
            let item = self.fma_item(tuned, steps, precision, device);
            let Some(measured) = self.run_item(item)? else { return Ok(None) };
            let Some(launch) = fastest(&measured) else { return Ok(None) };
            if launch >= 0.7 * target || steps >= most {
                break;
            }
            steps = ((steps as f64 * (target / launch).min(4.0)) as u64).clamp(steps + 8, most);
        }
        Ok(Some(steps))
    }

    /// Why the winner is not believed: twice the trips must take twice the time. A machine that is disturbed between the two gets
    /// other chances; a probe that leaves work out fails them all.
    fn doubling(&mut self, item: &Item, precision: Precision) -> Result<Option<String>> {
        let half_trips = (item.problem["trips"].as_u64().unwrap_or(2) / 2).max(1);
        let mut doubt = None;
        for _ in 0..DOUBLINGS {
            let mut times = [0.0; 2];
            for (time, trips) in times.iter_mut().zip([half_trips, 2 * half_trips]) {
                let mut item = self.numbered(item.clone());
                item.problem["trips"] = json!(trips);
                match self.run_item(item)?.as_ref().and_then(fastest) {
                    Some(fastest) => *time = fastest - self.bench.clock().launch_ns as f64,
                    None => return Ok(None),
                }
            }
            let ratio = times[1] / times[0].max(1.0);
            if (ratio - 2.0).abs() <= 2.0 * DOUBLING {
                return Ok(None);
            }
            doubt = Some(format!("doubling the {precision} trips took {ratio:.2} times the time, not 2"));
        }
        Ok(doubt)
    }

    /// A bandwidth probe's best configuration at one size, among those given.
    pub(super) fn best_stream(&mut self, kind: Kind, working_set: u64, among: &[Setup]) -> Result<Option<Setup>> {
        let best = self.best_of(among, |campaign, setup| {
            let item = campaign.stream_item(kind, working_set, setup, GLANCE);
            Ok(campaign.run_item(item)?.as_ref().and_then(|m| rate(m, m.bytes_compulsory)))
        })?;
        Ok(best.cloned())
    }

    /// Sizes the launches of bandwidth probes on a GPU for one that reads memory with this configuration; slow devices stay with
    /// little. One size for all, or those measured later would have less overhead.
    pub(super) fn size_launches(&mut self, setup: &Setup, working_set: u64) -> Result<()> {
        // The first look is short enough for any device, and its overhead counts; the second is true.
        for _ in 0..2 {
            let item = self.stream_item(Kind::Read, working_set, setup, GLANCE);
            if let Some(rate) = self.run_item(item)?.as_ref().and_then(|m| rate(m, m.bytes_compulsory)) {
                self.launch_bytes = ((rate * LAUNCH_NS) as u64).clamp(LAUNCH, LAUNCH_MOST).next_power_of_two();
            }
        }
        Ok(())
    }

    /// A stream of this working set whose launch moves enough to hide its overhead. On the host, where a thread takes any number of parts,
    /// long sums are cut into many, so that the oracle need not evaluate every one.
    pub(super) fn stream_item(&mut self, kind: Kind, working_set: u64, setup: &Setup, effort: Effort) -> Item {
        let (read, written) = kind.arrays();
        let parts = match (setup.parts, self.bench.device().language) {
            (Parts::Count(parts), Language::Host) => parts * (working_set / parts / PART).clamp(1, 256),
            (Parts::Count(parts), _) => parts,
            (Parts::Bytes(bytes), _) => (working_set / (read + written) / bytes).max(1),
        };
        // Whole cache lines for every part.
        let elements = (working_set / (read + written) / 4 / (parts * 64)).max(1) * parts * 64;
        // Groups of a GPU that do not all run at once would make their passes one after another, each over what a cache still holds.
        let device = self.bench.device();
        let passes = match device.kind == DeviceKind::Cpu || resident(setup, device) {
            true => self.launch_bytes.div_ceil(elements * 4 * (read + written)).min(4096),
            false => 1,
        };
        let problem = json!({"kind": kind.name(), "elements": elements, "passes": passes, "parts": parts});
        Item { tunables: setup.tuned.clone(), ..self.item("stream", "linear", problem, effort) }
    }

    fn fma_item(&mut self, tuned: &Tuned, steps: u64, precision: Precision, device: &DeviceInfo) -> Item {
        let problem = fma_problem(tuned, steps, precision, device);
        Item { precision, tunables: tuned.clone(), ..self.item(chained(precision, device), "chains", problem, GLANCE) }
    }

    pub(super) fn ceiling(&self, name: &str, doubt: Option<String>) -> Ceiling {
        Ceiling {
            id: format!("c{}", self.winners.len() + 1),
            name: name.into(),
            kind: CeilingKind::Bandwidth,
            precision: None,
            unit: None,
            level: None,
            direction: None,
            capacity: None,
            from: Vec::new(),
            base: Vec::new(),
            state: if doubt.is_some() { State::Suspect } else { State::Ok },
            reasons: doubt.into_iter().collect(),
            extra: Default::default(),
        }
    }
}

/// Registers of chains enough to fill the device, in whole vectors and groups of every candidate.
pub(super) fn chains(tuned: &Tuned, device: &DeviceInfo) -> u64 {
    let lanes = match (device.language, device.kind) {
        (Language::Host, _) => 64,
        (_, DeviceKind::Cpu) => 8 * tuned.get("BLOCK") as u64,
        (_, DeviceKind::Gpu) => 2048,
    };
    device.compute_units as u64 * lanes * tuned.get("CHAINS") as u64
}

/// The probe of vector units in a precision: products of integers are summed in a wider type, and so are those of every narrow type on the host, where
/// nothing computes in it.
fn chained(precision: Precision, device: &DeviceInfo) -> &'static str {
    let wider = device.language == Language::Host && precision.storage() != precision.sum();
    if precision.is_integer() || wider { "dot" } else { "fma" }
}

/// So many steps a chain, in trips enough to show that one is missing.
fn fma_problem(tuned: &Tuned, steps: u64, precision: Precision, device: &DeviceInfo) -> Value {
    // In f32 one trip in a thousand must show; f16 cannot tell more than 64 trips apart, and b of `dot` grows no longer.
    let few = precision == Precision::F16 || chained(precision, device) == "dot";
    let trips = if few { 64 } else { 1024 }.min(steps / 8);
    let inner = (steps / trips / 8).max(1) * 8;
    // On a software device a loop's turn costs as much as many steps: its launches are few chains with long trips.
    let fewer = if device.is_software() { 4 } else { 1 };
    let elements = chains(tuned, device) * of_register(device.language, precision) / fewer;
    json!({"elements": elements, "trips": trips, "steps": inner})
}

/// A configuration of the stream probe.
#[derive(Clone)]
pub(super) struct Setup {
    pub tuned: Tuned,
    pub parts: Parts,
}

/// What a group walks.
#[derive(Clone, Copy)]
pub(super) enum Parts {
    /// One of so many parts of every array, however large.
    Count(u64),
    /// So many bytes of every array: groups that run at once are neighbours in memory, and more of them follow.
    Bytes(u64),
}

/// All combinations of a variant's tunables on this device, defaults first.
pub(super) fn candidates(op: &str, variant: &str, precision: Precision, device: &DeviceInfo) -> Vec<Tuned> {
    let Ok(op) = op::find(op).and_then(|entry| (entry.parse)(&json!({}))) else { return Vec::new() };
    let Some(info) = op.variants().into_iter().find(|v| v.name == variant && v.has(device.language, precision)) else { return Vec::new() };
    info.source(device.language).map(|source| Tuned::all(source.tunables)).unwrap_or_default()
}

/// The same of a probe whose lanes walk memory: those of a GPU work by the 32 or 64.
pub(super) fn walking(op: &str, variant: &str, device: &DeviceInfo) -> Vec<Tuned> {
    let mut all = candidates(op, variant, Precision::F32, device);
    all.retain(|tuned| device.kind != DeviceKind::Gpu || tuned.0.get("BLOCK").is_none_or(|&block| block >= 32));
    all
}

/// 10th percentile of the time of one launch, in ns; `None` for a wrong output or no samples.
pub(super) fn fastest(measured: &Measurement) -> Option<f64> {
    if measured.state == State::Wrong {
        return None;
    }
    stats::quantile(&measured.samples_ns, 0.1).map(|time| time / measured.launches.max(1) as f64)
}

/// Work for each ns of the fastest launches.
fn rate(measured: &Measurement, work: u64) -> Option<f64> {
    fastest(measured).filter(|time| *time > 0.0).map(|time| work as f64 / time)
}
