//! Fills tensors with their draw on the device, and counts what has changed since: the kernels of `kernels/draw.cu`.

use std::ffi::c_void;

use cudarc::driver::sys::CUdeviceptr;
use cudarc::driver::{CudaFunction, CudaStream, result};

use super::compile::Compiled;
use super::failed;
use super::memory::Counter;
use crate::draw::{Draw, Seeded, keys};
use crate::error::Result;
use crate::op::{DType, TensorSpec};

/// The kernels' text.
pub const SOURCE: &str = include_str!("../../../kernels/draw.cu");

/// `Draw` in kernels/draw.cu.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
struct Args {
    elements: u64,
    keys: [u32; 4],
    exact: u32,
    rows: [u32; 6],
}

impl Args {
    fn new(seeded: Seeded, tensor: usize, spec: &TensorSpec) -> Self {
        let (keys, rows) = (keys(seeded.seed, tensor as u32), spec.fill.words());
        Args { elements: spec.elements(), keys, exact: (seeded.draw == Draw::Exact) as u32, rows }
    }
}

const BLOCK: u32 = 256;

/// Groups of a fill: kernels stride over the rest, so there is no need for more than fill any device.
fn grid(elements: u64) -> u32 {
    elements.div_ceil(BLOCK as u64).clamp(1, 8192) as u32
}

/// The kernels, ready.
pub struct Filler {
    draw: [CudaFunction; 8],
    changed: [CudaFunction; 8],
}

const fn slot(dtype: DType) -> usize {
    match dtype {
        DType::F64 => 0,
        DType::F32 => 1,
        DType::F16 => 2,
        DType::BF16 => 3,
        DType::U32 => 4,
        DType::I8 => 5,
        DType::I32 => 6,
        DType::F8 => 7,
    }
}

impl Filler {
    /// Finds the entry points.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn new(compiled: &Compiled) -> Result<Self> {
        let find = |name: &str| compiled.module.load_function(name).map_err(|e| failed("finding a fill kernel", e));
        Ok(Filler {
            draw: [
                find("draw_f64")?,
                find("draw_f32")?,
                find("draw_f16")?,
                find("draw_bf16")?,
                find("draw_u32")?,
                find("draw_i8")?,
                find("draw_i32")?,
                find("draw_f8")?,
            ],
            changed: [
                find("changed_f64")?,
                find("changed_f32")?,
                find("changed_f16")?,
                find("changed_bf16")?,
                find("changed_u32")?,
                find("changed_i8")?,
                find("changed_i32")?,
                find("changed_f8")?,
            ],
        })
    }

    /// Fills tensor number `tensor` at `start`; does not wait.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn fill(&self, stream: &CudaStream, start: CUdeviceptr, spec: &TensorSpec, seeded: Seeded, tensor: usize) -> Result<()> {
        let (mut start, mut args) = (start, Args::new(seeded, tensor, spec));
        let mut pointers: [*mut c_void; 2] = [(&raw mut start).cast(), (&raw mut args).cast()];
        launch(&self.draw[slot(spec.dtype)], stream, grid(spec.elements()), &mut pointers)
    }

    /// Elements of a tensor that differ from its draw; waits.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn changed(
        &self,
        stream: &CudaStream,
        counter: &Counter,
        start: CUdeviceptr,
        spec: &TensorSpec,
        seeded: Seeded,
        tensor: usize,
    ) -> Result<u64> {
        counter.reset()?;
        let (mut start, mut count, mut args) = (start, counter.address(), Args::new(seeded, tensor, spec));
        let mut pointers: [*mut c_void; 3] = [(&raw mut start).cast(), (&raw mut count).cast(), (&raw mut args).cast()];
        launch(&self.changed[slot(spec.dtype)], stream, grid(spec.elements()), &mut pointers)?;
        stream.synchronize().map_err(|e| failed("comparing inputs", e))?;
        counter.value()
    }
}

fn launch(function: &CudaFunction, stream: &CudaStream, grid: u32, arguments: &mut [*mut c_void]) -> Result<()> {
    // SAFETY: the callers above pass what the entry points of draw.cu take, in order; the driver copies it before it returns.
    unsafe { result::launch_kernel(function.cu_function(), (grid, 1, 1), (BLOCK, 1, 1), 0, stream.cu_stream(), arguments) }
        .map_err(|e| failed("a fill kernel", e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_lie_as_the_kernel_declares_them() {
        assert_eq!((size_of::<Args>(), std::mem::offset_of!(Args, keys), std::mem::offset_of!(Args, exact)), (56, 8, 24));
        assert_eq!(std::mem::offset_of!(Args, rows), 28);
        let spec = TensorSpec::input("x", &[1 << 33], DType::F32);
        let args = Args::new(Seeded { draw: Draw::Exact, seed: 5 }, 2, &spec);
        assert_eq!(args, Args { elements: 1 << 33, keys: keys(5, 2), exact: 1, rows: [0; 6] });
    }

    #[test]
    fn grids_cover_small_tensors_and_stay_bounded() {
        assert_eq!((grid(1), grid(256), grid(257), grid(1 << 40)), (1, 1, 2, 8192));
    }
}
