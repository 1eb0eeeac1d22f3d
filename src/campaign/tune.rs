//! The search for a kernel's tunables, before the kernels are measured. One set of tiles loses a fifth or more somewhere: on the host, where
//! settings are few, every problem has a search of its own; on other devices a kernel has one.

use super::Campaign;
use super::search::{GLANCE, candidates, fastest};
use crate::error::Result;
use crate::op;
use crate::plan::{Language, Tuned};
use crate::record::Cache;
use crate::worker::{Goal, Item};

impl Campaign<'_> {
    /// Gives the items of every variant that has tunables the fastest setting: each is tried for a moment, warm, on the middle one of
    /// its problems of `most` FLOPs at most, or else its least, and recorded as a candidate. On the host, where `most` is no limit, that is
    /// done problem by problem. A setting with a wrong output never wins.
    pub(super) fn tune(&mut self, items: &mut [Item], most: f64) -> Result<()> {
        let device = self.device();
        let apart = device.language == Language::Host && most.is_infinite();
        let alike = |one: &Item, other: &Item| {
            (&one.op, &one.variant, one.precision) == (&other.op, &other.variant, other.precision)
                && (!apart || one.problem == other.problem)
        };
        for at in 0..items.len() {
            if items[..at].iter().any(|earlier| alike(earlier, &items[at])) {
                continue;
            }
            let of = items[at].clone();
            let settings = candidates(&of.op, &of.variant, of.precision, &device);
            if settings.len() > 1 {
                let middle = middle(items.iter().filter(|item| alike(item, &of)), most)?;
                let best = self.fastest_setting(&settings, &middle.unwrap_or(&of).clone())?;
                items.iter_mut().filter(|item| alike(item, &of)).for_each(|item| item.tunables = best.clone());
            }
        }
        Ok(())
    }

    /// The fastest of these settings of one kernel; the defaults where none could be measured.
    fn fastest_setting(&mut self, settings: &[Tuned], item: &Item) -> Result<Tuned> {
        self.watcher.stage(&format!("{}, {} candidates", item.named(), settings.len()), settings.len());
        let best = self.best_of(settings, |campaign, &tuned| {
            if campaign.late() {
                return Ok(None);
            }
            let trial = Item { tunables: tuned.clone(), cache: Cache::Warm, goal: Goal::Measure(GLANCE), ..item.clone() };
            let trial = campaign.numbered(trial);
            Ok(campaign.run_candidate(trial)?.as_ref().and_then(fastest).map(|time| -time))
        })?;
        Ok(best.cloned().unwrap_or_default())
    }
}

/// That with the middle amount of work among those of `most` FLOPs at most, or else the least: neither all overhead nor all of the budget.
fn middle<'a>(items: impl Iterator<Item = &'a Item>, most: f64) -> Result<Option<&'a Item>> {
    let mut own = Vec::new();
    for item in items {
        own.push(((op::find(&item.op)?.parse)(&item.problem)?.flops(), item));
    }
    own.sort_by_key(|&(flops, _)| flops);
    let short = own.partition_point(|&(flops, _)| flops as f64 <= most).max(1);
    Ok(own.get((short - 1) / 2).map(|&(_, item)| item))
}
