//! What does a narrower type buy? One product of a vector and one of two matrices, their numbers in f32, tf32, f16 or bf16 as far as the device
//! has kernels for them, and their weights in int8 or int4 with a scale for each group of 128: bytes, time, and two kinds of error.
//!
//! *Rounding* is what kernels do to the numbers that they are given: the worst error against the f64 oracle of the same inputs, over the
//! magnitude of an output, √(k·E\[a²\]·E\[w²\]), which follows from the draw. *Storing* is what was done to the weights before: the error of an
//! output whose weights were rounded once to the type, over the same magnitude. Activations that know nothing of the weights carry it through
//! as it is, so it is rms(w − ŵ) / rms(w), evaluated here on groups of normal weights. For integers the largest of a group is scaled to the
//! largest integer, which is about step / √12 (Widrow and Kollár, "Quantization Noise", 2008).
//!
//! Layer: a projection of Llama 7B (Touvron et al., 2023) for one token.

use super::words::{portions, time_saved};
use super::{
    Axis, Figure, Kind, Line, Look, Mark, Panel, Quantity, Setting, Study, Telling, bounds_in, check, clear_limiter, median, roof,
};
use crate::error::Result;
use crate::explain::explain;
use crate::grid::{Column, Grid};
use crate::op::{Op, Size};
use crate::plan::{DeviceKind, Language, Precision, VariantInfo};
use crate::record::Cache;
use crate::roofline::Roof;
use crate::units::{Capacity, Intensity, Nanos, digits};
use crate::view::{Row, View};
use crate::worker::Item;

mod form;

use form::{FORMS, Form, GROUP};

/// The study.
pub const STUDY: Study = Study {
    name: "precision",
    question: "what does a narrower type buy?",
    precisions: &[Precision::F32, Precision::F16, Precision::BF16, Precision::TF32],
    mix: Kind::Read,
    grid,
    tell,
};

/// Extent of the matrix that meets one vector.
const VECTOR: u64 = 4096;
/// Extents of matrices that may meet each other; a view holds one of them.
const MATRICES: [u64; 4] = [4096, 2048, 1024, 512];
/// Variants of a product of matrices that are measured: the last rungs of its ladder.
const RUNGS: usize = 2;

fn grid(setting: &Setting<'_>) -> Result<Vec<Item>> {
    let host = setting.device.language == Language::Host;
    let extent = match (setting.device.kind, setting.size) {
        (DeviceKind::Gpu, Size::Small) => 2048,
        (DeviceKind::Gpu, _) => 4096,
        (DeviceKind::Cpu, Size::Small) => 512,
        (DeviceKind::Cpu, _) if host => 1024,
        // Software devices stay far below their roofs.
        (DeviceKind::Cpu, _) => 512,
    };
    let mut items = Vec::new();
    for (m, extent) in [(1, VECTOR), (extent, extent)] {
        for form in FORMS {
            items.extend(items_of(setting, form, &*form.op(m, extent)?, m == 1));
        }
    }
    Ok(items)
}

/// The variants of ours worth measuring: the rungs made for a vector, or the last ones otherwise. A precision that no kernel here has makes one
/// item all the same, which the plan refuses, so that the record says why.
fn items_of(setting: &Setting<'_>, form: Form, op: &dyn Op, vector: bool) -> Vec<Item> {
    let (device, language) = (setting.device, setting.device.language);
    let mut ours = op.variants();
    ours.retain(|variant| variant.source(language).is_some_and(|source| source.library.is_none()));
    let narrow = |variant: &VariantInfo| device.precisions.contains(&Precision::F16) && variant.has(language, Precision::F16);
    let precision = match form {
        Form::Numbers(precision) => precision,
        Form::Integers(_) if ours.iter().any(narrow) => Precision::F16,
        Form::Integers(_) => Precision::F32,
    };
    let mut able: Vec<_> = ours.iter().filter(|variant| variant.has(language, precision)).collect();
    if able.is_empty() && vector {
        able.extend(ours.first());
    }
    if able.len() > 1 {
        able.remove(0);
    }
    // Made for few rows: the others have nothing to keep there, nor it with many.
    if able.iter().any(|variant| (variant.name == "gemv") == vector) {
        able.retain(|variant| (variant.name == "gemv") == vector);
    }
    let skipped = if vector { 0 } else { able.len().saturating_sub(RUNGS) };
    able[skipped..].iter().map(|variant| Item { precision, ..setting.item(op, variant.name, Cache::Cold) }).collect()
}

/// A product that was measured.
struct Told<'a> {
    form: Form,
    /// Rows of A.
    m: u64,
    /// Extent of the weights.
    extent: u64,
    row: &'a Row,
    /// Time that the roof allows, in ns.
    bound: Option<f64>,
}

impl<'a> Told<'a> {
    fn of(view: &'a View, roof: &Roof, form: Form, m: u64, extent: u64) -> Option<Self> {
        let op = form.op(m, extent).ok()?;
        let problem = op.problem();
        let wanted = |row: &&Row| row.op == op.name() && row.problem == problem && row.cache == Cache::Cold && row.time_ns.is_some();
        let precise = |row: &&Row| matches!(form, Form::Integers(_)) || form == Form::Numbers(row.precision);
        let rows = view.rows.iter().filter(wanted).filter(precise);
        let row = rows.min_by(|a, b| median(a).total_cmp(&median(b)))?;
        let bound = bounds_in(roof, &*op, row.precision).map(|(memory, compute)| memory.max(compute));
        Some(Told { form, m, extent, row, bound })
    }

    /// The largest error that verification found, over the magnitude of an output; absent where nothing was verified.
    fn rounding(&self) -> Option<f64> {
        let magnitude = (self.extent as f64 * Form::Numbers(Precision::F32).square() * self.form.square()).sqrt();
        Some(self.row.verification.as_ref()?.worst_error / magnitude)
    }

    /// Bits of a stored weight, its share of the scales included.
    fn bits(&self) -> Option<f64> {
        let explained = explain(&*self.form.op(self.m, self.extent).ok()?, self.row.precision, None).ok()?;
        Some(8.0 * explained.params_bytes as f64 / explained.params as f64)
    }

    fn cells(&self) -> Vec<String> {
        let optional = |value: Option<f64>, text: fn(f64) -> String| value.map_or(String::new(), text);
        vec![
            if self.m == 1 { "vector" } else { "matrix" }.into(),
            self.form.name(),
            optional(self.bits(), digits),
            self.row.kernel(),
            Capacity(self.row.bytes_compulsory).to_string(),
            Intensity(self.row.intensity).to_string(),
            Nanos(median(self.row)).to_string(),
            optional(self.bound, |ns| Nanos(ns).to_string()),
            optional(self.row.roof_fraction, |share| format!("{:.0}%", 100.0 * share)),
            optional(self.rounding(), |error| format!("{error:.0e}")),
            format!("{:.1e}", self.form.storing()),
            self.row.limited_by(),
            check(self.row).into(),
        ]
    }

    fn doubted(&self) -> bool {
        check(self.row) != "ok"
    }
}

const COLUMNS: [Column; 13] = [
    Column::left("times a"),
    Column::left("weights"),
    Column::right("bits of a weight").titled("bits"),
    Column::left("kernel"),
    Column::right("bytes"),
    Column::right("FLOP/B"),
    Column::right("time"),
    Column::right("by the roof").titled("roof").drops(2),
    Column::right("of roof").drops(1),
    Column::right("error of rounding").titled("rounding"),
    Column::right("error of storing").titled("storing"),
    Column::left("limited by").shrinks_before_tail(14).drops(3),
    Column::left("check"),
];

/// All forms of the product with a vector, and of that with a matrix, that were measured.
fn told(view: &View) -> [Vec<Told<'_>>; 2] {
    let roof = roof(view);
    let of = |m: u64, extent: u64| FORMS.into_iter().filter_map(|form| Told::of(view, &roof, form, m, extent)).collect::<Vec<_>>();
    let matrices = MATRICES.into_iter().map(|extent| of(extent, extent)).find(|told| !told.is_empty());
    [of(1, VECTOR), matrices.unwrap_or_default()]
}

fn tell(view: &View) -> Telling {
    let [vector, matrix] = told(view);
    let mut sentences: Vec<String> =
        bought(&vector, "One vector").into_iter().chain(held(&vector)).chain(bought(&matrix, "A matrix")).collect();
    sentences.extend(because(&vector, &matrix));
    sentences.extend(erred(&vector));
    if !sentences.is_empty() {
        sentences.extend(absent(&vector));
    }
    let rows = vector.iter().chain(&matrix).map(Told::cells).collect();
    Telling { sentences, grid: Grid { columns: COLUMNS.to_vec(), rows }, figure: figure(&vector, &matrix) }
}

/// The widest form, which others are held against, and the others.
fn split<'t, 'a>(told: &'t [Told<'a>]) -> Option<(&'t Told<'a>, &'t [Told<'a>])> {
    told.split_first().filter(|(first, others)| first.form == FORMS[0] && !others.is_empty())
}

/// The verdict: bytes against time.
fn bought(told: &[Told<'_>], what: &str) -> Option<String> {
    let (wide, narrow) = split(told)?;
    let against = |told: &Told<'_>| {
        let fewer = wide.row.bytes_compulsory as f64 / told.row.bytes_compulsory as f64;
        let time = time_saved(median(wide.row) / median(told.row));
        format!("{} has {fewer:.1} times fewer bytes and takes {time}", told.form.name())
    };
    let all: Vec<_> = narrow.iter().map(against).collect();
    Some(format!("{what} times weights, against f32: {}.", all.join("; ")))
}

/// How much of the roof the narrowest forms keep.
fn held(told: &[Told<'_>]) -> Option<String> {
    let (wide, narrow) = split(told)?;
    let share = |told: &Told<'_>| Some((told.row.roof_fraction?, told.form.name()));
    let shares: Vec<_> = std::iter::once(wide).chain(narrow).filter_map(share).collect();
    (!shares.is_empty()).then(|| format!("The product with a vector reaches {}.", portions(&shares, "its roof")))
}

/// Why the two products differ.
fn because(vector: &[Told<'_>], matrix: &[Told<'_>]) -> Option<String> {
    let ((_, narrow), (wide, _)) = (split(vector)?, split(matrix)?);
    let narrowest = narrow.last()?;
    let limits = |told: &Told<'_>| clear_limiter(told.row).map_or(String::new(), |limiter| format!(", and {limiter} limits it"));
    Some(format!(
        "A weight that meets one vector is used once: {} FLOP for a byte even in {}{}. One that meets {} rows is used so often, {} FLOP for a byte in f32, that bytes are not what it waits for{}.",
        Intensity(narrowest.row.intensity),
        narrowest.form.name(),
        limits(narrowest),
        wide.m,
        Intensity(wide.row.intensity),
        limits(wide)
    ))
}

/// The two kinds of error, and which is the larger.
fn erred(told: &[Told<'_>]) -> Option<String> {
    let integers: Vec<&Told<'_>> = told.iter().filter(|told| matches!(told.form, Form::Integers(_))).collect();
    let worst = told.iter().filter_map(Told::rounding).reduce(f64::max)?;
    let stored: Vec<_> = integers.iter().map(|told| format!("{} % in {}", digits(100.0 * told.form.storing()), told.form.name())).collect();
    let least = integers.iter().map(|told| told.form.storing()).reduce(f64::min)?;
    let compared = match least / worst {
        _ if worst == 0.0 => "and no kernel here adds any".into(),
        times if times >= 10.0 => format!("far more than any kernel here adds by its rounding ({} times)", digits(times)),
        times if times > 1.0 => format!("more than any kernel here adds by its rounding ({} times)", digits(times)),
        _ => "less than the worst rounding of a kernel here".to_string(),
    };
    Some(format!(
        "What it costs is accuracy: normal weights stored with a scale for {GROUP} put an output off by {}, {compared}.",
        stored.join(" and ")
    ))
}

/// Precisions that this device has no kernel for.
fn absent(told: &[Told<'_>]) -> Option<String> {
    let missing: Vec<_> = FORMS.into_iter().filter(|form| told.iter().all(|told| told.form != *form)).map(Form::name).collect();
    (!missing.is_empty()).then(|| format!("Not measured here: {}; the file says why.", missing.join(", ")))
}

/// Time beside the roof, and both errors, over the bits of a weight.
fn figure(vector: &[Told<'_>], matrix: &[Told<'_>]) -> Figure {
    let mark = |told: &Told<'_>, y: f64| Mark { doubted: told.doubted(), ..Mark::at(told.bits().unwrap_or(f64::NAN), y) };
    let named = |told: &Told<'_>, y: f64| Mark { name: told.form.name(), ..mark(told, y) };
    let line = |name: &str, look, family, marks| Line { name: name.into(), look, family, marks };
    let mut time = Vec::new();
    for (family, told) in [vector, matrix].into_iter().enumerate() {
        // By width, so that a line goes on from left to right.
        let mut sorted: Vec<&Told<'_>> = told.iter().collect();
        sorted.sort_by(|a, b| a.bits().unwrap_or(0.0).total_cmp(&b.bits().unwrap_or(0.0)));
        let name = if family == 0 { "times a vector" } else { "times a matrix" };
        time.push(line("", Look::Predicted, family, sorted.iter().filter_map(|told| Some(mark(told, told.bound?))).collect()));
        time.push(line(name, Look::Measured, family, sorted.iter().map(|told| named(told, median(told.row))).collect()));
    }
    // A time that is doubted leaves the errors as they are: one was verified, one is computed.
    let sound = |told: &Told<'_>, error: f64| Mark { doubted: false, ..named(told, 1e6 * error) };
    let rounding = vector.iter().filter_map(|told| Some(sound(told, told.rounding()?))).collect();
    let storing = vector.iter().map(|told| sound(told, told.form.storing())).collect();
    let errors = vec![line("rounding in kernels", Look::Points, 0, rounding), line("storing the weights", Look::Points, 1, storing)];
    let panel = |name, quantity, lines| Panel {
        x: Axis { name: "Bits of a weight", quantity: Quantity::Count },
        y: Axis { name, quantity },
        lines,
    };
    Figure {
        title: "Time (dashed: what the roof allows) and error over bits".into(),
        panels: vec![panel("Time", Quantity::Time, time), panel("Error of an output", Quantity::Millionths, errors)],
    }
}
