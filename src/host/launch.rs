//! `launch/counted` on the host: a dispatch is a job of the thread pool, in which one worker does next to nothing.
//!
//! What it costs is waking the workers and waiting for the last of them; nothing else happens.

use super::{Call, Output};
use crate::op::launch::Launch;

/// The kernel.
pub(crate) fn counted(problem: &Launch, call: &Call<'_>) {
    let (x, y, count) = (call.input::<f32>(0), call.output::<f32>(1), call.output::<f32>(2));
    let job = |work: &(dyn Fn() + Sync)| {
        call.pool.run(&|worker, _| {
            if worker == 0 {
                work();
            }
        });
    };
    // SAFETY: one worker alone asks for it, and jobs follow each other.
    let one = |of: Output<'_, f32>| unsafe { of.start.read() };
    // SAFETY: as above.
    let store = |of: Output<'_, f32>, value: f32| unsafe { of.slice(0..1) }[0] = value;
    job(&|| store(count, x[0]));
    for _ in 2..problem.dispatches {
        job(&|| store(count, one(count) + 1.0));
    }
    job(&|| store(y, one(count) + 1.0));
}
