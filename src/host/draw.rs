//! Drawing tensors into host memory and comparing them with their draw, on all threads and vectorised.

use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

use half::{bf16, f16};

use super::{Isa, Memory, Pool, share};
use crate::draw::{Cycle, Draw, Fill, eighths, element, scale, small, word};
use crate::op::{DType, f8_of};

/// What a tensor holds: everything needed to write or check any part of it.
#[derive(Clone, Copy)]
pub(crate) struct Content<'a> {
    /// Draw or values.
    pub(crate) fill: &'a Fill,
    /// Distribution, where drawn.
    pub(crate) draw: Draw,
    /// The tensor's keys under the seed.
    pub(crate) keys: [u32; 4],
}

/// A storage type.
trait Stored: bytemuck::Pod {
    fn of_draw(x: f32) -> Self;
    fn of_value(x: f64) -> Self;
    /// Element `index` of a plain draw.
    #[inline(always)]
    fn drawn(draw: Draw, keys: &[u32; 4], index: u64) -> Self {
        Self::of_draw(element(draw, keys, index))
    }
}

impl Stored for f32 {
    #[inline(always)]
    fn of_draw(x: f32) -> Self {
        x
    }
    fn of_value(x: f64) -> Self {
        x as f32
    }
}

impl Stored for f64 {
    #[inline(always)]
    fn of_draw(x: f32) -> Self {
        x as f64
    }
    fn of_value(x: f64) -> Self {
        x
    }
}

impl Stored for f16 {
    #[inline(always)]
    fn of_draw(x: f32) -> Self {
        f16::from_f32(x)
    }
    fn of_value(x: f64) -> Self {
        f16::from_f64(x)
    }
}

impl Stored for bf16 {
    #[inline(always)]
    fn of_draw(x: f32) -> Self {
        bf16::from_f32(x)
    }
    fn of_value(x: f64) -> Self {
        crate::op::bf16_of(x)
    }
}

impl Stored for u32 {
    #[inline(always)]
    fn of_draw(x: f32) -> Self {
        x as u32
    }
    fn of_value(x: f64) -> Self {
        x as u32
    }
    #[inline(always)]
    fn drawn(_: Draw, keys: &[u32; 4], index: u64) -> Self {
        word(keys, index)
    }
}

/// The bits of an E4M3 number.
impl Stored for u8 {
    #[inline(always)]
    fn of_draw(x: f32) -> Self {
        f8_of(x as f64)
    }
    fn of_value(x: f64) -> Self {
        f8_of(x)
    }
    #[inline(always)]
    fn drawn(draw: Draw, keys: &[u32; 4], index: u64) -> Self {
        Self::of_draw(if draw == Draw::Exact { eighths(keys, index) } else { element(draw, keys, index) })
    }
}

impl Stored for i8 {
    #[inline(always)]
    fn of_draw(x: f32) -> Self {
        x as i8
    }
    fn of_value(x: f64) -> Self {
        x as i8
    }
    #[inline(always)]
    fn drawn(_: Draw, keys: &[u32; 4], index: u64) -> Self {
        small(keys, index) as i8
    }
}

impl Stored for i32 {
    #[inline(always)]
    fn of_draw(x: f32) -> Self {
        x as i32
    }
    fn of_value(x: f64) -> Self {
        x as i32
    }
    #[inline(always)]
    fn drawn(_: Draw, keys: &[u32; 4], index: u64) -> Self {
        small(keys, index)
    }
}

/// Elements drawn at a time when comparing.
const BLOCK: usize = 1024;

/// Writes `content` into `memory`, every worker its contiguous share, so that it also touches those pages first.
pub(crate) fn fill(pool: &Pool, isa: Isa, memory: Memory, content: Content<'_>) {
    match memory.dtype {
        DType::F32 => fill_as::<f32>(pool, isa, memory, content),
        DType::F64 => fill_as::<f64>(pool, isa, memory, content),
        DType::F16 => fill_as::<f16>(pool, isa, memory, content),
        DType::BF16 => fill_as::<bf16>(pool, isa, memory, content),
        DType::U32 => fill_as::<u32>(pool, isa, memory, content),
        DType::F8 => fill_as::<u8>(pool, isa, memory, content),
        DType::I8 => fill_as::<i8>(pool, isa, memory, content),
        DType::I32 => fill_as::<i32>(pool, isa, memory, content),
    }
}

fn fill_as<T: Stored>(pool: &Pool, isa: Isa, memory: Memory, content: Content<'_>) {
    pool.run(&|worker, workers| {
        let range = share(memory.elements, worker, workers);
        // SAFETY: the tensor is allocated, and shares of workers are disjoint.
        let out = unsafe { std::slice::from_raw_parts_mut({ memory }.start.cast::<T>().add(range.start), range.len()) };
        write(isa, out, range, &content);
    });
}

/// Elements of `memory` whose bits differ from `content`.
pub(crate) fn differences(pool: &Pool, isa: Isa, memory: Memory, content: Content<'_>) -> u64 {
    match memory.dtype {
        DType::F32 => differences_as::<f32>(pool, isa, memory, content),
        DType::F64 => differences_as::<f64>(pool, isa, memory, content),
        DType::F16 => differences_as::<f16>(pool, isa, memory, content),
        DType::BF16 => differences_as::<bf16>(pool, isa, memory, content),
        DType::U32 => differences_as::<u32>(pool, isa, memory, content),
        DType::F8 => differences_as::<u8>(pool, isa, memory, content),
        DType::I8 => differences_as::<i8>(pool, isa, memory, content),
        DType::I32 => differences_as::<i32>(pool, isa, memory, content),
    }
}

fn differences_as<T: Stored>(pool: &Pool, isa: Isa, memory: Memory, content: Content<'_>) -> u64 {
    let changed = AtomicU64::new(0);
    pool.run(&|worker, workers| {
        let range = share(memory.elements, worker, workers);
        let mut expected = [T::zeroed(); BLOCK];
        for start in range.clone().step_by(BLOCK) {
            let block = start..(start + BLOCK).min(range.end);
            // SAFETY: the tensor is allocated and initialised, and nobody writes it during an audit.
            let found = unsafe { std::slice::from_raw_parts({ memory }.start.cast::<T>().add(block.start), block.len()) };
            let expected = &mut expected[..block.len()];
            write(isa, expected, block, &content);
            let (a, b): (&[u8], &[u8]) = (bytemuck::cast_slice(found), bytemuck::cast_slice(expected));
            if a != b {
                let differ = a.chunks(size_of::<T>()).zip(b.chunks(size_of::<T>())).filter(|(a, b)| a != b).count();
                changed.fetch_add(differ as u64, Ordering::Relaxed);
            }
        }
    });
    changed.into_inner()
}

/// Elements `range` of the content.
fn write<T: Stored>(isa: Isa, out: &mut [T], range: Range<usize>, content: &Content<'_>) {
    match content.fill {
        Fill::Values(values) => {
            for (slot, &value) in out.iter_mut().zip(&values[range]) {
                *slot = T::of_value(value);
            }
        }
        Fill::Rows(rows) => {
            for (slot, index) in out.iter_mut().zip(range.start as u64..) {
                *slot = T::of_draw(rows.element(content.draw, &content.keys, index));
            }
        }
        Fill::Scale => {
            for (slot, index) in out.iter_mut().zip(range.start as u64..) {
                *slot = T::of_draw(scale(content.draw, &content.keys, index));
            }
        }
        Fill::Pairs(pairs) => {
            for (slot, index) in out.iter_mut().zip(range.start as u64..) {
                *slot = T::of_draw(pairs.element(&content.keys, index));
            }
        }
        Fill::Cycle(cycle) => {
            let (mut out, mut at) = (out, range.start as u32);
            while !out.is_empty() {
                // One line's share: its elements name neighbours.
                let column = at % cycle.line;
                let piece = out.len().min((cycle.line - column) as usize);
                let (now, later) = out.split_at_mut(piece);
                let first = cycle.next(at / cycle.line) + column;
                for (slot, element) in now.iter_mut().zip(first..) {
                    *slot = T::of_draw(Cycle::named(element));
                }
                (out, at) = (later, at + piece as u32);
            }
        }
        Fill::Draw => {
            // Pieces within which the upper half of the index, hence its part of the key, is constant.
            let (mut out, mut at) = (out, range.start as u64);
            while !out.is_empty() {
                let piece = out.len().min(((1u64 << 32) - (at & 0xffff_ffff)).min(usize::MAX as u64) as usize);
                let (now, later) = out.split_at_mut(piece);
                let first = (at as u32).wrapping_add(((at >> 32) as u32).wrapping_mul(0x9e37_79b9));
                drawn(isa, now, first, content);
                (out, at) = (later, at + piece as u64);
            }
        }
    }
}

fn drawn<T: Stored>(isa: Isa, out: &mut [T], first: u32, content: &Content<'_>) {
    #[cfg(target_arch = "x86_64")]
    match [Isa::Avx512, Isa::Avx2].into_iter().find(|wide| isa >= *wide && wide.available()) {
        // SAFETY: just checked.
        Some(Isa::Avx512) => return unsafe { drawn_avx512(out, first, content.draw, &content.keys) },
        // SAFETY: just checked.
        Some(Isa::Avx2) => return unsafe { drawn_avx2(out, first, content.draw, &content.keys) },
        _ => {}
    }
    let _ = isa;
    drawn_portable(out, first, content.draw, &content.keys);
}

/// The compiler vectorises the portable loop with whatever its caller allows.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
unsafe fn drawn_avx2<T: Stored>(out: &mut [T], first: u32, draw: Draw, keys: &[u32; 4]) {
    drawn_portable(out, first, draw, keys);
}

/// The same.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn drawn_avx512<T: Stored>(out: &mut [T], first: u32, draw: Draw, keys: &[u32; 4]) {
    drawn_portable(out, first, draw, keys);
}

#[inline(always)]
fn drawn_portable<T: Stored>(out: &mut [T], first: u32, draw: Draw, keys: &[u32; 4]) {
    let fill = |out: &mut [T], draw: Draw| {
        for (i, slot) in out.iter_mut().enumerate() {
            *slot = T::drawn(draw, keys, first.wrapping_add(i as u32) as u64);
        }
    };
    // Two loops, each over a constant distribution.
    match draw {
        Draw::Dense => fill(out, Draw::Dense),
        Draw::Exact => fill(out, Draw::Exact),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::draw::keys;

    #[test]
    fn a_part_of_a_cycle_equals_the_definition() {
        let cycle = Cycle { line: 32, lines: 64 };
        let content = Content { fill: &Fill::Cycle(cycle), draw: Draw::Dense, keys: keys(3, 1) };
        for range in [0..2048, 37..1999, 40..50] {
            let mut out = vec![0f32; range.len()];
            write(Isa::Portable, &mut out, range.clone(), &content);
            assert!(out.iter().zip(range).all(|(x, i)| x.to_bits() == cycle.element(i as u64).to_bits()));
        }
    }

    #[test]
    fn drawing_across_the_32_bit_boundary_of_the_index_equals_the_definition() {
        let content = Content { fill: &Fill::Draw, draw: Draw::Dense, keys: keys(3, 1) };
        for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
            let start = (1usize << 33) - 37;
            let mut out = vec![0f32; 100];
            write(isa, &mut out, start..start + 100, &content);
            for (i, x) in out.iter().enumerate() {
                assert_eq!(x.to_bits(), element(Draw::Dense, &content.keys, (start + i) as u64).to_bits(), "{i}");
            }
        }
    }
}
