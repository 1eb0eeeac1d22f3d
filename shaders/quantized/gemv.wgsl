// quantized/gemv: C = A * W for few rows of A and weights of a few bits, with k split over the lanes of a group.
//
// Owns:    `one_*` and `four_*`: 256 lanes one row or four by 32 columns of C, a lane every 32nd run of four words of k for one vector
//          of four columns. `ragged`: 256 lanes eight columns of one row, a lane every 32nd word of k of one of them.
// Traffic: a lane loads four vectors of words, all under way at once, one vector of scales for them, and their part of A in vectors; a
//          weight is unpacked once for all rows. Every lane writes its sums to workgroup memory once, and one lane a vector adds them up.
// Guards:  rows past the edge are loaded from the last one that exists, columns past it not at all; neither is stored.
// Changed: from naive: words and scales come 16 bytes at a time, neighbouring lanes have neighbouring ones, and 32 lanes share a sum.
//          All but `ragged` need n divisible by four, and groups of whole runs.

const SLICES: u32 = 32u; // parts of k
const VECTORS: u32 = 8u; // vectors of columns of a group, columns of one of `ragged`
const RUN: u32 = 4u; // words of a run
const LANES: u32 = VECTORS * SLICES;
const_assert LANES == 256u;

@group(0) @binding(0) var<storage, read> a4: array<vec4<T>>; // [m, k / 4]
@group(0) @binding(1) var<storage, read> words4: array<vec4<u32>>; // [k / pack, n / 4]
@group(0) @binding(2) var<storage, read> scales4: array<vec4<T>>; // [k / group_size, n / 4]
@group(0) @binding(3) var<storage, read_write> c4: array<vec4<T>>; // [m, n / 4]
@group(0) @binding(0) var<storage, read> a: array<T>; // [m, k], of `ragged`
@group(0) @binding(1) var<storage, read> words: array<u32>; // [k / pack, n], of `ragged`
@group(0) @binding(2) var<storage, read> scales: array<T>; // [k / group_size, n], of `ragged`
@group(0) @binding(3) var<storage, read_write> c: array<T>; // [m, n], of `ragged`
@group(1) @binding(0) var<uniform> dims: Dims;

var<workgroup> part: array<vec4<S>, 4u * LANES>; // [row, slice, vector]

// Weight number i of each of four words.
fn weights(word: vec4<u32>, bits: u32, i: u32) -> vec4<S> {
    return vec4<S>(extractBits(bitcast<vec4<i32>>(word), i * bits, bits));
}

fn summed(group: vec2<u32>, lane: u32, rows: u32, bits: u32) {
    let pack = 32u / bits;
    let cols = dims.n / 4u; // in vectors
    let first = group.y * rows;
    let col = group.x * VECTORS + lane % VECTORS;
    let quads = RUN * pack / 4u; // vectors of A for a run
    var at: array<u32, 4>;
    for (var i = 0u; i < rows; i++) {
        at[i] = min(first + i, dims.m - 1u) * (dims.k / 4u);
    }
    var sum: array<vec4<S>, 4>;
    if (col < cols) {
        for (var r = lane / VECTORS; r < dims.k / (RUN * pack); r += SLICES) {
            var held: array<vec4<u32>, RUN>;
            for (var w = 0u; w < RUN; w++) {
                held[w] = words4[(r * RUN + w) * cols + col];
            }
            let scale = vec4<S>(scales4[r * RUN * pack / dims.group_size * cols + col]);
            var run: array<vec4<S>, 4>;
            for (var q = 0u; q < quads; q++) {
                let word = held[q * 4u / pack];
                let nth = q * 4u % pack;
                let w0 = weights(word, bits, nth);
                let w1 = weights(word, bits, nth + 1u);
                let w2 = weights(word, bits, nth + 2u);
                let w3 = weights(word, bits, nth + 3u);
                for (var i = 0u; i < rows; i++) {
                    let left = vec4<S>(a4[at[i] + r * quads + q]);
                    let half = fma(vec4<S>(left.y), w1, fma(vec4<S>(left.x), w0, run[i]));
                    run[i] = fma(vec4<S>(left.w), w3, fma(vec4<S>(left.z), w2, half));
                }
            }
            for (var i = 0u; i < rows; i++) {
                sum[i] = fma(scale, run[i], sum[i]);
            }
        }
    }
    for (var i = 0u; i < rows; i++) {
        part[i * LANES + lane] = sum[i];
    }
    workgroupBarrier();
    let row = lane / VECTORS; // of the first lanes, one a row and vector
    if (row < rows && first + row < dims.m && col < cols) {
        var whole = vec4<S>();
        for (var s = 0u; s < SLICES; s++) {
            whole += part[row * LANES + s * VECTORS + lane % VECTORS];
        }
        c4[(first + row) * cols + col] = vec4<T>(whole);
    }
}

@compute @workgroup_size(LANES)
fn one_8(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    summed(group.xy, lane, 1u, 8u);
}

@compute @workgroup_size(LANES)
fn one_4(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    summed(group.xy, lane, 1u, 4u);
}

@compute @workgroup_size(LANES)
fn four_8(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    summed(group.xy, lane, 4u, 8u);
}

@compute @workgroup_size(LANES)
fn four_4(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    summed(group.xy, lane, 4u, 4u);
}

@compute @workgroup_size(LANES)
fn ragged(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let pack = 32u / dims.bits;
    let col = group.x * VECTORS + lane / SLICES;
    var sum = S();
    if (col < dims.n) {
        for (var step = lane % SLICES; step < dims.k / pack; step += SLICES) {
            let word = bitcast<i32>(words[step * dims.n + col]);
            let scale = S(scales[step * pack / dims.group_size * dims.n + col]);
            for (var i = 0u; i < pack; i++) {
                let q = S(extractBits(word, i * dims.bits, dims.bits));
                sum = fma(S(a[group.y * dims.k + step * pack + i]), scale * q, sum);
            }
        }
    }
    part[lane].x = sum;
    workgroupBarrier();
    if (lane % SLICES == 0u && col < dims.n) {
        var whole = S();
        for (var s = 0u; s < SLICES; s++) {
            whole += part[lane + s].x;
        }
        c[group.y * dims.n + col] = T(whole);
    }
}
