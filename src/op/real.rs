//! The number types that a definition runs over.

use std::cell::Cell;

use serde::{Deserialize, Serialize};

use super::DType;
use crate::plan::{Precision, Unit};

/// Which number type a definition runs in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Arithmetic {
    /// The oracle.
    F64,
    /// Products and sums rounded to f32.
    F32,
    /// Products and sums rounded to f16.
    F16,
    /// Factors rounded to eleven bits (tf32, f16), sums cut to f32: what matrix units do.
    Matrix,
    /// The same with factors of eight bits (bf16).
    MatrixBrain,
    /// Factors rounded to eleven bits or cut to them, whichever takes an element further off: which of both a library does to tf32 nobody
    /// documents, and units that read f32 from shared memory leave the lower bits out (PTX ISA, "wgmma").
    MatrixEither,
    /// Σ|a·b| in f64: the scale of rounding errors.
    Absolute,
    /// Counts multiply-adds, computes nothing.
    Counted,
}

impl Arithmetic {
    /// The arithmetic that sums in `dtype`; no unit sums in bf16 or 8 bits themselves, and nothing in words. Sums of integers are exact, as f64 has them.
    pub const fn of(dtype: DType) -> Self {
        match dtype {
            DType::F64 | DType::I8 | DType::I32 => Arithmetic::F64,
            DType::F32 | DType::BF16 | DType::F8 | DType::U32 => Arithmetic::F32,
            DType::F16 => Arithmetic::F16,
        }
    }

    /// The arithmetic of sums in `precision` on `unit`: matrix units round a factor that was itself computed.
    pub const fn summing(precision: Precision, unit: Unit) -> Self {
        match (precision, unit.multiplies_matrices()) {
            (Precision::TF32, _) if matches!(unit, Unit::Library) => Arithmetic::MatrixEither,
            (Precision::TF32, _) | (Precision::F16, true) => Arithmetic::Matrix,
            (Precision::BF16, true) => Arithmetic::MatrixBrain,
            _ => Self::of(precision.sum()),
        }
    }

    /// Distance from 1 to the next larger number of this arithmetic.
    pub const fn epsilon(self) -> f64 {
        match self {
            Arithmetic::F64 | Arithmetic::Absolute | Arithmetic::Counted => DType::F64.epsilon(),
            Arithmetic::F32 | Arithmetic::Matrix | Arithmetic::MatrixBrain | Arithmetic::MatrixEither => DType::F32.epsilon(),
            Arithmetic::F16 => DType::F16.epsilon(),
        }
    }
}

/// A number type. `mac` is counted as work; the plain operations are not.
pub trait Real: Copy + Send + Sync + 'static {
    /// Nearest value of this type.
    fn from_f64(x: f64) -> Self;
    /// Nearest value of this type.
    fn from_f32(x: f32) -> Self {
        Self::from_f64(x as f64)
    }
    /// Widened without loss.
    fn to_f64(self) -> f64;
    /// `self + a · b`, fused or not: both roundings are legal on every device we know.
    fn mac(self, a: Self, b: Self) -> Self;
    /// Sum, not counted.
    fn plus(self, other: Self) -> Self;
    /// Product, not counted.
    fn times(self, other: Self) -> Self;
    /// Difference, not counted.
    fn minus(self, other: Self) -> Self;
    /// Quotient, not counted.
    fn over(self, other: Self) -> Self;
    /// The larger of both, not counted.
    fn larger(self, other: Self) -> Self;
    /// e to this power, not counted.
    fn exp(self) -> Self;
}

impl Real for f64 {
    fn from_f64(x: f64) -> Self {
        x
    }
    fn to_f64(self) -> f64 {
        self
    }
    #[inline]
    fn mac(self, a: Self, b: Self) -> Self {
        self + a * b
    }
    fn plus(self, other: Self) -> Self {
        self + other
    }
    fn times(self, other: Self) -> Self {
        self * other
    }
    fn minus(self, other: Self) -> Self {
        self - other
    }
    fn over(self, other: Self) -> Self {
        self / other
    }
    fn larger(self, other: Self) -> Self {
        self.max(other)
    }
    fn exp(self) -> Self {
        f64::exp(self)
    }
}

impl Real for f32 {
    fn from_f64(x: f64) -> Self {
        x as f32
    }
    #[inline]
    fn from_f32(x: f32) -> Self {
        x
    }
    fn to_f64(self) -> f64 {
        self as f64
    }
    #[inline]
    fn mac(self, a: Self, b: Self) -> Self {
        self + a * b
    }
    fn plus(self, other: Self) -> Self {
        self + other
    }
    fn times(self, other: Self) -> Self {
        self * other
    }
    fn minus(self, other: Self) -> Self {
        self - other
    }
    fn over(self, other: Self) -> Self {
        self / other
    }
    fn larger(self, other: Self) -> Self {
        self.max(other)
    }
    fn exp(self) -> Self {
        f32::exp(self)
    }
}

impl Real for half::f16 {
    fn from_f64(x: f64) -> Self {
        half::f16::from_f64(x)
    }
    fn to_f64(self) -> f64 {
        self.to_f64()
    }
    fn mac(self, a: Self, b: Self) -> Self {
        // One rounding, as a fused f16 multiply-add does: the f64 product and sum of f16 values are exact.
        half::f16::from_f64(self.to_f64() + a.to_f64() * b.to_f64())
    }
    fn plus(self, other: Self) -> Self {
        self + other
    }
    fn times(self, other: Self) -> Self {
        self * other
    }
    fn minus(self, other: Self) -> Self {
        self - other
    }
    fn over(self, other: Self) -> Self {
        self / other
    }
    fn larger(self, other: Self) -> Self {
        self.max(other)
    }
    fn exp(self) -> Self {
        half::f16::from_f64(self.to_f64().exp())
    }
}

/// An f32 as matrix units compute it: factors rounded by `LESS` of their bits, which tensors of the storage type have not got, or cut; sums
/// cut, not rounded.
#[derive(Debug, Clone, Copy)]
pub struct Matrix<const LESS: u32, const CUT: bool = false>(f32);

impl<const LESS: u32, const CUT: bool> Matrix<LESS, CUT> {
    /// A factor of a product: to nearest, ties away from zero, unless it is cut.
    fn operand(self) -> f64 {
        let half = if CUT { 0 } else { 1 << (LESS - 1) };
        f32::from_bits(self.0.to_bits().wrapping_add(half) & !((1 << LESS) - 1)) as f64
    }
}

/// The nearest f32 that is not larger in magnitude.
fn cut(x: f64) -> f32 {
    let near = x as f32;
    if (near as f64).abs() > x.abs() { f32::from_bits(near.to_bits() - 1) } else { near }
}

impl<const LESS: u32, const CUT: bool> Real for Matrix<LESS, CUT> {
    fn from_f64(x: f64) -> Self {
        Matrix(x as f32)
    }
    fn to_f64(self) -> f64 {
        self.0 as f64
    }
    fn mac(self, a: Self, b: Self) -> Self {
        Matrix(cut(self.0 as f64 + a.operand() * b.operand()))
    }
    fn plus(self, other: Self) -> Self {
        Matrix(cut(self.0 as f64 + other.0 as f64))
    }
    fn times(self, other: Self) -> Self {
        Matrix(self.0 * other.0)
    }
    fn minus(self, other: Self) -> Self {
        Matrix(self.0 - other.0)
    }
    fn over(self, other: Self) -> Self {
        Matrix(self.0 / other.0)
    }
    fn larger(self, other: Self) -> Self {
        Matrix(self.0.max(other.0))
    }
    fn exp(self) -> Self {
        Matrix(self.0.exp())
    }
}

/// Counts its own multiply-adds; see [`counted_macs`].
#[derive(Debug, Clone, Copy)]
pub struct Counted;

thread_local! {
    static MACS: Cell<u64> = const { Cell::new(0) };
}

/// Runs `work` and returns the multiply-adds that [`Counted`] numbers performed in it on this thread.
pub fn counted_macs(work: impl FnOnce()) -> u64 {
    MACS.set(0);
    work();
    MACS.get()
}

impl Real for Counted {
    fn from_f64(_: f64) -> Self {
        Counted
    }
    fn to_f64(self) -> f64 {
        0.0
    }
    fn mac(self, _: Self, _: Self) -> Self {
        MACS.set(MACS.get() + 1);
        Counted
    }
    fn plus(self, _: Self) -> Self {
        Counted
    }
    fn times(self, _: Self) -> Self {
        Counted
    }
    fn minus(self, _: Self) -> Self {
        Counted
    }
    fn over(self, _: Self) -> Self {
        Counted
    }
    fn larger(self, _: Self) -> Self {
        Counted
    }
    fn exp(self) -> Self {
        Counted
    }
}

/// Sums of absolute values: every term counts with its size.
#[derive(Debug, Clone, Copy)]
pub struct Absolute(f64);

impl Real for Absolute {
    fn from_f64(x: f64) -> Self {
        Absolute(x.abs())
    }
    fn to_f64(self) -> f64 {
        self.0
    }
    fn mac(self, a: Self, b: Self) -> Self {
        Absolute(self.0 + a.0 * b.0)
    }
    fn plus(self, other: Self) -> Self {
        Absolute(self.0 + other.0)
    }
    fn times(self, other: Self) -> Self {
        Absolute(self.0 * other.0)
    }
    /// A term counts with its size, whatever its sign.
    fn minus(self, other: Self) -> Self {
        Absolute(self.0 + other.0)
    }
    fn over(self, other: Self) -> Self {
        Absolute(self.0 / other.0)
    }
    fn larger(self, other: Self) -> Self {
        Absolute(self.0.max(other.0))
    }
    /// Weights that are told from absolute values would be meaningless: all count alike.
    fn exp(self) -> Self {
        Absolute(1.0)
    }
}
