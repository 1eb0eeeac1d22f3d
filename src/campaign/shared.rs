//! The bandwidth of shared memory: a ceiling that no kernel is placed on, as none says what it asks of it.

use serde_json::json;

use super::search::{GLANCE, block_effort, walking};
use super::{Campaign, Winner};
use crate::error::Result;
use crate::plan::{DeviceInfo, Tuned};
use crate::record::Ceiling;
use crate::worker::{Goal, Item};

/// Passes of a launch: a millisecond on a GPU; fewer on software devices.
const PASSES: u64 = 4096;
const PASSES_SOFTWARE: u64 = 256;
/// Lanes that a processor of a GPU is given, in this many groups at most.
const LANES: u64 = 2048;
const GROUPS: u64 = 16;

impl Campaign<'_> {
    /// Finds the fastest configuration of the `shared` probe.
    pub(super) fn search_shared(&mut self) -> Result<()> {
        let device = self.device();
        let settings = walking("shared", "rotated", &device);
        if settings.is_empty() {
            return Ok(());
        }
        self.watcher.stage(&format!("shared memory, {} candidates", settings.len()), settings.len());
        let of = |tuned: Tuned| {
            let problem = problem(&tuned, &device);
            Item { tunables: tuned, ..self.item("shared", "rotated", problem, GLANCE) }
        };
        let items = settings.into_iter().map(of).collect();
        let Some(mut item) = self.best_item(items, |m| m.bytes_compulsory)? else { return Ok(()) };
        item.goal = Goal::Measure(block_effort(self.scope.size));
        let ceiling = Ceiling { level: Some("shared".into()), direction: Some("read".into()), ..self.ceiling("shared read", None) };
        self.winners.push(Winner { ceiling, item });
        Ok(())
    }
}

fn problem(tuned: &Tuned, device: &DeviceInfo) -> serde_json::Value {
    let software = device.is_software();
    let (each, passes) = match software {
        true => (1, PASSES_SOFTWARE),
        false => ((LANES / tuned.get("BLOCK") as u64).min(GROUPS), PASSES),
    };
    json!({"groups": device.compute_units as u64 * each, "passes": passes})
}
