//! `rooftrace run` and `rooftrace trace`.

use std::path::Path;
use std::time::{Duration, Instant};

use super::roof::{Named, Taken};
use super::{Measuring, devices, output, own, show, size_name};
use crate::campaign::{Campaign, Scope, Watcher};
use crate::cost;
use crate::error::{Error, Result};
use crate::interrupt;
use crate::plan::Custom;
use crate::record::{End, Header, Journal, Record, Schema, Settings, Skip, State};
use crate::report::{self, Style};
use crate::roofline;
use crate::study::{self, Study};
use crate::view::View;
use crate::worker::{Bench, Child};

mod environment;
mod progress;

use progress::Progress;

/// Which items a campaign has.
#[derive(Clone, Copy)]
pub enum Mode<'a> {
    /// Roofs and kernels.
    Run,
    /// Roofs only.
    Trace,
    /// A user's kernel beside ours, and the roof for them.
    Try(&'a Custom, &'a Named),
    /// A study, and the roof for it.
    Study(&'static Study, &'a Named),
}

impl Mode<'_> {
    /// As in `settings.command`.
    fn command(self) -> &'static str {
        match self {
            Mode::Run => "run",
            Mode::Trace => "trace",
            Mode::Try(..) => "try",
            Mode::Study(..) => "study",
        }
    }
}

/// Measures one device after the other, each into a folder of its own.
pub fn run(args: &Measuring, mode: Mode<'_>) -> Result<i32> {
    let started = Instant::now();
    args.scope.check()?;
    if args.keeping.energy && matches!(mode, Mode::Trace) {
        return Err(Error::usage("--energy is measured of kernels, and trace places none; use rooftrace run"));
    }
    let problem = args.shape.problem(&args.scope.op)?;
    let selectors = devices::choose(args.scope.common.device.as_deref(), &args.scope.common.require)?;
    interrupt::install()?;
    let (mut status, mut views) = (0, Vec::new());
    let share = args.keeping.budget.map(|budget| budget / selectors.len().max(1) as u32);
    for (at, selector) in selectors.iter().enumerate() {
        let scope = Scope {
            size: args.scope.common.size,
            seed: args.scope.common.seed,
            deadline: share.map(|share| started + share * (at as u32 + 1)),
            ops: args.scope.op.clone(),
            variants: args.scope.variant.clone(),
            precisions: args.scope.precision.clone(),
            problem: problem.clone(),
            energy: args.keeping.energy,
        };
        let (ended, view) = one(args, mode, selector, scope, selectors.len() > 1)?;
        views.extend(view);
        status = worse(status, ended);
        if status == 130 {
            break;
        }
    }
    if args.scope.common.json {
        let text = match views.as_slice() {
            [view] => serde_json::to_string_pretty(view),
            all => serde_json::to_string_pretty(all),
        };
        output::print(&(text.map_err(|e| Error::usage(e.to_string()))? + "\n"))?;
    }
    Ok(status)
}

/// One device: child, journal, campaign, picture, table.
fn one(args: &Measuring, mode: Mode<'_>, selector: &str, scope: Scope, several: bool) -> Result<(i32, Option<View>)> {
    let begun = Instant::now();
    let mut bench = Child::spawn(selector, &[])?;
    // Before there is a folder: a scope without kernels leaves nothing behind.
    let mut roof = Taken::default();
    match mode {
        Mode::Run => drop(scope.kernels(bench.device())?),
        Mode::Trace => {}
        Mode::Try(custom, named) => {
            own::check(custom, &scope.plans(custom, bench.device())?)?;
            roof = named.roof(&scope.precisions, bench.device())?;
        }
        Mode::Study(study, named) => roof = named.roof(study.precisions, bench.device())?,
    }
    let folder = output::folder(args.keeping.out.as_deref(), selector, several)?;
    let header = header(args, mode, &bench, roof.started);
    let mut keeper = Keeper::new(&folder, Progress::new(args.scope.common.quiet || args.scope.common.json, args.scope.common.verbose))?;
    keeper.keep(&Record::Header(header))?;
    if matches!(mode, Mode::Try(..) | Mode::Study(..)) {
        keeper.progress.line(&roof.told());
    }
    let campaign = Campaign::new(&mut bench, &mut keeper, scope);
    let outcome = match mode {
        Mode::Run => campaign.run(),
        Mode::Trace => campaign.trace(),
        Mode::Try(custom, _) => campaign.attempt(custom, &roof.records),
        Mode::Study(study, _) => campaign.study(study, &roof.records),
    };
    let status = match &outcome {
        Ok(_) => match mode {
            Mode::Try(custom, _) => worse(keeper.status(), own::status(custom, &keeper.records)),
            _ => keeper.status(),
        },
        Err(Error::Interrupted) => 130,
        Err(other) => other.exit_code(),
    };
    drop(bench);
    keeper.finish(begun.elapsed(), status)?;
    if let Err(error) = outcome
        && !matches!(error, Error::Interrupted)
    {
        return Err(error);
    }
    if let Mode::Try(custom, _) = mode
        && let Some(why) = own::failure(custom, &keeper.records)
    {
        eprintln!("rooftrace: {why}");
    }
    let mut view = roofline::view(&keeper.records)?;
    let costing = args.costing.asked(args.keeping.energy);
    if let Some(asked) = &costing {
        cost::fill(&mut view, asked);
    }
    study::fill(&mut view);
    let picture = show::picture(&view)?;
    if let Some(picture) = &picture {
        output::write(&folder.join(&picture.file), &picture.svg)?;
    }
    if !args.scope.common.json {
        let beside = match mode {
            Mode::Try(custom, _) => report::verdict::beside(&view, &custom.name),
            _ => Vec::new(),
        };
        let picture = picture.map(|picture| folder.join(picture.file));
        tell(&view, (&folder, picture.as_deref()), &beside, costing.as_ref(), args.scope.common.verbose)?;
    }
    Ok((status, Some(view)))
}

/// Table, chart, what the last word is on a user's kernel, all shares and the shapes' names where asked for, and where all of it is kept.
fn tell(
    view: &View,
    (folder, picture): (&Path, Option<&Path>),
    beside: &[String],
    costing: Option<&cost::Asked>,
    verbose: bool,
) -> Result<()> {
    let style = Style { width: output::width(), colour: output::colour(), ascii: false };
    output::print(&show::text(view, costing, &style))?;
    if verbose {
        output::print(&format!("\n{}", report::table::shares(view, &style)))?;
        output::print(&format!("\n{}", report::table::shapes(view, &style)))?;
    }
    beside.iter().try_for_each(|line| output::print(&format!("\n{line}\n")).map(drop))?;
    let picture = picture.map_or(String::new(), |picture| format!(" and {}", picture.display()));
    output::print(&format!("\nwrote {}{picture}\n", folder.join("records.jsonl").display()))?;
    Ok(())
}

fn header(args: &Measuring, mode: Mode<'_>, bench: &dyn Bench, roof_started: Option<u64>) -> Header {
    Header {
        schema: Schema::current(),
        started: output::now(),
        tool: environment::tool(),
        environment: environment::machine(),
        device: bench.device().clone(),
        clock: bench.clock().clone(),
        settings: Settings {
            command: mode.command().into(),
            size: size_name(args.scope.common.size),
            budget_ns: args.keeping.budget.map(|b| b.as_nanos() as u64),
            seed: args.scope.common.seed,
            study: if let Mode::Study(study, _) = mode { Some(study.name.into()) } else { None },
            roof_started,
        },
        extra: Default::default(),
    }
}

/// The status of several devices or kernels together: wrong outputs before failed checks before holes before success.
pub(super) fn worse(a: i32, b: i32) -> i32 {
    let rank = |status: i32| match status {
        0 => 0,
        5 => 1,
        1 => 2,
        4 => 3,
        _ => 4,
    };
    if rank(b) > rank(a) { b } else { a }
}

/// Whether a setting that does not compile is no loss: another of the same kernel was right.
fn spared(skip: &Skip, records: &[Record]) -> bool {
    let other = |record: &Record| match record {
        Record::Measurement(m) => {
            m.state != State::Wrong && (&m.op, &m.variant, Some(m.precision)) == (&skip.op, &skip.variant, skip.precision)
        }
        _ => false,
    };
    skip.candidate && skip.state == State::NotCompiled && records.iter().any(other)
}

/// Journal, records and progress of one device.
struct Keeper {
    journal: Journal,
    records: Vec<Record>,
    progress: Progress,
    counts: End,
}

impl Keeper {
    fn new(folder: &Path, progress: Progress) -> Result<Self> {
        let journal = Journal::create(&folder.join("records.jsonl"))?;
        Ok(Keeper { journal, records: Vec::new(), progress, counts: End::default() })
    }

    fn keep(&mut self, record: &Record) -> Result<()> {
        self.journal.append(record)?;
        match record {
            Record::Measurement(_) => self.counts.measurements += 1,
            Record::Ceiling(_) => self.counts.ceilings += 1,
            Record::Skip(_) => self.counts.skips += 1,
            Record::Header(_) | Record::End(_) => {}
        }
        self.records.push(record.clone());
        Ok(())
    }

    /// 4 where an output was wrong, 5 where something was left out that should not have been, else 0.
    fn status(&self) -> i32 {
        let states = self.records.iter().filter_map(|record| match record {
            Record::Measurement(m) => Some(m.state),
            Record::Skip(s) if spared(s, &self.records) => None,
            Record::Skip(s) => Some(s.state),
            _ => None,
        });
        states.fold(0, |status, state| match state {
            State::Wrong => 4,
            State::Timeout | State::OutOfMemory | State::DeviceLost | State::NotRun | State::NotCompiled => worse(status, 5),
            _ => status,
        })
    }

    fn finish(&mut self, elapsed: Duration, status: i32) -> Result<()> {
        self.progress.finish();
        let end = End { seconds: elapsed.as_secs(), status, ..self.counts.clone() };
        self.keep(&Record::End(end))
    }
}

impl Watcher for Keeper {
    fn record(&mut self, record: &Record) -> Result<()> {
        self.progress.record(record);
        self.keep(record)
    }
    fn stage(&mut self, name: &str, items: usize) {
        self.progress.stage(name, items);
    }
    fn item(&mut self, name: &str) {
        self.progress.item(name);
    }
}
