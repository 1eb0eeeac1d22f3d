//! Warm-up, sample size and the stopping rule.

use std::time::{Duration, Instant};

use crate::backend::{Loaded, Sample};
use crate::error::Result;
use crate::record::{Cache, Clock};
use crate::stats::Ordered;
use crate::worker::Effort;

/// A sample is at least this many steps of the clock: half a per cent of quantisation.
const RESOLUTIONS: u64 = 200;
/// A sample is at least this long, so that interrupts are averaged and the launch path amortised.
const SAMPLE_NS: u64 = 300_000;
/// A full rotation through a cold pool that would pass this is cut into several samples.
const ROTATION_NS: u64 = 100_000_000;
/// A sample never grows by more than this at a step, and never past a watchdog.
const GROWTH: u64 = 4;
/// Warm-up ends when this many samples in a row gain less than `WARM_GAIN`.
const WARM_SAMPLES: u32 = 3;
const WARM_GAIN: f64 = 0.03;
/// The interval of the median is tight at this half-width.
const TIGHT: f64 = 0.01;

/// What sampling brought.
pub struct Sampled {
    pub launches: u32,
    pub samples_ns: Vec<u64>,
    pub wall_ns: Vec<u64>,
    pub checked_ns: u64,
    pub remarks: Vec<String>,
    pub misfit: Option<String>,
}

/// The time of a sample on the clock that was chosen for the device.
pub fn chosen(clock: &Clock, sample: &Sample) -> u64 {
    match (clock.source.as_str(), sample.device) {
        ("device", Some(device)) => device.as_nanos() as u64,
        _ => sample.wall.as_nanos() as u64,
    }
}

/// Launches cut to whole rotations through the sets, where they hold one: every sample of them is then the same.
pub fn whole(launches: u32, sets: u32) -> u32 {
    if launches < sets { launches } else { launches - launches % sets }
}

/// Samples one loaded plan.
pub struct Sampler<'a> {
    loaded: &'a mut dyn Loaded,
    clock: &'a Clock,
    sets: u32,
    cache: Cache,
}

impl<'a> Sampler<'a> {
    pub fn new(loaded: &'a mut dyn Loaded, clock: &'a Clock, sets: u32, cache: Cache) -> Self {
        Sampler { loaded, clock, sets, cache }
    }

    /// Warms up, sizes the sample and samples until the rule stops it.
    pub fn run(&mut self, effort: Effort) -> Result<Sampled> {
        let budget = Duration::from_nanos(effort.budget_ns);
        let started = Instant::now();
        let launches = self.size()?;
        self.warm_up(launches, budget / 5)?;
        let mut sampled =
            Sampled { launches, samples_ns: Vec::new(), wall_ns: Vec::new(), checked_ns: 0, remarks: Vec::new(), misfit: None };
        // Warming up has left the first set in the caches.
        let first = if self.cache == Cache::Cold { launches % self.sets } else { 0 };
        let (mut measured, mut first, mut ordered) = (0u64, first, Ordered::default());
        loop {
            let sample = self.loaded.sample(launches, first)?;
            first = (first + launches) % self.sets;
            let time = chosen(self.clock, &sample);
            measured += sample.wall.as_nanos() as u64;
            sampled.samples_ns.push(time);
            ordered.push(time);
            sampled.wall_ns.push(sample.wall.as_nanos() as u64);
            let count = sampled.samples_ns.len();
            let enough = count >= effort.samples as usize && measured >= effort.least_ns;
            if enough && tight(&ordered) {
                return Ok(sampled);
            }
            // Either clock ends it: the fake device's time is not real time.
            let spent = started.elapsed().max(Duration::from_nanos(measured));
            if spent >= budget && count >= 3 {
                if !tight(&ordered) {
                    sampled.remarks.push(format!(
                        "stopped at its budget with an interval wider than 1 % ({count} samples in {:.2} s)",
                        budget.as_secs_f64()
                    ));
                }
                return Ok(sampled);
            }
        }
    }

    /// Launches of a sample: whole rotations of a cold pool, long enough for the clock.
    fn size(&mut self) -> Result<u32> {
        let target = SAMPLE_NS.max(RESOLUTIONS * self.clock.resolution_ns);
        let one = chosen(self.clock, &self.loaded.sample(1, 0)?).max(1);
        let rotation = match self.cache {
            Cache::Cold if one.saturating_mul(self.sets as u64) <= ROTATION_NS => self.sets as u64,
            _ => 1,
        };
        let mut launches = rotation;
        loop {
            let time = chosen(self.clock, &self.loaded.sample(launches as u32, 0)?).max(1);
            if time >= target || launches >= 1 << 20 {
                return Ok(launches as u32);
            }
            let grown = (launches * target).div_ceil(time).min(launches * GROWTH).max(launches + 1);
            launches = grown.div_ceil(rotation) * rotation;
        }
    }

    fn warm_up(&mut self, launches: u32, limit: Duration) -> Result<()> {
        let (started, mut spent, mut best, mut calm) = (Instant::now(), Duration::ZERO, u64::MAX, 0);
        while calm < WARM_SAMPLES && started.elapsed().max(spent) < limit {
            let sample = self.loaded.sample(launches, 0)?;
            spent += sample.wall;
            let time = chosen(self.clock, &sample);
            calm = if (time as f64) < (1.0 - WARM_GAIN) * best as f64 { 0 } else { calm + 1 };
            best = best.min(time);
        }
        Ok(())
    }
}

fn tight(samples: &Ordered) -> bool {
    samples.interval(0.5).is_some_and(|i| i.high - i.value <= TIGHT * i.value && i.value - i.low <= TIGHT * i.value)
}
