// attention/flash_mma: o = softmax(q . k^T / sqrt(d)) . v on matrix units; scores and weights stay in the registers.
//
// Owns:    a group of WARPS warps 32 * WARPS rows of the queries that share keys, a warp 32 of them: of every tile of BK keys it makes
//          all scores of its rows, and from them its rows' share of the outputs, f32 sums of 32 x D. Groups with most keys come first,
//          those of as many sets of keys side by side as NEAR bytes hold.
// Traffic: queries come once, keys and values a tile at a time, by copies that no lane waits for: values while scores are made, the
//          next keys while values are summed. Vectors of 16 bytes change places within a line by its number, so that the eight lanes
//          that load a matrix meet eight different banks. Fragments of scores are, in pairs, those of the weights: none are moved. No
//          barrier stands between the weights' making and the products of the sums, so that either may fill the other's gaps.
// Guards:  rows past the end are zeros and are not stored; keys that no row of the group sees are not visited, nor by a warp those that
//          none of its rows sees; only tiles in which a row of the warp sees less than all are masked. Columns past d are zeros.
// Changed: from flash: the matrix units do both products, weights are rounded to the storage type between them, and nothing but
//          queries, keys and values goes through shared memory. What was summed shrinks when a score is SLACK above a row's shift, not
//          whenever one is above all before: weights are as large as 2^SLACK, and rounded no more coarsely for it. `whole` needs d
//          divisible by eight, `ragged` copies an element at a time; the number is the widest head that an entry takes.

static_assert(sizeof(T) == 2, "fragments of 16-bit elements");
static_assert(BK % 16 == 0, "weights are multiplied sixteen keys at a time");

constexpr unsigned BQ = 32 * WARPS, LANES = 32 * WARPS;
constexpr unsigned WIDE = 16 / sizeof(T);
constexpr unsigned NEAR = 32u << 20; // bytes of keys and values that are read side by side
constexpr float HIDDEN = -1e30f, SLACK = 8; // a hidden score; how much of a power of two a weight may be above one
// Whether weights are made before the barrier that values wait for. Behind it they go along with products, which takes registers that
// code for sm_100 and later does not have left.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1000
constexpr bool EARLY = true;
#else
constexpr bool EARLY = false;
#endif

extern __shared__ __align__(128) unsigned char pool[];

// Where vector `at` of line `line` lies in a tile of lines of D elements.
template <unsigned D> __device__ __forceinline__ unsigned place(unsigned line, unsigned at) {
    return line * D * sizeof(T) + (at ^ line % 8) * 16;
}
// The place so many vectors, an even number, behind one of the first two of a line.
__device__ __forceinline__ unsigned behind(unsigned place, unsigned vectors) { return (place ^ vectors % 8 * 16) + vectors / 8 * 128; }

// The group's rows, `group` the first of them, of set `set` of keys. The last rows see most keys.
struct Own {
    unsigned set, group;
};
__device__ __forceinline__ Own own_of(const Dims& d) {
    const unsigned sets = gridDim.y, down = gridDim.x, i = blockIdx.y * down + blockIdx.x;
    const unsigned most = min(sets, max(1u, NEAR / (2 * (unsigned)sizeof(T)) / (d.seq_kv * d.head_dim))), band = i / (most * down);
    const unsigned side = min(most, sets - band * most), within = i % (most * down);
    return {band * most + within % side, (down - 1 - within / side) * BQ};
}

__device__ __forceinline__ unsigned visible(const Dims& d, unsigned row) {
    return d.causal ? row % d.seq_q + 1 + d.seq_kv - d.seq_q : d.seq_kv;
}

// Most and fewest keys that one of these rows sees: rows of several heads hold a head's last, or its first.
__device__ __forceinline__ unsigned most_visible(const Dims& d, unsigned first, unsigned last) {
    return first / d.seq_q == last / d.seq_q ? visible(d, last) : d.seq_kv;
}
__device__ __forceinline__ unsigned least_visible(const Dims& d, unsigned first, unsigned last) {
    return first / d.seq_q == last / d.seq_q ? visible(d, first) : visible(d, 0);
}

// LINES lines of d elements, of which `exist` exist, to a tile; zeros behind them and behind column d. ALL: nothing is behind anything.
template <unsigned LINES, unsigned D, bool ALL>
__device__ __forceinline__ void copy(unsigned char* to, const T* __restrict__ from, unsigned exist, unsigned d) {
    constexpr unsigned ACROSS = D / WIDE, AT_ONCE = LANES / ACROSS;
    static_assert(LINES % AT_ONCE == 0 && AT_ONCE % 8 == 0, "a lane's vectors have one place in their lines");
    const unsigned line = threadIdx.x / ACROSS, at = threadIdx.x % ACROSS, stride = ALL ? D : d;
    from += line * stride + at * WIDE;
    to += place<D>(line, at);
#pragma unroll
    for (unsigned l = 0; l < LINES; l += AT_ONCE) {
        if constexpr (ALL) copy_async(to + l * D * sizeof(T), from + l * D);
        else copy_async(to + l * D * sizeof(T), from + l * d, line + l < exist && at * WIDE < d);
    }
}

template <unsigned LINES, unsigned D, bool WHOLE>
__device__ __forceinline__ void fill(unsigned char* to, const T* __restrict__ from, unsigned exist, unsigned d) {
    if constexpr (WHOLE) {
        if (exist >= LINES && d == D) copy<LINES, D, true>(to, from, exist, d);
        else copy<LINES, D, false>(to, from, exist, d);
    } else {
#pragma unroll 1
        for (unsigned i = threadIdx.x; i < LINES * D; i += LANES) {
            const unsigned line = i / D, c = i % D;
            reinterpret_cast<T*>(to + place<D>(line, c / WIDE))[c % WIDE] = line < exist && c < d ? from[line * d + c] : T(0);
        }
    }
}

// What a lane keeps of its warp's rows: of block i of sixteen the rows lane / 4 and, with h = 1, eight further.
template <unsigned D> struct Rows {
    float lift[2][2], total[2][2]; // what is added to scaled scores; sums of this lane's weights
    float sum[2][D / 8][4];
};

// Scores of the warp's rows and the tile's keys.
template <unsigned D>
__device__ __forceinline__ void score(float (&s)[2][BK / 8][4], const unsigned char* queries, const unsigned char* keys) {
    const unsigned lane = threadIdx.x % 32, query = place<D>(threadIdx.x / 32 * 32 + lane % 16, lane / 16);
    const unsigned key = place<D>(lane / 16 * 8 + lane % 8, lane / 8 % 2);
#pragma unroll
    for (unsigned step = 0; step < D / 16; ++step) {
        unsigned a[2][4];
#pragma unroll
        for (unsigned i = 0; i < 2; ++i) load_matrices(a[i], queries + 16 * i * D * sizeof(T) + behind(query, 2 * step));
#pragma unroll
        for (unsigned j = 0; j < BK / 8; j += 2) {
            unsigned b[4];
            load_matrices(b, keys + 8 * j * D * sizeof(T) + behind(key, 2 * step));
#pragma unroll
            for (unsigned i = 0; i < 2; ++i) {
                mma<T>(s[i][j], a[i], b[0], b[1]);
                mma<T>(s[i][j + 1], a[i], b[2], b[3]);
            }
        }
    }
}

// Hides the keys from `first` on that the warp's rows from `own` on do not see.
__device__ __forceinline__ void hide(float (&s)[2][BK / 8][4], const Dims& d, unsigned own, unsigned first) {
    const unsigned lane = threadIdx.x % 32;
#pragma unroll
    for (unsigned i = 0; i < 2; ++i) {
#pragma unroll
        for (unsigned h = 0; h < 2; ++h) {
            // Keys that the row sees, counted from the lane's first.
            const int left = (int)visible(d, own + 16 * i + 8 * h + lane / 4) - (int)(first + lane % 4 * 2);
#pragma unroll
            for (int j = 0; j < (int)BK / 8; ++j) {
                if (8 * j >= left) s[i][j][2 * h] = HIDDEN;
                if (8 * j + 1 >= left) s[i][j][2 * h + 1] = HIDDEN;
            }
        }
    }
}

// Scores to weights, as operands of the next product: powers of two of their distance to a row's shift, its largest score when it was last
// set, and minus its lift. It is set anew, and what was summed with the older one shrinks, when a score is more than SLACK above it.
template <unsigned D>
__device__ __forceinline__ void weigh(unsigned (&w)[2][BK / 16][4], const float (&s)[2][BK / 8][4], Rows<D>& rows, float scale) {
    float most[2][2];
    bool grown = false;
#pragma unroll
    for (unsigned i = 0; i < 2; ++i) {
#pragma unroll
        for (unsigned h = 0; h < 2; ++h) {
            most[i][h] = fmaxf(s[i][0][2 * h], s[i][0][2 * h + 1]);
#pragma unroll
            for (unsigned j = 1; j < BK / 8; ++j) most[i][h] = fmaxf(most[i][h], fmaxf(s[i][j][2 * h], s[i][j][2 * h + 1]));
            grown |= fmaf(most[i][h], scale, rows.lift[i][h]) > SLACK;
        }
    }
    if (__any_sync(0xffffffffu, grown)) {
#pragma unroll
        for (unsigned i = 0; i < 2; ++i) {
#pragma unroll
            for (unsigned h = 0; h < 2; ++h) {
                // A row's scores lie with four neighbours.
#pragma unroll
                for (int mask = 2; mask > 0; mask /= 2) most[i][h] = fmaxf(most[i][h], __shfl_xor_sync(0xffffffffu, most[i][h], mask));
                const float lift = fminf(rows.lift[i][h], -most[i][h] * scale), shrunk = power_of_two(lift - rows.lift[i][h]);
                rows.lift[i][h] = lift;
                rows.total[i][h] *= shrunk;
#pragma unroll
                for (unsigned j = 0; j < D / 8; ++j) rows.sum[i][j][2 * h] *= shrunk, rows.sum[i][j][2 * h + 1] *= shrunk;
            }
        }
    }
#pragma unroll
    for (unsigned i = 0; i < 2; ++i) {
#pragma unroll
        for (unsigned h = 0; h < 2; ++h) {
#pragma unroll
            for (unsigned j = 0; j < BK / 8; ++j) {
                const float x = power_of_two(fmaf(s[i][j][2 * h], scale, rows.lift[i][h]));
                const float y = power_of_two(fmaf(s[i][j][2 * h + 1], scale, rows.lift[i][h]));
                rows.total[i][h] += x + y;
                w[i][j / 2][j % 2 * 2 + h] = packed<T>(x, y);
            }
        }
    }
}

// Adds the tile's values by their weights.
template <unsigned D> __device__ __forceinline__ void add(Rows<D>& rows, const unsigned (&w)[2][BK / 16][4], const unsigned char* values) {
    const unsigned lane = threadIdx.x % 32, value = (place<D>(lane % 16, lane / 16));
#pragma unroll
    for (unsigned step = 0; step < BK / 16; ++step) {
#pragma unroll
        for (unsigned j = 0; j < D / 8; j += 2) {
            unsigned b[4];
            load_matrices_transposed(b, values + 16 * step * D * sizeof(T) + behind(value, j));
#pragma unroll
            for (unsigned i = 0; i < 2; ++i) {
                mma<T>(rows.sum[i][j], w[i][step], b[0], b[1]);
                mma<T>(rows.sum[i][j + 1], w[i][step], b[2], b[3]);
            }
        }
    }
}

template <unsigned D, bool WHOLE>
__device__ __forceinline__ void attend(const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v, T* __restrict__ o,
                                       const Dims& d) {
    unsigned char *const queries = pool, *const keys = queries + BQ * D * sizeof(T), *const values = keys + BK * D * sizeof(T);
    const unsigned lane = threadIdx.x % 32, all = d.heads / d.kv_heads * d.seq_q;
    const auto [set, group] = own_of(d);
    const unsigned own = group + threadIdx.x / 32 * 32;
    const unsigned last = min(own + 32, all) - 1;
    const unsigned reach = most_visible(d, group, min(group + BQ, all) - 1);
    const unsigned seen = own < all ? most_visible(d, own, last) : 0, clear = own < all ? least_visible(d, own, last) : 0;
    const unsigned head = set * d.seq_kv; // its first key
    const float scale = 1.44269504f / sqrtf(float(d.head_dim));
    Rows<D> rows;
#pragma unroll
    for (unsigned i = 0; i < 2; ++i) {
#pragma unroll
        for (unsigned h = 0; h < 2; ++h) rows.lift[i][h] = -HIDDEN, rows.total[i][h] = 0;
#pragma unroll
        for (unsigned j = 0; j < D / 8; ++j) rows.sum[i][j][0] = rows.sum[i][j][1] = rows.sum[i][j][2] = rows.sum[i][j][3] = 0;
    }
    fill<BQ, D, WHOLE>(queries, q + (set * all + group) * d.head_dim, all - group, d.head_dim);
    fill<BK, D, WHOLE>(keys, k + head * d.head_dim, reach, d.head_dim);
    copies_commit();
    for (unsigned first = 0; first < reach; first += BK) {
        const bool sees = first < seen;
        copies_wait<0>();
        __syncthreads(); // keys have come, and nobody reads the values any more
        fill<BK, D, WHOLE>(values, v + (head + first) * d.head_dim, reach - first, d.head_dim);
        copies_commit();
        float s[2][BK / 8][4] = {};
        unsigned w[2][BK / 16][4];
        const auto weights = [&] {
            if (first + BK > clear) hide(s, d, own, first);
            weigh<D>(w, s, rows, scale);
        };
        if (sees) score<D>(s, queries, keys);
        if (EARLY && sees) weights();
        copies_wait<0>();
        __syncthreads(); // values have come, and nobody reads the keys any more
        if (first + BK < reach) fill<BK, D, WHOLE>(keys, k + (head + first + BK) * d.head_dim, reach - first - BK, d.head_dim);
        copies_commit();
        if (sees) {
            if (!EARLY) weights();
            add<D>(rows, w, values);
        }
    }
#pragma unroll
    for (unsigned i = 0; i < 2; ++i) {
#pragma unroll
        for (unsigned h = 0; h < 2; ++h) {
            float total = rows.total[i][h];
#pragma unroll
            for (int mask = 2; mask > 0; mask /= 2) total += __shfl_xor_sync(0xffffffffu, total, mask);
            const unsigned row = own + 16 * i + 8 * h + lane / 4;
            if (row >= all) continue;
            const float share = 1 / total;
            T* const line = o + (set * all + row) * d.head_dim;
#pragma unroll
            for (unsigned j = 0; j < D / 8; ++j) {
                const unsigned at = 8 * j + lane % 4 * 2;
                const float x = rows.sum[i][j][2 * h] * share, y = rows.sum[i][j][2 * h + 1] * share;
                if constexpr (WHOLE) {
                    if (at < d.head_dim) *reinterpret_cast<unsigned*>(line + at) = packed<T>(x, y);
                } else {
                    if (at < d.head_dim) line[at] = T(x);
                    if (at + 1 < d.head_dim) line[at + 1] = T(y);
                }
            }
        }
    }
}

// q, o: [batch, heads, seq_q, d]; k, v: [batch, kv_heads, seq_kv, d].
#define ENTRY(name, widest, whole)                                                                                                  \
    extern "C" __global__ void __launch_bounds__(LANES, 8 / WARPS)                                                                   \
        name(const T* __restrict__ q, const T* __restrict__ k, const T* __restrict__ v, T* __restrict__ o, const Dims d) {          \
        attend<widest, whole>(q, k, v, o, d);                                                                                       \
    }
ENTRY(whole64, 64, true)
ENTRY(whole128, 128, true)
ENTRY(ragged64, 64, false)
ENTRY(ragged128, 128, false)
