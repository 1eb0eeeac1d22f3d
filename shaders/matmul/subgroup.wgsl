// matmul/subgroup: C = A * B with a register tile per lane, its rows of A loaded by four lanes together and shuffled among them.
//
// Owns:    64 lanes one (8 * TM) x (32 * TN) tile of C, in eight lines of eight; a lane holds TM rows x TN vectors of four columns,
//          its vectors eight apart. Four neighbouring lanes of a subgroup, a quad, have the same rows: subgroups of 4 to 128 lanes do.
// Traffic: sixteen steps of k load TM vectors of A and 16 * TN vectors of B a lane; each vector of A reaches the quad by shuffles.
// Guards:  rows and columns past the edge are loaded from the last one that exists and never stored; steps past k are zeros. Every
//          lane meets every shuffle.
// Changed: from register: lanes name a quarter of the bytes of A, the group's distinct bytes are the same. `whole` needs n and k
//          divisible by four; `ragged` takes any shape with scalar loads, four steps at a time.

const_assert TM >= 1u && TM <= 8u;
const_assert TN >= 1u && TN <= 2u;

@group(0) @binding(0) var<storage, read> a4: array<vec4<T>>; // [m, k / 4], of `whole`
@group(0) @binding(1) var<storage, read> b4: array<vec4<T>>; // [k, n / 4], of `whole`
@group(0) @binding(2) var<storage, read_write> c4: array<vec4<T>>; // [m, n / 4], of `whole`
@group(0) @binding(0) var<storage, read> a: array<T>; // [m, k], of `ragged`
@group(0) @binding(1) var<storage, read> b: array<T>; // [k, n], of `ragged`
@group(0) @binding(2) var<storage, read_write> c: array<T>; // [m, n], of `ragged`
@group(1) @binding(0) var<uniform> dims: Dims;

@compute @workgroup_size(64)
fn whole(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_id) number: u32, @builtin(subgroup_size) size: u32,
         @builtin(subgroup_invocation_id) own: u32) {
    let lane = number * size + own;
    let quad = own / 4u * 4u; // its first lane
    let row = (group.y * 8u + lane / 8u) * TM;
    let col = group.x * 8u * TN + lane % 8u; // in vectors
    let cols = dims.n / 4u;
    let depth = dims.k / 4u;
    var sum: array<vec4<S>, TM * TN>;
    for (var first = 0u; first < depth; first += 4u) {
        let mine = first + own % 4u;
        var held: array<vec4<S>, TM>;
        for (var i = 0u; i < TM; i++) {
            held[i] = vec4<S>();
            if (mine < depth) {
                held[i] = vec4<S>(a4[min(row + i, dims.m - 1u) * depth + mine]);
            }
        }
        for (var q = 0u; q < min(4u, depth - first); q++) {
            var left: array<vec4<S>, TM>;
            for (var i = 0u; i < TM; i++) {
                left[i] = subgroupShuffle(held[i], quad + q);
            }
            for (var j = 0u; j < TN; j++) {
                let base = (first + q) * 4u * cols + min(col + 8u * j, cols - 1u);
                let r0 = vec4<S>(b4[base]);
                let r1 = vec4<S>(b4[base + cols]);
                let r2 = vec4<S>(b4[base + 2u * cols]);
                let r3 = vec4<S>(b4[base + 3u * cols]);
                for (var i = 0u; i < TM; i++) {
                    var v = sum[i * TN + j];
                    v = fma(vec4<S>(left[i].x), r0, v);
                    v = fma(vec4<S>(left[i].y), r1, v);
                    v = fma(vec4<S>(left[i].z), r2, v);
                    v = fma(vec4<S>(left[i].w), r3, v);
                    sum[i * TN + j] = v;
                }
            }
        }
    }
    for (var i = 0u; i < TM; i++) {
        for (var j = 0u; j < TN; j++) {
            if (row + i < dims.m && col + 8u * j < cols) {
                c4[(row + i) * cols + col + 8u * j] = vec4<T>(sum[i * TN + j]);
            }
        }
    }
}

@compute @workgroup_size(64)
fn ragged(@builtin(workgroup_id) group: vec3<u32>, @builtin(subgroup_id) number: u32, @builtin(subgroup_size) size: u32,
          @builtin(subgroup_invocation_id) own: u32) {
    let lane = number * size + own;
    let quad = own / 4u * 4u;
    let row = (group.y * 8u + lane / 8u) * TM;
    let col = (group.x * 8u * TN + lane % 8u) * 4u; // in elements
    var sum: array<vec4<S>, TM * TN>;
    for (var first = 0u; first < dims.k; first += 4u) {
        let mine = first + own % 4u;
        var held: array<S, TM>;
        for (var i = 0u; i < TM; i++) {
            held[i] = S();
            if (mine < dims.k) {
                held[i] = S(a[min(row + i, dims.m - 1u) * dims.k + mine]);
            }
        }
        for (var q = 0u; q < min(4u, dims.k - first); q++) {
            var left: array<S, TM>;
            for (var i = 0u; i < TM; i++) {
                left[i] = subgroupShuffle(held[i], quad + q);
            }
            for (var j = 0u; j < TN; j++) {
                var right: vec4<S>;
                for (var e = 0u; e < 4u; e++) {
                    right[e] = S(b[(first + q) * dims.n + min(col + 32u * j + e, dims.n - 1u)]);
                }
                for (var i = 0u; i < TM; i++) {
                    sum[i * TN + j] = fma(vec4<S>(left[i]), right, sum[i * TN + j]);
                }
            }
        }
    }
    for (var i = 0u; i < TM; i++) {
        for (var j = 0u; j < TN; j++) {
            for (var e = 0u; e < 4u; e++) {
                if (row + i < dims.m && col + 32u * j + e < dims.n) {
                    c[(row + i) * dims.n + col + 32u * j + e] = T(sum[i * TN + j][e]);
                }
            }
        }
    }
}
