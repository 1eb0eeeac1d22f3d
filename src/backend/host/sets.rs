//! All sets of a plan's tensors, and its scratch, in one block of memory, with guards around every one.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::{Error, Result};
use crate::host::Memory;
use crate::host::memory::{HUGE, Region};
use crate::host::topology;
use crate::op::TensorSpec;

/// Bytes of a guard: one cache line before and one after each tensor.
const GUARD: usize = 64;
/// Bytes left free before a large tensor. Arrays of a power of two bytes would else lie that power of two apart, and their streams
/// meet in the same banks of memory, which costs triad a tenth of its rate (STREAM's advice on array offsets).
const STAGGER: usize = 160 << 10;
/// How many times the memory asked for is reserved.
const ROOM: usize = 8;
/// What guards hold.
const PATTERN: u32 = 0x9d5a_c3e7;

/// Where the last plan's memory waits for the next plan: the system's zeroing of fresh pages costs more than most measurements.
/// It is kept only where all memory is equally near to every worker: elsewhere each plan's first touch must place its pages anew.
pub(super) struct Shelf {
    spare: Mutex<Region>,
    keeps: bool,
}

impl Shelf {
    pub(super) fn new() -> Self {
        Shelf { spare: Mutex::new(Region::empty()), keeps: topology::nodes() == 1 }
    }

    fn spare(&self) -> MutexGuard<'_, Region> {
        self.spare.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The spare memory where it holds so many bytes; where it does not it is given back to the system.
    fn take(&self, bytes: usize) -> Option<Region> {
        let region = std::mem::replace(&mut *self.spare(), Region::empty());
        (region.bytes() >= bytes).then_some(region)
    }

    /// Memory from the system, with room for larger plans where it is kept: pages that nobody touches cost nothing, and those that
    /// one plan has touched serve the next.
    fn fresh(&self, bytes: usize, have: Option<u64>) -> Option<Region> {
        let most = have.map_or(bytes, |have| (have / 2) as usize);
        let roomy = bytes.saturating_mul(ROOM).min(most);
        let region = if self.keeps && roomy > bytes { Region::new(roomy) } else { None };
        region.or_else(|| Region::new(bytes))
    }

    fn put(&self, region: Region) {
        let mut spare = self.spare();
        if self.keeps && region.bytes() > spare.bytes() {
            *spare = region;
        }
    }
}

/// Copies of all tensors of a plan.
pub(super) struct Sets<'a> {
    shelf: &'a Shelf,
    region: Region,
    /// Bytes of it in use, guards included.
    bytes: usize,
    /// Tensors of set 0 and the scratch, then tensors of set 1 and the same scratch, …
    tensors: Vec<Memory>,
    each: usize,
}

impl Drop for Sets<'_> {
    fn drop(&mut self) {
        self.shelf.put(std::mem::replace(&mut self.region, Region::empty()));
    }
}

impl<'a> Sets<'a> {
    /// Allocates `sets` sets and one scratch for all, checked against the memory that is available now. Nothing but the guards is touched, and what memory
    /// holds is arbitrary.
    pub(super) fn allocate(shelf: &'a Shelf, tensors: &[TensorSpec], scratch: &[TensorSpec], sets: u32) -> Result<Self> {
        let what = || format!("{sets} sets of {} tensors", tensors.len());
        let refused = |need: u64, have: Option<u64>| Error::OutOfMemory { what: what(), need, have: have.unwrap_or(0) };
        let Some((offsets, bytes)) = offsets(tensors, scratch, sets) else {
            return Err(refused(u64::MAX, topology::available_memory()));
        };
        let region = match shelf.take(bytes) {
            Some(spare) => spare,
            None => {
                let have = topology::available_memory();
                let fresh = if have.is_none_or(|have| bytes as u64 <= have) { shelf.fresh(bytes, have) } else { None };
                fresh.ok_or_else(|| refused(bytes as u64, have))?
            }
        };
        region.huge(bytes);
        let place = |(&offset, spec): (&usize, &TensorSpec)| {
            // SAFETY: the layout's offsets lie within the region.
            let start = unsafe { region.start().add(offset) };
            Memory { start, elements: spec.elements() as usize, dtype: spec.dtype }
        };
        let (own, shared) = offsets.split_at(offsets.len() - scratch.len());
        let shared: Vec<Memory> = shared.iter().zip(scratch).map(place).collect();
        let mut placed = Vec::new();
        for set in own.chunks(tensors.len()) {
            placed.extend(set.iter().zip(tensors).map(place));
            placed.extend(&shared);
        }
        let sets = Sets { tensors: placed, each: tensors.len() + scratch.len(), shelf, region, bytes };
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

    /// Tensors of one set, then the scratch.
    pub(super) fn of(&self, set: u32) -> &[Memory] {
        &self.tensors[set as usize * self.each..][..self.each]
    }

    /// Bytes allocated, guards included.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes as u64
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

/// Offset of every tensor of every set, then of the scratch, and the bytes of all; `None` on overflow.
fn offsets(tensors: &[TensorSpec], scratch: &[TensorSpec], sets: u32) -> Option<(Vec<usize>, usize)> {
    let mut offsets = Vec::new();
    let mut end = 0usize;
    for spec in (0..sets.max(1)).flat_map(|_| tensors).chain(scratch) {
        let bytes = usize::try_from(spec.bytes()).ok()?;
        let gap = if bytes >= HUGE { STAGGER } else { 0 };
        let start = end.checked_add(GUARD + gap)?.checked_next_multiple_of(64)?;
        offsets.push(start);
        end = start.checked_add(bytes)?.checked_add(GUARD)?;
    }
    Some((offsets, end))
}
