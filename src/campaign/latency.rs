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
        let mut best: Option<(f64, Item, String)> = None;
        for tuned in settings {
            let of = |campaign: &mut Self, dispatches: u64| {
                let problem = json!({"dispatches": dispatches});
                Item { tunables: tuned.clone(), ..campaign.item("launch", "counted", problem, GLANCE) }
            };
            let (few, many) = (of(self, FEW), of(self, MANY));
            let Some(base) = self.run_item(few)? else { continue };
            let item = many.clone();
            if let (Some(time), Some(less)) = (self.run_item(many)?.as_ref().and_then(fastest), fastest(&base))
                && best.as_ref().is_none_or(|(least, ..)| time - less < *least)
            {
                best = Some((time - less, item, base.id));
            }
        }
        let Some((_, mut item, base)) = best else { return Ok(()) };
        item.goal = Goal::Measure(block_effort(self.scope.size));
        let ceiling = Ceiling { kind: CeilingKind::Latency, base: vec![base], ..self.ceiling("launch", None) };
        self.winners.push(Winner { ceiling, item });
        Ok(())
    }
}
