// matrix/mma: C += A . B again and again in registers; the ceiling of matrix units that a warp feeds.
//
// Owns:    a group of 4 warps one 64 x 256 matrix C, a warp 64 x 64 of it: 32 independent sums of 16 x 8, so that their latency is
//          hidden. All groups compute the same.
// Traffic: A and B are loaded once, the sums of C's columns are stored once; between them there is nothing but products.
// Guards:  none; groups past the last leave at once.

constexpr unsigned K = sizeof(T) == 1 ? 32 : 16, N = 256;
constexpr unsigned PRODUCTS = K * sizeof(T) / 32; // of 32 bytes of k each
constexpr unsigned PACK = 4 / sizeof(T);          // elements of a register, neighbours along k

// Neighbours along k of one operand, two of 16 bits or four of 8, or one word rounded as the unit would cut it.
__device__ __forceinline__ unsigned packed(const T* from, unsigned apart) {
    if constexpr (sizeof(T) == 1) {
        const unsigned char* const bits = reinterpret_cast<const unsigned char*>(from);
        return bits[0] | bits[apart] << 8 | bits[2 * apart] << 16 | (unsigned)bits[3 * apart] << 24;
    } else if constexpr (sizeof(T) == 2) {
        const unsigned short* const bits = reinterpret_cast<const unsigned short*>(from);
        return bits[0] | (unsigned)bits[apart] << 16;
    } else {
        return *reinterpret_cast<const unsigned*>(from) + 0x1000;
    }
}

extern "C" __global__ void __launch_bounds__(128) rate(const T* __restrict__ a, // [64, K]
                                                       const T* __restrict__ b, // [K, 256]
                                                       S* __restrict__ c,       // [groups, 256]
                                                       const Dims d) {
    const unsigned group = blockIdx.y * gridDim.x + blockIdx.x;
    if (group >= d.groups) return;
    const unsigned lane = threadIdx.x % 32, col = threadIdx.x / 32 * 64;
    unsigned left[PRODUCTS][4][4], right[PRODUCTS][8][2];
#pragma unroll
    for (unsigned p = 0; p < PRODUCTS; ++p) {
#pragma unroll
        for (unsigned i = 0; i < 16; ++i) {
            const unsigned row = i / 4 * 16 + i % 2 * 8 + lane / 4, step = p * 8 + i % 4 / 2 * 4 + lane % 4;
            left[p][i / 4][i % 4] = packed(a + row * K + step * PACK, 1);
        }
#pragma unroll
        for (unsigned j = 0; j < 16; ++j) {
            const unsigned step = p * 8 + j % 2 * 4 + lane % 4;
            right[p][j / 2][j % 2] = packed(b + step * PACK * N + col + j / 2 * 8 + lane / 4, N);
        }
    }
    S sum[4][8][4] = {};
#pragma unroll 1
    for (unsigned trip = 0; trip < d.trips; ++trip) {
#pragma unroll
        for (unsigned p = 0; p < PRODUCTS; ++p) {
#pragma unroll
            for (unsigned i = 0; i < 32; ++i) mma<T>(sum[i / 8][i % 8], left[p][i / 8], right[p][i % 8][0], right[p][i % 8][1]);
        }
    }
#pragma unroll
    for (unsigned j = 0; j < 16; ++j) {
        S total = 0;
#pragma unroll
        for (unsigned i = 0; i < 8; ++i) total += sum[i / 2][j / 2][j % 2 + i % 2 * 2];
        // Lanes that differ in their upper three bits hold other rows of the column.
#pragma unroll
        for (unsigned other = 4; other < 32; other *= 2) total += __shfl_xor_sync(~0u, total, other);
        if (lane < 4) c[group * N + col + j / 2 * 8 + lane * 2 + j % 2] = total;
    }
}
