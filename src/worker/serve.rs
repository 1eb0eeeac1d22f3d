//! The child's end: opens the device, says so, and answers items until its parent is gone.

use std::io::{self, BufRead, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::time::Duration;

use super::Runner;
use super::wire::{End, Hello, Order, Prepared, Reply};
use crate::backend::process;
use crate::error::{Error, Result};
use crate::record::{State, unwritable};

/// First argument of a child process; hidden from the help.
pub const ARGUMENT: &str = "__worker";

/// Exit status of a process that panicked, as Rust has it.
pub(super) const PANICKED: i32 = 101;

/// Last argument of a child process that is started for one item.
pub(super) const ONCE: &str = "__once";

/// For how long a child process was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stay {
    /// For all items of a run.
    Long,
    /// For one item that needs no clock: nothing but the device is to be opened.
    Once,
}

/// Opens the device that a selector names, ready to measure.
pub type Open = fn(&str, Stay) -> Result<Box<dyn Runner>>;

/// To be called first in `main`: where this process was started as a child, answers items and never returns.
///
/// A library user whose `main` calls this gets every item isolated; one that does not measures in its own process
/// ([`super::Local`]).
pub fn enter(open: Open) {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|first| first == ARGUMENT) {
        let selector = arguments.next().and_then(|s| s.into_string().ok()).unwrap_or_default();
        let stay = if arguments.last().is_some_and(|last| last == ONCE) { Stay::Once } else { Stay::Long };
        answer(&selector, stay, open);
    }
}

/// Serves items on standard input and output, whatever the arguments are. Ends when the parent does.
///
/// The parent's death shows as the end of standard input, on every system and whichever of its threads started this process
/// (`PR_SET_PDEATHSIG` would strike when only that thread ends). A thread of its own waits for it, so that a kernel that hangs
/// keeps no orphan alive.
fn answer(selector: &str, stay: Stay, open: Open) -> ! {
    process::ignore_interrupts();
    let Ok(output) = process::claim_stdout() else { process::exit_now(1) };
    let (sender, items) = mpsc::channel();
    let watch = move || {
        for line in io::stdin().lock().lines() {
            if line.is_err() || sender.send(line).is_err() {
                break;
            }
        }
        process::exit_now(0)
    };
    if std::thread::Builder::new().name("parent".into()).spawn(watch).is_err() {
        process::exit_now(1)
    }
    let opened = catch_unwind(|| open(selector, stay)).unwrap_or_else(|_| process::exit_now(PANICKED));
    let status = match opened {
        // A panic ends the process from here: unwinding further would run the destructors of a device in an unknown state.
        Ok(mut runner) => match catch_unwind(AssertUnwindSafe(|| serve(runner.as_mut(), items, output))) {
            Ok(served) => served.map_or(1, |()| 0),
            Err(_) => PANICKED,
        },
        Err(error) => send(output, &Hello::Refused(error.into())).map_or(1, |()| 0),
    };
    process::exit_now(status)
}

/// Says what the device is, then answers two lines for each line of `items`, in order: that it has begun, and how it ended; and one line where
/// items are only to be prepared.
///
/// # Errors
/// [`Error::Backend`] when a line cannot be read or written, or is no item: the parent is gone or mad.
pub fn serve(runner: &mut dyn Runner, items: impl IntoIterator<Item = io::Result<String>>, mut output: impl Write) -> Result<()> {
    let (device, clock) = runner.device();
    send(&mut output, &Hello::Ready { device, clock })?;
    for line in items {
        let line = line.map_err(broken)?;
        let item = match serde_json::from_str(&line).map_err(broken)? {
            Order::Run(item) => item,
            Order::Prepare { prepare, within_ms } => {
                runner.prepare(&prepare, Duration::from_millis(within_ms));
                send(&mut output, &Prepared { prepared: prepare.len() })?;
                continue;
            }
        };
        send(&mut output, &Reply { id: item.id.clone(), end: End::Begun })?;
        let end = match runner.run(&item) {
            Ok(measurement) => match unwritable(&measurement) {
                Some(why) => End::Failed { state: State::Wrong, why: format!("{}: {why}", item.named()) },
                None => End::Done(measurement),
            },
            Err((state, why)) => End::Failed { state, why },
        };
        send(&mut output, &Reply { id: item.id, end })?;
    }
    Ok(())
}

/// One line in one write, so that it comes whole or is seen to be cut.
fn send(mut output: impl Write, message: &impl serde::Serialize) -> Result<()> {
    let mut line = serde_json::to_vec(message).map_err(broken)?;
    line.push(b'\n');
    output.write_all(&line).and_then(|()| output.flush()).map_err(broken)
}

fn broken(why: impl std::fmt::Display) -> Error {
    Error::Backend { backend: "worker", why: why.to_string() }
}
