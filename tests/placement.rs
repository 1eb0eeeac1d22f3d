//! Placement by the rules of METHODOLOGY.md: bounds, fractions, limiters and ceilings, each with literal numbers.
//!
//! The fixture's device does 100 GFLOP/s; DRAM reads 20 GB/s, triad 16, copy 15, write 10; its caches are 4, 10 and 20 times as
//! fast. So a cold launch of 1 GFLOP is bound by 10 ms, and one that reads 20 MB by 1 ms.

mod fixture;

use fixture::{Build, GFLOPS, KIB, MIB, Random, kernel, traced};
use rooftrace::plan::{Precision, Unit};
use rooftrace::record::{Ceiling, CeilingKind, Record, State};
use rooftrace::roofline::{Roof, place};
use rooftrace::view::{CeilingView, Row};

const MS: f64 = 1e6;

fn roof() -> Roof {
    Roof::from_records(&traced()).unwrap()
}

fn placed(build: Build) -> Row {
    place(&build.done(), &roof())
}

fn near(a: Option<f64>, b: f64) -> bool {
    a.is_some_and(|a| (a / b - 1.0).abs() < 1e-6)
}

#[track_caller]
fn assert_near(a: Option<f64>, b: f64) {
    assert!(near(a, b), "{a:?} is not {b}");
}

/// Records without those that `drop` picks.
fn without(drop: impl Fn(&Record) -> bool) -> Vec<Record> {
    traced().into_iter().filter(|r| !drop(r)).collect()
}

// Bounds and fractions.

#[test]
fn a_compute_bound_kernel_is_judged_by_the_flops_of_its_precision() {
    let row = placed(kernel("k").work(1_000_000_000, 20_000_000, 0).takes(12.5 * MS));
    assert_near(row.roof_fraction, 0.8);
    assert_near(row.flop_per_s, 80e9);
    assert_near(row.byte_per_s, 1.6e9);
    assert_near(row.roof_flop_per_s, 100e9);
    assert_near(Some(row.intensity), 50.0);
    assert_eq!((row.limiter.as_str(), row.level.as_deref(), row.above_roof), ("compute (vector)", Some("dram"), false));
    assert_near(row.limiter_share, 0.8);
    assert_eq!(row.reasons, Vec::<String>::new());
}

#[test]
fn a_cold_kernel_is_judged_by_dram_at_its_own_mix_of_reads_and_writes() {
    // ns a byte: read 0.05, triad 0.0625, copy 0.0667, write 0.1.
    let cases = [
        (0u64, 1.0 / 20e9),
        (4_000_000, 1.0 / 16e9),
        (6_000_000, 1.0 / 15e9),
        (12_000_000, 1.0 / 10e9),
        (2_000_000, (1.0 / 20e9 + 1.0 / 16e9) / 2.0),
        (9_000_000, (1.0 / 15e9 + 1.0 / 10e9) / 2.0),
        (5_000_000, (1.0 / 16e9 + 1.0 / 15e9) / 2.0),
    ];
    for (written, seconds) in cases {
        let row = placed(kernel("k").work(1000, 12_000_000, written).takes(2.0 * MS));
        assert_near(row.roof_fraction, 12e6 * seconds / 2e-3);
        assert_eq!(row.level.as_deref(), Some("dram"));
    }
}

#[test]
fn a_kernel_that_is_not_f32_is_named_with_its_precision() {
    let mut row = placed(kernel("k").takes(MS));
    assert_eq!(row.kernel(), row.variant);
    row.precision = Precision::BF16;
    assert_eq!(row.kernel(), format!("{} bf16", row.variant));
}

#[test]
fn the_larger_bound_is_the_roof() {
    // 5 ms of arithmetic, 10 ms of DRAM.
    let row = placed(kernel("k").work(500_000_000, 200_000_000, 0).takes(20.0 * MS));
    assert_near(row.roof_fraction, 0.5);
    assert_near(row.roof_flop_per_s, 50e9);
}

#[test]
fn a_warm_kernel_is_judged_by_the_curve_at_the_footprint_of_one_set() {
    // 4 MiB lies two thirds of the way from 1 MiB (200 GB/s) to 8 MiB (80 GB/s) in log2; the sizes are cut to multiples of 12.
    let row = placed(kernel("k").work(1000, 4 * MIB, 0).warm(4 * MIB).takes(MS));
    let (low, high) = (((MIB / 12 * 12) as f64).log2(), ((8 * MIB / 12 * 12) as f64).log2());
    let part = ((4 * MIB) as f64).log2() - low;
    let gbps = 200.0 + part / (high - low) * (80.0 - 200.0);
    assert_near(row.roof_fraction, (4 * MIB) as f64 / gbps / MS);
    assert_eq!(row.level.as_deref(), Some("l3"));
}

#[test]
fn a_warm_kernel_names_the_smallest_level_that_holds_it() {
    for (bytes, level) in [(1, "l1"), (64 * KIB, "l1"), (64 * KIB + 1, "l2"), (32 * MIB, "l3"), (33 * MIB, "dram"), (1 << 40, "dram")] {
        let row = placed(kernel("k").work(1000, 4 * KIB, 0).warm(bytes).takes(MS));
        assert_eq!(row.level.as_deref(), Some(level), "{bytes} bytes");
        assert!(row.roof_fraction.is_some());
    }
}

#[test]
fn footprints_outside_the_sweep_take_its_end_points() {
    let small = placed(kernel("k").work(1000, 12 * KIB, 0).warm(1).takes(MS));
    assert_near(small.roof_fraction, (12 * KIB) as f64 / 400.0 / MS);
    let large = placed(kernel("k").work(1000, 12 * MIB, 0).warm(1 << 40).takes(MS));
    assert_near(large.roof_fraction, (12 * MIB) as f64 / 20.0 / MS);
}

#[test]
fn no_footprint_is_slower_than_memory() {
    let mut records = traced();
    let slowed = format!("read-{}", 128 * MIB);
    for record in &mut records {
        if let Record::Measurement(m) = record
            && m.id == slowed
        {
            m.samples_ns.iter_mut().for_each(|ns| *ns *= 2);
        }
    }
    let roof = Roof::from_records(&records).unwrap();
    let row = place(&kernel("k").work(1000, 12 * MIB, 0).warm(128 * MIB / 12 * 12).takes(MS).done(), &roof);
    assert_near(row.roof_fraction, (12 * MIB) as f64 / 20.0 / MS);
}

#[test]
fn an_absent_direction_is_bridged_and_an_unbracketed_mix_says_who_judged() {
    let no = |gone: &'static [&'static str]| {
        let records = without(move |r| matches!(r, Record::Ceiling(c) if c.direction.as_deref().is_some_and(|d| gone.contains(&d))));
        Roof::from_records(&records).unwrap()
    };
    let half = kernel("k").work(1000, 12_000_000, 6_000_000).takes(2.0 * MS).done();
    // Without copy, one half lies a quarter of the way from triad (1/3) to write (1).
    let bridged = place(&half, &no(&["copy"]));
    assert_near(bridged.roof_fraction, 12e6 * (0.75 / 16e9 + 0.25 / 10e9) / 2e-3);
    assert_eq!(bridged.reasons, Vec::<String>::new());
    let nearest = place(&half, &no(&["copy", "write"]));
    assert_near(nearest.roof_fraction, 12e6 / 16e9 / 2e-3);
    assert_eq!(nearest.reasons, ["50 % of its bytes are written and no ceiling brackets that: judged by triad"]);
}

#[test]
fn a_missing_ceiling_leaves_rates_and_no_fraction() {
    let no_compute = Roof::from_records(&without(|r| matches!(r, Record::Ceiling(c) if c.kind == CeilingKind::Compute))).unwrap();
    let no_dram = Roof::from_records(&without(|r| matches!(r, Record::Ceiling(c) if c.level.as_deref() == Some("dram")))).unwrap();
    let cold = kernel("k").work(1_000_000, 1_000_000, 0).takes(MS).done();
    for (roof, why) in [(no_compute, "no f32 compute ceiling"), (no_dram, "no DRAM ceiling")] {
        let row = place(&cold, &roof);
        assert_eq!((row.roof_fraction, row.roof_flop_per_s), (None, None));
        assert_near(row.flop_per_s, 1e9);
        assert!(row.reasons[0].starts_with(why), "{:?}", row.reasons);
    }
    let f64_row = place(&kernel("k").work(1_000_000, 1_000_000, 0).with(|m| m.precision = Precision::F64).takes(MS).done(), &roof());
    assert_eq!(f64_row.roof_fraction, None, "f64 is never judged by f32");
    let no_curve = Roof::new(&fixture::header(), roof().ceilings().to_vec(), Vec::new());
    let warm = place(&kernel("k").work(1_000_000, MIB, 0).warm(MIB).takes(MS).done(), &no_curve);
    assert_eq!(warm.roof_fraction, None);
    assert!(warm.reasons[0].starts_with("no working-set curve"), "{:?}", warm.reasons);
}

#[test]
fn a_kernel_without_arithmetic_needs_no_compute_ceiling() {
    let records = without(|r| matches!(r, Record::Ceiling(c) if c.kind == CeilingKind::Compute));
    let row = place(&kernel("k").work(0, 20_000_000, 0).takes(2.0 * MS).done(), &Roof::from_records(&records).unwrap());
    assert_near(row.roof_fraction, 0.5);
    assert_eq!((row.flop_per_s, row.roof_flop_per_s), (None, None));
}

#[test]
fn states_that_show_no_times_give_no_rates() {
    use State::*;
    for state in [Wrong, Unsupported, NotCompiled, Skipped, OutOfMemory, Timeout, DeviceLost, NotRun] {
        let row = placed(kernel("k").work(1_000_000, 1_000_000, 0).takes(MS).ended(state));
        assert_eq!((row.time_ns, row.flop_per_s, row.byte_per_s, row.roof_fraction), (None, None, None, None), "{state:?}");
        assert_eq!((row.state, row.limiter.as_str(), row.limiter_share), (state, "", None));
    }
}

#[test]
fn only_a_verified_measurement_is_placed() {
    let base = || kernel("k").work(1_000_000, 1_000_000, 0).takes(MS);
    let broken = [
        (base().with(|m| m.verification = None), "never verified"),
        (base().with(|m| m.samples_ns.clear()), "no samples"),
        (base().with(|m| m.launches = 0), "no samples"),
        (base().with(|m| m.samples_ns.fill(0)), "0 ns"),
    ];
    for (build, why) in broken {
        let row = placed(build);
        assert_eq!((row.time_ns, row.flop_per_s, row.roof_fraction, row.state), (None, None, None, State::Suspect));
        assert!(row.reasons[0].contains(why), "{:?}", row.reasons);
    }
}

#[test]
fn the_time_is_the_median_of_one_launch_with_its_interval() {
    let row = placed(kernel("k").work(1_000_000, 1_000_000, 0).spread(MS, 0.1));
    let time = row.time_ns.unwrap();
    assert_near(Some(time.median), MS);
    assert!(0.9 * MS < time.low && time.low < 0.97 * MS && 1.03 * MS < time.high && time.high < 1.1 * MS, "{time:?}");
    let few = placed(kernel("k").samples(3).work(1_000_000, 1_000_000, 0).spread(MS, 0.1));
    assert_near(few.time_ns.map(|t| t.low), 0.9 * MS);
    assert!(few.reasons[0].starts_with("3 samples only"), "{:?}", few.reasons);
}

// Above the roof.

#[test]
fn a_point_whose_whole_interval_is_faster_than_the_bound_is_flagged_and_not_clamped() {
    let row = placed(kernel("k").work(1_000_000_000, 1_000_000, 0).takes(8.0 * MS));
    assert!(row.above_roof);
    assert_near(row.roof_fraction, 1.25);
    assert_near(row.limiter_share, 1.25);
    assert!(row.reasons[0].contains("above the roof") && row.reasons[0].contains("clock"), "{:?}", row.reasons);
    let cold = placed(kernel("k").work(1000, 20_000_000, 0).with(|m| m.pool_bytes = 20_000_000).takes(0.5 * MS));
    assert!(cold.above_roof && cold.reasons[0].contains("it was not cold"), "{:?}", cold.reasons);
}

#[test]
fn an_interval_that_touches_the_roof_is_not_flagged() {
    let row = placed(kernel("k").work(1_000_000_000, 1_000_000, 0).spread(9.9 * MS, 0.05));
    assert!(!row.above_roof && row.roof_fraction.unwrap() > 1.0);
}

#[test]
fn the_roof_s_own_uncertainty_is_granted() {
    // Two blocks at 100 and 96 GFLOP/s: pooled 10th percentile near 100, interval down to 96, so u is near 4 %.
    let mut records = without(|r| matches!(r, Record::Ceiling(c) if c.kind == CeilingKind::Compute));
    records.push(fixture::fma("slow", Precision::F32, 96.0).record());
    records.push(Record::Ceiling(fixture::compute(Precision::F32, &["fma", "slow"])));
    let roof = Roof::from_records(&records).unwrap();
    let at = |ms: f64| place(&kernel("k").work(1_000_000_000, 1_000_000, 0).takes(ms * MS).done(), &roof).above_roof;
    assert!(!at(9.7) && at(9.5));
}

#[test]
fn between_two_swept_sizes_the_faster_of_both_rates_is_granted() {
    // 7 MiB reads at 87.7 GB/s by interpolation between 1 MiB (200) and 8 MiB (80).
    let at = |gbps: f64| placed(kernel("k").work(1000, 7 * MIB, 0).warm(7 * MIB).takes((7 * MIB) as f64 / gbps));
    assert!(!at(190.0).above_roof && at(190.0).roof_fraction.unwrap() > 2.0);
    assert!(at(210.0).above_roof);
}

#[test]
fn either_bound_alone_accuses_even_where_the_other_ceiling_is_missing() {
    let records = without(|r| matches!(r, Record::Ceiling(c) if c.kind == CeilingKind::Compute));
    let row = place(&kernel("k").work(1000, 20_000_000, 0).takes(0.5 * MS).done(), &Roof::from_records(&records).unwrap());
    assert!(row.above_roof && row.roof_fraction.is_none());
}

#[test]
fn every_point_beyond_its_bound_is_flagged_and_none_is_clamped_or_dropped() {
    let mut random = Random(99);
    let mut flagged = 0;
    for trial in 0..20_000 {
        // A roof of random ceilings with random spread, hence random u.
        let (gflops, gbps) = (random.between(1.0, 1e5), random.between(1.0, 1e4));
        let (spread_c, spread_m) = (0.1 * random.unit(), 0.1 * random.unit());
        let flops = random.between(1e3, 1e12) as u64;
        let bytes = random.between(1e3, 1e10) as u64;
        let view = |kind, value: f64, spread: f64| CeilingView {
            name: "c".into(),
            kind,
            precision: (kind == CeilingKind::Compute).then_some(Precision::F32),
            unit: None,
            level: (kind == CeilingKind::Bandwidth).then(|| "dram".into()),
            direction: (kind == CeilingKind::Bandwidth).then(|| "read".into()),
            capacity: None,
            value,
            low: value * (1.0 - spread / 2.0),
            high: value / (1.0 - spread),
            canary_ns: None,
            state: State::Ok,
            reasons: Vec::new(),
        };
        let ceilings = vec![view(CeilingKind::Compute, gflops * 1e9, spread_c), view(CeilingKind::Bandwidth, gbps * 1e9, spread_m)];
        let roof = Roof::new(&fixture::header(), ceilings, Vec::new());
        let (t_c, t_m) = (flops as f64 / gflops, bytes as f64 / gbps);
        let best = t_c.max(t_m);
        // No time is known better than half a per cent: two hundred steps of the clock.
        let u = if t_c > t_m { spread_c } else { spread_m }.max(0.005);
        let m = kernel("k").work(flops, bytes, 0).spread(best * random.between(0.2, 5.0), 0.2 * random.unit()).done();
        let Some(time) = place(&m, &roof).time_ns else {
            assert!(m.samples_ns.contains(&0), "trial {trial} was dropped");
            continue;
        };
        let row = place(&m, &roof);
        // (1 − 1e-9): the ceilings went through a division each way.
        if time.high < best * (1.0 - u) * (1.0 - 1e-9) {
            assert!(row.above_roof, "trial {trial}: {} ns under a bound of {best} ns with u {u}", time.high);
            assert!(row.reasons.iter().any(|r| r.contains("above the roof")));
            flagged += 1;
        }
        if time.high > best {
            assert!(!row.above_roof, "trial {trial} is falsely accused");
        }
        assert_near(row.roof_fraction, best / time.median);
    }
    assert!(flagged > 5_000, "only {flagged} points lay above their roof");
}

// Limiters.

#[test]
fn launch_is_named_when_dispatches_take_three_tenths_of_the_time() {
    // The fixture's launch takes 1 µs.
    let row = placed(kernel("k").work(1000, 1000, 0).grid(2, 3).takes(10_000.0));
    assert_eq!(row.limiter, "launch");
    assert_near(row.limiter_share, 0.3);
    assert_ne!(placed(kernel("k").work(1000, 1000, 0).grid(2, 3).takes(10_100.0)).limiter, "launch");
}

#[test]
fn a_launch_that_was_probed_takes_the_place_of_the_one_that_the_clocks_were_learnt_with() {
    let probe = |id: &str, dispatches: u32, ns: f64| kernel(id).named("launch", "counted").grid(1, dispatches).takes(ns).record();
    let mut records = traced();
    // 4 µs for 2 dispatches, 516 µs for 258: 2 µs each, where the fixture's clock says 1 µs.
    records.extend([probe("few", 2, 4_000.0), probe("many", 258, 516_000.0)]);
    let latency = Ceiling {
        name: "launch".into(),
        kind: CeilingKind::Latency,
        base: vec!["few".into()],
        ..fixture::compute(Precision::F32, &["many"])
    };
    records.push(Record::Ceiling(latency));
    let roof = Roof::from_records(&records).unwrap();
    let named = |us: f64| place(&kernel("k").work(1000, 1000, 0).grid(2, 3).takes(1e3 * us).done(), &roof).limiter;
    assert_eq!((named(20.0).as_str(), named(20.2).as_str()), ("launch", "unexplained"));
}

#[test]
fn exponentials_have_a_share_of_their_own_and_their_ceiling_is_no_roof() {
    let probe = fixture::fma("exp", Precision::F32, GFLOPS).named("exp", "chains").work(0, 32 * KIB, 16 * KIB);
    let mut records = traced();
    // 4 G exponentials a second; more than the FLOPs that the next kernel could do if they were FLOPs.
    records.push(probe.with(|m| m.exponentials = 4_000_000_000_000).takes(1e6 * MS).record());
    let ceiling = Ceiling { name: "f32 exp".into(), unit: Some(Unit::Exp), ..fixture::compute(Precision::F32, &["exp"]) };
    records.push(Record::Ceiling(ceiling));
    let roof = Roof::from_records(&records).unwrap();
    let at = |exponentials| kernel("k").work(200_000_000, 1_000_000, 0).takes(10.0 * MS).with(|m| m.exponentials = exponentials).done();
    // 2 ms of arithmetic of 10; 28 M exponentials take 7 ms.
    let row = place(&at(28_000_000), &roof);
    assert_eq!((row.limiter.as_str(), row.roof_fraction.map(|f| (f * 100.0).round())), ("exp", Some(20.0)));
    assert_near(row.limiter_share, 0.7);
    let named: Vec<&str> = row.shares.iter().map(|s| s.resource.as_str()).collect();
    assert_eq!(named[..2], ["exp", "compute (vector)"]);
    assert_near(Some(row.shares[1].share), 0.2);
    assert_eq!(place(&at(8_000_000), &roof).limiter, "unexplained");
    assert_eq!(place(&at(0), &roof).limiter_share.map(|s| (s * 100.0).round()), Some(20.0));
    assert_eq!(roof.compute(Precision::F32, None).unwrap().name, "f32 vector");
}

#[test]
fn parallelism_is_named_when_groups_are_few_or_the_last_wave_leaves_the_device_idle() {
    let mut header = fixture::header();
    header.device.compute_units = 10;
    let mut records = traced();
    records[0] = Record::Header(header);
    let roof = Roof::from_records(&records).unwrap();
    // At 80 % of DRAM, so that a resource is named where the grid gives no reason.
    let of = |groups| {
        let row = place(&kernel("k").work(1000, 16_000_000, 0).grid(groups, 1).takes(MS).done(), &roof);
        (row.limiter, row.limiter_share.map(|s| (s * 1e6).round() / 1e6))
    };
    assert_eq!(of(9), ("parallelism".into(), Some(0.1)));
    assert_eq!(of(10), ("dram".into(), Some(0.8)));
    assert_eq!(of(11), ("parallelism".into(), Some(0.45)));
    assert_eq!(of(14), ("dram".into(), Some(0.8)), "30 % idle is not over 30 %");
    assert_eq!(of(13), ("parallelism".into(), Some(0.35)));
    assert_eq!(of(1001), ("dram".into(), Some(0.8)), "a short last wave of a hundred is no reason");
}

#[test]
fn the_resource_with_the_largest_share_is_named_from_six_tenths_on() {
    let compute = placed(kernel("k").work(1_000_000_000, 20_000_000, 0).takes(10.0 * MS / 0.61));
    assert_eq!(compute.limiter, "compute (vector)");
    let dram = placed(kernel("k").work(1000, 20_000_000, 0).takes(MS / 0.61));
    assert_eq!(dram.limiter, "dram");
    let warm = placed(kernel("k").work(1000, 12 * MIB, 0).warm(30 * MIB).takes((12 * MIB) as f64 / 80.0 / 0.9));
    assert_eq!(warm.limiter, "l3");
}

#[test]
fn requested_bytes_are_charged_to_the_next_level_inwards() {
    // Cold: 1 MB from DRAM takes 50 µs, 64 MB asked of L3 at 80 GB/s take 800 µs.
    let cold = placed(kernel("k").work(1000, 1_000_000, 0).requests(64_000_000).takes(MS));
    assert_eq!(cold.limiter, "l3");
    assert_near(cold.limiter_share, 0.8);
    // Warm in L3: 160 MB asked of L2 at 200 GB/s. Warm in L2: 320 MB asked of L1 at 400 GB/s. Warm in L1: nothing lies inwards.
    let l2 = placed(kernel("k").work(1000, MIB, 0).warm(16 * MIB).requests(160_000_000).takes(MS));
    assert_eq!((l2.level.as_deref(), l2.limiter.as_str()), (Some("l3"), "l2"));
    let l1 = placed(kernel("k").work(1000, 4 * KIB, 0).warm(512 * KIB).requests(320_000_000).takes(MS));
    assert_eq!((l1.level.as_deref(), l1.limiter.as_str()), (Some("l2"), "l1"));
    let none = placed(kernel("k").work(1000, 4 * KIB, 0).warm(16 * KIB).requests(320_000_000).takes(MS));
    assert_eq!((none.level.as_deref(), none.limiter.as_str()), (Some("l1"), "unexplained"));
    assert!(cold.roof_fraction.unwrap() < 0.06 && !cold.above_roof, "requested bytes explain and never accuse");
}

#[test]
fn what_came_faster_than_a_level_delivers_is_charged_further_in() {
    // 150 MB would take 1.9 ms of L3 at 80 GB/s; L2 delivers them in 0.75 ms. Not even L1 delivers 800 MB: then they tell nothing.
    let l2 = placed(kernel("k").work(1000, 1_000_000, 0).requests(150_000_000).takes(MS));
    assert_eq!(l2.limiter, "l2");
    assert_near(l2.limiter_share, 0.75);
    let registers = placed(kernel("k").work(1000, 1_000_000, 0).requests(800_000_000).takes(MS));
    assert_eq!(registers.limiter, "unexplained");
    assert!(registers.shares.iter().all(|share| share.share <= 1.1), "{:?}", registers.shares);
}

#[test]
fn bytes_that_nobody_counted_blame_no_level_and_are_no_zero() {
    let counted = kernel("k").work(1000, 12 * MIB, 0).requests(64 * MIB).takes(MS);
    let unknown = counted.clone().with(|m| (m.bytes_requested, m.bytes_lane) = (None, None));
    let (counted, unknown) = (placed(counted), placed(unknown));
    assert_eq!(counted.limiter, "l3");
    assert_eq!((unknown.limiter.as_str(), unknown.bytes_requested), ("dram", None));
    assert_eq!(unknown.roof_fraction, counted.roof_fraction, "requested bytes explain, they do not place");
}

#[test]
fn two_shares_within_a_tenth_are_both_named() {
    // Arithmetic 0.8 of the time, DRAM 0.72; then 0.69.
    let both = placed(kernel("k").work(80_000_000, 14_400_000, 0).takes(MS));
    assert_eq!(both.limiter, "compute (vector) + dram");
    assert_near(both.limiter_share, 0.8);
    assert_eq!(placed(kernel("k").work(80_000_000, 13_800_000, 0).takes(MS)).limiter, "compute (vector)");
}

#[test]
fn what_no_share_explains_is_unexplained_with_the_largest_share() {
    let row = placed(kernel("k").work(59_000_000, 8_000_000, 0).takes(MS));
    assert_eq!(row.limiter, "unexplained");
    assert_near(row.limiter_share, 0.59);
    let bare = Roof::new(&fixture::header(), Vec::new(), Vec::new());
    let row = place(&kernel("k").work(59_000_000, 8_000_000, 0).takes(MS).done(), &bare);
    assert_eq!((row.limiter.as_str(), row.limiter_share), ("unexplained", None));
}

#[test]
fn power_and_suspect_modify_the_limiter() {
    let of = |state| placed(kernel("k").work(80_000_000, 1_000_000, 0).takes(MS).ended(state)).limiter;
    assert_eq!(of(State::PowerLimited), "compute (vector), power");
    assert_eq!(of(State::Suspect), "compute (vector), suspect");
}

// Paces.

/// The fixture's roof, its arithmetic and its memory traced while the canaries took 100 and 1000 ns.
fn paced() -> Vec<Record> {
    let sings = |record| match record {
        Record::Measurement(mut m) => {
            m.canary_ns = kernel("").sings(100, 1000).done().canary_ns;
            Record::Measurement(m)
        }
        other => other,
    };
    traced().into_iter().map(sings).collect()
}

fn paced_row(build: Build) -> Row {
    place(&build.done(), &Roof::from_records(&paced()).unwrap())
}

/// Half of its time is reads from memory at the roof's pace, a twentieth arithmetic.
fn reading() -> Build {
    kernel("k").work(5_000_000, 10_000_000, 0).takes(MS)
}

#[test]
fn a_kernel_of_an_hour_of_slower_memory_is_suspect_and_dram_has_the_share_that_it_had_then() {
    let row = paced_row(reading().sings(100, 1800));
    assert_near(row.roof_fraction, 0.5);
    assert_eq!((row.state, row.limiter.as_str()), (State::Suspect, "dram, suspect"));
    assert_near(row.limiter_share, 0.9);
    assert_eq!(row.reasons, ["memory was slower than when its roof was traced (at 56 % of that speed, by the canaries)"]);
    let faster = paced_row(reading().sings(100, 700));
    assert_eq!((faster.state, faster.limiter.as_str()), (State::Suspect, "unexplained, suspect"));
    assert_near(faster.limiter_share, 0.35);
    assert!(faster.reasons[0].starts_with("memory was faster than"), "{:?}", faster.reasons);
}

#[test]
fn a_pace_is_felt_by_the_share_that_a_resource_has_of_the_time() {
    // A tenth more of half the time; nine tenths more of a twentieth.
    for sober in [reading().sings(100, 1100), reading().sings(190, 1000), reading().sings(100, 1000), reading()] {
        let row = paced_row(sober);
        assert_eq!((row.state, row.limiter.as_str(), &row.reasons[..]), (State::Ok, "unexplained", &[][..]));
    }
    let computing = kernel("k").work(80_000_000, 1_000_000, 0).takes(MS);
    let row = paced_row(computing.clone().sings(120, 1000));
    assert_eq!((row.state, row.limiter.as_str()), (State::Suspect, "compute (vector), suspect"));
    assert_near(row.limiter_share, 0.96);
    assert!(row.reasons[0].starts_with("arithmetic was slower than"), "{:?}", row.reasons);
    // What else the state says is kept.
    assert_eq!(paced_row(computing.sings(120, 1000).ended(State::PowerLimited)).state, State::PowerLimited);
}

#[test]
fn directions_traced_at_other_paces_weigh_as_they_do_in_the_mix() {
    // Reads were traced in a moment twice as slow as all else.
    let records: Vec<Record> = paced()
        .into_iter()
        .map(|record| match record {
            Record::Measurement(m) if m.id.starts_with("read-") => {
                Record::Measurement(rooftrace::record::Measurement { canary_ns: kernel("").sings(100, 2000).done().canary_ns, ..m })
            }
            other => other,
        })
        .collect();
    let roof = Roof::from_records(&records).unwrap();
    // Half way from read (0.05 ns a byte) to triad (0.0625): at the later pace reads take half as long.
    let row = place(&kernel("k").work(1000, 12_000_000, 2_000_000).takes(MS).sings(100, 1000).done(), &roof);
    let (traced, now) = ((0.05 + 0.0625) / 2.0, (0.025 + 0.0625) / 2.0);
    assert_near(row.roof_fraction, 12.0 * traced);
    assert_near(row.limiter_share, 12.0 * now);
    assert_eq!(row.state, State::Suspect);
}

#[test]
fn without_canaries_or_out_of_caches_no_pace_is_told() {
    let unsung = place(&reading().sings(100, 1800).done(), &roof());
    assert_eq!((unsung.state, unsung.limiter.as_str()), (State::Ok, "unexplained"));
    let warm = paced_row(kernel("k").work(1000, 64 * MIB, 0).warm(64 * MIB).takes(4.0 * MS).sings(100, 1800));
    assert_eq!((warm.state, warm.level.as_deref()), (State::Ok, Some("dram")));
    // Records older than the size of the canary's stream.
    let old = reading().sings(100, 1800).with(|m| m.canary_ns.as_mut().unwrap().stream_bytes = 0);
    assert_eq!(paced_row(old).state, State::Ok);
}

#[test]
fn a_kernel_that_went_at_another_pace_is_replaced_by_its_later_measurement() {
    let mut records = paced();
    let again = || kernel("again").work(5_000_000, 10_000_000, 0).takes(0.9 * MS).sings(100, 1000);
    let other = kernel("moved").named("matmul", "other").ended(State::Suspect).takes(MS);
    records.extend([reading().sings(100, 1800).record(), other.record()]);
    let (moved, off) = rooftrace::roofline::suspects(&records, &Roof::from_records(&records).unwrap());
    assert_eq!([moved, off].map(|them| them.iter().map(|m| m.id.as_str()).collect::<Vec<_>>()), [["moved"], ["k"]]);
    records.push(again().record());
    let view = rooftrace::roofline::view(&records).unwrap();
    assert_eq!((view.rows.len(), view.rows[0].id.as_str(), view.rows[0].state), (2, "again", State::Ok));
}
