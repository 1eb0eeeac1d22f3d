//! The counters of multiprocessors, read on the device by `kernels/clock.cu`.

use std::ffi::c_void;
use std::sync::Arc;

use cudarc::driver::{CudaContext, CudaFunction, CudaStream, result};

use super::compile::Compiled;
use super::failed;
use super::memory::{Allocation, download, set};
use crate::backend::Tick;
use crate::error::Result;

/// The kernel's text.
pub const SOURCE: &str = include_str!("../../../kernels/clock.cu");

/// Rows of three numbers, by the number of the multiprocessor; no device has as many.
const UNITS: u32 = 1024;
const ROW: usize = 24;
const BYTES: u64 = UNITS as u64 * ROW as u64;

/// The kernel, ready, and where it writes.
pub struct Ticker {
    function: CudaFunction,
    seen: Allocation,
}

impl Ticker {
    /// Finds the entry point and allocates.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn new(context: &Arc<CudaContext>, compiled: &Compiled) -> Result<Self> {
        let function = compiled.module.load_function("clock_read").map_err(|e| failed("finding the clock's kernel", e))?;
        Ok(Ticker { function, seen: Allocation::new(context, BYTES)? })
    }

    /// Reads the counters of as many multiprocessors as groups land on; waits.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn read(&self, stream: &CudaStream, units: u32) -> Result<Vec<Tick>> {
        set(self.seen.address(), 0, BYTES)?;
        let (mut start, mut rows) = (self.seen.address(), UNITS);
        let mut arguments: [*mut c_void; 2] = [(&raw mut start).cast(), (&raw mut rows).cast()];
        // SAFETY: the entry takes an address, which is allocated for so many rows, and their number; the driver copies both before it returns.
        unsafe { result::launch_kernel(self.function.cu_function(), (2 * units, 1, 1), (32, 1, 1), 0, stream.cu_stream(), &mut arguments) }
            .map_err(|e| failed("the clock's kernel", e))?;
        stream.synchronize().map_err(|e| failed("reading the clocks", e))?;
        Ok(ticks(&download(self.seen.address(), BYTES)?))
    }
}

/// The rows that a group wrote.
fn ticks(bytes: &[u8]) -> Vec<Tick> {
    let numbers: Vec<u64> = bytes.as_chunks::<8>().0.iter().map(|&number| u64::from_ne_bytes(number)).collect();
    let rows = (0..).zip(numbers.as_chunks::<3>().0);
    rows.filter(|(_, [came, ..])| *came > 0).map(|(unit, &[_, cycles, ns])| Tick { unit, cycles, ns }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_no_group_came_to_are_no_ticks() {
        let rows = [[0u64, 0, 0], [2, 1_980_000, 1_000_000], [0, 7, 7], [1, 5, 3]];
        let bytes: Vec<u8> = rows.iter().flatten().flat_map(|number| number.to_ne_bytes()).collect();
        let found = ticks(&bytes);
        assert_eq!(found, [Tick { unit: 1, cycles: 1_980_000, ns: 1_000_000 }, Tick { unit: 3, cycles: 5, ns: 3 }]);
    }
}
