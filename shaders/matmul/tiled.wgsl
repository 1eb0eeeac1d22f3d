// matmul/tiled: C = A * B with square tiles of both operands in workgroup memory.
//
// Owns:    a TILE x TILE group one tile of C, a lane one element.
// Traffic: for every TILE steps of k a lane loads one element of A and one of B from memory and 2 * TILE from workgroup memory.
// Guards:  elements past the edge are loaded as zeros; lanes past the edge store nothing, but meet every barrier.
// Changed: from naive: an element that a group needs is loaded from memory once, instead of once for each of TILE lanes.

const_assert TILE >= 4u && TILE <= 16u;

@group(0) @binding(0) var<storage, read> a: array<T>; // [m, k]
@group(0) @binding(1) var<storage, read> b: array<T>; // [k, n]
@group(0) @binding(2) var<storage, read_write> c: array<T>; // [m, n]
@group(1) @binding(0) var<uniform> dims: Dims;

var<workgroup> left: array<S, TILE * TILE>; // [row, step]
var<workgroup> right: array<S, TILE * TILE>; // [step, column]

@compute @workgroup_size(TILE, TILE)
fn matmul(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let row = group.y * TILE + local.y;
    let col = group.x * TILE + local.x;
    let own = local.y * TILE + local.x;
    var sum = S();
    for (var first = 0u; first < dims.k; first += TILE) {
        let across = first + local.x;
        let down = first + local.y;
        var next = vec2<S>();
        if (row < dims.m && across < dims.k) {
            next.x = S(a[row * dims.k + across]);
        }
        if (down < dims.k && col < dims.n) {
            next.y = S(b[down * dims.n + col]);
        }
        left[own] = next.x;
        right[own] = next.y;
        workgroupBarrier();
        for (var p = 0u; p < TILE; p++) {
            sum = fma(left[local.y * TILE + p], right[p * TILE + local.x], sum);
        }
        workgroupBarrier();
    }
    if (row < dims.m && col < dims.n) {
        c[row * dims.n + col] = T(sum);
    }
}
