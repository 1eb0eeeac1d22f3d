//! Matrix products on the host: packed panels and a register-tiled micro-kernel, all threads.
//!
//! The operands say how their panels are packed ([`Operands`]), so that one engine serves dense matrices and convolutions. All threads pack the operand
//! on the shorter side, whole or in large pieces: panels of MR rows of A, or of NR columns of B, zero-padded at the edges. Then they take units off a
//! counter. A unit is a slab of the other operand: its worker packs a slice of it, `KC` deep, into its own second-level cache just before it meets
//! every packed panel ([`tile`]), and goes on to the next slice. Nothing of a slab is used by another unit, so packing it for everybody would send
//! it out to the last-level cache and back. Products of few rows or columns whose operands lie in order have better ways ([`gemv`](super::gemv)).
//!
//! The micro-kernel keeps MR × NR sums in registers: 6 × 2 registers of 16, or 8, 10 or 14 × 2 of 32. FLOPs over peak: a step of the first is 12
//! multiply-adds (six cycles) and eight loads (four cycles), so the multiply-add units are the limit of a core that is ours alone. Where another
//! hardware thread shares the core (as on a rented virtual machine), it takes up to half the front end: 20 instructions and the loop's own then
//! need seven cycles, while `fma`, at 12 instructions, needs its six. Bytes over bandwidth: a slice of a slab 128 columns wide meets a panel of A in
//! 128 multiply-adds for each of the panel's elements, below 1 byte a cycle.
//! Predicted: 92 % of `fma`, the rest being packing (an element moved for every n or m multiply-adds) and the tiles' own loads and
//! stores of C (24 of 1536 cycles); 80 % beside a busy neighbour. Measured warm on a busy two-core Zen 3, medians of interleaved pairs:
//! 0.76-0.83 of the `fma` winner at 1024 and 0.78-0.83 at 2048, 0.87 and 0.89 at best; 0.72 and 0.71 before the loop took four steps a
//! trip. On two cores of an AVX-512 Xeon with 2 MiB of second-level cache: 0.85 at 1024 with the deepest slice, of which asking
//! for lines ahead is three points (0.79 with 256 and none).
//! On two shared cores of a Zen 5, medians of interleaved pairs against an engine that packed both operands for everybody: 1.08 at 256, 1.01 at 512
//! and 1.00 to 1.05 at 1024 and 2048 in caches, 1.05 to 1.08 out of memory, 1.07 to 1.17 for 256 rows of 4096 × 4096, 1.05 to 1.3 for convolutions
//! of 7² and 14² pixels; 0.85 to 0.88 of `fma` at 1024 and 2048.

use std::ops::Range;

use super::lanes::{Lanes, Scalar, Stored};
use super::{Call, Isa, Output};
use crate::plan::{Demand, Precision, Setting, Tunable};

mod pieces;
mod tile;

use pieces::{Own, Piece};

/// Depth of a slice in f32; half as many f64.
pub(crate) const KC: Tunable = Tunable { name: "KC", values: &[256, 384, 512, 1024] };

/// Rows of A, or columns of B, packed at a time, and their bytes: what bounds the scratch.
const PIECE: usize = 2048;
const PIECE_BYTES: usize = 32 << 20;
/// Bytes of a slice of a slab: a quarter of a second-level cache of 1 MiB, as what it meets and C need room too.
const SLAB_BYTES: usize = 256 << 10;
/// Slabs a worker, where the long side is long enough: they even out what a noisy machine takes from one of them.
const SLABS: usize = 12;
/// Units a worker at least: where slabs are fewer, the packed piece is cut into parts.
const UNITS: usize = 2;
/// Panels of B packed together: side by side, so that a row of B gives several lines in a row, which may lie pages away from the next.
const ABREAST: usize = 8;

/// Extents of one product: C is m × n, the sums k deep.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extents {
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
}

/// One of the two operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operand {
    A,
    B,
}

impl Operand {
    fn other(self) -> Self {
        if self == Operand::A { Operand::B } else { Operand::A }
    }

    /// What is said of this operand and of the other one, as what is said of A and of B; and back.
    fn turned<T>(self, (own, others): (T, T)) -> (T, T) {
        if self == Operand::A { (own, others) } else { (others, own) }
    }
}

/// How a product is cut: what the kernel does and what its demand is counted from.
struct Blocking {
    /// The operand that all threads pack in pieces: that on the shorter side.
    shared: Operand,
    /// Depth of a slice, and of what is packed of the shared operand at a time: whole slices.
    kc: usize,
    deep: usize,
    /// Micro-kernel.
    mr: usize,
    nr: usize,
    /// Rows or columns of the shared operand packed at a time, those of them that a unit meets, and those of its slab of the other operand:
    /// multiples of the micro-kernel.
    piece: usize,
    part: usize,
    slab: usize,
    /// Rows of A that stay near while all of a slab meets them.
    near: usize,
    /// Whether C is narrower than its sums, which a unit then has in memory of its own until they are whole.
    narrow: bool,
}

impl Blocking {
    fn of(e: &Extents, isa: Isa, precision: Precision, kc: u32, workers: usize) -> Self {
        let shared = if e.m <= e.n { Operand::A } else { Operand::B };
        let width = panel_bytes(precision) as usize;
        let narrow = precision.storage() != precision.sum();
        // KC is given in f32: panels keep their bytes.
        let kc = kc as usize * 4 / width;
        let mr = rows_of_tile(e.m, shared, isa.registers());
        let nr = 2 * isa.register_bytes() / width;
        let ((side, long), (step, long_step)) = (shared.turned((e.m, e.n)), shared.turned((mr, nr)));
        let even = |extent: usize, most: usize, step: usize| extent.div_ceil(extent.div_ceil(most)).next_multiple_of(step);
        // All of the depth at once where sums are a unit's own.
        let most = if narrow { (PIECE_BYTES / width / e.k.next_multiple_of(kc) / step * step).clamp(step, PIECE) } else { PIECE };
        let piece = even(side, most, step);
        let near = SLAB_BYTES / width / kc;
        let slab = even(long, near.min(long.div_ceil(SLABS * workers)).max(2 * long_step), long_step);
        let parts = (UNITS * workers).div_ceil(long.div_ceil(slab)).min(piece.div_ceil(4 * step));
        let deep = if narrow { e.k.next_multiple_of(kc) } else { (PIECE_BYTES / width / piece / kc).max(1) * kc };
        let part = even(piece, piece.div_ceil(parts), step);
        Blocking { shared, kc, deep, mr, nr, piece, part, slab, near: (near / mr).max(1) * mr, narrow }
    }

    /// Blocks of rows and of columns into which units cut C.
    fn blocks(&self, e: &Extents) -> (usize, usize) {
        let (side, long) = self.shared.turned((e.m, e.n));
        let parts = |extent: usize| extent.div_ceil(self.part);
        self.shared.turned((side / self.piece * parts(self.piece) + parts(side % self.piece), long.div_ceil(self.slab)))
    }

    /// Elements of a packed piece, of a slice of a slab, and of a unit's own sums.
    fn scratch(&self, e: &Extents) -> (usize, usize, usize) {
        let sums = if self.narrow { self.part * self.slab } else { 0 };
        (self.piece * self.chunked(self.deep.min(e.k)), self.slab * self.chunked(self.kc.min(e.k)), sums)
    }

    /// A depth in whole chunks of a panel of A, each a register deep.
    fn chunked(&self, depth: usize) -> usize {
        depth.next_multiple_of(self.nr / 2)
    }
}

/// Rows of a tile. With 32 registers the sums of eight rows are enough to hide a multiply-add's latency; those of more load less for each, but
/// take a hundredth longer for ten and two for 14 where no row is empty. A slab of A has many rows: the most are as good there.
fn rows_of_tile(m: usize, shared: Operand, registers: usize) -> usize {
    match (registers, shared) {
        (32, Operand::A) => {
            [(8, 100), (10, 101), (14, 102)].into_iter().min_by_key(|(mr, cost)| m.next_multiple_of(*mr) * cost).map_or(8, |(mr, _)| mr)
        }
        (32, Operand::B) => 14,
        _ => 6,
    }
}

/// Bytes of an element of a panel: operands are widened to the type of their sums when they are packed.
const fn panel_bytes(precision: Precision) -> u64 {
    precision.sum().bytes()
}

/// Work-groups of a product: units of C.
pub(crate) fn units(e: &Extents, s: &Setting<'_>) -> u64 {
    let (down, across) = planned(e, s).blocks(e);
    (down * across) as u64
}

/// Requested: in every depth slice a unit loads its block of A and of B, whole panels, stores its block of C, and loads that too except in
/// the first slice; sums of its own it loads once more, to store C. Lane: the same of every micro-kernel call, which loads a panel of each.
pub(crate) fn demand(e: &Extents, s: &Setting<'_>) -> Demand {
    let b = planned(e, s);
    let (m, n, k) = (e.m as u64, e.n as u64, e.k as u64);
    let bytes = panel_bytes(s.precision);
    let again = if b.narrow { m * n * (bytes + s.precision.storage().bytes()) } else { 0 };
    let c = bytes * m * n * (2 * k.div_ceil(b.kc as u64) - 1) + again;
    let (whole_m, whole_n) = (m.next_multiple_of(b.mr as u64), n.next_multiple_of(b.nr as u64));
    let loads = |(down, across): (usize, usize)| bytes * (whole_m * k * across as u64 + k * whole_n * down as u64);
    let (piece, slab, sums) = b.scratch(e);
    let workspace = bytes * (piece + s.device.compute_units as usize * (slab + sums)) as u64;
    Demand { requested: loads(b.blocks(e)) + c, lane: loads((e.m.div_ceil(b.mr), e.n.div_ceil(b.nr))) + c, workspace }
}

fn planned(e: &Extents, s: &Setting<'_>) -> Blocking {
    let isa = Isa::planned(s);
    Blocking::of(e, isa, s.precision, s.tuned.get("KC"), s.device.compute_units as usize)
}

/// Where a product goes: row i begins at `c[offset + i · stride]`, or its part of every so many columns does.
pub(super) struct Target<'a, E> {
    pub(super) c: Output<'a, E>,
    pub(super) stride: usize,
    pub(super) offset: usize,
    /// Columns of a part, and elements from one part to the next.
    pub(super) parts: (usize, usize),
    /// The product's row and column that lie first: those of a whole one, or of a unit's part of it.
    first: (usize, usize),
}

impl<'a, E> Target<'a, E> {
    /// All columns of a row side by side: element (i, j) is `c[offset + i · stride + j]`.
    pub(super) fn whole(c: Output<'a, E>, stride: usize, offset: usize) -> Self {
        Target::parted(c, stride, offset, (usize::MAX, 0))
    }

    /// So many columns side by side, and so many elements from one such part to the next.
    pub(super) fn parted(c: Output<'a, E>, stride: usize, offset: usize, parts: (usize, usize)) -> Self {
        Target { c, stride, offset, parts, first: (0, 0) }
    }

    /// The same, where it holds sums.
    fn of_sums<S: Scalar>(&self) -> Option<Target<'a, S>>
    where
        E: Stored<S>,
    {
        let Target { stride, offset, parts, first, .. } = *self;
        Some(Target { c: self.c.scalars()?, stride, offset, parts, first })
    }

    /// Where a row's element of this column lies, and how many from it on lie side by side.
    fn at(&self, row: usize, column: usize) -> (usize, usize) {
        let ((width, apart), column) = (self.parts, column - self.first.1);
        let start = self.offset + column / width * apart + column % width;
        (start + (row - self.first.0) * self.stride, width - column % width)
    }
}

/// Two matrices, by how their panels are packed. Panels lie in scratch that nobody else touches meanwhile.
pub(super) trait Operands<S: Scalar>: Sync {
    /// Whether a scalar of a panel is a pair of bf16, neighbours along the depth: then depths are counted in pairs.
    const PAIRS: bool = false;

    /// One panel: MR rows of A from `rows.start` on, in chunks of `V::COUNT` columns: a chunk holds its columns of the first row, then
    /// those of the second, so that packing moves registers and transposes nothing. Rows past the end repeat the last one; their sums are never
    /// stored. What the last chunk has beyond `depth` is never read.
    ///
    /// # Safety
    /// `to` has room for MR · depth elements in whole chunks, and the CPU has the instruction set of the code around it.
    unsafe fn pack_a<V: Lanes<Scalar = S>, const MR: usize>(&self, rows: Range<usize>, depth: Range<usize>, to: *mut S);

    /// Neighbouring panels of `2 · V::COUNT` columns: for each depth the elements of row `depth` of B, zeros past the end.
    ///
    /// # Safety
    /// As above, for whole panels.
    unsafe fn pack_b<V: Lanes<Scalar = S>>(&self, columns: Range<usize>, depth: Range<usize>, to: *mut S);
}

/// C = A · B on all threads of the call's pool. Whether there was memory to pack into; if not, nothing was done.
pub(super) fn multiply<S: Scalar, E: Stored<S>, O: Operands<S>>(call: &Call<'_>, e: &Extents, operands: &O, to: &Target<'_, E>) -> bool {
    let blocking = Blocking::of(e, call.isa, call.precision, call.tuned.get("KC"), call.pool.workers());
    let (piece, slab, sums) = blocking.scratch(e);
    let Some(scratch) = call.pool.scratch((piece + call.pool.workers() * (slab + sums)) * size_of::<S>()) else { return false };
    let packed = Panels(scratch.start().cast::<S>());
    // SAFETY: within the scratch, behind the piece.
    let own = Own { start: Panels(unsafe { packed.get().add(piece) }), slab, sums };
    let (side, long) = blocking.shared.turned((e.m, e.n));
    for first in (0..side).step_by(blocking.piece) {
        for deep in (0..e.k).step_by(blocking.deep) {
            let (side, depth) = (first..(first + blocking.piece).min(side), deep..(deep + blocking.deep).min(e.k));
            let piece = Piece { operands, to, blocking: &blocking, side, depth, packed: &packed };
            piece.pack(call);
            piece.multiply(call, long, &own);
        }
    }
    true
}

/// Packed panels, written in disjoint parts by several threads, then only read.
pub(super) struct Panels<S>(pub(super) *mut S);
// SAFETY: an address; who dereferences it keeps to disjoint panels.
unsafe impl<S> Sync for Panels<S> {}

impl<S> Panels<S> {
    /// Their address: a method, so that closures share all of it.
    pub(super) fn get(&self) -> *mut S {
        self.0
    }
}
