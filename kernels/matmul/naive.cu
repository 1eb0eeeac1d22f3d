// matmul/naive: C[m,n] = A[m,k] . B[k,n], row-major; one output element a lane.
//
// A 16 x 16 group owns a 16 x 16 tile of C: x runs along n, y along m. Each lane walks all of k, so A and B are read 16 times
// per tile from cache and nothing is kept in shared memory. Lanes beyond an edge leave at once. Every index fits 32 bits: no
// tensor has 2^32 elements.

static_assert(sizeof(T) <= sizeof(S), "sums are at least as wide as what is stored");

extern "C" __global__ void __launch_bounds__(256) matmul(const T* __restrict__ a, // [m, k]
                                                         const T* __restrict__ b, // [k, n]
                                                         T* __restrict__ c,       // [m, n]
                                                         const Dims d) {
    const unsigned col = blockIdx.x * 16 + threadIdx.x;
    const unsigned row = blockIdx.y * 16 + threadIdx.y;
    if (row >= d.m || col >= d.n) return;
    S sum = 0;
    for (unsigned p = 0; p < d.k; ++p) {
        sum += S(a[row * d.k + p]) * S(b[p * d.n + col]);
    }
    c[row * d.n + col] = T(sum);
}
