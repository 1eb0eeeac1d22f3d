// depthwise/vectorized: NHWC with vectors of channels.
//
// Owns:    a lane one output pixel in one 16-byte vector of channels (`single`: one channel); a group 256 of them, channels fastest.
// Traffic: a load an input and a load a filter element for every tap, 16 bytes each; what neighbours share comes from the caches.
// Guards:  lanes past the last output return at once; taps outside the image are zero and not loaded.
// Changed: from naive: one load and one index serve as many channels as 16 bytes hold. `single` is for channel counts that a vector
//          does not divide.

static_assert(sizeof(T) <= sizeof(S), "sums are at least as wide as what is stored");

template <unsigned W> struct alignas(W * sizeof(T)) Stored {
    T v[W];
};

template <unsigned W> __device__ __forceinline__ void pixel(const T* x, const T* f, T* y, const Dims& d) {
    const auto load = [](const T* from, unsigned i) { return reinterpret_cast<const Stored<W>*>(from)[i]; };
    const unsigned channels = d.c / W;
    // 64 bits, because a folded grid may reach past 2^32 lanes.
    const unsigned long long lane = (unsigned long long)(blockIdx.y * gridDim.x + blockIdx.x) * 256 + threadIdx.x;
    if (lane >= (unsigned long long)d.n * d.oh * d.ow * channels) return;
    const unsigned at = (unsigned)lane, channel = at % channels, column = at / channels % d.ow;
    const unsigned line = at / channels / d.ow % d.oh, image = at / channels / d.ow / d.oh;
    S sum[W] = {};
    for (unsigned r = 0; r < d.k; ++r) {
        // Below zero wraps to a number no smaller than h, so one comparison guards both edges.
        const unsigned h = line * d.stride + r * d.dilation - d.padding;
        if (h >= d.h) continue;
        for (unsigned s = 0; s < d.k; ++s) {
            const unsigned w = column * d.stride + s * d.dilation - d.padding;
            if (w >= d.w) continue;
            const Stored<W> input = load(x, ((image * d.h + h) * d.w + w) * channels + channel);
            const Stored<W> filter = load(f, (r * d.k + s) * channels + channel);
#pragma unroll
            for (unsigned e = 0; e < W; ++e) sum[e] += S(input.v[e]) * S(filter.v[e]);
        }
    }
    Stored<W> out;
#pragma unroll
    for (unsigned e = 0; e < W; ++e) out.v[e] = T(sum[e]);
    reinterpret_cast<Stored<W>*>(y)[at] = out;
}

extern "C" __global__ void __launch_bounds__(256) vector(const T* __restrict__ x, // [n, h, w, c]
                                                         const T* __restrict__ f, // [k, k, c]
                                                         T* __restrict__ y,       // [n, oh, ow, c]
                                                         const Dims d) {
    pixel<16 / sizeof(T)>(x, f, y, d);
}

extern "C" __global__ void __launch_bounds__(256) single(const T* __restrict__ x, // [n, h, w, c]
                                                         const T* __restrict__ f, // [k, k, c]
                                                         T* __restrict__ y,       // [n, oh, ow, c]
                                                         const Dims d) {
    pixel<1>(x, f, y, d);
}
