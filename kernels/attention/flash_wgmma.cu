// attention/flash_wgmma: o = softmax(q . k^T / sqrt(d)) . v on matrix units four warps at a time; scores and weights stay in registers.
//
// Owns:    a group BQ rows of the queries that share keys, each of its TEAMS teams of four warps 64 of them: of every tile of BK keys a
//          team makes all scores of its rows, and from them its rows' share of the outputs, f32 sums of 64 x D. Groups with most keys
//          come first, those of as many sets of keys side by side as NEAR bytes hold.
// Traffic: queries come once, keys and values through rings of STAGES tiles, filled by the unit that copies boxes, told by one lane of
//          one more team. Scores take both operands from shared memory, keys as they lie; sums take the weights from registers, where
//          scores, in pairs, have the places of fragments, and values as they lie. Scores of the next tile and sums of this one begin
//          together; the sums are under way while a team makes the next weights. ORDERED: the teams hand over their products in turn,
//          so that one's are multiplied while the other makes weights.
// Guards:  rows past the end are not stored; tiles that no row of the group sees are not copied, nor multiplied by a team of which no
//          row sees them; only tiles in which a row of the team sees less than all are masked. What is copied past the last key, the
//          next set's or zeros, has weight zero; columns past d are zeros. `whole` needs d divisible by eight, `ragged` stores an
//          element at a time and has no ring; the number is the widest head that an entry takes.
// Changed: from flash_mma: operands but the weights never pass through registers, no lane that multiplies copies, and exponentials go
//          along with products of the same warps.

static_assert(sizeof(T) == 2, "words have no operand that lies along n");
static_assert(TEAMS == 2 || TEAMS == 3, "teams share 65536 registers with one that copies");

constexpr unsigned TEAM = 128, BQ = 64 * TEAMS;
constexpr int GIVEN = TEAMS == 2 ? 240 : 160, KEPT = TEAMS == 2 ? 24 : 32; // registers of lanes that multiply, and of those that copy
constexpr unsigned LINE = 128, ACROSS = LINE / sizeof(T), WIDE = 16 / sizeof(T); // a tile is blocks of ACROSS columns
constexpr unsigned NEAR = 32u << 20; // bytes of keys and values that are read side by side
constexpr float HIDDEN = -1e30f;

// Keys of a tile: scores, weights and sums fill a lane's registers.
template <unsigned D> constexpr unsigned BK = TEAMS == 2 || D == 64 ? 128 : 64;
template <unsigned D> constexpr unsigned STAGES = 256 / BK<D>;

#include "../warpgroup.cuh"

extern __shared__ __align__(1024) unsigned char pool[];

// Tiles begin at a multiple of 1024 bytes: queries, keys, values, and behind them the barriers of `whole`.
__device__ __forceinline__ unsigned char* tiles() { return pool + (1024 - shared_address(pool) % 1024) % 1024; }
template <unsigned D> struct Tiles {
    static constexpr unsigned KEYS = BQ * D * sizeof(T), TILE = BK<D> * D * sizeof(T);
    static constexpr unsigned BARRIERS = KEYS + 2 * STAGES<D> * TILE; // of the queries; of stages of keys and of values, both again
};

// Element c of line `line` of a tile of LINES lines.
template <unsigned LINES> __device__ __forceinline__ unsigned place(unsigned line, unsigned c) {
    return c / ACROSS * LINES * LINE + line * LINE + (c % ACROSS / WIDE ^ line % 8) * 16 + c % WIDE * sizeof(T);
}

// The group's rows, `first` the first of them, of set `head` of keys.
struct Own {
    unsigned head, first;
    bool exists;
};
__device__ __forceinline__ unsigned rows_of(const Dims& d) { return d.heads / d.kv_heads * d.seq_q; }
__device__ __forceinline__ Own own_of(const Dims& d) {
    const unsigned i = blockIdx.y * gridDim.x + blockIdx.x, heads = d.batch * d.kv_heads, down = (rows_of(d) + BQ - 1) / BQ;
    const unsigned most = min(heads, max(1u, NEAR / (2 * (unsigned)sizeof(T)) / (d.seq_kv * d.head_dim))), band = i / (most * down);
    const unsigned side = min(most, heads - min(band * most, heads)), within = i % (most * down);
    if (i >= heads * down) return {0, 0, false};
    return {band * most + within % side, (down - 1 - within / side) * BQ, true};
}

__device__ __forceinline__ unsigned visible(const Dims& d, unsigned row) {
    return d.causal ? row % d.seq_q + 1 + d.seq_kv - d.seq_q : d.seq_kv;
}

// Keys that some of these rows see, and that all of them see: rows of several heads hold a head's last, and its first.
struct Reach {
    unsigned some, all;
};
__device__ __forceinline__ Reach reach_of(const Dims& d, unsigned first, unsigned count) {
    const unsigned end = min(first + count, rows_of(d));
    if (first >= end) return {0, 0};
    const bool one = first / d.seq_q == (end - 1) / d.seq_q;
    return {one ? visible(d, end - 1) : d.seq_kv, visible(d, one ? first : 0)};
}

// What a lane keeps of its warp's rows lane / 4 and, with h = 1, eight further.
template <unsigned D> struct Rows {
    float largest[2], total[2]; // of the scores as they are; of this lane's weights
    float sum[D / 2];
};

// The lane's first row among the group's.
__device__ __forceinline__ unsigned lane_row() { return threadIdx.x / 32 * 16 + threadIdx.x % 32 / 4; }

// Begins the scores of the team's rows and a tile of keys.
template <unsigned D> __device__ __forceinline__ void score(float (&s)[BK<D> / 2], unsigned queries, unsigned keys) {
    const unsigned long long q = descriptor(queries, 16, 8 * LINE, SWIZZLE_128), k = descriptor(keys, 16, 8 * LINE, SWIZZLE_128);
    products_begin();
#pragma unroll
    for (unsigned step = 0; step < D / 16; ++step) {
        const unsigned block = step / 4, along = step % 4 * 2; // units of 16 bytes
        product<T, K_MAJOR>(s, q + block * BQ * LINE / 16 + along, k + block * BK<D> * LINE / 16 + along, step > 0);
    }
    products_commit();
}

// Begins to add a tile of values by their weights, to nothing where there are no `sums` yet.
template <unsigned D>
__device__ __forceinline__ void add(float (&sum)[D / 2], const unsigned (&w)[BK<D> / 16][4], unsigned values, bool sums) {
    const unsigned long long v = descriptor(values, BK<D> * LINE, 8 * LINE, SWIZZLE_128);
    products_begin();
#pragma unroll
    for (unsigned step = 0; step < BK<D> / 16; ++step) product<T, MN_MAJOR>(sum, w[step], v + step * 16 * LINE / 16, sums || step > 0);
    products_commit();
}

// Hides the keys from `first` on that the team's rows, `group` the group's first, do not see.
template <unsigned D> __device__ __forceinline__ void hide(float (&s)[BK<D> / 2], const Dims& d, unsigned group, unsigned first) {
#pragma unroll
    for (unsigned h = 0; h < 2; ++h) {
        // Keys that the row sees, counted from the lane's first.
        const int left = (int)visible(d, group + lane_row() + 8 * h) - (int)(first + threadIdx.x % 4 * 2);
#pragma unroll
        for (int j = 0; j < (int)BK<D> / 8; ++j) {
            if (8 * j >= left) s[4 * j + 2 * h] = HIDDEN;
            if (8 * j + 1 >= left) s[4 * j + 2 * h + 1] = HIDDEN;
        }
    }
}

// Scores to weights: powers of two of their distance below the largest so far. What was summed with an older one is to shrink.
template <unsigned D> __device__ __forceinline__ void weigh(float (&s)[BK<D> / 2], float (&shrunk)[2], Rows<D>& rows, float scale) {
#pragma unroll
    for (unsigned h = 0; h < 2; ++h) {
        float most = rows.largest[h];
#pragma unroll
        for (unsigned j = 0; j < BK<D> / 8; ++j) most = fmaxf(most, fmaxf(s[4 * j + 2 * h], s[4 * j + 2 * h + 1]));
        // A row's scores lie with four neighbours.
#pragma unroll
        for (int mask = 2; mask > 0; mask /= 2) most = fmaxf(most, __shfl_xor_sync(0xffffffffu, most, mask));
        shrunk[h] = power_of_two((rows.largest[h] - most) * scale);
        rows.largest[h] = most;
        const float shift = most * scale;
        float total = rows.total[h] * shrunk[h];
#pragma unroll
        for (unsigned j = 0; j < BK<D> / 8; ++j) {
            float &x = s[4 * j + 2 * h], &y = s[4 * j + 2 * h + 1];
            x = power_of_two(fmaf(x, scale, -shift));
            y = power_of_two(fmaf(y, scale, -shift));
            total += x + y;
        }
        rows.total[h] = total;
    }
}

// Weights as fragments of the next product.
template <unsigned D> __device__ __forceinline__ void pack(unsigned (&w)[BK<D> / 16][4], const float (&s)[BK<D> / 2]) {
#pragma unroll
    for (unsigned i = 0; i < BK<D> / 4; ++i) w[i / 4][i % 4] = packed<T>(s[2 * i], s[2 * i + 1]);
}

template <unsigned D> __device__ __forceinline__ void shrink(float (&sum)[D / 2], const float (&shrunk)[2]) {
#pragma unroll
    for (unsigned i = 0; i < D / 2; ++i) sum[i] *= shrunk[i / 2 % 2];
}

__device__ __forceinline__ float scale_of(const Dims& d) { return 1.44269504f / sqrtf(float(d.head_dim)); }

// WHOLE: no vector straddles column d.
template <unsigned D, bool WHOLE>
__device__ __forceinline__ void store(T* __restrict__ o, const Rows<D>& rows, const Own& own, const Dims& d) {
    const unsigned all = rows_of(d);
#pragma unroll
    for (unsigned h = 0; h < 2; ++h) {
        float total = rows.total[h];
#pragma unroll
        for (int mask = 2; mask > 0; mask /= 2) total += __shfl_xor_sync(0xffffffffu, total, mask);
        const unsigned row = own.first + lane_row() + 8 * h, lane = threadIdx.x % 32;
        const float share = 1 / total;
        T* const line = o + (own.head * all + row) * d.head_dim;
        if constexpr (WHOLE) {
            const auto pair = [&](unsigned j) { return packed<T>(rows.sum[4 * j + 2 * h] * share, rows.sum[4 * j + 2 * h + 1] * share); };
#pragma unroll
            for (unsigned j = 0; j < D / 8; j += 4) {
                const Piece out = gathered(pair(j), pair(j + 1), pair(j + 2), pair(j + 3));
                const unsigned at = 8 * (j + lane % 4);
                if (row < all && at < d.head_dim) *reinterpret_cast<Piece*>(line + at) = out;
            }
        } else if (row < all) {
#pragma unroll
            for (unsigned j = 0; j < D / 4; ++j) {
                const unsigned at = j / 2 * 8 + lane % 4 * 2 + j % 2;
                if (at < d.head_dim) line[at] = T(rows.sum[j / 2 * 4 + 2 * h + j % 2] * share);
            }
        }
    }
}

// Where a tile lies in its ring, and its barriers: when it has come, and when all teams have read it.
struct Stage {
    unsigned tile, full, empty, parity;
};
template <unsigned D> __device__ __forceinline__ Stage stage_of(unsigned base, unsigned tile, bool values) {
    const unsigned i = values * STAGES<D> + tile % STAGES<D>, full = base + Tiles<D>::BARRIERS + 8 + 8 * i;
    return {base + Tiles<D>::KEYS + i * Tiles<D>::TILE, full, full + 16 * STAGES<D>, tile / STAGES<D> % 2};
}

// One lane's work: all tiles that the group sees.
template <unsigned D>
__device__ __forceinline__ void fetch(const Map& q, const Map& k, const Map& v, unsigned base, const Own& own, unsigned count,
                                      const Dims& d) {
    const unsigned queries = base + Tiles<D>::BARRIERS;
    barrier_expect(queries, Tiles<D>::KEYS);
    for (unsigned c = 0; c < D; c += ACROSS) box_copy(base + place<BQ>(0, c), q, c, own.head * rows_of(d) + own.first, queries);
    for (unsigned tile = 0; tile < count; ++tile) {
        for (unsigned values = 0; values < 2; ++values) {
            const Stage to = stage_of<D>(base, tile, values);
            barrier_wait<false>(to.empty, to.parity ^ 1); // nobody reads it any more
            barrier_expect(to.full, Tiles<D>::TILE);
            for (unsigned c = 0; c < D; c += ACROSS) {
                box_copy(to.tile + place<BK<D>>(0, c), values ? v : k, c, own.head * d.seq_kv + tile * BK<D>, to.full);
            }
        }
    }
}

// Waits for the sums, made with the largest score before, and lets their values go.
template <unsigned D>
__device__ __forceinline__ void sums_wait(Rows<D>& rows, const float (&shrunk)[2], const Stage& values, bool leader) {
    products_wait<0>();
    products_done(rows.sum);
    if (leader) barrier_arrive(values.empty);
    shrink<D>(rows.sum, shrunk);
}

// ORDERED: a team's products begin when those of the team before have.
__device__ __forceinline__ void take_turn(unsigned team) {
    if constexpr (ORDERED) lanes_sync(1 + team, 2 * TEAM);
}
__device__ __forceinline__ void give_turn(unsigned team) {
    if constexpr (ORDERED) lanes_arrive(1 + (team + 1) % TEAMS, 2 * TEAM);
}

// A team's work: `count` tiles pass by, of which its rows see the first `seen`.
template <unsigned D>
__device__ __forceinline__ void attend(Rows<D>& rows, unsigned base, const Own& own, unsigned count, const Dims& d) {
    const unsigned team = threadIdx.x / TEAM, queries = base + team * 64 * LINE;
    const bool leader = threadIdx.x % TEAM == 0;
    const Reach reach = reach_of(d, own.first + team * 64, 64);
    const unsigned seen = (reach.some + BK<D> - 1) / BK<D>;
    const float scale = scale_of(d);
    if (team == TEAMS - 1) give_turn(team); // the first may begin
    if (seen > 0) {
        float s[BK<D> / 2], shrunk[2];
        unsigned w[BK<D> / 16][4];
        barrier_wait<false>(base + Tiles<D>::BARRIERS, 0);
        Stage keys = stage_of<D>(base, 0, false);
        barrier_wait<false>(keys.full, keys.parity);
        take_turn(team);
        score<D>(s, queries, keys.tile);
        give_turn(team);
        products_wait<0>();
        products_done(s);
        if (leader) barrier_arrive(keys.empty);
        if (BK<D> > reach.all) hide<D>(s, d, own.first, 0);
        weigh<D>(s, shrunk, rows, scale);
        // Weights stay in the scores' registers until the sums before them are there. Between the two stands the wait for keys, across which
        // the assembler does not move the wait for sums: it would stand before the exponentials.
        for (unsigned tile = 1; tile < seen; ++tile) {
            const Stage values = stage_of<D>(base, tile - 1, true);
            keys = stage_of<D>(base, tile, false);
            barrier_wait<false>(keys.full, keys.parity);
            if (tile > 1) sums_wait<D>(rows, shrunk, stage_of<D>(base, tile - 2, true), leader);
            pack<D>(w, s);
            take_turn(team);
            score<D>(s, queries, keys.tile);
            barrier_wait<false>(values.full, values.parity);
            add<D>(rows.sum, w, values.tile, tile > 1);
            give_turn(team);
            products_wait<1>(); // scores are there
            products_done(s);
            if (leader) barrier_arrive(keys.empty);
            if ((tile + 1) * BK<D> > reach.all) hide<D>(s, d, own.first, tile * BK<D>);
            weigh<D>(s, shrunk, rows, scale);
        }
        const Stage values = stage_of<D>(base, seen - 1, true);
        barrier_wait<false>(values.full, values.parity);
        if (seen > 1) sums_wait<D>(rows, shrunk, stage_of<D>(base, seen - 2, true), leader);
        pack<D>(w, s);
        add<D>(rows.sum, w, values.tile, seen > 1);
        products_wait<0>();
        products_done(rows.sum);
        if (leader) barrier_arrive(values.empty);
    }
    for (unsigned tile = seen; tile < count; ++tile) {
        take_turn(team);
        give_turn(team);
        for (unsigned values = 0; values < 2; ++values) {
            const Stage unseen = stage_of<D>(base, tile, values);
            barrier_wait<false>(unseen.full, unseen.parity);
            if (leader) barrier_arrive(unseen.empty);
        }
    }
}

template <unsigned D>
__device__ __forceinline__ void attend_whole(const Map& q, const Map& k, const Map& v, T* __restrict__ o, const Dims& d) {
    const Own own = own_of(d);
    if (!own.exists) return; // the whole group at once, before any barrier
    const unsigned base = shared_address(tiles()), barriers = base + Tiles<D>::BARRIERS;
    if (threadIdx.x == 0) {
        barrier_make(barriers, 1);
        for (unsigned i = 0; i < 2 * STAGES<D>; ++i) {
            barrier_make(barriers + 8 + 8 * i, 1);
            barrier_make(barriers + 8 + 8 * (2 * STAGES<D> + i), TEAMS);
        }
        barriers_made();
    }
    __syncthreads();
    const unsigned count = (reach_of(d, own.first, BQ).some + BK<D> - 1) / BK<D>;
    if (threadIdx.x / TEAM == TEAMS) {
        registers_shrink<KEPT>();
        if (threadIdx.x % TEAM == 0) fetch<D>(q, k, v, base, own, count, d);
        return;
    }
    registers_grow<GIVEN>();
    Rows<D> rows;
    rows.largest[0] = rows.largest[1] = HIDDEN, rows.total[0] = rows.total[1] = 0;
    attend<D>(rows, base, own, count, d);
    store<D, true>(o, rows, own, d);
}

// LINES lines of d elements, of which `exist` exist, to a tile; zeros behind them and behind column d.
template <unsigned LINES, unsigned D>
__device__ __forceinline__ void fill(unsigned char* to, const T* __restrict__ from, unsigned exist, unsigned d) {
#pragma unroll 1
    for (unsigned i = threadIdx.x; i < LINES * D; i += TEAMS * TEAM) {
        const unsigned line = i / D, c = i % D;
        *reinterpret_cast<T*>(to + place<LINES>(line, c)) = line < exist && c < d ? from[line * d + c] : T(0);
    }
}

template <unsigned D>
__device__ __forceinline__ void attend_ragged(const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v, T* __restrict__ o,
                                              const Dims& d) {
    const Own own = own_of(d);
    if (!own.exists) return;
    unsigned char *const queries = tiles(), *const keys = queries + Tiles<D>::KEYS, *const values = keys + Tiles<D>::TILE;
    const unsigned team = threadIdx.x / TEAM, all = rows_of(d);
    const Reach reach = reach_of(d, own.first + team * 64, 64);
    const unsigned end = reach_of(d, own.first, BQ).some;
    const float scale = scale_of(d);
    Rows<D> rows;
    rows.largest[0] = rows.largest[1] = HIDDEN, rows.total[0] = rows.total[1] = 0;
    fill<BQ, D>(queries, q + (own.head * all + own.first) * d.head_dim, all - own.first, d.head_dim);
    for (unsigned first = 0; first < end; first += BK<D>) {
        const unsigned from = (own.head * d.seq_kv + first) * d.head_dim;
        fill<BK<D>, D>(keys, k + from, end - first, d.head_dim);
        fill<BK<D>, D>(values, v + from, end - first, d.head_dim);
        stores_seen();
        __syncthreads(); // the tiles are whole
        if (first < reach.some) {
            float s[BK<D> / 2], shrunk[2];
            unsigned w[BK<D> / 16][4];
            score<D>(s, shared_address(queries) + team * 64 * LINE, shared_address(keys));
            products_wait<0>();
            products_done(s);
            if (first + BK<D> > reach.all) hide<D>(s, d, own.first, first);
            weigh<D>(s, shrunk, rows, scale);
            if (first > 0) shrink<D>(rows.sum, shrunk);
            pack<D>(w, s);
            add<D>(rows.sum, w, shared_address(values), first > 0);
            products_wait<0>();
            products_done(rows.sum);
        }
        __syncthreads(); // nobody reads them any more
    }
    store<D, false>(o, rows, own, d);
}

// q, o: [batch, heads, seq_q, d]; k, v: [batch, kv_heads, seq_kv, d]. Maps are of matrices of d columns, boxes of BQ or BK rows of 64.
#define WHOLE(name, widest)                                                                                                  \
    extern "C" __global__ void __launch_bounds__((TEAMS + 1) * TEAM, 1)                                                      \
        name(const __grid_constant__ Map q, const __grid_constant__ Map k, const __grid_constant__ Map v, T* __restrict__ o, \
             const Dims d) {                                                                                                 \
        attend_whole<widest>(q, k, v, o, d);                                                                                 \
    }
#define RAGGED(name, widest)                                                                                                 \
    extern "C" __global__ void __launch_bounds__(TEAMS * TEAM, 1)                                                            \
        name(const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v, T* __restrict__ o, const Dims d) {   \
        attend_ragged<widest>(q, k, v, o, d);                                                                                \
    }
WHOLE(whole64, 64)
WHOLE(whole128, 128)
RAGGED(ragged64, 64)
RAGGED(ragged128, 128)
