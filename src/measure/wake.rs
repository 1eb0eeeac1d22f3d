//! A GPU that was left idle lowers its clock, and takes a tenth of a second of work to raise it again: it is kept at work until it is as
//! fast as it has been before. No setting of the device is touched.

use std::time::{Duration, Instant};

use serde_json::json;

use super::canary::Bird;
use super::sampling::chosen;
use crate::backend::Backend;
use crate::error::Result;
use crate::plan::{DeviceInfo, DeviceKind};
use crate::record::Clock;

/// Awake is who is this close to the fastest ever seen.
const AWAKE: f64 = 0.03;
/// Longest wait before one item.
const PATIENCE: Duration = Duration::from_millis(400);
/// Longest wait in all: a GPU that became slower for good is measured as it is.
const PATIENCE_ALL: Duration = Duration::from_secs(15);

/// A short fma, repeated until the device is awake.
pub struct Alarm<'b> {
    fma: Bird<'b>,
    clock: Clock,
    fastest: u64,
    waited: Duration,
}

impl<'b> Alarm<'b> {
    /// Whether a device is known to sleep.
    pub fn needed(device: &DeviceInfo) -> bool {
        device.kind == DeviceKind::Gpu && !device.simulated
    }

    /// Loads the fma.
    pub fn new(backend: &'b dyn Backend, clock: &Clock) -> Result<Self> {
        let elements = backend.device().compute_units as u64 * 16_384;
        let fma = Bird::hatch(backend, clock, "fma", "chains", json!({"elements": elements, "trips": 64, "steps": 512}), 1)?;
        let mut alarm = Alarm { fma, clock: clock.clone(), fastest: u64::MAX, waited: Duration::ZERO };
        // The first time nothing is known of its speed: all the patience there is.
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            alarm.slice()?;
        }
        Ok(alarm)
    }

    /// Returns when the device is awake, or patience ends.
    pub fn ring(&mut self) -> Result<()> {
        let started = Instant::now();
        while self.slice()? as f64 > (1.0 + AWAKE) * self.fastest as f64 {
            if started.elapsed() > PATIENCE || self.waited + started.elapsed() > PATIENCE_ALL {
                break;
            }
        }
        self.waited += started.elapsed();
        Ok(())
    }

    fn slice(&mut self) -> Result<u64> {
        let time = chosen(&self.clock, &self.fma.slice()?).max(1);
        self.fastest = self.fastest.min(time);
        Ok(time)
    }
}
