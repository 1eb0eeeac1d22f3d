// matrix/wgmma: C += A . B again and again, operands in shared memory; the ceiling of matrix units that four warps feed together.
//
// Owns:    a group of 4 warps one 64 x 256 matrix C in its registers. All groups compute the same.
// Traffic: A and B are loaded once into shared memory, as blocks of 8 rows x 16 bytes without gaps, and read from there by every
//          product; the sums of C's columns are stored once.
// Guards:  none; groups past the last leave at once.
// Changed: from mma: one instruction is 64 x 256 outputs, and its operands never pass through registers.

constexpr unsigned K = 16, N = 256;
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

template <class U> __device__ __forceinline__ void product(float (&s)[128], unsigned long long a, unsigned long long b);

#define F(i) "+f"(s[i])
#define PRODUCT(U, NAME, TAIL) \
    template <> __device__ __forceinline__ void product<U>(float (&s)[128], unsigned long long a, unsigned long long b) { \
        asm volatile("{.reg .pred add; setp.ne.b32 add, 1, 0; wgmma.mma_async.sync.aligned." NAME " {" \
            "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
            "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
            "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
            "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, " \
            "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
            "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, " \
            "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
            "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127" \
            "}, %128, %129, add, 1, 1" TAIL ";}" \
            : \
            F(0), F(1), F(2), F(3), F(4), F(5), F(6), F(7), F(8), F(9), F(10), F(11), F(12), F(13), F(14), F(15),  \
            F(16), F(17), F(18), F(19), F(20), F(21), F(22), F(23), F(24), F(25), F(26), F(27), F(28), F(29), F(30), F(31),  \
            F(32), F(33), F(34), F(35), F(36), F(37), F(38), F(39), F(40), F(41), F(42), F(43), F(44), F(45), F(46), F(47),  \
            F(48), F(49), F(50), F(51), F(52), F(53), F(54), F(55), F(56), F(57), F(58), F(59), F(60), F(61), F(62), F(63),  \
            F(64), F(65), F(66), F(67), F(68), F(69), F(70), F(71), F(72), F(73), F(74), F(75), F(76), F(77), F(78), F(79),  \
            F(80), F(81), F(82), F(83), F(84), F(85), F(86), F(87), F(88), F(89), F(90), F(91), F(92), F(93), F(94), F(95),  \
            F(96), F(97), F(98), F(99), F(100), F(101), F(102), F(103), F(104), F(105), F(106), F(107), F(108), F(109), F(110), F(111),  \
            F(112), F(113), F(114), F(115), F(116), F(117), F(118), F(119), F(120), F(121), F(122), F(123), F(124), F(125), F(126), F(127) \
            : "l"(a), "l"(b)); \
    }
PRODUCT(Half, "m64n256k16.f32.f16.f16", ", 0, 0")
PRODUCT(Brain, "m64n256k16.f32.bf16.bf16", ", 0, 0")
PRODUCT(float, "m64n256k8.f32.tf32.tf32", "")
#undef PRODUCT
#undef F

extern "C" __global__ void __launch_bounds__(128) rate(const T* __restrict__ a, // [64, 16]
                                                       const T* __restrict__ b, // [16, 256]
                                                       float* __restrict__ c,   // [groups, 256]
                                                       const Dims d) {
    __shared__ __align__(128) unsigned char left[64 * K * sizeof(T)], right[N * K * sizeof(T)];
    __shared__ float totals[4][N];
    const unsigned group = blockIdx.y * gridDim.x + blockIdx.x;
    if (group >= d.groups) return; // the whole group at once, before any barrier
    for (unsigned i = threadIdx.x; i < 64 * K; i += 128) stash(left + place(i / K, i % K), a[i]);
    for (unsigned i = threadIdx.x; i < N * K; i += 128) stash(right + place(i % N, i / N), b[i]);
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); // what lanes have stored, the unit may read
    __syncthreads();
    const unsigned long long from_a = description(left), from_b = description(right);
    float sum[128] = {};
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
        float total = sum[j / 2 * 4 + j % 2] + sum[j / 2 * 4 + j % 2 + 2];
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
