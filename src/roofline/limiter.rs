//! Why a kernel is not faster: the first reason that the measured shares of its time bear out, or `unexplained`.
//!
//! The order matters: a launch too short, or a device half empty, explains low shares of everything else. A tool that always has
//! a reason is lying, so below [`NAMED`] no resource is blamed.

use super::pace::Felt;
use super::place::{Bound, written_share};
use super::roof::Roof;
use crate::plan::{Precision, Unit};
use crate::record::{Measurement, State};
use crate::view::{Row, Share};

/// Share of time in launches from which they are the limit.
const LAUNCH: f64 = 0.3;
/// Share of the device that uneven waves may leave idle.
const IDLE: f64 = 0.3;
/// Share of time from which a resource is blamed.
const NAMED: f64 = 0.6;
/// Two shares this close are both named.
const CLOSE: f64 = 0.1;

/// The limiter and the share of time behind it, for a kernel of this median time, its row holding its [`shares`] and state.
/// `launch`: dispatches × launch overhead. `parallelism`: the share of the device left idle. Resources: bound / time, the two
/// largest joined by ` + ` where they are close. `unexplained`: the largest share, absent where nothing is known.
pub(super) fn limiter(m: &Measurement, row: &Row, median_ns: f64, roof: &Roof) -> (String, Option<f64>) {
    let (name, share) = cause(m, median_ns, roof, &row.shares);
    let modifier = match row.state {
        State::PowerLimited => ", power",
        State::Suspect => ", suspect",
        _ => "",
    };
    (name + modifier, share)
}

fn cause(m: &Measurement, median_ns: f64, roof: &Roof, shares: &[Share]) -> (String, Option<f64>) {
    let launches = m.dispatches as f64 * roof.launch_ns / median_ns;
    if launches >= LAUNCH {
        return ("launch".into(), Some(launches));
    }
    if let Some(idle) = idle(m.groups, roof.compute_units) {
        return ("parallelism".into(), Some(idle));
    }
    match shares {
        [] => ("unexplained".into(), None),
        [first, ..] if first.share < NAMED => ("unexplained".into(), Some(first.share)),
        [first, next, ..] if first.share - next.share <= CLOSE => (format!("{} + {}", first.resource, next.resource), Some(first.share)),
        [first, ..] => (first.resource.clone(), Some(first.share)),
    }
}

/// The share of the device that idles, where it is a reason: fewer groups than compute units, or so few waves that the last one
/// leaves over [`IDLE`] of the device's time unused. A unit is taken to work on its groups one after the other; several at
/// once balance the same way. Unknown counts are no reason.
fn idle(groups: u64, units: u32) -> Option<f64> {
    if groups == 0 || units == 0 {
        return None;
    }
    // In u128, because a count read from a file may be anything.
    let (groups, units) = (groups as u128, units as u128);
    let slots = groups.div_ceil(units) * units;
    let idle = (slots - groups) as f64 / slots as f64;
    (groups < units || idle > IDLE).then_some(idle)
}

/// Shares of time, largest first: arithmetic on the variant's own unit, exponentials where their rate is known, compulsory bytes on
/// the level that supplies them, and requested bytes, where they are known, on the level that serves them. A resource whose pace was
/// felt takes the time that it took at that pace.
pub(super) fn shares(m: &Measurement, median_ns: f64, roof: &Roof, supply: Option<&Bound>, felt: Felt) -> Vec<Share> {
    let mut shares = Vec::new();
    let mut add = |resource: String, ns: f64| shares.push(Share { resource, share: ns / median_ns });
    let own = roof.compute(m.precision, Some(m.unit)).or_else(|| roof.compute(m.precision, None));
    if let Some(ceiling) = own {
        let unit = ceiling.unit.unwrap_or(m.unit);
        add(format!("compute ({unit})"), 1e9 * m.flops as f64 / ceiling.value / felt.compute);
    }
    // Sums of weights are f32 in every precision that has exponentials.
    if m.exponentials > 0
        && let Some(ceiling) = roof.compute(Precision::F32, Some(Unit::Exp))
    {
        add("exp".into(), 1e9 * m.exponentials as f64 / ceiling.value);
    }
    if let Some(bound) = supply {
        add(bound.resource.clone(), bound.ns.value / felt.memory);
        if let Some((level, ns)) = m.bytes_requested.and_then(|requested| served(m, requested, median_ns, roof, &bound.resource)) {
            add(level, ns);
        }
    }
    shares.sort_by(|a, b| b.share.total_cmp(&a.share));
    shares
}

/// The level inwards of `supply` that serves the requested bytes, and the time that they take of it: the next one, but what came faster
/// than a level can deliver came from further in.
fn served(m: &Measurement, requested: u64, median_ns: f64, roof: &Roof, supply: &str) -> Option<(String, f64)> {
    let mut level = roof.inward(supply)?;
    loop {
        let ns = roof.at_level(&level, written_share(m.bytes_written, requested))?.ns.value * requested as f64;
        if ns <= (1.0 + CLOSE) * median_ns {
            return Some((level, ns));
        }
        level = roof.inward(&level)?;
    }
}
