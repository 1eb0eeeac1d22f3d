// What four warps do as one, a warpgroup, and only sm_90a has: products whose operands lie in shared memory, and copies of boxes of a
// tensor by the unit that knows its map, which barriers count. A source includes it, and barrier.cuh with it. PTX, so that no header is
// needed.
//
// An operand lies K_MAJOR, k fastest, or MN_MAJOR, its rows (A) or columns (B) fastest. The unit reads it as units of 16 bytes in
// blocks of eight lines, and its descriptor tells the distances between blocks (PTX ISA, "Matrix Descriptor Format" and "Strides"):
//   SWIZZLE_NONE  lines 16 bytes apart;  K_MAJOR: `leading` along k, `stride` along mn;  MN_MAJOR: the other way around
//   SWIZZLE_128   lines of 128 bytes;    K_MAJOR: `stride` to the next eight lines of mn, `leading` unused;
//                                        MN_MAJOR: `leading` to the next 128 bytes of mn, `stride` to the next eight lines of k
// Swizzled units lie where bits 4 to 6 of their address are exchanged by bits 7 to 9: a tile begins at a multiple of 1024 bytes.

enum Major { K_MAJOR, MN_MAJOR };
enum Swizzle : unsigned long long { SWIZZLE_NONE = 0, SWIZZLE_128 = 1 };

// An operand at a shared address; distances in bytes, held in units of 16, as are steps that are added to it.
__device__ __forceinline__ unsigned long long descriptor(unsigned at, unsigned leading, unsigned stride, Swizzle swizzle) {
    return (unsigned long long)((at & 0x3ffff) >> 4) | (unsigned long long)(leading >> 4) << 16 |
           (unsigned long long)(stride >> 4) << 32 | (unsigned long long)swizzle << 62;
}

#ifndef CUDACPU // the shim that runs sources on a CPU brings these itself
// A tensor as the copying unit knows it; made by the driver.
struct alignas(64) Map {
    unsigned long long words[16];
};

// What this lane has made, the copying unit sees too; other lanes do behind the next __syncthreads. Fences name the memory that they are
// for: one for all of it waits for every store of the processor.
__device__ __forceinline__ void barriers_made() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
// Arrives, and has the round wait for so many bytes more.
__device__ __forceinline__ void barrier_expect(unsigned at, unsigned bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(at), "r"(bytes) : "memory");
}
// A box of a tensor to shared memory, zeros past the tensor's edges; the barrier counts its bytes.
__device__ __forceinline__ void box_copy(unsigned to, const Map& map, unsigned x, unsigned y, unsigned barrier) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(to),
                 "l"(&map), "r"(x), "r"(y), "r"(barrier)
                 : "memory");
}

// A cluster's groups run together and reach each other's shared memory, where the same addresses name the same places.
__device__ __forceinline__ unsigned cluster_rank() {
    unsigned rank;
    asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
    return rank;
}
// All lanes of all groups of the cluster meet.
__device__ __forceinline__ void cluster_sync() {
    __syncwarp();
    asm volatile("barrier.cluster.arrive.release.aligned; barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
// At the barrier that the group of this rank has there. Not `.release.cluster`, which waits for all stores of the processor: what is told
// is that products have read, and the copying unit writes next.
__device__ __forceinline__ void barrier_arrive_at(unsigned at, unsigned rank) {
    asm volatile("{.reg .b32 there; mapa.shared::cluster.u32 there, %0, %1; mbarrier.arrive.shared::cluster.b64 _, [there];}" ::"r"(at),
                 "r"(rank)
                 : "memory");
}
// A box to the same place of each group whose bit is set in `ranks`; the barrier that each has there counts its bytes.
__device__ __forceinline__ void box_copy_to(unsigned ranks, unsigned to, const Map& map, unsigned x, unsigned y, unsigned barrier) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"
                 " [%0], [%1, {%2, %3}], [%4], %5;" ::"r"(to),
                 "l"(&map), "r"(x), "r"(y), "r"(barrier), "h"((unsigned short)ranks)
                 : "memory");
}

// What this lane has stored to shared memory, products and copies that come behind the next barrier see.
__device__ __forceinline__ void stores_seen() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Barriers by number, of `lanes` lanes: those that wait, and those that only arrive.
__device__ __forceinline__ void lanes_sync(unsigned number, unsigned lanes) {
    asm volatile("bar.sync %0, %1;" ::"r"(number), "r"(lanes) : "memory");
}
__device__ __forceinline__ void lanes_arrive(unsigned number, unsigned lanes) {
    asm volatile("bar.arrive %0, %1;" ::"r"(number), "r"(lanes) : "memory");
}

// Registers of a lane from here on, for all warps of a warpgroup.
template <int COUNT> __device__ __forceinline__ void registers_shrink() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT));
}
template <int COUNT> __device__ __forceinline__ void registers_grow() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT));
}

// Before products whose registers were touched since the last ones; closes a group of products; waits until at most PENDING groups are
// under way. What a product reads and sums is the unit's until then.
__device__ __forceinline__ void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int PENDING> __device__ __forceinline__ void products_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}
// Behind a wait: no use of these sums is moved before it.
template <unsigned COUNT> __device__ __forceinline__ void products_done(float (&sum)[COUNT]) {
#pragma unroll
    for (unsigned i = 0; i < COUNT; ++i) asm volatile("" : "+f"(sum[i])::"memory");
}
template <unsigned COUNT> __device__ __forceinline__ void products_done(int (&sum)[COUNT]) {
#pragma unroll
    for (unsigned i = 0; i < COUNT; ++i) asm volatile("" : "+r"(sum[i])::"memory");
}

// s = a . b, or s += a . b, of 64 x 32 bytes of k by as much x 2 * HALF columns; A by descriptor, always K_MAJOR, or as fragments that
// each warp has of its 16 rows, as `mma` takes them. A lane has s[4 j + 2 h + i] of row lane / 4 + 8 h and column 8 j + lane % 4 * 2 + i.
template <class T, Major MAJOR, class V, unsigned HALF>
__device__ __forceinline__ void product(V (&s)[HALF], unsigned long long a, unsigned long long b, bool add);
template <class T, Major MAJOR, class V, unsigned HALF>
__device__ __forceinline__ void product(V (&s)[HALF], const unsigned (&a)[4], unsigned long long b, bool add);

// Sums in registers that HOLD them, and their numbers in the text.
#define SUMS_4(HOLD, i) HOLD(s[i]), HOLD(s[i + 1]), HOLD(s[i + 2]), HOLD(s[i + 3])
#define SUMS_8(HOLD, i) SUMS_4(HOLD, i), SUMS_4(HOLD, i + 4)
#define SUMS_32(HOLD, i) SUMS_8(HOLD, i), SUMS_8(HOLD, i + 8), SUMS_8(HOLD, i + 16), SUMS_8(HOLD, i + 24)
#define SUMS_64(HOLD) SUMS_32(HOLD, 0)
#define SUMS_128(HOLD) SUMS_32(HOLD, 0), SUMS_32(HOLD, 32)
#define SUMS_256(HOLD) SUMS_32(HOLD, 0), SUMS_32(HOLD, 32), SUMS_32(HOLD, 64), SUMS_32(HOLD, 96)
#define TEN(t) "%" #t "0, %" #t "1, %" #t "2, %" #t "3, %" #t "4, %" #t "5, %" #t "6, %" #t "7, %" #t "8, %" #t "9, "
#define NAMES_64 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, " TEN(1) TEN(2) "%30, %31"
#define NAMES_128 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, " TEN(1) TEN(2) TEN(3) TEN(4) TEN(5) "%60, %61, %62, %63"
#define NAMES_256 \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, " TEN(1) TEN(2) TEN(3) TEN(4) TEN(5) TEN(6) TEN(7) TEN(8) TEN(9) TEN(10) TEN(11) \
        "%120, %121, %122, %123, %124, %125, %126, %127"
// The numbers behind those of the sums: A, B and whether to add, A by descriptor or in registers.
#define SHARED_64 "%32, %33", "%34"
#define SHARED_128 "%64, %65", "%66"
#define SHARED_256 "%128, %129", "%130"
#define FRAGMENTS_64 "{%32, %33, %34, %35}, %36", "%37"
#define FRAGMENTS_128 "{%64, %65, %66, %67}, %68", "%69"

#define WGMMA(SUMS, OPERANDS, ADD, NAME, TAIL) \
    "{.reg .pred add; setp.ne.b32 add, " ADD ", 0; wgmma.mma_async.sync.aligned." NAME " {" SUMS "}, " OPERANDS ", add" TAIL ";}"
#define WGMMA_OF(SUMS, BEHIND, NAME, TAIL) WGMMA(SUMS, BEHIND, NAME, TAIL)

// What follows `add` in the text: signs of operands, but for integers, and of 16-bit types how both or B alone lie.
#define PRODUCT(T, MAJOR, V, HOLD, N, NAME, TAIL) \
    template <> \
    __device__ __forceinline__ void product<T, MAJOR, V, N / 2>(V (&s)[N / 2], unsigned long long a, unsigned long long b, bool add) { \
        asm volatile(WGMMA_OF(NAMES_##N, SHARED_##N, "m64n" #N NAME, TAIL) : SUMS_##N(HOLD) : "l"(a), "l"(b), "r"((int)add)); \
    }
#define PRODUCT_OF_FRAGMENTS(T, MAJOR, N, NAME, TAIL) \
    template <> \
    __device__ __forceinline__ void product<T, MAJOR, float, N / 2>( \
        float (&s)[N / 2], const unsigned (&a)[4], unsigned long long b, bool add) { \
        asm volatile(WGMMA_OF(NAMES_##N, FRAGMENTS_##N, "m64n" #N NAME, TAIL) \
                     : SUMS_##N("+f") \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)add)); \
    }

PRODUCT(Half, K_MAJOR, float, "+f", 64, "k16.f32.f16.f16", ", 1, 1, 0, 0")
PRODUCT(Half, K_MAJOR, float, "+f", 128, "k16.f32.f16.f16", ", 1, 1, 0, 0")
PRODUCT(Half, K_MAJOR, float, "+f", 256, "k16.f32.f16.f16", ", 1, 1, 0, 0")
PRODUCT(Half, MN_MAJOR, float, "+f", 256, "k16.f32.f16.f16", ", 1, 1, 0, 1")
PRODUCT(Brain, K_MAJOR, float, "+f", 64, "k16.f32.bf16.bf16", ", 1, 1, 0, 0")
PRODUCT(Brain, K_MAJOR, float, "+f", 128, "k16.f32.bf16.bf16", ", 1, 1, 0, 0")
PRODUCT(Brain, K_MAJOR, float, "+f", 256, "k16.f32.bf16.bf16", ", 1, 1, 0, 0")
PRODUCT(Brain, MN_MAJOR, float, "+f", 256, "k16.f32.bf16.bf16", ", 1, 1, 0, 1")
PRODUCT(float, K_MAJOR, float, "+f", 256, "k8.f32.tf32.tf32", ", 1, 1")
PRODUCT(Float8, K_MAJOR, float, "+f", 256, "k32.f32.e4m3.e4m3", ", 1, 1")
PRODUCT(signed char, K_MAJOR, int, "+r", 256, "k32.s32.s8.s8", "")
PRODUCT_OF_FRAGMENTS(Half, MN_MAJOR, 64, "k16.f32.f16.f16", ", 1, 1, 1")
PRODUCT_OF_FRAGMENTS(Half, MN_MAJOR, 128, "k16.f32.f16.f16", ", 1, 1, 1")
PRODUCT_OF_FRAGMENTS(Brain, MN_MAJOR, 64, "k16.f32.bf16.bf16", ", 1, 1, 1")
PRODUCT_OF_FRAGMENTS(Brain, MN_MAJOR, 128, "k16.f32.bf16.bf16", ", 1, 1, 1")
#undef PRODUCT
#undef PRODUCT_OF_FRAGMENTS
#endif
