// depthwise/window: NHWC with registers along a strip of outputs.
//
// Owns:    a lane STRIP consecutive outputs of one image row, in one 16-byte vector of channels (`single`: one channel); a group
//          BLOCK such strips, channels fastest, so that neighbouring lanes load neighbouring channels.
// Traffic: `three` (k = 3, no dilation) keeps its nine filter vectors and a 3 x 3 window in registers and slides the window:
//          3 * min(stride, 3) loads an output. `strip` and `single` (any filter) load each filter element once for four outputs.
// Guards:  lanes past the last strip return at once; strips stop at the row's end; taps outside the image are zero.
// Changed: from naive: filters are loaded once a strip instead of once an output, and, with k = 3, every input once a row of
//          taps; loads and stores are vectors. `single` is for channel counts that a vector does not divide.

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
