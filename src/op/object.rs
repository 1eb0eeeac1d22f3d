//! The object-safe face of an op: every [`Definition`] has it.

use std::ops::Range;

use serde_json::Value;

use super::{Absolute, Arithmetic, Counted, Definition, OpRole, Real, TensorSpec, Traffic, real};
use crate::draw::Drawn;
use crate::error::{Error, Result};
use crate::plan::{DeviceInfo, Language, Plan, Precision, Tuned, Unit, Variant, VariantInfo};

/// One problem of one op, object-safe: what everything below the command line takes.
pub trait Op: Send + Sync {
    /// The op's name.
    fn name(&self) -> &'static str;
    /// Probe or kernel.
    fn role(&self) -> OpRole;
    /// The problem's fields as they stand in records.
    fn problem(&self) -> Value;
    /// Short text for tables.
    fn label(&self) -> String;
    /// Tensors in binding order; see [`Definition::tensors`].
    fn tensors(&self, precision: Precision) -> Result<Vec<TensorSpec>>;
    /// Multiply-adds of one launch.
    fn macs(&self) -> u64;
    /// FLOPs of one launch.
    fn flops(&self) -> u64;
    /// See [`Definition::exponentials`].
    fn exponentials(&self) -> u64;
    /// See [`Definition::params`].
    fn params(&self) -> Option<u64>;
    /// See [`Definition::traffic`].
    fn traffic(&self, precision: Precision) -> Option<Traffic>;
    /// See [`Definition::arithmetic`].
    fn arithmetic(&self, precision: Precision, unit: Unit) -> Arithmetic;
    /// [`Definition::row`] in the arithmetic asked for, widened to f64.
    fn row(&self, arithmetic: Arithmetic, x: &Drawn, row: u64, cols: Range<u64>) -> Vec<f64>;
    /// See [`Definition::dims`].
    fn dims(&self) -> Vec<(&'static str, u64)>;
    /// See [`Definition::exact`].
    fn exact(&self) -> bool;
    /// See [`Definition::uniform`].
    fn uniform(&self) -> bool;
    /// See [`Definition::whole_rows`].
    fn whole_rows(&self) -> Option<u64>;
    /// See [`Definition::promised`].
    fn promised(&self, precision: Precision) -> f64;
    /// See [`Definition::projected`].
    fn projected(&self, inputs: &Drawn, r: &dyn Fn(u64) -> f64) -> Option<Vec<f64>>;
    /// Facts about every variant.
    fn variants(&self) -> Vec<VariantInfo>;
    /// The plan of one variant; see [`Plan`].
    fn plan(&self, variant: &str, precision: Precision, language: Language, tuned: &Tuned, device: &DeviceInfo) -> Result<Plan>;
}

/// Independent samples of a problem: images of a convolution, sequences of attention. `None` where no field counts them; the rows of a
/// matmul can be anything.
pub fn samples(op: &dyn Op) -> Option<u64> {
    let field = match op.name() {
        "conv2d" | "depthwise" => "n",
        "attention" | "linformer" | "performer" => "batch",
        _ => return None,
    };
    op.problem()[field].as_u64()
}

impl<P: Definition> Op for P {
    fn name(&self) -> &'static str {
        P::NAME
    }
    fn role(&self) -> OpRole {
        P::ROLE
    }
    fn problem(&self) -> Value {
        serde_json::to_value(self).unwrap_or(Value::Null)
    }
    fn label(&self) -> String {
        Definition::label(self)
    }
    fn tensors(&self, precision: Precision) -> Result<Vec<TensorSpec>> {
        Definition::tensors(self, precision)
    }
    fn macs(&self) -> u64 {
        Definition::macs(self)
    }
    fn flops(&self) -> u64 {
        Definition::flops(self)
    }
    fn exponentials(&self) -> u64 {
        Definition::exponentials(self)
    }
    fn params(&self) -> Option<u64> {
        Definition::params(self)
    }
    fn traffic(&self, precision: Precision) -> Option<Traffic> {
        Definition::traffic(self, precision)
    }
    fn arithmetic(&self, precision: Precision, unit: Unit) -> Arithmetic {
        Definition::arithmetic(self, precision, unit)
    }
    fn row(&self, arithmetic: Arithmetic, x: &Drawn, row: u64, cols: Range<u64>) -> Vec<f64> {
        fn widened<P: Definition, R: Real>(p: &P, x: &Drawn, row: u64, cols: Range<u64>) -> Vec<f64> {
            let mut out = vec![R::from_f64(f64::NAN); (cols.end - cols.start) as usize];
            p.row::<R, Drawn>(x, row, cols, &mut out);
            out.into_iter().map(R::to_f64).collect()
        }
        let further = |truth: f64, a: f64, b: f64| if (a - truth).abs() < (b - truth).abs() { b } else { a };
        match arithmetic {
            Arithmetic::F64 => widened::<P, f64>(self, x, row, cols),
            Arithmetic::F32 => widened::<P, f32>(self, x, row, cols),
            Arithmetic::F16 => widened::<P, half::f16>(self, x, row, cols),
            Arithmetic::Matrix => widened::<P, real::Matrix<13>>(self, x, row, cols),
            Arithmetic::MatrixBrain => widened::<P, real::Matrix<16>>(self, x, row, cols),
            Arithmetic::MatrixEither => {
                let truth = widened::<P, f64>(self, x, row, cols.clone());
                let rounded = widened::<P, real::Matrix<13>>(self, x, row, cols.clone());
                let cut = widened::<P, real::Matrix<13, true>>(self, x, row, cols);
                truth.into_iter().zip(rounded).zip(cut).map(|((truth, a), b)| further(truth, a, b)).collect()
            }
            Arithmetic::Absolute => widened::<P, Absolute>(self, x, row, cols),
            Arithmetic::Counted => widened::<P, Counted>(self, x, row, cols),
        }
    }
    fn dims(&self) -> Vec<(&'static str, u64)> {
        Definition::dims(self)
    }
    fn exact(&self) -> bool {
        Definition::exact(self)
    }
    fn uniform(&self) -> bool {
        Definition::uniform(self)
    }
    fn whole_rows(&self) -> Option<u64> {
        Definition::whole_rows(self)
    }
    fn promised(&self, precision: Precision) -> f64 {
        Definition::promised(self, precision)
    }
    fn projected(&self, inputs: &Drawn, r: &dyn Fn(u64) -> f64) -> Option<Vec<f64>> {
        Definition::projected(self, inputs, r)
    }
    fn variants(&self) -> Vec<VariantInfo> {
        P::VARIANTS.iter().map(Variant::info).collect()
    }
    fn plan(&self, variant: &str, precision: Precision, language: Language, tuned: &Tuned, device: &DeviceInfo) -> Result<Plan> {
        let found = P::VARIANTS.iter().find(|v| v.name == variant).ok_or_else(|| {
            let known: Vec<_> = P::VARIANTS.iter().map(|v| v.name).collect();
            Error::usage(format!("{} has no variant '{variant}'; it has {}", P::NAME, known.join(", ")))
        })?;
        Plan::of(self, found, precision, language, tuned, device)
    }
}
