// matmul/gemv: C[m,n] = A[m,k] . B[k,n] for few rows or few columns, with k split over the lanes of a group.
//
// Owns:    `one` and `eight`: 256 lanes ROWS rows by VECTORS 16-byte vectors of columns of C, a lane every (256 / VECTORS)-th run of k,
//          as long as a vector, for one vector of columns. `tall` (n = 1) and `ragged`: a warp one element, a lane every 32nd vector
//          of k, or every 32nd step.
// Traffic: a lane loads WIDE vectors of B, all under way at once, and one of A for each row, for ROWS * WIDE * WIDE multiply-adds.
//          Every element of B is loaded once a group of rows. Sums meet in shuffles, then one a warp in shared memory.
// Guards:  rows past the edge are loaded from the last one that exists, columns past it not at all; neither is stored.
// Changed: from naive: lanes share a sum, so that a matrix times a vector keeps the whole device busy with loads, and these are
//          vectors. `one` and `eight` need n and k divisible by a vector, `tall` k alone.

static_assert(VECTORS == 4 || VECTORS == 8 || VECTORS == 16, "a warp holds whole runs of vectors");

constexpr unsigned LANES = 256, WARPS = LANES / 32;
constexpr unsigned WIDE = 16 / sizeof(T); // elements of a vector
constexpr unsigned SLICES = LANES / VECTORS;
constexpr unsigned COLUMNS = VECTORS * WIDE;

struct alignas(16) Vector {
    T v[WIDE];
};

// The sum over those lanes of a warp whose numbers differ in bits from `least` on, in each of them.
__device__ __forceinline__ S over_lanes(S sum, unsigned least) {
#pragma unroll
    for (unsigned mask = least; mask < 32; mask *= 2) sum += __shfl_xor_sync(0xffffffffu, sum, mask);
    return sum;
}

template <unsigned ROWS> __device__ __forceinline__ void wide(const T* a, const T* b, T* c, const Dims& d) {
    __shared__ S part[WARPS][ROWS][COLUMNS];
    const Vector* const a_vectors = reinterpret_cast<const Vector*>(a);
    const Vector* const b_vectors = reinterpret_cast<const Vector*>(b);
    const unsigned steps = d.k / WIDE, cols = d.n / WIDE; // in vectors
    const unsigned lane = threadIdx.x, first = blockIdx.y * ROWS;
    const unsigned col = blockIdx.x * VECTORS + lane % VECTORS;
    S sum[ROWS][WIDE] = {};
    if (col < cols) {
        for (unsigned p = lane / VECTORS; p < steps; p += SLICES) {
            Vector right[WIDE];
#pragma unroll
            for (unsigned q = 0; q < WIDE; ++q) right[q] = b_vectors[(p * WIDE + q) * cols + col];
#pragma unroll
            for (unsigned i = 0; i < ROWS; ++i) {
                const Vector left = a_vectors[min(first + i, d.m - 1) * steps + p];
#pragma unroll
                for (unsigned q = 0; q < WIDE; ++q) {
#pragma unroll
                    for (unsigned e = 0; e < WIDE; ++e) sum[i][e] += S(left.v[q]) * S(right[q].v[e]);
                }
            }
        }
    }
#pragma unroll
    for (unsigned i = 0; i < ROWS; ++i) {
#pragma unroll
        for (unsigned e = 0; e < WIDE; ++e) {
            const S whole = over_lanes(sum[i][e], VECTORS);
            if (lane % 32 < VECTORS) part[lane / 32][i][lane % 32 * WIDE + e] = whole;
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

extern "C" __global__ void __launch_bounds__(256) one(const T* __restrict__ a, // [1, k]
                                                      const T* __restrict__ b, // [k, n]
                                                      T* __restrict__ c,       // [1, n]
                                                      const Dims d) {
    wide<1>(a, b, c, d);
}

extern "C" __global__ void __launch_bounds__(256) eight(const T* __restrict__ a, // [m, k]
                                                        const T* __restrict__ b, // [k, n]
                                                        T* __restrict__ c,       // [m, n]
                                                        const Dims d) {
    wide<8>(a, b, c, d);
}

extern "C" __global__ void __launch_bounds__(256) tall(const T* __restrict__ a, // [m, k]
                                                       const T* __restrict__ b, // [k, 1]
                                                       T* __restrict__ c,       // [m, 1]
                                                       const Dims d) {
    const unsigned steps = d.k / WIDE; // in vectors
    const unsigned row = blockIdx.x * WARPS + threadIdx.x / 32;
    const Vector* const left = reinterpret_cast<const Vector*>(a) + min(row, d.m - 1) * steps;
    const Vector* const right = reinterpret_cast<const Vector*>(b);
    S sum = 0;
#pragma unroll 4
    for (unsigned p = threadIdx.x % 32; p < steps; p += 32) {
        const Vector x = left[p], y = right[p];
#pragma unroll
        for (unsigned e = 0; e < WIDE; ++e) sum += S(x.v[e]) * S(y.v[e]);
    }
    sum = over_lanes(sum, 1);
    if (threadIdx.x % 32 == 0 && row < d.m) c[row] = T(sum);
}

extern "C" __global__ void __launch_bounds__(256) ragged(const T* __restrict__ a, // [m, k]
                                                         const T* __restrict__ b, // [k, n]
                                                         T* __restrict__ c,       // [m, n]
                                                         const Dims d) {
    const unsigned row = blockIdx.x * WARPS + threadIdx.x / 32, column = blockIdx.y;
    const T* const left = a + min(row, d.m - 1) * d.k;
    S sum = 0;
    for (unsigned p = threadIdx.x % 32; p < d.k; p += 32) sum += S(left[p]) * S(b[p * d.n + column]);
    sum = over_lanes(sum, 1);
    if (threadIdx.x % 32 == 0 && row < d.m) c[row * d.n + column] = T(sum);
}
