//! `depthwise/window` on the host: channels across the lanes, neighbouring output columns share what is loaded.
//!
//! A worker owns consecutive output rows and walks each strip of columns after strip. 3×3 with stride 1 and padding 1: the nine filter
//! registers stay loaded while the strip's columns pass by, each input register serves three outputs (`Line::walk`). Any other filter,
//! stride, dilation and padding: six columns share every filter element (`Line::lanes`); columns that touch the padding run one by one
//! with the taps outside the image left out. Channels past the last whole register run as scalars.
//!
//! Where input and output together pass the last-level cache, a strip is staged in the first-level cache and then stored past the
//! caches in whole lines: an ordinary store would read each line first, half as much again as the traffic that counts. And the next
//! strip of the lowest input row is asked for line after line, because the walk itself goes across the lines.
//!
//! 3×3, stride 1. FLOPs over peak: 9 multiply-adds an output, 4.5 cycles an AVX2 register of eight. Bytes over bandwidth: 8 B an output,
//! 64 B a register, which at 25 GB/s and core (Zen 3, one core's copy with streaming stores) is 8 cycles. Predicted: memory is the
//! limit and the copy ceiling is reached. Measured on a busy two-core Zen 3: 0.81 of the copy ceiling (median of 9 interleaved pairs,
//! widely spread); by CPU time on one core 14 cycles a register from memory, 8 from the second-level cache, where copy takes 8 from
//! memory. The walk reads three rows from the second-level cache for each it writes, and the out-of-order window is too short to
//! overlap a strip's arithmetic with the stores of the strip before.

use super::lanes::{Kernel, Lanes, Scalar, Wide, dispatch, fence, prefetch};
use super::{Call, share};
use crate::op::depthwise::Depthwise;
use crate::plan::{Demand, Precision, Setting};

/// Output columns of a window.
const WINDOW: usize = 6;
/// Elements of a strip: 4 KiB of f32, so that its three input rows and the stage share a first-level cache.
const STRIP: usize = 1024;
/// Columns of a strip at least, however many channels there are.
const NARROW: usize = 8;
/// Elements of the stage: a strip of the least width and up to 512 channels.
const STAGE: usize = 4096;

/// Requested: every output row loads the filter and the input rows under it, and stores itself. Lane: inside a window each filter
/// element is loaded once for six outputs.
pub(crate) fn demand(p: &Depthwise, s: &Setting<'_>) -> Demand {
    let bytes = s.precision.storage().bytes();
    let (oh, ow) = p.out();
    let inside =
        |o: u64, input: u64| (0..p.k).filter(|r| (p.padding..input + p.padding).contains(&(o * p.stride + r * p.dilation))).count();
    let rows: u64 = (0..oh).map(|y| inside(y, p.h) as u64).sum();
    let columns: u64 = (0..ow).map(|z| inside(z, p.w) as u64).sum();
    let whole: u64 = (0..ow).filter(|&z| inside(z, p.w) as u64 == p.k).count() as u64;
    let requested = p.n * (rows * p.w + oh * (p.k * p.k + ow)) * p.c;
    let filter = rows * (whole.div_ceil(WINDOW as u64) * p.k + columns - whole * p.k);
    let lane = p.n * (rows * columns + filter + oh * ow) * p.c;
    Demand { requested: bytes * requested, lane: bytes * lane.max(requested) }
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
    let (oh, ow) = p.out();
    let (rows, row) = ((p.n * oh) as usize, ow as usize * p.c as usize);
    let streaming = size_of_val(x) + rows * row * size_of::<S>() > call.pool.llc_bytes() as usize;
    call.pool.run(&|worker, workers| {
        let mine = share(rows, worker, workers);
        // SAFETY: workers own disjoint rows.
        let y = unsafe { out.slice(mine.start * row..mine.end * row) };
        let shape = Shape::of(p);
        dispatch(call.isa, Rows { shape, x, f, y, first: mine.start, streaming });
    });
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
}

impl Shape {
    fn of(p: &Depthwise) -> Self {
        let (oh, ow) = p.out();
        let [h, w, c, k, stride, padding, dilation, oh, ow] =
            [p.h, p.w, p.c, p.k, p.stride, p.padding, p.dilation, oh, ow].map(|extent| extent as usize);
        Shape { h, w, c, k, stride, padding, dilation, oh, ow }
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

/// Consecutive output rows of one worker.
struct Rows<'a, S> {
    shape: Shape,
    x: &'a [S],
    f: &'a [S],
    y: &'a mut [S],
    /// Number of the first row over all images.
    first: usize,
    streaming: bool,
}

impl<S: Scalar> Kernel<S> for Rows<'_, S> {
    #[inline(always)]
    unsafe fn run<V: Lanes<Scalar = S>>(self) {
        // SAFETY: by the caller's promise.
        unsafe { self.rows::<V>() }
    }
}

impl<S: Scalar> Rows<'_, S> {
    #[inline(always)]
    unsafe fn rows<V: Lanes<Scalar = S>>(self) {
        let shape = self.shape;
        let (c, row) = (shape.c, shape.ow * shape.c);
        let mut stage = Stage([S::zeroed(); STAGE]);
        let strip = (STRIP / c).clamp(NARROW, shape.ow.max(NARROW));
        let staged = self.streaming && strip * c <= STAGE;
        for (number, y) in self.y.chunks_exact_mut(row).enumerate() {
            let line = Line::<S>::of(&shape, self.x, self.f, self.first + number, self.streaming);
            for from in (0..shape.ow).step_by(strip) {
                let to = (from + strip).min(shape.ow);
                let y = &mut y[from * c..to * c];
                // SAFETY: `y`, and the stage where it is used, hold the strip's columns; by the caller's promise the CPU has V.
                unsafe {
                    if staged {
                        line.columns::<V>(from, to, stage.0.as_mut_ptr());
                        flush::<V>(&stage.0[..y.len()], y);
                    } else {
                        line.columns::<V>(from, to, y.as_mut_ptr());
                    }
                }
            }
        }
        fence();
    }
}

/// A tile of outputs, aligned to lines.
#[repr(align(64))]
struct Stage<S>([S; STAGE]);

/// Copies a tile out past the caches; elements before the first and after the last whole line go the ordinary way.
#[inline(always)]
unsafe fn flush<V: Lanes>(from: &[V::Scalar], to: &mut [V::Scalar]) {
    let line = 64 / size_of::<V::Scalar>();
    let head = ((to.as_ptr().addr().next_multiple_of(64) - to.as_ptr().addr()) / size_of::<V::Scalar>()).min(to.len());
    let end = head + (to.len() - head) / line * line;
    to[..head].copy_from_slice(&from[..head]);
    for i in (head..end).step_by(V::COUNT) {
        // SAFETY: COUNT divides a line, so i + COUNT ≤ end; `to` is aligned to a line at `head`.
        unsafe { V::load(from.as_ptr().add(i)).stream(to.as_mut_ptr().add(i)) };
    }
    to[end..].copy_from_slice(&from[end..]);
}

/// One output row: the input rows and filter rows whose taps are inside.
struct Line<'a, S> {
    shape: &'a Shape,
    /// First input row under a tap, from its column 0.
    x: *const S,
    /// Filter row of that tap, and its number.
    f: *const S,
    first: usize,
    taps: usize,
    /// Whether the next row's input is worth asking for.
    ahead: bool,
}

impl<'a, S: Scalar> Line<'a, S> {
    #[inline(always)]
    fn of(shape: &'a Shape, x: &[S], f: &[S], number: usize, ahead: bool) -> Self {
        let (image, y) = (number / shape.oh, number % shape.oh);
        let (from, to) = shape.taps(y, shape.h);
        if from == to {
            return Line { shape, x: x.as_ptr(), f: f.as_ptr(), first: 0, taps: 0, ahead };
        }
        let row = y * shape.stride + from * shape.dilation - shape.padding;
        let x = x[(image * shape.h + row) * shape.w * shape.c..].as_ptr();
        Line { shape, x, f: f[from * shape.k * shape.c..].as_ptr(), first: from, taps: to - from, ahead }
    }

    /// Output columns `from..to` into `y`.
    #[inline(always)]
    unsafe fn columns<V: Lanes<Scalar = S>>(&self, from: usize, to: usize, y: *mut S) {
        let s = self.shape;
        if (s.k, s.stride, s.dilation, s.padding) == (3, 1, 1, 1) && self.taps > 0 {
            // SAFETY: as the caller's.
            return unsafe { if self.taps == 3 { self.walks::<V, true>(from, to, y) } else { self.walks::<V, false>(from, to, y) } };
        }
        // Columns whose taps are all inside.
        let reach = (s.k - 1) * s.dilation;
        let left = s.padding.div_ceil(s.stride).clamp(from, to);
        let right = match (s.w + s.padding).checked_sub(reach + 1) {
            Some(last) => (last / s.stride + 1).clamp(left, to),
            None => left,
        };
        // SAFETY: as the caller's, for parts of the range.
        unsafe {
            for z in from..left {
                self.pixels::<V, 1>(z, y.add((z - from) * s.c));
            }
            let mut z = left;
            while z + WINDOW <= right {
                self.pixels::<V, WINDOW>(z, y.add((z - from) * s.c));
                z += WINDOW;
            }
            for z in z..to {
                self.pixels::<V, 1>(z, y.add((z - from) * s.c));
            }
        }
    }

    /// W columns from `z`, all channels. Where W is above 1, all taps of these columns are inside.
    #[inline(always)]
    unsafe fn pixels<V: Lanes<Scalar = S>, const W: usize>(&self, z: usize, y: *mut S) {
        let s = self.shape;
        let (first, end) = s.taps(z, s.w);
        let column = (z * s.stride + first * s.dilation).saturating_sub(s.padding);
        // SAFETY: every tap in first..end of these columns is inside the image; channels stay below c.
        unsafe {
            let (x, f) = (self.x.wrapping_add(column * s.c), self.f.wrapping_add(first * s.c));
            let mut channel = 0;
            while channel + V::COUNT <= s.c {
                self.lanes::<V, W>(x.wrapping_add(channel), f.wrapping_add(channel), end - first, y.add(channel));
                channel += V::COUNT;
            }
            while channel < s.c {
                self.lanes::<Wide<S, 1>, W>(x.wrapping_add(channel), f.wrapping_add(channel), end - first, y.add(channel));
                channel += 1;
            }
        }
    }

    /// W columns of COUNT channels: the window.
    #[inline(always)]
    unsafe fn lanes<V: Lanes<Scalar = S>, const W: usize>(&self, x: *const S, f: *const S, taps: usize, y: *mut S) {
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
                sums[q].store(y.add(q * s.c));
            }
        }
    }

    /// 3×3, stride 1, padding 1: output columns `from..to`, all channels.
    #[inline(always)]
    unsafe fn walks<V: Lanes<Scalar = S>, const FULL: bool>(&self, from: usize, to: usize, y: *mut S) {
        let c = self.shape.c;
        // The column of the first tap, which is -1 for output 0 and then not read.
        let x = self.x.wrapping_add(from * c).wrapping_sub(c);
        let mut channel = 0;
        // SAFETY: as the caller's; channels stay below c.
        unsafe {
            while channel + V::COUNT <= c {
                self.walk::<V, FULL>(x.wrapping_add(channel), self.f.add(channel), (from, to), channel, y.add(channel));
                channel += V::COUNT;
            }
            while channel < c {
                self.walk::<Wide<S, 1>, FULL>(x.wrapping_add(channel), self.f.add(channel), (from, to), channel, y.add(channel));
                channel += 1;
            }
        }
    }

    /// Nine filter registers, and two sums that wait for the columns to come. The three products of a column are summed by
    /// themselves, so that no column waits for the one before. Unless FULL, a filter row outside the image has zero weights and
    /// reads a row inside.
    #[inline(always)]
    unsafe fn walk<V: Lanes<Scalar = S>, const FULL: bool>(
        &self,
        x: *const S,
        f: *const S,
        (from, to): (usize, usize),
        channel: usize,
        y: *mut S,
    ) {
        let (c, row) = (self.shape.c, self.shape.w * self.shape.c);
        // SAFETY: by the caller's promise; a prefetch may name any address.
        unsafe {
            let zero = V::splat(S::zeroed());
            let (mut weight, mut offset) = ([zero; 9], [0; 3]);
            for r in 0..3 {
                if FULL || (self.first..self.first + self.taps).contains(&r) {
                    let tap = if FULL { r } else { r - self.first };
                    offset[r] = tap * row;
                    for s in 0..3 {
                        weight[3 * r + s] = V::load(f.add((tap * 3 + s) * c));
                    }
                }
            }
            let mut at = x;
            // Sum over the input column at `at` with filter column s.
            macro_rules! column {
                ($s:literal) => {{
                    let first = V::load(at.add(offset[0])).mul(weight[$s]);
                    let second = V::load(at.add(offset[1])).mul_add(weight[3 + $s], first);
                    V::load(at.add(offset[2])).mul_add(weight[6 + $s], second)
                }};
            }
            // The next output has seen two columns, the one after it one.
            let left = if from == 0 { zero } else { column!(0) };
            at = at.wrapping_add(c);
            let mut next = left.add(column!(1));
            let mut after = column!(0);
            let mut out = y;
            // The next strip's part of the row that this output row reads first, line after line, so that the hardware sees a stream.
            let mut soon = at.wrapping_add(offset[2] + (to - from) * c - channel + channel * (to - from));
            for _ in from + 1..to {
                at = at.add(c);
                if self.ahead {
                    prefetch(soon);
                    soon = soon.wrapping_add(V::COUNT);
                }
                next.add(column!(2)).store(out);
                next = after.add(column!(1));
                after = column!(0);
                out = out.add(c);
            }
            if to < self.shape.w {
                at = at.add(c);
                next = next.add(column!(2));
            }
            next.store(out);
        }
    }
}
