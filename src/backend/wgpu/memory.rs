//! Tensors in device memory: guard words around each, filled, poisoned and compared on the device by `shaders/draw.wgsl`.

use std::ops::Range;

use wgpu::{BindGroupDescriptor, BindGroupEntry, BufferBinding, BufferSize, BufferUsages};

use super::device::{Device, STAGING};
use crate::draw::{self, Draw, Fill, Seeded};
use crate::error::{Error, Result};
use crate::op::{DType, Role, TensorSpec};

/// Guard bytes before a tensor, and at least as many after it: every device accepts this as the offset of a binding.
pub(super) const GUARD: u64 = 256;
/// What guard words hold: out of reach of every draw, and not NaN in any storage type.
const PATTERN: u32 = 0x5ca1_ab1e;
const SOURCE: &str = include_str!("../../../shaders/draw.wgsl");

/// What a tensor is filled with, or compared to; numbers as in `draw.wgsl`.
#[derive(Clone, Copy)]
pub(super) enum Mode {
    Drawn(Draw),
    Nan,
}

/// Bytes of a tensor's binding: whole vectors of four elements.
pub(super) fn padded(spec: &TensorSpec) -> u64 {
    spec.bytes().next_multiple_of((4 * spec.dtype.bytes()).max(16))
}

/// Bytes of a tensor's buffer.
pub(super) fn allocated(spec: &TensorSpec) -> u64 {
    GUARD + padded(spec) + GUARD
}

/// The kernels of `draw.wgsl`.
pub(super) struct Filler {
    fill: wgpu::ComputePipeline,
    compare: wgpu::ComputePipeline,
}

impl Filler {
    /// Compiles them.
    pub(super) fn new(device: &Device) -> Result<Self> {
        device.made("the fill kernel", 0, || {
            let source = wgpu::ShaderSource::Wgsl(SOURCE.into());
            let module = device.raw.create_shader_module(wgpu::ShaderModuleDescriptor { label: Some("draw"), source });
            let pipeline = |entry| {
                device.raw.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                    label: Some("draw"),
                    layout: None,
                    module: &module,
                    entry_point: Some(entry),
                    compilation_options: Default::default(),
                    cache: None,
                })
            };
            Filler { fill: pipeline("fill"), compare: pipeline("compare") }
        })
    }
}

/// One tensor of one set.
pub(super) struct Memory {
    buffer: wgpu::Buffer,
    spec: TensorSpec,
    number: usize,
}

impl Memory {
    /// Allocates a tensor and writes its guards and contents; outputs hold NaN.
    pub(super) fn new(device: &Device, filler: &Filler, spec: &TensorSpec, number: usize, seeded: Seeded) -> Result<Self> {
        let usage = BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST;
        let buffer = device.buffer(&format!("tensor {}", spec.name), allocated(spec), usage)?;
        let memory = Memory { buffer, spec: spec.clone(), number };
        for guard in memory.guards() {
            // The first guard word may share its word with the last f16 element, which the fill below writes.
            let words = vec![PATTERN; (guard.end - guard.start / 4 * 4) as usize / 4];
            device.queue.write_buffer(&memory.buffer, guard.start / 4 * 4, bytemuck::cast_slice(&words));
        }
        match (&spec.fill, spec.role) {
            (_, Role::Output | Role::Scratch) => memory.fill(device, filler, Mode::Nan, seeded.seed)?,
            (Fill::Draw | Fill::Rows(_) | Fill::Cycle(_) | Fill::Scale, _) => {
                memory.fill(device, filler, Mode::Drawn(seeded.draw), seeded.seed)?
            }
            (Fill::Pairs(_), _) => {
                return Err(Error::unsupported(format!("tensor {} in WGSL", spec.name), "factors that cancel in pairs", "no such probe"));
            }
            (Fill::Values(values), _) => {
                let mut bytes = narrowed(values, spec.dtype);
                let guard = PATTERN.to_le_bytes();
                while !bytes.len().is_multiple_of(4) {
                    bytes.push(guard[bytes.len() % 4]);
                }
                device.queue.write_buffer(&memory.buffer, GUARD, &bytes);
            }
        }
        Ok(memory)
    }

    /// The tensor, padded to whole vectors, and the guard behind it: a driver that drops accesses past the end of a binding must
    /// not hide a kernel that writes there.
    pub(super) fn binding(&self) -> BufferBinding<'_> {
        BufferBinding { buffer: &self.buffer, offset: GUARD, size: BufferSize::new(padded(&self.spec) + GUARD) }
    }

    /// Byte ranges of the buffer before and after the elements.
    fn guards(&self) -> [Range<u64>; 2] {
        [0..GUARD, GUARD + self.spec.bytes()..allocated(&self.spec)]
    }

    /// Refills the elements.
    pub(super) fn fill(&self, device: &Device, filler: &Filler, mode: Mode, seed: u32) -> Result<()> {
        let params = self.params(device, mode, seed)?;
        let mut encoder = device.encoder("fill");
        self.run(device, &filler.fill, &params, None, &mut encoder)?;
        device.finish("filling a tensor", encoder.finish())
    }

    /// Input elements that differ from what they were filled with.
    pub(super) fn changed(&self, device: &Device, filler: &Filler, seeded: Seeded) -> Result<u64> {
        if let Fill::Values(values) = &self.spec.fill {
            let bytes = self.bytes(device, GUARD..GUARD + self.spec.bytes())?;
            let width = self.spec.dtype.bytes() as usize;
            let same = |(a, b): &(&[u8], &[u8])| a == b;
            let expected = narrowed(values, self.spec.dtype);
            return Ok(bytes.chunks(width).zip(expected.chunks(width)).filter(|pair| !same(pair)).count() as u64);
        }
        let params = self.params(device, Mode::Drawn(seeded.draw), seeded.seed)?;
        let counter = device.buffer("counter", 4, BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST)?;
        let staging = device.staging(4)?;
        let mut encoder = device.encoder("audit");
        encoder.clear_buffer(&counter, 0, None);
        self.run(device, &filler.compare, &params, Some(&counter), &mut encoder)?;
        encoder.copy_buffer_to_buffer(&counter, 0, &staging, 0, 4);
        device.finish("comparing inputs with their draw", encoder.finish())?;
        let bytes = device.map("the audit", &staging, 4)?;
        Ok(bytes.iter().rev().fold(0, |count, &byte| count << 8 | byte as u64))
    }

    /// Guard words that no longer hold their pattern.
    pub(super) fn broken(&self, device: &Device) -> Result<u64> {
        let mut broken = 0;
        for guard in self.guards() {
            let bytes = self.bytes(device, guard.clone())?;
            let pattern = PATTERN.to_le_bytes();
            let intact = |(at, byte): (u64, &u8)| *byte == pattern[at as usize % 4];
            let places: Vec<bool> = (guard.start..guard.end).zip(&bytes).map(intact).collect();
            broken += places.chunks(4).filter(|word| word.contains(&false)).count() as u64;
        }
        Ok(broken)
    }

    /// Elements `range`, widened.
    pub(super) fn read(&self, device: &Device, range: Range<u64>) -> Result<Vec<f64>> {
        let width = self.spec.dtype.bytes();
        let mut values = Vec::with_capacity((range.end - range.start) as usize);
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min(start + STAGING / width);
            let bytes = self.bytes(device, GUARD + start * width..GUARD + end * width)?;
            match self.spec.dtype {
                DType::F64 => values.extend(bytes.chunks_exact(8).map(bytemuck::pod_read_unaligned::<f64>)),
                DType::F32 => values.extend(bytes.chunks_exact(4).map(|b| bytemuck::pod_read_unaligned::<f32>(b) as f64)),
                DType::F16 => values.extend(bytes.chunks_exact(2).map(|b| bytemuck::pod_read_unaligned::<half::f16>(b).to_f64())),
                DType::BF16 => values.extend(bytes.chunks_exact(2).map(|b| bytemuck::pod_read_unaligned::<half::bf16>(b).to_f64())),
                DType::U32 => values.extend(bytes.chunks_exact(4).map(|b| bytemuck::pod_read_unaligned::<u32>(b) as f64)),
                DType::F8 => values.extend(bytes.iter().map(|&b| crate::op::f8_value(b))),
                DType::I8 => values.extend(bytes.iter().map(|&b| b as i8 as f64)),
                DType::I32 => values.extend(bytes.chunks_exact(4).map(|b| crate::op::stored_i32(bytemuck::pod_read_unaligned(b)))),
            }
            start = end;
        }
        Ok(values)
    }

    /// Bytes of the buffer; copies are of whole words, so a word more may cross on either side.
    fn bytes(&self, device: &Device, range: Range<u64>) -> Result<Vec<u8>> {
        let (start, end) = (range.start / 4 * 4, range.end.next_multiple_of(4));
        let staging = device.staging(end - start)?;
        let mut encoder = device.encoder("read");
        encoder.copy_buffer_to_buffer(&self.buffer, start, &staging, 0, end - start);
        device.finish("reading device memory", encoder.finish())?;
        let bytes = device.map("reading device memory", &staging, end - start)?;
        Ok(bytes[(range.start - start) as usize..(range.end - start) as usize].to_vec())
    }

    fn words(&self) -> u32 {
        self.spec.bytes().div_ceil(4) as u32
    }

    fn params(&self, device: &Device, mode: Mode, seed: u32) -> Result<wgpu::Buffer> {
        let keys = draw::keys(seed, self.number as u32);
        let dtype = match self.spec.dtype {
            DType::F32 => 0,
            DType::F64 => 1,
            DType::F16 => 2,
            DType::U32 => 3,
            DType::BF16 => return Err(Error::unsupported(format!("tensor {} in WGSL", self.spec.name), "bf16", "no such type")),
            DType::F8 => return Err(Error::unsupported(format!("tensor {} in WGSL", self.spec.name), "fp8", "no such type")),
            DType::I8 | DType::I32 => {
                return Err(Error::unsupported(format!("tensor {} in WGSL", self.spec.name), "int8", "no such probe"));
            }
        };
        let mode = match mode {
            Mode::Drawn(Draw::Dense) => 0,
            Mode::Drawn(Draw::Exact) => 1,
            Mode::Nan => 2,
        };
        let mut words = keys.to_vec();
        words.extend([self.spec.elements() as u32, self.words(), dtype, mode, PATTERN]);
        words.extend(self.spec.fill.words());
        device.uniform("draw parameters", &words)
    }

    fn run(
        &self,
        device: &Device,
        pipeline: &wgpu::ComputePipeline,
        params: &wgpu::Buffer,
        counter: Option<&wgpu::Buffer>,
        encoder: &mut wgpu::CommandEncoder,
    ) -> Result<()> {
        let mut entries = vec![
            BindGroupEntry { binding: 0, resource: wgpu::BindingResource::Buffer(self.binding()) },
            BindGroupEntry { binding: 1, resource: params.as_entire_binding() },
        ];
        entries.extend(counter.map(|buffer| BindGroupEntry { binding: 2, resource: buffer.as_entire_binding() }));
        let layout = pipeline.get_bind_group_layout(0);
        let descriptor = BindGroupDescriptor { label: Some("draw"), layout: &layout, entries: &entries };
        let group = device.made("bind group", 0, || device.raw.create_bind_group(&descriptor))?;
        let mut pass = encoder.begin_compute_pass(&Default::default());
        pass.set_pipeline(pipeline);
        pass.set_bind_group(0, &group, &[]);
        pass.dispatch_workgroups(self.words().div_ceil(256).clamp(1, 4096), 1, 1);
        Ok(())
    }
}

fn narrowed(values: &[f64], dtype: DType) -> Vec<u8> {
    let bytes = |value: &f64| match dtype {
        DType::F64 => value.to_le_bytes().to_vec(),
        DType::F32 => (*value as f32).to_le_bytes().to_vec(),
        DType::F16 => half::f16::from_f64(*value).to_le_bytes().to_vec(),
        DType::BF16 => crate::op::bf16_of(*value).to_le_bytes().to_vec(),
        DType::U32 => (*value as u32).to_le_bytes().to_vec(),
        DType::F8 => vec![crate::op::f8_of(*value)],
        DType::I8 => (*value as i8).to_le_bytes().to_vec(),
        DType::I32 => (*value as i32).to_le_bytes().to_vec(),
    };
    values.iter().flat_map(bytes).collect()
}
