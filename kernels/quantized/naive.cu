// quantized/naive: C[m,n] = A[m,k] . W[k,n] with weights of a few bits; one output element a lane.
//
// A 16 x 16 group owns a 16 x 16 tile of C: x runs along n, y along m. Each lane walks all of k word by word: a word of one column and
// its scale, then as many elements of A as the word holds weights. Lanes beyond an edge leave at once. Every index fits 32 bits: no
// tensor has 2^32 elements.

static_assert(sizeof(T) <= sizeof(S), "sums are at least as wide as what is stored");

extern "C" __global__ void __launch_bounds__(256) product(const T* __restrict__ a,            // [m, k]
                                                          const unsigned* __restrict__ words, // [k / pack, n]
                                                          const T* __restrict__ scales,       // [k / group_size, n]
                                                          T* __restrict__ c,                  // [m, n]
                                                          const Dims d) {
    const unsigned col = blockIdx.x * 16 + threadIdx.x;
    const unsigned row = blockIdx.y * 16 + threadIdx.y;
    if (row >= d.m || col >= d.n) return;
    const unsigned pack = 32 / d.bits;
    S sum = 0;
    for (unsigned step = 0; step < d.k / pack; ++step) {
        unsigned word = words[step * d.n + col];
        const S scale = S(scales[step * pack / d.group_size * d.n + col]);
        for (unsigned i = 0; i < pack; ++i) {
            const int q = (int)(word << (32 - d.bits)) >> (32 - d.bits);
            sum += S(a[row * d.k + step * pack + i]) * (scale * S(q));
            word >>= d.bits;
        }
    }
    c[row * d.n + col] = T(sum);
}
