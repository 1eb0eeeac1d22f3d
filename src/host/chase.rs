//! `chase/cycle` on the host: one worker goes from line to line, each load's address being what the load before it brought.

use super::Call;
use crate::draw::Cycle;
use crate::op::chase::{Chase, LINE_BYTES, UNROLLED};

/// The kernel.
pub(crate) fn cycle(problem: &Chase, call: &Call<'_>) {
    let (x, y) = (call.input::<u32>(0), call.output::<f32>(1));
    call.pool.run(&|worker, _| {
        if worker != 0 {
            return;
        }
        // So that what is loaded is a distance as it stands; hidden, or the difference would go into each address, which costs a cycle.
        let base = std::hint::black_box(x.as_ptr().wrapping_byte_sub(Cycle::ONE as usize));
        let (mut at, mut turns) = (Cycle::ONE, 0u32);
        for _ in 0..problem.hops / UNROLLED {
            for _ in 0..UNROLLED {
                // SAFETY: a cycle's elements name elements of it, and nobody writes inputs.
                at = unsafe { base.wrapping_byte_add(at as usize).read() };
                turns += (at == Cycle::ONE) as u32;
            }
        }
        let ends = [(at - Cycle::ONE) / LINE_BYTES as u32, turns];
        // SAFETY: this worker alone asks for it.
        unsafe { y.slice(0..2) }.copy_from_slice(&ends.map(|end| end as f32));
    });
}
