//! A plan in device memory: launches, times, poison and reading back.

use std::ops::Range;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cudarc::driver::sys::{CUdeviceptr, CUevent, CUevent_flags, CUresult};
use cudarc::driver::{CudaContext, CudaEvent, CudaStream};

use super::compile::Compiled;
use super::fill::Filler;
use super::graph::{Album, Graphs, Lane, worth};
use super::kernels::Kernels;
use super::library::{Chosen, Reference};
use super::link::Link;
use super::memory::{Counter, Pool, broken, decode, download, encode, set, upload};
use super::{failed, probe};
use crate::backend::{Audit, Checks, Facts, Fetched, Loaded, Sample};
use crate::draw::{Fill, Seeded};
use crate::error::{Error, Result};
use crate::op::{Role, TensorSpec};
use crate::plan::{Direction, LibraryCall, Plan};

/// A byte whose repetition is a NaN in every storage type.
const NAN: u8 = 0xff;

/// What is to be launched.
pub enum Program<'a> {
    /// Kernels of ours or of a user.
    Kernels(Arc<Compiled>),
    /// A vendor's routine, and what was chosen among such.
    Library(&'a LibraryCall, &'a Chosen),
    /// Copies between host and device memory.
    Transfer(Direction),
}

/// What one call puts on the stream.
enum Work {
    Kernels(Kernels),
    Library(Box<Reference>),
    Transfer(Link),
}

impl Work {
    /// Puts one call on the stream; `tensors` are those of set number `set`, then scratch.
    fn enqueue(&mut self, stream: &CudaStream, set: usize, tensors: &mut [CUdeviceptr]) -> Result<()> {
        match self {
            Work::Kernels(kernels) => kernels.enqueue(stream, set, tensors),
            Work::Library(reference) => reference.enqueue(set, tensors),
            Work::Transfer(link) => link.enqueue(stream, set, tensors),
        }
    }

    /// Kernel launches of a call, where they can be captured; at least so many of a library's.
    fn kernels(&self) -> Option<u64> {
        match self {
            Work::Kernels(kernels) => Some(kernels.launches()),
            Work::Library(_) => Some(1),
            Work::Transfer(_) => None,
        }
    }
}

/// A loaded plan.
pub struct Resident {
    named: String,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    /// Dropped before what its graphs launch, and over which memory.
    album: Album,
    work: Work,
    /// Tensors, then scratch.
    tensors: Vec<TensorSpec>,
    seeded: Seeded,
    pool: Pool,
    counter: Counter,
    filler: Filler,
    start: CudaEvent,
    end: CudaEvent,
    facts: Facts,
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
        graphs: &Rc<Graphs>,
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
            album: Album::new(graphs),
            work,
            tensors: plan.memory().cloned().collect(),
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
        if let Work::Transfer(link) = &mut resident.work {
            link.prepare(&resident.pool.tensors, NAN)?;
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
            Ok(probe::running(|| elapsed(start, end))?.unwrap_or(Duration::MAX))
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
                (Fill::Draw | Fill::Rows(_) | Fill::Cycle(_) | Fill::Pairs(_) | Fill::Scale, _) => {
                    self.filler.fill(&self.stream, start, spec, self.seeded, t)?
                }
            }
        }
        Ok(())
    }

    /// A sample whose launches go one by one.
    fn streamed(&mut self, launches: u32, first: u32) -> Result<Sample> {
        let doing = format!("{}: a sample of {launches} launches", self.named);
        let sets = self.pool.tensors.len() as u64;
        let started = Instant::now();
        self.start.record(&self.stream).map_err(|e| failed(&doing, e))?;
        for i in 0..launches {
            let set = ((first as u64 + i as u64) % sets) as usize;
            self.work.enqueue(&self.stream, set, &mut self.pool.tensors[set])?;
        }
        self.end.record(&self.stream).map_err(|e| failed(&doing, e))?;
        self.end.synchronize().map_err(|e| failed(&doing, e))?;
        let wall = started.elapsed();
        let device = probe::running(|| elapsed(&self.start, &self.end))?;
        Ok(Sample { device, wall })
    }

    /// A sample whose launches go as one graph, captured before, or now, outside both clocks.
    fn replayed(&mut self, launches: u32, first: u32) -> Result<Sample> {
        let doing = format!("{}: a graph of {launches} launches", self.named);
        let Resident { album, work, pool, stream, context, start, end, .. } = self;
        let (lane, calls) = (Lane { context, stream, start, end }, (launches, first));
        let sets = pool.tensors.len() as u64;
        album.hold(calls, lane, &mut || {
            (0..launches).try_for_each(|i| {
                let set = ((first as u64 + i as u64) % sets) as usize;
                work.enqueue(stream, set, &mut pool.tensors[set])
            })
        })?;
        let started = Instant::now();
        album.launch(calls, lane)?;
        stream.synchronize().map_err(|e| failed(&doing, e))?;
        let wall = started.elapsed();
        let device = probe::running(|| elapsed(start, end))?;
        match device {
            Some(device) if !device.is_zero() && device <= wall + wall / 20 => Ok(Sample { device: Some(device), wall }),
            _ => {
                let shown = device.map_or("no time".into(), |device| format!("{} ns", device.as_nanos()));
                let why = format!("events in a graph show {shown} where the wall clock shows {} ns", wall.as_nanos());
                Err(Error::Backend { backend: "cuda", why })
            }
        }
    }

    fn checked_set(&self, set: u32) -> Result<usize> {
        match (set as usize) < self.pool.tensors.len() {
            true => Ok(set as usize),
            false => Err(Error::Backend { backend: "cuda", why: format!("{} has no set {set}", self.named) }),
        }
    }
}

/// What one call puts on the stream, with what is known of it before it is filled.
fn ready(context: &Arc<CudaContext>, stream: &Arc<CudaStream>, program: &Program<'_>, plan: &Plan, pool: &Pool) -> Result<(Work, Facts)> {
    Ok(match program {
        Program::Kernels(compiled) => {
            let kernels = Kernels::new(compiled, plan, &pool.tensors)?;
            let facts = kernels.facts(compiled);
            (Work::Kernels(kernels), facts)
        }
        Program::Library(call, _) => (Work::Library(Box::new(Reference::new(context, stream, plan, call)?)), Facts::default()),
        Program::Transfer(direction) => {
            let link = Link::new(context, plan, *direction, pool.tensors.len())?;
            let facts = Facts { path: Some(link.named()), ..Facts::default() };
            (Work::Transfer(link), facts)
        }
    })
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
    /// The first sample of all goes by the stream: it loads code, which a capture cannot wait for.
    fn sample(&mut self, launches: u32, first: u32) -> Result<Sample> {
        self.bind()?;
        let first = first % self.pool.tensors.len() as u32;
        let small = self.facts.launched.is_some() && self.work.kernels().is_some_and(|kernels| worth(kernels * launches as u64));
        if small && self.album.refused().is_none() {
            match self.replayed(launches, first) {
                Ok(sample) => {
                    self.facts.launched = Some("graph".into());
                    return Ok(sample);
                }
                // A library may do what no capture allows; that says nothing of kernels.
                Err(error) => self.album.refuse(error, matches!(self.work, Work::Library(_)))?,
            }
        }
        let why = if small { self.album.refused() } else { None };
        self.facts.launched = Some(why.map_or("stream".into(), |why| format!("stream, as graphs are refused: {why}")));
        let sample = self.streamed(launches, first)?;
        if launches == 1 && self.facts.first_launch_ns.is_none() {
            self.facts.first_launch_ns = Some(sample.wall.as_nanos() as u64);
        }
        Ok(sample)
    }

    fn poison(&mut self, number: u32) -> Result<()> {
        self.bind()?;
        let number = self.checked_set(number)?;
        if let Work::Transfer(link) = &mut self.work
            && link.poison(number, NAN)
        {
            return Ok(());
        }
        for (t, spec) in self.tensors.iter().enumerate().filter(|(_, spec)| !spec.role.is_input()) {
            set(self.pool.tensors[number][t], NAN, spec.bytes())?;
        }
        Ok(())
    }

    fn read(&mut self, tensor: usize, number: u32, range: Range<u64>) -> Result<Vec<f64>> {
        self.fetch(tensor, number, range).map(|fetched| fetched())
    }

    fn fetch(&mut self, tensor: usize, number: u32, range: Range<u64>) -> Result<Fetched> {
        self.bind()?;
        let number = self.checked_set(number)?;
        let spec = self.tensors.get(tensor).filter(|spec| range.start <= range.end && range.end <= spec.elements());
        let Some(spec) = spec else {
            return Err(Error::Backend { backend: "cuda", why: format!("{} has no elements {range:?} of tensor {tensor}", self.named) });
        };
        let (dtype, width) = (spec.dtype, spec.dtype.bytes());
        if let Work::Transfer(link) = &mut self.work
            && let Some(bytes) = link.landed(tensor, number, range.start * width..range.end * width)
        {
            let bytes = bytes.to_vec();
            return Ok(Box::new(move || decode(dtype, &bytes)));
        }
        let bytes = download(self.pool.tensors[number][tensor] + range.start * width, (range.end - range.start) * width)?;
        Ok(Box::new(move || decode(dtype, &bytes)))
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
                Fill::Draw | Fill::Rows(_) | Fill::Cycle(_) | Fill::Pairs(_) | Fill::Scale => {
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
