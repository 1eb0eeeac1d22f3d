//! `fma/chains` on the host: `CHAINS` vector registers of chains in flight on every thread.
//!
//! A group is `CHAINS` registers of consecutive elements; workers own consecutive groups, and the last group of a worker that is not
//! full runs on a padded copy. One trip is `steps · CHAINS` fused multiply-adds in a loop of eight steps, then one addition to b.
//! Choose `elements` as a multiple of workers · CHAINS · lanes where the padding should cost nothing.
//!
//! FLOPs over peak: two multiply-adds a cycle of latency four (Zen 3; Intel alike), so eight chains fill the units and ten or more
//! leave room for a late start; 14 and the two coefficients are all 16 registers. Bytes over bandwidth: 8 B an element for
//! 2 · trips · steps FLOPs, nothing.
//! Predicted: 32 f32 FLOP a cycle and core with AVX2. Measured: 0.995 of the C loop in `benches/native/fma.c` (median of 9 interleaved
//! pairs, 201 GFLOP/s on two Zen 3 cores).

use super::lanes::{Kernel, Lanes, Scalar, dispatch};
use super::{Call, Output, share};
use crate::op::fma::Fma;
use crate::plan::{Precision, Tunable};

/// Registers of accumulators.
pub(crate) const CHAINS: Tunable = Tunable { name: "CHAINS", values: &[12, 10, 8, 14, 6, 4] };

/// The kernel.
pub(crate) fn chains(problem: &Fma, call: &Call<'_>) {
    match call.precision {
        Precision::F64 => all::<f64>(problem, call),
        _ => all::<f32>(problem, call),
    }
}

fn all<S: Scalar>(problem: &Fma, call: &Call<'_>) {
    let chains = call.tuned.get("CHAINS") as usize;
    let group = chains * call.isa.register_bytes() / size_of::<S>();
    let (coef, x, out) = (call.input::<S>(0), call.input::<S>(1), call.output::<S>(2));
    let groups = x.len().div_ceil(group);
    call.pool.run(&|worker, workers| {
        let mine = share(groups, worker, workers);
        let range = mine.start * group..(mine.end * group).min(x.len());
        let out: Output<'_, S> = out;
        // SAFETY: workers own disjoint groups.
        let y = unsafe { out.slice(range.clone()) };
        dispatch(call.isa, Chains { coef, x: &x[range], y, trips: problem.trips, eights: problem.steps / 8, chains });
    });
}

struct Chains<'a, S> {
    coef: &'a [S],
    x: &'a [S],
    y: &'a mut [S],
    trips: u64,
    eights: u64,
    chains: usize,
}

impl<S: Scalar> Kernel<S> for Chains<'_, S> {
    #[inline(always)]
    unsafe fn run<V: Lanes<Scalar = S>>(self) {
        // SAFETY: by the caller's promise.
        unsafe {
            match self.chains {
                4 => self.groups::<V, 4>(),
                6 => self.groups::<V, 6>(),
                8 => self.groups::<V, 8>(),
                10 => self.groups::<V, 10>(),
                12 => self.groups::<V, 12>(),
                14 => self.groups::<V, 14>(),
                other => unreachable!("CHAINS={other} is not in the table"),
            }
        }
    }
}

impl<S: Scalar> Chains<'_, S> {
    #[inline(always)]
    unsafe fn groups<V: Lanes<Scalar = S>, const C: usize>(self) {
        let group = C * V::COUNT;
        let (x, y) = (self.x.chunks_exact(group), self.y.chunks_exact_mut(group));
        let tail = x.remainder();
        let mut rest = y;
        for (x, y) in x.zip(&mut rest) {
            // SAFETY: both hold a whole group.
            unsafe { one_group::<V, C>(x.as_ptr(), y.as_mut_ptr(), self.coef, self.trips, self.eights) };
        }
        if !tail.is_empty() {
            // 14 registers of 16 lanes are the widest group.
            let (mut from, mut to) = ([S::zeroed(); 14 * 16], [S::zeroed(); 14 * 16]);
            from[..tail.len()].copy_from_slice(tail);
            // SAFETY: both hold a whole group.
            unsafe { one_group::<V, C>(from.as_ptr(), to.as_mut_ptr(), self.coef, self.trips, self.eights) };
            rest.into_remainder().copy_from_slice(&to[..tail.len()]);
        }
    }
}

#[inline(always)]
unsafe fn one_group<V: Lanes, const C: usize>(x: *const V::Scalar, y: *mut V::Scalar, coef: &[V::Scalar], trips: u64, eights: u64) {
    // SAFETY: x and y hold C · COUNT elements, and the CPU has V, by the caller's promise.
    unsafe {
        let (a, mut b, step) = (V::splat(coef[0]), V::splat(coef[1]), V::splat(coef[2]));
        let mut chain = [a; C];
        for c in 0..C {
            chain[c] = V::load(x.add(c * V::COUNT));
        }
        for _ in 0..trips {
            for _ in 0..eights {
                for _ in 0..8 {
                    for c in 0..C {
                        chain[c] = chain[c].mul_add(a, b);
                    }
                }
            }
            b = b.add(step);
        }
        for c in 0..C {
            chain[c].store(y.add(c * V::COUNT));
        }
    }
}
