//! Convolutions of many groups with few output channels, not as many as input ones: the lanes of a register are output channels of neighbouring groups.
//!
//! The inputs that its lanes meet at one tap lie as far apart as groups do. A unit is a register of output channels of a band of an image's rows; its worker
//! first copies the input under it so that channel i of every lane's own group lies side by side, zeros around the image, and then multiplies
//! registers: a filter element of each lane meets [`COLUMNS`] outputs. Filters are transposed once for all.
//!
//! FLOPs over peak: a multiply-add and a load for each input channel of a group, eight loads for seven of them: 0.87 of `fma`. The copy takes a load and a store of
//! a scalar for each lane, once for kh · kw multiply-adds; bytes over bandwidth are far below. Predicted for 12 to 2 channels, 3×3: the copy is four times the
//! arithmetic, 0.2 of `fma`. Measured on two shared cores of a Zen 5, 14×14, 384 to 64 channels in 32 groups, out of memory and of caches: 0.09 of `fma` (0.007 by a product
//! for each group): a register of the copy takes 40 cycles.

use std::ops::Range;

use super::turn;
use crate::host::gemm::Panels;
use crate::host::lanes::{Kernel, Lanes, Scalar, dispatch};
use crate::host::units::{Unit, Units};
use crate::host::{Call, Isa, Output, share, tally};
use crate::op::conv2d::Conv2d;
use crate::plan::{Demand, Precision, Setting};

/// Output columns that share what is loaded of a filter.
const COLUMNS: usize = 7;
/// Bytes of a unit's copy, which stays in a second-level cache.
const COPY: usize = 384 << 10;

/// How a convolution is cut, in machine integers.
#[derive(Clone, Copy)]
pub(super) struct Uneven<'a> {
    problem: &'a Conv2d,
    /// Input and output channels of a group.
    inner: usize,
    outer: usize,
    /// Depth of the sums.
    k: usize,
    oh: usize,
    ow: usize,
    /// Elements of a register, and registers of output channels.
    lanes: usize,
    registers: usize,
    /// Of a register each.
    units: Units,
    workers: usize,
}

impl<'a> Uneven<'a> {
    /// The form, where registers hold the outputs of several groups.
    pub(super) fn of(problem: &'a Conv2d, isa: Isa, precision: Precision, workers: usize) -> Option<Self> {
        let width = precision.storage().bytes() as usize;
        let lanes = isa.register_bytes() / width;
        let ((inner, outer), (oh, ow)) = (problem.channels(), problem.out());
        let [inner, outer, oh, ow, c] = [inner, outer, oh, ow, problem.c_out].map(|extent| extent as usize);
        if problem.groups == 1 || outer == lanes || !lanes.is_multiple_of(outer) || !c.is_multiple_of(lanes) {
            return None;
        }
        let k = problem.extents().k;
        let registers = c / lanes;
        let cut = |band: usize| Uneven {
            problem,
            inner,
            outer,
            k,
            oh,
            ow,
            lanes,
            registers,
            units: Units::new(problem.n as usize, (oh, band), registers),
            workers,
        };
        let fits = |band: &usize| cut(*band).copy(*band) * width <= COPY;
        let most = (1..=oh).rev().find(fits).unwrap_or(1);
        Some(cut(oh.div_ceil(oh.div_ceil(most))))
    }

    /// The same for a plan.
    pub(super) fn planned(problem: &'a Conv2d, s: &Setting<'_>) -> Option<Self> {
        Uneven::of(problem, Isa::planned(s), s.precision, s.device.compute_units as usize)
    }

    /// Units of work.
    pub(super) fn units(&self) -> usize {
        self.units.count()
    }

    /// Padded input rows under so many output rows, and columns under all.
    fn down(&self, rows: usize) -> usize {
        (rows - 1) * self.problem.stride as usize + (self.problem.kh - 1) as usize * self.problem.dilation as usize + 1
    }

    fn across(&self) -> usize {
        (self.ow.next_multiple_of(COLUMNS) - 1) * self.problem.stride as usize
            + (self.problem.kw - 1) as usize * self.problem.dilation as usize
            + 1
    }

    /// Elements of the copy under so many rows.
    fn copy(&self, rows: usize) -> usize {
        self.down(rows) * self.across() * self.inner * self.lanes
    }

    /// Requested: a unit loads what of its copy lies under taps, and its filters, and stores its outputs. Lane: every few columns load a filter
    /// element for each tap and channel of a group, and an input for each of them.
    pub(super) fn demand(&self, s: &Setting<'_>) -> Demand {
        let p = self.problem;
        // Input rows, or columns, under the taps of so many outputs.
        let under = |outputs: usize, taps: u64| {
            let mut at: Vec<u64> = (0..outputs as u64).flat_map(|o| (0..taps).map(move |t| o * p.stride + t * p.dilation)).collect();
            at.sort_unstable();
            at.dedup();
            at.len()
        };
        let columns = under(self.ow.next_multiple_of(COLUMNS), p.kw);
        let blocks = self.ow.div_ceil(COLUMNS);
        let (mut requested, mut lane) = (0, 0);
        for rows in self.units.all().map(|unit| unit.rows.len()) {
            requested += self.lanes * (under(rows, p.kh) * columns * self.inner + self.k);
            lane += self.lanes * rows * blocks * self.k * (COLUMNS + 1);
        }
        let outputs = p.n as usize * self.oh * self.ow * p.c_out as usize;
        let bytes = |elements: usize| s.precision.storage().bytes() * elements as u64;
        let workspace = self.registers * self.lanes * self.k + self.workers * self.copy(self.units.band());
        Demand { requested: bytes(requested + outputs), lane: bytes(lane + outputs), workspace: bytes(workspace) }
    }

    /// The whole of it. Whether there was memory to copy into; if not, nothing was done.
    pub(super) fn run<S: Scalar>(self, call: &Call<'_>) -> bool {
        let (x, f, y) = (call.input::<S>(0), call.input::<S>(1), call.output::<S>(2));
        let copy = self.copy(self.units.band());
        let Some(scratch) = call.pool.scratch((f.len() + call.pool.workers() * copy) * size_of::<S>()) else { return false };
        let packed = Panels(scratch.start().cast::<S>());
        call.pool.run(&|worker, workers| {
            dispatch(call.isa, Turning { form: &self, f, registers: share(self.registers, worker, workers), to: packed.get() });
        });
        call.pool.run(&|worker, workers| {
            let y: Output<'_, S> = y;
            // SAFETY: within the scratch, behind the filters, and this worker's own part of it.
            let own = unsafe { packed.get().add(f.len() + worker * copy) };
            for unit in share(self.units(), worker, workers) {
                let unit = self.units.at(unit);
                dispatch(call.isa, Spread { form: &self, x, unit: &unit, to: own });
                let _group = tally::group();
                dispatch(call.isa, Sums { form: &self, unit: &unit, x: own, f: packed.get(), y: y.start });
            }
        });
        true
    }
}

/// Filters of some registers of output channels, transposed: a row of lanes for every tap and input channel.
struct Turning<'a, S> {
    form: &'a Uneven<'a>,
    f: &'a [S], // [c_out, k]
    registers: Range<usize>,
    to: *mut S, // [registers, k, lanes]
}

impl<S: Scalar> Kernel<S> for Turning<'_, S> {
    #[inline(always)]
    unsafe fn run<V: Lanes<Scalar = S>>(self) {
        let k = self.form.k;
        for at in self.registers.map(|register| register * V::COUNT * k) {
            // SAFETY: the scratch holds as many elements as the filters, and workers own disjoint registers; by the caller's promise.
            unsafe { turn::<V>(&self.f[at..], k, 0..k, self.to.add(at), V::COUNT) };
        }
    }
}

/// The input under a unit: [rows, columns, channels of a group, lanes], each lane that of its own group.
struct Spread<'a, S> {
    form: &'a Uneven<'a>,
    x: &'a [S], // [n, h, w, c_in]
    unit: &'a Unit,
    to: *mut S,
}

impl<S: Scalar> Kernel<S> for Spread<'_, S> {
    #[inline(always)]
    unsafe fn run<V: Lanes<Scalar = S>>(self) {
        let Uneven { problem: p, inner, outer, .. } = *self.form;
        let [h, w, c, stride, padding] = [p.h, p.w, p.c_in, p.stride, p.padding].map(|extent| extent as usize);
        let (down, across) = (self.form.down(self.unit.rows.len()), self.form.across());
        let first = self.unit.piece * V::COUNT / outer * inner;
        // 16 lanes are the widest register.
        let group: [usize; 16] = std::array::from_fn(|lane| lane % V::COUNT / outer * inner);
        for (row, column) in (0..down).flat_map(|row| (0..across).map(move |column| (row, column))) {
            let (above, at) = ((self.unit.rows.start * stride + row).wrapping_sub(padding), column.wrapping_sub(padding));
            let inside = above < h && at < w;
            let start = if inside { ((self.unit.image * h + above) * w + at) * c + first } else { 0 };
            // Channels of all groups under the register.
            let from = if inside { &self.x[start..start + V::COUNT / outer * inner] } else { &[] };
            for i in 0..inner {
                // SAFETY: the copy has room, and `from` holds the channels of all groups; by the caller's promise.
                unsafe {
                    let to = self.to.add(((row * across + column) * inner + i) * V::COUNT);
                    match inside {
                        true => V::made(|lane| *from.as_ptr().add(group[lane] + i)).store(to),
                        false => V::splat(S::zeroed()).store(to),
                    }
                }
            }
        }
    }
}

/// The micro-kernel: a register of channels of all outputs of a unit, some columns at a time.
struct Sums<'a, S> {
    form: &'a Uneven<'a>,
    unit: &'a Unit,
    x: *const S, // the copy
    f: *const S, // [registers, k, lanes]
    y: *mut S,   // [n, oh, ow, c_out]
}

impl<S: Scalar> Kernel<S> for Sums<'_, S> {
    #[inline(always)]
    unsafe fn run<V: Lanes<Scalar = S>>(self) {
        let Uneven { problem: p, inner, k, oh, ow, .. } = *self.form;
        let [kh, kw, stride, dilation, c] = [p.kh, p.kw, p.stride, p.dilation, p.c_out].map(|extent| extent as usize);
        let across = self.form.across();
        let Unit { image, piece: register, .. } = *self.unit;
        for (number, row) in self.unit.rows.clone().enumerate() {
            for z in (0..ow).step_by(COLUMNS) {
                // SAFETY: the copy and the filters hold all that is loaded, outputs are the unit's alone; by the caller's promise.
                unsafe {
                    let mut sums = [V::splat(S::zeroed()); COLUMNS];
                    let mut f = self.f.add(register * k * V::COUNT);
                    for (r, s) in (0..kh).flat_map(|r| (0..kw).map(move |s| (r, s))) {
                        let pixel = (number * stride + r * dilation) * across + z * stride + s * dilation;
                        let mut x = self.x.add(pixel * inner * V::COUNT);
                        for _ in 0..inner {
                            let filter = V::load(f);
                            for q in 0..COLUMNS {
                                sums[q] = V::load(x.add(q * stride * inner * V::COUNT)).mul_add(filter, sums[q]);
                            }
                            (x, f) = (x.add(V::COUNT), f.add(V::COUNT));
                        }
                    }
                    let y = self.y.add(((image * oh + row) * ow + z) * c + register * V::COUNT);
                    for q in 0..COLUMNS {
                        if q < ow - z {
                            sums[q].store(y.add(q * c));
                        }
                    }
                }
            }
        }
    }
}
