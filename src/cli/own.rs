//! `rooftrace try`: a user's own kernel, beside ours.

use std::path::Path;

use super::roof::Named;
use super::run::{self, Mode};
use super::{Measuring, Scoping, Trying, output};
use crate::backend::stated_group;
use crate::error::{Error, Result};
use crate::op::{self, OpRole};
use crate::plan::{Custom, Grid, Language, Plan, Tuned};
use crate::record::{Record, State};
use crate::template;

/// What `try --help` ends with.
pub const HELP: &str = "\
The kernel is one launch over the op's tensors in their order, then its sizes as `Dims`; `--template` prints one that works, with the
command that runs it. A grid is one to three parts by comma, in whole numbers with + - * / % and parentheses, over the sizes in `Dims`
and the names of --tile; `/` rounds UP, so that n/BN covers n. fold(E) spreads E groups over two dimensions, below any device's limit:
the kernel takes y * (groups along x) + x for its number. Example:

  rooftrace try matmul --template wgsl > my.wgsl
  rooftrace try matmul my.wgsl --entry matmul --grid n/16,m/16 --m 1024 --n 1024 --k 1024

Exit codes: 4 its output is wrong, 5 it does not compile, bind or end; our own kernels are shown all the same.";

/// Largest file that is read.
const LARGEST: u64 = 4 << 20;
/// Characters of a file's name that tables show.
const LONGEST: usize = 28;

/// Languages of templates, by the endings of their files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Template {
    /// WGSL
    Wgsl,
    /// CUDA C++
    Cu,
}

/// Prints a template, or tries a file.
pub fn run(args: &Trying) -> Result<i32> {
    let entry = op::find(&args.op)?;
    if entry.role == OpRole::Probe {
        let kernels: Vec<_> = op::OPS.iter().filter(|e| e.role == OpRole::Kernel).map(|e| e.name).collect();
        return Err(Error::usage(format!("{} is a probe, which makes roofs; try one of {}", args.op, kernels.join(", "))));
    }
    if let Some(wanted) = args.template {
        let language = if wanted == Template::Wgsl { Language::Wgsl } else { Language::Cuda };
        return output::print(&template::start(entry, language)?.text);
    }
    let Some(file) = &args.file else {
        return Err(Error::usage(format!("name a file, or print one to start from: rooftrace try {} --template wgsl", args.op)));
    };
    let (custom, named) = (custom(args, file)?, Named::read(args.roof.as_ref())?);
    let mut common = args.common.clone();
    common.device = Some(device(common.device.as_deref(), &custom)?);
    let scope = Scoping { common, op: vec![args.op.clone()], variant: Vec::new(), precision: vec![args.precision] };
    run::run(
        &Measuring { scope, keeping: args.keeping.clone(), costing: args.costing.clone(), shape: args.shape.clone() },
        Mode::Try(&custom, &named),
    )
}

/// The kernel that the arguments describe, before anything is known of a device.
fn custom(args: &Trying, path: &Path) -> Result<Custom> {
    let refused = |why: String| Error::usage(format!("{}: {why}", path.display()));
    let language = match path.extension().and_then(|e| e.to_str()) {
        Some("wgsl") => Language::Wgsl,
        Some("cu") => Language::Cuda,
        _ => return Err(refused("its name tells no language; call it .wgsl or .cu".into())),
    };
    let known = std::fs::metadata(path).map_err(|e| refused(format!("cannot be read: {e}; check the name")))?;
    if !known.is_file() || known.len() > LARGEST {
        return Err(refused(format!("is no file of {} MiB at most; name a kernel's source", LARGEST >> 20)));
    }
    let text = std::fs::read_to_string(path).map_err(|e| refused(format!("cannot be read: {e}; it must be UTF-8 text")))?;
    let grid = args.grid.as_deref().ok_or_else(|| {
        Error::usage("--grid is missing: write the groups of the launch over sizes and tiles, as in --grid n/BN,m/BM (`/` rounds up)")
    })?;
    let file: String =
        path.file_name().map(|name| name.to_string_lossy().chars().filter(|c| !c.is_control()).collect()).unwrap_or_default();
    let cut = file.chars().count().saturating_sub(LONGEST);
    let shown: String = file.chars().skip(cut).collect();
    Ok(Custom {
        name: format!("try:{}{shown}", if cut > 0 { "…" } else { "" }),
        file,
        language,
        text,
        entry: args.entry.clone(),
        tile: tile(&args.tile)?,
        group: args.group.as_deref().map(group).transpose()?.or((language == Language::Cuda).then_some([64, 1, 1])),
        grid: Grid::parse(grid)?,
        unit: args.unit,
    })
}

/// `BM=64`, each.
fn tile(given: &[String]) -> Result<Tuned> {
    let mut tile = Tuned::default();
    for one in given {
        let refused = |why: &str| Error::usage(format!("--tile {one}: {why}; write it as in BM=64,BN=64"));
        let (name, value) = one.split_once('=').ok_or_else(|| refused("there is no value"))?;
        let value = value.trim().parse().map_err(|_| refused("the value is no whole number of 32 bits"))?;
        if tile.0.insert(name.trim().to_string(), value).is_some() {
            return Err(refused("the name is given twice"));
        }
    }
    Ok(tile)
}

/// `256`, `16x16`, `8x8x4`.
fn group(text: &str) -> Result<[u32; 3]> {
    let refused = || Error::usage(format!("--group {text}: write one to three numbers of lanes, as in 16x16"));
    let parts: Vec<u32> =
        text.split('x').map(|part| part.trim().parse().ok().filter(|&n| n > 0).ok_or_else(refused)).collect::<Result<_>>()?;
    match *parts.as_slice() {
        [x] => Ok([x, 1, 1]),
        [x, y] => Ok([x, y, 1]),
        [x, y, z] => Ok([x, y, z]),
        _ => Err(refused()),
    }
}

/// The device: the one asked for where it speaks the file's language, else the first that does.
fn device(selector: Option<&str>, custom: &Custom) -> Result<String> {
    let backend = if custom.language == Language::Wgsl { "wgpu" } else { "cuda" };
    let Some(selector) = selector else { return Ok(format!("{backend}:0")) };
    let of = selector.split(':').next().unwrap_or_default();
    match of {
        _ if of == backend => Ok(selector.into()),
        "host" | "wgpu" | "cuda" | "fake" => Err(Error::usage(format!(
            "--device {selector} does not run {}, which {} is; choose --device {backend}:0",
            custom.language, custom.file
        ))),
        "all" => Err(Error::usage(format!("{} is tried on one device at a time; choose --device {backend}:0", custom.file))),
        // Whatever opening it says.
        _ => Ok(selector.into()),
    }
}

/// Refuses a group that is not the one which the text itself states.
pub fn check(custom: &Custom, plans: &[Plan]) -> Result<()> {
    let shown = |group: [u32; 3]| group.map(|lanes| lanes.to_string()).join("x");
    match (custom.group, plans.first().and_then(stated_group)) {
        (Some(given), Some(stated)) if stated != given => Err(Error::usage(format!(
            "--group {} is not the @workgroup_size of {} in {}, which is {}; leave --group out",
            shown(given),
            custom.entry,
            custom.file,
            shown(stated)
        ))),
        _ => Ok(()),
    }
}

/// Why the kernel was not measured, where it was not; a compiler's log as it stands.
pub fn failure<'a>(custom: &Custom, records: &'a [Record]) -> Option<&'a str> {
    records.iter().find_map(|record| match record {
        Record::Skip(s) if s.variant == custom.name => Some(s.why.as_str()),
        Record::Measurement(m) if m.variant == custom.name && m.state == State::Wrong => m.reasons.first().map(String::as_str),
        _ => None,
    })
}

/// 5 where the kernel does not fit the device, which for one of ours would be no fault.
pub fn status(custom: &Custom, records: &[Record]) -> i32 {
    let unfit = |record: &Record| matches!(record, Record::Skip(s) if s.variant == custom.name && s.state == State::Unsupported);
    if records.iter().any(unfit) { 5 } else { 0 }
}
