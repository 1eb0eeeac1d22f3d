//! The bandwidth of the link between host and device, both ways: ceilings that no kernel is placed on, as none is fed over it.

use serde_json::json;

use super::search::{GLANCE, block_effort, candidates};
use super::{Campaign, Winner};
use crate::draw::Draw;
use crate::error::Result;
use crate::op::Size;
use crate::plan::{DeviceInfo, Direction, Precision};
use crate::record::Ceiling;
use crate::worker::{Goal, Item};

/// Sizes of a copy in MiB: those beyond a part of the device's memory are left out.
const SIZES: &[u64] = &[16, 32, 64, 128, 256];
/// The same in a hurry.
const FEW: &[u64] = &[16, 64];
/// Both tensors of a copy take this part of the device's memory at most.
const PART: u64 = 2;

impl Campaign<'_> {
    /// Finds the fastest size of the `transfer` probe in each direction, where the device has one.
    pub(super) fn search_transfer(&mut self) -> Result<()> {
        let device = self.device();
        if candidates("transfer", "copied", Precision::F32, &device).is_empty() {
            return Ok(());
        }
        let sizes = sizes(self.scope.size, &device);
        self.watcher.stage(&format!("PCIe, {} candidates", 2 * sizes.len()), 2 * sizes.len());
        for (direction, of_device) in [(Direction::Up, "read"), (Direction::Down, "write")] {
            let of = |bytes: &u64| {
                let problem = json!({"elements": bytes / 4, "direction": direction.name()});
                // Of an exact draw every bit must arrive.
                Item { draw: Draw::Exact, ..self.item("transfer", "copied", problem, GLANCE) }
            };
            let items = sizes.iter().map(of).collect();
            let Some(mut item) = self.best_item(items, |m| m.bytes_compulsory)? else { continue };
            item.goal = Goal::Measure(block_effort(self.scope.size));
            let plain = self.ceiling(&format!("pcie {of_device}"), None);
            let ceiling = Ceiling { level: Some("pcie".into()), direction: Some(of_device.into()), ..plain };
            self.winners.push(Winner { ceiling, item });
        }
        Ok(())
    }
}

/// Bytes of the copies that are tried.
fn sizes(size: Size, device: &DeviceInfo) -> Vec<u64> {
    let all = if size == Size::Small { FEW } else { SIZES };
    all.iter().map(|mib| mib << 20).filter(|bytes| 2 * bytes <= device.memory_bytes / PART).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_tensors_of_a_copy_fit_half_of_the_devices_memory() {
        let of = |size, memory_bytes| sizes(size, &DeviceInfo { memory_bytes, ..crate::backend::host::device() });
        assert_eq!(of(Size::Standard, 80 << 30), [16 << 20, 32 << 20, 64 << 20, 128 << 20, 256 << 20]);
        assert_eq!(of(Size::Standard, 256 << 20), [16 << 20, 32 << 20, 64 << 20]);
        assert_eq!((of(Size::Small, 8 << 30), of(Size::Small, 1 << 20)), (vec![16 << 20, 64 << 20], vec![]));
    }
}
