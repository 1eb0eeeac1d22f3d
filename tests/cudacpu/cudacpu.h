// CUDA C++ on the CPU: the shipped .cu text, included unchanged, runs lane by lane.
//
// A CUDA lane is a fiber; the lanes of a block take turns until all are done, and a barrier or shuffle gives the turn away. The order
// of turns can be forward, backward or shuffled: what depends on it is a race, and shows as a wrong result in one of them. Blocks
// run one after the other, but for those of a cluster. Not modelled: weak memory order, warps in lockstep, inline PTX, textures.
//
// Refused with a message and an abort: barriers at different places of one block, a barrier that part of a block never reaches, stores
// to shared memory past what the launch gives. What lies there, as all shared memory sized at launch at first, reads as NaN.
#pragma once
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <string>
#include <type_traits>
#include <vector>

#include "sanitize.h"
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

#define CUDACPU 1 // for the few sources that hold PTX
#define __global__
#define __device__
#define __host__
#define __constant__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define __shared__ static // one block at a time
#define __align__(n) __attribute__((aligned(n)))
#define warpSize 32

inline float float_of_bits(unsigned bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}
inline unsigned bits_of_float(float x) {
    unsigned bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}
// Exact: the exponent is moved by a multiplication that cannot round.
inline float half_to_float(unsigned short half) {
    const unsigned sign = (half & 0x8000u) << 16, magnitude = half & 0x7fffu;
    if (magnitude >= 0x7c00) return float_of_bits(sign | 0x7f800000 | (magnitude & 1023) << 13);
    return float_of_bits(sign | bits_of_float(float_of_bits(magnitude << 13) * 0x1p112f));
}
// To nearest, ties to even.
inline unsigned short half_of_float(float x) {
    const unsigned sign = bits_of_float(x) >> 16 & 0x8000;
    const float magnitude = std::fabs(x);
    if (std::isnan(x)) return 0x7fff;
    if (magnitude >= 65520.0f) return sign | 0x7c00;
    // The last bit of a half in x's binade: found by rounding x in units of it.
    int exponent = -24;
    if (magnitude > 0) std::frexp(magnitude, &exponent);
    const int unit = std::max(exponent - 11, -24);
    const unsigned steps = (unsigned)std::nearbyint(std::ldexp(magnitude, -unit));
    return sign | (unit == -24 ? steps : ((unit + 24) << 10) + steps);
}

struct uint3 {
    unsigned x, y, z;
};
struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
inline uint3 threadIdx;
inline dim3 blockIdx, blockDim, gridDim;
using std::max;
using std::min;

namespace cudacpu {

constexpr size_t STACK = STACK_GROWS * 32768 + 192; // not a power of two, or all stacks would share a few lines of the cache
constexpr unsigned WARP = 32;

enum class State { Running, AtBarrier, InWarp, Awaiting, Done };

// A copy behind a lane's back: done no earlier than a wait asks for it, so that a missing wait shows.
struct Copy {
    void* to;
    unsigned char bytes[16];
};

struct Fiber {
    State state;
    int barrier;         // where it waits
    unsigned phase;      // shuffles done, for the exchange buffer
    unsigned met_block, met_warp; // barriers that it has left
    Strand strand;
    uint3 index;
    std::vector<std::vector<Copy>> copies; // under way, by group; the last group is open
    char* stack;
#if defined(__x86_64__)
    void* top;
#else
    ucontext_t context;
#endif
};

inline std::vector<Fiber> fibers;
inline unsigned current;
inline size_t in_warp; // lanes that wait in a warp operation
inline size_t met;     // conditions that lanes waited for and that came true
inline std::function<void()> body;
inline unsigned resident; // which block of a cluster's runs
inline Edge bounds, block_edges[8], warp_edges[8][1024 / WARP]; // of the block's beginning and its end, of its barriers
inline uint64_t exchange[2][1024]; // one word a lane, twice, so that a fast lane cannot overwrite what a slow one has yet to read

[[noreturn]] inline void die(const char* why) {
    fprintf(stderr, "cudacpu: %s (block %u,%u,%u)\n", why, blockIdx.x, blockIdx.y, blockIdx.z);
    abort();
}

inline void yield();

UNTRACED inline void enter() {
    leaves(bounds, 0);
    body();
    comes(bounds, 1);
    fibers[current].state = State::Done;
    yield();
    die("a finished lane was resumed");
}

#if defined(__x86_64__)
// Saves what the ABI asks a call to keep, and continues on another stack: a dozen instructions, where ucontext makes system calls.
extern "C" void cudacpu_switch(void** save, void* to);
asm(".text\n.globl cudacpu_switch\n.type cudacpu_switch,@function\ncudacpu_switch:\n"
    " push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
    " mov %rsp,(%rdi)\n mov %rsi,%rsp\n"
    " pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret\n");
inline void* scheduler;
UNTRACED inline void yield() {
    continue_on(scheduler_strand);
    cudacpu_switch(&fibers[current].top, scheduler);
}
UNTRACED inline void resume(Fiber& f) {
    continue_on(f.strand);
    cudacpu_switch(&scheduler, f.top);
}
inline void prepare(Fiber& f) {
    void** top = reinterpret_cast<void**>(f.stack + STACK);
    *--top = nullptr; // a return address that nobody takes, which also aligns the stack
    *--top = reinterpret_cast<void*>(enter);
    for (int i = 0; i < 6; i++) *--top = nullptr;
    f.top = top;
}
#else
inline ucontext_t scheduler;
UNTRACED inline void yield() {
    continue_on(scheduler_strand);
    swapcontext(&fibers[current].context, &scheduler);
}
UNTRACED inline void resume(Fiber& f) {
    continue_on(f.strand);
    swapcontext(&scheduler, &f.context);
}
inline void prepare(Fiber& f) {
    getcontext(&f.context);
    f.context.uc_stack.ss_sp = f.stack;
    f.context.uc_stack.ss_size = STACK;
    f.context.uc_link = &scheduler;
    makecontext(&f.context, enter, 0);
}
#endif

// `place` is one of the text: compilers copy calls, and two copies of one barrier are the same.
inline void barrier(int place) {
    const Unseen unseen;
    Fiber& own = fibers[current];
    const unsigned round = own.met_block++;
    comes(block_edges[resident], round);
    own.state = State::AtBarrier;
    own.barrier = place;
    yield();
    leaves(block_edges[resident], round);
}

inline void meet_warp() {
    fibers[current].state = State::InWarp;
    ++in_warp;
    yield();
}

inline void warp_barrier() {
    const Unseen unseen;
    const unsigned round = fibers[current].met_warp++;
    comes(warp_edges[resident][current / WARP], round);
    meet_warp();
    leaves(warp_edges[resident][current / WARP], round);
}

// Gives the turn away until `ready` holds.
template <class Ready> void await(Ready ready) {
    while (!ready()) {
        fibers[current].state = State::Awaiting;
        yield();
    }
    met += fibers[current].state == State::Awaiting;
    fibers[current].state = State::Running;
}

template <class T> T shuffle(T value, unsigned from) {
    const Unseen unseen;
    uint64_t* words = exchange[fibers[current].phase++ & 1];
    memcpy(&words[current], &value, sizeof value);
    meet_warp();
    memcpy(&value, &words[current / WARP * WARP + from % WARP], sizeof value);
    return value;
}

// Whether any lane of the warp says so.
inline bool any(bool mine) {
    const Unseen unseen;
    uint64_t* words = exchange[fibers[current].phase++ & 1];
    words[current] = mine;
    meet_warp();
    const uint64_t* const own = &words[current / WARP * WARP];
    return std::any_of(own, own + WARP, [](uint64_t says) { return says != 0; });
}

// Lanes that take turns until all of them wait at a barrier: the block, or each of its warps before the next one begins.
struct Group {
    size_t first, last;
    std::vector<unsigned> turns;
};

// Lets go every warp of the group whose lanes all wait in a warp operation; true if there was one.
inline bool release_warps(const Group& group) {
    bool released = false;
    for (size_t warp = group.first; warp < group.last; warp += WARP) {
        const auto first = fibers.begin() + warp, last = fibers.begin() + std::min(warp + WARP, group.last);
        const auto in = [&](State s) { return std::count_if(first, last, [&](const Fiber& f) { return f.state == s; }); };
        if (in(State::InWarp) == 0 || in(State::InWarp) + in(State::Done) != last - first) continue;
        for (auto f = first; f != last; ++f) {
            if (f->state != State::InWarp) continue;
            f->state = State::Running;
            --in_warp;
        }
        released = true;
    }
    return released;
}

// Lets the block go if all of it waits at one barrier; true if it did.
inline bool release_block(size_t live) {
    int place = -1;
    size_t waiting = 0;
    for (const Fiber& f : fibers) {
        if (f.state != State::AtBarrier) continue;
        if (place >= 0 && place != f.barrier) die("lanes wait at different __syncthreads()");
        place = f.barrier;
        ++waiting;
    }
    if (waiting == 0 || waiting != live) return false;
    if (live != fibers.size()) die("part of the block left before a __syncthreads()");
    for (Fiber& f : fibers) f.state = State::Running;
    return true;
}

// Blocks that run together, and the shared memory sized at launch that each has: none where a module declares none. It is as much as
// any device gives; a launch gives `dynamic_bytes` of it.
struct Cluster {
    unsigned blocks;
    unsigned char* pool;
    size_t bytes;
};
inline Cluster together;
inline size_t dynamic_bytes;

inline void fill_pool() {
    if (!together.pool) return;
    if (dynamic_bytes > together.bytes) die("more shared memory than any device gives");
    permit(together.pool, together.bytes);
    memset(together.pool, 0xff, together.bytes);
    // Blocks of a cluster have theirs at one place by turns.
    if (together.blocks == 1) forbid(together.pool + dynamic_bytes, together.bytes - dynamic_bytes);
}

inline void check_pool() {
    if (dynamic_bytes >= together.bytes) return;
    permit(together.pool, together.bytes);
    const unsigned char* const past = together.pool + dynamic_bytes;
    const bool untouched = past[0] == 0xff && memcmp(past, past + 1, together.bytes - dynamic_bytes - 1) == 0;
    if (!untouched) die("shared memory past what the launch gives was written");
}

// In warpgroup.h.
inline bool copies_at_once;
inline void warpgroups_begin(unsigned lanes);

inline size_t live; // lanes of the block that are not done

// All lanes of a block at its beginning.
inline void begin_block() {
    in_warp = 0;
    live = fibers.size();
    fill_pool();
    leaves(bounds, 1);
    comes(bounds, 0);
    warpgroups_begin(fibers.size());
    for (Fiber& f : fibers) {
        f.state = State::Running;
        f.phase = f.met_block = f.met_warp = 0;
        f.strand = strand(resident * fibers.size() + (&f - fibers.data()));
        f.copies.clear();
        prepare(f);
    }
}

// Has lanes of the block take turns until none gets any further; whether one did.
inline bool run_turns(const std::vector<Group>& groups) {
    for (bool any = false;; any = true) {
        bool progress = false;
        for (const Group& group : groups) {
            do {
                for (unsigned lane : group.turns) {
                    const State before = fibers[lane].state;
                    if (before != State::Running && before != State::Awaiting) continue;
                    const size_t met_before = met;
                    current = lane;
                    threadIdx = fibers[lane].index;
                    resume(fibers[lane]);
                    progress |= before == State::Running || met != met_before;
                    live -= fibers[lane].state == State::Done;
                }
            } while (in_warp > 0 && release_warps(group));
        }
        progress |= live > 0 && release_block(live);
        if (!progress) return any;
    }
}

// In cluster.h.
inline void run_cluster(const std::vector<Group>& groups, char* stacks);

// Forward, the lanes of a block side by side; in another order every warp as far as it gets before the next.
inline std::vector<Group> grouped(const std::vector<unsigned>& turns, bool apart) {
    if (!apart) return {{0, turns.size(), turns}};
    std::vector<Group> groups;
    for (unsigned lane : turns) {
        const size_t first = lane / WARP * WARP;
        auto own = std::find_if(groups.begin(), groups.end(), [&](const Group& g) { return g.first == first; });
        if (own == groups.end()) own = groups.insert(own, {first, std::min(first + WARP, turns.size()), {}});
        own->turns.push_back(lane);
    }
    return groups;
}

// Order 0 is forward, 1 backward, anything else a shuffle.
inline void launch(dim3 grid, dim3 block, size_t shared, unsigned order, const Cluster& cluster, std::function<void()> kernel) {
    if (grid.x % cluster.blocks != 0) die("a grid that is not whole clusters");
    together = cluster;
    dynamic_bytes = shared;
    copies_at_once = order == 1;
    const unsigned lanes = block.x * block.y * block.z;
    body = std::move(kernel);
    blockDim = block;
    gridDim = grid;
    fibers.assign(lanes, Fiber{});
    std::vector<char> stacks(cluster.blocks * lanes * STACK + 64);
    char* aligned = stacks.data() + 64 - reinterpret_cast<uintptr_t>(stacks.data()) % 64;
    std::vector<unsigned> turns(lanes);
    for (unsigned i = 0; i < lanes; i++) {
        fibers[i].index = {i % block.x, i / block.x % block.y, i / (block.x * block.y)};
        turns[i] = i;
    }
    if (order == 1) std::reverse(turns.begin(), turns.end());
    for (unsigned i = lanes - 1, seed = order; order > 1 && i > 0; i--) {
        seed = seed * 1664525u + 1013904223u;
        std::swap(turns[i], turns[seed % (i + 1)]);
    }
    const std::vector<Group> groups = grouped(turns, order > 0);
    for (unsigned z = 0; z < grid.z; z++) {
        for (unsigned y = 0; y < grid.y; y++) {
            for (unsigned x = 0; x < grid.x; x += cluster.blocks) {
                blockIdx = dim3(x, y, z);
                run_cluster(groups, aligned);
            }
        }
    }
}

} // namespace cudacpu

#define __syncthreads() cudacpu::barrier(__COUNTER__)
#define __syncwarp(...) cudacpu::warp_barrier()
template <class T> T __shfl_xor_sync(unsigned, T value, int mask) {
    return cudacpu::shuffle(value, cudacpu::current % 32 ^ mask);
}
template <class T> T __shfl_down_sync(unsigned, T value, unsigned by) {
    const unsigned lane = cudacpu::current % 32;
    return cudacpu::shuffle(value, lane + by < 32 ? lane + by : lane);
}
template <class T> T __shfl_sync(unsigned, T value, int from) { return cudacpu::shuffle(value, from); }
inline int __any_sync(unsigned, int mine) { return cudacpu::any(mine != 0); }
// Lanes take turns only at barriers, so nothing can come between.
template <class T> T atomicAdd(T* at, T value) {
    T before;
    __atomic_load(at, &before, __ATOMIC_RELAXED);
    const T after = before + value;
    __atomic_store(at, &after, __ATOMIC_RELAXED);
    return before;
}

#include "warp.h"
#include "warpgroup.h"
#include "cluster.h"
