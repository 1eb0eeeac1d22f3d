// What kernels of matrix units share that multiply a ring of tiles: a group of BM / 64 x BN / 64 warps sums BM x BN outputs, a warp
// 64 x 64 of them, as 4 x 8 products of 16 x 8. A source includes it, and barrier.cuh with it, defines `load_right`, and says what fills
// the tiles.
//
// A stage of the ring is BM lines of the left operand, 128 bytes of k each, and what makes BN columns of the right one.

constexpr unsigned LINE = 128, STEPS = 4; // bytes of k in a tile, and steps of 32 bytes
constexpr unsigned WIDE = 16 / sizeof(T), BK = LINE / sizeof(T);
constexpr unsigned WARPS_N = BN / 64, LANES = BM / 64 * WARPS_N * 32;
constexpr unsigned LEFT_BYTES = BM * LINE, STAGE = LEFT_BYTES + BN * LINE;
constexpr unsigned BAND = 8;

static_assert(BM % 64 == 0 && BN % 64 == 0 && LANES <= 256, "warps of 64 x 64, and 255 registers a lane");
static_assert(STAGES >= 2, "one tile is multiplied while the others are on their way");

extern __shared__ __align__(128) unsigned char pool[];

// Where vector `at` of line `line` lies in a tile whose lines are 128 bytes of k; eight lines hold it at eight different places.
__device__ __forceinline__ unsigned place(unsigned line, unsigned at) { return line * LINE + (at ^ line % 8) * 16; }

// The group's tile of outputs. Groups walk them in bands of BAND tiles of rows.
struct Own {
    unsigned row, col;
    bool exists;
};
__device__ __forceinline__ Own own_of(unsigned down, unsigned across) {
    const unsigned i = blockIdx.y * gridDim.x + blockIdx.x, band = i / (BAND * across);
    const unsigned high = min(BAND, down - min(band * BAND, down)); // tiles of rows in this band
    const unsigned within = i % (BAND * across);
    if (i >= down * across) return {0, 0, false};
    return {(band * BAND + within % high) * BM, within / high * BN, true};
}

// The warp's part of the group's tile.
__device__ __forceinline__ unsigned warp_row() { return threadIdx.x / 32 / WARPS_N * 64; }
__device__ __forceinline__ unsigned warp_col() { return threadIdx.x / 32 % WARPS_N * 64; }

// A warp's operands of one step.
struct Fragments {
    unsigned a[4][4], b[8][2];
};

// Of words the units take the upper 19 bits: half of what is cut off is added first, which rounds.
__device__ __forceinline__ unsigned rounded(unsigned bits) { return sizeof(T) == 4 ? bits + 0x1000 : bits; }

// Where the lane's first vectors of both operands lie in a stage. All others lie a constant behind a place of which at most bits 4 to 6
// are flipped: so few addresses can stay in registers.
struct Places {
    unsigned left, right;
};
__device__ __forceinline__ unsigned first_right(unsigned col, unsigned lane);
__device__ __forceinline__ Places places(unsigned row, unsigned col) {
    const unsigned lane = threadIdx.x % 32;
    return {kept(place(row + lane % 16, lane / 16)), kept(first_right(col, lane))};
}

// The right operand of one step, rounded.
__device__ __forceinline__ void load_right(Fragments& f, unsigned first, unsigned step);

// The operands of one step, `first` where the stage begins.
__device__ __forceinline__ void load(Fragments& f, unsigned first, const Places& at, unsigned step) {
    const unsigned left = first + at.left ^ step * 32;
#pragma unroll
    for (unsigned i = 0; i < 4; ++i) load_matrices(f.a[i], pool + left + 16 * i * LINE);
    load_right(f, first + at.right, step);
#pragma unroll
    for (unsigned i = 0; i < 16; ++i) f.a[i / 4][i % 4] = rounded(f.a[i / 4][i % 4]);
}

__device__ __forceinline__ void multiply(float (&sum)[4][8][4], const Fragments& f) {
#pragma unroll
    for (unsigned i = 0; i < 4; ++i) {
#pragma unroll
        for (unsigned j = 0; j < 8; ++j) mma<T>(sum[i][j], f.a[i], f.b[j][0], f.b[j][1]);
    }
}

// All of the first stage, fragments one step ahead.
__device__ __forceinline__ void multiply(float (&sum)[4][8][4]) {
    const Places at = places(warp_row(), warp_col());
    Fragments f[2];
    load(f[0], 0, at, 0);
#pragma unroll
    for (unsigned step = 0; step < STEPS; ++step) {
        if (step + 1 < STEPS) load(f[(step + 1) % 2], 0, at, step + 1);
        multiply(sum, f[step % 2]);
    }
}

// The sum over `tiles` tiles. The loader is told when a tile's turn comes, `begin`, and asked for STEPS parts of the lane's copies of it,
// `fetch(stage, part)`; tiles come in their order, and those past the last are asked for too. Warps are too few to fill each other's
// gaps, so there is none to fill: copies stand between products, and the first fragments of a tile are loaded before the last products
// of the one before.
template <class Loader> __device__ __forceinline__ void multiply_ring(float (&sum)[4][8][4], unsigned tiles, Loader& loader) {
    static_assert(STEPS % 2 == 0, "every tile begins with the same fragments");
#pragma unroll
    for (unsigned tile = 0; tile < STAGES - 1; ++tile) {
        loader.begin();
#pragma unroll
        for (unsigned part = 0; part < STEPS; ++part) loader.fetch(tile, part);
        copies_commit();
    }
    copies_wait<STAGES - 2>();
    __syncthreads(); // the first tile has come
    const Places at = places(warp_row(), warp_col());
    Fragments f[2];
    load(f[0], 0, at, 0);
    unsigned stage = 0, next = STAGES - 1;
    for (unsigned tile = 0; tile < tiles; ++tile) {
        const unsigned own = stage * STAGE;
        stage = stage + 1 == STAGES ? 0 : stage + 1;
        loader.begin();
#pragma unroll
        for (unsigned step = 0; step < STEPS; ++step) {
            if (step + 1 < STEPS) load(f[(step + 1) % 2], own, at, step + 1);
            // Of two stages the one on its way is waited for at the end of this tile: its copies come at once.
#pragma unroll
            for (unsigned part = 0; part < STEPS; ++part) {
                if (step == (STAGES > 2 ? part : 0)) loader.fetch(next, part);
            }
            if (step + 1 == STEPS) {
                copies_commit();
                copies_wait<STAGES - 2>(); // this lane's share of the next tile has come,
                __syncthreads();           // every lane's has, and all of this one is in registers: its stage is filled next
                load(f[0], stage * STAGE, at, 0); // after the last tile nothing that is used
            }
            multiply(sum, f[step % 2]);
        }
        next = next + 1 == STAGES ? 0 : next + 1;
    }
}

// A place in the ring: a stage, and the parity of the round that fills it.
struct Turn {
    unsigned stage, parity;

    __device__ __forceinline__ void advance() {
        const bool last = stage + 1 == STAGES;
        stage = last ? 0 : stage + 1;
        parity ^= last;
    }
};

// The same sum by warps that do not meet: two barriers of each stage, which stand behind the ring, tell that a tile has come and that all
// have read it, so that warps come up to a tile apart and some load fragments while others multiply. Of four stages one is spare, lest
// a warp wait for those behind it to read what it fills.
template <class Loader> __device__ __forceinline__ void multiply_apart(float (&sum)[4][8][4], unsigned tiles, Loader& loader) {
    static_assert(STEPS % 2 == 0, "every tile begins with the same fragments");
    constexpr unsigned AHEAD = STAGES > 3 ? STAGES - 2 : STAGES - 1; // tiles on their way
    const unsigned full = shared_address(pool) + STAGES * STAGE, empty = full + 8 * STAGES;
    if (threadIdx.x == 0) {
        for (unsigned i = 0; i < STAGES; ++i) {
            barrier_make(full + 8 * i, LANES);       // every lane's copies
            barrier_make(empty + 8 * i, LANES / 32); // every warp
        }
    }
    __syncthreads(); // barriers are made
    const auto come = [=](Turn at) { barrier_wait<false>(full + 8 * at.stage, at.parity); };
#pragma unroll
    for (unsigned tile = 0; tile < AHEAD; ++tile) {
        loader.begin();
#pragma unroll
        for (unsigned part = 0; part < STEPS; ++part) loader.fetch(tile, part);
        copies_arrive(full + 8 * tile);
    }
    Turn own = {0, 0}, next = {AHEAD, 0};
    come(own); // the first tile
    const Places at = places(warp_row(), warp_col());
    Fragments f[2];
    load(f[0], 0, at, 0);
    for (unsigned left = kept(tiles); left > 0; --left) {
        barrier_wait<false>(empty + 8 * next.stage, next.parity ^ 1); // what is there all warps have read
        loader.begin();
#pragma unroll
        for (unsigned step = 0; step < STEPS; ++step) {
            if (step + 1 < STEPS) load(f[(step + 1) % 2], own.stage * STAGE, at, step + 1);
            loader.fetch(next.stage, step);
            if (step + 1 == STEPS) {
                __syncwarp(); // all of the warp's fragments of this tile are loaded
                if (threadIdx.x % 32 == 0) barrier_arrive(empty + 8 * own.stage);
                copies_arrive(full + 8 * next.stage); // past the last tile too, where there are none
                own.advance(), next.advance();
                come(own);
                load(f[0], own.stage * STAGE, at, 0); // after the last tile nothing that is used
            }
            multiply(sum, f[step % 2]);
        }
    }
    // A group ends when nothing is to arrive at its barriers any more.
#pragma unroll
    for (unsigned tile = 1; tile < AHEAD; ++tile) own.advance(), come(own);
}

struct alignas(2 * sizeof(T)) Pair {
    T v[2];
};

// Outputs of the warp, `row` and `col` its first, to a matrix whose rows lie `apart`. None at or past row `rows` or column `cols` is
// stored. WHOLE: no pair straddles an edge. Numbers of 16 bits go 16 bytes a lane where such vectors fit.
template <bool WHOLE, class V>
__device__ __forceinline__ void store(V* c, const float (&sum)[4][8][4], unsigned row, unsigned col, unsigned rows, unsigned cols, unsigned apart) {
    const unsigned lane = threadIdx.x % 32;
    if constexpr (WHOLE && sizeof(V) == 2) {
        if ((col | cols | apart) % WIDE == 0) {
#pragma unroll
            for (unsigned i = 0; i < 8; ++i) {
                const unsigned r = row + 8 * i + lane / 4;
                V* const line = c + (unsigned long long)r * apart;
                const auto pair = [&](unsigned j) { return packed<V>(sum[i / 2][j][i % 2 * 2], sum[i / 2][j][i % 2 * 2 + 1]); };
#pragma unroll
                for (unsigned j = 0; j < 8; j += 4) {
                    const Piece out = gathered(pair(j), pair(j + 1), pair(j + 2), pair(j + 3));
                    const unsigned at = col + 8 * (j + lane % 4);
                    if (r < rows && at < cols) *reinterpret_cast<Piece*>(line + at) = out;
                }
            }
            return;
        }
    }
#pragma unroll
    for (unsigned i = 0; i < 8; ++i) {
        const unsigned r = row + 8 * i + lane / 4;
        if (r < rows) {
            T* const line = c + (unsigned long long)r * apart;
#pragma unroll
            for (unsigned j = 0; j < 8; ++j) {
                const unsigned at = col + 8 * j + lane % 4 * 2;
                const Pair out = {{T(sum[i / 2][j][i % 2 * 2]), T(sum[i / 2][j][i % 2 * 2 + 1])}};
                if constexpr (WHOLE) {
                    if (at < cols) *reinterpret_cast<Pair*>(line + at) = out;
                } else {
                    if (at < cols) line[at] = out.v[0];
                    if (at + 1 < cols) line[at + 1] = out.v[1];
                }
            }
        }
    }
}
