//! Depthwise convolution, NHWC: every channel has a k×k filter of its own (filters RSC), zero padding.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::window::Axis;
use super::{Definition, Entry, OpRole, Real, TensorSpec, Tensors, parse_over};
use crate::error::{Error, Result};
use crate::host;
use crate::plan::{
    Conv, Demand, Dispatch, FilterLayout, Implementation, Language, Library, Precision, Routine, Setting, Source, Tunable, Unit, Variant,
    fold,
};

/// A depthwise convolution: `y[n,oh,ow,c] = Σ_rs x[n, oh·stride + r·dilation − padding, …, c] · f[r,s,c]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Depthwise {
    /// Images.
    pub n: u64,
    /// Input rows.
    pub h: u64,
    /// Input columns.
    pub w: u64,
    /// Channels.
    pub c: u64,
    /// Filter extent in both directions.
    pub k: u64,
    /// Step between outputs in both directions.
    pub stride: u64,
    /// Zeros around the input on every side.
    pub padding: u64,
    /// Step between filter taps.
    pub dilation: u64,
}

impl Depthwise {
    /// k×k with "same" padding and stride 1.
    pub const fn same(n: u64, h: u64, w: u64, c: u64, k: u64) -> Self {
        Depthwise { n, h, w, c, k, stride: 1, padding: k / 2, dilation: 1 }
    }

    fn axis(&self, input: u64) -> Axis {
        Axis { input, taps: self.k, stride: self.stride, padding: self.padding, dilation: self.dilation }
    }

    /// Distinct input columns, and distinct filter columns with one inside, under a whole output row.
    pub(crate) fn columns_touched(&self) -> (u64, u64) {
        self.axis(self.w).touched(self.out().1)
    }

    /// Output rows and columns; `tensors` has refused problems that have none.
    pub fn out(&self) -> (u64, u64) {
        (self.axis(self.h).outputs().unwrap_or(0), self.axis(self.w).outputs().unwrap_or(0))
    }
}

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: Depthwise::NAME,
    role: OpRole::Kernel,
    fields: &["n", "h", "w", "c", "k", "stride", "padding", "dilation"],
    parse: |fields| parse_over(ENTRY.fields, &Depthwise::same(1, 56, 56, 128, 3), fields),
    awkward: || {
        let case = |n: u64, h: u64, w: u64, c: u64, k: u64, stride: u64, padding: u64, dilation: u64| json!({"n": n, "h": h, "w": w, "c": c, "k": k, "stride": stride, "padding": padding, "dilation": dilation});
        vec![
            case(1, 1, 1, 1, 1, 1, 0, 1),
            case(1, 5, 7, 3, 3, 1, 1, 1),
            case(2, 9, 4, 17, 3, 2, 1, 1),
            case(1, 12, 13, 33, 5, 1, 2, 1),
            case(1, 15, 11, 8, 3, 1, 2, 2),
            case(3, 8, 8, 64, 3, 1, 0, 1),
            case(1, 17, 19, 5, 7, 3, 3, 1),
            case(1, 6, 40, 130, 3, 1, 1, 1),
            case(1, 9, 14, 16, 3, 2, 1, 1),
            case(2, 11, 13, 8, 3, 3, 1, 1),
            // The large filters of recent networks.
            case(1, 10, 12, 4, 9, 1, 4, 1),
            case(1, 9, 33, 12, 13, 2, 6, 1),
            case(1, 17, 21, 5, 31, 1, 15, 1),
            // Enough work for long strips in WGSL, without and with a stride.
            case(1, 40, 33, 64, 3, 1, 1, 1),
            case(1, 66, 70, 32, 3, 2, 1, 1),
            // Enough strips down columns for every compute unit of a large device.
            case(2, 90, 61, 128, 3, 1, 1, 1),
        ]
    },
};

impl Definition for Depthwise {
    const NAME: &'static str = "depthwise";
    const ROLE: OpRole = OpRole::Kernel;
    const VARIANTS: &'static [Variant<Self>] = &[NAIVE, VECTORIZED, WINDOW, CUDNN];

    fn tensors(&self, precision: Precision) -> Result<Vec<TensorSpec>> {
        let dtype = precision.storage();
        if self.stride == 0 || self.dilation == 0 || self.k == 0 {
            return Err(Error::usage(format!(
                "depthwise: stride {}, dilation {} and k {} must be at least 1",
                self.stride, self.dilation, self.k
            )));
        }
        let (Some(oh), Some(ow)) = (self.axis(self.h).outputs(), self.axis(self.w).outputs()) else {
            return Err(Error::usage(format!(
                "depthwise: a {0}x{0} filter with dilation {1} does not fit the {2}x{3} input with padding {4}; make k smaller or padding larger",
                self.k, self.dilation, self.h, self.w, self.padding
            )));
        };
        Ok(vec![
            TensorSpec::input("x", &[self.n, self.h, self.w, self.c], dtype),
            TensorSpec::weight("f", &[self.k, self.k, self.c], dtype),
            TensorSpec::output("y", &[self.n, oh, ow, self.c], dtype),
        ])
    }

    fn macs(&self) -> u64 {
        let (oh, ow) = self.out();
        self.n * oh * ow * self.c * self.k * self.k
    }

    fn row<R: Real, T: Tensors>(&self, x: &T, row: u64, cols: Range<u64>, out: &mut [R]) {
        let (oh, ow) = self.out();
        let (image, y, z) = (row / (oh * ow), row / ow % oh, row % ow);
        let zero = R::from_f64(0.0);
        out.fill(zero);
        for (r, s) in (0..self.k).flat_map(|r| (0..self.k).map(move |s| (r, s))) {
            let (h, w) = (y * self.stride + r * self.dilation, z * self.stride + s * self.dilation);
            let inside = h >= self.padding && w >= self.padding && h < self.h + self.padding && w < self.w + self.padding;
            let (taps, filter) = (out.iter_mut().zip(cols.clone()), (r * self.k + s) * self.c);
            match inside.then(|| ((image * self.h + h - self.padding) * self.w + w - self.padding) * self.c) {
                Some(at) => taps.for_each(|(acc, c)| *acc = acc.mac(x.at(0, at + c), x.at(1, filter + c))),
                // A padding tap multiplies by zero and counts as work.
                None => taps.for_each(|(acc, c)| *acc = acc.mac(zero, x.at(1, filter + c))),
            }
        }
    }

    fn dims(&self) -> Vec<(&'static str, u64)> {
        let (oh, ow) = self.out();
        vec![
            ("n", self.n),
            ("h", self.h),
            ("w", self.w),
            ("c", self.c),
            ("oh", oh),
            ("ow", ow),
            ("k", self.k),
            ("stride", self.stride),
            ("padding", self.padding),
            ("dilation", self.dilation),
        ]
    }

    /// See the same for matmul: k² products a sum.
    fn exact(&self) -> bool {
        self.k <= 64
    }

    fn label(&self) -> String {
        let mut label = format!("{}x{}x{}x{} k{}", self.n, self.h, self.w, self.c, self.k);
        if self.stride != 1 {
            label += &format!(" s{}", self.stride);
        }
        if self.dilation != 1 {
            label += &format!(" d{}", self.dilation);
        }
        if self.padding != self.k / 2 {
            label += &format!(" p{}", self.padding);
        }
        label
    }
}

/// One output element a lane, channels fastest: the definition itself on the host.
const NAIVE: Variant<Depthwise> = Variant {
    name: "naive",
    unit: Unit::Vector,
    sources: &[
        Implementation { source: Source::Host(host::naive), precisions: &[Precision::F32, Precision::F64], tunables: &[] },
        Implementation {
            source: Source::Wgsl(include_str!("../../shaders/depthwise/naive.wgsl")),
            precisions: &[Precision::F32, Precision::F16],
            tunables: &[],
        },
        Implementation {
            source: Source::Cuda(include_str!("../../kernels/depthwise/naive.cu")),
            precisions: &[Precision::F32, Precision::F16, Precision::BF16],
            tunables: &[],
        },
    ],
    dispatches: |p, _| {
        let (oh, ow) = p.out();
        vec![Dispatch::over(3, "depthwise", fold((p.n * oh * ow * p.c).div_ceil(256)), [256, 1, 1])]
    },
    demand: |p, s| naive_demand(p, s),
};

/// One output pixel a lane, in vectors of channels.
const VECTORIZED: Variant<Depthwise> = Variant {
    name: "vectorized",
    unit: Unit::Vector,
    sources: &[Implementation {
        source: Source::Cuda(include_str!("../../kernels/depthwise/vectorized.cu")),
        precisions: &[Precision::F32, Precision::F16, Precision::BF16],
        tunables: &[],
    }],
    dispatches: |p, s| {
        let (oh, ow) = p.out();
        let entry = if p.width(s) == 1 { "single" } else { "vector" };
        vec![Dispatch::over(3, entry, fold((p.n * oh * ow * p.c / p.width(s)).div_ceil(256)), [256, 1, 1])]
    },
    demand: |p, s| pixel_demand(p, s, p.c / p.width(s)),
};

/// A window in registers along a strip: filters, and with k = 3 the sliding inputs, are loaded once a strip.
const WINDOW: Variant<Depthwise> = Variant {
    name: "window",
    unit: Unit::Vector,
    sources: &[
        Implementation { source: Source::Host(host::depthwise::window), precisions: &[Precision::F32, Precision::F64], tunables: &[] },
        Implementation {
            source: Source::Wgsl(include_str!("../../shaders/depthwise/window.wgsl")),
            precisions: &[Precision::F32, Precision::F16],
            tunables: &[Tunable { name: "LANES", values: &[1024, 16384, 262_144] }, Tunable { name: "BLOCK", values: &[64, 256] }],
        },
        Implementation {
            source: Source::Cuda(include_str!("../../kernels/depthwise/window.cu")),
            precisions: &[Precision::F32, Precision::F16, Precision::BF16],
            tunables: &[
                Tunable { name: "DOWN", values: &[1, 0] },
                Tunable { name: "STRIP", values: &[8, 16, 4] },
                // With some 160 registers a lane three groups of 128 fit on a processor, one of 256.
                Tunable { name: "BLOCK", values: &[128, 256] },
            ],
        },
    ],
    dispatches: |p, s| {
        let (oh, ow) = p.out();
        if s.language == Language::Host {
            return vec![Dispatch::over(3, "window", fold(host::depthwise::groups(p, s)), [1, 1, 1])];
        }
        let block = s.tuned.get("BLOCK");
        if p.goes_down(s) {
            return vec![Dispatch::over(3, "down", fold(p.lanes_down(s).div_ceil(block as u64)), [block, 1, 1])];
        }
        let strips = p.n * oh * ow.div_ceil(p.strip(s)) * p.c.div_ceil(p.width(s));
        let entry = match p.width(s) {
            1 => "single",
            _ if p.slides() => "three",
            _ => "strip",
        };
        vec![Dispatch::over(3, entry, fold(strips.div_ceil(block as u64)), [block, 1, 1])]
    },
    demand: |p, s| match s.language {
        Language::Host => host::depthwise::demand(p, s),
        _ if p.goes_down(s) => down_demand(p, s),
        _ => window_demand(p, s),
    },
};

/// The vendor's convolution with a group for every channel, by its implicit product.
const CUDNN: Variant<Depthwise> = Variant {
    name: "cudnn",
    unit: Unit::Library,
    sources: &[Implementation {
        source: Source::Library(Library::Cudnn, conv),
        precisions: &[Precision::F32, Precision::F16],
        tunables: &[],
    }],
    dispatches: |_, _| vec![Dispatch::library(3, "cudnnConvolutionForward")],
    demand: |_, _| Demand::NONE,
};

fn conv(p: &Depthwise) -> Routine {
    let (oh, ow) = p.out();
    let &Depthwise { n, h, w, c, k, stride, padding, dilation } = p;
    let filter = FilterLayout::Rsc;
    Routine::Conv(Conv { n, h, w, c_in: c, oh, ow, c_out: c, kh: k, kw: k, stride, padding, dilation, groups: c, filter })
}

impl Depthwise {
    /// Channels that a lane of `window` holds: vector loads (of 16 bytes in CUDA) need every pixel to start on a vector.
    fn width(&self, s: &Setting<'_>) -> u64 {
        let vector = if s.language == Language::Wgsl { 4 } else { 16 / s.precision.storage().bytes() };
        if self.c.is_multiple_of(vector) { vector } else { 1 }
    }

    /// Outputs that a lane of `window` holds. In WGSL as many as leave `LANES` lanes, at most 16, in fours where it does not slide.
    fn strip(&self, s: &Setting<'_>) -> u64 {
        if s.language == Language::Cuda {
            return s.tuned.get("STRIP") as u64;
        }
        let (oh, ow) = self.out();
        let outputs = self.n * oh * ow * self.c.div_ceil(self.width(s));
        let length = (outputs / s.tuned.get("LANES") as u64).clamp(1, 16);
        if self.width(s) > 1 && self.slides() { length } else { length.next_multiple_of(4) }
    }

    /// Whether lanes of `window` go down a column: where they are two warps for every compute unit.
    fn goes_down(&self, s: &Setting<'_>) -> bool {
        let can = s.language == Language::Cuda && self.slides() && self.stride == 1 && self.c.is_multiple_of(ACROSS);
        can && s.tuned.get("DOWN") == 1 && self.lanes_down(s) >= 64 * s.device.compute_units as u64
    }

    /// Lanes that go down strips, `ACROSS` columns and as many channels each.
    fn lanes_down(&self, s: &Setting<'_>) -> u64 {
        let (oh, ow) = self.out();
        self.n * oh.div_ceil(self.strip(s)) * ow.div_ceil(ACROSS) * (self.c / ACROSS)
    }

    /// Whether `window` can keep the whole filter and a sliding 3×3 window in registers.
    fn slides(&self) -> bool {
        self.k == 3 && self.dilation == 1
    }
}

/// Columns, and channels, of a lane of `window` that goes down.
const ACROSS: u64 = 4;

fn naive_demand(p: &Depthwise, s: &Setting<'_>) -> Demand {
    if s.language != Language::Host {
        return pixel_demand(p, s, p.c);
    }
    // A task is the channels of an output pixel. Taps outside load their filter element too.
    let (oh, ow) = p.out();
    let outputs = p.n * oh * ow * p.c;
    let taps = p.n * p.c * p.axis(p.h).inside() * p.axis(p.w).inside();
    let bytes = s.precision.storage().bytes() * (taps + outputs * p.k * p.k + outputs);
    Demand::new(bytes, bytes)
}

/// A group is 256 consecutive outputs in `units` of channels, those fastest; each loads every tap inside the image and its filter element.
fn pixel_demand(p: &Depthwise, s: &Setting<'_>, units: u64) -> Demand {
    let (oh, ow) = p.out();
    let taps = p.n * p.c * p.axis(p.h).inside() * p.axis(p.w).inside();
    let width = s.precision.storage().bytes();
    Demand::new(width * grouped(p, 256 / units.min(256), false), width * (2 * taps + p.n * oh * ow * p.c))
}

/// Strips go down `STRIP` rows; a group's lie side by side, taken not to cross the image's edge.
fn down_demand(p: &Depthwise, s: &Setting<'_>) -> Demand {
    let (oh, ow) = p.out();
    let (strip, side) = (p.strip(s), s.tuned.get("BLOCK") as u64 / (p.c / ACROSS).min(s.tuned.get("BLOCK") as u64));
    let (down, across) = (oh.div_ceil(strip), ow.div_ceil(ACROSS));
    let width = s.precision.storage().bytes();
    let bytes = |columns: u64, runs: u64| width * p.n * p.c * (p.axis(p.h).touched(strip).0 * columns + 9 * down * runs + oh * ow);
    Demand::new(bytes(p.axis(p.w).touched(ACROSS * side).0, across.div_ceil(side)), bytes(p.axis(p.w).touched(ACROSS).0, across))
}

fn window_demand(p: &Depthwise, s: &Setting<'_>) -> Demand {
    let (strip, block) = (p.strip(s), s.tuned.get("BLOCK") as u64);
    // CUDA also loads the columns after a strip's last output.
    let after = (s.language == Language::Cuda) as u64;
    let (oh, ow) = p.out();
    let outputs = p.n * oh * ow * p.c;
    let rows = p.axis(p.h).inside();
    let is_inside = |w: u64| (p.padding..p.w + p.padding).contains(&w) as u64;
    let (mut columns, mut filters) = (0, 0);
    for first in (0..ow).step_by(strip as usize) {
        let end = (first + strip).min(ow);
        if p.width(s) > 1 && p.slides() {
            // Three columns to begin with, then min(stride, 3) new ones for each output after the first.
            columns += (0..3).map(|s| is_inside(first * p.stride + s)).sum::<u64>();
            let fresh = |o: u64| (3 - p.stride.min(3)..3).map(|s| is_inside(o * p.stride + s)).sum::<u64>();
            columns += (first + 1..end + after).map(fresh).sum::<u64>();
            filters += 9;
        } else {
            // Four outputs at a time, each with all its taps.
            let taps = |o: u64| (0..p.k).map(|s| is_inside(o * p.stride + s * p.dilation)).sum::<u64>();
            columns += (first..first + (end - first).next_multiple_of(4)).map(taps).sum::<u64>();
            filters += p.k * p.k * (end - first).div_ceil(4);
        }
    }
    let width = s.precision.storage().bytes();
    let lane = width * (p.n * p.c * rows * columns + p.n * oh * p.c * filters + outputs);
    let units = p.c.div_ceil(p.width(s));
    Demand::new(width * grouped(p, strip * (block / units.min(block)), true), lane)
}

/// Distinct elements of groups that cover `positions` neighbouring outputs of a row, and channels beside them: the input columns
/// that each such run touches, the filter taps it loads, the outputs. Runs are taken not to cross rows.
fn grouped(p: &Depthwise, positions: u64, whole_filter: bool) -> u64 {
    let (oh, ow) = p.out();
    let rows = p.axis(p.h).inside();
    let (columns, used) = p.axis(p.w).touched(positions);
    let taps = if whole_filter { oh * p.k * p.k * ow.div_ceil(positions) } else { rows * used };
    p.n * p.c * (rows * columns + taps + oh * ow)
}
