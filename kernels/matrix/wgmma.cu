// matrix/wgmma: C += A . B again and again, operands in shared memory; the ceiling of matrix units that four warps feed together.
//
// Owns:    a group of 4 warps one 64 x 256 matrix C in its registers. All groups compute the same.
// Traffic: A and B are loaded once into shared memory, as blocks of 8 rows x 16 bytes without gaps, and read from there by every
//          product; the sums of C's columns are stored once.
// Guards:  none; groups past the last leave at once.
// Changed: from mma: one instruction is 64 x 256 outputs, and its operands never pass through registers.

constexpr unsigned K = sizeof(T) == 1 ? 32 : 16, N = 256;
constexpr unsigned PRODUCTS = K * sizeof(T) / 32; // of 32 bytes of k each
constexpr unsigned WIDE = 16 / sizeof(T);
constexpr unsigned BLOCK = 128, ROWS = K / WIDE * BLOCK; // from one block to the next along k, and along rows
constexpr unsigned BATCH = 8;                           // trips whose products are handed over together

#include "../warpgroup.cuh"

// Where row `row` of an operand that lies k-fastest holds element p.
__device__ __forceinline__ unsigned place(unsigned row, unsigned p) {
    return row / 8 * ROWS + p / WIDE * BLOCK + row % 8 * 16 + p % WIDE * sizeof(T);
}

// An element as the unit takes it: of words the upper 19 bits, rounded here.
__device__ __forceinline__ void stash(unsigned char* at, T x) {
    if constexpr (sizeof(T) == 4) *reinterpret_cast<unsigned*>(at) = reinterpret_cast<const unsigned&>(x) + 0x1000;
    else *reinterpret_cast<T*>(at) = x;
}

extern "C" __global__ void __launch_bounds__(128) rate(const T* __restrict__ a, // [64, K]
                                                       const T* __restrict__ b, // [K, 256]
                                                       S* __restrict__ c,       // [groups, 256]
                                                       const Dims d) {
    __shared__ __align__(128) unsigned char left[64 * K * sizeof(T)], right[N * K * sizeof(T)];
    __shared__ S totals[4][N];
    const unsigned group = blockIdx.y * gridDim.x + blockIdx.x;
    if (group >= d.groups) return; // the whole group at once, before any barrier
    for (unsigned i = threadIdx.x; i < 64 * K; i += 128) stash(left + place(i / K, i % K), a[i]);
    for (unsigned i = threadIdx.x; i < N * K; i += 128) stash(right + place(i % N, i / N), b[i]);
    stores_seen();
    __syncthreads();
    const unsigned long long from_a = descriptor(shared_address(left), BLOCK, ROWS, SWIZZLE_NONE);
    const unsigned long long from_b = descriptor(shared_address(right), BLOCK, ROWS, SWIZZLE_NONE);
    S sum[128] = {};
#pragma unroll 1
    for (unsigned trip = 0; trip < d.trips; trip += BATCH) {
        products_begin();
#pragma unroll
        for (unsigned i = 0; i < BATCH * PRODUCTS; ++i) {
            const unsigned long long along = i % PRODUCTS * 2 * BLOCK / 16;
            product<T, K_MAJOR>(sum, from_a + along, from_b + along, true);
        }
        products_commit();
    }
    products_wait<0>();
    products_done(sum);
    const unsigned lane = threadIdx.x % 32;
#pragma unroll
    for (unsigned j = 0; j < N / 4; ++j) {
        S total = sum[j / 2 * 4 + j % 2] + sum[j / 2 * 4 + j % 2 + 2];
        // Lanes that differ in their upper three bits, and the other warps, hold other rows of the column.
#pragma unroll
        for (unsigned other = 4; other < 32; other *= 2) total += __shfl_xor_sync(~0u, total, other);
        if (lane < 4) totals[threadIdx.x / 32][j / 2 * 8 + lane * 2 + j % 2] = total;
    }
    __syncthreads();
    for (unsigned col = threadIdx.x; col < N; col += 128) {
        c[group * N + col] = (totals[0][col] + totals[1][col]) + (totals[2][col] + totals[3][col]);
    }
}
