// launch/counted: one dispatch after the other, each adding one to a number; what a dispatch costs that does nothing.
//
// The first lane of the one block owns the number; one element is read and one written a dispatch. The stream keeps dispatches
// in order, so one more or fewer shows in the value.

static_assert(BLOCK >= 32 && BLOCK <= 1024, "one block");

extern "C" __global__ void __launch_bounds__(BLOCK) first(const T* __restrict__ x, // [1]
                                                          T* __restrict__ count,   // [1]
                                                          const Dims d) {
    if (threadIdx.x == 0) count[0] = x[0];
}

extern "C" __global__ void __launch_bounds__(BLOCK) next(T* __restrict__ count, // [1]
                                                         const Dims d) {
    if (threadIdx.x == 0) count[0] += T(1);
}

extern "C" __global__ void __launch_bounds__(BLOCK) last(T* __restrict__ y,           // [1]
                                                         const T* __restrict__ count, // [1]
                                                         const Dims d) {
    if (threadIdx.x == 0) y[0] = count[0] + T(1);
}
