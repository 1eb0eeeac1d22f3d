// matmul/mma: C[m,n] = A[m,k] . B[k,n] on matrix units a warp at a time; sums are f32.
//
// Owns:    a group of 2 x BN / 64 warps a 128 x BN tile of C, a warp 64 x 64 of it: 4 x 8 products of 16 x 8. Groups walk C in bands
//          of tiles of rows, so that what runs together shares its rows of A and columns of B in the cache.
// Traffic: a ring of STAGES tiles of A and B, 128 bytes of k each, is filled by copies that no lane waits for: 16 bytes at a time,
//          the places of a line exchanged by its number, so that the eight lanes that load a matrix meet eight different banks.
//          Fragments are loaded one step of 32 bytes ahead of their use.
// Guards:  `whole` needs n and k to be whole vectors of 16 bytes: what lies past an edge is copied as zeros. `ragged` takes any
//          shape, one element at a time, with one tile and no ring. Outputs past an edge are not stored.
// Changed: from pipelined: the matrix units do the sums, the copies bypass the registers, and more tiles are on their way.

constexpr unsigned BM = 128;
#include "../ring.cuh"

constexpr unsigned B_LINE = BN * sizeof(T);

static_assert(BN == 128 || BN == 256, "warps of 64 columns");
static_assert(BM * 8 % LANES == 0 && LANES / (BN / WIDE) == WIDE, "lanes share the copies evenly");

// Where vector `at` of line `line` of B lies in a stage, a line being a step of k. Words have no transposed load: four lines are read
// at once, two vectors of each.
__device__ __forceinline__ unsigned place_b(unsigned line, unsigned at) {
    return LEFT_BYTES + line * B_LINE + (at ^ (sizeof(T) == 2 ? line % 8 : line % 4 * 2)) * 16;
}

__device__ __forceinline__ Own own_of(const Dims& d) { return own_of((d.m + BM - 1) / BM, (d.n + BN - 1) / BN); }

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
        copy<INSIDE>(to + place(line, at), a + ((unsigned long long)row * d.k + p), row < d.m && p < d.k);
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
        reinterpret_cast<T*>(pool + place(line, e / WIDE))[e % WIDE] = x;
    }
#pragma unroll 1
    for (unsigned i = threadIdx.x; i < BK * BN; i += LANES) {
        const unsigned line = i / BN, e = i % BN, p = first + line, col = own.col + e;
        const T x = p < d.k && col < d.n ? b[p * d.n + col] : T(0);
        reinterpret_cast<T*>(pool + place_b(line, e / WIDE))[e % WIDE] = x;
    }
}

__device__ __forceinline__ void load_right(Fragments& f, const unsigned char* stage, unsigned step, unsigned col, unsigned lane) {
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
    }
}

template <bool WHOLE> __device__ __forceinline__ void store(T* c, const float (&sum)[4][8][4], const Own& own, const Dims& d) {
    store<WHOLE>(c, sum, own.row + warp_row(), own.col + warp_col(), d.m, d.n, d.n);
}

extern "C" __global__ void __launch_bounds__(LANES) whole(const T* __restrict__ a, // [m, k]
                                                          const T* __restrict__ b, // [k, n]
                                                          T* __restrict__ c,       // [m, n]
                                                          const Dims d) {
    const Own own = own_of(d);
    if (!own.exists) return; // the whole group at once, before any barrier
    float sum[4][8][4] = {};
    multiply_ring(sum, (d.k + BK - 1) / BK, [&](unsigned tile, unsigned stage) { fetch(a, b, own, tile, stage, d); });
    store<true>(c, sum, own, d);
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
    store<false>(c, sum, own, d);
}
