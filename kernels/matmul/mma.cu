// matmul/mma: C[m,n] = A[m,k] . B[k,n] on matrix units a warp at a time; sums are f32.
//
// Owns:    a group of 2 x BN / 64 warps a 128 x BN tile of C, a warp 64 x 64 of it: 4 x 8 products of 16 x 8. Groups walk C in bands
//          of tiles of rows, so that what runs together shares its rows of A and columns of B in the cache.
// Traffic: a ring of STAGES tiles of A and B, 128 bytes of k each, is filled by copies that no lane waits for: 16 bytes at a time,
//          the places of a line exchanged by its number, so that the eight lanes that load a matrix meet eight different banks.
//          Fragments are loaded one step of 32 bytes ahead of their use, over the end of a tile too, and copies stand between products.
//          Barriers of each stage count the copies that come and the warps that have read them, so that warps need not meet.
// Guards:  `whole` needs n and k to be whole vectors of 16 bytes: what lies past an edge is copied as zeros. `ragged` takes any
//          shape, one element at a time, with one tile and no ring. Outputs past an edge are not stored.
// Changed: from pipelined: the matrix units do the sums, the copies bypass the registers, and more tiles are on their way.

constexpr unsigned BM = 128;
#include "../ring.cuh"

constexpr unsigned B_LINE = BN * sizeof(T);

static_assert(BN == 128 || BN == 256, "warps of 64 columns");

// Where vector `at` of line `line` of B lies in a stage, a line being a step of k. Words have no transposed load: four lines are read
// at once, two vectors of each.
__device__ __forceinline__ unsigned place_b(unsigned line, unsigned at) {
    return LEFT_BYTES + line * B_LINE + (at ^ (sizeof(T) == 2 ? line % 8 : line % 4 * 2)) * 16;
}

__device__ __forceinline__ Own own_of(const Dims& d) { return own_of((d.m + BM - 1) / BM, (d.n + BN - 1) / BN); }

// What a lane copies of each tile: the same vector of every eighth line or so of A and of B, always at one place in its line.
struct Loader {
    static constexpr unsigned A_APART = LANES / 8, B_APART = LANES / (BN / WIDE);
    static constexpr unsigned A_PART = BM / A_APART / STEPS, B_PART = BK / B_APART / STEPS; // vectors of a part of the copies
    static_assert(A_APART % 8 == 0 && B_APART == WIDE, "a lane's vectors have one place in their lines");
    static_assert(A_PART * A_APART * STEPS == BM && B_PART * B_APART * STEPS == BK, "all parts are alike");

    const Dims& d;
    const T *a, *b;       // its next vectors of its first lines
    unsigned rows;        // lines of A from its first on that exist
    unsigned left, depth; // elements of k from its vector of A, and steps of k from its first line of B, to the last
    unsigned first = 0;   // step of k with which the next tile begins
    unsigned to_a, to_b;  // where its vectors of its first lines lie in a stage

    __device__ __forceinline__ Loader(const T* a, const T* b, const Own& own, const Dims& d) : d(d) {
        const unsigned row = own.row + threadIdx.x / 8, p = threadIdx.x % 8 * WIDE;
        const unsigned line = threadIdx.x / (BN / WIDE), col = own.col + threadIdx.x % (BN / WIDE) * WIDE;
        this->a = a + ((unsigned long long)row * d.k + p);
        this->b = b + ((unsigned long long)line * d.n + col);
        rows = d.m - min(row, d.m), left = d.k - min(p, d.k), depth = col < d.n ? d.k - min(line, d.k) : 0;
        to_a = place(threadIdx.x / 8, threadIdx.x % 8), to_b = place_b(line, threadIdx.x % (BN / WIDE));
    }

    __device__ __forceinline__ void begin() const {}

    __device__ __forceinline__ void fetch(unsigned stage, unsigned part) {
        if (first >= d.k) return; // past the last tile
        const unsigned a_step = A_APART * d.k, b_step = B_APART * d.n;
        unsigned char* const to = pool + stage * STAGE;
#pragma unroll
        for (unsigned l = part * A_PART; l < (part + 1) * A_PART; ++l) {
            copy_async(to + to_a + l * A_APART * LINE, a + (unsigned long long)a_step * l, l * A_APART < rows && first < left);
        }
#pragma unroll
        for (unsigned l = part * B_PART; l < (part + 1) * B_PART; ++l) {
            copy_async(to + to_b + l * B_APART * B_LINE, b + (unsigned long long)b_step * l, first + l * B_APART < depth);
        }
        if (part + 1 == STEPS) first += BK, a += BK, b += (unsigned long long)BK * d.n;
    }
};

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

// Halves are loaded transposed, 16 lines of B as two vectors of eight columns each; words one by one, of lines lane % 4 and four on.
__device__ __forceinline__ unsigned first_right(unsigned col, unsigned lane) {
    if (sizeof(T) == 2) return place_b(lane % 16, col / WIDE + lane / 16);
    return place_b(lane % 4, col / WIDE + lane / 16) + lane / 4 % 4 * sizeof(T);
}

__device__ __forceinline__ void load_right(Fragments& f, unsigned first, unsigned step) {
    if constexpr (sizeof(T) == 2) {
#pragma unroll
        for (unsigned j = 0; j < 8; j += 2) {
            unsigned r[4];
            load_matrices_transposed(r, pool + (first ^ j * 16) + 16 * step * B_LINE);
            f.b[j][0] = r[0], f.b[j][1] = r[1], f.b[j + 1][0] = r[2], f.b[j + 1][1] = r[3];
        }
    } else {
#pragma unroll
        for (unsigned j = 0; j < 8; ++j) {
            const unsigned at = (first ^ j % 4 * 32) + j / 4 * 128 + 8 * step * B_LINE;
            f.b[j][0] = rounded(*reinterpret_cast<const unsigned*>(pool + at));
            f.b[j][1] = rounded(*reinterpret_cast<const unsigned*>(pool + at + 4 * B_LINE));
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
    Loader loader(a, b, own, d);
    float sum[4][8][4] = {};
    multiply_apart(sum, (d.k + BK - 1) / BK, loader);
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
        multiply(sum);
        __syncthreads(); // and no longer needed
    }
    store<false>(c, sum, own, d);
}
