//! A copy between host and device memory as plain data: what a probe of the link between both asks for.

use serde::{Deserialize, Serialize};

/// Which way the bytes of a copy go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Host memory to device memory: the device reads what the host has.
    Up,
    /// Device memory to host memory: the device writes what the host gets.
    Down,
}

impl Direction {
    /// Both.
    pub const ALL: [Direction; 2] = [Direction::Up, Direction::Down];

    /// Name in problems and records.
    pub const fn name(self) -> &'static str {
        match self {
            Direction::Up => "up",
            Direction::Down => "down",
        }
    }
}
