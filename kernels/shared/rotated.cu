// shared/rotated: one tile of shared memory read again and again; the ceiling of its bandwidth.
//
// A block owns one sum; in every pass each lane owns 512 / BLOCK vectors of the tile, BLOCK apart, so a quarter of a warp reads 128
// bytes that lie together. A lane starts one vector further on in each pass, so no load can be taken out of the loop; all loads are
// summed. The tile is loaded once; then 8 KiB of shared memory a pass; one element stored. Blocks past the last store nothing.

static_assert(BLOCK >= 32 && 512 % BLOCK == 0, "whole passes");
static_assert(UNROLL >= 1 && 8 % UNROLL == 0, "whole trips");

extern "C" __global__ void __launch_bounds__(BLOCK) rotated(const T* __restrict__ x, // [2048]
                                                            T* __restrict__ y,       // [groups]
                                                            const Dims d) {
    constexpr unsigned VECTORS = 512, OWN = VECTORS / BLOCK;
    __shared__ float4 tile[VECTORS];
    __shared__ T sums[BLOCK];
    const unsigned lane = threadIdx.x, number = blockIdx.y * gridDim.x + blockIdx.x;
    for (unsigned v = lane; v < VECTORS; v += BLOCK) tile[v] = reinterpret_cast<const float4*>(x)[v];
    __syncthreads(); // the tile is whole
    T a = 0, b = 0, c = 0, e = 0;
    for (unsigned pass = 0; pass < d.passes; pass += UNROLL) {
#pragma unroll
        for (unsigned u = 0; u < UNROLL * OWN; ++u) {
            const float4 v = tile[(lane + pass + u / OWN + u % OWN * BLOCK) % VECTORS];
            a += v.x;
            b += v.y;
            c += v.z;
            e += v.w;
        }
    }
    sums[lane] = a + b + c + e;
    for (unsigned half = BLOCK / 2; half > 0; half /= 2) {
        __syncthreads(); // the sums of the step before are there
        if (lane < half) sums[lane] += sums[lane + half];
    }
    if (lane == 0 && number < d.groups) y[number] = sums[0];
}
