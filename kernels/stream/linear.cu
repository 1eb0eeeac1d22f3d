// stream/linear: read, write, copy and triad over a working set, several passes in one launch; the bandwidth ceilings.
//
// Group g owns the contiguous elements [g * part, (g + 1) * part) of every array and walks them pass after pass, BLOCK lanes side
// by side. Each lane has UNROLL loads of 16 bytes in flight; the elements before the first and after the last 16-byte boundary
// of a part go one by one, so any part is exact. Arrays start on a 16-byte boundary, hence equal indices are equally aligned.
// The scalar of pass p is coef[0] + p * coef[1], unknown to the compiler, so no pass can be left out.

static_assert(sizeof(T) == 4, "loads are named by their type");
static_assert(BLOCK >= 32 && (BLOCK & (BLOCK - 1)) == 0, "the sum halves the group again and again");

// Launch bounds ask for 1024 lanes a multiprocessor, which leaves 64 registers a lane; without a number the assembler may aim for
// 2048 lanes and spill.
constexpr unsigned UNROLL = 4;
constexpr unsigned WIDE = 16 / sizeof(T);

template <unsigned W> struct alignas(W * sizeof(T)) Lanes {
    T v[W];
};

// A multiprocessor's own cache is left out (`cg`), so that what a part's next pass finds is the second level or memory; a curve
// through it would end where 132 of them do, and hide the second level. The words are volatile: no pass may reuse another's.
template <unsigned W> __device__ __forceinline__ Lanes<W> load(const T* from, unsigned i) {
    const Lanes<W>* at = reinterpret_cast<const Lanes<W>*>(from) + i;
#ifdef __CUDA_ARCH__
    Lanes<W> x;
    if constexpr (W == 4) {
        asm volatile("ld.global.cg.v4.f32 {%0, %1, %2, %3}, [%4];" : "=f"(x.v[0]), "=f"(x.v[1]), "=f"(x.v[2]), "=f"(x.v[3]) : "l"(at));
    } else {
        asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(x.v[0]) : "l"(at));
    }
    return x;
#else
    return *at;
#endif
}

template <unsigned W> __device__ __forceinline__ void store(T* to, unsigned i, const Lanes<W>& x) {
    reinterpret_cast<Lanes<W>*>(to)[i] = x;
}

// One struct a kind: `load` names everything that is read at index i (in units of W elements), `use` does the rest. They are apart
// so that all loads of an unrolled step are issued before the first store.

struct Read {
    const T* __restrict__ a;
    T sum[UNROLL];
    template <unsigned W> using In = Lanes<W>;
    template <unsigned W> __device__ __forceinline__ In<W> fetch(unsigned i) const { return load<W>(a, i); }
    template <unsigned W> __device__ __forceinline__ void use(unsigned, unsigned u, const In<W>& x, T s) {
        for (unsigned l = 0; l < W; ++l) sum[u] += s * x.v[l];
    }
};

struct Write {
    T* __restrict__ out;
    template <unsigned W> struct In {};
    template <unsigned W> __device__ __forceinline__ In<W> fetch(unsigned) const { return {}; }
    template <unsigned W> __device__ __forceinline__ void use(unsigned i, unsigned, const In<W>&, T s) {
        Lanes<W> y;
        for (unsigned l = 0; l < W; ++l) y.v[l] = s;
        store<W>(out, i, y);
    }
};

struct Copy {
    T* __restrict__ out;
    const T* __restrict__ a;
    template <unsigned W> using In = Lanes<W>;
    template <unsigned W> __device__ __forceinline__ In<W> fetch(unsigned i) const { return load<W>(a, i); }
    template <unsigned W> __device__ __forceinline__ void use(unsigned i, unsigned, const In<W>& x, T s) {
        Lanes<W> y;
        for (unsigned l = 0; l < W; ++l) y.v[l] = s * x.v[l];
        store<W>(out, i, y);
    }
};

struct Triad {
    T* __restrict__ out;
    const T* __restrict__ a;
    const T* __restrict__ b;
    template <unsigned W> struct In {
        Lanes<W> a, b;
    };
    template <unsigned W> __device__ __forceinline__ In<W> fetch(unsigned i) const { return {load<W>(a, i), load<W>(b, i)}; }
    template <unsigned W> __device__ __forceinline__ void use(unsigned i, unsigned, const In<W>& x, T s) {
        Lanes<W> y;
        for (unsigned l = 0; l < W; ++l) y.v[l] = x.b.v[l] + s * x.a.v[l];
        store<W>(out, i, y);
    }
};

// Indices [first, last) in units of W elements, all lanes of the group side by side.
template <unsigned W, class Kind> __device__ __forceinline__ void sweep(Kind& kind, unsigned first, unsigned last, T s) {
    unsigned i = first + threadIdx.x;
    // `last - i` cannot wrap as `i + UNROLL * BLOCK` could at the end of a 32-bit range.
    for (; i < last && last - i > (UNROLL - 1) * BLOCK; i += UNROLL * BLOCK) {
        typename Kind::template In<W> x[UNROLL];
#pragma unroll
        for (unsigned u = 0; u < UNROLL; ++u) x[u] = kind.template fetch<W>(i + u * BLOCK);
#pragma unroll
        for (unsigned u = 0; u < UNROLL; ++u) kind.template use<W>(i + u * BLOCK, u, x[u], s);
    }
    for (; i < last; i += BLOCK) kind.template use<W>(i, 0, kind.template fetch<W>(i), s);
}

// The group's part: elements [start, head) singly, [head, tail) in units of WIDE, [tail, stop) singly.
struct Part {
    unsigned start, head, tail, stop;
};

__device__ __forceinline__ Part part_of(unsigned group, const Dims& d) {
    const unsigned long long end = d.elements, from = (unsigned long long)group * d.part;
    const unsigned start = (unsigned)min(from, end), stop = (unsigned)min(from + d.part, end);
    // A part too short to hold a boundary goes singly as a whole.
    const unsigned head = min((unsigned)min(((unsigned long long)start + WIDE - 1) / WIDE * WIDE, end), stop);
    const unsigned tail = max(stop / WIDE * WIDE, head);
    return {start, head, tail, stop};
}

template <class Kind> __device__ __forceinline__ void pass(Kind& kind, const Part& p, T s) {
    sweep<1>(kind, p.start, p.head, s);
    sweep<WIDE>(kind, p.head / WIDE, p.tail / WIDE, s);
    sweep<1>(kind, p.tail, p.stop, s);
}

template <class Kind> __device__ __forceinline__ void run(Kind kind, const T* coef, const Dims& d) {
    const unsigned group = blockIdx.y * gridDim.x + blockIdx.x;
    if (group >= d.parts) return;
    const Part p = part_of(group, d);
    const T growth = coef[1];
    T s = coef[0];
    for (unsigned n = 0; n < d.passes; ++n, s += growth) pass(kind, p, s);
}

extern "C" __global__ void __launch_bounds__(BLOCK, 1024 / BLOCK) read(const T* __restrict__ coef, // [2]: scalar, growth
                                                         T* __restrict__ out,        // [parts]
                                                         const T* __restrict__ a,    // [elements]
                                                         const Dims d) {
    __shared__ T sums[BLOCK];
    const unsigned group = blockIdx.y * gridDim.x + blockIdx.x;
    if (group >= d.parts) return; // the whole group at once, before any barrier
    const Part p = part_of(group, d);
    const T growth = coef[1];
    T s = coef[0];
    Read kind = {a, {}};
    for (unsigned n = 0; n < d.passes; ++n, s += growth) {
        // Halving what came before keeps the total bounded however many passes there are.
        for (unsigned u = 0; u < UNROLL; ++u) kind.sum[u] *= T(0.5);
        pass(kind, p, s);
    }
    sums[threadIdx.x] = (kind.sum[0] + kind.sum[1]) + (kind.sum[2] + kind.sum[3]);
    for (unsigned half = BLOCK / 2; half > 0; half /= 2) {
        __syncthreads();
        if (threadIdx.x < half) sums[threadIdx.x] += sums[threadIdx.x + half];
    }
    if (threadIdx.x == 0) out[group] = sums[0];
}

extern "C" __global__ void __launch_bounds__(BLOCK, 1024 / BLOCK) write(const T* __restrict__ coef, // [2]
                                                          T* __restrict__ out,        // [elements]
                                                          const Dims d) {
    run(Write{out}, coef, d);
}

extern "C" __global__ void __launch_bounds__(BLOCK, 1024 / BLOCK) copy(const T* __restrict__ coef, // [2]
                                                         T* __restrict__ out,        // [elements]
                                                         const T* __restrict__ a,    // [elements]
                                                         const Dims d) {
    run(Copy{out, a}, coef, d);
}

extern "C" __global__ void __launch_bounds__(BLOCK, 1024 / BLOCK) triad(const T* __restrict__ coef, // [2]
                                                          T* __restrict__ out,        // [elements]
                                                          const T* __restrict__ a,    // [elements]
                                                          const T* __restrict__ b,    // [elements]
                                                          const Dims d) {
    run(Triad{out, a, b}, coef, d);
}
