//! The memory pass: for each kernel of a run, how much one set takes. Where it is a process that is watched, in a fresh one each; a device that
//! tells of its own memory is asked by the process that has just measured the kernel, which has nothing to start and its code loaded.

use super::{Campaign, limit};
use crate::plan::Language;
use crate::record::{Cache, Measurement, State};
use crate::units::Capacity;
use crate::worker::{Answer, Goal, Item};

/// By how much the measured peak may differ from the planned one: this share of it, and so many bytes.
const SHARE: f64 = 0.02;
const BYTES: u64 = 8 << 20;

/// What the pass said: bytes, where they are known, and a sentence, where they are not but should be.
#[derive(Debug, Clone, Default)]
pub(super) struct Peak {
    bytes: Option<u64>,
    why: Option<String>,
}

impl Campaign<'_> {
    /// Adds the peak memory to the measurement of a kernel of ours or a library: a user's has no scratch, so its set is its peak. Cold
    /// and warm rows share one pass. Whatever happens to it, the measurement stays as it is.
    pub(super) fn weigh(&mut self, item: &Item, measurement: &mut Measurement) {
        if !measurement.role.is_placed()
            || item.custom.is_some()
            || measurement.candidate
            || measurement.state == State::Wrong
            || self.late()
        {
            return;
        }
        // Of the record, not of the item, which may leave defaults out.
        let key = format!("{} {} {} {} {:?}", item.op, measurement.problem, item.variant, item.precision, measurement.tunables);
        if !self.peaks.contains_key(&key) {
            let alone = Item { cache: Cache::Warm, goal: Goal::Peak, ..item.clone() };
            let answer = match self.bench.device().language {
                Language::Cuda => Some(self.bench.run(&alone, limit(&alone.goal))),
                _ => self.bench.fresh(&alone, limit(&alone.goal)),
            };
            let Some(answer) = answer else { return };
            self.peaks.insert(key.clone(), said(answer));
        }
        let Some(peak) = self.peaks.get(&key) else { return };
        measurement.peak_bytes = peak.bytes;
        let differs = peak.bytes.and_then(|bytes| disagreement(bytes, measurement.set_bytes));
        measurement.reasons.extend(peak.why.clone().or(differs));
    }
}

fn said(answer: Answer) -> Peak {
    match answer {
        Answer::Done(measurement) => Peak { bytes: measurement.peak_bytes, why: None },
        // The user wants to stop: no word about this item.
        Answer::Failed(State::NotRun, _) => Peak::default(),
        Answer::Failed(_, why) => Peak { bytes: None, why: Some(format!("its peak memory is not known: {why}")) },
    }
}

/// A sentence with both numbers, where they are too far apart.
fn disagreement(measured: u64, planned: u64) -> Option<String> {
    let allowed = (SHARE * planned as f64) as u64 + BYTES;
    (measured.abs_diff(planned) > allowed)
        .then(|| format!("its peak memory was {}, where {} were planned", Capacity(measured), Capacity(planned)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_percent_and_eight_mebibytes_are_no_disagreement() {
        const MIB: u64 = 1 << 20;
        for (measured, planned) in [(0, 8 * MIB), (8 * MIB, 0), (110 * MIB, 100 * MIB), (90 * MIB, 100 * MIB)] {
            assert_eq!(disagreement(measured, planned), None, "{measured} {planned}");
        }
        let said = disagreement(111 * MIB, 100 * MIB);
        assert_eq!(said.as_deref(), Some("its peak memory was 111 MiB, where 100 MiB were planned"));
        assert!(disagreement(89 * MIB, 100 * MIB).is_some() && disagreement(0, 9 * MIB).is_some());
    }
}
