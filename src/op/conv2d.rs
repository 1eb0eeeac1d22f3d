//! Convolution, NHWC with filters KRSC, zero padding; `groups` cuts the channels into parts that see nothing of each other.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::window::Axis;
use super::{Definition, Entry, OpRole, Real, TensorSpec, Tensors, parse_over};
use crate::draw::Drawn;
use crate::error::{Error, Result};
use crate::host::gemm::Extents;
use crate::plan::{Precision, Variant};

mod variants;

/// A convolution: `y[n,oh,ow,o] = Σ_rsc x[n, oh·stride + r·dilation − padding, …, c] · f[o,r,s,c]`, c over the input channels of o's group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Fields", into = "Fields")]
pub struct Conv2d {
    /// Images.
    pub n: u64,
    /// Input rows.
    pub h: u64,
    /// Input columns.
    pub w: u64,
    /// Input channels.
    pub c_in: u64,
    /// Output channels.
    pub c_out: u64,
    /// Filter rows.
    pub kh: u64,
    /// Filter columns.
    pub kw: u64,
    /// Step between outputs in both directions.
    pub stride: u64,
    /// Zeros around the input on every side.
    pub padding: u64,
    /// Step between filter taps.
    pub dilation: u64,
    /// Groups of channels; divides both channel counts.
    pub groups: u64,
}

/// The problem as it stands in records: a square filter is `k`, any other `kh` and `kw`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    n: u64,
    h: u64,
    w: u64,
    c_in: u64,
    c_out: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    k: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kh: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    kw: Option<u64>,
    stride: u64,
    padding: u64,
    dilation: u64,
    groups: u64,
}

impl From<Fields> for Conv2d {
    fn from(f: Fields) -> Self {
        let extent = |own: Option<u64>| own.or(f.k).unwrap_or(0);
        let (kh, kw) = (extent(f.kh), extent(f.kw));
        let Fields { n, h, w, c_in, c_out, stride, padding, dilation, groups, .. } = f;
        Conv2d { n, h, w, c_in, c_out, kh, kw, stride, padding, dilation, groups }
    }
}

impl From<Conv2d> for Fields {
    fn from(p: Conv2d) -> Self {
        let square = p.kh == p.kw;
        let Conv2d { n, h, w, c_in, c_out, kh, kw, stride, padding, dilation, groups } = p;
        let (k, kh, kw) = if square { (Some(kh), None, None) } else { (None, Some(kh), Some(kw)) };
        Fields { n, h, w, c_in, c_out, k, kh, kw, stride, padding, dilation, groups }
    }
}

impl Conv2d {
    /// k×k with "same" padding, stride 1, one group.
    pub const fn same(n: u64, hw: u64, c_in: u64, c_out: u64, k: u64) -> Self {
        Conv2d { n, h: hw, w: hw, c_in, c_out, kh: k, kw: k, stride: 1, padding: k / 2, dilation: 1, groups: 1 }
    }

    /// The filter along an image's rows.
    pub(crate) fn rows(&self) -> Axis {
        Axis { input: self.h, taps: self.kh, stride: self.stride, padding: self.padding, dilation: self.dilation }
    }

    /// The filter along its columns.
    pub(crate) fn columns(&self) -> Axis {
        Axis { input: self.w, taps: self.kw, stride: self.stride, padding: self.padding, dilation: self.dilation }
    }

    /// Output rows and columns; `tensors` has refused problems that have none.
    pub fn out(&self) -> (u64, u64) {
        (self.rows().outputs().unwrap_or(0), self.columns().outputs().unwrap_or(0))
    }

    /// Input and output channels of one group.
    pub fn channels(&self) -> (u64, u64) {
        (self.c_in / self.groups, self.c_out / self.groups)
    }

    /// Products that an output sums.
    fn depth(&self) -> u64 {
        self.kh * self.kw * self.channels().0
    }

    /// The matrix product that each group is: a row for every output pixel, a column for every output channel.
    pub(crate) fn extents(&self) -> Extents {
        let (oh, ow) = self.out();
        Extents { m: (self.n * oh * ow) as usize, n: self.channels().1 as usize, k: self.depth() as usize }
    }
}

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: Conv2d::NAME,
    role: OpRole::Kernel,
    fields: &["n", "h", "w", "c_in", "c_out", "k", "kh", "kw", "stride", "padding", "dilation", "groups"],
    parse: |fields| parse_over(ENTRY.fields, &Conv2d::same(1, 28, 128, 128, 3), fields),
    awkward: || {
        let case = |[n, h, w, c_in, c_out, k, stride, padding, dilation, groups]: [u64; 10]| json!({"n": n, "h": h, "w": w, "c_in": c_in, "c_out": c_out, "k": k, "stride": stride, "padding": padding, "dilation": dilation, "groups": groups});
        let mut cases: Vec<_> = [
            [1, 1, 1, 1, 1, 1, 1, 0, 1, 1],
            [1, 5, 7, 3, 5, 3, 1, 1, 1, 1],
            [2, 9, 4, 8, 12, 3, 2, 1, 1, 1],
            [1, 12, 13, 4, 33, 5, 1, 2, 1, 1],
            [1, 15, 11, 8, 16, 3, 1, 2, 2, 2],
            [3, 8, 8, 16, 24, 1, 1, 0, 1, 1],
            [1, 17, 19, 6, 9, 7, 3, 3, 1, 3],
            [1, 5, 6, 7, 7, 3, 1, 1, 1, 7],
            [1, 6, 40, 64, 70, 3, 1, 1, 1, 1],
            // Vectors of every width within a group, several tiles of pixels and of channels.
            [2, 13, 9, 32, 48, 3, 1, 2, 2, 2],
            // Whole groups in registers of every width, several in one, one in two; more columns than a block, not a multiple of them.
            [2, 6, 9, 32, 32, 3, 2, 1, 1, 8],
            [1, 7, 10, 16, 16, 3, 1, 2, 2, 4],
            [1, 3, 8, 64, 64, 3, 1, 1, 1, 2],
            // More channels than the widest tile of any kernel takes at once.
            [1, 4, 6, 128, 20, 3, 2, 1, 1, 1],
        ]
        .map(case)
        .into();
        cases.push(
            json!({"n": 2, "h": 3, "w": 9, "c_in": 4, "c_out": 6, "kh": 1, "kw": 5, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}),
        );
        cases
    },
};

impl Definition for Conv2d {
    const NAME: &'static str = "conv2d";
    const ROLE: OpRole = OpRole::Kernel;
    const VARIANTS: &'static [Variant<Self>] =
        &[variants::NAIVE, variants::IMPLICIT, variants::BLOCKED, variants::IMPLICIT_MMA, variants::CUDNN];

    fn tensors(&self, precision: Precision) -> Result<Vec<TensorSpec>> {
        let dtype = precision.storage();
        if self.stride == 0 || self.dilation == 0 || self.groups == 0 {
            return Err(Error::usage(format!(
                "conv2d: stride {}, dilation {} and groups {} must be at least 1",
                self.stride, self.dilation, self.groups
            )));
        }
        if self.kh == 0 || self.kw == 0 {
            return Err(Error::usage(format!("conv2d: a {}x{} filter has no taps; k must be at least 1", self.kh, self.kw)));
        }
        if !self.c_in.is_multiple_of(self.groups) || !self.c_out.is_multiple_of(self.groups) {
            return Err(Error::usage(format!(
                "conv2d: {} groups do not divide {} input and {} output channels; choose a divisor of both",
                self.groups, self.c_in, self.c_out
            )));
        }
        let (Some(oh), Some(ow)) = (self.rows().outputs(), self.columns().outputs()) else {
            return Err(Error::usage(format!(
                "conv2d: a {}x{} filter with dilation {} does not fit the {}x{} input with padding {}; make k smaller or padding larger",
                self.kh, self.kw, self.dilation, self.h, self.w, self.padding
            )));
        };
        Ok(vec![
            TensorSpec::input("x", &[self.n, self.h, self.w, self.c_in], dtype),
            TensorSpec::weight("f", &[self.c_out, self.kh, self.kw, self.channels().0], dtype),
            TensorSpec::output("y", &[self.n, oh, ow, self.c_out], dtype),
        ])
    }

    fn macs(&self) -> u64 {
        let (oh, ow) = self.out();
        self.n * oh * ow * self.c_out * self.depth()
    }

    fn row<R: Real, T: Tensors>(&self, x: &T, row: u64, cols: Range<u64>, out: &mut [R]) {
        let (oh, ow) = self.out();
        let (image, y, z) = (row / (oh * ow), row / ow % oh, row % ow);
        let (c_in, c_out) = self.channels();
        let zero = R::from_f64(0.0);
        for (acc, col) in out.iter_mut().zip(cols) {
            *acc = zero;
            for (r, s) in (0..self.kh).flat_map(|r| (0..self.kw).map(move |s| (r, s))) {
                let pixel = self.rows().position(y, r).zip(self.columns().position(z, s));
                let filter = ((col * self.kh + r) * self.kw + s) * c_in;
                match pixel.map(|(h, w)| ((image * self.h + h) * self.w + w) * self.c_in + col / c_out * c_in) {
                    Some(at) => (0..c_in).for_each(|c| *acc = acc.mac(x.at(0, at + c), x.at(1, filter + c))),
                    // A padding tap multiplies by zero and counts as work.
                    None => (0..c_in).for_each(|c| *acc = acc.mac(zero, x.at(1, filter + c))),
                }
            }
        }
    }

    fn dims(&self) -> Vec<(&'static str, u64)> {
        let (oh, ow) = self.out();
        vec![
            ("n", self.n),
            ("h", self.h),
            ("w", self.w),
            ("c_in", self.c_in),
            ("c_out", self.c_out),
            ("oh", oh),
            ("ow", ow),
            ("kh", self.kh),
            ("kw", self.kw),
            ("stride", self.stride),
            ("padding", self.padding),
            ("dilation", self.dilation),
            ("groups", self.groups),
        ]
    }

    /// See the same for matmul.
    fn exact(&self) -> bool {
        self.depth() <= 4096
    }

    fn label(&self) -> String {
        let mut label = format!("{}x{}x{}x{}>{}", self.n, self.h, self.w, self.c_in, self.c_out);
        label += &if self.kh == self.kw { format!(" k{}", self.kh) } else { format!(" k{}x{}", self.kh, self.kw) };
        let mut note = |sign: &str, value: u64, usual: u64| {
            if value != usual {
                label += &format!(" {sign}{value}");
            }
        };
        note("s", self.stride, 1);
        note("d", self.dilation, 1);
        note("p", self.padding, self.kh / 2);
        note("g", self.groups, 1);
        label
    }

    /// Output weights folded into the filters: one output channel a group instead of all.
    fn projected(&self, x: &Drawn, r: &dyn Fn(u64) -> f64) -> Option<Vec<f64>> {
        let ((c_in, c_out), (oh, ow)) = (self.channels(), self.out());
        let taps = self.kh * self.kw;
        // [tap, input channel]
        let mut folded = vec![0.0; (taps * self.c_in) as usize];
        for col in 0..self.c_out {
            for (tap, c) in (0..taps).flat_map(|tap| (0..c_in).map(move |c| (tap, c))) {
                let at = tap * self.c_in + col / c_out * c_in + c;
                folded[at as usize] += r(col) * x.value(1, (col * taps + tap) * c_in + c);
            }
        }
        let mut sums = Vec::with_capacity((self.n * oh * ow) as usize);
        for (image, y) in (0..self.n).flat_map(|image| (0..oh).map(move |y| (image, y))) {
            for z in 0..ow {
                let mut sum = 0.0;
                for tap in 0..taps {
                    let Some((h, w)) = self.rows().position(y, tap / self.kw).zip(self.columns().position(z, tap % self.kw)) else {
                        continue;
                    };
                    let from = ((image * self.h + h) * self.w + w) * self.c_in;
                    let filters = &folded[(tap * self.c_in) as usize..][..self.c_in as usize];
                    sum += (0..self.c_in).zip(filters).map(|(c, f)| x.value(0, from + c) * f).sum::<f64>();
                }
                sums.push(sum);
            }
        }
        Some(sums)
    }
}
