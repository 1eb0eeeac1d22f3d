//! What goes wrong on the fake device, where and when.

use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;

use super::Fake;
use crate::backend::process;
use crate::error::{Error, Result};
use crate::plan::Plan;

/// The call that a fault strikes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Moment {
    /// When the device is opened.
    Open,
    /// When a plan is loaded.
    Load,
    /// When a sample is taken.
    Sample,
}

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultKind {
    /// The process aborts.
    Abort,
    /// The process dies of a segmentation fault.
    Segfault,
    /// The call panics.
    Panic,
    /// The call never returns.
    Hang,
    /// The process ends with status 3, saying nothing.
    Exit,
    /// The process writes half an answer and ends.
    HalfLine,
    /// The process writes a line that is no answer, then goes on.
    Garbage,
    /// The process prints on standard output as a driver might, then goes on.
    Chatter,
    /// The call takes `ms` milliseconds of real time.
    Sleep,
    /// There is not enough memory.
    OutOfMemory,
    /// The device is lost, now and for ever.
    DeviceLost,
    /// The driver is not there.
    Unavailable,
    /// A limit is passed.
    Unsupported,
    /// The kernel does not compile.
    Uncompilable,
    /// Every output element is NaN.
    Nan,
    /// One output element is NaN.
    OneNan,
    /// One output element is off by one.
    OneBad,
    /// The output is shifted by one element.
    Shifted,
    /// The output is not written any more.
    StopsWriting,
    /// An input is overwritten.
    WritesInputs,
    /// A word behind the output is overwritten.
    BreaksGuard,
}

impl FaultKind {
    /// Whether it is the output that is wrong, rather than the call that fails.
    pub fn is_silent(self) -> bool {
        use FaultKind::*;
        matches!(self, Nan | OneNan | OneBad | Shifted | StopsWriting | WritesInputs | BreaksGuard)
    }

    fn usual_moment(self) -> Moment {
        match self {
            FaultKind::Unavailable => Moment::Open,
            FaultKind::OutOfMemory | FaultKind::Unsupported | FaultKind::Uncompilable => Moment::Load,
            _ => Moment::Sample,
        }
    }
}

/// One thing that goes wrong.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fault {
    /// What.
    pub kind: FaultKind,
    /// Op that it strikes; any where absent.
    pub op: Option<String>,
    /// Variant that it strikes; any where absent.
    pub variant: Option<String>,
    /// Call that it strikes in; by default `open` for `unavailable`, `load` for `out_of_memory`, `unsupported` and
    /// `uncompilable`, else `sample`.
    pub at: Option<Moment>,
    /// Which of the matching calls of this process, from 1; absent: every one.
    pub call: Option<u64>,
    /// Wrong outputs alone: launches of a loaded plan that are still right.
    #[serde(default)]
    pub after: u64,
    /// Element that `one_nan` and `one_bad` strike; by default one in the middle.
    pub element: Option<u64>,
    /// Real milliseconds that `sleep` takes.
    #[serde(default)]
    pub ms: u64,
    /// A file: the fault strikes only while it is absent, and makes it. So a fault can end with the process that met it.
    pub once: Option<PathBuf>,
}

impl Fault {
    pub(super) fn fits(&self, plan: Option<&Plan>) -> bool {
        let fits = |wanted: &Option<String>, name: Option<&str>| wanted.is_none() || wanted.as_deref() == name;
        fits(&self.op, plan.map(|p| p.op)) && fits(&self.variant, plan.map(|p| &*p.variant))
    }

    fn spent(&self) -> bool {
        let Some(marker) = &self.once else { return false };
        std::fs::OpenOptions::new().write(true).create_new(true).open(marker).is_err()
    }
}

impl Fake {
    /// Lets the faults of this moment strike.
    pub(super) fn fire(&self, moment: Moment, plan: Option<&Plan>) -> Result<()> {
        let named = plan.map_or("the device".to_string(), |p| format!("{}/{}", p.op, p.variant));
        for number in 0..self.script.faults.len() {
            let fault = &self.script.faults[number];
            let here = fault.at.unwrap_or(fault.kind.usual_moment()) == moment;
            if fault.kind.is_silent() || !here || !fault.fits(plan) {
                continue;
            }
            let call = {
                let mut calls = self.calls.borrow_mut();
                calls[number] += 1;
                calls[number]
            };
            if fault.call.is_some_and(|wanted| wanted != call) || fault.spent() {
                continue;
            }
            let (kind, ms) = (fault.kind, fault.ms);
            self.strike(kind, ms, &named)?;
        }
        match self.lost.get() {
            true => Err(Error::DeviceLost("the fake device is gone".into())),
            false => Ok(()),
        }
    }

    fn strike(&self, kind: FaultKind, ms: u64, named: &str) -> Result<()> {
        match kind {
            FaultKind::Abort => std::process::abort(),
            FaultKind::Segfault => process::segfault(),
            FaultKind::Panic => panic!("scripted panic in {named}"),
            FaultKind::Hang => loop {
                std::thread::sleep(Duration::from_secs(3600));
            },
            FaultKind::Exit => process::exit_now(3),
            FaultKind::HalfLine => {
                answer(r#"{"id":"x","done":{"id":"x","op":"ma"#)?;
                process::exit_now(0)
            }
            FaultKind::Garbage => answer("!! 0xdeadbeef\n")?,
            FaultKind::Chatter => chatter(),
            FaultKind::Sleep => std::thread::sleep(Duration::from_millis(ms)),
            FaultKind::OutOfMemory => return Err(Error::OutOfMemory { what: named.into(), need: 1 << 40, have: 1 << 20 }),
            FaultKind::DeviceLost => self.lost.set(true),
            FaultKind::Unavailable => {
                let (why, remedy) = ("its script says so".into(), "choose another device".into());
                return Err(Error::Unavailable { backend: "fake".into(), why, remedy });
            }
            FaultKind::Unsupported => return Err(Error::unsupported(named, "a feature", "none")),
            FaultKind::Uncompilable => return Err(Error::Compile { kernel: named.into(), log: "its script says so\nin two lines".into() }),
            // Silent: `Resident` applies them to the data.
            _ => {}
        }
        Ok(())
    }
}

/// Writes into the pipe that only answers should go through.
fn answer(text: &str) -> Result<()> {
    use std::io::Write;
    let refused = |why: String| Error::Backend { backend: "fake", why };
    let mut pipe = process::answers().ok_or_else(|| refused("there is no answer pipe to garble outside a child process".into()))?;
    pipe.write_all(text.as_bytes()).and_then(|()| pipe.flush()).map_err(|e| refused(e.to_string()))
}

/// Prints as a driver written in C would: on descriptor 1, whatever that is by now.
fn chatter() {
    use std::io::Write;
    // A failure to print is the driver's own business.
    let _ = writeln!(std::io::stdout(), "driver: hello").and_then(|()| std::io::stdout().flush());
}
