// matmul/pipelined: C[m,n] = A[m,k] . B[k,n]; a register tile a lane, fed from shared memory that the next tiles fill meanwhile.
//
// Owns:    a group of BM / (4 * TM) x 2 warps a BM x 128 tile of C, a warp (4 * TM) x 64 of it, a lane TM x 8: its rows in runs of
//          four that lie 16 apart, its columns in runs of four that lie 32 apart, so that a warp's loads are vectors side by side.
// Traffic: a group loads BK columns of A and BK rows of B at a time, 16 bytes a lane, into registers while it multiplies what
//          shared memory holds; then stores them to the other half of it. A lane loads TM + 8 values for 8 * TM multiply-adds,
//          one step ahead of their use.
// Guards:  `whole` has none: its extents are multiples of the tile. `ragged` loads zeros past every edge, one element at a time,
//          and waits for them.
// Changed: from tiled: TM x 8 outputs a lane instead of one; A lies transposed in shared memory, so that a lane's rows are
//          vectors; one barrier for BK steps, and none that waits for memory.

constexpr unsigned BN = 128, TN = 8;
constexpr unsigned DOWN = BM / (4 * TM); // warps along m; two along n
constexpr unsigned LANES = DOWN * 2 * 32;
constexpr unsigned BK = LANES >= 128 ? 16 : 8; // a smaller group has no registers to hold more
constexpr unsigned A_LOADS = BM * BK / 4 / LANES, B_LOADS = BK * BN / 4 / LANES;

static_assert(TM == 8 || TM == 16, "rows come in runs of four, and a warp's rows in multiples of 32");
static_assert(BM % (4 * TM) == 0 && LANES <= 512, "whole warps, and registers for all of them");
static_assert(A_LOADS * LANES * 4 == BM * BK && B_LOADS * LANES * 4 == BK * BN, "lanes share the loads evenly");
static_assert(sizeof(T) == 4, "loads of four are 16 bytes");

struct alignas(16) Four {
    T v[4];
};

// Column of A's row `row` at step p of a transposed tile: steps whose second bit of fours is set have their halves of 32 swapped,
// so that the two lanes that load a row's neighbouring vectors store to different banks.
__device__ __forceinline__ unsigned swapped(unsigned row, unsigned p) { return row ^ (p >> 2 & 1) << 4; }

// Sixteen bytes from memory. Where two warps of a scheduler are all, they are asked for where this stands: the compiler would sink the
// load to a few hundred cycles before its use, which saves registers and waits for memory. More warps have no registers to spare, nor need.
__device__ __forceinline__ Four load(const T* from) {
#ifndef CUDACPU
    if constexpr (TM == 16) {
        Four four;
        asm volatile("ld.global.v4.f32 {%0, %1, %2, %3}, [%4];"
                     : "=f"(four.v[0]), "=f"(four.v[1]), "=f"(four.v[2]), "=f"(four.v[3])
                     : "l"(from)
                     : "memory");
        return four;
    }
#endif
    return *reinterpret_cast<const Four*>(from);
}

struct Tile {
    S left[BK][BM];  // [step, row], see `swapped`
    S right[BK][BN]; // [step, column]
};

// A lane's share of the next tiles, on its way from memory.
struct Share {
    Four a[A_LOADS], b[B_LOADS];
};

// Load l of a lane is four steps of one row of A: pairs of lanes take neighbouring fours, pairs take neighbouring rows.
struct Place {
    unsigned row, step;
};
__device__ __forceinline__ Place place(unsigned l) {
    const unsigned i = l * LANES + threadIdx.x;
    return {i / 2 % BM, (i / 2 / BM * 2 + i % 2) * 4};
}

__device__ __forceinline__ Share fetch(const T* a, const T* b, unsigned first, const Dims& d) {
    Share share;
#pragma unroll
    for (unsigned l = 0; l < A_LOADS; ++l) {
        const Place at = place(l);
        share.a[l] = load(a + ((blockIdx.y * BM + at.row) * d.k + first + at.step));
    }
#pragma unroll
    for (unsigned l = 0; l < B_LOADS; ++l) {
        const unsigned i = l * LANES + threadIdx.x;
        share.b[l] = load(b + ((first + i / (BN / 4)) * d.n + blockIdx.x * BN + i % (BN / 4) * 4));
    }
    return share;
}

__device__ __forceinline__ void stash(Tile& tile, const Share& share) {
#pragma unroll
    for (unsigned l = 0; l < A_LOADS; ++l) {
        const Place at = place(l);
#pragma unroll
        for (unsigned e = 0; e < 4; ++e) tile.left[at.step + e][swapped(at.row, at.step)] = share.a[l].v[e];
    }
#pragma unroll
    for (unsigned l = 0; l < B_LOADS; ++l) {
        const unsigned i = l * LANES + threadIdx.x;
        *reinterpret_cast<Four*>(&tile.right[i / (BN / 4)][i % (BN / 4) * 4]) = share.b[l];
    }
}

// Both at once for any extents: one element at a time, because a lane's sums leave no registers for more.
__device__ __forceinline__ void fill(Tile& tile, const T* a, const T* b, unsigned first, const Dims& d) {
#pragma unroll 1
    for (unsigned i = threadIdx.x; i < BM * BK; i += LANES) {
        const unsigned row = blockIdx.y * BM + i / BK, p = first + i % BK;
        tile.left[i % BK][swapped(i / BK, i % BK)] = row < d.m && p < d.k ? a[row * d.k + p] : T(0);
    }
#pragma unroll 1
    for (unsigned i = threadIdx.x; i < BK * BN; i += LANES) {
        const unsigned p = first + i / BN, col = blockIdx.x * BN + i % BN;
        tile.right[i / BN][i % BN] = p < d.k && col < d.n ? b[p * d.n + col] : T(0);
    }
}

// A lane's operands of one step.
struct Step {
    S left[TM], right[TN];
};

__device__ __forceinline__ Step step_of(const Tile& tile, unsigned p, unsigned row, unsigned col) {
    Step step;
#pragma unroll
    for (unsigned i = 0; i < TM; i += 4) {
        *reinterpret_cast<Four*>(&step.left[i]) = *reinterpret_cast<const Four*>(&tile.left[p][swapped(row + 4 * i, p)]);
    }
#pragma unroll
    for (unsigned j = 0; j < TN; j += 4) {
        *reinterpret_cast<Four*>(&step.right[j]) = *reinterpret_cast<const Four*>(&tile.right[p][col + 8 * j]);
    }
    return step;
}

__device__ __forceinline__ void multiply(S (&sum)[TM][TN], const Step& step) {
#pragma unroll
    for (unsigned i = 0; i < TM; ++i) {
#pragma unroll
        for (unsigned j = 0; j < TN; ++j) sum[i][j] += step.left[i] * step.right[j];
    }
}

// Where a lane's outputs lie: in its group's tile, and that tile in C.
struct Own {
    unsigned row, col, top, left;
};
__device__ __forceinline__ Own own_of() {
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const unsigned row = warp % DOWN * 4 * TM + lane / 8 * 4, col = warp / DOWN * 64 + lane % 8 * 4;
    return {row, col, blockIdx.y * BM + row, blockIdx.x * BN + col};
}

extern "C" __global__ void __launch_bounds__(LANES) whole(const T* __restrict__ a, // [m, k]
                                                          const T* __restrict__ b, // [k, n]
                                                          T* __restrict__ c,       // [m, n]
                                                          const Dims d) {
    __shared__ __align__(16) Tile tiles[2];
    const Own own = own_of();
    S sum[TM][TN] = {};
    stash(tiles[0], fetch(a, b, 0, d));
    __syncthreads();
    Step step[2] = {step_of(tiles[0], 0, own.row, own.col)};
    unsigned now = 0;
    for (unsigned first = BK; first < d.k; first += BK, now ^= 1) {
        const Share share = fetch(a, b, first, d);
        if (TM == 16) __syncwarp(); // no load of the next tiles sinks below it
#pragma unroll
        for (unsigned p = 0; p + 1 < BK; ++p) {
            step[(p + 1) % 2] = step_of(tiles[now], p + 1, own.row, own.col);
            multiply(sum, step[p % 2]);
        }
        stash(tiles[now ^ 1], share);
        __syncthreads(); // the other half is whole, and nobody reads this one any more
        step[0] = step_of(tiles[now ^ 1], 0, own.row, own.col);
        multiply(sum, step[1]);
    }
#pragma unroll
    for (unsigned p = 0; p < BK; ++p) {
        if (p + 1 < BK) step[(p + 1) % 2] = step_of(tiles[now], p + 1, own.row, own.col);
        multiply(sum, step[p % 2]);
    }
#pragma unroll
    for (unsigned i = 0; i < TM; ++i) {
        const unsigned row = own.top + i / 4 * 16 + i % 4;
#pragma unroll
        for (unsigned j = 0; j < TN; j += 4) {
            const Four out = {{sum[i][j], sum[i][j + 1], sum[i][j + 2], sum[i][j + 3]}};
            *reinterpret_cast<Four*>(c + (row * d.n + own.left + 8 * j)) = out;
        }
    }
}

extern "C" __global__ void __launch_bounds__(LANES) ragged(const T* __restrict__ a, // [m, k]
                                                           const T* __restrict__ b, // [k, n]
                                                           T* __restrict__ c,       // [m, n]
                                                           const Dims d) {
    __shared__ __align__(16) Tile tile;
    const Own own = own_of();
    S sum[TM][TN] = {};
    for (unsigned first = 0; first < d.k; first += BK) {
        fill(tile, a, b, first, d);
        __syncthreads(); // the tile is whole
#pragma unroll
        for (unsigned p = 0; p < BK; ++p) multiply(sum, step_of(tile, p, own.row, own.col));
        __syncthreads(); // and no longer needed
    }
#pragma unroll
    for (unsigned i = 0; i < TM; ++i) {
        const unsigned row = own.top + i / 4 * 16 + i % 4;
#pragma unroll
        for (unsigned j = 0; j < TN; ++j) {
            const unsigned col = own.left + j / 4 * 32 + j % 4;
            if (row < d.m && col < d.n) c[row * d.n + col] = sum[i][j];
        }
    }
}
