//! Sources as they are compiled: tunables, types and sizes as a prefix on the first line, so that line numbers stay true.

use std::sync::Arc;

use super::{Code, Precision, Source, Tunable, Tuned};
use crate::host::Call;
use crate::op::{DType, Definition};

/// Sixteen-bit numbers, and what a warp does as one, without headers.
const CUDA_NUMBERS: &str = concat!(include_str!("../../kernels/numbers.cuh"), include_str!("../../kernels/warp.cuh"));

/// The program of a plan, and the hash of its unrendered text (0 for Rust).
pub(super) fn render<P: Definition>(
    problem: &P,
    source: &Source<P>,
    precision: Precision,
    tunables: &[Tunable],
    tuned: &Tuned,
    dims: &[(&'static str, u32)],
) -> (Code, u64) {
    match *source {
        Source::Host(kernel) => {
            let problem = problem.clone();
            (Code::Host(Arc::new(move |call: &Call<'_>| kernel(&problem, call))), 0)
        }
        Source::Wgsl(text) => (Code::Wgsl(wgsl(text, precision, tunables, tuned, dims)), fnv1a(text.as_bytes())),
        Source::Cuda(text) => {
            let names: Vec<_> = dims.iter().map(|(name, _)| *name).collect();
            let defines = tunables.iter().map(|t| format!("{}={}", t.name, tuned.get(t.name))).collect();
            // Aliases, not macros: NVRTC's own headers have templates over a T.
            let (storage, sum) = (cuda_type(precision.storage()), cuda_type(precision.sum()));
            let prefix = format!("using T = {storage}; using S = {sum}; struct Dims {{ unsigned {}; }};", names.join(", "));
            let rendered = match precision {
                // Types and instructions that CUDA C++ has in headers alone; `#line` keeps line numbers the file's own.
                Precision::F16 | Precision::BF16 | Precision::TF32 => {
                    format!("struct Half; struct Brain; {prefix}\n{CUDA_NUMBERS}\n#line 1\n{text}")
                }
                Precision::F32 | Precision::F64 => format!("{prefix} {text}"),
            };
            (Code::Cuda { text: rendered, defines }, fnv1a(text.as_bytes()))
        }
    }
}

/// WGSL with its prefix on the first line: `enable f16;`, the aliases `T` (storage) and `S` (sums), tunables and `Dims`.
fn wgsl(text: &str, precision: Precision, tunables: &[Tunable], tuned: &Tuned, dims: &[(&'static str, u32)]) -> String {
    let mut prefix = String::new();
    if precision == Precision::F16 {
        prefix.push_str("enable f16; ");
    }
    prefix += &format!("alias T = {}; alias S = {}; ", wgsl_type(precision.storage()), wgsl_type(precision.sum()));
    for tunable in tunables {
        prefix += &format!("const {}: u32 = {}u; ", tunable.name, tuned.get(tunable.name));
    }
    let fields: Vec<_> = dims.iter().map(|(name, _)| format!("{name}: u32")).collect();
    format!("{prefix}struct Dims {{ {} }} {text}", fields.join(", "))
}

const fn wgsl_type(dtype: DType) -> &'static str {
    match dtype {
        DType::F64 => "f64",
        DType::F32 => "f32",
        DType::F16 => "f16",
        // No device has it in WGSL, and no variant lists it.
        DType::BF16 => "bf16",
    }
}

const fn cuda_type(dtype: DType) -> &'static str {
    match dtype {
        DType::F64 => "double",
        DType::F32 => "float",
        DType::F16 => "Half",
        DType::BF16 => "Brain",
    }
}

/// 64-bit FNV-1a, for source and input hashes that must stay equal across versions of Rust.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ byte as u64).wrapping_mul(0x100_0000_01b3))
}
