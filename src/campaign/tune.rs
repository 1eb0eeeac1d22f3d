//! The search for a kernel's tunables: once a device, before the kernels are measured. One set of tiles loses a fifth or more somewhere.

use super::Campaign;
use super::search::{GLANCE, candidates, fastest};
use crate::error::Result;
use crate::op;
use crate::plan::{Precision, Tuned};
use crate::record::Cache;
use crate::worker::{Goal, Item};

impl Campaign<'_> {
    /// Gives the items of every variant that has tunables the fastest setting: each is tried for a moment, warm, on the middle one of
    /// its problems of `most` FLOPs at most, or else its least, and recorded as a candidate. A setting with a wrong output never wins.
    pub(super) fn tune(&mut self, items: &mut [Item], most: f64) -> Result<()> {
        let device = self.device();
        let mut done: Vec<(String, String, Precision)> = Vec::new();
        for at in 0..items.len() {
            let key = kind(&items[at]);
            if done.contains(&key) {
                continue;
            }
            let settings = candidates(&key.0, &key.1, key.2, &device);
            if settings.len() > 1 {
                let best = self.fastest_setting(&settings, &middle(items, &key, most)?)?;
                items.iter_mut().filter(|item| kind(item) == key).for_each(|item| item.tunables = best.clone());
            }
            done.push(key);
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

fn kind(item: &Item) -> (String, String, Precision) {
    (item.op.clone(), item.variant.clone(), item.precision)
}

/// Of the items of one kind, that with the middle amount of work among those of `most` FLOPs at most: neither all overhead nor all of
/// the budget.
fn middle(items: &[Item], key: &(String, String, Precision), most: f64) -> Result<Item> {
    let mut own = Vec::new();
    for item in items.iter().filter(|item| kind(item) == *key) {
        own.push(((op::find(&item.op)?.parse)(&item.problem)?.flops(), item));
    }
    own.sort_by_key(|&(flops, _)| flops);
    let short = own.partition_point(|&(flops, _)| flops as f64 <= most).max(1);
    Ok(own[(short - 1) / 2].1.clone())
}
