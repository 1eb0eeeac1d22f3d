// matmul/mma: C[m,n] = A[m,k] . B[k,n] on matrix units a warp at a time; sums are f32.
//
// Owns:    a group of 2 x BN / 64 warps a 128 x BN tile of C, a warp 64 x 64 of it: 4 x 8 products of 16 x 8. Groups walk C in bands
//          of BAND tiles of rows, so that what runs together shares its rows of A and columns of B in the cache.
// Traffic: a ring of STAGES tiles of A and B, 128 bytes of k each, is filled by copies that no lane waits for: 16 bytes at a time,
//          the places of a line exchanged by its number, so that the eight lanes that load a matrix meet eight different banks.
//          Fragments are loaded one step of 32 bytes ahead of their use.
// Guards:  `whole` needs n and k to be whole vectors of 16 bytes: what lies past an edge is copied as zeros. `ragged` takes any
//          shape, one element at a time, with one tile and no ring. Outputs past an edge are not stored.
// Changed: from pipelined: the matrix units do the sums, the copies bypass the registers, and more tiles are on their way.

constexpr unsigned BM = 128, LINE = 128, BAND = 8;
constexpr unsigned WIDE = 16 / sizeof(T), BK = LINE / sizeof(T);
constexpr unsigned WARPS_N = BN / 64, LANES = 2 * WARPS_N * 32;
constexpr unsigned A_BYTES = BM * LINE, B_LINE = BN * sizeof(T), STAGE = A_BYTES + BK * B_LINE;
constexpr unsigned STEPS = 4; // of 32 bytes of k

static_assert(BN == 128 || BN == 256, "warps of 64 columns");
static_assert(STAGES >= 2, "one tile is multiplied while the others are on their way");
static_assert(BM * 8 % LANES == 0 && LANES / (BN / WIDE) == WIDE, "lanes share the copies evenly");

extern __shared__ __align__(128) unsigned char pool[];

// Where vector `at` of line `line` of A lies in its tile; eight lines hold it at eight different places.
__device__ __forceinline__ unsigned place_a(unsigned line, unsigned at) { return line * LINE + (at ^ line % 8) * 16; }
// The same of B, whose lines are steps of k. Words have no transposed load: four lines are read at once, two vectors of each.
__device__ __forceinline__ unsigned place_b(unsigned line, unsigned at) {
    return A_BYTES + line * B_LINE + (at ^ (sizeof(T) == 2 ? line % 8 : line % 4 * 2)) * 16;
}

// The group's tile of C.
struct Own {
    unsigned row, col;
    bool exists;
};
__device__ __forceinline__ Own own_of(const Dims& d) {
    const unsigned down = (d.m + BM - 1) / BM, across = (d.n + BN - 1) / BN;
    const unsigned i = blockIdx.y * gridDim.x + blockIdx.x, band = i / (BAND * across);
    const unsigned high = min(BAND, down - min(band * BAND, down)); // tiles of rows in this band
    const unsigned within = i % (BAND * across);
    if (i >= down * across) return {0, 0, false};
    return {(band * BAND + within % high) * BM, within / high * BN, true};
}

template <bool INSIDE> __device__ __forceinline__ void copy(unsigned char* to, const T* from, bool exists) {
    if constexpr (INSIDE) copy_async(to, from);
    else copy_async(to, from, exists);
}

// Tile `tile` of both operands to stage `stage` of the ring. INSIDE: all of it exists, and nobody need ask.
template <bool INSIDE>
__device__ __forceinline__ void fetch(const T* a, const T* b, const Own& own, unsigned tile, unsigned stage, const Dims& d) {
    unsigned char* const to = pool + stage * STAGE;
    const unsigned first = tile * BK;
#pragma unroll
    for (unsigned l = 0; l < BM * 8 / LANES; ++l) {
        const unsigned i = l * LANES + threadIdx.x, line = i / 8, at = i % 8, row = own.row + line, p = first + at * WIDE;
        copy<INSIDE>(to + place_a(line, at), a + ((unsigned long long)row * d.k + p), row < d.m && p < d.k);
    }
#pragma unroll
    for (unsigned l = 0; l < BK * (BN / WIDE) / LANES; ++l) {
        const unsigned i = l * LANES + threadIdx.x, line = i / (BN / WIDE), at = i % (BN / WIDE), p = first + line, col = own.col + at * WIDE;
        copy<INSIDE>(to + place_b(line, at), b + ((unsigned long long)p * d.n + col), p < d.k && col < d.n);
    }
}

__device__ __forceinline__ void fetch(const T* a, const T* b, const Own& own, unsigned tile, unsigned stage, const Dims& d) {
    const bool inside = own.row + BM <= d.m && own.col + BN <= d.n && (tile + 1) * BK <= d.k;
    if (inside) fetch<true>(a, b, own, tile, stage, d);
    else fetch<false>(a, b, own, tile, stage, d);
}

// Both operands for any extents, to the first stage.
__device__ __forceinline__ void fill(const T* a, const T* b, const Own& own, unsigned first, const Dims& d) {
#pragma unroll 1
    for (unsigned i = threadIdx.x; i < BM * BK; i += LANES) {
        const unsigned line = i / BK, e = i % BK, row = own.row + line, p = first + e;
        const T x = row < d.m && p < d.k ? a[row * d.k + p] : T(0);
        reinterpret_cast<T*>(pool + place_a(line, e / WIDE))[e % WIDE] = x;
    }
#pragma unroll 1
    for (unsigned i = threadIdx.x; i < BK * BN; i += LANES) {
        const unsigned line = i / BN, e = i % BN, p = first + line, col = own.col + e;
        const T x = p < d.k && col < d.n ? b[p * d.n + col] : T(0);
        reinterpret_cast<T*>(pool + place_b(line, e / WIDE))[e % WIDE] = x;
    }
}

// A warp's operands of one step.
struct Fragments {
    unsigned a[4][4], b[8][2];
};

// Of words the units take the upper 19 bits: half of what is cut off is added first, which rounds.
__device__ __forceinline__ unsigned rounded(unsigned bits) { return sizeof(T) == 4 ? bits + 0x1000 : bits; }

__device__ __forceinline__ void load(Fragments& f, const unsigned char* stage, unsigned step, unsigned row, unsigned col) {
    const unsigned lane = threadIdx.x % 32;
#pragma unroll
    for (unsigned i = 0; i < 4; ++i) load_matrices(f.a[i], stage + place_a(row + 16 * i + lane % 16, 2 * step + lane / 16));
    if constexpr (sizeof(T) == 2) {
#pragma unroll
        for (unsigned j = 0; j < 8; j += 2) {
            unsigned r[4];
            load_matrices_transposed(r, stage + place_b(16 * step + lane % 16, col / 8 + j + lane / 16));
            f.b[j][0] = r[0], f.b[j][1] = r[1], f.b[j + 1][0] = r[2], f.b[j + 1][1] = r[3];
        }
    } else {
#pragma unroll
        for (unsigned j = 0; j < 8; ++j) {
#pragma unroll
            for (unsigned h = 0; h < 2; ++h) {
                const unsigned line = 8 * step + 4 * h + lane % 4, e = col + 8 * j + lane / 4;
                f.b[j][h] = rounded(reinterpret_cast<const unsigned*>(stage + place_b(line, e / 4))[e % 4]);
            }
        }
#pragma unroll
        for (unsigned i = 0; i < 16; ++i) f.a[i / 4][i % 4] = rounded(f.a[i / 4][i % 4]);
    }
}

__device__ __forceinline__ void multiply(float (&sum)[4][8][4], const Fragments& f) {
#pragma unroll
    for (unsigned i = 0; i < 4; ++i) {
#pragma unroll
        for (unsigned j = 0; j < 8; ++j) mma<T>(sum[i][j], f.a[i], f.b[j][0], f.b[j][1]);
    }
}

// All of one stage, fragments one step ahead.
__device__ __forceinline__ void multiply(float (&sum)[4][8][4], const unsigned char* stage, unsigned row, unsigned col) {
    Fragments f[2];
    load(f[0], stage, 0, row, col);
#pragma unroll
    for (unsigned step = 0; step < STEPS; ++step) {
        if (step + 1 < STEPS) load(f[(step + 1) % 2], stage, step + 1, row, col);
        multiply(sum, f[step % 2]);
    }
}

struct alignas(2 * sizeof(T)) Pair {
    T v[2];
};

// WHOLE: no pair straddles the edge.
template <bool WHOLE>
__device__ __forceinline__ void store(T* c, const float (&sum)[4][8][4], const Own& own, unsigned row, unsigned col, const Dims& d) {
    const unsigned lane = threadIdx.x % 32;
#pragma unroll
    for (unsigned i = 0; i < 8; ++i) {
        const unsigned r = own.row + row + 8 * i + lane / 4;
        if (r < d.m) {
            T* const line = c + (unsigned long long)r * d.n;
#pragma unroll
            for (unsigned j = 0; j < 8; ++j) {
                const unsigned at = own.col + col + 8 * j + lane % 4 * 2;
                const Pair out = {{T(sum[i / 2][j][i % 2 * 2]), T(sum[i / 2][j][i % 2 * 2 + 1])}};
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

// The warp's part of the group's tile.
__device__ __forceinline__ unsigned warp_row() { return threadIdx.x / 32 / WARPS_N * 64; }
__device__ __forceinline__ unsigned warp_col() { return threadIdx.x / 32 % WARPS_N * 64; }

extern "C" __global__ void __launch_bounds__(LANES) whole(const T* __restrict__ a, // [m, k]
                                                          const T* __restrict__ b, // [k, n]
                                                          T* __restrict__ c,       // [m, n]
                                                          const Dims d) {
    const Own own = own_of(d);
    if (!own.exists) return; // the whole group at once, before any barrier
    const unsigned tiles = (d.k + BK - 1) / BK;
    float sum[4][8][4] = {};
#pragma unroll
    for (unsigned tile = 0; tile < STAGES - 1; ++tile) {
        if (tile < tiles) fetch(a, b, own, tile, tile, d);
        copies_commit();
    }
    unsigned stage = 0, next = STAGES - 1;
    for (unsigned tile = 0; tile < tiles; ++tile) {
        copies_wait<STAGES - 2>(); // this lane's share of the tile has come,
        __syncthreads();           // every lane's has, and nobody reads the stage that is filled next
        if (tile + STAGES - 1 < tiles) fetch(a, b, own, tile + STAGES - 1, next, d);
        copies_commit();
        multiply(sum, pool + stage * STAGE, warp_row(), warp_col());
        stage = stage + 1 == STAGES ? 0 : stage + 1;
        next = next + 1 == STAGES ? 0 : next + 1;
    }
    store<true>(c, sum, own, warp_row(), warp_col(), d);
}

extern "C" __global__ void __launch_bounds__(LANES) ragged(const T* __restrict__ a, // [m, k]
                                                           const T* __restrict__ b, // [k, n]
                                                           T* __restrict__ c,       // [m, n]
                                                           const Dims d) {
    const Own own = own_of(d);
    if (!own.exists) return; // the whole group at once, before any barrier
    float sum[4][8][4] = {};
    for (unsigned first = 0; first < d.k; first += BK) {
        fill(a, b, own, first, d);
        __syncthreads(); // the tile is whole
        multiply(sum, pool, warp_row(), warp_col());
        __syncthreads(); // and no longer needed
    }
    store<false>(c, sum, own, warp_row(), warp_col(), d);
}
