// attention/flash: o = softmax(q * k^T / sqrt(d)) * v in one launch that keeps no scores.
//
// Owns:    an 8 x 8 group 8 * TM rows of the queries that share keys; a lane TM of them, and of these rows every eighth key of a tile
//          and every eighth vector of four outputs, which stay in registers until the end.
// Traffic: for every tile of BK keys a group loads BK rows of K, then of V, into the same workgroup memory, and every lane its queries
//          from memory; weights go through workgroup memory. At the end a group stores its outputs.
// Guards:  rows past the end repeat the last one and are not stored; keys past the last that a row of the group sees are zeros in the
//          tile, are hidden, and are not loaded; tiles behind it are not visited.
// Changed: from naive: no scores in memory; `fused.wgsl` says how.
//          `whole` needs d divisible by four; `ragged` takes any d with scalar loads.

const_assert TM >= 1u && TM <= 8u;
const_assert BK >= 8u && BK <= 32u && BK % 8u == 0u;

const ROWS: u32 = 8u * TM;

#include "../fused.wgsl"

@group(0) @binding(0) var<storage, read> q4: array<vec4<T>>; // [batch, heads, seq_q, d / 4], of `whole`
@group(0) @binding(1) var<storage, read> k4: array<vec4<T>>; // [batch, kv_heads, seq_kv, d / 4], of `whole`
@group(0) @binding(2) var<storage, read> v4: array<vec4<T>>; // [batch, kv_heads, seq_kv, d / 4], of `whole`
@group(0) @binding(3) var<storage, read_write> o4: array<vec4<T>>; // [batch, heads, seq_q, d / 4], of `whole`
@group(0) @binding(0) var<storage, read> q: array<T>; // [batch, heads, seq_q, d], of `ragged`
@group(0) @binding(1) var<storage, read> k: array<T>; // [batch, kv_heads, seq_kv, d], of `ragged`
@group(0) @binding(2) var<storage, read> v: array<T>; // [batch, kv_heads, seq_kv, d], of `ragged`
@group(0) @binding(3) var<storage, read_write> o: array<T>; // [batch, heads, seq_q, d], of `ragged`
@group(1) @binding(0) var<uniform> dims: Dims;

// What a lane knows of its TM rows.
struct Own {
    row: u32, // the first, in the tensor
    last: u32, // last row of the group's tile that exists
    keys: u32, // first row of its keys in K and V
    reach: u32, // keys that some row of the tile sees
}

var<private> own: Own;

fn visible(row: u32) -> u32 {
    return select(dims.seq_kv, row % dims.seq_q + 1u + dims.seq_kv - dims.seq_q, dims.causal == 1u);
}

fn begin(group: vec3<u32>, local: vec3<u32>) {
    start(local);
    let all = dims.heads / dims.kv_heads * dims.seq_q;
    // The last rows see most keys: their groups come first.
    let first = ((all - 1u) / ROWS - group.x) * ROWS;
    let last = min(first + ROWS, all) - 1u;
    own.row = group.y * all + first + line * TM;
    own.last = group.y * all + last;
    own.keys = group.y * dims.seq_kv;
    own.reach = select(dims.seq_kv, visible(last), first / dims.seq_q == last / dims.seq_q);
}

fn row_of(i: u32) -> u32 {
    return min(own.row + i, own.last);
}

// Scores of the lane's keys so far are sums of products: hides what must not be seen and leaves the lane's largest to its row.
fn hide(first: u32) {
    for (var i = 0u; i < TM; i++) {
        let seen = visible(row_of(i));
        var most = HIDDEN;
        for (var j = 0u; j < PER; j++) {
            let s = select(HIDDEN, score[i * PER + j], first + lane + 8u * j < seen);
            score[i * PER + j] = s;
            most = max(most, s);
        }
        leave(i, most);
    }
}

@compute @workgroup_size(8, 8)
fn whole(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    begin(group, local);
    let cols = dims.head_dim / 4u;
    let scale = inverseSqrt(S(dims.head_dim));
    let me = local.y * 8u + local.x;
    for (var first = 0u; first < own.reach; first += BK) {
        workgroupBarrier();
        for (var at = me; at < BK * cols; at += 64u) {
            let key = first + at / cols;
            var value = vec4<S>();
            if (key < own.reach) {
                value = vec4<S>(k4[(own.keys + key) * cols + at % cols]);
            }
            tile[place(at / cols, at % cols)] = value;
        }
        workgroupBarrier();
        score = array<S, TM * PER>();
        for (var c = 0u; c < cols; c++) {
            for (var i = 0u; i < TM; i++) {
                multiply(i, scale * vec4<S>(q4[row_of(i) * cols + c]), c);
            }
        }
        hide(first);
        workgroupBarrier();
        weigh();
        for (var at = me; at < BK * cols; at += 64u) {
            let key = first + at / cols;
            var value = vec4<S>();
            if (key < own.reach) {
                value = vec4<S>(v4[(own.keys + key) * cols + at % cols]);
            }
            tile[place(at / cols, at % cols)] = value;
        }
        workgroupBarrier();
        add(cols);
    }
    totals();
    for (var i = 0u; i < TM; i++) {
        if (own.row + i <= own.last) {
            for (var j = 0u; j < COLS; j++) {
                if (lane + 8u * j < cols) {
                    o4[(own.row + i) * cols + lane + 8u * j] = vec4<T>(sum[i * COLS + j] / total[i]);
                }
            }
        }
    }
}

@compute @workgroup_size(8, 8)
fn ragged(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    begin(group, local);
    let d = dims.head_dim;
    let cols = (d + 3u) / 4u;
    let scale = inverseSqrt(S(d));
    let me = local.y * 8u + local.x;
    for (var first = 0u; first < own.reach; first += BK) {
        workgroupBarrier();
        for (var at = me; at < BK * cols; at += 64u) {
            let key = first + at / cols;
            var value = vec4<S>();
            for (var n = 0u; n < 4u; n++) {
                if (key < own.reach && at % cols * 4u + n < d) {
                    value[n] = S(k[(own.keys + key) * d + at % cols * 4u + n]);
                }
            }
            tile[place(at / cols, at % cols)] = value;
        }
        workgroupBarrier();
        score = array<S, TM * PER>();
        for (var c = 0u; c < cols; c++) {
            for (var i = 0u; i < TM; i++) {
                var query = vec4<S>();
                for (var n = 0u; n < 4u; n++) {
                    if (c * 4u + n < d) {
                        query[n] = S(q[row_of(i) * d + c * 4u + n]);
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
                if (key < own.reach && at % cols * 4u + n < d) {
                    value[n] = S(v[(own.keys + key) * d + at % cols * 4u + n]);
                }
            }
            tile[place(at / cols, at % cols)] = value;
        }
        workgroupBarrier();
        add(cols);
    }
    totals();
    for (var i = 0u; i < TM; i++) {
        if (own.row + i <= own.last) {
            for (var j = 0u; j < COLS; j++) {
                for (var n = 0u; n < 4u; n++) {
                    let c = (lane + 8u * j) * 4u + n;
                    if (c < d) {
                        o[(own.row + i) * d + c] = T(sum[i * COLS + j][n] / total[i]);
                    }
                }
            }
        }
    }
}
