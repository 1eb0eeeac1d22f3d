//! How a number is made: one path for probes, ops and libraries.
//!
//! [`Engine`] owns an open device. For each item it loads the plan, warms up, sizes a sample to the clock, samples until the
//! interval of the median is tight or the budget ends, then takes one more sample with outputs poisoned just before it and
//! verifies *that* output. Canaries (a short fma and a short stream) run before and after, so that a machine that changed its
//! speed is seen. Nothing here prints.

use std::time::{Duration, Instant};

use crate::backend::{self, Backend, Checks, Loaded};
use crate::draw::{Draw, Seeded};
use crate::error::{Error, Result};
use crate::mutant;
use crate::op::{self, Op, OpRole};
use crate::oracle::{Expectation, Oracle, named};
use crate::plan::{DeviceInfo, Plan};
use crate::record::{Cache, Canary, Clock, Measurement, State, Verification};
use crate::stats;
use crate::worker::{Effort, Goal, Item, Runner, Stay, failed};

mod canary;
mod clock;
pub(crate) mod energy;
mod peak;
mod sampling;
mod telemetry;
mod wake;

use canary::{Canaries, Pulse};
use sampling::{Sampled, Sampler};
use wake::Alarm;

/// Launches before the verified one when only verifying: a kernel that goes wrong after the tenth must be seen.
const REHEARSALS: u32 = 12;
/// A canary that moved by more than this share says that the machine changed speed.
const CANARY_MOVED: f64 = 0.05;
/// How often the verified sample is repeated when its time does not fit the others, before the item is suspect.
const RETRIES: u32 = 3;

/// An open device, its clocks and its canaries.
pub struct Engine<'b> {
    backend: &'b dyn Backend,
    clock: Clock,
    canaries: Option<Canaries<'b>>,
    alarm: Option<Alarm<'b>>,
    oracle: Oracle,
    rest: energy::Rest,
}

impl<'b> Engine<'b> {
    /// Learns the device's clocks and prepares canaries.
    ///
    /// # Errors
    /// Those of loading and launching the smallest probe.
    pub fn new(backend: &'b dyn Backend) -> Result<Self> {
        let clock = clock::learn(backend)?;
        Ok(Engine::with(backend, clock))
    }

    /// An engine on the device that a selector names. The device stays open until the process ends. One that stays for a single
    /// item learns no clock.
    ///
    /// # Errors
    /// Those of [`backend::open`] and [`Engine::new`].
    pub fn open(selector: &str, stay: Stay) -> Result<Box<dyn Runner>> {
        let backend: &'static dyn Backend = Box::leak(backend::open(selector)?);
        Ok(Box::new(match stay {
            Stay::Long => Engine::new(backend)?,
            Stay::Once => Engine::with(backend, Clock::default()),
        }))
    }

    fn with(backend: &'b dyn Backend, clock: Clock) -> Self {
        Engine { backend, clock, canaries: None, alarm: None, oracle: Oracle::default(), rest: energy::Rest::default() }
    }

    /// Does what an item wants with a problem of any op, whether the registry has it or not; `op` and `problem` of the item are not
    /// looked at.
    ///
    /// # Errors
    /// Those of planning, loading and launching. A wrong output is none when measuring: it is told by the record's state.
    pub fn perform(&mut self, op: &dyn Op, item: &Item) -> Result<Measurement> {
        match item.goal {
            Goal::Verify => self.verify(op, item),
            Goal::Peak => self.peak(op, item),
            Goal::Energy => self.energy(op, item),
            Goal::Measure(effort) => self.measure(op, item, effort),
        }
    }

    fn measure(&mut self, op: &dyn Op, item: &Item, effort: Effort) -> Result<Measurement> {
        let plan = self.plan(op, item)?;
        let sets = sets(&plan, item, self.backend.device());
        let seeded = Seeded { draw: item.draw, seed: item.seed };
        let before = self.pulse(effort)?;
        let mut loaded = self.backend.load(&plan, seeded, sets, Checks::Trusted)?;
        self.wake()?;
        let vitals = || if effort.canary { self.backend.vitals().map(|vitals| (Instant::now(), vitals)) } else { None };
        let ticks = || if effort.canary { self.backend.ticks() } else { Ok(Vec::new()) };
        let (asleep, before_ticks) = (vitals(), ticks()?);
        let mut sampled = Sampler::new(&mut *loaded, &self.clock, sets, item.cache).run(effort)?;
        let core_mhz = telemetry::core_mhz(&before_ticks, &ticks()?);
        let telemetry = telemetry::pair(asleep, vitals(), core_mhz);
        let set = poisoned_sample(&mut *loaded, &mut sampled, &self.clock, sets)?;
        let after = self.pulse(effort)?;
        let expectation = self.oracle.expect(op, item.precision, plan.unit, seeded)?;
        let verified = verified(&mut *loaded, &plan, op, &expectation, seeded.draw, set);
        let facts = loaded.facts();
        drop(loaded);
        let mut record = describe(item, op, &plan, self.backend.device(), &self.clock);
        record.sets = sets;
        record.pool_bytes = plan.pool_bytes(sets);
        record.facts = facts;
        record.canary_ns = Pulse::pair(before, after);
        record.launches = sampled.launches;
        record.reasons = std::mem::take(&mut sampled.remarks);
        record.checked_ns = sampled.checked_ns;
        record.samples_ns = sampled.samples_ns;
        record.wall_ns = sampled.wall_ns;
        record.telemetry = telemetry;
        judge(&mut record, verified, sampled.misfit)?;
        Ok(record)
    }

    /// Exact and dense draws, trusted and checked modules, equal to the bit.
    fn verify(&mut self, op: &dyn Op, item: &Item) -> Result<Measurement> {
        let plan = self.plan(op, item)?;
        let mut record = describe(item, op, &plan, self.backend.device(), &self.clock);
        record.sets = 1;
        record.launches = 1;
        let started = Instant::now();
        for draw in [Draw::Exact, Draw::Dense] {
            let seeded = Seeded { draw, seed: item.seed };
            let expectation = self.oracle.expect(op, item.precision, plan.unit, seeded)?;
            let mut outputs: Vec<Vec<u64>> = Vec::new();
            for checks in [Checks::Trusted, Checks::Checked] {
                let mut loaded = self.backend.load(&plan, seeded, 1, checks)?;
                loaded.sample(REHEARSALS, 0)?;
                loaded.poison(0)?;
                loaded.sample(1, 0)?;
                let verification = verified(&mut *loaded, &plan, op, &expectation, seeded.draw, 0)?;
                let whole = 0..plan.tensors[plan.output()].elements();
                outputs.push(loaded.read(plan.output(), 0, whole)?.into_iter().map(f64::to_bits).collect());
                record.facts = loaded.facts();
                record.verification = Some(verification);
            }
            // A library has no two kinds of module, and may add up in another order from call to call.
            if outputs[0] != outputs[1] && plan.library().is_none() {
                let at = outputs[0].iter().zip(&outputs[1]).position(|(a, b)| a != b).unwrap_or(0);
                return Err(Error::Wrong(format!("{}: trusted and checked modules differ at output element {at}", named(op, &plan))));
            }
        }
        record.checked_ns = started.elapsed().as_nanos() as u64;
        Ok(record)
    }

    /// Times and verifies nothing: the record's `peak_bytes` is the answer.
    fn peak(&mut self, op: &dyn Op, item: &Item) -> Result<Measurement> {
        let plan = self.plan(op, item)?;
        let mut record = describe(item, op, &plan, self.backend.device(), &self.clock);
        let small = self.smallest(item, &plan);
        record.peak_bytes = peak::measured(self.backend, &plan, small.as_ref(), Seeded { draw: item.draw, seed: item.seed })?;
        Ok(record)
    }

    /// Times nothing: the record's `energy` is the answer. The output of one more launch is verified, as after a timing.
    fn energy(&mut self, op: &dyn Op, item: &Item) -> Result<Measurement> {
        let mut meter = self.backend.meter()?;
        let idle = self.rest.of(&mut *meter)?;
        let plan = self.plan(op, item)?;
        let mut record = describe(item, op, &plan, self.backend.device(), &self.clock);
        record.sets = sets(&plan, item, self.backend.device());
        let seeded = Seeded { draw: item.draw, seed: item.seed };
        let mut loaded = self.backend.load(&plan, seeded, record.sets, Checks::Trusted)?;
        let energy = energy::busy(&mut *loaded, &mut *meter, record.sets, idle)?;
        loaded.poison(0)?;
        loaded.sample(1, 0)?;
        let expectation = self.oracle.expect(op, item.precision, plan.unit, seeded)?;
        record.verification = Some(verified(&mut *loaded, &plan, op, &expectation, seeded.draw, 0)?);
        record.energy = Some(energy);
        Ok(record)
    }

    /// The same entries of the same sources on the smallest of the op's awkward problems that needs them all.
    fn smallest(&self, item: &Item, plan: &Plan) -> Option<Plan> {
        let entries = |plan: &Plan| plan.dispatches.iter().map(|d| d.entry.clone()).collect::<Vec<_>>();
        let entry = op::find(&item.op).ok()?;
        let small = |problem| self.plan(&*(entry.parse)(&problem).ok()?, &Item { tunables: plan.tuned.clone(), ..item.clone() }).ok();
        let plans = (entry.awkward)().into_iter().filter_map(small);
        plans.filter(|small| entries(small) == entries(plan)).min_by_key(Plan::set_bytes)
    }

    fn plan(&self, op: &dyn Op, item: &Item) -> Result<Plan> {
        let device = self.backend.device();
        if let Some(custom) = &item.custom {
            return custom.plan(op, item.precision, device);
        }
        let mut plan = op.plan(&item.variant, item.precision, device.language, &item.tunables, device)?;
        if let Some(name) = &item.mutant {
            mutant::find(&plan, name)?.apply(&mut plan)?;
        }
        Ok(plan)
    }

    /// Brings a GPU that may have lowered its clock back to speed.
    fn wake(&mut self) -> Result<()> {
        if !Alarm::needed(self.backend.device()) {
            return Ok(());
        }
        if self.alarm.is_none() {
            self.alarm = Some(Alarm::new(self.backend, &self.clock)?);
        }
        self.alarm.as_mut().map_or(Ok(()), Alarm::ring)
    }

    fn pulse(&mut self, effort: Effort) -> Result<Option<Pulse>> {
        if !effort.canary {
            return Ok(None);
        }
        self.wake()?;
        if self.canaries.is_none() {
            self.canaries = Some(Canaries::new(self.backend, &self.clock)?);
        }
        match &mut self.canaries {
            Some(canaries) => canaries.pulse().map(Some),
            None => Ok(None),
        }
    }
}

impl Runner for Engine<'_> {
    fn device(&self) -> (DeviceInfo, Clock) {
        (self.backend.device().clone(), self.clock.clone())
    }

    fn run(&mut self, item: &Item) -> std::result::Result<Measurement, (State, String)> {
        let op = op::find(&item.op).and_then(|entry| (entry.parse)(&item.problem));
        op.and_then(|op| self.perform(&*op, item)).map_err(|error| failed(&error))
    }

    fn prepare(&mut self, items: &[Item], within: Duration) {
        let plan = |item: &Item| self.plan(&*(op::find(&item.op)?.parse)(&item.problem)?, item);
        let checks = |item: &Item| if item.goal == Goal::Verify { &[Checks::Trusted, Checks::Checked][..] } else { &[Checks::Trusted][..] };
        let with = |(item, plan): (&Item, Plan)| checks(item).iter().map(move |&checks| (plan.clone(), checks));
        let plans: Vec<_> = items.iter().filter_map(|item| Some((item, plan(item).ok()?))).flat_map(with).collect();
        self.backend.prepare(&plans, within);
    }
}

/// Sets to rotate through.
fn sets(plan: &Plan, item: &Item, device: &DeviceInfo) -> u32 {
    match item.cache {
        Cache::Warm => 1,
        Cache::Cold => plan.cold_sets(device, item.llc_bytes.unwrap_or_else(|| device.llc_bytes())),
    }
}

/// One more sample with every output poisoned just before it; returns the set whose output is to be verified.
fn poisoned_sample(loaded: &mut dyn Loaded, sampled: &mut Sampled, clock: &Clock, sets: u32) -> Result<u32> {
    let slowest = sampled.samples_ns.iter().max().copied().unwrap_or(0);
    for attempt in 1..=RETRIES {
        for set in 0..sampled.launches.min(sets) {
            loaded.poison(set)?;
        }
        let sample = loaded.sample(sampled.launches, 0)?;
        sampled.checked_ns = sampling::chosen(clock, &sample);
        // Poisoning moves cache lines about: half as much again as the slowest still fits.
        if sampled.checked_ns <= slowest + slowest / 2 {
            break;
        }
        if attempt == RETRIES {
            sampled.misfit = Some(format!("the verified sample took {} ns, the slowest timed one {slowest} ns", sampled.checked_ns));
        }
    }
    Ok((sampled.launches - 1) % sets)
}

/// Compares the output of a set with the oracle and audits its buffers.
fn verified(loaded: &mut dyn Loaded, plan: &Plan, op: &dyn Op, expectation: &Expectation, draw: Draw, set: u32) -> Result<Verification> {
    let named = named(op, plan);
    let output = plan.output();
    let verification = expectation.compare(&named, draw, &mut |range| loaded.fetch(output, set, range))?;
    let audit = loaded.audit(set)?;
    if audit.guards_broken > 0 || audit.inputs_changed > 0 {
        return Err(Error::Wrong(format!(
            "{named}: wrote outside its output ({} guard words and {} input elements changed)",
            audit.guards_broken, audit.inputs_changed
        )));
    }
    Ok(verification)
}

/// Everything about an item that is known before it runs.
fn describe(item: &Item, op: &dyn Op, plan: &Plan, device: &DeviceInfo, clock: &Clock) -> Measurement {
    let groups = match plan.language {
        crate::plan::Language::Host => device.compute_units as u64,
        _ => plan.dispatches.iter().map(|d| d.groups()).max().unwrap_or(0),
    };
    Measurement {
        id: item.id.clone(),
        op: op.name().into(),
        problem: plan.problem.clone(),
        label: op.label(),
        variant: item.variant.clone(),
        role: if plan.library().is_some() { OpRole::Reference } else { op.role() },
        backend: device.backend.clone(),
        precision: item.precision,
        unit: plan.unit,
        tunables: plan.tuned.clone(),
        source_hash: plan.source_hash,
        state: State::Ok,
        reasons: Vec::new(),
        launches: 0,
        sets: 0,
        samples_ns: Vec::new(),
        wall_ns: Vec::new(),
        checked_ns: 0,
        clock: clock.source.clone(),
        cache: item.cache,
        macs: plan.cost.macs,
        flops: plan.cost.flops,
        exponentials: plan.cost.exponentials,
        bytes_compulsory: plan.cost.compulsory,
        bytes_written: plan.cost.written,
        bytes_moved: plan.cost.moved,
        bytes_requested: plan.cost.requested,
        bytes_lane: plan.cost.lane,
        workspace_bytes: plan.cost.workspace,
        peak_bytes: None,
        pool_bytes: plan.pool_bytes(1),
        set_bytes: plan.set_bytes(),
        dispatches: plan.dispatches.len() as u32,
        groups,
        candidate: false,
        canary_ns: None,
        verification: None,
        facts: Default::default(),
        seed: item.seed,
        order: item.order,
        telemetry: None,
        energy: None,
        extra: Default::default(),
    }
}

/// Settles the state from the verification, the verified sample's time and the canaries.
fn judge(record: &mut Measurement, verified: Result<Verification>, misfit: Option<String>) -> Result<()> {
    match verified {
        Ok(verification) => record.verification = Some(verification),
        Err(Error::Wrong(why)) => {
            record.state = State::Wrong;
            record.reasons.insert(0, why);
            return Ok(());
        }
        Err(other) => return Err(other),
    }
    if let Some(misfit) = misfit {
        record.state = State::Suspect;
        record.reasons.push(misfit);
    }
    if let Some(canary) = record.canary_ns {
        let moved = |before: u64, after: u64| (after as f64 / before.max(1) as f64 - 1.0).abs();
        let (fma, stream) = (moved(canary.fma_before, canary.fma_after), moved(canary.stream_before, canary.stream_after));
        if fma > CANARY_MOVED || stream * memory_share(record, &canary) > CANARY_MOVED {
            record.state = State::Suspect;
            let (fma, stream) = (100.0 * fma, 100.0 * stream);
            record.reasons.push(format!("machine changed speed (canaries moved by {fma:.0} % fma, {stream:.0} % stream)"));
        }
    }
    telemetry::judge(record);
    Ok(())
}

/// The largest share of an item's time that memory can have had: its requested bytes at the stream canary's speed. An item out of
/// registers does not feel a busier memory, and one that asks for a tenth of what a stream does feels a tenth of it.
fn memory_share(record: &Measurement, canary: &Canary) -> f64 {
    let stream_ns = canary.stream_before.min(canary.stream_after) as f64;
    match (stats::median(&record.samples_ns), record.bytes_requested) {
        (Some(sample), Some(requested)) if canary.stream_bytes > 0 && sample > 0.0 => {
            let streamed = requested as f64 * record.launches as f64 * stream_ns / canary.stream_bytes as f64;
            (streamed / sample).min(1.0)
        }
        _ => 1.0,
    }
}
