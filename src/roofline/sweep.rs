//! Bandwidth by working set, for each direction: the stream probes of a run joined into curves.
//!
//! Samples of equal configurations are pooled, and each point is the fastest configuration at its size, because a roof says
//! what the device can do.

use std::collections::BTreeMap;

use serde_json::Value;

use super::launch_times;
use crate::op::OpRole;
use crate::op::stream::Kind;
use crate::record::{Measurement, State};
use crate::stats::{Estimate, estimate};
use crate::view::Curve;

/// One working set of one direction.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Bytes of all arrays together.
    pub bytes: u64,
    /// Byte/s, from the 10th percentile of time.
    pub rate: Estimate,
    /// Variant that reached it.
    pub variant: String,
    /// Its measurements.
    pub ids: Vec<String>,
    /// Whether none of them is suspect.
    pub sound: bool,
}

/// A direction's points, ascending.
#[derive(Debug, Clone, PartialEq)]
pub struct Sweep {
    /// Which streams.
    pub kind: Kind,
    /// Points by working set.
    pub points: Vec<Point>,
}

impl Sweep {
    /// For the view.
    pub fn curve(&self) -> Curve {
        Curve { direction: self.kind.name().into(), points: self.pairs() }
    }

    pub(super) fn pairs(&self) -> Vec<(u64, f64)> {
        self.points.iter().map(|p| (p.bytes, p.rate.value)).collect()
    }

    /// Byte/s at a footprint: linear in log2(size) between points, the end points beyond them. Between two points the truth may
    /// lie anywhere from one to the other, so the interval spans both of theirs. `None` without points.
    pub fn at(&self, bytes: u64) -> Option<Estimate> {
        let after = self.points.partition_point(|p| p.bytes < bytes);
        let (Some(low), Some(high)) = (self.points[..after].last(), self.points.get(after)) else {
            return self.points.get(after).or(self.points.last()).map(|p| p.rate);
        };
        if high.bytes == bytes {
            return Some(high.rate);
        }
        let part = (bytes as f64 / low.bytes as f64).log2() / (high.bytes as f64 / low.bytes as f64).log2();
        Some(Estimate {
            value: low.rate.value + part * (high.rate.value - low.rate.value),
            low: low.rate.low.min(high.rate.low),
            high: low.rate.high.max(high.rate.high),
        })
    }
}

/// The working-set curves of all stream probes, one for each direction that has points, in the order of [`Kind::ALL`].
pub fn sweeps<'a>(measurements: impl IntoIterator<Item = &'a Measurement>) -> Vec<Sweep> {
    let mut best: BTreeMap<(usize, u64), Point> = BTreeMap::new();
    for (direction, point) in candidates(measurements) {
        keep_better(&mut best, (direction, point.bytes), point);
    }
    gathered(best)
}

fn keep_better<K: Ord>(best: &mut BTreeMap<K, Point>, key: K, point: Point) {
    match best.get_mut(&key) {
        Some(kept) if !better(&point, kept) => {}
        Some(kept) => *kept = point,
        None => {
            best.insert(key, point);
        }
    }
}

/// Sound before suspect, then fast before slow: an absurd time must not win a search.
fn better(a: &Point, b: &Point) -> bool {
    (a.sound, a.rate.value) > (b.sound, b.rate.value)
}

fn gathered(best: BTreeMap<(usize, u64), Point>) -> Vec<Sweep> {
    let mut sweeps: Vec<Sweep> = Vec::new();
    for ((direction, _), point) in best {
        let kind = Kind::ALL[direction];
        match sweeps.last_mut() {
            Some(sweep) if sweep.kind == kind => sweep.points.push(point),
            _ => sweeps.push(Sweep { kind, points: vec![point] }),
        }
    }
    sweeps
}

/// A direction (index in [`Kind::ALL`]), working set, variant, and tunables with the number of parts: what is pooled.
type Configuration = (usize, u64, String, String);

/// Every configuration measured, its samples pooled.
fn candidates<'a>(measurements: impl IntoIterator<Item = &'a Measurement>) -> Vec<(usize, Point)> {
    let mut pools: BTreeMap<Configuration, (Vec<f64>, Vec<String>, bool)> = BTreeMap::new();
    for m in measurements {
        let Some((direction, bytes)) = working_set(m) else { continue };
        let Ok(times) = launch_times(m) else { continue };
        let mut tuned: String = m.tunables.0.iter().map(|(name, value)| format!("{name}={value} ")).collect();
        tuned += &m.problem.get("parts").map(Value::to_string).unwrap_or_default();
        let pool = pools.entry((direction, bytes, m.variant.clone(), tuned)).or_insert_with(|| (Vec::new(), Vec::new(), true));
        pool.0.extend(times.iter().map(|ns| ns / m.bytes_compulsory as f64));
        pool.1.push(m.id.clone());
        pool.2 &= m.state != State::Suspect;
    }
    let point = |((direction, bytes, variant, _), (mut times, ids, sound)): (Configuration, (Vec<f64>, Vec<String>, bool))| {
        let ns_per_byte = estimate(&mut times, 0.1).filter(|e| e.low > 0.0)?;
        Some((direction, Point { bytes, rate: ns_per_byte.rate(1e9), variant, ids, sound }))
    };
    pools.into_iter().filter_map(point).collect()
}

/// Direction and bytes of a stream probe; read field by field, so that a newer program's additional fields do no harm.
fn working_set(m: &Measurement) -> Option<(usize, u64)> {
    if m.op != "stream" || m.role != OpRole::Probe || m.bytes_compulsory == 0 {
        return None;
    }
    let kind = m.problem.get("kind").and_then(Value::as_str)?;
    let direction = Kind::ALL.iter().position(|k| k.name() == kind)?;
    let (read, written) = Kind::ALL[direction].arrays();
    let elements = m.problem.get("elements").and_then(Value::as_u64)?;
    let bytes = elements.checked_mul(read + written)?.checked_mul(m.precision.storage().bytes())?;
    (bytes > 0).then_some((direction, bytes))
}
