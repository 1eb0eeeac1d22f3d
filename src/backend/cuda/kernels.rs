//! The kernels of a plan, found in their module: what one call of it launches, and what is known of them.

use std::ffi::c_void;

use cudarc::driver::sys::{CUdeviceptr, CUfunction_attribute, CUresult, CUtensorMap};
use cudarc::driver::{CudaFunction, CudaStream, DriverError, result};

use super::compile::{Compiled, Usage};
use super::failed;
use super::map::maps;
use crate::backend::Facts;
use crate::error::{Error, Result};
use crate::plan::{Arg, Dispatch, Plan};

/// One launch, ready.
struct Launch {
    function: CudaFunction,
    dispatch: Dispatch,
    /// Its tensor maps in the order of the arguments, by set.
    maps: Vec<Vec<CUtensorMap>>,
}

/// All launches of one call, in order.
pub struct Kernels {
    named: String,
    launches: Vec<Launch>,
    /// Number of the first scratch.
    apart: usize,
    dims: Vec<u32>,
}

/// The `Dims` of a plan as the kernel's by-value struct of 32-bit words.
fn packed(plan: &Plan) -> Vec<u32> {
    plan.dims.iter().map(|&(_, value)| value).collect()
}

impl Kernels {
    /// Finds the entries that a plan launches; `tensors` are the addresses of its tensors, by set.
    ///
    /// # Errors
    /// [`Error::Compile`] where a user's kernel has no such entry; those of the driver.
    pub fn new(compiled: &Compiled, plan: &Plan, tensors: &[Vec<CUdeviceptr>]) -> Result<Self> {
        let mut launches = Vec::new();
        for dispatch in &plan.dispatches {
            let function = compiled.module.load_function(&dispatch.entry);
            let function = function.map_err(|e| absent(plan, dispatch, e))?;
            opt_in(&function, dispatch).map_err(|e| failed(&format!("giving {}/{} its shared memory", plan.op, plan.variant), e))?;
            let maps = tensors.iter().map(|set| maps(dispatch, &plan.tensors, set)).collect::<Result<_>>()?;
            launches.push(Launch { function, dispatch: dispatch.clone(), maps });
        }
        Ok(Kernels { named: format!("{}/{}", plan.op, plan.variant), launches, apart: plan.tensors.len(), dims: packed(plan) })
    }

    /// Launches of one call.
    pub fn launches(&self) -> u64 {
        self.launches.len() as u64
    }

    /// Largest use of any entry that the plan launches; the driver is asked where the log says nothing.
    pub fn facts(&self, compiled: &Compiled) -> Facts {
        let mut facts = Facts { compile_ns: Some(compiled.compile_ns), ..Facts::default() };
        for Launch { function, dispatch, .. } in &self.launches {
            let logged = compiled.usages.iter().find(|u| u.entry == dispatch.entry);
            let asked = |value: std::result::Result<i32, DriverError>| value.ok().and_then(|v| u32::try_from(v).ok());
            let registers = logged.and_then(|u| u.registers).or_else(|| asked(function.num_regs()));
            let local = logged.and_then(local_bytes).or_else(|| asked(function.local_size_bytes()));
            let shared =
                logged.map(|u| u.shared).or_else(|| asked(function.shared_size_bytes())).map(|bytes| bytes + dispatch.dynamic_bytes);
            facts.registers = facts.registers.max(registers);
            facts.local_bytes = facts.local_bytes.max(local);
            facts.shared_bytes = facts.shared_bytes.max(shared);
        }
        facts
    }

    /// Puts all launches of one call on the stream; `tensors` are those of set number `set`, then scratch.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn enqueue(&mut self, stream: &CudaStream, set: usize, tensors: &mut [CUdeviceptr]) -> Result<()> {
        for launch in &self.launches {
            let mut arguments = arguments(&launch.dispatch, tensors, self.apart, &mut self.dims, &launch.maps[set]);
            let ([gx, gy, gz], [bx, by, bz]) = (launch.dispatch.grid, launch.dispatch.block);
            let (function, shared) = (launch.function.cu_function(), launch.dispatch.dynamic_bytes);
            // SAFETY: the function is of a loaded module; its arguments are the plan's tensors, allocated as long as the plan is loaded,
            // and the dims that its `Dims` declares, all rendered from one plan. The driver copies them before it returns.
            let done = unsafe { result::launch_kernel(function, (gx, gy, gz), (bx, by, bz), shared, stream.cu_stream(), &mut arguments) };
            done.map_err(|e| failed(&format!("launching {} of {}", launch.dispatch.entry, self.named), e))?;
        }
        Ok(())
    }
}

/// What a module says that has no such entry: in a user's kernel, a name to be mended.
fn absent(plan: &Plan, dispatch: &Dispatch, error: DriverError) -> Error {
    let (named, entry) = (format!("{}/{}", plan.op, plan.variant), &dispatch.entry);
    if plan.own && error.0 == CUresult::CUDA_ERROR_NOT_FOUND {
        let log = format!("it has no entry {entry}; declare it as extern \"C\" __global__ void {entry}, or name another with --entry");
        return Error::Compile { kernel: named, log };
    }
    failed(&format!("finding entry {entry} of {named}"), error)
}

/// Shared memory past what every kernel may have is asked for by name.
fn opt_in(function: &CudaFunction, dispatch: &Dispatch) -> std::result::Result<(), DriverError> {
    const ALWAYS: u32 = 48 << 10;
    match dispatch.dynamic_bytes + dispatch.shared_bytes > ALWAYS {
        true => {
            function.set_attribute(CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, dispatch.dynamic_bytes as i32)
        }
        false => Ok(()),
    }
}

/// Addresses of the arguments of one launch, in the plan's order.
fn arguments(dispatch: &Dispatch, tensors: &mut [CUdeviceptr], apart: usize, dims: &mut [u32], maps: &[CUtensorMap]) -> Vec<*mut c_void> {
    let mut maps = maps.iter();
    let place = |arg: &Arg| match *arg {
        Arg::Tensor(t) => (&raw mut tensors[t]).cast(),
        Arg::Scratch(i) => (&raw mut tensors[apart + i]).cast(),
        Arg::Dims => dims.as_mut_ptr().cast(),
        // One was made for each; the driver reads them only.
        Arg::Map { .. } => maps.next().map_or(std::ptr::null_mut(), |map| (&raw const *map).cast_mut().cast()),
    };
    dispatch.args.iter().map(place).collect()
}

/// The stack holds what is spilled, so the larger of both tells.
fn local_bytes(usage: &Usage) -> Option<u32> {
    usage.stack.max(usage.spills)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_follow_the_plan_and_point_at_addresses_and_dims() {
        let mut dispatch = Dispatch::over(3, "entry", [1, 1, 1], [1, 1, 1]);
        dispatch.args = vec![Arg::Tensor(1), Arg::Scratch(0), Arg::Tensor(0), Arg::Dims];
        let (mut tensors, mut dims) = ([10, 20, 30], [7, 8]);
        dispatch.args.insert(1, Arg::Map { tensor: 1, rows: 8, columns: 8 });
        let map = [CUtensorMap { opaque: [7; 16] }];
        let found = arguments(&dispatch, &mut tensors, 2, &mut dims, &map);
        let expected: [*mut c_void; 5] = [
            (&raw mut tensors[1]).cast(),
            (&raw const map[0]).cast_mut().cast(),
            (&raw mut tensors[2]).cast(),
            (&raw mut tensors[0]).cast(),
            dims.as_mut_ptr().cast(),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn local_bytes_are_those_of_the_stack_or_the_spills_whichever_is_more() {
        let usage = Usage { stack: Some(16), spills: Some(40), ..Usage::default() };
        assert_eq!(local_bytes(&usage), Some(40));
        assert_eq!(local_bytes(&Usage::default()), None);
    }
}
