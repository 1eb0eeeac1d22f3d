//! Matrix products on the host: packed panels and a register-tiled micro-kernel, all threads.
//!
//! The operands say how their panels are packed ([`Operands`]), so that one engine serves dense matrices and convolutions. For each depth
//! slice of `KC`: all threads pack the slice of A into panels of MR rows and that of B into panels of NR columns
//! (zero-padded at the edges), then take units off a counter. A unit is a block of C: up to 168 rows (its A block fits half a
//! second-level cache) by a column block; inside it a B panel (KC × NR, half a first-level cache) meets every A panel. The
//! micro-kernel keeps MR × NR sums in registers: 6 × 2 registers of 16, or 14 × 2 or 10 × 2 of 32 ([`tile`]). Products that are short on one side
//! pack the other one where it is used ([`slabs`]).
//!
//! FLOPs over peak: a step of the micro-kernel is 12 multiply-adds (six cycles) and eight loads (four cycles), so the multiply-add units
//! are the limit of a core that is ours alone. Where another hardware thread shares the core (as on a rented virtual machine), it takes
//! up to half the front end: 20 instructions and the loop's own then need seven cycles, while `fma`, at 12 instructions, needs its six.
//! Bytes over bandwidth: per unit KC·(168 + NB) elements for 168·NB·KC multiply-adds, below 1 byte a cycle.
//! Predicted: 92 % of `fma`, the rest being packing (an element moved for every n or m multiply-adds) and the tiles' own loads and
//! stores of C (24 of 1536 cycles); 80 % beside a busy neighbour. Measured warm on a busy two-core Zen 3, medians of interleaved pairs:
//! 0.76-0.83 of the `fma` winner at 1024 and 0.78-0.83 at 2048, 0.87 and 0.89 at best; 0.72 and 0.71 before the loop took four steps a
//! trip. Packing takes 3-6 %; its panels come off a counter too, because a worker that loses its core would hold the others up.
//! On two cores of an AVX-512 Xeon with 2 MiB of second-level cache: 0.85 at 1024 with the deepest slice, of which asking
//! for lines ahead is three points (0.79 with 256 and none): packing takes 6 to 8 %, the micro-kernel runs at 95 % of `fma`.
//! On two shared cores of a Zen 5: 0.87 at 1024 and 2048 (0.82 and 0.81 in the same samples while packing A transposed it element by element, which
//! took 7 % of the time; [`Operands::pack_a`] moves registers now).

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::lanes::{Kernel, Lanes, Scalar, dispatch};
use super::{Call, Isa, Output, tally};
use crate::plan::{Demand, Precision, Setting, Tunable};

mod slabs;
mod tile;

use slabs::{SHORT, Short};

/// Depth of a slice in f32; half as many f64.
pub(crate) const KC: Tunable = Tunable { name: "KC", values: &[256, 384, 512, 1024] };

/// Rows of a unit at most: a multiple of both micro-kernels' rows.
const BLOCK_ROWS: usize = 168;
/// Columns of a unit at most, and at least where there are enough units anyway.
const BLOCK_COLUMNS: usize = 256;
/// Rows of A and columns of B packed at a time, which bounds the scratch to 2 · 3072 · KC elements.
const PACKED: usize = 3072;

/// Bytes of a slab: half a second-level cache, as the other operand's slice needs room too.
const SLAB: usize = 256 << 10;
/// Depth of a slice of few rows at most, in f32.
const SHALLOW: u32 = 256;

/// Panels packed together: those of B side by side, so that a row of B gives several lines in a row, which may lie pages away from the next.
const ABREAST: usize = 8;

/// Extents of one product: C is m × n, the sums k deep.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extents {
    pub(crate) m: usize,
    pub(crate) n: usize,
    pub(crate) k: usize,
}

/// How a product is cut into units: what the kernel does and what its demand is counted from.
struct Blocking {
    /// Depth slice.
    kc: usize,
    /// Micro-kernel.
    mr: usize,
    nr: usize,
    /// Rows and columns of a unit, multiples of the micro-kernel.
    rows: usize,
    columns: usize,
    /// The side that is short, if one is.
    short: Option<Short>,
}

impl Blocking {
    fn of(e: &Extents, isa: Isa, precision: Precision, kc: u32, workers: usize) -> Self {
        let short = Short::of(e);
        // A row of a slab of B must not become too short a stretch of memory.
        let most = if short == Some(Short::Rows) && e.m <= SHORT / 2 { SHALLOW } else { u32::MAX };
        // KC is given in f32: panels keep their bytes.
        let kc = kc.min(most) as usize * 4 / precision.storage().bytes() as usize;
        let mr = match isa.registers() {
            // Sums of ten rows are enough to hide a multiply-add's latency too: of both the tile that leaves fewer rows empty.
            32 if short == Some(Short::Rows) && e.m.next_multiple_of(10) < e.m.next_multiple_of(14) => 10,
            32 => 14,
            _ => 6,
        };
        let nr = 2 * isa.register_bytes() / precision.storage().bytes() as usize;
        let even = |extent: usize, most: usize, step: usize| extent.div_ceil(extent.div_ceil(most)).next_multiple_of(step);
        // Twelve units a worker even out what a noisy machine takes from one of them.
        let units = 12 * workers;
        let slab = |extent: usize, step: usize| even(extent, (SLAB / 4 / kc).min(extent.div_ceil(units)).max(2 * step), step);
        let (rows, columns) = match short {
            Some(Short::Rows) => (e.m.next_multiple_of(mr), slab(e.n, nr)),
            Some(Short::Columns) => (slab(e.m, mr), e.n.next_multiple_of(nr)),
            None => {
                let (rows, mut columns) = (even(e.m, BLOCK_ROWS, mr), even(e.n, BLOCK_COLUMNS, nr));
                while e.m.div_ceil(rows) * e.n.div_ceil(columns) < units && columns > 2 * nr {
                    columns = (columns / 2).next_multiple_of(nr);
                }
                (rows, columns)
            }
        };
        Blocking { kc, mr, nr, rows, columns, short }
    }

    /// Rows of A and columns of B packed at a time: whole units, so that no unit crosses a packed piece.
    fn pieces(&self, e: &Extents) -> (usize, usize) {
        let piece = |extent: usize, block: usize| (PACKED / block).max(1).saturating_mul(block).min(extent.next_multiple_of(block));
        (piece(e.m, self.rows), piece(e.n, self.columns))
    }

    /// Depth of the deepest slice, in whole chunks.
    fn depth(&self, e: &Extents) -> usize {
        self.chunked(self.kc.min(e.k))
    }

    /// A depth in whole chunks of a panel of A, each a register deep.
    fn chunked(&self, depth: usize) -> usize {
        depth.next_multiple_of(self.nr / 2)
    }
}

/// Work-groups of a product: units of C.
pub(crate) fn units(e: &Extents, s: &Setting<'_>) -> u64 {
    let b = planned(e, s);
    (e.m.div_ceil(b.rows) * e.n.div_ceil(b.columns)) as u64
}

/// Requested: in every depth slice a unit loads its block of A and of B, whole panels, stores its block of C, and loads that too except in
/// the first slice. Lane: the same of every micro-kernel call, which loads a panel of each.
pub(crate) fn demand(e: &Extents, s: &Setting<'_>) -> Demand {
    let b = planned(e, s);
    let (m, n, k) = (e.m as u64, e.n as u64, e.k as u64);
    let c = m * n * (2 * k.div_ceil(b.kc as u64) - 1);
    let bytes = s.precision.storage().bytes();
    let (whole_m, whole_n) = (m.next_multiple_of(b.mr as u64), n.next_multiple_of(b.nr as u64));
    let loads = |rows: usize, columns: usize| whole_m * k * n.div_ceil(columns as u64) + k * whole_n * m.div_ceil(rows as u64);
    let (rows, columns) = b.pieces(e);
    let elements = match b.short {
        Some(short) => short.whole(e, &b) + s.device.compute_units as usize * short.slab(e, &b),
        None => (rows + columns) * b.depth(e),
    };
    let workspace = bytes * elements as u64;
    Demand { requested: bytes * (loads(b.rows, b.columns) + c), lane: bytes * (loads(b.mr, b.nr) + c), workspace }
}

fn planned(e: &Extents, s: &Setting<'_>) -> Blocking {
    let isa = Isa::planned(s);
    Blocking::of(e, isa, s.precision, s.tuned.get("KC"), s.device.compute_units as usize)
}

/// Where a product goes: row i begins at `c[offset + i · stride]`, or its part of every so many columns does.
pub(super) struct Target<'a, S> {
    pub(super) c: Output<'a, S>,
    pub(super) stride: usize,
    pub(super) offset: usize,
    /// Columns of a part, and elements from one part to the next.
    pub(super) parts: (usize, usize),
}

impl<'a, S> Target<'a, S> {
    /// All columns of a row side by side: element (i, j) is `c[offset + i · stride + j]`.
    pub(super) fn whole(c: Output<'a, S>, stride: usize, offset: usize) -> Self {
        Target { c, stride, offset, parts: (usize::MAX, 0) }
    }

    /// Where a column of row 0 lies, and how many from it on lie side by side.
    fn column(&self, column: usize) -> (usize, usize) {
        let (width, apart) = self.parts;
        (self.offset + column / width * apart + column % width, width - column % width)
    }
}

/// Two matrices, by how their panels are packed. Panels lie in scratch that nobody else touches meanwhile.
pub(super) trait Operands<S: Scalar>: Sync {
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
pub(super) fn multiply<S: Scalar, O: Operands<S>>(call: &Call<'_>, e: &Extents, operands: &O, to: &Target<'_, S>) -> bool {
    let b = Blocking::of(e, call.isa, call.precision, call.tuned.get("KC"), call.pool.workers());
    if let Some(short) = b.short {
        return slabs::multiply(call, e, operands, to, &b, short);
    }
    let (depth, (rows, columns)) = (b.depth(e), b.pieces(e));
    let Some(scratch) = call.pool.scratch((rows + columns) * depth * size_of::<S>()) else { return false };
    let a_panels: *mut S = scratch.start().cast();
    for j in (0..e.n).step_by(columns) {
        for p in (0..e.k).step_by(b.kc) {
            for i in (0..e.m).step_by(rows) {
                let slice = Slice {
                    operands,
                    to,
                    rows: i..(i + rows).min(e.m),
                    columns: j..(j + columns).min(e.n),
                    depth: p..(p + b.kc).min(e.k),
                    a_panels: Panels(a_panels),
                    // SAFETY: within the scratch, whose A part holds rows · depth elements.
                    b_panels: Panels(unsafe { a_panels.add(rows * depth) }),
                    blocking: &b,
                };
                slice.run(call, i == 0);
            }
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

/// One depth slice of one piece of C.
struct Slice<'a, S, O> {
    operands: &'a O,
    to: &'a Target<'a, S>,
    rows: Range<usize>,
    columns: Range<usize>,
    depth: Range<usize>,
    a_panels: Panels<S>,
    b_panels: Panels<S>,
    blocking: &'a Blocking,
}

impl<S: Scalar, O: Operands<S>> Slice<'_, S, O> {
    /// Packs its part of A, of B, or of both with whoever works off the same counter.
    fn pack(&self, isa: Isa, (a, b): (bool, bool), next: &AtomicUsize) {
        let a_panels = if a { self.rows.len().div_ceil(self.blocking.mr) } else { 0 };
        let b_panels = if b { self.columns.len().div_ceil(self.blocking.nr) } else { 0 };
        dispatch(isa, Packing { slice: self, next, a_panels, b_panels });
    }

    fn run(&self, call: &Call<'_>, pack_b: bool) {
        let next = AtomicUsize::new(0);
        call.pool.run(&|_, _| self.pack(call.isa, (true, pack_b), &next));
        let across = self.columns.len().div_ceil(self.blocking.columns);
        let units = self.rows.len().div_ceil(self.blocking.rows) * across;
        let next = AtomicUsize::new(0);
        call.pool.run(&|_, _| {
            loop {
                let unit = next.fetch_add(1, Ordering::Relaxed);
                if unit >= units {
                    return;
                }
                let (row, column) = (unit / across * self.blocking.rows, unit % across * self.blocking.columns);
                let rows = row..(row + self.blocking.rows).min(self.rows.len());
                let columns = column..(column + self.blocking.columns).min(self.columns.len());
                self.unit(call.isa, rows, columns);
            }
        });
    }

    /// One unit, which no other worker has.
    fn unit(&self, isa: Isa, rows: Range<usize>, columns: Range<usize>) {
        let _group = tally::group();
        dispatch(isa, Unit { slice: self, rows, columns });
    }
}

/// Groups of panels taken off a counter by one worker: those of A, then those of B.
struct Packing<'a, 's, S, O> {
    slice: &'a Slice<'s, S, O>,
    next: &'a AtomicUsize,
    a_panels: usize,
    b_panels: usize,
}

impl<S: Scalar, O: Operands<S>> Kernel<S> for Packing<'_, '_, S, O> {
    #[inline(always)]
    unsafe fn run<V: Lanes<Scalar = S>>(self) {
        let a_groups = self.a_panels.div_ceil(ABREAST);
        let groups = a_groups + self.b_panels.div_ceil(ABREAST);
        let panels = |group: usize, panels: usize| group * ABREAST..((group + 1) * ABREAST).min(panels);
        loop {
            let group = self.next.fetch_add(1, Ordering::Relaxed);
            // SAFETY: by the caller's promise; workers take disjoint groups.
            unsafe {
                if group >= groups {
                    return;
                } else if group >= a_groups {
                    self.slice.pack_b::<V>(panels(group - a_groups, self.b_panels));
                } else {
                    panels(group, self.a_panels).for_each(|panel| match self.slice.blocking.mr {
                        14 if V::REGISTERS == 32 => self.slice.pack_a::<V, 14>(panel),
                        10 if V::REGISTERS == 32 => self.slice.pack_a::<V, 10>(panel),
                        _ => self.slice.pack_a::<V, 6>(panel),
                    });
                }
            }
        }
    }
}

impl<S: Scalar, O: Operands<S>> Slice<'_, S, O> {
    #[inline(always)]
    unsafe fn pack_a<V: Lanes<Scalar = S>, const MR: usize>(&self, panel: usize) {
        let first = self.rows.start + panel * MR;
        let at = panel * MR * self.blocking.chunked(self.depth.len());
        // SAFETY: the panel lies within the scratch.
        unsafe { self.operands.pack_a::<V, MR>(first..self.rows.end, self.depth.clone(), self.a_panels.0.add(at)) }
    }

    #[inline(always)]
    unsafe fn pack_b<V: Lanes<Scalar = S>>(&self, panels: Range<usize>) {
        let (nr, depth) = (2 * V::COUNT, self.depth.len());
        let first = self.columns.start + panels.start * nr;
        let columns = first..(first + panels.len() * nr).min(self.columns.end);
        // SAFETY: the panels lie within the scratch.
        unsafe { self.operands.pack_b::<V>(columns, self.depth.clone(), self.b_panels.0.add(panels.start * nr * depth)) }
    }
}

/// A block of a piece.
struct Unit<'a, 's, S, O> {
    slice: &'a Slice<'s, S, O>,
    rows: Range<usize>,
    columns: Range<usize>,
}

impl<S: Scalar, O: Operands<S>> Kernel<S> for Unit<'_, '_, S, O> {
    #[inline(always)]
    unsafe fn run<V: Lanes<Scalar = S>>(self) {
        let Unit { slice, rows, columns } = self;
        // SAFETY: by the caller's promise; `Blocking` chose the micro-kernel from the same register count.
        unsafe {
            match slice.blocking.mr {
                14 if V::REGISTERS == 32 => slice.block::<V, 14>(rows, columns),
                10 if V::REGISTERS == 32 => slice.block::<V, 10>(rows, columns),
                _ => slice.block::<V, 6>(rows, columns),
            }
        }
    }
}
