//! Vector registers: every host kernel is written once over [`Lanes`] and compiled for each instruction set.
//!
//! A kernel implements [`Kernel`]; [`dispatch`] enters a function compiled with the chosen instruction set, into which all of the
//! kernel is inlined. So everything between `dispatch` and the intrinsics is `#[inline(always)]`.

use std::ops::{Add, Mul};

use super::{Isa, tally};
use crate::op::Real;

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
    /// `self · 2ᵏ` by its exponent's bits, k an integer held in the lowest bits of `a`; the result must be a normal number.
    unsafe fn scaled(self, a: Self) -> Self;
    /// The signed integers of `32 - right` bits that lie `left` bits below the top of the words held in the lanes' lowest 32 bits, as numbers.
    #[inline(always)]
    unsafe fn field(self, left: u32, right: u32) -> Self {
        // 16 lanes are the widest register.
        let mut lanes = [bytemuck::Zeroable::zeroed(); 16];
        // SAFETY: the array holds a register, and by the trait's contract.
        unsafe {
            self.store(lanes.as_mut_ptr());
            lanes[..Self::COUNT].iter_mut().for_each(|lane: &mut Self::Scalar| *lane = lane.field(left, right));
            Self::load(lanes.as_ptr())
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

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::Lanes;
    use std::arch::x86_64::*;

    macro_rules! lanes {
        ($vector:ty, $scalar:ty, $count:literal, $registers:literal,
         $splat:ident $load:ident $store:ident $stream:ident $fma:ident $mul:ident $add:ident
         $max:ident $bits:ident $value:ident $sum:ident $left:ident $fraction:literal $($more:item)*) => {
            impl Lanes for $vector {
                type Scalar = $scalar;
                const COUNT: usize = $count;
                const REGISTERS: usize = $registers;
                #[inline(always)]
                unsafe fn splat(x: $scalar) -> Self {
                    // SAFETY: the instruction set is there by the trait's contract.
                    unsafe { $splat(x) }
                }
                #[inline(always)]
                unsafe fn load(from: *const $scalar) -> Self {
                    // SAFETY: as above, and the pointer is valid by the trait's contract.
                    unsafe { $load(from) }
                }
                #[inline(always)]
                unsafe fn store(self, to: *mut $scalar) {
                    // SAFETY: as for `load`.
                    unsafe { $store(to, self) }
                }
                #[inline(always)]
                unsafe fn stream(self, to: *mut $scalar) {
                    // SAFETY: as for `load`, and aligned by the method's contract.
                    unsafe { $stream(to, self) }
                }
                #[inline(always)]
                unsafe fn mul_add(self, a: Self, b: Self) -> Self {
                    // SAFETY: as for `splat`.
                    unsafe { $fma(self, a, b) }
                }
                #[inline(always)]
                unsafe fn mul(self, a: Self) -> Self {
                    // SAFETY: as for `splat`.
                    unsafe { $mul(self, a) }
                }
                #[inline(always)]
                unsafe fn add(self, a: Self) -> Self {
                    // SAFETY: as for `splat`.
                    unsafe { $add(self, a) }
                }
                #[inline(always)]
                unsafe fn max(self, a: Self) -> Self {
                    // SAFETY: as for `splat`.
                    unsafe { $max(self, a) }
                }
                #[inline(always)]
                unsafe fn scaled(self, a: Self) -> Self {
                    // SAFETY: as for `splat`.
                    unsafe { $value($sum($bits(self), $left::<$fraction>($bits(a)))) }
                }
                $($more)*
            }
        };
    }

    lanes!(__m256, f32, 8, 16, _mm256_set1_ps _mm256_loadu_ps _mm256_storeu_ps _mm256_stream_ps _mm256_fmadd_ps _mm256_mul_ps _mm256_add_ps
    _mm256_max_ps _mm256_castps_si256 _mm256_castsi256_ps _mm256_add_epi32 _mm256_slli_epi32 23
    #[inline(always)]
    unsafe fn field(self, left: u32, right: u32) -> Self {
        // SAFETY: as for `splat`.
        unsafe {
            let top = _mm256_sllv_epi32(_mm256_castps_si256(self), _mm256_set1_epi32(left as i32));
            _mm256_cvtepi32_ps(_mm256_srav_epi32(top, _mm256_set1_epi32(right as i32)))
        }
    });
    lanes!(__m256d, f64, 4, 16, _mm256_set1_pd _mm256_loadu_pd _mm256_storeu_pd _mm256_stream_pd _mm256_fmadd_pd _mm256_mul_pd _mm256_add_pd
        _mm256_max_pd _mm256_castpd_si256 _mm256_castsi256_pd _mm256_add_epi64 _mm256_slli_epi64 52);
    lanes!(__m512, f32, 16, 32, _mm512_set1_ps _mm512_loadu_ps _mm512_storeu_ps _mm512_stream_ps _mm512_fmadd_ps _mm512_mul_ps _mm512_add_ps
    _mm512_max_ps _mm512_castps_si512 _mm512_castsi512_ps _mm512_add_epi32 _mm512_slli_epi32 23
    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: as for `splat`.
        unsafe { _mm512_reduce_add_ps(self) }
    }
    #[inline(always)]
    unsafe fn field(self, left: u32, right: u32) -> Self {
        // SAFETY: as for `splat`.
        unsafe {
            let bits = _mm512_castps_si512(self);
            if right == 28 {
                // A register holds the numbers of all fields of four bits, and looking one up heeds no other bits.
                let numbers = _mm512_setr_ps(0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, -8.0, -7.0, -6.0, -5.0, -4.0, -3.0, -2.0, -1.0);
                return _mm512_permutexvar_ps(_mm512_srlv_epi32(bits, _mm512_set1_epi32(28 - left as i32)), numbers);
            }
            let top = _mm512_sllv_epi32(bits, _mm512_set1_epi32(left as i32));
            _mm512_cvtepi32_ps(_mm512_srav_epi32(top, _mm512_set1_epi32(right as i32)))
        }
    });
    lanes!(__m512d, f64, 8, 32, _mm512_set1_pd _mm512_loadu_pd _mm512_storeu_pd _mm512_stream_pd _mm512_fmadd_pd _mm512_mul_pd _mm512_add_pd
        _mm512_max_pd _mm512_castpd_si512 _mm512_castsi512_pd _mm512_add_epi64 _mm512_slli_epi64 52);
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
    /// Does the work; implementations are `#[inline(always)]`.
    ///
    /// # Safety
    /// The CPU has the instruction set of `V`.
    unsafe fn run<V: Lanes<Scalar = S>>(self);
}

/// Runs `kernel` in code compiled for `isa`.
///
/// # Panics
/// Where this CPU lacks `isa`, which [`Isa::available`] tells.
pub(crate) fn dispatch<S: Scalar, K: Kernel<S>>(isa: Isa, kernel: K) {
    assert!(isa.available(), "this CPU has no {}", isa.name());
    match isa {
        // SAFETY: the CPU has the instruction set, as asserted.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { avx512(kernel) },
        // SAFETY: as above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { avx2(kernel) },
        // SAFETY: portable code runs everywhere.
        _ => unsafe { kernel.run::<S::Portable>() },
    }
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
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
