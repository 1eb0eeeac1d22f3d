//! Items: what the parent asks of the child process that owns a device.
//!
//! A kernel can hang a device, crash its driver or be killed for memory, and no error comes back in-process. So device work
//! runs in a child of the same binary: it rebuilds the plan, measures *and verifies* (outputs never cross the pipe) and answers
//! with one record.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::draw::Draw;
use crate::plan::{Precision, Tuned};
use crate::record::Cache;

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

/// What is wanted of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Goal {
    /// Verify the output, time nothing: exact and dense draws, trusted and checked modules, compared to the bit.
    Verify,
    /// Time it, then verify the output of one more sample.
    Measure(Effort),
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
    /// Position in the run.
    pub order: u32,
}
