//! Which kernels a run measures, and for how long.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Campaign, Scope};
use crate::backend;
use crate::error::{Error, Result};
use crate::op::{self, Entry, OpRole, Size};
use crate::plan::{DeviceInfo, DeviceKind, Language, Plan, Precision, VariantInfo};
use crate::record::{Cache, State};
use crate::worker::{Effort, Goal, Item};

/// A launch predicted to pass this is left out where there is no watchdog that would end it earlier.
const LONGEST_NS: f64 = 10e9;
/// The same where a study's time is short: an item launches it eight times at least.
const LONGEST_STUDY_NS: f64 = 1.5e9;

/// Seconds that the kernels of a standard run take in the mean, loading and verifying included: what some leave, others may take, and so many
/// more. A noisy machine, on which nothing settles, would make the run twice as long.
const MEAN: f64 = 1.0;
const MORE: f64 = 10.0;
/// The least that an item is given then.
const LEAST: Duration = Duration::from_millis(600);

/// The kernels of a standard run of a GPU, which has many more, end so long after the run began.
const WHOLE_GPU: Duration = Duration::from_secs(100);
/// The least that an item of it is given: launches there take the same time within a thousandth.
const LEAST_GPU: Duration = Duration::from_millis(150);

/// How items share time.
struct Pace {
    gpu: bool,
    /// Items in all.
    items: usize,
    /// What a GPU's may take together.
    share: Duration,
    /// What items were given of their budgets so far.
    given: Duration,
}

impl Pace {
    /// What the next item may take of its budget, when so many are done in this time.
    fn next(&mut self, budget: Duration, done: usize, taken: Duration) -> Duration {
        let (least, left) = match self.gpu {
            // Loading and verifying come on top of budgets.
            true => {
                let beside = taken.saturating_sub(self.given) / done.max(1) as u32;
                (LEAST_GPU, (self.share.saturating_sub(taken) / (self.items - done).max(1) as u32).saturating_sub(beside))
            }
            false => (LEAST, Duration::from_secs_f64(MORE + MEAN * (done + 1) as f64).saturating_sub(taken)),
        };
        let given = left.clamp(least.min(budget), budget);
        self.given += given;
        given
    }
}

/// Effort of one kernel.
pub(super) fn effort(size: Size) -> Effort {
    let seconds = match size {
        Size::Small => 1,
        Size::Standard => 3,
        Size::Large => 10,
    };
    Effort { samples: 10, least_ns: 300_000_000, budget_ns: seconds * 1_000_000_000, canary: true }
}

/// One kernel that a scope asks for.
pub struct Wanted {
    op: &'static str,
    problem: Value,
    variant: &'static str,
    precision: Precision,
    cache: Cache,
}

impl Scope {
    /// Every kernel in scope on this device: each problem of the grid × variant × precision, cold; on the host, where a working set can
    /// live in a cache that this process owns, warm as well.
    ///
    /// # Errors
    /// [`Error::Usage`] where there is none, and those of the problem's own fields.
    pub fn kernels(&self, device: &DeviceInfo) -> Result<Vec<Wanted>> {
        let wanted = self.wanted(device)?;
        match wanted.is_empty() {
            false => Ok(wanted),
            true => Err(Error::usage(format!(
                "nothing to measure: no variant in scope has a {:?} source; see `rooftrace verify` for the list",
                device.language
            ))),
        }
    }

    /// The same, where none is an answer too.
    pub(super) fn wanted(&self, device: &DeviceInfo) -> Result<Vec<Wanted>> {
        let mut wanted = Vec::new();
        for (entry, problem) in self.problems(device)? {
            let variants = (entry.parse)(&problem)?.variants();
            let references = self.precisions_of_references(&variants, device.language);
            let first = variants.first().map_or("", |v| v.name);
            for variant in variants {
                if !self.variants.is_empty() && !self.variants.iter().any(|v| v == variant.name) {
                    continue;
                }
                let precisions = match variant.library() {
                    Some(_) => references.clone(),
                    None => self.precisions_of(&variant, device.language),
                };
                for precision in precisions.into_iter().filter(|&p| variant.has(device.language, p)) {
                    // The first rung is there to be compared with, and cold is the default: it is not measured twice.
                    let warm = device.language == Language::Host && variant.name != first;
                    let caches: &[Cache] = if warm { &[Cache::Cold, Cache::Warm] } else { &[Cache::Cold] };
                    for &cache in caches {
                        wanted.push(Wanted { op: entry.name, problem: problem.clone(), variant: variant.name, precision, cache });
                    }
                }
            }
        }
        Ok(wanted)
    }

    /// Those asked for; else f32, or, of a variant that knows no f32, the first of each storage width: f16 and bf16 take the same time.
    fn precisions_of(&self, variant: &VariantInfo, language: Language) -> Vec<Precision> {
        if !self.precisions.is_empty() {
            return self.precisions.clone();
        }
        let all = variant.source(language).map_or(&[][..], |source| source.precisions);
        if all.contains(&Precision::F32) {
            return vec![Precision::F32];
        }
        let width = |p: &Precision| p.storage().bytes();
        let first = |(i, p): &(usize, &Precision)| all[..*i].iter().all(|earlier| width(earlier) != width(p));
        all.iter().enumerate().filter(first).map(|(_, &p)| p).collect()
    }

    /// Those asked for; else all that kernels of ours are measured in, so that each has its reference beside it.
    fn precisions_of_references(&self, variants: &[VariantInfo], language: Language) -> Vec<Precision> {
        let ours = variants.iter().filter(|variant| variant.library().is_none());
        let measured: Vec<Precision> = ours.flat_map(|variant| self.precisions_of(variant, language)).collect();
        Precision::ALL.into_iter().filter(|precision| measured.contains(precision)).collect()
    }

    pub(super) fn problems(&self, device: &DeviceInfo) -> Result<Vec<(&'static Entry, Value)>> {
        if let Some((name, problem)) = &self.problem {
            return Ok(vec![(op::find(name)?, problem.clone())]);
        }
        let wanted = |entry: &&Entry| entry.role == OpRole::Kernel && (self.ops.is_empty() || self.ops.iter().any(|o| o == entry.name));
        let of = |entry: &'static Entry| entry.grid(self.size, device).into_iter().map(move |problem| (entry, problem));
        Ok(op::OPS.iter().filter(wanted).flat_map(of).collect())
    }
}

/// What a plan needs that no problem changes, and this device or machine has not.
pub(super) fn lacks(plan: &Plan, device: &DeviceInfo) -> Option<String> {
    let feature = plan.missing(device);
    let needs =
        |feature| format!("{}/{} in {} needs the feature {feature}, and this device has none", plan.op, plan.variant, plan.precision);
    let unknown = || {
        let listed: Vec<_> = device.precisions.iter().map(|p| p.name()).collect();
        let named = format!("{}/{}", plan.op, plan.variant);
        let foreign = !device.precisions.contains(&plan.precision);
        foreign.then(|| Error::unsupported(named, format!("precision {}", plan.precision), listed.join(", ")).to_string())
    };
    let absent = || plan.library().and_then(|call| backend::absent(call.library)).map(|why| why.to_string());
    feature.map(needs).or_else(unknown).or_else(absent)
}

impl Campaign<'_> {
    /// The kernels in scope as items. A variant that needs what the device lacks is left out once, not problem by problem.
    pub(super) fn kernel_items(&mut self) -> Result<Vec<Item>> {
        let device = self.device();
        let (mut items, mut lacking) = (Vec::new(), Vec::new());
        for wanted in self.scope.kernels(&device)? {
            let item = self.kernel_item(wanted);
            let op = (op::find(&item.op)?.parse)(&item.problem)?;
            let plan = op.plan(&item.variant, item.precision, device.language, &item.tunables, &device);
            // No search is to try its settings on a problem that it refuses.
            if let Err(why @ Error::Unsupported { .. }) = plan {
                self.skip(&item, State::Unsupported, why.to_string())?;
                continue;
            }
            let Some(why) = plan.ok().and_then(|plan| lacks(&plan, &device)) else {
                items.push(item);
                continue;
            };
            let key = (item.op.clone(), item.variant.clone(), item.precision);
            if !lacking.contains(&key) {
                self.skip(&item, State::Unsupported, why)?;
                lacking.push(key);
            }
        }
        Ok(items)
    }

    pub(super) fn kernel_item(&mut self, w: Wanted) -> Item {
        Item { precision: w.precision, cache: w.cache, ..self.item(w.op, w.variant, w.problem, effort(self.kernel_size)) }
    }

    /// Measures these, leaving out launches predicted to last too long from a smaller problem of the same variant. `share` is how many
    /// times as much is still to be measured, these included.
    pub(super) fn kernels(&mut self, items: &[Item], share: u32) -> Result<()> {
        self.watcher.stage("kernels", items.len());
        let longest = self.bench.device().limits.launch_ns.map_or(LONGEST_NS, |ns| ns as f64);
        let longest = if self.ends.is_some() { longest.min(LONGEST_STUDY_NS) } else { longest };
        let mut slowest: HashMap<(String, String, Precision), f64> = HashMap::new();
        let (started, hurried) = (Instant::now(), (self.kernel_size, self.scope.size) == (Size::Standard, Size::Standard));
        let gpu = self.bench.device().kind == DeviceKind::Gpu;
        let mut pace =
            Pace { gpu, items: items.len(), share: WHOLE_GPU.saturating_sub(self.began.elapsed()) / share, given: Duration::ZERO };
        for (done, item) in items.iter().enumerate() {
            if self.over() {
                self.skip(item, State::Skipped, "the time of this size ended before it; --size large has all".into())?;
                continue;
            }
            let key = (item.op.clone(), item.variant.clone(), item.precision);
            let flops = (op::find(&item.op)?.parse)(&item.problem)?.flops() as f64;
            if let Some(per_flop) = slowest.get(&key)
                && per_flop * flops > longest
            {
                let why = format!(
                    "one launch would take over the {:.1} s allowed here, as a smaller problem predicts ({:.1} s)",
                    longest / 1e9,
                    per_flop * flops / 1e9
                );
                self.skip(item, State::Skipped, why)?;
                continue;
            }
            let mut item = self.numbered(Item { llc_bytes: self.llc, ..item.clone() });
            if let (Goal::Measure(effort), true) = (&mut item.goal, hurried) {
                effort.budget_ns = pace.next(Duration::from_nanos(effort.budget_ns), done, started.elapsed()).as_nanos() as u64;
            }
            if let Some(measured) = self.run_item(item)?
                && let Some(time) = super::search::fastest(&measured)
            {
                slowest.insert(key, time / flops.max(1.0));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::host;

    fn wanted(op: &str, precisions: &[Precision], variants: &[&str]) -> Vec<(&'static str, Precision)> {
        let device = DeviceInfo { language: Language::Cuda, ..host::device() };
        let scope = Scope {
            size: Size::Small,
            seed: 1,
            deadline: None,
            ops: vec![op.into()],
            variants: variants.iter().map(|v| v.to_string()).collect(),
            precisions: precisions.to_vec(),
            problem: Some((op.into(), Value::Object(Default::default()))),
            energy: false,
        };
        scope.kernels(&device).expect("there are some").iter().map(|w| (w.variant, w.precision)).collect()
    }

    #[test]
    fn items_share_time_and_none_gets_less_than_its_least_or_more_than_its_budget() {
        let [budget, second] = [3, 1].map(Duration::from_secs);
        let paced =
            |budget, done, taken| Pace { gpu: false, items: 200, share: Duration::ZERO, given: Duration::ZERO }.next(budget, done, taken);
        assert_eq!(paced(budget, 0, Duration::ZERO), budget, "the first has all it wants");
        assert_eq!(paced(budget, 99, 108 * second), 2 * second, "others were slow");
        assert_eq!(paced(budget, 99, 120 * second), LEAST, "others were slower");
        assert_eq!(paced(second / 2, 99, 120 * second), second / 2, "a budget below the least stays");
    }

    #[test]
    fn items_of_a_gpu_share_what_its_run_may_last_and_what_comes_beside_them_is_learnt() {
        let [budget, second] = [3, 1].map(Duration::from_secs);
        let mut pace = Pace { gpu: true, items: 100, share: 50 * second, given: Duration::ZERO };
        assert_eq!(pace.next(budget, 0, Duration::ZERO), second / 2, "a hundredth");
        // Ten were given half a second each and took 0.7: 43 s are left for 90, less 0.2 each.
        pace.given = 5 * second;
        let next = pace.next(budget, 10, 7 * second);
        assert!((0.2777..0.2779).contains(&next.as_secs_f64()), "{next:?}");
        assert_eq!(pace.next(budget, 90, 60 * second), LEAST_GPU, "the time is over");
        assert_eq!(Pace { gpu: true, items: 1, share: 50 * second, given: Duration::ZERO }.next(budget, 0, Duration::ZERO), budget);
    }

    #[test]
    fn references_are_measured_in_the_precisions_of_ours() {
        use Precision::*;
        let only = |op, precisions: &[_]| wanted(op, precisions, &["cublas", "cublaslt", "cudnn"]);
        assert_eq!(only("matmul", &[]), [("cublas", F32), ("cublaslt", BF16), ("cublaslt", TF32)]);
        assert_eq!(only("conv2d", &[]), [("cudnn", F32), ("cudnn", BF16), ("cudnn", TF32)]);
        assert_eq!(only("depthwise", &[]), [("cudnn", F32)]);
        assert_eq!(only("depthwise", &[F16, F64]), [("cudnn", F16)]);
        let all = wanted("matmul", &[], &[]);
        assert!(all.contains(&("mma", BF16)) && all.ends_with(&[("cublaslt", BF16), ("cublaslt", TF32)]), "{all:?}");
    }
}
