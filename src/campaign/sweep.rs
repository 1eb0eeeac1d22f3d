//! The memory: bandwidth by working set in every direction, the levels it shows, and the winners that stand for them.

use super::search::{GLANCE, block_effort, candidates, stream_problem};
use super::{Campaign, Winner};
use crate::error::Result;
use crate::op::Size;
use crate::op::stream::Kind;
use crate::plan::{DeviceInfo, DeviceKind, Language, Precision, Tuned};
use crate::record::{Cache, Ceiling, Record};
use crate::roofline::{self, Level};
use crate::worker::{Goal, Item};

/// The sweep ends at this many times the last-level cache the system reports: two octaves past four times it.
const PAST_LLC: u64 = 16;

/// The best configuration of one direction in caches and in memory.
struct Chosen {
    kind: Kind,
    cached: Item,
    memory: Item,
}

impl Campaign<'_> {
    /// Searches each direction's configuration, sweeps the working set and finds the levels.
    pub(super) fn search_memory(&mut self, device: &DeviceInfo) -> Result<()> {
        let last = last_size(device);
        let mut chosen = Vec::new();
        for kind in Kind::ALL {
            let all = stream_candidates(kind, device, self.scope.size);
            self.watcher.stage(&format!("{} bandwidth, {} candidates", kind.name(), all.len()), all.len());
            let Some(memory) = self.best_stream(kind, (2 * device.llc_bytes()).min(last), &all)? else { continue };
            // Caches are best written by ordinary stores.
            let ordinary: Vec<_> = all.into_iter().filter(|(tuned, _)| tuned.0.get("STORE").is_none_or(|&s| s == 0)).collect();
            let small = first_size(device) * 2;
            let Some(cached) = self.best_stream(kind, small, &ordinary)? else { continue };
            chosen.push(Chosen { kind, cached, memory });
        }
        self.sweep(&chosen, device, last)?;
        let found = self.levels(device);
        self.llc = found.iter().filter_map(|level| level.capacity).max().map(|found| found.max(device.llc_bytes()));
        self.level_winners(&chosen, &found, last);
        Ok(())
    }

    fn sweep(&mut self, chosen: &[Chosen], device: &DeviceInfo, last: u64) -> Result<()> {
        let points: Vec<(usize, u64, bool)> = (0..chosen.len())
            .flat_map(|at| sizes(chosen[at].kind, device, last).into_iter().map(move |(size, memory)| (at, size, memory)))
            .collect();
        self.watcher.stage("bandwidth by working set", points.len());
        for (at, size, memory) in points {
            let from = if memory { &chosen[at].memory } else { &chosen[at].cached };
            let (tuned, parts) = (from.tunables.clone(), from.problem["parts"].as_u64().unwrap_or(1));
            let problem = stream_problem(chosen[at].kind, size, parts);
            let item = self.item("stream", problem, "linear", Precision::F32, tuned, Cache::Warm, GLANCE);
            self.run_item(item)?;
        }
        Ok(())
    }

    /// The levels that the read curve shows: reading is what every cache does best, and what its curve shows most clearly.
    fn levels(&self, device: &DeviceInfo) -> Vec<Level> {
        let points = self.records.iter().filter_map(|record| match record {
            Record::Measurement(m) => Some(m),
            _ => None,
        });
        let sweeps = roofline::sweeps(points);
        let read = sweeps.iter().find(|s| s.kind == Kind::Read).or(sweeps.first());
        read.map(|sweep| roofline::levels(&sweep.curve().points, &device.caches)).unwrap_or_default()
    }

    /// One winner per level and direction: the middle of the level's run, DRAM at half of the last size.
    fn level_winners(&mut self, chosen: &[Chosen], found: &[Level], last: u64) {
        for level in found {
            for choice in chosen {
                let memory = level.name == "dram";
                let middle = (level.plateau.0 as f64 * level.plateau.1 as f64).sqrt() as u64;
                let (from, size) = if memory { (&choice.memory, last / 2) } else { (&choice.cached, middle) };
                let mut item = from.clone();
                item.problem = stream_problem(choice.kind, size, from.problem["parts"].as_u64().unwrap_or(1));
                item.goal = Goal::Measure(block_effort(self.scope.size));
                let stores = match (choice.kind, from.tunables.0.get("STORE")) {
                    (Kind::Read, _) | (_, None) => "",
                    (_, Some(0)) => " (ordinary stores)",
                    (_, Some(_)) => " (non-temporal stores)",
                };
                let ceiling = Ceiling {
                    level: Some(level.name.clone()),
                    direction: Some(choice.kind.name().into()),
                    capacity: level.capacity,
                    state: level.state,
                    reasons: level.reasons.clone(),
                    ..self.ceiling(&format!("{} {}{stores}", level.name, choice.kind.name()), None)
                };
                self.winners.push(Winner { ceiling, item });
            }
        }
    }
}

/// Tunables and parts worth trying for one direction.
fn stream_candidates(kind: Kind, device: &DeviceInfo, size: Size) -> Vec<(Tuned, u64)> {
    let units = device.compute_units as u64;
    let parts: &[u64] = match (device.language, device.kind, size) {
        (Language::Host, ..) => &[1],
        (_, DeviceKind::Cpu, Size::Small) => &[4, 64],
        (_, DeviceKind::Cpu, _) => &[1, 4, 16, 64],
        (_, DeviceKind::Gpu, _) => &[2, 4, 8, 16, 32],
    };
    let mut tuned = candidates("stream", "linear", Precision::F32, device);
    if kind == Kind::Read {
        // Nothing is stored: the kind of store makes no candidate.
        tuned.retain(|t| t.0.get("STORE").is_none_or(|&s| s == 0));
    }
    tuned.iter().flat_map(|t| parts.iter().map(move |p| (t.clone(), p * units))).collect()
}

/// Smallest working set worth a point: half of a first-level cache a core; on software Vulkan, whose launches cost a
/// millisecond, 4 MiB.
fn first_size(device: &DeviceInfo) -> u64 {
    match (device.language, device.kind) {
        (Language::Host, _) => device.compute_units as u64 * (16 << 10),
        (_, DeviceKind::Cpu) => 4 << 20,
        (_, DeviceKind::Gpu) => 1 << 20,
    }
}

fn last_size(device: &DeviceInfo) -> u64 {
    (PAST_LLC * device.llc_bytes()).min(device.memory_bytes / 4).min(3 * (device.limits.binding_bytes / 4 * 4))
}

/// Working sets of a direction's sweep, and whether the configuration for memory is meant: half octaves for the directions that
/// levels are found in, octaves for the others. Around the last-level cache both configurations are tried.
fn sizes(kind: Kind, device: &DeviceInfo, last: u64) -> Vec<(u64, bool)> {
    let (read, written) = kind.arrays();
    let last = last.min((read + written) * (device.limits.binding_bytes / 256 * 256));
    let step = if matches!(kind, Kind::Read | Kind::Triad) { std::f64::consts::SQRT_2 } else { 2.0 };
    let mut sizes = Vec::new();
    let mut size = last as f64;
    while size >= first_size(device) as f64 * 0.99 {
        let bytes = size.round() as u64;
        if bytes <= 2 * device.llc_bytes() {
            sizes.push((bytes, false));
        }
        if 2 * bytes >= device.llc_bytes() {
            sizes.push((bytes, true));
        }
        size /= step;
    }
    sizes.reverse();
    sizes
}
