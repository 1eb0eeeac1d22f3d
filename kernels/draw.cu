// draw: fills tensors with their draw and counts elements that no longer equal it; the bits are those of src/draw.rs.
//
// Element i is an integer function of (keys, i), converted exactly to f32 and then rounded once to the storage type. Rounding to
// f16 and E4M3 is done in integers, so that no header is needed and the CPU runs the same text. Grids stride over any number of elements.

// Laid out as `Args` in src/backend/cuda/fill.rs.
struct Draw {
    unsigned long long elements;
    unsigned keys[4];
    unsigned exact; // 1: multiples of 1/64 in [-1, 1], of 8 bits 1/8; 0: near-normal
    // `Fill::words` of src/draw.rs: `Rows`; `Cycle` where there are no keys; no columns but a step for scales (1) and
    // `Pairs` (2), whose depth is `rows`, apart `first` and opposed `shift`; zeros for a plain draw
    unsigned columns, rows, first, keys_of_head, shift, step;
};

struct Half {
    unsigned short bits;
};

struct Brain {
    unsigned short bits;
};

struct Float8 {
    unsigned char bits;
};

__device__ __forceinline__ unsigned mix(unsigned x) {
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    return x ^ (x >> 16);
}

union Bits {
    float f;
    unsigned u;
};

// The element of a cycle of lines that element i names.
__device__ __forceinline__ unsigned next(const Draw& d, unsigned i) {
    const unsigned mask = d.rows - 1;
    unsigned at = i / d.columns;
    at = (at ^ at >> d.shift) * 0x43021123u & mask;
    at = (at ^ at >> d.shift) * 0x1d69e2a5u & mask; // the rank
    at = (at + 1) * 0x7feb352du & mask;
    at = (at ^ at >> d.shift) * 0x846ca68bu & mask;
    return (at ^ at >> d.shift) * d.columns + i % d.columns;
}

// What stands for an index in hashes.
__device__ __forceinline__ unsigned place(unsigned long long i) { return (unsigned)i + (unsigned)(i >> 32) * 0x9e3779b9u; }

// A multiple of 1/8 in [-1, 1].
__device__ __forceinline__ float eighths(const Draw& d, unsigned long long i) {
    return (float)((int)(((mix(place(i) + d.keys[0]) >> 16) * 17) >> 16) - 8) * (1.0f / 8.0f);
}

// One of a pair along k, or one of the first pair, which is small and free.
__device__ __forceinline__ float paired(const Draw& d, unsigned long long i) {
    const unsigned k = (unsigned)(i / d.first) & (d.rows - 1), first = k < (k ^ 21) ? k : k ^ 21;
    if (first == 0) {
        const unsigned hash = mix(place(i) + d.keys[0]) >> 16;
        return (float)(d.shift ? (int)((hash * 3) >> 16) - 1 : (int)(hash >> 15)) * (1.0f / 8.0f);
    }
    const float x = eighths(d, i - (unsigned long long)(k - first) * d.first);
    return d.shift && k != first ? -x : x;
}

__device__ __forceinline__ float element(const Draw& d, unsigned long long i) {
    if (!d.columns && d.step == 2) return paired(d, i);
    if (d.columns && !d.keys_of_head) {
        Bits b;
        b.u = 0x3f800000u + 4 * next(d, (unsigned)i);
        return b.f;
    }
    const unsigned at = place(i);
    if (!d.columns && d.step) {
        const unsigned hash = mix(at + d.keys[0]);
        return (float)(d.exact ? 0x10000u << (hash >> 31) : 0x10000u + (hash >> 16)) * (1.0f / (1 << 22));
    }
    const float scale = (float)(1u << d.shift);
    if (d.exact && d.columns) {
        const unsigned long long row = i / d.columns;
        if (d.step == 2 && row % 2 == 1) return 0.0f;
        const unsigned key = ((unsigned)(row % d.rows) + d.first) % d.keys_of_head;
        const unsigned hash = mix((key * d.columns + (unsigned)(i % d.columns)) ^ 0x2c1b3c6du);
        return hash >> 31 == 0 ? scale * scale : -scale * scale;
    }
    if (d.exact) {
        const unsigned step = ((mix(at + d.keys[0]) >> 16) * 129) >> 16;
        return (float)((int)step - 64) * (1.0f / 64.0f);
    }
    int sum = 0;
    for (int j = 0; j < 4; ++j) sum += (int)(mix(at + d.keys[j]) >> 10);
    return (float)(sum - (1 << 23)) * (1.0f / (1 << 22)) * scale;
}

// Nearest f16, ties to even, for finite |x| < 65520.
__device__ __forceinline__ Half half_of(float x) {
    Bits b;
    b.f = x;
    const unsigned sign = b.u >> 16 & 0x8000, magnitude = b.u & 0x7fffffff;
    if (magnitude < 0x38800000) { // below 2^-14: a multiple of 2^-24, found by adding a number whose last bit is worth that
        b.u = magnitude;
        b.f += 0.5f;
        return {(unsigned short)(sign | (b.u - 0x3f000000))};
    }
    const unsigned rebased = magnitude - (112u << 23);
    return {(unsigned short)(sign | ((rebased + 0xfff + (rebased >> 13 & 1)) >> 13))};
}

// Nearest bf16, ties to even, for finite x.
__device__ __forceinline__ Brain brain_of(float x) {
    Bits b;
    b.f = x;
    return {(unsigned short)((b.u + 0x7fff + (b.u >> 16 & 1)) >> 16)};
}

// Nearest E4M3, ties to even, for |x| <= 464.
__device__ __forceinline__ Float8 f8_of(float x) {
    Bits b;
    b.f = x;
    const unsigned sign = b.u >> 24 & 0x80, magnitude = b.u & 0x7fffffff;
    if (magnitude < 0x3c800000) { // below 2^-6: a multiple of 2^-9, found as that of f16 is
        b.u = magnitude;
        b.f += 16384.0f;
        return {(unsigned char)(sign | (b.u - 0x46800000))};
    }
    const unsigned rebased = magnitude - (120u << 23);
    return {(unsigned char)(sign | ((rebased + 0x7ffff + (rebased >> 20 & 1)) >> 20))};
}

__device__ __forceinline__ void drawn(const Draw& d, unsigned long long i, float& out) { out = element(d, i); }
__device__ __forceinline__ void drawn(const Draw& d, unsigned long long i, double& out) { out = element(d, i); }
__device__ __forceinline__ void drawn(const Draw& d, unsigned long long i, Half& out) { out = half_of(element(d, i)); }
__device__ __forceinline__ void drawn(const Draw& d, unsigned long long i, Brain& out) { out = brain_of(element(d, i)); }
__device__ __forceinline__ void drawn(const Draw& d, unsigned long long i, Float8& out) {
    out = f8_of(d.exact && !d.columns && !d.step ? eighths(d, i) : element(d, i));
}
// Integers in [-16, 16), under either draw.
__device__ __forceinline__ int small(const Draw& d, unsigned long long i) { return (int)(mix(place(i) + d.keys[0]) >> 27) - 16; }
__device__ __forceinline__ void drawn(const Draw& d, unsigned long long i, signed char& out) { out = (signed char)small(d, i); }
__device__ __forceinline__ void drawn(const Draw& d, unsigned long long i, int& out) { out = small(d, i); }
// A word is its hash, under either draw.
__device__ __forceinline__ void drawn(const Draw& d, unsigned long long i, unsigned& out) { out = mix(place(i) + d.keys[0]); }

__device__ __forceinline__ bool same(float a, float b) {
    Bits x, y;
    x.f = a;
    y.f = b;
    return x.u == y.u;
}
__device__ __forceinline__ bool same(double a, double b) {
    union {
        double f;
        unsigned long long u;
    } x, y;
    x.f = a;
    y.f = b;
    return x.u == y.u;
}
__device__ __forceinline__ bool same(Half a, Half b) { return a.bits == b.bits; }
__device__ __forceinline__ bool same(Brain a, Brain b) { return a.bits == b.bits; }
__device__ __forceinline__ bool same(Float8 a, Float8 b) { return a.bits == b.bits; }
__device__ __forceinline__ bool same(unsigned a, unsigned b) { return a == b; }
__device__ __forceinline__ bool same(signed char a, signed char b) { return a == b; }
__device__ __forceinline__ bool same(int a, int b) { return a == b; }

__device__ __forceinline__ unsigned long long first() { return (unsigned long long)blockIdx.x * blockDim.x + threadIdx.x; }
__device__ __forceinline__ unsigned long long stride() { return (unsigned long long)gridDim.x * blockDim.x; }

template <class Out> __device__ __forceinline__ void fill(Out* out, const Draw& d) {
    for (unsigned long long i = first(); i < d.elements; i += stride()) drawn(d, i, out[i]);
}

template <class Out> __device__ __forceinline__ void compare(const Out* data, unsigned long long* changed, const Draw& d) {
    unsigned long long mine = 0;
    for (unsigned long long i = first(); i < d.elements; i += stride()) {
        Out expected;
        drawn(d, i, expected);
        if (!same(data[i], expected)) ++mine;
    }
    if (mine) atomicAdd(changed, mine);
}

extern "C" __global__ void __launch_bounds__(256) draw_f32(float* out, const Draw d) { fill(out, d); }
extern "C" __global__ void __launch_bounds__(256) draw_f64(double* out, const Draw d) { fill(out, d); }
extern "C" __global__ void __launch_bounds__(256) draw_f16(Half* out, const Draw d) { fill(out, d); }
extern "C" __global__ void __launch_bounds__(256) draw_bf16(Brain* out, const Draw d) { fill(out, d); }
extern "C" __global__ void __launch_bounds__(256) draw_u32(unsigned* out, const Draw d) { fill(out, d); }
extern "C" __global__ void __launch_bounds__(256) draw_i8(signed char* out, const Draw d) { fill(out, d); }
extern "C" __global__ void __launch_bounds__(256) draw_i32(int* out, const Draw d) { fill(out, d); }
extern "C" __global__ void __launch_bounds__(256) draw_f8(Float8* out, const Draw d) { fill(out, d); }

extern "C" __global__ void __launch_bounds__(256) changed_f32(const float* data, unsigned long long* changed, const Draw d) {
    compare(data, changed, d);
}
extern "C" __global__ void __launch_bounds__(256) changed_f64(const double* data, unsigned long long* changed, const Draw d) {
    compare(data, changed, d);
}
extern "C" __global__ void __launch_bounds__(256) changed_f16(const Half* data, unsigned long long* changed, const Draw d) {
    compare(data, changed, d);
}
extern "C" __global__ void __launch_bounds__(256) changed_bf16(const Brain* data, unsigned long long* changed, const Draw d) {
    compare(data, changed, d);
}
extern "C" __global__ void __launch_bounds__(256) changed_u32(const unsigned* data, unsigned long long* changed, const Draw d) {
    compare(data, changed, d);
}
extern "C" __global__ void __launch_bounds__(256) changed_i8(const signed char* data, unsigned long long* changed, const Draw d) {
    compare(data, changed, d);
}
extern "C" __global__ void __launch_bounds__(256) changed_i32(const int* data, unsigned long long* changed, const Draw d) {
    compare(data, changed, d);
}
extern "C" __global__ void __launch_bounds__(256) changed_f8(const Float8* data, unsigned long long* changed, const Draw d) {
    compare(data, changed, d);
}
