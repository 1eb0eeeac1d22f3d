//! The rate of exponentials: chains as for `fma`, and as fused attention computes them.

use serde_json::json;

use super::Campaign;
use super::search::{GLANCE, candidates, chains};
use crate::error::Result;
use crate::plan::{Precision, Tuned, Unit};
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
        let software = device.is_software();
        let trips = if software { TRIPS_SOFTWARE } else { TRIPS };
        let of = |tuned: Tuned| {
            let problem = json!({"elements": chains(&tuned, &device), "trips": trips, "steps": STEPS});
            Item { tunables: tuned, ..self.item("exp", "chains", problem, GLANCE) }
        };
        let items = settings.into_iter().map(of).collect();
        match self.best_item(items, |m| m.exponentials)? {
            Some(item) => self.crown(item, Precision::F32, Unit::Exp),
            None => Ok(()),
        }
    }
}
