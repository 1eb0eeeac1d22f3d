//! `depthwise/window` on the host: channels across the lanes, neighbouring outputs share what is loaded.
//!
//! A worker owns consecutive output rows. 3×3 with stride 1: bands of up to four rows, in blocks of up to four columns (16 registers: two rows, three
//! columns), whose nine filter registers and sums stay in registers; each input register under a block is loaded once (`band`). Larger filters with
//! stride 1: tiles out of padded rows (`tiles`). Any other filter, stride and dilation, and what the blocks leave: six columns of a row share every filter element (`Line::lanes`); columns that touch
//! the padding run one by one with the taps outside the image left out. Where channels end in less than a register, a last one overlaps the one before; fewer than a register run as scalars.
//!
//! Where input and output together pass the last-level cache, or this process's share of one, and a pixel's channels are whole lines,
//! outputs are stored past the caches: an ordinary store would read each line first, half as much again as the traffic that counts. A block's lines are finished
//! within two steps of its channel loop, so the write buffers send them whole. The input rows that a band meets first are asked
//! for a little ahead, those of the next band at a row's end, because the loop goes across their lines. Blocks are two columns wide there.
//!
//! 3×3, stride 1. FLOPs over peak: 9 multiply-adds an output, 4.5 cycles an AVX2 register of eight. Bytes over bandwidth: 8 B an output,
//! 64 B a register, which at 25 GB/s and core (Zen 3, one core's copy with streaming stores) is 8 cycles. Predicted: memory is the
//! limit and the copy ceiling is reached, where a core's front end is its own: 20 instructions a register are 7 cycles beside a busy
//! hardware neighbour. Measured on a busy two-core Zen 3, medians of interleaved pairs: 0.88, 0.90, 0.92 and 1.02 of copy at 24-30 GB/s,
//! both memory's limit; one core alone reaches 0.57 of what its copy does. On two cores of a 2.9 GHz AVX-512 Xeon: 1.0 of copy at
//! 42 GB/s (0.56 with ordinary stores), and 1.3 times as fast as with those out of the last-level cache. On two shared cores of a Zen 5,
//! medians of interleaved samples against the best copy, while memory gave 60 GB/s (and 90 to 100): 56×56×128 0.94 (0.92), 28×28×192 0.93 (0.88), 14×14×256 0.88
//! (0.81), 14×14×384 0.80 (0.61), 7×7×512 0.76 (0.50); with blocks of four columns, nine asked for ahead and none at a row's end
//! 0.81, 0.76, 0.73, 0.73 and 0.76: what was asked for was driven out again, and a row's first columns were never asked for.
//!
//! Out of caches the second level's bandwidth is the limit, more than arithmetic: a band of R rows loads each input row (R + 2) / R times from there, and every
//! output is loaded, stored and written back. Predicted from that for bands of four instead of two: a sixth less time. Measured on two shared cores of
//! a Zen 5, warm, medians of interleaved samples against bands of two rows by six columns, all channels of a block at once: 28×28×256 1.06, 56×56×128 1.15, 14×14×512
//! 1.34, 14×14×576 1.6, 7×7×960 1.7 times as fast; the wide ones because what blocks side by side share stays in the first level.
//! It is 0.51 to 0.6 of `fma` at 28×28×256. What a launch costs (0.3 to 1 µs, by where the host places the two cores) is up to a twelfth of the time there. Tried and
//! left: strips that slide down the image are as fast as long as a second-level cache is theirs alone, but half as fast beside a neighbour, as no
//! hardware asks ahead across rows; asking ahead out of caches costs 6 %; a pool whose workers report on lines of their own starts no sooner.

use std::array::from_fn;
use std::ops::Range;

use band::{Band, ZEROS, bands, cut, runs};
use tiles::Tiles;

use super::lanes::{Kernel, Lanes, Scalar, Wide, dispatch, fence};
use super::{Call, Isa, share, tally};
use crate::op::depthwise::Depthwise;
use crate::plan::{Demand, Precision, Setting};

mod band;
mod tiles;

/// Bytes of a cache line.
const LINE: usize = 64;
/// What a thread can count on of a last-level cache that it shares with threads it does not know: more than any server gives a core.
const SHARE: usize = 16 << 20;
/// Output columns of a window.
const WINDOW: usize = 6;

/// Work-groups: rows of tiles, or output rows.
pub(crate) fn groups(p: &Depthwise, s: &Setting<'_>) -> u64 {
    Tiles::planned(p, s).map_or_else(|| p.n * p.out().0, |tiles| tiles.groups() as u64)
}

/// Requested: every output row, or pair of rows, loads the filter and the input under its taps, and stores itself. Lane: inside a
/// window each filter element is loaded once for six outputs; a block of three columns loads 20 inputs and nine filter
/// elements for six.
pub(crate) fn demand(p: &Depthwise, s: &Setting<'_>) -> Demand {
    if let Some(tiles) = Tiles::planned(p, s) {
        return tiles.demand(s.precision);
    }
    let registers = Isa::planned(s).registers();
    let workers = s.device.compute_units as usize;
    let far = passes_caches(p, s.precision, workers, s.device.llc_bytes());
    let shape = Shape { far, ..Shape::of(p, registers, workers) };
    let taps = |o: usize, input: usize| shape.taps(o, input).1 - shape.taps(o, input).0;
    let columns: usize = (0..shape.ow).map(|z| taps(z, shape.w)).sum();
    let whole = shape.whole().len();
    let filter = (whole / WINDOW + whole % WINDOW) * shape.k + columns - whole * shape.k;
    let (under, used) = p.columns_touched();

    let (mut requested, mut lane) = (shape.oh * shape.ow, shape.oh * shape.ow);
    for unit in 0..shape.units() {
        let rows = shape.row(unit)..shape.row(unit + 1);
        let taps = rows.clone().map(|row| taps(row, shape.h));
        if rows.len() > 1 {
            // A band's rows overlap in two of three input rows, and share the filter.
            requested += (2 + taps.clone().map(|taps| taps - 2).sum::<usize>()) * under as usize + shape.k * used as usize;
            lane += cut(shape, registers).map(|block| block.loads(taps.clone())).sum::<usize>();
        } else {
            let first = taps.sum::<usize>();
            requested += first * (under + used) as usize;
            lane += first * (columns + filter);
        }
    }
    let width = s.precision.storage().bytes();
    let lanes = Isa::planned(s).register_bytes() as u64 / width;
    // Channels by registers, the last of which overlaps the one before.
    let covered = if p.c < lanes { p.c } else { p.c.next_multiple_of(lanes) };
    let bytes = |elements: usize, channels: u64| width * p.n * elements as u64 * channels;
    Demand::new(bytes(requested, p.c), bytes(lane, covered))
}

/// The kernel.
pub(crate) fn window(problem: &Depthwise, call: &Call<'_>) {
    match call.precision {
        Precision::F64 => all::<f64>(problem, call),
        _ => all::<f32>(problem, call),
    }
}

fn all<S: Scalar>(p: &Depthwise, call: &Call<'_>) {
    let (x, f, out) = (call.input::<S>(0), call.input::<S>(1), call.output::<S>(2));
    let far = passes_caches(p, call.precision, call.pool.workers(), call.pool.llc_bytes());
    let streaming = far && (p.c as usize * size_of::<S>()).is_multiple_of(LINE);
    if Tiles::of(p, call.isa, call.precision, call.pool.workers()).is_some_and(|tiles| tiles.run::<S>(call, streaming)) {
        return;
    }
    let shape = Shape { far, ..Shape::of(p, call.isa.registers(), call.pool.workers()) };
    let (images, row) = (p.n as usize, shape.ow * shape.c);
    call.pool.run(&|worker, workers| {
        let units = share(images * shape.units(), worker, workers);
        let (first, end) = (shape.row(units.start), shape.row(units.end));
        // SAFETY: workers own disjoint units, so disjoint rows.
        let y = unsafe { out.slice(first * row..end * row) };
        dispatch(call.isa, Rows { isa: call.isa, shape, x, f, y, units, streaming });
    });
}

/// Whether input and output together pass the last-level cache, or the share of it that so many workers can count on.
fn passes_caches(p: &Depthwise, precision: Precision, workers: usize, llc_bytes: u64) -> bool {
    let (oh, ow) = p.out();
    let elements = p.n * p.c * (p.h * p.w + oh * ow);
    elements * precision.storage().bytes() > llc_bytes.min((SHARE * workers) as u64)
}

/// The problem in machine integers.
#[derive(Clone, Copy)]
struct Shape {
    h: usize,
    w: usize,
    c: usize,
    k: usize,
    stride: usize,
    padding: usize,
    dilation: usize,
    oh: usize,
    ow: usize,
    /// Output rows that run in bands of 3×3 blocks, and how many bands those are. The rows above them run alone, as do those below.
    banded: usize,
    bands: usize,
    above: usize,
    /// Input and output together pass the caches.
    far: bool,
}

impl Shape {
    fn of(p: &Depthwise, registers: usize, workers: usize) -> Self {
        let (oh, ow) = p.out();
        let [h, w, c, k, stride, padding, dilation, oh, ow] =
            [p.h, p.w, p.c, p.k, p.stride, p.padding, p.dilation, oh, ow].map(|extent| extent as usize);
        let mut shape = Shape { h, w, c, k, stride, padding, dilation, oh, ow, banded: 0, bands: 0, above: 0, far: false };
        if (k, stride, dilation) == (3, 1, 1) {
            // Rows whose taps are all inside, and one at either edge of the image beside them.
            let inside = shape.inside(oh, h);
            let along = |o: usize, taps| o < oh && shape.taps(o, h) == taps && w * c <= ZEROS;
            let start = inside.start - along(inside.start.wrapping_sub(1), (1, 3)) as usize;
            let end = inside.end + along(inside.end, (0, 2)) as usize;
            if !inside.is_empty() {
                let rows = end - start;
                shape.above = start;
                (shape.bands, shape.banded) = bands(rows, oh - rows, p.n as usize, workers, registers);
            }
        }
        shape
    }

    /// Units of work of an image: its bands, and its other rows.
    fn units(&self) -> usize {
        self.oh - self.banded + self.bands
    }

    /// First output row, over all images, of a unit over all images.
    fn row(&self, unit: usize) -> usize {
        let (image, unit) = (unit / self.units(), unit % self.units());
        let row = match unit.saturating_sub(self.above) {
            band if band < self.bands => unit - band + band * self.banded / self.bands,
            _ => unit - self.bands + self.banded,
        };
        image * self.oh + row
    }

    /// Outputs along an axis of that extent whose taps are all inside an input of that extent.
    fn inside(&self, outputs: usize, input: usize) -> Range<usize> {
        let from = self.padding.div_ceil(self.stride).min(outputs);
        match (input + self.padding).checked_sub((self.k - 1) * self.dilation + 1) {
            Some(last) => from..(last / self.stride + 1).clamp(from, outputs),
            None => from..from,
        }
    }

    /// Output columns whose taps are all inside.
    fn whole(&self) -> Range<usize> {
        self.inside(self.ow, self.w)
    }

    /// Taps of output `o` that fall inside an input of `extent`: a range, because positions grow with the tap.
    #[inline(always)]
    fn taps(&self, o: usize, extent: usize) -> (usize, usize) {
        let start = o * self.stride;
        let from = self.padding.saturating_sub(start).div_ceil(self.dilation);
        let to = (extent + self.padding).saturating_sub(start).div_ceil(self.dilation);
        let to = to.min(self.k);
        (from.min(to), to)
    }
}

/// Consecutive units of one worker.
struct Rows<'a, S> {
    isa: Isa,
    shape: Shape,
    x: &'a [S],
    f: &'a [S],
    /// Their output rows.
    y: &'a mut [S],
    units: Range<usize>,
    streaming: bool,
}

impl<S: Scalar> Kernel<S> for Rows<'_, S> {
    #[inline(always)]
    unsafe fn run<V: Lanes<Scalar = S>>(self) {
        // SAFETY: by the caller's promise.
        unsafe { if self.streaming { self.rows::<V, true>() } else { self.rows::<V, false>() } }
    }
}

impl<S: Scalar> Rows<'_, S> {
    #[inline(always)]
    unsafe fn rows<V: Lanes<Scalar = S>, const STREAM: bool>(self) {
        let (shape, row) = (self.shape, self.shape.ow * self.shape.c);
        let first = shape.row(self.units.start);
        let runs = if shape.bands > 0 { runs(shape, V::REGISTERS) } else { Vec::new() };
        for unit in self.units {
            let _group = tally::group();
            let (from, to) = (shape.row(unit), shape.row(unit + 1));
            let y = self.y[(from - first) * row..(to - first) * row].as_mut_ptr();
            let line = |number: usize| Line::<S>::of(&shape, self.x, self.f, number);
            // SAFETY: `y` holds the unit's rows; by the caller's promise the CPU has V.
            unsafe {
                match to - from {
                    2 => Band::<S, 2>(from_fn(|row| line(from + row))).columns::<V, STREAM>(self.isa, &runs, y),
                    3 if V::REGISTERS == 32 => Band::<S, 3>(from_fn(|row| line(from + row))).columns::<V, STREAM>(self.isa, &runs, y),
                    4 if V::REGISTERS == 32 => Band::<S, 4>(from_fn(|row| line(from + row))).columns::<V, STREAM>(self.isa, &runs, y),
                    _ => line(from).columns::<V, STREAM>(y),
                }
            }
        }
        fence();
    }
}

/// One output row: the input rows and filter rows whose taps are inside.
struct Line<'a, S> {
    shape: &'a Shape,
    /// First input row under a tap, from its column 0.
    x: *const S,
    /// Filter row of that tap.
    f: *const S,
    taps: usize,
}

impl<'a, S: Scalar> Line<'a, S> {
    #[inline(always)]
    fn of(shape: &'a Shape, x: &[S], f: &[S], number: usize) -> Self {
        let (image, y) = (number / shape.oh, number % shape.oh);
        let (from, to) = shape.taps(y, shape.h);
        if from == to {
            return Line { shape, x: x.as_ptr(), f: f.as_ptr(), taps: 0 };
        }
        let row = y * shape.stride + from * shape.dilation - shape.padding;
        let x = x[(image * shape.h + row) * shape.w * shape.c..].as_ptr();
        Line { shape, x, f: f[from * shape.k * shape.c..].as_ptr(), taps: to - from }
    }

    /// The whole row into `y`.
    #[inline(always)]
    unsafe fn columns<V: Lanes<Scalar = S>, const STREAM: bool>(&self, y: *mut S) {
        let (c, whole) = (self.shape.c, self.shape.whole());
        // SAFETY: as the caller's, for parts of the row.
        unsafe {
            for z in 0..whole.start {
                self.pixels::<V, 1, STREAM>(z, y.add(z * c));
            }
            let mut z = whole.start;
            while z + WINDOW <= whole.end {
                self.pixels::<V, WINDOW, STREAM>(z, y.add(z * c));
                z += WINDOW;
            }
            for z in z..self.shape.ow {
                self.pixels::<V, 1, STREAM>(z, y.add(z * c));
            }
        }
    }

    /// W columns from `z`, all channels. Where W is above 1, all taps of these columns are inside.
    #[inline(always)]
    unsafe fn pixels<V: Lanes<Scalar = S>, const W: usize, const STREAM: bool>(&self, z: usize, y: *mut S) {
        let s = self.shape;
        let (first, end) = s.taps(z, s.w);
        let column = (z * s.stride + first * s.dilation).saturating_sub(s.padding);
        // SAFETY: every tap in first..end of these columns is inside the image; channels stay below c.
        unsafe {
            let (x, f) = (self.x.wrapping_add(column * s.c), self.f.wrapping_add(first * s.c));
            let mut channel = 0;
            while channel + V::COUNT <= s.c {
                self.lanes::<V, W, STREAM>(x.wrapping_add(channel), f.wrapping_add(channel), end - first, y.add(channel));
                channel += V::COUNT;
            }
            if channel < s.c && s.c >= V::COUNT {
                // A last register, which overlaps the one before.
                let last = s.c - V::COUNT;
                return self.lanes::<V, W, false>(x.wrapping_add(last), f.wrapping_add(last), end - first, y.add(last));
            }
            while channel < s.c {
                self.lanes::<Wide<S, 1>, W, false>(x.wrapping_add(channel), f.wrapping_add(channel), end - first, y.add(channel));
                channel += 1;
            }
        }
    }

    /// W columns of COUNT channels: the window.
    #[inline(always)]
    unsafe fn lanes<V: Lanes<Scalar = S>, const W: usize, const STREAM: bool>(&self, x: *const S, f: *const S, taps: usize, y: *mut S) {
        let s = self.shape;
        let (row, step, next) = (s.dilation * s.w * s.c, s.dilation * s.c, s.stride * s.c);
        // SAFETY: by the caller's promise.
        unsafe {
            let mut sums = [V::splat(S::zeroed()); W];
            for r in 0..self.taps {
                let (x, f) = (x.add(r * row), f.add(r * s.k * s.c));
                for t in 0..taps {
                    let weight = V::load(f.add(t * s.c));
                    for q in 0..W {
                        sums[q] = V::load(x.add(t * step + q * next)).mul_add(weight, sums[q]);
                    }
                }
            }
            for q in 0..W {
                put::<V, STREAM>(sums[q], y.add(q * s.c));
            }
        }
    }
}

/// Stores a register past the caches, or the ordinary way.
#[inline(always)]
unsafe fn put<V: Lanes, const STREAM: bool>(value: V, to: *mut V::Scalar) {
    // SAFETY: by the caller's promise; where STREAM is set, pixels are whole lines and so every register of one is aligned.
    unsafe { if STREAM { value.stream(to) } else { value.store(to) } }
}
