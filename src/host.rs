//! Rust kernels and the pinned thread pool that runs them.
//!
//! A kernel gets its problem and a [`Call`]: the pool, the tensors and the chosen tunables. Kernels pick AVX-512, AVX2+FMA or
//! portable code at run time through [`Isa`].

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use half::{bf16, f16};

use crate::op::{DType, Definition, Kept, Real, Tensors};
use crate::plan::{Precision, Setting, Tuned};
use lanes::{Scalar, Stored};

pub(crate) mod attention;
pub(crate) mod chase;
pub(crate) mod conv2d;
pub(crate) mod depthwise;
pub(crate) mod dot;
pub(crate) mod draw;
mod exp;
pub(crate) mod fma;
pub(crate) mod gemm;
pub(crate) mod gemv;
pub(crate) mod lanes;
pub(crate) mod launch;
pub(crate) mod linformer;
pub(crate) mod matmul;
pub(crate) mod memory;
pub(crate) mod performer;
mod pool;
pub(crate) mod powers;
pub(crate) mod quantized;
pub(crate) mod ramp;
pub(crate) mod stream;
mod tally;
pub(crate) mod topology;
mod units;

pub use pool::{Pinned, Pool};

/// Instruction set that kernels may use, chosen once at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Whatever the compiler targets: SSE2 on x86-64, NEON on aarch64.
    Portable,
    /// AVX2, FMA and F16C.
    Avx2,
    /// AVX-512F.
    Avx512,
    /// AVX-512F, and its products of two pairs of bf16 summed in f32 (AVX512-BF16), which kernels of bf16 alone use.
    Avx512Bf16,
}

impl Isa {
    /// All of them, narrowest first.
    pub const ALL: [Isa; 4] = [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16];

    /// The widest one this machine has.
    pub fn detect() -> Self {
        Isa::ALL.into_iter().rev().find(|isa| isa.available()).unwrap_or(Isa::Portable)
    }

    /// Whether this machine has it.
    pub fn available(self) -> bool {
        match self {
            Isa::Portable => true,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => is_x86_feature_detected!("avx512f"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512Bf16 => Isa::Avx512.available() && is_x86_feature_detected!("avx512bf16"),
            #[cfg(not(target_arch = "x86_64"))]
            _ => false,
        }
    }

    /// Whether it multiplies numbers of this precision in pairs.
    pub(crate) fn multiplies_pairs(self, precision: Precision) -> bool {
        self == Isa::Avx512Bf16 && precision == Precision::BF16
    }

    /// Bytes of its vector registers.
    pub const fn register_bytes(self) -> usize {
        match self {
            Isa::Portable => 16,
            Isa::Avx2 => 32,
            Isa::Avx512 | Isa::Avx512Bf16 => 64,
        }
    }

    /// Number of its vector registers.
    pub const fn registers(self) -> usize {
        match self {
            Isa::Portable if cfg!(target_arch = "aarch64") => 32,
            Isa::Portable | Isa::Avx2 => 16,
            Isa::Avx512 | Isa::Avx512Bf16 => 32,
        }
    }

    /// The one of that name, as a plan's device reports it.
    pub fn named(name: &str) -> Option<Self> {
        Isa::ALL.into_iter().find(|isa| isa.name() == name)
    }

    /// The one that a plan's device runs kernels with; the narrowest where it names none.
    pub(crate) fn planned(s: &Setting<'_>) -> Self {
        Isa::named(&s.device.driver).unwrap_or(Isa::Portable)
    }

    /// Name in records.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2+fma",
            Isa::Avx512 => "avx512f",
            Isa::Avx512Bf16 => "avx512bf16",
        }
    }
}

/// One tensor in host memory.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// First element, aligned to 64 bytes.
    pub start: *mut u8,
    /// Number of elements.
    pub elements: usize,
    /// Their type.
    pub dtype: DType,
}

// SAFETY: a `Memory` is an address; who dereferences it upholds the aliasing rules (`Call::output`).
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

/// What a host kernel is given.
pub struct Call<'a> {
    /// Threads to run on.
    pub pool: &'a Pool,
    /// Tensors in binding order, then scratch.
    pub tensors: &'a [Memory],
    /// Chosen tunables.
    pub tuned: &'a Tuned,
    /// Number formats.
    pub precision: Precision,
    /// Instruction set to use.
    pub isa: Isa,
}

impl<'a> Call<'a> {
    /// An input or weight tensor.
    pub fn input<T: bytemuck::Pod>(&self, tensor: usize) -> &'a [T] {
        let memory = self.tensors[tensor];
        assert_eq!(memory.dtype.bytes() as usize, size_of::<T>(), "tensor {tensor} has another element type");
        // SAFETY: the backend keeps every tensor allocated, aligned and initialised while a call runs, and nobody writes inputs.
        unsafe { std::slice::from_raw_parts(memory.start.cast(), memory.elements) }
    }

    /// An output tensor, to be written in disjoint ranges by several threads.
    pub fn output<T: bytemuck::Pod>(&self, tensor: usize) -> Output<'a, T> {
        let memory = self.tensors[tensor];
        assert_eq!(memory.dtype.bytes() as usize, size_of::<T>(), "tensor {tensor} has another element type");
        Output { start: memory.start.cast(), elements: memory.elements, lives: PhantomData }
    }
}

/// An output tensor shared by threads.
#[derive(Clone, Copy)]
pub struct Output<'a, T> {
    start: *mut T,
    elements: usize,
    lives: PhantomData<&'a mut [T]>,
}

// SAFETY: `slice` hands out disjoint ranges only, by its caller's promise.
unsafe impl<T: Send> Send for Output<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Output<'_, T> {}

impl<'a, T> Output<'a, T> {
    /// The same memory as scalars, where that is what it holds.
    pub(crate) fn scalars<S: Scalar>(&self) -> Option<Output<'a, S>>
    where
        T: Stored<S>,
    {
        T::SCALAR.then(|| Output { start: self.start.cast(), elements: self.elements, lives: PhantomData })
    }

    /// Elements `range`, for writing.
    ///
    /// # Safety
    /// No two slices alive at once may overlap.
    ///
    /// # Panics
    /// When the range passes the end.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slice(&self, range: Range<usize>) -> &'a mut [T] {
        assert!(range.start <= range.end && range.end <= self.elements, "{range:?} of {} elements", self.elements);
        // SAFETY: in bounds by the assertion, exclusive by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

/// The part of `total` that belongs to `worker`: contiguous, and equal but for one element.
pub(crate) fn share(total: usize, worker: usize, workers: usize) -> Range<usize> {
    let cut = |w: usize| (total as u128 * w as u128 / workers as u128) as usize;
    cut(worker)..cut(worker + 1)
}

/// The same in whole blocks of so many, the last one shorter.
pub(crate) fn share_blocks(total: usize, block: usize, worker: usize, workers: usize) -> Range<usize> {
    let blocks = share(total.div_ceil(block), worker, workers);
    (blocks.start * block).min(total)..(blocks.end * block).min(total)
}

/// A range in pieces of so many elements, the last one shorter.
pub(crate) fn pieces(range: Range<usize>, of: usize) -> impl Iterator<Item = Range<usize>> {
    range.clone().step_by(of).map(move |first| first..(first + of).min(range.end))
}

/// Inputs of a definition as slices, in binding order: of numbers or of words, the other one empty, as both are at the output's place. And what
/// its rows share.
struct Slices<'a, S, E> {
    slices: Vec<(&'a [E], &'a [u32])>,
    kept: Kept,
    computed: PhantomData<S>,
}

impl<S: Scalar, E: Stored<S>> Tensors for Slices<'_, S, E> {
    #[inline(always)]
    fn at<R: Real>(&self, tensor: usize, index: u64) -> R {
        let element = &self.slices[tensor].0[index as usize];
        tally::load(element, 1);
        R::from_f64(element.wide().to_f64())
    }
    #[inline(always)]
    fn word(&self, tensor: usize, index: u64) -> u32 {
        let word = &self.slices[tensor].1[index as usize];
        tally::load(word, 1);
        *word
    }
    fn shared<R: Real>(&self, part: u64, make: impl FnOnce() -> Vec<R>) -> Arc<Vec<R>> {
        self.kept.of(part, make)
    }
}

/// The definition itself as a kernel, in f32 or f64: every output row by [`Definition::row`], rows split over the threads.
pub fn naive<P: Definition>(problem: &P, call: &Call<'_>) {
    match call.precision {
        Precision::F64 => rows::<P, f64, f64>(problem, call),
        _ => rows::<P, f32, f32>(problem, call),
    }
}

/// The same in all precisions, for ops that have kernels in narrower ones.
pub(crate) fn naive_in_any<P: Definition>(problem: &P, call: &Call<'_>) {
    match call.precision {
        Precision::F16 => rows::<P, f32, f16>(problem, call),
        Precision::BF16 => rows::<P, f32, bf16>(problem, call),
        _ => naive(problem, call),
    }
}

fn rows<P: Definition, S: Scalar, E: Stored<S>>(problem: &P, call: &Call<'_>) {
    let Ok(tensors) = problem.tensors(call.precision) else { return };
    let Some(number) = tensors.iter().position(|t| t.role == crate::op::Role::Output) else { return };
    let columns = *tensors[number].shape.last().unwrap_or(&1) as usize;
    let output = call.output::<E>(number);
    let input = |tensor: usize| match tensors[tensor].dtype {
        _ if tensor == number => (&[][..], &[][..]),
        DType::U32 => (&[][..], call.input(tensor)),
        _ => (call.input::<E>(tensor), &[][..]),
    };
    let inputs = Slices { slices: (0..tensors.len()).map(input).collect(), kept: Kept::default(), computed: PhantomData::<S> };
    let total = tensors[number].elements() as usize / columns;
    call.pool.run(&|worker, workers| {
        let mut sums = vec![S::zeroed(); if E::SCALAR { 0 } else { columns }];
        for row in share(total, worker, workers) {
            // SAFETY: each row belongs to exactly one worker.
            let out = unsafe { output.slice(row * columns..(row + 1) * columns) };
            let _group = tally::group();
            // One call, which the compiler inlines; of two it inlines neither.
            let to = if E::SCALAR { bytemuck::cast_slice_mut(out) } else { &mut sums[..] };
            problem.row::<S, _>(&inputs, row as u64, 0..columns as u64, to);
            out.iter_mut().zip(&sums).for_each(|(to, sum)| *to = E::narrow(*sum));
            tally::store(out.as_ptr(), columns);
        }
    });
}
