// chase/cycle: loads that wait for each other, from line to line of one cycle through all of them.
//
// One lane owns everything. A hop loads four bytes, each of another line until a turn is over. An element names another: its bits
// exceed those of 1 by the distance in bytes; the base stands so much before x that they are a distance as loaded. Where the walk
// ends and how often it came back to the start tell how many hops were made; the count waits for no load but its own.

extern "C" __global__ void __launch_bounds__(1) walk(const T* __restrict__ x, // [lines, line / 4]
                                                     T* __restrict__ y,       // [2]: the last line, turns
                                                     const Dims d) {
    const unsigned one = 0x3f800000u;
    const char* base = reinterpret_cast<const char*>(x) - one;
    unsigned at = one, turns = 0;
    for (unsigned trip = 0; trip < d.hops / 16; ++trip) {
#pragma unroll
        for (unsigned u = 0; u < 16; ++u) {
            at = *reinterpret_cast<const unsigned*>(base + at);
            turns += at == one;
        }
    }
    y[0] = (T)((at - one) / d.line);
    y[1] = (T)turns;
}
