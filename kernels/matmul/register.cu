// matmul/register: C[m,n] = A[m,k] . B[k,n] with a register tile a lane and no shared memory.
//
// Owns:    an 8 x 8 group one (8 * TM) x (32 * TN) tile of C; a lane holds TM rows x TN vectors of four columns, its vectors
//          eight apart, so that neighbouring lanes load neighbouring vectors of B.
// Traffic: four steps of k load TM vectors of A and 4 * TN vectors of B for 16 * TM * TN * 4 multiply-adds.
// Guards:  rows and columns past the edge are loaded from the last one that exists and never stored.
// Changed: from naive: each loaded value is used TM or 4 * TN times instead of once, and loads are vectors. `whole` needs n and
//          k divisible by four, so that every row starts on a vector; `ragged` takes any shape with scalar loads.

static_assert(TM >= 1 && TM <= 8, "a lane's sums live in registers");
static_assert(TN >= 1 && TN <= 2, "a lane's sums live in registers");

struct alignas(4 * sizeof(T)) Four {
    T v[4];
};

extern "C" __global__ void __launch_bounds__(64) whole(const T* __restrict__ a, // [m, k]
                                                       const T* __restrict__ b, // [k, n]
                                                       T* __restrict__ c,       // [m, n]
                                                       const Dims d) {
    const Four* const a4 = reinterpret_cast<const Four*>(a);
    const Four* const b4 = reinterpret_cast<const Four*>(b);
    const unsigned row = (blockIdx.y * 8 + threadIdx.y) * TM;
    const unsigned col = blockIdx.x * 8 * TN + threadIdx.x; // in vectors; the lane's vectors are col + 8 * j
    const unsigned cols = d.n / 4;
    if (row >= d.m || col >= cols) return;
    S sum[TM][TN][4] = {};
    for (unsigned p = 0; p < d.k / 4; ++p) {
        Four left[TM];
#pragma unroll
        for (unsigned i = 0; i < TM; ++i) left[i] = a4[min(row + i, d.m - 1) * (d.k / 4) + p];
#pragma unroll
        for (unsigned j = 0; j < TN; ++j) {
            Four right[4];
#pragma unroll
            for (unsigned q = 0; q < 4; ++q) right[q] = b4[(p * 4 + q) * cols + min(col + 8 * j, cols - 1)];
#pragma unroll
            for (unsigned i = 0; i < TM; ++i) {
#pragma unroll
                for (unsigned q = 0; q < 4; ++q) {
#pragma unroll
                    for (unsigned e = 0; e < 4; ++e) sum[i][j][e] += S(left[i].v[q]) * S(right[q].v[e]);
                }
            }
        }
    }
#pragma unroll
    for (unsigned i = 0; i < TM; ++i) {
#pragma unroll
        for (unsigned j = 0; j < TN; ++j) {
            Four out;
#pragma unroll
            for (unsigned e = 0; e < 4; ++e) out.v[e] = T(sum[i][j][e]);
            if (row + i < d.m && col + 8 * j < cols) reinterpret_cast<Four*>(c)[(row + i) * cols + col + 8 * j] = out;
        }
    }
}

extern "C" __global__ void __launch_bounds__(64) ragged(const T* __restrict__ a, // [m, k]
                                                        const T* __restrict__ b, // [k, n]
                                                        T* __restrict__ c,       // [m, n]
                                                        const Dims d) {
    const unsigned row = (blockIdx.y * 8 + threadIdx.y) * TM;
    const unsigned col = (blockIdx.x * 8 * TN + threadIdx.x) * 4; // in elements; the lane's vectors start at col + 32 * j
    if (row >= d.m || col >= d.n) return;
    S sum[TM][TN][4] = {};
    for (unsigned p = 0; p < d.k; ++p) {
        S left[TM];
#pragma unroll
        for (unsigned i = 0; i < TM; ++i) left[i] = S(a[min(row + i, d.m - 1) * d.k + p]);
#pragma unroll
        for (unsigned j = 0; j < TN; ++j) {
#pragma unroll
            for (unsigned e = 0; e < 4; ++e) {
                const S right = S(b[p * d.n + min(col + 32 * j + e, d.n - 1)]);
#pragma unroll
                for (unsigned i = 0; i < TM; ++i) sum[i][j][e] += left[i] * right;
            }
        }
    }
#pragma unroll
    for (unsigned i = 0; i < TM; ++i) {
#pragma unroll
        for (unsigned j = 0; j < TN; ++j) {
#pragma unroll
            for (unsigned e = 0; e < 4; ++e) {
                const unsigned at = col + 32 * j + e;
                if (row + i < d.m && at < d.n) c[(row + i) * d.n + at] = T(sum[i][j][e]);
            }
        }
    }
}
