//! `matmul/packed` on the host: dense operands of the engine in [`gemm`](super::gemm), or of [`gemv`](super::gemv) where they are few.

use std::ops::Range;

use half::{bf16, f16};

use super::gemm::{self, Extents, Operands, Target, multiply};
use super::gemv::Form;
use super::lanes::{Lanes, Scalar, Stored, prefetch};
use super::{Call, Isa, naive_in_any};
use crate::op::matmul::Matmul;
use crate::plan::{Demand, Precision, Setting};

/// Rows of B by which packing looks ahead: fewer than the ways of a first-level cache, into one set of which they may all fall.
const AHEAD: usize = 6;

impl Matmul {
    /// The product that it is.
    pub(crate) fn extents(&self) -> Extents {
        Extents { m: self.m as usize, n: self.n as usize, k: self.k as usize }
    }
}

/// How a product is done: straight from where the operands lie, or by the engine, on scalars or on pairs of bf16.
struct Way {
    form: Option<Form>,
    /// Whether a scalar of a panel holds a pair of bf16.
    pairs: bool,
    /// What the engine multiplies: the product, its depth counted in what a scalar of a panel holds.
    engine: Extents,
}

impl Way {
    fn of(problem: &Matmul, isa: Isa, precision: Precision) -> Self {
        let e = problem.extents();
        let pairs = isa.multiplies_pairs(precision);
        Way { form: Form::of(&e, pairs), pairs, engine: if pairs { Extents { k: e.k.div_ceil(2), ..e } } else { e } }
    }

    fn planned(problem: &Matmul, s: &Setting<'_>) -> Self {
        Way::of(problem, Isa::planned(s), s.precision)
    }
}

/// Work-groups.
pub(crate) fn groups(problem: &Matmul, s: &Setting<'_>) -> u64 {
    let way = Way::planned(problem, s);
    way.form.map_or_else(|| gemm::units(&way.engine, s), |form| form.groups(&problem.extents(), s))
}

/// Requested and lane bytes.
pub(crate) fn demand(problem: &Matmul, s: &Setting<'_>) -> Demand {
    let way = Way::planned(problem, s);
    way.form.map_or_else(|| gemm::demand(&way.engine, s), |form| form.demand(&problem.extents(), s))
}

/// The kernel.
pub(crate) fn packed(problem: &Matmul, call: &Call<'_>) {
    match call.precision {
        Precision::F64 => all::<f64, f64>(problem, call),
        Precision::F16 => all::<f32, f16>(problem, call),
        Precision::BF16 => all::<f32, bf16>(problem, call),
        _ => all::<f32, f32>(problem, call),
    }
}

fn all<S: Scalar, E: Stored<S>>(problem: &Matmul, call: &Call<'_>) {
    let (e, way) = (problem.extents(), Way::of(problem, call.isa, call.precision));
    let (a, b, c) = (call.input::<E>(0), call.input::<E>(1), call.output::<E>(2));
    let done = match way.form {
        Some(form) => form.multiply(call, &e, a, b, &c),
        None if way.pairs => {
            let operands = Paired { a: bytemuck::cast_slice(a), b: bytemuck::cast_slice(b), n: e.n, k: e.k };
            multiply(call, &way.engine, &operands, &Target::whole(call.output::<bf16>(2), e.n, 0))
        }
        None => multiply(call, &e, &Dense { a, b, n: e.n, k: e.k }, &Target::whole(c, e.n, 0)),
    };
    if !done {
        // Without memory to pack into, the definition still gives the answer.
        naive_in_any(problem, call);
    }
}

/// Row-major matrices.
pub(super) struct Dense<'a, E> {
    pub(super) a: &'a [E], // [m, k]
    pub(super) b: &'a [E], // [k, n]
    pub(super) n: usize,
    pub(super) k: usize,
}

impl<S: Scalar, E: Stored<S>> Operands<S> for Dense<'_, E> {
    #[inline(always)]
    unsafe fn pack_a<V: Lanes<Scalar = S>, const MR: usize>(&self, lines: Range<usize>, depth: Range<usize>, to: *mut S) {
        // SAFETY: by the caller's promise.
        unsafe { pack_rows::<V, E, MR>(self.a, self.k, lines, depth, to) }
    }

    #[inline(always)]
    unsafe fn pack_b<V: Lanes<Scalar = S>>(&self, columns: Range<usize>, depth: Range<usize>, to: *mut S) {
        let nr = 2 * V::COUNT;
        // SAFETY: the panels have room by the caller's promise; a whole row of them lies within B.
        unsafe {
            for p in 0..depth.len() {
                let from = &self.b[(depth.start + p) * self.n..][columns.clone()];
                for (panel, from) in from.chunks(nr).enumerate() {
                    let to = to.add((panel * depth.len() + p) * nr);
                    // Rows are too far apart for the hardware to see the pattern.
                    for line in (0..nr).step_by(64 / size_of::<E>()) {
                        prefetch(from.as_ptr().wrapping_add(AHEAD * self.n + line));
                    }
                    if from.len() == nr {
                        E::load::<V>(from.as_ptr()).store(to);
                        E::load::<V>(from.as_ptr().add(V::COUNT)).store(to.add(V::COUNT));
                    } else {
                        let to = std::slice::from_raw_parts_mut(to, nr);
                        to.iter_mut().zip(from).for_each(|(to, from)| *to = from.wide());
                        to[from.len()..].fill(S::zeroed());
                    }
                }
            }
        }
    }
}

/// [`Operands::pack_a`] of a row-major matrix of `k` columns.
///
/// # Safety
/// As there.
#[inline(always)]
pub(super) unsafe fn pack_rows<V: Lanes, E: Stored<V::Scalar>, const MR: usize>(
    a: &[E],
    k: usize,
    lines: Range<usize>,
    depth: Range<usize>,
    to: *mut V::Scalar,
) {
    for row in 0..MR {
        let from = &a[(lines.start + row).min(lines.end - 1) * k..][depth.clone()];
        // SAFETY: the panel has room by the caller's promise.
        unsafe {
            let to = to.add(row * V::COUNT);
            let chunks = from.chunks_exact(V::COUNT);
            let rest = chunks.remainder();
            for (chunk, from) in chunks.enumerate() {
                // The next row: rows are too short for the hardware to find their pattern in time.
                prefetch(from.as_ptr().wrapping_add(k));
                E::load::<V>(from.as_ptr()).store(to.add(chunk * MR * V::COUNT));
            }
            let to = std::slice::from_raw_parts_mut(to.add((from.len() - rest.len()) * MR), rest.len());
            to.iter_mut().zip(rest).for_each(|(to, from)| *to = from.wide());
        }
    }
}

/// Row-major matrices of bf16, packed in pairs along the depth: the lower half of a scalar's bits is the earlier one. Past an odd end stands zero.
struct Paired<'a> {
    a: &'a [u16], // [m, k]
    b: &'a [u16], // [k, n]
    n: usize,
    k: usize,
}

impl Operands<f32> for Paired<'_> {
    const PAIRS: bool = true;

    #[inline(always)]
    unsafe fn pack_a<V: Lanes<Scalar = f32>, const MR: usize>(&self, lines: Range<usize>, depth: Range<usize>, to: *mut f32) {
        for row in 0..MR {
            let from = &self.a[(lines.start + row).min(lines.end - 1) * self.k..][2 * depth.start..self.k.min(2 * depth.end)];
            let (pairs, last) = from.as_chunks::<2>();
            let (chunks, rest) = pairs.as_chunks::<16>();
            // SAFETY: the panel has room by the caller's promise, and a register of pairs has 16.
            unsafe {
                let to = to.cast::<u32>().add(row * V::COUNT);
                for (chunk, from) in chunks.iter().enumerate() {
                    prefetch(from.as_ptr().cast::<u16>().wrapping_add(self.k));
                    to.add(chunk * MR * V::COUNT).cast::<[[u16; 2]; 16]>().write_unaligned(*from);
                }
                let rest = rest.iter().copied().chain(last.iter().map(|last| [*last, 0]));
                for (at, pair) in rest.enumerate() {
                    to.add(chunks.len() * MR * V::COUNT + at).cast::<[u16; 2]>().write_unaligned(pair);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn pack_b<V: Lanes<Scalar = f32>>(&self, columns: Range<usize>, depth: Range<usize>, to: *mut f32) {
        let nr = 2 * V::COUNT;
        let zeros = [0; 2 * 16];
        for p in 0..depth.len() {
            let row = 2 * (depth.start + p);
            let of = |row: usize| &self.b[row * self.n..][columns.clone()];
            let (low, high) = (of(row), (row + 1 < self.k).then(|| of(row + 1)));
            for (panel, low) in low.chunks(nr).enumerate() {
                let high = high.map_or(&zeros[..low.len()], |high| &high[panel * nr..][..low.len()]);
                for line in [low, high] {
                    prefetch(line.as_ptr().wrapping_add(2 * AHEAD * self.n));
                }
                // SAFETY: the panels have room by the caller's promise.
                let to = unsafe { std::slice::from_raw_parts_mut(to.cast::<u32>().add((panel * depth.len() + p) * nr), nr) };
                if let (Ok(low), Ok(high)) = (<&[u16; 32]>::try_from(low), <&[u16; 32]>::try_from(high)) {
                    (0..32).for_each(|at| to[at] = u32::from(low[at]) | u32::from(high[at]) << 16);
                } else {
                    to.fill(0);
                    to.iter_mut().zip(low.iter().zip(high)).for_each(|(to, (low, high))| *to = u32::from(*low) | u32::from(*high) << 16);
                }
            }
        }
    }
}
