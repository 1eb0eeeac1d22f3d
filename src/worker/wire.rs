//! The lines that parent and child exchange. Both are the same executable, so there is one version of them.

use serde::{Deserialize, Serialize};

use super::Item;
use crate::error::Error;
use crate::plan::DeviceInfo;
use crate::record::{Clock, Measurement, State};

/// The child's first line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::large_enum_variant)]
pub(super) enum Hello {
    /// The device is open.
    Ready { device: DeviceInfo, clock: Clock },
    /// It could not be opened.
    Refused(Refusal),
}

/// What the parent asks for: a line each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
#[allow(clippy::large_enum_variant)]
pub(super) enum Order {
    /// Compile what these items need; begin nothing after so many milliseconds. The answer is [`Prepared`].
    Prepare { prepare: Vec<Item>, within_ms: u64 },
    /// Run it; the answers are a [`Reply`] each for its beginning and its end.
    Run(Item),
}

/// That what was asked for is compiled, as far as it can be.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Prepared {
    pub prepared: usize,
}

/// The child's answer to an item.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Reply {
    /// The item's id.
    pub id: String,
    /// How it ended.
    #[serde(flatten)]
    pub end: End,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(clippy::large_enum_variant)]
pub(super) enum End {
    /// It has begun: from here on, a death is this item's.
    Begun,
    /// A record.
    Done(Measurement),
    /// No record, and why.
    Failed { state: State, why: String },
}

/// An error of opening a device, in transit: its variant must survive, since the exit status hangs on it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Refusal {
    Usage(String),
    Unavailable { backend: String, why: String, remedy: String },
    Unsupported { what: String, need: String, have: String },
    OutOfMemory { what: String, need: u64, have: u64 },
    NoMemory(String),
    Compile { kernel: String, log: String },
    Wrong(String),
    DeviceLost(String),
    Timeout(String),
    Backend { backend: String, why: String },
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        match error {
            Error::Usage(why) => Refusal::Usage(why),
            Error::Unavailable { backend, why, remedy } => Refusal::Unavailable { backend, why, remedy },
            Error::Unsupported { what, need, have } => Refusal::Unsupported { what, need, have },
            Error::OutOfMemory { what, need, have } => Refusal::OutOfMemory { what, need, have },
            Error::NoMemory(why) => Refusal::NoMemory(why),
            Error::Compile { kernel, log } => Refusal::Compile { kernel, log },
            Error::Wrong(why) => Refusal::Wrong(why),
            Error::DeviceLost(why) => Refusal::DeviceLost(why),
            Error::Timeout(why) => Refusal::Timeout(why),
            Error::Backend { backend, why } => Refusal::Backend { backend: backend.into(), why },
            other => Refusal::Backend { backend: "device".into(), why: other.to_string() },
        }
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Usage(why) => Error::Usage(why),
            Refusal::Unavailable { backend, why, remedy } => Error::Unavailable { backend, why, remedy },
            Refusal::Unsupported { what, need, have } => Error::Unsupported { what, need, have },
            Refusal::OutOfMemory { what, need, have } => Error::OutOfMemory { what, need, have },
            Refusal::NoMemory(why) => Error::NoMemory(why),
            Refusal::Compile { kernel, log } => Error::Compile { kernel, log },
            Refusal::Wrong(why) => Error::Wrong(why),
            Refusal::DeviceLost(why) => Error::DeviceLost(why),
            Refusal::Timeout(why) => Error::Timeout(why),
            Refusal::Backend { backend, why } => {
                let known = ["host", "wgpu", "cuda", "fake"].into_iter().find(|name| *name == backend);
                Error::Backend { backend: known.unwrap_or("device"), why }
            }
        }
    }
}
