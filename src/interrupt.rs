//! Ctrl-C: the first one asks for an orderly end, the second ends the process at once.
//!
//! Records are flushed as they are made, so that an end at any moment loses at most the item that is running.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::backend::process;
use crate::error::{Error, Result};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Catches interrupt, termination and hang-up. A second one exits with 130 without waiting for anything.
///
/// # Errors
/// [`Error::Usage`] where another handler is already there: a program that has its own calls [`request`] from it.
pub fn install() -> Result<()> {
    static INSTALLED: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    let installed = INSTALLED.get_or_init(|| ctrlc::set_handler(request).map_err(|e| e.to_string()));
    installed.clone().map_err(|why| Error::usage(format!("Ctrl-C cannot be caught: {why}; call rooftrace::interrupt::request instead")))
}

/// Asks for an orderly end, as Ctrl-C does; a second call exits the process with 130.
pub fn request() {
    if REQUESTED.swap(true, Ordering::SeqCst) {
        process::exit_now(130);
    }
}

/// Whether an end was asked for.
pub fn requested() -> bool {
    REQUESTED.load(Ordering::SeqCst)
}
