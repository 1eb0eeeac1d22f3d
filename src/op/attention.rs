//! Scaled dot-product attention: `o = softmax(q · kᵀ / √d) · v`, every head by itself.
//!
//! `kv_heads` divides `heads`: equal (MHA), fewer (GQA) or one (MQA). Causal queries are aligned to the end: query i sees keys
//! 0 ..= i + seq_kv − seq_q, so that a single query (decode) sees all. The queries of all heads that share keys lie one behind the other in
//! memory: `group_rows` rows, from which fused kernels cut their tiles.

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::size::checked_macs;
use super::{Definition, Entry, Op, OpRole, Real, TensorSpec, Tensors, parse_over};
use crate::draw::{Fill, Rows};
use crate::error::{Error, Result};
use crate::host;
use crate::plan::{Arg, Demand, Dispatch, Implementation, Language, Precision, Setting, Source, Tunable, Unit, Variant, fold};

/// An attention layer's core, without its projections.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attention {
    /// Independent sequences.
    pub batch: u64,
    /// Heads of queries.
    pub heads: u64,
    /// Heads of keys and values; divides `heads`.
    pub kv_heads: u64,
    /// Queries of a head.
    pub seq_q: u64,
    /// Keys of a head.
    pub seq_kv: u64,
    /// Elements of a query, a key and a value.
    pub head_dim: u64,
    /// Whether a query sees only keys up to its own position.
    pub causal: bool,
}

/// log₂ of the factor on drawn queries: scores get a σ of 8/3, near what trained models have.
pub(super) const SHARPNESS: u32 = 3;
/// Largest head of the device kernels: their tiles in workgroup memory are that wide.
pub(super) const WIDEST: u64 = 128;

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: Attention::NAME,
    role: OpRole::Kernel,
    fields: &["batch", "heads", "kv_heads", "seq", "seq_q", "seq_kv", "head_dim", "causal"],
    parse,
    awkward: || {
        vec![
            problem(1, 2, 2, (67, 67), 64, true),
            problem(1, 2, 1, (35, 129), 40, true),
            problem(1, 6, 2, (1, 77), 64, true),
            problem(1, 1, 1, (1, 1), 1, false),
            problem(2, 3, 3, (37, 21), 5, false),
            problem(1, 4, 1, (33, 70), 80, false),
            problem(1, 2, 2, (65, 97), 128, true),
            problem(1, 2, 2, (3, 5), 100, true),
            problem(2, 4, 2, (64, 64), 32, true),
            problem(1, 1, 1, (130, 200), 67, true),
        ]
    },
};

fn problem(batch: u64, heads: u64, kv_heads: u64, (seq_q, seq_kv): (u64, u64), head_dim: u64, causal: bool) -> Value {
    json!({"batch": batch, "heads": heads, "kv_heads": kv_heads, "seq_q": seq_q, "seq_kv": seq_kv, "head_dim": head_dim, "causal": causal})
}

/// `seq` stands for both lengths; `heads` alone stands for as many heads of keys.
fn parse(fields: &Value) -> Result<Arc<dyn Op>> {
    let mut fields = fields.clone();
    if let Some(given) = fields.as_object_mut() {
        if let Some(seq) = given.remove("seq") {
            for name in ["seq_q", "seq_kv"] {
                given.entry(name).or_insert(seq.clone());
            }
        }
        if let Some(heads) = given.get("heads").cloned() {
            given.entry("kv_heads").or_insert(heads);
        }
    }
    let default = Attention { batch: 1, heads: 8, kv_heads: 8, seq_q: 1024, seq_kv: 1024, head_dim: 64, causal: false };
    parse_over(ENTRY.fields, &default, &fields)
}

impl Attention {
    /// Rows of the queries: of all sequences and heads.
    pub(crate) fn rows(&self) -> u64 {
        self.batch * self.heads * self.seq_q
    }

    /// Sets of keys: each is shared by `group_rows` queries.
    pub(crate) fn groups(&self) -> u64 {
        self.batch * self.kv_heads
    }

    /// Queries that share keys.
    pub(crate) fn group_rows(&self) -> u64 {
        self.heads / self.kv_heads * self.seq_q
    }

    /// The head of keys that a row's query looks at, over all sequences.
    pub(crate) fn head_of_keys(&self, row: u64) -> u64 {
        row / self.group_rows()
    }

    /// Keys that a row's query sees: the first so many.
    pub(crate) fn visible(&self, row: u64) -> u64 {
        if self.causal { row % self.seq_q + 1 + self.seq_kv - self.seq_q } else { self.seq_kv }
    }

    /// Keys that the queries of each tile of so many rows reach, over the tiles of a group.
    fn reaches(&self, tile: u64) -> impl Iterator<Item = u64> + '_ {
        let all = self.group_rows();
        (0..all).step_by(tile as usize).map(move |first| {
            let last = (first + tile).min(all) - 1;
            // A tile that holds the last query of a head sees all.
            if first / self.seq_q == last / self.seq_q { self.visible(last) } else { self.seq_kv }
        })
    }

    /// The sum of what tiles of so many rows reach.
    pub(crate) fn reached(&self, tile: u64) -> u64 {
        self.reaches(tile).sum()
    }

    /// Pairs of a query and a key that it sees, in one head.
    fn pairs(&self) -> u64 {
        let (q, kv) = (self.seq_q, self.seq_kv);
        if self.causal { q * (kv - q) + q * (q + 1) / 2 } else { q * kv }
    }

    fn checked(&self) -> Result<()> {
        let Attention { heads, kv_heads, seq_q, seq_kv, .. } = *self;
        if kv_heads == 0 || !heads.is_multiple_of(kv_heads) {
            return Err(Error::usage(format!("attention: {kv_heads} heads of keys do not divide {heads} heads of queries")));
        }
        if self.causal && seq_q > seq_kv {
            return Err(Error::usage(format!(
                "attention: causal queries are aligned to the last key, so {seq_q} need more than {seq_kv} keys"
            )));
        }
        checked_macs(self, &[self.batch, heads, seq_q, seq_kv, self.head_dim, 2])
    }
}

impl Definition for Attention {
    const NAME: &'static str = "attention";
    const ROLE: OpRole = OpRole::Kernel;
    const VARIANTS: &'static [Variant<Self>] = &[NAIVE, FLASH, FLASH_MMA];

    fn tensors(&self, precision: Precision) -> Result<Vec<TensorSpec>> {
        self.checked()?;
        let dtype = precision.storage();
        let queries = [self.batch, self.heads, self.seq_q, self.head_dim];
        let keys = [self.batch, self.kv_heads, self.seq_kv, self.head_dim];
        // Sizes past 32 bits are refused by every plan.
        let of = |size: u64| size as u32;
        let named = Rows { columns: of(self.head_dim), rows: of(self.seq_kv), first: 0, keys: of(self.seq_kv), shift: 0, step: 1 };
        // A query names the last key that it would see if it were causal.
        let first = self.seq_kv.saturating_sub(self.seq_q);
        let asked = Rows { rows: of(self.seq_q), first: of(first), shift: SHARPNESS, step: 2, ..named };
        Ok(vec![
            TensorSpec { fill: Fill::Rows(asked), ..TensorSpec::input("q", &queries, dtype) },
            TensorSpec { fill: Fill::Rows(named), ..TensorSpec::input("k", &keys, dtype) },
            TensorSpec::input("v", &keys, dtype),
            TensorSpec::output("o", &queries, dtype),
        ])
    }

    fn macs(&self) -> u64 {
        2 * self.head_dim * self.pairs() * self.batch * self.heads
    }

    fn row<R: Real, T: Tensors>(&self, x: &T, row: u64, cols: Range<u64>, out: &mut [R]) {
        let d = self.head_dim;
        let keys = self.head_of_keys(row) * self.seq_kv;
        let scale = R::from_f64(1.0 / (d as f64).sqrt());
        let score = |key: u64| {
            let product = |sum: R, c: u64| sum.mac(x.at(0, row * d + c), x.at(1, (keys + key) * d + c));
            (0..d).fold(R::from_f64(0.0), product).times(scale)
        };
        let mut weights: Vec<R> = (0..self.visible(row)).map(score).collect();
        let largest = weights.iter().fold(weights[0], |largest, &s| largest.larger(s));
        weights.iter_mut().for_each(|s| *s = s.minus(largest).exp());
        let sum = weights.iter().fold(R::from_f64(0.0), |sum, &w| sum.plus(w));
        for (o, c) in out.iter_mut().zip(cols) {
            let mean = |sum: R, (key, &weight): (u64, &R)| sum.mac(weight, x.at(2, (keys + key) * d + c));
            *o = (0..).zip(&weights).fold(R::from_f64(0.0), mean).over(sum);
        }
    }

    fn dims(&self) -> Vec<(&'static str, u64)> {
        let Attention { batch, heads, kv_heads, seq_q, seq_kv, head_dim, causal } = *self;
        vec![
            ("batch", batch),
            ("heads", heads),
            ("kv_heads", kv_heads),
            ("seq_q", seq_q),
            ("seq_kv", seq_kv),
            ("head_dim", head_dim),
            ("causal", causal as u64),
        ]
    }

    fn label(&self) -> String {
        let heads = if self.heads == self.kv_heads { self.heads.to_string() } else { format!("{}/{}", self.heads, self.kv_heads) };
        let seq = if self.seq_q == self.seq_kv { self.seq_q.to_string() } else { format!("{}/{}", self.seq_q, self.seq_kv) };
        format!("{}x{heads}x{seq}x{}{}", self.batch, self.head_dim, if self.causal { " causal" } else { "" })
    }

    fn fits(&self, variant: &str, s: &Setting<'_>) -> Result<()> {
        match variant != NAIVE.name && s.language != Language::Host && self.head_dim > WIDEST {
            true => Err(Error::unsupported(format!("attention/{variant}: head_dim"), self.head_dim, format!("tiles for {WIDEST} at most"))),
            false => Ok(()),
        }
    }

    fn whole_rows(&self) -> Option<u64> {
        Some(self.seq_q)
    }

    /// WGSL promises exp(x) within 3 + 2·|x| units in the last place, and the others less. Weighted by the weights, |x| is ln n on
    /// average at most: it is their entropy, less what keeps the largest from being one. Weights stand above and below the fraction bar.
    /// One for each pair that is not masked.
    fn exponentials(&self) -> u64 {
        self.batch * self.heads * self.pairs()
    }

    fn promised(&self, precision: Precision) -> f64 {
        2.0 * (3.0 + 2.0 * (self.seq_kv as f64).ln()) * precision.sum().epsilon()
    }
}

/// Three launches: all scores, softmax of their rows, times V; every pair is computed, hidden ones too.
const NAIVE: Variant<Attention> = Variant {
    name: "naive",
    unit: Unit::Vector,
    sources: &[
        Implementation { source: Source::Host(host::attention::naive), precisions: &[Precision::F32], tunables: &[] },
        Implementation {
            source: Source::Wgsl(include_str!("../../shaders/attention/naive.wgsl")),
            precisions: &[Precision::F32, Precision::F16],
            tunables: &[],
        },
        Implementation {
            source: Source::Cuda(include_str!("../../kernels/attention/naive.cu")),
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
const FLASH: Variant<Attention> = Variant {
    name: "flash",
    unit: Unit::Vector,
    sources: &[
        Implementation {
            source: Source::Host(host::attention::flash),
            precisions: &[Precision::F32],
            tunables: &[host::attention::PANELS],
        },
        Implementation {
            source: Source::Wgsl(include_str!("../../shaders/attention/flash.wgsl")),
            precisions: &[Precision::F32, Precision::F16],
            tunables: &[Tunable { name: "TM", values: &[4, 2] }, Tunable { name: "BK", values: &[16, 8, 32] }],
        },
        Implementation {
            source: Source::Cuda(include_str!("../../kernels/attention/flash.cu")),
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
const FLASH_MMA: Variant<Attention> = Variant {
    name: "flash_mma",
    unit: Unit::Mma,
    sources: &[Implementation {
        source: Source::Cuda(include_str!("../../kernels/attention/flash_mma.cu")),
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
    // Queries, keys and values are copied once a group, and from there no lane loads anything twice.
    demand: |p, s| {
        let elements = 2 * p.group_rows() + 2 * p.reached(32 * s.tuned.get("WARPS") as u64);
        let bytes = s.precision.storage().bytes() * p.groups() * p.head_dim * elements;
        Demand::new(bytes, bytes)
    },
};

pub(super) const fn tiles(extent: u64, tile: u64) -> u32 {
    let count = extent.div_ceil(tile);
    if count > u32::MAX as u64 { u32::MAX } else { count as u32 }
}

fn tuned(p: &Attention, lanes: u64, s: &Setting<'_>) -> Demand {
    fused(p, lanes, (8 * s.tuned.get("TM") as u64, s.tuned.get("BK") as u64), s)
}

/// Demand of groups of `rows` rows, `lanes` lanes to each, that meet `keys` keys at a time: each group loads its queries and every key and
/// value that one of them sees, and stores its outputs. For every tile of keys each lane of a row loads its queries again; rows past the
/// end repeat the last one.
pub(super) fn fused(p: &Attention, lanes: u64, (rows, keys): (u64, u64), s: &Setting<'_>) -> Demand {
    let (all, d) = (p.group_rows(), p.head_dim);
    let reached = p.reached(rows);
    let again = p.reaches(rows).map(|reach| reach.div_ceil(keys)).sum::<u64>() * lanes * rows;
    let of = |queries: u64| s.precision.storage().bytes() * p.groups() * d * (queries + 2 * reached + all);
    Demand::new(of(all), of(again))
}
