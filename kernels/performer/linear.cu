// performer/linear: o_i = phi(q_i) . sum_j phi(k_j) v_j^T / phi(q_i) . sum_j phi(k_j), phi(x)_f = exp(w_f . x - |x|^2 / 2) of x / d^(1/4), as
// attention twice: features attend to the keys, then queries to the features.
//
// Owns:    as fused.cuh says; `gather` has features for rows, `attend` queries.
// Traffic: `gather` stores for each feature the mean of the values and the logarithm of the sum of their weights; `attend` loads both.
// Guards:  keys past the last are hidden; rows past the end repeat the last, and are not stored.
// Changed: from attention/flash: a key has a bias, -|k|^2 / 2 of a key and the logarithm of a feature. Neither sums of phi nor phi itself
//          are ever in memory, and nothing can overflow.

#include "../fused.cuh"

// Of a feature's product with a query or key.
__device__ __forceinline__ float scale_of(const Dims& d) { return LOG2_E * sqrtf(3 / sqrtf(float(d.head_dim))); }

extern "C" __global__ void __launch_bounds__(128) gather(const T* __restrict__ k, // [batch, heads, seq, d]
                                                         const T* __restrict__ v, // [batch, heads, seq, d]
                                                         const T* __restrict__ w, // [features, d]
                                                         S* __restrict__ means,   // [batch, heads, features, d]
                                                         S* __restrict__ logs,    // [batch, heads, features]
                                                         const Dims d) {
    const unsigned tokens = blockIdx.y * d.seq * d.head_dim;
    float* const to = means + blockIdx.y * d.features * d.head_dim;
    float* const sums = logs + blockIdx.y * d.features;
    const float half = -0.5f * LOG2_E / sqrtf(float(d.head_dim));
    const Pass pass = {w, k + tokens, v + tokens, to, d.features, d.seq, d.head_dim, scale_of(d)};
    fused<true>(pass, [=](unsigned, float square) { return half * square; }, [=](unsigned row, float log) { sums[row] = log; });
}

extern "C" __global__ void __launch_bounds__(128) attend(const T* __restrict__ q,     // [batch, heads, seq, d]
                                                         const T* __restrict__ w,     // [features, d]
                                                         T* __restrict__ o,           // [batch, heads, seq, d]
                                                         const S* __restrict__ means, // [batch, heads, features, d]
                                                         const S* __restrict__ logs,  // [batch, heads, features]
                                                         const Dims d) {
    const unsigned queries = blockIdx.y * d.seq * d.head_dim;
    const float* const sums = logs + blockIdx.y * d.features;
    const Pass pass = {q + queries, w, means + blockIdx.y * d.features * d.head_dim, o + queries, d.seq, d.features, d.head_dim, scale_of(d)};
    fused<false>(pass, [=](unsigned key, float) { return sums[key]; }, [](unsigned, float) {});
}
