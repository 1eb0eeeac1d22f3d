//! A plan's pipelines, one a dispatch.

use std::time::{Duration, Instant};

use wgpu::{BindGroupLayoutEntry, BindingType, BufferBindingType, ShaderStages};

use super::device::{Device, one_line};
use crate::backend::Checks;
use crate::error::{Error, Result};
use crate::plan::{Arg, Dispatch, Plan};

/// Binding in group 1 of a buffer that no kernel names but every launch may write, as far as wgpu knows. It puts a barrier between
/// any two of them, so that a launch is timed by itself: launches on different sets would run side by side, which a CUDA stream's do not.
pub(super) const FENCE: u32 = 1;

/// One dispatch, compiled.
pub(super) struct Step {
    pub(super) pipeline: wgpu::ComputePipeline,
    /// Layout of group 0, the tensors.
    pub(super) tensors: wgpu::BindGroupLayout,
    /// Layout of group 1: `Dims` and the fence.
    pub(super) dims: wgpu::BindGroupLayout,
    /// The dispatch itself.
    pub(super) dispatch: Dispatch,
}

/// All dispatches of a plan, compiled.
pub(super) struct Program {
    pub(super) steps: Vec<Step>,
    pub(super) compile: Duration,
    pub(super) checks: Checks,
    /// `op/variant`, for messages.
    pub(super) named: String,
}

impl Program {
    /// Compiles `text` with or without run-time checks.
    ///
    /// # Errors
    /// [`Error::Compile`] with every message of the compiler, by line and column.
    pub(super) fn compile(device: &Device, plan: &Plan, text: &str, checks: Checks) -> Result<Self> {
        let named = format!("{}/{}", plan.op, plan.variant);
        let started = Instant::now();
        device.health()?;
        let module = module(device, &named, text, checks)?;
        let steps = plan.dispatches.iter().map(|dispatch| step(device, &named, &module, dispatch, plan.tensors.len(), checks));
        let steps = steps.collect::<Result<Vec<_>>>()?;
        device.health()?;
        Ok(Program { steps, compile: started.elapsed(), checks, named })
    }
}

fn module(device: &Device, named: &str, text: &str, checks: Checks) -> Result<wgpu::ShaderModule> {
    let descriptor = wgpu::ShaderModuleDescriptor { label: Some(named), source: wgpu::ShaderSource::Wgsl(text.into()) };
    let mut made = None;
    let outcome = device.scoped(|| {
        made = Some(match checks {
            Checks::Checked => device.raw.create_shader_module(descriptor),
            // SAFETY: kernels guard every access by `Dims`, which `verify` proves with checked modules and guard words; a kernel
            // that breaks this may crash its process, which is why device work runs in a child.
            Checks::Trusted => unsafe { device.raw.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) },
        });
    });
    match (outcome, made) {
        (Ok(()), Some(module)) => Ok(module),
        (outcome, made) => {
            let located = made.map(|module| messages(&module)).unwrap_or_default();
            let log = match outcome {
                _ if !located.is_empty() => located,
                Err(error) => error.to_string(),
                Ok(()) => "the compiler gave no reason".to_string(),
            };
            Err(Error::Compile { kernel: format!("{named} (WGSL)"), log })
        }
    }
}

/// Messages of the compiler, a line each; positions are those of the shipped file, but for the prefix on its first line.
fn messages(module: &wgpu::ShaderModule) -> String {
    let info = pollster::block_on(module.get_compilation_info());
    let line = |message: wgpu::CompilationMessage| match message.location {
        Some(at) => format!("{}:{}: {}", at.line_number, at.line_position, message.message.trim()),
        None => message.message.trim().to_string(),
    };
    info.messages.into_iter().map(line).collect::<Vec<_>>().join("\n")
}

/// One dispatch of a plan that has so many tensors.
fn step(device: &Device, named: &str, module: &wgpu::ShaderModule, dispatch: &Dispatch, count: usize, checks: Checks) -> Result<Step> {
    let entry = |binding: u32, ty: BufferBindingType| BindGroupLayoutEntry {
        binding,
        visibility: ShaderStages::COMPUTE,
        ty: BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    };
    let storage = |at: usize| entry(at as u32, BufferBindingType::Storage { read_only: !dispatch.writes.contains(&at) });
    let tensors = dispatch.args.iter().filter_map(|arg| match *arg {
        Arg::Tensor(t) => Some(storage(t)),
        Arg::Scratch(i) => Some(storage(count + i)),
        Arg::Dims | Arg::Map { .. } => None,
    });
    let tensors: Vec<_> = tensors.collect();
    let dims = dispatch.args.contains(&Arg::Dims).then(|| entry(0, BufferBindingType::Uniform));
    let dims: Vec<_> = dims.into_iter().chain([entry(FENCE, BufferBindingType::Storage { read_only: false })]).collect();
    let made = device.scoped(|| {
        let layout = |entries: &[BindGroupLayoutEntry]| {
            device.raw.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(named), entries })
        };
        let (tensors, dims) = (layout(&tensors), layout(&dims));
        let layout = device.raw.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
            label: Some(named),
            bind_group_layouts: &[Some(&tensors), Some(&dims)],
            immediate_size: 0,
        });
        let pipeline = device.raw.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
            label: Some(named),
            layout: Some(&layout),
            module,
            entry_point: Some(&dispatch.entry),
            compilation_options: wgpu::PipelineCompilationOptions {
                constants: &[],
                zero_initialize_workgroup_memory: checks == Checks::Checked,
            },
            cache: None,
        });
        Step { pipeline, tensors, dims, dispatch: dispatch.clone() }
    });
    made.map_err(|error| Error::Compile { kernel: format!("{named} (WGSL), entry {}", dispatch.entry), log: one_line(&error.to_string()) })
}
