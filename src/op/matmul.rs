//! `C[m,n] = A[m,k] · B[k,n]`, row-major.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Definition, Entry, OpRole, Real, TensorSpec, Tensors, parse_over};
use crate::draw::Drawn;
use crate::error::Result;
use crate::host;
use crate::plan::{
    Arg, Demand, Dispatch, Gemm, Implementation, Language, Library, Precision, Routine, Setting, Source, Tunable, Unit, Variant, fold,
    tiles,
};

mod gemv;

use gemv::GEMV;

/// A matrix product.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matmul {
    /// Rows of A and C.
    pub m: u64,
    /// Columns of B and C.
    pub n: u64,
    /// Columns of A, rows of B.
    pub k: u64,
}

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: Matmul::NAME,
    role: OpRole::Kernel,
    fields: &["m", "n", "k"],
    parse: |fields| parse_over(ENTRY.fields, &Matmul { m: 1024, n: 1024, k: 1024 }, fields),
    awkward: || {
        let shapes = [
            (1, 1, 1),
            (7, 5, 3),
            (1, 65, 130),
            (65, 1, 33),
            (17, 31, 64),
            (64, 64, 64),
            (129, 67, 251),
            (96, 200, 40),
            (130, 258, 17),
            (45, 36, 20),
            // Whole tiles of every kernel, and more of them along k than any keeps at once.
            (256, 128, 160),
            // One row and one column of whole vectors.
            (1, 72, 48),
            (11, 1, 96),
            // Few rows and few columns, and slices of them.
            (13, 70, 300),
            (90, 20, 270),
            // More tiles along k than any ring has, of whole vectors.
            (9, 8, 520),
        ];
        shapes.iter().map(|(m, n, k)| json!({"m": m, "n": n, "k": k})).collect()
    },
};

impl Definition for Matmul {
    const NAME: &'static str = "matmul";
    const ROLE: OpRole = OpRole::Kernel;
    const VARIANTS: &'static [Variant<Self>] =
        &[NAIVE, PACKED, TILED, REGISTER, SUBGROUP, BLOCKED, GEMV, COOP, PIPELINED, MMA, WGMMA, CUBLAS, CUBLASLT];

    fn tensors(&self, precision: Precision) -> Result<Vec<TensorSpec>> {
        let dtype = precision.storage();
        Ok(vec![
            TensorSpec::input("a", &[self.m, self.k], dtype),
            TensorSpec::weight("b", &[self.k, self.n], dtype),
            TensorSpec::output("c", &[self.m, self.n], dtype),
        ])
    }

    fn macs(&self) -> u64 {
        self.m * self.n * self.k
    }

    fn row<R: Real, T: Tensors>(&self, x: &T, row: u64, cols: Range<u64>, out: &mut [R]) {
        out.fill(R::from_f64(0.0));
        for p in 0..self.k {
            let a = x.at::<R>(0, row * self.k + p);
            for (c, col) in out.iter_mut().zip(cols.clone()) {
                *c = c.mac(a, x.at(1, p * self.n + col));
            }
        }
    }

    fn dims(&self) -> Vec<(&'static str, u64)> {
        vec![("m", self.m), ("n", self.n), ("k", self.k)]
    }

    fn label(&self) -> String {
        format!("{}x{}x{}", self.m, self.n, self.k)
    }

    /// Products are multiples of 2⁻¹² and at most 1, so 4096 of them fill the 24 bits of an f32.
    fn exact(&self) -> bool {
        self.k <= 4096
    }

    fn projected(&self, x: &Drawn, r: &dyn Fn(u64) -> f64) -> Option<Vec<f64>> {
        let (m, n, k) = (self.m, self.n, self.k);
        let r: Vec<f64> = (0..n).map(r).collect();
        let br: Vec<f64> = (0..k).map(|p| (0..n).zip(&r).map(|(j, r)| x.value(1, p * n + j) * r).sum()).collect();
        Some((0..m).map(|i| (0..k).zip(&br).map(|(p, b)| x.value(0, i * k + p) * b).sum()).collect())
    }
}

/// One output element a lane: the definition itself on the host, a 16×16 group on devices.
const NAIVE: Variant<Matmul> = Variant {
    name: "naive",
    unit: Unit::Vector,
    sources: &[
        Implementation { source: Source::Host(host::naive), precisions: &[Precision::F32, Precision::F64], tunables: &[] },
        Implementation {
            source: Source::Wgsl(include_str!("../../shaders/matmul/naive.wgsl")),
            precisions: &[Precision::F32, Precision::F16],
            tunables: &[],
        },
        Implementation {
            source: Source::Cuda(include_str!("../../kernels/matmul/naive.cu")),
            precisions: &[Precision::F32, Precision::F16, Precision::BF16],
            tunables: &[],
        },
    ],
    dispatches: |p, _| vec![Dispatch::over(3, "matmul", [tiles(p.n, 16), tiles(p.m, 16), 1], [16, 16, 1])],
    demand: |p, s| match s.language {
        // A task is one row of C: a row of A, all of B, a row of C, each once.
        Language::Host => {
            let bytes = s.precision.storage().bytes() * p.m * (p.k + p.k * p.n + p.n);
            Demand::new(bytes, bytes)
        }
        _ => tiled(p, s, [16, 16], [1, 1]),
    },
};

/// Packed panels and a register tile on every thread: the host's fast rung. Few rows or columns are multiplied where they lie.
const PACKED: Variant<Matmul> = Variant {
    name: "packed",
    unit: Unit::Vector,
    sources: &[Implementation {
        source: Source::Host(host::matmul::packed),
        precisions: &[Precision::F32, Precision::F64, Precision::F16, Precision::BF16],
        tunables: &[host::gemm::KC],
    }],
    // A work-group is a unit of C.
    dispatches: |p, s| vec![Dispatch::over(3, "packed", fold(host::matmul::groups(p, s)), [1, 1, 1])],
    demand: host::matmul::demand,
};

/// Tiles of both operands in workgroup memory, one output element a lane.
const TILED: Variant<Matmul> = Variant {
    name: "tiled",
    unit: Unit::Vector,
    sources: &[
        Implementation {
            source: Source::Wgsl(include_str!("../../shaders/matmul/tiled.wgsl")),
            precisions: &[Precision::F32, Precision::F16],
            tunables: &[Tunable { name: "TILE", values: &[16, 8] }],
        },
        Implementation {
            source: Source::Cuda(include_str!("../../kernels/matmul/tiled.cu")),
            precisions: &[Precision::F32, Precision::F16, Precision::BF16],
            tunables: &[Tunable { name: "TILE", values: &[32, 16] }],
        },
    ],
    dispatches: |p, s| {
        let tile = s.tuned.get("TILE");
        let grid = [tiles(p.n, tile as u64), tiles(p.m, tile as u64), 1];
        vec![Dispatch { shared_bytes: 2 * 4 * tile * tile, ..Dispatch::over(3, "matmul", grid, [tile, tile, 1]) }]
    },
    demand: |p, s| tiled(p, s, [s.tuned.get("TILE") as u64; 2], [1, 1]),
};

const REGISTER_TILES: &[Tunable] = &[Tunable { name: "TM", values: &[4, 8] }, Tunable { name: "TN", values: &[1, 2] }];

/// A register tile a lane: `TM` rows by `TN` vectors of four columns, 8×8 lanes a group.
const REGISTER: Variant<Matmul> = Variant {
    name: "register",
    unit: Unit::Vector,
    sources: &[
        Implementation {
            source: Source::Wgsl(include_str!("../../shaders/matmul/register.wgsl")),
            precisions: &[Precision::F32, Precision::F16],
            tunables: REGISTER_TILES,
        },
        Implementation {
            source: Source::Cuda(include_str!("../../kernels/matmul/register.cu")),
            precisions: &[Precision::F32, Precision::F16, Precision::BF16],
            tunables: REGISTER_TILES,
        },
    ],
    dispatches: |p, s| {
        let (tm, tn) = (s.tuned.get("TM") as u64, 4 * s.tuned.get("TN") as u64);
        // Vector loads need every row of A, B and C to start on a vector.
        let entry = if p.n.is_multiple_of(4) && p.k.is_multiple_of(4) { "whole" } else { "ragged" };
        vec![Dispatch::over(3, entry, [tiles(p.n, 8 * tn), tiles(p.m, 8 * tm), 1], [8, 8, 1])]
    },
    demand: |p, s| {
        let (tm, tn) = (s.tuned.get("TM") as u64, 4 * s.tuned.get("TN") as u64);
        tiled(p, s, [8 * tm, 8 * tn], [tm, tn])
    },
};

/// The register tile again, with rows of A loaded by four lanes of a subgroup together.
const SUBGROUP: Variant<Matmul> = Variant {
    name: "subgroup",
    unit: Unit::Vector,
    sources: &[Implementation {
        source: Source::Wgsl(include_str!("../../shaders/matmul/subgroup.wgsl")),
        precisions: &[Precision::F32, Precision::F16],
        tunables: REGISTER_TILES,
    }],
    dispatches: |p, s| (REGISTER.dispatches)(p, s).into_iter().map(|d| Dispatch { block: [64, 1, 1], ..d }).collect(),
    demand: |p, s| {
        let (tm, tn) = (s.tuned.get("TM") as u64, 4 * s.tuned.get("TN") as u64);
        tiled(p, s, [8 * tm, 8 * tn], [tm, 4 * tn])
    },
};

/// Tiles of both operands in workgroup memory and 8×8 outputs a lane: every operand is loaded once a group and read once a lane.
const BLOCKED: Variant<Matmul> = Variant {
    name: "blocked",
    unit: Unit::Vector,
    sources: &[Implementation {
        source: Source::Wgsl(include_str!("../../shaders/matmul/blocked.wgsl")),
        precisions: &[Precision::F32, Precision::F16],
        tunables: &[Tunable { name: "BM", values: &[64, 128] }, Tunable { name: "BN", values: &[64, 128] }],
    }],
    dispatches: |p, s| {
        let (bm, bn) = (s.tuned.get("BM"), s.tuned.get("BN"));
        let entry = if p.n.is_multiple_of(4) && p.k.is_multiple_of(4) { "whole" } else { "ragged" };
        let grid = [tiles(p.n, bn as u64), tiles(p.m, bm as u64), 1];
        vec![Dispatch { shared_bytes: 4 * 16 * (bm + bn), ..Dispatch::over(3, entry, grid, [bn / 8, bm / 8, 1]) }]
    },
    demand: |p, s| tiled(p, s, [s.tuned.get("BM") as u64, s.tuned.get("BN") as u64], [8, 8]),
};

/// Cooperative 8×8 matrices of a subgroup, fed from workgroup memory; 16×16 outputs a group.
const COOP: Variant<Matmul> = Variant {
    name: "coop",
    unit: Unit::Coop,
    sources: &[Implementation {
        source: Source::Wgsl(include_str!("../../shaders/matmul/coop.wgsl")),
        precisions: &[Precision::F16],
        tunables: &[],
    }],
    dispatches: |p, s| {
        let shared_bytes = 256 * (2 * s.precision.storage().bytes() + s.precision.sum().bytes()) as u32;
        vec![Dispatch { shared_bytes, ..Dispatch::over(3, "matmul", [tiles(p.n, 16), tiles(p.m, 16), 1], [32, 1, 1]) }]
    },
    demand: |p, s| tiled(p, s, [16, 16], [16, 16]),
};

/// Register tiles fed from shared memory that the next tiles fill meanwhile: `TM` × 8 outputs a lane, `BM` × 128 a group.
const PIPELINED: Variant<Matmul> = Variant {
    name: "pipelined",
    unit: Unit::Vector,
    sources: &[Implementation {
        source: Source::Cuda(include_str!("../../kernels/matmul/pipelined.cu")),
        precisions: &[Precision::F32],
        tunables: &[Tunable { name: "BM", values: &[128, 256, 64] }, Tunable { name: "TM", values: &[16, 8] }],
    }],
    dispatches: |p, s| {
        let (bm, tm) = (s.tuned.get("BM"), s.tuned.get("TM"));
        let lanes = bm / (4 * tm) * 2 * 32;
        let bk = if lanes >= 128 { 16 } else { 8 };
        let whole = p.m.is_multiple_of(bm as u64) && p.n.is_multiple_of(128) && p.k.is_multiple_of(bk as u64);
        // `whole` has two tiles of each operand at a time.
        let (entry, halves) = if whole { ("whole", 2) } else { ("ragged", 1) };
        let grid = [tiles(p.n, 128), tiles(p.m, bm as u64), 1];
        vec![Dispatch { shared_bytes: halves * 4 * bk * (bm + 128), ..Dispatch::over(3, entry, grid, [lanes, 1, 1]) }]
    },
    demand: |p, s| tiled(p, s, [s.tuned.get("BM") as u64, 128], [s.tuned.get("TM") as u64, 8]),
};

/// Matrix units, a warp at a time, fed by a ring of `STAGES` tiles of 128 bytes of k; 128 × `BN` outputs a group, 64 × 64 a warp.
const MMA: Variant<Matmul> = Variant {
    name: "mma",
    unit: Unit::Mma,
    sources: &[Implementation {
        source: Source::Cuda(include_str!("../../kernels/matmul/mma.cu")),
        precisions: &[Precision::BF16, Precision::F16, Precision::TF32],
        tunables: &[Tunable { name: "BN", values: &[128, 256] }, Tunable { name: "STAGES", values: &[3, 4] }],
    }],
    dispatches: |p, s| {
        let (bn, stages) = (s.tuned.get("BN"), s.tuned.get("STAGES"));
        let tile = 128 * (128 + bn);
        // Every stage of a ring has two barriers.
        let (entry, dynamic_bytes) = if whole_vectors(p, s) { ("whole", stages * (tile + 16)) } else { ("ragged", tile) };
        let grid = fold(p.m.div_ceil(128) * p.n.div_ceil(bn as u64));
        vec![Dispatch { dynamic_bytes, ..Dispatch::over(3, entry, grid, [bn, 1, 1]) }]
    },
    demand: |p, s| tiled(p, s, [128, s.tuned.get("BN") as u64], [64, 64]),
};

/// Matrix units, four warps at a time, fed by a ring of `STAGES` tiles that the copying unit fills; 128 × 256 outputs a tile, and
/// `CLUSTER` groups, one below the other, that share what they copy of B.
const WGMMA: Variant<Matmul> = Variant {
    name: "wgmma",
    unit: Unit::Wgmma,
    sources: &[Implementation {
        source: Source::Cuda(include_str!("../../kernels/matmul/wgmma.cu")),
        precisions: &[Precision::BF16, Precision::F16],
        tunables: &[Tunable { name: "CLUSTER", values: &[2, 1] }, Tunable { name: "STAGES", values: &[4, 3] }],
    }],
    dispatches: |p, s| {
        const STAGE: u32 = 48 << 10;
        // As many clusters as run at a time, at least one.
        let groups = |together: u32| {
            let clusters = p.m.div_ceil(128 * together as u64) * p.n.div_ceil(256);
            together * clusters.min((s.device.compute_units / together).max(1) as u64) as u32
        };
        // The tiles begin at a multiple of 1024 bytes.
        if !whole_vectors(p, s) {
            return vec![Dispatch { dynamic_bytes: STAGE + 1024, ..Dispatch::over(3, "ragged", [groups(1), 1, 1], [256, 1, 1]) }];
        }
        let (cluster, stages) = (s.tuned.get("CLUSTER"), s.tuned.get("STAGES"));
        let boxes = [Arg::Map { tensor: 0, rows: 128, columns: 64 }, Arg::Map { tensor: 1, rows: 64, columns: 64 }];
        let args = [&boxes[..], &[Arg::Tensor(2), Arg::Dims]].concat();
        let dynamic_bytes = stages * (STAGE + 16) + 1024;
        vec![Dispatch { dynamic_bytes, args, ..Dispatch::over(3, "whole", [groups(cluster), 1, 1], [288, 1, 1]) }]
    },
    // A product reads its operands once for a team's 64 rows.
    demand: |p, s| {
        let together = if whole_vectors(p, s) { s.tuned.get("CLUSTER") as u64 } else { 1 };
        tiled(p, s, [128 * together, 256], [64, 256])
    },
};

/// Whether rows of A, B and C consist of vectors of 16 bytes.
fn whole_vectors(p: &Matmul, s: &Setting<'_>) -> bool {
    let vector = 16 / s.precision.storage().bytes();
    p.n.is_multiple_of(vector) && p.k.is_multiple_of(vector)
}

/// The vendor's product in true f32, beside ours.
const CUBLAS: Variant<Matmul> = Variant {
    name: "cublas",
    unit: Unit::Library,
    sources: &[Implementation { source: Source::Library(Library::Cublas, gemm), precisions: &[Precision::F32], tunables: &[] }],
    dispatches: |_, _| vec![Dispatch::library(3, "cublasGemmEx")],
    demand: |_, _| Demand::NONE,
};

/// The vendor's product on matrix units, sums in f32: the fastest of the algorithms that it proposes.
const CUBLASLT: Variant<Matmul> = Variant {
    name: "cublaslt",
    unit: Unit::Library,
    sources: &[Implementation {
        source: Source::Library(Library::CublasLt, gemm),
        precisions: &[Precision::BF16, Precision::F16, Precision::TF32],
        tunables: &[],
    }],
    dispatches: |_, _| vec![Dispatch::library(3, "cublasLtMatmul")],
    demand: |_, _| Demand::NONE,
};

fn gemm(p: &Matmul) -> Routine {
    Routine::Gemm(Gemm { m: p.m, n: p.n, k: p.k })
}

/// Demand of a bm × bn group tile whose lanes hold tm × tn outputs: distinct bytes a group, and what all its lanes name.
/// Edge groups load only what exists.
fn tiled(p: &Matmul, s: &Setting<'_>, [bm, bn]: [u64; 2], [tm, tn]: [u64; 2]) -> Demand {
    let (m, n, k) = (p.m, p.n, p.k);
    let width = s.precision.storage().bytes();
    let requested = width * (m * k * n.div_ceil(bn) + k * n * m.div_ceil(bm) + m * n);
    let lane = width * (m * k * n.div_ceil(tn) + k * n * m.div_ceil(tm) + m * n);
    Demand::new(requested, lane)
}
