// quantized/gemv: C[m,n] = A[m,k] . W[k,n] for few rows of A and weights of a few bits, with k split over the lanes of a group.
//
// Owns:    `one_*` and `four_*`: 256 lanes ROWS rows by VECTORS vectors of four columns of C, a lane every (256 / VECTORS)-th run of
//          four words of k for one vector of columns. `ragged`: a warp one element, a lane every 32nd word of k.
// Traffic: a lane loads four vectors of words, 16 bytes each and all under way at once, one vector of scales for them, and their part of
//          each row of A in vectors of 16 bytes; a weight is unpacked once for all rows. Every word is loaded once a group of rows. Sums
//          meet in shuffles, then one a warp in shared memory.
// Guards:  rows past the edge are loaded from the last one that exists, columns past it not at all; neither is stored.
// Changed: from naive: lanes share a sum and load vectors, and weights become numbers by adding their bits to those of 2^23, because
//          devices convert integers at a quarter of the rate of their other arithmetic or less. All but `ragged` need n divisible by
//          four, and groups of whole runs.

static_assert(VECTORS == 4 || VECTORS == 8 || VECTORS == 16, "a warp holds whole runs of vectors");

constexpr unsigned LANES = 256, WARPS = LANES / 32;
constexpr unsigned RUN = 4;               // words of a run
constexpr unsigned WIDE = 16 / sizeof(T); // elements of a vector of A
constexpr unsigned SLICES = LANES / VECTORS;
constexpr unsigned COLUMNS = VECTORS * 4;

struct alignas(16) Words {
    unsigned v[4];
};

struct alignas(4 * sizeof(T)) Scales {
    T v[4];
};

struct alignas(16) Vector {
    T v[WIDE];
};

union Bits {
    unsigned u;
    float f;
};

// Weight number `i` of a word whose fields have had their highest bit turned, which adds half of their range.
template <unsigned BITS> __device__ __forceinline__ S weight(unsigned turned, unsigned i) {
    Bits b;
    b.u = 0x4b000000u | (turned >> (BITS * i) & ((1u << BITS) - 1)); // 2^23 and the field
    return b.f - (8388608.0f + (1u << (BITS - 1)));
}

// The sum over those lanes of a warp whose numbers differ in bits from `least` on, in each of them.
__device__ __forceinline__ S over_lanes(S sum, unsigned least) {
#pragma unroll
    for (unsigned mask = least; mask < 32; mask *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, mask);
    return sum;
}

// Adds a run of words, from element `from` of the rows of A on, each times its weight.
template <unsigned ROWS, unsigned BITS>
__device__ __forceinline__ void add_run(S (&run)[ROWS][4], const Words (&held)[RUN], const Vector* a, unsigned row_vectors,
                                        unsigned first, unsigned last, unsigned from) {
    constexpr unsigned PACK = 32 / BITS;
#pragma unroll
    for (unsigned v = 0; v < RUN * PACK / WIDE; ++v) {
        Vector left[ROWS];
#pragma unroll
        for (unsigned i = 0; i < ROWS; ++i) left[i] = a[min(first + i, last) * row_vectors + from + v];
#pragma unroll
        for (unsigned e = 0; e < WIDE; ++e) {
            const unsigned at = v * WIDE + e;
#pragma unroll
            for (unsigned j = 0; j < 4; ++j) {
                const S w = weight<BITS>(held[at / PACK].v[j], at % PACK);
#pragma unroll
                for (unsigned i = 0; i < ROWS; ++i) run[i][j] += S(left[i].v[e]) * w;
            }
        }
    }
}

template <unsigned ROWS, unsigned BITS>
__device__ __forceinline__ void wide(const T* a, const unsigned* words, const T* scales, T* c, const Dims& d) {
    constexpr unsigned PACK = 32 / BITS;
    constexpr unsigned HIGHEST = BITS == 8 ? 0x80808080u : 0x88888888u;
    __shared__ S part[WARPS][ROWS][COLUMNS];
    const Vector* const a_vectors = reinterpret_cast<const Vector*>(a);
    const Words* const word_vectors = reinterpret_cast<const Words*>(words);
    const Scales* const scale_vectors = reinterpret_cast<const Scales*>(scales);
    const unsigned runs = d.k / (RUN * PACK), cols = d.n / 4; // in vectors
    const unsigned lane = threadIdx.x, first = blockIdx.y * ROWS;
    const unsigned col = blockIdx.x * VECTORS + lane % VECTORS;
    S sum[ROWS][4] = {};
    if (col < cols) {
        for (unsigned r = lane / VECTORS; r < runs; r += SLICES) {
            Words held[RUN];
#pragma unroll
            for (unsigned w = 0; w < RUN; ++w) held[w] = word_vectors[(r * RUN + w) * cols + col];
            const Scales scale = scale_vectors[r * RUN * PACK / d.group_size * cols + col];
#pragma unroll
            for (unsigned w = 0; w < RUN; ++w) {
#pragma unroll
                for (unsigned j = 0; j < 4; ++j) held[w].v[j] ^= HIGHEST;
            }
            S run[ROWS][4] = {};
            add_run<ROWS, BITS>(run, held, a_vectors, d.k / WIDE, first, d.m - 1, r * RUN * PACK / WIDE);
#pragma unroll
            for (unsigned i = 0; i < ROWS; ++i) {
#pragma unroll
                for (unsigned j = 0; j < 4; ++j) sum[i][j] += S(scale.v[j]) * run[i][j];
            }
        }
    }
#pragma unroll
    for (unsigned i = 0; i < ROWS; ++i) {
#pragma unroll
        for (unsigned j = 0; j < 4; ++j) {
            const S whole = over_lanes(sum[i][j], VECTORS);
            if (lane % 32 < VECTORS) part[lane / 32][i][lane % 32 * 4 + j] = whole;
        }
    }
    __syncthreads();
    for (unsigned i = lane; i < ROWS * COLUMNS; i += LANES) {
        const unsigned row = first + i / COLUMNS, column = blockIdx.x * COLUMNS + i % COLUMNS;
        S whole = 0;
#pragma unroll
        for (unsigned w = 0; w < WARPS; ++w) whole += part[w][i / COLUMNS][i % COLUMNS];
        if (row < d.m && column < d.n) c[row * d.n + column] = T(whole);
    }
}

extern "C" __global__ void __launch_bounds__(256) one_8(const T* __restrict__ a,            // [1, k]
                                                        const unsigned* __restrict__ words, // [k / 4, n]
                                                        const T* __restrict__ scales,       // [k / group_size, n]
                                                        T* __restrict__ c,                  // [1, n]
                                                        const Dims d) {
    wide<1, 8>(a, words, scales, c, d);
}

extern "C" __global__ void __launch_bounds__(256) one_4(const T* __restrict__ a,            // [1, k]
                                                        const unsigned* __restrict__ words, // [k / 8, n]
                                                        const T* __restrict__ scales,       // [k / group_size, n]
                                                        T* __restrict__ c,                  // [1, n]
                                                        const Dims d) {
    wide<1, 4>(a, words, scales, c, d);
}

extern "C" __global__ void __launch_bounds__(256) four_8(const T* __restrict__ a,            // [m, k]
                                                         const unsigned* __restrict__ words, // [k / 4, n]
                                                         const T* __restrict__ scales,       // [k / group_size, n]
                                                         T* __restrict__ c,                  // [m, n]
                                                         const Dims d) {
    wide<4, 8>(a, words, scales, c, d);
}

extern "C" __global__ void __launch_bounds__(256) four_4(const T* __restrict__ a,            // [m, k]
                                                         const unsigned* __restrict__ words, // [k / 8, n]
                                                         const T* __restrict__ scales,       // [k / group_size, n]
                                                         T* __restrict__ c,                  // [m, n]
                                                         const Dims d) {
    wide<4, 4>(a, words, scales, c, d);
}

extern "C" __global__ void __launch_bounds__(256) ragged(const T* __restrict__ a,            // [m, k]
                                                         const unsigned* __restrict__ words, // [k / pack, n]
                                                         const T* __restrict__ scales,       // [k / group_size, n]
                                                         T* __restrict__ c,                  // [m, n]
                                                         const Dims d) {
    const unsigned pack = 32 / d.bits, row = blockIdx.y;
    const unsigned column = blockIdx.x * WARPS + threadIdx.x / 32, from = min(column, d.n - 1);
    S sum = 0;
    for (unsigned step = threadIdx.x % 32; step < d.k / pack; step += 32) {
        unsigned word = words[step * d.n + from];
        const S scale = S(scales[step * pack / d.group_size * d.n + from]);
        for (unsigned i = 0; i < pack; ++i) {
            const int q = (int)(word << (32 - d.bits)) >> (32 - d.bits);
            sum += S(a[row * d.k + step * pack + i]) * (scale * S(q));
            word >>= d.bits;
        }
    }
    sum = over_lanes(sum, 1);
    if (threadIdx.x % 32 == 0 && column < d.n) c[row * d.n + column] = T(sum);
}
