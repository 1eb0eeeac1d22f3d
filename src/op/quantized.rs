//! `C[m,n] = A[m,k] · W[k,n]` with weights of 8 or 4 bits: `W[l,j] = scale[l / group_size, j] · q[l,j]`, q a signed integer.
//!
//! Layout: a word of 32 bits holds the 4 or 8 weights of one column at neighbouring l, the first in its lowest bits, in two's complement; words
//! are a row-major matrix [k / weights of a word, n] and scales one of [k / group_size, n]. So neighbouring lanes, which have neighbouring
//! columns, load neighbouring words and scales, 16 bytes each where n allows, and no lane needs another one's scale: for one row of A, where
//! memory is the limit, every byte of the weights is loaded once, in whole lines, and sums need no shuffles but those of a split k. The vector
//! units of a CPU take a register of words as so many columns likewise.
//!
//! In practice GPTQ's files (Frantar et al., 2022) have this layout, with zero points beside the scales and an order of groups. AWQ (Lin et
//! al., 2023) packs along n instead, interleaved for an instruction that converts pairs; llama.cpp lays the 32 weights of a block along k
//! behind each other with their scale in front, so that a row of outputs is one stream and a block one load: good where a lane takes a whole
//! dot product, at the cost of unaligned blocks. Zero points are left out here: they add half a byte for 128 weights and nothing to learn.
//!
//! Work is that of the product: m·n·k multiply-adds. Unpacking and scaling are not FLOPs, like any index arithmetic.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Definition, Entry, OpRole, Real, TensorSpec, Tensors, parse_over};
use crate::draw::Drawn;
use crate::error::{Error, Result};
use crate::host;
use crate::plan::{Demand, Dispatch, Implementation, Language, Precision, Setting, Source, Unit, Variant, fold, tiles};

mod gemv;

use gemv::GEMV;

/// A matrix product with quantised weights.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantized {
    /// Rows of A and C.
    pub m: u64,
    /// Columns of W and C.
    pub n: u64,
    /// Columns of A, rows of W.
    pub k: u64,
    /// Bits of a weight: 8 or 4.
    pub bits: u64,
    /// Weights of a column that share a scale.
    pub group_size: u64,
}

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: Quantized::NAME,
    role: OpRole::Kernel,
    fields: &["m", "n", "k", "bits", "group_size"],
    parse: |fields| parse_over(ENTRY.fields, &Quantized { m: 1, n: 4096, k: 4096, bits: 4, group_size: 128 }, fields),
    awkward: || {
        let shapes = [
            (1, 1, 4, 8, 4),
            (1, 1, 8, 4, 8),
            (3, 5, 8, 8, 4),
            (7, 31, 96, 4, 24),
            (2, 33, 36, 8, 12),
            // One row and few rows of whole vectors, in whole runs of words and without.
            (1, 72, 256, 8, 64),
            (1, 40, 512, 4, 128),
            (2, 260, 1024, 8, 128),
            (6, 64, 40, 4, 40),
            (8, 132, 256, 4, 256),
            (5, 20, 96, 8, 32),
            // Many rows, and one column of them.
            (11, 1, 96, 8, 32),
            (9, 70, 192, 8, 64),
            (17, 50, 160, 4, 32),
            (130, 66, 64, 4, 16),
        ];
        let fields = |&(m, n, k, bits, group)| json!({"m": m, "n": n, "k": k, "bits": bits, "group_size": group});
        shapes.iter().map(fields).collect()
    },
};

/// Weight number `at` of a word, in two's complement of `bits` bits.
#[inline(always)]
pub fn weight(word: u32, bits: u64, at: u64) -> i32 {
    ((word << (32 - bits * (at + 1))) as i32) >> (32 - bits)
}

impl Quantized {
    /// Weights of a word.
    pub fn pack(&self) -> u64 {
        32 / self.bits
    }

    /// Words along k.
    fn steps(&self) -> u64 {
        self.k / self.pack()
    }

    /// Groups along k.
    fn groups(&self) -> u64 {
        self.k / self.group_size
    }

    /// Refuses weights that do not fill their words, and groups that k cuts.
    fn check(&self) -> Result<()> {
        let refused = |why: String| Err(Error::usage(format!("{}: {why}", Self::NAME)));
        match (self.bits, self.group_size) {
            (8 | 4, 0) => refused("group_size 0; every size must be at least 1".into()),
            (8 | 4, group) if !group.is_multiple_of(self.pack()) => {
                refused(format!("group_size {group} is no multiple of the {} weights of a word; choose 32, 64 or 128", self.pack()))
            }
            (8 | 4, group) if !self.k.is_multiple_of(group) => {
                refused(format!("k {} is no multiple of group_size {group}; choose sizes so that it is", self.k))
            }
            (8 | 4, _) => Ok(()),
            (bits, _) => refused(format!("weights of {bits} bits; there are 8 and 4")),
        }
    }
}

impl Definition for Quantized {
    const NAME: &'static str = "quantized";
    const ROLE: OpRole = OpRole::Kernel;
    const VARIANTS: &'static [Variant<Self>] = &[NAIVE, PACKED, GEMV];

    fn tensors(&self, precision: Precision) -> Result<Vec<TensorSpec>> {
        self.check()?;
        let dtype = precision.storage();
        Ok(vec![
            TensorSpec::input("a", &[self.m, self.k], dtype),
            TensorSpec::words("q", &[self.steps(), self.n]),
            TensorSpec::scales("scale", &[self.groups(), self.n], dtype),
            TensorSpec::output("c", &[self.m, self.n], dtype),
        ])
    }

    fn macs(&self) -> u64 {
        self.m * self.n * self.k
    }

    /// Weights, not words; scales are how they are stored.
    fn params(&self) -> Option<u64> {
        Some(self.n * self.k)
    }

    fn row<R: Real, T: Tensors>(&self, x: &T, row: u64, cols: Range<u64>, out: &mut [R]) {
        out.fill(R::from_f64(0.0));
        for l in 0..self.k {
            let a = x.at::<R>(0, row * self.k + l);
            let (step, at, group) = (l / self.pack(), l % self.pack(), l / self.group_size);
            for (c, col) in out.iter_mut().zip(cols.clone()) {
                let q = weight(x.word(1, step * self.n + col), self.bits, at);
                let scale = x.at::<R>(2, group * self.n + col);
                *c = c.mac(a, scale.times(R::from_f64(q as f64)));
            }
        }
    }

    fn dims(&self) -> Vec<(&'static str, u64)> {
        vec![("m", self.m), ("n", self.n), ("k", self.k), ("bits", self.bits), ("group_size", self.group_size)]
    }

    fn label(&self) -> String {
        format!("{}x{}x{} int{} g{}", self.m, self.n, self.k, self.bits, self.group_size)
    }

    /// Products are multiples of 2⁻¹², of which scale, q and a of the largest size make 2^(6 + bits), and 24 bits are exact in f32.
    fn exact(&self) -> bool {
        self.k <= 1 << (18 - self.bits)
    }

    fn projected(&self, x: &Drawn, r: &dyn Fn(u64) -> f64) -> Option<Vec<f64>> {
        let (n, k) = (self.n, self.k);
        let r: Vec<f64> = (0..n).map(r).collect();
        let weight_of = |l: u64, j: u64| {
            let q = weight(x.word(1, l / self.pack() * n + j), self.bits, l % self.pack());
            x.value(2, l / self.group_size * n + j) * q as f64
        };
        let wr: Vec<f64> = (0..k).map(|l| (0..n).zip(&r).map(|(j, r)| weight_of(l, j) * r).sum()).collect();
        Some((0..self.m).map(|i| (0..k).zip(&wr).map(|(l, w)| x.value(0, i * k + l) * w).sum()).collect())
    }
}

/// One output element a lane, word by word: the definition itself on the host, a 16×16 group on devices.
const NAIVE: Variant<Quantized> = Variant {
    name: "naive",
    unit: Unit::Vector,
    sources: &[
        Implementation { source: Source::Host(host::naive), precisions: &[Precision::F32], tunables: &[] },
        Implementation {
            source: Source::Wgsl(include_str!("../../shaders/quantized/naive.wgsl")),
            precisions: &[Precision::F32, Precision::F16],
            tunables: &[],
        },
        Implementation {
            source: Source::Cuda(include_str!("../../kernels/quantized/naive.cu")),
            precisions: &[Precision::F32, Precision::F16, Precision::BF16],
            tunables: &[],
        },
    ],
    dispatches: |p, _| vec![Dispatch::over(4, "product", [tiles(p.n, 16), tiles(p.m, 16), 1], [16, 16, 1])],
    demand: |p, s| match s.language {
        // A task is one row of C: a row of A, all words and scales, a row of C; a word and a scale for every multiply-add.
        Language::Host => {
            let width = s.precision.storage().bytes();
            let lane = width * p.m * p.k + (4 + width) * p.macs() + width * p.m * p.n;
            Demand::new(requested(p, s, [1, p.n]), lane)
        }
        _ => Demand::new(requested(p, s, [16, 16]), by_element(p, s)),
    },
};

/// Registers of columns for few rows of A, else panels of unpacked weights for the engine of `matmul/packed`: the host's fast rung.
const PACKED: Variant<Quantized> = Variant {
    name: "packed",
    unit: Unit::Vector,
    sources: &[Implementation {
        source: Source::Host(host::quantized::packed),
        precisions: &[Precision::F32],
        tunables: &[host::gemm::KC],
    }],
    // A work-group is a stretch of columns, or a unit of C.
    dispatches: |p, s| vec![Dispatch::over(4, "packed", fold(host::quantized::groups(p, s)), [1, 1, 1])],
    demand: host::quantized::demand,
};

/// Distinct bytes that groups of rows × columns outputs load and store; edge groups load only what exists.
fn requested(p: &Quantized, s: &Setting<'_>, [rows, columns]: [u64; 2]) -> u64 {
    let width = s.precision.storage().bytes();
    let weights = 4 * p.steps() * p.n + width * p.groups() * p.n;
    width * p.m * p.k * p.n.div_ceil(columns) + weights * p.m.div_ceil(rows) + width * p.m * p.n
}

/// Bytes that lanes name of which each computes one output element, or a slice of one: a word and its scale for all weights that it holds.
fn by_element(p: &Quantized, s: &Setting<'_>) -> u64 {
    let width = s.precision.storage().bytes();
    p.m * p.n * (width * p.k + (4 + width) * p.steps() + width)
}
