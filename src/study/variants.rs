//! How do forms of attention grow with the sequence, and what do the linear ones give away? Standard, fused, multi-query, Linformer and Performer:
//! time and memory over the length, and how far the last two lie from what they stand for.
//!
//! Shared keys: Shazeer, "Fast Transformer Decoding", 2019. Projected keys: Wang et al., "Linformer", 2020, whose rank does not grow
//! with the length. Random features: Choromanski et al., "Rethinking Attention with Performers", 2021.

use std::sync::Arc;

use serde_json::json;

use super::words::{power, time_saved};
use super::{
    Axis, FITTED, Figure, Kind, LONG, Line, Look, Mark, Panel, Quantity, Setting, Study, Telling, check, counted, counted_rate, median,
};
use crate::error::Result;
use crate::grid::{Column, Grid};
use crate::op::{self, Op, Size};
use crate::plan::DeviceKind;
use crate::record::Cache;
use crate::stats::exponent;
use crate::units::{Capacity, Nanos};
use crate::view::{Row, View};
use crate::worker::{Goal, Item};

mod error;

/// The study.
pub const STUDY: Study = Study {
    name: "attention-variants",
    question: "how do forms of attention grow, and what do the linear ones give away?",
    precisions: &[crate::plan::Precision::F32],
    mix: Kind::Read,
    grid,
    tell,
};

/// A form of attention.
struct Form {
    name: &'static str,
    op: &'static str,
    variant: &'static str,
    /// Fields beside batch, heads, length and width.
    more: fn() -> serde_json::Value,
    /// Greatest length by size; large has all.
    most: [u64; 2],
}

/// Rows that keys are projected to, and random features, at all lengths.
const WIDTH: u64 = 256;
const HEADS: u64 = 8;
const HEAD_DIM: u64 = 64;
/// Sequences: what brings figures of memory past 64 MiB on a CPU, and fills a GPU.
const BATCH: [u64; 2] = [3, 16];
const LENGTHS: [u64; 6] = [256, 512, 1024, 2048, 4096, 8192];

/// The first is what the others are compared with in words; the second is exact as well and keeps no scores.
const FORMS: [Form; 5] = [
    Form { name: "standard", op: "attention", variant: "naive", more: || json!({}), most: [512, 2048] },
    Form { name: "flash", op: "attention", variant: "flash", more: || json!({}), most: [1024, 8192] },
    Form { name: "multi-query", op: "attention", variant: "flash", more: || json!({"kv_heads": 1}), most: [1024, 4096] },
    Form { name: "Linformer 256", op: "linformer", variant: "linear", more: || json!({"rank": WIDTH}), most: [2048, 8192] },
    Form { name: "Performer 256", op: "performer", variant: "linear", more: || json!({"features": WIDTH}), most: [2048, 8192] },
];
/// Their places, and the order of a length: what takes least first.
const STANDARD: usize = 0;
const FLASH: usize = 1;
const LINFORMER: usize = 3;
const PERFORMER: usize = 4;
const ORDER: [usize; 5] = [LINFORMER, PERFORMER, FLASH, 2, STANDARD];

impl Form {
    fn op(&self, kind: DeviceKind, length: u64) -> Result<Arc<dyn Op>> {
        let batch = BATCH[usize::from(kind == DeviceKind::Gpu)];
        let mut fields = json!({"batch": batch, "heads": HEADS, "seq": length, "head_dim": HEAD_DIM});
        if let (Some(fields), Some(more)) = (fields.as_object_mut(), (self.more)().as_object()) {
            fields.extend(more.clone());
        }
        (op::find(self.op)?.parse)(&fields)
    }

    fn row<'a>(&self, view: &'a View, length: u64) -> Option<&'a Row> {
        let problem = self.op(view.header.device.kind, length).ok()?.problem();
        let is = |row: &&Row| row.op == self.op && row.variant == self.variant && row.problem == problem && row.time_ns.is_some();
        view.rows.iter().find(is)
    }

    /// Its rows by length.
    fn rows<'a>(&'a self, view: &'a View) -> impl Iterator<Item = (u64, &'a Row)> {
        LENGTHS.iter().filter_map(move |&length| Some((length, self.row(view, length)?)))
    }

    /// The powers of the length that time and memory grow with.
    fn growth(&self, view: &View) -> [Option<f64>; 2] {
        let times = self.rows(view).filter(|(length, _)| *length >= LONG).map(|(length, row)| (length as f64, median(row)));
        let peak = |row: &Row| row.peak_bytes.filter(|&bytes| bytes > FITTED).map(|bytes| bytes as f64);
        let peaks = self.rows(view).filter_map(|(length, row)| Some((length as f64, peak(row)?)));
        [exponent(&times.collect::<Vec<_>>()), exponent(&peaks.collect::<Vec<_>>())]
    }
}

fn grid(setting: &Setting<'_>) -> Result<Vec<Item>> {
    let mut items = Vec::new();
    // A length of all forms before the next.
    for length in LENGTHS {
        for form in ORDER.map(|form| &FORMS[form]) {
            let most = match setting.size {
                Size::Small => form.most[0],
                Size::Standard => form.most[1],
                Size::Large => u64::MAX,
            };
            if length <= most {
                let op = form.op(setting.device.kind, length)?;
                items.push(Item { goal: Goal::Measure(setting.brief()), ..setting.item(&*op, form.variant, Cache::Warm) });
            }
        }
    }
    Ok(items)
}

const COLUMNS: [Column; 12] = [
    Column::left("form").shrinks(24),
    Column::right("tokens"),
    Column::right("MACs").drops(3),
    Column::right("moved").drops(1),
    Column::right("peak memory").titled("peak"),
    Column::right("time"),
    Column::right("FLOP/s").drops(4),
    Column::right("% of roof").titled("% roof"),
    Column::left("limited by").shrinks_before_tail(14).drops(2),
    Column::right("error, independent inputs").titled("error"),
    Column::right("error, smooth inputs").titled("smooth"),
    Column::left("check"),
];

fn tell(view: &View) -> Telling {
    let mut rows: Vec<Vec<String>> = Vec::new();
    for form in &FORMS {
        rows.extend(form.rows(view).map(|(length, row)| cells(form, length, row)));
    }
    let measured = !rows.is_empty();
    rows.extend(FORMS.iter().filter_map(|form| grown_cells(form, form.growth(view))));
    let mut sentences: Vec<String> = [saved(view), counted_macs(view), grown(view), weighed(view)].into_iter().flatten().collect();
    if measured {
        rows.extend(error::known().iter().map(error_cells));
        sentences.extend(error::told());
    }
    Telling { sentences, grid: Grid { columns: COLUMNS.to_vec(), rows }, figure: figure(view) }
}

fn cells(form: &Form, length: u64, row: &Row) -> Vec<String> {
    vec![
        form.name.into(),
        length.to_string(),
        counted(row.macs),
        Capacity(row.bytes_moved).to_string(),
        row.peak_bytes.map_or("?".into(), |bytes| Capacity(bytes).to_string()),
        Nanos(median(row)).to_string(),
        row.flop_per_s.map_or(String::new(), counted_rate),
        row.roof_fraction.map_or(String::new(), |share| format!("{:.0}%", 100.0 * share)),
        row.limited_by(),
        String::new(),
        String::new(),
        check(row).into(),
    ]
}

/// The line of a form's fitted exponents; none where neither could be fitted.
fn grown_cells(form: &Form, [time, peak]: [Option<f64>; 2]) -> Option<Vec<String>> {
    let power = |fit: Option<f64>| fit.map_or(String::new(), |exponent| format!("n^{exponent:.2}"));
    time.or(peak)?;
    let mut cells = vec![String::new(); COLUMNS.len()];
    (cells[0], cells[4], cells[5]) = (format!("{}, growth", form.name), power(peak), power(time));
    Some(cells)
}

fn error_cells(error: &error::Error) -> Vec<String> {
    let mut cells = vec![String::new(); COLUMNS.len()];
    (cells[0], cells[1]) = (error.form(), error::TOKENS.to_string());
    (cells[9], cells[10]) = (error::percent(error.independent), error::percent(error.smooth));
    cells
}

/// The verdict, at the greatest length that flash and both linear forms reached.
fn saved(view: &View) -> Option<String> {
    let at = |length: u64| {
        let [flash, linformer, performer] = [FLASH, LINFORMER, PERFORMER].map(|form| FORMS[form].row(view, length));
        Some((length, flash?, linformer?, performer?))
    };
    let (length, flash, linformer, performer) = LENGTHS.iter().rev().find_map(|&length| at(length))?;
    let saved = |row: &Row| time_saved(median(flash) / median(row));
    Some(format!(
        "At {length} tokens Linformer of rank {WIDTH} and Performer with {WIDTH} features have {} the MACs of exact attention: against flash the \
         first takes {}, the second {}.",
        part(2 * WIDTH, length),
        saved(linformer),
        saved(performer)
    ))
}

/// `1/16 of`, or how many times as much.
fn part(of: u64, whole: u64) -> String {
    match whole / of {
        0 => format!("{} times", of / whole),
        1 => "all of".into(),
        parts => format!("1/{parts} of"),
    }
}

/// From which length on the linear forms compute less.
fn counted_macs(view: &View) -> Option<String> {
    view.rows.first()?;
    Some(format!(
        "Both count 4·n·{WIDTH}·d MACs a head where attention counts 2·n²·d: below {} tokens they compute more than it, above less.",
        2 * WIDTH
    ))
}

fn grown(view: &View) -> Option<String> {
    let told: Vec<String> = FORMS.iter().filter_map(|form| Some(format!("{} {}", form.name, power(form.growth(view)[0]?)))).collect();
    (told.len() > 1).then(|| format!("Time grows with the length, from {LONG} tokens on, to the power of: {}.", told.join(", ")))
}

fn weighed(view: &View) -> Option<String> {
    let told: Vec<String> = FORMS.iter().filter_map(|form| Some(format!("{} {}", form.name, power(form.growth(view)[1]?)))).collect();
    let extra = FORMS[STANDARD].rows(view).filter_map(|(length, row)| Some((length, row, FORMS[FLASH].row(view, length)?))).last();
    let extra = extra.map_or(String::new(), |(length, standard, flash)| {
        let of = |row: &Row| row.bytes_compulsory + row.workspace_bytes;
        format!(" At {length} tokens standard needs {:.0} times the memory of flash.", of(standard) as f64 / of(flash) as f64)
    });
    (!told.is_empty()).then(|| format!("Peak memory, seen from outside, grows to the power of: {}.{extra}", told.join(", ")))
}

/// Time over length.
fn figure(view: &View) -> Figure {
    let line = |(family, form): (usize, &Form)| {
        let mark = |(length, row): (u64, &Row)| Mark { doubted: check(row) != "ok", ..Mark::at(length as f64, median(row)) };
        Line { name: form.name.into(), look: Look::Measured, family, marks: form.rows(view).map(mark).collect() }
    };
    let time = Panel {
        x: Axis { name: "Tokens of a sequence", quantity: Quantity::Count },
        y: Axis { name: "Time of one launch", quantity: Quantity::Time },
        lines: FORMS.iter().enumerate().map(line).filter(|line| !line.marks.is_empty()).collect(),
    };
    let batch = BATCH[usize::from(view.header.device.kind == DeviceKind::Gpu)];
    let title = format!("Forms of attention over length: {batch} sequences, {HEADS} heads of {HEAD_DIM}");
    Figure { title, panels: if time.lines.is_empty() { Vec::new() } else { vec![time] } }
}
