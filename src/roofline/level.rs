//! Which levels of memory a working-set curve shows.
//!
//! A level is a plateau: a run of at least 1.5 octaves within ±7 % of its median, faster than everything that follows it by so
//! much that two such bands do not touch. The last two octaves are DRAM, and only trusted as such when they lie far beyond the largest cache found and are flat. Levels are
//! named by order, from the smallest that the system reports on (a probe may leave the first out on purpose); what else the system
//! reports is compared with the finding and never replaces it.

use crate::record::State;
use crate::stats::median_of;
use crate::units::Capacity;

/// Least length of a plateau in octaves of working set.
const OCTAVES: f64 = 1.5;
/// Largest deviation of a plateau's points from its median.
const FLAT: f64 = 0.07;
/// Two levels are told apart where their bands of ±7 % do not overlap.
const APART: f64 = (1.0 + FLAT) / (1.0 - FLAT);
/// A level still holds the largest size whose rate is within this of the plateau.
const HELD: f64 = 0.10;
/// Largest deviation of DRAM's points from the middle of their range.
const DRAM_FLAT: f64 = 0.03;
/// DRAM is read off at no less than this many times the largest cache.
const BEYOND: f64 = 4.0;
/// Sizes are rounded to whole elements and parts, so octaves are compared with this much room.
const ROUNDING: f64 = 1.05;

/// One level of memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Level {
    /// `l1`, `l2`, … by order of size; `dram` for the last.
    pub name: String,
    /// Largest working set it holds, in bytes; absent for DRAM.
    pub capacity: Option<u64>,
    /// Median rate of its points in byte/s.
    pub value: f64,
    /// Smallest and largest working set of its plateau, in bytes.
    pub plateau: (u64, u64),
    /// `ok`, or `suspect` for DRAM that may not be DRAM.
    pub state: State,
    /// Why it is suspect, and where the system reports something else.
    pub reasons: Vec<String>,
}

/// The levels of a curve of (working set in bytes, byte/s), ascending; smallest first, DRAM last. `reported` are the caches
/// that the system names: level and total bytes. An empty curve has no levels.
pub fn levels(curve: &[(u64, f64)], reported: &[(u32, u64)]) -> Vec<Level> {
    let Some(&(largest, _)) = curve.last() else { return Vec::new() };
    let smooth = without_spikes(curve);
    let floor = fastest(octaves_below(&smooth, largest, 2.0));
    let first = reported.iter().map(|cache| cache.0).min().unwrap_or(1);
    let mut found: Vec<Level> = plateaus(&smooth)
        .into_iter()
        .filter(|run| middle(run) > APART * floor)
        .zip(first..)
        .map(|(run, number)| cache(number, run, &smooth))
        .collect();
    let dram = dram(curve, largest, found.last(), reported);
    found.push(dram);
    compare(&mut found, reported);
    found
}

/// Working sets of a curve that look disturbed, and are worth another look: slower than a larger one, or, in the last two octaves, than
/// a flat DRAM allows.
pub fn doubtful(curve: &[(u64, f64)]) -> Vec<u64> {
    let Some(&(largest, _)) = curve.last() else { return Vec::new() };
    let memory = octaves_below(curve, largest, 2.0);
    let first = curve.len() - memory.len();
    let disturbed = |&(at, &(_, rate)): &(usize, &(u64, f64))| {
        rate < (1.0 - FLAT) * fastest(&curve[at + 1..]) || (at >= first && rate < (1.0 - DRAM_FLAT) * fastest(memory))
    };
    curve.iter().enumerate().filter(disturbed).map(|(_, &(bytes, _))| bytes).collect()
}

fn fastest(points: &[(u64, f64)]) -> f64 {
    points.iter().fold(0.0, |fastest, p| fastest.max(p.1))
}

fn middle(points: &[(u64, f64)]) -> f64 {
    median_of(points.iter().map(|p| p.1)).unwrap_or(0.0)
}

/// Each rate replaced by the median of itself and its two neighbours: a falling curve stays as it is, and a single disturbed
/// measurement splits no plateau.
fn without_spikes(curve: &[(u64, f64)]) -> Vec<(u64, f64)> {
    let mut smooth = curve.to_vec();
    for (middle, window) in smooth.iter_mut().skip(1).zip(curve.windows(3)) {
        let (a, b, c) = (window[0].1, window[1].1, window[2].1);
        middle.1 = a.min(b).max(a.max(b).min(c));
    }
    smooth
}

/// The points of the last `octaves` octaves up to `largest`.
fn octaves_below(curve: &[(u64, f64)], largest: u64, octaves: f64) -> &[(u64, f64)] {
    let from = largest as f64 / octaves.exp2() / ROUNDING;
    &curve[curve.partition_point(|p| (p.0 as f64) < from)..]
}

/// Plateaus in order of size: the longest first, then what is left on both sides; neighbours of one height are one plateau, and
/// one that is slower than a later one shows the cost of small work, not a memory.
fn plateaus(curve: &[(u64, f64)]) -> Vec<&[(u64, f64)]> {
    let mut spans = Vec::new();
    split(curve, 0, curve.len(), &mut spans);
    let mut merged: Vec<(usize, usize)> = Vec::new();
    for (from, to) in spans {
        match merged.last_mut() {
            Some(before) if same(middle(&curve[before.0..before.1]), middle(&curve[from..to])) => before.1 = to,
            _ => merged.push((from, to)),
        }
    }
    let mut kept: Vec<&[(u64, f64)]> = Vec::new();
    for &(from, to) in merged.iter().rev() {
        let run = &curve[from..to];
        if kept.iter().all(|later| middle(run) > middle(later)) {
            kept.push(run);
        }
    }
    kept.reverse();
    kept
}

/// Whether two plateaus are one.
fn same(a: f64, b: f64) -> bool {
    a.max(b) <= APART * a.min(b)
}

fn split(curve: &[(u64, f64)], from: usize, to: usize, spans: &mut Vec<(usize, usize)>) {
    if let Some((start, end)) = longest(&curve[from..to]) {
        split(curve, from, from + start, spans);
        spans.push((from + start, from + end));
        split(curve, from + end, to, spans);
    }
}

/// The flat run that spans the most octaves.
fn longest(curve: &[(u64, f64)]) -> Option<(usize, usize)> {
    let mut best: Option<(f64, usize, usize)> = None;
    for start in 0..curve.len() {
        let mut sorted: Vec<f64> = Vec::new();
        for (end, &(bytes, rate)) in curve.iter().enumerate().skip(start) {
            sorted.insert(sorted.partition_point(|&x| x < rate), rate);
            let (low, high, n) = (sorted[0], sorted[sorted.len() - 1], sorted.len());
            if high * (1.0 - FLAT) > low * (1.0 + FLAT) {
                break;
            }
            let median = (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0;
            let flat = low >= median * (1.0 - FLAT) && high <= median * (1.0 + FLAT);
            let octaves = (bytes as f64 / curve[start].0 as f64 * ROUNDING).log2();
            if flat && octaves >= OCTAVES && best.is_none_or(|(most, ..)| octaves > most) {
                best = Some((octaves, start, end + 1));
            }
        }
    }
    best.map(|(_, start, end)| (start, end))
}

fn cache(number: u32, run: &[(u64, f64)], curve: &[(u64, f64)]) -> Level {
    let value = middle(run);
    let (first, mut held) = (run[0].0, run[run.len() - 1].0);
    let end = held;
    for &(bytes, rate) in curve.iter().filter(|p| p.0 > end) {
        if rate < value * (1.0 - HELD) {
            break;
        }
        held = bytes;
    }
    Level {
        name: format!("l{number}"),
        capacity: Some(held),
        value,
        plateau: (first, run[run.len() - 1].0),
        state: State::Ok,
        reasons: Vec::new(),
    }
}

fn dram(curve: &[(u64, f64)], largest: u64, below: Option<&Level>, reported: &[(u32, u64)]) -> Level {
    let region = octaves_below(curve, largest, 2.0);
    let (value, first) = (middle(region), region[0].0);
    let mut reasons = Vec::new();
    if curve[0].0 as f64 * BEYOND > largest as f64 * ROUNDING || region.len() < 3 {
        reasons.push(format!("the sweep ends at {} after less than two octaves or three points", Capacity(largest)));
    }
    if let Some((name, capacity)) = below.and_then(|l| l.capacity.map(|c| (&l.name, c)))
        && (first as f64) * ROUNDING < BEYOND * capacity as f64
    {
        let (first, capacity) = (Capacity(first), Capacity(capacity));
        reasons.push(format!("its working sets begin at {first}, less than 4 times the {capacity} that {name} holds"));
    }
    let (low, high) = region.iter().fold((f64::INFINITY, 0f64), |(low, high), p| (low.min(p.1), high.max(p.1)));
    if high - low > DRAM_FLAT * (high + low) {
        let (down, up) = (100.0 * (low / value - 1.0), 100.0 * (high / value - 1.0));
        reasons.push(format!("its last two octaves are not flat ({down:+.1} to {up:+.1} % around their median)"));
    }
    if let Some(&(number, bytes)) = reported.iter().max_by_key(|c| c.1)
        && first < bytes
    {
        let (first, bytes) = (Capacity(first), Capacity(bytes));
        reasons.push(format!("the system reports {bytes} of L{number}, and its working sets begin at {first}: they may lie in that cache"));
    }
    let state = if reasons.is_empty() { State::Ok } else { State::Suspect };
    Level { name: "dram".into(), capacity: None, value, plateau: (first, largest), state, reasons }
}

/// Adds to each level what the system says otherwise.
fn compare(levels: &mut [Level], reported: &[(u32, u64)]) {
    let mut caches = reported.to_vec();
    caches.sort_unstable();
    let found = levels.len() - 1;
    for (level, &(number, bytes)) in levels[..found].iter_mut().zip(&caches) {
        if let Some(capacity) = level.capacity
            && !(0.5..=2.0).contains(&(capacity as f64 / bytes.max(1) as f64))
        {
            let (capacity, bytes) = (Capacity(capacity), Capacity(bytes));
            level.reasons.push(format!("its capacity is not the system's ({capacity} by the sweep, {bytes} of L{number} reported)"));
        }
    }
    if found != caches.len() && !caches.is_empty() {
        levels[found].reasons.push(format!("the sweep tells {found} caches apart; the system reports {}", caches.len()));
    }
}

#[cfg(test)]
mod tests {
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
    fn a_probe_past_the_first_level_finds_the_second_by_its_name() {
        // As an H100 shows it through loads that leave the first level out: two partitions of 25 MiB, of which most shows, from 1 MiB on, half octaves.
        let points: Vec<(u64, f64)> =
            curve(&[(30 * MIB, 5.6e12)], 3.0e12, 1024 * MIB, 0.01, 7).into_iter().filter(|p| p.0 >= MIB).step_by(2).collect();
        let found = levels(&points, &[(2, 50 * MIB)]);
        assert_eq!(named(&found), ["l2", "dram"]);
        assert!((0.5..1.0).contains(&(found[0].capacity.unwrap() as f64 / (50 * MIB) as f64)), "{found:?}");
        assert!(found.iter().all(|level| level.state == State::Ok && level.reasons.is_empty()), "{found:?}");
    }

    #[test]
    fn empty_and_single_point_sweeps_neither_panic_nor_pass() {
        assert_eq!(levels(&[], &[(1, 64 * KIB)]), []);
        let one = levels(&[(MIB, 10e9)], &[]);
        assert_eq!((one.len(), one[0].state), (1, State::Suspect));
    }
}
