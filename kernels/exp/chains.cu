// exp/chains: independent chains x <- 2^-(x + b), CHAINS of them a lane, all in registers; the ceiling of exponentials.
//
// Chain c of lane l is element c * lanes + l with lanes = ceil(elements / CHAINS), so loads and stores are contiguous over lanes.
// b and its growth come from memory, so that nothing can be folded; b grows once a trip, so that the result tells how many trips
// were run. exp2f is what attention/flash calls.

static_assert(CHAINS >= 1 && CHAINS <= 32, "chains live in registers");
static_assert(BLOCK % 32 == 0 && BLOCK <= 1024, "whole warps");

extern "C" __global__ void __launch_bounds__(BLOCK) powers(const T* __restrict__ coef, // [2]: b, its growth
                                                           const T* __restrict__ x,    // [elements]
                                                           T* __restrict__ y,          // [elements]
                                                           const Dims d) {
    // 64 bits, because the last chain of the last lane may stand past 2^32.
    const unsigned long long lane = (unsigned long long)(blockIdx.y * gridDim.x + blockIdx.x) * BLOCK + threadIdx.x;
    const unsigned long long lanes = ((unsigned long long)d.elements + CHAINS - 1) / CHAINS;
    if (lane >= lanes) return;
    const T growth = coef[1];
    T b = coef[0];
    T v[CHAINS];
#pragma unroll
    for (unsigned c = 0; c < CHAINS; ++c) {
        v[c] = c * lanes + lane < d.elements ? x[c * lanes + lane] : T(0);
    }
    for (unsigned trip = 0; trip < d.trips; ++trip) {
        for (unsigned step = 0; step < d.steps; step += 4) {
#pragma unroll
            for (unsigned u = 0; u < 4; ++u) {
#pragma unroll
                for (unsigned c = 0; c < CHAINS; ++c) v[c] = exp2f(-(v[c] + b));
            }
        }
        b += growth;
    }
#pragma unroll
    for (unsigned c = 0; c < CHAINS; ++c) {
        if (c * lanes + lane < d.elements) y[c * lanes + lane] = v[c];
    }
}
