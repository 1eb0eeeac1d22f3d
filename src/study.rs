//! Named questions: which problems to measure, and how to tell the answer from what was measured.
//!
//! A study's records are ordinary ones, its roof among them. What it tells depends on the derived view alone, so a file tells what the
//! live run told. Its words are coarse where times are noisy, so that two recordings of one machine share them; measured figures stand
//! behind them in parentheses. Adding a study is one file and one entry in [`STUDIES`].

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::explain::{Peaks, explain};
use crate::grid::Grid;
use crate::op::stream::Kind;
use crate::op::{self, Op, OpRole, Size};
use crate::plan::{DeviceInfo, Precision, VariantInfo};
use crate::record::{Cache, State};
use crate::roofline::Roof;
use crate::units::{ByteRate, Count, FlopRate, Intensity};
use crate::view::{Row, View};
use crate::worker::{Effort, Goal, Item};

mod attention;
mod batch;
mod depthwise;
mod figure;
mod misnomer;
mod precision;
mod told;
mod variants;
mod words;

pub use figure::{Axis, Figure, Line, Look, Mark, Panel, Quantity};

/// A named question.
pub struct Study {
    /// As typed and recorded.
    pub name: &'static str,
    /// What it answers.
    pub question: &'static str,
    /// Precisions whose compute ceiling its roof needs, as far as the device computes in them.
    pub precisions: &'static [Precision],
    /// What its kernels do to memory, about: whose DRAM ceiling its ridge and its picture have.
    pub mix: Kind,
    /// What to measure, most important first: a study whose time ends leaves out the rest.
    ///
    /// # Errors
    /// [`Error::Usage`] for an impossible shape, which none of the table has.
    pub grid: fn(&Setting<'_>) -> Result<Vec<Item>>,
    /// The answer, as far as the view has what it needs.
    pub tell: fn(&View) -> Telling,
}

/// ns that a launch may take on the roof; a batch that needs more is lowered.
const LONGEST_NS: f64 = 200e6;
/// Bytes of memory below which figures are not fitted: what a process takes besides would count.
const FITTED: u64 = 64 << 20;

/// Tokens below which times are not fitted: they hold much that does not grow.
const LONG: u64 = 512;

/// An item's time where lengths matter more than the last percent.
const BRIEF: Effort = Effort { samples: 5, least_ns: 50_000_000, budget_ns: 300_000_000, canary: true };

/// All studies.
pub const STUDIES: &[Study] = &[depthwise::STUDY, attention::STUDY, batch::STUDY, precision::STUDY, misnomer::STUDY, variants::STUDY];

/// The study of that name.
///
/// # Errors
/// [`Error::Usage`] that lists the known ones.
pub fn find(name: &str) -> Result<&'static Study> {
    STUDIES.iter().find(|study| study.name == name).ok_or_else(|| {
        let known: Vec<_> = STUDIES.iter().map(|study| format!("{} ({})", study.name, study.question)).collect();
        Error::usage(format!("there is no study '{name}'; there are {}", known.join(", ")))
    })
}

impl Study {
    /// The study that a view was recorded by; none where it is unknown here, or no study.
    pub fn of(view: &View) -> Option<&'static Study> {
        let name = view.header.settings.study.as_deref()?;
        STUDIES.iter().find(|study| study.name == name)
    }

    /// The whole answer: what the study tells, after how the run ended where that was too early.
    pub fn answer(&self, view: &View) -> Telling {
        let mut telling = (self.tell)(view);
        if telling.sentences.is_empty() {
            telling.sentences.push("Nothing was measured that could answer it.".into());
        }
        telling.sentences.splice(..0, ended(view));
        telling
    }

    /// Where memory and arithmetic meet for this study's mix of reads and writes.
    pub fn ridge(&self, view: &View) -> Option<String> {
        let (flop_per_s, memory) = peaks(view, self.mix)?;
        Some(format!(
            "The ridge lies at {} FLOP/byte: DRAM {} at {} below it, f32 at {} above it.",
            Intensity(flop_per_s / memory.1),
            memory.0.name(),
            ByteRate(memory.1),
            FlopRate(flop_per_s)
        ))
    }
}

/// Gives a study's view its answer in words; other views have none.
pub fn fill(view: &mut View) {
    if let Some(study) = Study::of(view) {
        view.answer = study.answer(view).sentences;
    }
}

/// How a run ended that ended too early; none where it ended by itself.
fn ended(view: &View) -> Option<String> {
    let kernel = |name: &str| op::find(name).is_ok_and(|entry| entry.role == OpRole::Kernel);
    let skipped = view.skips.iter().filter(|skip| skip.state == State::NotRun && kernel(&skip.op));
    let skipped: BTreeSet<_> =
        skipped.map(|skip| (skip.op.as_str(), skip.variant.as_str(), skip.label.as_deref(), skip.precision)).collect();
    let measured = |row: &Row| skipped.contains(&(row.op.as_str(), row.variant.as_str(), Some(row.label.as_str()), Some(row.precision)));
    // One that was to be measured again has a row.
    let again: BTreeSet<_> =
        view.rows.iter().filter(|row| measured(row)).map(|row| (&row.op, &row.variant, &row.label, row.precision)).collect();
    let left = skipped.len() - again.len();
    let were = |left| format!("{left} {} not run", if left == 1 { "item was" } else { "items were" });
    match (view.end.as_ref().is_some_and(|end| end.status == 130), left) {
        (true, 0) if view.rows.is_empty() => Some("Interrupted before the first of its items.".into()),
        (true, 0) => Some("Interrupted when all of its items had been measured once.".into()),
        (true, left) => Some(format!("Interrupted: {}.", were(left))),
        (false, 0) => None,
        (false, left) => Some(format!("The budget ended: {}; raise --budget.", were(left))),
    }
}

/// What a grid may depend on.
pub struct Setting<'a> {
    /// The device.
    pub device: &'a DeviceInfo,
    /// How much is measured.
    pub size: Size,
    /// What the device can do.
    pub roof: &'a Roof,
}

impl Setting<'_> {
    /// ns that one launch takes in f32 at least; 0 where the roof does not tell.
    pub fn bound_ns(&self, op: &dyn Op) -> f64 {
        bounds(self.roof, op).map_or(0.0, |(memory, compute)| memory.max(compute))
    }

    /// The time of an item of many.
    fn brief(&self) -> Effort {
        if self.size == Size::Large { Effort::default() } else { BRIEF }
    }

    /// ns that a launch may take on the roof. Software devices stay far below theirs.
    fn longest_ns(&self) -> f64 {
        if self.device.is_software() { LONGEST_NS / 16.0 } else { LONGEST_NS }
    }

    /// The largest batch whose tensors find room twice in a quarter of the memory and once in a binding.
    fn most(&self, op: impl Fn(u64) -> Result<Arc<dyn Op>>) -> Result<u64> {
        let room = (self.device.memory_bytes / 8).min(self.device.limits.binding_bytes);
        let bytes = |n: u64| Ok::<_, Error>(explain(&*op(n)?, Precision::F32, None)?.bytes_compulsory);
        // Some tensors grow with the batch, and weights do not.
        let (one, two) = (bytes(1)?, bytes(2)?);
        Ok(1 + room.saturating_sub(one) / (two - one).max(1))
    }

    /// The op at this batch, or at the largest one below it that has room and whose launch is short on the roof.
    fn fitting(&self, n: u64, op: impl Fn(u64) -> Result<Arc<dyn Op>>) -> Result<(u64, Arc<dyn Op>)> {
        let wanted = n.min(self.most(&op)?);
        let long = self.bound_ns(&*op(wanted)?);
        let longest = self.longest_ns();
        let fit = if long > longest { ((wanted as f64 * longest / long) as u64).max(1) } else { wanted };
        Ok((fit, op(fit)?))
    }

    /// The variants worth measuring in f32: all of ours that this device has but the first rung of the ladder, or that one where it is alone.
    pub fn items(&self, op: &dyn Op, cache: Cache) -> Vec<Item> {
        let mut variants = op.variants();
        let language = self.device.language;
        let ours = |variant: &VariantInfo| variant.source(language).is_some_and(|source| source.library.is_none());
        variants.retain(|variant| variant.has(language, Precision::F32) && ours(variant));
        if variants.len() > 1 {
            variants.remove(0);
        }
        variants.iter().map(|variant| self.item(op, variant.name, cache)).collect()
    }

    /// One variant in f32.
    pub fn item(&self, op: &dyn Op, variant: &str, cache: Cache) -> Item {
        let budget_ns = if self.size == Size::Large { 3_000_000_000 } else { 1_000_000_000 };
        Item { cache, ..Item::new(op, variant, Goal::Measure(Effort { budget_ns, ..Effort::default() })) }
    }
}

/// ns that the compulsory bytes of a launch take of memory, and its FLOPs of arithmetic, in f32; none where the roof does not tell.
fn bounds(roof: &Roof, op: &dyn Op) -> Option<(f64, f64)> {
    bounds_in(roof, op, Precision::F32)
}

/// The same in another precision.
fn bounds_in(roof: &Roof, op: &dyn Op, precision: Precision) -> Option<(f64, f64)> {
    let explained = explain(op, precision, Some(&Peaks::Recorded(roof))).ok()?;
    Some((explained.t_memory_ns?, explained.t_compute_ns?))
}

/// An answer: sentences, a table and a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Telling {
    /// What it comes to; the first is the verdict.
    pub sentences: Vec<String>,
    /// The table.
    pub grid: Grid,
    /// The picture.
    pub figure: Figure,
}

/// The fastest verified row of a problem in one cache state.
fn fastest<'a>(view: &'a View, op: &dyn Op, cache: Cache) -> Option<&'a Row> {
    let problem = op.problem();
    let rows = view.rows.iter().filter(|row| row.op == op.name() && row.cache == cache && row.problem == problem);
    rows.filter(|row| row.time_ns.is_some()).min_by(|a, b| median(a).total_cmp(&median(b)))
}

/// Median time of a row in ns; infinite where it has none.
fn median(row: &Row) -> f64 {
    row.time_ns.map_or(f64::INFINITY, |time| time.median)
}

/// Share of a row's time that a resource would take alone.
fn share(row: &Row, resource: &str) -> Option<f64> {
    row.shares.iter().find(|share| share.resource.starts_with(resource)).map(|share| share.share)
}

/// The roof that a view's rows were placed under, without its curves.
fn roof(view: &View) -> Roof {
    Roof::new(&view.header, view.ceilings.clone(), Vec::new())
}

/// Best compute ceiling in f32, FLOP/s, and a DRAM ceiling, byte/s, with the mix of reads and writes that it is for: the one asked for where
/// it was measured.
fn peaks(view: &View, mix: Kind) -> Option<(f64, (Kind, f64))> {
    let roof = roof(view);
    let memory = [mix, Kind::Copy, Kind::Triad, Kind::Read].into_iter().find_map(|kind| Some((kind, roof.bandwidth("dram", kind)?.value)));
    Some((roof.compute(Precision::F32, None)?.value, memory?))
}

/// A limiter that is clear enough for a verdict.
fn clear_limiter(row: &Row) -> Option<&str> {
    let name = row.limiter.split(',').next().unwrap_or_default();
    (!name.is_empty() && name != "unexplained" && !name.contains(" + ")).then_some(name)
}

/// `check` as tables have it.
fn check(row: &Row) -> &'static str {
    match row.state {
        State::PowerLimited => "POWER",
        _ if row.above_roof || row.state == State::Suspect => "SUSPECT",
        _ => "ok",
    }
}

/// A rate as a table has it whose column names the unit: `129 G/s`.
fn counted_rate(rate: f64) -> String {
    format!("{}/s", Count(rate as u64))
}

/// `231 M`, or nothing for 0.
fn counted(count: u64) -> String {
    if count > 0 { Count(count).to_string() } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_distinct_and_an_unknown_one_gets_the_list() {
        for (at, study) in STUDIES.iter().enumerate() {
            assert!(STUDIES[..at].iter().all(|other| other.name != study.name) && study.question.ends_with('?'));
        }
        let refused = find("everything").err().map(|e| e.to_string()).unwrap_or_default();
        assert!(STUDIES.iter().all(|study| refused.contains(study.name)), "{refused}");
    }
}
