//! What does a batch cost, and what does it bring? Latency and throughput of two layers over the batch, beside what the roof predicts: the
//! larger of the time of memory and that of arithmetic.
//!
//! Layers: an attention projection of Llama 7B (Touvron et al., 2023), whose weights meet each sequence once, and ResNet-50 conv5_x (He et
//! al., 2016, table 1), whose weights meet each of 49 pixels.

use std::sync::Arc;

use serde_json::json;

use super::words::{excess, portion, same_time};
use super::{Axis, Figure, Kind, Line, Look, Mark, Panel, Quantity, Setting, Study, Telling, bounds, check, fastest, median, roof, share};
use crate::error::Result;
use crate::grid::{Column, Grid};
use crate::op::{self, Op, Size};
use crate::plan::Precision;
use crate::record::Cache;
use crate::roofline::Roof;
use crate::units::{Intensity, Nanos, digits};
use crate::view::{Row, View};
use crate::worker::Item;

/// The study.
pub const STUDY: Study = Study {
    name: "batch",
    question: "when does a batch cost latency, and when is it free?",
    precisions: &[Precision::F32],
    mix: Kind::Read,
    grid,
    tell,
};

/// A layer at any batch.
struct Layer {
    name: &'static str,
    op: fn(u64) -> Result<Arc<dyn Op>>,
    /// Octaves from one batch to the next.
    step: u32,
}

const LAYERS: [Layer; 2] = [
    Layer { name: "linear 4096 to 4096", op: |m| (op::find("matmul")?.parse)(&json!({"m": m, "n": 4096, "k": 4096})), step: 1 },
    Layer {
        name: "conv 3x3 512 to 512 at 7x7",
        op: |n| (op::find("conv2d")?.parse)(&json!({"n": n, "h": 7, "w": 7, "c_in": 512, "c_out": 512, "k": 3, "padding": 1})),
        step: 2,
    },
];
impl Layer {
    /// Octaves from one batch to the next, in a hurry or not.
    fn steps(&self, hurry: bool) -> u32 {
        if hurry { 2 * self.step } else { self.step }
    }
}

/// Greatest batch tried, in octaves.
const MOST: u32 = 13;

fn grid(setting: &Setting<'_>) -> Result<Vec<Item>> {
    let hurry = setting.size == Size::Small;
    let mut wanted = Vec::new();
    for layer in &LAYERS {
        let (most, _) = setting.fitting(1 << MOST, layer.op)?;
        wanted.extend(batches(layer.steps(hurry)).take_while(|&batch| batch <= most).map(|batch| (batch, layer.op)));
    }
    // Small ones of both first: their bend matters most, and the greatest take the most time.
    wanted.sort_by_key(|&(batch, _)| batch);
    let items = wanted.into_iter().map(|(batch, op)| Ok(setting.items(&*op(batch)?, Cache::Cold)));
    Ok(items.collect::<Result<Vec<_>>>()?.concat())
}

fn batches(step: u32) -> impl Iterator<Item = u64> {
    (0..=MOST).step_by(step as usize).map(|octave| 1 << octave)
}

/// A layer's measured batches.
struct Told<'a> {
    layer: &'static Layer,
    rows: Vec<(u64, &'a Row)>,
    roof: &'a Roof,
}

impl<'a> Told<'a> {
    fn of(view: &'a View, layer: &'static Layer, roof: &'a Roof) -> Self {
        let row = |batch| Some((batch, fastest(view, &*(layer.op)(batch).ok()?, Cache::Cold)?));
        Told { layer, rows: batches(1).filter_map(row).collect(), roof }
    }

    /// ns that the roof allows at a batch.
    fn predicted(&self, batch: u64) -> Option<f64> {
        bounds(self.roof, &*(self.layer.op)(batch).ok()?).map(|(memory, compute)| memory.max(compute))
    }

    /// The batch at which arithmetic takes as long as memory, from that of one on; none where it never does.
    fn crossing(&self) -> Option<f64> {
        // How many times memory's time arithmetic takes, which grows as a power of the batch within an octave.
        let ratio = |batch| bounds(self.roof, &*(self.layer.op)(batch).ok()?).map(|(memory, compute)| (compute / memory).log2());
        let above = batches(1).find(|&batch| ratio(batch).is_some_and(|ratio| ratio >= 0.0))?;
        let (Some(below), high) = ((above > 1).then(|| ratio(above / 2)).flatten(), ratio(above)?) else { return Some(1.0) };
        Some(above as f64 / 2.0 * (below / (below - high)).exp2())
    }

    /// Where the latency of one, if it stayed, would meet that of the greatest batch, if it grew in step from zero.
    fn knee(&self) -> Option<f64> {
        let ([(1, one), ..], Some((most, last))) = (self.rows.as_slice(), self.rows.last()) else { return None };
        (*most > 1).then(|| median(one) * *most as f64 / median(last))
    }
}

const COLUMNS: [Column; 10] = [
    Column::left("layer").shrinks(28),
    Column::right("batch"),
    Column::left("kernel"),
    Column::right("FLOP/B"),
    Column::right("latency"),
    Column::right("throughput"),
    Column::right("predicted"),
    Column::right("measured / predicted").titled("m/p"),
    Column::left("limited by").shrinks_before_tail(14).drops(1),
    Column::left("check"),
];

fn tell(view: &View) -> Telling {
    let roof = roof(view);
    let told = LAYERS.each_ref().map(|layer| Told::of(view, layer, &roof));
    let sentences = told.iter().flat_map(|told| [bent(told), gained(told), ends(told, view), alone(told, view), foretold(told)]).flatten();
    let sentences = sentences.collect();
    let rows = told.iter().flat_map(|told| told.rows.iter().map(|&(batch, row)| cells(told, batch, row))).collect();
    Telling { sentences, grid: Grid { columns: COLUMNS.to_vec(), rows }, figure: figure(&told) }
}

fn cells(told: &Told<'_>, batch: u64, row: &Row) -> Vec<String> {
    let predicted = told.predicted(batch);
    vec![
        told.layer.name.into(),
        batch.to_string(),
        row.kernel(),
        Intensity(row.intensity).to_string(),
        Nanos(median(row)).to_string(),
        format!("{}/s", Intensity(1e9 * batch as f64 / median(row))),
        predicted.map_or(String::new(), |ns| Nanos(ns).to_string()),
        predicted.map_or(String::new(), |ns| format!("{:.2}", median(row) / ns)),
        row.limited_by(),
        check(row).into(),
    ]
}

/// The verdict: whether latency bends, and why.
fn bent(told: &Told<'_>) -> Option<String> {
    let (knee, name) = (told.knee()?, told.layer.name);
    Some(if told.crossing() == Some(1.0) {
        format!("{name}: its weights are used so often that arithmetic bounds it from the first one on, so latency grows with the batch.")
    } else if knee < 2.0 {
        format!("{name}: a batch brings next to no throughput, latency grows with it from the first one on.")
    } else {
        format!(
            "{name}: while a batch is small, reading the weights takes longer than the arithmetic, so latency hardly grows and throughput does; beyond, latency grows in step with the batch and throughput stays."
        )
    })
}

/// What the greatest batch gains, and that this is where latency bends; where the roof bends it.
fn gained(told: &Told<'_>) -> Option<String> {
    let (most, times) = (told.rows.last()?.0, told.knee()?);
    let side = if same_time(times) {
        "about"
    } else if times > 1.0 {
        "higher than"
    } else {
        "lower than"
    };
    let gain = format!("At a batch of {most} its throughput is {side} that of one ({} times)", digits(times));
    Some(match told.crossing() {
        Some(1.0) => format!("{gain}."),
        Some(batch) => format!("{gain}; latency bends at a batch of as many, and on the roof at its crossing ({}).", digits(batch)),
        None => format!("{gain}; latency bends at a batch of as many, and the roof has no crossing."),
    })
}

/// Why the greatest batch is the greatest.
fn ends(told: &Told<'_>, view: &View) -> Option<String> {
    let most = told.rows.last()?.0;
    let next = most << told.layer.steps(view.header.settings.size == "small");
    let setting = Setting { device: &view.header.device, size: Size::Standard, roof: told.roof };
    let op = (told.layer.op)(next).ok()?;
    let skipped = view.skips.iter().find(|skip| skip.op == op.name() && skip.label == Some(op.label()));
    let why = if let Some(skip) = skipped {
        format!("{next} was left out: {}", skip.why)
    } else if next > 1 << MOST {
        "no greater one is asked for".into()
    } else if next > setting.most(told.layer.op).ok()? {
        format!("tensors for {next} would take over an eighth of the memory, or more than one binding holds")
    } else if setting.bound_ns(&*op) > setting.longest_ns() {
        format!("{next} would take over {} even on the roof", Nanos(setting.longest_ns()))
    } else {
        return None;
    };
    Some(format!("It ends at {most}: {why}."))
}

/// Batch 1 against memory.
fn alone(told: &Told<'_>, view: &View) -> Option<String> {
    let (1, row) = *told.rows.first()? else { return None };
    if told.crossing() == Some(1.0) || view.ceilings.is_empty() {
        return None;
    }
    Some(format!("At batch 1 it reaches {}.", portion(share(row, "dram")?, "what DRAM can do for it")))
}

/// How far the measured times lie from the predicted ones, away from the knee and around it.
fn foretold(told: &Told<'_>) -> Option<String> {
    let knee = told.knee()?;
    let off = |away: bool| {
        let rows = told.rows.iter().filter(|(batch, _)| (*batch as f64 <= knee / 4.0 || *batch as f64 >= 4.0 * knee) == away);
        rows.filter_map(|&(batch, row)| Some(median(row) / told.predicted(batch)?)).reduce(f64::max)
    };
    let around = off(false).map_or(String::new(), |off| format!(", around it {}", excess(off)));
    Some(format!("Against the predicted times the slowest away from the knee takes {}{around}.", excess(off(true)?)))
}

/// Latency and throughput over the batch.
fn figure(told: &[Told<'_>]) -> Figure {
    let x = Axis { name: "Batch", quantity: Quantity::Count };
    let lines = |of: &dyn Fn(u64, f64) -> f64| {
        let of_layer = |(family, told): (usize, &Told<'_>)| {
            let line = |name: String, look, marks| Line { name, look, family, marks };
            let measured = told
                .rows
                .iter()
                .map(|&(batch, row)| Mark { doubted: check(row) != "ok", ..Mark::at(batch as f64, of(batch, median(row))) });
            let most = told.rows.last().map_or(0, |&(batch, _)| batch);
            let predicted = batches(1).take_while(|&batch| batch <= most);
            let predicted = predicted.filter_map(|batch| Some(Mark::at(batch as f64, of(batch, told.predicted(batch)?))));
            [line("roof".into(), Look::Predicted, predicted.collect()), line(told.layer.name.into(), Look::Measured, measured.collect())]
        };
        told.iter().enumerate().flat_map(of_layer).collect()
    };
    let latency = Panel { x, y: Axis { name: "Latency", quantity: Quantity::Time }, lines: lines(&|_, ns| ns) };
    let throughput =
        Panel { x, y: Axis { name: "Throughput", quantity: Quantity::Rate }, lines: lines(&|batch, ns| 1e9 * batch as f64 / ns) };
    Figure { title: "Latency and throughput over the batch, measured and by the roof".into(), panels: vec![latency, throughput] }
}
