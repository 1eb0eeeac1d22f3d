// conv2d/implicit: an implicit matrix product, pixels under taps gathered into shared memory, filters beside them.
//
// Owns:    a group of 256 lanes a tile of BM consecutive output pixels x BN output channels of one group of the convolution; a lane
//          BM / 16 pixels in runs of four that lie 16 apart, and BN / 16 channels in runs of four that lie 32 apart.
// Traffic: both operands lie with their BK taps or channels side by side: 16 bytes a lane are loaded while the tiles before are
//          multiplied, and stored transposed to the other half of shared memory. Which tap and channel a lane loads next is
//          carried along, never divided for.
// Guards:  pixels past the last, channels past the group's last and taps outside the image are zero and load nothing.
// Changed: from naive: each loaded value is used BM or BN times instead of once. `whole` needs input channels of a group that four
//          divides; `ragged` takes any, loads one element at a time and waits for it.

constexpr unsigned LANES = 256, BK = 16;
constexpr unsigned TM = BM / 16, TN = BN / 16;

static_assert((BM == 64 || BM == 128) && (BN == 64 || BN == 128), "4 x 2 warps of 4 x 8 lanes with runs of four");
static_assert(sizeof(T) == 4, "loads of four are 16 bytes");

struct alignas(16) Four {
    T v[4];
};

// Place of row `row` at step p of a transposed tile: steps whose second bit of fours is set have their halves of 32 swapped, so
// that the two lanes that load a row's neighbouring vectors store to different banks.
__device__ __forceinline__ unsigned swapped(unsigned row, unsigned p) { return row ^ (p >> 2 & 1) << 4; }

struct Tile {
    S pixels[BK][BM];  // [step, pixel], see `swapped`
    S filters[BK][BN]; // [step, channel], likewise
};

// The tile of a group.
struct Owned {
    unsigned pixel;   // first output pixel
    unsigned channel; // first output channel
    unsigned end;     // one past the last output channel of its group of the convolution
    unsigned first;   // first input channel of that group
};

__device__ __forceinline__ Owned owned(const Dims& d) {
    const unsigned outputs = d.c_out / d.groups, across = (outputs + BN - 1) / BN; // tiles of one group of the convolution
    const unsigned i = blockIdx.y * gridDim.x + blockIdx.x, part = i / across % d.groups;
    return {i / across / d.groups * BM, part * outputs + i % across * BN, part * outputs + outputs, part * (d.c_in / d.groups)};
}

// An output pixel's place: where its window begins, before the image where there is padding.
struct Corner {
    unsigned h, w, image;
};

__device__ __forceinline__ Corner corner_of(unsigned pixel, const Dims& d) {
    return {pixel / d.ow % d.oh * d.stride - d.padding, pixel % d.ow * d.stride - d.padding, pixel / d.ow / d.oh};
}

// A tap and an input channel of the group: one of the products that an output sums.
struct Step {
    unsigned r, s, c;
    __device__ __forceinline__ void advance(unsigned by, const Dims& d) {
        const unsigned depth = d.c_in / d.groups;
        for (c += by; c >= depth; c -= depth) {
            if (++s == d.kw) s = 0, ++r;
        }
    }
};

// Where in x the pixel under a tap begins, if it is inside.
__device__ __forceinline__ bool under(const Corner& from, const Step& at, const Dims& d, unsigned& pixel) {
    const unsigned h = from.h + at.r * d.dilation, w = from.w + at.s * d.dilation;
    pixel = ((from.image * d.h + h) * d.w + w) * d.c_in;
    // Before the image wraps round to huge numbers; past the last tap there is nothing.
    return h < d.h && w < d.w && at.r < d.kh;
}

// Load l of a lane, of tiles ROWS high, is four steps of one row: pairs of lanes take neighbouring fours, pairs neighbouring rows.
template <unsigned ROWS> __device__ __forceinline__ unsigned row_of() { return threadIdx.x / 2 % ROWS; }
template <unsigned ROWS> __device__ __forceinline__ unsigned step_of(unsigned l) {
    return ((l * LANES + threadIdx.x) / 2 / ROWS * 2 + threadIdx.x % 2) * 4;
}
template <unsigned ROWS> constexpr unsigned LOADS = ROWS * BK / 4 / LANES;

// A lane's operands of one step, and the sums they go to.
template <unsigned COUNT, unsigned APART>
__device__ __forceinline__ void operands(S (&into)[COUNT], const S* from, unsigned first, unsigned p) {
#pragma unroll
    for (unsigned i = 0; i < COUNT; i += 4) {
        *reinterpret_cast<Four*>(&into[i]) = *reinterpret_cast<const Four*>(from + swapped(first + i / 4 * APART, p));
    }
}

__device__ __forceinline__ void multiply(S (&sum)[TM][TN], const Tile& tile, unsigned row, unsigned col) {
#pragma unroll
    for (unsigned p = 0; p < BK; ++p) {
        S left[TM], right[TN];
        operands<TM, 16>(left, tile.pixels[p], row, p);
        operands<TN, 32>(right, tile.filters[p], col, p);
#pragma unroll
        for (unsigned i = 0; i < TM; ++i) {
#pragma unroll
            for (unsigned j = 0; j < TN; ++j) sum[i][j] += left[i] * right[j];
        }
    }
}

// A lane's place in the group's tile: 4 x 2 warps of 4 x 8 lanes.
__device__ __forceinline__ unsigned own_row() { return threadIdx.x / 32 % 4 * 4 * TM + threadIdx.x % 32 / 8 * 4; }
__device__ __forceinline__ unsigned own_col() { return threadIdx.x / 128 * 8 * TN + threadIdx.x % 8 * 4; }

__device__ __forceinline__ void store(T* y, const S (&sum)[TM][TN], const Owned& own, const Dims& d) {
    const bool vectors = d.c_out % 4 == 0 && own.channel % 4 == 0;
#pragma unroll
    for (unsigned i = 0; i < TM; ++i) {
        const unsigned pixel = own.pixel + own_row() + i / 4 * 16 + i % 4;
        if (pixel < d.n * d.oh * d.ow) {
#pragma unroll
            for (unsigned j = 0; j < TN; j += 4) {
                const unsigned channel = own.channel + own_col() + j / 4 * 32;
                T* const at = y + (pixel * d.c_out + channel);
                if (vectors && channel + 3 < own.end) {
                    *reinterpret_cast<Four*>(at) = {{sum[i][j], sum[i][j + 1], sum[i][j + 2], sum[i][j + 3]}};
                } else {
#pragma unroll
                    for (unsigned e = 0; e < 4; ++e) {
                        if (channel + e < own.end) at[e] = sum[i][j + e];
                    }
                }
            }
        }
    }
}

// What a lane loads of one tile of pixels and one of filters, and what it will load next.
struct Loader {
    Corner corner;
    bool pixel_exists;
    const T* filters; // of the lane's row; null past the last channel
    Step pixel_steps[LOADS<BM>];
    unsigned filter_step; // of load 0; the others lie a constant further
    Four pixels[LOADS<BM>], rows[LOADS<BN>];

    __device__ __forceinline__ Loader(const T* f, const Owned& own, const Dims& d) {
        const unsigned pixel = own.pixel + row_of<BM>(), channel = own.channel + row_of<BN>();
        corner = corner_of(pixel, d);
        pixel_exists = pixel < d.n * d.oh * d.ow;
        filters = channel < own.end ? f + channel * (d.kh * d.kw * (d.c_in / d.groups)) : nullptr;
        filter_step = 0;
#pragma unroll
        for (unsigned l = 0; l < LOADS<BM>; ++l) {
            pixel_steps[l] = {0, 0, 0};
            pixel_steps[l].advance(step_of<BM>(l), d);
        }
    }

    __device__ __forceinline__ void fetch(const T* x, const Owned& own, unsigned depth, const Dims& d) {
#pragma unroll
        for (unsigned l = 0; l < LOADS<BM>; ++l) {
            unsigned from;
            const bool inside = under(corner, pixel_steps[l], d, from) && pixel_exists;
            pixels[l] = inside ? *reinterpret_cast<const Four*>(x + (from + own.first + pixel_steps[l].c)) : Four{};
            pixel_steps[l].advance(BK, d);
        }
#pragma unroll
        for (unsigned l = 0; l < LOADS<BN>; ++l) {
            const unsigned p = filter_step + step_of<BN>(l);
            rows[l] = filters && p < depth ? *reinterpret_cast<const Four*>(filters + p) : Four{};
        }
        filter_step += BK;
    }

    __device__ __forceinline__ void stash(Tile& tile) const {
#pragma unroll
        for (unsigned l = 0; l < LOADS<BM>; ++l) {
            const unsigned p = step_of<BM>(l), row = swapped(row_of<BM>(), p);
#pragma unroll
            for (unsigned e = 0; e < 4; ++e) tile.pixels[p + e][row] = pixels[l].v[e];
        }
#pragma unroll
        for (unsigned l = 0; l < LOADS<BN>; ++l) {
            const unsigned p = step_of<BN>(l), row = swapped(row_of<BN>(), p);
#pragma unroll
            for (unsigned e = 0; e < 4; ++e) tile.filters[p + e][row] = rows[l].v[e];
        }
    }
};

extern "C" __global__ void __launch_bounds__(LANES) whole(const T* __restrict__ x, // [n, h, w, c_in]
                                                          const T* __restrict__ f, // [c_out, kh, kw, c_in / groups]
                                                          T* __restrict__ y,       // [n, oh, ow, c_out]
                                                          const Dims d) {
    __shared__ __align__(16) Tile tiles[2];
    const Owned own = owned(d);
    if (own.pixel >= d.n * d.oh * d.ow) return; // the whole group at once, before any barrier
    const unsigned depth = d.kh * d.kw * (d.c_in / d.groups);
    Loader loader(f, own, d);
    S sum[TM][TN] = {};
    loader.fetch(x, own, depth, d);
    loader.stash(tiles[0]);
    __syncthreads();
    unsigned now = 0;
    for (unsigned first = BK; first < depth; first += BK, now ^= 1) {
        loader.fetch(x, own, depth, d);
        multiply(sum, tiles[now], own_row(), own_col());
        loader.stash(tiles[now ^ 1]);
        __syncthreads(); // the other half is whole, and nobody reads this one any more
    }
    multiply(sum, tiles[now], own_row(), own_col());
    store(y, sum, own, d);
}

extern "C" __global__ void __launch_bounds__(LANES) ragged(const T* __restrict__ x, // [n, h, w, c_in]
                                                           const T* __restrict__ f, // [c_out, kh, kw, c_in / groups]
                                                           T* __restrict__ y,       // [n, oh, ow, c_out]
                                                           const Dims d) {
    __shared__ __align__(16) Tile tile;
    const Owned own = owned(d);
    if (own.pixel >= d.n * d.oh * d.ow) return; // the whole group at once, before any barrier
    const unsigned channels = d.c_in / d.groups, depth = d.kh * d.kw * channels;
    S sum[TM][TN] = {};
    for (unsigned first = 0; first < depth; first += BK) {
#pragma unroll 1
        for (unsigned i = threadIdx.x; i < BM * BK; i += LANES) {
            const unsigned pixel = own.pixel + i / BK, p = first + i % BK;
            const Step step = {p / channels / d.kw, p / channels % d.kw, p % channels};
            unsigned from;
            const bool inside = under(corner_of(pixel, d), step, d, from) && pixel < d.n * d.oh * d.ow;
            tile.pixels[i % BK][swapped(i / BK, i % BK)] = inside ? x[from + own.first + step.c] : T(0);
        }
#pragma unroll 1
        for (unsigned i = threadIdx.x; i < BN * BK; i += LANES) {
            const unsigned channel = own.channel + i / BK, p = first + i % BK;
            tile.filters[i % BK][swapped(i / BK, i % BK)] = channel < own.end && p < depth ? f[channel * depth + p] : T(0);
        }
        __syncthreads(); // the tile is whole
        multiply(sum, tile, own_row(), own_col());
        __syncthreads(); // and no longer needed
    }
    store(y, sum, own, d);
}
