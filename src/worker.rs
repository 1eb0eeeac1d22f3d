//! Items: what the parent asks of the child process that owns a device.
//!
//! A kernel can hang a device, crash its driver or be killed for memory, and no error comes back in-process. So device work
//! runs in a child of the same binary: it rebuilds the plan, measures *and verifies* (outputs never cross the pipe) and answers
//! with one record.
//!
//! [`Child`] is the parent's end, [`enter`] and [`serve`] the child's, [`Local`] measures without a process. Whoever traces
//! takes a [`Bench`] and need not know which. How an item is measured is a [`Runner`]'s business.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::draw::Draw;
use crate::error::{Error, Result};
use crate::interrupt;
use crate::op::Op;
use crate::plan::{Custom, DeviceInfo, Precision, Tuned};
use crate::record::{Cache, Clock, Measurement, State};

mod child;
mod death;
mod process;
mod serve;
mod wire;

pub use child::{Child, Launch};
pub use serve::{ARGUMENT, Open, Stay, enter, serve};

/// How much time an item may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effort {
    /// Least number of samples.
    pub samples: u32,
    /// Least measured time in nanoseconds.
    pub least_ns: u64,
    /// When to stop even if the interval is still wide, in nanoseconds.
    pub budget_ns: u64,
    /// Whether canaries run before and after.
    pub canary: bool,
}

impl Default for Effort {
    /// For a kernel: ten samples and 0.3 s at least, a second at most, canaries around it.
    fn default() -> Self {
        Effort { samples: 10, least_ns: 300_000_000, budget_ns: 1_000_000_000, canary: true }
    }
}

/// What is wanted of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Goal {
    /// Verify the output, time nothing: exact and dense draws, trusted and checked modules, compared to the bit.
    Verify,
    /// Time it, then verify the output of one more sample.
    Measure(Effort),
    /// Measure the memory of one set, nothing else. Only a fresh process ([`Bench::fresh`]) has a true answer.
    Peak,
    /// Measure the energy of a launch, in seconds of launches back to back; nothing else but a verified output.
    Energy,
}

/// One thing to do on a device.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Item {
    /// Unique in a run; the record's id.
    pub id: String,
    /// Op's name.
    pub op: String,
    /// The problem's fields.
    pub problem: Value,
    /// Variant's name.
    pub variant: String,
    /// Number formats.
    pub precision: Precision,
    /// Chosen tunables; those left out take their defaults.
    #[serde(default)]
    pub tunables: Tuned,
    /// Cold or warm.
    pub cache: Cache,
    /// Distribution of the inputs.
    pub draw: Draw,
    /// Their seed.
    pub seed: u32,
    /// What is wanted.
    pub goal: Goal,
    /// Last-level cache to rotate past, in bytes; the device's own report where absent.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub llc_bytes: Option<u64>,
    /// A mistake to plant in the source first; see [`crate::mutant`].
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub mutant: Option<String>,
    /// A user's kernel in place of a table entry; `variant` is its name then.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub custom: Option<Custom>,
    /// Position in the run.
    pub order: u32,
}

impl Item {
    /// One variant of an op's problem: in f32, cold, with dense inputs of seed 1 and default tunables; set what is to differ.
    pub fn new(op: &dyn Op, variant: &str, goal: Goal) -> Self {
        Item {
            id: format!("{}/{variant}", op.name()),
            op: op.name().into(),
            problem: op.problem(),
            variant: variant.into(),
            precision: Precision::F32,
            tunables: Tuned::default(),
            cache: Cache::Cold,
            draw: Draw::Dense,
            seed: 1,
            goal,
            llc_bytes: None,
            mutant: None,
            custom: None,
            order: 0,
        }
    }

    /// `op/variant`, for messages.
    pub fn named(&self) -> String {
        format!("{}/{}", self.op, self.variant)
    }
}

/// How an item ended.
#[derive(Debug, Clone, PartialEq)]
#[allow(clippy::large_enum_variant)]
pub enum Answer {
    /// With a record.
    Done(Measurement),
    /// Without one: the state to write down, and why, in one sentence.
    Failed(State, String),
}

/// Measures items on a device that it holds: the seam between the process and the measuring.
pub trait Runner {
    /// The device, and what was learnt about its clocks.
    fn device(&self) -> (DeviceInfo, Clock);

    /// Measures and verifies one item.
    ///
    /// # Errors
    /// The state to write down, and why, in one sentence; [`failed`] makes both from an [`Error`].
    fn run(&mut self, item: &Item) -> Result<Measurement, (State, String)>;

    /// Compiles what these items need, where that is faster for all at once; begins nothing once `within` is over.
    fn prepare(&mut self, items: &[Item], within: Duration) {
        let _ = (items, within);
    }
}

impl<R: Runner + ?Sized> Runner for &mut R {
    fn device(&self) -> (DeviceInfo, Clock) {
        R::device(self)
    }
    fn run(&mut self, item: &Item) -> Result<Measurement, (State, String)> {
        R::run(self, item)
    }
    fn prepare(&mut self, items: &[Item], within: Duration) {
        R::prepare(self, items, within);
    }
}

/// Where items are run: in a child process ([`Child`]) or in this one ([`Local`]).
pub trait Bench {
    /// The device.
    fn device(&self) -> &DeviceInfo;
    /// What was learnt about its clocks at the start.
    fn clock(&self) -> &Clock;
    /// Runs one item, for at most `limit`.
    fn run(&mut self, item: &Item, limit: Duration) -> Answer;
    /// Compiles what these items, which are about to be run, need, where that is faster for all at once; begins nothing once `within` is over.
    /// What fails is told when the item is run.
    fn prepare(&mut self, items: &[Item], within: Duration) {
        let _ = (items, within);
    }
    /// Runs one item in a process that is started for it alone, all within `limit`. Absent where items have no processes.
    fn fresh(&mut self, item: &Item, limit: Duration) -> Option<Answer> {
        let _ = (item, limit);
        None
    }
}

/// Runs items in this process: no protection against crashes, and `limit` is not enforced.
pub struct Local<'a> {
    runner: Box<dyn Runner + 'a>,
    device: DeviceInfo,
    clock: Clock,
}

impl<'a> Local<'a> {
    /// Runs items on this runner.
    pub fn new(runner: Box<dyn Runner + 'a>) -> Self {
        let (device, clock) = runner.device();
        Local { runner, device, clock }
    }
}

impl Bench for Local<'_> {
    fn device(&self) -> &DeviceInfo {
        &self.device
    }
    fn clock(&self) -> &Clock {
        &self.clock
    }
    fn run(&mut self, item: &Item, _limit: Duration) -> Answer {
        if interrupt::requested() {
            return interrupted(item);
        }
        match self.runner.run(item) {
            Ok(measurement) => Answer::Done(measurement),
            Err((state, why)) => Answer::Failed(state, why),
        }
    }
    fn prepare(&mut self, items: &[Item], within: Duration) {
        self.runner.prepare(items, within);
    }
}

/// The state that stands for an error in a record, and its sentence.
pub fn failed(error: &Error) -> (State, String) {
    let state = match error {
        Error::OutOfMemory { .. } | Error::NoMemory(_) => State::OutOfMemory,
        Error::Timeout(_) => State::Timeout,
        Error::Wrong(_) => State::Wrong,
        Error::Interrupted => State::NotRun,
        Error::Unsupported { .. } | Error::Unavailable { .. } | Error::Usage(_) => State::Unsupported,
        Error::Compile { .. } => State::NotCompiled,
        _ => State::DeviceLost,
    };
    (state, error.to_string())
}

fn interrupted(item: &Item) -> Answer {
    Answer::Failed(State::NotRun, format!("{} was interrupted before it could answer", item.named()))
}
