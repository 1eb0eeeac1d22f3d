// ramp/chains: steps of x <- a*x + b between a load and a store; the way up the roof.
//
// Owns:    each lane VECTORS vectors of four elements, BLOCK vectors apart, so that neighbouring lanes load and store neighbours.
// Traffic: every element loaded once and stored once.
// Guards:  vectors past the last one are neither loaded nor stored; the array's last vector is stored by components. Backends
//          pad allocations to a whole vector, so its load stays inside.
// Note:    of every eight lines of four vectors the first `longer` take one step more, for intensities that are no whole number
//          of steps an element. Four steps share one loop's overhead.

const_assert VECTORS >= 1u && VECTORS <= 8u;
const_assert BLOCK >= 1u && BLOCK <= 1024u;

@group(0) @binding(0) var<storage, read> coef: array<T>; // [2]: a, b
@group(0) @binding(1) var<storage, read> x: array<vec4<T>>; // [elements]
@group(0) @binding(2) var<storage, read_write> y: array<vec4<T>>; // [elements]
@group(1) @binding(0) var<uniform> dims: Dims;

@compute @workgroup_size(BLOCK)
fn ramp(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
        @builtin(local_invocation_index) local: u32) {
    let first = (group.y * groups.x + group.x) * (BLOCK * VECTORS) + local;
    let vectors = (dims.elements + 3u) / 4u;
    let a = vec4<T>(coef[0]);
    let b = vec4<T>(coef[1]);
    var v: array<vec4<T>, VECTORS>;
    for (var u = 0u; u < VECTORS; u++) {
        let i = first + u * BLOCK;
        if (i < vectors) {
            v[u] = x[i];
        }
    }
    for (var s = 0u; s < dims.steps / 4u; s++) {
        for (var u = 0u; u < VECTORS; u++) { v[u] = fma(a, v[u], b); }
        for (var u = 0u; u < VECTORS; u++) { v[u] = fma(a, v[u], b); }
        for (var u = 0u; u < VECTORS; u++) { v[u] = fma(a, v[u], b); }
        for (var u = 0u; u < VECTORS; u++) { v[u] = fma(a, v[u], b); }
    }
    for (var s = 0u; s < dims.steps % 4u; s++) {
        for (var u = 0u; u < VECTORS; u++) {
            v[u] = fma(a, v[u], b);
        }
    }
    for (var u = 0u; u < VECTORS; u++) {
        let i = first + u * BLOCK;
        if (i / 4u % 8u < dims.longer) {
            v[u] = fma(a, v[u], b);
        }
        if (i < dims.elements / 4u) {
            y[i] = v[u];
        } else if (i < vectors) {
            for (var c = 0u; c < dims.elements % 4u; c++) {
                y[i][c] = v[u][c];
            }
        }
    }
}
