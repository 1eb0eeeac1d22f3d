use super::*;
use crate::draw::mix;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// A curve over caches of these (capacity, byte/s) in front of DRAM, four points an octave from 4 KiB to `largest`. Beyond a
/// capacity, what still hits is the share that fits: times add up as in a cache of random replacement.
fn curve(caches: &[(u64, f64)], dram: f64, largest: u64, noise: f64, seed: u32) -> Vec<(u64, f64)> {
    let steps = ((largest as f64 / 4096.0).log2() * 4.0).round() as u32;
    let point = |step: u32| {
        let bytes = (4096.0 * (step as f64 / 4.0).exp2()) as u64 / 64 * 64;
        let (mut left, mut time) = (1.0, 0.0);
        for &(capacity, rate) in caches {
            // Hits end within an octave past the capacity, as least-recently-used replacement makes them.
            let hits = (2.0 - bytes as f64 / capacity as f64).clamp(0.0, 1.0) * left;
            time += hits / rate;
            left -= hits;
        }
        let wobble = 1.0 + noise * (2.0 * mix(step ^ mix(seed)) as f64 / u32::MAX as f64 - 1.0);
        (bytes, wobble / (time + left / dram))
    };
    (0..=steps).map(point).collect()
}

fn named(levels: &[Level]) -> Vec<&str> {
    levels.iter().map(|l| l.name.as_str()).collect()
}

fn assert_found(levels: &[Level], caches: &[(u64, f64)], dram: f64, what: &str) {
    assert_eq!(levels.len(), caches.len() + 1, "{what}: {levels:?}");
    for (level, &(capacity, rate)) in levels.iter().zip(caches) {
        let held = level.capacity.unwrap() as f64 / capacity as f64;
        assert!((0.8..=1.35).contains(&held), "{what}: {} holds {held} of its capacity", level.name);
        assert!((level.value / rate - 1.0).abs() < 0.04, "{what}: {} at {} of its rate", level.name, level.value / rate);
    }
    let last = levels.last().unwrap();
    assert_eq!((last.name.as_str(), last.state), ("dram", State::Ok), "{what}: {:?}", last.reasons);
    assert!((last.value / dram - 1.0).abs() < 0.03, "{what}: dram at {}", last.value / dram);
}

#[test]
fn one_to_three_caches_are_found_at_their_capacities() {
    let all = [(64 * KIB, 400e9), (MIB, 190e9), (32 * MIB, 80e9)];
    for count in 1..=3 {
        let caches = &all[3 - count..];
        let reported: Vec<_> = caches.iter().zip(1..).map(|(c, level)| (level, c.0)).collect();
        let levels = levels(&curve(caches, 20e9, 1024 * MIB, 0.0, 0), &reported);
        assert_found(&levels, caches, 20e9, &format!("{count} caches"));
        assert!(levels.iter().all(|l| l.reasons.is_empty()), "{levels:?}");
    }
}

#[test]
fn two_percent_of_noise_changes_no_level() {
    for seed in 0..200 {
        let scale = 1 + mix(seed) as u64 % 3;
        let caches = [(48 * KIB * scale, 300e9), (MIB * scale, 150e9), (16 * MIB * scale, 60e9)];
        let noisy = curve(&caches, 25e9, 1024 * MIB, 0.02, seed);
        assert_found(&levels(&noisy, &[]), &caches, 25e9, &format!("seed {seed}"));
    }
}

#[test]
fn a_single_disturbed_point_splits_no_level() {
    let caches = [(64 * KIB, 400e9), (MIB, 190e9), (32 * MIB, 80e9)];
    let clean = curve(&caches, 20e9, 1024 * MIB, 0.0, 0);
    for at in 1..clean.len() - 9 {
        for factor in [0.3, 1.4] {
            let mut disturbed = clean.clone();
            disturbed[at].1 *= factor;
            assert_found(&levels(&disturbed, &[]), &caches, 20e9, &format!("point {at} times {factor}"));
        }
    }
}

#[test]
fn a_cache_that_the_system_hides_is_found_and_the_disagreement_said() {
    let caches = [(64 * KIB, 400e9), (MIB, 190e9), (32 * MIB, 80e9)];
    let levels = levels(&curve(&caches, 20e9, 1024 * MIB, 0.0, 0), &[(1, 64 * KIB), (2, MIB)]);
    assert_found(&levels, &caches, 20e9, "hidden l3");
    assert_eq!(levels[3].reasons, ["the sweep tells 3 caches apart; the system reports 2"]);
}

#[test]
fn a_capacity_other_than_the_reported_one_is_kept_and_said() {
    let caches = [(64 * KIB, 400e9), (8 * MIB, 80e9)];
    let levels = levels(&curve(&caches, 20e9, 512 * MIB, 0.0, 0), &[(1, 64 * KIB), (2, 32 * MIB)]);
    assert!(levels[1].capacity.unwrap() < 12 * MIB);
    assert!(levels[1].reasons[0].contains("32.0 MiB of L2 reported"), "{:?}", levels[1].reasons);
}

#[test]
fn dram_that_was_not_reached_is_suspect() {
    let caches = [(64 * KIB, 400e9), (MIB, 190e9), (512 * MIB, 80e9)];
    // Whole sweep inside the huge cache: only the system's report can tell.
    let inside = levels(&curve(&caches, 20e9, 256 * MIB, 0.0, 0), &[(1, 64 * KIB), (2, MIB), (3, 512 * MIB)]);
    let last = inside.last().unwrap();
    assert_eq!((last.name.as_str(), last.state), ("dram", State::Suspect));
    assert!(last.reasons[0].contains("may lie in that cache"), "{:?}", last.reasons);
    // The sweep ends on the slope behind it, or before four times its capacity: no report is needed.
    for end in [1024, 2048, 4096] {
        let slope = levels(&curve(&caches, 20e9, end * MIB, 0.0, 0), &[]);
        assert_eq!(slope.last().unwrap().state, State::Suspect, "{end} MiB: {slope:?}");
    }
    let beyond = levels(&curve(&caches, 20e9, 16 * 512 * MIB, 0.0, 0), &[]);
    assert_found(&beyond, &caches, 20e9, "sixteen times the cache");
}

#[test]
fn an_ascending_sweep_is_settled_once_it_is_far_beyond_its_caches() {
    let caches = [(64 * KIB, 400e9), (MIB, 190e9), (32 * MIB, 80e9)];
    let whole = curve(&caches, 20e9, 4096 * MIB, 0.0, 0);
    let end =
        |reported: &[(u32, u64)]| (1..=whole.len()).map(|n| &whole[..n]).find(|&begun| settled(begun, reported)).unwrap().last().unwrap().0;
    // A cache that the system reports counts even where the curve does not show it.
    let honest = end(&[(1, 64 * KIB), (2, MIB), (3, 32 * MIB)]);
    assert!((512 * MIB..=1024 * MIB).contains(&honest), "{honest}");
    let boastful = end(&[(1, 64 * KIB), (2, MIB), (3, 260 * MIB)]);
    assert!((1024 * MIB..=1536 * MIB).contains(&boastful), "{boastful}");
}

#[test]
fn a_drifting_tail_is_suspect() {
    let mut sloped = curve(&[(64 * KIB, 100e9)], 20e9, 64 * MIB, 0.0, 0);
    let n = sloped.len();
    for (step, point) in sloped[n - 9..].iter_mut().enumerate() {
        point.1 *= 1.0 - 0.012 * step as f64;
    }
    let found = levels(&sloped, &[]);
    assert_eq!(found.last().unwrap().state, State::Suspect);
    assert!(found.last().unwrap().reasons[0].contains("not flat"), "{found:?}");
}

#[test]
fn a_stretch_hardly_faster_than_dram_is_no_level() {
    // 45 to 128 MiB at 40 GB/s before a DRAM that wanders from 29 to 36: as a shared machine showed it.
    let caches = [(MIB, 200e9), (16 * MIB, 130e9)];
    let mut points = curve(&caches, 34e9, 1024 * MIB, 0.0, 0);
    for (at, (_, rate)) in points.iter_mut().filter(|p| p.0 > 40 * MIB).enumerate() {
        *rate = [40e9, 41e9, 39e9, 40e9, 41e9, 39e9, 29e9, 35e9, 36e9].get(at).copied().unwrap_or(34e9);
    }
    assert_eq!(named(&levels(&points, &[])), ["l1", "l2", "dram"]);
}

#[test]
fn what_is_slower_than_a_larger_working_set_is_doubtful() {
    let mut points = curve(&[(MIB, 200e9), (16 * MIB, 100e9)], 30e9, 512 * MIB, 0.0, 0);
    assert!(doubtful(&points).is_empty());
    let last = points.len() - 3;
    points[7].1 *= 0.4;
    points[last].1 *= 0.9;
    assert_eq!(doubtful(&points), [points[7].0, points[last].0]);
    assert!(doubtful(&[]).is_empty());
}

#[test]
fn a_flat_curve_is_dram_alone() {
    let flat = curve(&[], 4e9, 256 * MIB, 0.02, 3);
    let found = levels(&flat, &[(1, 64 * KIB), (2, MIB), (3, 32 * MIB)]);
    assert_eq!(named(&found), ["dram"]);
    assert_eq!(found[0].state, State::Ok, "{:?}", found[0].reasons);
    assert_eq!(found[0].reasons, ["the sweep tells 0 caches apart; the system reports 3"]);
}

/// A large GPU whose loads pass by its first-level caches: it needs some MiB to fill its lanes, and its second-level cache of two
/// halves begins to miss well before its size.
#[test]
fn a_gpu_shows_its_second_level_under_that_name() {
    let between = |bytes: f64, (b0, r0): (f64, f64), (b1, r1): (f64, f64)| r0 + (r1 - r0) * (bytes / b0).log2() / (b1 / b0).log2();
    let rate = |mib: f64| match mib {
        m if m < 4.0 => between(m, (1.0, 2.0), (4.0, 5.5)),
        m if m < 30.0 => 5.5,
        m if m < 64.0 => between(m, (30.0, 5.5), (64.0, 3.0)),
        m if m < 100.0 => 2.8,
        m => between(m.min(200.0), (100.0, 2.85), (200.0, 3.0)),
    };
    let sizes = (0..20).map(|half| 800.0 / std::f64::consts::SQRT_2.powi(19 - half));
    let points: Vec<_> = sizes.map(|mib| ((mib * MIB as f64) as u64, rate(mib) * 1e12)).collect();
    let found = levels(&points, &[(2, 50 * MIB)]);
    assert_eq!(named(&found), ["l2", "dram"], "{found:?}");
    let held = found[0].capacity.unwrap();
    assert!((24 * MIB..=40 * MIB).contains(&held) && found[0].value == 5.5e12, "{found:?}");
    assert_eq!((found[1].state, found[1].value), (State::Ok, 3.0e12), "{found:?}");
    assert!(found.iter().all(|level| level.reasons.is_empty()), "{found:?}");
}

#[test]
fn slow_small_working_sets_are_no_level() {
    // A device that needs 256 KiB to fill its lanes: the rate grows up to there, with a plateau at the bottom.
    let mut ramp = curve(&[(8 * MIB, 900e9)], 200e9, 512 * MIB, 0.0, 0);
    for point in ramp.iter_mut().filter(|p| p.0 < 256 * KIB) {
        point.1 = if point.0 <= 32 * KIB { 90e9 } else { 900e9 * point.0 as f64 / (256 * KIB) as f64 };
    }
    let found = levels(&ramp, &[]);
    assert_eq!(named(&found), ["l1", "dram"], "{found:?}");
}

#[test]
fn empty_and_single_point_sweeps_neither_panic_nor_pass() {
    assert_eq!(levels(&[], &[(1, 64 * KIB)]), []);
    let one = levels(&[(MIB, 10e9)], &[]);
    assert_eq!((one.len(), one[0].state), (1, State::Suspect));
}
