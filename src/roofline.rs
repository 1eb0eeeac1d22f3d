//! What the records mean: levels, ceilings and placed rows, all derived on load.
//!
//! ```text
//! stream sweeps ─► levels ─► ceilings ─┐
//! fma probes ───────────────► ceilings ┴► roof ─► bounds of a kernel ─► row, limiter
//! ```
//! Nothing here measures, and nothing is stored twice: a record holds samples, and every rate is computed from them.

use std::collections::BTreeMap;

use crate::error::{Error, Result};
use crate::op::{self, OpRole};
use crate::plan::{DeviceInfo, Precision};
use crate::record::{Ceiling, Clock, Header, Measurement, Record, Skip, State};
use crate::view::{Row, SkipView, View};

mod ceiling;
mod level;
mod limiter;
mod pace;
mod place;
mod roof;
mod sweep;

pub use ceiling::ceiling_view;
pub use level::{Level, doubtful, levels, settled};
pub use place::place;
pub use roof::Roof;
pub use sweep::{Point, Sweep, sweeps};

/// The derived view of a file's records: kernels placed, ceilings valued, curves joined, in the order of the file. A ceiling
/// none of whose measurements can be used stands among the skips with its reason.
///
/// # Errors
/// [`Error::BadFile`] where the header is missing or repeated, or two measurements have one id.
pub fn view(records: &[Record]) -> Result<View> {
    let (roof, lost) = Roof::with_lost(records)?;
    let header = header(records)?.clone();
    let rows = latest(records, &roof).into_iter().map(|(_, row)| row).collect();
    let skips = records.iter().filter_map(|record| match record {
        Record::Skip(skip) => Some(skipped(skip)),
        _ => None,
    });
    let skips = skips.chain(lost).collect();
    let curves = roof.sweeps().iter().map(Sweep::curve).collect();
    let ramp = ramp(records, &roof);
    let end = records.iter().rev().find_map(|record| if let Record::End(end) = record { Some(end.clone()) } else { None });
    Ok(View { header, ceilings: roof.into_ceilings(), rows, skips, curves, ramp, end, answer: Vec::new() })
}

fn skipped(skip: &Skip) -> SkipView {
    let op = skip.problem.as_ref().and_then(|problem| (op::find(&skip.op).ok()?.parse)(problem).ok());
    SkipView {
        op: skip.op.clone(),
        variant: skip.variant.clone(),
        label: op.map(|op| op.label()),
        precision: skip.precision,
        state: skip.state,
        why: skip.why.clone(),
    }
}

/// The roof of these ceilings, for a campaign under way, whose records hold neither header nor ceilings yet.
pub fn traced<'a>(records: &[Record], ceilings: impl Iterator<Item = &'a Ceiling>, device: &DeviceInfo, clock: &Clock) -> Roof {
    let by_id = by_id(records).unwrap_or_default();
    let valued = ceilings.filter_map(|c| ceiling_view(c, |id| by_id.get(id).copied()).ok()).collect();
    Roof::on(device, clock, valued, sweeps(measurements(records)))
}

/// Kernels and points of the ramp above a roof: the level that each one's data comes from, and its precision.
pub fn above(records: &[Record], roof: &Roof) -> Vec<(Option<String>, Precision)> {
    let kernels = latest(records, roof).into_iter().map(|(_, row)| row);
    kernels.chain(ramp(records, roof)).filter(|row| row.above_roof).map(|row| (row.level, row.precision)).collect()
}

/// Kernels worth another measurement: while they ran the machine changed its speed, or else it went at another than at their roof.
/// Those of the second kind come behind, for as long as it goes so they would be measured in vain.
pub fn suspects<'a>(records: &'a [Record], roof: &Roof) -> (Vec<&'a Measurement>, Vec<&'a Measurement>) {
    let suspect = latest(records, roof).into_iter().filter(|(_, row)| row.state == State::Suspect);
    suspect.map(|(m, _)| m).partition(|m| m.state == State::Suspect)
}

/// The kernels with their rows, in the order of the file. A suspect one that was measured again stands in its first place with its
/// latest measurement; the file keeps both.
fn latest<'a>(records: &'a [Record], roof: &Roof) -> Vec<(&'a Measurement, Row)> {
    let mut places: BTreeMap<String, usize> = BTreeMap::new();
    let mut kernels: Vec<(&Measurement, Row)> = Vec::new();
    for m in measurements(records).filter(|m| m.role.is_placed() && !m.candidate) {
        let key = format!("{} {} {} {:?} {} {:?}", m.op, m.variant, m.problem, m.tunables, m.precision, m.cache);
        let row = place(m, roof);
        match places.get(&key) {
            Some(&place) if kernels[place].1.state == State::Suspect => kernels[place] = (m, row),
            _ => {
                places.insert(key, kernels.len());
                kernels.push((m, row));
            }
        }
    }
    kernels
}

/// The points of the ramp probe, placed like kernels, by intensity.
fn ramp(records: &[Record], roof: &Roof) -> Vec<Row> {
    let points = measurements(records).filter(|m| m.op == "ramp" && m.role == OpRole::Probe && !m.candidate);
    let mut points: Vec<Row> = points.map(|m| place(m, roof)).collect();
    points.sort_by(|a, b| a.intensity.total_cmp(&b.intensity));
    points
}

fn bad(why: String) -> Error {
    Error::BadFile { path: "records".into(), why }
}

fn header(records: &[Record]) -> Result<&Header> {
    let mut headers = records.iter().filter_map(|record| match record {
        Record::Header(header) => Some(header),
        _ => None,
    });
    match (headers.next(), headers.next()) {
        (Some(header), None) => Ok(header),
        (None, _) => Err(bad("there is no header line, so the device is unknown; take a file that rooftrace wrote".into())),
        (Some(_), Some(_)) => Err(bad("there are two header lines; one file holds one run of one device, so split it".into())),
    }
}

fn measurements(records: &[Record]) -> impl Iterator<Item = &Measurement> {
    records.iter().filter_map(|record| match record {
        Record::Measurement(measurement) => Some(measurement),
        _ => None,
    })
}

fn by_id(records: &[Record]) -> Result<BTreeMap<&str, &Measurement>> {
    let mut found = BTreeMap::new();
    for m in measurements(records) {
        if found.insert(m.id.as_str(), m).is_some() {
            return Err(bad(format!("two measurements have the id '{}', so no ceiling can name one; remove one of them", m.id)));
        }
    }
    Ok(found)
}

/// Whether a state lets a time be shown at all.
fn shows_times(state: State) -> bool {
    matches!(state, State::Ok | State::Suspect | State::PowerLimited)
}

/// Times of one launch in ns, or the reason why the measurement has none that may be used: only verified ones are.
fn launch_times(m: &Measurement) -> Result<Vec<f64>, String> {
    if !shows_times(m.state) {
        return Err(format!("{} ended {}", m.id, state_name(m.state)));
    }
    if m.verification.is_none() {
        return Err(format!("{} was never verified, so its times are not used", m.id));
    }
    if m.launches == 0 || m.samples_ns.is_empty() {
        return Err(format!("{} has no samples", m.id));
    }
    Ok(m.samples_ns.iter().map(|&ns| ns as f64 / m.launches as f64).collect())
}

/// A state in words.
fn state_name(state: State) -> &'static str {
    match state {
        State::Ok => "ok",
        State::Suspect => "suspect",
        State::PowerLimited => "power limited",
        State::Wrong => "wrong",
        State::Unsupported => "unsupported",
        State::NotCompiled => "before it was compiled",
        State::Skipped => "skipped",
        State::OutOfMemory => "out of memory",
        State::Timeout => "at its time limit",
        State::DeviceLost => "with the device lost",
        State::NotRun => "before it was run",
    }
}
