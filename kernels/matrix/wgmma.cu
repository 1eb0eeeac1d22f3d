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

// Where row `row` of an operand that lies k-fastest holds element p.
__device__ __forceinline__ unsigned place(unsigned row, unsigned p) {
    return row / 8 * ROWS + p / WIDE * BLOCK + row % 8 * 16 + p % WIDE * sizeof(T);
}

// What the unit is told of an operand: its address, and those two distances, in units of 16 bytes.
__device__ __forceinline__ unsigned long long description(const void* at) {
    return (shared_address(at) & 0x3ffff) >> 4 | (unsigned long long)BLOCK / 16 << 16 | (unsigned long long)ROWS / 16 << 32;
}

// An element as the unit takes it: of words the upper 19 bits, rounded here.
__device__ __forceinline__ void stash(unsigned char* at, T x) {
    if constexpr (sizeof(T) == 4) *reinterpret_cast<unsigned*>(at) = reinterpret_cast<const unsigned&>(x) + 0x1000;
    else *reinterpret_cast<T*>(at) = x;
}

template <class U, class V> __device__ __forceinline__ void product(V (&s)[128], unsigned long long a, unsigned long long b);

// Sums of V in registers that HOLD them. Integers have neither signs of operands nor transposed ones.
#define F(HOLD, i) HOLD(s[i])
#define PRODUCT(U, V, HOLD, NAME, TAIL) \
    template <> __device__ __forceinline__ void product<U, V>(V (&s)[128], unsigned long long a, unsigned long long b) { \
        asm volatile("{.reg .pred add; setp.ne.b32 add, 1, 0; wgmma.mma_async.sync.aligned." NAME " {" \
            "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
            "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
            "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
            "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, " \
            "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
            "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, " \
            "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
            "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127" \
            "}, %128, %129, add" TAIL ";}" \
            : \
            F(HOLD, 0), F(HOLD, 1), F(HOLD, 2), F(HOLD, 3), F(HOLD, 4), F(HOLD, 5), F(HOLD, 6), F(HOLD, 7), F(HOLD, 8), F(HOLD, 9), F(HOLD, 10), F(HOLD, 11), F(HOLD, 12), F(HOLD, 13), F(HOLD, 14), F(HOLD, 15),  \
            F(HOLD, 16), F(HOLD, 17), F(HOLD, 18), F(HOLD, 19), F(HOLD, 20), F(HOLD, 21), F(HOLD, 22), F(HOLD, 23), F(HOLD, 24), F(HOLD, 25), F(HOLD, 26), F(HOLD, 27), F(HOLD, 28), F(HOLD, 29), F(HOLD, 30), F(HOLD, 31),  \
            F(HOLD, 32), F(HOLD, 33), F(HOLD, 34), F(HOLD, 35), F(HOLD, 36), F(HOLD, 37), F(HOLD, 38), F(HOLD, 39), F(HOLD, 40), F(HOLD, 41), F(HOLD, 42), F(HOLD, 43), F(HOLD, 44), F(HOLD, 45), F(HOLD, 46), F(HOLD, 47),  \
            F(HOLD, 48), F(HOLD, 49), F(HOLD, 50), F(HOLD, 51), F(HOLD, 52), F(HOLD, 53), F(HOLD, 54), F(HOLD, 55), F(HOLD, 56), F(HOLD, 57), F(HOLD, 58), F(HOLD, 59), F(HOLD, 60), F(HOLD, 61), F(HOLD, 62), F(HOLD, 63),  \
            F(HOLD, 64), F(HOLD, 65), F(HOLD, 66), F(HOLD, 67), F(HOLD, 68), F(HOLD, 69), F(HOLD, 70), F(HOLD, 71), F(HOLD, 72), F(HOLD, 73), F(HOLD, 74), F(HOLD, 75), F(HOLD, 76), F(HOLD, 77), F(HOLD, 78), F(HOLD, 79),  \
            F(HOLD, 80), F(HOLD, 81), F(HOLD, 82), F(HOLD, 83), F(HOLD, 84), F(HOLD, 85), F(HOLD, 86), F(HOLD, 87), F(HOLD, 88), F(HOLD, 89), F(HOLD, 90), F(HOLD, 91), F(HOLD, 92), F(HOLD, 93), F(HOLD, 94), F(HOLD, 95),  \
            F(HOLD, 96), F(HOLD, 97), F(HOLD, 98), F(HOLD, 99), F(HOLD, 100), F(HOLD, 101), F(HOLD, 102), F(HOLD, 103), F(HOLD, 104), F(HOLD, 105), F(HOLD, 106), F(HOLD, 107), F(HOLD, 108), F(HOLD, 109), F(HOLD, 110), F(HOLD, 111),  \
            F(HOLD, 112), F(HOLD, 113), F(HOLD, 114), F(HOLD, 115), F(HOLD, 116), F(HOLD, 117), F(HOLD, 118), F(HOLD, 119), F(HOLD, 120), F(HOLD, 121), F(HOLD, 122), F(HOLD, 123), F(HOLD, 124), F(HOLD, 125), F(HOLD, 126), F(HOLD, 127) \
            : "l"(a), "l"(b)); \
    }
PRODUCT(Half, float, "+f", "m64n256k16.f32.f16.f16", ", 1, 1, 0, 0")
PRODUCT(Brain, float, "+f", "m64n256k16.f32.bf16.bf16", ", 1, 1, 0, 0")
PRODUCT(float, float, "+f", "m64n256k8.f32.tf32.tf32", ", 1, 1")
PRODUCT(Float8, float, "+f", "m64n256k32.f32.e4m3.e4m3", ", 1, 1")
PRODUCT(signed char, int, "+r", "m64n256k32.s32.s8.s8", "")
#undef PRODUCT
#undef F

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
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); // what lanes have stored, the unit may read
    __syncthreads();
    const unsigned long long from_a = description(left), from_b = description(right);
    S sum[128] = {};
#pragma unroll 1
    for (unsigned trip = 0; trip < d.trips; trip += BATCH) {
        asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
        for (unsigned i = 0; i < BATCH * PRODUCTS; ++i) {
            const unsigned long long along = i % PRODUCTS * 2 * BLOCK / 16;
            product<T>(sum, from_a + along, from_b + along);
        }
        asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    }
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
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
