//! At what pace the device went around a measurement, against that of the roof it is judged by.
//!
//! A roof is traced in three moments, kernels are measured in others. Where memory or the cores went at another speed then, the
//! fraction of the roof tells of the machine and not of the kernel. The canaries around both say so: they are the same two launches
//! all along. A pace is speed then over speed at the roof: 0.5 where the same canary took twice as long.

use super::place::Bound;
use crate::record::{Measurement, State};
use crate::view::Row;

/// A kernel's time may depend on the pace by this share before it is suspect: canaries of a steady GPU differ by half of it.
const FELT: f64 = 0.1;

/// Paces that a kernel felt, of arithmetic and of memory; 1 where it felt none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Felt {
    pub(super) compute: f64,
    pub(super) memory: f64,
}

/// Time of the arithmetic canary at its faster moment, before or after: ns of a launch.
pub(super) fn fma_ns(m: &Measurement) -> Option<f64> {
    let canary = m.canary_ns?;
    Some(canary.fma_before.min(canary.fma_after) as f64).filter(|ns| *ns > 0.0)
}

/// The same of the memory canary: ns of a byte, as devices of other caches stream other sizes.
pub(super) fn stream_ns(m: &Measurement) -> Option<f64> {
    let canary = m.canary_ns.filter(|canary| canary.stream_bytes > 0)?;
    Some(canary.stream_before.min(canary.stream_after) as f64 / canary.stream_bytes as f64).filter(|ns| *ns > 0.0)
}

/// The paces that this kernel felt: as much as a bound's share of its time changes with them. Such a row is suspect, and says why.
pub(super) fn feel(row: &mut Row, median_ns: f64, compute: Option<&Bound>, memory: Option<&Bound>) -> Felt {
    let mut felt = |bound: Option<&Bound>, what: &str| {
        let pace = bound.and_then(|bound| bound.pace.filter(|pace| bound.ns.value / median_ns * (1.0 / pace - 1.0).abs() > FELT));
        let Some(pace) = pace else { return 1.0 };
        let how = if pace < 1.0 { "slower" } else { "faster" };
        row.reasons
            .push(format!("{what} was {how} than when its roof was traced (at {:.0} % of that speed, by the canaries)", 100.0 * pace));
        if row.state == State::Ok {
            row.state = State::Suspect;
        }
        pace
    };
    Felt { compute: felt(compute, "arithmetic"), memory: felt(memory, "memory") }
}
