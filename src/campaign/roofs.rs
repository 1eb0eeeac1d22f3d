//! Roofs without a journal, for programs that measure ops of their own (`examples/own_kernel.rs`).

use std::time::{SystemTime, UNIX_EPOCH};

use super::{Campaign, Scope, Watcher};
use crate::error::Result;
use crate::op::Size;
use crate::record::{Header, Record, Schema, Settings, Tool};
use crate::worker::Bench;

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
