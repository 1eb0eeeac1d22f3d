//! Do equal FLOPs take equal time? Pairs of chains of real layers that compute the same, and where their time goes by placement.
//!
//! EfficientNet-B0's blocks with 112 channels, widened six times around a 5×5 depthwise filter (Tan and Le, 2019, table 1), against RegNetY-400MF's
//! with 208 channels around a 3×3 filter in groups of 8 (Radosavovic et al., 2020, table 2), both at 14×14 and without their squeeze
//! and excitation. And a 3×3 convolution against the separable one that computes as much (Howard et al., 2017).

use std::sync::Arc;

use serde_json::json;

use super::told::{COLUMNS, Told};
use super::words::{is_most, percent, portion, same_time, time_saved};
use super::{Figure, Kind, Line, Look, Panel, Setting, Study, Telling, clear_limiter, fastest, peaks};
use crate::error::Result;
use crate::explain::explain;
use crate::grid::Grid;
use crate::op::{self, Op, Size};
use crate::plan::{DeviceKind, Precision};
use crate::record::Cache;
use crate::units::Intensity;
use crate::view::View;
use crate::worker::Item;

/// The study.
pub const STUDY: Study =
    Study { name: "misnomer", question: "do equal FLOPs take equal time?", precisions: &[Precision::F32], mix: Kind::Copy, grid, tell };

/// A launch of a chain: what it is, how often it is there, and its op at a batch.
struct Part {
    name: &'static str,
    times: u64,
    op: fn(u64) -> Result<Arc<dyn Op>>,
}

/// Launches that follow each other.
struct Chain {
    name: &'static str,
    parts: &'static [Part],
}

fn conv(n: u64, hw: u64, (c_in, c_out): (u64, u64), k: u64, groups: u64) -> Result<Arc<dyn Op>> {
    (op::find("conv2d")?.parse)(
        &json!({"n": n, "h": hw, "w": hw, "c_in": c_in, "c_out": c_out, "k": k, "padding": k / 2, "groups": groups}),
    )
}

fn depthwise(n: u64, hw: u64, c: u64, k: u64) -> Result<Arc<dyn Op>> {
    (op::find("depthwise")?.parse)(&json!({"n": n, "h": hw, "w": hw, "c": c, "k": k, "padding": k / 2}))
}

/// Pairs of the same FLOPs, within 2 %.
const PAIRS: [[Chain; 2]; 2] = [
    [
        Chain {
            name: "3 EfficientNet-B0 blocks",
            parts: &[
                Part { name: "widen 1x1", times: 3, op: |n| conv(n, 14, (112, 672), 1, 1) },
                Part { name: "depthwise 5x5", times: 3, op: |n| depthwise(n, 14, 672, 5) },
                Part { name: "narrow 1x1", times: 3, op: |n| conv(n, 14, (672, 112), 1, 1) },
            ],
        },
        Chain {
            name: "5 RegNetY-400MF blocks",
            parts: &[
                Part { name: "1x1", times: 10, op: |n| conv(n, 14, (208, 208), 1, 1) },
                Part { name: "grouped 3x3", times: 5, op: |n| conv(n, 14, (208, 208), 3, 26) },
            ],
        },
    ],
    [
        Chain { name: "standard 64 channels", parts: &[Part { name: "standard 3x3", times: 1, op: |n| conv(n, 56, (64, 64), 3, 1) }] },
        Chain {
            name: "separable 188 channels",
            parts: &[
                Part { name: "depthwise 3x3", times: 1, op: |n| depthwise(n, 56, 188, 3) },
                Part { name: "pointwise 1x1", times: 1, op: |n| conv(n, 56, (188, 188), 1, 1) },
            ],
        },
    ],
];

/// Images: what fills a CPU, and a GPU.
const BATCH: [u64; 2] = [16, 64];

fn grid(setting: &Setting<'_>) -> Result<Vec<Item>> {
    let batch = BATCH[usize::from(setting.device.kind == DeviceKind::Gpu)];
    let batch = if setting.size == Size::Small { batch / 4 } else { batch };
    let mut items = Vec::new();
    for part in PAIRS.iter().flatten().flat_map(|chain| chain.parts) {
        items.extend(setting.items(&*setting.fitting(batch, part.op)?.1, Cache::Cold));
    }
    Ok(items)
}

/// A chain as measured; none where one of its parts was not.
fn told<'a>(view: &'a View, chain: &Chain) -> Option<(Vec<Told<'a>>, Told<'a>)> {
    let n = view.rows.first()?.problem["n"].as_u64()?;
    let mut parts = Vec::new();
    for part in chain.parts {
        let op = (part.op)(n).ok()?;
        let (row, params) = (fastest(view, &*op, Cache::Cold)?, explain(&*op, Precision::F32, None).ok()?.params);
        parts.push(Told { name: part.name.into(), parts: vec![(part.times, row)], params: part.times * params, n });
    }
    let params = parts.iter().map(|part| part.params).sum();
    let sum = Told { name: chain.name.into(), parts: parts.iter().flat_map(|part| part.parts.clone()).collect(), params, n };
    Some((parts, sum))
}

fn tell(view: &View) -> Telling {
    let (mut sentences, mut rows, mut lines) = (Vec::new(), Vec::new(), Vec::new());
    for pair in &PAIRS {
        let both: Vec<_> = pair.iter().filter_map(|chain| told(view, chain)).collect();
        for (parts, sum) in &both {
            rows.push(sum.cells());
            // A chain of one part is that part.
            let parts: &[Told<'_>] = if parts.len() > 1 { parts } else { &[] };
            rows.extend(parts.iter().map(Told::cells));
            let marks = parts.iter().map(Told::mark).chain([sum.mark()]).collect();
            let name = if parts.is_empty() { sum.name.clone() } else { format!("{} and their parts", sum.name) };
            lines.push(Line { name, look: Look::Points, family: lines.len(), marks });
        }
        if let [one, other] = both.as_slice() {
            sentences.extend(compared(one, other));
        }
    }
    Telling { sentences, grid: Grid { columns: COLUMNS.to_vec(), rows }, figure: figure(view, lines) }
}

/// The parts and chains under the roof.
fn figure(view: &View, lines: Vec<Line>) -> Figure {
    let across = || lines.iter().flat_map(|line| &line.marks).map(|mark| mark.x);
    let ends = (across().fold(1.0, f64::min) / 2.0, across().fold(1.0, f64::max) * 2.0);
    let panels = peaks(view, STUDY.mix).map(|peaks| {
        let mut panel = Panel::roofline(peaks, ends);
        panel.lines.extend(lines);
        panel
    });
    Figure { title: "Chains of equal FLOPs and their parts: the lower, the longer".into(), panels: panels.into_iter().collect() }
}

/// The slower of two chains, and how much of it placement explains; where their times differ, the part that makes it slow too.
fn compared(one: &(Vec<Told<'_>>, Told<'_>), other: &(Vec<Told<'_>>, Told<'_>)) -> Vec<String> {
    let apart = !same_time(one.1.time() / other.1.time());
    let ((slow_parts, slow), (_, fast)) = if apart && one.1.time() < other.1.time() { (other, one) } else { (one, other) };
    let takes = |slow: f64, fast: f64| time_saved(fast / slow);
    let verdict = format!("{} against {}, equal FLOPs: {}", slow.name, fast.name, takes(slow.time(), fast.time()));
    let roofs = match (slow.bound(), fast.bound()) {
        (Some(slow), Some(fast)) => format!(", where their roofs allow {}.", takes(slow, fast)),
        _ => ".".into(),
    };
    [verdict + &roofs].into_iter().chain(if apart { dear(slow_parts, slow) } else { None }).collect()
}

/// The part of a chain whose share of the time exceeds its share of the FLOPs most, and whether its roof accounts for that; none where the
/// chain is one part, or all keep to their shares.
fn dear(parts: &[Told<'_>], chain: &Told<'_>) -> Option<String> {
    let shares = |part: &Told<'_>| (part.time() / chain.time(), part.flops() / chain.flops());
    let excess = |part: &Told<'_>| shares(part).0 - shares(part).1;
    let part = parts.iter().max_by(|a, b| excess(a).total_cmp(&excess(b))).filter(|part| excess(part) > 0.0)?;
    let (time, flops) = shares(part);
    let why = part.bound().map(|bound| bound / part.time()).map_or(String::new(), |reached| {
        let limit =
            part.parts.first().and_then(|(_, row)| clear_limiter(row)).map_or(String::new(), |limiter| format!(", limited by {limiter}"));
        let cause = if is_most(reached) { "so its roof is why" } else { "so its kernel is why more than its roof" };
        format!("; it reaches {}{limit}, {cause}", portion(reached, "its roof"))
    });
    Some(format!(
        "Beyond its share of the FLOPs most time goes into {}: {} of the FLOPs, at {} FLOP/byte, take more of the time ({}){why}.",
        part.name,
        percent(flops),
        Intensity(part.intensity()),
        percent(time)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record;
    use crate::roofline;

    /// A recording in which the longest part of the slower chain is not the one that makes it slow.
    fn view() -> View {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/results/epyc-zen5-2cpu/2026-11-27T184126/records.jsonl");
        roofline::view(&record::read(path.as_ref()).expect("a readable file").records).expect("a view")
    }

    #[test]
    fn what_makes_a_chain_slow_is_not_what_takes_longest() {
        let view = view();
        let (parts, chain) = told(&view, &PAIRS[0][0]).expect("it was measured");
        let longest = parts.iter().max_by(|a, b| a.time().total_cmp(&b.time())).expect("parts");
        assert_eq!(longest.name, "narrow 1x1");
        // 10 % of the FLOPs take 31 % of the time; 45 % take 37 %.
        let told = dear(&parts, &chain).expect("a part");
        assert!(told.starts_with("Beyond its share of the FLOPs most time goes into depthwise 5x5: 10 % of the FLOPs"), "{told}");
        assert!(told.contains("take more of the time (31 %)") && told.contains("its kernel is why more than its roof"), "{told}");
        let (parts, chain) = super::told(&view, &PAIRS[1][0]).expect("it was measured");
        assert_eq!(dear(&parts, &chain), None, "one part is the chain");
    }
}
