//! The roof of a device: what its ceilings and curves allow, as times.

use super::ceiling::ceiling_view;
use super::place::written_share;
use super::sweep::{Sweep, sweeps};
use super::{by_id, header, measurements};
use crate::error::Result;
use crate::op::stream::Kind;
use crate::plan::{DeviceInfo, Precision, Unit};
use crate::record::{CeilingKind, Clock, Header, Record, State};
use crate::stats::Estimate;
use crate::view::{CeilingView, SkipView};

/// Two levels' latencies lie further apart than this.
const TOLD_APART: f64 = 0.05;

/// A device's ceilings, curves and the few facts that placing needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Roof {
    ceilings: Vec<CeilingView>,
    sweeps: Vec<Sweep>,
    pub(super) compute_units: u32,
    /// A dispatch that does nothing: the launch probe's, or, where there is none, what the clocks were learnt with.
    pub(super) launch_ns: f64,
    pub(super) llc_bytes: u64,
}

/// What moving one byte costs.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ByteTime {
    /// ns a byte.
    pub(super) ns: Estimate,
    /// Where the mix is judged by another direction, or a ceiling behind it is suspect.
    pub(super) remarks: Vec<String>,
}

impl Roof {
    /// The roof that a file's records describe.
    ///
    /// # Errors
    /// [`crate::Error::BadFile`] where the header is missing or repeated, or two measurements have one id.
    pub fn from_records(records: &[Record]) -> Result<Roof> {
        Ok(Self::with_lost(records)?.0)
    }

    /// The roof, and the ceilings that no usable measurement stands behind.
    pub(super) fn with_lost(records: &[Record]) -> Result<(Roof, Vec<SkipView>)> {
        let (header, by_id) = (header(records)?, by_id(records)?);
        let (mut ceilings, mut lost) = (Vec::new(), Vec::new());
        for record in records {
            let Record::Ceiling(ceiling) = record else { continue };
            match ceiling_view(ceiling, |id| by_id.get(id).copied()) {
                Ok(valued) => ceilings.push(valued),
                Err(why) => {
                    let (op, variant) = ("ceiling".into(), ceiling.name.clone());
                    lost.push(SkipView { op, variant, label: None, precision: ceiling.precision, state: State::Skipped, why });
                }
            }
        }
        doubt_latencies(&mut ceilings);
        Ok((Roof::new(header, ceilings, sweeps(measurements(records))), lost))
    }

    /// A roof of these ceilings and curves on the device of this header.
    pub fn new(header: &Header, ceilings: Vec<CeilingView>, sweeps: Vec<Sweep>) -> Roof {
        Roof::on(&header.device, &header.clock, ceilings, sweeps)
    }

    /// The same on a device and its clocks.
    pub(super) fn on(device: &DeviceInfo, clock: &Clock, ceilings: Vec<CeilingView>, sweeps: Vec<Sweep>) -> Roof {
        let (compute_units, llc_bytes) = (device.compute_units, device.llc_bytes());
        let probed = ceilings.iter().find(|c| c.kind == CeilingKind::Latency && c.name == "launch");
        let launch_ns = probed.map_or(clock.launch_ns as f64, |c| c.value);
        Roof { ceilings, sweeps, compute_units, launch_ns, llc_bytes }
    }

    /// All ceilings, in the order of the file.
    pub fn ceilings(&self) -> &[CeilingView] {
        &self.ceilings
    }

    pub(super) fn into_ceilings(self) -> Vec<CeilingView> {
        self.ceilings
    }

    /// Time of a dispatch that does nothing, in ns.
    pub fn launch_ns(&self) -> f64 {
        self.launch_ns
    }

    /// The working-set curves.
    pub fn sweeps(&self) -> &[Sweep] {
        &self.sweeps
    }

    /// The best compute ceiling of a precision, of one unit or of any that counts FLOPs.
    pub fn compute(&self, precision: Precision, unit: Option<Unit>) -> Option<&CeilingView> {
        let fitting = |own: Option<Unit>| if unit.is_some() { own == unit } else { own != Some(Unit::Exp) };
        let fits = |c: &&CeilingView| c.kind == CeilingKind::Compute && c.precision == Some(precision) && fitting(c.unit);
        fastest(self.ceilings.iter().filter(fits))
    }

    /// The best bandwidth ceiling of a level in one direction.
    pub fn bandwidth(&self, level: &str, kind: Kind) -> Option<&CeilingView> {
        let fits = |c: &&CeilingView| {
            c.kind == CeilingKind::Bandwidth && c.level.as_deref() == Some(level) && c.direction.as_deref() == Some(kind.name())
        };
        fastest(self.ceilings.iter().filter(fits))
    }

    /// Caches found, smallest first: name and capacity.
    fn caches(&self) -> Vec<(&str, u64)> {
        let mut caches: Vec<(&str, u64)> = Vec::new();
        for ceiling in self.ceilings.iter().filter(|c| c.kind == CeilingKind::Bandwidth) {
            let (Some(level), Some(capacity)) = (ceiling.level.as_deref(), ceiling.capacity) else { continue };
            match caches.iter_mut().find(|c| c.0 == level) {
                Some(cache) => cache.1 = cache.1.max(capacity),
                None => caches.push((level, capacity)),
            }
        }
        caches.sort_by_key(|c| c.1);
        caches
    }

    /// Capacity of the largest cache found, in bytes.
    pub fn largest_cache(&self) -> Option<u64> {
        self.caches().last().map(|cache| cache.1)
    }

    /// The level that holds a footprint; `None` where no bandwidth ceiling was measured.
    pub fn level_of(&self, bytes: u64) -> Option<String> {
        let any = self.ceilings.iter().any(|c| c.kind == CeilingKind::Bandwidth);
        let cache = self.caches().into_iter().find(|c| c.1 >= bytes).map(|c| c.0.to_string());
        cache.or(any.then(|| "dram".to_string()))
    }

    /// The next level inwards, towards the arithmetic; `None` inside the innermost.
    pub fn inward(&self, level: &str) -> Option<String> {
        let caches = self.caches();
        let at = caches.iter().position(|c| c.0 == level).unwrap_or(caches.len());
        at.checked_sub(1).map(|inner| caches[inner].0.to_string())
    }

    /// Time in ns of so many bytes on memory beyond all caches, `written` of them written; `None` where it was not measured.
    pub fn memory_ns(&self, bytes: u64, written: u64) -> Option<f64> {
        self.at_level("dram", written_share(written, bytes)).map(|time| time.ns.value * bytes as f64)
    }

    /// The ceilings that [`Roof::memory_ns`] is read off: the directions on either side of this mix of reads and writes.
    pub fn memory_ceilings(&self, bytes: u64, written: u64) -> Vec<&CeilingView> {
        let by = mix(written_share(written, bytes), |kind| self.bandwidth("dram", kind).map(CeilingView::estimate));
        by.map_or(Vec::new(), |(_, kinds)| kinds.into_iter().filter_map(|kind| self.bandwidth("dram", kind)).collect())
    }

    /// At what pace memory went when its canary took so many ns a byte, against the moments in which the ceilings for this write share were
    /// traced; `None` where one of them has no canary.
    pub(super) fn memory_pace(&self, written: f64, canary_ns: f64) -> Option<f64> {
        let (traced, kinds) = mix(written, |kind| self.bandwidth("dram", kind).map(CeilingView::estimate))?;
        let then = |ceiling: &CeilingView| Some(ceiling.estimate().scaled(ceiling.canary_ns? / canary_ns));
        let (now, same) = mix(written, |kind| self.bandwidth("dram", kind).and_then(then))?;
        (same == kinds).then(|| traced.ns.value / now.ns.value)
    }

    /// Time of a byte at a level whose write share is `written` of 1.
    pub(super) fn at_level(&self, level: &str, written: f64) -> Option<ByteTime> {
        let mut time = mix(written, |kind| self.bandwidth(level, kind).map(CeilingView::estimate))?;
        for kind in &time.1 {
            if let Some(ceiling) = self.bandwidth(level, *kind).filter(|c| c.state == State::Suspect) {
                time.0.remarks.push(format!("the ceiling it is judged by is suspect: {}", ceiling.name));
            }
        }
        Some(time.0)
    }

    /// Time of a byte at a footprint, read off the working-set curves. No footprint is slower than memory: a point of a curve was measured
    /// in one moment, DRAM's ceilings in several.
    pub(super) fn at_footprint(&self, bytes: u64, written: f64) -> Option<ByteTime> {
        let of = |kind: Kind| {
            let curve = self.sweeps.iter().find(|s| s.kind == kind).and_then(|s| s.at(bytes))?;
            let memory = self.bandwidth("dram", kind).filter(|memory| memory.value > curve.value);
            Some(memory.map_or(curve, CeilingView::estimate))
        };
        Some(mix(written, of)?.0)
    }
}

/// A walk through a cache that takes as long as one through what lies behind it was not held by that cache, whatever streams found.
fn doubt_latencies(ceilings: &mut [CeilingView]) {
    let walks: Vec<usize> =
        (0..ceilings.len()).filter(|&at| ceilings[at].kind == CeilingKind::Latency && ceilings[at].level.is_some()).collect();
    for pair in walks.windows(2) {
        let behind = ceilings[pair[1]].value;
        let name = ceilings[pair[1]].level.clone().unwrap_or_default();
        let walk = &mut ceilings[pair[0]];
        if walk.value * (1.0 + TOLD_APART) > behind {
            walk.state = State::Suspect;
            walk.reasons.push(format!("it is no shorter than that of {name}, so this cache did not hold the walk"));
        }
    }
}

fn fastest<'a>(ceilings: impl Iterator<Item = &'a CeilingView>) -> Option<&'a CeilingView> {
    ceilings.filter(|c| c.value.is_finite() && c.value > 0.0).max_by(|a, b| a.value.total_cmp(&b.value))
}

/// Time of a byte of a mix with write share `written`, and the directions it was read off: linear in time per byte between
/// read (0), triad (1/3), copy (1/2) and write (1). An absent direction is bridged by its neighbours; past the outermost that is
/// there (no `read`, say) the nearest one judges, and a remark says so. `None` where there is none at all.
fn mix(written: f64, rate: impl Fn(Kind) -> Option<Estimate>) -> Option<(ByteTime, Vec<Kind>)> {
    let shares = [(0.0, Kind::Read), (1.0 / 3.0, Kind::Triad), (0.5, Kind::Copy), (1.0, Kind::Write)];
    let there: Vec<_> = shares.into_iter().filter_map(|(share, kind)| Some((share, kind, rate(kind)?.rate(1.0)))).collect();
    let after = there.partition_point(|anchor| anchor.0 < written);
    let exact = there.get(after).is_some_and(|anchor| anchor.0 - written < 1e-9);
    let (ns, kinds, outside) = match (after.checked_sub(1).map(|at| there[at]), there.get(after).copied()) {
        (_, Some((_, kind, time))) if exact => (time, vec![kind], false),
        (Some((from, first, a)), Some((to, second, b))) => {
            let part = (written - from) / (to - from);
            let between = |a: f64, b: f64| a + part * (b - a);
            let time = Estimate { value: between(a.value, b.value), low: between(a.low, b.low), high: between(a.high, b.high) };
            (time, vec![first, second], false)
        }
        (Some((share, kind, time)), None) | (None, Some((share, kind, time))) => (time, vec![kind], (share - written).abs() > 1e-9),
        (None, None) => return None,
    };
    let mut remarks = Vec::new();
    if outside {
        let percent = 100.0 * written;
        remarks.push(format!("{percent:.0} % of its bytes are written and no ceiling brackets that: judged by {}", kinds[0].name()));
    }
    Some((ByteTime { ns: ns.scaled(1e9), remarks }, kinds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_whose_walk_takes_as_long_as_memory_is_doubted() {
        let latency = |level: &str, value: f64| CeilingView {
            name: format!("{level} latency"),
            kind: CeilingKind::Latency,
            precision: None,
            unit: None,
            level: Some(level.into()),
            direction: None,
            capacity: None,
            value,
            low: value,
            high: value,
            canary_ns: None,
            state: State::Ok,
            reasons: Vec::new(),
        };
        let mut walks = [latency("l1", 1.0), latency("l2", 3.4), latency("l3", 144.0), latency("dram", 146.0)];
        doubt_latencies(&mut walks);
        let states = walks.each_ref().map(|walk| walk.state);
        assert_eq!(states, [State::Ok, State::Ok, State::Suspect, State::Ok]);
        assert!(walks[2].reasons[0].contains("no shorter than that of dram"), "{:?}", walks[2].reasons);
    }
}
