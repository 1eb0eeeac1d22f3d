//! The energy of a launch: a pass of its own, launches back to back under a counter, after a second of the idle device.
//!
//! A counter moves in steps and tells nothing between them, so a window begins and ends at a step that was seen. Where a launch lasts
//! longer than a step, its end stands for one: what a counter that adds up has meanwhile is not lost.

use std::time::Duration;

use super::sampling::whole;
use crate::backend::Loaded;
use crate::backend::meter::{Meter, Reading, unreadable};
use crate::error::{Error, Result};
use crate::record::Energy;

/// How long the device may come to rest before its idle power is recorded.
const REST: Duration = Duration::from_millis(200);
/// How long it is recorded.
const IDLE: Duration = Duration::from_secs(1);
/// How often the counter is read meanwhile.
const POLL: Duration = Duration::from_millis(2);
/// Work before the window begins, so that clocks and power are those of the work.
const WARM: Duration = Duration::from_millis(500);
/// The window lasts as long as this and spans so many updates at least: a step of the counter is then a twentieth of it at most.
const WINDOW: Duration = Duration::from_secs(2);
const UPDATES: u64 = 20;
/// When a pass is given up.
const LONGEST: Duration = Duration::from_secs(20);
/// Launches between two readings last about as long as this, or as one of them.
const BATCH: Duration = Duration::from_millis(20);

/// The idle device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Idle {
    /// Power in µW.
    pub uw: u64,
    /// The longest that a step of the counter may take, in ns.
    pub step_ns: u64,
}

fn ns(time: Duration) -> u64 {
    time.as_nanos() as u64
}

/// Watches the idle device.
///
/// # Errors
/// [`Error::Unavailable`] where the counter cannot be read, or stands still.
pub fn idle(meter: &mut dyn Meter) -> Result<Idle> {
    meter.pause(REST);
    let start = meter.read()?;
    let (mut first, mut last, mut seen) = (None::<Reading>, start, start);
    while seen.ns - start.ns < ns(IDLE) {
        meter.pause(POLL);
        let now = meter.read()?;
        if now.updates > seen.updates {
            last = now;
            first.get_or_insert(now);
        }
        seen = now;
    }
    let first = first.unwrap_or(start);
    let (steps, time) = (last.updates - first.updates, last.ns - first.ns);
    // A counter of power may well tell the same for a second.
    if !meter.adds_up() {
        let time = (seen.ns - start.ns).max(1);
        return Ok(Idle { uw: rate(seen.uj - start.uj, time), step_ns: time / (seen.updates - start.updates).max(1) });
    }
    if steps == 0 || time == 0 {
        let moved = seen.updates - start.updates;
        let how = if moved == 0 { "stood still" } else { "moved once" };
        let why = format!("the counter ({}) {how} in {:.1} s", meter.source(), (seen.ns - start.ns) as f64 / 1e9);
        return Err(unreadable(why, "a virtual machine may show one that counts nothing"));
    }
    Ok(Idle { uw: rate(last.uj - first.uj, time), step_ns: time / steps })
}

/// µJ in so many ns, as µW.
fn rate(uj: u64, ns: u64) -> u64 {
    (uj as f64 * 1e9 / ns as f64).round() as u64
}

/// Launches a plan back to back, over all its sets, until the counter has told enough.
///
/// # Errors
/// [`Error::Unavailable`] where the counter cannot be read any more, or moves too seldom; those of launching.
pub fn busy(loaded: &mut dyn Loaded, meter: &mut dyn Meter, sets: u32, idle: Idle) -> Result<Energy> {
    let (batch, mut first) = (whole(batch(loaded, sets)?, sets), 0);
    let start = meter.read()?;
    let (mut window, mut seen, mut launches) = (None::<Reading>, start, 0u64);
    loop {
        loaded.sample(batch, first)?;
        first = (first + batch) % sets;
        let now = meter.read()?;
        let moved = now.updates > seen.updates;
        seen = now;
        let Some(from) = window else {
            if moved && now.ns - start.ns >= ns(WARM) {
                window = Some(now);
            }
            given_up(meter, &start, &now, 0)?;
            continue;
        };
        launches += batch as u64;
        let (time, mut updates) = (now.ns - from.ns, now.updates - from.updates);
        if meter.adds_up() {
            updates = updates.max(time / idle.step_ns.max(1));
        }
        if moved && time >= ns(WINDOW) && updates >= UPDATES {
            let (source, uj) = (meter.source().to_string(), now.uj - from.uj);
            if uj == 0 {
                return Err(unreadable(format!("the counter ({source}) moved, and counted nothing"), "check what the system says of it"));
            }
            return Ok(Energy { source, launches, wall_ns: time, uj, updates, idle_uw: idle.uw });
        }
        given_up(meter, &start, &now, updates)?;
    }
}

/// The error of a pass that has lasted too long.
fn given_up(meter: &dyn Meter, start: &Reading, now: &Reading, updates: u64) -> Result<()> {
    if now.ns - start.ns < ns(LONGEST) {
        return Ok(());
    }
    let why =
        format!("the counter ({}) moved {updates} times in {} s of work, and {UPDATES} are needed", meter.source(), LONGEST.as_secs());
    Err(unreadable(why, "choose a smaller problem"))
}

/// Launches of a batch: doubled until it is long enough.
fn batch(loaded: &mut dyn Loaded, sets: u32) -> Result<u32> {
    let mut launches = 1u32;
    loop {
        let wall = loaded.sample(launches, launches % sets)?.wall;
        if wall * 2 > BATCH || launches >= 1 << 20 {
            return Ok(launches);
        }
        launches *= 2;
    }
}

/// The idle device as it was seen the first time, or why it could not be seen: nothing is waited for twice.
#[derive(Default)]
pub struct Rest(Option<std::result::Result<Idle, (String, String)>>);

impl Rest {
    /// The idle device.
    ///
    /// # Errors
    /// As [`idle`].
    pub fn of(&mut self, meter: &mut dyn Meter) -> Result<Idle> {
        let known = match &self.0 {
            Some(known) => known.clone(),
            None => match idle(meter) {
                Ok(idle) => Ok(idle),
                Err(Error::Unavailable { why, remedy, .. }) => Err((why, remedy)),
                Err(other) => return Err(other),
            },
        };
        self.0 = Some(known.clone());
        known.map_err(|(why, remedy)| unreadable(why, remedy))
    }
}
