//! rooftrace measures a processor's empirical roofline and places hand-written kernels on it.
//!
//! The flow, left to right; each step sees only those before it:
//!
//! ```text
//! op × variant ─► plan ─► backend ─► measure ─► { roofline, record } ─► report ─► cli
//! ```
#![deny(missing_docs)]

pub mod backend;
pub mod campaign;
pub mod cli;
pub mod cost;
pub mod draw;
pub mod error;
pub mod explain;
pub mod grid;
pub mod host;
pub mod interrupt;
pub mod measure;
pub mod mutant;
pub mod op;
pub mod oracle;
pub mod plan;
pub mod record;
pub mod report;
pub mod roofline;
pub mod stats;
pub mod study;
pub mod template;
pub mod units;
pub mod view;
pub mod worker;

pub use error::{Error, Result};
