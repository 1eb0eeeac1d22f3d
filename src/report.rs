//! What a person sees of a [`View`]: tables, a terminal chart, a picture and a sentence or two.
//!
//! Everything here is a pure function from a view to text; nothing is measured, derived or printed. Three rules hold in all
//! forms: a wrong output never shows a rate, a point above its roof is marked and explained but never moved, and what cannot be
//! shown is listed with its reason. A placed row has the same key letter in table, chart and picture.

pub mod chart;
pub mod cost;
pub mod explain;
mod ramp;
mod reference;
mod scene;
pub mod study;
pub mod svg;
pub mod table;
mod text;
pub mod verdict;

pub use scene::LeftOut;

use crate::op::OpRole;
use crate::record::{Cache, Header, State};
use crate::view::{Row, View};

/// How text for a terminal is to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// Columns of the terminal; no line is wider.
    pub width: usize,
    /// Whether to add colour. It repeats what the words say.
    pub colour: bool,
    /// Whether to keep to ASCII.
    pub ascii: bool,
}

impl Default for Style {
    /// 100 columns, no colour, Unicode.
    fn default() -> Self {
        Style { width: 100, colour: false, ascii: false }
    }
}

/// Whether rates of a row may be shown: its output was verified.
fn verified(row: &Row) -> bool {
    matches!(row.state, State::Ok | State::Suspect | State::PowerLimited)
}

/// Whether a row is verified but its rate is doubted.
fn doubted(row: &Row) -> bool {
    verified(row) && (row.above_roof || row.state == State::Suspect)
}

/// Whether a row is a vendor's library, which is never counted as ours.
fn is_reference(row: &Row) -> bool {
    row.role == OpRole::Reference
}

/// What the `check` column says.
fn state_word(state: State) -> &'static str {
    match state {
        State::Ok => "ok",
        State::Suspect => "SUSPECT",
        State::PowerLimited => "POWER",
        State::Wrong => "WRONG",
        State::Unsupported => "unsupported",
        State::NotCompiled => "not compiled",
        State::Skipped => "skipped",
        State::OutOfMemory => "no memory",
        State::Timeout => "timeout",
        State::DeviceLost => "lost",
        State::NotRun => "not run",
    }
}

fn cache_word(cache: Cache) -> &'static str {
    match cache {
        Cache::Cold => "cold",
        Cache::Warm => "warm",
    }
}

/// One line that names device, driver, date and program.
fn heading(header: &Header) -> (String, String) {
    let device = &header.device;
    let title = if device.simulated { format!("{} [SIMULATED]", device.name) } else { device.name.clone() };
    let facts = [
        device.backend.clone(),
        device.driver.clone(),
        format!("{} UTC", text::date(header.started)),
        format!("{} {}", header.schema.name, header.tool.version),
    ];
    (text::clean(&title), text::clean(&facts.iter().filter(|f| !f.is_empty()).cloned().collect::<Vec<_>>().join(", ")))
}

/// Key letters of the rows that can be drawn, by row: `A` … `Z`, `a` … `z`, then `A2`, …; `None` for the others.
fn keys(view: &View) -> Vec<Option<String>> {
    let mut next = 0;
    let key = |row| {
        scene::drawable(row).is_ok().then(|| {
            next += 1;
            text::key(next - 1)
        })
    };
    view.rows.iter().map(key).collect()
}
