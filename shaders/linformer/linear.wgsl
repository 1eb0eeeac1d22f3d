// linformer/linear: o = softmax(q * (e * k)^T / sqrt(d)) * (f * v) in two launches, projected keys and values in memory between them.
//
// Owns:    `project`: an 8 x 8 group 32 x 32 of a head's projected keys or values, a lane four rows of one vector. `attend`: a group 32
//          queries, a lane four of them, and of these every eighth key of a tile and every eighth vector of four outputs.
// Traffic: `project`: for every BK positions a group loads 32 rows of e or f and 32 columns of keys or values, once. `attend`: for every BK
//          projected keys a group loads them, then their values, into the same workgroup memory, and every lane its queries from memory.
// Guards:  what lies past an edge is zeros in the tiles and not stored; keys past the last are hidden; queries past the end repeat the last.
// Changed: from attention/flash: `rank` keys in place of `seq`, whatever seq is.

@group(0) @binding(0) var<storage, read> q: array<T>; // [batch, heads, seq, d]
@group(0) @binding(1) var<storage, read> k: array<T>; // [batch, heads, seq, d]
@group(0) @binding(2) var<storage, read> v: array<T>; // [batch, heads, seq, d]
@group(0) @binding(3) var<storage, read> e: array<T>; // [rank, seq]
@group(0) @binding(4) var<storage, read> f: array<T>; // [rank, seq]
@group(0) @binding(5) var<storage, read_write> o: array<T>; // [batch, heads, seq, d]
@group(0) @binding(6) var<storage, read_write> to_keys: array<S>; // [batch, heads, rank, d], of `project`
@group(0) @binding(7) var<storage, read_write> to_values: array<S>; // [batch, heads, rank, d], of `project`
@group(0) @binding(6) var<storage, read> keys: array<S>; // the same, of `attend`
@group(0) @binding(7) var<storage, read> values: array<S>; // the same, of `attend`
@group(1) @binding(0) var<uniform> dims: Dims;

const ROWS: u32 = 32u;
const TM: u32 = ROWS / 8u; // rows of a lane
const BK: u32 = 16u; // positions, or keys, of a tile

#include "../fused.wgsl"

// Adds up what the tiles of one step hold.
fn accumulate(local: vec3<u32>) {
    for (var p = 0u; p < BK; p++) {
        let right = tile[p * 8u + local.x];
        for (var i = 0u; i < TM; i++) {
            sum[i] = fma(vec4<S>(weights[(local.y * TM + i) * STRIDE + p]), right, sum[i]);
        }
    }
}

@compute @workgroup_size(8, 8)
fn project(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let d = dims.head_dim;
    let heads = dims.batch * dims.heads;
    let of_values = group.z >= heads;
    let head = group.z % heads;
    let me = local.y * 8u + local.x;
    for (var first = 0u; first < dims.seq; first += BK) {
        workgroupBarrier();
        for (var at = me; at < ROWS * BK; at += 64u) {
            let row = group.y * ROWS + at / BK;
            let step = first + at % BK;
            var weight = S();
            if (row < dims.rank && step < dims.seq) {
                if (of_values) {
                    weight = S(f[row * dims.seq + step]);
                } else {
                    weight = S(e[row * dims.seq + step]);
                }
            }
            weights[at / BK * STRIDE + at % BK] = weight;
        }
        for (var at = me; at < BK * 8u; at += 64u) {
            let step = first + at / 8u;
            var value = vec4<S>();
            for (var n = 0u; n < 4u; n++) {
                let c = (group.x * 8u + at % 8u) * 4u + n;
                if (step < dims.seq && c < d) {
                    if (of_values) {
                        value[n] = S(v[(head * dims.seq + step) * d + c]);
                    } else {
                        value[n] = S(k[(head * dims.seq + step) * d + c]);
                    }
                }
            }
            tile[at] = value;
        }
        workgroupBarrier();
        accumulate(local);
    }
    let unit = sqrt(3.0 / S(dims.seq)); // what an element of e or f counts
    for (var i = 0u; i < TM; i++) {
        let row = group.y * ROWS + local.y * TM + i;
        for (var n = 0u; n < 4u; n++) {
            let c = (group.x * 8u + local.x) * 4u + n;
            if (row < dims.rank && c < d) {
                if (of_values) {
                    to_values[(head * dims.rank + row) * d + c] = unit * sum[i][n];
                } else {
                    to_keys[(head * dims.rank + row) * d + c] = unit * sum[i][n];
                }
            }
        }
    }
}

// Hides what lies past the last key, and leaves the lane's largest score to its row.
fn hide(first: u32) {
    for (var i = 0u; i < TM; i++) {
        var most = HIDDEN;
        for (var j = 0u; j < PER; j++) {
            let s = select(HIDDEN, score[i * PER + j], first + lane + 8u * j < dims.rank);
            score[i * PER + j] = s;
            most = max(most, s);
        }
        leave(i, most);
    }
}

@compute @workgroup_size(8, 8)
fn attend(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let d = dims.head_dim;
    let cols = (d + 3u) / 4u;
    let scale = inverseSqrt(S(d));
    let own = group.x * ROWS + local.y * TM;
    let me = local.y * 8u + local.x;
    start(local);
    for (var first = 0u; first < dims.rank; first += BK) {
        workgroupBarrier();
        for (var at = me; at < BK * cols; at += 64u) {
            let key = first + at / cols;
            var value = vec4<S>();
            for (var n = 0u; n < 4u; n++) {
                if (key < dims.rank && at % cols * 4u + n < d) {
                    value[n] = keys[(group.y * dims.rank + key) * d + at % cols * 4u + n];
                }
            }
            tile[place(at / cols, at % cols)] = value;
        }
        workgroupBarrier();
        score = array<S, TM * PER>();
        for (var c = 0u; c < cols; c++) {
            for (var i = 0u; i < TM; i++) {
                let row = group.y * dims.seq + min(own + i, dims.seq - 1u);
                var query = vec4<S>();
                for (var n = 0u; n < 4u; n++) {
                    if (c * 4u + n < d) {
                        query[n] = S(q[row * d + c * 4u + n]);
                    }
                }
                multiply(i, scale * query, c);
            }
        }
        hide(first);
        workgroupBarrier();
        weigh();
        for (var at = me; at < BK * cols; at += 64u) {
            let key = first + at / cols;
            var value = vec4<S>();
            for (var n = 0u; n < 4u; n++) {
                if (key < dims.rank && at % cols * 4u + n < d) {
                    value[n] = values[(group.y * dims.rank + key) * d + at % cols * 4u + n];
                }
            }
            tile[place(at / cols, at % cols)] = value;
        }
        workgroupBarrier();
        add(cols);
    }
    totals();
    for (var i = 0u; i < TM; i++) {
        if (own + i < dims.seq) {
            for (var j = 0u; j < COLS; j++) {
                for (var n = 0u; n < 4u; n++) {
                    let c = (lane + 8u * j) * 4u + n;
                    if (c < d) {
                        o[(group.y * dims.seq + own + i) * d + c] = T(sum[i * COLS + j][n] / total[i]);
                    }
                }
            }
        }
    }
}
