// matmul/wgmma: C[m,n] = A[m,k] . B[k,n] on matrix units four warps at a time, operands in shared memory; sums are f32.
//
// Owns:    as many groups as the device has processors; each walks over tiles of 128 x 256 of C, in bands of BAND tiles of rows, so
//          that what runs together shares its rows of A and columns of B in the cache. Two sets of four warps own 64 rows each.
// Traffic: a ring of STAGES tiles of A and B, 128 bytes of k each, is filled by the unit that copies tiles, told by one lane of a
//          ninth warp; it goes on to the next tile of C while this one is stored. A tile lies as the matrix units read it: lines of
//          128 bytes whose 16-byte places are exchanged by the line's number.
// Guards:  `whole` needs n and k to be whole vectors of 16 bytes: what lies past an edge is copied as zeros. `ragged` takes any
//          shape, one element at a time, with one tile and no ring. Outputs past an edge are not stored.
// Changed: from mma: operands never pass through registers, and no lane that multiplies copies.

constexpr unsigned BM = 128, BN = 256, LINE = 128, BAND = 8;
constexpr unsigned WIDE = 16 / sizeof(T), BK = LINE / sizeof(T);
constexpr unsigned A_BYTES = BM * LINE, BLOCK = BK * LINE, STAGE = A_BYTES + BN / BK * BLOCK; // B lies in blocks of BK columns
constexpr unsigned TEAMS = 2, TEAM = 128, LANES = TEAMS * TEAM + 32;

static_assert(sizeof(T) == 2, "words have no operand that lies along n");
static_assert(STAGES >= 2, "one tile is multiplied while the others are on their way");

// A tensor as the copying unit knows it; made by the driver.
struct alignas(64) Map {
    unsigned long long words[16];
};

extern __shared__ __align__(1024) unsigned char pool[];

// The ring begins at a multiple of 1024 bytes, or places would be exchanged by other numbers than the unit's.
__device__ __forceinline__ unsigned char* ring() { return pool + (1024 - shared_address(pool) % 1024) % 1024; }

// Element e of line `line` of A's tile; element e of line `line` of B's, whose lines are steps of k.
__device__ __forceinline__ unsigned place_a(unsigned line, unsigned e) {
    return line * LINE + (e / WIDE ^ line % 8) * 16 + e % WIDE * sizeof(T);
}
__device__ __forceinline__ unsigned place_b(unsigned line, unsigned e) { return A_BYTES + e / BK * BLOCK + place_a(line, e % BK); }

// What a matrix unit is told of an operand: its address, two distances, and how places are exchanged; all in units of 16 bytes.
__device__ __forceinline__ unsigned long long description(unsigned at, unsigned leading, unsigned stride) {
    return (unsigned long long)((at & 0x3ffff) >> 4) | (unsigned long long)(leading >> 4) << 16 |
           (unsigned long long)(stride >> 4) << 32 | 1ull << 62;
}

template <class U> __device__ __forceinline__ void product(float (&s)[128], unsigned long long a, unsigned long long b, int add);

#define F(i) "+f"(s[i])
#define PRODUCT(U, NAME) \
    template <> __device__ __forceinline__ void product<U>(float (&s)[128], unsigned long long a, unsigned long long b, int add) { \
        asm volatile("{.reg .pred add; setp.ne.b32 add, %130, 0; wgmma.mma_async.sync.aligned.m64n256k16.f32." NAME " {" \
            "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
            "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
            "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
            "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, " \
            "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, " \
            "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, " \
            "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, " \
            "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127" \
            "}, %128, %129, add, 1, 1, 0, 1;}" \
            : \
            F(0), F(1), F(2), F(3), F(4), F(5), F(6), F(7), F(8), F(9), F(10), F(11), F(12), F(13), F(14), F(15),  \
            F(16), F(17), F(18), F(19), F(20), F(21), F(22), F(23), F(24), F(25), F(26), F(27), F(28), F(29), F(30), F(31),  \
            F(32), F(33), F(34), F(35), F(36), F(37), F(38), F(39), F(40), F(41), F(42), F(43), F(44), F(45), F(46), F(47),  \
            F(48), F(49), F(50), F(51), F(52), F(53), F(54), F(55), F(56), F(57), F(58), F(59), F(60), F(61), F(62), F(63),  \
            F(64), F(65), F(66), F(67), F(68), F(69), F(70), F(71), F(72), F(73), F(74), F(75), F(76), F(77), F(78), F(79),  \
            F(80), F(81), F(82), F(83), F(84), F(85), F(86), F(87), F(88), F(89), F(90), F(91), F(92), F(93), F(94), F(95),  \
            F(96), F(97), F(98), F(99), F(100), F(101), F(102), F(103), F(104), F(105), F(106), F(107), F(108), F(109), F(110), F(111),  \
            F(112), F(113), F(114), F(115), F(116), F(117), F(118), F(119), F(120), F(121), F(122), F(123), F(124), F(125), F(126), F(127) \
            : "l"(a), "l"(b), "r"(add)); \
    }
PRODUCT(Half, "f16.f16")
PRODUCT(Brain, "bf16.bf16")
#undef PRODUCT
#undef F

__device__ __forceinline__ void products_begin() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void products_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
template <int PENDING> __device__ __forceinline__ void products_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

// The team's 64 rows of one tile: four products of 16 steps.
__device__ __forceinline__ void multiply(float (&sum)[128], unsigned stage, unsigned team, bool add) {
    const unsigned long long a = description(stage + team * 64 * LINE, 16, 8 * LINE);
    const unsigned long long b = description(stage + A_BYTES, BLOCK, 8 * LINE);
    products_begin();
#pragma unroll
    for (unsigned i = 0; i < BK / 16; ++i) product<T>(sum, a + i * 16 * sizeof(T) / 16, b + i * 16 * LINE / 16, add || i > 0);
    products_commit();
}

// Barriers that count arrivals and bytes; the parity of a wait is that of the round it waits for.
__device__ __forceinline__ void barrier_make(unsigned at, unsigned arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void barrier_arrive(unsigned at) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(at) : "memory");
}
__device__ __forceinline__ void barrier_expect(unsigned at, unsigned bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(at), "r"(bytes) : "memory");
}
__device__ __forceinline__ unsigned long long nanoseconds() {
    unsigned long long now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    return now;
}
// Ends the launch with a fault where a round does not come within two seconds: better lost than hung.
__device__ __forceinline__ void barrier_wait(unsigned at, unsigned parity) {
    unsigned long long since = 0;
    for (;;) {
        unsigned done;
        asm volatile("{.reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}"
                     : "=r"(done)
                     : "r"(at), "r"(parity)
                     : "memory");
        if (done) return;
        if (since == 0) since = nanoseconds();
        if (nanoseconds() - since > 2000000000ull) __trap();
    }
}
// A box of a tensor to shared memory; the barrier counts its bytes.
__device__ __forceinline__ void box_copy(unsigned to, const Map& map, unsigned x, unsigned y, unsigned barrier) {
    asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], [%4];" ::"r"(to),
                 "l"(&map), "r"(x), "r"(y), "r"(barrier)
                 : "memory");
}

// A place in the ring: a stage, and the parity of the round that fills it.
struct Turn {
    unsigned stage, parity;
    __device__ __forceinline__ void advance() {
        if (++stage == STAGES) stage = 0, parity ^= 1;
    }
};

// Tile number i of C.
struct Own {
    unsigned row, col;
};
__device__ __forceinline__ unsigned tiles_of(const Dims& d) { return (d.m + BM - 1) / BM * ((d.n + BN - 1) / BN); }
__device__ __forceinline__ Own own_of(unsigned i, const Dims& d) {
    const unsigned down = (d.m + BM - 1) / BM, across = (d.n + BN - 1) / BN, band = i / (BAND * across);
    const unsigned high = min(BAND, down - band * BAND), within = i % (BAND * across);
    return {(band * BAND + within % high) * BM, within / high * BN};
}

struct alignas(2 * sizeof(T)) Pair {
    T v[2];
};

// WHOLE: no pair straddles the edge.
template <bool WHOLE> __device__ __forceinline__ void store(T* c, const float (&sum)[128], const Own& own, const Dims& d) {
    const unsigned lane = threadIdx.x % 32;
#pragma unroll
    for (unsigned h = 0; h < 2; ++h) {
        const unsigned row = own.row + threadIdx.x / 32 * 16 + lane / 4 + 8 * h;
        T* const line = c + (unsigned long long)row * d.n;
        if (row < d.m) {
#pragma unroll
            for (unsigned j = 0; j < BN / 8; ++j) {
                const unsigned at = own.col + 8 * j + lane % 4 * 2;
                const Pair out = {{T(sum[4 * j + 2 * h]), T(sum[4 * j + 2 * h + 1])}};
                if constexpr (WHOLE) {
                    if (at < d.n) *reinterpret_cast<Pair*>(line + at) = out;
                } else {
                    if (at < d.n) line[at] = out.v[0];
                    if (at + 1 < d.n) line[at + 1] = out.v[1];
                }
            }
        }
    }
}

extern "C" __global__ void __launch_bounds__(LANES, 1) whole(const __grid_constant__ Map a, // [m, k], boxes of 128 x 64
                                                             const __grid_constant__ Map b, // [k, n], boxes of 64 x 64
                                                             T* __restrict__ c,             // [m, n]
                                                             const Dims d) {
    const unsigned base = shared_address(ring()), full = base + STAGES * STAGE, empty = full + STAGES * 8;
    if (threadIdx.x == 0) {
        for (unsigned i = 0; i < STAGES; ++i) {
            barrier_make(full + 8 * i, 1);
            barrier_make(empty + 8 * i, TEAMS);
        }
        asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
        asm volatile("fence.proxy.async;" ::: "memory"); // the copying unit sees them too
    }
    __syncthreads();
    const unsigned steps = (d.k + BK - 1) / BK, team = threadIdx.x / TEAM;
    Turn turn = {0, 0};
    if (team == TEAMS) {
        if (threadIdx.x % 32 != 0) return;
        for (unsigned i = blockIdx.x; i < tiles_of(d); i += gridDim.x) {
            const Own own = own_of(i, d);
            for (unsigned step = 0; step < steps; ++step, turn.advance()) {
                const unsigned to = base + turn.stage * STAGE, barrier = full + 8 * turn.stage;
                barrier_wait(empty + 8 * turn.stage, turn.parity ^ 1); // nobody reads it any more
                barrier_expect(barrier, STAGE);
                box_copy(to, a, step * BK, own.row, barrier);
                for (unsigned j = 0; j < BN / BK; ++j) box_copy(to + A_BYTES + j * BLOCK, b, own.col + j * BK, step * BK, barrier);
            }
        }
        return;
    }
    const bool leader = threadIdx.x % TEAM == 0;
    for (unsigned i = blockIdx.x; i < tiles_of(d); i += gridDim.x) {
        float sum[128];
        unsigned before = 0;
        for (unsigned step = 0; step < steps; ++step, turn.advance()) {
            barrier_wait(full + 8 * turn.stage, turn.parity);
            multiply(sum, base + turn.stage * STAGE, team, step > 0);
            products_wait<1>(); // those of the stage before have read it
            if (leader && step > 0) barrier_arrive(empty + 8 * before);
            before = turn.stage;
        }
        products_wait<0>();
        if (leader) barrier_arrive(empty + 8 * before);
        store<true>(c, sum, own_of(i, d), d);
    }
}

extern "C" __global__ void __launch_bounds__(TEAMS * TEAM, 1) ragged(const T* __restrict__ a, // [m, k]
                                                                     const T* __restrict__ b, // [k, n]
                                                                     T* __restrict__ c,       // [m, n]
                                                                     const Dims d) {
    unsigned char* const tile = ring();
    const unsigned team = threadIdx.x / TEAM;
    for (unsigned i = blockIdx.x; i < tiles_of(d); i += gridDim.x) {
        const Own own = own_of(i, d);
        float sum[128];
        for (unsigned first = 0; first < d.k; first += BK) {
#pragma unroll 1
            for (unsigned e = threadIdx.x; e < BM * BK; e += TEAMS * TEAM) {
                const unsigned row = own.row + e / BK, p = first + e % BK;
                const T x = row < d.m && p < d.k ? a[row * d.k + p] : T(0);
                *reinterpret_cast<T*>(tile + place_a(e / BK, e % BK)) = x;
            }
#pragma unroll 1
            for (unsigned e = threadIdx.x; e < BK * BN; e += TEAMS * TEAM) {
                const unsigned p = first + e / BN, col = own.col + e % BN;
                const T x = p < d.k && col < d.n ? b[p * d.n + col] : T(0);
                *reinterpret_cast<T*>(tile + place_b(e / BN, e % BN)) = x;
            }
            asm volatile("fence.proxy.async;" ::: "memory"); // what lanes have stored, the matrix units may read
            __syncthreads();                                 // and the tile is whole
            multiply(sum, shared_address(tile), team, first > 0);
            products_wait<0>();
            __syncthreads(); // the tile is no longer needed
        }
        store<false>(c, sum, own, d);
    }
}
