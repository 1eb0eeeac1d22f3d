//! The energy pass: after its timing, each placed kernel is launched back to back under the device's counter.

use std::time::Instant;

use super::{Campaign, limit};
use crate::backend::meter::UNREADABLE;
use crate::record::{Energy, Measurement, State};
use crate::worker::{Answer, Goal, Item};

/// What the pass said: energy, or a sentence why there is none.
pub(super) type Said = Result<Energy, Option<String>>;

impl Campaign<'_> {
    /// Adds the energy of a launch to the measurement of a placed kernel, where it was asked for. A kernel that is measured again keeps
    /// the first pass. Whatever happens to it, the measurement stays as it is.
    pub(super) fn spend(&mut self, item: &Item, measurement: &mut Measurement) {
        if !self.scope.energy || !measurement.role.is_placed() || measurement.candidate || measurement.state == State::Wrong {
            return;
        }
        let m = &*measurement;
        let key = format!("{} {} {} {} {:?} {:?}", m.op, m.problem, m.variant, m.precision, m.tunables, m.cache);
        if !self.energies.contains_key(&key) {
            let said = match self.late() {
                true => Err(Some(format!("{UNREADABLE}the budget ended before its pass; raise --budget"))),
                false => self.pass(item),
            };
            self.energies.insert(key.clone(), said);
        }
        match self.energies.get(&key) {
            Some(Ok(energy)) => measurement.energy = Some(energy.clone()),
            Some(Err(why)) => measurement.reasons.extend(why.clone()),
            None => {}
        }
    }

    fn pass(&mut self, item: &Item) -> Said {
        let started = Instant::now();
        let alone = Item { goal: Goal::Energy, ..item.clone() };
        let answer = self.bench.run(&alone, limit(&alone.goal));
        // The time of a study is that of its question.
        self.ends = self.ends.map(|ends| ends + started.elapsed());
        said(answer)
    }
}

fn said(answer: Answer) -> Said {
    match answer {
        Answer::Done(Measurement { energy: Some(energy), verification: Some(_), .. }) => Ok(energy),
        // The user wants to stop: no word about this item.
        Answer::Failed(State::NotRun, _) => Err(None),
        Answer::Failed(_, why) if why.starts_with(UNREADABLE) => Err(Some(why)),
        Answer::Failed(_, why) => Err(Some(format!("{UNREADABLE}{why}"))),
        Answer::Done(_) => Err(Some(format!("{UNREADABLE}its pass brought none; run again"))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::backend::fake::Fake;
    use crate::campaign::{Scope, Silent};
    use crate::measure::Engine;
    use crate::op::{self, Size};
    use crate::plan::DeviceInfo;
    use crate::record::{Cache, Clock};
    use crate::worker::{Bench, Effort, Local};

    /// The fake device in this process, whose energy passes end otherwise.
    struct Passes<'a> {
        local: Local<'a>,
        end: fn(Answer) -> Answer,
        made: usize,
    }

    impl Bench for Passes<'_> {
        fn device(&self) -> &DeviceInfo {
            self.local.device()
        }
        fn clock(&self) -> &Clock {
            self.local.clock()
        }
        fn run(&mut self, item: &Item, limit: Duration) -> Answer {
            let answer = self.local.run(item, limit);
            self.made += usize::from(item.goal == Goal::Energy);
            if item.goal == Goal::Energy { (self.end)(answer) } else { answer }
        }
    }

    /// What a campaign adds to a cold measurement, taken twice, and a warm one, and how many passes it makes for them.
    fn added(end: fn(Answer) -> Answer, late: bool, energy: bool) -> (Vec<Measurement>, usize) {
        let fake = Fake::scripted(r#"{"energy": {}}"#).expect("a script");
        let mut bench = Passes { local: Local::new(Box::new(Engine::new(&fake).expect("clocks"))), end, made: 0 };
        let op = (op::find("matmul").expect("an op").parse)(&serde_json::json!({"m": 8, "n": 8, "k": 8})).expect("a problem");
        let cold = Item::new(&*op, "naive", Goal::Measure(Effort::default()));
        let items = [cold.clone(), cold.clone(), Item { cache: Cache::Warm, ..cold }];
        let (ops, variants, precisions) = (Vec::new(), Vec::new(), Vec::new());
        let deadline = late.then(Instant::now);
        let scope = Scope { size: Size::Small, seed: 1, deadline, ops, variants, precisions, problem: None, energy };
        let mut silent = Silent;
        let mut campaign = Campaign::new(&mut bench, &mut silent, scope);
        let ends = Instant::now();
        campaign.ends = Some(ends);
        let mut measured = Vec::new();
        for item in items {
            let Answer::Done(before) = campaign.bench.run(&item, limit(&item.goal)) else { panic!("the fake device measures") };
            let mut after = before.clone();
            campaign.spend(&item, &mut after);
            let same = Measurement { energy: None, reasons: before.reasons.clone(), ..after.clone() };
            assert_eq!(same, before, "a pass adds energy or a reason, nothing else");
            measured.push(after);
        }
        let moved = campaign.ends > Some(ends);
        assert_eq!(moved, bench.made > 0, "a pass takes nothing of a study's time");
        (measured, bench.made)
    }

    fn reasons(measured: &[Measurement]) -> Vec<&str> {
        assert!(measured.iter().all(|m| m.energy.is_none()), "{measured:?}");
        measured.iter().flat_map(|m| &m.reasons).map(String::as_str).collect()
    }

    #[test]
    fn cold_and_warm_have_a_pass_each_and_what_is_measured_again_keeps_its_own() {
        let (measured, made) = added(|answer| answer, false, true);
        let [cold, again, warm] = &measured[..] else { panic!("three") };
        assert!(made == 2 && cold.energy.is_some() && cold.energy == again.energy && warm.energy.is_some(), "{made}: {measured:?}");
    }

    #[test]
    fn whatever_a_pass_says_the_measurement_stays_as_it_is() {
        let died = |_| Answer::Failed(State::DeviceLost, "its process died".into());
        assert_eq!(reasons(&added(died, false, true).0), ["energy is not available: its process died"; 3]);
        let closed = |_| Answer::Failed(State::Unsupported, format!("{UNREADABLE}it is locked; find the key"));
        assert_eq!(reasons(&added(closed, false, true).0), ["energy is not available: it is locked; find the key"; 3]);
        let stopped = |_| Answer::Failed(State::NotRun, "somebody pressed a key".into());
        assert_eq!(reasons(&added(stopped, false, true).0), [""; 0]);
        let empty = |answer| match answer {
            Answer::Done(m) => Answer::Done(Measurement { verification: None, ..m }),
            other => other,
        };
        assert_eq!(reasons(&added(empty, false, true).0), ["energy is not available: its pass brought none; run again"; 3]);
    }

    #[test]
    fn passes_count_against_the_budget_and_nobody_gets_one_unasked() {
        let (unasked, none) = added(|answer| answer, false, false);
        assert_eq!((reasons(&unasked), none), (Vec::new(), 0));
        let (late, none) = added(|answer| answer, true, true);
        assert_eq!((reasons(&late), none), (vec!["energy is not available: the budget ended before its pass; raise --budget"; 3], 0));
    }
}
