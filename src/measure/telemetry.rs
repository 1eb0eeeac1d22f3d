//! What a device's own account of itself says about an item: whether power or heat held its clocks down.

use crate::backend::Vitals;
use crate::record::{Measurement, State, Telemetry};

/// Share of an item's time that its clocks may be held down without a word.
const HELD: f64 = 0.1;
/// NVML's names of what power does.
const POWER: [&str; 2] = ["sw_power_cap", "hw_power_brake_slowdown"];
/// Of what heat does; the hardware's slowdown has either cause, and halves the clock at least.
const HEAT: [&str; 3] = ["sw_thermal_slowdown", "hw_thermal_slowdown", "hw_slowdown"];

/// Both moments as a record has them.
pub fn pair(before: Option<Vitals>, after: Option<Vitals>) -> Option<Telemetry> {
    let pair = Telemetry { before: before?, after: after?, ..Telemetry::default() };
    (!pair.before.is_empty() || !pair.after.is_empty()).then_some(pair)
}

/// Marks an item whose clocks were held down: by a power cap, which is how the device works for long, as such; by heat as suspect.
/// What is suspect already stays so.
pub fn judge(record: &mut Measurement) {
    let Some(telemetry) = &record.telemetry else { return };
    let wall = record.wall_ns.iter().sum::<u64>() as f64;
    let (before, after) = (&telemetry.before, &telemetry.after);
    let power = held("power", [before.capped_ns, after.capped_ns], &POWER, after, wall);
    let heat = held("heat", [before.hot_ns, after.hot_ns], &HEAT, after, wall);
    if heat.is_some() {
        record.state = State::Suspect;
    } else if power.is_some() && record.state == State::Ok {
        record.state = State::PowerLimited;
    }
    record.reasons.extend([heat, power].into_iter().flatten());
}

/// A sentence where clocks were held down for more than [`HELD`] of the time; where no time is told, or one that stands still beside what
/// is on at the end, that counts.
fn held(what: &str, ns: [Option<u64>; 2], names: &[&str], after: &Vitals, wall_ns: f64) -> Option<String> {
    let figures = |more: String| {
        let clock = after.sm_mhz.map(|mhz| format!("{mhz} MHz"));
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
