// One pass of fused attention, which sources of its variants include: rows of queries against keys that may have a bias, no score in
// memory. A 16 x 8 group has ROWS rows, every eighth a lane's; of these rows a lane scores every sixteenth key of a tile and sums every
// sixteenth vector of four outputs. Keys of a tile, then their values, lie in the same shared memory, swizzled by their row; weights go
// through shared memory. Scores hold log2(e): weights are powers of two, biases and logarithms are to base two.

static_assert(sizeof(T) == 4 && sizeof(S) == 4, "vectors of four f32");

constexpr unsigned ROWS = 32, TM = ROWS / 8; // rows of a group, of a lane
constexpr unsigned KEYS = 32, PER = KEYS / 16; // keys of a tile, and those of them that a lane scores
constexpr unsigned QUADS = 32, COLS = QUADS / 16; // vectors of the widest head, and those of a row that a lane sums
constexpr float HIDDEN = -1e30f, LOG2_E = 1.44269504f;

// What a pass reads and writes; all of one group of rows.
struct Pass {
    const float* __restrict__ q; // [rows, d]
    const float* __restrict__ k; // [keys, d]
    const float* __restrict__ v; // [keys, d]
    float* __restrict__ o;       // [rows, d]
    unsigned rows, keys, d;
    float scale; // of a query's product with a key
};

// Columns 4 * c to 4 * c + 3 of a row of d elements, zeros behind the last.
__device__ __forceinline__ float4 load4(const float* __restrict__ row, unsigned c, unsigned d) {
    float4 v = {0, 0, 0, 0};
    if (4 * c < d) v.x = row[4 * c];
    if (4 * c + 1 < d) v.y = row[4 * c + 1];
    if (4 * c + 2 < d) v.z = row[4 * c + 2];
    if (4 * c + 3 < d) v.w = row[4 * c + 3];
    return v;
}

__device__ __forceinline__ void store4(float* __restrict__ row, unsigned c, unsigned d, float4 v) {
    if (4 * c < d) row[4 * c] = v.x;
    if (4 * c + 1 < d) row[4 * c + 1] = v.y;
    if (4 * c + 2 < d) row[4 * c + 2] = v.z;
    if (4 * c + 3 < d) row[4 * c + 3] = v.w;
}

__device__ __forceinline__ float dot(float4 a, float4 b, float sum) {
    sum = fmaf(a.x, b.x, sum);
    sum = fmaf(a.y, b.y, sum);
    sum = fmaf(a.z, b.z, sum);
    return fmaf(a.w, b.w, sum);
}

__device__ __forceinline__ void add(float4& sum, float weight, float4 v) {
    sum.x = fmaf(weight, v.x, sum.x);
    sum.y = fmaf(weight, v.y, sum.y);
    sum.z = fmaf(weight, v.z, sum.z);
    sum.w = fmaf(weight, v.w, sum.w);
}

// Where a tile holds vector c of a key.
__device__ __forceinline__ unsigned place(unsigned key, unsigned c) { return key * QUADS + (c ^ key % 8); }

// Keys `first` to `first + KEYS` of K or V into the tile; zeros behind the last.
__device__ __forceinline__ void fill(float4* tile, const float* __restrict__ from, unsigned first, const Pass& p) {
    for (unsigned at = threadIdx.y * 16 + threadIdx.x; at < KEYS * QUADS; at += 128) {
        const unsigned key = at / QUADS, c = at % QUADS;
        float4 v = {0, 0, 0, 0};
        if (first + key < p.keys) v = load4(from + (first + key) * p.d, c, p.d);
        tile[place(key, c)] = v;
    }
}

// `bias(key, square)` is what a score of that key is raised by, given the square of the key, where SQUARES asks for it; `log(row, log)`
// is told log2 of the sum of a row's weights, by one lane.
template <bool SQUARES, class Bias, class Log> __device__ __forceinline__ void fused(const Pass& p, Bias bias, Log log) {
    __shared__ float4 tile[KEYS * QUADS];  // [key, column]
    __shared__ float weights[ROWS * KEYS]; // [row, key]
    __shared__ float biases[KEYS];
    const unsigned tx = threadIdx.x, ty = threadIdx.y, me = ty * 16 + tx;
    const unsigned first_row = blockIdx.x * ROWS, columns = (p.d + 3) / 4;
    float largest[TM], total[TM];
    float4 sum[TM][COLS];
#pragma unroll
    for (unsigned i = 0; i < TM; ++i) {
        largest[i] = HIDDEN;
        total[i] = 0;
#pragma unroll
        for (unsigned j = 0; j < COLS; ++j) sum[i][j] = {0, 0, 0, 0};
    }
    for (unsigned first = 0; first < p.keys; first += KEYS) {
        __syncthreads(); // nobody reads the last tile any more
        fill(tile, p.k, first, p);
        __syncthreads(); // all keys are there
        if (me < KEYS) {
            float square = 0;
            if (SQUARES) {
                for (unsigned c = 0; c < columns; ++c) square = dot(tile[place(me, c)], tile[place(me, c)], square);
            }
            biases[me] = first + me < p.keys ? bias(first + me, square) : HIDDEN;
        }
        float score[TM][PER] = {};
#pragma unroll 2
        for (unsigned c = 0; c < columns; ++c) {
            float4 key[PER];
#pragma unroll
            for (unsigned j = 0; j < PER; ++j) key[j] = tile[place(tx + 16 * j, c)];
#pragma unroll
            for (unsigned i = 0; i < TM; ++i) {
                const unsigned row = min(first_row + ty + 8 * i, p.rows - 1);
                const float4 query = load4(p.q + row * p.d, c, p.d);
#pragma unroll
                for (unsigned j = 0; j < PER; ++j) score[i][j] = dot(query, key[j], score[i][j]);
            }
        }
        __syncthreads(); // biases are there, and keys are no longer needed
#pragma unroll
        for (unsigned i = 0; i < TM; ++i) {
            float most = largest[i];
#pragma unroll
            for (unsigned j = 0; j < PER; ++j) {
                score[i][j] = fmaf(score[i][j], p.scale, biases[tx + 16 * j]);
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
                const float weight = exp2f(score[i][j] - most);
                total[i] += weight;
                weights[(ty + 8 * i) * KEYS + tx + 16 * j] = weight;
            }
        }
        fill(tile, p.v, first, p);
        __syncthreads(); // weights and values are there
#pragma unroll 4
        for (unsigned key = 0; key < KEYS; ++key) {
#pragma unroll
            for (unsigned j = 0; j < COLS; ++j) {
                const float4 value = tile[place(key, tx + 16 * j)];
#pragma unroll
                for (unsigned i = 0; i < TM; ++i) add(sum[i][j], weights[(ty + 8 * i) * KEYS + key], value);
            }
        }
    }
#pragma unroll
    for (unsigned i = 0; i < TM; ++i) {
#pragma unroll
        for (int mask = 8; mask > 0; mask /= 2) total[i] += __shfl_xor_sync(0xffffffffu, total[i], mask);
        const unsigned row = first_row + ty + 8 * i;
        if (row >= p.rows) continue;
        if (tx == 0) log(row, largest[i] + log2f(total[i]));
#pragma unroll
        for (unsigned j = 0; j < COLS; ++j) {
            const float4 s = sum[i][j];
            store4(p.o + row * p.d, tx + 16 * j, p.d, {s.x / total[i], s.y / total[i], s.z / total[i], s.w / total[i]});
        }
    }
}
