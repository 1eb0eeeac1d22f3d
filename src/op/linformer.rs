//! Linformer's attention: `o = softmax(q · (e · k)ᵀ / √d) · (f · v)`, every head by itself, with keys and values projected from `seq` to
//! `rank` rows by e and f, which all heads share (Wang et al., "Linformer: Self-Attention with Linear Complexity", 2020, equation 7).
//!
//! No mask: a projected key mixes all positions, so none could be hidden. Elements of e and f are drawn with a variance of 1/3 like all
//! others and count √(3 / seq) times, so that projected keys and values vary as much as plain ones do.

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::attention::{Attention, SHARPNESS, WIDEST, fused};
use super::size::checked_macs;
use super::{Definition, Entry, Op, OpRole, Real, TensorSpec, Tensors, parse_over};
use crate::draw::{Fill, Rows};
use crate::error::{Error, Result};
use crate::host::{self, gemm};
use crate::plan::{Arg, Demand, Dispatch, Implementation, Language, Precision, Setting, Source, Unit, Variant, fold, tiles};

/// Attention over projected keys and values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Linformer {
    /// Independent sequences.
    pub batch: u64,
    /// Heads, each with keys of its own.
    pub heads: u64,
    /// Queries and keys of a head.
    pub seq: u64,
    /// Elements of a query, a key and a value.
    pub head_dim: u64,
    /// Keys and values of a head once projected.
    pub rank: u64,
}

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: Linformer::NAME,
    role: OpRole::Kernel,
    fields: &["batch", "heads", "seq", "head_dim", "rank"],
    parse,
    awkward: || {
        [(1, 2, 67, 64, 33), (2, 3, 37, 5, 21), (1, 1, 1, 1, 1), (1, 2, 130, 40, 70), (1, 1, 35, 128, 129), (2, 1, 65, 100, 3)]
            .map(|(batch, heads, seq, head_dim, rank)| json!({"batch": batch, "heads": heads, "seq": seq, "head_dim": head_dim, "rank": rank}))
            .into()
    },
};

fn parse(fields: &Value) -> Result<Arc<dyn Op>> {
    parse_over(ENTRY.fields, &Linformer { batch: 1, heads: 8, seq: 1024, head_dim: 64, rank: 256 }, fields)
}

impl Linformer {
    /// What remains once keys and values are projected.
    pub(crate) fn projected(&self) -> Attention {
        let Linformer { batch, heads, seq, head_dim, rank } = *self;
        Attention { batch, heads, kv_heads: heads, seq_q: seq, seq_kv: rank, head_dim, causal: false }
    }

    /// The projection of all heads' keys, or of all values, as one product.
    pub(crate) fn extents(&self) -> gemm::Extents {
        gemm::Extents { m: self.rank as usize, n: (self.batch * self.heads * self.head_dim) as usize, k: self.seq as usize }
    }

    /// What an element of e and f counts.
    pub(crate) fn unit(&self) -> f64 {
        (3.0 / self.seq as f64).sqrt()
    }

    /// Projected keys of a head, then its projected values.
    fn rows_of<R: Real, T: Tensors>(&self, x: &T, head: u64) -> Vec<R> {
        let (n, d, unit) = (self.seq, self.head_dim, R::from_f64(self.unit()));
        let mut projected = Vec::new();
        for (from, by) in [(1, 3), (2, 4)] {
            let rows: Vec<R> = (0..n * d).map(|i| x.at(from, head * n * d + i)).collect();
            for i in 0..self.rank {
                let mut sums = vec![R::from_f64(0.0); d as usize];
                for (j, row) in (0..).zip(rows.chunks_exact(d as usize)) {
                    let weight = x.at(by, i * n + j);
                    sums.iter_mut().zip(row).for_each(|(sum, &value)| *sum = sum.mac(weight, value));
                }
                projected.extend(sums.into_iter().map(|sum| sum.times(unit)));
            }
        }
        projected
    }
}

impl Definition for Linformer {
    const NAME: &'static str = "linformer";
    const ROLE: OpRole = OpRole::Kernel;
    const VARIANTS: &'static [Variant<Self>] = &[LINEAR];

    fn tensors(&self, precision: Precision) -> Result<Vec<TensorSpec>> {
        checked_macs(self, &[self.batch, self.heads, self.seq, self.rank, self.head_dim, 4])?;
        let dtype = precision.storage();
        let rows = [self.batch, self.heads, self.seq, self.head_dim];
        // Sizes past 32 bits are refused by every plan. Only how sharply queries tell keys apart matters here: no key is one that they name.
        let (columns, keys) = (self.head_dim as u32, self.seq as u32);
        let sharp = Rows { columns, rows: keys, first: 0, keys, shift: SHARPNESS, step: 2 };
        Ok(vec![
            TensorSpec { fill: Fill::Rows(sharp), ..TensorSpec::input("q", &rows, dtype) },
            TensorSpec::input("k", &rows, dtype),
            TensorSpec::input("v", &rows, dtype),
            TensorSpec::weight("e", &[self.rank, self.seq], dtype),
            TensorSpec::weight("f", &[self.rank, self.seq], dtype),
            TensorSpec::output("o", &rows, dtype),
        ])
    }

    fn macs(&self) -> u64 {
        4 * self.batch * self.heads * self.seq * self.rank * self.head_dim
    }

    fn row<R: Real, T: Tensors>(&self, x: &T, row: u64, cols: Range<u64>, out: &mut [R]) {
        let d = self.head_dim as usize;
        let head = row / self.seq;
        let projected = x.shared(head, || self.rows_of(x, head));
        let (keys, values) = projected.split_at(self.rank as usize * d);
        let scale = R::from_f64(1.0 / (d as f64).sqrt());
        let query: Vec<R> = (0..d as u64).map(|c| x.at(0, row * d as u64 + c)).collect();
        let score = |key: &[R]| query.iter().zip(key).fold(R::from_f64(0.0), |sum, (&q, &k)| sum.mac(q, k)).times(scale);
        let mut weights: Vec<R> = keys.chunks_exact(d).map(score).collect();
        let largest = weights.iter().fold(weights[0], |largest, &s| largest.larger(s));
        weights.iter_mut().for_each(|s| *s = s.minus(largest).exp());
        let sum = weights.iter().fold(R::from_f64(0.0), |sum, &w| sum.plus(w));
        for (o, c) in out.iter_mut().zip(cols) {
            let values = values.iter().skip(c as usize).step_by(d);
            *o = weights.iter().zip(values).fold(R::from_f64(0.0), |sum, (&w, &v)| sum.mac(w, v)).over(sum);
        }
    }

    fn dims(&self) -> Vec<(&'static str, u64)> {
        let Linformer { batch, heads, seq, head_dim, rank } = *self;
        vec![("batch", batch), ("heads", heads), ("seq", seq), ("head_dim", head_dim), ("rank", rank)]
    }

    fn label(&self) -> String {
        format!("{}x{}x{}x{} r{}", self.batch, self.heads, self.seq, self.head_dim, self.rank)
    }

    fn fits(&self, variant: &str, s: &Setting<'_>) -> Result<()> {
        match s.language != Language::Host && self.head_dim > WIDEST {
            true => Err(Error::unsupported(format!("linformer/{variant}: head_dim"), self.head_dim, format!("tiles for {WIDEST} at most"))),
            false => Ok(()),
        }
    }

    fn whole_rows(&self) -> Option<u64> {
        Some(self.seq)
    }

    fn exponentials(&self) -> u64 {
        self.batch * self.heads * self.seq * self.rank
    }

    /// As [`Attention`]'s, over `rank` keys.
    fn promised(&self, precision: Precision) -> f64 {
        Definition::promised(&self.projected(), precision)
    }
}

/// Keys and values are projected to scratch, by one launch; a second one is fused attention over them, which keeps no scores.
const LINEAR: Variant<Linformer> = Variant {
    name: "linear",
    unit: Unit::Vector,
    sources: &[
        Implementation {
            source: Source::Host(host::linformer::linear),
            precisions: &[Precision::F32],
            tunables: &[gemm::KC, host::attention::PANELS],
        },
        Implementation {
            source: Source::Wgsl(include_str!("../../shaders/linformer/linear.wgsl")),
            precisions: &[Precision::F32],
            tunables: &[],
        },
        Implementation {
            source: Source::Cuda(include_str!("../../kernels/linformer/linear.cu")),
            precisions: &[Precision::F32],
            tunables: &[],
        },
    ],
    dispatches: |p, s| {
        let rows = [p.batch, p.heads, p.rank, p.head_dim];
        let scratch = ["projected keys", "projected values"].map(|name| TensorSpec::scratch(name, &rows, s.precision.sum()));
        let [q, k, v, e, f, o] = [0, 1, 2, 3, 4, 5].map(Arg::Tensor);
        let [keys, values] = [0, 1].map(Arg::Scratch);
        let tile = Tile::of(s.language);
        let launch = |entry, grid, args: &[Arg], reads: &[usize], writes: &[usize]| {
            let (args, block) = (args.iter().copied().chain([Arg::Dims]).collect(), [tile.columns / 4, 8, 1]);
            Dispatch { args, reads: reads.into(), writes: writes.into(), ..Dispatch::over(6, entry, grid, block) }
        };
        let heads = p.batch * p.heads;
        let (projects, attends) = match s.language {
            Language::Host => (fold(2 * gemm::units(&p.extents(), s)), fold(host::attention::units(&p.projected(), s))),
            _ => (
                [tiles(p.head_dim, tile.columns as u64), tiles(p.rank, ROWS), tiles(2 * heads, 1)],
                [tiles(p.seq, ROWS), tiles(heads, 1), 1],
            ),
        };
        let project = launch("project", projects, &[k, v, e, f, keys, values], &[1, 2, 3, 4], &[6, 7]);
        let attend = launch("attend", attends, &[q, o, keys, values], &[0, 6, 7], &[5]);
        let [project, attend] = [(project, tile.project_bytes), (attend, tile.attend_bytes)]
            .map(|(dispatch, shared_bytes)| Dispatch { shared_bytes, ..dispatch });
        vec![Dispatch { scratch: scratch.into(), ..project }, attend]
    },
    demand: |p, s| {
        let tile = match s.language {
            Language::Host => return host::linformer::demand(p, s),
            language => Tile::of(language),
        };
        // Every group of a projection loads its rows of e or f and its columns of the keys or values once, and stores its tile.
        let (n, d, r) = (p.seq, p.head_dim, p.rank);
        let elements = r * n * d.div_ceil(tile.columns as u64) + n * d * r.div_ceil(ROWS) + r * d;
        let projects = s.precision.storage().bytes() * 2 * p.batch * p.heads * elements;
        let attends = fused(&p.projected(), tile.columns as u64 / 4, (ROWS, tile.keys), s);
        Demand::new(projects + attends.requested, projects + attends.lane)
    },
};

/// Rows of a group of device lanes: of a projection, and queries.
const ROWS: u64 = 32;

/// What else device kernels cut their work into.
struct Tile {
    /// Columns of a projection, four a lane.
    columns: u32,
    /// Keys that queries meet at a time.
    keys: u64,
    /// Workgroup memory of the launches; WGSL declares it for all.
    project_bytes: u32,
    attend_bytes: u32,
}

impl Tile {
    fn of(language: Language) -> Self {
        match language {
            Language::Host => Tile { columns: 32, keys: 1, project_bytes: 0, attend_bytes: 0 },
            Language::Wgsl => Tile { columns: 32, keys: 16, project_bytes: 11_392, attend_bytes: 11_392 },
            Language::Cuda => Tile { columns: 64, keys: 32, project_bytes: 12_416, attend_bytes: 20_608 },
        }
    }
}
