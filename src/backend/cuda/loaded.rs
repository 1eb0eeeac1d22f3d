//! A plan in device memory: launches, times, poison and reading back.

use std::ffi::c_void;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cudarc::driver::sys::{CUdeviceptr, CUevent, CUevent_flags, CUfunction_attribute, CUresult, CUtensorMap};
use cudarc::driver::{CudaContext, CudaEvent, CudaFunction, CudaStream, DriverError, result};

use super::compile::{Compiled, Usage};
use super::fill::Filler;
use super::library::{Chosen, Reference};
use super::map::maps;
use super::memory::{Counter, Pool, broken, decode, download, encode, set, upload};
use super::{failed, probe};
use crate::backend::{Audit, Checks, Facts, Loaded, Sample};
use crate::draw::{Fill, Seeded};
use crate::error::{Error, Result};
use crate::op::{Role, TensorSpec};
use crate::plan::{Arg, Dispatch, LibraryCall, Plan};

/// A byte whose repetition is a NaN in every storage type.
const NAN: u8 = 0xff;

/// One launch, ready.
struct Launch {
    function: CudaFunction,
    dispatch: Dispatch,
    /// Its tensor maps in the order of the arguments, by set.
    maps: Vec<Vec<CUtensorMap>>,
}

/// What is to be launched.
pub enum Program<'a> {
    /// Kernels of ours or of a user.
    Kernels(Arc<Compiled>),
    /// A vendor's routine, and what was chosen among such.
    Library(&'a LibraryCall, &'a Chosen),
}

/// What one call puts on the stream.
enum Work {
    Kernels(Vec<Launch>),
    Library(Box<Reference>),
}

/// A loaded plan.
pub struct Resident {
    named: String,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    work: Work,
    /// Tensors, then scratch.
    tensors: Vec<TensorSpec>,
    /// Number of the first scratch.
    apart: usize,
    dims: Vec<u32>,
    seeded: Seeded,
    pool: Pool,
    counter: Counter,
    filler: Filler,
    start: CudaEvent,
    end: CudaEvent,
    facts: Facts,
}

/// The `Dims` of a plan as the kernel's by-value struct of 32-bit words.
fn packed(plan: &Plan) -> Vec<u32> {
    plan.dims.iter().map(|&(_, value)| value).collect()
}

impl Resident {
    /// Allocates and fills `sets` sets.
    ///
    /// # Errors
    /// As [`crate::backend::Backend::load`].
    #[allow(clippy::too_many_arguments)]
    pub fn new(
        context: &Arc<CudaContext>,
        stream: &Arc<CudaStream>,
        program: Program<'_>,
        draws: &Compiled,
        plan: &Plan,
        seeded: Seeded,
        sets: u32,
        checks: Checks,
    ) -> Result<Self> {
        let named = format!("{}/{}", plan.op, plan.variant);
        context.bind_to_thread().map_err(|e| failed("binding the context", e))?;
        let bytes = |specs: &[TensorSpec]| specs.iter().map(TensorSpec::bytes).collect::<Vec<_>>();
        let guarded = checks == Checks::Trusted;
        let mut pool = Pool::new(context, &bytes(&plan.tensors), sets, guarded)?;
        let (work, mut facts) = ready(context, stream, &program, plan, &pool)?;
        if !plan.scratch.is_empty() {
            pool.share(Pool::new(context, &bytes(&plan.scratch), 1, guarded)?);
        }
        facts.checks = Some(checks);
        facts.allocated_bytes = pool.allocated.map(|bytes| bytes + plan.library().map_or(0, |call| call.workspace));
        let event = || context.new_event(Some(CUevent_flags::CU_EVENT_DEFAULT)).map_err(|e| failed("making an event", e));
        let mut resident = Resident {
            context: context.clone(),
            stream: stream.clone(),
            work,
            tensors: plan.memory().cloned().collect(),
            apart: plan.tensors.len(),
            dims: packed(plan),
            seeded,
            pool,
            counter: Counter::new(context)?,
            filler: Filler::new(draws)?,
            start: event()?,
            end: event()?,
            facts,
            named,
        };
        for set in 0..sets as usize {
            resident.fill(set)?;
        }
        resident.wait("filling the tensors")?;
        if let Program::Library(_, chosen) = program {
            resident.choose(chosen)?;
        }
        Ok(resident)
    }

    /// Lets a library's routine choose its algorithm over the filled tensors, and makes outputs NaN again.
    fn choose(&mut self, chosen: &Chosen) -> Result<()> {
        let Work::Library(reference) = &mut self.work else { return Ok(()) };
        let doing = format!("{}: choosing an algorithm", self.named);
        let (start, end, stream) = (&self.start, &self.end, &self.stream);
        let time = |launches: u32, call: &mut dyn FnMut(u32) -> Result<()>| {
            start.record(stream).map_err(|e| failed(&doing, e))?;
            (0..launches).try_for_each(call)?;
            end.record(stream).map_err(|e| failed(&doing, e))?;
            end.synchronize().map_err(|e| failed(&doing, e))?;
            Ok(probe::guarded(|| elapsed(start, end))?.unwrap_or(Duration::MAX))
        };
        reference.choose(chosen, &self.pool.tensors, &time)?;
        self.facts.path = Some(reference.named());
        (0..self.pool.tensors.len() as u32).try_for_each(|set| self.poison(set))
    }

    fn bind(&self) -> Result<()> {
        self.context.bind_to_thread().map_err(|e| failed("binding the context", e))
    }

    fn wait(&self, doing: &str) -> Result<()> {
        self.stream.synchronize().map_err(|e| failed(&format!("{}: {doing}", self.named), e))
    }

    /// Fills the inputs of a set; outputs become NaN, so that what no kernel wrote is seen.
    fn fill(&self, number: usize) -> Result<()> {
        for (t, spec) in self.tensors.iter().enumerate() {
            let start = self.pool.tensors[number][t];
            match (&spec.fill, spec.role) {
                (_, Role::Output | Role::Scratch) => set(start, NAN, spec.bytes())?,
                (Fill::Values(values), _) => upload(start, &encode(spec.dtype, values))?,
                (Fill::Draw | Fill::Rows(_) | Fill::Cycle(_) | Fill::Scale, _) => {
                    self.filler.fill(&self.stream, start, spec, self.seeded, t)?
                }
            }
        }
        Ok(())
    }

    /// Puts all launches of one call on the stream.
    fn call(&mut self, set: usize) -> Result<()> {
        let launches = match &self.work {
            Work::Kernels(launches) => launches,
            Work::Library(reference) => return reference.enqueue(set, &self.pool.tensors[set]),
        };
        for launch in launches {
            let mut arguments = arguments(&launch.dispatch, &mut self.pool.tensors[set], self.apart, &mut self.dims, &launch.maps[set]);
            let ([gx, gy, gz], [bx, by, bz]) = (launch.dispatch.grid, launch.dispatch.block);
            let (function, shared) = (launch.function.cu_function(), launch.dispatch.dynamic_bytes);
            // SAFETY: the function is of a loaded module; its arguments are the plan's tensors, allocated as long as `self`, and
            // the dims that its `Dims` declares, all rendered from one plan. The driver copies them before it returns.
            let done =
                unsafe { result::launch_kernel(function, (gx, gy, gz), (bx, by, bz), shared, self.stream.cu_stream(), &mut arguments) };
            done.map_err(|e| failed(&format!("launching {} of {}", launch.dispatch.entry, self.named), e))?;
        }
        Ok(())
    }

    fn checked_set(&self, set: u32) -> Result<usize> {
        match (set as usize) < self.pool.tensors.len() {
            true => Ok(set as usize),
            false => Err(Error::Backend { backend: "cuda", why: format!("{} has no set {set}", self.named) }),
        }
    }
}

/// What one call launches, with what is known of it before it is filled.
fn ready(context: &Arc<CudaContext>, stream: &Arc<CudaStream>, program: &Program<'_>, plan: &Plan, pool: &Pool) -> Result<(Work, Facts)> {
    let kernels = match program {
        Program::Kernels(kernels) => kernels,
        Program::Library(call, _) => {
            return Ok((Work::Library(Box::new(Reference::new(context, stream, plan, call)?)), Facts::default()));
        }
    };
    let mut launches = Vec::new();
    for dispatch in &plan.dispatches {
        let function = kernels.module.load_function(&dispatch.entry);
        let function = function.map_err(|e| absent(plan, dispatch, e))?;
        opt_in(&function, dispatch).map_err(|e| failed(&format!("giving {}/{} its shared memory", plan.op, plan.variant), e))?;
        let maps = pool.tensors.iter().map(|set| maps(dispatch, &plan.tensors, set)).collect::<Result<_>>()?;
        launches.push(Launch { function, dispatch: dispatch.clone(), maps });
    }
    let facts = facts_of(kernels, &launches);
    Ok((Work::Kernels(launches), facts))
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

/// Largest use of any entry that the plan launches; the driver is asked where the log says nothing.
fn facts_of(kernels: &Compiled, launches: &[Launch]) -> Facts {
    let mut facts = Facts { compile_ns: Some(kernels.compile_ns), ..Facts::default() };
    for Launch { function, dispatch, .. } in launches {
        let logged = kernels.usages.iter().find(|u| u.entry == dispatch.entry);
        let asked = |value: std::result::Result<i32, DriverError>| value.ok().and_then(|v| u32::try_from(v).ok());
        let registers = logged.and_then(|u| u.registers).or_else(|| asked(function.num_regs()));
        let local = logged.and_then(local_bytes).or_else(|| asked(function.local_size_bytes()));
        let shared = logged.map(|u| u.shared).or_else(|| asked(function.shared_size_bytes())).map(|bytes| bytes + dispatch.dynamic_bytes);
        facts.registers = facts.registers.max(registers);
        facts.local_bytes = facts.local_bytes.max(local);
        facts.shared_bytes = facts.shared_bytes.max(shared);
    }
    facts
}

/// The stack holds what is spilled, so the larger of both tells.
fn local_bytes(usage: &Usage) -> Option<u32> {
    usage.stack.max(usage.spills)
}

/// Time between two events, by the entry point that drivers of CUDA 12 and 13 both have: cudarc's own call wants 12.8.
fn elapsed(start: &CudaEvent, end: &CudaEvent) -> Result<Option<Duration>> {
    type Elapsed = unsafe extern "C" fn(*mut f32, CUevent, CUevent) -> CUresult;
    let mut milliseconds = 0f32;
    // SAFETY: the library is loaded, as events of it exist; the type is that of cuEventElapsedTime in cuda.h.
    let call = unsafe { cudarc::driver::sys::culib().get::<Elapsed>(b"cuEventElapsedTime\0") };
    let call = call.map_err(|e| Error::Backend { backend: "cuda", why: format!("the driver cannot time events: {e}") })?;
    // SAFETY: both events are live and were recorded; the pointer is to a live number.
    unsafe { call(&mut milliseconds, start.cu_event(), end.cu_event()) }.result().map_err(|e| failed("reading the device clock", e))?;
    Ok(Duration::try_from_secs_f64(milliseconds as f64 / 1e3).ok())
}

impl Loaded for Resident {
    fn sample(&mut self, launches: u32, first: u32) -> Result<Sample> {
        self.bind()?;
        let sets = self.pool.tensors.len() as u64;
        let doing = format!("{}: a sample of {launches} launches", self.named);
        let started = Instant::now();
        self.start.record(&self.stream).map_err(|e| failed(&doing, e))?;
        for i in 0..launches {
            self.call(((first as u64 + i as u64) % sets) as usize)?;
        }
        self.end.record(&self.stream).map_err(|e| failed(&doing, e))?;
        self.end.synchronize().map_err(|e| failed(&doing, e))?;
        let wall = started.elapsed();
        if launches == 1 && self.facts.first_launch_ns.is_none() {
            self.facts.first_launch_ns = Some(wall.as_nanos() as u64);
        }
        let device = probe::guarded(|| elapsed(&self.start, &self.end))?;
        Ok(Sample { device, wall })
    }

    fn poison(&mut self, number: u32) -> Result<()> {
        self.bind()?;
        let number = self.checked_set(number)?;
        for (t, spec) in self.tensors.iter().enumerate().filter(|(_, spec)| !spec.role.is_input()) {
            set(self.pool.tensors[number][t], NAN, spec.bytes())?;
        }
        Ok(())
    }

    fn read(&mut self, tensor: usize, number: u32, range: Range<u64>) -> Result<Vec<f64>> {
        self.bind()?;
        let number = self.checked_set(number)?;
        let spec = self.tensors.get(tensor).filter(|spec| range.start <= range.end && range.end <= spec.elements());
        let Some(spec) = spec else {
            return Err(Error::Backend { backend: "cuda", why: format!("{} has no elements {range:?} of tensor {tensor}", self.named) });
        };
        let width = spec.dtype.bytes();
        let bytes = download(self.pool.tensors[number][tensor] + range.start * width, (range.end - range.start) * width)?;
        Ok(decode(spec.dtype, &bytes))
    }

    fn audit(&mut self, number: u32) -> Result<Audit> {
        self.bind()?;
        let number = self.checked_set(number)?;
        let mut audit = Audit::default();
        for guard in &self.pool.guards[number] {
            audit.guards_broken += broken(&download(guard.start, guard.end - guard.start)?);
        }
        for (t, spec) in self.tensors.iter().enumerate().filter(|(_, spec)| spec.role.is_input()) {
            let start = self.pool.tensors[number][t];
            audit.inputs_changed += match &spec.fill {
                Fill::Draw | Fill::Rows(_) | Fill::Cycle(_) | Fill::Scale => {
                    self.filler.changed(&self.stream, &self.counter, start, spec, self.seeded, t)?
                }
                Fill::Values(values) => {
                    let (now, then) = (download(start, spec.bytes())?, encode(spec.dtype, values));
                    let width = spec.dtype.bytes() as usize;
                    now.chunks(width).zip(then.chunks(width)).filter(|(now, then)| now != then).count() as u64
                }
            };
        }
        Ok(audit)
    }

    fn facts(&self) -> Facts {
        self.facts.clone()
    }
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
