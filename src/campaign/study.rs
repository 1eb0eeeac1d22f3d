//! A study: its problems under a roof that was recorded earlier, or is traced in a hurry around them.

use std::time::{Duration, Instant};

use super::Campaign;
use super::kernels::lacks;
use crate::error::{Error, Result};
use crate::op::{self, Size};
use crate::plan::{DeviceInfo, DeviceKind, Precision};
use crate::record::{Ceiling, CeilingKind, Record, State};
use crate::study::{Setting, Study};
use crate::worker::Item;

/// What settings are tried on takes this many ns on the compute roof at most.
const TRIED_NS: f64 = 10e6;

impl Campaign<'_> {
    /// Measures a study's problems, under the roof in these records ([`taken_over`]) or, where there are none, one traced around them.
    /// Either way the roof is among the study's own records, so that they tell the answer by themselves.
    ///
    /// # Errors
    /// As [`Campaign::trace`], and those of the study's grid.
    pub fn study(mut self, study: &Study, recorded: &[Record]) -> Result<Vec<Record>> {
        self.ends = allotted(self.scope.size, self.bench.device()).map(|time| Instant::now() + time);
        self.kernel_size = if self.scope.size == Size::Large { Size::Standard } else { Size::Small };
        let outcome = if recorded.is_empty() { self.under_traced(study) } else { self.under_recorded(study, recorded) };
        self.close(outcome)
    }

    fn under_recorded(&mut self, study: &Study, recorded: &[Record]) -> Result<()> {
        self.take_over(recorded)?;
        let mut items = self.study_items(study)?;
        let outcome = self.tuned(&mut items).and_then(|()| {
            let started = Instant::now();
            self.kernels(&items, 1)?;
            self.repeat_suspects(started.elapsed())
        });
        self.listed(&items, outcome)
    }

    fn under_traced(&mut self, study: &Study) -> Result<()> {
        self.trace_for(study)?;
        self.block(1)?;
        // A device whose roof takes all the time gets some for the question too.
        let least = allotted(self.scope.size, self.bench.device()).map(|time| Instant::now() + time / 3);
        self.ends = self.ends.max(least);
        let mut items = self.study_items(study)?;
        let outcome = self.tuned(&mut items).and_then(|()| self.amid_blocks(&items));
        self.listed(&items, outcome)
    }

    /// Passes an outcome on; where it is an interruption, items that were not run are listed, as where time ends.
    fn listed(&mut self, items: &[Item], outcome: Result<()>) -> Result<()> {
        if matches!(outcome, Err(Error::Interrupted)) {
            let left: Vec<&Item> = items.iter().filter(|item| !self.records.iter().any(|record| answers(record, item))).collect();
            for item in left {
                self.skip(item, State::NotRun, "interrupted before it".into())?;
            }
        }
        outcome
    }

    /// Gives items the fastest settings of their kernels.
    fn tuned(&mut self, items: &mut [Item]) -> Result<()> {
        let peak = self.roof().compute(Precision::F32, None).map_or(f64::INFINITY, |ceiling| ceiling.value);
        self.tune(items, TRIED_NS * peak / 1e9)
    }

    /// Searches probes in a hurry; of a cache the reading is kept, which tells how large it is and what it can feed.
    fn trace_for(&mut self, study: &Study) -> Result<()> {
        let asked = (self.scope.size, std::mem::replace(&mut self.scope.precisions, study.precisions.to_vec()));
        self.scope.size = Size::Small;
        let outcome = self.search_all();
        (self.scope.size, self.scope.precisions) = asked;
        self.winners.retain(|winner| matters(&winner.ceiling));
        outcome
    }

    /// The study's problems, numbered. What the plan refuses is an answer, not a hole.
    fn study_items(&mut self, study: &Study) -> Result<Vec<Item>> {
        let (device, roof) = (self.device(), self.roof());
        let wanted = (study.grid)(&Setting { device: &device, size: self.scope.size, roof: &roof })?;
        let (seed, llc_bytes) = (self.scope.seed, self.llc);
        let mut items: Vec<Item> = Vec::new();
        for item in wanted {
            let item = self.numbered(Item { seed, llc_bytes, ..item });
            let op = (op::find(&item.op)?.parse)(&item.problem)?;
            match op.plan(&item.variant, item.precision, device.language, &item.tunables, &device) {
                Err(refused) => self.skip(&item, State::Skipped, refused.to_string())?,
                Ok(plan) => match lacks(&plan, &device) {
                    Some(why) => self.skip(&item, State::Unsupported, why)?,
                    None => items.push(item),
                },
            }
        }
        Ok(items)
    }
}

/// Whether a record tells how an item ended.
fn answers(record: &Record, item: &Item) -> bool {
    let same =
        |op: &str, variant: &str, precision| (op, variant, precision) == (item.op.as_str(), item.variant.as_str(), Some(item.precision));
    match record {
        Record::Measurement(m) => {
            !m.candidate && same(&m.op, &m.variant, Some(m.precision)) && (&m.problem, m.cache) == (&item.problem, item.cache)
        }
        Record::Skip(skip) => same(&skip.op, &skip.variant, skip.precision) && skip.problem.as_ref() == Some(&item.problem),
        _ => false,
    }
}

/// When no more of a study's kernels begin, its roof included: what then runs ends within 90 s on a CPU, 60 s on a GPU. A simulated device has
/// all the time: what it answers must not depend on the machine that simulates it.
fn allotted(size: Size, device: &DeviceInfo) -> Option<Duration> {
    if device.simulated {
        return None;
    }
    let seconds = match (size, device.kind) {
        (Size::Small, _) => 40,
        (Size::Standard, DeviceKind::Cpu) => 70,
        (Size::Standard, DeviceKind::Gpu) => 45,
        (Size::Large, _) => return None,
    };
    Some(Duration::from_secs(seconds))
}

fn matters(ceiling: &Ceiling) -> bool {
    match (ceiling.kind, ceiling.level.as_deref()) {
        (CeilingKind::Compute, _) | (CeilingKind::Bandwidth, Some("dram")) => true,
        (CeilingKind::Bandwidth, Some("pcie")) => false,
        (CeilingKind::Bandwidth, _) => ceiling.direction.as_deref() == Some("read"),
        (CeilingKind::Latency, level) => level.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::fake::Fake;
    use crate::campaign::{Scope, Silent};
    use crate::measure::Engine;
    use crate::worker::{Effort, Goal, Local};

    #[test]
    fn an_interrupted_study_lists_what_was_not_run() {
        let fake = Fake::scripted("{}").expect("a script");
        let (mut bench, mut silent) = (Local::new(Box::new(Engine::new(&fake).expect("clocks"))), Silent);
        let mut campaign = Campaign::new(&mut bench, &mut silent, Scope::new(Size::Small));
        let items = [8, 16, 24].map(|m| {
            let op = (op::find("matmul").expect("an op").parse)(&serde_json::json!({"m": m, "n": 8, "k": 8})).expect("a problem");
            campaign.numbered(Item::new(&*op, "naive", Goal::Measure(Effort::default())))
        });
        campaign.run_item(items[0].clone()).expect("it is kept").expect("it is measured");
        campaign.skip(&items[1], State::Skipped, "too long".into()).expect("it is kept");
        assert!(campaign.listed(&items, Ok(())).is_ok() && campaign.records.len() == 2);
        assert!(matches!(campaign.listed(&items, Err(Error::Interrupted)), Err(Error::Interrupted)));
        let [.., Record::Skip(left)] = campaign.records.as_slice() else { panic!("{:?}", campaign.records) };
        assert_eq!((campaign.records.len(), left.state, left.problem.as_ref()), (3, State::NotRun, Some(&items[2].problem)));
    }
}
