//! What is computed: one definition per op, from which everything else follows.
//!
//! An op is defined once, over a number type. [`Definition::row`] is the plainest loop that computes output elements:
//! with `f64` it is the oracle, with `f32` (or [`half::f16`]) the yardstick for tolerance, with [`Counted`] it counts its own
//! multiply-adds. The tensor list is the ABI: allocation, data, compulsory bytes, WGSL bindings and CUDA argument order follow
//! from [`Definition::tensors`]. Probes are ops in the same registry.

use std::ops::Range;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::draw::{Drawn, Fill};
use crate::error::{Error, Result};
use crate::plan::{Precision, Setting, Unit, Variant, VariantInfo};

pub mod attention;
pub mod chase;
pub mod conv2d;
pub mod depthwise;
pub mod dot;
mod dtype;
pub mod exp;
mod f8;
pub mod fma;
mod inputs;
pub mod launch;
mod layers;
pub mod linformer;
pub mod matmul;
pub mod matrix;
mod object;
pub mod performer;
pub mod quantized;
pub mod ramp;
mod real;
pub mod shared;
mod size;
pub mod stream;
pub mod transfer;
mod window;

pub(crate) use dtype::bf16_of;
pub use dtype::{DType, stored_i32};
pub use f8::{f8_of, f8_value};
pub use inputs::{Kept, Tensors};
pub use layers::{LAYERS, Layer, layer_name};
pub use object::{Op, samples};
pub use real::{Absolute, Arithmetic, Counted, Real, counted_macs};
pub use size::checked_shape;

/// What a tensor is to its op.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Activations or other data that change with every problem.
    Input,
    /// Parameters.
    Weight,
    /// Written by the kernel.
    Output,
    /// Written by one launch of a call and read by a later one.
    Scratch,
}

impl Role {
    /// Whether kernels only read it.
    pub const fn is_input(self) -> bool {
        matches!(self, Role::Input | Role::Weight)
    }
}

/// One tensor of an op, in binding order.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TensorSpec {
    /// Name in the op's formula.
    pub name: &'static str,
    /// Input, weight or output.
    pub role: Role,
    /// Extents, outermost first, dense and row-major.
    pub shape: Vec<u64>,
    /// Storage type.
    pub dtype: DType,
    /// Where its elements come from.
    pub fill: Fill,
}

impl TensorSpec {
    /// A drawn input.
    pub fn input(name: &'static str, shape: &[u64], dtype: DType) -> Self {
        TensorSpec { name, role: Role::Input, shape: shape.to_vec(), dtype, fill: Fill::Draw }
    }

    /// Drawn parameters.
    pub fn weight(name: &'static str, shape: &[u64], dtype: DType) -> Self {
        TensorSpec { role: Role::Weight, ..Self::input(name, shape, dtype) }
    }

    /// Drawn parameters in words, each several of them.
    pub fn words(name: &'static str, shape: &[u64]) -> Self {
        Self::weight(name, shape, DType::U32)
    }

    /// Positive factors of parameters.
    pub fn scales(name: &'static str, shape: &[u64], dtype: DType) -> Self {
        TensorSpec { fill: Fill::Scale, ..Self::weight(name, shape, dtype) }
    }

    /// An output.
    pub fn output(name: &'static str, shape: &[u64], dtype: DType) -> Self {
        TensorSpec { role: Role::Output, ..Self::input(name, shape, dtype) }
    }

    /// Scratch.
    pub fn scratch(name: &'static str, shape: &[u64], dtype: DType) -> Self {
        TensorSpec { role: Role::Scratch, ..Self::input(name, shape, dtype) }
    }

    /// Run-time scalars that the kernel loads from memory, so that no compiler can fold them.
    pub fn scalars(name: &'static str, values: &[f64], dtype: DType) -> Self {
        TensorSpec { fill: Fill::Values(values.to_vec()), ..Self::input(name, &[values.len() as u64], dtype) }
    }

    /// Number of elements; the shape was checked for overflow when the problem was.
    pub fn elements(&self) -> u64 {
        self.shape.iter().product()
    }

    /// Size at the storage width, in bytes.
    pub fn bytes(&self) -> u64 {
        self.elements() * self.dtype.bytes()
    }
}

/// What a probe moves through memory in one launch, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes loaded.
    pub read: u64,
    /// Bytes stored.
    pub written: u64,
}

impl Traffic {
    /// Of a probe that loads and stores so many elements once each.
    pub fn through(elements: u64, precision: Precision) -> Self {
        let bytes = elements * precision.storage().bytes();
        Traffic { read: bytes, written: bytes }
    }
}

/// Whether an op is a real kernel to be placed, or a probe whose measurements become ceilings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OpRole {
    /// Makes ceilings; never placed.
    Probe,
    /// Placed on the roofline.
    Kernel,
    /// A vendor's library that computes a kernel's problem: placed beside it, never counted as ours. Measurements alone have this role.
    Reference,
}

impl OpRole {
    /// Whether it is placed on the roofline.
    pub const fn is_placed(self) -> bool {
        matches!(self, OpRole::Kernel | OpRole::Reference)
    }
}

/// What an op's author writes. The fields of the implementing struct are the problem, in u64.
pub trait Definition: Serialize + DeserializeOwned + Clone + Send + Sync + Sized + 'static {
    /// Name in commands, folders and records.
    const NAME: &'static str;
    /// Probe or kernel.
    const ROLE: OpRole;
    /// All variants, in the order of their ladder.
    const VARIANTS: &'static [Variant<Self>];

    /// Tensors in binding order.
    ///
    /// # Errors
    /// [`Error::Usage`] for an impossible shape (zero extent, kernel larger than its padded input, overflow).
    fn tensors(&self, precision: Precision) -> Result<Vec<TensorSpec>>;

    /// Multiply-adds of one launch, exactly as [`Definition::row`] performs them over the whole output.
    fn macs(&self) -> u64;

    /// Output elements `cols` of output row `row`. The output is read as a matrix whose columns are its last extent.
    fn row<R: Real, T: Tensors>(&self, x: &T, row: u64, cols: Range<u64>, out: &mut [R]);

    /// Sizes handed to kernels as `Dims`, in order.
    fn dims(&self) -> Vec<(&'static str, u64)>;

    /// Short text for tables, such as `1024x1024x1024`.
    fn label(&self) -> String;

    /// Memory traffic of one launch where it is not "each tensor once" (probes make several passes).
    fn traffic(&self, _precision: Precision) -> Option<Traffic> {
        None
    }

    /// FLOPs of one launch; differs from 2 × MACs only where a probe's `row` is a shorter closed form of its kernels.
    fn flops(&self) -> u64 {
        2 * self.macs()
    }

    /// Exponentials of one launch, which no FLOP counts.
    fn exponentials(&self) -> u64 {
        0
    }

    /// Parameters, where they are not the elements of all weights.
    fn params(&self) -> Option<u64> {
        None
    }

    /// Arithmetic of the yardstick; ops sum in the precision's sum type.
    fn arithmetic(&self, precision: Precision, unit: Unit) -> Arithmetic {
        Arithmetic::summing(precision, unit)
    }

    /// Whether every sum of an exact draw is exact in f32, whatever its order, so that outputs must agree to the bit.
    fn exact(&self) -> bool {
        false
    }

    /// Whether all output elements have one value, so that the oracle computes it once and compares every element.
    fn uniform(&self) -> bool {
        false
    }

    /// Whether a variant can take this problem on this device, beyond what every plan is checked for.
    ///
    /// # Errors
    /// [`Error::Unsupported`] with what the problem needs and what the variant has.
    fn fits(&self, _variant: &str, _setting: &Setting<'_>) -> Result<()> {
        Ok(())
    }

    /// Rows of the output that belong together, where rows are checked whole, one at least of every 64 of a group: attention's rows cost
    /// the same however few of their columns are wanted.
    fn whole_rows(&self) -> Option<u64> {
        None
    }

    /// What transcendental functions may add to an output's error, relative to Σ|a·b|: the accuracy that the languages promise for them.
    fn promised(&self, _precision: Precision) -> f64 {
        0.0
    }

    /// Freivalds' check for linear ops: for output weights `r` (one per column), the value Σ_j r_j · out\[row, j\] of every row,
    /// at a cost far below the op's own. `None` where there is no such shortcut.
    fn projected(&self, _inputs: &Drawn, _r: &dyn Fn(u64) -> f64) -> Option<Vec<f64>> {
        None
    }
}

/// How many problems a size of `run` or `verify` takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Size {
    /// Seconds: for CI and a first look.
    Small,
    /// A minute or two.
    Standard,
    /// As long as it takes for tight intervals.
    Large,
}

/// One built-in op: how to read its problem, and which problems stand for it.
pub struct Entry {
    /// The op's name.
    pub name: &'static str,
    /// Probe or kernel.
    pub role: OpRole,
    /// Field names of its problem, for flags and messages.
    pub fields: &'static [&'static str],
    /// Reads a problem from its fields; fields left out take the default problem's values.
    pub parse: fn(&Value) -> Result<Arc<dyn Op>>,
    /// Awkward problems that `verify` and the tests use: not square, not even, not multiples of a tile.
    pub awkward: fn() -> Vec<Value>,
}

impl Entry {
    /// Those of the awkward problems that this precision can take.
    pub fn awkward_in(&self, precision: Precision) -> Vec<Value> {
        let legal = |fields: &Value| (self.parse)(fields).is_ok_and(|op| op.tensors(precision).is_ok());
        (self.awkward)().into_iter().filter(legal).collect()
    }
}

/// All built-in ops. Used by the command line, the record reader and the worker only.
pub const OPS: &[Entry] = &[
    matmul::ENTRY,
    conv2d::ENTRY,
    depthwise::ENTRY,
    attention::ENTRY,
    quantized::ENTRY,
    linformer::ENTRY,
    performer::ENTRY,
    stream::ENTRY,
    fma::ENTRY,
    dot::ENTRY,
    matrix::ENTRY,
    ramp::ENTRY,
    launch::ENTRY,
    chase::ENTRY,
    exp::ENTRY,
    shared::ENTRY,
    transfer::ENTRY,
];

/// The built-in op of that name.
///
/// # Errors
/// [`Error::Usage`] that lists the known names.
pub fn find(name: &str) -> Result<&'static Entry> {
    OPS.iter().find(|entry| entry.name == name).ok_or_else(|| {
        let known: Vec<_> = OPS.iter().map(|entry| entry.name).collect();
        Error::usage(format!("there is no op '{name}'; known ops are {}", known.join(", ")))
    })
}

/// Refuses a precision of probes alone where no kernel is written in it.
///
/// # Errors
/// [`Error::Usage`].
pub(crate) fn checked_precision(op: &dyn Op, precision: Precision) -> Result<()> {
    let known = |variant: VariantInfo| variant.sources.iter().any(|source| source.precisions.contains(&precision));
    if precision.is_of_probes() && !op.variants().into_iter().any(known) {
        return Err(Error::usage(format!(
            "{} has no kernel in {precision}, which probes alone compute in; choose another precision",
            op.name()
        )));
    }
    Ok(())
}

/// Reads a problem over its defaults, and checks its shape once. `known` are the fields that it may have.
pub(crate) fn parse_over<P: Definition>(known: &[&str], default: &P, fields: &Value) -> Result<Arc<dyn Op>> {
    let mut merged = serde_json::to_value(default).map_err(|e| Error::usage(e.to_string()))?;
    if let (Some(into), Some(from)) = (merged.as_object_mut(), fields.as_object()) {
        for (key, value) in from {
            into.insert(key.clone(), value.clone());
            if !known.contains(&key.as_str()) {
                return Err(Error::usage(format!("{} has no field '{key}'; its fields are {}", P::NAME, known.join(", "))));
            }
        }
    }
    let problem: P = serde_json::from_value(merged).map_err(|e| Error::usage(format!("{}: {e}", P::NAME)))?;
    for tensor in problem.tensors(Precision::F32)? {
        checked_shape(P::NAME, tensor.name, &tensor.shape)?;
    }
    Ok(Arc::new(problem))
}
