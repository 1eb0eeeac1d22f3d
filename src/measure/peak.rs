//! How much memory one set of a plan takes, seen from outside.
//!
//! Where it is the process that is watched, to be asked of a fresh one: what an earlier item left behind in heaps and pools would hide a part
//! of it. A compiler's own memory is no part of it: where the process itself is what is watched, a plan of a few bytes with the same sources is loaded and
//! launched first, once to fill the driver's caches and once to see what is left of compiling then, which is taken off.

use crate::backend::{Backend, Checks, Occupied, process};
use crate::draw::Seeded;
use crate::error::Result;
use crate::plan::Plan;

/// Bytes that loading one set of `plan` and launching it once take at most; absent where nobody can tell. `small` is the same
/// variant on a small problem, where there is one.
///
/// # Errors
/// Those of loading and launching.
pub fn measured(backend: &dyn Backend, plan: &Plan, small: Option<&Plan>, seeded: Seeded) -> Result<Option<u64>> {
    // A library brings code of its own onto the device, as a compiler does into the process.
    let code_counts = backend.occupied() == Occupied::Process || plan.library().is_some();
    let Some(small) = small.filter(|_| code_counts) else { return rise(backend, plan, seeded) };
    rise(backend, small, seeded)?;
    let code = rise(backend, small, seeded)?.unwrap_or(0);
    Ok(rise(backend, plan, seeded)?.map(|peak| peak.saturating_sub(code) + small.set_bytes()))
}

/// By how much what is taken rises at most while a plan is loaded and launched.
fn rise(backend: &dyn Backend, plan: &Plan, seeded: Seeded) -> Result<Option<u64>> {
    let Some(before) = begun(backend) else { return Ok(None) };
    let mut loaded = backend.load(plan, seeded, 1, Checks::Trusted)?;
    loaded.sample(1, 0)?;
    let after = taken(backend);
    // Less than before: somebody else gave memory of the device back meanwhile, so the difference says nothing.
    Ok(after.and_then(|after| after.checked_sub(before)))
}

/// Bytes taken before anything is loaded; where they are this process's, its high-water mark starts anew.
fn begun(backend: &dyn Backend) -> Option<u64> {
    if backend.occupied() == Occupied::Process {
        process::trim();
        if !process::forget_peak() {
            return None;
        }
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
