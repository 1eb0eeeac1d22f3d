//! How much memory one set of a plan takes, seen from outside.
//!
//! To be asked of a fresh process: what an earlier item left behind in heaps and pools would hide a part of it. Taken are the
//! tensors of one set and whatever loading and one launch add: scratch, staging, code.

use crate::backend::{Backend, Checks, Occupied, process};
use crate::draw::Seeded;
use crate::error::Result;
use crate::plan::Plan;

/// Bytes that loading one set and launching it once take at most; absent where nobody can tell.
///
/// # Errors
/// Those of loading and launching.
pub fn measured(backend: &dyn Backend, plan: &Plan, seeded: Seeded) -> Result<Option<u64>> {
    let Some(before) = begun(backend) else { return Ok(None) };
    let mut loaded = backend.load(plan, seeded, 1, Checks::Trusted)?;
    loaded.sample(1, 0)?;
    let after = taken(backend);
    // Less than before: somebody else gave memory of the device back meanwhile, so the difference says nothing.
    Ok(after.and_then(|after| after.checked_sub(before)))
}

/// Bytes taken before anything is loaded; where they are this process's, its high-water mark starts anew.
fn begun(backend: &dyn Backend) -> Option<u64> {
    if backend.occupied() == Occupied::Process && !process::forget_peak() {
        return None;
    }
    taken(backend)
}

fn taken(backend: &dyn Backend) -> Option<u64> {
    match backend.occupied() {
        Occupied::Unknown => None,
        Occupied::Process => process::peak_bytes(),
        Occupied::Device(bytes) => Some(bytes),
    }
}
