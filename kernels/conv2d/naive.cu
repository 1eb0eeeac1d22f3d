// conv2d/naive: NHWC, filters KRSC, one output element a lane; the bottom rung.
//
// Owns:    256 consecutive outputs a group, channels fastest.
// Traffic: every lane loads each channel under each tap inside the image and its filter element: two loads a multiply-add.
// Guards:  lanes past the last output return at once; taps outside the image are zero and load nothing.

static_assert(sizeof(T) <= sizeof(S), "sums are at least as wide as what is stored");

extern "C" __global__ void __launch_bounds__(256) conv2d(const T* __restrict__ x, // [n, h, w, c_in]
                                                         const T* __restrict__ f, // [c_out, kh, kw, c_in / groups]
                                                         T* __restrict__ y,       // [n, oh, ow, c_out]
                                                         const Dims d) {
    // 64 bits, because a folded grid may reach past 2^32 lanes.
    const unsigned long long lane = (unsigned long long)(blockIdx.y * gridDim.x + blockIdx.x) * 256 + threadIdx.x;
    if (lane >= (unsigned long long)d.n * d.oh * d.ow * d.c_out) return;
    const unsigned at = (unsigned)lane;
    const unsigned channel = at % d.c_out;
    const unsigned col = at / d.c_out % d.ow;
    const unsigned row = at / d.c_out / d.ow % d.oh;
    const unsigned image = at / d.c_out / d.ow / d.oh;
    const unsigned depth = d.c_in / d.groups;
    const unsigned first = channel / (d.c_out / d.groups) * depth; // the group's first input channel
    S sum = 0;
    for (unsigned r = 0; r < d.kh; ++r) {
        // Below zero wraps to a number no smaller than h, so one comparison guards both edges.
        const unsigned h = row * d.stride + r * d.dilation - d.padding;
        if (h >= d.h) continue;
        for (unsigned s = 0; s < d.kw; ++s) {
            const unsigned w = col * d.stride + s * d.dilation - d.padding;
            if (w >= d.w) continue;
            const T* const pixel = x + (((image * d.h + h) * d.w + w) * d.c_in + first);
            const T* const filters = f + (((channel * d.kh + r) * d.kw + s) * depth);
            for (unsigned c = 0; c < depth; ++c) sum += S(pixel[c]) * S(filters[c]);
        }
    }
    y[at] = T(sum);
}
