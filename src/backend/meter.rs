//! Energy counters behind one seam: what they counted, how often they moved, and why there is none.

use std::time::{Duration, Instant};

use crate::error::{Error, Result};

pub mod rapl;

/// How every sentence begins that says why there is no energy.
pub const UNREADABLE: &str = "energy is not available: ";

/// A counter at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reading {
    /// Nanoseconds since the meter was opened.
    pub ns: u64,
    /// Microjoules since then; it never falls.
    pub uj: u64,
    /// How often the counter was seen to have moved since then: once a reading at most.
    pub updates: u64,
}

/// A counter of energy.
pub trait Meter {
    /// What counts, and what it covers.
    fn source(&self) -> &str;

    /// Whether the device itself adds up, so that nothing is missed between two readings.
    fn adds_up(&self) -> bool {
        true
    }

    /// Reads it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where it cannot be read any more.
    fn read(&mut self) -> Result<Reading>;

    /// Lets the device be idle for so long.
    fn pause(&self, time: Duration) {
        std::thread::sleep(time);
    }
}

/// Why there is no energy, and what would help.
pub fn unreadable(why: impl Into<String>, remedy: impl Into<String>) -> Error {
    Error::Unavailable { backend: "energy".into(), why: why.into(), remedy: remedy.into() }
}

/// What real meters have in common: the time since they were opened, and a sum.
#[derive(Debug)]
pub(crate) struct Tally {
    started: Instant,
    uj: u64,
    updates: u64,
}

impl Tally {
    pub(crate) fn new() -> Self {
        Tally { started: Instant::now(), uj: 0, updates: 0 }
    }

    /// Nanoseconds since it was made.
    pub(crate) fn ns(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// The reading after so many more microjoules, by a counter that has moved or not.
    pub(crate) fn add(&mut self, uj: u64, moved: bool) -> Reading {
        self.uj += uj;
        self.updates += u64::from(moved);
        Reading { ns: self.ns(), uj: self.uj, updates: self.updates }
    }
}
