// fma/chains: independent chains x <- a*x + b; the compute ceiling.
//
// Owns:    each lane CHAINS vectors of four chains, in registers; vector c of lane l is vector c * lanes + l of the elements,
//          lanes = ceil(vectors / CHAINS), so that neighbouring lanes load and store neighbouring vectors.
// Traffic: every element loaded once and stored once; nothing in between.
// Guards:  lanes past the last return at once; a vector past the last runs on zeros and is not stored, the last is stored by
//          components. Backends pad allocations to a whole vector, so its load stays inside.
// Note:    a, b and the step come from memory, so no compiler can fold the recurrence; b grows once per trip, so the value tells
//          how many trips were run. UNROLL steps share one loop's overhead; few of them where a compiler puts the steps of a
//          chain one behind another (LLVM does), so that the processor can still see several chains at once. Of f16 a vector is
//          two registers where a device has instructions for pairs.

const_assert CHAINS >= 1u && CHAINS <= 4u;
const_assert UNROLL == 4u || UNROLL == 8u; // divides every legal number of steps
const_assert BLOCK >= 1u && BLOCK <= 1024u;

@group(0) @binding(0) var<storage, read> coef: array<T>; // [3]: a, b, step
@group(0) @binding(1) var<storage, read> x: array<vec4<T>>; // [elements]
@group(0) @binding(2) var<storage, read_write> y: array<vec4<T>>; // [elements]
@group(1) @binding(0) var<uniform> dims: Dims;

@compute @workgroup_size(BLOCK)
fn chains(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
          @builtin(local_invocation_index) local: u32) {
    let vectors = (dims.elements + 3u) / 4u;
    let lanes = (vectors + CHAINS - 1u) / CHAINS;
    let lane = (group.y * groups.x + group.x) * BLOCK + local;
    if (lane >= lanes) {
        return;
    }
    let a = vec4<T>(coef[0]);
    var b = vec4<T>(coef[1]);
    let step = vec4<T>(coef[2]);
    var v: array<vec4<T>, CHAINS>;
    for (var c = 0u; c < CHAINS; c++) {
        let i = c * lanes + lane;
        if (i < vectors) {
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
        if (i < dims.elements / 4u) {
            y[i] = v[c];
        } else if (i < vectors) {
            for (var e = 0u; e < dims.elements % 4u; e++) {
                y[i][e] = v[c][e];
            }
        }
    }
}
