// matmul/gemv: C = A * B for few rows or few columns, with k split over the lanes of a group.
//
// Owns:    `wide`: 256 lanes four rows by 32 columns of C, a lane every 32nd step of k of one vector of columns; `tall`: 256 lanes
//          eight elements of one column, a lane every 32nd step of k of one of them.
// Traffic: `wide` loads one vector of B and four elements of A for 16 multiply-adds, `tall` one element of each for one; every lane
//          writes its partial sums to workgroup memory once, and one lane an element or vector adds them up.
// Guards:  rows past the edge are loaded from the last one that exists, columns past it not at all; neither is stored.
// Changed: from naive: 32 lanes share a sum, so that a matrix times a vector keeps the whole device busy with neighbouring loads.
//          `wide` needs n divisible by four.

const SLICES: u32 = 32u; // parts of k
const VECTORS: u32 = 8u; // vectors of columns of a group of `wide`, rows of one of `tall`
const LANES: u32 = VECTORS * SLICES;
const_assert LANES == 256u;

@group(0) @binding(0) var<storage, read> a: array<T>; // [m, k]
@group(0) @binding(1) var<storage, read> b4: array<vec4<T>>; // [k, n / 4], of `wide`
@group(0) @binding(2) var<storage, read_write> c4: array<vec4<T>>; // [m, n / 4], of `wide`
@group(0) @binding(1) var<storage, read> b: array<T>; // [k, n], of `tall`
@group(0) @binding(2) var<storage, read_write> c: array<T>; // [m, n], of `tall`
@group(1) @binding(0) var<uniform> dims: Dims;

var<workgroup> part: array<vec4<S>, 4u * LANES>; // [row, slice, vector]

@compute @workgroup_size(LANES)
fn wide(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let cols = dims.n / 4u; // in vectors
    let first = group.y * 4u;
    let col = group.x * VECTORS + lane % VECTORS;
    var at: array<u32, 4>;
    for (var i = 0u; i < 4u; i++) {
        at[i] = min(first + i, dims.m - 1u) * dims.k;
    }
    var sum: array<vec4<S>, 4>;
    if (col < cols) {
        for (var p = lane / VECTORS; p < dims.k; p += SLICES) {
            let right = vec4<S>(b4[p * cols + col]);
            for (var i = 0u; i < 4u; i++) {
                sum[i] = fma(vec4<S>(S(a[at[i] + p])), right, sum[i]);
            }
        }
    }
    for (var i = 0u; i < 4u; i++) {
        part[i * LANES + lane] = sum[i];
    }
    workgroupBarrier();
    let row = lane / VECTORS; // of the first lanes, one a row and vector
    if (row < 4u && first + row < dims.m && col < cols) {
        var whole = vec4<S>();
        for (var s = 0u; s < SLICES; s++) {
            whole += part[row * LANES + s * VECTORS + lane % VECTORS];
        }
        c4[(first + row) * cols + col] = vec4<T>(whole);
    }
}

@compute @workgroup_size(LANES)
fn tall(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group.x * VECTORS + lane / SLICES;
    let from_a = min(row, dims.m - 1u) * dims.k;
    var sum = S();
    for (var p = lane % SLICES; p < dims.k; p += SLICES) {
        sum = fma(S(a[from_a + p]), S(b[p * dims.n + group.y]), sum);
    }
    part[lane].x = sum;
    workgroupBarrier();
    if (lane % SLICES == 0u && row < dims.m) {
        var whole = S();
        for (var s = 0u; s < SLICES; s++) {
            whole += part[lane + s].x;
        }
        c[row * dims.n + group.y] = T(whole);
    }
}
