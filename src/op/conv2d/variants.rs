//! The rungs of the convolution's ladder.

use super::Conv2d;
use crate::host;
use crate::plan::{
    Conv, Demand, Dispatch, FilterLayout, Implementation, Language, Library, Precision, Routine, Setting, Source, Tunable, Unit, Variant,
    fold,
};

/// One output element a lane: the definition itself on the host.
pub(super) const NAIVE: Variant<Conv2d> = Variant {
    name: "naive",
    unit: Unit::Vector,
    sources: &[
        Implementation { source: Source::Host(host::naive), precisions: &[Precision::F32, Precision::F64], tunables: &[] },
        Implementation {
            source: Source::Wgsl(include_str!("../../../shaders/conv2d/naive.wgsl")),
            precisions: &[Precision::F32, Precision::F16],
            tunables: &[],
        },
        Implementation {
            source: Source::Cuda(include_str!("../../../kernels/conv2d/naive.cu")),
            precisions: &[Precision::F32, Precision::F16, Precision::BF16],
            tunables: &[],
        },
    ],
    dispatches: |p, _| {
        let (oh, ow) = p.out();
        vec![Dispatch::over(3, "conv2d", fold((p.n * oh * ow * p.c_out).div_ceil(256)), [256, 1, 1])]
    },
    demand: naive_demand,
};

/// The convolution as a matrix product whose left matrix is never stored: gathered into packed panels on the host, into registers
/// by WGSL, into shared memory by CUDA.
pub(super) const IMPLICIT: Variant<Conv2d> = Variant {
    name: "implicit",
    unit: Unit::Vector,
    sources: &[
        Implementation {
            source: Source::Host(host::conv2d::implicit),
            precisions: &[Precision::F32, Precision::F64],
            tunables: &[host::gemm::KC],
        },
        Implementation {
            source: Source::Wgsl(include_str!("../../../shaders/conv2d/implicit.wgsl")),
            precisions: &[Precision::F32, Precision::F16],
            tunables: &[Tunable { name: "TM", values: &[4, 2, 8] }, Tunable { name: "TN", values: &[2, 4] }],
        },
        Implementation {
            source: Source::Cuda(include_str!("../../../kernels/conv2d/implicit.cu")),
            precisions: &[Precision::F32],
            tunables: &[Tunable { name: "BM", values: &[64, 128] }, Tunable { name: "BN", values: &[64, 128] }],
        },
    ],
    dispatches: |p, s| {
        if s.language == Language::Host {
            return vec![Dispatch::over(3, "implicit", fold(host::conv2d::groups(p, s)), [1, 1, 1])];
        }
        // Vector loads need every pixel, and every tap of a filter, to start on a vector.
        let entry = if p.channels().0.is_multiple_of(4) { "whole" } else { "ragged" };
        let tiles = Tiles::of(s);
        let grid = fold(tiles.groups(p));
        if s.language == Language::Wgsl {
            return vec![Dispatch::over(3, entry, grid, [8, 8, 1])];
        }
        // 16 steps of both operands; `whole` has two tiles of each at a time.
        let halves = if entry == "whole" { 2 } else { 1 };
        let shared_bytes = halves * 4 * 16 * (tiles.bm + tiles.bn) as u32;
        vec![Dispatch { shared_bytes, ..Dispatch::over(3, entry, grid, [256, 1, 1]) }]
    },
    demand: |p, s| match s.language {
        Language::Host => host::conv2d::demand(p, s),
        _ => implicit_demand(p, s, Tiles::of(s)),
    },
};

/// The implicit product with tiles of both operands in workgroup memory and 8×8 outputs a lane.
pub(super) const BLOCKED: Variant<Conv2d> = Variant {
    name: "blocked",
    unit: Unit::Vector,
    sources: &[Implementation {
        source: Source::Wgsl(include_str!("../../../shaders/conv2d/blocked.wgsl")),
        precisions: &[Precision::F32, Precision::F16],
        tunables: &[Tunable { name: "BM", values: &[64, 32, 128] }, Tunable { name: "BN", values: &[64, 128] }],
    }],
    dispatches: |p, s| {
        let entry = if p.channels().0.is_multiple_of(4) { "whole" } else { "ragged" };
        let tiles = Tiles::blocked(s);
        let (bm, bn) = (tiles.bm as u32, tiles.bn as u32);
        let shared_bytes = 4 * 16 * (bm + bn);
        vec![Dispatch { shared_bytes, ..Dispatch::over(3, entry, fold(tiles.groups(p)), [bn / 8, bm / 8, 1]) }]
    },
    demand: |p, s| implicit_demand(p, s, Tiles::blocked(s)),
};

/// The implicit product on matrix units, fed by a ring of `STAGES` tiles of 128 bytes of taps and channels; 64 × 64 outputs a warp.
pub(super) const IMPLICIT_MMA: Variant<Conv2d> = Variant {
    name: "implicit_mma",
    unit: Unit::Mma,
    sources: &[Implementation {
        source: Source::Cuda(include_str!("../../../kernels/conv2d/implicit_mma.cu")),
        precisions: &[Precision::BF16, Precision::F16, Precision::TF32],
        tunables: &[
            Tunable { name: "BM", values: &[128, 256] },
            Tunable { name: "BN", values: &[128, 64] },
            Tunable { name: "STAGES", values: &[3, 2] },
        ],
    }],
    dispatches: |p, s| {
        let (c_in, c_out) = p.channels();
        // Copies of pixels and filters are vectors, stores are pairs, and a word has a bit for every row and column of the filter.
        let vectors = c_in.is_multiple_of(16 / s.precision.storage().bytes());
        let whole = vectors && c_out.is_multiple_of(2) && p.kh + p.kw < 32;
        let tiles = Tiles::mma(s);
        let (bm, bn) = (tiles.bm as u32, tiles.bn as u32);
        // Behind the ring stand two words for each line of pixels.
        let (entry, stages, lines) = if whole { ("whole", s.tuned.get("STAGES"), 8 * bm) } else { ("ragged", 1, 0) };
        let grid = fold(tiles.groups(p));
        vec![Dispatch {
            dynamic_bytes: stages * 128 * (bm + bn) + lines,
            ..Dispatch::over(3, entry, grid, [bm / 64 * (bn / 64) * 32, 1, 1])
        }]
    },
    demand: |p, s| implicit_demand(p, s, Tiles::mma(s)),
};

/// The vendor's convolution, held to the implicit product that ours are: Winograd's and Fourier's do other work.
pub(super) const CUDNN: Variant<Conv2d> = Variant {
    name: "cudnn",
    unit: Unit::Library,
    sources: &[Implementation {
        source: Source::Library(Library::Cudnn, conv),
        precisions: &[Precision::F32, Precision::TF32, Precision::F16, Precision::BF16],
        tunables: &[],
    }],
    dispatches: |_, _| vec![Dispatch::library(3, "cudnnConvolutionForward")],
    demand: |_, _| Demand::NONE,
};

fn conv(p: &Conv2d) -> Routine {
    let (oh, ow) = p.out();
    let &Conv2d { n, h, w, c_in, c_out, kh, kw, stride, padding, dilation, groups } = p;
    Routine::Conv(Conv { n, h, w, c_in, oh, ow, c_out, kh, kw, stride, padding, dilation, groups, filter: FilterLayout::Krsc })
}

/// Tiles of the implicit product on devices: a work-group holds `bm` pixels by `bn` channels, a lane `tm` by `tn`.
struct Tiles {
    bm: u64,
    bn: u64,
    tm: u64,
    tn: u64,
}

impl Tiles {
    fn of(s: &Setting<'_>) -> Self {
        let tuned = |name| s.tuned.get(name) as u64;
        match s.language {
            Language::Cuda => Tiles { bm: tuned("BM"), bn: tuned("BN"), tm: tuned("BM") / 16, tn: tuned("BN") / 16 },
            _ => Tiles { bm: 8 * tuned("TM"), bn: 8 * tuned("TN"), tm: tuned("TM"), tn: tuned("TN") },
        }
    }

    fn blocked(s: &Setting<'_>) -> Self {
        Tiles { bm: s.tuned.get("BM") as u64, bn: s.tuned.get("BN") as u64, tm: 8, tn: 8 }
    }

    /// `tm` and `tn` are a warp's.
    fn mma(s: &Setting<'_>) -> Self {
        Tiles { bm: s.tuned.get("BM") as u64, bn: s.tuned.get("BN") as u64, tm: 64, tn: 64 }
    }

    /// Work-groups along pixels.
    fn down(&self, p: &Conv2d) -> u64 {
        let (oh, ow) = p.out();
        (p.n * oh * ow).div_ceil(self.bm)
    }

    /// Work-groups along channels; none crosses a group of the convolution.
    fn across(&self, p: &Conv2d) -> u64 {
        p.groups * p.channels().1.div_ceil(self.bn)
    }

    fn groups(&self, p: &Conv2d) -> u64 {
        self.down(p) * self.across(p)
    }
}

fn naive_demand(p: &Conv2d, s: &Setting<'_>) -> Demand {
    let (oh, ow) = p.out();
    let (c_in, c_out) = p.channels();
    let (rows, columns) = (p.rows().inside(), p.columns().inside());
    let width = s.precision.storage().bytes();
    let (pixels, outputs) = (p.n * oh * ow, p.n * oh * ow * p.c_out);
    let taps = p.n * rows * columns;
    if s.language == Language::Host {
        // A task is one output pixel: the pixels under its taps, all filters, its channels. Taps outside load their filter element too.
        let requested = taps * p.c_in + pixels * p.c_out * p.depth() + outputs;
        let lane = taps * c_in * p.c_out + pixels * p.c_out * p.depth() + outputs;
        return Demand::new(width * requested, width * lane);
    }
    // A group is 256 consecutive outputs, channels fastest: some neighbouring pixels, or a part of one pixel's channels.
    let channels = p.c_out.min(256);
    let (touched, used) = p.columns().touched(256 / channels);
    let inputs = p.c_out.div_ceil(channels) * channels.div_ceil(c_out).min(p.groups) * c_in;
    let requested = p.n * rows * (touched * inputs + used * c_in * p.c_out) + outputs;
    Demand::new(width * requested, width * (2 * taps * c_in * p.c_out + outputs))
}

fn implicit_demand(p: &Conv2d, s: &Setting<'_>, tiles: Tiles) -> Demand {
    let (oh, ow) = p.out();
    let (c_in, c_out) = p.channels();
    let (pixels, outputs) = (p.n * oh * ow, p.n * oh * ow * p.c_out);
    // Pixels of a group are taken not to cross rows.
    let (touched, _) = p.columns().touched(tiles.bm);
    let inputs = p.n * p.rows().inside() * touched * c_in * tiles.across(p);
    let requested = inputs + tiles.down(p) * p.depth() * p.c_out + outputs;
    let lane = p.depth() * (pixels * p.groups * c_out.div_ceil(tiles.tn) + p.c_out * pixels.div_ceil(tiles.tm)) + outputs;
    let width = s.precision.storage().bytes();
    Demand::new(width * requested, width * lane)
}
