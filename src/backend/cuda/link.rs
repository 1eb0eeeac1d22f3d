//! Copies between page-locked host memory and the tensors of a plan: what a probe of the link launches in place of a kernel.
//!
//! Each set has one buffer of page-locked memory, which the copy engine reaches without the driver's help. Up, it holds the input as the
//! device drew it, and a call copies it to the output; down, a call copies the input into it, and it *is* the output: read, poisoned and
//! verified in host memory, where the bytes arrived.

use std::ffi::c_void;
use std::ops::Range;
use std::sync::Arc;

use cudarc::driver::sys::{self, CUdeviceptr, CUresult};
use cudarc::driver::{CudaContext, CudaStream, result};

use super::{failed, probe};
use crate::error::{Error, Result};
use crate::host::topology;
use crate::plan::{Direction, Plan};

/// Host memory that stays where it is, freed with its owner.
struct PageLocked {
    start: *mut c_void,
    bytes: usize,
    context: Arc<CudaContext>,
}

impl PageLocked {
    /// Allocates it, all bytes zero.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`], [`Error::NoMemory`] where nobody tells how much is left.
    fn new(context: &Arc<CudaContext>, bytes: u64) -> Result<Self> {
        context.bind_to_thread().map_err(|e| failed("binding the context", e))?;
        let what = "page-locked host memory";
        let short = || match topology::available_memory() {
            Some(have) => Error::OutOfMemory { what: what.into(), need: bytes, have },
            None => Error::NoMemory(format!("{what} needs {bytes} bytes, and they are not to be had")),
        };
        let start = probe::running(|| {
            // SAFETY: the memory is set below, before anything reads it.
            let made = unsafe { result::malloc_host(bytes as usize, 0) };
            made.map_err(|e| if e.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY { short() } else { failed("allocating page-locked memory", e) })
        })?;
        let made = PageLocked { start, bytes: bytes as usize, context: context.clone() };
        // SAFETY: the driver gave so many bytes, which nobody else knows of yet.
        unsafe { std::ptr::write_bytes(made.start.cast::<u8>(), 0, made.bytes) };
        Ok(made)
    }

    /// Its bytes; all copies from or to it must have been waited for.
    fn content(&mut self) -> &mut [u8] {
        // SAFETY: `bytes` bytes from `start` were set in `new` and are this owner's alone until it is dropped.
        unsafe { std::slice::from_raw_parts_mut(self.start.cast(), self.bytes) }
    }
}

impl Drop for PageLocked {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            // A sample that failed midway may have left copies under way.
            let _ = result::ctx::synchronize();
            // SAFETY: allocated by malloc_host, freed once, after all copies. A lost context fails here, rightly.
            let _ = unsafe { result::free_host(self.start) };
        }
    }
}

/// The copies of a plan.
pub struct Link {
    direction: Direction,
    /// Number of the output.
    output: usize,
    /// By set.
    buffers: Vec<PageLocked>,
}

impl Link {
    /// Allocates a buffer for each set.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(context: &Arc<CudaContext>, plan: &Plan, direction: Direction, sets: usize) -> Result<Self> {
        let (output, bytes) = (plan.output(), plan.tensors[0].bytes());
        let buffers = (0..sets).map(|_| PageLocked::new(context, bytes)).collect::<Result<_>>()?;
        Ok(Link { direction, output, buffers })
    }

    /// What is copied, for the record.
    pub fn named(&self) -> String {
        match self.direction {
            Direction::Up => "page-locked host memory to the device, cuMemcpyHtoDAsync".into(),
            Direction::Down => "the device to page-locked host memory, cuMemcpyDtoHAsync".into(),
        }
    }

    /// Takes the inputs of all sets as the device drew them; they must have been waited for. Outputs are NaN then.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn prepare(&mut self, tensors: &[Vec<CUdeviceptr>], nan: u8) -> Result<()> {
        for (buffer, tensors) in self.buffers.iter_mut().zip(tensors) {
            match self.direction {
                // SAFETY: the first tensor is as long as the buffer, and allocated as long as the plan is loaded.
                Direction::Up => unsafe { result::memcpy_dtoh_sync(buffer.content(), tensors[0]) }
                    .map_err(|e| failed("copying the input to page-locked memory", e))?,
                Direction::Down => buffer.content().fill(nan),
            }
        }
        Ok(())
    }

    /// Puts the copy of one call on the stream.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn enqueue(&self, stream: &CudaStream, set: usize, tensors: &[CUdeviceptr]) -> Result<()> {
        let (&PageLocked { start, bytes, .. }, stream) = (&self.buffers[set], stream.cu_stream());
        probe::running(|| {
            // SAFETY: both tensors are as long as the buffer; all three live, and nobody else touches them, until the stream is waited
            // for, which a sample does before it ends and a buffer before it is freed.
            let done = match self.direction {
                Direction::Up => unsafe { sys::cuMemcpyHtoDAsync_v2(tensors[self.output], start, bytes, stream) },
                Direction::Down => unsafe { sys::cuMemcpyDtoHAsync_v2(start, tensors[0], bytes, stream) },
            };
            done.result().map_err(|e| failed("copying over the link", e))
        })
    }

    /// Fills the output of a set with one byte, where it lies in host memory; whether it does.
    pub fn poison(&mut self, set: usize, byte: u8) -> bool {
        let here = self.direction == Direction::Down;
        if here {
            self.buffers[set].content().fill(byte);
        }
        here
    }

    /// Bytes of a tensor of a set, where they lie in host memory.
    pub fn landed(&mut self, tensor: usize, set: usize, bytes: Range<u64>) -> Option<&[u8]> {
        let here = self.direction == Direction::Down && tensor == self.output;
        here.then(|| &self.buffers[set].content()[bytes.start as usize..bytes.end as usize])
    }
}
