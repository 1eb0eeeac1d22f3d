//! What a device's own account of itself says about an item: whether power or heat held its clocks down.

use std::time::Instant;

use crate::backend::{Tick, Vitals};
use crate::record::{Measurement, State, Telemetry};
use crate::stats;

/// Share of an item's time that its clocks may be held down without a word.
const HELD: f64 = 0.1;
/// NVML's names of what power does.
const POWER: [&str; 2] = ["sw_power_cap", "hw_power_brake_slowdown"];
/// Of what heat does; the hardware's slowdown has either cause, and halves the clock at least.
const HEAT: [&str; 3] = ["sw_thermal_slowdown", "hw_thermal_slowdown", "hw_slowdown"];

/// Both moments with the time between them, and the clock in it, as a record has them.
pub fn pair(before: Option<(Instant, Vitals)>, after: Option<(Instant, Vitals)>, core_mhz: Option<u32>) -> Option<Telemetry> {
    let pair = match before.zip(after) {
        Some(((since, before), (until, after))) => {
            let between_ns = Some(until.saturating_duration_since(since).as_nanos() as u64);
            Telemetry { before, after, between_ns, core_mhz, ..Telemetry::default() }
        }
        None => Telemetry { core_mhz, ..Telemetry::default() },
    };
    (pair != Telemetry::default()).then_some(pair)
}

/// The clock in MHz between two readings: the median of all cores that both saw, as each counts for itself.
pub fn core_mhz(before: &[Tick], after: &[Tick]) -> Option<u32> {
    let grown = after.iter().filter_map(|after| {
        let before = before.iter().find(|before| before.unit == after.unit)?;
        let (cycles, ns) = (after.cycles.checked_sub(before.cycles)?, after.ns.checked_sub(before.ns)?);
        (cycles > 0 && ns > 0).then(|| 1e3 * cycles as f64 / ns as f64)
    });
    stats::median_of(grown).map(|mhz| mhz.round() as u32)
}

/// Marks an item whose clocks were held down: by a power cap, which is how the device works for long, as such; by heat as suspect.
/// What is suspect already stays so.
pub fn judge(record: &mut Measurement) {
    let Some(telemetry) = &record.telemetry else { return };
    // A scripted device's samples last longer than they take.
    let wall = telemetry.between_ns.unwrap_or(0).max(record.wall_ns.iter().sum()) as f64;
    let (before, after) = (&telemetry.before, &telemetry.after);
    let mhz = telemetry.core_mhz.or(after.sm_mhz);
    let power = held("power", [before.capped_ns, after.capped_ns], &POWER, after, mhz, wall);
    let heat = held("heat", [before.hot_ns, after.hot_ns], &HEAT, after, mhz, wall);
    if heat.is_some() {
        record.state = State::Suspect;
    } else if power.is_some() && record.state == State::Ok {
        record.state = State::PowerLimited;
    }
    record.reasons.extend([heat, power].into_iter().flatten());
}

/// A sentence where clocks were held down for more than [`HELD`] of the time; where no time is told, or one that stands still beside what
/// is on at the end, that counts.
fn held(what: &str, ns: [Option<u64>; 2], names: &[&str], after: &Vitals, mhz: Option<u32>, wall_ns: f64) -> Option<String> {
    let figures = |more: String| {
        let clock = mhz.map(|mhz| format!("{mhz} MHz"));
        let power = after.power_mw.map(|mw| format!("{:.0} W", mw as f64 / 1e3));
        let heat = after.celsius.map(|celsius| format!("{celsius} °C"));
        let told: Vec<String> = [Some(more), clock, power, heat].into_iter().flatten().collect();
        format!(" ({})", told.join(", "))
    };
    let seen: Vec<&str> = names.iter().filter(|name| after.throttle.iter().any(|seen| seen == *name)).copied().collect();
    match ns {
        [Some(before), Some(after)] if after > before && wall_ns > 0.0 => {
            let share = (after - before) as f64 / wall_ns;
            (share > HELD)
                .then(|| format!("{what} held its clocks down{}", figures(format!("{:.0} % of the time", 100.0 * share.min(1.0)))))
        }
        _ if seen.is_empty() => None,
        _ => Some(format!("{what} held its clocks down at its end{}", figures(seen.join(", ")))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_is_what_the_same_core_counted_in_both_readings() {
        let tick = |unit, cycles, ns| Tick { unit, cycles, ns };
        let before = [tick(0, 1_000_000, 500), tick(1, 7, 500), tick(2, 0, 500), tick(9, 0, 0)];
        // The third has gone backwards, the fourth was seen once, the fifth only now; the counters themselves have nothing in common.
        let after =
            [tick(0, 2_755_000, 1_000_500), tick(1, 1_980_007, 1_000_500), tick(9, 0, 10), tick(3, 1, 1), tick(2, 1_410_000, 1_000_500)];
        assert_eq!(core_mhz(&before, &after), Some(1755), "the median of 1755, 1980 and 1410");
        assert_eq!(core_mhz(&before, &before), None, "no time has passed");
        assert_eq!(core_mhz(&[], &[]), None);
    }

    #[test]
    fn a_clock_alone_is_worth_a_record_and_nothing_is_not() {
        assert_eq!(pair(None, None, None), None);
        assert_eq!(pair(None, None, Some(1980)), Some(Telemetry { core_mhz: Some(1980), ..Telemetry::default() }));
    }
}
