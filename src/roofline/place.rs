//! Where a kernel stands under the roof.
//!
//! Every bound is a time: for a resource with ceiling C and demand D it is D / C. Two demands are lower bounds and may accuse:
//! FLOPs on the best compute ceiling of the precision, and compulsory bytes on the level that must supply them. Cold, that is
//! DRAM; warm, it is read off the measured curve at the footprint of one set. Moved and requested bytes explain, no more.

use super::limiter::{limiter, shares};
use super::pace::{self, feel};
use super::roof::Roof;
use super::{launch_times, shows_times};
use crate::record::{Cache, Measurement, State};
use crate::stats::{Estimate, estimate};
use crate::units::{Capacity, Nanos};
use crate::view::{Interval, Row};

/// Samples below which an interval is the whole range of the samples.
const FEW: usize = 6;

/// No time is known better than this: a sample is at least 200 steps of its clock.
const CLOCK: f64 = 0.005;

/// A resource and the least time that its demand takes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bound {
    /// `compute (vector)`, `dram`, `l2`, …
    pub(super) resource: String,
    /// ns of one launch.
    pub(super) ns: Estimate,
    /// At what pace the resource went around the measurement; unknown where no canary tells.
    pub(super) pace: Option<f64>,
    /// What to say when it decides.
    remarks: Vec<String>,
}

impl Bound {
    /// Below this time a launch is faster than the bound's own uncertainty explains.
    fn floor_ns(&self) -> f64 {
        self.ns.value * (1.0 - self.ns.uncertainty().max(CLOCK))
    }
}

/// The row of a measurement. One whose state shows no times has none, nor rates; one whose roof has a part missing has rates
/// and no fraction, with the reason; one above the roof is flagged, never clamped or dropped.
pub fn place(m: &Measurement, roof: &Roof) -> Row {
    let mut row = unplaced(m);
    let time = match launch_times(m) {
        Ok(mut times) => estimate(&mut times, 0.5).filter(|t| t.low > 0.0).ok_or_else(|| format!("{} has a sample of 0 ns", m.id)),
        Err(why) => Err(why),
    };
    let time = match time {
        Ok(time) => time,
        Err(why) => {
            // A state that shows no times speaks for itself; one that should have had them does not.
            if shows_times(m.state) {
                row.state = State::Suspect;
                row.reasons.push(why);
            }
            return row;
        }
    };
    if m.samples_ns.len() < FEW {
        row.reasons.push(format!("{} samples only: the interval is their range and covers less than 95 %", m.samples_ns.len()));
    }
    let rate = |work: u64| (work > 0).then(|| 1e9 * work as f64 / time.value);
    row.time_ns = Some(Interval { median: time.value, low: time.low, high: time.high });
    row.flop_per_s = rate(m.flops);
    row.byte_per_s = rate(m.bytes_compulsory);
    row.level = level(m, roof);
    let (compute, memory) = (compute(m, roof), memory(m, row.level.as_deref(), roof));
    let supply = memory.clone().ok();
    let felt = feel(&mut row, time.value, compute.as_ref().and_then(|bound| bound.as_ref().ok()), supply.as_ref());
    let bounds: Vec<Result<Bound, String>> = compute.into_iter().chain([memory]).collect();
    judge(&mut row, m, &time, &bounds, roof);
    row.shares = shares(m, time.value, roof, supply.as_ref(), felt);
    (row.limiter, row.limiter_share) = limiter(m, &row, time.value, roof);
    row
}

/// Fraction of the roof, and what is to be said about it.
fn judge(row: &mut Row, m: &Measurement, time: &Estimate, bounds: &[Result<Bound, String>], roof: &Roof) {
    row.reasons.extend(bounds.iter().filter_map(|b| b.as_ref().err().cloned()));
    let known: Vec<&Bound> = bounds.iter().flatten().collect();
    let Some(best) = known.iter().copied().max_by(|a, b| a.ns.value.total_cmp(&b.ns.value)) else { return };
    if known.len() == bounds.len() {
        row.roof_fraction = Some(best.ns.value / time.value);
        row.roof_flop_per_s = (m.flops > 0).then(|| 1e9 * m.flops as f64 / best.ns.value);
        row.reasons.extend(best.remarks.iter().cloned());
    }
    // Each bound holds by itself, so the tightest floor accuses, even where another part of the roof is missing.
    let Some(floor) = known.into_iter().max_by(|a, b| a.floor_ns().total_cmp(&b.floor_ns())) else { return };
    if time.high < floor.floor_ns() {
        row.above_roof = true;
        row.reasons.push(above(m, time, floor, roof));
    }
}

fn above(m: &Measurement, time: &Estimate, floor: &Bound, roof: &Roof) -> String {
    let mut causes = Vec::new();
    if floor.resource.starts_with("compute") {
        causes.push("the clock ran higher than for the fma probe".to_string());
        causes.push("the probe's best configuration was not found".to_string());
    } else {
        if m.cache == Cache::Cold && m.pool_bytes < 2 * roof.llc_bytes {
            let (pool, llc) = (Capacity(m.pool_bytes), Capacity(roof.llc_bytes));
            causes.push(format!("its pool of {pool} is less than twice the last-level cache of {llc}, so it was not cold"));
        }
        causes.push(format!("part of its bytes came from a level faster than {}", floor.resource));
        causes.push("the stream probe's best configuration was not found".to_string());
    }
    causes.push("the machine was slower while the ceiling was measured".to_string());
    format!(
        "above the roof: {} at most, where the {} bound is {} within {:.1} %; likely causes: {}",
        Nanos(time.high),
        floor.resource,
        Nanos(floor.ns.value),
        100.0 * floor.ns.uncertainty(),
        causes.join(", or ")
    )
}

/// FLOPs on the best ceiling of the precision; none where nothing is computed.
fn compute(m: &Measurement, roof: &Roof) -> Option<Result<Bound, String>> {
    if m.flops == 0 {
        return None;
    }
    let Some(ceiling) = roof.compute(m.precision, None) else {
        return Some(Err(format!("no {} compute ceiling was measured, so its roof is unknown", m.precision)));
    };
    let unit = ceiling.unit.map(|u| format!("compute ({u})")).unwrap_or_else(|| "compute".into());
    let suspect = ceiling.state == State::Suspect;
    let remarks = if suspect { vec![format!("the ceiling it is judged by is suspect: {}", ceiling.name)] } else { Vec::new() };
    let pace = pace::fma_ns(m).zip(ceiling.canary_ns).map(|(own, traced)| traced / own);
    Some(Ok(Bound { resource: unit, ns: ceiling.estimate().rate(1e9 * m.flops as f64), pace, remarks }))
}

/// The level that must supply the compulsory bytes.
fn level(m: &Measurement, roof: &Roof) -> Option<String> {
    match m.cache {
        Cache::Cold => Some("dram".into()),
        Cache::Warm => roof.level_of(m.set_bytes),
    }
}

/// Compulsory bytes on that level.
fn memory(m: &Measurement, level: Option<&str>, roof: &Roof) -> Result<Bound, String> {
    if m.bytes_compulsory == 0 {
        return Err("it declares no bytes, so its roof is unknown".into());
    }
    let written = written_share(m.bytes_written, m.bytes_compulsory);
    let (time, missing) = match m.cache {
        Cache::Cold => (roof.at_level("dram", written), "no DRAM ceiling was measured, so its roof is unknown"),
        Cache::Warm => (roof.at_footprint(m.set_bytes, written), "no working-set curve was measured, so its warm roof is unknown"),
    };
    let time = time.ok_or_else(|| missing.to_string())?;
    let resource = level.unwrap_or("memory").to_string();
    // Warm, a cache may supply a part of them, and no canary sang beside the curve.
    let canary = pace::stream_ns(m).filter(|_| m.cache == Cache::Cold);
    let pace = canary.and_then(|canary_ns| roof.memory_pace(written, canary_ns));
    Ok(Bound { resource, ns: time.ns.scaled(m.bytes_compulsory as f64), pace, remarks: time.remarks })
}

/// The written part of so many bytes, at most 1.
pub(super) fn written_share(written: u64, bytes: u64) -> f64 {
    (written as f64 / bytes.max(1) as f64).min(1.0)
}

/// The row before anything is derived from times.
fn unplaced(m: &Measurement) -> Row {
    let per_byte = |bytes: u64| if bytes > 0 { m.flops as f64 / bytes as f64 } else { 0.0 };
    Row {
        id: m.id.clone(),
        op: m.op.clone(),
        problem: m.problem.clone(),
        label: m.label.clone(),
        variant: m.variant.clone(),
        role: m.role,
        backend: m.backend.clone(),
        precision: m.precision,
        unit: m.unit,
        cache: m.cache,
        clock: m.clock.clone(),
        state: m.state,
        reasons: m.reasons.clone(),
        time_ns: None,
        flop_per_s: None,
        byte_per_s: None,
        intensity: per_byte(m.bytes_compulsory),
        intensity_moved: per_byte(m.bytes_moved),
        roof_fraction: None,
        roof_flop_per_s: None,
        above_roof: false,
        level: None,
        limiter: String::new(),
        limiter_share: None,
        macs: m.macs,
        bytes_compulsory: m.bytes_compulsory,
        bytes_moved: m.bytes_moved,
        bytes_requested: m.bytes_requested,
        peak_bytes: m.peak_bytes,
        workspace_bytes: m.workspace_bytes,
        shares: Vec::new(),
        verification: m.verification.clone(),
        telemetry: m.telemetry.clone(),
        energy: m.energy.clone(),
        cost: None,
    }
}
