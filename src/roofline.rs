//! x
pub mod level;
