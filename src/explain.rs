//! Worked arithmetic for one problem: what it computes, what it must move, and which of the two a roof makes it wait for.
//!
//! The op itself counts; nothing here knows a shape. The bound is that of placement (`roofline::place`): arithmetic on the best ceiling of
//! the precision against compulsory bytes on memory, mixed by their written share.

use serde::Serialize;
use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::host::Isa;
use crate::op::{self, Op, Role, TensorSpec};
use crate::plan::{DeviceInfo, DeviceKind, Language, Limits, Precision, Tuned};
use crate::record::State;
use crate::roofline::Roof;
use crate::view::CeilingView;

/// Cores of the CPU that host kernels are planned for.
pub const CORES: u32 = 8;

/// What arithmetic and memory can do at most.
pub enum Peaks<'a> {
    /// The roof of a recorded run.
    Recorded(&'a Roof),
    /// Figures from elsewhere.
    Given {
        /// FLOP/s.
        flop_per_s: f64,
        /// Byte/s, in any mix of reads and writes.
        byte_per_s: f64,
    },
}

/// All that can be said of a problem without running it. Times and ridge are absent without [`Peaks`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// Op.
    pub op: &'static str,
    /// The problem's fields.
    pub problem: Value,
    /// Short text of the problem.
    pub label: String,
    /// Number formats.
    pub precision: Precision,
    /// Multiply-adds.
    pub macs: u64,
    /// 2 × MACs.
    pub flops: u64,
    /// Exponentials, not among the FLOPs.
    pub exponentials: u64,
    /// Parameters: elements of all weights, or what their words hold.
    pub params: u64,
    /// Bytes of all weights as stored, scales among them.
    pub params_bytes: u64,
    /// Elements of all outputs: what a layer hands on (Radosavovic et al., "Designing Network Design Spaces", 2020, count so).
    pub activations: u64,
    /// Each tensor once.
    pub bytes_compulsory: u64,
    /// The written part of them.
    pub bytes_written: u64,
    /// FLOP per compulsory byte.
    pub intensity: f64,
    /// FLOP/byte from which arithmetic is the bound, for this mix of reads and writes.
    pub ridge: Option<f64>,
    /// Compulsory bytes over memory's bandwidth, in ns.
    pub t_memory_ns: Option<f64>,
    /// FLOPs over the best compute ceiling, in ns.
    pub t_compute_ns: Option<f64>,
    /// `memory` or `compute`.
    pub bound: Option<&'static str>,
    /// Ceilings of a recorded roof that the times are read off: that of arithmetic, then those of memory whose mixes of reads and writes lie
    /// on either side of this one.
    pub ceilings: Vec<Ceiling>,
    /// FLOPs of the depthwise-separable pair that could stand in a standard convolution's place.
    pub separable_flops: Option<u64>,
    /// What our kernels move for it.
    pub variants: Vec<VariantCost>,
    /// Kernels of ours that have this precision and refuse this problem on every device.
    pub refused: Vec<Refused>,
}

/// A ceiling of a recorded roof.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ceiling {
    /// As its file names it.
    pub name: String,
    /// FLOP/s or byte/s.
    pub value: f64,
    /// Whether it is trusted.
    pub state: State,
}

impl From<&CeilingView> for Ceiling {
    fn from(c: &CeilingView) -> Self {
        Ceiling { name: c.name.clone(), value: c.value, state: c.state }
    }
}

/// A kernel that does not take the problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// Variant.
    pub variant: &'static str,
    /// Language of its source.
    pub language: Language,
    /// Its own sentence.
    pub why: String,
}

/// Traffic of one kernel.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VariantCost {
    /// Variant.
    pub variant: &'static str,
    /// Language of its source.
    pub language: Language,
    /// Tensors that each launch reads and writes, summed.
    pub bytes_moved: u64,
    /// Distinct bytes that each work-group loads and stores, summed, with default tiles.
    pub bytes_requested: Option<u64>,
    /// Bytes that all lanes name.
    pub bytes_lane: Option<u64>,
    /// Scratch memory.
    pub workspace_bytes: u64,
    /// FLOP per moved byte.
    pub intensity_moved: f64,
}

/// What a problem keeps and what it hands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Elements {
    /// Parameters.
    pub params: u64,
    /// Elements of all outputs.
    pub activations: u64,
}

impl Elements {
    /// Those of an op with these tensors.
    pub fn of(op: &dyn Op, tensors: &[TensorSpec]) -> Elements {
        let sum = |role: Role| tensors.iter().filter(|t| t.role == role).map(TensorSpec::elements).sum();
        Elements { params: op.params().unwrap_or_else(|| sum(Role::Weight)), activations: sum(Role::Output) }
    }
}

/// Explains a problem in a precision.
///
/// # Errors
/// Those of [`Op::tensors`]; [`Error::Usage`] for a precision of probes alone, and where a recorded roof lacks this precision or memory.
pub fn explain(op: &dyn Op, precision: Precision, peaks: Option<&Peaks<'_>>) -> Result<Explanation> {
    op::checked_precision(op, precision)?;
    let tensors = op.tensors(precision)?;
    let bytes = |role: fn(Role) -> bool| tensors.iter().filter(|t| role(t.role)).map(TensorSpec::bytes).sum::<u64>();
    let Elements { params, activations } = Elements::of(op, &tensors);
    let bytes_compulsory = bytes(|role| role != Role::Scratch);
    let bytes_written = bytes(|role| role == Role::Output);
    let flops = op.flops();
    let ceilings = peaks.map_or(Vec::new(), |peaks| ceilings(peaks, precision, bytes_compulsory, bytes_written));
    let times = peaks.map(|peaks| times(peaks, precision, flops, bytes_compulsory, bytes_written)).transpose()?;
    let per_byte = |bytes: u64| if bytes > 0 { flops as f64 / bytes as f64 } else { 0.0 };
    let (variants, refused) = variants(op, precision, per_byte);
    Ok(Explanation {
        op: op.name(),
        problem: op.problem(),
        label: op.label(),
        precision,
        macs: op.macs(),
        flops,
        exponentials: op.exponentials(),
        params,
        params_bytes: bytes(|role| role == Role::Weight),
        activations,
        bytes_compulsory,
        bytes_written,
        intensity: per_byte(bytes_compulsory),
        ridge: times.map(|t| t.flop_per_ns * t.memory_ns / bytes_compulsory as f64),
        t_memory_ns: times.map(|t| t.memory_ns),
        t_compute_ns: times.map(|t| t.compute_ns),
        bound: times.map(|t| if t.memory_ns >= t.compute_ns { "memory" } else { "compute" }),
        ceilings,
        separable_flops: separable(op).map(|[depthwise, pointwise]| depthwise.flops() + pointwise.flops()),
        variants,
        refused,
    })
}

#[derive(Clone, Copy)]
struct Times {
    flop_per_ns: f64,
    compute_ns: f64,
    memory_ns: f64,
}

fn times(peaks: &Peaks<'_>, precision: Precision, flops: u64, bytes: u64, written: u64) -> Result<Times> {
    let (flop_per_s, memory_ns) = match peaks {
        Peaks::Given { flop_per_s, byte_per_s } => (*flop_per_s, 1e9 * bytes as f64 / byte_per_s),
        Peaks::Recorded(roof) => {
            let compute = roof.compute(precision, None).map(|ceiling| ceiling.value);
            let known = || Precision::ALL.iter().filter(|&&p| roof.compute(p, None).is_some()).map(|p| p.to_string()).collect::<Vec<_>>();
            let compute = compute.ok_or_else(|| {
                Error::usage(format!(
                    "the recorded roof has no {precision} ceiling; it has {}: choose with --precision",
                    known().join(", ")
                ))
            })?;
            let memory = roof.memory_ns(bytes, written);
            (compute, memory.ok_or_else(|| Error::usage("the recorded roof has no DRAM ceiling; record one with rooftrace trace"))?)
        }
    };
    Ok(Times { flop_per_ns: flop_per_s / 1e9, compute_ns: 1e9 * flops as f64 / flop_per_s, memory_ns })
}

/// What the times of a recorded roof are read off.
fn ceilings(peaks: &Peaks<'_>, precision: Precision, bytes: u64, written: u64) -> Vec<Ceiling> {
    let Peaks::Recorded(roof) = peaks else { return Vec::new() };
    roof.compute(precision, None).into_iter().chain(roof.memory_ceilings(bytes, written)).map(Ceiling::from).collect()
}

/// The depthwise and the pointwise convolution that together have a standard one's shape (Howard et al., "MobileNets", 2017);
/// `None` for any other op, and where there is nothing to separate.
pub fn separable(op: &dyn Op) -> Option<[std::sync::Arc<dyn Op>; 2]> {
    let p = op.problem();
    if op.name() != "conv2d" || p["groups"] != 1 || p["k"].as_u64().is_none_or(|k| k == 1) {
        return None;
    }
    let made = |name: &str, fields: Value| (op::find(name).ok()?.parse)(&fields).ok();
    let depthwise = made(
        "depthwise",
        json!({"n": p["n"], "h": p["h"], "w": p["w"], "c": p["c_in"], "k": p["k"],
               "stride": p["stride"], "padding": p["padding"], "dilation": p["dilation"]}),
    )?;
    let between = depthwise.tensors(Precision::F32).ok()?.into_iter().find(|t| t.role == Role::Output)?.shape;
    let pointwise = made(
        "conv2d",
        json!({"n": between[0], "h": between[1], "w": between[2], "c_in": p["c_in"], "c_out": p["c_out"], "k": 1, "padding": 0}),
    )?;
    Some([depthwise, pointwise])
}

/// The device that plans are made for, whatever this machine is. On its cores and vector width depend what a group of a host kernel requests
/// and its scratch; nothing is left out for want of memory.
fn any_device(language: Language) -> DeviceInfo {
    DeviceInfo {
        id: "any".into(),
        backend: "none".into(),
        name: "any device".into(),
        kind: if language == Language::Host { DeviceKind::Cpu } else { DeviceKind::Gpu },
        language,
        driver: Isa::Avx2.name().into(),
        compute_units: CORES,
        caches: Vec::new(),
        memory_bytes: u64::MAX,
        precisions: Precision::ALL.into(),
        features: Vec::new(),
        limits: Limits {
            binding_bytes: u64::MAX,
            grid: u32::MAX,
            block: u32::MAX,
            shared_bytes: u32::MAX,
            launch_ns: None,
            loop_trips: None,
        },
        simulated: false,
        sensors: None,
    }
}

/// Every kernel of ours that has this precision, and those that refuse the problem.
fn variants(op: &dyn Op, precision: Precision, per_byte: impl Fn(u64) -> f64) -> (Vec<VariantCost>, Vec<Refused>) {
    let (mut costs, mut refused) = (Vec::new(), Vec::new());
    for variant in op.variants().into_iter().filter(|variant| variant.library().is_none()) {
        for language in [Language::Host, Language::Wgsl, Language::Cuda].into_iter().filter(|&l| variant.has(l, precision)) {
            match op.plan(variant.name, precision, language, &Tuned::default(), &any_device(language)) {
                Err(why) => refused.push(Refused { variant: variant.name, language, why: why.to_string() }),
                Ok(plan) => costs.push(VariantCost {
                    variant: variant.name,
                    language,
                    bytes_moved: plan.cost.moved,
                    bytes_requested: plan.cost.requested,
                    bytes_lane: plan.cost.lane,
                    workspace_bytes: plan.cost.workspace,
                    intensity_moved: per_byte(plan.cost.moved),
                }),
            }
        }
    }
    (costs, refused)
}
