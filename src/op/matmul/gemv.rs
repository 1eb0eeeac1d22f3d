//! The rung for matrices that are hardly more than vectors.

use super::{Matmul, tiled, whole_vectors};
use crate::plan::{Dispatch, Implementation, Language, Precision, Setting, Source, Tunable, Unit, Variant, tiles};

/// Few rows or few columns: k is split over the lanes of a group, which add up their sums in workgroup memory.
pub(super) const GEMV: Variant<Matmul> = Variant {
    name: "gemv",
    unit: Unit::Vector,
    sources: &[
        Implementation {
            source: Source::Wgsl(include_str!("../../../shaders/matmul/gemv.wgsl")),
            precisions: &[Precision::F32, Precision::F16],
            tunables: &[],
        },
        Implementation {
            source: Source::Cuda(include_str!("../../../kernels/matmul/gemv.cu")),
            precisions: &[Precision::F32, Precision::F16, Precision::BF16],
            tunables: &[Tunable { name: "VECTORS", values: &[8, 4, 16] }],
        },
    ],
    dispatches: |p, s| {
        let Sums { entry, rows, columns, shared_bytes } = Sums::of(p, s);
        // What is not wide has rows along the grid's first dimension.
        let grid = match entry {
            "tall" | "ragged" => [tiles(p.m, rows), tiles(p.n, columns), 1],
            _ => [tiles(p.n, columns), tiles(p.m, rows), 1],
        };
        vec![Dispatch { shared_bytes, ..Dispatch::over(3, entry, grid, [256, 1, 1]) }]
    },
    demand: |p, s| {
        let Sums { entry, rows, columns, .. } = Sums::of(p, s);
        match entry {
            "tall" | "ragged" => tiled(p, s, [rows, columns], [1, 1]),
            // A lane holds all rows of its group, and a vector of columns.
            _ if s.language == Language::Cuda => tiled(p, s, [rows, columns], [rows, 16 / s.precision.storage().bytes()]),
            _ => tiled(p, s, [rows, columns], [rows, 4]),
        }
    },
};

/// How `gemv` divides C: rows and columns of a group.
struct Sums {
    entry: &'static str,
    rows: u64,
    columns: u64,
    shared_bytes: u32,
}

impl Sums {
    fn of(p: &Matmul, s: &Setting<'_>) -> Self {
        if s.language == Language::Wgsl {
            let (entry, rows, columns) = if p.n.is_multiple_of(4) { ("wide", 4, 32) } else { ("tall", 8, 1) };
            return Sums { entry, rows, columns, shared_bytes: 16384 };
        }
        let vector = 16 / s.precision.storage().bytes();
        if whole_vectors(p, s) {
            let (entry, rows) = if p.m == 1 { ("one", 1) } else { ("eight", 8) };
            let columns = vector * s.tuned.get("VECTORS") as u64;
            // A sum a warp for each element.
            return Sums { entry, rows, columns, shared_bytes: 8 * 4 * (rows * columns) as u32 };
        }
        let entry = if p.n == 1 && p.k.is_multiple_of(vector) { "tall" } else { "ragged" };
        Sums { entry, rows: 8, columns: 1, shared_bytes: 0 }
    }
}
