// depthwise/window: NHWC with registers along a strip of outputs.
//
// Owns:    a lane STRIP consecutive outputs of one image row, in one 16-byte vector of channels (`single`: one channel); in `down`
//          STRIP outputs of one image column, of ACROSS columns side by side and four channels. A group BLOCK such strips, channels
//          fastest, so that neighbouring lanes load neighbouring channels.
// Traffic: `three` (k = 3, no dilation) keeps its nine filter vectors and a 3 x 3 window in registers and slides the window:
//          3 * min(stride, 3) loads an output. `down` (k = 3, no dilation, stride 1) takes rows of the input one by one, each loaded two
//          rows before its use, and adds a row to the three rows of outputs that see it: 1.5 loads an output and three rows on their
//          way. `strip` and `single` (any filter) load each filter element once for four outputs.
// Guards:  lanes past the last strip return at once; strips stop at the image's end; taps outside the image are zero.
// Changed: from vectorized: filters are loaded once a strip instead of once an output, and, with k = 3, every input once a row of
//          taps, or once. `single` is for channel counts that a vector does not divide.

static_assert(DOWN == 0 || DOWN == 1, "whether the plan launches `down` where it can");
static_assert(STRIP >= 4 && STRIP % 4 == 0, "strips go by fours");
static_assert(BLOCK % 32 == 0 && BLOCK <= 1024, "whole warps");
static_assert(sizeof(T) <= sizeof(S), "sums are at least as wide as what is stored");

constexpr unsigned WIDE = 16 / sizeof(T); // channels of a vector

template <unsigned W> struct alignas(W * sizeof(T)) Stored {
    T v[W];
};

// W channels as they are summed.
template <unsigned W> struct Channels {
    S v[W];
};

// Vector number i.
template <unsigned W> __device__ __forceinline__ Channels<W> load(const T* from, unsigned i) {
    const Stored<W> stored = reinterpret_cast<const Stored<W>*>(from)[i];
    Channels<W> x;
#pragma unroll
    for (unsigned e = 0; e < W; ++e) x.v[e] = S(stored.v[e]);
    return x;
}

template <unsigned W> __device__ __forceinline__ void store(T* to, unsigned i, const Channels<W>& x) {
    Stored<W> stored;
#pragma unroll
    for (unsigned e = 0; e < W; ++e) stored.v[e] = T(x.v[e]);
    reinterpret_cast<Stored<W>*>(to)[i] = stored;
}

template <unsigned W> __device__ __forceinline__ void add(Channels<W>& sum, const Channels<W>& x, const Channels<W>& f) {
#pragma unroll
    for (unsigned e = 0; e < W; ++e) sum.v[e] += x.v[e] * f.v[e];
}

struct Strip {
    unsigned channel; // in units of the lane's width
    unsigned first;   // first output column
    unsigned end;     // one past its last; equal to `first` where there is no such strip
    unsigned row;     // output row
    unsigned image;
};

// This lane's strip where there are `channels` units of channels.
__device__ __forceinline__ Strip strip_of(unsigned channels, const Dims& d) {
    // 64 bits, because a folded grid may reach past 2^32 lanes.
    const unsigned long long i = (unsigned long long)(blockIdx.y * gridDim.x + blockIdx.x) * BLOCK + threadIdx.x;
    const unsigned strips = (d.ow + STRIP - 1) / STRIP;
    if (i >= (unsigned long long)d.n * d.oh * strips * channels) return {};
    const unsigned at = (unsigned)i, line = at / (channels * strips), first = at / channels % strips * STRIP;
    return {at % channels, first, min(first + STRIP, d.ow), line % d.oh, line / d.oh};
}

// One vector of the input, zero outside it. Rows and columns above or left of the image wrap round to huge numbers.
template <unsigned W>
__device__ __forceinline__ Channels<W> tap(const T* x, unsigned image, unsigned h, unsigned w, unsigned channel, const Dims& d) {
    if (h < d.h && w < d.w) return load<W>(x, ((image * d.h + h) * d.w + w) * (d.c / W) + channel);
    return {};
}

extern "C" __global__ void __launch_bounds__(BLOCK) three(const T* __restrict__ x, // [n, h, w, c]
                                                          const T* __restrict__ f, // [3, 3, c]
                                                          T* __restrict__ y,       // [n, oh, ow, c]
                                                          const Dims d) {
    const unsigned channels = d.c / WIDE;
    const Strip own = strip_of(channels, d);
    if (own.first >= own.end) return;
    Channels<WIDE> filters[3][3]; // [row, column]
#pragma unroll
    for (unsigned t = 0; t < 9; ++t) filters[t / 3][t % 3] = load<WIDE>(f, t * channels + own.channel);
    const unsigned top = own.row * d.stride - d.padding;
    unsigned w = own.first * d.stride - d.padding;
    Channels<WIDE> window[3][3]; // [column, row]
#pragma unroll
    for (unsigned t = 0; t < 9; ++t) window[t / 3][t % 3] = tap<WIDE>(x, own.image, top + t % 3, w + t / 3, own.channel, d);
    unsigned at = ((own.image * d.oh + own.row) * d.ow + own.first) * channels + own.channel;
    for (unsigned col = own.first; col < own.end; ++col) {
        Channels<WIDE> sum = {};
#pragma unroll
        for (unsigned t = 0; t < 9; ++t) add(sum, window[t % 3][t / 3], filters[t / 3][t % 3]);
        store(y, at, sum);
        at += channels;
        // Slide: min(stride, 3) columns are new.
        w += d.stride;
        if (d.stride == 1) {
#pragma unroll
            for (unsigned t = 0; t < 6; ++t) window[t / 3][t % 3] = window[t / 3 + 1][t % 3];
        } else {
#pragma unroll
            for (unsigned r = 0; r < 3; ++r) {
                window[0][r] = d.stride == 2 ? window[2][r] : tap<WIDE>(x, own.image, top + r, w, own.channel, d);
                window[1][r] = tap<WIDE>(x, own.image, top + r, w + 1, own.channel, d);
            }
        }
#pragma unroll
        for (unsigned r = 0; r < 3; ++r) window[2][r] = tap<WIDE>(x, own.image, top + r, w + 2, own.channel, d);
    }
}

constexpr unsigned NARROW = 4, ACROSS = 4; // channels and columns of a lane of `down`

// NARROW channels as they lie in memory, in words: elements of 16 bits, loaded or else zero, would be taken apart and put together right
// behind their load, which waits for it.
struct alignas(NARROW * sizeof(T)) Words {
    unsigned v[NARROW * sizeof(T) / 4];
};

// NARROW channels of the columns that ACROSS outputs see; zero outside the image.
struct Row {
    Words v[ACROSS + 2];
};
__device__ __forceinline__ Row row_of(const T* x, unsigned image, unsigned h, unsigned w, unsigned channel, bool wanted, const Dims& d) {
    const Words* const from = reinterpret_cast<const Words*>(x);
    const unsigned channels = d.c / NARROW, at = ((image * d.h + h) * d.w + w) * channels + channel;
    Row row = {};
#pragma unroll
    for (unsigned j = 0; j < ACROSS + 2; ++j) {
        if (wanted && h < d.h && w + j < d.w) row.v[j] = from[at + j * channels];
    }
    return row;
}

extern "C" __global__ void __launch_bounds__(BLOCK) down(const T* __restrict__ x, // [n, h, w, c]
                                                         const T* __restrict__ f, // [3, 3, c]
                                                         T* __restrict__ y,       // [n, oh, ow, c]
                                                         const Dims d) {
    // 64 bits, because a folded grid may reach past 2^32 lanes.
    const unsigned long long i = (unsigned long long)(blockIdx.y * gridDim.x + blockIdx.x) * BLOCK + threadIdx.x;
    const unsigned channels = d.c / NARROW, across = (d.ow + ACROSS - 1) / ACROSS, strips = (d.oh + STRIP - 1) / STRIP;
    if (i >= (unsigned long long)d.n * strips * across * channels) return;
    const unsigned channel = (unsigned)i % channels, col = (unsigned)i / channels % across * ACROSS;
    const unsigned strip = (unsigned)i / channels / across, image = strip / strips, first = strip % strips * STRIP;
    const unsigned rows = min(unsigned(STRIP), d.oh - first) + 2; // of the input
    const unsigned top = first - d.padding, left = col - d.padding;
    Channels<NARROW> filters[3][3]; // [row, column]
#pragma unroll
    for (unsigned t = 0; t < 9; ++t) filters[t / 3][t % 3] = load<NARROW>(f, t * channels + channel);
    Row line[3]; // row number r of the input is line r % 3
#pragma unroll
    for (unsigned r = 0; r < 2; ++r) line[r] = row_of(x, image, top + r, left, channel, true, d);
    Channels<NARROW> sum[3][ACROSS]; // the row of outputs that begins with row r of the input is sum r % 3
    unsigned at = ((image * d.oh + first) * d.ow + col) * channels + channel;
    for (unsigned begin = 0; begin < rows; begin += 3) {
#pragma unroll
        for (unsigned t = 0; t < 3; ++t) {
            const unsigned r = begin + t;
            line[(t + 2) % 3] = row_of(x, image, top + r + 2, left, channel, r + 2 < rows, d);
#pragma unroll
            for (unsigned c = 0; c < ACROSS; ++c) sum[t][c] = {};
#pragma unroll
            for (unsigned j = 0; j < ACROSS + 2; ++j) {
                Channels<NARROW> seen;
#pragma unroll
                for (unsigned e = 0; e < NARROW; ++e) seen.v[e] = S(reinterpret_cast<const Stored<NARROW>&>(line[t].v[j]).v[e]);
#pragma unroll
                for (unsigned c = 0; c < ACROSS; ++c) {
                    if (j < c || j > c + 2) continue;
#pragma unroll
                    for (unsigned tap = 0; tap < 3; ++tap) add(sum[(t + 3 - tap) % 3][c], seen, filters[tap][j - c]);
                }
            }
            if (r < 2 || r >= rows) continue;
#pragma unroll
            for (unsigned c = 0; c < ACROSS; ++c) {
                if (col + c < d.ow) store(y, at + c * channels, sum[(t + 1) % 3][c]);
            }
            at += d.ow * channels;
        }
    }
}

// Any filter, W channels a lane, four outputs at a time.
template <unsigned W> __device__ __forceinline__ void any(const T* x, const T* f, T* y, const Dims& d) {
    const unsigned channels = d.c / W;
    const Strip own = strip_of(channels, d);
    const unsigned line = (own.image * d.oh + own.row) * d.ow;
    for (unsigned col = own.first; col < own.end; col += 4) {
        Channels<W> sum[4] = {};
        for (unsigned r = 0; r < d.k; ++r) {
            const unsigned h = own.row * d.stride + r * d.dilation - d.padding;
            for (unsigned s = 0; s < d.k; ++s) {
                const Channels<W> weight = load<W>(f, (r * d.k + s) * channels + own.channel);
#pragma unroll
                for (unsigned o = 0; o < 4; ++o) {
                    const unsigned w = (col + o) * d.stride + s * d.dilation - d.padding;
                    add(sum[o], tap<W>(x, own.image, h, w, own.channel, d), weight);
                }
            }
        }
#pragma unroll
        for (unsigned o = 0; o < 4; ++o) {
            if (col + o < own.end) store(y, (line + col + o) * channels + own.channel, sum[o]);
        }
    }
}

extern "C" __global__ void __launch_bounds__(BLOCK) strip(const T* __restrict__ x, // [n, h, w, c]
                                                          const T* __restrict__ f, // [k, k, c]
                                                          T* __restrict__ y,       // [n, oh, ow, c]
                                                          const Dims d) {
    any<WIDE>(x, f, y, d);
}

extern "C" __global__ void __launch_bounds__(BLOCK) single(const T* __restrict__ x, // [n, h, w, c]
                                                           const T* __restrict__ f, // [k, k, c]
                                                           T* __restrict__ y,       // [n, oh, ow, c]
                                                           const Dims d) {
    any<1>(x, f, y, d);
}
