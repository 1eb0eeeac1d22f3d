// matmul/naive: C = A * B, one element a lane; the bottom rung.
//
// Owns:    a 16 x 16 group one 16 x 16 tile of C, its lanes one element each, columns fastest.
// Traffic: every lane loads a row of A and a column of B: 2 * k loads for k multiply-adds; groups share only through caches.
// Guards:  lanes outside C return at once.

@group(0) @binding(0) var<storage, read> a: array<T>; // [m, k]
@group(0) @binding(1) var<storage, read> b: array<T>; // [k, n]
@group(0) @binding(2) var<storage, read_write> c: array<T>; // [m, n]
@group(1) @binding(0) var<uniform> dims: Dims;

@compute @workgroup_size(16, 16)
fn matmul(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= dims.n || id.y >= dims.m) {
        return;
    }
    var sum = S();
    for (var p = 0u; p < dims.k; p++) {
        sum = fma(S(a[id.y * dims.k + p]), S(b[p * dims.n + id.x]), sum);
    }
    c[id.y * dims.n + id.x] = T(sum);
}
