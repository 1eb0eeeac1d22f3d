// Blocks of a cluster on the CPU: they take turns, each as far as it gets before the next, and reach into each other's shared memory.
//
// One block is resident: its lanes, barriers and shared memory stand where a block alone has them. What the others have lies aside, and
// changes places with it. All that such blocks share among their lanes lies in the pool, shared memory sized at launch.
//
// Refused with a message and an abort: touching a block that has ended, waits of all blocks that never end.
#pragma once

namespace cudacpu {

struct Block {
    std::vector<Fiber> fibers;
    size_t in_warp, live;
    uint64_t exchange[2][1024];
    std::map<unsigned, Barrier> barriers;
    std::map<unsigned, Numbered> numbered;
    std::set<uintptr_t> asked;
    std::vector<Asked> products;
    std::vector<Team> teams;
    std::vector<unsigned char> pool;
};
inline std::vector<Block> aside;
inline size_t cluster_arrived; // lanes of all blocks at the cluster's barrier
inline unsigned cluster_rounds;
inline Edge cluster_edge;

inline void change_places(Block& block) {
    std::swap(fibers, block.fibers);
    std::swap(in_warp, block.in_warp);
    std::swap(live, block.live);
    std::swap(exchange, block.exchange);
    std::swap(barriers, block.barriers);
    std::swap(numbered, block.numbered);
    std::swap(asked, block.asked);
    std::swap(products, block.products);
    std::swap(teams, block.teams);
    std::swap_ranges(block.pool.begin(), block.pool.end(), together.pool);
}

inline void reside(unsigned block) {
    if (block == resident) return;
    change_places(aside[resident]);
    change_places(aside[block]);
    blockIdx.x = blockIdx.x - resident + block;
    resident = block;
}

// Does something to another block of the cluster, as a lane of this one.
template <class Act> void in_block(unsigned block, Act act) {
    const Unseen unseen;
    const unsigned own = resident;
    if (block >= together.blocks) die("a block that the cluster does not have");
    reside(block);
    if (live == 0) die("a block of the cluster is touched after its end");
    act();
    reside(own);
}

inline void run_cluster(const std::vector<Group>& groups, char* stacks) {
    const unsigned blocks = together.blocks;
    cluster_arrived = cluster_rounds = 0;
    aside.resize(blocks);
    for (unsigned block = 1; block < blocks; block++) aside[block].fibers = fibers;
    for (Block& block : aside) block.pool.resize(blocks > 1 ? together.bytes : 0);
    for (unsigned block = 0; block < blocks; block++) {
        reside(block);
        for (Fiber& f : fibers) f.stack = stacks, stacks += STACK;
        begin_block();
    }
    for (bool progress = true; progress;) {
        progress = false;
        size_t all = 0;
        for (unsigned block = 0; block < blocks; block++) {
            reside(block);
            progress |= run_turns(groups);
            if (live == 0) check_pool(), check_arrivals();
            all += live;
        }
        if (all == 0) return reside(0);
    }
    const bool awaits = std::any_of(fibers.begin(), fibers.end(), [](const Fiber& f) { return f.state == State::Awaiting; });
    die(awaits ? "deadlock: lanes wait for a barrier or products that never complete" : "deadlock: lanes wait for each other");
}

} // namespace cudacpu

inline unsigned cluster_rank() { return cudacpu::resident; }
inline void cluster_sync() {
    const cudacpu::Unseen unseen;
    const unsigned round = cudacpu::cluster_rounds;
    cudacpu::comes(cudacpu::cluster_edge, round);
    if (++cudacpu::cluster_arrived == cudacpu::fibers.size() * cudacpu::together.blocks) {
        cudacpu::cluster_arrived = 0;
        ++cudacpu::cluster_rounds;
    }
    cudacpu::await([=] { return cudacpu::cluster_rounds != round; });
    cudacpu::leaves(cudacpu::cluster_edge, round);
}
inline void barrier_arrive_at(unsigned at, unsigned rank) {
    cudacpu::in_block(rank, [=] { barrier_arrive(at); });
}
inline void box_copy_to(unsigned ranks, unsigned to, const Map& map, unsigned x, unsigned y, unsigned barrier) {
    for (unsigned rank = 0; ranks >> rank; rank++) {
        if (ranks >> rank & 1) cudacpu::in_block(rank, [&] { box_copy(to, map, x, y, barrier); });
    }
}
