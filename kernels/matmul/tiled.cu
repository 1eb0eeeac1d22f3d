// matmul/tiled: C[m,n] = A[m,k] . B[k,n] with square tiles of both operands in shared memory.
//
// Owns:    a TILE x TILE group one tile of C, a lane one element; x runs along n, y along m.
// Traffic: for every TILE steps of k a lane loads one element of A and one of B from memory and 2 * TILE from shared memory.
// Guards:  elements past the edge are loaded as zeros; lanes past the edge store nothing, but meet every barrier.
// Changed: from naive: an element that a group needs is loaded from memory once, instead of once for each of TILE lanes.

static_assert(TILE >= 4 && TILE <= 32, "a group has at most 1024 lanes");
static_assert(sizeof(T) <= sizeof(S), "sums are at least as wide as what is stored");

extern "C" __global__ void __launch_bounds__(TILE * TILE) matmul(const T* __restrict__ a, // [m, k]
                                                                 const T* __restrict__ b, // [k, n]
                                                                 T* __restrict__ c,       // [m, n]
                                                                 const Dims d) {
    __shared__ S left[TILE][TILE];  // [row, step]
    __shared__ S right[TILE][TILE]; // [step, column]
    const unsigned x = threadIdx.x, y = threadIdx.y;
    const unsigned row = blockIdx.y * TILE + y, col = blockIdx.x * TILE + x;
    S sum = 0;
    for (unsigned first = 0; first < d.k; first += TILE) {
        const unsigned across = first + x, down = first + y;
        left[y][x] = row < d.m && across < d.k ? S(a[row * d.k + across]) : S(0);
        right[y][x] = down < d.k && col < d.n ? S(b[down * d.n + col]) : S(0);
        __syncthreads(); // both tiles are whole
#pragma unroll
        for (unsigned p = 0; p < TILE; ++p) sum += left[y][p] * right[p][x];
        __syncthreads(); // and no longer needed
    }
    if (row < d.m && col < d.n) c[row * d.n + col] = T(sum);
}
