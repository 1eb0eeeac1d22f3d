//! The ceiling of matrix units: `C += A · B` again and again, A and B fixed, C in registers.
//!
//! The sums of C's columns are stored and verified, so no sum can be left out. One trip in two hundred shows: matrix units cut sums
//! instead of rounding them, and the error grows with the trips. Time tells the rest: the probe is refused when doubling the trips does
//! not double its time. In int8 and fp8 sums are exact, and one trip left out shows in any number of them.
//!
//! In fp8 units keep far fewer bits of a sum than an f32 has: on Ada and Hopper 13 below its leading one (SageAttention2, arXiv:2411.10958),
//! about 14 in all (DeepSeek-V3, arXiv:2412.19437, sections 3.3.2 and 3.5.2). Dense factors would lose whole products once sums are 2¹³
//! times as large, and no tolerance that covers this would see a trip. So factors are drawn so that all products are multiples of 1/64 and
//! cancel but for two of them ([`Pairs`]): sums grow by 2/64 a trip at most and fit 13 bits, whatever the order of addition.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Arithmetic, Definition, Entry, OpRole, Real, TensorSpec, Tensors, Traffic, parse_over};
use crate::draw::{Fill, Pairs};
use crate::error::{Error, Result};
use crate::plan::{Demand, Dispatch, Implementation, Precision, Setting, Source, Unit, Variant, fold};

/// `groups` times the same 64 × 256 matrix C, summed `trips` times over a k of `depth`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Matrix {
    /// Copies of the work, one for every four warps.
    pub groups: u64,
    /// How often the product is added; a multiple of 8, so that kernels unroll without a tail.
    pub trips: u64,
    /// Products of an element of C in one trip: 16, or 32 in fp8 and int8, whose instructions take as many.
    pub depth: u64,
}

const ROWS: u64 = 64;
const COLUMNS: u64 = 256;

/// The depth that a precision's kernels have.
pub const fn depth(precision: Precision) -> u64 {
    if precision.storage().bytes() == 1 { 32 } else { 16 }
}

/// Trips at most in fp8. In units of 1/64 a trip adds 2 at most to an element, and its 32 products are 64 at most each; together they stay
/// within 13 bits, one fewer than units are reported to keep.
const MOST_FP8: u64 = ((1 << 13) - 32 * 64) / 2;

/// Trips at most in int8. A factor is 16 at most ([`crate::draw::small`]), so a trip adds 32 · 16² = 2¹³ at most to an element and 64 times
/// that to the sum of a column, which is 2¹⁹ and must stay below 2³¹ after the last. A multiple of 8 trips makes multiples of 8: never −1,
/// which stands for an output that was not written.
const MOST: u64 = (1 << 12) - 8;

/// Registry entry.
pub const ENTRY: Entry = Entry {
    name: Matrix::NAME,
    role: OpRole::Probe,
    fields: &["groups", "trips", "depth"],
    parse: |fields| parse_over(ENTRY.fields, &Matrix { groups: 2, trips: 64, depth: 16 }, fields),
    awkward: || {
        let cases =
            [16u64, 32].into_iter().flat_map(|depth| [(1u64, 8u64), (3, 16), (2, 256)].map(|(groups, trips)| (groups, trips, depth)));
        cases.map(|(groups, trips, depth)| json!({"groups": groups, "trips": trips, "depth": depth})).collect()
    },
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
        let (most, bits) = match precision {
            Precision::Fp8 => (MOST_FP8, 13),
            Precision::Int8 => (MOST, 32),
            _ => (u64::MAX, 0),
        };
        if self.trips > most {
            return Err(Error::usage(format!(
                "matrix: {} trips in {precision} may sum to more than {bits} bits hold; use at most {most}",
                self.trips
            )));
        }
        // No kernel of it is in f32 or f64, which stand here for a problem in no precision yet.
        let free = matches!(precision, Precision::F32 | Precision::F64) && [16, 32].contains(&self.depth);
        if !free && self.depth != depth(precision) {
            return Err(Error::usage(format!("matrix: depth {} in {precision}; it is {} there", self.depth, depth(precision))));
        }
        let fill = |apart: u64, opposed| match precision {
            Precision::Fp8 => Fill::Pairs(Pairs { depth: self.depth as u32, apart: apart as u32, opposed }),
            _ => Fill::Draw,
        };
        Ok(vec![
            TensorSpec { fill: fill(1, false), ..TensorSpec::input("a", &[ROWS, self.depth], dtype) },
            TensorSpec { fill: fill(COLUMNS, true), ..TensorSpec::weight("b", &[self.depth, COLUMNS], dtype) },
            TensorSpec::output("c", &[self.groups, COLUMNS], precision.sum()),
        ])
    }

    /// Those of the closed form: a product is formed once and added in every trip.
    fn macs(&self) -> u64 {
        (ROWS * COLUMNS * self.depth).saturating_mul(self.groups)
    }

    fn flops(&self) -> u64 {
        (2 * self.macs()).saturating_mul(self.trips)
    }

    fn row<R: Real, T: Tensors>(&self, x: &T, _row: u64, cols: Range<u64>, out: &mut [R]) {
        for (c, col) in out.iter_mut().zip(cols) {
            *c = R::from_f64(0.0);
            for row in 0..ROWS {
                let zero = R::from_f64(0.0);
                let product = (0..self.depth).fold(zero, |sum, p| sum.mac(x.at(0, row * self.depth + p), x.at(1, p * COLUMNS + col)));
                *c = c.plus((0..self.trips).fold(zero, |sum, _| sum.plus(product)));
            }
        }
    }

    fn dims(&self) -> Vec<(&'static str, u64)> {
        vec![("groups", self.groups), ("trips", self.trips)]
    }

    fn label(&self) -> String {
        let depth = if self.depth == 16 { String::new() } else { format!(" k{}", self.depth) };
        format!("{} groups x{}{depth}", self.groups, self.trips)
    }

    /// Sums as the units make them: cut, but for integers, which are exact.
    fn arithmetic(&self, precision: Precision, _unit: Unit) -> Arithmetic {
        if precision.is_integer() { Arithmetic::F64 } else { Arithmetic::Matrix }
    }

    fn traffic(&self, precision: Precision) -> Option<Traffic> {
        let read = (ROWS + COLUMNS) * self.depth * precision.storage().bytes();
        Some(Traffic { read, written: self.groups * COLUMNS * precision.sum().bytes() })
    }
}

const PRECISIONS: &[Precision] = &[Precision::F16, Precision::BF16, Precision::TF32, Precision::Fp8, Precision::Int8];

fn dispatches(p: &Matrix, _: &Setting<'_>) -> Vec<Dispatch> {
    vec![Dispatch::over(3, "rate", fold(p.groups), [128, 1, 1])]
}

/// Operands in registers: what a warp can have. In fp8 sm_89 and sm_120 alone have an instruction for it (QMMA).
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
        let operands = (ROWS + COLUMNS) * p.depth * s.precision.storage().bytes();
        let totals = 4 * COLUMNS * 4;
        dispatches(p, s).into_iter().map(|d| Dispatch { shared_bytes: (operands + totals) as u32, ..d }).collect()
    },
    // Replaced by `traffic`.
    demand: |_, _| Demand::new(0, 0),
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_precision_has_one_depth_and_no_more_trips_than_its_sums_hold() {
        let of = |depth, trips, precision| Matrix { groups: 1, trips, depth }.tensors(precision);
        for precision in PRECISIONS {
            let legal = [16, 32].map(|depth| of(depth, 64, *precision).is_ok());
            assert_eq!(legal, [16, 32].map(|own| own == depth(*precision)), "{precision}");
        }
        assert!(of(32, MOST, Precision::Int8).is_ok() && of(16, 1 << 14, Precision::F16).is_ok());
        assert!(of(32, MOST + 8, Precision::Int8).is_err_and(|e| e.to_string().contains("at most 4088")));
        assert!(MOST * ROWS * 32 * 16 * 16 < 1 << 31 && MOST.is_multiple_of(8));
        assert!(of(32, MOST_FP8, Precision::Fp8).is_ok() && MOST_FP8.is_multiple_of(8));
        assert!(of(32, MOST_FP8 + 8, Precision::Fp8).is_err_and(|e| e.to_string().contains("13 bits hold; use at most 3072")));
    }
}
