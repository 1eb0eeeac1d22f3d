//! Filters larger than 3×3, stride 1: tiles of [`Tiles::tile`] rows and columns whose sums stay in registers, out of a copy of the image.
//!
//! A unit is a band of output rows of an image for some registers of channels. Its worker copies the input under it into its second-level cache,
//! each register's pixels side by side and zeros around the image: so no tile meets an edge, and rows that lie a power of two apart no longer drive
//! each other out of the first level. Filters are packed the same way, once for all. Every input that a tile loads meets as many outputs as it has
//! rows, every filter element as many as it has columns.
//!
//! FLOPs over peak: with 32 registers a step, a tap of each of three rows, is 21 multiply-adds (10.5 cycles) and ten loads (five), so
//! arithmetic is the limit once the copy is paid: an input is loaded and stored once for k² multiply-adds, or (band + k − 1) / band times that. Bytes over
//! bandwidth: the layer's own. Predicted: 0.6 of `fma` at 5×5, where a tile's first and last rows and the copy weigh most, 0.8 and more from 9×9 on.
//! Measured out of memory at 60 GB/s on two shared cores of a Zen 5, 56×56×128: 0.32, 0.43, 0.50, 0.55 and 0.79 of `fma` for k = 5, 7, 9, 13 and 31 (0.24, 0.27,
//! 0.32, 0.35 and 0.29 by rows of six columns, which leave the edges to single ones); warm, 14×14×672 with k = 5 0.35 (0.20). What is missing is the copy: a line of it
//! takes seven cycles in the second-level cache, more from memory, and no arithmetic runs meanwhile.

use std::ops::Range;

use super::put;
use crate::host::gemm::Panels;
use crate::host::lanes::{Kernel, Lanes, Scalar, dispatch, fence, prefetch};
use crate::host::{Call, Isa, Output, share, tally};
use crate::op::depthwise::Depthwise;
use crate::plan::{Demand, Precision, Setting};

/// Bytes of a unit's copy, which with its filters stays in a second-level cache.
const COPY: usize = 384 << 10;
/// Registers of channels of a unit at most: whole lines side by side.
const PIECE: usize = 4;
/// Units a worker at least, where narrower pieces give as many.
const UNITS: usize = 2;
/// Columns by which the copy looks ahead.
const AHEAD: usize = 8;

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
    /// Registers of a unit, output rows of one (whole tiles), and bands of an image.
    piece: usize,
    band: usize,
    bands: usize,
    workers: usize,
}

/// A unit's part of the layer.
struct Unit {
    image: usize,
    rows: Range<usize>,
    registers: Range<usize>,
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
        let across = ow.next_multiple_of(tile.1) + k - 1;
        let cut = |piece: usize| {
            let most = (COPY / width / (piece * lanes * across)).saturating_sub(k - 1).max(tile.0);
            let band = oh.div_ceil(oh.div_ceil(most)).next_multiple_of(tile.0);
            Tiles { n, h, w, c, k, padding, oh, ow, tile, lanes, registers, piece, band, bands: oh.div_ceil(band), workers }
        };
        // As wide as leaves rows enough under the filter, and units enough.
        let fits = |form: &Tiles| form.band >= oh.min(2 * k) && form.units() >= UNITS * workers;
        [PIECE, PIECE / 2].into_iter().filter(|piece| *piece <= registers).map(cut).find(fits).or_else(|| Some(cut(1)))
    }

    /// The same for a plan.
    pub(super) fn planned(p: &Depthwise, s: &Setting<'_>) -> Option<Self> {
        Tiles::of(p, Isa::planned(s), s.precision, s.device.compute_units as usize)
    }

    /// Units of work.
    pub(super) fn units(&self) -> usize {
        self.n * self.bands * self.registers.div_ceil(self.piece)
    }

    fn unit(&self, number: usize) -> Unit {
        let pieces = self.registers.div_ceil(self.piece);
        let (first, row) = (number % pieces * self.piece, number / pieces % self.bands * self.band);
        Unit {
            image: number / pieces / self.bands,
            rows: row..(row + self.band).min(self.oh),
            registers: first..(first + self.piece).min(self.registers),
        }
    }

    /// Columns of a copy, and rows of that of so many output rows.
    fn across(&self) -> usize {
        self.ow.next_multiple_of(self.tile.1) + self.k - 1
    }

    fn down(&self, rows: usize) -> usize {
        rows.next_multiple_of(self.tile.0) + self.k - 1
    }

    /// Elements of the packed filters, and of a worker's copy.
    fn scratch(&self) -> (usize, usize) {
        (self.registers * self.lanes * self.k * self.k, self.piece * self.lanes * self.down(self.band) * self.across())
    }

    /// Requested: a unit loads its copy and its filters, and stores its outputs. Lane: for each tap a tile loads the input under its columns and an
    /// element of the filter for each of its rows.
    pub(super) fn demand(&self, precision: Precision) -> Demand {
        let ((rows, columns), taps) = (self.tile, self.k * self.k);
        let (mut requested, mut lane) = (0, 0);
        for unit in (0..self.units()).map(|number| self.unit(number)) {
            let elements = unit.registers.len() * self.lanes;
            let tiles = unit.rows.len().div_ceil(rows) * self.ow.div_ceil(columns);
            requested += elements * (self.down(unit.rows.len()) * self.across() + taps);
            lane += elements * tiles * (self.down(rows) * self.k * columns + rows * taps);
        }
        let outputs = self.n * self.oh * self.ow * self.c;
        let bytes = |elements: usize| precision.storage().bytes() * elements as u64;
        let (filters, copy) = self.scratch();
        Demand { requested: bytes(requested + outputs), lane: bytes(lane + outputs), workspace: bytes(filters + self.workers * copy) }
    }

    /// The whole layer; outputs past the caches where `streaming`. Whether there was memory to copy into; if not, nothing was done.
    pub(super) fn run<S: Scalar>(self, call: &Call<'_>, streaming: bool) -> bool {
        let (x, f, y) = (call.input::<S>(0), call.input::<S>(1), call.output::<S>(2));
        let (filters, copy) = self.scratch();
        let Some(scratch) = call.pool.scratch((filters + call.pool.workers() * copy) * size_of::<S>()) else { return false };
        let packed = Panels(scratch.start().cast::<S>());
        call.pool.run(&|worker, workers| {
            dispatch(call.isa, Pack { form: &self, f, registers: share(self.registers, worker, workers), to: packed.get() });
        });
        call.pool.run(&|worker, workers| {
            let y: Output<'_, S> = y;
            // SAFETY: within the scratch, behind the filters, and this worker's own part of it.
            let own = unsafe { packed.get().add(filters + worker * copy) };
            for unit in share(self.units(), worker, workers) {
                let unit = self.unit(unit);
                dispatch(call.isa, Copy { form: &self, x, unit: &unit, to: own });
                let _group = tally::group();
                let work = Work { form: &self, unit: &unit, x: own, f: packed.get(), y: y.start };
                match (self.tile, streaming) {
                    ((3, _), false) => dispatch(call.isa, Sums::<_, false, 3, 7>(work)),
                    ((3, _), true) => dispatch(call.isa, Sums::<_, true, 3, 7>(work)),
                    (_, false) => dispatch(call.isa, Sums::<_, false, 2, 4>(work)),
                    (_, true) => dispatch(call.isa, Sums::<_, true, 2, 4>(work)),
                }
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

/// The input under a unit, copied: [registers, rows, columns, lanes], with zeros around the image and past the last channel.
struct Copy<'a, S> {
    form: &'a Tiles,
    x: &'a [S], // [n, h, w, c]
    unit: &'a Unit,
    to: *mut S,
}

impl<S: Scalar> Kernel<S> for Copy<'_, S> {
    #[inline(always)]
    unsafe fn run<V: Lanes<Scalar = S>>(self) {
        let Tiles { h, w, c, padding, .. } = *self.form;
        let (down, across) = (self.form.down(self.unit.rows.len()), self.form.across());
        let first = self.unit.registers.start * V::COUNT;
        // Whole registers of channels, and what is left in a last one.
        let (whole, left) = ((c - first).min(self.unit.registers.len() * V::COUNT) / V::COUNT, (c - first) % V::COUNT);
        for row in 0..down {
            let above = (self.unit.rows.start + row).wrapping_sub(padding);
            for column in 0..across {
                let at = column.wrapping_sub(padding);
                let to = self.to.wrapping_add((row * across + column) * V::COUNT);
                let step = down * across * V::COUNT;
                // SAFETY: the copy has room, and pixels inside the image are whole; by the caller's promise.
                unsafe {
                    if above >= h || at >= w {
                        let zero = V::splat(S::zeroed());
                        (0..self.unit.registers.len()).for_each(|register| zero.store(to.add(register * step)));
                        continue;
                    }
                    let from = self.x.as_ptr().add(((self.unit.image * h + above) * w + at) * c + first);
                    for register in 0..whole {
                        prefetch(from.wrapping_add(AHEAD * c + register * V::COUNT));
                        V::load(from.add(register * V::COUNT)).store(to.add(register * step));
                    }
                    if whole < self.unit.registers.len() {
                        filled::<V>(std::slice::from_raw_parts(from.add(whole * V::COUNT), left), to.add(whole * step));
                    }
                }
            }
        }
    }
}

/// What a unit computes from.
struct Work<'a, S> {
    form: &'a Tiles,
    unit: &'a Unit,
    x: *const S, // its copy
    f: *const S, // [registers, k, k, lanes]
    y: *mut S,   // [n, oh, ow, c]
}

/// The micro-kernel: R × W outputs of a register of channels, for all tiles of a unit.
struct Sums<'a, S, const STREAM: bool, const R: usize, const W: usize>(Work<'a, S>);

impl<S: Scalar, const STREAM: bool, const R: usize, const W: usize> Kernel<S> for Sums<'_, S, STREAM, R, W> {
    #[inline(always)]
    unsafe fn run<V: Lanes<Scalar = S>>(self) {
        // Larger tiles are planned for 32 registers alone: elsewhere nothing of them is compiled.
        assert!(R * W <= 8 || V::REGISTERS == 32, "{R} x {W} sums need 32 registers");
        let Work { form, unit, x, f, y } = self.0;
        let Tiles { c, k, oh, ow, .. } = *form;
        let (down, across) = (form.down(unit.rows.len()), form.across());
        for (row, z) in (0..unit.rows.len()).step_by(R).flat_map(|row| (0..ow).step_by(W).map(move |z| (row, z))) {
            for (number, register) in unit.registers.clone().enumerate() {
                // SAFETY: the copy and the filters hold all that is loaded, outputs are the unit's alone; by the caller's promise.
                unsafe {
                    let x = x.add(((number * down + row) * across + z) * V::COUNT);
                    let f = f.add(register * k * k * V::COUNT);
                    let sums = tile::<V, R, W>(x, across * V::COUNT, f, k);
                    let rows = R.min(unit.rows.len() - row);
                    let y = y.add((((unit.image * oh + unit.rows.start + row) * ow) + z) * c + register * V::COUNT);
                    for i in 0..R {
                        for q in 0..W {
                            if i < rows && q < ow - z {
                                store::<V, STREAM>(sums[i][q], y.add((i * ow + q) * c), c - register * V::COUNT);
                            }
                        }
                    }
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

/// R × W sums over the k × k taps of a filter, whose input begins at `x`, its rows `row` apart.
#[inline(always)]
unsafe fn tile<V: Lanes, const R: usize, const W: usize>(x: *const V::Scalar, row: usize, f: *const V::Scalar, k: usize) -> [[V; W]; R] {
    // SAFETY: by the caller's promise.
    unsafe {
        let mut sums = [[V::splat(bytemuck::Zeroable::zeroed()); W]; R];
        let at = |y: usize| x.add(y * row);
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
