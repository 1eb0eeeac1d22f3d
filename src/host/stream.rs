//! `stream/linear` on the host: each worker walks one contiguous slice of every array, pass after pass.
//!
//! A worker's slice is a range of parts, the same for all kinds, and the same that drew (first touched) it. `UNROLL` registers a
//! loop trip; for `read` they are independent accumulators. `ABREAST` walks pieces of the slice side by side, two of `read`, four of `copy`: the
//! hardware that asks for lines ahead follows each. `STORE=1` streams stores past the caches in whole lines, which saves
//! the read for ownership that an ordinary store of a missing line costs and that STREAM's rules do not count.
//!
//! FLOPs over peak: at most one multiply-add for 4 bytes, below 5 % of the units from DRAM. Bytes over bandwidth: everything; in the
//! first-level cache two loads and one store a cycle. Predicted: C STREAM's rate, ordinary and streaming alike, because the loops
//! are the same. Measured against `benches/native/stream.c` on a busy machine, whose single pairs spread from 0.6 to 1.3: 0.81-0.94 (ordinary)
//! while arrays of a power of two bytes lay that far apart, 0.95-1.13 since they do not; 0.98-1.06 (streaming). Two halves at once, on a Zen 5:
//! reading is 1.04-1.09 times as fast, whatever memory gave, and more of them are no faster; copies of four, asked for 3 KB ahead, are 1.03 times as
//! fast while memory gives 60 GB/s and 1.05-1.2 while it gives 95, those of two hardly and of five not; triads and writes gain nothing by either.

// Arrays of registers are indexed by constants, which is what keeps them in registers.
#![allow(clippy::needless_range_loop)]

use std::hint::black_box;

use super::lanes::{Kernel, Lanes, Scalar, Wide, dispatch, fence, prefetch};
use super::{Call, share};
use crate::op::stream::{Kind, Stream};
use crate::plan::Tunable;

/// 0: ordinary stores, 1: non-temporal ones (kinds that store).
pub(crate) const STORE: Tunable = Tunable { name: "STORE", values: &[0, 1] };
/// Registers a loop trip, of all pieces.
pub(crate) const UNROLL: Tunable = Tunable { name: "UNROLL", values: &[4, 8, 2, 12] };
/// Pieces of a worker's slice that are walked side by side: one or two (`read`), one or four (`copy`).
pub(crate) const ABREAST: Tunable = Tunable { name: "ABREAST", values: &[1, 2, 4] };
/// Bytes by which each of four pieces is asked for ahead.
const AHEAD: usize = 3072;

const WRITE: u8 = 0;
const COPY: u8 = 1;
const TRIAD: u8 = 2;

/// The kernel.
pub(crate) fn linear(problem: &Stream, call: &Call<'_>) {
    let coef = call.input::<f32>(0);
    let arrays = problem.kind.arrays().0 as usize;
    let array = |number: usize| if number < arrays { call.input::<f32>(2 + number) } else { &[] };
    let (a, b, out) = (array(0), array(1), call.output::<f32>(1));
    let part = problem.part() as usize;
    call.pool.run(&|worker, workers| {
        let parts = share(problem.parts as usize, worker, workers);
        let cut = |p: usize| p.saturating_mul(part).min(problem.elements as usize);
        let range = cut(parts.start)..cut(parts.end);
        let written = if problem.kind == Kind::Read { parts } else { range.clone() };
        let walk = Walk {
            kind: problem.kind,
            streaming: call.tuned.get("STORE") == 1,
            unroll: call.tuned.get("UNROLL"),
            abreast: call.tuned.get("ABREAST"),
            passes: problem.passes,
            scalar: coef[0],
            step: coef[1],
            a: a.get(range.clone()).unwrap_or_default(),
            b: b.get(range.clone()).unwrap_or_default(),
            part,
            // SAFETY: workers own disjoint parts.
            out: unsafe { out.slice(written) },
        };
        dispatch(call.isa, walk);
    });
}

/// One worker's slice of a launch.
struct Walk<'a> {
    kind: Kind,
    streaming: bool,
    unroll: u32,
    abreast: u32,
    passes: u64,
    scalar: f32,
    step: f32,
    /// As long as `out` where the kind has it; for `read`, the elements of all the worker's parts.
    a: &'a [f32],
    b: &'a [f32],
    part: usize,
    out: &'a mut [f32],
}

impl Kernel<f32> for Walk<'_> {
    #[inline(always)]
    unsafe fn run<V: Lanes<Scalar = f32>>(self) {
        // SAFETY: by the caller's promise.
        unsafe {
            match (self.kind, self.unroll, self.abreast) {
                (Kind::Read, 2, 1) => self.reads::<V, 2, 1>(),
                (Kind::Read, 2, _) => self.reads::<V, 1, 2>(),
                (Kind::Read, 4, 1) => self.reads::<V, 4, 1>(),
                (Kind::Read, 4, _) => self.reads::<V, 2, 2>(),
                (Kind::Read, 8, 1) => self.reads::<V, 8, 1>(),
                (Kind::Read, 8, _) => self.reads::<V, 4, 2>(),
                (Kind::Read, 12, 1) => self.reads::<V, 12, 1>(),
                (Kind::Read, 12, _) => self.reads::<V, 6, 2>(),
                (Kind::Copy, 2, 4) => self.stores::<V, 2, 4>(),
                (Kind::Copy, 4, 4) => self.stores::<V, 4, 4>(),
                (Kind::Copy, 8, 4) => self.stores::<V, 8, 4>(),
                (Kind::Copy, 12, 4) => self.stores::<V, 12, 4>(),
                (_, 2, _) => self.stores::<V, 2, 1>(),
                (_, 4, _) => self.stores::<V, 4, 1>(),
                (_, 8, _) => self.stores::<V, 8, 1>(),
                (_, 12, _) => self.stores::<V, 12, 1>(),
                (_, unroll, abreast) => unreachable!("UNROLL={unroll}, ABREAST={abreast} is not in the table"),
            }
        }
    }
}

impl Walk<'_> {
    /// All passes of `read`, T pieces of a part at a time, with U registers each. One part's sums stay in registers, so that a pass over a small one
    /// costs its loads alone; of several, a pass adds each part's sum to half its total so far.
    #[inline(always)]
    unsafe fn reads<V: Lanes<Scalar = f32>, const U: usize, const T: usize>(self) {
        let mut scalar = self.scalar;
        // SAFETY: by the caller's promise.
        unsafe {
            if let [total] = self.out {
                let mut sums = Sums::<V, U, T>::zero();
                for _ in 0..self.passes {
                    // The compiler must not know that passes differ in their scalar alone.
                    sums.pass(self.a, black_box(scalar));
                    scalar += self.step;
                }
                *total = sums.total();
                return;
            }
            for pass in 0..self.passes {
                let s = black_box(scalar);
                for (number, total) in self.out.iter_mut().enumerate() {
                    let cut = |p: usize| p.saturating_mul(self.part).min(self.a.len());
                    let mut sums = Sums::<V, U, T>::zero();
                    sums.pass(&self.a[cut(number)..cut(number + 1)], s);
                    let sum = sums.total();
                    *total = if pass == 0 { sum } else { *total * 0.5 + sum };
                }
                scalar += self.step;
            }
        }
    }

    /// All passes of a kind that stores, T pieces of the slice at a time, with U registers each.
    #[inline(always)]
    unsafe fn stores<V: Lanes<Scalar = f32>, const U: usize, const T: usize>(mut self) {
        let mut scalar = self.scalar;
        for _ in 0..self.passes {
            // The compiler must not know that passes differ in their scalar alone.
            let s = black_box(scalar);
            // SAFETY: by the caller's promise.
            unsafe {
                match (self.kind, self.streaming) {
                    (Kind::Read, _) => unreachable!("`read` stores no array"),
                    (Kind::Write, false) => self.store::<V, U, T, WRITE, false>(s),
                    (Kind::Write, true) => self.store::<V, U, T, WRITE, true>(s),
                    (Kind::Copy, false) => self.store::<V, U, T, COPY, false>(s),
                    (Kind::Copy, true) => self.store::<V, U, T, COPY, true>(s),
                    (Kind::Triad, false) => self.store::<V, U, T, TRIAD, false>(s),
                    (Kind::Triad, true) => self.store::<V, U, T, TRIAD, true>(s),
                }
            }
            scalar += self.step;
        }
        fence();
    }

    /// One pass of a kind that stores.
    #[inline(always)]
    unsafe fn store<V: Lanes<Scalar = f32>, const U: usize, const T: usize, const KIND: u8, const STREAM: bool>(&mut self, s: f32) {
        let n = self.out.len();
        let (out, a, b) = (self.out.as_mut_ptr(), self.a.as_ptr(), self.b.as_ptr());
        // Up to the first whole line of `out`.
        let head = (out.addr().next_multiple_of(64) - out.addr()) / size_of::<f32>();
        let head = head.min(n);
        let piece = piece::<V, U, T>(n - head);
        // SAFETY: `out`, and the arrays that KIND loads, hold n elements; every access below stays under n.
        unsafe {
            scalars::<KIND>(out, a, b, s, 0, head);
            let s_all = V::splat(s);
            for at in (0..piece).step_by(U * V::COUNT) {
                for t in 0..T {
                    let i = head + t * piece + at;
                    let mut value = [s_all; U];
                    for u in 0..U {
                        if T > 1 {
                            prefetch(a.wrapping_add(i + u * V::COUNT + AHEAD / size_of::<f32>()));
                        }
                        value[u] = formula::<V, KIND>(a, b, s_all, i + u * V::COUNT);
                    }
                    for u in 0..U {
                        let to = out.add(i + u * V::COUNT);
                        if STREAM { value[u].stream(to) } else { value[u].store(to) }
                    }
                }
            }
            scalars::<KIND>(out, a, b, s, head + T * piece, n);
        }
    }
}

/// Elements of each of T pieces of so many elements, in whole trips.
#[inline(always)]
fn piece<V: Lanes, const U: usize, const T: usize>(elements: usize) -> usize {
    elements / (T * U * V::COUNT) * U * V::COUNT
}

#[inline(always)]
unsafe fn scalars<const KIND: u8>(out: *mut f32, a: *const f32, b: *const f32, s: f32, from: usize, to: usize) {
    for i in from..to {
        // SAFETY: by the caller's promise that the arrays reach to `to`.
        unsafe { formula::<Wide<f32, 1>, KIND>(a, b, Wide::splat(s), i).store(out.add(i)) };
    }
}

#[inline(always)]
unsafe fn formula<V: Lanes<Scalar = f32>, const KIND: u8>(a: *const f32, b: *const f32, s: V, i: usize) -> V {
    // SAFETY: by the caller's promise that the arrays KIND loads hold `COUNT` elements from i.
    unsafe {
        match KIND {
            WRITE => s,
            COPY => s.mul(V::load(a.add(i))),
            _ => s.mul_add(V::load(a.add(i)), V::load(b.add(i))),
        }
    }
}

/// Sums of one part, in registers.
struct Sums<V, const U: usize, const T: usize> {
    wide: [[V; U]; T],
    tail: f32,
}

impl<V: Lanes<Scalar = f32>, const U: usize, const T: usize> Sums<V, U, T> {
    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: by the caller's promise that the CPU has V.
        Sums { wide: [[unsafe { V::splat(0.0) }; U]; T], tail: 0.0 }
    }

    /// Halves all sums, then adds `Σ s·a`, a multiply-add each: `s · Σ a` would let a pass be computed from the one before.
    #[inline(always)]
    unsafe fn pass(&mut self, a: &[f32], s: f32) {
        // SAFETY: every load stays within `a`; by the caller's promise the CPU has V.
        unsafe {
            let (s_all, half) = (V::splat(s), V::splat(0.5));
            for t in 0..T {
                for u in 0..U {
                    self.wide[t][u] = self.wide[t][u].mul(half);
                }
            }
            self.tail *= 0.5;
            let piece = piece::<V, U, T>(a.len());
            for i in (0..piece).step_by(U * V::COUNT) {
                for t in 0..T {
                    for u in 0..U {
                        let from = a.as_ptr().add(t * piece + i + u * V::COUNT);
                        self.wide[t][u] = s_all.mul_add(V::load(from), self.wide[t][u]);
                    }
                }
            }
            let mut i = T * piece;
            while i + V::COUNT <= a.len() {
                self.wide[0][0] = s_all.mul_add(V::load(a.as_ptr().add(i)), self.wide[0][0]);
                i += V::COUNT;
            }
            for x in &a[i..] {
                self.tail = s.fused(*x, self.tail);
            }
        }
    }

    #[inline(always)]
    unsafe fn total(self) -> f32 {
        // 16 lanes are the widest register.
        let mut lanes = [0f32; 16];
        // SAFETY: by the caller's promise that the CPU has V.
        unsafe {
            let mut all = self.wide[0][0];
            for sum in &self.wide.as_flattened()[1..] {
                all = all.add(*sum);
            }
            all.store(lanes.as_mut_ptr());
        }
        lanes.iter().sum::<f32>() + self.tail
    }
}
