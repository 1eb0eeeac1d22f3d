// attention/flash_decode: o = softmax(q . k^T / sqrt(d)) . v for few queries, the keys of a head split over groups.
//
// Owns:    `one` to `ragged`: 128 lanes SPLIT keys and up to ROWS of the queries that share them; D / 8 neighbouring lanes a key at a
//          time, eight columns each. `combine`: 128 lanes one row of the output, a lane one column.
// Traffic: a group loads its keys, then its values, in vectors of 16 bytes, AT_ONCE keys of a lane under way together, each once for all of
//          its rows; its scores stay in shared memory. It stores sums, the largest score and the sum of weights, which `combine` loads.
// Guards:  rows past the end repeat the last one and are not stored; keys that no row of the group sees are not loaded, and weigh nothing;
//          a split of which a row sees nothing leaves zeros under the lowest score.
// Changed: from flash: as many groups as there are splits, not one a head, so that a few queries keep the whole device loading; and all
//          scores of a split are there before it is weighed, so nothing is rescaled. `ragged` loads scalars; the number is the widest head
//          that an entry takes.

static_assert(SPLIT % 64 == 0 && SPLIT <= 512, "whole rounds of all lanes, and scores that fit shared memory");

constexpr unsigned LANES = 128, WARPS = LANES / 32;
constexpr unsigned WIDE = 16 / sizeof(T); // elements of a vector
constexpr unsigned OWN = 8, VECTORS = OWN / WIDE; // columns of a row a lane holds
constexpr unsigned AT_ONCE = 4;
constexpr float HIDDEN = -1e30f;

struct alignas(16) Vector {
    T v[WIDE];
};
struct Columns {
    Vector v[VECTORS];
};

__device__ __forceinline__ unsigned visible(const Dims& d, unsigned row) {
    return d.causal ? row % d.seq_q + 1 + d.seq_kv - d.seq_q : d.seq_kv;
}

// How many of the split's keys lie below `reach`.
__device__ __forceinline__ unsigned within(unsigned reach, unsigned start) { return reach > start ? min(reach - start, unsigned(SPLIT)) : 0; }

// Column of a lane's element e, where ACROSS lanes share a row.
template <unsigned ACROSS> __device__ __forceinline__ unsigned column(unsigned part, unsigned e) {
    return (e / WIDE * ACROSS + part) * WIDE + e % WIDE;
}

// A lane's part of a row; zeros from column d on.
template <unsigned ACROSS, bool WHOLE> __device__ __forceinline__ Columns load(const T* __restrict__ row, unsigned part, unsigned d) {
    Columns x = {};
#pragma unroll
    for (unsigned v = 0; v < VECTORS; ++v) {
        const unsigned at = column<ACROSS>(part, v * WIDE);
        if constexpr (WHOLE) {
            if (at < d) x.v[v] = *reinterpret_cast<const Vector*>(row + at);
        } else {
#pragma unroll
            for (unsigned e = 0; e < WIDE; ++e) {
                if (at + e < d) x.v[v].v[e] = row[at + e];
            }
        }
    }
    return x;
}

template <unsigned D, unsigned ROWS, bool WHOLE>
__device__ __forceinline__ void attend(const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v, S* __restrict__ sums,
                                       S* __restrict__ states, const Dims& d) {
    constexpr unsigned ACROSS = D / OWN, SLOTS = LANES / ACROSS; // lanes of a key, keys of a group
    static_assert(SPLIT % (SLOTS * AT_ONCE) == 0, "whole rounds");
    __shared__ float held[ROWS * (SPLIT > WARPS * D ? SPLIT : WARPS * D)]; // [row, key] of weights, then [warp, row, column] of sums
    const unsigned slot = threadIdx.x / ACROSS, part = threadIdx.x % ACROSS, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    const unsigned all = d.heads / d.kv_heads * d.seq_q, head = blockIdx.z, start = blockIdx.y * SPLIT;
    const unsigned first_row = blockIdx.x * ROWS, last_row = min(first_row + ROWS, all) - 1;
    const unsigned count = within(first_row / d.seq_q == last_row / d.seq_q ? visible(d, last_row) : d.seq_kv, start);
    const T* const keys = k + (head * d.seq_kv + start) * d.head_dim;
    const T* const values = v + (head * d.seq_kv + start) * d.head_dim;

    S query[ROWS][OWN];
#pragma unroll
    for (unsigned i = 0; i < ROWS; ++i) {
        const Columns x = load<ACROSS, WHOLE>(q + (head * all + min(first_row + i, last_row)) * d.head_dim, part, d.head_dim);
#pragma unroll
        for (unsigned e = 0; e < OWN; ++e) query[i][e] = S(x.v[e / WIDE].v[e % WIDE]) * (1.44269504f / sqrtf(float(d.head_dim)));
    }
    for (unsigned first = slot; first < count + slot; first += SLOTS * AT_ONCE) {
        Columns x[AT_ONCE];
#pragma unroll
        for (unsigned u = 0; u < AT_ONCE; ++u) {
            const unsigned key = first + u * SLOTS;
            x[u] = load<ACROSS, WHOLE>(keys + key * d.head_dim, part, key < count ? d.head_dim : 0);
        }
#pragma unroll
        for (unsigned u = 0; u < AT_ONCE; ++u) {
#pragma unroll
            for (unsigned i = 0; i < ROWS; ++i) {
                S score = 0;
#pragma unroll
                for (unsigned e = 0; e < OWN; ++e) score = fmaf(query[i][e], S(x[u].v[e / WIDE].v[e % WIDE]), score);
#pragma unroll
                for (unsigned mask = 1; mask < ACROSS; mask *= 2) score += __shfl_xor_sync(0xffffffffu, score, mask);
                if (part == 0) held[i * SPLIT + first + u * SLOTS] = score;
            }
        }
    }
    __syncthreads(); // all scores are there

    const unsigned splits = gridDim.y;
    for (unsigned i = warp; i < ROWS; i += WARPS) {
        const unsigned seen = within(visible(d, min(first_row + i, last_row)), start);
        float largest = HIDDEN, total = 0;
        for (unsigned key = lane; key < seen; key += 32) largest = fmaxf(largest, held[i * SPLIT + key]);
#pragma unroll
        for (unsigned mask = 1; mask < 32; mask *= 2) largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, mask));
        for (unsigned key = lane; key < SPLIT; key += 32) {
            const float weight = key < seen ? exp2f(held[i * SPLIT + key] - largest) : 0;
            held[i * SPLIT + key] = weight;
            total += weight;
        }
#pragma unroll
        for (unsigned mask = 1; mask < 32; mask *= 2) total += __shfl_xor_sync(0xffffffffu, total, mask);
        if (lane == 0 && first_row + i < all) {
            S* const state = states + ((head * all + first_row + i) * splits + blockIdx.y) * 2;
            state[0] = largest;
            state[1] = total;
        }
    }
    __syncthreads(); // all weights are there

    S sum[ROWS][OWN] = {};
    for (unsigned first = slot; first < count + slot; first += SLOTS * AT_ONCE) {
        Columns x[AT_ONCE];
#pragma unroll
        for (unsigned u = 0; u < AT_ONCE; ++u) {
            const unsigned key = first + u * SLOTS;
            x[u] = load<ACROSS, WHOLE>(values + key * d.head_dim, part, key < count ? d.head_dim : 0);
        }
#pragma unroll
        for (unsigned u = 0; u < AT_ONCE; ++u) {
#pragma unroll
            for (unsigned i = 0; i < ROWS; ++i) {
                const S weight = held[i * SPLIT + first + u * SLOTS];
#pragma unroll
                for (unsigned e = 0; e < OWN; ++e) sum[i][e] = fmaf(weight, S(x[u].v[e / WIDE].v[e % WIDE]), sum[i][e]);
            }
        }
    }
    __syncthreads(); // nobody reads weights any more
#pragma unroll
    for (unsigned i = 0; i < ROWS; ++i) {
#pragma unroll
        for (unsigned e = 0; e < OWN; ++e) {
            S own = sum[i][e];
#pragma unroll
            for (unsigned mask = ACROSS; mask < 32; mask *= 2) own += __shfl_xor_sync(0xffffffffu, own, mask);
            if (lane < ACROSS) held[(warp * ROWS + i) * D + column<ACROSS>(part, e)] = own;
        }
    }
    __syncthreads(); // sums of all warps are there
    for (unsigned i = threadIdx.x; i < ROWS * D; i += LANES) {
        const unsigned row = first_row + i / D, c = i % D;
        S whole = 0;
#pragma unroll
        for (unsigned w = 0; w < WARPS; ++w) whole += held[w * ROWS * D + i];
        if (row < all && c < d.head_dim) sums[((head * all + row) * splits + blockIdx.y) * d.head_dim + c] = whole;
    }
}

// q: [batch, heads, seq_q, d]; k, v: [batch, kv_heads, seq_kv, d]; sums: [batch, heads, seq_q, splits, d]; states: a row's splits by two,
// the largest score and the sum of weights.
#define ENTRY(name, widest, rows, whole)                                                                                            \
    extern "C" __global__ void __launch_bounds__(LANES, rows == 8 ? 3 : 4)                                                          \
        name(const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v, S* __restrict__ sums, S* __restrict__ states, \
             const Dims d) {                                                                                                        \
        attend<widest, rows, whole>(q, k, v, sums, states, d);                                                                      \
    }
ENTRY(one64, 64, 1, true)
ENTRY(one128, 128, 1, true)
ENTRY(four64, 64, 4, true)
ENTRY(four128, 128, 4, true)
ENTRY(eight64, 64, 8, true)
ENTRY(eight128, 128, 8, true)
ENTRY(ragged64, 64, 4, false)
ENTRY(ragged128, 128, 4, false)

extern "C" __global__ void __launch_bounds__(LANES) combine(T* __restrict__ o,            // [batch, heads, seq_q, d]
                                                            const S* __restrict__ sums,   // [batch, heads, seq_q, splits, d]
                                                            const S* __restrict__ states, // [batch, heads, seq_q, splits, 2]
                                                            const Dims d) {
    const unsigned row = blockIdx.y * gridDim.x + blockIdx.x, c = threadIdx.x;
    if (row >= d.batch * d.heads * d.seq_q || c >= d.head_dim) return;
    const unsigned splits = (d.seq_kv + SPLIT - 1) / SPLIT;
    const S* const own = states + row * splits * 2;
    S largest = HIDDEN, total = 0, sum = 0;
#pragma unroll 8
    for (unsigned i = 0; i < splits; ++i) largest = fmaxf(largest, own[2 * i]);
#pragma unroll 8
    for (unsigned i = 0; i < splits; ++i) {
        const S share = exp2f(own[2 * i] - largest);
        total = fmaf(share, own[2 * i + 1], total);
        sum = fmaf(share, sums[(row * splits + i) * d.head_dim + c], sum);
    }
    o[row * d.head_dim + c] = T(sum / total);
}
