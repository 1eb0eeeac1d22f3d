//! Times that are no rates: what a dispatch costs, and a load that waits for the one before it.

use serde_json::json;

use super::search::{GLANCE, block_effort, candidates, fastest};
use super::{Campaign, Winner};
use crate::draw::Draw;
use crate::error::Result;
use crate::op::chase::{LINE_BYTES, MOST_LINES, UNROLLED};
use crate::plan::{DeviceInfo, DeviceKind, Precision};
use crate::record::{Cache, Ceiling, CeilingKind};
use crate::roofline::Level;
use crate::worker::{Effort, Goal, Item};

/// Dispatches of a call at the two ends of the slope.
const FEW: u64 = 2;
const MANY: u64 = 258;
/// Hops of a launch through a cache at least: a launch of the host costs less than one of them in a thousand. A GPU takes milliseconds for its.
const HOPS: u64 = 1 << 18;
const HOPS_GPU: u64 = 1 << 16;
/// Lines of one copy of cold data, all of which a launch goes through.
const COLD: u64 = 1 << 15;
/// Copies of cold data take this many times the last-level cache or, with a large one, so many bytes: a launch touches half of them at least.
const PAST_LLC: u64 = 8;
const POOL: u64 = 1 << 30;
/// One block of a latency: a time, not a rate, so the stream canary says little of it.
const CHASED: Effort = Effort { samples: 10, least_ns: 20_000_000, budget_ns: 80_000_000, canary: false };

impl Campaign<'_> {
    /// Finds the winners of the probes that are no roofs.
    pub(super) fn search_others(&mut self) -> Result<()> {
        self.search_exp()?;
        self.search_shared()?;
        self.search_transfer()?;
        self.search_launch()
    }

    /// The cost of a dispatch: many of them, less few.
    fn search_launch(&mut self) -> Result<()> {
        let device = self.device();
        let settings = candidates("launch", "counted", Precision::F32, &device);
        self.watcher.stage(&format!("launch, {} candidates", settings.len()), 2 * settings.len());
        let ends = settings.iter().map(|tuned| {
            [FEW, MANY].map(|dispatches| {
                let problem = json!({"dispatches": dispatches});
                Item { tunables: tuned.clone(), ..self.item("launch", "counted", problem, GLANCE) }
            })
        });
        let ends: Vec<[Item; 2]> = ends.collect();
        let best = self.best_of(ends, |campaign, [few, many]| {
            let Some(base) = campaign.run_item(few.clone())? else { return Ok(None) };
            let time = campaign.run_item(many.clone())?.as_ref().and_then(fastest);
            Ok(time.zip(fastest(&base)).map(|(time, less)| less - time))
        })?;
        let Some([few, mut item]) = best else { return Ok(()) };
        item.goal = Goal::Measure(block_effort(self.scope.size));
        let ceiling = Ceiling { kind: CeilingKind::Latency, base: vec![few.id], ..self.ceiling("launch", None) };
        self.winners.push(Winner { ceiling, item });
        Ok(())
    }

    /// One winner for each level of memory: a walk through half of what one core has of a cache, or through copies that no cache holds.
    pub(super) fn latencies(&mut self, found: &[Level]) {
        let device = self.device();
        if candidates("chase", "cycle", Precision::F32, &device).is_empty() {
            return;
        }
        let mut before = 0;
        for level in found {
            let mut item = self.item("chase", "cycle", json!({}), CHASED);
            item.draw = Draw::Exact;
            let lines = match level.capacity {
                Some(capacity) => lines(capacity, std::mem::replace(&mut before, capacity), &level.name, &device),
                None => {
                    let llc = self.llc.unwrap_or(device.llc_bytes());
                    (item.cache, item.llc_bytes) = (Cache::Cold, Some((PAST_LLC / 2 * llc).min(POOL / 2).max(llc)));
                    COLD
                }
            };
            item.problem = json!({"lines": lines, "hops": hops(lines, item.cache, &device)});
            let ceiling = Ceiling {
                kind: CeilingKind::Latency,
                level: Some(level.name.clone()),
                capacity: level.capacity,
                state: level.state,
                reasons: level.reasons.clone(),
                ..self.ceiling(&format!("{} latency", level.name), None)
            };
            self.winners.push(Winner { ceiling, item });
        }
    }
}

/// Lines of a walk inside a cache of `capacity` bytes over all cores, where the next smaller one holds `inner`: half of a core's share,
/// but four times its share of the smaller one, which might hold them otherwise.
fn lines(capacity: u64, inner: u64, level: &str, device: &DeviceInfo) -> u64 {
    // A GPU's processors share all but the first level.
    let shares = if device.kind == DeviceKind::Gpu && level != "l1" { 1 } else { device.compute_units.max(1) as u64 };
    let half = capacity / shares / 2;
    let bytes = half.max(4 * inner / shares).min(capacity / 2);
    1 << (bytes / LINE_BYTES).clamp(2, MOST_LINES).ilog2()
}

/// Hops of a launch: whole turns, and a few more in a cache, so that it does not end where it began.
fn hops(lines: u64, cache: Cache, device: &DeviceInfo) -> u64 {
    if cache == Cache::Cold {
        return lines;
    }
    let least = if device.kind == DeviceKind::Gpu { HOPS_GPU } else { HOPS };
    let most = device.limits.loop_trips.map_or(u64::MAX, |trips| trips.saturating_sub(2048) * 4);
    (lines.max(least) + UNROLLED).min(most / UNROLLED * UNROLLED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_stays_inside_its_level_and_outside_the_one_before() {
        let of = |kind, compute_units, level: &str, capacity: u64, inner: u64| {
            let device = DeviceInfo { kind, compute_units, ..crate::backend::host::device() };
            lines(capacity, inner, level, &device) * LINE_BYTES
        };
        // Two cores with 32 KiB, 512 KiB and half of 32 MiB.
        assert_eq!(of(DeviceKind::Cpu, 2, "l1", 64 << 10, 0), 16 << 10);
        assert_eq!(of(DeviceKind::Cpu, 2, "l2", 1 << 20, 64 << 10), 256 << 10);
        assert_eq!(of(DeviceKind::Cpu, 2, "l3", 32 << 20, 1 << 20), 8 << 20);
        // A core's share of the last level may be no larger than its own cache.
        assert_eq!(of(DeviceKind::Cpu, 56, "l3", 105 << 20, 112 << 20), 8 << 20);
        // A GPU's last level is one, and its first is one for each processor.
        assert_eq!(of(DeviceKind::Gpu, 132, "l1", 132 * (128 << 10), 0), 64 << 10);
        assert_eq!(of(DeviceKind::Gpu, 132, "l2", 30 << 20, 132 * (128 << 10)), 8 << 20);
    }
}
