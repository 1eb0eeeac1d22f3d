//! The search for a kernel's tunables, before the kernels are measured. One set of tiles loses a fifth or more somewhere, so every problem
//! has a search of its own where that costs little: on the host, where settings are few, and as long as time lasts on a GPU, or in a study on the
//! host.

use std::cmp::Reverse;
use std::time::{Duration, Instant};

use super::Campaign;
use super::search::{GLANCE, candidates, fastest};
use crate::error::Result;
use crate::op;
use crate::plan::{DeviceInfo, DeviceKind, Language, Tuned};
use crate::record::Cache;
use crate::worker::{Goal, Item};

/// Longest that a GPU searches more than one problem of each kernel: settings are compiled once for all, but each is loaded and verified.
const OTHERS: Duration = Duration::from_secs(20);
/// The same in a study, which has little time.
const IN_STUDY: Duration = Duration::from_secs(5);
/// The same as a part of the time that a budget leaves.
const PART: u32 = 6;

/// Which problems of a kernel have a search of their own.
#[derive(Clone, Copy, PartialEq)]
enum Reach {
    /// The middle one.
    One,
    /// The middle one first, then the others, those with most work first, until this time is over.
    InTime(Duration),
    /// All.
    All,
}

impl Reach {
    fn of(device: &DeviceInfo, most: f64) -> Self {
        match (most.is_infinite(), device.kind, device.language) {
            (true, DeviceKind::Gpu, _) => Reach::InTime(OTHERS),
            (true, _, Language::Host) => Reach::All,
            (false, _, Language::Host) => Reach::InTime(IN_STUDY),
            // Compiling takes a quarter of a second or more for each setting, and a study has no time.
            _ => Reach::One,
        }
    }
}

impl Campaign<'_> {
    /// Gives the items of every variant that has tunables the fastest setting: each is tried for a moment, warm, and recorded as a
    /// candidate. What is found for the middle one of its problems, of `most` FLOPs at most, or else its least, holds for those that have
    /// no search of their own, as none of more FLOPs has. A setting with a wrong output never wins.
    pub(super) fn tune(&mut self, items: &mut [Item], most: f64) -> Result<()> {
        let device = self.device();
        self.prepare_kernels(items);
        let reach = Reach::of(&device, most);
        let mut open = distinct(items, |one, other| alike(one, other) && one.problem == other.problem);
        open.retain(|&at| settings(&items[at], &device).len() > 1);
        if reach == Reach::All {
            return self.tune_each(items, &open, None);
        }
        let mut kernels = distinct(items, alike);
        kernels.retain(|&at| settings(&items[at], &device).len() > 1);
        for at in kernels {
            let of = items[at].clone();
            let middle = middle(items.iter().filter(|item| alike(item, &of)), most)?.unwrap_or(&of).clone();
            self.settle(items, &middle, |item| alike(item, &of))?;
            open.retain(|&at| !alike(&items[at], &middle) || items[at].problem != middle.problem);
        }
        if let Reach::InTime(longest) = reach {
            let mut by_work = open.iter().map(|&at| Ok((work(&items[at])?, at))).collect::<Result<Vec<_>>>()?;
            by_work.retain(|&(flops, _)| flops as f64 <= most);
            by_work.sort_by_key(|&(flops, at)| (Reverse(flops), at));
            open = by_work.into_iter().map(|(_, at)| at).collect();
            self.tune_each(items, &open, Some(ends(Instant::now(), longest, self.scope.deadline)))?;
        }
        Ok(())
    }

    /// Searches the problem of each of these items, as long as there is time.
    fn tune_each(&mut self, items: &mut [Item], open: &[usize], ends: Option<Instant>) -> Result<()> {
        for &at in open {
            if ends.is_some_and(|ends| Instant::now() >= ends) {
                break;
            }
            let of = items[at].clone();
            self.settle(items, &of, |item| alike(item, &of) && item.problem == of.problem)?;
        }
        Ok(())
    }

    /// Searches the settings of a kernel on one problem, and gives these items the fastest; they keep theirs where none could be measured.
    fn settle(&mut self, items: &mut [Item], on: &Item, wanted: impl Fn(&Item) -> bool) -> Result<()> {
        if let Some(best) = self.fastest_setting(&settings(on, &self.device()), on)? {
            items.iter_mut().filter(|item| wanted(item)).for_each(|item| item.tunables = best.clone());
        }
        Ok(())
    }

    /// The fastest of these settings of one kernel.
    fn fastest_setting(&mut self, settings: &[Tuned], item: &Item) -> Result<Option<Tuned>> {
        self.watcher.stage(&format!("{}, {} candidates", item.named(), settings.len()), settings.len());
        let best = self.best_of(settings, |campaign, &tuned| {
            if campaign.late() {
                return Ok(None);
            }
            let trial = Item { tunables: tuned.clone(), cache: Cache::Warm, goal: Goal::Measure(GLANCE), ..item.clone() };
            let trial = campaign.numbered(trial);
            Ok(campaign.run_candidate(trial)?.as_ref().and_then(fastest).map(|time| -time))
        })?;
        Ok(best.cloned())
    }
}

/// Whether two items are of one kernel.
fn alike(one: &Item, other: &Item) -> bool {
    (&one.op, &one.variant, one.precision) == (&other.op, &other.variant, other.precision)
}

/// The first item of each kind.
fn distinct(items: &[Item], same: impl Fn(&Item, &Item) -> bool) -> Vec<usize> {
    (0..items.len()).filter(|&at| items[..at].iter().all(|earlier| !same(earlier, &items[at]))).collect()
}

fn settings(item: &Item, device: &DeviceInfo) -> Vec<Tuned> {
    candidates(&item.op, &item.variant, item.precision, device)
}

fn work(item: &Item) -> Result<u64> {
    Ok((op::find(&item.op)?.parse)(&item.problem)?.flops())
}

/// When such a search stops.
fn ends(now: Instant, longest: Duration, deadline: Option<Instant>) -> Instant {
    let left = deadline.map_or(longest, |deadline| deadline.saturating_duration_since(now) / PART);
    now + left.min(longest)
}

/// That with the middle amount of work among those of `most` FLOPs at most, or else the least: neither all overhead nor all of the budget.
fn middle<'a>(items: impl Iterator<Item = &'a Item>, most: f64) -> Result<Option<&'a Item>> {
    let mut own = items.map(|item| Ok((work(item)?, item))).collect::<Result<Vec<_>>>()?;
    own.sort_by_key(|&(flops, _)| flops);
    let short = own.partition_point(|&(flops, _)| flops as f64 <= most).max(1);
    Ok(own.get((short - 1) / 2).map(|&(_, item)| item))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::fake::{Fake, Script};
    use crate::backend::host;
    use crate::campaign::{Scope, Silent};
    use crate::measure::Engine;
    use crate::op::Size;
    use crate::plan::Precision;
    use crate::record::{Clock, Measurement};
    use crate::worker::{Answer, Bench, Runner};

    /// A GPU on which a setting is fast where its BN is the problem's `c_out`.
    struct Gpu {
        device: DeviceInfo,
        clock: Clock,
        like: Measurement,
        /// Problems that were searched, by their `c_out`.
        asked: Vec<u64>,
    }

    impl Gpu {
        fn new() -> Self {
            let fake = Fake::new(Script::default()).expect("a healthy device");
            let mut engine = Engine::new(&fake).expect("it has a clock");
            let op = (op::find("launch").expect("an op").parse)(&serde_json::json!({})).expect("legal");
            let like = engine.run(&Item::new(&*op, "counted", Goal::Measure(GLANCE))).expect("it is measured");
            let device = DeviceInfo { kind: DeviceKind::Gpu, language: Language::Cuda, ..host::device() };
            Gpu { device, clock: Clock::default(), like, asked: Vec::new() }
        }
    }

    impl Bench for Gpu {
        fn device(&self) -> &DeviceInfo {
            &self.device
        }
        fn clock(&self) -> &Clock {
            &self.clock
        }
        fn run(&mut self, item: &Item, _limit: Duration) -> Answer {
            let channels = item.problem["c_out"].as_u64().expect("a convolution");
            if self.asked.last() != Some(&channels) {
                self.asked.push(channels);
            }
            let time = if item.tunables.get("BN") as u64 == channels { 100 } else { 200 } + item.tunables.get("BM") as u64 / 128;
            Answer::Done(Measurement { samples_ns: vec![time; 12], launches: 1, tunables: item.tunables.clone(), ..self.like.clone() })
        }
    }

    /// Convolutions with 64, 128 and 96 channels.
    fn items() -> [Item; 3] {
        [64, 128, 96].map(|channels| {
            let problem = serde_json::json!({"n": 1, "h": 8, "w": 8, "c_in": 64, "c_out": channels, "k": 3, "padding": 1});
            let op = (op::find("conv2d").expect("an op").parse)(&problem).expect("legal");
            Item { precision: Precision::BF16, ..Item::new(&*op, "implicit_mma", Goal::Measure(GLANCE)) }
        })
    }

    #[test]
    fn each_problem_of_a_gpu_gets_its_own_setting_the_middle_one_being_searched_first() {
        let (mut gpu, mut items) = (Gpu::new(), items());
        Campaign::new(&mut gpu, &mut Silent, Scope::new(Size::Standard)).tune(&mut items, f64::INFINITY).expect("all is kept");
        assert_eq!(gpu.asked, [96, 128, 64], "the middle one, then those with most work first");
        assert_eq!([0, 1].map(|at| items[at].tunables.get("BN")), [64, 128]);
        assert!(items.iter().all(|item| item.tunables.get("BM") == 128), "{items:?}");
    }

    #[test]
    fn a_gpu_study_s_problems_and_those_without_time_share_the_middle_one_s_setting() {
        let (mut gpu, mut items) = (Gpu::new(), items());
        Campaign::new(&mut gpu, &mut Silent, Scope::new(Size::Standard)).tune(&mut items, 1e12).expect("all is kept");
        assert_eq!(gpu.asked, [96]);
        assert!(items.iter().all(|item| item.tunables == items[0].tunables && item.tunables.get("BM") == 128), "{items:?}");
        let before = items.clone();
        Campaign::new(&mut gpu, &mut Silent, Scope::new(Size::Standard))
            .tune_each(&mut items, &[0, 1], Some(Instant::now()))
            .expect("nothing to keep");
        assert_eq!((&items, &gpu.asked[..]), (&before, &[96][..]));
    }

    #[test]
    fn a_gpu_searches_all_problems_in_time_and_a_software_device_one() {
        let of = |kind, language, most| Reach::of(&DeviceInfo { kind, language, ..host::device() }, most);
        for language in [Language::Cuda, Language::Wgsl] {
            assert!(
                of(DeviceKind::Gpu, language, f64::INFINITY) == Reach::InTime(OTHERS) && of(DeviceKind::Gpu, language, 1e9) == Reach::One
            );
        }
        assert!(of(DeviceKind::Cpu, Language::Wgsl, f64::INFINITY) == Reach::One);
        assert!(
            of(DeviceKind::Cpu, Language::Host, f64::INFINITY) == Reach::All
                && of(DeviceKind::Cpu, Language::Host, 1e9) == Reach::InTime(IN_STUDY)
        );
    }

    #[test]
    fn a_search_takes_a_part_of_a_budget_and_never_more_than_its_own_time() {
        let now = Instant::now();
        let after = |seconds| now + Duration::from_secs(seconds);
        assert_eq!((ends(now, OTHERS, None), ends(now, IN_STUDY, None)), (after(20), after(5)));
        assert_eq!(ends(now, OTHERS, Some(after(3600))), after(20));
        assert_eq!(ends(now, OTHERS, Some(after(60))), after(10));
        assert_eq!(ends(now, OTHERS, now.checked_sub(Duration::from_secs(1))), now, "a budget that is spent leaves no time");
    }
}
