//! A plan in device memory, ready to be timed.

use std::ops::Range;
use std::time::{Duration, Instant};

use wgpu::{BindGroup, BindGroupDescriptor, BindGroupEntry, BindingResource, BufferUsages, PollType};

use super::device::Device;
use super::memory::{Filler, Memory, Mode};
use super::program::{FENCE, Program, Step};
use crate::backend::{Audit, Facts, Loaded, Sample};
use crate::draw::Seeded;
use crate::error::{Error, Result};
use crate::op::{Role, TensorSpec};
use crate::plan::{Arg, Plan};

/// A query pair around the pass, and where its answer lands.
struct Clock {
    queries: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    staging: wgpu::Buffer,
    /// Nanoseconds a tick.
    period: f64,
}

/// See [`Loaded`].
pub(super) struct LoadedPlan<'a> {
    device: &'a Device,
    filler: &'a Filler,
    program: Program,
    tensors: Vec<TensorSpec>,
    seeded: Seeded,
    /// By set and tensor.
    memory: Vec<Vec<Memory>>,
    /// One for all sets.
    scratch: Vec<Memory>,
    /// Group 0 by set and step.
    groups: Vec<Vec<BindGroup>>,
    /// Group 1 by step: `Dims` and the fence between launches.
    dims: Vec<BindGroup>,
    clock: Option<Clock>,
    first: Option<Duration>,
}

impl<'a> LoadedPlan<'a> {
    /// Allocates and fills all sets; every buffer has been written when this returns, so that no lazy zero-fill is timed.
    pub(super) fn new(device: &'a Device, filler: &'a Filler, plan: &Plan, program: Program, seeded: Seeded, sets: u32) -> Result<Self> {
        let set = || {
            let tensors = plan.tensors.iter().enumerate();
            tensors.map(|(number, spec)| Memory::new(device, filler, spec, number, seeded)).collect::<Result<Vec<_>>>()
        };
        let memory = (0..sets).map(|_| set()).collect::<Result<Vec<_>>>()?;
        let scratch = plan.scratch.iter().map(|spec| Memory::new(device, filler, spec, 0, seeded)).collect::<Result<Vec<_>>>()?;
        let sizes: Vec<u32> = plan.dims.iter().map(|(_, size)| *size).collect();
        let sizes = device.uniform("dims", &sizes)?;
        let groups = memory.iter().map(|set| program.steps.iter().map(|step| tensor_group(device, step, set, &scratch)).collect());
        let groups = groups.collect::<Result<Vec<_>>>()?;
        let fence = device.buffer("fence", 16, BufferUsages::STORAGE)?;
        let dims = program.steps.iter().map(|step| dims_group(device, step, &sizes, &fence)).collect::<Result<Vec<_>>>()?;
        let clock = device.period.map(|period| Clock::new(device, period)).transpose()?;
        Ok(LoadedPlan { device, filler, program, tensors: plan.tensors.clone(), seeded, memory, scratch, groups, dims, clock, first: None })
    }

    fn set(&self, set: u32) -> Result<&Vec<Memory>> {
        self.memory.get(set as usize).ok_or_else(|| Error::usage(format!("set {set} of {} does not exist", self.memory.len())))
    }

    /// One pass with all launches, timestamps around it.
    fn record(&self, launches: u32, first: u32) -> wgpu::CommandBuffer {
        let mut encoder = self.device.encoder(&self.program.named);
        let timestamp_writes = self.clock.as_ref().map(|clock| wgpu::ComputePassTimestampWrites {
            query_set: &clock.queries,
            beginning_of_pass_write_index: Some(0),
            end_of_pass_write_index: Some(1),
        });
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor { label: Some("launches"), timestamp_writes });
            let alone = self.program.steps.len() == 1;
            for launch in 0..launches {
                let set = (first as u64 + launch as u64) as usize % self.memory.len();
                for (number, step) in self.program.steps.iter().enumerate() {
                    if !alone || launch == 0 {
                        pass.set_pipeline(&step.pipeline);
                        pass.set_bind_group(1, &self.dims[number], &[]);
                    }
                    pass.set_bind_group(0, &self.groups[set][number], &[]);
                    let [x, y, z] = step.dispatch.grid;
                    pass.dispatch_workgroups(x, y, z);
                }
            }
        }
        if let Some(clock) = &self.clock {
            encoder.resolve_query_set(&clock.queries, 0..2, &clock.resolved, 0);
            encoder.copy_buffer_to_buffer(&clock.resolved, 0, &clock.staging, 0, 16);
        }
        encoder.finish()
    }
}

impl Loaded for LoadedPlan<'_> {
    fn sample(&mut self, launches: u32, first: u32) -> Result<Sample> {
        let what = format!("{} in {launches} launches", self.program.named);
        let commands = self.device.made(&what, 0, || self.record(launches, first))?;
        let started = Instant::now();
        self.device.finish(&what, commands)?;
        let wall = started.elapsed();
        self.first.get_or_insert(wall);
        let device = match &self.clock {
            Some(clock) => clock.elapsed(self.device)?,
            None => None,
        };
        Ok(Sample { device, wall })
    }

    fn poison(&mut self, set: u32) -> Result<()> {
        for (memory, spec) in self.set(set)?.iter().zip(&self.tensors) {
            if spec.role == Role::Output {
                memory.fill(self.device, self.filler, Mode::Nan, self.seeded.seed)?;
            }
        }
        self.scratch.iter().try_for_each(|memory| memory.fill(self.device, self.filler, Mode::Nan, self.seeded.seed))
    }

    fn read(&mut self, tensor: usize, set: u32, range: Range<u64>) -> Result<Vec<f64>> {
        let elements = self.tensors.get(tensor).map_or(0, TensorSpec::elements);
        if range.start > range.end || range.end > elements {
            return Err(Error::usage(format!("elements {range:?} of tensor {tensor} were asked for; it has {elements}")));
        }
        self.set(set)?[tensor].read(self.device, range)
    }

    fn audit(&mut self, set: u32) -> Result<Audit> {
        let mut audit = Audit::default();
        for memory in &self.scratch {
            audit.guards_broken += memory.broken(self.device)?;
        }
        for (memory, spec) in self.set(set)?.iter().zip(&self.tensors) {
            audit.guards_broken += memory.broken(self.device)?;
            if spec.role != Role::Output {
                audit.inputs_changed += memory.changed(self.device, self.filler, self.seeded)?;
            }
        }
        Ok(audit)
    }

    fn facts(&self) -> Facts {
        let shared = self.program.steps.iter().map(|step| step.dispatch.shared_bytes).max();
        Facts {
            compile_ns: Some(self.program.compile.as_nanos() as u64),
            first_launch_ns: self.first.map(|wall| wall.as_nanos() as u64),
            shared_bytes: shared,
            checks: Some(self.program.checks),
            allocated_bytes: self.device.raw.generate_allocator_report().map(|report| report.total_allocated_bytes),
            ..Facts::default()
        }
    }
}

impl Drop for LoadedPlan<'_> {
    fn drop(&mut self) {
        // Gives buffers of finished work back now, before the next plan is loaded; an unfinished kernel is not waited for.
        self.memory.clear();
        self.scratch.clear();
        self.groups.clear();
        let _ = self.device.raw.poll(PollType::Poll);
    }
}

impl Clock {
    fn new(device: &Device, period: f64) -> Result<Self> {
        let descriptor = wgpu::QuerySetDescriptor { label: Some("timestamps"), ty: wgpu::QueryType::Timestamp, count: 2 };
        Ok(Clock {
            queries: device.made("timestamps", 16, || device.raw.create_query_set(&descriptor))?,
            resolved: device.buffer("timestamps", 16, BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC)?,
            staging: device.staging(16)?,
            period,
        })
    }

    /// Time between the last pass's timestamps; absent where the driver left them at zero or turned back.
    fn elapsed(&self, device: &Device) -> Result<Option<Duration>> {
        let bytes = device.map("timestamps", &self.staging, 16)?;
        let [begin, end]: [u64; 2] = bytemuck::pod_read_unaligned(&bytes);
        if (begin, end) == (0, 0) || end < begin {
            return Ok(None);
        }
        Ok(Some(Duration::from_nanos(((end - begin) as f64 * self.period).round() as u64)))
    }
}

fn tensor_group(device: &Device, step: &Step, set: &[Memory], scratch: &[Memory]) -> Result<BindGroup> {
    let entries = step.dispatch.args.iter().filter_map(|arg| {
        let (at, memory) = match *arg {
            Arg::Tensor(t) => (t, set.get(t)?),
            Arg::Scratch(i) => (set.len() + i, scratch.get(i)?),
            Arg::Dims | Arg::Map { .. } => return None,
        };
        Some(BindGroupEntry { binding: at as u32, resource: BindingResource::Buffer(memory.binding()) })
    });
    let entries: Vec<_> = entries.collect();
    let descriptor = BindGroupDescriptor { label: Some("tensors"), layout: &step.tensors, entries: &entries };
    device.made("bind group", 0, || device.raw.create_bind_group(&descriptor))
}

fn dims_group(device: &Device, step: &Step, dims: &wgpu::Buffer, fence: &wgpu::Buffer) -> Result<BindGroup> {
    fn entry(binding: u32, buffer: &wgpu::Buffer) -> BindGroupEntry<'_> {
        BindGroupEntry { binding, resource: buffer.as_entire_binding() }
    }
    let dims = step.dispatch.args.contains(&Arg::Dims).then(|| entry(0, dims));
    let entries: Vec<_> = dims.into_iter().chain([entry(FENCE, fence)]).collect();
    let descriptor = BindGroupDescriptor { label: Some("dims"), layout: &step.dims, entries: &entries };
    device.made("bind group", 0, || device.raw.create_bind_group(&descriptor))
}
