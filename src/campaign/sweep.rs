//! The memory: bandwidth by working set in every direction, the levels it shows, and the winners that stand for them.

use super::search::{GLANCE, Parts, Setup, block_effort, walking};
use super::{Campaign, Winner};
use crate::error::Result;
use crate::op::Size;
use crate::op::stream::Kind;
use crate::plan::{DeviceInfo, DeviceKind, Language, Tuned};
use crate::record::{Ceiling, Record};
use crate::roofline::{self, Level};

/// The sweep ends at this many times the last-level cache the system reports at most: on a CPU two octaves past four times it, on a GPU,
/// which fills gigabytes in no time, where launching takes less than a hundredth of a pass.
const PAST_LLC: u64 = 16;
const PAST_LLC_GPU: u64 = 64;
/// How often what looks disturbed in the read curve is measured again.
const LOOKS: u32 = 2;
/// On a CPU it ends no sooner than at this many times it, and directions whose levels are not looked for end at this many times the
/// largest cache found.
const MET_LLC: u64 = 4;
/// Bytes of an array that a group of a GPU walks where it takes one piece and ends: two and eight steps of 256 lanes.
const PIECES: [u64; 2] = [8 << 10, 32 << 10];

/// The best configuration of one direction in caches and in memory; there `far`, where going through the working set once makes a launch
/// long enough, may end its groups after a piece.
struct Chosen {
    kind: Kind,
    cached: Setup,
    memory: Setup,
    far: Setup,
}

impl Campaign<'_> {
    /// Searches each direction's configuration, sweeps the working set and finds the levels.
    pub(super) fn search_memory(&mut self, device: &DeviceInfo) -> Result<()> {
        let last = last_size(device);
        if device.kind == DeviceKind::Gpu
            && let Some(setup) = setups(Kind::Read, device).get(1)
        {
            self.size_launches(setup, (2 * device.llc_bytes()).min(last))?;
        }
        // A GPU's cache still serves a good part of twice its size, and favours other configurations than memory does; in less than this the
        // launches of those that go through it once are too short to be told from their overhead.
        let beyond = if device.kind == DeviceKind::Gpu { 12 } else { 2 };
        let mut chosen: Vec<Chosen> = Vec::new();
        for kind in [Kind::Read, Kind::Triad, Kind::Copy, Kind::Write] {
            // In a hurry, copy and write take what was best for triad, but for GPUs, where candidates are quick and differ.
            let hurry = self.scope.size == Size::Small && device.kind == DeviceKind::Cpu;
            let triad = chosen.iter().find(|c| c.kind == Kind::Triad);
            if let (true, Kind::Copy | Kind::Write, Some(triad)) = (hurry, kind, triad) {
                chosen.push(Chosen { kind, cached: triad.cached.clone(), memory: triad.memory.clone(), far: triad.far.clone() });
                continue;
            }
            let all = setups(kind, device);
            let beyond = (beyond * device.llc_bytes()).min(last);
            let pieces = if self.is_long(beyond) { pieces(&all, device) } else { Vec::new() };
            self.watcher.stage(&format!("{} bandwidth, {} candidates", kind.name(), all.len() + pieces.len()), all.len() + pieces.len());
            let Some(memory) = self.best_stream(kind, beyond, &all)? else { continue };
            let far = match pieces.is_empty() {
                true => None,
                false => self.best_stream(kind, beyond, &[std::slice::from_ref(&memory), &pieces].concat())?,
            };
            let far = far.unwrap_or_else(|| memory.clone());
            // Caches are best written by ordinary stores, and a working set stays in one only if all its parts are walked at once.
            let resident: Vec<_> = all.into_iter().filter(|setup| stays(setup, device)).collect();
            let Some(cached) = self.best_stream(kind, cached_size(device), &resident)? else { continue };
            chosen.push(Chosen { kind, cached, memory, far });
        }
        let end = self.sweep_reading(&chosen, device, last)?;
        let found = roofline::levels(&self.read_curve(), &device.caches);
        let largest = found.iter().filter_map(|level| level.capacity).max();
        self.llc = largest.map(|largest| largest.max(device.llc_bytes()));
        // The others need to meet memory, which the blocks measure again anyway.
        let met = end.min(MET_LLC * largest.unwrap_or(device.llc_bytes()));
        for choice in chosen.iter().filter(|choice| choice.kind != Kind::Read) {
            let points = sizes(choice.kind, device, met, self.scope.size);
            self.sweep(choice, &points, largest.unwrap_or(0))?;
        }
        self.level_winners(&chosen, &found, device, end);
        self.latencies(&found);
        Ok(())
    }

    /// Reads ever larger working sets, and again what looks disturbed; returns the last. On a CPU, where the largest take seconds to fill and to
    /// check, two flat octaves far beyond the largest cache end it.
    fn sweep_reading(&mut self, chosen: &[Chosen], device: &DeviceInfo, last: u64) -> Result<u64> {
        let Some(read) = chosen.iter().find(|choice| choice.kind == Kind::Read) else { return Ok(last) };
        let mut points = sizes(Kind::Read, device, last, self.scope.size);
        self.watcher.stage("read bandwidth by working set", points.len());
        for at in 0..points.len() {
            let (working_set, memory) = points[at];
            self.stream_point(read, working_set, memory)?;
            let far = device.kind == DeviceKind::Cpu && memory && working_set >= MET_LLC * device.llc_bytes();
            if far && roofline::settled(&self.read_curve(), &device.caches) {
                points.truncate(at + 1);
                break;
            }
        }
        self.look_again(read, &points, u64::MAX)?;
        Ok(points.last().map_or(last, |&(working_set, _)| working_set))
    }

    /// Bandwidth by working set in one of the other directions; what looks disturbed up to a working set is measured again.
    fn sweep(&mut self, choice: &Chosen, points: &[(u64, bool)], upto: u64) -> Result<()> {
        self.watcher.stage(&format!("{} bandwidth by working set", choice.kind.name()), points.len());
        for &(working_set, memory) in points {
            self.stream_point(choice, working_set, memory)?;
        }
        self.look_again(choice, points, upto)
    }

    fn stream_point(&mut self, choice: &Chosen, working_set: u64, memory: bool) -> Result<()> {
        let item = self.stream_item(choice.kind, working_set, self.setup(choice, working_set, memory), GLANCE);
        self.run_item(item).map(|_| ())
    }

    fn setup<'c>(&self, choice: &'c Chosen, working_set: u64, memory: bool) -> &'c Setup {
        match memory {
            true if self.is_long(working_set) => &choice.far,
            true => &choice.memory,
            false => &choice.cached,
        }
    }

    /// Whether a launch that goes through so much once lasts a quarter of what launches are to last.
    fn is_long(&self, working_set: u64) -> bool {
        4 * working_set >= self.launch_bytes
    }

    /// Measures again what looks disturbed in a direction's curve, up to a working set; the samples join those of the first look.
    fn look_again(&mut self, choice: &Chosen, points: &[(u64, bool)], upto: u64) -> Result<()> {
        let (read, written) = choice.kind.arrays();
        for _ in 0..LOOKS {
            let mut doubtful = roofline::doubtful(&self.curve(choice.kind));
            doubtful.retain(|&bytes| bytes <= upto);
            self.watcher.stage("bandwidth again, where it looks disturbed", doubtful.len());
            for &(working_set, memory) in points {
                let item = self.stream_item(choice.kind, working_set, self.setup(choice, working_set, memory), GLANCE);
                let bytes = item.problem["elements"].as_u64().map(|elements| elements * 4 * (read + written));
                if bytes.is_some_and(|bytes| doubtful.contains(&bytes)) {
                    self.run_item(item)?;
                }
            }
        }
        Ok(())
    }

    fn curve(&self, kind: Kind) -> Vec<(u64, f64)> {
        let points = self.records.iter().filter_map(|record| match record {
            Record::Measurement(m) => Some(m),
            _ => None,
        });
        let sweeps = roofline::sweeps(points);
        sweeps.iter().find(|sweep| sweep.kind == kind).map(|sweep| sweep.curve().points).unwrap_or_default()
    }

    /// The curve that shows the levels: reading is what every cache does best, and what shows them most clearly.
    fn read_curve(&self) -> Vec<(u64, f64)> {
        self.curve(Kind::Read)
    }

    /// One winner per level and direction: the middle of the level's run, DRAM at half of the last size, on a GPU at the last, a gigabyte an
    /// array or more, and in a hurry at the least that is past every cache.
    fn level_winners(&mut self, chosen: &[Chosen], found: &[Level], device: &DeviceInfo, last: u64) {
        let hurry = device.kind == DeviceKind::Cpu && self.scope.size == Size::Small;
        let cache = found.iter().filter_map(|level| level.capacity).max().unwrap_or(0);
        let beyond = if hurry { (MET_LLC * cache).max(2 * device.llc_bytes()) } else { u64::MAX };
        let share = if device.kind == DeviceKind::Gpu { 1 } else { 2 };
        for level in found {
            for choice in chosen {
                let memory = level.name == "dram";
                let middle = (level.plateau.0 as f64 * level.plateau.1 as f64).sqrt() as u64;
                let size = if memory { beyond.min(largest(choice.kind, device, last) / share) } else { middle };
                let setup = self.setup(choice, size, memory);
                let item = self.stream_item(choice.kind, size, setup, block_effort(self.scope.size));
                let stores = match (choice.kind, setup.tuned.0.get("STORE")) {
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

/// Configurations worth trying for one direction.
fn setups(kind: Kind, device: &DeviceInfo) -> Vec<Setup> {
    let units = device.compute_units as u64;
    let parts: &[u64] = match (device.language, device.kind) {
        (Language::Host, _) => &[1],
        (_, DeviceKind::Cpu) => &[1, 2, 8, 32],
        // Where the number of units is assumed, the real one may be several times that.
        (_, DeviceKind::Gpu) if device.has("compute-units-assumed") => &[4, 8, 16, 32, 64, 128],
        (_, DeviceKind::Gpu) => &[2, 4, 8, 16, 32],
    };
    let mut tuned = walking("stream", "linear", device);
    // What a direction does not heed makes no candidate: the kind of store where nothing is stored, and pieces side by side.
    let heeded: [(&str, &[u32]); 2] = match kind {
        Kind::Read => [("STORE", &[0]), ("ABREAST", &[1, 2])],
        Kind::Copy => [("STORE", &[0, 1]), ("ABREAST", &[1, 4])],
        Kind::Write | Kind::Triad => [("STORE", &[0, 1]), ("ABREAST", &[1])],
    };
    tuned.retain(|t| heeded.iter().all(|(name, values)| t.0.get(*name).is_none_or(|value| values.contains(value))));
    tuned.iter().flat_map(|t| parts.iter().map(move |p| Setup { tuned: t.clone(), parts: Parts::Count(p * units) })).collect()
}

/// The same settings with groups that end after a piece; none but on a GPU.
fn pieces(setups: &[Setup], device: &DeviceInfo) -> Vec<Setup> {
    let mut tuned: Vec<&Tuned> = setups.iter().map(|setup| &setup.tuned).filter(|_| device.kind == DeviceKind::Gpu).collect();
    tuned.dedup();
    tuned.iter().flat_map(|t| PIECES.map(|bytes| Setup { tuned: (*t).clone(), parts: Parts::Bytes(bytes) })).collect()
}

/// Whether a configuration keeps a working set in a cache over several passes: ordinary stores, and all its groups at once.
fn stays(setup: &Setup, device: &DeviceInfo) -> bool {
    resident(setup, device) && setup.tuned.0.get("STORE").is_none_or(|&store| store == 0)
}

/// Whether all groups of a configuration run at once: a software device runs one a core, a GPU 1,024 lanes a unit, which is what the
/// kernels ask of its registers.
pub(super) fn resident(setup: &Setup, device: &DeviceInfo) -> bool {
    let units = device.compute_units as u64;
    let groups = match (device.language, device.kind) {
        (Language::Host, _) | (_, DeviceKind::Cpu) => units,
        (_, DeviceKind::Gpu) => units * 1024 / setup.tuned.0.get("BLOCK").copied().unwrap_or(256) as u64,
    };
    matches!(setup.parts, Parts::Count(parts) if parts <= groups)
}

/// Smallest working set worth a point: a quarter of a first-level cache a core, two octaves inside it; on software Vulkan, whose launches cost a
/// millisecond, 4 MiB.
fn first_size(device: &DeviceInfo) -> u64 {
    match (device.language, device.kind) {
        (Language::Host, _) => device.compute_units as u64 * (8 << 10),
        (_, DeviceKind::Cpu) => 4 << 20,
        (_, DeviceKind::Gpu) => 1 << 20,
    }
}

/// The working set that chooses the configuration for caches: on GPUs a quarter of the last-level cache, for in less the launch
/// has too few lanes to show anything, but no more than a small GPU caches.
fn cached_size(device: &DeviceInfo) -> u64 {
    match device.kind {
        DeviceKind::Cpu => first_size(device) * 2,
        DeviceKind::Gpu => (device.llc_bytes() / 4).clamp(2 << 20, 8 << 20),
    }
}

fn last_size(device: &DeviceInfo) -> u64 {
    let (past, share) = if device.kind == DeviceKind::Gpu { (PAST_LLC_GPU, 2) } else { (PAST_LLC, 4) };
    (past * device.llc_bytes()).min(device.memory_bytes / share).min(3 * (device.limits.binding_bytes / 4 * 4))
}

/// Largest working set of a direction: no array is larger than a binding.
fn largest(kind: Kind, device: &DeviceInfo, last: u64) -> u64 {
    let (read, written) = kind.arrays();
    last.min((read + written) * (device.limits.binding_bytes / 256 * 256))
}

/// Working sets of a direction's sweep, and whether the configuration for memory is meant: half octaves where levels are looked
/// for, octaves elsewhere. Around the last-level cache both configurations are tried.
fn sizes(kind: Kind, device: &DeviceInfo, last: u64, size: Size) -> Vec<(u64, bool)> {
    let last = largest(kind, device, last);
    let fine = kind == Kind::Read || (kind == Kind::Triad && size != Size::Small);
    let step = if fine { std::f64::consts::SQRT_2 } else { 2.0 };
    let mut sizes = Vec::new();
    let mut at = last as f64;
    while at >= first_size(device) as f64 * 0.99 {
        let bytes = at.round() as u64;
        if bytes <= 2 * device.llc_bytes() {
            sizes.push((bytes, false));
        }
        if 4 * bytes >= device.llc_bytes() {
            sizes.push((bytes, true));
        }
        at /= step;
    }
    sizes.reverse();
    sizes
}
