// clock: the cycle counter and the nanosecond timer of every multiprocessor, one read right after the other.
//
// Launched before and after a window of work, in two groups of one warp for each multiprocessor. What both have grown by on the same one is its
// clock; counters of different ones have nothing in common. The first group that comes to one writes its row, so that a row is of one reading.

struct Clock {
    unsigned units; // rows of `seen`, more than multiprocessors have numbers
};

#ifndef CUDACPU // the shim that runs sources on a CPU brings its own
__device__ __forceinline__ unsigned multiprocessor() {
    unsigned number;
    asm volatile("mov.u32 %0, %%smid;" : "=r"(number));
    return number;
}
__device__ __forceinline__ unsigned long long cycles() {
    unsigned long long count;
    asm volatile("mov.u64 %0, %%clock64;" : "=l"(count)::"memory");
    return count;
}
__device__ __forceinline__ unsigned long long nanoseconds() {
    unsigned long long time;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(time)::"memory");
    return time;
}
#endif

// seen [units][3]: groups that came, cycles, nanoseconds; zeros before.
extern "C" __global__ void __launch_bounds__(32) clock_read(unsigned long long* seen, const Clock d) {
    const unsigned unit = multiprocessor();
    if (threadIdx.x != 0 || unit >= d.units) return;
    unsigned long long* const row = seen + 3 * unit;
    if (atomicAdd(row, 1ull) != 0) return;
    row[1] = cycles();
    row[2] = nanoseconds();
}
