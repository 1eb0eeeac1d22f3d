//! Which levels of memory a working-set curve shows.
//!
//! A level is a plateau: a run of at least 1.5 octaves within ±7 % of its median, faster than everything that follows it by so
//! much that two such bands do not touch. The last two octaves are DRAM, and only trusted as such when they lie far beyond the largest cache found and are flat. Levels are
//! named by order, from the first level that the system reports; what the system reports is compared with the finding and never replaces it.

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
    /// `l1`, `l2`, … by order of size, from the first that the system reports; `dram` for the last.
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
    // A device whose probes pass by its first-level caches names the second alone.
    let first = reported.iter().map(|c| c.0).min().unwrap_or(1).max(1);
    let mut found: Vec<Level> = plateaus(&smooth)
        .into_iter()
        .filter(|run| middle(run) > APART * floor)
        .enumerate()
        .map(|(order, run)| cache(order as u32 + first, run, &smooth))
        .collect();
    let dram = dram(curve, largest, found.last(), reported);
    found.push(dram);
    compare(&mut found, reported);
    found
}

/// Whether a curve reaches so far beyond its caches that its end can only be memory: as flat as a level, but for single disturbed points.
/// Whether it is as flat as DRAM must be is judged once those were measured again.
pub fn settled(curve: &[(u64, f64)], reported: &[(u32, u64)]) -> bool {
    let Some(&(largest, _)) = curve.last() else { return false };
    let (found, smooth) = (levels(curve, reported), without_spikes(curve));
    let below = found.len().checked_sub(2).map(|at| &found[at]);
    let end = octaves_below(&smooth, largest, 2.0);
    let slowest = end.iter().fold(f64::INFINITY, |slowest, p| slowest.min(p.1));
    same(fastest(end), slowest) && too_near(curve, largest, below, reported).is_empty()
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
    let mut reasons = too_near(curve, largest, below, reported);
    let (low, high) = region.iter().fold((f64::INFINITY, 0f64), |(low, high), p| (low.min(p.1), high.max(p.1)));
    if high - low > DRAM_FLAT * (high + low) {
        let (down, up) = (100.0 * (low / value - 1.0), 100.0 * (high / value - 1.0));
        reasons.push(format!("its last two octaves are not flat ({down:+.1} to {up:+.1} % around their median)"));
    }
    let state = if reasons.is_empty() { State::Ok } else { State::Suspect };
    Level { name: "dram".into(), capacity: None, value, plateau: (first, largest), state, reasons }
}

/// Why the last two octaves may lie in a cache, or are too few points to tell.
fn too_near(curve: &[(u64, f64)], largest: u64, below: Option<&Level>, reported: &[(u32, u64)]) -> Vec<String> {
    let region = octaves_below(curve, largest, 2.0);
    let first = region[0].0;
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
    if let Some(&(number, bytes)) = reported.iter().max_by_key(|c| c.1)
        && first < bytes
    {
        let (first, bytes) = (Capacity(first), Capacity(bytes));
        reasons.push(format!("the system reports {bytes} of L{number}, and its working sets begin at {first}: they may lie in that cache"));
    }
    reasons
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
mod tests;
