// matmul/register: C = A * B with a register tile per lane and no workgroup memory.
//
// Owns:    an 8 x 8 group one (8 * TM) x (32 * TN) tile of C; a lane holds TM rows x TN vectors of four columns, its vectors
//          eight apart, so that neighbouring lanes load neighbouring vectors of B.
// Traffic: four steps of k load TM vectors of A and 4 * TN vectors of B for 16 * TM * TN * 4 multiply-adds.
// Guards:  rows and columns past the edge are loaded from the last one that exists and never stored.
// Changed: from naive: each loaded value is used TM or 4 * TN times instead of once, and loads are vectors. `whole` needs n and
//          k divisible by four, so that every row starts on a vector; `ragged` takes any shape with scalar loads.

const_assert TM >= 1u && TM <= 8u;
const_assert TN >= 1u && TN <= 2u;

@group(0) @binding(0) var<storage, read> a4: array<vec4<T>>; // [m, k / 4], of `whole`
@group(0) @binding(1) var<storage, read> b4: array<vec4<T>>; // [k, n / 4], of `whole`
@group(0) @binding(2) var<storage, read_write> c4: array<vec4<T>>; // [m, n / 4], of `whole`
@group(0) @binding(0) var<storage, read> a: array<T>; // [m, k], of `ragged`
@group(0) @binding(1) var<storage, read> b: array<T>; // [k, n], of `ragged`
@group(0) @binding(2) var<storage, read_write> c: array<T>; // [m, n], of `ragged`
@group(1) @binding(0) var<uniform> dims: Dims;

@compute @workgroup_size(8, 8)
fn whole(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let row = (group.y * 8u + local.y) * TM;
    let col = group.x * 8u * TN + local.x; // in vectors; the lane's vectors are col + 8 * j
    let cols = dims.n / 4u;
    if (row >= dims.m || col >= cols) {
        return;
    }
    var at: array<u32, TM>;
    for (var i = 0u; i < TM; i++) {
        at[i] = min(row + i, dims.m - 1u) * (dims.k / 4u);
    }
    var column: array<u32, TN>;
    for (var j = 0u; j < TN; j++) {
        column[j] = min(col + 8u * j, cols - 1u);
    }
    var sum: array<vec4<S>, TM * TN>;
    for (var p = 0u; p < dims.k / 4u; p++) {
        var left: array<vec4<S>, TM>;
        for (var i = 0u; i < TM; i++) {
            left[i] = vec4<S>(a4[at[i] + p]);
        }
        for (var j = 0u; j < TN; j++) {
            let base = p * 4u * cols + column[j];
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
    for (var i = 0u; i < TM; i++) {
        for (var j = 0u; j < TN; j++) {
            if (row + i < dims.m && col + 8u * j < cols) {
                c4[(row + i) * cols + col + 8u * j] = vec4<T>(sum[i * TN + j]);
            }
        }
    }
}

@compute @workgroup_size(8, 8)
fn ragged(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let row = (group.y * 8u + local.y) * TM;
    let col = (group.x * 8u * TN + local.x) * 4u; // in elements; the lane's vectors start at col + 32 * j
    if (row >= dims.m || col >= dims.n) {
        return;
    }
    var sum: array<vec4<S>, TM * TN>;
    for (var p = 0u; p < dims.k; p++) {
        var left: array<S, TM>;
        for (var i = 0u; i < TM; i++) {
            left[i] = S(a[min(row + i, dims.m - 1u) * dims.k + p]);
        }
        for (var j = 0u; j < TN; j++) {
            let last = dims.n - 1u;
            let base = p * dims.n;
            let at = min(vec4(col + 32u * j) + vec4(0u, 1u, 2u, 3u), vec4(last));
            let right = vec4<S>(S(b[base + at.x]), S(b[base + at.y]), S(b[base + at.z]), S(b[base + at.w]));
            for (var i = 0u; i < TM; i++) {
                sum[i * TN + j] = fma(vec4<S>(left[i]), right, sum[i * TN + j]);
            }
        }
    }
    for (var i = 0u; i < TM; i++) {
        for (var j = 0u; j < TN; j++) {
            for (var e = 0u; e < 4u; e++) {
                let at = col + 32u * j + e;
                if (row + i < dims.m && at < dims.n) {
                    c[(row + i) * dims.n + at] = T(sum[i * TN + j][e]);
                }
            }
        }
    }
}
