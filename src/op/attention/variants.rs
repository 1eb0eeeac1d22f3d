//! The rungs of attention's ladder.

use super::{Attention, WIDEST};
use crate::host;
use crate::op::TensorSpec;
use crate::plan::{Arg, Demand, Dispatch, Implementation, Language, Precision, Setting, Source, Tunable, Unit, Variant, fold, tiles};

/// Three launches: all scores, softmax of their rows, times V; every pair is computed, hidden ones too.
pub(super) const NAIVE: Variant<Attention> = Variant {
    name: "naive",
    unit: Unit::Vector,
    sources: &[
        Implementation { source: Source::Host(host::attention::naive), precisions: &[Precision::F32], tunables: &[] },
        Implementation {
            source: Source::Wgsl(include_str!("../../../shaders/attention/naive.wgsl")),
            precisions: &[Precision::F32, Precision::F16],
            tunables: &[],
        },
        Implementation {
            source: Source::Cuda(include_str!("../../../kernels/attention/naive.cu")),
            precisions: &[Precision::F32],
            tunables: &[],
        },
    ],
    dispatches: |p, s| {
        let heads = tiles(p.batch * p.heads, 1);
        let matrix = TensorSpec::scratch("scores", &[p.batch, p.heads, p.seq_q, p.seq_kv], s.precision.sum());
        // WGSL declares its workgroup memory for all entries; CUDA needs two words a warp.
        let shared = |entry| match (s.language, entry) {
            (Language::Wgsl, _) => 4 * ROW_LANES,
            (_, "softmax") => 8 * ROW_LANES / 32,
            _ => 0,
        };
        let across = |columns: u64| [tiles(columns, 16), tiles(p.seq_q, 16), heads];
        let launch = |entry, grid, block, args: &[Arg], reads: &[usize], writes: usize| {
            let args = args.iter().copied().chain([Arg::Scratch(0), Arg::Dims]).collect();
            let shared_bytes = shared(entry);
            let (reads, writes) = (reads.to_vec(), vec![writes]);
            Dispatch { shared_bytes, args, reads, writes, ..Dispatch::over(4, entry, grid, block) }
        };
        let [q, k, v, o] = [0, 1, 2, 3].map(Arg::Tensor);
        let scores = launch("scores", across(p.seq_kv), [16, 16, 1], &[q, k], &[0, 1], 4);
        vec![
            Dispatch { scratch: vec![matrix], ..scores },
            launch("softmax", fold(p.rows()), [ROW_LANES, 1, 1], &[], &[4], 4),
            launch("weighted", across(p.head_dim), [16, 16, 1], &[v, o], &[2, 4], 3),
        ]
    },
    demand: |p, s| {
        let (d, rows, kv) = (p.head_dim, p.rows(), p.seq_kv);
        let tile = if s.language == Language::Host { 1 } else { 16 };
        // Rows that tiles load of K or V: all of a head for every tile of its queries.
        let shared = p.batch * p.heads * p.seq_q.div_ceil(tile) * kv * d;
        // Elements of tensors, then scores.
        let (tensors, scores) = match s.language {
            // A task is a row in each pass.
            Language::Host => (2 * rows * d + 2 * shared, 4 * rows * kv),
            _ => {
                let (across, out) = (kv.div_ceil(16), d.div_ceil(16));
                (rows * d * across + 2 * shared + rows * d, 3 * rows * kv + rows * kv * out)
            }
        };
        // Softmax goes over its row three times: 3 loads and 2 stores an element. On devices every lane of an output loads all weights.
        let (storage, sum) = (s.precision.storage().bytes(), s.precision.sum().bytes());
        let weights = if s.language == Language::Host { rows * kv } else { rows * kv * d };
        let lane = storage * (3 * rows * kv * d + rows * d) + sum * (weights + 6 * rows * kv);
        Demand::new(storage * tensors + sum * scores, lane)
    },
};

/// Lanes that share a row in softmax of `naive`.
const ROW_LANES: u32 = 64;

/// One launch that keeps no scores: softmax goes along with the keys and rescales what it has when a larger score appears.
pub(super) const FLASH: Variant<Attention> = Variant {
    name: "flash",
    unit: Unit::Vector,
    sources: &[
        Implementation {
            source: Source::Host(host::attention::flash),
            precisions: &[Precision::F32],
            tunables: &[host::attention::PANELS],
        },
        Implementation {
            source: Source::Wgsl(include_str!("../../../shaders/attention/flash.wgsl")),
            precisions: &[Precision::F32, Precision::F16],
            tunables: &[Tunable { name: "TM", values: &[4, 2] }, Tunable { name: "BK", values: &[16, 8, 32] }],
        },
        Implementation {
            source: Source::Cuda(include_str!("../../../kernels/attention/flash.cu")),
            precisions: &[Precision::F32],
            tunables: &[Tunable { name: "TM", values: &[8, 4] }, Tunable { name: "BK", values: &[64, 32] }],
        },
    ],
    dispatches: |p, s| {
        let quads = p.head_dim.is_multiple_of(4);
        let (entry, lanes) = match (s.language, quads, p.head_dim <= WIDEST / 2) {
            // A work-group is a unit.
            (Language::Host, ..) => return vec![Dispatch::over(4, "flash", fold(host::attention::units(p, s)), [1, 1, 1])],
            (Language::Wgsl, true, _) => ("whole", 8),
            (Language::Wgsl, false, _) => ("ragged", 8),
            (Language::Cuda, true, true) => ("whole64", 16),
            (Language::Cuda, true, false) => ("whole128", 16),
            (Language::Cuda, false, true) => ("ragged64", 16),
            (Language::Cuda, false, false) => ("ragged128", 16),
        };
        let (tm, bk) = (s.tuned.get("TM"), s.tuned.get("BK"));
        let width = if entry.ends_with("64") { WIDEST / 2 } else { WIDEST } as u32;
        // A tile of K or V, the weights, and in WGSL a column of padding and each lane's largest score of its rows.
        let more = if s.language == Language::Wgsl { 8 * tm * (1 + 8) } else { 0 };
        let shared_bytes = 4 * (bk * width + 8 * tm * bk + more);
        let grid = [tiles(p.group_rows(), 8 * tm as u64), tiles(p.groups(), 1), 1];
        vec![Dispatch { shared_bytes, ..Dispatch::over(4, entry, grid, [lanes, 8, 1]) }]
    },
    demand: |p, s| match s.language {
        Language::Host => host::attention::demand(p, s),
        Language::Wgsl => tuned(p, 8, s),
        Language::Cuda => tuned(p, 16, s),
    },
};

/// `flash` on matrix units: a warp scores 32 rows, and what it makes of a score stays in its registers.
pub(super) const FLASH_MMA: Variant<Attention> = Variant {
    name: "flash_mma",
    unit: Unit::Mma,
    sources: &[Implementation {
        source: Source::Cuda(include_str!("../../../kernels/attention/flash_mma.cu")),
        precisions: &[Precision::BF16, Precision::F16],
        tunables: &[Tunable { name: "WARPS", values: &[4, 8] }, Tunable { name: "BK", values: &[64, 32] }],
    }],
    dispatches: |p, s| {
        let (rows, keys) = (32 * s.tuned.get("WARPS"), s.tuned.get("BK"));
        let (entry, width) = match (p.head_dim.is_multiple_of(8), p.head_dim <= WIDEST / 2) {
            (true, true) => ("whole64", 64),
            (true, false) => ("whole128", 128),
            (false, true) => ("ragged64", 64),
            (false, false) => ("ragged128", 128),
        };
        let grid = [tiles(p.group_rows(), rows as u64), tiles(p.groups(), 1), 1];
        vec![Dispatch { dynamic_bytes: 2 * width * (rows + 2 * keys), ..Dispatch::over(4, entry, grid, [rows, 1, 1]) }]
    },
    demand: |p, s| copied_once(p, 32 * s.tuned.get("WARPS") as u64, s),
};

/// `flash` on matrix units four warps at a time: tiles come by the unit that copies boxes, and exponentials go along with products.
///
/// What bounds it in bf16, by an H100's measured roofs (`results/h100-cuda/2026-11-27T0806`: 923 TFLOP/s, 7.07 TB/s of L2, 3.08 TB/s of
/// DRAM, 3.84·10¹² exponentials a second), for whole tiles and two teams; three teams read two thirds of L2's bytes:
///
/// | problem | FLOPs | L2 reads | DRAM | exponentials |
/// |---|---|---|---|---|
/// | 2 × 16 heads × 2048 × 128, causal | 36.5 G (34.4 G visible), 40 µs | 285 MB, 40 µs | 67 MB, 22 µs | 71 M, 19 µs |
/// | 1 × 16 heads × 8192 × 128 | 550 G, 596 µs | 4.3 GB, 607 µs | 134 MB, 44 µs | 1074 M, 280 µs |
///
/// A group's first copies and last stores overlap nothing, some 2 of 15 µs in the first problem, which should take 60 to 75 µs
/// (`flash_mma` took 156); the second 0.75 to 0.95 ms. Predicted, not measured.
pub(super) const FLASH_WGMMA: Variant<Attention> = Variant {
    name: "flash_wgmma",
    unit: Unit::Wgmma,
    sources: &[Implementation {
        source: Source::Cuda(include_str!("../../../kernels/attention/flash_wgmma.cu")),
        precisions: &[Precision::BF16, Precision::F16],
        tunables: &[Tunable { name: "TEAMS", values: &[2, 3] }, Tunable { name: "ORDERED", values: &[1, 0] }],
    }],
    dispatches: |p, s| {
        let teams = s.tuned.get("TEAMS");
        let narrow = p.head_dim <= WIDEST / 2;
        let (rows, width) = (64 * teams, if narrow { WIDEST / 2 } else { WIDEST } as u32);
        let keys = if teams == 2 || narrow { 128 } else { 64 };
        let grid = fold(p.groups() * p.group_rows().div_ceil(rows as u64));
        // Tiles begin at a multiple of 1024 bytes.
        if !p.head_dim.is_multiple_of(8) {
            let entry = if narrow { "ragged64" } else { "ragged128" };
            let dynamic_bytes = 1024 + 2 * width * (rows + 2 * keys);
            return vec![Dispatch { dynamic_bytes, ..Dispatch::over(4, entry, grid, [128 * teams, 1, 1]) }];
        }
        let entry = if narrow { "whole64" } else { "whole128" };
        // Rings of 256 keys and as many values, and the barriers of their tiles and of the queries.
        let dynamic_bytes = 1024 + 2 * width * (rows + 2 * 256) + 8 * (1 + 4 * (256 / keys));
        let boxes = [(0, rows), (1, keys), (2, keys)].map(|(tensor, rows)| Arg::Map { tensor, rows, columns: 64 });
        let args = boxes.into_iter().chain([Arg::Tensor(3), Arg::Dims]).collect();
        vec![Dispatch { dynamic_bytes, args, ..Dispatch::over(4, entry, grid, [128 * (teams + 1), 1, 1]) }]
    },
    demand: |p, s| copied_once(p, 64 * s.tuned.get("TEAMS") as u64, s),
};

/// Demand of groups of `rows` rows that copy queries, keys and values once, from where no lane loads anything twice.
fn copied_once(p: &Attention, rows: u64, s: &Setting<'_>) -> Demand {
    let bytes = s.precision.storage().bytes() * p.groups() * p.head_dim * 2 * (p.group_rows() + p.reached(rows));
    Demand::new(bytes, bytes)
}

fn tuned(p: &Attention, lanes: u64, s: &Setting<'_>) -> Demand {
    fused(p, lanes, (8 * s.tuned.get("TM") as u64, s.tuned.get("BK") as u64), s)
}

/// Demand of groups of `rows` rows, `lanes` lanes to each, that meet `keys` keys at a time: each group loads its queries and every key and
/// value that one of them sees, and stores its outputs. For every tile of keys each lane of a row loads its queries again; rows past the
/// end repeat the last one.
pub(in crate::op) fn fused(p: &Attention, lanes: u64, (rows, keys): (u64, u64), s: &Setting<'_>) -> Demand {
    let (all, d) = (p.group_rows(), p.head_dim);
    let reached = p.reached(rows);
    let again = p.reaches(rows).map(|reach| reach.div_ceil(keys)).sum::<u64>() * lanes * rows;
    let of = |queries: u64| s.precision.storage().bytes() * p.groups() * d * (queries + 2 * reached + all);
    Demand::new(of(all), of(again))
}
