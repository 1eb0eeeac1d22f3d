// matmul/wgmma: C[m,n] = A[m,k] . B[k,n] on matrix units four warps at a time, operands in shared memory; sums are f32.
//
// Owns:    as many groups as the device has processors, CLUSTER of them together; each walks over tiles of 128 x 256 of C, those that are
//          together over tiles one below the other, in bands of BAND tiles of rows, so that what runs at a time shares its rows of A and
//          columns of B in the cache. Two sets of four warps own 64 rows each.
// Traffic: a ring of STAGES tiles of A and B, 128 bytes of k each, is filled by the unit that copies tiles, told by one lane of a
//          ninth warp; it goes on to the next tile of C while this one is stored. Groups that are together share their columns of B:
//          each copies a part of them to all. A tile lies as the matrix units read it: lines of 128 bytes whose 16-byte places are
//          exchanged by the line's number. Outputs are stored 16 bytes a lane.
// Guards:  `whole` needs n and k to be whole vectors of 16 bytes: what lies past an edge is copied as zeros. `ragged` takes any
//          shape, one element at a time, with one tile, no ring and each group alone. Outputs past an edge are not stored.
// Changed: from mma: operands never pass through registers, no lane that multiplies copies, and groups share what they copy.

constexpr unsigned BM = 128, BN = 256, LINE = 128, BAND = 8;
constexpr unsigned WIDE = 16 / sizeof(T), BK = LINE / sizeof(T);
constexpr unsigned A_BYTES = BM * LINE, BLOCK = BK * LINE, STAGE = A_BYTES + BN / BK * BLOCK; // B lies in blocks of BK columns
constexpr unsigned TEAMS = 2, TEAM = 128, LANES = TEAMS * TEAM + 32;
constexpr unsigned OWN_BLOCKS = BN / BK / CLUSTER; // of B's, that a group copies

static_assert(sizeof(T) == 2, "words have no operand that lies along n");
static_assert(STAGES >= 2, "one tile is multiplied while the others are on their way");
static_assert(CLUSTER == 1 || CLUSTER == 2 || CLUSTER == 4, "groups share B evenly, and bands hold whole clusters");

#include "../warpgroup.cuh"

extern __shared__ __align__(1024) unsigned char pool[];

// The ring begins at a multiple of 1024 bytes, or places would be exchanged by other numbers than the unit's.
__device__ __forceinline__ unsigned char* ring() { return pool + (1024 - shared_address(pool) % 1024) % 1024; }

// Element e of line `line` of A's tile; element e of line `line` of B's, whose lines are steps of k.
__device__ __forceinline__ unsigned place_a(unsigned line, unsigned e) {
    return line * LINE + (e / WIDE ^ line % 8) * 16 + e % WIDE * sizeof(T);
}
__device__ __forceinline__ unsigned place_b(unsigned line, unsigned e) { return A_BYTES + e / BK * BLOCK + place_a(line, e % BK); }

// The team's 64 rows of one tile: four products of 16 steps.
__device__ __forceinline__ void multiply(float (&sum)[128], unsigned stage, unsigned team, bool add) {
    const unsigned long long a = descriptor(stage + team * 64 * LINE, 16, 8 * LINE, SWIZZLE_128);
    const unsigned long long b = descriptor(stage + A_BYTES, BLOCK, 8 * LINE, SWIZZLE_128);
    products_begin();
#pragma unroll
    for (unsigned i = 0; i < BK / 16; ++i) {
        product<T, MN_MAJOR>(sum, a + i * 16 * sizeof(T) / 16, b + i * 16 * LINE / 16, add || i > 0);
    }
    products_commit();
}

// A place in the ring: a stage, and the parity of the round that fills it.
struct Turn {
    unsigned stage, parity;
    __device__ __forceinline__ void advance() {
        if (++stage == STAGES) stage = 0, parity ^= 1;
    }
};

// Tile number i of C where GROUPS groups together own tiles one below the other, and this is the group of that rank.
struct Own {
    unsigned row, col;
};
template <unsigned GROUPS> __device__ __forceinline__ unsigned tiles_down(const Dims& d) { return (d.m + GROUPS * BM - 1) / (GROUPS * BM); }
template <unsigned GROUPS> __device__ __forceinline__ unsigned tiles_of(const Dims& d) { return tiles_down<GROUPS>(d) * ((d.n + BN - 1) / BN); }
template <unsigned GROUPS> __device__ __forceinline__ Own own_of(unsigned i, unsigned rank, const Dims& d) {
    constexpr unsigned band_rows = BAND / GROUPS;
    const unsigned across = (d.n + BN - 1) / BN, band = i / (band_rows * across);
    const unsigned high = min(band_rows, tiles_down<GROUPS>(d) - band * band_rows), within = i % (band_rows * across);
    return {((band * band_rows + within % high) * GROUPS + rank) * BM, within / high * BN};
}

// The team's rows of a tile. WHOLE: no vector straddles the edge.
template <bool WHOLE> __device__ __forceinline__ void store(T* c, const float (&sum)[128], const Own& own, const Dims& d) {
    const unsigned lane = threadIdx.x % 32;
#pragma unroll
    for (unsigned h = 0; h < 2; ++h) {
        const unsigned row = own.row + threadIdx.x / 32 * 16 + lane / 4 + 8 * h;
        T* const line = c + (unsigned long long)row * d.n;
        if constexpr (WHOLE) {
            const auto pair = [&](unsigned j) { return packed<T>(sum[4 * j + 2 * h], sum[4 * j + 2 * h + 1]); };
#pragma unroll
            for (unsigned j = 0; j < BN / 8; j += 4) {
                const Piece out = gathered(pair(j), pair(j + 1), pair(j + 2), pair(j + 3));
                const unsigned at = own.col + 8 * (j + lane % 4);
                if (row < d.m && at < d.n) *reinterpret_cast<Piece*>(line + at) = out;
            }
        } else if (row < d.m) {
#pragma unroll
            for (unsigned i = 0; i < BN / 4; ++i) {
                const unsigned at = own.col + i / 2 * 8 + lane % 4 * 2 + i % 2;
                if (at < d.n) line[at] = T(sum[i / 2 * 4 + 2 * h + i % 2]);
            }
        }
    }
}

// One lane's work: the group's share of the tiles that its cluster multiplies.
__device__ __forceinline__ void fetch(const Map& a, const Map& b, unsigned base, unsigned rank, const Dims& d) {
    const unsigned full = base + STAGES * STAGE, empty = full + STAGES * 8;
    Turn turn = {0, 0};
    for (unsigned i = blockIdx.x / CLUSTER; i < tiles_of<CLUSTER>(d); i += gridDim.x / CLUSTER) {
        const Own own = own_of<CLUSTER>(i, rank, d);
        for (unsigned p = 0; p < d.k; p += BK, turn.advance()) {
            const unsigned to = base + turn.stage * STAGE, barrier = full + 8 * turn.stage;
            barrier_wait(empty + 8 * turn.stage, turn.parity ^ 1); // nobody reads it any more, in no group
            barrier_expect(barrier, STAGE);
            box_copy(to, a, p, own.row, barrier);
            for (unsigned j = rank * OWN_BLOCKS; j < (rank + 1) * OWN_BLOCKS; ++j) {
                const unsigned block = to + A_BYTES + j * BLOCK, col = own.col + j * BK;
                if constexpr (CLUSTER > 1) box_copy_to((1u << CLUSTER) - 1, block, b, col, p, barrier);
                else box_copy(block, b, col, p, barrier);
            }
        }
    }
}

// A team has read a stage: lanes of its first warp tell a group each.
__device__ __forceinline__ void give_back(unsigned empty) {
    const unsigned lane = threadIdx.x % TEAM;
    if constexpr (CLUSTER > 1) {
        if (lane < CLUSTER) barrier_arrive_at(empty, lane);
    } else {
        if (lane == 0) barrier_arrive(empty);
    }
}

// All groups that are together.
__device__ __forceinline__ void meet() {
    if constexpr (CLUSTER > 1) cluster_sync();
    else __syncthreads();
}

extern "C" __global__ void __cluster_dims__(CLUSTER, 1, 1) __launch_bounds__(LANES, 1)
    whole(const __grid_constant__ Map a, // [m, k], boxes of 128 x 64
          const __grid_constant__ Map b, // [k, n], boxes of 64 x 64
          T* __restrict__ c,             // [m, n]
          const Dims d) {
    const unsigned base = shared_address(ring()), full = base + STAGES * STAGE, empty = full + STAGES * 8;
    if (threadIdx.x == 0) {
        for (unsigned i = 0; i < STAGES; ++i) {
            barrier_make(full + 8 * i, 1);
            barrier_make(empty + 8 * i, TEAMS * CLUSTER);
        }
        barriers_made();
    }
    meet(); // barriers are made
    const unsigned steps = (d.k + BK - 1) / BK, team = threadIdx.x / TEAM, rank = CLUSTER > 1 ? cluster_rank() : 0;
    Turn turn = {0, 0};
    if (team == TEAMS) {
        if (threadIdx.x % 32 == 0) fetch(a, b, base, rank, d);
    } else {
        for (unsigned i = blockIdx.x / CLUSTER; i < tiles_of<CLUSTER>(d); i += gridDim.x / CLUSTER) {
            float sum[128];
            unsigned before = 0;
            for (unsigned step = 0; step < steps; ++step, turn.advance()) {
                barrier_wait(full + 8 * turn.stage, turn.parity);
                multiply(sum, base + turn.stage * STAGE, team, step > 0);
                products_wait<1>(); // those of the stage before have read it
                if (step > 0) give_back(empty + 8 * before);
                before = turn.stage;
            }
            products_wait<0>();
            products_done(sum);
            give_back(empty + 8 * before);
            store<true>(c, sum, own_of<CLUSTER>(i, rank, d), d);
        }
    }
    if constexpr (CLUSTER > 1) meet(); // no group leaves while others tell it, or copy to it
}

extern "C" __global__ void __launch_bounds__(TEAMS * TEAM, 1) ragged(const T* __restrict__ a, // [m, k]
                                                                     const T* __restrict__ b, // [k, n]
                                                                     T* __restrict__ c,       // [m, n]
                                                                     const Dims d) {
    unsigned char* const tile = ring();
    const unsigned team = threadIdx.x / TEAM;
    for (unsigned i = blockIdx.x; i < tiles_of<1>(d); i += gridDim.x) {
        const Own own = own_of<1>(i, 0, d);
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
            stores_seen();
            __syncthreads(); // the tile is whole
            multiply(sum, shared_address(tile), team, first > 0);
            products_wait<0>();
            products_done(sum);
            __syncthreads(); // the tile is no longer needed
        }
        store<false>(c, sum, own, d);
    }
}
