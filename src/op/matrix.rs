//! The ceiling of matrix units: `C += A · B` again and again, A and B fixed, C in registers.
//!
//! The sums of C's columns are stored and verified, so no sum can be left out. One trip in two hundred shows: matrix units cut sums
//! instead of rounding them, and the error grows with the trips. Time tells the rest: the probe is refused when doubling the trips does
//! not double its time.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Arithmetic, Definition, Entry, OpRole, Real, TensorSpec, Tensors, Traffic, parse_over};
use crate::error::{Error, Result};
use crate::plan::{Demand, Dispatch, Implementation, Precision, Setting, Source, Unit, Variant, fold};

/// `groups` times the same 64 × 256 matrix C, summed `trips` times over a k of 16.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matrix {
    /// Copies of the work, one for every four warps.
    pub groups: u64,
    /// How often the product is added; a multiple of 8, so that kernels unroll without a tail.
    pub trips: u64,
}

const ROWS: u64 = 64;
const COLUMNS: u64 = 256;
const DEPTH: u64 = 16;

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: Matrix::NAME,
    role: OpRole::Probe,
    fields: &["groups", "trips"],
    parse: |fields| parse_over(ENTRY.fields, &Matrix { groups: 2, trips: 64 }, fields),
    awkward: || [(1u64, 8u64), (3, 16), (2, 256)].iter().map(|(groups, trips)| json!({"groups": groups, "trips": trips})).collect(),
};

impl Definition for Matrix {
    const NAME: &'static str = "matrix";
    const ROLE: OpRole = OpRole::Probe;
    const VARIANTS: &'static [Variant<Self>] = &[MMA, WGMMA];

    fn tensors(&self, precision: Precision) -> Result<Vec<TensorSpec>> {
        let dtype = precision.storage();
        if self.trips == 0 || !self.trips.is_multiple_of(8) {
            return Err(Error::usage(format!("matrix: trips {} must be a multiple of 8", self.trips)));
        }
        Ok(vec![
            TensorSpec::input("a", &[ROWS, DEPTH], dtype),
            TensorSpec::weight("b", &[DEPTH, COLUMNS], dtype),
            TensorSpec::output("c", &[self.groups, COLUMNS], precision.sum()),
        ])
    }

    /// Those of the closed form: a product is formed once and added in every trip.
    fn macs(&self) -> u64 {
        (ROWS * COLUMNS * DEPTH).saturating_mul(self.groups)
    }

    fn flops(&self) -> u64 {
        (2 * self.macs()).saturating_mul(self.trips)
    }

    fn row<R: Real, T: Tensors>(&self, x: &T, _row: u64, cols: Range<u64>, out: &mut [R]) {
        for (c, col) in out.iter_mut().zip(cols) {
            *c = R::from_f64(0.0);
            for row in 0..ROWS {
                let zero = R::from_f64(0.0);
                let product = (0..DEPTH).fold(zero, |sum, p| sum.mac(x.at(0, row * DEPTH + p), x.at(1, p * COLUMNS + col)));
                *c = c.plus((0..self.trips).fold(zero, |sum, _| sum.plus(product)));
            }
        }
    }

    fn dims(&self) -> Vec<(&'static str, u64)> {
        vec![("groups", self.groups), ("trips", self.trips)]
    }

    fn label(&self) -> String {
        format!("{} groups x{}", self.groups, self.trips)
    }

    /// Sums as the units make them, in every precision.
    fn arithmetic(&self, _precision: Precision, _unit: Unit) -> Arithmetic {
        Arithmetic::Matrix
    }

    fn traffic(&self, precision: Precision) -> Option<Traffic> {
        let read = (ROWS + COLUMNS) * DEPTH * precision.storage().bytes();
        Some(Traffic { read, written: self.groups * COLUMNS * precision.sum().bytes() })
    }
}

const PRECISIONS: &[Precision] = &[Precision::F16, Precision::BF16, Precision::TF32];

fn dispatches(p: &Matrix, _: &Setting<'_>) -> Vec<Dispatch> {
    vec![Dispatch::over(3, "rate", fold(p.groups), [128, 1, 1])]
}

/// Operands in registers: what a warp can have.
const MMA: Variant<Matrix> = Variant {
    name: "mma",
    unit: Unit::Mma,
    sources: &[Implementation { source: Source::Cuda(include_str!("../../kernels/matrix/mma.cu")), precisions: PRECISIONS, tunables: &[] }],
    dispatches,
    // Replaced by `traffic`.
    demand: |_, _| Demand::new(0, 0),
};

/// Operands in shared memory: what four warps can have together.
const WGMMA: Variant<Matrix> = Variant {
    name: "wgmma",
    unit: Unit::Wgmma,
    sources: &[Implementation {
        source: Source::Cuda(include_str!("../../kernels/matrix/wgmma.cu")),
        precisions: PRECISIONS,
        tunables: &[],
    }],
    dispatches: |p, s| {
        let operands = (ROWS + COLUMNS) * DEPTH * s.precision.storage().bytes();
        let totals = 4 * COLUMNS * 4;
        dispatches(p, s).into_iter().map(|d| Dispatch { shared_bytes: (operands + totals) as u32, ..d }).collect()
    },
    // Replaced by `traffic`.
    demand: |_, _| Demand::new(0, 0),
};
