//! The way up the roof: one kernel at intensities from an eighth to 256 FLOP a byte, cold, between the blocks that trace the roof.

use serde_json::json;

use super::Campaign;
use super::search::{GLANCE, fastest, walking};
use crate::error::Result;
use crate::op::Size;
use crate::op::ramp::{LEAST, MOST};
use crate::plan::{DeviceKind, Precision, Tuned};
use crate::record::{Cache, CeilingKind, Measurement, Record};
use crate::worker::Item;

/// Bytes of one set on a CPU, least and most: a quarter of the last-level cache between them, so that a pool past it holds several.
const SET: (u64, u64) = (4 << 20, 32 << 20);
/// Bytes of one set on a GPU at most: the oracle looks at four elements of every 4,096.
const SET_GPU: u64 = 512 << 20;
/// FLOPs of one launch on a CPU at most.
const FLOPS: u64 = 2_000_000_000;
/// Steps of eight elements that settings are tried with where the roof is not known.
const CORNER: f64 = 256.0;

/// Steps of eight elements, neighbours at most 1.5 apart: powers of two and one and a half times them.
fn ladder() -> Vec<u64> {
    let octaves = (LEAST.ilog2()..=MOST.ilog2()).flat_map(|power| [1u64 << power, 3 << (power - 1)]);
    octaves.filter(|&steps| steps <= MOST).collect()
}

impl Campaign<'_> {
    /// Measures the points of the ramp. The setting is the one that is fastest at the corner, where it matters most.
    pub(super) fn ramp(&mut self) -> Result<()> {
        let device = self.device();
        let asked = self.scope.precisions.is_empty() || self.scope.precisions.contains(&Precision::F32);
        let settings = walking("ramp", "chains", &device);
        if !asked || settings.is_empty() || self.winners.is_empty() {
            return Ok(());
        }
        let all = ladder();
        let corner = self.corner().unwrap_or(CORNER);
        let away = |steps: &u64| (*steps as f64 / corner).ln().abs();
        let nearest = all.iter().copied().min_by(|a, b| away(a).total_cmp(&away(b))).unwrap_or(CORNER as u64);
        // In a hurry every third, among them the one at the corner.
        let keep = |at: usize| self.scope.size != Size::Small || at % 3 == all.iter().position(|&s| s == nearest).unwrap_or(0) % 3;
        let steps: Vec<u64> = all.iter().enumerate().filter(|&(at, _)| keep(at)).map(|(_, &steps)| steps).collect();
        self.watcher.stage(&format!("ramp, {} candidates", settings.len()), settings.len() + steps.len());
        let Some(tuned) = self.best_ramp(&settings, nearest)? else { return Ok(()) };
        for steps in steps {
            let item = self.ramp_item(steps, &tuned);
            self.run_item(item)?;
        }
        Ok(())
    }

    /// The fastest setting at so many steps.
    fn best_ramp(&mut self, settings: &[Tuned], steps: u64) -> Result<Option<Tuned>> {
        let best = self.best_of(settings, |campaign, tuned| {
            let item = campaign.ramp_item(steps, tuned);
            Ok(campaign.run_candidate(item)?.as_ref().and_then(fastest).map(|time| -time))
        })?;
        Ok(best.cloned())
    }

    /// Steps of eight elements at which arithmetic takes as long as copying through memory, by the blocks measured so far.
    fn corner(&self) -> Option<f64> {
        let of = |kind: CeilingKind, fits: &dyn Fn(&Measurement) -> f64| {
            let ids = self.winners.iter().filter(|w| w.ceiling.kind == kind).flat_map(|w| &w.ceiling.from);
            let rate = |id: &String| self.measured(id).and_then(|m| fastest(m).map(|time| fits(m) / time));
            ids.filter_map(rate).filter(|rate| *rate > 0.0).collect::<Vec<_>>()
        };
        let f32 = |m: &Measurement| if m.precision == Precision::F32 { m.flops as f64 } else { 0.0 };
        let copied = |m: &Measurement| if m.problem["kind"] == "copy" { m.bytes_compulsory as f64 } else { 0.0 };
        let compute = of(CeilingKind::Compute, &f32).into_iter().reduce(f64::max)?;
        // The slowest copy is that of memory.
        let memory = of(CeilingKind::Bandwidth, &copied).into_iter().reduce(f64::min)?;
        Some(32.0 * compute / memory)
    }

    fn measured(&self, id: &str) -> Option<&Measurement> {
        self.records.iter().find_map(|record| match record {
            Record::Measurement(m) if m.id == id => Some(m),
            _ => None,
        })
    }

    fn ramp_item(&mut self, steps: u64, tuned: &Tuned) -> Item {
        let device = self.bench.device();
        let bytes = match device.kind {
            DeviceKind::Gpu => (self.launch_bytes / 4).min(SET_GPU),
            DeviceKind::Cpu => (self.llc.unwrap_or(device.llc_bytes()) / 4).clamp(SET.0, SET.1).min(FLOPS / steps * 32),
        };
        // Whole groups of every setting, and bindings that every device has.
        let elements = (bytes.min(device.limits.binding_bytes) / 8).next_multiple_of(1 << 14);
        let problem = json!({"elements": elements, "steps": steps});
        Item { cache: Cache::Cold, tunables: tuned.clone(), ..self.item("ramp", "chains", problem, GLANCE) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ramp_goes_from_an_eighth_to_256_flop_a_byte_in_steps_of_a_half_at_most() {
        let steps = ladder();
        assert_eq!((steps.first(), steps.last()), (Some(&4), Some(&8192)));
        assert!(steps.windows(2).all(|pair| pair[0] < pair[1] && 2 * pair[1] <= 3 * pair[0]), "{steps:?}");
    }
}
