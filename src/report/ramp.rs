//! What the ramp says of the roof: how near one kernel comes to it on the slope, at the ridge and on the flat.

use super::{doubted, verified};
use crate::units::Intensity;
use crate::view::{Row, View};

/// One point: FLOP/byte, the roof's FLOP/s there, and the share of it that was reached.
struct Step {
    x: f64,
    roof: f64,
    share: f64,
}

/// Plain sentences; none where the ramp was not measured on both sides of the ridge.
pub(super) fn sentences(view: &View) -> Vec<String> {
    let points: Vec<&Row> = view.ramp.iter().filter(|row| verified(row)).collect();
    let steps: Vec<Step> = points.iter().filter_map(|row| step(row)).collect();
    let mut lines: Vec<String> = across(&steps).into_iter().collect();
    let (above, doubts) = (points.iter().filter(|row| row.above_roof).count(), points.iter().filter(|row| doubted(row)).count());
    if above > 0 {
        lines.push(format!(
            "{above} of the ramp's {} points lie above the roof: the machine was slower while the roof was measured, or the roof is wrong.",
            points.len()
        ));
    } else if doubts > 0 {
        lines.push(format!("{doubts} of the ramp's {} points are suspect.", points.len()));
    }
    lines
}

fn step(row: &Row) -> Option<Step> {
    let (roof, share) = (row.roof_flop_per_s?, row.roof_fraction?);
    let usable = |v: f64| v.is_finite() && v > 0.0;
    (usable(row.intensity) && usable(roof) && usable(share)).then_some(Step { x: row.intensity, roof, share })
}

fn across(steps: &[Step]) -> Option<String> {
    let (first, last) = (steps.first()?, steps.last()?);
    // The first point lies under the slope, the last under the flat.
    let ridge = last.roof / (first.roof / first.x);
    let after = steps.partition_point(|step| step.x < ridge);
    let (below, above) = (steps.get(after.checked_sub(1)?)?, steps.get(after)?);
    let part = (ridge / below.x).ln() / (above.x / below.x).ln();
    let at_ridge = below.share + part * (above.share - below.share);
    let percent = |share: f64| format!("{:.0} %", 100.0 * share);
    Some(format!(
        "Up the ramp, one kernel that loads as much as it stores reaches {} of the bandwidth at {} FLOP/byte, {} of min(compute, bandwidth) \
         at its ridge ({} FLOP/byte) and {} of the compute roof at {} FLOP/byte.",
        percent(first.share),
        Intensity(first.x),
        percent(at_ridge),
        Intensity(ridge),
        percent(last.share),
        Intensity(last.x)
    ))
}
