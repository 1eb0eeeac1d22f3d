//! Performer's attention with positive random features: `o_i = φ(q_i) · Σ_j φ(k_j) v_jᵀ / φ(q_i) · Σ_j φ(k_j)`, every head by itself, where
//! `φ(x)_f = exp(w_f · x − |x|² / 2)` of `x = q / ∜d` and `k / ∜d` (Choromanski et al., "Rethinking Attention with Performers", 2021, lemma
//! 1). Over normal w_f of variance 1, φ(q) · φ(k) has a mean of exp(q · k / √d), so this approaches softmax attention as features grow.
//! The paper's factor 1/√features cancels and is left out, and so is its stabiliser: an exponent is at most |w_f|² / 2, near d / 2,
//! whatever x is.
//!
//! No mask. Elements of w are drawn near-normal with a variance of 1/3 like all others and count √3 times; rows of w are
//! independent, not orthogonal as the paper prefers. Queries and keys are drawn plainly, which gives scores a σ of 1/3: the variance of
//! the approximation grows with exp(|q + k|²), and sharper ones would need more features than there are keys.
//!
//! Written otherwise, it is attention twice. Features are queries of the keys, whose scores are lowered by |k|² / 2: that makes for each
//! feature a mean value, and the logarithm of the sum of its weights. The queries then attend to the features, whose scores are raised
//! by that logarithm, for their mean values. |q|² cancels, and softmax stabilises both. That is what `linear` computes.

use std::ops::Range;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::attention::{Attention, WIDEST, fused};
use super::size::checked_macs;
use super::{Definition, Entry, Op, OpRole, Real, TensorSpec, Tensors, parse_over};
use crate::error::{Error, Result};
use crate::host;
use crate::plan::{Arg, Demand, Dispatch, Implementation, Language, Precision, Setting, Source, Unit, Variant, fold, tiles};

/// Attention through random features.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Performer {
    /// Independent sequences.
    pub batch: u64,
    /// Heads, each with keys of its own.
    pub heads: u64,
    /// Queries and keys of a head.
    pub seq: u64,
    /// Elements of a query, a key and a value.
    pub head_dim: u64,
    /// Random features, the same for all heads.
    pub features: u64,
}

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: Performer::NAME,
    role: OpRole::Kernel,
    fields: &["batch", "heads", "seq", "head_dim", "features"],
    parse,
    awkward: || {
        [(1, 2, 67, 64, 33), (2, 3, 37, 5, 21), (1, 1, 1, 1, 1), (1, 2, 130, 40, 70), (1, 1, 35, 128, 129), (2, 1, 65, 100, 3)]
            .map(|(batch, heads, seq, head_dim, features)| {
                json!({"batch": batch, "heads": heads, "seq": seq, "head_dim": head_dim, "features": features})
            })
            .into()
    },
};

fn parse(fields: &Value) -> Result<Arc<dyn Op>> {
    parse_over(ENTRY.fields, &Performer { batch: 1, heads: 8, seq: 1024, head_dim: 64, features: 256 }, fields)
}

impl Performer {
    /// Features as queries of the keys, then queries as those of the features.
    pub(crate) fn passes(&self) -> [Attention; 2] {
        let Performer { batch, heads, seq, head_dim, features } = *self;
        [(features, seq), (seq, features)].map(|(seq_q, seq_kv)| Attention {
            batch,
            heads,
            kv_heads: heads,
            seq_q,
            seq_kv,
            head_dim,
            causal: false,
        })
    }

    /// Factors of a feature's product with a query or key, and of the square of a key, in an exponent.
    pub(crate) fn factors(&self) -> (f64, f64) {
        let root = (self.head_dim as f64).sqrt();
        ((3.0 / root).sqrt(), -0.5 / root)
    }

    /// w, a row for each of its columns.
    fn columns<R: Real, T: Tensors>(&self, x: &T) -> Arc<Vec<R>> {
        let (d, m) = (self.head_dim, self.features);
        // A part of its own, behind those of the heads.
        x.shared(self.batch * self.heads, || (0..d).flat_map(|c| (0..m).map(move |f| f * d + c)).map(|i| x.at(3, i)).collect())
    }

    /// φ of a query or key, over the columns of w.
    fn features_of<R: Real>(&self, columns: &[R], of: &[R]) -> Vec<R> {
        let (scale, half) = self.factors();
        let square = of.iter().fold(R::from_f64(0.0), |sum, &c| sum.plus(c.times(c))).times(R::from_f64(-half));
        let mut sums = vec![R::from_f64(0.0); self.features as usize];
        for (column, &element) in columns.chunks_exact(sums.len()).zip(of) {
            sums.iter_mut().zip(column).for_each(|(sum, &w)| *sum = sum.mac(w, element));
        }
        sums.into_iter().map(|sum| sum.times(R::from_f64(scale)).minus(square).exp()).collect()
    }

    /// Σ φ(k_j) v_jᵀ of a head, a row for each feature, then Σ φ(k_j).
    fn sums_of<R: Real, T: Tensors>(&self, x: &T, head: u64) -> Vec<R> {
        let (n, d, m) = (self.seq, self.head_dim, self.features as usize);
        let mut sums = vec![R::from_f64(0.0); m * (d as usize + 1)];
        let (values, counts) = sums.split_at_mut(m * d as usize);
        let columns = self.columns(x);
        for j in head * n..(head + 1) * n {
            let [key, value]: [Vec<R>; 2] = [1, 2].map(|tensor| (0..d).map(|c| x.at(tensor, j * d + c)).collect());
            let features = self.features_of(&columns, &key);
            for ((row, count), &feature) in values.chunks_exact_mut(d as usize).zip(counts.iter_mut()).zip(&features) {
                row.iter_mut().zip(&value).for_each(|(sum, &v)| *sum = sum.mac(feature, v));
                *count = count.plus(feature);
            }
        }
        sums
    }
}

impl Definition for Performer {
    const NAME: &'static str = "performer";
    const ROLE: OpRole = OpRole::Kernel;
    const VARIANTS: &'static [Variant<Self>] = &[LINEAR];

    fn tensors(&self, precision: Precision) -> Result<Vec<TensorSpec>> {
        checked_macs(self, &[self.batch, self.heads, self.seq, self.features, self.head_dim, 4])?;
        let dtype = precision.storage();
        let rows = [self.batch, self.heads, self.seq, self.head_dim];
        Ok(vec![
            TensorSpec::input("q", &rows, dtype),
            TensorSpec::input("k", &rows, dtype),
            TensorSpec::input("v", &rows, dtype),
            TensorSpec::weight("w", &[self.features, self.head_dim], dtype),
            TensorSpec::output("o", &rows, dtype),
        ])
    }

    fn macs(&self) -> u64 {
        4 * self.batch * self.heads * self.seq * self.features * self.head_dim
    }

    fn row<R: Real, T: Tensors>(&self, x: &T, row: u64, cols: Range<u64>, out: &mut [R]) {
        let (d, m) = (self.head_dim, self.features as usize);
        let head = row / self.seq;
        let shared = x.shared(head, || self.sums_of(x, head));
        let (sums, counts) = shared.split_at(m * d as usize);
        let query: Vec<R> = (0..d).map(|c| x.at(0, row * d + c)).collect();
        let features = self.features_of(&self.columns(x), &query);
        let all = features.iter().zip(counts).fold(R::from_f64(0.0), |sum, (&f, &count)| sum.plus(f.times(count)));
        for (o, c) in out.iter_mut().zip(cols) {
            let column = sums.iter().skip(c as usize).step_by(d as usize);
            *o = features.iter().zip(column).fold(R::from_f64(0.0), |sum, (&f, &s)| sum.mac(f, s)).over(all);
        }
    }

    fn dims(&self) -> Vec<(&'static str, u64)> {
        let Performer { batch, heads, seq, head_dim, features } = *self;
        vec![("batch", batch), ("heads", heads), ("seq", seq), ("head_dim", head_dim), ("features", features)]
    }

    fn label(&self) -> String {
        format!("{}x{}x{}x{} f{}", self.batch, self.heads, self.seq, self.head_dim, self.features)
    }

    fn fits(&self, variant: &str, s: &Setting<'_>) -> Result<()> {
        match s.language != Language::Host && self.head_dim > WIDEST {
            true => Err(Error::unsupported(format!("performer/{variant}: head_dim"), self.head_dim, format!("tiles for {WIDEST} at most"))),
            false => Ok(()),
        }
    }

    fn whole_rows(&self) -> Option<u64> {
        Some(self.seq)
    }

    /// A feature of every query and of every key.
    fn exponentials(&self) -> u64 {
        2 * self.batch * self.heads * self.seq * self.features
    }

    /// Those of attention twice, and the logarithm that is handed from one to the other: WGSL promises it within 2⁻²¹ near one, and three
    /// units in the last place elsewhere. It stands above and below the fraction bar.
    fn promised(&self, precision: Precision) -> f64 {
        let passes: f64 = self.passes().iter().map(|pass| Definition::promised(pass, precision)).sum();
        passes + 2.0 * 4.0 * precision.sum().epsilon()
    }
}

/// Two launches of fused attention: features over keys, whose means and logarithms go to scratch; queries over features.
const LINEAR: Variant<Performer> = Variant {
    name: "linear",
    unit: Unit::Vector,
    sources: &[
        Implementation {
            source: Source::Host(host::performer::linear),
            precisions: &[Precision::F32],
            tunables: &[host::attention::PANELS],
        },
        Implementation {
            source: Source::Wgsl(include_str!("../../shaders/performer/linear.wgsl")),
            precisions: &[Precision::F32],
            tunables: &[],
        },
        Implementation {
            source: Source::Cuda(include_str!("../../kernels/performer/linear.cu")),
            precisions: &[Precision::F32],
            tunables: &[],
        },
    ],
    dispatches: |p, s| {
        let sum = s.precision.sum();
        let means = TensorSpec::scratch("means", &[p.batch, p.heads, p.features, p.head_dim], sum);
        let logs = TensorSpec::scratch("logarithms", &[p.batch, p.heads, p.features], sum);
        let [q, k, v, w, o] = [0, 1, 2, 3, 4].map(Arg::Tensor);
        let [held_means, held_logs] = [0, 1].map(Arg::Scratch);
        let (lanes, _, shared_bytes) = tile(s.language);
        let launch = |entry, grid, args: &[Arg], reads: &[usize], writes: &[usize]| {
            let (args, block) = (args.iter().copied().chain([Arg::Dims]).collect(), [lanes, 8, 1]);
            Dispatch { shared_bytes, args, reads: reads.into(), writes: writes.into(), ..Dispatch::over(5, entry, grid, block) }
        };
        let grids = p.passes().map(|pass| match s.language {
            Language::Host => fold(host::attention::units(&pass, s)),
            _ => [tiles(pass.seq_q, ROWS), tiles(pass.groups(), 1), 1],
        });
        let gather = launch("gather", grids[0], &[k, v, w, held_means, held_logs], &[1, 2, 3], &[5, 6]);
        let attend = launch("attend", grids[1], &[q, w, o, held_means, held_logs], &[0, 3, 5, 6], &[4]);
        vec![Dispatch { scratch: vec![means, logs], ..gather }, attend]
    },
    demand: |p, s| {
        let (lanes, keys) = match (s.language, tile(s.language)) {
            (Language::Host, _) => return host::performer::demand(p, s),
            (_, (lanes, keys, _)) => (lanes as u64, keys),
        };
        let passes = p.passes();
        let [gathers, attends] = [0, 1].map(|i| fused(&passes[i], lanes, (ROWS, keys), s));
        // Logarithms are stored once, and loaded by every group of queries.
        let logs = 4 * passes[0].rows() * (1 + p.seq.div_ceil(ROWS));
        Demand::new(gathers.requested + attends.requested + logs, gathers.lane + attends.lane + logs)
    },
};

/// Queries of a group of device lanes.
const ROWS: u64 = 32;

/// Lanes of a row, keys that queries meet at a time, bytes of workgroup memory.
const fn tile(language: Language) -> (u32, u64, u32) {
    match language {
        Language::Host => (8, 1, 0),
        Language::Wgsl => (8, 16, 11_456),
        Language::Cuda => (16, 32, 20_608),
    }
}
