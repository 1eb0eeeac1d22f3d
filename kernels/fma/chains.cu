// fma/chains: x <- a*x + b, independent chains, all in registers; the compute ceiling.
//
// A lane holds CHAINS registers: of f32 and f64 a chain each, of f16 two, which one instruction takes together. With WIDE chains a
// register, chain e of lane l is element e * lanes + l with lanes = ceil(elements / (CHAINS * WIDE)), so loads and stores are
// contiguous over lanes. a, b and the growth of b come from memory, so that nothing can be folded; b grows once a trip, so that the
// result tells how many trips were run. The inner loop holds 8 * CHAINS instructions before unrolling, which hides its own counting.

static_assert(CHAINS >= 1 && CHAINS <= 32, "chains live in registers");
static_assert(BLOCK % 32 == 0 && BLOCK <= 1024, "whole warps");

#ifndef CUDACPU // the shim that runs sources on a CPU brings its own
// a * x + b in both halves, each rounded once. PTX, so that no header is needed.
__device__ __forceinline__ unsigned fma_pair(unsigned a, unsigned x, unsigned b) {
    unsigned y;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(y) : "r"(a), "r"(x), "r"(b));
    return y;
}
#endif

// A register of chains: one.
template <class N, unsigned BYTES = sizeof(N)> struct Register {
    N x = N(0);
    __device__ __forceinline__ void put(unsigned, N from) { x = from; }
    __device__ __forceinline__ N get(unsigned) const { return x; }
    __device__ __forceinline__ void disguise() {}
    __device__ __forceinline__ void step(const Register& a, const Register& b) { x = a.x * x + b.x; }
    __device__ __forceinline__ void grow(const Register& by) { x += by.x; }
};

// Two of f16, the first in the lower half.
template <class N> struct Register<N, 2> {
    unsigned both = 0;
    __device__ __forceinline__ void put(unsigned half, N from) { both |= (unsigned)from.bits << 16 * half; }
    __device__ __forceinline__ N get(unsigned half) const {
        N x;
        x.bits = (unsigned short)(both >> 16 * half);
        return x;
    }
    // The same number, of which the assembler knows neither that all lanes have it nor that its halves are alike: one of the two pipes for
    // pairs takes no such operand, and all products would go to the other.
    __device__ __forceinline__ void disguise() { both = __shfl_xor_sync(0xffffffffu, both, 1); }
    __device__ __forceinline__ void step(const Register& a, const Register& b) { both = fma_pair(a.both, both, b.both); }
    __device__ __forceinline__ void grow(const Register& by) { both = fma_pair(by.both, 0x3c003c00u, both); } // times one
};

constexpr unsigned WIDE = sizeof(T) == 2 ? 2 : 1; // chains of a register

// One number for every chain of a register.
__device__ __forceinline__ Register<T> spread(T x) {
    Register<T> all;
#pragma unroll
    for (unsigned e = 0; e < WIDE; ++e) all.put(e, x);
    return all;
}

extern "C" __global__ void __launch_bounds__(BLOCK) chains(const T* __restrict__ coef, // [3]: a, b, growth of b
                                                           const T* __restrict__ x,    // [elements]
                                                           T* __restrict__ y,          // [elements]
                                                           const Dims d) {
    // 64 bits, because the last chain of the last lane may stand past 2^32.
    const unsigned long long lane = (unsigned long long)(blockIdx.y * gridDim.x + blockIdx.x) * BLOCK + threadIdx.x;
    const unsigned long long lanes = ((unsigned long long)d.elements + CHAINS * WIDE - 1) / (CHAINS * WIDE);
    Register<T> a = spread(coef[0]);
    a.disguise(); // all lanes of a warp
    if (lane >= lanes) return;
    const Register<T> growth = spread(coef[2]);
    Register<T> b = spread(coef[1]);
    Register<T> v[CHAINS];
#pragma unroll
    for (unsigned e = 0; e < CHAINS * WIDE; ++e) {
        if (e * lanes + lane < d.elements) v[e / WIDE].put(e % WIDE, x[e * lanes + lane]);
    }
    for (unsigned trip = 0; trip < d.trips; ++trip) {
#pragma unroll 4
        for (unsigned step = 0; step < d.steps; step += 8) {
#pragma unroll
            for (unsigned u = 0; u < 8; ++u) {
#pragma unroll
                for (unsigned c = 0; c < CHAINS; ++c) v[c].step(a, b);
            }
        }
        b.grow(growth);
    }
#pragma unroll
    for (unsigned e = 0; e < CHAINS * WIDE; ++e) {
        if (e * lanes + lane < d.elements) y[e * lanes + lane] = v[e / WIDE].get(e % WIDE);
    }
}
