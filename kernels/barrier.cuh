// Barriers in shared memory that count arrivals, of lanes, of their copies and of bytes; sm_80 has the first. They stand before ring.cuh
// and warpgroup.cuh where a source includes one. PTX, so that no header is needed.
//
// A round ends when all have arrived that a barrier was made for, and the next begins. The parity of a wait is that of the round it waits
// for, of the first 0; the round before the first counts as ended. Rounds that two lanes know of are one apart at most.

#ifndef CUDACPU // the shim that runs sources on a CPU brings these itself
// Other lanes may use it behind the next __syncthreads.
__device__ __forceinline__ void barrier_make(unsigned at, unsigned arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(at), "r"(arrivals) : "memory");
}
__device__ __forceinline__ void barrier_arrive(unsigned at) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(at) : "memory");
}
// Arrives when all copies have come that the lane has asked for so far, at once if none is under way: one of the arrivals that the barrier
// was made for, not one more.
__device__ __forceinline__ void copies_arrive(unsigned at) {
    asm volatile("cp.async.mbarrier.arrive.noinc.shared::cta.b64 [%0];" ::"r"(at) : "memory");
}
__device__ __forceinline__ unsigned long long nanoseconds() {
    unsigned long long now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    return now;
}
// Whether the round has ended; sm_90 sleeps for a while before it says no.
__device__ __forceinline__ bool barrier_ended(unsigned at, unsigned parity) {
    unsigned ended;
#if __CUDA_ARCH__ >= 900
    asm volatile("{.reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}"
                 : "=r"(ended)
                 : "r"(at), "r"(parity)
                 : "memory");
#else
    asm volatile("{.reg .pred p; mbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p;}"
                 : "=r"(ended)
                 : "r"(at), "r"(parity)
                 : "memory");
#endif
    return ended;
}
// Ends the launch with a fault where a round does not come within two seconds: better lost than hung. Without TRAPS by a store to
// nowhere: in a kernel with a trap the assembler uses no more registers than the launch gives, whatever warpgroups shift, and spills
// where it needs not.
template <bool TRAPS = true> __device__ __forceinline__ void barrier_wait(unsigned at, unsigned parity) {
    unsigned long long since = 0;
    while (!barrier_ended(at, parity)) {
        if (since == 0) since = nanoseconds();
        if (nanoseconds() - since <= 2000000000ull) continue;
        if constexpr (TRAPS) __trap();
        else asm volatile("st.global.u32 [%0], 0;" ::"l"(0ull) : "memory");
    }
}
#endif
