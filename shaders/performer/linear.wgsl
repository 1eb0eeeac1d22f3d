// performer/linear: o_i = phi(q_i) . sum_j phi(k_j) v_j^T / phi(q_i) . sum_j phi(k_j), phi(x)_f = exp(w_f . x - |x|^2 / 2) of x / d^(1/4), as
// attention twice: features attend to the keys, then queries to the features.
//
// Owns:    an 8 x 8 group 32 rows, features or queries, a lane four of them, and of these every eighth key of a tile and every eighth
//          vector of four outputs.
// Traffic: for every BK keys a group loads them, then their values, into the same workgroup memory, and every lane its rows from memory.
//          `gather` stores for each feature the mean of the values and the logarithm of the sum of their weights; `attend` loads both.
// Guards:  what lies past an edge is zeros in the tiles; keys past the last are hidden; rows past the end repeat the last, and are not
//          stored.
// Changed: from attention/flash: a key has a bias, -|k|^2 / 2 of a key and the logarithm of a feature. Neither sums of phi nor phi itself
//          are ever in memory, and nothing can overflow.

@group(0) @binding(0) var<storage, read> q: array<T>; // [batch, heads, seq, d]
@group(0) @binding(1) var<storage, read> k: array<T>; // [batch, heads, seq, d]
@group(0) @binding(2) var<storage, read> v: array<T>; // [batch, heads, seq, d]
@group(0) @binding(3) var<storage, read> w: array<T>; // [features, d]
@group(0) @binding(4) var<storage, read_write> o: array<T>; // [batch, heads, seq, d]
@group(0) @binding(5) var<storage, read_write> to_means: array<S>; // [batch, heads, features, d], of `gather`
@group(0) @binding(6) var<storage, read_write> to_logs: array<S>; // [batch, heads, features], of `gather`
@group(0) @binding(5) var<storage, read> means: array<S>; // the same, of `attend`
@group(0) @binding(6) var<storage, read> logs: array<S>; // the same, of `attend`
@group(1) @binding(0) var<uniform> dims: Dims;

const ROWS: u32 = 32u;
const TM: u32 = ROWS / 8u; // rows of a lane
const BK: u32 = 16u; // keys of a tile

#include "../fused.wgsl"

var<workgroup> biases: array<S, BK>;

// Adds the keys' biases, hides what lies past the last key, and leaves the lane's largest score to its row.
fn bias(keys: u32) {
    for (var i = 0u; i < TM; i++) {
        var most = HIDDEN;
        for (var j = 0u; j < PER; j++) {
            let key = lane + 8u * j;
            let s = select(HIDDEN, score[i * PER + j] + biases[key], key < keys);
            score[i * PER + j] = s;
            most = max(most, s);
        }
        leave(i, most);
    }
}

// The bias of a key in the tile: half its square, taken off.
fn square(key: u32, cols: u32) -> S {
    var sum = S();
    for (var c = 0u; c < cols; c++) {
        let x = tile[place(key, c)];
        sum = fma(x.x, x.x, sum);
        sum = fma(x.y, x.y, sum);
        sum = fma(x.z, x.z, sum);
        sum = fma(x.w, x.w, sum);
    }
    return -0.5 / sqrt(S(dims.head_dim)) * sum;
}

@compute @workgroup_size(8, 8)
fn gather(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let d = dims.head_dim;
    let cols = (d + 3u) / 4u;
    let scale = sqrt(3.0 / sqrt(S(d)));
    let own = group.x * ROWS + local.y * TM;
    let me = local.y * 8u + local.x;
    start(local);
    for (var first = 0u; first < dims.seq; first += BK) {
        workgroupBarrier();
        for (var at = me; at < BK * cols; at += 64u) {
            let key = first + at / cols;
            var value = vec4<S>();
            for (var n = 0u; n < 4u; n++) {
                if (key < dims.seq && at % cols * 4u + n < d) {
                    value[n] = S(k[(group.y * dims.seq + key) * d + at % cols * 4u + n]);
                }
            }
            tile[place(at / cols, at % cols)] = value;
        }
        workgroupBarrier();
        if (me < BK) {
            biases[me] = square(me, cols);
        }
        workgroupBarrier();
        score = array<S, TM * PER>();
        for (var c = 0u; c < cols; c++) {
            for (var i = 0u; i < TM; i++) {
                let row = min(own + i, dims.features - 1u);
                var query = vec4<S>();
                for (var n = 0u; n < 4u; n++) {
                    if (c * 4u + n < d) {
                        query[n] = S(w[row * d + c * 4u + n]);
                    }
                }
                multiply(i, scale * query, c);
            }
        }
        bias(dims.seq - first);
        workgroupBarrier();
        weigh();
        for (var at = me; at < BK * cols; at += 64u) {
            let key = first + at / cols;
            var value = vec4<S>();
            for (var n = 0u; n < 4u; n++) {
                if (key < dims.seq && at % cols * 4u + n < d) {
                    value[n] = S(v[(group.y * dims.seq + key) * d + at % cols * 4u + n]);
                }
            }
            tile[place(at / cols, at % cols)] = value;
        }
        workgroupBarrier();
        add(cols);
    }
    totals();
    for (var i = 0u; i < TM; i++) {
        if (own + i < dims.features) {
            if (lane == 0u) {
                to_logs[group.y * dims.features + own + i] = largest[i] + log(total[i]);
            }
            for (var j = 0u; j < COLS; j++) {
                for (var n = 0u; n < 4u; n++) {
                    let c = (lane + 8u * j) * 4u + n;
                    if (c < d) {
                        to_means[(group.y * dims.features + own + i) * d + c] = sum[i * COLS + j][n] / total[i];
                    }
                }
            }
        }
    }
}

@compute @workgroup_size(8, 8)
fn attend(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_id) local: vec3<u32>) {
    let d = dims.head_dim;
    let cols = (d + 3u) / 4u;
    let scale = sqrt(3.0 / sqrt(S(d)));
    let own = group.x * ROWS + local.y * TM;
    let me = local.y * 8u + local.x;
    start(local);
    for (var first = 0u; first < dims.features; first += BK) {
        workgroupBarrier();
        for (var at = me; at < BK * cols; at += 64u) {
            let key = first + at / cols;
            var value = vec4<S>();
            for (var n = 0u; n < 4u; n++) {
                if (key < dims.features && at % cols * 4u + n < d) {
                    value[n] = S(w[key * d + at % cols * 4u + n]);
                }
            }
            tile[place(at / cols, at % cols)] = value;
        }
        if (me < BK && first + me < dims.features) {
            biases[me] = logs[group.y * dims.features + first + me];
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
        bias(dims.features - first);
        workgroupBarrier();
        weigh();
        for (var at = me; at < BK * cols; at += 64u) {
            let key = first + at / cols;
            var value = vec4<S>();
            for (var n = 0u; n < 4u; n++) {
                if (key < dims.features && at % cols * 4u + n < d) {
                    value[n] = S(means[(group.y * dims.features + key) * d + at % cols * 4u + n]);
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
