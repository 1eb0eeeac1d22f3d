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
use crate::plan::{Language, Precision, Setting, Variant};

mod decode;
mod variants;

use decode::FLASH_DECODE;
pub(super) use variants::fused;
use variants::{FLASH, FLASH_MMA, FLASH_WGMMA, NAIVE};

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
            problem(2, 2, 2, (1, 600), 64, true),
            problem(1, 8, 2, (1, 530), 128, true),
            problem(1, 1, 1, (1, 300), 128, true),
            problem(1, 3, 1, (1, 300), 67, false),
            problem(1, 1, 1, (60, 300), 36, true),
            // Rows of one group that see tiles which others do not.
            problem(1, 1, 1, (150, 300), 64, true),
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
                if given.insert(name.into(), seq.clone()).is_some() {
                    return Err(Error::usage(format!(
                        "attention: seq is given, which stands for seq_q and seq_kv, and {name} too; give seq, or the two apart"
                    )));
                }
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
    const VARIANTS: &'static [Variant<Self>] = &[NAIVE, FLASH, FLASH_MMA, FLASH_WGMMA, FLASH_DECODE];

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
        if variant != NAIVE.name && s.language != Language::Host && self.head_dim > WIDEST {
            return Err(Error::unsupported(format!("attention/{variant}: head_dim"), self.head_dim, format!("tiles for {WIDEST} at most")));
        }
        if variant == FLASH_DECODE.name { decode::fits(self) } else { Ok(()) }
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
