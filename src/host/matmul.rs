//! `matmul/packed` on the host: packed panels and a register-tiled micro-kernel, all threads.
//!
//! For each depth slice of `KC`: all threads pack the slice of A into panels of MR rows and that of B into panels of NR columns
//! (zero-padded at the edges), then take units off a counter. A unit is a block of C: up to 168 rows (its A block fits half a
//! second-level cache) by a column block; inside it a B panel (KC × NR, half a first-level cache) meets every A panel. The
//! micro-kernel keeps MR × NR sums in registers: 6 × 2 registers of 16, or 14 × 2 of 32.
//!
//! FLOPs over peak: a step of the micro-kernel is 12 multiply-adds (six cycles) and eight loads (four cycles), so the multiply-add units
//! are the limit of a core that is ours alone. Where another hardware thread shares the core (as on a rented virtual machine), it takes
//! up to half the front end: 20 instructions and the loop's own then need seven cycles, while `fma`, at 12 instructions, needs its six.
//! Bytes over bandwidth: per unit KC·(168 + NB) elements for 168·NB·KC multiply-adds, below 1 byte a cycle.
//! Predicted: 92 % of `fma`, the rest being packing (an element moved for every n or m multiply-adds) and the tiles' own loads and
//! stores of C (24 of 1536 cycles); 80 % beside a busy neighbour. Measured warm on a busy two-core Zen 3, medians of interleaved pairs:
//! 0.76-0.83 of the `fma` winner at 1024 and 0.78-0.83 at 2048, 0.87 and 0.89 at best; 0.72 and 0.71 before the loop took four steps a
//! trip. Packing takes 3-6 %; its panels come off a counter too, because a worker that loses its core would hold the others up.
//! AVX-512 code has been compiled, never run.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::lanes::{Kernel, Lanes, Scalar, dispatch, prefetch};
use super::{Call, Isa, Output, naive};
use crate::op::matmul::Matmul;
use crate::plan::{Demand, Precision, Setting, Tunable};

/// Depth of a slice in f32; half as many f64.
pub(crate) const KC: Tunable = Tunable { name: "KC", values: &[256, 128, 192, 384] };

/// Rows of a unit at most: a multiple of both micro-kernels' rows.
const BLOCK_ROWS: usize = 168;
/// Columns of a unit at most, and at least where there are enough units anyway.
const BLOCK_COLUMNS: usize = 256;
/// Rows of A and columns of B packed at a time, which bounds the scratch to 2 · 3072 · KC elements.
const PACKED: usize = 3072;

/// Rows of B by which packing looks ahead: fewer than the ways of a first-level cache, into one set of which they may all fall.
const AHEAD: usize = 6;
/// Panels packed together: those of B side by side, so that a row of B gives several lines in a row, which may lie pages away from the next.
const ABREAST: usize = 4;

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
}

impl Blocking {
    fn of(p: &Matmul, isa: Isa, precision: Precision, kc: usize, workers: usize) -> Self {
        // KC is given in f32: panels keep their bytes.
        let kc = kc * 4 / precision.storage().bytes() as usize;
        let mr = if isa.registers() == 32 { 14 } else { 6 };
        let nr = 2 * isa.register_bytes() / precision.storage().bytes() as usize;
        let (m, n) = (p.m as usize, p.n as usize);
        let even = |extent: usize, most: usize, step: usize| extent.div_ceil(extent.div_ceil(most)).next_multiple_of(step);
        let rows = even(m, BLOCK_ROWS, mr);
        let mut columns = even(n, BLOCK_COLUMNS, nr);
        // Four units a worker even out what a noisy machine takes from one of them.
        while m.div_ceil(rows) * n.div_ceil(columns) < 4 * workers && columns > 2 * nr {
            columns = (columns / 2).next_multiple_of(nr);
        }
        Blocking { kc, mr, nr, rows, columns }
    }

    /// Rows of A and columns of B packed at a time: whole units, so that no unit crosses a packed piece.
    fn pieces(&self, p: &Matmul) -> (usize, usize) {
        let piece = |extent: u64, block: usize| {
            let whole = (extent as usize).next_multiple_of(block);
            (PACKED / block).max(1).saturating_mul(block).min(whole)
        };
        (piece(p.m, self.rows), piece(p.n, self.columns))
    }

    /// Depth of the deepest slice.
    fn depth(&self, p: &Matmul) -> usize {
        self.kc.min(p.k as usize)
    }
}

/// Work-groups of a plan: units of C.
pub(crate) fn units(p: &Matmul, s: &Setting<'_>) -> u64 {
    let b = planned(p, s);
    p.m.div_ceil(b.rows as u64) * p.n.div_ceil(b.columns as u64)
}

/// Requested: in every depth slice a unit loads its block of A and of B, stores its block of C, and loads that too except in the first
/// slice. Lane: the same of every micro-kernel call, which loads a panel of each.
pub(crate) fn demand(p: &Matmul, s: &Setting<'_>) -> Demand {
    let b = planned(p, s);
    let (m, n, k) = (p.m, p.n, p.k);
    let c = m * n * (2 * k.div_ceil(b.kc as u64) - 1);
    let bytes = s.precision.storage().bytes();
    let loads = |rows: usize, columns: usize| m * k * n.div_ceil(columns as u64) + k * n * m.div_ceil(rows as u64);
    let (rows, columns) = b.pieces(p);
    let workspace = bytes * ((rows + columns) * b.depth(p)) as u64;
    Demand { requested: bytes * (loads(b.rows, b.columns) + c), lane: bytes * (loads(b.mr, b.nr) + c), workspace }
}

fn planned(p: &Matmul, s: &Setting<'_>) -> Blocking {
    let isa = Isa::named(&s.device.driver).unwrap_or(Isa::Portable);
    Blocking::of(p, isa, s.precision, s.tuned.get("KC") as usize, s.device.compute_units as usize)
}

/// The kernel.
pub(crate) fn packed(problem: &Matmul, call: &Call<'_>) {
    match call.precision {
        Precision::F64 => all::<f64>(problem, call),
        _ => all::<f32>(problem, call),
    }
}

fn all<S: Scalar>(problem: &Matmul, call: &Call<'_>) {
    let b = Blocking::of(problem, call.isa, call.precision, call.tuned.get("KC") as usize, call.pool.workers());
    let (m, n, k) = (problem.m as usize, problem.n as usize, problem.k as usize);
    let (depth, (rows, columns)) = (b.depth(problem), b.pieces(problem));
    let Some(scratch) = call.pool.scratch((rows + columns) * depth * size_of::<S>()) else {
        // Without memory to pack into, the definition still gives the answer.
        return naive(problem, call);
    };
    let a_panels: *mut S = scratch.start().cast();
    for j in (0..n).step_by(columns) {
        for p in (0..k).step_by(b.kc) {
            for i in (0..m).step_by(rows) {
                let slice = Slice {
                    a: call.input(0),
                    b: call.input(1),
                    c: call.output(2),
                    n,
                    k,
                    rows: i..(i + rows).min(m),
                    columns: j..(j + columns).min(n),
                    depth: p..(p + b.kc).min(k),
                    a_panels: Panels(a_panels),
                    // SAFETY: within the scratch, whose A part holds rows · depth elements.
                    b_panels: Panels(unsafe { a_panels.add(rows * depth) }),
                    blocking: &b,
                };
                slice.run(call, i == 0);
            }
        }
    }
}

/// Packed panels, written in disjoint parts by several threads, then only read.
struct Panels<S>(*mut S);
// SAFETY: an address; who dereferences it keeps to disjoint panels.
unsafe impl<S> Sync for Panels<S> {}

/// One depth slice of one piece of C.
struct Slice<'a, S> {
    a: &'a [S],
    b: &'a [S],
    c: Output<'a, S>,
    n: usize,
    k: usize,
    rows: Range<usize>,
    columns: Range<usize>,
    depth: Range<usize>,
    a_panels: Panels<S>,
    b_panels: Panels<S>,
    blocking: &'a Blocking,
}

impl<S: Scalar> Slice<'_, S> {
    fn run(&self, call: &Call<'_>, pack_b: bool) {
        let (mr, nr) = (self.blocking.mr, self.blocking.nr);
        let a_panels = self.rows.len().div_ceil(mr);
        let b_panels = if pack_b { self.columns.len().div_ceil(nr) } else { 0 };
        let next = AtomicUsize::new(0);
        call.pool.run(&|_, _| dispatch(call.isa, Packing { slice: self, next: &next, a_panels, b_panels }));
        let across = self.columns.len().div_ceil(self.blocking.columns);
        let units = self.rows.len().div_ceil(self.blocking.rows) * across;
        let next = AtomicUsize::new(0);
        call.pool.run(&|_, _| dispatch(call.isa, Units { slice: self, next: &next, units, across }));
    }
}

/// Groups of panels taken off a counter by one worker: those of A, then those of B.
struct Packing<'a, 's, S> {
    slice: &'a Slice<'s, S>,
    next: &'a AtomicUsize,
    a_panels: usize,
    b_panels: usize,
}

impl<S: Scalar> Kernel<S> for Packing<'_, '_, S> {
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
                } else if V::REGISTERS == 32 {
                    panels(group, self.a_panels).for_each(|panel| self.slice.pack_a::<14>(panel));
                } else {
                    panels(group, self.a_panels).for_each(|panel| self.slice.pack_a::<6>(panel));
                }
            }
        }
    }
}

impl<S: Scalar> Slice<'_, S> {
    /// Panel of MR rows: for each depth its MR elements. Rows past the end repeat the last one; their sums are never stored.
    #[inline(always)]
    unsafe fn pack_a<const MR: usize>(&self, panel: usize) {
        let depth = self.depth.len();
        let first = self.rows.start + panel * MR;
        let line = 64 / size_of::<S>();
        let mut rows = [self.a.as_ptr(); MR];
        for (row, from) in rows.iter_mut().enumerate() {
            *from = self.a[(first + row).min(self.rows.end - 1) * self.k..][self.depth.clone()].as_ptr();
        }
        // SAFETY: the panel lies within the scratch; every row holds `depth` elements.
        unsafe {
            let to = self.a_panels.0.add(panel * MR * depth);
            for start in (0..depth).step_by(line) {
                for row in rows {
                    // The next panel's part: rows are too short for the hardware to find their pattern in time.
                    prefetch(row.wrapping_add(MR * self.k + start));
                }
                for p in start..(start + line).min(depth) {
                    for row in 0..MR {
                        *to.add(p * MR + row) = *rows[row].add(p);
                    }
                }
            }
        }
    }

    /// Panels of NR columns: for each depth NR elements of each, zeros past the end.
    #[inline(always)]
    unsafe fn pack_b<V: Lanes<Scalar = S>>(&self, panels: Range<usize>) {
        let (nr, depth) = (2 * V::COUNT, self.depth.len());
        let first = self.columns.start + panels.start * nr;
        let columns = (panels.len() * nr).min(self.columns.end - first);
        // SAFETY: the panels lie within the scratch; a whole row of them lies within B.
        unsafe {
            let to = self.b_panels.0.add(panels.start * nr * depth);
            for p in 0..depth {
                let from = &self.b[(self.depth.start + p) * self.n + first..][..columns];
                for (panel, from) in from.chunks(nr).enumerate() {
                    let to = to.add((panel * depth + p) * nr);
                    // Rows are too far apart for the hardware to see the pattern.
                    prefetch(from.as_ptr().wrapping_add(AHEAD * self.n));
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

/// Units taken off a counter by one worker.
struct Units<'a, 's, S> {
    slice: &'a Slice<'s, S>,
    next: &'a AtomicUsize,
    units: usize,
    across: usize,
}

impl<S: Scalar> Kernel<S> for Units<'_, '_, S> {
    #[inline(always)]
    unsafe fn run<V: Lanes<Scalar = S>>(self) {
        // SAFETY: by the caller's promise; `Blocking` chose the same micro-kernel from the same register count.
        unsafe { if V::REGISTERS == 32 { self.work::<V, 14>() } else { self.work::<V, 6>() } }
    }
}

impl<S: Scalar> Units<'_, '_, S> {
    #[inline(always)]
    unsafe fn work<V: Lanes<Scalar = S>, const MR: usize>(self) {
        let (slice, blocking) = (self.slice, self.slice.blocking);
        debug_assert_eq!((MR, 2 * V::COUNT), (blocking.mr, blocking.nr));
        loop {
            let unit = self.next.fetch_add(1, Ordering::Relaxed);
            if unit >= self.units {
                return;
            }
            let (row, column) = (unit / self.across * blocking.rows, unit % self.across * blocking.columns);
            let rows = row..(row + blocking.rows).min(slice.rows.len());
            let columns = column..(column + blocking.columns).min(slice.columns.len());
            for j in columns.clone().step_by(2 * V::COUNT) {
                for i in rows.clone().step_by(MR) {
                    let extent = (MR.min(rows.end - i), (2 * V::COUNT).min(columns.end - j));
                    // SAFETY: the tile lies in this unit, which no other worker takes.
                    unsafe { slice.tile::<V, MR>(i, j, extent) };
                }
            }
        }
    }
}

impl<S: Scalar> Slice<'_, S> {
    /// MR × NR sums at (i, j) of the piece, of which `extent` exist.
    #[inline(always)]
    unsafe fn tile<V: Lanes<Scalar = S>, const MR: usize>(&self, i: usize, j: usize, extent: (usize, usize)) {
        let depth = self.depth.len();
        let first = self.depth.start == 0;
        let at = |row: usize| (self.rows.start + i + row) * self.n + self.columns.start + j;
        // SAFETY: panels i / MR and j / NR hold MR · depth and NR · depth elements; a whole tile lies inside C and inside the unit.
        unsafe {
            for row in 0..extent.0 {
                prefetch(self.c.start.wrapping_add(at(row)));
            }
            let sums = product::<V, MR>(self.a_panels.0.add(i * depth), self.b_panels.0.add(j * depth), depth);
            if extent == (MR, 2 * V::COUNT) {
                for row in 0..MR {
                    let c = self.c.start.add(at(row));
                    for v in 0..2 {
                        let to = c.add(v * V::COUNT);
                        let sum = if first { sums[row][v] } else { sums[row][v].add(V::load(to)) };
                        sum.store(to);
                    }
                }
                return;
            }
            // An edge: through a buffer of the largest tile. Constant indices keep the sums in registers.
            let mut whole = [S::zeroed(); 14 * 32];
            for row in 0..MR {
                for v in 0..2 {
                    sums[row][v].store(whole.as_mut_ptr().add((row * 2 + v) * V::COUNT));
                }
            }
            for (row, sums) in whole.chunks_exact(2 * V::COUNT).take(extent.0).enumerate() {
                let c = self.c.slice(at(row)..at(row) + extent.1);
                for (to, sum) in c.iter_mut().zip(sums) {
                    *to = if first { *sum } else { *to + *sum };
                }
            }
        }
    }
}

/// Steps of the micro-kernel between two branches. Where another hardware thread shares the core, it takes half the front end: a step's
/// 20 instructions then take longer than its six cycles of multiply-adds, and the loop's own instructions cost what they can.
const STEPS: usize = 4;

/// The micro-kernel: A panel times B panel.
#[inline(always)]
unsafe fn product<V: Lanes, const MR: usize>(mut a: *const V::Scalar, mut b: *const V::Scalar, depth: usize) -> [[V; 2]; MR] {
    // SAFETY: the panels hold MR · depth and 2 · COUNT · depth elements by the caller's promise.
    unsafe {
        let mut sums = [[V::splat(bytemuck::Zeroable::zeroed()); 2]; MR];
        for _ in 0..depth / STEPS {
            for step in 0..STEPS {
                sums = fold(sums, a.add(step * MR), b.add(step * 2 * V::COUNT));
            }
            a = a.add(STEPS * MR);
            b = b.add(STEPS * 2 * V::COUNT);
        }
        for step in 0..depth % STEPS {
            sums = fold(sums, a.add(step * MR), b.add(step * 2 * V::COUNT));
        }
        sums
    }
}

/// One step: MR elements of A times two registers of B.
#[inline(always)]
unsafe fn fold<V: Lanes, const MR: usize>(mut sums: [[V; 2]; MR], a: *const V::Scalar, b: *const V::Scalar) -> [[V; 2]; MR] {
    // SAFETY: by the caller's promise.
    unsafe {
        let (b0, b1) = (V::load(b), V::load(b.add(V::COUNT)));
        for row in 0..MR {
            let x = V::splat(*a.add(row));
            sums[row][0] = x.mul_add(b0, sums[row][0]);
            sums[row][1] = x.mul_add(b1, sums[row][1]);
        }
        sums
    }
}
