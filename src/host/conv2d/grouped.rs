//! Convolutions of many narrow groups: the lanes of a register are output channels of neighbouring groups.
//!
//! A product for each group would leave most lanes of its tiles without a channel. Where a group has as many output channels as input ones and
//! registers hold whole groups, the input channels under a register of outputs lie side by side as well: one load of them gives each of its groups
//! all it sees, and [`Lanes::spread`] hands every lane channel i of its own group, which meets the lane's own filter at that channel. A group of
//! two registers loads both. Filters are transposed once, so that what the lanes meet lies side by side, and are loaded for [`COLUMNS`] outputs at
//! a time. Taps outside the image count as zeros. A unit of work is an output row.
//!
//! FLOPs over peak: a multiply-add and a permutation for each input channel of a group; a Zen 5 has two ports for either, one of them for both:
//! 0.75 of `fma`. Bytes over bandwidth: far below, as every input meets `kh · kw · width` multiply-adds. Measured on two shared cores of a Zen 5,
//! medians of interleaved samples: 0.5 of `fma` for 32 groups of 4, 8 and 16 channels (56², 28² and 14², 3×3, warm), which is 31, 10 and 4 times as
//! fast as a product for each group; 1.3 to 2.3 times for groups of 32. Blocks of 14 columns are as fast where they fit and half as fast at 7².

use std::ops::Range;

use super::turn;
use crate::host::gemm::Panels;
use crate::host::lanes::{Kernel, Lanes, Scalar, dispatch};
use crate::host::{Call, Isa, share, tally};
use crate::op::conv2d::Conv2d;
use crate::plan::{Demand, Precision, Setting};

/// A convolution whose groups are narrow, in machine integers.
#[derive(Clone, Copy)]
pub(super) struct Grouped<'a> {
    problem: &'a Conv2d,
    /// Channels of all groups, and of one.
    c: usize,
    width: usize,
    /// Depth of the sums.
    k: usize,
    /// Output rows and columns.
    oh: usize,
    ow: usize,
    /// Registers of input that a register of outputs sees.
    parts: usize,
}

/// Output columns that share what is loaded of a filter, with 32 registers and with 16: their sums and inputs stay in them.
const COLUMNS: [usize; 2] = [7, 5];

impl<'a> Grouped<'a> {
    /// The form, where it takes the problem.
    pub(super) fn of(problem: &'a Conv2d, isa: Isa, precision: Precision) -> Option<Self> {
        let lanes = isa.register_bytes() / precision.storage().bytes() as usize;
        let ((width, same), (oh, ow)) = (problem.channels(), problem.out());
        let [c, width, oh, ow] = [problem.c_in, width, oh, ow].map(|extent| extent as usize);
        let whole = problem.groups > 1 && width as u64 == same && c.is_multiple_of(lanes);
        let parts = width.div_ceil(lanes);
        let fits = lanes.is_multiple_of(width) || width == 2 * lanes;
        (whole && fits).then_some(Grouped { problem, c, width, k: problem.extents().k, oh, ow, parts })
    }

    /// The same for a plan.
    pub(super) fn planned(problem: &'a Conv2d, s: &Setting<'_>) -> Option<Self> {
        Grouped::of(problem, Isa::planned(s), s.precision)
    }

    /// Units of work: output rows.
    pub(super) fn units(&self) -> usize {
        self.problem.n as usize * self.oh
    }

    /// Requested: an output row loads the input under its taps, of the filters the rows of taps that lie inside, and stores itself. Lane: for
    /// all of its outputs the input under their taps, and these filters for every few columns.
    pub(super) fn demand(&self, s: &Setting<'_>) -> Demand {
        let (p, c) = (self.problem, self.c as u64);
        let (rows, columns) = (p.rows().inside(), p.columns());
        let blocks = self.ow.div_ceil(COLUMNS[(Isa::planned(s).registers() < 32) as usize]) as u64;
        let (filters, outputs) = (p.kw * self.width as u64, (self.oh * self.ow) as u64);
        let requested = rows * (columns.touched(self.ow as u64).0 + filters) + outputs;
        let lane = rows * (columns.inside() * self.parts as u64 + blocks * filters) + outputs;
        let bytes = s.precision.storage().bytes();
        let all = |elements: u64| bytes * p.n * c * elements;
        Demand { requested: all(requested), lane: all(lane), workspace: bytes * c * self.k as u64 }
    }

    /// The whole of it. Whether there was memory to transpose filters into; if not, nothing was done.
    pub(super) fn run<S: Scalar>(self, call: &Call<'_>) -> bool {
        let (x, f, y) = (call.input::<S>(0), call.input::<S>(1), call.output::<S>(2));
        let Some(scratch) = call.pool.scratch(size_of_val(f)) else { return false };
        let turned = Panels(scratch.start().cast::<S>());
        call.pool.run(&|worker, workers| dispatch(call.isa, Turning { form: self, f, to: &turned, part: (worker, workers) }));
        // SAFETY: the scratch holds as many, all of them written above.
        let f = unsafe { std::slice::from_raw_parts(turned.get().cast_const(), f.len()) };
        call.pool.run(&|worker, workers| {
            let rows = share(self.units(), worker, workers);
            let row = self.ow * self.c;
            // SAFETY: workers own disjoint rows.
            let y = unsafe { y.slice(rows.start * row..rows.end * row) };
            dispatch(call.isa, Rows { form: self, x, f, y, rows });
        });
        true
    }
}

/// A worker's part of the filters, transposed: for each register of output channels a row of every tap and input channel.
struct Turning<'a, S> {
    form: Grouped<'a>,
    f: &'a [S], // [c, k]
    to: &'a Panels<S>,
    part: (usize, usize),
}

impl<S: Scalar> Kernel<S> for Turning<'_, S> {
    #[inline(always)]
    unsafe fn run<V: Lanes<Scalar = S>>(self) {
        let Grouped { c, k, .. } = self.form;
        for register in share(c / V::COUNT, self.part.0, self.part.1) {
            let at = register * V::COUNT * k;
            // SAFETY: the scratch holds as many elements as the filters, and workers own disjoint registers; by the caller's promise.
            unsafe { turn::<V>(&self.f[at..], k, 0..k, self.to.get().add(at), V::COUNT) };
        }
    }
}

/// Consecutive output rows of one worker.
struct Rows<'a, S> {
    form: Grouped<'a>,
    x: &'a [S],     // [n, h, w, c]
    f: &'a [S],     // [c / COUNT, kh, kw, width, COUNT]
    y: &'a mut [S], // [rows, ow, c]
    rows: Range<usize>,
}

impl<S: Scalar> Kernel<S> for Rows<'_, S> {
    #[inline(always)]
    unsafe fn run<V: Lanes<Scalar = S>>(self) {
        // SAFETY: by the caller's promise.
        unsafe { if V::REGISTERS == 32 { self.rows::<V, { COLUMNS[0] }>() } else { self.rows::<V, { COLUMNS[1] }>() } }
    }
}

impl<S: Scalar> Rows<'_, S> {
    #[inline(always)]
    unsafe fn rows<V: Lanes<Scalar = S>, const W: usize>(self) {
        let Grouped { c, k, oh, ow, parts, .. } = self.form;
        // Channels that begin where those that a register sees do.
        let span = parts * V::COUNT;
        for (row, y) in self.rows.clone().zip(self.y.chunks_exact_mut(ow * c)) {
            let _group = tally::group();
            for channel in (0..c).step_by(V::COUNT) {
                let f = self.f[channel * k..].as_ptr();
                for z in (0..ow).step_by(W) {
                    let to = y[z * c + channel..].as_mut_ptr();
                    // SAFETY: `f` holds the register's filters and `to` what is left of its columns; by the caller's promise the CPU has V.
                    unsafe { block::<V, W>(&self.form, &self.x[channel / span * span..], f, (row / oh, row % oh, z), to) };
                }
            }
        }
    }
}

/// A register of channels of W outputs of a row, or of those that are left of it.
///
/// # Safety
/// `x` begins at the first channel that the register sees, `f` holds its filters, `y` has room for the outputs, and the CPU has V.
#[inline(always)]
unsafe fn block<V: Lanes, const W: usize>(
    form: &Grouped<'_>,
    x: &[V::Scalar],
    f: *const V::Scalar,
    (image, row, z): (usize, usize, usize),
    y: *mut V::Scalar,
) {
    let (p, c, width, parts) = (form.problem, form.c, form.width.min(V::COUNT), form.parts);
    let [h, w, kh, kw, stride, padding, dilation] = [p.h, p.w, p.kh, p.kw, p.stride, p.padding, p.dilation].map(|extent| extent as usize);
    let (zero, left) = (bytemuck::Zeroable::zeroed(), form.ow - z);
    // SAFETY: taps are loaded where they lie inside the image; by the caller's promise.
    unsafe {
        let mut sums = [V::splat(zero); W];
        for r in 0..kh {
            // Coordinates above or left of the image wrap around to far beyond it.
            let above = (row * stride + r * dilation).wrapping_sub(padding);
            if above >= h {
                continue;
            }
            let x = x.as_ptr().add((image * h + above) * w * c);
            let mut f = f.add(r * kw * form.width * V::COUNT);
            for (s, part) in (0..kw).flat_map(|s| (0..parts).map(move |part| (s, part))) {
                let mut inputs = [V::splat(zero); W];
                for q in 0..W {
                    let column = ((z + q) * stride + s * dilation).wrapping_sub(padding);
                    if q < left && column < w {
                        inputs[q] = V::load(x.add(column * c + part * V::COUNT));
                    }
                }
                for i in 0..width {
                    let filter = V::load(f);
                    for q in 0..W {
                        sums[q] = inputs[q].spread(width, i).mul_add(filter, sums[q]);
                    }
                    f = f.add(V::COUNT);
                }
            }
        }
        for q in 0..W {
            if q < left {
                sums[q].store(y.add(q * c));
            }
        }
    }
}
