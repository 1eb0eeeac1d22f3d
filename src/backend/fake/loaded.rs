//! A plan on the fake device. What each set holds is tracked; the data itself is made when somebody looks.

use std::ops::Range;
use std::sync::Arc;

use super::fault::{FaultKind, Moment};
use super::memory::Set;
use super::{Fake, Fault};
use crate::backend::{Audit, Checks, Facts, Loaded, Sample};
use crate::draw::Seeded;
use crate::error::{Error, Result};
use crate::host::{Call, Isa};
use crate::op::TensorSpec;
use crate::plan::Plan;

/// What the outputs of a set hold.
#[derive(Debug, Clone, PartialEq)]
enum Content {
    /// NaN.
    Poison,
    /// What the kernel writes, with these faults of the script applied.
    Written(Vec<usize>),
}

type Kernel = Arc<dyn Fn(&Call<'_>) + Send + Sync>;

pub(super) struct Resident<'a> {
    fake: &'a Fake,
    plan: Plan,
    kernel: Kernel,
    seeded: Seeded,
    checks: Checks,
    contents: Vec<Content>,
    /// Launches since the plan was loaded.
    launches: u64,
    /// Silent faults that strike this plan, by their place in the script.
    silent: Vec<usize>,
    /// The set that somebody looked at last, and what it held then.
    shown: Option<(u32, Content, Set)>,
    call_ns: f64,
    /// What it takes of the device's memory.
    bytes: u64,
}

impl<'a> Resident<'a> {
    pub fn new(fake: &'a Fake, plan: Plan, kernel: Kernel, seeded: Seeded, sets: u32, checks: Checks) -> Self {
        let strikes = |(number, fault): (usize, &Fault)| (fault.kind.is_silent() && fault.fits(Some(&plan))).then_some(number);
        let silent = fake.script.faults.iter().enumerate().filter_map(strikes).collect();
        let call_ns = fake.script.call_ns(&plan, sets);
        let contents = vec![Content::Poison; sets as usize];
        let bytes = plan.pool_bytes(sets) + plan.cost.workspace;
        fake.taken.set(fake.taken.get() + bytes);
        Resident { fake, plan, kernel, seeded, checks, contents, launches: 0, silent, shown: None, call_ns, bytes }
    }

    /// What a launch leaves in a set that held `before`.
    fn launched(&self, before: Content) -> Content {
        let active: Vec<usize> = self.silent.iter().copied().filter(|&f| self.launches >= self.fake.script.faults[f].after).collect();
        match active.iter().any(|&f| self.fake.script.faults[f].kind == FaultKind::StopsWriting) {
            true => before,
            false => Content::Written(active),
        }
    }

    /// The data of a set, computed now if it was not.
    fn show(&mut self, set: u32) -> Result<&Set> {
        let Some(content) = self.contents.get(set as usize).cloned() else {
            let why = format!("set {set} of {} was asked for", self.contents.len());
            return Err(Error::Backend { backend: "fake", why });
        };
        let fresh = matches!(&self.shown, Some((shown, held, _)) if *shown == set && *held == content);
        if !fresh {
            // One set at a time in memory: drop the old one before the new one is made.
            self.shown = None;
            let data = self.computed(&content);
            self.shown = Some((set, content, data));
        }
        match &self.shown {
            Some((_, _, data)) => Ok(data),
            None => Err(Error::Backend { backend: "fake", why: "a set vanished".into() }),
        }
    }

    fn computed(&self, content: &Content) -> Set {
        let memory: Vec<TensorSpec> = self.plan.memory().cloned().collect();
        let mut data = Set::new(&memory, self.seeded);
        let Content::Written(faults) = content else { return data };
        let tensors = data.addresses();
        let (tuned, precision) = (&self.plan.tuned, self.plan.precision);
        (self.kernel)(&Call { pool: &self.fake.pool, tensors: &tensors, tuned, precision, isa: Isa::detect() });
        for &number in faults {
            spoil(&mut data, &self.plan, &self.fake.script.faults[number]);
        }
        data
    }
}

/// Applies a silent fault to a computed set.
fn spoil(data: &mut Set, plan: &Plan, fault: &Fault) {
    let output = plan.output();
    let elements = data.elements(output);
    let one = fault.element.map_or(elements / 2, |e| e as usize % elements);
    match fault.kind {
        FaultKind::Nan => (0..elements).for_each(|i| data.set(output, i, f64::NAN)),
        FaultKind::OneNan => data.set(output, one, f64::NAN),
        FaultKind::OneBad => data.set(output, one, data.get(output, one) + 1.0),
        FaultKind::Shifted => {
            let last = data.get(output, elements - 1);
            (1..elements).rev().for_each(|i| data.set(output, i, data.get(output, i - 1)));
            data.set(output, 0, last);
        }
        FaultKind::WritesInputs => {
            let input = plan.tensors.iter().rposition(|t| t.role.is_input());
            if let Some(input) = input {
                data.set(input, 0, data.get(input, 0) + 1.0);
            }
        }
        FaultKind::BreaksGuard => data.break_guard(output),
        _ => {}
    }
}

impl Loaded for Resident<'_> {
    fn sample(&mut self, launches: u32, first: u32) -> Result<Sample> {
        self.fake.fire(Moment::Sample, Some(&self.plan))?;
        let factor = self.fake.script.factor(self.fake.samples.get());
        if self.fake.info.limits.launch_ns.is_some_and(|limit| self.call_ns * factor > limit as f64) {
            self.fake.lost.set(true);
            return Err(Error::DeviceLost(format!("a launch of {}/{} passed the watchdog's limit", self.plan.op, self.plan.variant)));
        }
        let sets = self.contents.len() as u64;
        // Where nothing goes wrong, a set holds the same after its first launch as after its thousandth.
        let told_apart = if self.silent.is_empty() { sets.min(launches as u64) } else { launches as u64 };
        for launch in 0..told_apart {
            let set = ((first as u64 + launch) % sets) as usize;
            let before = std::mem::replace(&mut self.contents[set], Content::Poison);
            self.contents[set] = self.launched(before);
            self.launches += 1;
        }
        let sample = self.fake.clocks(self.call_ns, launches, factor);
        if let Some(battery) = &self.fake.script.energy {
            self.fake.drain.pass(sample.wall, battery.busy_w, battery.update_ns);
        }
        self.fake.samples.set(self.fake.samples.get() + 1);
        Ok(sample)
    }

    fn poison(&mut self, set: u32) -> Result<()> {
        if let Some(content) = self.contents.get_mut(set as usize) {
            *content = Content::Poison;
        }
        Ok(())
    }

    fn read(&mut self, tensor: usize, set: u32, range: Range<u64>) -> Result<Vec<f64>> {
        let data = self.show(set)?;
        let elements = data.elements(tensor) as u64;
        if range.start > range.end || range.end > elements {
            return Err(Error::Backend { backend: "fake", why: format!("{range:?} of {elements} elements of tensor {tensor}") });
        }
        Ok((range.start as usize..range.end as usize).map(|i| data.get(tensor, i)).collect())
    }

    fn audit(&mut self, set: u32) -> Result<Audit> {
        Ok(self.show(set)?.audit())
    }

    fn facts(&self) -> Facts {
        Facts { checks: Some(self.checks), allocated_bytes: Some(self.bytes), ..Facts::default() }
    }
}

impl Drop for Resident<'_> {
    fn drop(&mut self) {
        self.fake.taken.set(self.fake.taken.get() - self.bytes);
    }
}
