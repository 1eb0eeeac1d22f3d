//! Energy and vitals of the fake device, on its virtual clock.

use std::cell::Cell;
use std::time::Duration;

use serde::Deserialize;

use super::Fake;
use crate::backend::meter::{Meter, Reading, unreadable};
use crate::error::Result;

/// How much power it takes, and how its counter behaves.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Battery {
    /// Power of the idle device in W.
    pub idle_w: f64,
    /// Power of the busy device in W.
    pub busy_w: f64,
    /// How often the counter moves, in nanoseconds; 0 is never.
    pub update_ns: u64,
    /// Whether it is power that is told, and energy integrated from it.
    pub integrated: bool,
    /// Why it cannot be read, where it cannot.
    pub refused: Option<String>,
}

impl Default for Battery {
    fn default() -> Self {
        Battery { idle_w: 50.0, busy_w: 250.0, update_ns: 1_000_000, integrated: false, refused: None }
    }
}

/// What was taken so far.
#[derive(Debug, Clone, Copy, Default)]
struct Taken {
    ns: u64,
    uj: f64,
    /// The counter, and how often it has moved.
    shown: f64,
    moves: u64,
}

/// The virtual clock of energy.
#[derive(Debug, Default)]
pub(super) struct Drain(Cell<Taken>);

impl Drain {
    /// So much time passes at so much power.
    pub(super) fn pass(&self, time: Duration, watts: f64, update_ns: u64) {
        let mut taken = self.0.get();
        taken.ns += time.as_nanos() as u64;
        // W · ns = 1e-3 µJ.
        taken.uj += watts * time.as_nanos() as f64 / 1e3;
        if let Some(moves) = taken.ns.checked_div(update_ns)
            && moves > taken.moves
        {
            taken.shown = taken.uj - watts * (taken.ns % update_ns) as f64 / 1e3;
            taken.moves = moves;
        }
        self.0.set(taken);
    }
}

/// The counter since it was opened.
pub(super) struct Gauge<'a> {
    fake: &'a Fake,
    battery: &'a Battery,
    start: Taken,
    /// Its moves at the last reading, and how often it had moved then.
    last: (u64, u64),
}

impl<'a> Gauge<'a> {
    /// # Errors
    /// Where the script has no counter, or one that cannot be read.
    pub(super) fn open(fake: &'a Fake) -> Result<Self> {
        let battery = fake.script.energy.as_ref();
        let battery = battery.ok_or_else(|| unreadable("the fake device has no counter", "script one as `energy`"))?;
        if let Some(why) = &battery.refused {
            return Err(unreadable(why, "script it otherwise"));
        }
        let start = fake.drain.0.get();
        Ok(Gauge { fake, battery, start, last: (start.moves, 0) })
    }
}

impl Meter for Gauge<'_> {
    fn source(&self) -> &str {
        "scripted"
    }

    fn adds_up(&self) -> bool {
        !self.battery.integrated
    }

    fn read(&mut self) -> Result<Reading> {
        let now = self.fake.drain.0.get();
        let (moves, updates) = self.last;
        self.last = (now.moves, updates + u64::from(now.moves > moves));
        Ok(Reading { ns: now.ns - self.start.ns, uj: (now.shown - self.start.shown) as u64, updates: self.last.1 })
    }

    fn pause(&self, time: Duration) {
        self.fake.drain.pass(time, self.battery.idle_w, self.battery.update_ns);
    }
}
