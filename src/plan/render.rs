//! Sources as they are compiled: tunables, types and sizes as a prefix on the first line, so that line numbers stay true.

use std::sync::Arc;

use super::{Code, Custom, Language, LibraryCall, Precision, Source, Tunable, Tuned};
use crate::host::Call;
use crate::op::{DType, Definition, TensorSpec};

/// Numbers of 16 and 8 bits, and what a warp does as one. They stand before every source of such a precision.
const CUDA_NUMBERS: &str = concat!(include_str!("../../kernels/numbers.cuh"), include_str!("../../kernels/warp.cuh"));

/// What some kernels share: the line that includes it, and its text. NVRTC has no folder to look in.
const CUDA_SHARED: &[(&str, &str)] = &[
    ("#include \"../ring.cuh\"", concat!(include_str!("../../kernels/barrier.cuh"), include_str!("../../kernels/ring.cuh"))),
    ("#include \"../fused.cuh\"", include_str!("../../kernels/fused.cuh")),
    ("#include \"../warpgroup.cuh\"", concat!(include_str!("../../kernels/barrier.cuh"), include_str!("../../kernels/warpgroup.cuh"))),
];

/// The same of WGSL, which has no word for it.
const WGSL_SHARED: (&str, &str) = ("#include \"../fused.wgsl\"", include_str!("../../shaders/fused.wgsl"));

/// The program of a plan, and the hash of its unrendered text (0 for Rust, libraries and copies).
pub(super) fn render<P: Definition>(
    problem: &P,
    source: &Source<P>,
    precision: Precision,
    tunables: &[Tunable],
    tuned: &Tuned,
    dims: &[(&'static str, u32)],
    tensors: &[TensorSpec],
) -> (Code, u64) {
    match *source {
        Source::Host(kernel) => {
            let problem = problem.clone();
            (Code::Host(Arc::new(move |call: &Call<'_>| kernel(&problem, call))), 0)
        }
        Source::Library(library, routine) => {
            (Code::Library(LibraryCall { library, routine: routine(problem), workspace: library.workspace(tensors) }), 0)
        }
        Source::Transfer(direction) => (Code::Transfer(direction(problem)), 0),
        Source::Wgsl(text) => {
            let text = wgsl_included(text);
            (Code::Wgsl(wgsl(&text, precision, tunables, tuned, dims)), fnv1a(text.as_bytes()))
        }
        Source::Cuda(text) => {
            let defines = tunables.iter().map(|t| format!("{}={}", t.name, tuned.get(t.name))).collect();
            let prefix = cuda_declared(precision, dims);
            let text = cuda_included(text);
            // `#line` keeps line numbers the file's own.
            let rendered = match native(precision) {
                true => format!("{prefix} {text}"),
                false => format!("{prefix}\n{CUDA_NUMBERS}\n#line 1\n{text}"),
            };
            (Code::Cuda { text: rendered, defines }, fnv1a(text.as_bytes()))
        }
    }
}

/// A source with what it includes in place; the lines after it keep their numbers.
fn cuda_included(text: &str) -> String {
    CUDA_SHARED.iter().fold(text.to_string(), |text, (line, shared)| match text.split_once(line) {
        Some((before, after)) => {
            let next = before.matches('\n').count() + 2;
            format!("{before}{}\n#line {next}{after}", shared.trim_end())
        }
        None => text,
    })
}

/// A source with what it includes on the line that asks for it, without comments, so that the lines after it keep their numbers.
fn wgsl_included(text: &str) -> String {
    let (line, shared) = WGSL_SHARED;
    let Some((before, after)) = text.split_once(line) else { return text.to_string() };
    let code: Vec<&str> = shared.lines().map(|line| line.split("//").next().unwrap_or_default().trim()).collect();
    format!("{before}{}{after}", code.join(" "))
}

/// A source with what it includes written out, comments and all, so that it can stand alone.
pub(crate) fn written_out(text: &str) -> String {
    CUDA_SHARED.iter().chain([&WGSL_SHARED]).fold(text.to_string(), |text, (line, shared)| text.replace(line, shared.trim_end()))
}

/// WGSL with its prefix on the first line: `enable f16;`, the aliases `T` (storage) and `S` (sums), tunables and `Dims`.
fn wgsl(text: &str, precision: Precision, tunables: &[Tunable], tuned: &Tuned, dims: &[(&'static str, u32)]) -> String {
    let values = tunables.iter().map(|tunable| (tunable.name, tuned.get(tunable.name)));
    format!("{}{} {text}", wgsl_features(text, precision), wgsl_declared(precision, values, dims))
}

/// Directives. naga 30 knows none for subgroups.
fn wgsl_features(text: &str, precision: Precision) -> String {
    let half = if precision == Precision::F16 { "enable f16; " } else { "" };
    let cooperative = if coop_sizes(text).next().is_some() { "enable wgpu_cooperative_matrix; " } else { "" };
    format!("{half}{cooperative}")
}

/// The words of a text's code, comments left out.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let code = text.lines().map(|line| line.split("//").next().unwrap_or(""));
    code.flat_map(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_'))
}

/// Sizes of the cooperative matrices that a text names, `8x8`.
fn coop_sizes(text: &str) -> impl Iterator<Item = &str> {
    words(text).filter_map(|word| word.strip_prefix("coop_mat"))
}

/// The features that a text needs beyond number formats: subgroups of any size, cooperative matrices of one configuration each.
pub(super) fn wgsl_extensions(text: &str, precision: Precision) -> Vec<String> {
    let subgroup = words(text).any(|word| word.starts_with("subgroup")).then(|| "subgroup".to_string());
    let matrices = coop_sizes(text).filter_map(|size| size.split('x').next()).map(|edge| {
        let edge = edge.parse().unwrap_or(0);
        coop_feature([edge; 3], wgsl_type(precision.storage()), wgsl_type(precision.sum()))
    });
    let mut all: Vec<_> = subgroup.into_iter().chain(matrices).collect();
    all.dedup();
    all
}

/// The feature of cooperative matrices of `m × n × k`, by the types of factors and sums: `coop-8x8x8-f16-f32`.
pub fn coop_feature([m, n, k]: [u32; 3], factor: &str, sum: &str) -> String {
    format!("coop-{m}x{n}x{k}-{factor}-{sum}")
}

fn wgsl_declared<'a>(precision: Precision, values: impl Iterator<Item = (&'a str, u32)>, dims: &[(&'static str, u32)]) -> String {
    let mut declared = format!("alias T = {}; alias S = {}; ", wgsl_type(precision.storage()), wgsl_type(precision.sum()));
    for (name, value) in values {
        declared += &format!("const {name}: u32 = {value}u; ");
    }
    let fields: Vec<_> = dims.iter().map(|(name, _)| format!("{name}: u32")).collect();
    format!("{declared}struct Dims {{ {} }}", fields.join(", "))
}

/// A user's program, so that lines and columns of messages are the file's own. What WGSL declares may stand behind its use, which
/// leaves the place before the text to the directives that it may begin with.
pub(super) fn own(custom: &Custom, precision: Precision, dims: &[(&'static str, u32)], tensors: &[&str]) -> Code {
    let tile = &custom.tile.0;
    if custom.language == Language::Wgsl {
        let declared = wgsl_declared(precision, tile.iter().map(|(name, &value)| (name.as_str(), value)), dims);
        return Code::Wgsl(format!("{}{}\n{declared}\n", wgsl_features(&custom.text, precision), custom.text));
    }
    let numbers = if native(precision) { "" } else { CUDA_NUMBERS };
    let text = format!(
        "{}\n{numbers}\n#line 1 \"{}\"\n{}\n{}",
        cuda_declared(precision, dims),
        custom.file.replace(['\\', '"', '\n', '\r'], "_"),
        custom.text,
        parameters(custom, tensors)
    );
    Code::Cuda { text, defines: tile.iter().map(|(name, value)| format!("{name}={value}")).collect() }
}

/// Refuses an entry point of other parameters than the op's tensors and `Dims`: the driver would launch it all the same.
fn parameters(custom: &Custom, tensors: &[&str]) -> String {
    let types: Vec<_> = (0..tensors.len()).map(|t| format!("class A{t}")).collect();
    let pointers: Vec<_> = (0..tensors.len()).map(|t| format!("A{t}*")).collect();
    let (types, pointers, names) = (types.join(", "), pointers.join(", "), tensors.join(", "));
    let entry = &custom.entry;
    format!(
        "#line 1 \"the parameters of {entry}\"\n\
         template <{types}> char (&rooftrace_takes(void (*)({pointers}, Dims)))[1]; \
         template <class... P> char (&rooftrace_takes(void (*)(P...)))[2]; \
         static_assert(sizeof(rooftrace_takes({entry})) == 1, \"{entry} must take {} pointers ({names}), then Dims by value\");\n",
        tensors.len()
    )
}

const fn wgsl_type(dtype: DType) -> &'static str {
    match dtype {
        DType::F64 => "f64",
        DType::F32 => "f32",
        DType::F16 => "f16",
        // No device has it in WGSL, and no variant lists it.
        DType::BF16 => "bf16",
        DType::U32 => "u32",
        // The same.
        DType::F8 => "f8",
        DType::I8 => "i8",
        DType::I32 => "i32",
    }
}

const fn cuda_type(dtype: DType) -> &'static str {
    match dtype {
        DType::F64 => "double",
        DType::F32 => "float",
        DType::F16 => "Half",
        DType::BF16 => "Brain",
        DType::U32 => "unsigned",
        DType::F8 => "Float8",
        DType::I8 => "signed char",
        DType::I32 => "int",
    }
}

/// Whether CUDA C++ has the types of a precision without headers.
const fn native(precision: Precision) -> bool {
    matches!(precision, Precision::F32 | Precision::F64)
}

/// The types of CUDA sources. Aliases, not macros: NVRTC's own headers have templates over a T.
fn cuda_declared(precision: Precision, dims: &[(&'static str, u32)]) -> String {
    let (storage, sum) = (cuda_type(precision.storage()), cuda_type(precision.sum()));
    let names: Vec<_> = dims.iter().map(|(name, _)| *name).collect();
    let ahead = if native(precision) { "" } else { "struct Half; struct Brain; struct Float8; " };
    format!("{ahead}using T = {storage}; using S = {sum}; struct Dims {{ unsigned {}; }};", names.join(", "))
}

/// 64-bit FNV-1a, for source and input hashes that must stay equal across versions of Rust.
pub fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ byte as u64).wrapping_mul(0x100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_wgsl_includes_moves_no_line() {
        let text = format!("first\n{}\nlast", WGSL_SHARED.0);
        let (whole, lines) = (wgsl_included(&text), text.lines().count());
        assert_eq!((whole.lines().count(), whole.lines().last()), (lines, Some("last")));
        assert!(whole.contains("fn totals() {") && !whole.contains("//") && !whole.contains("#include"));
    }
}
