//! `conv2d/implicit` on the host: a convolution as the matrix product of [`gemm`](super::gemm), its left matrix gathered while packing.
//!
//! Row i of A is output pixel i, its columns are (r, s, c): a stretch of input channels for every tap, or zeros where the tap lies
//! outside the image. B is the filters, transposed from KRSC while packing, a square of registers at a time. Nothing but the packed panels
//! is ever stored, which `workspace_bytes` tells. 1×1 with stride 1 is the dense product itself. Narrow groups have forms of their own ([`grouped`],
//! [`uneven`]).
//!
//! FLOPs over peak and bytes over bandwidth are those of a matmul of equal m, n and k, whose packing loads each element of A once:
//! here it stays in a first- or second-level cache for kh · kw uses. Predicted: the matmul's own time, and less where that waits for A.
//! Measured warm on a two-core Zen 3 at n=4, medians of 15 interleaved pairs: 1.19 of the matmul's rate for 56²×64→64, 1.05 for
//! 28²×128→128, 1.00 for 14²×256→256. Where pixels are few, packing filters is what counts: squares of registers in place of elements are 2.0 times as
//! fast for 7²×512→512 out of memory and 1.4 out of caches, 1.2 for 14²×256→256 (two shared cores of a Zen 5, medians of interleaved samples).

use std::ops::Range;

use super::gemm::{self, Operands, Target, multiply};
use super::lanes::{Lanes, Scalar, prefetch, transpose};
use super::{Call, naive};
use crate::op::conv2d::Conv2d;
use crate::plan::{Demand, Precision, Setting};

mod grouped;
mod uneven;

use grouped::Grouped;
use uneven::Uneven;

/// Elements by which filters are asked for ahead while they are transposed: lines of many filters, so a few of each are many.
const AHEAD: usize = 64;

/// Work-groups.
pub(crate) fn groups(problem: &Conv2d, s: &Setting<'_>) -> u64 {
    let grouped = Grouped::planned(problem, s).map(|form| form.units());
    let narrow = grouped.or_else(|| Uneven::planned(problem, s).map(|form| form.units()));
    narrow.map_or_else(|| problem.groups * gemm::units(&problem.extents(), s), |units| units as u64)
}

/// Requested and lane bytes.
pub(crate) fn demand(problem: &Conv2d, s: &Setting<'_>) -> Demand {
    if let Some(form) = Grouped::planned(problem, s) {
        return form.demand(s);
    }
    if let Some(form) = Uneven::planned(problem, s) {
        return form.demand(s);
    }
    let one = gemm::demand(&problem.extents(), s);
    Demand { requested: problem.groups * one.requested, lane: problem.groups * one.lane, workspace: one.workspace }
}

/// The kernel.
pub(crate) fn implicit(problem: &Conv2d, call: &Call<'_>) {
    match call.precision {
        Precision::F64 => all::<f64>(problem, call),
        _ => all::<f32>(problem, call),
    }
}

fn all<S: Scalar>(problem: &Conv2d, call: &Call<'_>) {
    let e = problem.extents();
    let grouped = Grouped::of(problem, call.isa, call.precision);
    let done = match (grouped, Uneven::of(problem, call.isa, call.precision, call.pool.workers())) {
        (Some(form), _) => form.run::<S>(call),
        (None, Some(form)) => form.run::<S>(call),
        (None, None) => (0..problem.groups as usize).all(|group| {
            let gathered = Gathered::of(problem, group, call.input::<S>(0), call.input::<S>(1));
            multiply(call, &e, &gathered, &Target::whole(call.output::<S>(2), problem.c_out as usize, group * e.n))
        }),
    };
    if !done {
        // Without memory to pack into, the definition still gives the answer.
        naive(problem, call);
    }
}

/// One group of a convolution as two matrices.
struct Gathered<'a, S> {
    x: &'a [S], // [n, h, w, c_in], from the group's first channel on
    f: &'a [S], // [c_out / groups, kh, kw, c], the group's filters
    problem: &'a Conv2d,
    /// Output rows and columns.
    out: (usize, usize),
    /// Input channels of the group.
    c: usize,
    /// Depth of the sums.
    k: usize,
}

impl<'a, S: Scalar> Gathered<'a, S> {
    fn of(problem: &'a Conv2d, group: usize, x: &'a [S], f: &'a [S]) -> Self {
        let (e, (oh, ow), c) = (problem.extents(), problem.out(), problem.channels().0 as usize);
        Gathered { x: &x[group * c..], f: &f[group * e.n * e.k..], problem, out: (oh as usize, ow as usize), c, k: e.k }
    }

    /// Padded input coordinates of an output pixel's first tap, and its image.
    fn pixel(&self, row: usize) -> [usize; 3] {
        let ((oh, ow), stride) = (self.out, self.problem.stride as usize);
        [row / (oh * ow), row / ow % oh * stride, row % ow * stride]
    }

    /// The channels under a tap of a pixel, from channel `from` on.
    fn under(&self, [image, top, left]: [usize; 3], (r, s): (usize, usize), from: usize) -> Option<&'a [S]> {
        let p = self.problem;
        let (h, w) = (top + r * p.dilation as usize, left + s * p.dilation as usize);
        let (h, w) = (h.checked_sub(p.padding as usize)?, w.checked_sub(p.padding as usize)?);
        let inside = h < p.h as usize && w < p.w as usize;
        let start = ((image * p.h as usize + h) * p.w as usize + w) * p.c_in as usize;
        inside.then(|| &self.x[start + from..start + self.c])
    }
}

impl<S: Scalar> Operands<S> for Gathered<'_, S> {
    #[inline(always)]
    unsafe fn pack_a<V: Lanes<Scalar = S>, const MR: usize>(&self, rows: Range<usize>, depth: Range<usize>, to: *mut S) {
        for row in 0..MR {
            let pixel = self.pixel((rows.start + row).min(rows.end - 1));
            let mut p = depth.start;
            while p < depth.end {
                let (tap, from) = (p / self.c, p % self.c);
                let tap = (tap / self.problem.kw as usize, tap % self.problem.kw as usize);
                let run = (self.c - from).min(depth.end - p);
                let under = self.under(pixel, tap, from).map(|channels| &channels[..run]);
                // SAFETY: the panel has room by the caller's promise.
                unsafe { gather::<V, MR>(under, run, p - depth.start, to.add(row * V::COUNT)) };
                p += run;
            }
        }
    }

    #[inline(always)]
    unsafe fn pack_b<V: Lanes<Scalar = S>>(&self, columns: Range<usize>, depth: Range<usize>, to: *mut S) {
        let (nr, whole) = (2 * V::COUNT, columns.len().next_multiple_of(2 * V::COUNT));
        for first in (0..whole).step_by(V::COUNT) {
            // Half a panel: filters that exist, and zeros.
            let filters = &self.f[((columns.start + first) * self.k).min(columns.end * self.k)..columns.end * self.k];
            // SAFETY: the panels have room by the caller's promise.
            unsafe { turn::<V>(filters, self.k, depth.clone(), to.add(first / nr * nr * depth.len() + first % nr), nr) };
        }
    }
}

/// Columns `depth` of the first COUNT rows of a matrix of `k` columns to columns of one whose rows lie `step` apart; zeros for rows past the end.
///
/// # Safety
/// `to` has room for them, and the CPU has V.
#[inline(always)]
unsafe fn turn<V: Lanes>(from: &[V::Scalar], k: usize, depth: Range<usize>, to: *mut V::Scalar, step: usize) {
    let rows = (from.len() / k).min(V::COUNT);
    let whole = if rows == V::COUNT { depth.len() / V::COUNT * V::COUNT } else { 0 };
    // SAFETY: the rows are as long as the caller says, and by its promise.
    unsafe {
        for p in (0..whole).step_by(V::COUNT) {
            let from = from.as_ptr().add(depth.start + p);
            (0..V::COUNT).for_each(|row| prefetch(from.wrapping_add(row * k + AHEAD)));
            transpose::<V>(from, k, to.add(p * step), step);
        }
        for (p, row) in (whole..depth.len()).flat_map(|p| (0..V::COUNT).map(move |row| (p, row))) {
            let element = if row < rows { from[row * k + depth.start + p] } else { bytemuck::Zeroable::zeroed() };
            to.add(p * step + row).write(element);
        }
    }
}

/// `run` elements, or zeros, to a row of a panel of A from column `at` on.
///
/// # Safety
/// The row has room for them, and the CPU has V.
#[inline(always)]
unsafe fn gather<V: Lanes, const MR: usize>(from: Option<&[V::Scalar]>, run: usize, at: usize, to: *mut V::Scalar) {
    let zero = bytemuck::Zeroable::zeroed();
    let mut q = 0;
    while q < run {
        let (chunk, column) = ((at + q) / V::COUNT, (at + q) % V::COUNT);
        let count = (V::COUNT - column).min(run - q);
        // SAFETY: by the caller's promise; `count` elements stay within the run and within the chunk.
        unsafe {
            let to = to.add(chunk * MR * V::COUNT + column);
            match from {
                Some(from) if count == V::COUNT => V::load(from.as_ptr().add(q)).store(to),
                Some(from) => to.copy_from_nonoverlapping(from.as_ptr().add(q), count),
                None if count == V::COUNT => V::splat(zero).store(to),
                None => (0..count).for_each(|i| to.add(i).write(zero)),
            }
        }
        q += count;
    }
}
