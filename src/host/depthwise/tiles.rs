//! Filters larger than 3×3, stride 1: tiles of [`Tiles::tile`] rows and columns whose sums stay in registers, out of copied rows.
//!
//! A unit is a band of output rows of an image for a line or two of channels. Its worker goes down the band tile by tile and keeps the padded rows under a
//! row of tiles: each register's pixels side by side and zeros around the image, so that no tile meets an edge, and rows that lie a power of two
//! apart do not drive each other out of a cache. A row is copied once, over the one that is no longer needed, and asked for while the row of tiles before
//! is computed, as are the outputs' lines where they go through the caches. Filters are packed the same way, once for all. Every input that a tile
//! loads meets as many outputs as it has rows, every filter element as many as it has columns.
//!
//! FLOPs over peak: with 32 registers a step, a tap of each of three rows, is 21 multiply-adds (10.5 cycles) and ten loads (five), so
//! arithmetic is the limit once the copy is paid: an input is loaded and stored once for k² multiply-adds. Bytes over bandwidth: the layer's own.
//! Predicted: 0.7 of `fma` at 5×5, where a tile's first and last rows and the copy weigh most, 0.85 and more from 9×9 on.
//! Measured on two shared cores of a Zen 5 out of memory, 56×56×128, k = 5, 7, 13 and 31: 0.47, 0.64, 0.83 and 0.92 of `fma`, in an hour in which memory gave
//! twice as much 0.30, 0.45, 0.69 and 0.88 (a whole band copied first, unasked for: 0.21, 0.30, 0.62 and 0.84 there); 14×14×672 with k = 5 in a batch of 16
//! 0.51 warm and 0.34 cold (0.38 and 0.25). What is missing at 5×5 are some hundred cycles a tile of 262 for its stores and its short loops (loops
//! unrolled for that filter gain up to a tenth), and the copy.

use std::ops::Range;

use super::{LINE, put};
use crate::host::gemm::Panels;
use crate::host::lanes::{Kernel, Lanes, Scalar, dispatch, fence, prefetch};
use crate::host::units::{Unit, Units};
use crate::host::{Call, Isa, Output, share, tally};
use crate::op::depthwise::Depthwise;
use crate::plan::{Demand, Precision, Setting};

/// Bytes at most of the rows that a worker keeps where it takes two lines of channels at a time: as many and what it asks for ahead stay near.
const NEAR: usize = 64 << 10;
/// Units a worker, where there are rows for them: they even out what one of them has more, or loses to a noisy machine.
const UNITS: usize = 4;

/// How a layer is cut, in machine integers.
#[derive(Clone, Copy)]
pub(super) struct Tiles {
    n: usize,
    h: usize,
    w: usize,
    c: usize,
    k: usize,
    padding: usize,
    oh: usize,
    ow: usize,
    /// Rows and columns of a tile.
    tile: (usize, usize),
    /// Elements of a register, and registers of all channels.
    lanes: usize,
    registers: usize,
    /// Registers of a unit's piece. Bands are whole tiles.
    piece: usize,
    units: Units,
    workers: usize,
}

impl Tiles {
    /// The form, where it takes the problem.
    pub(super) fn of(p: &Depthwise, isa: Isa, precision: Precision, workers: usize) -> Option<Self> {
        if (p.stride, p.dilation) != (1, 1) || p.k <= 3 {
            return None;
        }
        let (oh, ow) = p.out();
        let [n, h, w, c, k, padding, oh, ow] = [p.n, p.h, p.w, p.c, p.k, p.padding, oh, ow].map(|extent| extent as usize);
        let width = precision.storage().bytes() as usize;
        let lanes = isa.register_bytes() / width;
        let registers = c.div_ceil(lanes);
        let tile = if isa.registers() == 32 { (3, 7) } else { (2, 4) };
        let cut = |piece: usize| {
            let pieces = registers.div_ceil(piece);
            let bands = (UNITS * workers).div_ceil(n * pieces).min(oh / (2 * k)).max(1);
            let band = oh.div_ceil(bands).next_multiple_of(tile.0);
            let units = Units::new(n, (oh, band), pieces);
            Tiles { n, h, w, c, k, padding, oh, ow, tile, lanes, registers, piece, units, workers }
        };
        // Whole lines of channels: those of a pixel are read, and stored past the caches, side by side.
        let line = (LINE / isa.register_bytes()).min(registers);
        let wide = cut(2 * line);
        let fits = 2 * line <= registers && wide.kept() * width <= NEAR && wide.units.count() >= UNITS * workers;
        Some(if fits { wide } else { cut(line) })
    }

    /// The same for a plan.
    pub(super) fn planned(p: &Depthwise, s: &Setting<'_>) -> Option<Self> {
        Tiles::of(p, Isa::planned(s), s.precision, s.device.compute_units as usize)
    }

    /// Work-groups: rows of tiles.
    pub(super) fn groups(&self) -> usize {
        self.units.all().map(|unit| unit.rows.len().div_ceil(self.tile.0)).sum()
    }

    /// Registers of channels of a unit.
    fn registers(&self, unit: &Unit) -> Range<usize> {
        let first = unit.piece * self.piece;
        first..(first + self.piece).min(self.registers)
    }

    /// Padded columns, and rows under a row of tiles.
    fn across(&self) -> usize {
        self.ow.next_multiple_of(self.tile.1) + self.k - 1
    }

    fn under(&self) -> usize {
        self.tile.0 + self.k - 1
    }

    /// Elements of the rows that a worker keeps.
    fn kept(&self) -> usize {
        self.piece * self.lanes * self.under() * self.across()
    }

    /// Elements of the packed filters.
    fn filters(&self) -> usize {
        self.registers * self.lanes * self.k * self.k
    }

    /// Requested: a row of tiles loads the rows under it and its filters, and stores its outputs. Lane: for each tap a tile loads the input under its
    /// columns and an element of the filter for each of its rows.
    pub(super) fn demand(&self, precision: Precision) -> Demand {
        let ((rows, columns), taps) = (self.tile, self.k * self.k);
        let (mut requested, mut lane) = (0, 0);
        for unit in self.units.all() {
            let elements = self.registers(&unit).len() * self.lanes * unit.rows.len().div_ceil(rows);
            requested += elements * (self.under() * self.across() + taps);
            lane += elements * self.ow.div_ceil(columns) * (self.under() * self.k * columns + rows * taps);
        }
        let outputs = self.n * self.oh * self.ow * self.c;
        let bytes = |elements: usize| precision.storage().bytes() * elements as u64;
        let workspace = bytes(self.filters() + self.workers * self.kept());
        Demand { requested: bytes(requested + outputs), lane: bytes(lane + outputs), workspace }
    }

    /// The whole layer; outputs past the caches where `streaming`. Whether there was memory to copy into; if not, nothing was done.
    pub(super) fn run<S: Scalar>(self, call: &Call<'_>, streaming: bool) -> bool {
        let (x, f, y) = (call.input::<S>(0), call.input::<S>(1), call.output::<S>(2));
        let (filters, kept) = (self.filters(), self.kept());
        let Some(scratch) = call.pool.scratch((filters + call.pool.workers() * kept) * size_of::<S>()) else { return false };
        let packed = Panels(scratch.start().cast::<S>());
        call.pool.run(&|worker, workers| {
            dispatch(call.isa, Pack { form: &self, f, registers: share(self.registers, worker, workers), to: packed.get() });
        });
        call.pool.run(&|worker, workers| {
            let y: Output<'_, S> = y;
            // SAFETY: within the scratch, behind the filters, and this worker's own part of it.
            let own = unsafe { packed.get().add(filters + worker * kept) };
            let work = Work { form: &self, units: share(self.units.count(), worker, workers), x, own, f: packed.get(), y: y.start };
            match (self.tile, streaming) {
                ((3, _), false) => dispatch(call.isa, Sums::<_, false, 3, 7>(work)),
                ((3, _), true) => dispatch(call.isa, Sums::<_, true, 3, 7>(work)),
                (_, false) => dispatch(call.isa, Sums::<_, false, 2, 4>(work)),
                (_, true) => dispatch(call.isa, Sums::<_, true, 2, 4>(work)),
            }
            fence();
        });
        true
    }
}

/// Filters of some registers, tap after tap: [registers, k, k, lanes].
struct Pack<'a, S> {
    form: &'a Tiles,
    f: &'a [S], // [k, k, c]
    registers: Range<usize>,
    to: *mut S,
}

impl<S: Scalar> Kernel<S> for Pack<'_, S> {
    #[inline(always)]
    unsafe fn run<V: Lanes<Scalar = S>>(self) {
        let Tiles { c, k, .. } = *self.form;
        for (register, tap) in self.registers.flat_map(|register| (0..k * k).map(move |tap| (register, tap))) {
            let from = &self.f[tap * c + register * V::COUNT..][..V::COUNT.min(c - register * V::COUNT)];
            // SAFETY: within the scratch, and this worker's own register; by the caller's promise.
            unsafe { filled::<V>(from, self.to.add((register * k * k + tap) * V::COUNT)) };
        }
    }
}

/// A register of these channels, zeros past the last one.
#[inline(always)]
unsafe fn filled<V: Lanes>(from: &[V::Scalar], to: *mut V::Scalar) {
    // SAFETY: by the caller's promise that `to` has room and the CPU has V.
    unsafe {
        if from.len() == V::COUNT {
            V::load(from.as_ptr()).store(to);
        } else {
            V::made(|lane| from.get(lane).copied().unwrap_or(bytemuck::Zeroable::zeroed())).store(to);
        }
    }
}

/// Units of one worker.
struct Work<'a, S> {
    form: &'a Tiles,
    units: Range<usize>,
    x: &'a [S],  // [n, h, w, c]
    own: *mut S, // [registers, rows under a tile, padded columns, lanes]
    f: *const S, // [registers, k, k, lanes]
    y: *mut S,   // [n, oh, ow, c]
}

/// The micro-kernel: R × W outputs of a register of channels, for all tiles of the units.
struct Sums<'a, S, const STREAM: bool, const R: usize, const W: usize>(Work<'a, S>);

impl<S: Scalar, const STREAM: bool, const R: usize, const W: usize> Kernel<S> for Sums<'_, S, STREAM, R, W> {
    #[inline(always)]
    unsafe fn run<V: Lanes<Scalar = S>>(self) {
        // Larger tiles are planned for 32 registers alone: elsewhere nothing of them is compiled.
        assert!(R * W <= 8 || V::REGISTERS == 32, "{R} x {W} sums need 32 registers");
        let Work { form, units, .. } = &self.0;
        // SAFETY: by the caller's promise.
        unsafe {
            self.0.clear::<V>();
            for number in units.clone() {
                let next = (number + 1 < units.end).then(|| form.units.at(number + 1));
                self.unit::<V>(&form.units.at(number), next);
            }
        }
    }
}

impl<S: Scalar> Work<'_, S> {
    /// Zeros all that is kept: columns of padding stay so.
    #[inline(always)]
    unsafe fn clear<V: Lanes<Scalar = S>>(&self) {
        for at in (0..self.form.kept()).step_by(V::COUNT) {
            // SAFETY: within what this worker keeps.
            unsafe { V::splat(S::zeroed()).store(self.own.add(at)) };
        }
    }

    /// Where the pixels lie that these padded rows of a unit, counted from the first under its outputs, hold, from its first channel on, and how many.
    #[inline(always)]
    fn pixels(&self, unit: &Unit, rows: Range<usize>) -> (*const S, usize) {
        let Tiles { h, w, c, padding, lanes, .. } = *self.form;
        let row = |row: usize| (unit.rows.start + row).saturating_sub(padding).min(h);
        let (first, end) = (row(rows.start), row(rows.end));
        (self.x.as_ptr().wrapping_add((unit.image * h + first) * w * c + self.form.registers(unit).start * lanes), (end - first) * w)
    }

    /// Copies padded rows of a unit to where they are kept.
    #[inline(always)]
    unsafe fn fetch<V: Lanes<Scalar = S>>(&self, unit: &Unit, rows: Range<usize>) {
        let Tiles { h, w, c, padding, .. } = *self.form;
        let (under, across) = (self.form.under(), self.form.across());
        let registers = self.form.registers(unit);
        let first = registers.start * V::COUNT;
        // Whole registers of channels, and what is left in a last one.
        let (whole, left) = ((c - first).min(registers.len() * V::COUNT) / V::COUNT, (c - first) % V::COUNT);
        let step = under * across * V::COUNT;
        for row in rows {
            let from = (unit.rows.start + row).wrapping_sub(padding);
            let to = self.own.wrapping_add((row % under * across + padding) * V::COUNT);
            // SAFETY: what is kept has room, and pixels inside the image are whole; by the caller's promise.
            unsafe {
                if from >= h {
                    let zero = V::splat(S::zeroed());
                    for register in 0..registers.len() {
                        (0..w).for_each(|column| zero.store(to.add(register * step + column * V::COUNT)));
                    }
                    continue;
                }
                let from = self.x.as_ptr().add((unit.image * h + from) * w * c + first);
                for column in 0..w {
                    let (from, to) = (from.add(column * c), to.add(column * V::COUNT));
                    for register in 0..whole {
                        V::load(from.add(register * V::COUNT)).store(to.add(register * step));
                    }
                    if whole < registers.len() {
                        filled::<V>(std::slice::from_raw_parts(from.add(whole * V::COUNT), left), to.add(whole * step));
                    }
                }
            }
        }
    }
}

impl<S: Scalar, const STREAM: bool, const R: usize, const W: usize> Sums<'_, S, STREAM, R, W> {
    /// All tiles of a unit, row by row.
    #[inline(always)]
    unsafe fn unit<V: Lanes<Scalar = S>>(&self, unit: &Unit, next: Option<Unit>) {
        let work = &self.0;
        let Tiles { c, k, oh, ow, .. } = *work.form;
        let (under, across) = (work.form.under(), work.form.across());
        // SAFETY: what is kept and the filters hold all that is loaded, outputs are the unit's alone; by the caller's promise.
        unsafe {
            work.fetch::<V>(unit, 0..k - 1);
            for row in (0..unit.rows.len()).step_by(R) {
                work.fetch::<V>(unit, row + k - 1..row + under);
                // The pixels that are copied next, a share of which each tile asks for.
                let (mut soon, pixels) = match &next {
                    _ if row + R < unit.rows.len() => work.pixels(unit, row + under..row + under + R),
                    Some(next) => work.pixels(next, 0..under),
                    None => (work.x.as_ptr(), 0),
                };
                let each = pixels.div_ceil(ow.div_ceil(W));
                let _group = tally::group();
                let rows = R.min(unit.rows.len() - row);
                for z in (0..ow).step_by(W) {
                    for (number, register) in work.form.registers(unit).enumerate() {
                        let y = work.y.add((((unit.image * oh + unit.rows.start + row) * ow) + z) * c + register * V::COUNT);
                        for pixel in 0..each {
                            prefetch(soon.wrapping_add(pixel * c + number * V::COUNT));
                        }
                        if !STREAM {
                            (0..R * W).for_each(|at| prefetch(y.wrapping_add((at / W * ow + at % W) * c)));
                        }
                        let x = work.own.cast_const().add((number * under * across + z) * V::COUNT);
                        let f = work.f.add(register * k * k * V::COUNT);
                        let sums = tile::<V, R, W>(x, across * V::COUNT, (row % under, under), f, k);
                        for i in 0..R {
                            for q in 0..W {
                                if i < rows && q < ow - z {
                                    store::<V, STREAM>(sums[i][q], y.add((i * ow + q) * c), c - register * V::COUNT);
                                }
                            }
                        }
                    }
                    soon = soon.wrapping_add(each * c);
                }
            }
        }
    }
}

/// Stores a register, or the channels that are left of it.
#[inline(always)]
unsafe fn store<V: Lanes, const STREAM: bool>(sum: V, to: *mut V::Scalar, left: usize) {
    // SAFETY: by the caller's promise.
    unsafe {
        if left >= V::COUNT {
            return put::<V, STREAM>(sum, to);
        }
        tally::store(to, left);
        sum.each(|lane, x| {
            if lane < left {
                to.add(lane).write(x);
            }
        });
    }
}

/// R × W sums over the k × k taps of a filter, whose input begins at `x`, its rows `row` apart: the first is number `start` of `under`, behind the
/// last of which they go on with the first.
#[inline(always)]
unsafe fn tile<V: Lanes, const R: usize, const W: usize>(
    x: *const V::Scalar,
    row: usize,
    (start, under): (usize, usize),
    f: *const V::Scalar,
    k: usize,
) -> [[V; W]; R] {
    // SAFETY: by the caller's promise.
    unsafe {
        let mut sums = [[V::splat(bytemuck::Zeroable::zeroed()); W]; R];
        let at = |y: usize| x.add((start + y - if start + y < under { 0 } else { under }) * row);
        // The input rows that some of the tile's rows alone see come first and last; k is R at least.
        if R == 3 {
            taps::<V, R, W, 0, 1>(&mut sums, at(0), f, 0, k);
            taps::<V, R, W, 0, 2>(&mut sums, at(1), f, 1, k);
        } else {
            taps::<V, R, W, 0, 1>(&mut sums, at(0), f, 0, k);
        }
        for y in R - 1..k {
            taps::<V, R, W, 0, R>(&mut sums, at(y), f, y, k);
        }
        if R == 3 {
            taps::<V, R, W, 1, 3>(&mut sums, at(k), f, k, k);
            taps::<V, R, W, 2, 3>(&mut sums, at(k + 1), f, k + 1, k);
        } else {
            taps::<V, R, W, 1, 2>(&mut sums, at(k), f, k, k);
        }
        sums
    }
}

/// Adds an input row, number `y` under the tile, to the sums of its rows FROM to TO.
#[inline(always)]
unsafe fn taps<V: Lanes, const R: usize, const W: usize, const FROM: usize, const TO: usize>(
    sums: &mut [[V; W]; R],
    x: *const V::Scalar,
    f: *const V::Scalar,
    y: usize,
    k: usize,
) {
    // SAFETY: by the caller's promise.
    unsafe {
        for t in 0..k {
            let mut weight = [V::splat(bytemuck::Zeroable::zeroed()); R];
            for i in FROM..TO {
                weight[i] = V::load(f.add(((y - i) * k + t) * V::COUNT));
            }
            for q in 0..W {
                let input = V::load(x.add((t + q) * V::COUNT));
                for i in FROM..TO {
                    sums[i][q] = input.mul_add(weight[i], sums[i][q]);
                }
            }
        }
    }
}
