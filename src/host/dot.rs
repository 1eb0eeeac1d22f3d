//! `dot/chains` on the host: `CHAINS` vector registers of sums in flight on every thread, of f16 or bf16 products in f32.
//!
//! Workers own groups of `CHAINS` registers of consecutive elements, as in [`fma`](super::fma). No processor multiplies f16 into f32 sums, so a
//! product of four numbers is four fused multiply-adds of what they are in f32; those of bf16 are two of an instruction that adds two products
//! where there is one (AVX512-BF16).
//!
//! FLOPs over peak: as `fma` in f16, twice that in pairs of bf16. Bytes over bandwidth: 6 B an element for 8 · trips · steps FLOPs, nothing.
//! Measured on two cores of a Zen 5, interleaved with `fma`: 1.00 of it in f16, 2.00 in bf16.

use half::{bf16, f16};

use super::lanes::{Kernel, Lanes, Stored, dispatch};
use super::{Call, share};
use crate::op::dot::{Dot, FOUR};
use crate::plan::Precision;

/// Numbers of a product.
const NUMBERS: usize = FOUR as usize;

/// The kernel.
pub(crate) fn chains(problem: &Dot, call: &Call<'_>) {
    match call.precision {
        Precision::BF16 => all::<bf16>(problem, call),
        _ => all::<f16>(problem, call),
    }
}

fn all<E: Stored<f32>>(problem: &Dot, call: &Call<'_>) {
    let chains = call.tuned.get("CHAINS") as usize;
    let group = chains * call.isa.register_bytes() / size_of::<f32>();
    let pairs = call.isa.multiplies_pairs(call.precision);
    let (coef, x, out) = (call.input::<E>(0), call.input::<E>(1), call.output::<f32>(2));
    let numbers: [[f32; NUMBERS]; 3] = std::array::from_fn(|of| std::array::from_fn(|j| coef[of * NUMBERS + j].wide()));
    let groups = x.len().div_ceil(group);
    call.pool.run(&|worker, workers| {
        let mine = share(groups, worker, workers);
        let range = mine.start * group..(mine.end * group).min(x.len());
        // SAFETY: workers own disjoint groups.
        let y = unsafe { out.slice(range.clone()) };
        let work = Chains { numbers, x: &x[range], y, trips: problem.trips, eights: problem.steps / 8, chains };
        if pairs { dispatch(call.isa, InPairs(work)) } else { dispatch(call.isa, work) }
    });
}

struct Chains<'a, E> {
    /// a, b, and what b grows by.
    numbers: [[f32; NUMBERS]; 3],
    x: &'a [E],
    y: &'a mut [f32],
    trips: u64,
    eights: u64,
    chains: usize,
}

impl<E: Stored<f32>> Kernel<f32> for Chains<'_, E> {
    #[inline(always)]
    unsafe fn run<V: Lanes<Scalar = f32>>(self) {
        // SAFETY: by the caller's promise.
        unsafe { self.groups::<V, NUMBERS>(|of| of) }
    }
}

/// The same in pairs of bf16.
struct InPairs<'a, E>(Chains<'a, E>);

impl<E: Stored<f32>> Kernel<f32> for InPairs<'_, E> {
    const PAIRS: bool = true;
    #[inline(always)]
    unsafe fn run<V: Lanes<Scalar = f32>>(self) {
        let pair =
            |of: &[f32]| f32::from_bits(u32::from(bf16::from_f32(of[0]).to_bits()) | u32::from(bf16::from_f32(of[1]).to_bits()) << 16);
        // SAFETY: by the caller's promise.
        unsafe { self.0.groups::<V, { NUMBERS / 2 }>(|of| [pair(&of[..2]), pair(&of[2..])]) }
    }
}

impl<E: Stored<f32>> Chains<'_, E> {
    /// All groups, a product in F multiply-adds of these factors.
    #[inline(always)]
    unsafe fn groups<V: Lanes<Scalar = f32>, const F: usize>(self, factors: impl Fn([f32; NUMBERS]) -> [f32; F]) {
        // SAFETY: by the caller's promise.
        unsafe {
            match self.chains {
                4 => self.of::<V, F, 4>(factors),
                6 => self.of::<V, F, 6>(factors),
                8 => self.of::<V, F, 8>(factors),
                10 => self.of::<V, F, 10>(factors),
                12 => self.of::<V, F, 12>(factors),
                14 => self.of::<V, F, 14>(factors),
                other => unreachable!("CHAINS={other} is not in the table"),
            }
        }
    }

    #[inline(always)]
    unsafe fn of<V: Lanes<Scalar = f32>, const F: usize, const C: usize>(self, factors: impl Fn([f32; NUMBERS]) -> [f32; F]) {
        let [a, first, growth] = self.numbers;
        for (x, y) in self.x.chunks(C * V::COUNT).zip(self.y.chunks_mut(C * V::COUNT)) {
            // 14 registers of 16 lanes are the widest group; one that is not full is filled up.
            let mut sums = [0f32; 14 * 16];
            sums.iter_mut().zip(x).for_each(|(sum, x)| *sum = x.wide());
            // SAFETY: they hold C registers; by the caller's promise.
            unsafe {
                let mut chain = [V::splat(0.0); C];
                for c in 0..C {
                    chain[c] = V::load(sums.as_ptr().add(c * V::COUNT));
                }
                let a = factors(a).map(|of| V::splat(of));
                let mut b = first;
                for _ in 0..self.trips {
                    let right = factors(b).map(|of| V::splat(of));
                    for _ in 0..self.eights {
                        for _ in 0..8 {
                            for f in 0..F {
                                for c in 0..C {
                                    chain[c] = a[f].mul_add(right[f], chain[c]);
                                }
                            }
                        }
                    }
                    (0..NUMBERS).for_each(|j| b[j] += growth[j]);
                }
                for c in 0..C {
                    chain[c].store(sums.as_mut_ptr().add(c * V::COUNT));
                }
            }
            y.copy_from_slice(&sums[..y.len()]);
        }
    }
}
