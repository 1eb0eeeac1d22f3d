// linformer/linear: o = softmax(q . (e . k)^T / sqrt(d)) . (f . v) in two launches, projected keys and values in memory between them.
//
// Owns:    `project`: a 16 x 8 group 32 rows x 64 columns of a head's projected keys or values, a lane every eighth row and one vector of
//          four. `attend`: as fused.cuh says.
// Traffic: `project`: for every STEPS positions a group loads 32 rows of e or f and 64 columns of keys or values, once.
// Guards:  what lies past an edge is zeros in the tiles and not stored; keys past the last are hidden; queries past the end repeat the last.
// Changed: from attention/flash: `rank` keys in place of `seq`, whatever seq is.

#include "../fused.cuh"

constexpr unsigned STEPS = 32, WIDTH = STEPS + 1; // positions of a tile, and words of its rows: lanes of a warp meet different banks

extern "C" __global__ void __launch_bounds__(128) project(const T* __restrict__ k,   // [batch, heads, seq, d]
                                                          const T* __restrict__ v,   // [batch, heads, seq, d]
                                                          const T* __restrict__ e,   // [rank, seq]
                                                          const T* __restrict__ f,   // [rank, seq]
                                                          S* __restrict__ to_keys,   // [batch, heads, rank, d]
                                                          S* __restrict__ to_values, // [batch, heads, rank, d]
                                                          const Dims d) {
    __shared__ float left[ROWS * WIDTH];  // [row, position]
    __shared__ float4 right[STEPS * 16]; // [position, column]
    const unsigned tx = threadIdx.x, ty = threadIdx.y, me = ty * 16 + tx;
    const unsigned heads = d.batch * d.heads, head = blockIdx.z % heads;
    const bool values = blockIdx.z >= heads;
    const float* const rows = (values ? f : e);
    const float* const from = (values ? v : k) + head * d.seq * d.head_dim;
    float* const to = (values ? to_values : to_keys) + head * d.rank * d.head_dim;
    float4 sum[TM];
#pragma unroll
    for (unsigned i = 0; i < TM; ++i) sum[i] = {0, 0, 0, 0};
    for (unsigned first = 0; first < d.seq; first += STEPS) {
        __syncthreads(); // nobody reads the last tiles any more
        for (unsigned at = me; at < ROWS * STEPS; at += 128) {
            const unsigned row = blockIdx.y * ROWS + at / STEPS, step = first + at % STEPS;
            left[at / STEPS * WIDTH + at % STEPS] = row < d.rank && step < d.seq ? rows[row * d.seq + step] : 0;
        }
        for (unsigned at = me; at < STEPS * 16; at += 128) {
            const unsigned step = first + at / 16;
            float4 x = {0, 0, 0, 0};
            if (step < d.seq) x = load4(from + step * d.head_dim, blockIdx.x * 16 + at % 16, d.head_dim);
            right[at] = x;
        }
        __syncthreads(); // both tiles are whole
#pragma unroll 4
        for (unsigned p = 0; p < STEPS; ++p) {
            const float4 x = right[p * 16 + tx];
#pragma unroll
            for (unsigned i = 0; i < TM; ++i) add(sum[i], left[(ty + 8 * i) * WIDTH + p], x);
        }
    }
    const float unit = sqrtf(3 / float(d.seq)); // what an element of e or f counts
#pragma unroll
    for (unsigned i = 0; i < TM; ++i) {
        const unsigned row = blockIdx.y * ROWS + ty + 8 * i;
        if (row >= d.rank) continue;
        const float4 s = {unit * sum[i].x, unit * sum[i].y, unit * sum[i].z, unit * sum[i].w};
        store4(to + row * d.head_dim, blockIdx.x * 16 + tx, d.head_dim, s);
    }
}

extern "C" __global__ void __launch_bounds__(128) attend(const T* __restrict__ q,      // [batch, heads, seq, d]
                                                         T* __restrict__ o,            // [batch, heads, seq, d]
                                                         const S* __restrict__ keys,   // [batch, heads, rank, d]
                                                         const S* __restrict__ values, // [batch, heads, rank, d]
                                                         const Dims d) {
    const unsigned queries = blockIdx.y * d.seq * d.head_dim, projected = blockIdx.y * d.rank * d.head_dim;
    const float scale = LOG2_E / sqrtf(float(d.head_dim));
    const Pass pass = {q + queries, keys + projected, values + projected, o + queries, d.seq, d.rank, d.head_dim, scale};
    fused<false>(pass, [](unsigned, float) { return 0.0f; }, [](unsigned, float) {});
}
