//! Canaries: one short fma and one short stream before and after every item.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::sampling::{chosen, whole};
use crate::backend::{Backend, Checks, Loaded, Sample};
use crate::draw::{Draw, Seeded};
use crate::error::Result;
use crate::op;
use crate::plan::{DeviceKind, Language, Precision, Tuned};
use crate::record::{Canary, Clock};

/// How long each canary runs.
const LENGTH_NS: u64 = 15_000_000;
/// Slices of a canary. The fastest counts: an interrupt or a stolen moment is no change of speed, a slower clock is.
const SLICES: u64 = 6;
/// Sets that the stream goes on through, slice after slice: all together are past the last-level cache, one alone takes no longer than a slice.
const SETS: u32 = 8;
/// A pulse this fresh stands for the next item's "before" as well.
const FRESH: Duration = Duration::from_millis(100);

/// Times of both canaries at one moment: nanoseconds of one launch in their fastest slice, which runs of one device may compare.
#[derive(Clone, Copy)]
pub struct Pulse {
    fma: u64,
    stream: u64,
    stream_bytes: u64,
}

impl Pulse {
    /// The record's form of a pulse before and one after.
    pub fn pair(before: Option<Pulse>, after: Option<Pulse>) -> Option<Canary> {
        let (before, after) = (before?, after?);
        Some(Canary {
            fma_before: before.fma,
            stream_before: before.stream,
            fma_after: after.fma,
            stream_after: after.stream,
            stream_bytes: after.stream_bytes,
        })
    }
}

/// Both canaries, loaded once and kept.
pub struct Canaries<'b> {
    fma: Bird<'b>,
    stream: Bird<'b>,
    clock: Clock,
    last: Option<(Instant, Pulse)>,
}

impl<'b> Canaries<'b> {
    /// Loads both and sizes their samples.
    pub fn new(backend: &'b dyn Backend, clock: &Clock) -> Result<Self> {
        let device = backend.device();
        let lanes = match (device.language, device.kind) {
            (Language::Host, _) => 640,
            (_, DeviceKind::Cpu) => 512,
            (_, DeviceKind::Gpu) => 16_384,
        };
        let elements = device.compute_units as u64 * lanes;
        // All sets together are twice the last-level cache.
        let array = device.llc_bytes().min(device.memory_bytes / 16).div_ceil(SETS as u64).min(device.limits.binding_bytes) / 4;
        let parts = device.compute_units as u64 * if device.language == Language::Host { 1 } else { 64 };
        let fma = Bird::hatch(backend, clock, "fma", "chains", json!({"elements": elements, "trips": 64, "steps": 512}), 1)?;
        let stream = Bird::hatch(
            backend,
            clock,
            "stream",
            "linear",
            json!({"kind": "copy", "elements": array, "passes": 1, "parts": parts.min(array)}),
            SETS,
        )?;
        Ok(Canaries { fma, stream, clock: clock.clone(), last: None })
    }

    /// Times both now, or repeats a pulse that is still fresh.
    pub fn pulse(&mut self) -> Result<Pulse> {
        if let Some((at, pulse)) = self.last
            && at.elapsed() < FRESH
        {
            return Ok(pulse);
        }
        let (fma, stream) = (self.fma.sing(&self.clock)?, self.stream.sing(&self.clock)?);
        let pulse = Pulse { fma, stream, stream_bytes: self.stream.bytes };
        self.last = Some((Instant::now(), pulse));
        Ok(pulse)
    }
}

/// One canary, loaded and sized.
pub(super) struct Bird<'b> {
    loaded: Box<dyn Loaded + 'b>,
    launches: u32,
    sets: u32,
    /// The set that the next slice begins with.
    next: u32,
    bytes: u64,
}

impl<'b> Bird<'b> {
    /// Loads so many sets of it and sizes a slice.
    pub(super) fn hatch(backend: &'b dyn Backend, clock: &Clock, name: &str, variant: &str, problem: Value, sets: u32) -> Result<Self> {
        let device = backend.device();
        let op = (op::find(name)?.parse)(&problem)?;
        let plan = op.plan(variant, Precision::F32, device.language, &Tuned::default(), device)?;
        let mut loaded = backend.load(&plan, Seeded { draw: Draw::Dense, seed: 0 }, sets, Checks::Trusted)?;
        loaded.sample(sets, 0)?;
        let one = chosen(clock, &loaded.sample(1, 0)?).max(1);
        let launches = whole((LENGTH_NS / SLICES).div_ceil(one).clamp(1, 4096) as u32, sets);
        Ok(Bird { loaded, launches, sets, next: 0, bytes: plan.cost.compulsory })
    }

    fn sing(&mut self, clock: &Clock) -> Result<u64> {
        let mut fastest = u64::MAX;
        for _ in 0..SLICES {
            fastest = fastest.min(chosen(clock, &self.slice()?));
        }
        Ok(fastest / self.launches as u64)
    }

    /// One slice.
    pub(super) fn slice(&mut self) -> Result<Sample> {
        let first = self.next;
        self.next = (first + self.launches) % self.sets;
        self.loaded.sample(self.launches, first)
    }
}
