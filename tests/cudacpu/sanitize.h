// What sanitizers are told of lanes (scripts/sanitize-cuda-kernels.sh); nothing in a plain build.
//
// For the race sanitizer every lane is a strand that nothing orders but what orders lanes on a device: barriers of a block, a cluster or
// a number, those in shared memory that lanes and their copies arrive at, __syncwarp, waits for products. Shuffles and the loads and
// products of a warp order no memory there, and none here. What the shim itself reads and writes is not seen; what it does in a lane's place is told as the lane's. Blocks are
// ordered, as one begins when the one before has ended: races between blocks are not seen. Nor is an operand that is filled again before
// its product is done, if all has come by the wait for the product: outputs show that.
//
// For the address sanitizer tensors have no guards but its own, and shared memory past what a launch gives may not be read either.
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

// What lanes wait for together: those that leave are ordered behind all that came. Two places by turns, as a lane may come to the next
// meeting before another has left this one.
struct Edge {
    uint64_t at[2];
};

#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#define UNTRACED __attribute__((no_sanitize("thread"), noinline)) // neither its accesses nor its calls, which may never return
extern "C" {
void AnnotateIgnoreReadsBegin(const char*, int);
void AnnotateIgnoreReadsEnd(const char*, int);
void __tsan_read_range(const void*, unsigned long);
void __tsan_write_range(void*, unsigned long);
__attribute__((used)) inline const char* __tsan_default_options() { return "halt_on_error=1"; }
}
namespace cudacpu {
using Strand = void*;
inline Strand strand(size_t number) {
    static std::vector<Strand> made;
    while (made.size() <= number) made.push_back(__tsan_create_fiber(0));
    return made[number];
}
inline const Strand scheduler_strand = __tsan_get_current_fiber();
UNTRACED inline void continue_on(Strand strand) { __tsan_switch_to_fiber(strand, __tsan_switch_to_fiber_no_sync); }
// As long as one lives, nothing that this strand does is seen. What the sanitizer calls reads are writes too.
struct Unseen {
    Unseen() { AnnotateIgnoreReadsBegin("", 0); }
    ~Unseen() { AnnotateIgnoreReadsEnd("", 0); }
};
inline const Unseen scheduling;
// As the lane's own, within one Unseen.
inline void reads(const void* at, size_t bytes) {
    AnnotateIgnoreReadsEnd("", 0);
    __tsan_read_range(at, bytes);
    AnnotateIgnoreReadsBegin("", 0);
}
inline void writes(void* at, size_t bytes) {
    AnnotateIgnoreReadsEnd("", 0);
    __tsan_write_range(at, bytes);
    AnnotateIgnoreReadsBegin("", 0);
}
inline void comes(Edge& edge, unsigned round) { __tsan_release(&edge.at[round & 1]); }
inline void leaves(Edge& edge, unsigned round) { __tsan_acquire(&edge.at[round & 1]); }
} // namespace cudacpu
#else
#define UNTRACED
namespace cudacpu {
using Strand = char;
inline Strand strand(size_t) { return 0; }
inline const Strand scheduler_strand = 0;
inline void continue_on(Strand) {}
struct Unseen {
    Unseen() {}
};
inline void reads(const void*, size_t) {}
inline void writes(void*, size_t) {}
inline void comes(Edge&, unsigned) {}
inline void leaves(Edge&, unsigned) {}
} // namespace cudacpu
#endif

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
extern "C" __attribute__((used)) inline const char* __asan_default_options() { return "detect_leaks=0:detect_stack_use_after_return=0"; }
#endif

namespace cudacpu {
#if defined(__SANITIZE_ADDRESS__)
constexpr bool GUARDED = false; // the sanitizer's own are nearer
inline void forbid(const void* at, size_t bytes) { __asan_poison_memory_region(at, bytes); }
inline void permit(const void* at, size_t bytes) { __asan_unpoison_memory_region(at, bytes); }
#else
constexpr bool GUARDED = true;
inline void forbid(const void*, size_t) {}
inline void permit(const void*, size_t) {}
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr size_t STACK_GROWS = 8; // frames hold what a sanitizer puts between their variables
#else
constexpr size_t STACK_GROWS = 1;
#endif
} // namespace cudacpu
