//! A study: its problems under a roof that was recorded earlier, or is traced in a hurry around them.

use std::time::{Duration, Instant};

use super::Campaign;
use super::kernels::lacks;
use crate::error::Result;
use crate::op::{self, OpRole, Size};
use crate::plan::{DeviceInfo, DeviceKind, Precision};
use crate::record::{Ceiling, CeilingKind, Header, Measurement, Record, State};
use crate::roofline::Roof;
use crate::study::{Setting, Study};
use crate::worker::Item;

/// What settings are tried on takes this many ns on the compute roof at most.
const TRIED_NS: f64 = 10e6;
/// Ids of what is taken over begin with this: the study numbers its own from 1.
const TAKEN: &str = "roof-";

impl Campaign<'_> {
    /// Measures a study's problems, under the roof in these records ([`taken_over`]) or, where there are none, one traced around them.
    /// Either way the roof is among the study's own records, so that they tell the answer by themselves.
    ///
    /// # Errors
    /// As [`Campaign::trace`], and those of the study's grid.
    pub fn study(mut self, study: &Study, recorded: &[Record]) -> Result<Vec<Record>> {
        self.ends = allotted(self.scope.size, self.bench.device()).map(|time| Instant::now() + time);
        self.kernel_size = if self.scope.size == Size::Large { Size::Standard } else { Size::Small };
        let outcome = if recorded.is_empty() { self.under_traced(study) } else { self.under_recorded(study, recorded) };
        self.close(outcome)
    }

    fn under_recorded(&mut self, study: &Study, recorded: &[Record]) -> Result<()> {
        for record in recorded {
            self.keep(record.clone())?;
        }
        self.llc = self.roof().largest_cache().map(|largest| largest.max(self.bench.device().llc_bytes()));
        let items = self.study_items(study)?;
        let started = Instant::now();
        self.kernels(&items)?;
        self.repeat_suspects(started.elapsed())
    }

    fn under_traced(&mut self, study: &Study) -> Result<()> {
        self.trace_for(study)?;
        self.block(1)?;
        // A device whose roof takes all the time gets some for the question too.
        let least = allotted(self.scope.size, self.bench.device()).map(|time| Instant::now() + time / 3);
        self.ends = self.ends.max(least);
        let items = self.study_items(study)?;
        self.amid_blocks(&items)
    }

    /// Searches probes in a hurry; of a cache the reading is kept, which tells how large it is and what it can feed.
    fn trace_for(&mut self, study: &Study) -> Result<()> {
        let asked = (self.scope.size, std::mem::replace(&mut self.scope.precisions, study.precisions.to_vec()));
        self.scope.size = Size::Small;
        let outcome = self.search_all();
        (self.scope.size, self.scope.precisions) = asked;
        self.winners.retain(|winner| matters(&winner.ceiling));
        outcome
    }

    /// The study's problems, numbered, with the fastest settings of their kernels. What the plan refuses is an answer, not a hole.
    fn study_items(&mut self, study: &Study) -> Result<Vec<Item>> {
        let (device, roof) = (self.device(), self.roof());
        let wanted = (study.grid)(&Setting { device: &device, size: self.scope.size, roof: &roof })?;
        let (seed, llc_bytes) = (self.scope.seed, self.llc);
        let mut items: Vec<Item> = Vec::new();
        for item in wanted {
            let item = self.numbered(Item { seed, llc_bytes, ..item });
            let op = (op::find(&item.op)?.parse)(&item.problem)?;
            match op.plan(&item.variant, item.precision, device.language, &item.tunables, &device) {
                Err(refused) => self.skip(&item, State::Skipped, refused.to_string())?,
                Ok(plan) => match lacks(&plan, &device) {
                    Some(why) => self.skip(&item, State::Unsupported, why)?,
                    None => items.push(item),
                },
            }
        }
        let peak = roof.compute(Precision::F32, None).map_or(f64::INFINITY, |ceiling| ceiling.value);
        self.tune(&mut items, TRIED_NS * peak / 1e9)?;
        Ok(items)
    }
}

/// When no more of a study's kernels begin, its roof included: what then runs ends within 90 s on a CPU, 60 s on a GPU. A simulated device has
/// all the time: what it answers must not depend on the machine that simulates it.
fn allotted(size: Size, device: &DeviceInfo) -> Option<Duration> {
    if device.simulated {
        return None;
    }
    let seconds = match (size, device.kind) {
        (Size::Small, _) => 40,
        (Size::Standard, DeviceKind::Cpu) => 65,
        (Size::Standard, DeviceKind::Gpu) => 45,
        (Size::Large, _) => return None,
    };
    Some(Duration::from_secs(seconds))
}

fn matters(ceiling: &Ceiling) -> bool {
    match (ceiling.kind, ceiling.level.as_deref()) {
        (CeilingKind::Compute, _) | (CeilingKind::Bandwidth, Some("dram")) => true,
        (CeilingKind::Bandwidth, Some("pcie")) => false,
        (CeilingKind::Bandwidth, _) => ceiling.direction.as_deref() == Some("read"),
        (CeilingKind::Latency, level) => level.is_none(),
    }
}

/// The roof in a file's records, for another file of the same device: its ceilings, the measurements that they stand on, and the curves,
/// under new ids.
///
/// # Errors
/// One sentence why these records have no roof for this study on this device.
pub fn taken_over(records: &[Record], study: &Study, device: &DeviceInfo) -> Result<Vec<Record>, String> {
    let header = records.iter().find_map(|record| if let Record::Header(header) = record { Some(header) } else { None });
    let own = header.ok_or("it has no header")?.device.clone();
    if (&own.name, &own.backend, own.compute_units) != (&device.name, &device.backend, device.compute_units) {
        return Err(format!("its roof is that of {} ({}), and this is {} ({})", own.name, own.backend, device.name, device.backend));
    }
    let roof = Roof::from_records(records).map_err(|error| error.to_string())?;
    for &precision in study.precisions.iter().filter(|precision| device.precisions.contains(precision)) {
        if roof.compute(precision, None).is_none() || roof.memory_ns(1, 0).is_none() {
            return Err(format!("it has no roof of {precision} arithmetic and DRAM; record one with rooftrace trace"));
        }
    }
    let ceilings: Vec<&Ceiling> =
        records.iter().filter_map(|record| if let Record::Ceiling(ceiling) = record { Some(ceiling) } else { None }).collect();
    let stands_on = |id: &String| ceilings.iter().any(|ceiling| ceiling.from.contains(id) || ceiling.base.contains(id));
    let taken = |id: &String| if id.starts_with(TAKEN) { id.clone() } else { format!("{TAKEN}{id}") };
    let copied = |record: &Record| match record {
        Record::Measurement(m) if m.role == OpRole::Probe && (m.op == "stream" || stands_on(&m.id)) => {
            Some(Record::Measurement(Measurement { id: taken(&m.id), ..m.clone() }))
        }
        Record::Ceiling(c) => {
            let [from, base] = [&c.from, &c.base].map(|ids| ids.iter().map(taken).collect());
            Some(Record::Ceiling(Ceiling { id: taken(&c.id), from, base, ..c.clone() }))
        }
        _ => None,
    };
    Ok(records.iter().filter_map(copied).collect())
}

/// When the roof of a file was measured, in seconds since 1970: what was taken over is as old as its source.
pub fn roof_time(header: &Header) -> u64 {
    header.settings.roof_started.unwrap_or(header.started)
}
