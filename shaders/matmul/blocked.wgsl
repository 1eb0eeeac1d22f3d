// matmul/blocked: C = A * B with tiles of both operands in workgroup memory and an 8 x 8 register tile per lane.
//
// Owns:    a (BN / 8) x (BM / 8) group one BM x BN tile of C; a lane holds 8 rows, BM / 8 apart, by two vectors of four columns,
//          BN / 2 apart, so that neighbouring lanes read neighbouring vectors of workgroup memory.
// Traffic: for every 16 steps of k a group loads its tiles of A and B once, and a lane reads 32 vectors of A and 32 of B from
//          workgroup memory for 1024 multiply-adds.
// Guards:  elements past the edge are loaded as zeros; lanes past the edge store nothing, but meet every barrier.
// Changed: from tiled: 64 outputs a lane instead of one, so that workgroup memory is read a thirty-second as often a product; loads
//          are vectors, and those of the next tile are under way while this one is multiplied. `whole` needs n and k divisible
//          by four; `ragged` takes any shape with scalar loads.

const BK: u32 = 16u; // steps of k a tile
const LANES: u32 = BM * BN / 64u;
const OWN_A: u32 = BM * BK / 4u / LANES; // vectors of A that a lane loads for a tile
const OWN_B: u32 = BK * BN / 4u / LANES;
const_assert BM % 32u == 0u && BN % 32u == 0u;
const_assert LANES >= 32u && LANES <= 256u;
const_assert OWN_A * LANES == BM * BK / 4u && OWN_B * LANES == BK * BN / 4u;
const_assert 4u * BK * (BM + BN) <= 16384u;

@group(0) @binding(0) var<storage, read> a4: array<vec4<T>>; // [m, k / 4], of `whole`
@group(0) @binding(1) var<storage, read> b4: array<vec4<T>>; // [k, n / 4], of `whole`
@group(0) @binding(2) var<storage, read_write> c4: array<vec4<T>>; // [m, n / 4], of `whole`
@group(0) @binding(0) var<storage, read> a: array<T>; // [m, k], of `ragged`
@group(0) @binding(1) var<storage, read> b: array<T>; // [k, n], of `ragged`
@group(0) @binding(2) var<storage, read_write> c: array<T>; // [m, n], of `ragged`
@group(1) @binding(0) var<uniform> dims: Dims;

var<workgroup> left: array<vec4<S>, BM * BK / 4u>; // [row, step / 4]
var<workgroup> right: array<vec4<S>, BK * BN / 4u>; // [step, column / 4]

// Puts the vectors that this lane loaded where the group reads them, once all have read what was there.
fn share(lane: u32, from_a: ptr<function, array<vec4<S>, OWN_A>>, from_b: ptr<function, array<vec4<S>, OWN_B>>) {
    workgroupBarrier();
    for (var i = 0u; i < OWN_A; i++) {
        left[lane + LANES * i] = (*from_a)[i];
    }
    for (var i = 0u; i < OWN_B; i++) {
        right[lane + LANES * i] = (*from_b)[i];
    }
    workgroupBarrier();
}

// Adds the products of the shared tiles to the lane's sums, [row, vector].
fn multiply(local: vec3<u32>, sum: ptr<function, array<vec4<S>, 16>>) {
    for (var p = 0u; p < BK / 4u; p++) {
        var rows: array<vec4<S>, 8>;
        for (var i = 0u; i < 8u; i++) {
            rows[i] = left[(local.y + BM / 8u * i) * (BK / 4u) + p];
        }
        for (var j = 0u; j < 2u; j++) {
            let base = p * BN + local.x + BN / 8u * j;
            let r0 = right[base];
            let r1 = right[base + BN / 4u];
            let r2 = right[base + BN / 2u];
            let r3 = right[base + BN / 4u * 3u];
            for (var i = 0u; i < 8u; i++) {
                var v = (*sum)[i * 2u + j];
                v = fma(vec4<S>(rows[i].x), r0, v);
                v = fma(vec4<S>(rows[i].y), r1, v);
                v = fma(vec4<S>(rows[i].z), r2, v);
                v = fma(vec4<S>(rows[i].w), r3, v);
                (*sum)[i * 2u + j] = v;
            }
        }
    }
}

@compute @workgroup_size(BN / 8u, BM / 8u)
fn whole(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>,
         @builtin(local_invocation_index) lane: u32) {
    let depth = dims.k / 4u; // in vectors, as is `cols`
    let cols = dims.n / 4u;
    var sum: array<vec4<S>, 16>;
    var from_a: array<vec4<S>, OWN_A>;
    var from_b: array<vec4<S>, OWN_B>;
    // Trip `first` loads the tile at `first` and multiplies the one before it; the last only multiplies.
    for (var first = 0u; first < dims.k + BK; first += BK) {
        for (var i = 0u; i < OWN_A; i++) {
            let at = lane + LANES * i;
            let row = group.y * BM + at / (BK / 4u);
            let step = first / 4u + at % (BK / 4u);
            from_a[i] = vec4<S>();
            if (row < dims.m && step < depth) {
                from_a[i] = vec4<S>(a4[row * depth + step]);
            }
        }
        for (var i = 0u; i < OWN_B; i++) {
            let at = lane + LANES * i;
            let step = first + at / (BN / 4u);
            let col = group.x * (BN / 4u) + at % (BN / 4u);
            from_b[i] = vec4<S>();
            if (step < dims.k && col < cols) {
                from_b[i] = vec4<S>(b4[step * cols + col]);
            }
        }
        if (first > 0u) {
            multiply(local, &sum);
        }
        share(lane, &from_a, &from_b);
    }
    for (var i = 0u; i < 8u; i++) {
        for (var j = 0u; j < 2u; j++) {
            let row = group.y * BM + local.y + BM / 8u * i;
            let col = group.x * (BN / 4u) + local.x + BN / 8u * j;
            if (row < dims.m && col < cols) {
                c4[row * cols + col] = vec4<T>(sum[i * 2u + j]);
            }
        }
    }
}

@compute @workgroup_size(BN / 8u, BM / 8u)
fn ragged(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>,
          @builtin(local_invocation_index) lane: u32) {
    var sum: array<vec4<S>, 16>;
    var from_a: array<vec4<S>, OWN_A>;
    var from_b: array<vec4<S>, OWN_B>;
    for (var first = 0u; first < dims.k + BK; first += BK) {
        for (var i = 0u; i < OWN_A; i++) {
            let at = lane + LANES * i;
            let row = group.y * BM + at / (BK / 4u);
            let step = first + at % (BK / 4u) * 4u;
            from_a[i] = vec4<S>();
            for (var e = 0u; e < 4u; e++) {
                if (row < dims.m && step + e < dims.k) {
                    from_a[i][e] = S(a[row * dims.k + step + e]);
                }
            }
        }
        for (var i = 0u; i < OWN_B; i++) {
            let at = lane + LANES * i;
            let step = first + at / (BN / 4u);
            let col = group.x * BN + at % (BN / 4u) * 4u;
            from_b[i] = vec4<S>();
            for (var e = 0u; e < 4u; e++) {
                if (step < dims.k && col + e < dims.n) {
                    from_b[i][e] = S(b[step * dims.n + col + e]);
                }
            }
        }
        if (first > 0u) {
            multiply(local, &sum);
        }
        share(lane, &from_a, &from_b);
    }
    for (var i = 0u; i < 8u; i++) {
        for (var j = 0u; j < 2u; j++) {
            let row = group.y * BM + local.y + BM / 8u * i;
            let col = group.x * BN + (local.x + BN / 8u * j) * 4u;
            for (var e = 0u; e < 4u; e++) {
                if (row < dims.m && col + e < dims.n) {
                    c[row * dims.n + col + e] = T(sum[i * 2u + j][e]);
                }
            }
        }
    }
}
