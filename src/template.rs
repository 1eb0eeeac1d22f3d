//! Starts for a user's own kernel: our plainest source of each op as a [`Custom`], under a header that says how it is run.

use serde_json::Value;

use crate::backend::host;
use crate::error::{Error, Result};
use crate::op::{Entry, Op, Role};
use crate::plan::{Code, Custom, Grid, Language, Precision, Tuned, written_out};

/// The variant of each op that is one launch over its tensors alone, and its grid in expressions.
const STARTS: &[(&str, &str, &str)] = &[
    ("matmul", "naive", "n/16,m/16"),
    ("conv2d", "naive", "fold(n*oh*ow*c_out/256)"),
    ("depthwise", "naive", "fold(n*oh*ow*c/256)"),
    ("quantized", "naive", "n/16,m/16"),
    ("attention", "flash", "heads/kv_heads*seq_q/(8*TM),batch*kv_heads"),
];

/// The ending of files in a language.
pub fn ending(language: Language) -> &'static str {
    match language {
        Language::Host => "rs",
        Language::Wgsl => "wgsl",
        Language::Cuda => "cu",
    }
}

/// A complete kernel of an op, ready to be tried on its default problem, in f32.
///
/// # Errors
/// [`Error::Usage`] for a probe, or a language that has no template.
pub fn start(entry: &Entry, language: Language) -> Result<Custom> {
    let Some(&(_, variant, grid)) = STARTS.iter().find(|(op, ..)| *op == entry.name) else {
        let known: Vec<_> = STARTS.iter().map(|(op, ..)| *op).collect();
        return Err(Error::usage(format!("there is no template for {}; there are some for {}", entry.name, known.join(", "))));
    };
    let op = (entry.parse)(&Value::Object(Default::default()))?;
    let info = op.variants().into_iter().find(|v| v.name == variant);
    let text = info.as_ref().and_then(|v| v.source(language)).map_or("", |source| source.text);
    let plan = op.plan(variant, Precision::F32, language, &Tuned::default(), &host::device())?;
    let (Some(launch), Code::Wgsl(_) | Code::Cuda { .. }) = (plan.dispatches.first(), &plan.code) else {
        return Err(Error::usage(format!("there is no template in {language}; there are some in WGSL and CUDA C++")));
    };
    let file = format!("my.{}", ending(language));
    let custom = Custom {
        name: format!("try:{file}"),
        file,
        language,
        text: String::new(),
        entry: launch.entry.to_string(),
        tile: plan.tuned.clone(),
        group: (language == Language::Cuda).then_some(launch.block),
        grid: Grid::parse(grid)?,
        unit: plan.unit,
    };
    let text = format!("{}\n{}", header(entry, &*op, variant, &custom)?, written_out(text));
    Ok(Custom { text, ..custom })
}

/// Says how the kernel is run and what it is given.
fn header(entry: &Entry, op: &dyn Op, variant: &str, custom: &Custom) -> Result<String> {
    let tensors = op.tensors(Precision::F32)?;
    let wgsl = custom.language == Language::Wgsl;
    let place = |t: usize| if wgsl { format!("@group(0) @binding({t}) ") } else { String::new() };
    let dims = if wgsl { "as Dims at @group(1) @binding(0)" } else { "as a Dims by value, the last parameter" };
    let tensor = |(t, tensor): (usize, &crate::op::TensorSpec)| {
        format!("{}{}{}", place(t), tensor.name, if tensor.role == Role::Output { ", written" } else { "" })
    };
    let tensors: Vec<_> = tensors.iter().enumerate().map(tensor).collect();
    let sizes: Vec<_> = op.dims().into_iter().map(|(name, _)| name).collect();
    Ok(format!(
        "// A start for your own {op} kernel: our {variant}, right as it stands. Keep it as {file}, change it, and run\n\
         //\n\
         //   {command}\n\
         //\n\
         // Given:  the tensors {tensors};\n\
         //         the sizes {sizes}, {dims}.\n\
         // Types:  T is what is stored, S what sums are kept in; each --tile NAME=VALUE is a constant NAME.\n",
        op = op.name(),
        file = custom.file,
        command = command(entry, op, custom),
        tensors = tensors.join("; "),
        sizes = sizes.join(", "),
    ))
}

/// The command line that tries a kernel on a problem of an op.
pub fn command(entry: &Entry, op: &dyn Op, custom: &Custom) -> String {
    let mut words = vec![format!("rooftrace try {} {} --entry {}", op.name(), custom.file, custom.entry)];
    if !custom.tile.0.is_empty() {
        let tile: Vec<_> = custom.tile.0.iter().map(|(name, value)| format!("{name}={value}")).collect();
        words.push(format!("--tile {}", tile.join(",")));
    }
    if let Some(group) = custom.group {
        words.push(format!("--group {}", group.map(|lanes| lanes.to_string()).join("x").trim_end_matches("x1")));
    }
    words.push(format!("--grid {}", quoted(&String::from(custom.grid.clone()))));
    let problem = op.problem();
    for name in entry.fields {
        let flag = name.replace('_', "-");
        match problem.get(name) {
            None | Some(Value::Bool(false)) => {}
            Some(Value::Bool(true)) => words.push(format!("--{flag}")),
            Some(value) => words.push(format!("--{flag} {value}")),
        }
    }
    words.join(" ")
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "/,_-".contains(c));
    if plain { word.to_string() } else { format!("'{word}'") }
}
