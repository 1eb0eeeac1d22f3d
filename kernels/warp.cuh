// What a warp does as one: matrix products of fragments, and loads of fragments; and copies to shared memory behind a lane's back.
// Stands before every source of a precision that matrix units have. PTX, so that no header is needed.

#ifndef CUDACPU // the shim that runs sources on a CPU brings these itself
__device__ __forceinline__ unsigned shared_address(const void* at) { return (unsigned)__cvta_generic_to_shared(at); }

// 16 bytes from memory to shared memory, some time before the wait that covers it; zeros where there is nothing to read.
__device__ __forceinline__ void copy_async(void* to, const void* from, bool exists) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(exists ? 16 : 0) : "memory");
}
__device__ __forceinline__ void copy_async(void* to, const void* from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from) : "memory");
}
// The same through the first-level cache: for what is soon read again.
__device__ __forceinline__ void copy_async_cached(void* to, const void* from, bool exists) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(exists ? 16 : 0) : "memory");
}
// Closes a group of a lane's copies; an empty one counts.
__device__ __forceinline__ void copies_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until at most PENDING of the lane's groups are under way.
template <int PENDING> __device__ __forceinline__ void copies_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

// Four 8 x 8 matrices of 16-bit elements: lane 8 i + j names row j of matrix i, and gets of every matrix its row lane / 4, elements
// lane % 4 * 2 and the next; of a transposed one its column.
__device__ __forceinline__ void load_matrices(unsigned (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}
__device__ __forceinline__ void load_matrices_transposed(unsigned (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// A value that the compiler keeps in a register and does not compute anew where it is used.
__device__ __forceinline__ unsigned kept(unsigned x) {
    asm volatile("" : "+r"(x));
    return x;
}

// 2^x; what is too small for a normal number becomes zero.
__device__ __forceinline__ float power_of_two(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// Two numbers as the elements of a fragment's register.
template <class T> __device__ __forceinline__ unsigned packed(float low, float high);
template <> __device__ __forceinline__ unsigned packed<Half>(float low, float high) {
    unsigned both;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}
template <> __device__ __forceinline__ unsigned packed<Brain>(float low, float high) {
    unsigned both;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
    return both;
}

// d += a . b for a 16 x K of rows, b K x 8 of columns, K elements of T in 32 bytes; sums of V in registers that HOLD them.
#define WARP_MMA(T, V, HOLD, NAME)                                                                                                \
    template <> __device__ __forceinline__ void mma<T, V>(V (&d)[4], const unsigned (&a)[4], const unsigned b0, const unsigned b1) { \
        asm("mma.sync.aligned." NAME " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"                            \
            : HOLD(d[0]), HOLD(d[1]), HOLD(d[2]), HOLD(d[3])                                                                       \
            : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                                                       \
    }
#else
inline unsigned kept(unsigned x) { return x; }
inline float power_of_two(float x) { return exp2f(x); }
template <class T> unsigned packed(float low, float high) { return T(low).bits | (unsigned)T(high).bits << 16; }
#define WARP_MMA(T, V, HOLD, NAME)                                                                                         \
    template <> void mma<T, V>(V (&d)[4], const unsigned (&a)[4], const unsigned b0, const unsigned b1) {                   \
        cudacpu::mma(d, a, b0, b1, sizeof(T), [](unsigned bits) { return cudacpu::element<T, V>(bits); });                  \
    }
#endif

// Four words of each of four neighbouring lanes: word i of lane t becomes word t of lane i. All lanes of the warp.
__device__ __forceinline__ void transpose(unsigned (&w)[4]) {
#pragma unroll
    for (unsigned by = 1; by < 4; by *= 2) {
        const bool upper = threadIdx.x & by;
#pragma unroll
        for (unsigned i = 0; i < 4; ++i) {
            if (i & by) continue;
            const unsigned got = __shfl_xor_sync(0xffffffffu, upper ? w[i] : w[i + by], by);
            if (upper) w[i] = got;
            else w[i + by] = got;
        }
    }
}

// As products of 16-bit numbers leave them, a lane has of four neighbouring blocks of eight columns two columns each, as words; it gets
// all eight of block lane % 4, 16 bytes as they lie in memory.
struct alignas(16) Piece {
    unsigned words[4];
};
__device__ __forceinline__ Piece gathered(unsigned a, unsigned b, unsigned c, unsigned d) {
    unsigned words[4] = {a, b, c, d};
    transpose(words);
    return {{words[0], words[1], words[2], words[3]}};
}

template <class T, class V> __device__ __forceinline__ void mma(V (&d)[4], const unsigned (&a)[4], const unsigned b0, const unsigned b1);
WARP_MMA(Half, float, "+f", "m16n8k16.row.col.f32.f16.f16.f32")
WARP_MMA(Brain, float, "+f", "m16n8k16.row.col.f32.bf16.bf16.f32")
WARP_MMA(float, float, "+f", "m16n8k8.row.col.f32.tf32.tf32.f32")
WARP_MMA(Float8, float, "+f", "m16n8k32.row.col.f32.e4m3.e4m3.f32")
WARP_MMA(signed char, int, "+r", "m16n8k32.row.col.s32.s8.s8.s32")
#undef WARP_MMA
