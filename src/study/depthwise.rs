//! Why is depthwise convolution memory-bound? One layer as standard, grouped, pointwise, depthwise and separable convolution, then
//! depthwise filters of growing extent, which walk up the slope to the ridge.
//!
//! Layers: ResNet-50 conv4_x (He et al., 2016, table 1), MobileNetV2's at 14×14 (Sandler et al., 2018, table 2: 64 channels widened six times),
//! and the first stage of RepLKNet-31B (Ding et al., 2022), whose filters are 31×31.

use std::sync::Arc;

use serde_json::json;

use super::told::{self, Told};
use super::words::{is_most, percent, portion, time_saved};
use super::{Figure, Kind, Line, Look, Panel, Setting, Study, Telling, clear_limiter, fastest, peaks, share};
use crate::error::{Error, Result};
use crate::explain::{explain, separable};
use crate::grid::Grid;
use crate::op::{self, Op, Size};
use crate::plan::Precision;
use crate::record::Cache;
use crate::units::Intensity;
use crate::view::View;
use crate::worker::Item;

/// The study.
pub const STUDY: Study = Study {
    name: "depthwise",
    question: "why is depthwise convolution memory-bound?",
    precisions: &[Precision::F32],
    mix: Kind::Copy,
    grid,
    tell,
};

/// A 3×3 layer.
struct Layer {
    name: &'static str,
    /// The network that it is of.
    net: &'static str,
    hw: u64,
    c_in: u64,
    c_out: u64,
}

const LAYERS: [Layer; 2] = [
    Layer { name: "3x3 256 to 256 at 14x14", net: "ResNet-50", hw: 14, c_in: 256, c_out: 256 },
    Layer { name: "MobileNetV2, 3x3 384 to 64 at 14x14", net: "MobileNetV2", hw: 14, c_in: 384, c_out: 64 },
];
/// Groups of the grouped form, as in ResNeXt-50 (Xie et al., 2017).
const GROUPS: u64 = 32;
/// Extents of the filters that walk up the slope.
const EXTENTS: [u64; 6] = [3, 5, 7, 9, 13, 31];
/// Overheads that a depthwise launch costs at least, where its batch is raised.
const LAUNCHES: f64 = 20.0;
/// Times the last-level cache that its tensors take at least.
const PAST_LLC: u64 = 4;
/// A layer in all its forms at one batch.
struct Forms {
    standard: Arc<dyn Op>,
    grouped: Arc<dyn Op>,
    depthwise: Arc<dyn Op>,
    pointwise: Arc<dyn Op>,
}

impl Forms {
    fn of(layer: &Layer, n: u64) -> Result<Forms> {
        let conv = |groups: u64| {
            let fields = json!({"n": n, "h": layer.hw, "w": layer.hw, "c_in": layer.c_in, "c_out": layer.c_out, "k": 3, "padding": 1, "groups": groups});
            (op::find("conv2d")?.parse)(&fields)
        };
        let standard = conv(1)?;
        let [depthwise, pointwise] = separable(&*standard).ok_or_else(|| Error::usage(format!("{} cannot be separated", layer.name)))?;
        Ok(Forms { grouped: conv(GROUPS)?, standard, depthwise, pointwise })
    }
}

/// The depthwise layer whose filter grows.
fn walker(n: u64, k: u64) -> Result<Arc<dyn Op>> {
    (op::find("depthwise")?.parse)(&json!({"n": n, "h": 56, "w": 56, "c": 128, "k": k, "padding": k / 2}))
}

fn grid(setting: &Setting<'_>) -> Result<Vec<Item>> {
    let hurry = setting.size == Size::Small;
    let mut items = Vec::new();
    for (at, layer) in LAYERS.iter().enumerate().take(if hurry { 1 } else { LAYERS.len() }) {
        let raised = raised(setting, |n| Ok(Forms::of(layer, n)?.depthwise))?;
        let forms = Forms::of(layer, raised)?;
        let fit = |form: fn(Forms) -> Arc<dyn Op>| Ok::<_, Error>(setting.fitting(raised, |n| Ok(form(Forms::of(layer, n)?)))?.1);
        let big = [forms.depthwise.clone(), fit(|f| f.standard)?, forms.pointwise.clone(), fit(|f| f.grouped)?];
        items.extend(big.iter().flat_map(|op| setting.items(&**op, Cache::Cold)));
        if at == 0 {
            let one = Forms::of(layer, 1)?;
            for op in [one.depthwise, one.standard, one.pointwise, one.grouped] {
                items.extend(setting.items(&*op, Cache::Warm));
            }
            let raised = self::raised(setting, |n| walker(n, 3))?;
            for k in EXTENTS.into_iter().filter(|k| !hurry || [3, 7, 31].contains(k)) {
                items.extend(setting.items(&*setting.fitting(raised, |n| walker(n, k))?.1, Cache::Cold));
            }
        }
    }
    Ok(items)
}

/// The least batch at which a launch costs [`LAUNCHES`] overheads and its tensors pass [`PAST_LLC`] times the last-level cache, in whole
/// eights; less where memory or time end before.
fn raised(setting: &Setting<'_>, op: impl Fn(u64) -> Result<Arc<dyn Op>>) -> Result<u64> {
    let one = op(1)?;
    let bytes = explain(&*one, Precision::F32, None)?.bytes_compulsory;
    let past = (PAST_LLC * setting.device.llc_bytes()).div_ceil(bytes);
    let long = (LAUNCHES * setting.roof.launch_ns() / setting.bound_ns(&*one).max(1.0)).ceil() as u64;
    Ok(setting.fitting(past.max(long).next_multiple_of(8), op)?.0)
}

/// Batches among a view's rows, the largest first.
fn batches(view: &View) -> Vec<u64> {
    let mut all: Vec<u64> = view.rows.iter().filter_map(|row| row.problem["n"].as_u64()).collect();
    all.sort_unstable_by(|a, b| b.cmp(a));
    all.dedup();
    all
}

/// The measured row of an op at the largest batch above 1, cold; or at batch 1, warm.
fn told<'a>(view: &'a View, name: &str, single: bool, op: impl Fn(u64) -> Result<Arc<dyn Op>>) -> Option<Told<'a>> {
    let cache = if single { Cache::Warm } else { Cache::Cold };
    let found = batches(view).into_iter().filter(|&n| n == 1 || !single).find_map(|n| {
        let op = op(n).ok()?;
        Some((n, fastest(view, &*op, cache)?, explain(&*op, Precision::F32, None).ok()?.params))
    });
    found.map(|(n, row, params)| Told { name: name.into(), parts: vec![(1, row)], params, n })
}

/// All forms of a layer that were measured, the separable one as the sum of its parts.
fn forms<'a>(view: &'a View, layer: &Layer, single: bool) -> Vec<Told<'a>> {
    let one = |name: &str, form: fn(Forms) -> Arc<dyn Op>| told(view, name, single, |n| Ok(form(Forms::of(layer, n)?)));
    let depthwise = one("depthwise", |f| f.depthwise);
    let pointwise = one("pointwise", |f| f.pointwise);
    let both = depthwise.as_ref().zip(pointwise.as_ref()).filter(|(d, p)| d.n == p.n).map(|(d, p)| Told {
        name: "separable".into(),
        parts: [d.parts.clone(), p.parts.clone()].concat(),
        params: d.params + p.params,
        n: d.n,
    });
    [one("standard", |f| f.standard), one("grouped", |f| f.grouped), pointwise, depthwise, both].into_iter().flatten().collect()
}

fn walk(view: &View) -> Vec<(u64, Told<'_>)> {
    EXTENTS.into_iter().filter_map(|k| Some((k, told(view, &format!("k = {k}"), false, |n| walker(n, k))?))).collect()
}

fn tell(view: &View) -> Telling {
    let (mut sentences, mut rows) = (Vec::new(), Vec::new());
    for layer in &LAYERS {
        let forms = forms(view, layer, false);
        sentences.extend(saved(layer, &forms));
        rows.extend(forms.iter().map(|told| cells(told, layer.net)));
        if layer.name == LAYERS[0].name {
            sentences.extend(because(view, &forms));
        }
    }
    let single = forms(view, &LAYERS[0], true);
    sentences.extend(alone(&single));
    rows.extend(single.iter().map(|told| cells(told, "batch 1")));
    let walk = walk(view);
    sentences.extend(climbed(view, &walk));
    rows.extend(walk.iter().map(|(_, told)| told.cells()));
    Telling { sentences, grid: Grid { columns: told::COLUMNS.to_vec(), rows }, figure: figure(view, &walk) }
}

/// A form's cells, with what it is a form of.
fn cells(told: &Told<'_>, of: &str) -> Vec<String> {
    let mut cells = told.cells();
    cells[0] += &format!(", {of}");
    cells
}

fn by_name<'a>(forms: &'a [Told<'a>], name: &str) -> Option<&'a Told<'a>> {
    forms.iter().find(|told| told.name == name)
}

/// FLOPs saved against time saved.
fn saved(layer: &Layer, forms: &[Told<'_>]) -> Option<String> {
    let (standard, both, depthwise) = (by_name(forms, "standard")?, by_name(forms, "separable")?, by_name(forms, "depthwise")?);
    let fewer = (standard.flops() / standard.n as f64) / (both.flops() / both.n as f64);
    let time = time_saved(standard.each() / both.each());
    let (_, row) = depthwise.parts.first()?;
    let on = |resource, roof| share(row, resource).map_or(format!("an unknown part of {roof}"), |share| portion(share, roof));
    let lowered = match standard.n < depthwise.n {
        true => " (the standard convolution in smaller batches, to end in time)",
        false => "",
    };
    Some(format!(
        "{}: separated it takes {fewer:.1} times fewer FLOPs and {time}{lowered}; its depthwise part reaches {} and {}.",
        layer.name,
        on("dram", "the DRAM roof"),
        on("compute", "the compute roof")
    ))
}

/// Why: intensity against the ridge, and whether the kernel comes so far that this is what it waits for.
fn because(view: &View, forms: &[Told<'_>]) -> Option<String> {
    let (depthwise, (flop_per_s, (_, byte_per_s))) = (by_name(forms, "depthwise")?, peaks(view, STUDY.mix)?);
    let (own, ridge) = (depthwise.intensity(), flop_per_s / byte_per_s);
    let (_, row) = *depthwise.parts.first()?;
    let reached = share(row, "dram")?;
    let what = if own >= ridge {
        "above the ridge, so here even so few suffice to keep arithmetic busy".into()
    } else if is_most(reached) && clear_limiter(row) == Some("dram") {
        "below the ridge, so memory sets its time, whatever the arithmetic".into()
    } else {
        let limit = clear_limiter(row).map_or("nothing measured explains the rest".into(), |limiter| format!("its limiter is {limiter}"));
        format!("below the ridge, so memory would bound it; this kernel reaches {}, and {limit}", portion(reached, "that roof"))
    };
    Some(format!("Each input meets only its own filter: {} FLOP for a byte, {what}.", Intensity(own)))
}

/// What people meet at batch 1.
fn alone(forms: &[Told<'_>]) -> Option<String> {
    let (_, row) = *by_name(forms, "depthwise")?.parts.first()?;
    let limiter = row.limiter.split(',').next().filter(|limiter| !limiter.is_empty())?;
    let what = match limiter {
        "unexplained" => {
            let most = row.shares.first().map_or(String::new(), |share| format!(" ({} for {})", percent(share.share), share.resource));
            format!("none of launching, memory, caches and arithmetic would take most of its time alone{most}")
        }
        both if both.contains(" + ") => "both take about as much of its time".into(),
        "launch" => "launching it costs more than computing it".into(),
        "dram" => "even one image comes from memory".into(),
        "parallelism" => "it does not fill the device".into(),
        level if level.starts_with("compute") => "its data fit a cache that is fast enough for arithmetic to count".into(),
        level => format!("its data fit the caches, and {level} feeds it"),
    };
    let limited = if limiter == "unexplained" { "has a limiter that is unexplained".into() } else { format!("is limited by {limiter}") };
    Some(format!("At batch 1 the same depthwise layer {limited}: {what}."))
}

/// Where the walk over filters meets the ridge, and how much of the roof its kernels reach beyond.
fn climbed(view: &View, walk: &[(u64, Told<'_>)]) -> Option<String> {
    let ([(first, low), .., (last, high)], (flop_per_s, _)) = (walk, peaks(view, STUDY.mix)?) else { return None };
    let flat = |told: &Told<'_>| told.attainable().is_some_and(|rate| rate > 0.99 * flop_per_s);
    let beyond: Vec<f64> = walk.iter().filter(|(_, told)| flat(told)).map(|(_, told)| told.achieved() / flop_per_s).collect();
    let best = beyond.iter().copied().reduce(f64::max);
    let crossed = match (walk.iter().find(|(_, told)| flat(told)), best) {
        (Some((k, _)), Some(best)) => {
            let limit = if is_most(best) { "" } else { ", so it is the bound but not what they wait for" };
            format!("from k = {k} on arithmetic is its bound, and the best of these kernels reaches {}{limit}", portion(best, "it"))
        }
        _ => "none of them reaches the ridge".into(),
    };
    Some(format!(
        "A larger filter does more with each byte: from k = {first} to {last} intensity grows from {} to {} FLOP/byte; {crossed}.",
        Intensity(low.intensity()),
        Intensity(high.intensity())
    ))
}

/// The roofline with the forms of the first layer, and the walk.
fn figure(view: &View, walk: &[(u64, Told<'_>)]) -> Figure {
    let title = "The same layer in five forms, and depthwise filters of growing extent".into();
    let Some(peaks) = peaks(view, STUDY.mix) else { return Figure { title, panels: Vec::new() } };
    let forms = forms(view, &LAYERS[0], false);
    let least = forms.iter().chain(walk.iter().map(|(_, told)| told)).map(Told::intensity).fold(1.0, f64::min);
    let most = forms.iter().chain(walk.iter().map(|(_, told)| told)).map(Told::intensity).fold(1.0, f64::max);
    let mut panel = Panel::roofline(peaks, (least / 2.0, most * 2.0));
    let line = |name: &str, look, family, marks| Line { name: name.into(), look, family, marks };
    panel.lines.push(line("depthwise, filters k x k", Look::Measured, 0, walk.iter().map(|(_, told)| told.mark()).collect()));
    panel.lines.push(line("the layer in five forms", Look::Points, 1, forms.iter().map(Told::mark).collect()));
    Figure { title, panels: vec![panel] }
}
