//! All sets of a plan's tensors in one block of memory, with guards around every tensor.

use crate::error::{Error, Result};
use crate::host::Memory;
use crate::host::memory::Region;
use crate::host::topology;
use crate::op::TensorSpec;

/// Bytes of a guard: one cache line before and one after each tensor.
const GUARD: usize = 64;
/// What guards hold.
const PATTERN: u32 = 0x9d5a_c3e7;

/// Copies of all tensors of a plan.
pub(super) struct Sets {
    region: Region,
    /// Tensors of set 0, then of set 1, …
    tensors: Vec<Memory>,
    each: usize,
}

impl Sets {
    /// Allocates `sets` sets, checked against the memory that is available now. Nothing but the guards is touched.
    pub(super) fn allocate(tensors: &[TensorSpec], sets: u32) -> Result<Self> {
        let what = || format!("{sets} sets of {} tensors", tensors.len());
        let have = topology::available_memory();
        let layout = offsets(tensors, sets);
        let Some((offsets, bytes)) = layout else {
            return Err(Error::OutOfMemory { what: what(), need: u64::MAX, have: have.unwrap_or(0) });
        };
        if let Some(have) = have.filter(|&have| bytes as u64 > have) {
            return Err(Error::OutOfMemory { what: what(), need: bytes as u64, have });
        }
        let Some(region) = Region::new(bytes) else {
            return Err(Error::OutOfMemory { what: what(), need: bytes as u64, have: have.unwrap_or(0) });
        };
        let placed = offsets.iter().zip(tensors.iter().cycle()).map(|(&offset, spec)| {
            // SAFETY: the layout's offsets lie within the region.
            let start = unsafe { region.start().add(offset) };
            Memory { start, elements: spec.elements() as usize, dtype: spec.dtype }
        });
        let sets = Sets { tensors: placed.collect(), each: tensors.len(), region };
        for memory in &sets.tensors {
            for at in guards(*memory) {
                // SAFETY: the layout leaves a guard on either side of every tensor.
                unsafe { at.write_unaligned(PATTERN) };
            }
        }
        Ok(sets)
    }

    /// Number of sets.
    pub(super) fn sets(&self) -> u32 {
        (self.tensors.len() / self.each) as u32
    }

    /// Tensors of one set.
    pub(super) fn of(&self, set: u32) -> &[Memory] {
        &self.tensors[set as usize * self.each..][..self.each]
    }

    /// Bytes allocated, guards included.
    pub(super) fn bytes(&self) -> u64 {
        self.region.bytes() as u64
    }

    /// Guard words of a set that lost their pattern.
    pub(super) fn broken_guards(&self, set: u32) -> u64 {
        // SAFETY: as in `allocate`.
        let broken = |at: *mut u32| unsafe { at.read_unaligned() } != PATTERN;
        self.of(set).iter().flat_map(|memory| guards(*memory)).filter(|&at| broken(at)).count() as u64
    }
}

/// Guard words before and after a tensor.
fn guards(memory: Memory) -> impl Iterator<Item = *mut u32> {
    let bytes = memory.elements * memory.dtype.bytes() as usize;
    let words = GUARD / size_of::<u32>();
    let before = memory.start.wrapping_sub(GUARD).cast::<u32>();
    let after = memory.start.wrapping_add(bytes).cast::<u32>();
    (0..words).flat_map(move |word| [before.wrapping_add(word), after.wrapping_add(word)])
}

/// Offset of every tensor of every set, and the bytes of all; `None` on overflow.
fn offsets(tensors: &[TensorSpec], sets: u32) -> Option<(Vec<usize>, usize)> {
    let mut offsets = Vec::new();
    let mut end = 0usize;
    for _ in 0..sets.max(1) {
        for spec in tensors {
            let start = end.checked_add(GUARD)?.checked_next_multiple_of(64)?;
            offsets.push(start);
            end = start.checked_add(usize::try_from(spec.bytes()).ok()?)?.checked_add(GUARD)?;
        }
    }
    Some((offsets, end))
}
