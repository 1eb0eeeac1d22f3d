//! Registers of x86-64.

use std::arch::x86_64::*;

use half::{bf16, f16};

use super::Lanes;
use crate::host::tally;

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
                tally::load(from, $count);
                // SAFETY: as above, and the pointer is valid by the trait's contract.
                unsafe { $load(from) }
            }
            #[inline(always)]
            unsafe fn store(self, to: *mut $scalar) {
                tally::store(to, $count);
                // SAFETY: as for `load`.
                unsafe { $store(to, self) }
            }
            #[inline(always)]
            unsafe fn stream(self, to: *mut $scalar) {
                tally::store(to, $count);
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
unsafe fn load_f16(from: *const f16) -> Self {
    // SAFETY: as for `load`.
    unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) }
}
#[inline(always)]
unsafe fn store_f16(self, to: *mut f16) {
    // SAFETY: as for `store`.
    unsafe { _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self)) }
}
#[inline(always)]
unsafe fn load_bf16(from: *const bf16) -> Self {
    // SAFETY: as for `load`.
    unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast())))) }
}
#[inline(always)]
unsafe fn store_bf16(self, to: *mut bf16) {
    // SAFETY: as for `store`.
    unsafe {
        let bits = _mm256_castps_si256(self);
        let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
        let near = _mm256_srli_epi32::<16>(_mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff))));
        // What is no number stays none.
        let none = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(self, self));
        let near = _mm256_blendv_epi8(near, _mm256_set1_epi32(0x7fc0), none);
        _mm_storeu_si128(to.cast(), _mm_packus_epi32(_mm256_castsi256_si128(near), _mm256_extracti128_si256::<1>(near)))
    }
}
#[inline(always)]
unsafe fn field(self, left: u32, right: u32) -> Self {
    // SAFETY: as for `splat`.
    unsafe {
        let top = _mm256_sllv_epi32(_mm256_castps_si256(self), _mm256_set1_epi32(left as i32));
        _mm256_cvtepi32_ps(_mm256_srav_epi32(top, _mm256_set1_epi32(right as i32)))
    }
}
#[inline(always)]
unsafe fn interleave(self, other: Self) -> [Self; 2] {
    // SAFETY: as for `splat`.
    unsafe {
        let (low, high) = (_mm256_unpacklo_ps(self, other), _mm256_unpackhi_ps(self, other));
        [_mm256_permute2f128_ps::<0x20>(low, high), _mm256_permute2f128_ps::<0x31>(low, high)]
    }
}
#[inline(always)]
unsafe fn spread(self, width: usize, which: usize) -> Self {
    // SAFETY: as for `splat`.
    unsafe {
        let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        let first = _mm256_andnot_si256(_mm256_set1_epi32(width as i32 - 1), lanes);
        _mm256_permutevar8x32_ps(self, _mm256_add_epi32(first, _mm256_set1_epi32(which as i32)))
    }
});
lanes!(__m256d, f64, 4, 16, _mm256_set1_pd _mm256_loadu_pd _mm256_storeu_pd _mm256_stream_pd _mm256_fmadd_pd _mm256_mul_pd _mm256_add_pd
    _mm256_max_pd _mm256_castpd_si256 _mm256_castsi256_pd _mm256_add_epi64 _mm256_slli_epi64 52
#[inline(always)]
unsafe fn interleave(self, other: Self) -> [Self; 2] {
    // SAFETY: as for `splat`.
    unsafe {
        let (low, high) = (_mm256_unpacklo_pd(self, other), _mm256_unpackhi_pd(self, other));
        [_mm256_permute2f128_pd::<0x20>(low, high), _mm256_permute2f128_pd::<0x31>(low, high)]
    }
}
#[inline(always)]
unsafe fn spread(self, width: usize, which: usize) -> Self {
    // SAFETY: as for `splat`.
    unsafe {
        // Halves of the lanes, as a permutation of these is what there is.
        let halves = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        let first = _mm256_andnot_si256(_mm256_set1_epi32(2 * width as i32 - 2), halves);
        let from = _mm256_add_epi32(first, _mm256_set1_epi32(2 * which as i32));
        _mm256_castps_pd(_mm256_permutevar8x32_ps(_mm256_castpd_ps(self), from))
    }
});
lanes!(__m512, f32, 16, 32, _mm512_set1_ps _mm512_loadu_ps _mm512_storeu_ps _mm512_stream_ps _mm512_fmadd_ps _mm512_mul_ps _mm512_add_ps
_mm512_max_ps _mm512_castps_si512 _mm512_castsi512_ps _mm512_add_epi32 _mm512_slli_epi32 23
#[inline(always)]
unsafe fn load_f16(from: *const f16) -> Self {
    // SAFETY: as for `load`.
    unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) }
}
#[inline(always)]
unsafe fn store_f16(self, to: *mut f16) {
    // SAFETY: as for `store`.
    unsafe { _mm256_storeu_si256(to.cast(), _mm512_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self)) }
}
#[inline(always)]
unsafe fn load_bf16(from: *const bf16) -> Self {
    // SAFETY: as for `load`.
    unsafe { _mm512_castsi512_ps(_mm512_slli_epi32::<16>(_mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast())))) }
}
#[inline(always)]
unsafe fn store_bf16(self, to: *mut bf16) {
    // SAFETY: as for `store`.
    unsafe {
        let bits = _mm512_castps_si512(self);
        let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
        let near = _mm512_srli_epi32::<16>(_mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff))));
        // What is no number stays none.
        let none = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self, self);
        let near = _mm512_mask_mov_epi32(near, none, _mm512_set1_epi32(0x7fc0));
        _mm256_storeu_si256(to.cast(), _mm512_cvtepi32_epi16(near))
    }
}
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
}
#[inline(always)]
unsafe fn interleave(self, other: Self) -> [Self; 2] {
    // SAFETY: as for `splat`.
    unsafe {
        let low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        let high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
        [_mm512_permutex2var_ps(self, low, other), _mm512_permutex2var_ps(self, high, other)]
    }
}
#[inline(always)]
unsafe fn spread(self, width: usize, which: usize) -> Self {
    // SAFETY: as for `splat`.
    unsafe {
        let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        let first = _mm512_andnot_si512(_mm512_set1_epi32(width as i32 - 1), lanes);
        _mm512_permutexvar_ps(_mm512_add_epi32(first, _mm512_set1_epi32(which as i32)), self)
    }
});
lanes!(__m512d, f64, 8, 32, _mm512_set1_pd _mm512_loadu_pd _mm512_storeu_pd _mm512_stream_pd _mm512_fmadd_pd _mm512_mul_pd _mm512_add_pd
    _mm512_max_pd _mm512_castpd_si512 _mm512_castsi512_pd _mm512_add_epi64 _mm512_slli_epi64 52
#[inline(always)]
unsafe fn interleave(self, other: Self) -> [Self; 2] {
    // SAFETY: as for `splat`.
    unsafe {
        let low = _mm512_setr_epi64(0, 8, 1, 9, 2, 10, 3, 11);
        let high = _mm512_add_epi64(low, _mm512_set1_epi64(4));
        [_mm512_permutex2var_pd(self, low, other), _mm512_permutex2var_pd(self, high, other)]
    }
}
#[inline(always)]
unsafe fn spread(self, width: usize, which: usize) -> Self {
    // SAFETY: as for `splat`.
    unsafe {
        let lanes = _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7);
        let first = _mm512_andnot_si512(_mm512_set1_epi64(width as i64 - 1), lanes);
        _mm512_permutexvar_pd(_mm512_add_epi64(first, _mm512_set1_epi64(which as i64)), self)
    }
});

/// 16 scalars whose factors are pairs of bf16, and whose sums are f32: VDPBF16PS, which adds both products of a pair.
#[derive(Clone, Copy)]
pub(crate) struct Pairs(__m512);

impl Lanes for Pairs {
    type Scalar = f32;
    const COUNT: usize = 16;
    const REGISTERS: usize = 32;
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the instruction set is there by the trait's contract.
        Pairs(unsafe { Lanes::splat(x) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: as above, and the pointer is valid by the trait's contract.
        Pairs(unsafe { Lanes::load(from) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: as for `load`.
        unsafe { self.0.store(to) }
    }
    #[inline(always)]
    unsafe fn stream(self, to: *mut f32) {
        // SAFETY: as for `load`.
        unsafe { Lanes::stream(self.0, to) }
    }
    #[inline(always)]
    unsafe fn mul_add(self, a: Self, b: Self) -> Self {
        // SAFETY: as for `splat`; the types hold the same bits.
        unsafe {
            let pairs = |of: Self| std::mem::transmute::<__m512, __m512bh>(of.0);
            Pairs(_mm512_dpbf16_ps(b.0, pairs(self), pairs(a)))
        }
    }
    #[inline(always)]
    unsafe fn mul(self, a: Self) -> Self {
        // SAFETY: as for `splat`.
        Pairs(unsafe { self.0.mul(a.0) })
    }
    #[inline(always)]
    unsafe fn add(self, a: Self) -> Self {
        // SAFETY: as for `splat`.
        Pairs(unsafe { self.0.add(a.0) })
    }
    #[inline(always)]
    unsafe fn max(self, a: Self) -> Self {
        // SAFETY: as for `splat`.
        Pairs(unsafe { self.0.max(a.0) })
    }
    #[inline(always)]
    unsafe fn scaled(self, a: Self) -> Self {
        // SAFETY: as for `splat`.
        Pairs(unsafe { self.0.scaled(a.0) })
    }
}
