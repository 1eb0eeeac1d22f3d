// What kernels/barrier.cuh and kernels/warpgroup.cuh have in PTX, on the CPU: products of four warps, copies of boxes, and the barriers
// that count these and copies of lanes.
//
// All are done as late as they may be: a copy when a lane waits for its barrier and all arrivals are in, a product when its lanes wait
// for it, so that a missing wait shows. With lanes in backward order a copy is done at once instead, one of a lane when it is to arrive,
// which shows a stage that is filled while it is read. Operands are read from the shared bytes that their descriptors name (PTX ISA,
// "Asynchronous Warpgroup Level Matrix Instructions"), sums lie in the lanes as documented there. Not modelled: which stores these units see, limits of registers.
//
// Refused with a message and an abort: products without a fence, warps of one warpgroup that ask for different products, copies and
// descriptors that no device takes, arrivals that a barrier does not count, barriers that never complete, copies that are still to arrive
// at one when their block ends.
#pragma once
#include <map>
#include <set>

#define __grid_constant__

// A matrix in memory and its boxes, as a driver describes them.
struct alignas(64) Map {
    unsigned char* at;
    unsigned long long columns, rows, apart; // `apart`: bytes from one row to the next
    unsigned box_columns, box_rows, width;   // `width`: bytes of an element
    unsigned char reserved[76];
};
static_assert(sizeof(Map) == 128, "as long as CUtensorMap");

namespace cudacpu {

constexpr unsigned WINDOW = 1 << 18, TEAM = 128;

// Shared addresses are the lower 18 bits of places, which is what descriptors hold. One belongs to the nearest place below it that was
// asked for in this launch.
inline std::set<uintptr_t> asked;

inline unsigned char* shared_place(unsigned address) {
    uintptr_t nearest = 0, least = WINDOW;
    for (const uintptr_t place : asked) {
        const uintptr_t behind = (address - place) % WINDOW;
        if (behind < least) least = behind, nearest = place + behind;
    }
    if (nearest == 0) die("a shared address that was not asked for");
    const uintptr_t within = nearest - reinterpret_cast<uintptr_t>(together.pool);
    if (within < together.bytes && within >= dynamic_bytes) die("a shared address past what the launch gives");
    return reinterpret_cast<unsigned char*>(nearest);
}

// Where the unit finds what a tile of lines of 128 bytes has at this address: units of 16 bytes change places by the line's number.
inline unsigned swizzled(unsigned address) { return address ^ (address >> 7 & 7) << 4; }

struct Box {
    Map map;
    unsigned to;
    int x, y;
};

struct Barrier {
    unsigned arrivals, missing, parity;
    long bytes; // on their way in this round
    std::vector<Box> boxes;
    std::vector<std::vector<Copy>> copies; // of lanes that have arrived but for these
    Edge edge;
};
inline std::map<unsigned, Barrier> barriers;

struct Numbered {
    unsigned arrived, rounds;
    Edge edge;
};
inline std::map<unsigned, Numbered> numbered;

inline Barrier& barrier_at(unsigned at) {
    const auto found = barriers.find(at);
    if (found == barriers.end()) die("a barrier that was not made");
    return found->second;
}

inline void complete(Barrier& barrier) {
    if (barrier.missing > 0 || barrier.bytes != 0 || !barrier.boxes.empty() || !barrier.copies.empty()) return;
    barrier.missing = barrier.arrivals;
    barrier.parity ^= 1;
}

inline void arrive(unsigned at, unsigned bytes) {
    const Unseen unseen;
    Barrier& barrier = barrier_at(at);
    if (barrier.missing == 0) die("an arrival that a barrier does not count");
    comes(barrier.edge, barrier.parity);
    barrier.bytes += bytes;
    --barrier.missing;
    complete(barrier);
}

// Where a box's unit of 16 bytes goes.
inline unsigned char* place_of(const Box& box, unsigned row, unsigned unit) {
    return shared_place(swizzled(box.to + row * box.map.box_columns * box.map.width + unit));
}

inline void deliver(Barrier& barrier, const Box& box) {
    const Map& map = box.map;
    const unsigned line = map.box_columns * map.width;
    for (unsigned r = 0; r < map.box_rows; r++) {
        for (unsigned unit = 0; unit < line; unit += 16) {
            unsigned char bytes[16] = {};
            const long long row = (long long)box.y + r, left = ((long long)map.columns - box.x) * map.width - unit;
            const bool exists = row >= 0 && row < (long long)map.rows && box.x >= 0 && left > 0;
            if (exists) memcpy(bytes, map.at + row * map.apart + (long long)box.x * map.width + unit, std::min(left, 16ll));
            memcpy(place_of(box, r, unit), bytes, 16);
            writes(place_of(box, r, unit), 16);
        }
    }
    barrier.bytes -= map.box_rows * line;
}

inline void deliver(const std::vector<Copy>& copies) {
    for (const Copy& copy : copies) memcpy(copy.to, copy.bytes, 16), writes(copy.to, 16);
}

// A box may come from the moment that it is asked for.
inline void foresee(Barrier& barrier) {
    const Box& box = barrier.boxes.back();
    for (unsigned r = 0; r < box.map.box_rows; r++) {
        for (unsigned unit = 0; unit < box.map.box_columns * box.map.width; unit += 16) writes(place_of(box, r, unit), 16);
    }
    comes(barrier.edge, barrier.parity);
}

// Does the copies of a barrier that waits for nothing else.
inline void deliver_late(Barrier& barrier) {
    if (barrier.missing > 0 || (barrier.boxes.empty() && barrier.copies.empty())) return;
    const std::vector<Box> boxes = std::move(barrier.boxes);
    const std::vector<std::vector<Copy>> copies = std::move(barrier.copies);
    barrier.boxes.clear();
    barrier.copies.clear();
    const unsigned parity = barrier.parity;
    leaves(barrier.edge, parity);
    for (const Box& box : boxes) deliver(barrier, box);
    for (const auto& of_lane : copies) deliver(of_lane);
    comes(barrier.edge, parity);
    complete(barrier);
}

// One product of a warpgroup, as each of its lanes asks for it.
struct Product {
    void* sum;
    unsigned fragments[4]; // of A, unless it is in shared memory
    unsigned long long a, b;
    bool from_registers, add;
    void (*run)(const Product* const* lanes);

    bool like(const Product& other) const {
        const bool same_a = from_registers == other.from_registers && (from_registers || a == other.a);
        return run == other.run && same_a && b == other.b && add == other.add;
    }
};

// What a lane has asked for, by group; the last group is open.
struct Asked {
    bool fenced;
    std::vector<std::vector<Product>> groups;
};
inline std::vector<Asked> products;

// Lanes of a warpgroup that have come to a wait.
struct Team {
    unsigned waiting, pending, rounds;
    Edge edge;
};
inline std::vector<Team> teams;

inline void check_arrivals() {
    for (const auto& [at, barrier] : barriers) {
        if (!barrier.copies.empty()) die("copies are still to arrive at a barrier when their block ends");
    }
}

inline void warpgroups_begin(unsigned lanes) {
    barriers.clear();
    numbered.clear();
    asked.clear();
    products.assign(lanes, {});
    teams.assign((lanes + TEAM - 1) / TEAM, {});
}

// Element (mn, k) of an operand: K_MAJOR 0, MN_MAJOR 1.
inline unsigned element_address(unsigned long long descriptor, int major, unsigned mn, unsigned k, unsigned width) {
    const auto field = [&](unsigned bit) { return (unsigned)(descriptor >> bit & 0x3fff) << 4; };
    const unsigned start = field(0), leading = field(16), stride = field(32), swizzle = descriptor >> 62, line = swizzle ? 128 : 16;
    // Along the bytes that lie together, and across them.
    const unsigned along = (major ? mn : k) * width, across = major ? k : mn;
    const unsigned within = across % 8 * line + along % line;
    if (!swizzle) return start + within + across / 8 * (major ? leading : stride) + along / line * (major ? stride : leading);
    // 32 bytes of k are less than a line.
    return swizzled(start + within + across / 8 * stride + (major ? along / line * leading : 0));
}

template <class T, class V> V operand(unsigned long long descriptor, int major, unsigned mn, unsigned k) {
    unsigned bits = 0;
    const unsigned char* const place = shared_place(element_address(descriptor, major, mn, k, sizeof(T)));
    memcpy(&bits, place, sizeof(T));
    reads(place, sizeof(T));
    return element<T, V>(bits);
}

// Element k of row `row` of A among the fragments of its warp.
template <class T, class V> V fragment(const Product* const* lanes, unsigned row, unsigned k) {
    const unsigned pack = 4 / sizeof(T), lane = row / 16 * WARP + row % 8 * 4 + k % (4 * pack) / pack;
    const unsigned word = lanes[lane]->fragments[row % 16 / 8 + 2 * (k / (4 * pack))];
    return element<T, V>(pack == 1 ? word : word >> k % pack * 8 * sizeof(T) & ((1u << 8 * sizeof(T)) - 1));
}

template <class T, int MAJOR, class V, unsigned HALF> void run(const Product* const* lanes) {
    constexpr unsigned N = 2 * HALF, K = 32 / sizeof(T), WIDE = 16;
    typedef V Wide __attribute__((vector_size(WIDE * sizeof(V))));
    static V a[64][K];
    static Wide b[K][N / WIDE], sum[64][N / WIDE];
    const Product& first = *lanes[0];
    for (unsigned row = 0; row < 64; row++) {
        for (unsigned k = 0; k < K; k++) {
            a[row][k] = first.from_registers ? fragment<T, V>(lanes, row, k) : operand<T, V>(first.a, 0, row, k);
        }
    }
    for (unsigned k = 0; k < K; k++) {
        for (unsigned col = 0; col < N; col++) b[k][col / WIDE][col % WIDE] = operand<T, V>(first.b, MAJOR, col, k);
    }
    // A lane's sum number i.
    const auto at = [&](unsigned lane, unsigned i) {
        const unsigned row = lane / WARP * 16 + lane % WARP / 4 + i % 4 / 2 * 8, col = i / 4 * 8 + lane % 4 * 2 + i % 2;
        return reinterpret_cast<V*>(sum[row]) + col;
    };
    for (unsigned lane = 0; lane < TEAM; lane++) {
        for (unsigned i = 0; i < HALF; i++) *at(lane, i) = first.add ? static_cast<const V*>(lanes[lane]->sum)[i] : V(0);
    }
    for (unsigned row = 0; row < 64; row++) {
        for (unsigned col = 0; col < N / WIDE; col++) {
            Wide s = sum[row][col];
            for (unsigned k = 0; k < K; k++) s += a[row][k] * b[k][col];
            sum[row][col] = s;
        }
    }
    for (unsigned lane = 0; lane < TEAM; lane++) {
        for (unsigned i = 0; i < HALF; i++) static_cast<V*>(lanes[lane]->sum)[i] = *at(lane, i);
    }
}

// Runs the oldest group of a warpgroup whose first lane this is.
inline void run_group(unsigned first) {
    const size_t count = products[first].groups.front().size();
    for (size_t i = 0; i < count; i++) {
        const Product* lanes[TEAM];
        for (unsigned lane = 0; lane < TEAM; lane++) {
            const auto& own = products[first + lane].groups.front();
            const bool same = own.size() == count && own[i].like(products[first].groups.front()[i]);
            if (!same) die("lanes of one warpgroup ask for different products");
            lanes[lane] = &own[i];
        }
        lanes[0]->run(lanes);
    }
    for (unsigned lane = 0; lane < TEAM; lane++) products[first + lane].groups.erase(products[first + lane].groups.begin());
}

inline Asked& own_products() {
    Asked& own = products[current];
    if (own.groups.empty()) own.groups.emplace_back();
    return own;
}

template <class T, int MAJOR, class V, unsigned HALF> void ask(V (&s)[HALF], Product product) {
    const Unseen unseen;
    const auto legal = [](unsigned long long descriptor) { return descriptor >> 62 < 2 && (descriptor >> 49 & 7) == 0; };
    if (!legal(product.b) || !(product.from_registers || legal(product.a))) die("a descriptor that is not emulated");
    if (MAJOR && sizeof(T) != 2) die("only 16-bit operands lie along n");
    Asked& own = own_products();
    if (!own.fenced) die("a product of registers without a fence");
    product.sum = s;
    product.run = run<T, MAJOR, V, HALF>;
    own.groups.back().push_back(product);
}

inline void wait_products(unsigned pending) {
    const Unseen unseen;
    const unsigned first = current / TEAM * TEAM;
    if (first + TEAM > products.size()) die("a product of less than four warps");
    Team& team = teams[current / TEAM];
    own_products().fenced = false;
    if (team.waiting > 0 && team.pending != pending) die("lanes of one warpgroup wait for different products");
    team.pending = pending;
    const unsigned round = team.rounds;
    comes(team.edge, round);
    if (++team.waiting == TEAM) {
        leaves(team.edge, round);
        while (products[first].groups.size() > pending + 1) run_group(first);
        comes(team.edge, round);
        team.waiting = 0;
        ++team.rounds;
    }
    await([&] { return team.rounds != round; });
    leaves(team.edge, round);
}

// A barrier by number: the last of `lanes` lets go those that wait.
inline void arrive_numbered(unsigned number, unsigned lanes) {
    const Unseen unseen;
    Numbered& barrier = numbered[number];
    if (number > 15 || lanes % WARP != 0) die("a barrier's number is at most 15, its lanes are whole warps");
    comes(barrier.edge, barrier.rounds);
    if (++barrier.arrived == lanes) {
        barrier.arrived = 0;
        ++barrier.rounds;
    }
}

} // namespace cudacpu

inline unsigned shared_address(const void* at) {
    const cudacpu::Unseen unseen;
    const uintptr_t place = reinterpret_cast<uintptr_t>(at);
    cudacpu::asked.insert(place);
    return place % cudacpu::WINDOW;
}

inline void barrier_make(unsigned at, unsigned arrivals) {
    const cudacpu::Unseen unseen;
    if (at % 8 != 0) cudacpu::die("a barrier is not aligned");
    cudacpu::shared_place(at); // refused where there is no such place
    cudacpu::barriers[at] = {arrivals, arrivals, 0, 0, {}, {}, {}};
}
inline void barriers_made() {}
inline void barrier_arrive(unsigned at) { cudacpu::arrive(at, 0); }
inline void copies_arrive(unsigned at) {
    const cudacpu::Unseen unseen;
    std::vector<cudacpu::Copy> own;
    for (auto& group : cudacpu::fibers[cudacpu::current].copies) own.insert(own.end(), group.begin(), group.end());
    cudacpu::fibers[cudacpu::current].copies.clear();
    if (cudacpu::copies_at_once) cudacpu::deliver(own);
    else cudacpu::barrier_at(at).copies.push_back(own);
    cudacpu::arrive(at, 0);
}
inline void barrier_expect(unsigned at, unsigned bytes) { cudacpu::arrive(at, bytes); }
template <bool TRAPS = true> void barrier_wait(unsigned at, unsigned parity) {
    const cudacpu::Unseen unseen;
    cudacpu::await([=] {
        cudacpu::Barrier& barrier = cudacpu::barrier_at(at);
        if (barrier.parity == parity) cudacpu::deliver_late(barrier);
        return barrier.parity != parity;
    });
    cudacpu::leaves(cudacpu::barrier_at(at).edge, parity);
}
inline void box_copy(unsigned to, const Map& map, unsigned x, unsigned y, unsigned barrier) {
    const cudacpu::Unseen unseen;
    if (to % 128 != 0) cudacpu::die("a box's place is not aligned");
    cudacpu::Barrier& counts = cudacpu::barrier_at(barrier);
    counts.boxes.push_back({map, to, (int)x, (int)y});
    cudacpu::foresee(counts);
    if (!cudacpu::copies_at_once) return;
    cudacpu::deliver(counts, counts.boxes.back());
    cudacpu::comes(counts.edge, counts.parity);
    counts.boxes.pop_back();
    cudacpu::complete(counts);
}
inline void stores_seen() {}
inline void lanes_arrive(unsigned number, unsigned lanes) { cudacpu::arrive_numbered(number, lanes); }
inline void lanes_sync(unsigned number, unsigned lanes) {
    const cudacpu::Unseen unseen;
    cudacpu::Numbered& barrier = cudacpu::numbered[number];
    const unsigned round = barrier.rounds;
    cudacpu::arrive_numbered(number, lanes);
    cudacpu::await([&] { return barrier.rounds != round; });
    cudacpu::leaves(barrier.edge, round);
}
template <int COUNT> void registers_shrink() {}
template <int COUNT> void registers_grow() {}

inline void products_begin() {
    const cudacpu::Unseen unseen;
    cudacpu::own_products().fenced = true;
}
inline void products_commit() {
    const cudacpu::Unseen unseen;
    cudacpu::own_products().groups.emplace_back();
}
template <int PENDING> void products_wait() { cudacpu::wait_products(PENDING); }
template <class V, unsigned COUNT> void products_done(V (&)[COUNT]) {}
template <class T, int MAJOR, class V, unsigned HALF> void product(V (&s)[HALF], unsigned long long a, unsigned long long b, bool add) {
    cudacpu::ask<T, MAJOR>(s, {nullptr, {}, a, b, false, add, nullptr});
}
template <class T, int MAJOR, class V, unsigned HALF>
void product(V (&s)[HALF], const unsigned (&a)[4], unsigned long long b, bool add) {
    cudacpu::ask<T, MAJOR>(s, {nullptr, {a[0], a[1], a[2], a[3]}, 0, b, true, add, nullptr});
}
