//! Writes every CUDA source as the cuda backend would compile it: all variants, precisions and tunables, beside `manifest.json`.
//!
//! ```text
//! cargo run --release --example render_kernels -- FOLDER
//! ```
//!
//! `scripts/check-cuda-kernels.sh` compiles them for every architecture without a GPU.

use std::path::Path;

use anyhow::{Context, Result, bail};
use rooftrace::backend::host;
use rooftrace::op::{OPS, Op};
use rooftrace::plan::{Code, Language, Precision, Tuned};
use serde_json::{Value, json};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), None) = (arguments.next(), arguments.next()) else { bail!("usage: render_kernels FOLDER") };
    let folder = Path::new(&folder);
    std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut manifest = vec![draw(folder)?, clock(folder)?];
    for entry in OPS {
        // Every problem of an op renders to the same text; entry points may depend on it, so all awkward ones are asked.
        let variants = (entry.parse)(&json!({}))?.variants();
        for variant in variants {
            let Some(source) = variant.source(Language::Cuda).filter(|source| source.is_text()) else { continue };
            for &precision in source.precisions {
                let problems = entry.awkward_in(precision).iter().map(entry.parse).collect::<Result<Vec<_>, _>>()?;
                for tuned in Tuned::all(source.tunables) {
                    manifest.push(render(folder, &problems, variant.name, precision, &tuned)?);
                }
            }
        }
    }
    let file = folder.join("manifest.json");
    std::fs::write(&file, serde_json::to_string_pretty(&manifest)?).with_context(|| format!("cannot write {}", file.display()))?;
    println!("{} sources in {}", manifest.len(), folder.display());
    Ok(())
}

fn render(folder: &Path, problems: &[std::sync::Arc<dyn Op>], variant: &str, precision: Precision, tuned: &Tuned) -> Result<Value> {
    let mut entries = Vec::new();
    let (mut shared, mut lanes) = (serde_json::Map::new(), serde_json::Map::new());
    let (mut rendered, mut unit) = (None, None);
    for problem in problems {
        let plan = problem.plan(variant, precision, Language::Cuda, tuned, &host::device())?;
        entries.extend(plan.dispatches.iter().map(|d| d.entry.clone()));
        shared.extend(plan.dispatches.iter().map(|d| (d.entry.to_string(), json!(d.shared_bytes))));
        lanes.extend(plan.dispatches.iter().map(|d| (d.entry.to_string(), json!(d.block.iter().product::<u32>()))));
        unit = Some(plan.unit);
        let Code::Cuda { text, defines } = plan.code else { bail!("{}/{variant} has no CUDA text", problem.name()) };
        if rendered.as_ref().is_some_and(|before| *before != (text.clone(), defines.clone())) {
            bail!("{}/{variant} renders differently for {}", problem.name(), problem.label());
        }
        rendered = Some((text, defines));
    }
    entries.sort_unstable();
    entries.dedup();
    let Some((text, defines)) = rendered else { bail!("{variant} has no problem") };
    let op = problems[0].name();
    let choice: String = tuned.0.iter().map(|(name, value)| format!("-{name}{value}").to_lowercase()).collect();
    let file = format!("{op}-{variant}-{precision}{choice}.cu");
    write(folder, &file, &text)?;
    Ok(
        json!({"file": file, "op": op, "variant": variant, "precision": precision, "tunables": tuned, "defines": defines, "entries": entries,
            "unit": unit, "shared": shared, "lanes": lanes}),
    )
}

/// The fill kernels belong to no op.
fn draw(folder: &Path) -> Result<Value> {
    let entries = ["draw", "changed"]
        .map(|what| ["f64", "f32", "f16", "bf16", "f8", "u32", "i8", "i32"].map(|dtype| format!("{what}_{dtype}")))
        .concat();
    aside(folder, "draw", include_str!("../kernels/draw.cu"), &entries)
}

/// Nor does the one that reads clocks.
fn clock(folder: &Path) -> Result<Value> {
    aside(folder, "clock", include_str!("../kernels/clock.cu"), &["clock_read".into()])
}

fn aside(folder: &Path, name: &str, text: &str, entries: &[String]) -> Result<Value> {
    let file = format!("{name}.cu");
    write(folder, &file, text)?;
    Ok(json!({"file": file, "op": name, "variant": name, "precision": null, "tunables": {}, "defines": [], "entries": entries,
        "unit": "memory", "shared": {}, "lanes": {}}))
}

fn write(folder: &Path, file: &str, text: &str) -> Result<()> {
    let path = folder.join(file);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}
