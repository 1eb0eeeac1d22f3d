// Numbers of 16 and 8 bits: storage only; sums are of floats. Stands before every source that stores them, so that no header is needed.

#ifndef CUDACPU // the shim that runs sources on a CPU has conversions of its own
__device__ __forceinline__ float half_to_float(unsigned short bits) {
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
}
__device__ __forceinline__ unsigned short half_of_float(float x) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}
__device__ __forceinline__ float float_of_bits(unsigned bits) { return __uint_as_float(bits); }
__device__ __forceinline__ unsigned bits_of_float(float x) { return __float_as_uint(x); }
#endif

// IEEE binary16.
struct Half {
    unsigned short bits;
    Half() = default;
    __device__ __forceinline__ explicit Half(float x) : bits(half_of_float(x)) {}
    __device__ __forceinline__ explicit operator float() const { return half_to_float(bits); }
};

// The upper half of a binary32, rounded to nearest even; in integers where the device has no instruction for it.
struct Brain {
    unsigned short bits;
    Brain() = default;
    __device__ __forceinline__ explicit Brain(float x) {
#if !defined(CUDACPU) && __CUDA_ARCH__ >= 800
        asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
#else
        const unsigned u = bits_of_float(x);
        bits = x == x ? (u + 0x7fff + (u >> 16 & 1)) >> 16 : 0x7fff;
#endif
    }
    __device__ __forceinline__ explicit operator float() const { return float_of_bits((unsigned)bits << 16); }
};

// E4M3, as it lies in memory: matrix units take it so. No infinities, and all seven bits of a magnitude set are no number.
struct Float8 {
    unsigned char bits;
    // Four bits of exponent and three of fraction are those of a binary32 that is 2^120 times too small.
    __device__ __forceinline__ explicit operator float() const {
        const unsigned sign = (unsigned)(bits & 0x80) << 24, magnitude = bits & 0x7f;
        return magnitude == 0x7f ? float_of_bits(0x7fc00000) : float_of_bits(sign | magnitude << 20) * float_of_bits(0x7b800000);
    }
};

