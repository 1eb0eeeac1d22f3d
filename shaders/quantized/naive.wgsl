// quantized/naive: C = A * W with weights of a few bits, one output element a lane; the bottom rung.
//
// Owns:    a 16 x 16 group one 16 x 16 tile of C, its lanes one element each, columns fastest.
// Traffic: every lane loads a row of A, and a word and its scale for the weights that the word holds; groups share only through caches.
// Guards:  lanes outside C return at once.

@group(0) @binding(0) var<storage, read> a: array<T>; // [m, k]
@group(0) @binding(1) var<storage, read> words: array<u32>; // [k / pack, n]
@group(0) @binding(2) var<storage, read> scales: array<T>; // [k / group_size, n]
@group(0) @binding(3) var<storage, read_write> c: array<T>; // [m, n]
@group(1) @binding(0) var<uniform> dims: Dims;

@compute @workgroup_size(16, 16)
fn product(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= dims.n || id.y >= dims.m) {
        return;
    }
    let pack = 32u / dims.bits;
    var sum = S();
    for (var step = 0u; step < dims.k / pack; step++) {
        let word = bitcast<i32>(words[step * dims.n + id.x]);
        let scale = S(scales[step * pack / dims.group_size * dims.n + id.x]);
        for (var i = 0u; i < pack; i++) {
            let q = S(extractBits(word, i * dims.bits, dims.bits));
            sum = fma(S(a[id.y * dims.k + step * pack + i]), scale * q, sum);
        }
    }
    c[id.y * dims.n + id.x] = T(sum);
}
