//! How long things take on the fake device: a roofline with caches, launch overhead, noise and pace.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::script::{DeviceClock, Pace, Script};
use super::{Fake, VARIABLE};
use crate::backend::Sample;
use crate::draw::mix;
use crate::error::{Error, Result};
use crate::op::TensorSpec;
use crate::plan::{Plan, Precision, Tuned};

/// A cache that serves working sets up to `capacity`.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Level {
    /// Bytes.
    pub capacity: u64,
    /// Byte/s.
    pub byte_per_s: f64,
}

/// How fast the device is.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Speed {
    /// FLOP/s by precision; one that is left out runs at the f32 rate.
    pub flop_per_s: BTreeMap<Precision, f64>,
    /// Exponentials a second.
    pub exp_per_s: f64,
    /// Caches, smallest first. They need not be those that the device reports.
    pub levels: Vec<Level>,
    /// Byte/s of memory behind all caches.
    pub dram_byte_per_s: f64,
    /// Share of a cache that keeps hitting once its capacity is passed: 0 falls off a cliff, 1 is random replacement.
    pub softness: f64,
    /// Time of a written byte over that of a read one.
    pub written_cost: f64,
    /// Time of a dispatch that does nothing, in nanoseconds.
    pub launch_ns: f64,
    /// Amplitude of the noise, relative.
    pub noise: f64,
    /// Every so many samples one takes thrice as long; 0 is never.
    pub spike_every: u64,
}

impl Default for Speed {
    fn default() -> Self {
        Speed {
            flop_per_s: BTreeMap::from([(Precision::F32, 100e9), (Precision::F64, 50e9)]),
            exp_per_s: 10e9,
            levels: vec![Level { capacity: 256 << 10, byte_per_s: 800e9 }, Level { capacity: 4 << 20, byte_per_s: 200e9 }],
            dram_byte_per_s: 50e9,
            softness: 0.0,
            written_cost: 1.0,
            launch_ns: 1_000.0,
            noise: 0.001,
            spike_every: 0,
        }
    }
}

/// A kernel that takes another time than the model says.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ease {
    /// Op; any where absent.
    pub op: Option<String>,
    /// Variant; any where absent.
    pub variant: Option<String>,
    /// Only with these values of its tunables.
    #[serde(default)]
    pub tunables: Tuned,
    /// Its time is multiplied by this.
    #[serde(default = "one")]
    pub factor: f64,
    /// Its time in nanoseconds, instead of the model's.
    pub ns: Option<f64>,
}

fn one() -> f64 {
    1.0
}

impl Speed {
    /// # Errors
    /// [`Error::Usage`] for a rate that is not a positive number.
    pub(super) fn check(&self) -> Result<()> {
        let rates =
            self.flop_per_s.values().chain(self.levels.iter().map(|l| &l.byte_per_s)).chain([&self.dram_byte_per_s, &self.exp_per_s]);
        match rates.copied().find(|rate| rate.is_nan() || *rate <= 0.0) {
            Some(rate) => Err(Error::usage(format!("{VARIABLE}: speed: {rate} is no rate; write numbers above 0"))),
            None => Ok(()),
        }
    }

    fn flops(&self, precision: Precision) -> f64 {
        let known = self.flop_per_s.get(&precision).or(self.flop_per_s.get(&Precision::F32));
        known.copied().unwrap_or(100e9)
    }

    /// Nanoseconds of a byte that is found where a working set of `footprint` bytes lies; `inward` levels further in.
    fn ns_per_byte(&self, footprint: f64, inward: usize) -> f64 {
        let rate = |level: usize| self.levels.get(level).map_or(self.dram_byte_per_s, |l| l.byte_per_s);
        let level = self.levels.iter().position(|l| footprint <= l.capacity as f64).unwrap_or(self.levels.len());
        let mut time = 1e9 / rate(level.saturating_sub(inward));
        if inward == 0 && level > 0 {
            let hits = self.softness * self.levels[level - 1].capacity as f64 / footprint;
            time = hits * 1e9 / rate(level - 1) + (1.0 - hits) * time;
        }
        time
    }

    /// Nanoseconds of one call when `sets` sets are rotated through: the largest of compute, exponentials, the bytes of the tensors and the
    /// bytes that work-groups ask of the next level inwards, plus the dispatches.
    pub(super) fn call_ns(&self, plan: &Plan, sets: u32) -> f64 {
        let cost = &plan.cost;
        let set = plan.tensors.iter().map(TensorSpec::bytes).sum::<u64>() as f64;
        let total = cost.compulsory as f64;
        let written = if total > 0.0 { cost.written as f64 / total } else { 0.0 };
        // The first pass over a set finds it where the whole pool lies, the others where one set does.
        let first = total.min(set);
        let passes = first * self.ns_per_byte(set * sets as f64, 0) + (total - first) * self.ns_per_byte(set, 0);
        let memory = passes * (1.0 + written * (self.written_cost - 1.0));
        let asked = cost.requested.unwrap_or(cost.moved) as f64 * self.ns_per_byte(set, 1);
        let powers = cost.exponentials as f64 * 1e9 / self.exp_per_s;
        let compute = powers.max(cost.flops as f64 * 1e9 / self.flops(plan.precision));
        self.launch_ns * plan.dispatches.len().max(1) as f64 + compute.max(memory).max(asked)
    }
}

impl Script {
    /// Nanoseconds of one call of this plan at full pace.
    pub(super) fn call_ns(&self, plan: &Plan, sets: u32) -> f64 {
        let model = self.speed.call_ns(plan, sets);
        let fits = |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|w| w == name);
        let tuned = |e: &Ease| e.tunables.0.iter().all(|(name, value)| plan.tuned.0.get(name) == Some(value));
        match self.ease.iter().find(|e| fits(&e.op, plan.op) && fits(&e.variant, &plan.variant) && tuned(e)) {
            Some(ease) => ease.ns.unwrap_or(model) * ease.factor,
            None => model,
        }
    }

    /// What the time of sample number `sample` is multiplied by.
    pub(super) fn factor(&self, sample: u64) -> f64 {
        let hash = |key: u32| mix((sample as u32).wrapping_add(mix(self.seed ^ key))) as f64 / u32::MAX as f64;
        // Sum of four uniform numbers: near-normal, σ 0.577, never beyond ±2.
        let noise = (1..=4).map(hash).sum::<f64>() - 2.0;
        let every = self.speed.spike_every;
        let spike = if every > 0 && sample % every == every - 1 { 3.0 } else { 1.0 };
        (1.0 + self.speed.noise * noise).max(0.01) * spike * self.paced(sample)
    }

    fn paced(&self, sample: u64) -> f64 {
        let start = Pace { after: 0, factor: 1.0 };
        let last = self.pace.iter().rev().find(|p| p.after <= sample).unwrap_or(&start);
        match self.pace.iter().find(|p| p.after > sample) {
            Some(next) if self.ramp => {
                let way = (sample - last.after) as f64 / (next.after - last.after) as f64;
                last.factor + way * (next.factor - last.factor)
            }
            _ => last.factor,
        }
    }
}

impl Fake {
    /// Both clocks for `launches` calls of `call_ns` each, all multiplied by `factor`.
    pub(super) fn clocks(&self, call_ns: f64, launches: u32, factor: f64) -> Sample {
        let timing = &self.script.clock;
        let busy = call_ns * launches as f64 * factor;
        let wall = busy + timing.submit_ns as f64;
        let device = match timing.device {
            DeviceClock::Absent => None,
            DeviceClock::True => Some(busy),
            DeviceClock::Zero => Some(0.0),
            DeviceClock::Negative => Some(if self.samples.get().is_multiple_of(2) { 0.0 } else { busy }),
            DeviceClock::Wrapping => Some((u64::MAX >> 1) as f64 - busy),
            DeviceClock::AboveWall => Some(2.0 * wall),
            DeviceClock::Constant => Some(call_ns * factor),
            DeviceClock::Half => Some(busy / 2.0),
        };
        Sample { device: device.map(|ns| stepped(ns, timing.step_ns)), wall: stepped(wall, timing.wall_step_ns) }
    }
}

fn stepped(ns: f64, step: u64) -> Duration {
    let step = step.max(1);
    Duration::from_nanos(ns.max(0.0) as u64 / step * step)
}
