//! Device memory of a plan: where tensors and guards lie, allocation, and copies to and from the host.

use std::ops::Range;
use std::sync::Arc;

use cudarc::driver::sys::{CUdeviceptr, CUresult};
use cudarc::driver::{CudaContext, result};

use super::failed;
use crate::error::{Error, Result};
use crate::op::{DType, f8_of, f8_value, stored_i32};

/// Bytes of guard at least, and alignment of every tensor: as wide as anything a kernel may load at once.
const GUARD: u64 = 256;
/// What guards are filled with.
pub const PATTERN: u8 = 0xa5;

/// Where the tensors of all sets lie in one allocation, and what lies between them.
#[derive(Debug, PartialEq, Eq)]
struct Layout {
    /// First byte of each tensor, by set.
    tensors: Vec<Vec<u64>>,
    /// Guards before, between and after the tensors of a set, by set; neighbouring sets share one.
    guards: Vec<Vec<Range<u64>>>,
    /// Size of the allocation.
    bytes: u64,
}

fn layout(tensors: &[u64], sets: u32) -> Layout {
    let mut made = Layout { tensors: Vec::new(), guards: Vec::new(), bytes: GUARD };
    let mut before = 0..GUARD;
    for _ in 0..sets {
        let mut guards = vec![before.clone()];
        let mut places = Vec::new();
        for bytes in tensors {
            places.push(made.bytes);
            let end = made.bytes + bytes;
            made.bytes = (end + GUARD).next_multiple_of(GUARD);
            before = end..made.bytes;
            guards.push(before.clone());
        }
        made.tensors.push(places);
        made.guards.push(guards);
    }
    made
}

/// Device memory, freed with its owner.
pub struct Allocation {
    start: CUdeviceptr,
    context: Arc<CudaContext>,
}

impl Allocation {
    /// Allocates; what it holds is arbitrary.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(context: &Arc<CudaContext>, bytes: u64) -> Result<Self> {
        context.bind_to_thread().map_err(|e| failed("binding the context", e))?;
        let (free, _) = context.mem_get_info().map_err(|e| failed("asking for free memory", e))?;
        let short = || Error::OutOfMemory { what: "the plan's tensors on the device".into(), need: bytes, have: free as u64 };
        if bytes > free as u64 {
            return Err(short());
        }
        // SAFETY: the memory is set before anything reads it, by `Pool::new` or by the caller.
        let start = unsafe { result::malloc_sync(bytes as usize) };
        let start = start.map_err(|e| if e.0 == CUresult::CUDA_ERROR_OUT_OF_MEMORY { short() } else { failed("allocating", e) })?;
        Ok(Allocation { start, context: context.clone() })
    }

    /// Where it lies.
    pub fn address(&self) -> CUdeviceptr {
        self.start
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        if self.context.bind_to_thread().is_ok() {
            // SAFETY: allocated by malloc_sync, freed once; all work on it was waited for. A lost context fails here, rightly.
            let _ = unsafe { result::free_sync(self.start) };
        }
    }
}

/// All sets of a plan's tensors.
pub struct Pool {
    /// Address of each tensor, by set.
    pub tensors: Vec<Vec<CUdeviceptr>>,
    /// Addresses of the guards, by set; none where every tensor has an allocation of its own.
    pub guards: Vec<Vec<Range<CUdeviceptr>>>,
    /// Bytes by which free memory shrank; absent where another process freed more meanwhile.
    pub allocated: Option<u64>,
    _memory: Vec<Allocation>,
}

impl Pool {
    /// Allocates `sets` sets, guarded in one allocation or each tensor alone, every byte set to [`PATTERN`].
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(context: &Arc<CudaContext>, bytes: &[u64], sets: u32, guarded: bool) -> Result<Self> {
        let free = || context.mem_get_info().map(|(free, _)| free as u64).map_err(|e| failed("asking for free memory", e));
        let before = free()?;
        let mut pool = if guarded { Self::in_one(context, bytes, sets)? } else { Self::apart(context, bytes, sets)? };
        pool.allocated = before.checked_sub(free()?);
        Ok(pool)
    }

    /// Takes over the one set of `scratch` and puts it behind the tensors of every set of this pool.
    pub fn share(&mut self, scratch: Pool) {
        let (tensors, guards) = (scratch.tensors.concat(), scratch.guards.concat());
        self.tensors.iter_mut().for_each(|set| set.extend(&tensors));
        self.guards.iter_mut().for_each(|set| set.extend(guards.iter().cloned()));
        self.allocated = self.allocated.zip(scratch.allocated).map(|(own, more)| own + more);
        self._memory.extend(scratch._memory);
    }

    fn in_one(context: &Arc<CudaContext>, bytes: &[u64], sets: u32) -> Result<Self> {
        let plan = layout(bytes, sets);
        let memory = Allocation::new(context, plan.bytes)?;
        set(memory.start, PATTERN, plan.bytes)?;
        let at = |offset: u64| memory.start + offset;
        let tensors = plan.tensors.iter().map(|set| set.iter().map(|&o| at(o)).collect()).collect();
        let guards = plan.guards.iter().map(|set| set.iter().map(|g| at(g.start)..at(g.end)).collect()).collect();
        Ok(Pool { tensors, guards, allocated: None, _memory: vec![memory] })
    }

    fn apart(context: &Arc<CudaContext>, bytes: &[u64], sets: u32) -> Result<Self> {
        let mut pool = Pool { tensors: Vec::new(), guards: vec![Vec::new(); sets as usize], allocated: None, _memory: Vec::new() };
        for _ in 0..sets {
            let mut places = Vec::new();
            for &bytes in bytes {
                let memory = Allocation::new(context, bytes)?;
                set(memory.start, PATTERN, bytes)?;
                places.push(memory.start);
                pool._memory.push(memory);
            }
            pool.tensors.push(places);
        }
        Ok(pool)
    }
}

/// A 64-bit number on the device.
pub struct Counter(Allocation);

impl Counter {
    /// Allocates it; its value is whatever [`Counter::reset`] makes it.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(context: &Arc<CudaContext>) -> Result<Self> {
        Allocation::new(context, 8).map(Counter)
    }

    /// Where it lies.
    pub fn address(&self) -> CUdeviceptr {
        self.0.start
    }

    /// Makes it zero.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn reset(&self) -> Result<()> {
        set(self.0.start, 0, 8)
    }

    /// Its value.
    ///
    /// # Errors
    /// Those of the driver.
    pub fn value(&self) -> Result<u64> {
        let bytes = download(self.0.start, 8)?;
        Ok(bytes.iter().rev().fold(0, |value, &byte| value << 8 | byte as u64))
    }
}

/// Sets bytes and waits: callers go on with work on a stream that would not wait by itself.
///
/// # Errors
/// Those of the driver.
pub fn set(start: CUdeviceptr, byte: u8, bytes: u64) -> Result<()> {
    // SAFETY: callers name memory that they hold allocated.
    unsafe { result::memset_d8_sync(start, byte, bytes as usize) }.map_err(|e| failed("setting memory", e))?;
    result::ctx::synchronize().map_err(|e| failed("setting memory", e))
}

/// Copies to the device and waits.
///
/// # Errors
/// Those of the driver.
pub fn upload(start: CUdeviceptr, bytes: &[u8]) -> Result<()> {
    // SAFETY: callers name memory that they hold allocated, at least as long as `bytes`.
    unsafe { result::memcpy_htod_sync(start, bytes) }.map_err(|e| failed("copying to the device", e))?;
    result::ctx::synchronize().map_err(|e| failed("copying to the device", e))
}

/// Copies from the device; work on it must have been waited for.
///
/// # Errors
/// Those of the driver.
pub fn download(start: CUdeviceptr, bytes: u64) -> Result<Vec<u8>> {
    let mut into = vec![0u8; bytes as usize];
    // SAFETY: callers name memory that they hold allocated.
    unsafe { result::memcpy_dtoh_sync(&mut into, start) }.map_err(|e| failed("copying from the device", e))?;
    Ok(into)
}

/// Four-byte words of a guard that no longer hold the pattern; a shorter rest counts as a word.
pub fn broken(guard: &[u8]) -> u64 {
    guard.chunks(4).filter(|word| word.iter().any(|&byte| byte != PATTERN)).count() as u64
}

/// Values as stored.
pub fn encode(dtype: DType, values: &[f64]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(values.len() * dtype.bytes() as usize);
    for &value in values {
        match dtype {
            DType::F64 => bytes.extend(value.to_ne_bytes()),
            DType::F32 => bytes.extend((value as f32).to_ne_bytes()),
            DType::F16 => bytes.extend(half::f16::from_f64(value).to_ne_bytes()),
            DType::BF16 => bytes.extend(crate::op::bf16_of(value).to_ne_bytes()),
            DType::U32 => bytes.extend((value as u32).to_ne_bytes()),
            DType::F8 => bytes.push(f8_of(value)),
            DType::I8 => bytes.extend((value as i8).to_ne_bytes()),
            DType::I32 => bytes.extend((value as i32).to_ne_bytes()),
        }
    }
    bytes
}

/// Stored values, widened.
pub fn decode(dtype: DType, bytes: &[u8]) -> Vec<f64> {
    fn each<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        bytes.as_chunks::<N>().0.iter().map(|&chunk| value(chunk)).collect()
    }
    match dtype {
        DType::F64 => each(bytes, f64::from_ne_bytes),
        DType::F32 => each(bytes, |b| f32::from_ne_bytes(b) as f64),
        DType::F16 => each(bytes, |b| half::f16::from_ne_bytes(b).to_f64()),
        DType::BF16 => each(bytes, |b| half::bf16::from_ne_bytes(b).to_f64()),
        DType::U32 => each(bytes, |b| u32::from_ne_bytes(b) as f64),
        DType::F8 => each(bytes, |[b]| f8_value(b)),
        DType::I8 => each(bytes, |b| i8::from_ne_bytes(b) as f64),
        DType::I32 => each(bytes, |b| stored_i32(i32::from_ne_bytes(b))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tensors_are_aligned_apart_and_guarded_on_both_sides() {
        let sizes = [12, 1, 4096, 257 * 2];
        let made = layout(&sizes, 3);
        let mut covered = 0;
        for (places, guards) in made.tensors.iter().zip(&made.guards) {
            assert_eq!((places.len(), guards.len()), (4, 5));
            for (t, &place) in places.iter().enumerate() {
                assert_eq!(place % GUARD, 0);
                assert_eq!(guards[t].end, place, "a guard ends where tensor {t} begins");
                assert_eq!(guards[t + 1].start, place + sizes[t], "a guard begins where tensor {t} ends");
                assert!(guards[t].end - guards[t].start >= GUARD && guards[t + 1].end - guards[t + 1].start >= GUARD);
                covered += sizes[t] + guards[t + 1].end - guards[t + 1].start;
            }
        }
        assert_eq!(made.bytes, covered + GUARD, "every byte is a tensor's or a guard's");
        assert_eq!(made.guards[0][4], made.guards[1][0]);
    }

    #[test]
    fn a_guard_counts_its_broken_words() {
        let mut guard = vec![PATTERN; 262];
        assert_eq!(broken(&guard), 0);
        guard[0] = 0;
        guard[2] = 1;
        guard[8] = 0;
        guard[261] = 7;
        assert_eq!(broken(&guard), 3);
    }

    #[test]
    fn values_come_back_as_they_were_stored() {
        let values = [0.0, -1.5, 0.6875, 1.0 / 1024.0];
        for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16] {
            let stored = encode(dtype, &values);
            assert_eq!(stored.len() as u64, 4 * dtype.bytes());
            assert_eq!(decode(dtype, &stored), values);
        }
        let eights = [0.0, -1.5, 0.6875, 1.0 / 512.0, 448.0];
        assert_eq!(decode(DType::F8, &encode(DType::F8, &eights)), eights);
        let words = [0.0, 1.0, f64::from(u32::MAX)];
        assert_eq!(decode(DType::U32, &encode(DType::U32, &words)), words);
        let integers = [0.0, 17.0, -16.0, 127.0, -128.0];
        for dtype in [DType::I8, DType::I32] {
            assert_eq!(decode(dtype, &encode(dtype, &integers)), integers);
        }
        for dtype in [DType::F64, DType::F32, DType::F16, DType::BF16, DType::F8, DType::I32] {
            assert!(decode(dtype, &[0xff; 8]).iter().all(|x| x.is_nan()), "a poisoned tensor reads as NaN");
        }
    }
}
