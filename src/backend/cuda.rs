//! The cuda backend, thin: libcuda and NVRTC found at run time, kernels compiled for the very device, device memory filled by
//! the device, launches timed by events on one stream of its own.
//!
//! What needs no device stands in functions that take none (`compile`: options, architecture names, the compiler's log;
//! `memory`: where tensors and guards lie; [`problem_of`]: what an error code means), so that they are tested anywhere.

use std::cell::{OnceCell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use cudarc::driver::sys::CUresult;
use cudarc::driver::{CudaContext, CudaStream, DriverError};

use super::meter::{self, Meter};
use super::{Backend, Checks, Found, Loaded, Occupied, Tick, Vitals};
use crate::draw::Seeded;
use crate::error::{Error, Result};
use crate::plan::{Code, DeviceInfo, Dispatch, Plan, Precision, Unit};

mod cache;
mod compile;
mod fill;
mod graph;
mod kernels;
mod library;
mod link;
mod loaded;
mod map;
mod memory;
mod probe;
mod sensors;
mod ticks;

use cache::Cache;
use compile::{Compiled, Made, Request};
use graph::Graphs;
use library::Chosen;
pub use library::absent;
use loaded::Program;
use sensors::Board;
use ticks::Ticker;

/// All cuda devices, or the one reason why there is none. Makes no context, so it costs milliseconds.
pub fn devices() -> Vec<Found> {
    match probe::list() {
        Ok(devices) => devices.into_iter().map(Found::Device).collect(),
        Err(why) => vec![Found::Absent(why)],
    }
}

/// A cuda device, opened.
pub struct Cuda {
    info: DeviceInfo,
    architecture: String,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    /// By which many small launches go as one.
    graphs: Rc<Graphs>,
    /// Modules by all that their code depends on: options and text.
    compiled: RefCell<HashMap<String, Arc<Compiled>>>,
    /// Code that was compiled ahead and is not loaded yet.
    ahead: RefCell<HashMap<String, Made>>,
    /// Code compiled by earlier processes.
    cache: Cache,
    /// NVRTC's release.
    release: String,
    /// What was chosen among the algorithms of libraries.
    chosen: Chosen,
    /// What tells its state, or why nothing does.
    board: Result<Board, String>,
    /// What reads the counters of its multiprocessors, once it was asked for.
    ticker: OnceCell<Ticker>,
}

/// What a plan's code is called in messages and the compiler's log.
fn named(plan: &Plan) -> String {
    format!("{}/{}{}", plan.op, plan.variant, if plan.own { "" } else { ".cu" })
}

impl Cuda {
    /// Opens device number `index`.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where there is no driver, no such device, no NVRTC, or one that does not know the device or is newer than the
    /// driver.
    pub fn open(index: usize) -> Result<Self> {
        let devices = probe::list()?;
        let count = devices.len();
        let mut info = devices.into_iter().nth(index).ok_or_else(|| probe::no_such_device(index, count))?;
        let architecture = probe::architecture(index)?;
        // A library with symbols missing makes cudarc panic instead of failing.
        let opened = probe::guarded(|| {
            let context = CudaContext::new(index).map_err(|e| failed("opening the device", e))?;
            // One stream only: the events that cudarc would add around every launch are of no use and would be timed.
            // SAFETY: all work of this backend goes through the one stream made below.
            unsafe { context.disable_event_tracking() };
            let stream = context.new_stream().map_err(|e| failed("making a stream", e))?;
            let (free, _) = context.mem_get_info().map_err(|e| failed("asking for free memory", e))?;
            Ok((context, stream, free as u64))
        })?;
        let (context, stream, free) = opened;
        info.memory_bytes = free;
        let cuda = Cuda {
            info,
            architecture,
            context,
            stream,
            graphs: Graphs::of_driver(),
            compiled: RefCell::default(),
            ahead: RefCell::default(),
            cache: Cache::of_user(),
            release: probe::nvrtc_release()?,
            chosen: Chosen::default(),
            board: probe::board_of(index),
            ticker: OnceCell::new(),
        };
        // What fills tensors is needed by all; a driver that does not take it takes no code of this compiler.
        match cuda.compiled(&cuda.draws()) {
            Err(why @ Error::Unsupported { .. }) => Err(probe::discordant(why)),
            other => other.map(|_| cuda),
        }
    }

    /// What a plan's own code is compiled from; none where it has no text.
    fn request<'a>(&'a self, plan: &'a Plan, name: &'a str, checks: Checks) -> Option<Request<'a>> {
        let Code::Cuda { text, defines } = &plan.code else { return None };
        let (architecture, release) = (&self.architecture, &self.release);
        Some(Request { name, text, defines, architecture, checks, strict: !plan.own, release })
    }

    /// The same of the kernels that fill tensors.
    fn draws(&self) -> Request<'_> {
        self.aside("draw.cu", fill::SOURCE)
    }

    /// The same of the kernel that reads clocks.
    fn clock(&self) -> Request<'_> {
        self.aside("clock.cu", ticks::SOURCE)
    }

    /// A text that is no plan's.
    fn aside(&self, name: &'static str, text: &'static str) -> Request<'_> {
        let (architecture, release) = (&self.architecture, &self.release);
        Request { name, text, defines: &[], architecture, checks: Checks::Trusted, strict: true, release }
    }

    /// Compiles a text, or finds it compiled.
    fn compiled(&self, request: &Request<'_>) -> Result<Arc<Compiled>> {
        let key = request.key();
        if let Some(found) = self.compiled.borrow().get(&key) {
            return Ok(found.clone());
        }
        let ahead = self.ahead.borrow_mut().remove(&key);
        let made = Arc::new(compile::compile(&self.context, request, &key, &self.cache, ahead)?);
        self.compiled.borrow_mut().insert(key, made.clone());
        Ok(made)
    }
}

impl Backend for Cuda {
    fn device(&self) -> &DeviceInfo {
        &self.info
    }

    /// `Checks::Checked` gives every tensor an allocation of its own with no guards, and line numbers to the code, so that
    /// compute-sanitizer sees each access beyond a tensor and names its line; `Checks::Trusted` puts guards around all of them.
    fn load<'a>(&'a self, plan: &Plan, seeded: Seeded, sets: u32, checks: Checks) -> Result<Box<dyn Loaded + 'a>> {
        if sets == 0 {
            return Err(Error::usage(format!("{}/{}: a plan needs at least one set of tensors", plan.op, plan.variant)));
        }
        has_unit(plan, &self.architecture)?;
        for dispatch in &plan.dispatches {
            fits(plan, dispatch, &self.info)?;
        }
        let name = named(plan);
        let program = match (&plan.code, self.request(plan, &name, checks)) {
            (_, Some(request)) => Program::Kernels(self.compiled(&request)?),
            (Code::Library(call), _) => Program::Library(call, &self.chosen),
            (Code::Transfer(direction), _) => Program::Transfer(*direction),
            _ => {
                return Err(Error::unsupported(
                    format!("{}/{}", plan.op, plan.variant),
                    "a plan in CUDA C++",
                    format!("{:?}", plan.language),
                ));
            }
        };
        let draws = self.compiled(&self.draws())?;
        Ok(Box::new(loaded::Resident::new(&self.context, &self.stream, &self.graphs, program, &draws, plan, seeded, sets, checks)?))
    }

    fn prepare(&self, plans: &[(Plan, Checks)], within: Duration) {
        let names: Vec<String> = plans.iter().map(|(plan, _)| named(plan)).collect();
        let fit = |plan: &Plan| has_unit(plan, &self.architecture).is_ok();
        let asked = plans.iter().zip(&names).filter(|((plan, _), _)| fit(plan));
        let requests = asked.filter_map(|((plan, checks), name)| self.request(plan, name, *checks)).chain([self.draws(), self.clock()]);
        let mut open: HashMap<String, Request<'_>> = requests.map(|request| (request.key(), request)).collect();
        open.retain(|key, _| !self.compiled.borrow().contains_key(key) && !self.ahead.borrow().contains_key(key) && !self.cache.names(key));
        let made = compile::ahead(&open, &self.cache, within);
        self.ahead.borrow_mut().extend(made);
    }

    /// What the whole device has given out, to other processes too: it is compared over a moment only.
    fn occupied(&self) -> Occupied {
        match self.context.bind_to_thread().and_then(|()| self.context.mem_get_info()) {
            Ok((free, total)) => Occupied::Device((total as u64).saturating_sub(free as u64)),
            Err(_) => Occupied::Unknown,
        }
    }

    fn vitals(&self) -> Option<Vitals> {
        self.board.as_ref().ok().map(Board::vitals)
    }

    fn ticks(&self) -> Result<Vec<Tick>> {
        self.context.bind_to_thread().map_err(|e| failed("binding the context", e))?;
        let ticker = match self.ticker.get() {
            Some(ticker) => ticker,
            None => {
                let made = Ticker::new(&self.context, &*self.compiled(&self.clock())?)?;
                self.ticker.get_or_init(|| made)
            }
        };
        ticker.read(&self.stream, self.info.compute_units)
    }

    fn meter(&self) -> Result<Box<dyn Meter + '_>> {
        match &self.board {
            Ok(board) => board.meter(),
            Err(why) => Err(meter::unreadable(why, "without it no energy is known")),
        }
    }
}

/// Refuses a launch over the device's limits before the driver does it with a bare number.
fn fits(plan: &Plan, dispatch: &Dispatch, device: &DeviceInfo) -> Result<()> {
    let named = |what: &str| format!("{}/{} {}: {what}", plan.op, plan.variant, dispatch.entry);
    let groups = dispatch.grid.into_iter().max().unwrap_or(0);
    if groups > device.limits.grid {
        return Err(Error::unsupported(named("a grid dimension"), groups, device.limits.grid));
    }
    let lanes: u64 = dispatch.block.iter().map(|&b| b as u64).product();
    if lanes > device.limits.block as u64 {
        return Err(Error::unsupported(named("a group"), format!("{lanes} lanes"), device.limits.block));
    }
    let shared = dispatch.shared_bytes + dispatch.dynamic_bytes;
    if shared > device.limits.shared_bytes {
        return Err(Error::unsupported(named("shared memory"), shared, device.limits.shared_bytes));
    }
    Ok(())
}

/// Refuses a unit that the architecture does not have; `sm_90a` is the one with both.
fn has_unit(plan: &Plan, architecture: &str) -> Result<()> {
    let number = architecture.trim_start_matches("sm_").trim_end_matches('a').parse().unwrap_or(0);
    let (has, need) = match plan.unit {
        Unit::Vector if plan.precision.is_integer() => (number >= 61, "sm_61 or later"),
        Unit::Vector | Unit::Exp | Unit::Memory => (true, ""),
        // Elsewhere the compiler makes products of f16 and separate sums of it, which is slower than f16 and no ceiling of fp8.
        Unit::Mma if plan.precision == Precision::Fp8 => {
            (number == 89 || number >= 120, "sm_89, sm_120 or later in fp8, emulated elsewhere")
        }
        Unit::Mma => (number >= 80, "sm_80 or later"),
        Unit::Wgmma => (architecture == "sm_90a", "sm_90a"),
        Unit::Coop => (false, "a WGSL device"),
        // Where no unit knows the type, a library would quietly compute in f32.
        Unit::Library => (number >= 80 || !matches!(plan.precision, Precision::TF32 | Precision::BF16), "sm_80 or later"),
    };
    match has {
        true => Ok(()),
        false => Err(Error::unsupported(format!("{}/{} on {}", plan.op, plan.variant, plan.unit), need, architecture)),
    }
}

/// What an error code of the driver means to a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Problem {
    /// The context is gone: nothing more can be done with it.
    Lost,
    /// The watchdog ended the launch; the context is gone as well.
    Timeout,
    /// Not enough device memory.
    Memory,
    /// A group takes more than a multiprocessor has.
    Resources,
    /// Anything else.
    Other,
}

fn problem_of(code: CUresult) -> Problem {
    use CUresult::*;
    match code {
        CUDA_ERROR_OUT_OF_MEMORY => Problem::Memory,
        CUDA_ERROR_LAUNCH_TIMEOUT => Problem::Timeout,
        CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES => Problem::Resources,
        CUDA_ERROR_ILLEGAL_ADDRESS
        | CUDA_ERROR_MISALIGNED_ADDRESS
        | CUDA_ERROR_INVALID_ADDRESS_SPACE
        | CUDA_ERROR_INVALID_PC
        | CUDA_ERROR_ILLEGAL_INSTRUCTION
        | CUDA_ERROR_HARDWARE_STACK_ERROR
        | CUDA_ERROR_LAUNCH_FAILED
        | CUDA_ERROR_ASSERT
        | CUDA_ERROR_ECC_UNCORRECTABLE
        | CUDA_ERROR_NVLINK_UNCORRECTABLE
        | CUDA_ERROR_CONTEXT_IS_DESTROYED
        | CUDA_ERROR_DEVICE_UNAVAILABLE
        | CUDA_ERROR_DEINITIALIZED
        | CUDA_ERROR_UNKNOWN => Problem::Lost,
        _ => Problem::Other,
    }
}

/// The driver's failure while `doing` something, in our words. Asks the driver nothing, as it may be what failed.
fn failed(doing: &str, error: DriverError) -> Error {
    let code = error.0;
    match problem_of(code) {
        Problem::Lost => Error::DeviceLost(format!("{doing} failed with {code:?}; run again, and check the driver's log if it returns")),
        Problem::Timeout => Error::Timeout(format!("{doing} was ended by the watchdog ({code:?}); choose a smaller problem")),
        Problem::Memory => Error::NoMemory(format!("{doing} failed with {code:?}")),
        Problem::Resources => Error::unsupported(doing, "more registers or shared memory for a group", format!("fewer ({code:?})")),
        Problem::Other => Error::Backend { backend: "cuda", why: format!("{doing} failed with {code:?}") },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op;
    use crate::plan::{Language, Tuned};

    #[test]
    fn a_unit_that_an_architecture_has_not_is_refused_in_every_precision() {
        let plan = |op: &str, variant: &str, problem: serde_json::Value, precision| {
            let op = (op::find(op).unwrap().parse)(&problem).unwrap();
            op.plan(variant, precision, Language::Cuda, &Tuned::default(), &crate::backend::host::device()).unwrap()
        };
        let deep = || serde_json::json!({"depth": 32});
        let plans = [
            plan("fma", "chains", serde_json::json!({}), Precision::F16),
            plan("dot", "chains", serde_json::json!({}), Precision::Int8),
            plan("matrix", "mma", deep(), Precision::Int8),
            plan("matrix", "wgmma", deep(), Precision::Int8),
            plan("matrix", "mma", deep(), Precision::Fp8),
            plan("matrix", "wgmma", deep(), Precision::Fp8),
        ];
        let of = |architecture: &str| plans.each_ref().map(|plan| has_unit(plan, architecture).is_ok());
        assert_eq!(of("sm_60"), [true, false, false, false, false, false]);
        assert_eq!(of("sm_75"), [true, true, false, false, false, false]);
        assert_eq!(of("sm_86"), [true, true, true, false, false, false]);
        assert_eq!(of("sm_89"), [true, true, true, false, true, false]);
        assert_eq!(of("sm_90a"), [true, true, true, true, false, true]);
        assert_eq!(of("sm_100"), [true, true, true, false, false, false]);
        assert_eq!(of("sm_120"), [true, true, true, false, true, false]);
        let why = has_unit(&plans[2], "sm_75").unwrap_err().to_string();
        assert!(why.contains("matrix/mma on mma") && why.contains("sm_80 or later"), "{why}");
        let why = has_unit(&plans[4], "sm_86").unwrap_err().to_string();
        assert!(why.contains("matrix/mma on mma needs sm_89, sm_120 or later in fp8"), "{why}");
    }

    #[test]
    fn codes_that_end_a_context_are_told_from_those_that_do_not() {
        assert_eq!(problem_of(CUresult::CUDA_ERROR_ILLEGAL_ADDRESS), Problem::Lost);
        assert_eq!(problem_of(CUresult::CUDA_ERROR_LAUNCH_TIMEOUT), Problem::Timeout);
        assert_eq!(problem_of(CUresult::CUDA_ERROR_OUT_OF_MEMORY), Problem::Memory);
        assert_eq!(problem_of(CUresult::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES), Problem::Resources);
        assert_eq!(problem_of(CUresult::CUDA_ERROR_INVALID_VALUE), Problem::Other);
        let lost = failed("a launch of stream/linear", DriverError(CUresult::CUDA_ERROR_LAUNCH_FAILED));
        let short = failed("a launch of stream/linear", DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY));
        assert_eq!(
            short.to_string(),
            "out of memory: a launch of stream/linear failed with CUDA_ERROR_OUT_OF_MEMORY; choose a smaller problem"
        );
        assert!(matches!(&lost, Error::DeviceLost(why) if why.contains("stream/linear") && why.contains("CUDA_ERROR_LAUNCH_FAILED")));
    }
}
