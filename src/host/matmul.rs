//! `matmul/packed` on the host: dense operands of the engine in [`gemm`](super::gemm), or of [`gemv`](super::gemv) where they are few.

use std::ops::Range;

use super::gemm::{self, Extents, Operands, Target, multiply};
use super::gemv::Form;
use super::lanes::{Lanes, Scalar, prefetch};
use super::{Call, naive};
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

/// Work-groups.
pub(crate) fn groups(problem: &Matmul, s: &Setting<'_>) -> u64 {
    let e = problem.extents();
    Form::of(&e).map_or_else(|| gemm::units(&e, s), |form| form.groups(&e, s))
}

/// Requested and lane bytes.
pub(crate) fn demand(problem: &Matmul, s: &Setting<'_>) -> Demand {
    let e = problem.extents();
    Form::of(&e).map_or_else(|| gemm::demand(&e, s), |form| form.demand(&e, s))
}

/// The kernel.
pub(crate) fn packed(problem: &Matmul, call: &Call<'_>) {
    match call.precision {
        Precision::F64 => all::<f64>(problem, call),
        _ => all::<f32>(problem, call),
    }
}

fn all<S: Scalar>(problem: &Matmul, call: &Call<'_>) {
    let e = problem.extents();
    let dense = Dense { a: call.input::<S>(0), b: call.input::<S>(1), n: e.n, k: e.k };
    let done = match Form::of(&e) {
        Some(form) => form.multiply(call, &e, dense.a, dense.b, &call.output(2)),
        None => multiply(call, &e, &dense, &Target::whole(call.output(2), e.n, 0)),
    };
    if !done {
        // Without memory to pack into, the definition still gives the answer.
        naive(problem, call);
    }
}

/// Row-major matrices.
pub(super) struct Dense<'a, S> {
    pub(super) a: &'a [S], // [m, k]
    pub(super) b: &'a [S], // [k, n]
    pub(super) n: usize,
    pub(super) k: usize,
}

impl<S: Scalar> Operands<S> for Dense<'_, S> {
    #[inline(always)]
    unsafe fn pack_a<V: Lanes<Scalar = S>, const MR: usize>(&self, lines: Range<usize>, depth: Range<usize>, to: *mut S) {
        // SAFETY: by the caller's promise.
        unsafe { pack_rows::<V, MR>(self.a, self.k, lines, depth, to) }
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
                    for line in (0..nr).step_by(64 / size_of::<S>()) {
                        prefetch(from.as_ptr().wrapping_add(AHEAD * self.n + line));
                    }
                    if from.len() == nr {
                        V::load(from.as_ptr()).store(to);
                        V::load(from.as_ptr().add(V::COUNT)).store(to.add(V::COUNT));
                    } else {
                        let to = std::slice::from_raw_parts_mut(to, nr);
                        to[..from.len()].copy_from_slice(from);
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
pub(super) unsafe fn pack_rows<V: Lanes, const MR: usize>(
    a: &[V::Scalar],
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
                V::load(from.as_ptr()).store(to.add(chunk * MR * V::COUNT));
            }
            let to = to.add((from.len() - rest.len()) * MR);
            to.copy_from_nonoverlapping(rest.as_ptr(), rest.len());
        }
    }
}
