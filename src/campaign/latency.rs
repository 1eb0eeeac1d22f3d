//! Times that are no rates: what a dispatch costs.

use serde_json::json;

use super::search::{GLANCE, block_effort, candidates, fastest};
use super::{Campaign, Winner};
use crate::error::Result;
use crate::plan::Precision;
use crate::record::{Ceiling, CeilingKind};
use crate::worker::{Goal, Item};

/// Dispatches of a call at the two ends of the slope.
const FEW: u64 = 2;
const MANY: u64 = 258;

impl Campaign<'_> {
    /// Finds the winners of the probes that bound no roof but a kernel's time.
    pub(super) fn search_others(&mut self) -> Result<()> {
        self.search_exp()?;
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
}
