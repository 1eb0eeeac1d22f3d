// depthwise/naive: y[n,oh,ow,c] = sum over r,s of x[n, oh*stride + r*dilation - padding, ..., c] * f[r,s,c]; NHWC, filters RSC.
//
// One output element a lane, channels fastest, so that neighbouring lanes read neighbouring addresses; 256 lanes a group.
// A tap outside the image is zero and is not loaded. The grid is folded into two dimensions; lanes beyond the last element leave.

static_assert(sizeof(T) <= sizeof(S), "sums are at least as wide as what is stored");

extern "C" __global__ void __launch_bounds__(256) depthwise(const T* __restrict__ x, // [n, h, w, c]
                                                            const T* __restrict__ f, // [k, k, c]
                                                            T* __restrict__ y,       // [n, oh, ow, c]
                                                            const Dims d) {
    // 64 bits, because a folded grid may reach past 2^32 lanes.
    const unsigned long long lane = (unsigned long long)(blockIdx.y * gridDim.x + blockIdx.x) * 256 + threadIdx.x;
    if (lane >= (unsigned long long)d.n * d.oh * d.ow * d.c) return;
    const unsigned at = (unsigned)lane;
    const unsigned channel = at % d.c;
    const unsigned column = at / d.c % d.ow;
    const unsigned line = at / d.c / d.ow % d.oh;
    const unsigned image = at / d.c / d.ow / d.oh;
    S sum = 0;
    for (unsigned r = 0; r < d.k; ++r) {
        // Below zero wraps to a number no smaller than h, so one comparison guards both edges.
        const unsigned h = line * d.stride + r * d.dilation - d.padding;
        if (h >= d.h) continue;
        for (unsigned s = 0; s < d.k; ++s) {
            const unsigned w = column * d.stride + s * d.dilation - d.padding;
            if (w >= d.w) continue;
            sum += S(x[((image * d.h + h) * d.w + w) * d.c + channel]) * S(f[(r * d.k + s) * d.c + channel]);
        }
    }
    y[at] = T(sum);
}
