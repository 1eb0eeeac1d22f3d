//! Placement by the rules of METHODOLOGY.md: bounds, fractions, limiters and ceilings, each with literal numbers.
//!
//! The fixture's device does 100 GFLOP/s; DRAM reads 20 GB/s, triad 16, copy 15, write 10; its caches are 4, 10 and 20 times as
//! fast. So a cold launch of 1 GFLOP is bound by 10 ms, and one that reads 20 MB by 1 ms.

mod fixture;

use fixture::{Build, GFLOPS, KIB, MIB, Random, kernel, traced};
use rooftrace::plan::Precision;
use rooftrace::record::{CeilingKind, Record, Skip, State};
use rooftrace::roofline::{Roof, Summary, ceiling_view, place, propose, sweeps, view};
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
    for state in [Wrong, Unsupported, Skipped, OutOfMemory, Timeout, DeviceLost, NotRun] {
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
            state: State::Ok,
            reasons: Vec::new(),
        };
        let ceilings = vec![view(CeilingKind::Compute, gflops * 1e9, spread_c), view(CeilingKind::Bandwidth, gbps * 1e9, spread_m)];
        let roof = Roof::new(&fixture::header(), ceilings, Vec::new());
        let (t_c, t_m) = (flops as f64 / gflops, bytes as f64 / gbps);
        let best = t_c.max(t_m);
        let u = if t_c > t_m { spread_c } else { spread_m };
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

// Ceilings.

#[test]
fn a_ceiling_is_work_over_the_tenth_percentile_of_its_pooled_blocks() {
    let blocks: Vec<_> = ["a", "b", "c"].iter().map(|id| fixture::fma(id, Precision::F32, GFLOPS).spread(10.0 * MS, 0.02).done()).collect();
    let find = |id: &str| blocks.iter().find(|m| m.id == id);
    let c = ceiling_view(&fixture::compute(Precision::F32, &["a", "b", "c"]), find).unwrap();
    // 36 pooled times, three at each of 12 even steps over ±2 %; the 10th percentile has rank 3.5: the
    // second step, 10 ms × (0.98 + 0.04 / 11).
    assert!((c.value / 101_663_585_914.0 - 1.0).abs() < 1e-9, "{c:?}");
    assert!(c.low < c.value && c.value < c.high && c.state == State::Ok, "{c:?}");
}

#[test]
fn a_short_block_still_widens_the_interval_of_its_ceiling() {
    // 200 samples at 96, two at 100 and two at 93 GFLOP/s: too few to move the pooled 10th percentile or its ranks.
    let block = |id: &str, n, gflops: f64| fixture::fma(id, Precision::F32, gflops).samples(n).takes(1e9 / gflops).done();
    let blocks = [block("a", 200, 96.0), block("b", 2, 100.0), block("c", 2, 93.0)];
    let find = |id: &str| blocks.iter().find(|m| m.id == id);
    let c = ceiling_view(&fixture::compute(Precision::F32, &["a", "b", "c"]), find).unwrap();
    assert!(near(Some(c.value), 96e9) && near(Some(c.low), 93e9) && near(Some(c.high), 100e9), "{c:?}");
}

#[test]
fn blocks_with_other_launch_counts_are_pooled_by_work() {
    let a = fixture::fma("a", Precision::F32, GFLOPS).done();
    let b = fixture::fma("b", Precision::F32, GFLOPS).work(3_000_000_000, 1, 0).takes(30.0 * MS).with(|m| {
        m.launches = 10;
        m.samples_ns.iter_mut().for_each(|ns| *ns /= 10);
    });
    let b = b.done();
    let find = |id: &str| [&a, &b].into_iter().find(|m| m.id == id);
    let c = ceiling_view(&fixture::compute(Precision::F32, &["a", "b"]), find).unwrap();
    assert_near(Some(c.value), 100e9);
    assert_eq!(c.state, State::Ok);
}

#[test]
fn blocks_over_five_percent_apart_make_a_ceiling_suspect() {
    for (gflops, state) in [(96.0, State::Ok), (94.0, State::Suspect)] {
        let (a, b) = (fixture::fma("a", Precision::F32, 100.0).done(), fixture::fma("b", Precision::F32, gflops).done());
        let find = |id: &str| [&a, &b].into_iter().find(|m| m.id == id);
        let c = ceiling_view(&fixture::compute(Precision::F32, &["a", "b"]), find).unwrap();
        assert_eq!(c.state, state);
        assert!(near(Some(c.low), gflops * 1e9) && near(Some(c.high), 100e9), "the interval holds every block: {c:?}");
    }
}

#[test]
fn a_suspect_unusable_or_absent_block_makes_a_ceiling_suspect_with_the_reason() {
    let good = fixture::fma("good", Precision::F32, 100.0).done();
    let suspect = fixture::fma("suspect", Precision::F32, 100.0).ended(State::Suspect).done();
    let wrong = fixture::fma("wrong", Precision::F32, 500.0).ended(State::Wrong).done();
    let find = |id: &str| [&good, &suspect, &wrong].into_iter().find(|m| m.id == id);
    for (other, why) in [("suspect", "suspect is suspect"), ("wrong", "wrong ended wrong"), ("gone", "gone is not in the file")] {
        let c = ceiling_view(&fixture::compute(Precision::F32, &["good", other]), find).unwrap();
        assert_eq!((c.state, c.reasons.as_slice()), (State::Suspect, &[why.to_string()][..]));
        assert_near(Some(c.value), 100e9);
    }
    assert!(ceiling_view(&fixture::compute(Precision::F32, &["wrong"]), find).unwrap_err().contains("no usable measurement"));
    let power = fixture::fma("power", Precision::F32, 90.0).ended(State::PowerLimited).done();
    let c = ceiling_view(&fixture::compute(Precision::F32, &["power"]), |_| Some(&power)).unwrap();
    assert_eq!(c.state, State::PowerLimited);
}

#[test]
fn a_suspect_roof_is_said_on_the_rows_it_decides() {
    let mut records = traced();
    for record in &mut records {
        if let Record::Ceiling(c) = record
            && c.level.as_deref() == Some("dram")
        {
            c.state = State::Suspect;
        }
    }
    let roof = Roof::from_records(&records).unwrap();
    let memory = place(&kernel("k").work(1000, 20_000_000, 0).takes(2.0 * MS).done(), &roof);
    assert_eq!(memory.reasons, ["the ceiling it is judged by is suspect: dram read"]);
    let compute = place(&kernel("k").work(1_000_000_000, 1_000_000, 0).takes(20.0 * MS).done(), &roof);
    assert_eq!(compute.reasons, Vec::<String>::new());
}

/// Read and triad sweeps of the fixture's levels, four points an octave, to 512 MiB.
fn swept() -> Vec<rooftrace::record::Measurement> {
    let mut probes = Vec::new();
    for (direction, part) in [("read", 1.0), ("triad", 0.8)] {
        for step in 0..=64 {
            let size = (8192.0 * (step as f64 / 4.0).exp2()) as u64 / 12 * 12;
            let gbps = fixture::LEVELS.iter().find(|l| l.1.is_none_or(|c| size <= c)).unwrap().2;
            probes.push(fixture::stream(&format!("{direction}-{step}"), direction, size, gbps * part).done());
        }
    }
    probes
}

#[test]
fn sweeps_propose_a_ceiling_for_each_level_and_direction_on_its_winner() {
    let mut probes = swept();
    probes.push(fixture::fma("f1", Precision::F32, 80.0).done());
    probes.push(fixture::fma("f2", Precision::F32, 100.0).done());
    probes.push(fixture::fma("f3", Precision::F32, 900.0).ended(State::Suspect).done());
    probes.push(fixture::fma("d1", Precision::F64, 50.0).done());
    // Non-temporal stores: a roof of their own in DRAM, and slow in cache.
    for (id, size, gbps) in [("nt-l3", 8 * MIB, 18.0), ("nt-dram", 256 * MIB, 18.0)] {
        probes.push(fixture::stream(id, "triad", size / 12 * 12, gbps).named("stream", "streaming").done());
    }
    let proposed = propose(&probes.iter().collect::<Vec<_>>(), &fixture::device());
    let names: Vec<_> = proposed.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "f32 vector",
            "f64 vector",
            "l1 read",
            "l1 triad",
            "l2 read",
            "l2 triad",
            "l3 read",
            "l3 triad",
            "dram read",
            "dram triad (streaming)",
            "dram triad"
        ]
    );
    assert_eq!((proposed[0].from.as_slice(), proposed[1].from.as_slice()), (&["f2".to_string()][..], &["d1".to_string()][..]));
    assert!(proposed.iter().all(|c| c.state == State::Ok && c.reasons.is_empty()), "{proposed:?}");
    let find = |id: &str| probes.iter().find(|m| m.id == id);
    for c in &proposed[2..9] {
        let level = fixture::LEVELS.iter().find(|l| Some(l.0) == c.level.as_deref()).unwrap();
        let part = if c.direction.as_deref() == Some("triad") { 0.8 } else { 1.0 };
        let value = ceiling_view(c, find).unwrap().value;
        assert!((value / (level.2 * part * 1e9) - 1.0).abs() < 1e-3, "{}: {value}", c.name);
        let held = c.capacity.zip(level.1).map(|(found, true_)| found as f64 / true_ as f64);
        assert!(held.is_none_or(|h| (0.99..=1.0).contains(&h)) && c.capacity.is_some() == level.1.is_some(), "{}: {held:?}", c.name);
    }
    let mut ids: Vec<_> = proposed.iter().map(|c| &c.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), proposed.len());
}

#[test]
fn curves_keep_the_fastest_sound_configuration_at_each_size() {
    let size = 12 * MIB;
    let probes = [
        fixture::stream("slow", "copy", size, 10.0).with(|m| m.tunables.0.extend([("BLOCK".into(), 64)])).done(),
        fixture::stream("fast", "copy", size, 30.0).with(|m| m.tunables.0.extend([("BLOCK".into(), 256)])).done(),
        fixture::stream("odd", "copy", size, 900.0).named("stream", "other").ended(State::Suspect).done(),
        fixture::stream("wrong", "copy", size, 900.0).ended(State::Wrong).done(),
        fixture::stream("small", "copy", MIB / 8 * 8, 50.0).done(),
    ];
    let curves = sweeps(&probes);
    assert_eq!(curves.len(), 1);
    let curve = curves[0].curve();
    assert_eq!(curve.direction, "copy");
    let points: Vec<_> = curve.points.iter().map(|(bytes, rate)| (*bytes, (rate / 1e9).round())).collect();
    assert_eq!(points, [(MIB, 50.0), (size, 30.0)]);
    assert_eq!(curves[0].points[1].ids, ["fast"]);
}

// The view.

#[test]
fn the_view_places_kernels_alone_and_keeps_unknown_ops_and_skips() {
    let mut records = traced();
    records.push(kernel("k1").work(1_000_000_000, 20_000_000, 0).takes(12.5 * MS).record());
    records.push(kernel("k2").named("fft", "radix16").work(1000, 20_000_000, 0).takes(2.0 * MS).record());
    records.push(kernel("k3").work(1000, 1000, 0).ended(State::Wrong).record());
    let skip = r#"{"id":"s","op":"matmul","variant":"tiled","state":"unsupported","why":"needs f16"}"#;
    records.push(Record::Skip(serde_json::from_str::<Skip>(skip).unwrap()));
    records.push(Record::Ceiling(fixture::bandwidth("l9", "read", None, &["nowhere"])));
    let v = view(&records).unwrap();
    let ids: Vec<_> = v.rows.iter().map(|r| r.id.as_str()).collect();
    assert_eq!(ids, ["k1", "k2", "k3"]);
    assert_near(v.rows[1].roof_fraction, 0.5);
    assert_eq!((v.ceilings.len(), v.curves.len()), (17, 4));
    let skips: Vec<_> = v.skips.iter().map(|s| (s.op.as_str(), s.variant.as_str())).collect();
    assert_eq!(skips, [("matmul", "tiled"), ("ceiling", "l9 read")]);
    let text = serde_json::to_string(&v).unwrap();
    let back: rooftrace::view::View = serde_json::from_str(&text).unwrap();
    assert_eq!(serde_json::to_string(&back).unwrap(), text, "the view survives the trip through JSON");
}

#[test]
fn files_without_a_header_or_with_ambiguous_ids_are_refused() {
    let of = |records: &[Record]| view(records).unwrap_err();
    assert_eq!(of(&traced()[1..]).exit_code(), 6);
    let mut twice = traced();
    twice.push(Record::Header(fixture::header()));
    assert!(of(&twice).to_string().contains("two header lines"));
    let mut same = traced();
    same.push(fixture::fma("fma", Precision::F32, 1.0).record());
    assert!(of(&same).to_string().contains("'fma'"));
}

#[test]
fn every_prefix_of_a_file_has_a_view() {
    let mut records = traced();
    records.push(kernel("k").work(1_000_000_000, 20_000_000, 0).takes(12.5 * MS).record());
    for end in 1..=records.len() {
        let v = view(&records[..end]).unwrap();
        assert!(v.skips.is_empty(), "{:?}", v.skips);
    }
}

#[test]
fn the_summary_names_ridge_best_kernel_and_biggest_gap() {
    let mut records = traced();
    let other = |id: &str, variant: &str, ms: f64| {
        kernel(id).named("depthwise", variant).work(1000, 20_000_000, 0).takes(ms * MS).with(|m| m.label = "16x112x112x64".into())
    };
    records.push(kernel("k1").work(1_000_000_000, 20_000_000, 0).takes(12.5 * MS).record());
    records.push(kernel("k2").named("matmul", "naive").work(1_000_000_000, 20_000_000, 0).takes(500.0 * MS).record());
    records.push(other("k3", "rows", 2.0).record());
    records.push(other("k4", "naive", 100.0).record());
    let summary = Summary::of(&view(&records).unwrap());
    assert_eq!(
        summary.sentences(),
        "The ridge of this device is at 5.00 FLOP/byte (f32, 100 GFLOP/s over 20.0 GB/s DRAM read): below it memory is the limit, \
         above it arithmetic. The best kernel, matmul/blocked 64x64x64 cold, reaches 80 % of its roof; the biggest gap is \
         depthwise/rows 16x112x112x64 cold, the fastest of its kind, at 50 % (no measured share explains it)."
    );
    records.push(kernel("k5").work(1_000_000_000, 1_000_000, 0).takes(5.0 * MS).record());
    records.push(kernel("k6").work(1000, 1000, 0).ended(State::Wrong).record());
    let said = Summary::of(&view(&records).unwrap()).sentences();
    assert!(said.contains("matmul/blocked 64x64x64 cold, reaches 80 %"), "a flagged point is never the best: {said}");
    assert!(said.ends_with("1 kernel lies above its roof and 1 output is wrong: see the reasons."), "{said}");
    let bare = Summary::of(&view(&[Record::Header(fixture::header())]).unwrap()).sentences();
    assert_eq!(bare, "No ridge can be given: the f32 or the DRAM ceiling is missing.");
}
