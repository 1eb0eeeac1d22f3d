//! What a header says of program and machine: no host name, user or path.

use crate::backend::host;
use crate::plan::fnv1a;
use crate::record::{Environment, Tool};

/// The program: version, commit (set at build time, see `build.rs`) and a hash of its executable.
pub fn tool() -> Tool {
    let executable = std::env::current_exe().and_then(std::fs::read).map_or("unknown".into(), |bytes| format!("{:016x}", fnv1a(&bytes)));
    Tool {
        version: env!("CARGO_PKG_VERSION").into(),
        commit: env!("ROOFTRACE_COMMIT").into(),
        dirty: env!("ROOFTRACE_DIRTY") == "true",
        executable,
    }
}

/// The machine.
pub fn machine() -> Environment {
    let host = host::device();
    Environment {
        os: std::env::consts::OS.into(),
        arch: std::env::consts::ARCH.into(),
        cpu: host.name.clone(),
        cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u32),
        memory_bytes: host.memory_bytes,
    }
}
