//! `exp/chains` on the host: `CHAINS` vector registers of chains in flight on every thread, each step one of our own powers of two.
//!
//! A group is `CHAINS` registers of consecutive elements; the last group of a worker that is not full runs on a padded copy. A step is
//! some twelve instructions of one register ([`exp2`]), the same that fused attention runs on its scores, so the ceiling is that
//! of this way to compute them, and a better series would lift both.

// Arrays of registers are indexed by constants, which is what keeps them in registers.
#![allow(clippy::needless_range_loop)]

use super::exp::exp2;
use super::lanes::{Kernel, Lanes, dispatch};
use super::{Call, Output, share};
use crate::op::exp::Exp;
use crate::plan::Tunable;

/// Registers of chains.
pub(crate) const CHAINS: Tunable = Tunable { name: "CHAINS", values: &[4, 2, 3, 6, 8] };

/// The kernel.
pub(crate) fn chains(problem: &Exp, call: &Call<'_>) {
    let chains = call.tuned.get("CHAINS") as usize;
    let group = chains * call.isa.register_bytes() / size_of::<f32>();
    let (coef, x, out) = (call.input::<f32>(0), call.input::<f32>(1), call.output::<f32>(2));
    let groups = x.len().div_ceil(group);
    call.pool.run(&|worker, workers| {
        let mine = share(groups, worker, workers);
        let range = (mine.start * group).min(x.len())..(mine.end * group).min(x.len());
        let out: Output<'_, f32> = out;
        // SAFETY: workers own disjoint groups.
        let y = unsafe { out.slice(range.clone()) };
        dispatch(call.isa, Powers { coef, x: &x[range], y, trips: problem.trips, steps: problem.steps, chains });
    });
}

struct Powers<'a> {
    coef: &'a [f32],
    x: &'a [f32],
    y: &'a mut [f32],
    trips: u64,
    steps: u64,
    chains: usize,
}

impl Kernel<f32> for Powers<'_> {
    #[inline(always)]
    unsafe fn run<V: Lanes<Scalar = f32>>(self) {
        // SAFETY: by the caller's promise.
        unsafe {
            match self.chains {
                2 => self.groups::<V, 2>(),
                3 => self.groups::<V, 3>(),
                4 => self.groups::<V, 4>(),
                6 => self.groups::<V, 6>(),
                8 => self.groups::<V, 8>(),
                other => unreachable!("CHAINS={other} is not in the table"),
            }
        }
    }
}

impl Powers<'_> {
    #[inline(always)]
    unsafe fn groups<V: Lanes<Scalar = f32>, const C: usize>(self) {
        let group = C * V::COUNT;
        for (x, y) in self.x.chunks(group).zip(self.y.chunks_mut(group)) {
            // 8 registers of 16 lanes are the widest group.
            let mut chain = [0f32; 8 * 16];
            chain[..x.len()].copy_from_slice(x);
            // SAFETY: the copy holds a whole group; the instruction set is there by the caller's promise.
            unsafe { one_group::<V, C>(&mut chain, self.coef, self.trips, self.steps) };
            y.copy_from_slice(&chain[..x.len()]);
        }
    }
}

#[inline(always)]
unsafe fn one_group<V: Lanes<Scalar = f32>, const C: usize>(all: &mut [f32; 8 * 16], coef: &[f32], trips: u64, steps: u64) {
    // SAFETY: `all` holds C · COUNT elements, and the CPU has V, by the caller's promise.
    unsafe {
        let (minus, step) = (V::splat(-1.0), V::splat(-coef[1]));
        // −(x + b) is one multiply-add.
        let mut b = V::splat(-coef[0]);
        let mut chain = [b; C];
        for c in 0..C {
            chain[c] = V::load(all.as_ptr().add(c * V::COUNT));
        }
        for _ in 0..trips {
            for _ in 0..steps {
                for c in 0..C {
                    chain[c] = exp2(chain[c].mul_add(minus, b));
                }
            }
            b = b.add(step);
        }
        for c in 0..C {
            chain[c].store(all.as_mut_ptr().add(c * V::COUNT));
        }
    }
}
