// ramp/chains: steps of x <- a*x + b between a load and a store; the way up the roof.
//
// A lane owns VECTORS vectors of four elements, BLOCK vectors apart: 16-byte loads and stores over neighbouring lanes, every
// element once each way. The array's last vector, where it is not whole, goes by components. Of every eight lines of four
// vectors the first `longer` take one step more, for intensities that are no whole number of steps an element.
// a and b come from memory, so that nothing can be folded.

static_assert(VECTORS >= 1 && VECTORS <= 8, "vectors live in registers");
static_assert(BLOCK % 32 == 0 && BLOCK <= 1024, "whole warps");

struct alignas(4 * sizeof(T)) Vector {
    T v[4];
};

__device__ __forceinline__ void step(Vector& x, T a, T b) {
#pragma unroll
    for (unsigned c = 0; c < 4; ++c) x.v[c] = a * x.v[c] + b;
}

extern "C" __global__ void __launch_bounds__(BLOCK) ramp(const T* __restrict__ coef, // [2]: a, b
                                                         const T* __restrict__ x,    // [elements]
                                                         T* __restrict__ y,          // [elements]
                                                         const Dims d) {
    // 64 bits, because the last lanes may stand past 2^32.
    const unsigned long long group = (unsigned long long)blockIdx.y * gridDim.x + blockIdx.x;
    const unsigned long long first = group * (BLOCK * VECTORS) + threadIdx.x;
    const unsigned long long whole = d.elements / 4;
    const T a = coef[0], b = coef[1];
    Vector v[VECTORS];
#pragma unroll
    for (unsigned u = 0; u < VECTORS; ++u) {
        const unsigned long long i = first + u * BLOCK;
        if (i < whole) {
            v[u] = reinterpret_cast<const Vector*>(x)[i];
        } else {
#pragma unroll
            for (unsigned c = 0; c < 4; ++c) v[u].v[c] = 4 * i + c < d.elements ? x[4 * i + c] : T(0);
        }
    }
#pragma unroll 4
    for (unsigned s = 0; s < d.steps; ++s) {
#pragma unroll
        for (unsigned u = 0; u < VECTORS; ++u) step(v[u], a, b);
    }
#pragma unroll
    for (unsigned u = 0; u < VECTORS; ++u) {
        const unsigned long long i = first + u * BLOCK;
        if (i / 4 % 8 < d.longer) step(v[u], a, b);
        if (i < whole) {
            reinterpret_cast<Vector*>(y)[i] = v[u];
        } else {
#pragma unroll
            for (unsigned c = 0; c < 4; ++c) {
                if (4 * i + c < d.elements) y[4 * i + c] = v[u].v[c];
            }
        }
    }
}
