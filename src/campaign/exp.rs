//! The rate of exponentials: chains as for `fma`, and as fused attention computes them.

use serde_json::json;

use super::Campaign;
use super::search::{GLANCE, candidates, rate};
use crate::error::Result;
use crate::plan::{DeviceKind, Language, Precision, Unit};
use crate::worker::Item;

/// Trips and exponentials of a trip: a launch of about a millisecond on any device but software ones, which get fewer trips.
const TRIPS: u64 = 512;
const TRIPS_SOFTWARE: u64 = 64;
const STEPS: u64 = 8;

impl Campaign<'_> {
    /// Finds the fastest configuration of the `exp` probe, whose ceiling only the limiter looks at.
    pub(super) fn search_exp(&mut self) -> Result<()> {
        let device = self.device();
        let asked = self.scope.precisions.is_empty() || self.scope.precisions.contains(&Precision::F32);
        let settings = candidates("exp", "chains", Precision::F32, &device);
        if !asked || settings.is_empty() {
            return Ok(());
        }
        self.watcher.stage(&format!("f32 exponentials, {} candidates", settings.len()), settings.len());
        let mut best: Option<(f64, Item)> = None;
        for tuned in settings {
            let of = |name: &str, default: u32| tuned.0.get(name).copied().unwrap_or(default) as u64;
            let (lanes, trips) = match (device.language, device.kind) {
                (Language::Host, _) => (64, TRIPS),
                (_, DeviceKind::Cpu) => (8 * of("BLOCK", 64), TRIPS_SOFTWARE),
                (_, DeviceKind::Gpu) => (2048, TRIPS),
            };
            let problem = json!({"elements": device.compute_units as u64 * lanes * of("CHAINS", 4), "trips": trips, "steps": STEPS});
            let item = Item { tunables: tuned, ..self.item("exp", "chains", problem, GLANCE) };
            if let Some(rate) = self.run_item(item.clone())?.as_ref().and_then(|m| rate(m, m.exponentials))
                && best.as_ref().is_none_or(|(best, _)| rate > *best)
            {
                best = Some((rate, item));
            }
        }
        match best {
            Some((_, item)) => self.crown(item, Precision::F32, Unit::Exp),
            None => Ok(()),
        }
    }
}
