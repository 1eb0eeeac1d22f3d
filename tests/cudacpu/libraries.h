// Stand-ins for cuBLAS, cuBLASLt and cuDNN on the CPU: as many of their functions as the cuda backend calls, over the stand-in driver's memory.
//
// They compute what the libraries promise, by the plainest loops, and hold callers to their rules: objects are live, a stream and a workspace
// are given, the order of calls is right. `CUDACPU_MISTAKE` plants a mistake, `CUDACPU_REFUSES` names an algorithm that is refused.
// What they cannot show is what the real ones support, and how fast.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <dlfcn.h>
#include <functional>
#include <set>
#include <string>

namespace {

enum Status { OK = 0, NOT_INITIALIZED = 1, INVALID = 7, NOT_SUPPORTED = 15 };
// Of cuDNN 9.
enum DnnStatus { BAD_PARAM = 2000, DNN_NOT_SUPPORTED = 3000 };

bool set_to(const char* name, const char* value) {
    const char* found = getenv(name);
    return found && strcmp(found, value) == 0;
}

// Objects that were made and not yet destroyed.
std::set<const void*> live;

template <class T> int make(void** into) { return *into = new T(), live.insert(*into), int(OK); }
template <class T> int end(void* object) {
    if (live.erase(object) == 0) return INVALID;
    return delete static_cast<T*>(object), int(OK);
}

uint32_t bits_of(float x) {
    uint32_t bits;
    return memcpy(&bits, &x, 4), bits;
}
float of_bits(uint32_t bits) {
    float x;
    return memcpy(&x, &bits, 4), x;
}

float widened(uint16_t half) {
    const int exponent = half >> 10 & 31, fraction = half & 1023;
    const float size = exponent == 0    ? ldexpf(fraction, -24)
                       : exponent == 31 ? (fraction ? NAN : INFINITY)
                                        : ldexpf(1024 + fraction, exponent - 25);
    return half >> 15 ? -size : size;
}

// To nearest, ties to even: the larger neighbour wins where it is nearer.
uint16_t narrowed(float x) {
    const uint16_t sign = std::signbit(x) ? 0x8000 : 0;
    const float size = fabsf(x);
    if (!(size < 65520)) return sign | (std::isnan(x) ? 0x7e00 : 0x7c00);
    int exponent;
    frexpf(size, &exponent);
    const int step = exponent - 11 < -24 ? -24 : exponent - 11;
    const float rounded = ldexpf(nearbyintf(ldexpf(size, -step)), step);
    if (rounded == 0) return sign;
    frexpf(rounded, &exponent);
    if (exponent < -13) return sign | uint16_t(ldexpf(rounded, 24));
    return sign | uint16_t((exponent + 14) << 10) | (uint16_t(ldexpf(rounded, 11 - exponent)) & 1023);
}

// Element types by what a library calls them.
enum Type { F32, F16, BF16 };

float loaded(const void* at, size_t i, Type type) {
    if (type == F32) return static_cast<const float*>(at)[i];
    const uint16_t half = static_cast<const uint16_t*>(at)[i];
    return type == F16 ? widened(half) : of_bits(uint32_t(half) << 16);
}
void stored(void* at, size_t i, float x, Type type) {
    if (type == F32) static_cast<float*>(at)[i] = x;
    else if (type == F16) static_cast<uint16_t*>(at)[i] = narrowed(x);
    else {
        const uint32_t bits = bits_of(x);
        static_cast<uint16_t*>(at)[i] = std::isnan(x) ? 0x7fc0 : (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    }
}

// A factor as matrix units take it from f32: eleven bits, rounded, or cut with CUDACPU_FACTORS=cut.
float factor(float x, bool tf32) {
    static const uint32_t half = set_to("CUDACPU_FACTORS", "cut") ? 0 : 1u << 12;
    return tf32 ? of_bits((bits_of(x) + half) & ~((1u << 13) - 1)) : x;
}

// Puts work on the stream of the stand-in driver, which is loaded; the status of a call that does nothing else.
int put(const std::function<void()>& work) {
    using Put = int (*)(const std::function<void()>&);
    static const Put onto = [] {
        void* driver = nullptr;
        for (const char* name : {"libcuda.so", "libcuda.so.1", "libnvcuda.so"}) driver = driver ? driver : dlopen(name, RTLD_NOW | RTLD_NOLOAD);
        return driver ? reinterpret_cast<Put>(dlsym(driver, "cudacpu_put")) : nullptr;
    }();
    constexpr int EXECUTION_FAILED = 13; // of cuBLAS; of cuDNN, a status that it has not
    return !onto || onto(work) ? EXECUTION_FAILED : OK;
}

} // namespace
