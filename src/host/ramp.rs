//! `ramp/chains` on the host: `CHAINS` vector registers of elements at a time, each worker through one contiguous slice.
//!
//! Slices begin on whole blocks of 128 elements, so that lines of 16 are the same for everybody; what is left behind the last whole
//! group of registers runs on a padded copy. `STORE=1` streams stores past the caches, as `stream` does, and for the same reason.
//!
//! FLOPs over peak: as `fma`, once a chain is long; a group's chains start together, which costs a few cycles a group. Bytes over
//! bandwidth: as `stream` copy, while a chain is short. Between the two neither has the machine for itself, which is what is measured.

// Arrays of registers are indexed by constants, which is what keeps them in registers.
#![allow(clippy::needless_range_loop)]

use super::lanes::{Kernel, Lanes, dispatch, fence};
use super::{Call, Output, share_blocks};
use crate::op::ramp::{LINE, LINES, Ramp};
use crate::plan::Tunable;

/// Registers of elements.
pub(crate) const CHAINS: Tunable = Tunable { name: "CHAINS", values: &[12, 8] };
/// 1: non-temporal stores, 0: ordinary ones.
pub(crate) const STORE: Tunable = Tunable { name: "STORE", values: &[1, 0] };

/// Elements after which the lines are dealt out anew.
const BLOCK: usize = (LINE * LINES) as usize;

/// The kernel.
pub(crate) fn chains(problem: &Ramp, call: &Call<'_>) {
    let (coef, x, out) = (call.input::<f32>(0), call.input::<f32>(1), call.output::<f32>(2));
    call.pool.run(&|worker, workers| {
        let range = share_blocks(x.len(), BLOCK, worker, workers);
        let out: Output<'_, f32> = out;
        // SAFETY: workers own disjoint blocks.
        let y = unsafe { out.slice(range.clone()) };
        let (chains, streaming) = (call.tuned.get("CHAINS"), call.tuned.get("STORE") == 1);
        dispatch(
            call.isa,
            Chains { a: coef[0], b: coef[1], x: &x[range], y, steps: problem.common(), longer: problem.longer(), chains, streaming },
        );
    });
}

struct Chains<'a> {
    a: f32,
    b: f32,
    x: &'a [f32],
    y: &'a mut [f32],
    steps: u64,
    longer: u64,
    chains: u32,
    streaming: bool,
}

impl Kernel<f32> for Chains<'_> {
    #[inline(always)]
    unsafe fn run<V: Lanes<Scalar = f32>>(self) {
        // SAFETY: by the caller's promise.
        unsafe {
            match (self.chains, self.streaming) {
                (8, false) => self.groups::<V, 8, false>(),
                (8, true) => self.groups::<V, 8, true>(),
                (12, false) => self.groups::<V, 12, false>(),
                (12, true) => self.groups::<V, 12, true>(),
                (other, _) => unreachable!("CHAINS={other} is not in the table"),
            }
        }
    }
}

impl Chains<'_> {
    #[inline(always)]
    unsafe fn groups<V: Lanes<Scalar = f32>, const C: usize, const STREAM: bool>(self) {
        let (n, group) = (self.x.len(), C * V::COUNT);
        let (x, y) = (self.x.as_ptr(), self.y.as_mut_ptr());
        // Streaming needs whole registers on their own boundary; workers' slices begin on lines, as tensors do.
        let aligned = y.addr().is_multiple_of(V::COUNT * size_of::<f32>());
        let mut i = 0;
        // SAFETY: every group lies within the n elements of x and y; the padded copy holds a whole group.
        unsafe {
            while i + group <= n {
                match STREAM && aligned {
                    true => self.group::<V, C, true>(x.add(i), y.add(i), i),
                    false => self.group::<V, C, false>(x.add(i), y.add(i), i),
                }
                i += group;
            }
            if i < n {
                // 12 registers of 16 lanes are the widest group.
                let (mut from, mut to) = ([0f32; 12 * 16], [0f32; 12 * 16]);
                from[..n - i].copy_from_slice(&self.x[i..]);
                self.group::<V, C, false>(from.as_ptr(), to.as_mut_ptr(), i);
                y.add(i).copy_from_nonoverlapping(to.as_ptr(), n - i);
            }
        }
        fence();
    }

    /// One group, whose first element is number `at` of the slice.
    #[inline(always)]
    unsafe fn group<V: Lanes<Scalar = f32>, const C: usize, const STREAM: bool>(&self, x: *const f32, y: *mut f32, at: usize) {
        // SAFETY: x and y hold C · COUNT elements, and the CPU has V, by the caller's promise.
        unsafe {
            let (a, b) = (V::splat(self.a), V::splat(self.b));
            let mut chain = [a; C];
            for c in 0..C {
                chain[c] = V::load(x.add(c * V::COUNT));
            }
            for _ in 0..self.steps / 4 {
                for _ in 0..4 {
                    for c in 0..C {
                        chain[c] = chain[c].mul_add(a, b);
                    }
                }
            }
            for _ in 0..self.steps % 4 {
                for c in 0..C {
                    chain[c] = chain[c].mul_add(a, b);
                }
            }
            for c in 0..C {
                let first = at + c * V::COUNT;
                if ((first as u64 / LINE) % LINES) < self.longer {
                    chain[c] = chain[c].mul_add(a, b);
                }
                let to = y.add(c * V::COUNT);
                if STREAM { chain[c].stream(to) } else { chain[c].store(to) }
            }
        }
    }
}
