// chase/cycle: loads that wait for each other, from line to line of one cycle through all of them.
//
// Owns:    one lane everything.
// Traffic: four bytes a hop, each of another line until a turn is over; two elements stored.
// Guards:  none: an element of x names one of x: its bits exceed those of 1 by the distance in bytes.
// Note:    where it ends and how often it came back to the start tell how many hops were made. The count waits for no load but
//          its own.

@group(0) @binding(0) var<storage, read> x: array<T>; // [lines, line / 4]
@group(0) @binding(1) var<storage, read_write> y: array<T>; // [2]: the last line, turns
@group(1) @binding(0) var<uniform> dims: Dims;

fn named(at: u32) -> u32 {
    return bitcast<u32>(x[at / 4u]) - 0x3f800000u;
}

@compute @workgroup_size(1)
fn walk() {
    var at = 0u;
    var turns = 0u;
    for (var trip = 0u; trip < dims.hops / 4u; trip++) {
        let a = named(at);
        let b = named(a);
        let c = named(b);
        at = named(c);
        turns += u32(a == 0u) + u32(b == 0u) + u32(c == 0u) + u32(at == 0u);
    }
    y[0] = T(at / dims.line);
    y[1] = T(turns);
}
