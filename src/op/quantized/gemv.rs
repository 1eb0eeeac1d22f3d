//! The rung for few rows of activations: one token, or a few.

use super::{Quantized, by_element, requested};
use crate::plan::{Demand, Dispatch, Implementation, Language, Precision, Setting, Source, Tunable, Unit, Variant, tiles};

/// Words along k that a lane takes at a time, which share their scales.
const RUN: u64 = 4;

/// A lane has four columns, and k is split over the lanes of a group, which add up their sums in workgroup memory.
pub(super) const GEMV: Variant<Quantized> = Variant {
    name: "gemv",
    unit: Unit::Vector,
    sources: &[
        Implementation {
            source: Source::Wgsl(include_str!("../../../shaders/quantized/gemv.wgsl")),
            precisions: &[Precision::F32, Precision::F16],
            tunables: &[],
        },
        Implementation {
            source: Source::Cuda(include_str!("../../../kernels/quantized/gemv.cu")),
            precisions: &[Precision::F32, Precision::F16, Precision::BF16],
            tunables: &[Tunable { name: "VECTORS", values: &[8, 4, 16] }],
        },
    ],
    dispatches: |p, s| {
        let Sums { entry, rows, columns, shared_bytes } = Sums::of(p, s);
        let grid = [tiles(p.n, columns), tiles(p.m, rows), 1];
        vec![Dispatch { shared_bytes, ..Dispatch::over(4, entry, grid, [256, 1, 1]) }]
    },
    demand: |p, s| {
        let Sums { entry, rows, columns, .. } = Sums::of(p, s);
        let lane = if entry == "ragged" { by_element(p, s) } else { by_vector(p, s, rows) };
        Demand::new(requested(p, s, [rows, columns]), lane)
    },
};

/// Bytes that lanes of four columns name: a run of A for each row, words once for their rows, and scales for every run.
fn by_vector(p: &Quantized, s: &Setting<'_>, rows: u64) -> u64 {
    let width = s.precision.storage().bytes();
    let weights = 4 * p.steps() * p.n + width * p.steps() / RUN * p.n;
    width * p.m * p.k * (p.n / 4) + weights * p.m.div_ceil(rows) + width * p.m * p.n
}

/// How `gemv` divides C: rows and columns of a group.
struct Sums {
    entry: &'static str,
    rows: u64,
    columns: u64,
    shared_bytes: u32,
}

impl Sums {
    fn of(p: &Quantized, s: &Setting<'_>) -> Self {
        let wide = p.n.is_multiple_of(4) && p.group_size.is_multiple_of(RUN * p.pack());
        let (entry, rows) = match (wide, p.m, p.bits) {
            (false, ..) => ("ragged", 1),
            (_, 1, 8) => ("one_8", 1),
            (_, 1, _) => ("one_4", 1),
            (_, _, 8) => ("four_8", 4),
            _ => ("four_4", 4),
        };
        if s.language == Language::Wgsl {
            return Sums { entry, rows, columns: if wide { 32 } else { 8 }, shared_bytes: 16384 };
        }
        if !wide {
            return Sums { entry, rows, columns: 8, shared_bytes: 0 };
        }
        let columns = 4 * s.tuned.get("VECTORS") as u64;
        // A sum a warp for each element.
        Sums { entry, rows, columns, shared_bytes: 8 * 4 * (rows * columns) as u32 }
    }
}
