// fma/chains: x <- a*x + b, CHAINS independent chains a lane, all in registers; the compute ceiling.
//
// Chain c of lane l is element c * lanes + l with lanes = ceil(elements / CHAINS), so loads and stores are contiguous over lanes.
// a, b and the growth of b come from memory, so that nothing can be folded; b grows once a trip, so that the result tells how
// many trips were run. The inner loop holds 8 * CHAINS multiply-adds before unrolling, which hides its own counting.

static_assert(CHAINS >= 1 && CHAINS <= 32, "chains live in registers");
static_assert(BLOCK % 32 == 0 && BLOCK <= 1024, "whole warps");

extern "C" __global__ void __launch_bounds__(BLOCK) chains(const T* __restrict__ coef, // [3]: a, b, growth of b
                                                           const T* __restrict__ x,    // [elements]
                                                           T* __restrict__ y,          // [elements]
                                                           const Dims d) {
    // 64 bits, because the last chain of the last lane may stand past 2^32.
    const unsigned long long lane = (unsigned long long)(blockIdx.y * gridDim.x + blockIdx.x) * BLOCK + threadIdx.x;
    const unsigned long long lanes = ((unsigned long long)d.elements + CHAINS - 1) / CHAINS;
    if (lane >= lanes) return;
    const T a = coef[0], growth = coef[2];
    T b = coef[1];
    T v[CHAINS];
#pragma unroll
    for (unsigned c = 0; c < CHAINS; ++c) {
        v[c] = c * lanes + lane < d.elements ? x[c * lanes + lane] : T(0);
    }
    for (unsigned trip = 0; trip < d.trips; ++trip) {
#pragma unroll 4
        for (unsigned step = 0; step < d.steps; step += 8) {
#pragma unroll
            for (unsigned u = 0; u < 8; ++u) {
#pragma unroll
                for (unsigned c = 0; c < CHAINS; ++c) v[c] = a * v[c] + b;
            }
        }
        b += growth;
    }
#pragma unroll
    for (unsigned c = 0; c < CHAINS; ++c) {
        if (c * lanes + lane < d.elements) y[c * lanes + lane] = v[c];
    }
}
