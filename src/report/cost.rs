//! The table of what rows cost, and the lines that say what its figures are held against.

use super::table::{REFERENCES, check, escape, number, percent};
use super::{Style, cache_word, is_reference, keys, state_word, text};
use crate::backend::meter::UNREADABLE;
use crate::cost::{Asked, Peaks};
use crate::grid::{Column, Grid};
use crate::plan::Precision;
use crate::record::State;
use crate::units::{ByteRate, Capacity, Count, FlopRate, Joules, Nanos, digits};
use crate::view::{CeilingView, Cost, Row, View};

/// What stands in one column.
type Cell = fn(&Row, &Cost) -> String;

/// Costs of a view's rows as text for a terminal; what was not asked for has no column.
pub fn terminal(view: &View, asked: &Asked, style: &Style) -> String {
    let line = |text: &str| text::wrap(&text::plain(text, style.ascii), style.width, 4, style.ascii) + "\n";
    let (ours, references) = (grid(view, asked, false), grid(view, asked, true));
    if ours.rows.is_empty() && references.rows.is_empty() {
        return line("no kernel was placed, so there are no costs");
    }
    let mut parts = vec![line("what each problem costs") + &ours.terminal(style)];
    if !references.rows.is_empty() {
        parts.push(line(REFERENCES) + &references.terminal(style));
    }
    parts.push(notes(view, asked).iter().map(|note| line(note)).collect());
    parts.join("\n")
}

/// The same as Markdown.
pub fn markdown(view: &View, asked: &Asked) -> String {
    let (ours, references) = (grid(view, asked, false), grid(view, asked, true));
    if ours.rows.is_empty() && references.rows.is_empty() {
        return "No kernel was placed, so there are no costs.\n".into();
    }
    let mut parts = vec!["What each problem costs:\n".to_string(), ours.markdown()];
    if !references.rows.is_empty() {
        parts.push(format!("{}:\n\n{}", escape(REFERENCES), references.markdown()));
    }
    parts.push(notes(view, asked).iter().map(|note| format!("- {}\n", escape(note))).collect());
    parts.join("\n")
}

/// Our kernels, or the libraries beside them. Both have the same columns.
fn grid(view: &View, asked: &Asked, references: bool) -> Grid {
    let columns = columns(view, asked);
    let titles = [Column::left("key").titled("")].into_iter().chain(columns.iter().map(|(column, _)| *column));
    let wanted = view.rows.iter().zip(keys(view)).filter(|(row, _)| is_reference(row) == references);
    let rows = wanted.filter_map(|(row, key)| {
        let cost = row.cost.as_ref()?;
        let cells = columns.iter().map(|(_, cell)| cell(row, cost));
        Some([key.unwrap_or_default()].into_iter().chain(cells).collect())
    });
    Grid { columns: titles.collect(), rows: rows.collect() }
}

/// The columns after the key.
fn columns(view: &View, asked: &Asked) -> Vec<(Column, Cell)> {
    let any = |has: fn(&Row, &Cost) -> bool| view.rows.iter().any(|row| row.cost.as_ref().is_some_and(|cost| has(row, cost)));
    let mut columns: Vec<(Column, Cell)> = vec![
        (Column::left("op").shrinks(9), |row, _| row.op.clone()),
        (Column::left("variant"), |row, _| row.kernel()),
        (Column::left("shape").shrinks_before_tail(24), |row, _| row.label.clone()),
        (Column::left("cache"), |row, _| cache_word(row.cache).into()),
    ];
    if any(|row, _| check(row) != state_word(State::Ok)) {
        columns.push((Column::left("check"), |row, _| check(row).into()));
    }
    columns.extend::<[(Column, Cell); 5]>([
        (Column::right("parameters").titled("params").drops(3), |_, cost| cost.params.map_or(String::new(), |n| Count(n).to_string())),
        (Column::right("activations").titled("activ.").drops(2), |_, cost| {
            cost.activations.map_or(String::new(), |n| Count(n).to_string())
        }),
        (Column::right("peak memory").titled("memory").drops(5), |_, cost| {
            cost.peak_bytes.map_or(String::new(), |bytes| Capacity(bytes).to_string())
        }),
        (Column::right("latency"), |_, cost| cost.latency_ns.map_or(String::new(), |ns| Nanos(ns).to_string())),
        (Column::right("problems/s").titled("per s").drops(4), |_, cost| per_s(cost.problems_per_s)),
    ]);
    if any(|_, cost| cost.samples_per_s != cost.problems_per_s && cost.samples_per_s.is_some()) {
        columns.push((Column::right("samples/s").drops(1), |_, cost| per_s(cost.samples_per_s)));
    }
    columns.push((Column::right("MFU"), |_, cost| cost.mfu.map_or(String::new(), percent)));
    columns.push((Column::right("MBU"), |_, cost| cost.mbu.map_or(String::new(), percent)));
    if !asked.nominal.compute.is_empty() {
        let nominal = Column::right("MFU of nominal").titled("nomMFU").drops(6);
        columns.push((nominal, |_, cost| cost.mfu_nominal.map_or(String::new(), percent)));
    }
    if asked.nominal.byte_per_s.is_some() {
        let nominal = Column::right("MBU of nominal").titled("nomMBU").drops(6);
        columns.push((nominal, |_, cost| cost.mbu_nominal.map_or(String::new(), percent)));
    }
    if any(|_, cost| cost.energy_j.is_some()) {
        columns.extend::<[(Column, Cell); 3]>([
            (Column::right("energy").drops(7), |_, cost| joules(cost.energy_j)),
            (Column::right("above idle").drops(1), |_, cost| joules(cost.energy_above_idle_j)),
            (Column::right("FLOP/J").drops(4), |_, cost| cost.flop_per_j.map_or(String::new(), |n| Count(n.round() as u64).to_string())),
        ]);
    }
    if asked.price.is_some() {
        columns.push((Column::right("price of 1M").titled("price/1M"), |_, cost| cost.price_per_million.map_or(String::new(), number)));
    }
    if asked.limits() {
        columns.push((Column::left("fits").shrinks(21), |_, cost| fits(cost)));
    }
    columns
}

/// `yes`, or the limits that are broken, or what is not known.
fn fits(cost: &Cost) -> String {
    match cost.fits {
        Some(true) => "yes".into(),
        Some(false) => cost.why.join(", "),
        None => format!("? {}", cost.why.join(", ")),
    }
}

/// `8.25`, `1.36 k`.
fn per_s(rate: Option<f64>) -> String {
    match rate {
        None => String::new(),
        Some(rate) if rate < 999.5 => number(rate),
        Some(rate) => Count(rate.round() as u64).to_string(),
    }
}

fn joules(energy: Option<f64>) -> String {
    energy.map_or(String::new(), |joules| Joules(joules).to_string())
}

/// What the figures are, and why a column is empty where it is.
fn notes(view: &View, asked: &Asked) -> Vec<String> {
    let peaks = Peaks::of(view);
    let value = |ceiling: &CeilingView, value: String| {
        let doubt = if ceiling.state == State::Ok { String::new() } else { format!(", {}", state_word(ceiling.state)) };
        format!("{} ({value}{doubt})", ceiling.name)
    };
    let mut notes =
        vec!["latency: one problem, its data cold (in memory) or warm (in a cache) as named; per s: one after the other".into()];
    let mut seen: Vec<Precision> = Vec::new();
    let (mut against, mut lacking) = (Vec::new(), Vec::new());
    for row in &view.rows {
        if seen.contains(&row.precision) {
            continue;
        }
        seen.push(row.precision);
        match peaks.compute(row) {
            Some(ceiling) => against.push(value(ceiling, FlopRate(ceiling.value).to_string())),
            None => lacking.push(row.precision.to_string()),
        }
    }
    if !against.is_empty() {
        notes.push(format!("MFU: FLOPs a second over {}", against.join(", ")));
    }
    if !lacking.is_empty() {
        notes.push(format!("no MFU for {}: no compute ceiling was measured", lacking.join(", ")));
    }
    notes.push(match peaks.memory() {
        Some(ceiling) => {
            format!("MBU: compulsory bytes a second over {}, cold rows only", value(ceiling, ByteRate(ceiling.value).to_string()))
        }
        None => "no MBU: no DRAM read ceiling was measured".into(),
    });
    if view.rows.iter().any(|row| row.peak_bytes.is_none()) {
        notes.push("no memory where the record has none measured".into());
    }
    notes.extend(nominal(asked));
    notes.extend(energy(view, asked));
    if let Some(price) = asked.price {
        notes.push(format!("price/1M: a million problems, one after the other, at {price} an hour"));
    }
    notes
}

/// What was given in place of measured peaks.
fn nominal(asked: &Asked) -> Option<String> {
    let named = |(precision, rate): &(Option<Precision>, f64)| match precision {
        Some(precision) => format!("{} ({precision})", FlopRate(*rate)),
        None => FlopRate(*rate).to_string(),
    };
    let given = asked.nominal.compute.iter().map(named).chain(asked.nominal.byte_per_s.map(|rate| ByteRate(rate).to_string()));
    let given: Vec<String> = given.collect();
    (!given.is_empty())
        .then(|| format!("MFU and MBU of nominal (nomMFU, nomMBU): over {}, as given, measured by nobody here", given.join(", ")))
}

/// How energy was counted, or why it was not.
fn energy(view: &View, asked: &Asked) -> Vec<String> {
    let mut sources: Vec<String> = Vec::new();
    for energy in view.rows.iter().filter_map(|row| row.energy.as_ref()) {
        let source = format!("{}, idle {} W", energy.source, digits(energy.idle_uw as f64 / 1e6));
        if !sources.contains(&source) {
            sources.push(source);
        }
    }
    let mut notes = Vec::new();
    if !sources.is_empty() {
        let told = sources.join("; ");
        notes.push(format!("energy: one problem, launched back to back, the idle share included ({told}); above idle: without it"));
    }
    let whys = view.rows.iter().flat_map(|row| &row.reasons).filter(|reason| reason.starts_with(UNREADABLE));
    for why in whys {
        if !notes.contains(why) {
            notes.push(why.clone());
        }
    }
    if notes.is_empty() && asked.max_energy.is_some() {
        notes.push("no energy: the record has none; measure with --energy".into());
    }
    notes
}
