// What kernels/warp.cuh and some kernels have in PTX, on the CPU.
#pragma once

inline void copy_async(void* to, const void* from, bool exists) {
    const cudacpu::Unseen unseen;
    if (reinterpret_cast<uintptr_t>(to) % 16 != 0 || reinterpret_cast<uintptr_t>(from) % 16 != 0) cudacpu::die("a copy is not aligned");
    cudacpu::Copy copy{to, {}};
    if (exists) memcpy(copy.bytes, from, 16), cudacpu::reads(from, 16);
    cudacpu::writes(to, 16); // from now on
    auto& groups = cudacpu::fibers[cudacpu::current].copies;
    if (groups.empty()) groups.emplace_back();
    groups.back().push_back(copy);
}
inline void copy_async(void* to, const void* from) { copy_async(to, from, true); }
inline void copy_async_cached(void* to, const void* from, bool exists) { copy_async(to, from, exists); }
inline void copies_commit() {
    const cudacpu::Unseen unseen;
    auto& groups = cudacpu::fibers[cudacpu::current].copies;
    if (groups.empty()) groups.emplace_back();
    groups.emplace_back();
}
template <int PENDING> void copies_wait() {
    const cudacpu::Unseen unseen;
    auto& groups = cudacpu::fibers[cudacpu::current].copies;
    while (groups.size() > PENDING + 1) {
        for (const cudacpu::Copy& copy : groups.front()) memcpy(copy.to, copy.bytes, 16), cudacpu::writes(copy.to, 16);
        groups.erase(groups.begin());
    }
}

namespace cudacpu {

// To nearest, ties to even, rounded once: what a float cannot hold leaves a last bit that says so.
inline unsigned short half_of_double(double x) {
    const float near = (float)x;
    if (near == x || !std::isfinite(near)) return half_of_float(near);
    const unsigned cut = std::fabs((double)near) > std::fabs(x) ? bits_of_float(near) - 1 : bits_of_float(near);
    return half_of_float(float_of_bits(cut | 1));
}

// A number of T from its bits; of tf32 the units take the upper 19.
template <class T, class V = float> V element(unsigned bits) {
    if (sizeof(T) == 4) bits &= ~0x1fffu;
    T x;
    memcpy(&x, &bits, sizeof x);
    return static_cast<V>(x);
}

// What every lane of the warp has.
template <class V> const V* gather(const V& mine) {
    static V all[2][1024];
    V* const side = all[fibers[current].phase++ & 1];
    side[current] = mine;
    meet_warp();
    return side + current / WARP * WARP;
}

inline void load_matrices(unsigned (&r)[4], const void* row, bool transposed) {
    const Unseen unseen;
    if (reinterpret_cast<uintptr_t>(row) % 16 != 0) die("a row of a matrix is not aligned");
    const void* const* rows = gather(row);
    const unsigned lane = current % WARP;
    for (unsigned i = 0; i < 4; i++) {
        const auto at = [&](unsigned line, unsigned e) {
            const unsigned short* const place = static_cast<const unsigned short*>(rows[8 * i + line]) + e;
            reads(place, sizeof *place);
            return *place;
        };
        const unsigned g = lane / 4, t = lane % 4 * 2;
        r[i] = transposed ? at(t, g) | (unsigned)at(t + 1, g) << 16 : at(g, t) | (unsigned)at(g, t + 1) << 16;
    }
}

// A sum as units make it in fp8: what lies more than 13 bits below the leading bit of the largest addend is cut from all, and what lies so far
// below that of the sum from the sum. Measured on Ada (SageAttention2, arXiv:2411.10958) and Hopper (DeepSeek-V3, arXiv:2412.19437, 3.5.2).
inline float cut_sum(const double* addends, unsigned count) {
    // The value of the last bit kept: the leading bit of a number is what its exponent alone stands for.
    const auto grain = [](double x) {
        uint64_t bits;
        memcpy(&bits, &x, sizeof bits);
        bits &= uint64_t{0x7ff} << 52;
        memcpy(&x, &bits, sizeof bits);
        return x == 0 ? 1 : x / (1 << 13);
    };
    double largest = 0;
    for (unsigned i = 0; i < count; i++) largest = std::max(largest, std::fabs(addends[i]));
    const double common = grain(largest), per = 1 / common;
    // Rounded down, by adding more than any addend has: this is asked for millions of times.
    int units = 0;
    for (unsigned i = 0; i < count; i++) units += (int)(addends[i] * per + 32768) - 32768;
    const double sum = units * common;
    return (float)(std::trunc(sum / grain(sum)) * grain(sum));
}

// d += a . b with 32 bytes of k in elements of `width` bytes; layouts of mma.m16n8k16 and k32 (PTX ISA, "Matrix Fragments").
template <class V, class Decode>
void mma(V (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1, unsigned width, Decode decode) {
    struct Operands {
        unsigned a[4], b[2];
    };
    const Unseen unseen;
    const Operands* const all = gather(Operands{{a[0], a[1], a[2], a[3]}, {b0, b1}});
    const unsigned lane = current % WARP, pack = 4 / width, depth = 8 * pack;
    const auto half = [&](unsigned k) { return k / (4 * pack); }; // which register along k
    const auto from = [&](unsigned k) { return k % (4 * pack) / pack; };
    const auto bits = [&](unsigned word, unsigned k) { return pack == 1 ? word : word >> k % pack * 8 * width & ((1u << 8 * width) - 1); };
    for (unsigned i = 0; i < 4; i++) {
        const unsigned row = lane / 4, col = lane % 4 * 2 + i % 2;
        const bool cuts = width == 1 && std::is_same<V, float>::value;
        double addends[33] = {(double)d[i]};
        V sum = d[i];
        for (unsigned k = 0; k < depth; k++) {
            const V x = decode(bits(all[row * 4 + from(k)].a[2 * half(k) + i / 2], k));
            const V y = decode(bits(all[col * 4 + from(k)].b[half(k)], k));
            sum += x * y;
            if (cuts) addends[k + 1] = (double)x * (double)y;
        }
        d[i] = cuts ? (V)cut_sum(addends, depth + 1) : sum;
    }
}

} // namespace cudacpu

// kernels/fma/chains.cu has it in PTX: products and sums of f16 are exact in double but for numbers that are 2^53 apart.
inline unsigned fma_pair(unsigned a, unsigned x, unsigned b) {
    unsigned y = 0;
    for (unsigned at = 0; at < 32; at += 16) {
        const auto of = [&](unsigned both) { return (double)half_to_float((unsigned short)(both >> at)); };
        y |= (unsigned)cudacpu::half_of_double(of(a) * of(x) + of(b)) << at;
    }
    return y;
}
// kernels/dot/chains.cu has it.
inline int dot_of_four(unsigned a, unsigned b, int s) {
    for (unsigned at = 0; at < 32; at += 8) s += (signed char)(a >> at) * (signed char)(b >> at);
    return s;
}
inline void load_matrices(unsigned (&r)[4], const void* row) { cudacpu::load_matrices(r, row, false); }
inline void load_matrices_transposed(unsigned (&r)[4], const void* row) { cudacpu::load_matrices(r, row, true); }
