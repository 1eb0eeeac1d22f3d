//! A user's kernel beside ours: `try`.

use std::time::Instant;

use super::search::GLANCE;
use super::{Campaign, Scope, kernels};
use crate::error::{Error, Result};
use crate::op::Size;
use crate::plan::{Custom, DeviceInfo, Plan};
use crate::record::{Cache, Record, State};
use crate::worker::{Goal, Item};

impl Scope {
    /// A user's kernel laid out for every problem in scope, in its one precision.
    ///
    /// # Errors
    /// Those of [`Custom::plan`], and [`Error::Unsupported`] where the device lacks the precision.
    pub fn plans(&self, custom: &Custom, device: &DeviceInfo) -> Result<Vec<Plan>> {
        let [precision] = self.precisions.as_slice() else {
            return Err(Error::usage(format!("{} is tried in one precision; give one", custom.name)));
        };
        if !device.precisions.contains(precision) {
            let have: Vec<_> = device.precisions.iter().map(|p| p.name()).collect();
            return Err(Error::unsupported(&custom.name, format!("precision {precision}"), have.join(", ")));
        }
        let problems = self.problems(device)?.into_iter();
        problems.map(|(entry, problem)| custom.plan(&*(entry.parse)(&problem)?, *precision, device)).collect()
    }
}

impl Campaign<'_> {
    /// A user's kernel behind our variants of its op, problem by problem, under the roof in these records ([`super::taken_over`]) or, where there
    /// are none, amid the roofs that placing needs, traced in a hurry. A first look comes before all else: a kernel that does not pass it is
    /// told with its reason, and ours go on alone.
    ///
    /// # Errors
    /// As [`Campaign::trace`], and those of [`Scope::plans`].
    pub fn attempt(mut self, custom: &Custom, recorded: &[Record]) -> Result<Vec<Record>> {
        let device = self.device();
        let plans = self.scope.plans(custom, &device)?;
        self.own = Some(custom.clone());
        let (mut items, mut look) = (Vec::new(), None::<(u64, Item)>);
        for plan in &plans {
            let scope = Scope { problem: Some((plan.op.into(), plan.problem.clone())), ..self.scope.clone() };
            items.extend(scope.wanted(&device)?.into_iter().map(|wanted| self.kernel_item(wanted)));
            let item = self.own_item(custom, plan);
            if look.as_ref().is_none_or(|(least, _)| plan.cost.flops < *least) {
                look = Some((plan.cost.flops, item.clone()));
            }
            items.push(item);
        }
        self.scope.size = Size::Small;
        let passed = look.map_or(Ok(false), |(_, item)| self.look(item));
        let outcome = passed.and_then(|passed| {
            items.retain(|item| passed || item.custom.is_none());
            if recorded.is_empty() { self.amid_roofs(items) } else { self.under_recorded_roof(items, recorded) }
        });
        self.close(outcome)
    }

    fn under_recorded_roof(&mut self, mut items: Vec<Item>, recorded: &[Record]) -> Result<()> {
        self.take_over(recorded)?;
        self.tune(&mut items, f64::INFINITY)?;
        let started = Instant::now();
        self.kernels(&items, 1)?;
        self.repeat_suspects(started.elapsed())
    }

    fn own_item(&mut self, custom: &Custom, plan: &Plan) -> Item {
        let plain = self.item(plan.op, &custom.name, plan.problem.clone(), kernels::effort(self.kernel_size));
        let tunables = custom.tile.clone();
        Item { precision: plan.precision, tunables, cache: Cache::Cold, custom: Some(custom.clone()), ..plain }
    }

    /// Whether a kernel compiles, ends and gives a right output. What does not is a row or a skip; what does is no row yet.
    fn look(&mut self, item: Item) -> Result<bool> {
        self.watcher.stage(&format!("a first look at {}", item.variant), 1);
        let item = self.numbered(Item { goal: Goal::Measure(GLANCE), ..item });
        let looked = self.run_kept(item, |measured| measured.state != State::Wrong)?;
        Ok(looked.is_some_and(|measured| measured.candidate))
    }
}
