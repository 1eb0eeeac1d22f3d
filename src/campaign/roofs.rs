//! Roofs that another run recorded, and roofs without a journal, for programs that measure ops of their own (`examples/own_kernel.rs`).

use std::time::{SystemTime, UNIX_EPOCH};

use super::{Campaign, Scope, Watcher};
use crate::error::Result;
use crate::op::{OpRole, Size};
use crate::plan::{DeviceInfo, Precision};
use crate::record::{Ceiling, Header, Measurement, Record, Schema, Settings, Tool};
use crate::roofline::Roof;
use crate::worker::Bench;

/// Ids of what is taken over begin with this: a run numbers its own from 1.
const TAKEN: &str = "roof-";

impl Scope {
    /// Everything, with no end but its own.
    pub fn new(size: Size) -> Self {
        Scope { size, seed: 1, deadline: None, ops: Vec::new(), variants: Vec::new(), precisions: Vec::new(), problem: None, energy: false }
    }
}

/// Nobody watches.
struct Alone;

impl Watcher for Alone {
    fn record(&mut self, _record: &Record) -> Result<()> {
        Ok(())
    }
    fn stage(&mut self, _name: &str, _items: usize) {}
    fn item(&mut self, _name: &str) {}
}

/// A header and the roofs of a bench's device. Measurements that are put behind them are placed by [`crate::roofline::view`].
///
/// # Errors
/// [`crate::Error::Interrupted`].
pub fn roofs(bench: &mut dyn Bench, scope: Scope) -> Result<Vec<Record>> {
    let header = Header {
        schema: Schema::current(),
        started: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
        tool: Tool { version: env!("CARGO_PKG_VERSION").into(), ..Tool::default() },
        environment: Default::default(),
        device: bench.device().clone(),
        clock: bench.clock().clone(),
        settings: Settings { command: "library".into(), seed: scope.seed, ..Settings::default() },
        extra: Default::default(),
    };
    let traced = Campaign::new(bench, &mut Alone, scope).trace()?;
    Ok([Record::Header(header)].into_iter().chain(traced).collect())
}

impl Campaign<'_> {
    /// Keeps these records of a roof as this run's.
    pub(super) fn take_over(&mut self, recorded: &[Record]) -> Result<()> {
        recorded.iter().try_for_each(|record| self.keep(record.clone()))?;
        self.llc = self.roof().largest_cache().map(|largest| largest.max(self.bench.device().llc_bytes()));
        Ok(())
    }
}

/// The roof in a file's records, for another file of the same device: its ceilings, the measurements that they stand on, and the curves,
/// under new ids.
///
/// # Errors
/// One sentence why these records have no roof of DRAM and these precisions on this device.
pub fn taken_over(records: &[Record], precisions: &[Precision], device: &DeviceInfo) -> Result<Vec<Record>, String> {
    let header = records.iter().find_map(|record| if let Record::Header(header) = record { Some(header) } else { None });
    let own = header.ok_or("it has no header")?.device.clone();
    if (&own.name, &own.backend, own.compute_units) != (&device.name, &device.backend, device.compute_units) {
        return Err(format!("its roof is that of {} ({}), and this is {} ({})", own.name, own.backend, device.name, device.backend));
    }
    let roof = Roof::from_records(records).map_err(|error| error.to_string())?;
    for &precision in precisions.iter().filter(|precision| device.precisions.contains(precision)) {
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
