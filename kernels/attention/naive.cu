// attention/naive: o = softmax(q . k^T / sqrt(d)) . v in three launches, with the scores of all pairs in memory between them.
//
// Owns:    `scores` and `weighted`: a 16 x 16 group a tile of scores or outputs of one head, a lane one element; `softmax`: a group of
//          64 lanes one row of scores, which stay where they are.
// Traffic: a score loads a query and a key, an output a row of weights and a column of V; softmax loads its row three times and stores it
//          twice.
// Guards:  lanes past the edge leave; pairs that causality hides are computed and get the lowest score.
// Changed: the plain formula, on which `flash` improves.

constexpr S HIDDEN = S(-1e30);

// First element of the keys or values that a head (over all sequences) looks at.
__device__ __forceinline__ unsigned keys_of(const Dims& d, unsigned head) {
    return head / (d.heads / d.kv_heads) * d.seq_kv * d.head_dim;
}

extern "C" __global__ void __launch_bounds__(256) scores(const T* __restrict__ q, // [batch, heads, seq_q, d]
                                                         const T* __restrict__ k, // [batch, kv_heads, seq_kv, d]
                                                         T* __restrict__ s,       // [batch, heads, seq_q, seq_kv]
                                                         const Dims d) {
    const unsigned key = blockIdx.x * 16 + threadIdx.x;
    const unsigned query = blockIdx.y * 16 + threadIdx.y;
    if (key >= d.seq_kv || query >= d.seq_q) return;
    const unsigned row = blockIdx.z * d.seq_q + query;
    const T* own = q + row * d.head_dim;
    const T* other = k + keys_of(d, blockIdx.z) + key * d.head_dim;
    S sum = 0;
    for (unsigned c = 0; c < d.head_dim; ++c) sum += S(own[c]) * S(other[c]);
    const bool hidden = d.causal && key > query + d.seq_kv - d.seq_q;
    s[row * d.seq_kv + key] = T(hidden ? HIDDEN : sum / sqrtf(S(d.head_dim)));
}

// What two warps hold, folded, to all of their lanes.
template <class Fold> __device__ __forceinline__ S over_lanes(S own, Fold fold) {
    __shared__ S part[2];
    for (int mask = 16; mask > 0; mask /= 2) own = fold(own, __shfl_xor_sync(0xffffffffu, own, mask));
    __syncthreads();
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = own;
    __syncthreads();
    return fold(part[0], part[1]);
}

extern "C" __global__ void __launch_bounds__(64) softmax(T* __restrict__ s, // [batch, heads, seq_q, seq_kv]
                                                         const Dims d) {
    const unsigned row = blockIdx.y * gridDim.x + blockIdx.x;
    if (row >= d.batch * d.heads * d.seq_q) return;
    T* own = s + (unsigned long long)row * d.seq_kv;
    S largest = HIDDEN;
    for (unsigned key = threadIdx.x; key < d.seq_kv; key += 64) largest = fmaxf(largest, S(own[key]));
    largest = over_lanes(largest, [](S a, S b) { return fmaxf(a, b); });
    S sum = 0;
    for (unsigned key = threadIdx.x; key < d.seq_kv; key += 64) {
        const S weight = expf(S(own[key]) - largest);
        own[key] = T(weight);
        sum += weight;
    }
    sum = over_lanes(sum, [](S a, S b) { return a + b; });
    for (unsigned key = threadIdx.x; key < d.seq_kv; key += 64) own[key] = T(S(own[key]) / sum);
}

extern "C" __global__ void __launch_bounds__(256) weighted(const T* __restrict__ v, // [batch, kv_heads, seq_kv, d]
                                                           T* __restrict__ o,       // [batch, heads, seq_q, d]
                                                           const T* __restrict__ s, // [batch, heads, seq_q, seq_kv]
                                                           const Dims d) {
    const unsigned c = blockIdx.x * 16 + threadIdx.x;
    const unsigned query = blockIdx.y * 16 + threadIdx.y;
    if (c >= d.head_dim || query >= d.seq_q) return;
    const unsigned row = blockIdx.z * d.seq_q + query;
    const T* values = v + keys_of(d, blockIdx.z) + c;
    S sum = 0;
    for (unsigned key = 0; key < d.seq_kv; ++key) sum += S(s[row * d.seq_kv + key]) * S(values[key * d.head_dim]);
    o[row * d.head_dim + c] = T(sum);
}
