//! One set of tensors in host memory, with guards on both sides of each.

use crate::backend::Audit;
use crate::draw::{Drawn, Seeded};
use crate::host;
use crate::op::{DType, Role, TensorSpec, stored_i32};

/// Bytes of a guard; also the alignment.
const GUARD: usize = 64;
/// What guards are filled with.
const PATTERN: u8 = 0xc5;

struct Buffer {
    bytes: Vec<u8>,
    /// Where the elements start, aligned to 64 bytes; a guard lies before and one behind.
    start: usize,
    elements: usize,
    dtype: DType,
}

impl Buffer {
    fn new(spec: &TensorSpec) -> Self {
        let (elements, length) = (spec.elements() as usize, spec.bytes() as usize);
        let bytes = vec![PATTERN; length + 3 * GUARD];
        let start = GUARD + bytes.as_ptr().align_offset(GUARD);
        Buffer { bytes, start, elements, dtype: spec.dtype }
    }

    fn get(&self, index: usize) -> f64 {
        let width = self.dtype.bytes() as usize;
        let at = &self.bytes[self.start + index * width..][..width];
        match self.dtype {
            DType::F64 => bytemuck::pod_read_unaligned::<f64>(at),
            DType::F32 => bytemuck::pod_read_unaligned::<f32>(at) as f64,
            DType::F16 => bytemuck::pod_read_unaligned::<half::f16>(at).to_f64(),
            DType::BF16 => bytemuck::pod_read_unaligned::<half::bf16>(at).to_f64(),
            DType::U32 => bytemuck::pod_read_unaligned::<u32>(at) as f64,
            DType::F8 => crate::op::f8_value(at[0]),
            DType::I8 => bytemuck::pod_read_unaligned::<i8>(at) as f64,
            DType::I32 => stored_i32(bytemuck::pod_read_unaligned(at)),
        }
    }

    fn set(&mut self, index: usize, value: f64) {
        let width = self.dtype.bytes() as usize;
        let at = &mut self.bytes[self.start + index * width..][..width];
        match self.dtype {
            DType::F64 => at.copy_from_slice(bytemuck::bytes_of(&value)),
            DType::F32 => at.copy_from_slice(bytemuck::bytes_of(&(value as f32))),
            DType::F16 => at.copy_from_slice(bytemuck::bytes_of(&half::f16::from_f64(value))),
            DType::BF16 => at.copy_from_slice(bytemuck::bytes_of(&crate::op::bf16_of(value))),
            DType::U32 => at.copy_from_slice(bytemuck::bytes_of(&(value as u32))),
            DType::F8 => at.fill(crate::op::f8_of(value)),
            DType::I8 => at.copy_from_slice(bytemuck::bytes_of(&(value as i8))),
            DType::I32 if value.is_nan() => at.fill(0xff),
            DType::I32 => at.copy_from_slice(bytemuck::bytes_of(&(value as i32))),
        }
    }

    fn end(&self) -> usize {
        self.start + self.elements * self.dtype.bytes() as usize
    }

    fn guards_broken(&self) -> u64 {
        let guards = [&self.bytes[self.start - GUARD..self.start], &self.bytes[self.end()..self.end() + GUARD]];
        guards.iter().flat_map(|guard| guard.chunks(4)).filter(|word| word.iter().any(|&b| b != PATTERN)).count() as u64
    }
}

/// The tensors of one set.
pub(super) struct Set {
    buffers: Vec<Buffer>,
    inputs: Drawn,
    roles: Vec<Role>,
}

impl Set {
    /// Inputs from their draw, outputs and scratch full of NaN.
    pub fn new(tensors: &[TensorSpec], seeded: Seeded) -> Self {
        let inputs = Drawn::new(tensors, seeded);
        let mut set = Set { buffers: tensors.iter().map(Buffer::new).collect(), inputs, roles: tensors.iter().map(|t| t.role).collect() };
        for tensor in 0..set.buffers.len() {
            for index in 0..set.buffers[tensor].elements {
                let value = if set.roles[tensor].is_input() { set.inputs.value(tensor, index as u64) } else { f64::NAN };
                set.buffers[tensor].set(index, value);
            }
        }
        set
    }

    /// Addresses for a host kernel, valid until the set is touched again.
    pub fn addresses(&mut self) -> Vec<host::Memory> {
        let address = |b: &mut Buffer| host::Memory { start: b.bytes[b.start..].as_mut_ptr(), elements: b.elements, dtype: b.dtype };
        self.buffers.iter_mut().map(address).collect()
    }

    pub fn elements(&self, tensor: usize) -> usize {
        self.buffers.get(tensor).map_or(0, |b| b.elements)
    }

    pub fn get(&self, tensor: usize, index: usize) -> f64 {
        self.buffers[tensor].get(index)
    }

    pub fn set(&mut self, tensor: usize, index: usize, value: f64) {
        self.buffers[tensor].set(index, value);
    }

    /// Overwrites the first word behind a tensor.
    pub fn break_guard(&mut self, tensor: usize) {
        let end = self.buffers[tensor].end();
        self.buffers[tensor].bytes[end..end + 4].fill(0);
    }

    pub fn audit(&self) -> Audit {
        let mut audit = Audit { guards_broken: self.buffers.iter().map(Buffer::guards_broken).sum(), inputs_changed: 0 };
        for (tensor, buffer) in self.buffers.iter().enumerate().filter(|(t, _)| self.roles[*t].is_input()) {
            let changed = |&index: &usize| buffer.get(index).to_bits() != self.inputs.value(tensor, index as u64).to_bits();
            audit.inputs_changed += (0..buffer.elements).filter(changed).count() as u64;
        }
        audit
    }
}
