//! A result in a sentence or two: the ridge, the best kernel, the biggest gap.

use super::scene::{Scene, drawable};
use super::{Style, doubted, is_reference, ramp, reference, text};
use crate::record::State;
use crate::units::{ByteRate, FlopRate, Intensity};
use crate::view::{Row, View};

/// When the roof was measured, where that was another time than the rows'.
pub(super) fn roof_taken(view: &View) -> Option<String> {
    view.header.settings.roof_started.map(|time| format!("The roof was recorded on {} UTC.", text::date(time)))
}

/// Plain sentences about a view, each on a line of its own; what is not known is not mentioned, what is wrong is.
pub fn sentences(view: &View) -> Vec<String> {
    let mut lines: Vec<String> = ridge(view).into_iter().chain(ramp::sentences(view)).collect();
    // A library is no kernel of ours: it neither leads nor lags.
    let ours: Vec<&Row> = view.rows.iter().filter(|row| !is_reference(row)).collect();
    let trusted = |row: &&Row| drawable(row).is_ok() && !doubted(row) && row.roof_fraction.is_some_and(f64::is_finite);
    let share = |row: &Row| row.roof_fraction.unwrap_or(0.0);
    let best = ours.iter().copied().filter(trusted).max_by(|a, b| share(a).total_cmp(&share(b)));
    // A doubted row may be the best of its problem all the same: then that problem has no gap to name.
    let fastest = fastest_of_each(ours.iter().copied().filter(|row| drawable(row).is_ok()).collect());
    let gap = fastest.into_iter().filter(trusted).min_by(|a, b| share(a).total_cmp(&share(b)));
    if let Some(row) = best {
        lines.push(format!("Closest to its roof: {}, at {:.0} %.", name(row), share(row) * 100.0));
    }
    if let (Some(row), Some(best)) = (gap, best)
        && row.id != best.id
    {
        let why = row.limited_by();
        lines.push(format!("Biggest gap among the best variants: {}, at {:.0} %, limited by {why}.", name(row), share(row) * 100.0));
    }
    lines.extend(reference::sentences(view));
    for (what, libraries) in [("kernels", false), ("references", true)] {
        let of_kind: Vec<&Row> = view.rows.iter().filter(|row| is_reference(row) == libraries).collect();
        let wrong = of_kind.iter().filter(|row| row.state == State::Wrong).count();
        if wrong > 0 {
            let verb = if wrong == 1 { "has" } else { "have" };
            lines.push(format!("{wrong} of {} {what} gave a wrong output and {verb} no rate.", of_kind.len()));
        }
    }
    lines.iter().map(|line| text::clean(line)).collect()
}

/// The sentences for a terminal, wrapped.
pub fn terminal(view: &View, style: &Style) -> String {
    let wrapped = |line: &String| text::wrap(&text::plain(line, style.ascii), style.width, 2, style.ascii) + "\n";
    sentences(view).iter().map(wrapped).collect()
}

/// How a variant stands to the fastest of the others at each of its problems, a sentence each.
pub fn beside(view: &View, variant: &str) -> Vec<String> {
    let timed: Vec<&Row> = view.rows.iter().filter(|row| drawable(row).is_ok()).collect();
    let median = |row: &Row| row.time_ns.map(|t| t.median);
    let sentence = |own: &&Row| {
        let same =
            |other: &&&Row| (&other.op, &other.problem, other.cache, other.precision) == (&own.op, &own.problem, own.cache, own.precision);
        let others = timed.iter().filter(same).filter(|row| row.variant != variant && !is_reference(row));
        let best = others.min_by(|a, b| median(a).unwrap_or(f64::MAX).total_cmp(&median(b).unwrap_or(f64::MAX)))?;
        let ratio = median(own)? / median(best)?;
        let (how, times) = if ratio < 1.0 { ("faster than", 1.0 / ratio) } else { ("slower than", ratio) };
        Some(format!("{}: {times:.2} times {how} {}, the fastest of ours at {}.", own.variant, best.variant, own.label))
    };
    timed.iter().filter(|row| row.variant == variant).filter_map(sentence).map(|line| text::clean(&line)).collect()
}

fn name(row: &Row) -> String {
    format!("{} {} {} ({})", row.op, row.kernel(), row.label, super::cache_word(row.cache))
}

/// For each op, problem and cache state, its fastest row: a naive rung is slow on purpose and no gap worth naming.
fn fastest_of_each(rows: Vec<&Row>) -> Vec<&Row> {
    let mut best: Vec<&Row> = Vec::new();
    for row in rows {
        let same = |other: &&Row| (&other.op, other.cache, &other.problem) == (&row.op, row.cache, &row.problem);
        match best.iter().position(same) {
            Some(at) if best[at].flop_per_s < row.flop_per_s => best[at] = row,
            Some(_) => {}
            None => best.push(row),
        }
    }
    best
}

/// Where memory and arithmetic meet.
pub(super) fn ridge(view: &View) -> Option<String> {
    let scene = Scene::of(view);
    let ridge = scene.ridge?;
    let bandwidth = ByteRate(ridge.y / ridge.x);
    Some(format!("The ridge lies at {} FLOP/byte: {} from DRAM below it, {} above it.", Intensity(ridge.x), bandwidth, FlopRate(ridge.y)))
}
