// exp/chains: independent chains x <- 2^-(x + b); the ceiling of exponentials.
//
// Owns:    each lane CHAINS chains, in registers; chain c of lane l is element c * lanes + l, lanes = ceil(elements / CHAINS).
// Traffic: every element loaded once and stored once; nothing in between.
// Guards:  lanes past the last return at once; a chain past the last element runs on zeros and is not stored.
// Note:    b grows once per trip, so the value tells how many trips were run. Four steps share one loop's overhead.

const_assert CHAINS >= 1u && CHAINS <= 16u;
const_assert BLOCK >= 1u && BLOCK <= 1024u;

@group(0) @binding(0) var<storage, read> coef: array<T>; // [2]: b, its growth
@group(0) @binding(1) var<storage, read> x: array<T>; // [elements]
@group(0) @binding(2) var<storage, read_write> y: array<T>; // [elements]
@group(1) @binding(0) var<uniform> dims: Dims;

@compute @workgroup_size(BLOCK)
fn powers(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
          @builtin(local_invocation_index) local: u32) {
    let lanes = (dims.elements + CHAINS - 1u) / CHAINS;
    let lane = (group.y * groups.x + group.x) * BLOCK + local;
    if (lane >= lanes) {
        return;
    }
    var b = coef[0];
    let growth = coef[1];
    var v: array<T, CHAINS>;
    for (var c = 0u; c < CHAINS; c++) {
        let i = c * lanes + lane;
        if (i < dims.elements) {
            v[c] = x[i];
        }
    }
    for (var trip = 0u; trip < dims.trips; trip++) {
        for (var s = 0u; s < dims.steps; s += 4u) {
            for (var c = 0u; c < CHAINS; c++) { v[c] = exp2(-(v[c] + b)); }
            for (var c = 0u; c < CHAINS; c++) { v[c] = exp2(-(v[c] + b)); }
            for (var c = 0u; c < CHAINS; c++) { v[c] = exp2(-(v[c] + b)); }
            for (var c = 0u; c < CHAINS; c++) { v[c] = exp2(-(v[c] + b)); }
        }
        b += growth;
    }
    for (var c = 0u; c < CHAINS; c++) {
        let i = c * lanes + lane;
        if (i < dims.elements) {
            y[i] = v[c];
        }
    }
}
