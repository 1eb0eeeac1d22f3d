// attention/flash: o = softmax(q . k^T / sqrt(d)) . v in one launch that keeps no scores.
//
// Owns:    a 16 x 8 group 8 * TM rows of the queries that share keys, every eighth a lane's; of these rows a lane scores every sixteenth
//          key of a tile and sums every sixteenth vector of four outputs, which stay in registers until the end.
// Traffic: for every tile of BK keys a group loads BK rows of K, then of V, into the same shared memory, and every lane its queries from
//          memory, where the first-level cache has them. Weights go through shared memory. Vectors of a tile are swizzled by their row
//          (of weights by twice its parity), so that lanes which load together meet no bank twice. At the end outputs are stored.
// Guards:  rows past the end repeat the last one and are not stored; keys past the last that a row of the group sees are zeros in the
//          tile, are hidden, and are not loaded; tiles behind it are not visited. Columns past d are zeros.
// Changed: from naive: no scores in memory. When a larger score appears, sums and outputs so far shrink by 2^(old - new); queries are
//          scaled by log2(e) / sqrt(d), so that weights are powers of two. `whole` needs d divisible by four, `ragged` loads scalars;
//          the number is the widest head that an entry takes.

static_assert(sizeof(T) == 4 && sizeof(S) == 4, "vectors of four f32");
static_assert(TM == 4 || TM == 8, "rows of a lane");
static_assert(BK == 32 || BK == 64, "keys of a tile");

constexpr unsigned BQ = 8 * TM;
constexpr unsigned PER = BK / 16; // keys of a tile a lane scores
constexpr float HIDDEN = -1e30f;

__device__ __forceinline__ unsigned visible(const Dims& d, unsigned row) {
    return d.causal ? row % d.seq_q + 1 + d.seq_kv - d.seq_q : d.seq_kv;
}

// Columns 4 * c to 4 * c + 3 of a row of d elements.
template <bool WHOLE> __device__ __forceinline__ float4 load4(const T* __restrict__ row, unsigned c, unsigned d) {
    if (WHOLE) return *reinterpret_cast<const float4*>(row + 4 * c);
    float4 v = {0, 0, 0, 0};
    if (4 * c < d) v.x = row[4 * c];
    if (4 * c + 1 < d) v.y = row[4 * c + 1];
    if (4 * c + 2 < d) v.z = row[4 * c + 2];
    if (4 * c + 3 < d) v.w = row[4 * c + 3];
    return v;
}

template <bool WHOLE> __device__ __forceinline__ void store4(T* __restrict__ row, unsigned c, unsigned d, float4 v) {
    if (WHOLE) {
        *reinterpret_cast<float4*>(row + 4 * c) = v;
        return;
    }
    row[4 * c] = v.x;
    if (4 * c + 1 < d) row[4 * c + 1] = v.y;
    if (4 * c + 2 < d) row[4 * c + 2] = v.z;
    if (4 * c + 3 < d) row[4 * c + 3] = v.w;
}

__device__ __forceinline__ void add(float4& sum, float weight, float4 v) {
    sum.x = fmaf(weight, v.x, sum.x);
    sum.y = fmaf(weight, v.y, sum.y);
    sum.z = fmaf(weight, v.z, sum.z);
    sum.w = fmaf(weight, v.w, sum.w);
}

// Keys `first` to `first + BK` of K or V into the tile; zeros behind the last that is seen and behind column d.
template <unsigned D, bool WHOLE>
__device__ __forceinline__ void fill(float4* tile, const T* __restrict__ from, unsigned first, unsigned reach, unsigned d) {
    constexpr unsigned QUADS = D / 4;
    for (unsigned at = threadIdx.y * 16 + threadIdx.x; at < BK * QUADS; at += 128) {
        const unsigned key = at / QUADS, c = at % QUADS;
        float4 v = {0, 0, 0, 0};
        if (first + key < reach && 4 * c < d) v = load4<WHOLE>(from + (first + key) * d, c, d);
        tile[key * QUADS + (c ^ key % 8)] = v;
    }
}

template <unsigned D, bool WHOLE>
__device__ __forceinline__ void attend(const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v, T* __restrict__ o,
                                       const Dims& d) {
    constexpr unsigned QUADS = D / 4;
    constexpr unsigned COLS = QUADS / 16; // vectors of a row a lane sums
    __shared__ float4 tile[BK * QUADS];     // [key, column]
    __shared__ float4 weights[BQ * BK / 4]; // [row, key]
    const unsigned tx = threadIdx.x, ty = threadIdx.y;
    const unsigned all = d.heads / d.kv_heads * d.seq_q;
    // The last rows see most keys: their groups come first.
    const unsigned first_row = ((all - 1) / BQ - blockIdx.x) * BQ;
    const unsigned last_row = min(first_row + BQ, all) - 1;
    const unsigned reach = first_row / d.seq_q == last_row / d.seq_q ? visible(d, last_row) : d.seq_kv;
    const T* queries = q + blockIdx.y * all * d.head_dim;
    const T* keys = k + blockIdx.y * d.seq_kv * d.head_dim;
    const T* values = v + blockIdx.y * d.seq_kv * d.head_dim;
    const float scale = 1.44269504f / sqrtf(float(d.head_dim));
    float largest[TM], total[TM];
    float4 sum[TM][COLS];
#pragma unroll
    for (unsigned i = 0; i < TM; ++i) {
        largest[i] = HIDDEN;
        total[i] = 0;
#pragma unroll
        for (unsigned j = 0; j < COLS; ++j) sum[i][j] = {0, 0, 0, 0};
    }
    for (unsigned first = 0; first < reach; first += BK) {
        __syncthreads();
        fill<D, WHOLE>(tile, keys, first, reach, d.head_dim);
        __syncthreads();
        float score[TM][PER];
#pragma unroll
        for (unsigned i = 0; i < TM; ++i) {
#pragma unroll
            for (unsigned j = 0; j < PER; ++j) score[i][j] = 0;
        }
#pragma unroll 2
        for (unsigned c = 0; c < (d.head_dim + 3) / 4; ++c) {
            float4 key[PER];
#pragma unroll
            for (unsigned j = 0; j < PER; ++j) key[j] = tile[(tx + 16 * j) * QUADS + (c ^ tx % 8)];
#pragma unroll
            for (unsigned i = 0; i < TM; ++i) {
                const unsigned row = min(first_row + ty + 8 * i, last_row);
                const float4 query = load4<WHOLE>(queries + row * d.head_dim, c, d.head_dim);
#pragma unroll
                for (unsigned j = 0; j < PER; ++j) {
                    float s = score[i][j];
                    s = fmaf(query.x, key[j].x, s);
                    s = fmaf(query.y, key[j].y, s);
                    s = fmaf(query.z, key[j].z, s);
                    score[i][j] = fmaf(query.w, key[j].w, s);
                }
            }
        }
#pragma unroll
        for (unsigned i = 0; i < TM; ++i) {
            const unsigned line = ty + 8 * i;
            const unsigned seen = visible(d, min(first_row + line, last_row));
            float most = largest[i];
#pragma unroll
            for (unsigned j = 0; j < PER; ++j) {
                score[i][j] = first + tx + 16 * j < seen ? score[i][j] * scale : HIDDEN;
                most = fmaxf(most, score[i][j]);
            }
            // A row's sixteen lanes are one half of a warp.
#pragma unroll
            for (int mask = 8; mask > 0; mask /= 2) most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, mask));
            const float shrunk = exp2f(largest[i] - most);
            largest[i] = most;
            total[i] *= shrunk;
#pragma unroll
            for (unsigned j = 0; j < COLS; ++j) {
                sum[i][j] = {sum[i][j].x * shrunk, sum[i][j].y * shrunk, sum[i][j].z * shrunk, sum[i][j].w * shrunk};
            }
#pragma unroll
            for (unsigned j = 0; j < PER; ++j) {
                const unsigned key = tx + 16 * j;
                const float weight = exp2f(score[i][j] - most);
                total[i] += weight;
                reinterpret_cast<float*>(weights)[line * BK + ((key / 4 ^ line % 2 * 4) * 4 + key % 4)] = weight;
            }
        }
        __syncthreads();
        fill<D, WHOLE>(tile, values, first, reach, d.head_dim);
        __syncthreads();
#pragma unroll 2
        for (unsigned quad = 0; quad < BK / 4; ++quad) {
            float4 value[4][COLS];
#pragma unroll
            for (unsigned n = 0; n < 4; ++n) {
                const unsigned key = quad * 4 + n;
#pragma unroll
                for (unsigned j = 0; j < COLS; ++j) value[n][j] = tile[key * QUADS + ((tx + 16 * j) ^ key % 8)];
            }
#pragma unroll
            for (unsigned i = 0; i < TM; ++i) {
                const unsigned line = ty + 8 * i;
                const float4 weight = weights[line * (BK / 4) + (quad ^ line % 2 * 4)];
#pragma unroll
                for (unsigned j = 0; j < COLS; ++j) {
                    add(sum[i][j], weight.x, value[0][j]);
                    add(sum[i][j], weight.y, value[1][j]);
                    add(sum[i][j], weight.z, value[2][j]);
                    add(sum[i][j], weight.w, value[3][j]);
                }
            }
        }
    }
#pragma unroll
    for (unsigned i = 0; i < TM; ++i) {
#pragma unroll
        for (int mask = 8; mask > 0; mask /= 2) total[i] += __shfl_xor_sync(0xffffffffu, total[i], mask);
        const unsigned row = first_row + ty + 8 * i;
        if (row > last_row) continue;
        T* out = o + (blockIdx.y * all + row) * d.head_dim;
#pragma unroll
        for (unsigned j = 0; j < COLS; ++j) {
            const unsigned c = tx + 16 * j;
            const float4 s = sum[i][j];
            if (4 * c < d.head_dim) store4<WHOLE>(out, c, d.head_dim, {s.x / total[i], s.y / total[i], s.z / total[i], s.w / total[i]});
        }
    }
}

// q, o: [batch, heads, seq_q, d]; k, v: [batch, kv_heads, seq_kv, d].
#define ENTRY(name, widest, whole)                                                                                                  \
    extern "C" __global__ void __launch_bounds__(128, 2)                                                                             \
        name(const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v, T* __restrict__ o, const Dims d) {          \
        attend<widest, whole>(q, k, v, o, d);                                                                                       \
    }
ENTRY(whole64, 64, true)
ENTRY(whole128, 128, true)
ENTRY(ragged64, 64, false)
ENTRY(ragged128, 128, false)
