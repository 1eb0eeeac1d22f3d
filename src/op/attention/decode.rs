//! The rung for few queries, such as the one of each sequence that generates a token (Dao, Haziza, Massa, Sizov: Flash-Decoding for
//! long-context inference, 2023).

use super::{Attention, WIDEST};
use crate::error::{Error, Result};
use crate::host::attention::decode as host;
use crate::op::TensorSpec;
use crate::plan::{Arg, Demand, Dispatch, Implementation, Language, Precision, Setting, Source, Tunable, Unit, Variant, fold, tiles};

/// Most queries that may share keys: with more, the sums that a split stores, and `combine` loads, outweigh its keys and values.
const MOST_QUERIES: u64 = 256;
/// Lanes of a group of CUDA's splits, and columns that each holds.
const LANES: u64 = 128;
const OWN: u64 = 8;

/// The keys are split over groups: each leaves its sums, its largest score and its sum of weights, and a second launch combines them.
pub(super) const FLASH_DECODE: Variant<Attention> = Variant {
    name: "flash_decode",
    unit: Unit::Vector,
    sources: &[
        Implementation { source: Source::Host(host::flash_decode), precisions: &[Precision::F32], tunables: &[host::SPLIT] },
        Implementation {
            source: Source::Wgsl(include_str!("../../../shaders/attention/flash_decode.wgsl")),
            precisions: &[Precision::F32, Precision::F16],
            tunables: &[Tunable { name: "SPLIT", values: &[256, 128, 64] }],
        },
        Implementation {
            source: Source::Cuda(include_str!("../../../kernels/attention/flash_decode.cu")),
            precisions: &[Precision::F32, Precision::F16, Precision::BF16],
            tunables: &[Tunable { name: "SPLIT", values: &[256, 128, 64, 512] }],
        },
    ],
    dispatches: |p, s| {
        if s.language == Language::Host {
            // A work-group is a split of a group's keys.
            return vec![Dispatch::over(4, "flash_decode", fold(host::units(p, s)), [1, 1, 1])];
        }
        let splits = Splits::of(p, s);
        let sums = TensorSpec::scratch("sums", &[p.rows(), splits.count, splits.width], s.precision.sum());
        let states = TensorSpec::scratch("states", &[p.rows(), splits.count, 2], s.precision.sum());
        let [q, k, v, o] = [0, 1, 2, 3].map(Arg::Tensor);
        let launch = |entry, grid, lanes, args: &[Arg], reads: &[usize], writes: &[usize], shared_bytes| {
            let args = args.iter().copied().chain([Arg::Scratch(0), Arg::Scratch(1), Arg::Dims]).collect();
            let (reads, writes) = (reads.to_vec(), writes.to_vec());
            Dispatch { shared_bytes, args, reads, writes, ..Dispatch::over(4, entry, grid, [lanes, 1, 1]) }
        };
        let grid = [tiles(p.group_rows(), splits.rows), tiles(splits.count, 1), tiles(p.groups(), 1)];
        let (entries, lanes) = (splits.entries, splits.lanes);
        // WGSL declares its workgroup memory for all entries.
        let combines = if s.language == Language::Wgsl { splits.shared_bytes } else { 0 };
        let split = launch(entries[0], grid, lanes[0], &[q, k, v], &[0, 1, 2], &[4, 5], splits.shared_bytes);
        vec![Dispatch { scratch: vec![sums, states], ..split }, launch(entries[1], fold(p.rows()), lanes[1], &[o], &[4, 5], &[3], combines)]
    },
    demand: |p, s| {
        if s.language == Language::Host {
            return host::demand(p, s);
        }
        let (splits, d, all) = (Splits::of(p, s), p.head_dim, p.group_rows());
        // A group's queries, the keys and values that one of them sees, what it leaves; then what is combined, and the outputs.
        let shared = all * splits.count * d + 2 * p.reached(splits.rows) * d;
        let left = all * splits.count * (splits.width + 2);
        let (storage, sum) = (s.precision.storage().bytes(), s.precision.sum().bytes());
        let requested = p.groups() * (storage * (shared + all * d) + sum * 2 * left);
        // Lanes load each key and value once, all rows of a group for each key that it has at a time, and a row's states once and a half.
        let wgsl = s.language == Language::Wgsl;
        let (again, columns) = if wgsl { (1, splits.width / 4) } else { (LANES * OWN / splits.wide, d) };
        let queries = again * all.div_ceil(splits.rows) * splits.rows * splits.count * d + 2 * p.reached(splits.rows) * d;
        let combined = all * splits.count * (splits.width + 3 * columns);
        Demand::new(requested, p.groups() * (storage * (queries + all * d) + sum * (left + combined)))
    },
};

/// How the work is divided.
struct Splits {
    /// Splits of the keys.
    count: u64,
    /// Queries of a group.
    rows: u64,
    /// Columns that a key's lanes are made for.
    wide: u64,
    /// Columns of a row of sums.
    width: u64,
    /// Entry points, and lanes of a group of each.
    entries: [&'static str; 2],
    lanes: [u32; 2],
    shared_bytes: u32,
}

impl Splits {
    fn of(p: &Attention, s: &Setting<'_>) -> Self {
        let (d, split) = (p.head_dim, s.tuned.get("SPLIT"));
        let count = p.seq_kv.div_ceil(split as u64);
        if s.language == Language::Wgsl {
            let entries = if d.is_multiple_of(4) { ["whole", "combine"] } else { ["ragged", "combine_ragged"] };
            // Queries, weights, and what lanes add up, with a column of padding: vectors of four rows.
            let shared_bytes = 16 * (WIDEST as u32 + split + 2 * 32 * 9);
            return Splits { count, rows: 4, wide: WIDEST, width: d.next_multiple_of(4), entries, lanes: [256, 32], shared_bytes };
        }
        let whole = d.is_multiple_of(16 / s.precision.storage().bytes());
        let wide = if d <= WIDEST / 2 { WIDEST / 2 } else { WIDEST };
        let (rows, entry) = match (whole, p.group_rows(), wide == WIDEST) {
            (true, 1, false) => (1, "one64"),
            (true, 1, true) => (1, "one128"),
            (true, 2..=4, false) => (4, "four64"),
            (true, 2..=4, true) => (4, "four128"),
            (true, _, false) => (8, "eight64"),
            (true, _, true) => (8, "eight128"),
            (false, _, false) => (4, "ragged64"),
            (false, _, true) => (4, "ragged128"),
        };
        // Weights of all keys, then the sums of four warps in their place.
        let shared_bytes = 4 * rows as u32 * split.max(4 * wide as u32);
        Splits { count, rows, wide, width: d, entries: [entry, "combine"], lanes: [LANES as u32; 2], shared_bytes }
    }
}

/// Refuses problems with more queries than a split is worth storing sums for.
pub(super) fn fits(p: &Attention) -> Result<()> {
    match p.group_rows() <= MOST_QUERIES {
        true => Ok(()),
        // The same words for all such problems, which are listed together.
        false => Err(Error::unsupported(
            format!("attention/flash_decode: more than {MOST_QUERIES} queries that share keys"),
            "room for their partial sums",
            "'flash' for them, which needs none",
        )),
    }
}
