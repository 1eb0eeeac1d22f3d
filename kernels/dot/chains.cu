// dot/chains: s <- s + a . b over four 8-bit integers, CHAINS independent sums a lane, all in registers; the ceiling of 8-bit integer
// products on vector units.
//
// Chain c of lane l is element c * lanes + l with lanes = ceil(elements / CHAINS), so loads and stores are contiguous over lanes.
// a, b and the growth of b come from memory, so that nothing can be folded; b grows once a trip, each of its bytes by its own share,
// none of which reaches 128. Sums are exact in 32 bits, so the result tells trips and steps alike.

static_assert(CHAINS >= 1 && CHAINS <= 32, "chains live in registers");
static_assert(BLOCK % 32 == 0 && BLOCK <= 1024, "whole warps");

#ifndef CUDACPU // the shim that runs sources on a CPU brings its own
// s + a . b over the four signed bytes of a and b. PTX, so that no header is needed.
__device__ __forceinline__ S dot_of_four(unsigned a, unsigned b, S s) {
    asm("dp4a.s32.s32 %0, %1, %2, %0;" : "+r"(s) : "r"(a), "r"(b));
    return s;
}
#endif

extern "C" __global__ void __launch_bounds__(BLOCK) chains(const T* __restrict__ coef, // [3, 4]: a, b, growth of b
                                                           const T* __restrict__ x,    // [elements]
                                                           S* __restrict__ y,          // [elements]
                                                           const Dims d) {
    // 64 bits, because the last chain of the last lane may stand past 2^32.
    const unsigned long long lane = (unsigned long long)(blockIdx.y * gridDim.x + blockIdx.x) * BLOCK + threadIdx.x;
    const unsigned long long lanes = ((unsigned long long)d.elements + CHAINS - 1) / CHAINS;
    if (lane >= lanes) return;
    const unsigned* const words = reinterpret_cast<const unsigned*>(coef);
    const unsigned a = words[0], growth = words[2];
    unsigned b = words[1];
    S s[CHAINS];
#pragma unroll
    for (unsigned c = 0; c < CHAINS; ++c) {
        s[c] = c * lanes + lane < d.elements ? x[c * lanes + lane] : 0;
    }
    for (unsigned trip = 0; trip < d.trips; ++trip) {
#pragma unroll 4
        for (unsigned step = 0; step < d.steps; step += 8) {
#pragma unroll
            for (unsigned u = 0; u < 8; ++u) {
#pragma unroll
                for (unsigned c = 0; c < CHAINS; ++c) s[c] = dot_of_four(a, b, s[c]);
            }
        }
        b += growth;
    }
#pragma unroll
    for (unsigned c = 0; c < CHAINS; ++c) {
        if (c * lanes + lane < d.elements) y[c * lanes + lane] = s[c];
    }
}
