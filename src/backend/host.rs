//! The host backend: Rust kernels on a pinned thread pool, wall clock only.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use super::meter::Meter;
use super::meter::rapl::{self, Rapl};
use super::{Audit, Backend, Checks, Facts, Loaded, Occupied, Sample};
use crate::draw::{Seeded, keys};
use crate::error::{Error, Result};
use crate::host::draw::{Content, differences, fill};
use crate::host::{Call, Isa, Memory, Pool, share, topology};
use crate::op::{DType, Role, TensorSpec};
use crate::plan::{Code, DeviceInfo, DeviceKind, Language, Limits, Plan, Precision, Tuned};

mod sets;

use sets::{Sets, Shelf};

/// The host as a device; opens nothing.
pub fn device() -> DeviceInfo {
    described(Isa::detect())
}

fn described(isa: Isa) -> DeviceInfo {
    let mut features: Vec<String> = Isa::ALL.iter().filter(|isa| isa.available()).map(|isa| isa.name().to_string()).collect();
    if !topology::cpus().is_empty() {
        features.push("pinned".into());
    }
    DeviceInfo {
        id: "host".into(),
        backend: "host".into(),
        name: topology::processor(),
        kind: DeviceKind::Cpu,
        language: Language::Host,
        driver: isa.name().into(),
        compute_units: topology::workers() as u32,
        caches: topology::caches(),
        // Where the system does not tell, a modest machine is assumed.
        memory_bytes: topology::available_memory().unwrap_or(4 << 30),
        precisions: vec![Precision::F32, Precision::F64, Precision::F16, Precision::BF16],
        features,
        limits: Limits {
            binding_bytes: isize::MAX as u64,
            grid: u32::MAX,
            block: u32::MAX,
            shared_bytes: u32::MAX,
            launch_ns: None,
            loop_trips: None,
        },
        simulated: false,
        sensors: None,
    }
}

/// The host.
pub struct Host {
    info: DeviceInfo,
    pool: Pool,
    shelf: Shelf,
    isa: Isa,
    /// Folder of the energy counters.
    counters: PathBuf,
}

impl Host {
    /// Opens the host with its widest instruction set.
    ///
    /// # Errors
    /// [`Error::Backend`] when the system refuses a thread per CPU.
    pub fn new() -> Result<Self> {
        Self::with(Isa::detect())
    }

    /// Opens the host with kernels of one instruction set.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where this CPU lacks it, else as [`Host::new`].
    pub fn with(isa: Isa) -> Result<Self> {
        if !isa.available() {
            return Err(Error::unsupported("the host kernels asked for", isa.name(), Isa::detect().name()));
        }
        let (info, pool) = (described(isa), Pool::new());
        if pool.workers() != info.compute_units as usize {
            let why = format!("the system gave {} threads for {} CPUs; raise its thread limit", pool.workers(), info.compute_units);
            return Err(Error::Backend { backend: "host", why });
        }
        Ok(Host { info, pool, shelf: Shelf::new(), isa, counters: rapl::ROOT.into() })
    }

    /// Takes energy counters from another folder than the system's, for tests.
    #[must_use]
    pub fn counters_under(self, folder: impl Into<PathBuf>) -> Self {
        Host { counters: folder.into(), ..self }
    }
}

impl Backend for Host {
    fn device(&self) -> &DeviceInfo {
        &self.info
    }

    /// Host kernels have one form, so `checks` changes nothing: slices are bounds-checked where the compiler cannot prove them.
    fn load<'a>(&'a self, plan: &Plan, seeded: Seeded, sets: u32, _checks: Checks) -> Result<Box<dyn Loaded + 'a>> {
        let Code::Host(code) = &plan.code else {
            let named = format!("the host backend running {}/{}", plan.op, plan.variant);
            return Err(Error::unsupported(named, "a Rust kernel", format!("{:?}", plan.language)));
        };
        let memory = Sets::allocate(&self.shelf, &plan.tensors, &plan.scratch, sets)?;
        let mut loaded = OnHost {
            pool: &self.pool,
            isa: self.isa,
            code: code.clone(),
            tuned: plan.tuned.clone(),
            precision: plan.precision,
            tensors: plan.memory().cloned().collect(),
            seeded,
            memory,
            first_launch_ns: None,
        };
        loaded.fill();
        Ok(Box::new(loaded))
    }

    fn occupied(&self) -> Occupied {
        Occupied::Process
    }

    fn meter(&self) -> Result<Box<dyn Meter + '_>> {
        Ok(Box::new(Rapl::open(&self.counters)?))
    }
}

/// A plan in host memory.
struct OnHost<'a> {
    pool: &'a Pool,
    isa: Isa,
    code: Arc<dyn Fn(&Call<'_>) + Send + Sync>,
    tuned: Tuned,
    precision: Precision,
    /// Tensors, then scratch.
    tensors: Vec<TensorSpec>,
    seeded: Seeded,
    memory: Sets<'a>,
    first_launch_ns: Option<u64>,
}

impl OnHost<'_> {
    fn content(&self, tensor: usize) -> Content<'_> {
        Content { fill: &self.tensors[tensor].fill, draw: self.seeded.draw, keys: keys(self.seeded.seed, tensor as u32) }
    }

    /// Draws the inputs and touches the outputs of all sets, each share by the worker that will use it.
    fn fill(&mut self) {
        let _pinned = self.pool.pin();
        for set in 0..self.memory.sets() {
            for (number, spec) in self.tensors.iter().enumerate() {
                let memory = self.memory.of(set)[number];
                match spec.role {
                    Role::Output | Role::Scratch => poisoned(self.pool, memory),
                    Role::Input | Role::Weight => fill(self.pool, self.isa, memory, self.content(number)),
                }
            }
        }
    }

    fn set(&self, set: u32) -> Result<&[Memory]> {
        if set < self.memory.sets() {
            return Ok(self.memory.of(set));
        }
        Err(Error::Backend { backend: "host", why: format!("there is no set {set}; {} were loaded", self.memory.sets()) })
    }

    fn launch(&self, set: u32) {
        let tensors = self.memory.of(set);
        (self.code)(&Call { pool: self.pool, tensors, tuned: &self.tuned, precision: self.precision, isa: self.isa });
    }
}

impl Loaded for OnHost<'_> {
    /// The workers are woken before the clock starts: a launch is timed on a pool that is already running, as the second and later ones
    /// of a sample find it.
    fn sample(&mut self, launches: u32, first: u32) -> Result<Sample> {
        let sets = self.memory.sets();
        let _pinned = self.pool.pin();
        self.pool.run(&|_, _| ());
        let mut set = first % sets;
        let start = Instant::now();
        for launch in 0..launches {
            self.launch(set);
            if launch == 0 && self.first_launch_ns.is_none() {
                self.first_launch_ns = Some(start.elapsed().as_nanos() as u64);
            }
            set = if set + 1 == sets { 0 } else { set + 1 };
        }
        Ok(Sample { device: None, wall: start.elapsed() })
    }

    fn poison(&mut self, set: u32) -> Result<()> {
        let memories = self.set(set)?;
        let _pinned = self.pool.pin();
        for (memory, spec) in memories.iter().zip(&self.tensors) {
            if !spec.role.is_input() {
                poisoned(self.pool, *memory);
            }
        }
        Ok(())
    }

    fn read(&mut self, tensor: usize, set: u32, range: Range<u64>) -> Result<Vec<f64>> {
        let memory = self.set(set)?.get(tensor).copied();
        let Some(memory) = memory.filter(|m| range.start <= range.end && range.end <= m.elements as u64) else {
            return Err(Error::Backend { backend: "host", why: format!("tensor {tensor} has no elements {range:?}") });
        };
        let range = range.start as usize..range.end as usize;
        Ok(match memory.dtype {
            DType::F32 => elements::<f32>(memory)[range].iter().map(|&x| x as f64).collect(),
            DType::F64 => elements::<f64>(memory)[range].to_vec(),
            DType::F16 => elements::<half::f16>(memory)[range].iter().map(|x| x.to_f64()).collect(),
            DType::BF16 => elements::<half::bf16>(memory)[range].iter().map(|x| x.to_f64()).collect(),
            DType::U32 => elements::<u32>(memory)[range].iter().map(|&x| x as f64).collect(),
            DType::F8 => elements::<u8>(memory)[range].iter().map(|&x| crate::op::f8_value(x)).collect(),
            DType::I8 => elements::<i8>(memory)[range].iter().map(|&x| x as f64).collect(),
            DType::I32 => elements::<i32>(memory)[range].iter().map(|&x| crate::op::stored_i32(x)).collect(),
        })
    }

    fn audit(&mut self, set: u32) -> Result<Audit> {
        let memories = self.set(set)?;
        let _pinned = self.pool.pin();
        let changed = memories.iter().zip(&self.tensors).enumerate().filter(|(_, (_, spec))| spec.role.is_input());
        let inputs_changed = changed.map(|(number, (memory, _))| differences(self.pool, self.isa, *memory, self.content(number))).sum();
        Ok(Audit { guards_broken: self.memory.broken_guards(set), inputs_changed })
    }

    fn facts(&self) -> Facts {
        Facts {
            first_launch_ns: self.first_launch_ns,
            allocated_bytes: Some(self.memory.bytes()),
            // Pairs are of bf16 alone.
            path: Some(if self.precision == Precision::BF16 { self.isa } else { self.isa.min(Isa::Avx512) }.name().into()),
            ..Facts::default()
        }
    }
}

/// A tensor's elements; `&mut self` of the callers keeps kernels away meanwhile.
fn elements<'a, T: bytemuck::Pod>(memory: Memory) -> &'a [T] {
    // SAFETY: allocated and initialised by `Sets` for as long as the `OnHost` lives, of this element type by the caller's match.
    unsafe { std::slice::from_raw_parts(memory.start.cast(), memory.elements) }
}

/// Fills a tensor with NaN: all bits set are one in every format.
fn poisoned(pool: &Pool, memory: Memory) {
    let width = memory.dtype.bytes() as usize;
    pool.run(&|worker, workers| {
        let mine = share(memory.elements, worker, workers);
        // SAFETY: within the tensor; shares of workers are disjoint.
        unsafe { std::ptr::write_bytes({ memory }.start.add(mine.start * width), 0xff, mine.len() * width) };
    });
}
