// conv2d/implicit_mma: the implicit matrix product on matrix units: pixels under taps by filters; sums are f32.
//
// Owns:    a group of BM / 64 x BN / 64 warps a tile of BM consecutive output pixels x BN output channels of one group of the
//          convolution, a warp 64 x 64 of it. Groups walk the tiles in bands of pixels, so that what runs together shares them.
// Traffic: a ring of STAGES tiles of both operands, 128 bytes of taps and channels each, is filled by copies that no lane waits for.
//          Pixels and filters both lie along channels, so both are tiles of lines. A lane copies the same vector of the same lines of
//          every tile: where a line's window begins and which taps of it are inside the image is found out once for the group and
//          kept in shared memory; what follows the corner is carried from tile to tile, one number for all lines, never divided for.
//          Where channels come in whole tiles all taps of some channels are taken before the next channels: neighbouring taps share
//          most of their pixels, and those are copied through the first-level cache.
// Guards:  `whole` needs input channels of a group in whole vectors of 16 bytes, output channels in pairs, and at most 31 rows and
//          columns of the filter together: pixels, channels and taps that do not exist are copied as zeros. `ragged` takes any
//          shape, one element at a time, with one tile and no ring.
// Changed: from implicit: the matrix units do the sums, the copies bypass the registers, and more tiles are on their way.

#include "../ring.cuh"

constexpr unsigned APART = LANES / 8; // a lane's lines; the lane copies one vector of each
constexpr unsigned PIXELS = BM / APART, FILTERS = BN / APART;

static_assert(BM % APART == 0 && BN % APART == 0 && APART % 8 == 0, "lanes share the copies evenly, and a lane's vectors their place");
static_assert(PIXELS % STEPS == 0 && FILTERS % STEPS == 0, "all parts of the copies are alike");

// The group's tile.
struct Tile {
    unsigned pixel;   // first output pixel
    unsigned channel; // first output channel
    unsigned end;     // one past the last output channel of its group of the convolution
    unsigned first;   // first input channel of that group
    bool exists;
};

__device__ __forceinline__ unsigned pixels(const Dims& d) { return d.n * d.oh * d.ow; }
__device__ __forceinline__ unsigned inputs(const Dims& d) { return d.c_in / d.groups; }
// Products that an output sums.
__device__ __forceinline__ unsigned depth(const Dims& d) { return d.kh * d.kw * inputs(d); }

__device__ __forceinline__ Tile tile_of(const Dims& d) {
    const unsigned outputs = d.c_out / d.groups, across = (outputs + BN - 1) / BN; // tiles of one group of the convolution
    const Own own = own_of((pixels(d) + BM - 1) / BM, across * d.groups);
    const unsigned part = own.col / BN / across, channel = part * outputs + own.col / BN % across * BN;
    return {own.row, channel, part * outputs + outputs, part * inputs(d), own.exists};
}

// Where an output pixel's window begins, before the image where there is padding.
struct Corner {
    unsigned h, w, image;
};
__device__ __forceinline__ Corner corner_of(unsigned pixel, const Dims& d) {
    return {pixel / d.ow % d.oh * d.stride - d.padding, pixel % d.ow * d.stride - d.padding, pixel / d.ow / d.oh};
}
// Where in x the pixel at such a place is; numbers wrap round, and come right where the pixel is inside.
__device__ __forceinline__ unsigned place_in(unsigned image, unsigned h, unsigned w, const Dims& d) {
    return ((image * d.h + h) * d.w + w) * d.c_in;
}

// A line of pixels: where in x its window begins, and a bit for every row and then every column of the window that is inside.
struct alignas(8) Line {
    unsigned corner, inside;
};
__device__ __forceinline__ Line line_of(unsigned pixel, const Dims& d) {
    if (pixel >= pixels(d)) return {0, 0};
    const Corner at = corner_of(pixel, d);
    unsigned inside = 0;
#pragma unroll 1
    for (unsigned r = 0; r < d.kh; ++r) inside |= (at.h + r * d.dilation < d.h ? 1u : 0u) << r;
#pragma unroll 1
    for (unsigned s = 0; s < d.kw; ++s) inside |= (at.w + s * d.dilation < d.w ? 1u : 0u) << (d.kh + s);
    return {place_in(at.image, at.h, at.w, d), inside};
}

// The tap and input channel of a lane's next vector: channels within a part of them first, then taps, then parts.
struct Step {
    static constexpr unsigned NONE = 1u << 31; // a bit that no line has

    unsigned part, r, s, c;
    unsigned beyond; // how far beyond a window's corner it is
    unsigned along;  // and how far along a filter
    unsigned tap;    // the bits of its row and column; NONE past the last part

    // Channels of a part.
    static __device__ __forceinline__ unsigned together(const Dims& d) { return inputs(d) % BK == 0 ? BK : inputs(d); }

    // Over the end of a tap's channels. Without a branch: products go on around it.
    __device__ __forceinline__ void carry(const Dims& d) {
        const unsigned aside = d.dilation * d.c_in - together(d), below = aside + d.dilation * d.c_in * (d.w - d.kw);
        const bool row = s + 1 == d.kw, last = row && r + 1 == d.kh;
        s = row ? 0 : s + 1;
        r = last ? 0 : r + (row ? 1 : 0);
        part += last ? together(d) : 0;
        c -= together(d);
        beyond = last ? part + c : beyond + (row ? below : aside);
        along = last ? part + c : along + inputs(d) - together(d);
    }
    // To the next tile; what one carry does not settle, where a tile holds several taps, `settle` does.
    __device__ __forceinline__ void advance(const Dims& d) {
        c += BK, beyond += BK, along += BK;
        if (c >= together(d)) carry(d);
    }
    __device__ __forceinline__ void settle(const Dims& d) {
        while (c >= together(d)) carry(d);
        tap = part < inputs(d) ? 1u << r | 1u << (d.kh + s) : NONE;
    }
};

// What a lane copies of each tile, and what it will copy next.
struct Loader {
    const Dims& d;
    const T* x;
    const Line* lines; // the lane's first; in shared memory, as sums leave too few registers
    Step step;
    const T* f;       // of the lane's first line
    unsigned filters; // how many of its lines exist
    unsigned first;   // where the lane's vector of its first line lies in a stage

    __device__ __forceinline__ Loader(const T* x, const T* f, const Tile& tile, const Dims& d) : d(d) {
        Line* const all = reinterpret_cast<Line*>(pool + STAGES * STAGE);
        for (unsigned line = threadIdx.x; line < BM; line += LANES) all[line] = line_of(tile.pixel + line, d);
        __syncthreads(); // all lines are known
        const unsigned line = threadIdx.x / 8;
        lines = all + line;
        this->x = x + tile.first;
        const unsigned c = threadIdx.x % 8 * WIDE;
        step = {0, 0, 0, c, c, c, Step::NONE};
        const unsigned channel = tile.channel + line;
        filters = channel < tile.end ? (tile.end - channel + APART - 1) / APART : 0;
        this->f = f + (unsigned long long)channel * depth(d);
        first = kept(place(threadIdx.x / 8, threadIdx.x % 8));
    }

    __device__ __forceinline__ void begin() { step.settle(d); }

    // Past the last tile it copies zeros.
    __device__ __forceinline__ void fetch(unsigned stage, unsigned part) {
        unsigned char* const to = pool + stage * STAGE + first;
        Line of[PIXELS / STEPS];
#pragma unroll
        for (unsigned l = 0; l < PIXELS / STEPS; ++l) of[l] = lines[(part * PIXELS / STEPS + l) * APART];
#pragma unroll
        for (unsigned l = 0; l < PIXELS / STEPS; ++l) {
            const T* const from = x + (of[l].corner + step.beyond);
            copy_async_cached(to + (part * PIXELS / STEPS + l) * APART * LINE, from, (of[l].inside & step.tap) == step.tap);
        }
        const unsigned exist = step.tap == Step::NONE ? 0 : filters;
#pragma unroll
        for (unsigned l = part * FILTERS / STEPS; l < (part + 1) * FILTERS / STEPS; ++l) {
            copy_async(to + LEFT_BYTES + l * APART * LINE, f + ((unsigned long long)(l * APART) * depth(d) + step.along), l < exist);
        }
        if (part + 1 == STEPS) step.advance(d);
    }
};

// Both operands of any shape, to the first stage.
__device__ __forceinline__ void fill(const T* x, const T* f, const Tile& tile, unsigned first, const Dims& d) {
    unsigned char* const filters = pool + LEFT_BYTES;
#pragma unroll 1
    for (unsigned i = threadIdx.x; i < BM * BK; i += LANES) {
        const unsigned line = i / BK, e = i % BK, pixel = tile.pixel + line, p = first + e;
        const Corner at = corner_of(pixel, d);
        const unsigned h = at.h + p / inputs(d) / d.kw * d.dilation, w = at.w + p / inputs(d) % d.kw * d.dilation;
        const bool inside = pixel < pixels(d) && p < depth(d) && h < d.h && w < d.w;
        const T value = inside ? x[place_in(at.image, h, w, d) + tile.first + p % inputs(d)] : T(0);
        reinterpret_cast<T*>(pool + place(line, e / WIDE))[e % WIDE] = value;
    }
#pragma unroll 1
    for (unsigned i = threadIdx.x; i < BN * BK; i += LANES) {
        const unsigned line = i / BK, e = i % BK, channel = tile.channel + line, p = first + e;
        const T value = channel < tile.end && p < depth(d) ? f[channel * depth(d) + p] : T(0);
        reinterpret_cast<T*>(filters + place(line, e / WIDE))[e % WIDE] = value;
    }
}

// Lines of filters are columns: no load need be transposed, of words neither.
__device__ __forceinline__ unsigned first_right(unsigned col, unsigned lane) {
    return LEFT_BYTES + place(col + lane / 16 * 8 + lane % 8, lane / 8 % 2);
}

__device__ __forceinline__ void load_right(Fragments& f, unsigned first, unsigned step) {
#pragma unroll
    for (unsigned j = 0; j < 8; j += 2) {
        unsigned r[4];
        load_matrices(r, pool + (first ^ step * 32) + 8 * j * LINE);
        f.b[j][0] = rounded(r[0]), f.b[j][1] = rounded(r[1]), f.b[j + 1][0] = rounded(r[2]), f.b[j + 1][1] = rounded(r[3]);
    }
}

template <bool WHOLE> __device__ __forceinline__ void store(T* y, const float (&sum)[4][8][4], const Tile& tile, const Dims& d) {
    store<WHOLE>(y, sum, tile.pixel + warp_row(), tile.channel + warp_col(), pixels(d), tile.end, d.c_out);
}

extern "C" __global__ void __launch_bounds__(LANES) whole(const T* __restrict__ x, // [n, h, w, c_in]
                                                          const T* __restrict__ f, // [c_out, kh, kw, c_in / groups]
                                                          T* __restrict__ y,       // [n, oh, ow, c_out]
                                                          const Dims d) {
    const Tile tile = tile_of(d);
    if (!tile.exists) return; // the whole group at once, before any barrier
    Loader loader(x, f, tile, d);
    float sum[4][8][4] = {};
    multiply_ring(sum, (depth(d) + BK - 1) / BK, loader);
    store<true>(y, sum, tile, d);
}

extern "C" __global__ void __launch_bounds__(LANES) ragged(const T* __restrict__ x, // [n, h, w, c_in]
                                                           const T* __restrict__ f, // [c_out, kh, kw, c_in / groups]
                                                           T* __restrict__ y,       // [n, oh, ow, c_out]
                                                           const Dims d) {
    const Tile tile = tile_of(d);
    if (!tile.exists) return; // the whole group at once, before any barrier
    float sum[4][8][4] = {};
    for (unsigned first = 0; first < depth(d); first += BK) {
        fill(x, f, tile, first, d);
        __syncthreads(); // the tile is whole
        multiply(sum);
        __syncthreads(); // and no longer needed
    }
    store<false>(y, sum, tile, d);
}
