//! The result table that a person reads in ten seconds, with the roofs before it and what was left out after it.
//!
//! One model, two writers: a terminal of a given width, and Markdown. A terminal line is never wrapped and never wider than asked: shapes
//! and limiters are shortened first, then columns dropped, which a note names, and
//! cells cut only where that is not enough.

mod grid;

pub(super) use grid::escape;

use super::{Style, cache_word, doubted, heading, is_reference, keys, state_word, text, verdict, verified};
use crate::backend::meter::UNREADABLE;
use crate::grid::{Column, Grid};
use crate::op;
use crate::plan::{Precision, Unit};
use crate::record::{CeilingKind, State};
use crate::units::{ByteRate, Capacity, ExpRate, FlopRate, Intensity, Nanos, OpRate};
use crate::view::{CeilingView, Row, View};

/// Causes of a point above its roof, likeliest first, where the view names none.
const ABOVE: &str = "likely causes: data still in a cache, a wrong byte count, another precision's roof, work optimised away, \
                     a clock above the traced one";

const COLUMNS: [Column; 12] = [
    Column::left("key").titled(""),
    Column::left("op").shrinks(9),
    Column::left("variant"),
    Column::left("shape").shrinks_before_tail(24),
    Column::left("cache").drops(3),
    Column::left("check"),
    Column::right("time"),
    Column::right("GFLOP/s"),
    Column::right("GB/s").drops(1),
    Column::right("FLOP/B").drops(2),
    Column::right("of roof").titled("roof"),
    Column::left("limited by").shrinks_before_tail(14),
];

/// Rows of `view` as text for a terminal: heading, roofs, kernels, notes, what was left out.
pub fn terminal(view: &View, style: &Style) -> String {
    let write = |grid: Grid| grid.terminal(style);
    let (title, facts) = heading(&view.header);
    let line = |text: &str| text::fit(&text::plain(text, style.ascii), style.width, style.ascii);
    let mut parts = vec![format!("{}\n{}\n", line(&title), line(&facts))];
    if !view.ceilings.is_empty() {
        parts.push(write(ceilings(view)));
        parts.extend(verdict::roof_taken(view).map(|taken| line(&taken) + "\n"));
    }
    let (ours, references) = (kernels(view, false), kernels(view, true));
    parts.push(if ours.rows.is_empty() { line("no kernel was placed") + "\n" } else { write(ours) });
    if !references.rows.is_empty() {
        parts.push(format!("{}\n{}", line(REFERENCES), write(references)));
    }
    let wrapped = |note: String| text::wrap(&text::plain(&note, style.ascii), style.width, 4, style.ascii) + "\n";
    let notes: String = notes(view, &keys(view)).into_iter().map(wrapped).collect();
    let skips: String = skips(view).into_iter().map(wrapped).collect();
    if !notes.is_empty() {
        parts.push(notes);
    }
    if !skips.is_empty() {
        parts.push(format!("{}\n{skips}", line("left out")));
    }
    parts.join("\n")
}

/// For each verified kernel what its resources would take of its time alone, as `-v` shows it; empty where nothing is known.
pub fn shares(view: &View, style: &Style) -> String {
    let mut out = String::new();
    for (row, key) in view.rows.iter().zip(keys(view)).filter(|(row, _)| verified(row) && !row.shares.is_empty()) {
        let each: Vec<String> = row.shares.iter().map(|s| format!("{} {}", s.resource, percent(s.share))).collect();
        let line =
            format!("{} {} {} {} {}: {}", key.unwrap_or_default(), row.op, row.kernel(), row.label, cache_word(row.cache), each.join(", "));
        out += &(text::wrap(&text::plain(&line, style.ascii), style.width, 4, style.ascii) + "\n");
    }
    if out.is_empty() { out } else { format!("shares of time, each resource alone\n{out}") }
}

/// What the shapes of the default grid are, as `-v` shows it; empty where none is among the rows.
pub fn shapes(view: &View, style: &Style) -> String {
    let mut lines: Vec<String> = Vec::new();
    for row in &view.rows {
        let Some(name) = op::layer_name(&row.op, &row.problem) else { continue };
        let line = format!("{} {}: {name}", row.op, row.label);
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    let wrapped = |line: &String| text::wrap(&text::plain(line, style.ascii), style.width, 4, style.ascii) + "\n";
    let out: String = lines.iter().map(wrapped).collect();
    if out.is_empty() { out } else { format!("shapes\n{out}") }
}

/// Rows of `view` as Markdown: what the README shows.
pub fn markdown(view: &View) -> String {
    let (title, facts) = heading(&view.header);
    let mut parts = vec![format!("**{}**, {}\n", escape(&title), escape(&facts))];
    if !view.ceilings.is_empty() {
        parts.push(ceilings(view).markdown());
    }
    let (ours, references) = (kernels(view, false), kernels(view, true));
    parts.push(if ours.rows.is_empty() { "No kernel was placed.\n".into() } else { ours.markdown() });
    if !references.rows.is_empty() {
        parts.push(format!("{}:\n\n{}", escape(REFERENCES), references.markdown()));
    }
    let list = |lines: Vec<String>| lines.iter().map(|l| format!("- {}\n", escape(l))).collect::<String>();
    let (notes, skips) = (list(notes(view, &keys(view))), list(skips(view)));
    if !notes.is_empty() {
        parts.push(notes);
    }
    if !skips.is_empty() {
        parts.push(format!("Left out:\n\n{skips}"));
    }
    parts.join("\n")
}

/// What stands over the rows of libraries.
pub(super) const REFERENCES: &str = "references: the vendor's libraries, none of them ours";

/// The kernels, or the libraries beside them.
fn kernels(view: &View, references: bool) -> Grid {
    let wanted = view.rows.iter().zip(keys(view)).filter(|(row, _)| is_reference(row) == references);
    let rows = wanted.map(|(row, key)| {
        let rate = |value: Option<f64>| value.filter(|_| verified(row)).map_or(String::new(), |v| number(v / 1e9));
        vec![
            key.unwrap_or_default(),
            row.op.clone(),
            row.kernel(),
            row.label.clone(),
            cache_word(row.cache).into(),
            check(row).into(),
            if verified(row) { time(row) } else { String::new() },
            rate(row.flop_per_s),
            rate(row.byte_per_s),
            Intensity(row.intensity).to_string(),
            row.roof_fraction.filter(|_| verified(row)).map_or(String::new(), percent),
            if verified(row) { row.limited_by() } else { String::new() },
        ]
    });
    Grid { columns: COLUMNS.to_vec(), rows: rows.collect() }
}

pub(super) fn check(row: &Row) -> &'static str {
    if doubted(row) { state_word(State::Suspect) } else { state_word(row.state) }
}

/// `1.25 ms ±0.3%`: the larger half of the interval, in percent of the median.
fn time(row: &Row) -> String {
    let Some(t) = row.time_ns else { return String::new() };
    let half = (t.high - t.median).max(t.median - t.low) / t.median * 100.0;
    let half = if half < 9.95 { format!("{half:.1}") } else { format!("{half:3.0}") };
    format!("{} ±{half}%", Nanos(t.median))
}

/// `83%`, `2.1%`.
pub(super) fn percent(share: f64) -> String {
    match share * 100.0 {
        p if !p.is_finite() => "?".into(),
        p if p >= 9.95 => format!("{p:.0}%"),
        p => format!("{p:.1}%"),
    }
}

/// Three significant digits without an exponent where that is short.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        v if !v.is_finite() => "?".into(),
        v if v >= 1e7 => format!("{value:.2e}"),
        v if v >= 99.95 => format!("{value:.0}"),
        v if v >= 9.995 => format!("{value:.1}"),
        v if v >= 0.09995 => format!("{value:.2}"),
        v if v >= 0.00095 => format!("{value:.3}"),
        0.0 => "0".into(),
        _ => format!("{value:.1e}"),
    }
}

/// The roofs.
fn ceilings(view: &View) -> Grid {
    let columns = vec![
        Column::left("roof").shrinks(14),
        Column::right("value"),
        Column::right("95 % interval").drops(2),
        Column::left("state"),
        Column::left("from").shrinks(10).drops(1),
    ];
    let rows = view.ceilings.iter().map(|c| {
        let show = |value: f64| match c.kind {
            CeilingKind::Compute if c.unit == Some(Unit::Exp) => ExpRate(value).to_string(),
            CeilingKind::Compute if c.precision.is_some_and(Precision::is_integer) => OpRate(value).to_string(),
            CeilingKind::Compute => FlopRate(value).to_string(),
            CeilingKind::Bandwidth => ByteRate(value).to_string(),
            CeilingKind::Latency => Nanos(value).to_string(),
        };
        let interval = format!("{} – {}", show(c.low).split(' ').next().unwrap_or_default(), show(c.high));
        // The short form would mislead where the ends have different units.
        let same = show(c.low).split(' ').nth(1) == show(c.high).split(' ').nth(1);
        let interval = if same { interval } else { format!("{} – {}", show(c.low), show(c.high)) };
        vec![c.name.clone(), show(c.value), interval, state_word(c.state).into(), source(c)]
    });
    Grid { columns, rows: rows.collect() }
}

/// What a roof was traced from: `f32 vector multiply-adds`, `triad, sets up to 512 KiB`.
fn source(c: &CeilingView) -> String {
    let mut words = Vec::new();
    match c.kind {
        CeilingKind::Compute if c.unit == Some(Unit::Exp) => words.push("powers of two, chained".into()),
        CeilingKind::Compute => {
            let names = [c.precision.map(|p| p.to_string()), c.unit.map(|u| u.to_string())];
            words.push(format!("{} multiply-adds", names.into_iter().flatten().collect::<Vec<_>>().join(" ")));
        }
        CeilingKind::Bandwidth => {
            let direction = c.direction.as_deref().unwrap_or("stream");
            words.push(match c.capacity {
                Some(bytes) => format!("{direction}, sets up to {}", Capacity(bytes)),
                None if c.level.as_deref() == Some("shared") => "16 bytes a lane, no bank conflicts".into(),
                None if c.level.as_deref() == Some("pcie") => match direction {
                    "write" => "copies from the device to page-locked host memory".into(),
                    _ => "copies from page-locked host memory to the device".into(),
                },
                None => format!("{direction}, beyond all caches"),
            });
        }
        CeilingKind::Latency if c.level.is_some() => words.push(match c.capacity {
            Some(bytes) => format!("one load after another, sets up to {}", Capacity(bytes)),
            None => "one load after another, beyond all caches".into(),
        }),
        CeilingKind::Latency => words.push("dispatches that do nothing, one after the other".into()),
    }
    words.join(", ")
}

/// What the words WRONG, SUSPECT and POWER in the tables stand on: one line a reason, with all that share it, roofs by name and
/// kernels by key where they have one. A reason ends in its figures, in parentheses; they are shown where it has one owner.
pub(super) fn notes(view: &View, keys: &[Option<String>]) -> Vec<String> {
    let mut notes = Notes::default();
    for c in &view.ceilings {
        let word = if c.state == State::Ok { "NOTE" } else { state_word(c.state) };
        if c.state != State::Ok && c.reasons.is_empty() {
            notes.add(word, &c.name, &c.name, "no reason recorded");
        }
        for reason in &c.reasons {
            notes.add(word, &c.name, &c.name, reason);
        }
    }
    for (row, key) in view.rows.iter().zip(keys).filter(|(row, _)| doubted(row) || row.state != State::Ok) {
        let name = format!("{} {} {} {}", row.op, row.kernel(), row.label, cache_word(row.cache));
        let key = key.clone().unwrap_or_else(|| name.clone());
        let reasons: Vec<String> = row.reasons.iter().filter(|reason| !reason.starts_with(UNREADABLE)).cloned().collect();
        match row.state {
            State::Wrong => notes.add(check(row), &name, &name, &because(&reasons, &wrong(row))),
            _ if row.above_roof => notes.add(check(row), &name, &name, &format!("{}: {}", above(row), because(&reasons, ABOVE))),
            _ if reasons.is_empty() => notes.add(check(row), &key, &name, "no reason recorded"),
            _ => reasons.iter().for_each(|reason| notes.add(check(row), &key, &name, reason)),
        }
    }
    // Energy that could not be read puts no time in doubt.
    let mut lines = notes.lines();
    for reason in view.rows.iter().flat_map(|row| &row.reasons).filter(|reason| reason.starts_with(UNREADABLE)) {
        let line = format!("NOTE {reason}");
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    lines
}

/// Reasons in the order in which they first occur.
#[derive(Default)]
struct Notes(Vec<Note>);

struct Note {
    word: &'static str,
    /// The reason without its figures.
    phrase: String,
    owners: Vec<String>,
    /// The first owner by its whole name, with the reason as it stands.
    first: String,
}

impl Notes {
    fn add(&mut self, word: &'static str, owner: &str, name: &str, reason: &str) {
        let phrase = reason.split(" (").next().unwrap_or(reason);
        match self.0.iter_mut().find(|n| n.word == word && n.phrase == phrase) {
            Some(note) if note.owners.iter().any(|o| o == owner) => {}
            Some(note) => note.owners.push(owner.into()),
            None => {
                let first = format!("{name}: {reason}");
                self.0.push(Note { word, phrase: phrase.into(), owners: vec![owner.into()], first });
            }
        }
    }

    fn lines(self) -> Vec<String> {
        let line = |n: Note| match n.owners.len() {
            1 => format!("{} {}", n.word, n.first),
            _ => format!("{} {}: {}", n.word, n.owners.join(", "), n.phrase),
        };
        self.0.into_iter().map(line).collect()
    }
}

fn above(row: &Row) -> String {
    match row.roof_fraction {
        Some(f) if f.is_finite() => format!("{} of its roof", percent(f)),
        _ => "above its roof".into(),
    }
}

fn wrong(row: &Row) -> String {
    match &row.verification {
        Some(v) => format!("worst error {:.1e} where {:.1e} is allowed", v.worst_error, v.allowed),
        None => "its output did not agree with the oracle".into(),
    }
}

fn because(reasons: &[String], otherwise: &str) -> String {
    if reasons.is_empty() { otherwise.to_string() } else { reasons.join("; ") }
}

pub(super) fn skips(view: &View) -> Vec<String> {
    // A compiler's log goes on for lines; the record has them all.
    let first = |why: &str| why.lines().next().unwrap_or_default().to_string();
    let line = |s: &crate::view::SkipView| format!("{} {}: {} ({})", s.op, s.variant, first(&s.why), state_word(s.state));
    let mut lines: Vec<(String, usize)> = Vec::new();
    for line in view.skips.iter().map(line) {
        match lines.iter_mut().find(|(known, _)| *known == line) {
            Some((_, count)) => *count += 1,
            None => lines.push((line, 1)),
        }
    }
    let counted = |(line, count): (String, usize)| if count == 1 { line } else { format!("{line}, {count} problems") };
    lines.into_iter().map(counted).collect()
}
