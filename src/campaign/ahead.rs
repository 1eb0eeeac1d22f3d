//! Compiling before measuring. A compiler of CUDA takes up to two seconds for a kernel, and one after the other those of a run take longer than
//! measuring them: all that a stage will load is compiled at once, on all processors, before it begins.

use std::time::{Duration, Instant};

use serde_json::json;

use super::Campaign;
use super::search::{GLANCE, candidates};
use crate::op::{self, OpRole};
use crate::plan::{DeviceInfo, Language, Precision};
use crate::worker::{Goal, Item};

/// Longest that compilations are begun, and the same as a part of the time that a budget leaves.
const LONGEST: Duration = Duration::from_secs(60);
const PART: u32 = 4;

impl Campaign<'_> {
    /// All settings of the probes in these precisions.
    pub(super) fn prepare_probes(&mut self, precisions: &[Precision]) {
        let device = self.device();
        let probes = op::OPS.iter().filter(|entry| entry.role == OpRole::Probe);
        let ops = probes.filter_map(|entry| (entry.parse)(&json!({})).ok());
        let of = |op: &dyn op::Op, variant: &str| {
            let item = Item::new(op, variant, Goal::Measure(GLANCE));
            precisions.iter().map(|&precision| Item { precision, ..item.clone() }).collect::<Vec<_>>()
        };
        let items = ops.flat_map(|op| op.variants().into_iter().flat_map(|variant| of(&*op, variant.name)).collect::<Vec<_>>());
        self.prepare("probes", items.flat_map(|item| with_settings(&item, &device)).collect());
    }

    /// All settings of the kernels that these items measure.
    pub(super) fn prepare_kernels(&mut self, items: &[Item]) {
        let device = self.device();
        let alone = |item: &Item| if item.custom.is_some() { vec![item.clone()] } else { with_settings(item, &device) };
        let mut wanted: Vec<Item> = Vec::new();
        for item in items.iter().flat_map(alone) {
            let same = |other: &Item| {
                (&other.op, &other.variant, other.precision, &other.tunables) == (&item.op, &item.variant, item.precision, &item.tunables)
            };
            if !wanted.iter().any(same) {
                wanted.push(item);
            }
        }
        self.prepare("kernels", wanted);
    }

    fn prepare(&mut self, what: &str, items: Vec<Item>) {
        // Other languages compile when they load, or not at all.
        if self.device().language != Language::Cuda || items.is_empty() || self.late() {
            return;
        }
        self.watcher.stage(&format!("compiling {what}, {} settings", items.len()), 0);
        let left = self.scope.deadline.map_or(LONGEST, |deadline| deadline.saturating_duration_since(Instant::now()) / PART);
        self.bench.prepare(&items, left.min(LONGEST));
    }
}

/// An item in all settings of its kernel on this device.
fn with_settings(item: &Item, device: &DeviceInfo) -> Vec<Item> {
    let settings = candidates(&item.op, &item.variant, item.precision, device);
    settings.into_iter().map(|tunables| Item { tunables, ..item.clone() }).collect()
}
