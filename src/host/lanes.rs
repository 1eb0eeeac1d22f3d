//! Vector registers: every host kernel is written once over [`Lanes`] and compiled for each instruction set.
//!
//! A kernel implements [`Kernel`]; [`dispatch`] enters a function compiled with the chosen instruction set, into which all of the
//! kernel is inlined. So everything between `dispatch` and the intrinsics is `#[inline(always)]`.

use std::ops::{Add, Mul};

use half::{bf16, f16};

use super::{Isa, tally};
use crate::op::{Real, bf16_of};

mod stored;
#[cfg(target_arch = "x86_64")]
mod x86;

pub(crate) use stored::{Stored, round, widen};

/// A block for every row below a constant, 14 at most, the row a constant in each: an array that is indexed by it stays in registers whatever
/// the compiler makes of loops. Of a loop over rows inside one over steps it has, by turns, made nothing and a store of every sum in every step.
macro_rules! each_row {
    ($row:ident < $rows:ident, $block:block) => {
        each_row!(@ $row $rows $block 0 1 2 3 4 5 6 7 8 9 10 11 12 13)
    };
    (@ $row:ident $rows:ident $block:block $($number:literal)*) => {$(
        if $number < $rows {
            let $row: usize = $number;
            $block
        }
    )*};
}
pub(crate) use each_row;

/// A tile of more than six rows is planned for 32 registers alone; elsewhere nothing of it is compiled.
#[inline(always)]
pub(crate) fn assert_fits<V: Lanes, const MR: usize>() {
    assert!(MR <= 6 || V::REGISTERS == 32, "a tile of {MR} rows needs 32 registers");
}

/// A vector register of [`Lanes::COUNT`] scalars.
///
/// # Safety of the methods
/// The CPU has the instruction set (which [`dispatch`] has checked), and pointers are valid for `COUNT` scalars.
pub(crate) trait Lanes: Copy {
    /// Element.
    type Scalar: Scalar;
    /// Elements of a register.
    const COUNT: usize;
    /// Architectural registers.
    const REGISTERS: usize;
    /// All lanes `x`.
    unsafe fn splat(x: Self::Scalar) -> Self;
    /// All lanes the scalar at `from`.
    #[inline(always)]
    unsafe fn broadcast(from: *const Self::Scalar) -> Self {
        tally::load(from, 1);
        // SAFETY: by the trait's contract, for one scalar.
        unsafe { Self::splat(*from) }
    }
    /// Unaligned load.
    unsafe fn load(from: *const Self::Scalar) -> Self;
    /// Unaligned store.
    unsafe fn store(self, to: *mut Self::Scalar);
    /// Store past the caches where the machine can; `to` is aligned to the register. [`fence`] must follow.
    unsafe fn stream(self, to: *mut Self::Scalar);
    /// `self · a + b`, fused where the machine can.
    unsafe fn mul_add(self, a: Self, b: Self) -> Self;
    /// `self · a`.
    unsafe fn mul(self, a: Self) -> Self;
    /// `self + a`.
    unsafe fn add(self, a: Self) -> Self;
    /// The larger of both; arbitrary where one is not a number.
    unsafe fn max(self, a: Self) -> Self;
    /// The sum of all lanes, halves first.
    #[inline(always)]
    unsafe fn sum(self) -> Self::Scalar {
        // 16 lanes are the widest register.
        let mut lanes: [Self::Scalar; 16] = [bytemuck::Zeroable::zeroed(); 16];
        // SAFETY: the array holds a register, and by the trait's contract.
        unsafe { self.store(lanes.as_mut_ptr()) };
        let mut half = Self::COUNT / 2;
        while half > 0 {
            for lane in 0..half {
                lanes[lane] = lanes[lane] + lanes[lane + half];
            }
            half /= 2;
        }
        lanes[0]
    }
    /// Numbers of f16; what tallies them is [`Stored`].
    #[inline(always)]
    unsafe fn load_f16(from: *const f16) -> Self {
        // SAFETY: by the trait's contract.
        unsafe { Self::made(|lane| Self::Scalar::from_f32((*from.add(lane)).to_f32())) }
    }
    /// Rounded to f16.
    #[inline(always)]
    unsafe fn store_f16(self, to: *mut f16) {
        // SAFETY: by the trait's contract.
        unsafe { self.each(|lane, x| *to.add(lane) = f16::from_f64(x.to_f64())) }
    }
    /// Numbers of bf16.
    #[inline(always)]
    unsafe fn load_bf16(from: *const bf16) -> Self {
        // SAFETY: by the trait's contract.
        unsafe { Self::made(|lane| Self::Scalar::from_f32((*from.add(lane)).to_f32())) }
    }
    /// Rounded to bf16.
    #[inline(always)]
    unsafe fn store_bf16(self, to: *mut bf16) {
        // SAFETY: by the trait's contract.
        unsafe { self.each(|lane, x| *to.add(lane) = bf16_of(x.to_f64())) }
    }
    /// A register of these lanes.
    #[inline(always)]
    unsafe fn made(lane: impl Fn(usize) -> Self::Scalar) -> Self {
        // 16 lanes are the widest register.
        let mut lanes: [Self::Scalar; 16] = [bytemuck::Zeroable::zeroed(); 16];
        lanes[..Self::COUNT].iter_mut().enumerate().for_each(|(at, x)| *x = lane(at));
        // SAFETY: the array holds a register, and by the trait's contract.
        unsafe { Self::load(lanes.as_ptr()) }
    }
    /// Does this with every lane.
    #[inline(always)]
    unsafe fn each(self, mut with: impl FnMut(usize, Self::Scalar)) {
        let mut lanes: [Self::Scalar; 16] = [bytemuck::Zeroable::zeroed(); 16];
        // SAFETY: the array holds a register, and by the trait's contract.
        unsafe { self.store(lanes.as_mut_ptr()) };
        lanes[..Self::COUNT].iter().enumerate().for_each(|(at, x)| with(at, *x));
    }
    /// `self · 2ᵏ` by its exponent's bits, k an integer held in the lowest bits of `a`; the result must be a normal number.
    unsafe fn scaled(self, a: Self) -> Self;
    /// The signed integers of `32 - right` bits that lie `left` bits below the top of the words held in the lanes' lowest 32 bits, as numbers.
    #[inline(always)]
    unsafe fn field(self, left: u32, right: u32) -> Self {
        let mut lanes: [Self::Scalar; 16] = [bytemuck::Zeroable::zeroed(); 16];
        // SAFETY: by the trait's contract.
        unsafe {
            self.each(|at, x| lanes[at] = x.field(left, right));
            Self::load(lanes.as_ptr())
        }
    }
    /// For each lane the one whose number is `which` among its `width` neighbours, a power of two that divides the lanes.
    #[inline(always)]
    unsafe fn spread(self, width: usize, which: usize) -> Self {
        let mut lanes: [Self::Scalar; 16] = [bytemuck::Zeroable::zeroed(); 16];
        // SAFETY: the array holds a register, and by the trait's contract.
        unsafe {
            self.store(lanes.as_mut_ptr());
            Self::made(|lane| lanes[lane / width * width + which])
        }
    }
    /// Lanes of both in turn, beginning with `self`: those of their lower halves, then those of the upper ones.
    #[inline(always)]
    unsafe fn interleave(self, other: Self) -> [Self; 2] {
        let zero: Self::Scalar = bytemuck::Zeroable::zeroed();
        let (mut from, mut to) = ([[zero; 16]; 2], [zero; 32]);
        // SAFETY: the arrays hold registers, and by the trait's contract.
        unsafe {
            self.store(from[0].as_mut_ptr());
            other.store(from[1].as_mut_ptr());
            (0..2 * Self::COUNT).for_each(|lane| to[lane] = from[lane % 2][lane / 2]);
            [Self::load(to.as_ptr()), Self::load(to.as_ptr().add(Self::COUNT))]
        }
    }
}

/// An element type with a register type for each instruction set.
pub(crate) trait Scalar: Real + bytemuck::Pod + PartialOrd + Add<Output = Self> + Mul<Output = Self> {
    /// 256-bit registers.
    #[cfg(target_arch = "x86_64")]
    type Avx2: Lanes<Scalar = Self>;
    /// 512-bit registers.
    #[cfg(target_arch = "x86_64")]
    type Avx512: Lanes<Scalar = Self>;
    /// The same, where factors are pairs of bf16 (f32 alone has such).
    #[cfg(target_arch = "x86_64")]
    type Pairs: Lanes<Scalar = Self>;
    /// 128 bits of whatever the compiler targets.
    type Portable: Lanes<Scalar = Self>;
    /// `self · a + b`, fused only where that is one instruction (a call of the C library's `fma` would be slow).
    fn fused(self, a: Self, b: Self) -> Self;
    /// `self · 2ᵏ`, as [`Lanes::scaled`].
    fn scaled(self, a: Self) -> Self;
    /// A part of a word as a number, as [`Lanes::field`].
    fn field(self, left: u32, right: u32) -> Self;
}

/// Whether the compile target has scalar fused multiply-add.
const FUSED: bool = cfg!(any(target_feature = "fma", target_arch = "aarch64"));

impl Scalar for f32 {
    #[cfg(target_arch = "x86_64")]
    type Avx2 = std::arch::x86_64::__m256;
    #[cfg(target_arch = "x86_64")]
    type Avx512 = std::arch::x86_64::__m512;
    #[cfg(target_arch = "x86_64")]
    type Pairs = x86::Pairs;
    type Portable = Wide<f32, 4>;
    #[inline(always)]
    fn fused(self, a: Self, b: Self) -> Self {
        if FUSED { self.mul_add(a, b) } else { self * a + b }
    }
    #[inline(always)]
    fn scaled(self, a: Self) -> Self {
        f32::from_bits(self.to_bits().wrapping_add(a.to_bits() << 23))
    }
    #[inline(always)]
    fn field(self, left: u32, right: u32) -> Self {
        ((self.to_bits() << left) as i32 >> right) as f32
    }
}

impl Scalar for f64 {
    #[cfg(target_arch = "x86_64")]
    type Avx2 = std::arch::x86_64::__m256d;
    #[cfg(target_arch = "x86_64")]
    type Avx512 = std::arch::x86_64::__m512d;
    #[cfg(target_arch = "x86_64")]
    type Pairs = std::arch::x86_64::__m512d;
    type Portable = Wide<f64, 2>;
    #[inline(always)]
    fn fused(self, a: Self, b: Self) -> Self {
        if FUSED { self.mul_add(a, b) } else { self * a + b }
    }
    #[inline(always)]
    fn scaled(self, a: Self) -> Self {
        f64::from_bits(self.to_bits().wrapping_add(a.to_bits() << 52))
    }
    #[inline(always)]
    fn field(self, left: u32, right: u32) -> Self {
        (((self.to_bits() as u32) << left) as i32 >> right) as f64
    }
}

/// Portable lanes: an array that the compiler keeps in registers.
#[derive(Clone, Copy)]
pub(crate) struct Wide<S, const N: usize>([S; N]);

impl<S: Scalar, const N: usize> Lanes for Wide<S, N> {
    type Scalar = S;
    const COUNT: usize = N;
    const REGISTERS: usize = if cfg!(target_arch = "aarch64") { 32 } else { 16 };
    #[inline(always)]
    unsafe fn splat(x: S) -> Self {
        Wide([x; N])
    }
    #[inline(always)]
    unsafe fn load(from: *const S) -> Self {
        tally::load(from, N);
        // SAFETY: valid for N scalars by the trait's contract.
        Wide(unsafe { from.cast::<[S; N]>().read_unaligned() })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut S) {
        tally::store(to, N);
        // SAFETY: as above.
        unsafe { to.cast::<[S; N]>().write_unaligned(self.0) }
    }
    #[inline(always)]
    unsafe fn stream(self, to: *mut S) {
        // SAFETY: as above.
        unsafe { self.store(to) }
    }
    #[inline(always)]
    unsafe fn mul_add(mut self, a: Self, b: Self) -> Self {
        for i in 0..N {
            self.0[i] = self.0[i].fused(a.0[i], b.0[i]);
        }
        self
    }
    #[inline(always)]
    unsafe fn mul(mut self, a: Self) -> Self {
        for i in 0..N {
            self.0[i] = self.0[i] * a.0[i];
        }
        self
    }
    #[inline(always)]
    unsafe fn add(mut self, a: Self) -> Self {
        for i in 0..N {
            self.0[i] = self.0[i] + a.0[i];
        }
        self
    }
    #[inline(always)]
    unsafe fn max(mut self, a: Self) -> Self {
        for i in 0..N {
            self.0[i] = if self.0[i] > a.0[i] { self.0[i] } else { a.0[i] };
        }
        self
    }
    #[inline(always)]
    unsafe fn scaled(mut self, a: Self) -> Self {
        for i in 0..N {
            self.0[i] = self.0[i].scaled(a.0[i]);
        }
        self
    }
    #[inline(always)]
    unsafe fn field(mut self, left: u32, right: u32) -> Self {
        for i in 0..N {
            self.0[i] = self.0[i].field(left, right);
        }
        self
    }
}

/// Transposes COUNT rows of COUNT scalars: those `apart` from each other at `from` become columns of rows `step` apart at `to`.
///
/// # Safety
/// All of them exist, and the CPU has V.
#[inline(always)]
pub(crate) unsafe fn transpose<V: Lanes>(from: *const V::Scalar, apart: usize, to: *mut V::Scalar, step: usize) {
    // SAFETY: by the caller's promise.
    unsafe {
        // 16 lanes are the widest register.
        let mut rows = [V::splat(bytemuck::Zeroable::zeroed()); 16];
        for row in 0..V::COUNT {
            rows[row] = V::load(from.add(row * apart));
        }
        // Each round takes the top bit of a row's number to the bottom of its columns', and theirs to the bottom of the row's.
        for _ in 0..V::COUNT.ilog2() {
            let before = rows;
            for row in 0..V::COUNT / 2 {
                [rows[2 * row], rows[2 * row + 1]] = before[row].interleave(before[row + V::COUNT / 2]);
            }
        }
        for row in 0..V::COUNT {
            rows[row].store(to.add(row * step));
        }
    }
}

/// Asks for the line at `at`, wherever that is.
#[inline(always)]
pub(crate) fn prefetch<T>(at: *const T) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch cannot fault, and SSE is part of x86-64.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Orders streaming stores before whatever the thread does next.
#[inline(always)]
pub(crate) fn fence() {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86-64.
    unsafe {
        std::arch::x86_64::_mm_sfence()
    }
}

/// Work written over a register type.
pub(crate) trait Kernel<S: Scalar> {
    /// Whether the factors of its products are pairs of bf16, each held in a scalar's bits: `mul_add` adds both products. Such work is for
    /// [`Isa::Avx512Bf16`] alone.
    const PAIRS: bool = false;
    /// Does the work; implementations are `#[inline(always)]`.
    ///
    /// # Safety
    /// The CPU has the instruction set of `V`.
    unsafe fn run<V: Lanes<Scalar = S>>(self);
}

/// Runs `kernel` in code compiled for `isa`.
///
/// # Panics
/// Where this CPU lacks `isa`, which [`Isa::available`] tells, or the kernel multiplies pairs that `isa` knows nothing of.
pub(crate) fn dispatch<S: Scalar, K: Kernel<S>>(isa: Isa, kernel: K) {
    assert!(isa.available(), "this CPU has no {}", isa.name());
    assert!(!K::PAIRS || isa == Isa::Avx512Bf16, "{} has no products of pairs", isa.name());
    match isa {
        // SAFETY: the CPU has the instruction set, as asserted.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512Bf16 if K::PAIRS => unsafe { pairs(kernel) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 | Isa::Avx512Bf16 => unsafe { avx512(kernel) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { avx2(kernel) },
        // SAFETY: portable code runs everywhere.
        _ => unsafe { kernel.run::<S::Portable>() },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn avx2<S: Scalar, K: Kernel<S>>(kernel: K) {
    // SAFETY: by the caller's check.
    unsafe { kernel.run::<S::Avx2>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
unsafe fn avx512<S: Scalar, K: Kernel<S>>(kernel: K) {
    // SAFETY: by the caller's check.
    unsafe { kernel.run::<S::Avx512>() }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bf16")]
unsafe fn pairs<S: Scalar, K: Kernel<S>>(kernel: K) {
    // SAFETY: by the caller's check.
    unsafe { kernel.run::<S::Pairs>() }
}
