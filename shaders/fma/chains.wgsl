// fma/chains: independent chains x <- a*x + b; the compute ceiling.
//
// Owns:    each lane CHAINS chains, in registers; chain c of lane l is element c * lanes + l, lanes = ceil(elements / CHAINS),
//          so that neighbouring lanes load and store neighbouring elements.
// Traffic: every element loaded once and stored once; nothing in between.
// Guards:  lanes past the last return at once; a chain past the last element runs on zeros and is not stored.
// Note:    a, b and the step come from memory, so no compiler can fold the recurrence; b grows once per trip, so the value tells
//          how many trips were run. UNROLL steps share one loop's overhead; few of them where a compiler puts the steps of a
//          chain one behind another (LLVM does), so that the processor can still see several chains at once.

const_assert CHAINS >= 1u && CHAINS <= 16u;
const_assert UNROLL == 4u || UNROLL == 8u; // divides every legal number of steps
const_assert BLOCK >= 1u && BLOCK <= 1024u;

@group(0) @binding(0) var<storage, read> coef: array<T>; // [3]: a, b, step
@group(0) @binding(1) var<storage, read> x: array<T>; // [elements]
@group(0) @binding(2) var<storage, read_write> y: array<T>; // [elements]
@group(1) @binding(0) var<uniform> dims: Dims;

@compute @workgroup_size(BLOCK)
fn chains(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
          @builtin(local_invocation_index) local: u32) {
    let lanes = (dims.elements + CHAINS - 1u) / CHAINS;
    let lane = (group.y * groups.x + group.x) * BLOCK + local;
    if (lane >= lanes) {
        return;
    }
    let a = coef[0];
    var b = coef[1];
    let step = coef[2];
    var v: array<T, CHAINS>;
    for (var c = 0u; c < CHAINS; c++) {
        let i = c * lanes + lane;
        if (i < dims.elements) {
            v[c] = x[i];
        }
    }
    for (var trip = 0u; trip < dims.trips; trip++) {
        for (var s = 0u; s < dims.steps; s += UNROLL) {
            for (var c = 0u; c < CHAINS; c++) { v[c] = fma(a, v[c], b); }
            for (var c = 0u; c < CHAINS; c++) { v[c] = fma(a, v[c], b); }
            for (var c = 0u; c < CHAINS; c++) { v[c] = fma(a, v[c], b); }
            for (var c = 0u; c < CHAINS; c++) { v[c] = fma(a, v[c], b); }
            if (UNROLL == 8u) {
                for (var c = 0u; c < CHAINS; c++) { v[c] = fma(a, v[c], b); }
                for (var c = 0u; c < CHAINS; c++) { v[c] = fma(a, v[c], b); }
                for (var c = 0u; c < CHAINS; c++) { v[c] = fma(a, v[c], b); }
                for (var c = 0u; c < CHAINS; c++) { v[c] = fma(a, v[c], b); }
            }
        }
        b += step;
    }
    for (var c = 0u; c < CHAINS; c++) {
        let i = c * lanes + lane;
        if (i < dims.elements) {
            y[i] = v[c];
        }
    }
}
