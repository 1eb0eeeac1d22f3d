//! A ceiling's value from the measurements it stands on, and the ceilings that a run's probes suggest.
//!
//! A ceiling says what the device can do: work over the 10th percentile of time, pooled over the blocks in which its winner was
//! measured. Samples of one block are not independent of each other, so the interval is widened to hold every block's own value.

use std::collections::BTreeMap;

use serde_json::Map;

use super::level::{Level, levels};
use super::sweep::{Point, Sweep, better, sweeps, sweeps_by_variant};
use super::{launch_times, state_name};
use crate::op::OpRole;
use crate::op::stream::Kind;
use crate::plan::{DeviceInfo, Precision, Unit};
use crate::record::{Ceiling, CeilingKind, Measurement, State};
use crate::stats::{Estimate, estimate};
use crate::units::Capacity;
use crate::view::CeilingView;

/// Blocks that lie further apart make a ceiling suspect.
const APART: f64 = 0.05;

/// A ceiling with its value and 95 % interval. `find` looks a measurement up by id.
///
/// # Errors
/// One sentence where no measurement it names can be used.
pub fn ceiling_view<'a>(ceiling: &Ceiling, find: impl Fn(&str) -> Option<&'a Measurement>) -> Result<CeilingView, String> {
    let (mut state, mut reasons) = (ceiling.state, ceiling.reasons.clone());
    let mut blocks: Vec<Vec<f64>> = Vec::new();
    for id in &ceiling.from {
        let found = find(id).ok_or_else(|| format!("{id} is not in the file")).and_then(|m| block(ceiling.kind, m).map(|b| (b, m.state)));
        match found {
            Ok((times, measured)) => {
                if measured != State::Ok {
                    state = worse(state, measured);
                    reasons.push(format!("{id} is {}", state_name(measured)));
                }
                blocks.push(times);
            }
            Err(why) => {
                state = State::Suspect;
                reasons.push(why);
            }
        }
    }
    let Some((time, apart)) = pooled(&mut blocks) else {
        reasons.insert(0, format!("the ceiling '{}' stands on no usable measurement", ceiling.name));
        return Err(reasons.join("; "));
    };
    if apart > APART {
        state = State::Suspect;
        reasons.push(format!("its {} blocks lie {:.1} % apart", blocks.len(), 100.0 * apart));
    }
    let value = if ceiling.kind == CeilingKind::Latency { time } else { time.rate(1e9) };
    Ok(CeilingView {
        name: ceiling.name.clone(),
        kind: ceiling.kind,
        precision: ceiling.precision,
        unit: ceiling.unit,
        level: ceiling.level.clone(),
        direction: ceiling.direction.clone(),
        capacity: ceiling.capacity,
        value: value.value,
        low: value.low,
        high: value.high,
        state,
        reasons,
    })
}

fn worse(a: State, b: State) -> State {
    if a == State::Suspect || b == State::Suspect { State::Suspect } else { b }
}

/// Times of one unit of work in ns: a FLOP, a byte, or for a latency the launch itself.
fn block(kind: CeilingKind, m: &Measurement) -> Result<Vec<f64>, String> {
    let work = match kind {
        CeilingKind::Compute => m.flops as f64,
        CeilingKind::Bandwidth => m.bytes_compulsory as f64,
        CeilingKind::Latency => 1.0,
    };
    let times = launch_times(m)?;
    if work == 0.0 {
        return Err(format!("{} did no work that this ceiling counts", m.id));
    }
    if times.contains(&0.0) {
        return Err(format!("{} has a sample of 0 ns", m.id));
    }
    Ok(times.into_iter().map(|ns| ns / work).collect())
}

/// The pooled 10th percentile with its widened interval, and how far the blocks' own lie apart.
fn pooled(blocks: &mut [Vec<f64>]) -> Option<(Estimate, f64)> {
    let mut pool = blocks.concat();
    let mut time = estimate(&mut pool, 0.1)?;
    let (mut fastest, mut slowest) = (f64::INFINITY, 0f64);
    for block in blocks {
        let own = estimate(block, 0.1)?.value;
        (fastest, slowest) = (fastest.min(own), slowest.max(own));
    }
    time.low = time.low.min(fastest);
    time.high = time.high.max(slowest);
    Some((time, slowest / fastest - 1.0))
}

/// The ceilings that a run's probes suggest: for each precision and unit the fastest `fma` configuration, for each level and
/// direction the fastest stream. `from` names the winner's measurements; a tracer measures that configuration again in blocks
/// and puts the new ids in their place. In DRAM every variant has a ceiling of its own (ordinary and non-temporal stores are
/// different roofs); in caches the fastest alone.
pub fn propose(measurements: &[&Measurement], device: &DeviceInfo) -> Vec<Ceiling> {
    let mut ceilings = compute(measurements);
    // One curve names the levels for all directions, or `l2` would mean another cache for writes than for reads.
    let curves = sweeps(measurements.iter().copied());
    let Some(reference) = curves.first() else { return ceilings };
    let variants = sweeps_by_variant(measurements.iter().copied());
    for level in levels(&reference.pairs(), &device.caches) {
        for kind in Kind::ALL {
            let winners = variants.values().filter_map(|curves| fastest_within(curves, kind, level.plateau));
            let mut winners: Vec<&Point> = winners.collect();
            winners.sort_by(|a, b| if better(a, b) { std::cmp::Ordering::Less } else { std::cmp::Ordering::Greater });
            if level.capacity.is_some() {
                winners.truncate(1);
            }
            ceilings.extend(winners.into_iter().map(|point| bandwidth(&level, kind, point)));
        }
    }
    ceilings
}

fn fastest_within(curves: &[Sweep], kind: Kind, (first, last): (u64, u64)) -> Option<&Point> {
    // Directions have one to three arrays, so their working sets do not meet the reference's sizes exactly.
    let inside = |p: &&Point| p.bytes as f64 >= first as f64 / 1.05 && p.bytes as f64 <= last as f64 * 1.05;
    let points = curves.iter().find(|s| s.kind == kind)?.points.iter().filter(inside);
    points.reduce(|best, p| if better(p, best) { p } else { best })
}

fn bandwidth(level: &Level, kind: Kind, winner: &Point) -> Ceiling {
    let plain = format!("{} {}", level.name, kind.name());
    let variant = &winner.variant;
    let (mut state, mut reasons) = (level.state, level.reasons.clone());
    if !winner.sound {
        state = State::Suspect;
        reasons.push(format!("every measurement at {} is suspect", Capacity(winner.bytes)));
    }
    Ceiling {
        id: format!("ceiling-{}-{}-{variant}", level.name, kind.name()),
        name: if variant == "linear" { plain } else { format!("{plain} ({variant})") },
        kind: CeilingKind::Bandwidth,
        precision: None,
        unit: None,
        level: Some(level.name.clone()),
        direction: Some(kind.name().into()),
        capacity: level.capacity,
        from: winner.ids.clone(),
        state,
        reasons,
        extra: Map::new(),
    }
}

fn compute(measurements: &[&Measurement]) -> Vec<Ceiling> {
    let mut best: BTreeMap<(Precision, String), (bool, f64, Unit, &str)> = BTreeMap::new();
    for m in measurements.iter().filter(|m| m.op == "fma" && m.role == OpRole::Probe) {
        let Ok(mut times) = block(CeilingKind::Compute, m) else { continue };
        let Some(time) = estimate(&mut times, 0.1) else { continue };
        let candidate = (m.state != State::Suspect, 1.0 / time.value, m.unit, m.id.as_str());
        let kept = best.entry((m.precision, m.unit.to_string())).or_insert(candidate);
        if (candidate.0, candidate.1) > (kept.0, kept.1) {
            *kept = candidate;
        }
    }
    let ceiling = |((precision, named), (sound, _, unit, id)): ((Precision, String), (bool, f64, Unit, &str))| Ceiling {
        id: format!("ceiling-{precision}-{named}"),
        name: format!("{precision} {named}"),
        kind: CeilingKind::Compute,
        precision: Some(precision),
        unit: Some(unit),
        level: None,
        direction: None,
        capacity: None,
        from: vec![id.to_string()],
        state: if sound { State::Ok } else { State::Suspect },
        reasons: if sound { Vec::new() } else { vec![format!("every {precision} fma measurement is suspect")] },
        extra: Map::new(),
    };
    best.into_iter().map(ceiling).collect()
}
