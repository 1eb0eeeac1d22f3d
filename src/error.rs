//! What can go wrong, each as one sentence: what, which, and the way out.

use thiserror::Error;

use crate::units::Capacity;

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Both, in bytes where rounding would make them one.
fn short(need: &u64, have: &u64) -> String {
    let (needed, free) = (Capacity(*need).to_string(), Capacity(*have).to_string());
    if needed == free { format!("needs {need} bytes and {have} are free") } else { format!("needs {needed} and {free} are free") }
}

/// Every failure a caller can meet. `exit_code` gives the process status that stands for it.
#[derive(Debug, Error)]
pub enum Error {
    /// The request itself makes no sense: unknown name, impossible shape, bad flag.
    #[error("{0}")]
    Usage(String),
    /// The library or driver that a backend needs is not on this machine.
    #[error("{backend} is not available: {why}; {remedy}")]
    Unavailable {
        /// Backend asked for (`cuda`, `wgpu`, …).
        backend: String,
        /// What was looked for and not found.
        why: String,
        /// What the user can do about it.
        remedy: String,
    },
    /// The device cannot run this problem; a skip with its reason, never a zero.
    #[error("{what} needs {need}, and this device has {have}")]
    Unsupported {
        /// The resource or feature.
        what: String,
        /// How much of it the problem needs.
        need: String,
        /// How much the device offers.
        have: String,
    },
    /// The machine or device has too little memory.
    #[error("out of memory: {what} {}; choose a smaller problem", short(.need, .have))]
    OutOfMemory {
        /// What was to be allocated.
        what: String,
        /// Bytes needed.
        need: u64,
        /// Bytes free.
        have: u64,
    },
    /// Memory was short where nobody told how much was wanted.
    #[error("out of memory: {0}; choose a smaller problem")]
    NoMemory(String),
    /// A kernel did not compile; carries the compiler's whole log.
    #[error("{kernel} does not compile: {log}")]
    Compile {
        /// `op/variant` and language.
        kernel: String,
        /// The compiler's log with the kernel's own line numbers.
        log: String,
    },
    /// A kernel ran and its output is wrong.
    #[error("wrong output: {0}")]
    Wrong(String),
    /// The device stopped answering, or its process died.
    #[error("device lost: {0}")]
    DeviceLost(String),
    /// Nothing came back within the time limit.
    #[error("timed out: {0}")]
    Timeout(String),
    /// A record file that cannot be read or contradicts itself.
    #[error("{path}: {why}")]
    BadFile {
        /// File as the user named it.
        path: String,
        /// What is wrong, with line and field.
        why: String,
    },
    /// Reading or writing a file failed.
    #[error("cannot {action} {path}: {source}; choose another place with --out")]
    Io {
        /// `write`, `create`, `read`.
        action: &'static str,
        /// File or folder as the user named it.
        path: String,
        /// The system's own reason.
        source: std::io::Error,
    },
    /// The user pressed Ctrl-C; what was measured is saved.
    #[error("interrupted; what was measured is saved")]
    Interrupted,
    /// A failure inside a backend that fits nothing above.
    #[error("{backend}: {why}")]
    Backend {
        /// Backend's name.
        backend: &'static str,
        /// Its own message.
        why: String,
    },
}

impl Error {
    /// Process exit status: 2 usage, 3 no such device, 4 wrong output, 5 holes, 6 bad file, 130 interrupted.
    pub fn exit_code(&self) -> i32 {
        match self {
            Error::Usage(_) | Error::Io { .. } => 2,
            Error::Unavailable { .. } | Error::Unsupported { .. } => 3,
            Error::Wrong(_) => 4,
            Error::OutOfMemory { .. } | Error::NoMemory(_) | Error::DeviceLost(_) | Error::Timeout(_) => 5,
            Error::Compile { .. } | Error::Backend { .. } => 5,
            Error::BadFile { .. } => 6,
            Error::Interrupted => 130,
        }
    }

    /// A usage error from anything printable.
    pub fn usage(message: impl Into<String>) -> Self {
        Error::Usage(message.into())
    }

    /// Shorthand for [`Error::Unsupported`].
    pub fn unsupported(what: impl Into<String>, need: impl ToString, have: impl ToString) -> Self {
        Error::Unsupported { what: what.into(), need: need.to_string(), have: have.to_string() }
    }
}
