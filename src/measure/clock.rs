//! What the clocks of a device are good for, learnt once at start-up.

use std::time::Instant;

use serde_json::json;

use crate::backend::{Backend, Checks, Loaded, Sample};
use crate::draw::{Draw, Seeded};
use crate::error::Result;
use crate::op;
use crate::plan::{Language, Precision, Tuned};
use crate::record::Clock;
use crate::stats;

/// Launches in the larger of the two samples that the launch overhead is taken from.
const MANY: u32 = 64;
/// Samples of each size.
const SAMPLES: usize = 15;
/// Wall may exceed device by this much, plus the launches' overhead, before the device clock is not believed.
const SLACK_NS: f64 = 300_000.0;
/// The same as a share of the wall time.
const SLACK: f64 = 0.05;

/// Resolution, launch overhead and, where the device has a clock of its own, whether it is believed.
pub fn learn(backend: &dyn Backend) -> Result<Clock> {
    let device = backend.device();
    let load = |trips: u64, elements: u64| {
        let op = (op::find("fma")?.parse)(&json!({"elements": elements, "trips": trips, "steps": 256}))?;
        let plan = op.plan("chains", Precision::F32, device.language, &Tuned::default(), device)?;
        backend.load(&plan, Seeded { draw: Draw::Dense, seed: 0 }, 1, Checks::Trusted)
    };
    let mut tiny = load(1, 64)?;
    tiny.sample(MANY, 0)?;
    let ones = samples(&mut *tiny, 1)?;
    let many = samples(&mut *tiny, MANY)?;
    drop(tiny);
    let wall_overhead = (median(many.iter().map(wall)) - median(ones.iter().map(wall))) / (MANY - 1) as f64;
    let mut clock = Clock {
        source: "wall".into(),
        rejected: None,
        resolution_ns: wall_resolution(),
        launch_ns: wall_overhead.max(0.0) as u64,
        core_mhz: (device.language == Language::Host && !device.simulated).then(core_mhz),
    };
    if ones.iter().all(|s| s.device.is_none()) {
        return Ok(clock);
    }
    // A problem long enough that both clocks should agree, once and four times over.
    let mut longer = load(64, device.compute_units as u64 * 2048)?;
    longer.sample(1, 0)?;
    let ticks = backend.ticks()?;
    let (short, long) = (samples(&mut *longer, 1)?, samples(&mut *longer, 4)?);
    let counted = super::telemetry::core_mhz(&ticks, &backend.ticks()?);
    clock.core_mhz = clock.core_mhz.or(counted.map(|mhz| (mhz.into(), "clock64 / globaltimer".into())));
    match doubt(&short, &long, wall_overhead.max(0.0)) {
        Some(why) => clock.rejected = Some(why),
        None => {
            clock.source = "device".into();
            clock.resolution_ns = device_resolution(ones.iter().chain(&short));
            let device_overhead = (median(many.iter().map(own)) - median(ones.iter().map(own))) / (MANY - 1) as f64;
            clock.launch_ns = device_overhead.max(0.0) as u64;
        }
    }
    Ok(clock)
}

/// Why the device clock cannot be believed, if it cannot.
fn doubt(short: &[Sample], long: &[Sample], overhead: f64) -> Option<String> {
    for (samples, launches) in [(short, 1.0), (long, 4.0)] {
        let (device, wall) = (median(samples.iter().map(own)), median(samples.iter().map(wall)));
        if device <= 0.0 {
            return Some("its timestamps are zero".into());
        }
        if device > wall * (1.0 + SLACK) {
            return Some(format!("it shows {device:.0} ns where the wall clock shows {wall:.0} ns"));
        }
        if wall - device > SLACK_NS.max(SLACK * wall) + launches * overhead {
            return Some(format!(
                "it shows {device:.0} ns, the wall clock {wall:.0} ns, and launches explain only {:.0} ns",
                launches * overhead
            ));
        }
    }
    let growth = median(long.iter().map(own)) / median(short.iter().map(own));
    if growth < 2.0 {
        return Some(format!("four times the work takes only {growth:.2} times its time"));
    }
    None
}

fn samples(loaded: &mut dyn Loaded, launches: u32) -> Result<Vec<Sample>> {
    (0..SAMPLES).map(|_| loaded.sample(launches, 0)).collect()
}

fn wall(sample: &Sample) -> f64 {
    sample.wall.as_nanos() as f64
}

fn own(sample: &Sample) -> f64 {
    sample.device.map_or(0.0, |d| d.as_nanos() as f64)
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    stats::median_of(values).unwrap_or(0.0)
}

/// Smallest step of the wall clock seen in a thousand readings.
fn wall_resolution() -> u64 {
    let steps = (0..1000).map(|_| {
        let start = Instant::now();
        loop {
            let step = start.elapsed().as_nanos() as u64;
            if step > 0 {
                return step;
            }
        }
    });
    steps.min().unwrap_or(1).max(1)
}

/// Smallest difference between two times that the device clock showed.
fn device_resolution<'a>(samples: impl Iterator<Item = &'a Sample>) -> u64 {
    let mut times: Vec<u64> = samples.map(|s| own(s) as u64).collect();
    times.sort_unstable();
    times.dedup();
    times.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap_or(1).clamp(1, 100_000)
}

/// The host's core clock in MHz, inferred from a chain of dependent adds and exclusive-ors, one cycle each on every core of
/// today. The best of many short runs: interrupts only ever make it look slower.
fn core_mhz() -> (u64, String) {
    const STEPS: u32 = 100_000;
    let (a, b) = std::hint::black_box((0x9e37_79b9_7f4a_7c15_u64, 0x2545_f491_4f6c_dd1d_u64));
    let run = |_| {
        let (start, mut x) = (Instant::now(), a);
        for _ in 0..STEPS / 10 {
            // Ten pairs, so that the loop's own counter runs beside the chain.
            for _ in 0..10 {
                x = x.wrapping_add(a) ^ b;
            }
        }
        std::hint::black_box(x);
        start.elapsed().as_nanos() as f64
    };
    let best = (0..60).map(run).fold(f64::MAX, f64::min);
    ((2.0 * STEPS as f64 / best * 1e3) as u64, "inferred".into())
}
