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
//          are ever in memory, and nothing can overflow. A product is never left for the compiler to fuse with a sum or not.

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
const WIDE: u32 = 32u; // vectors of the widest head
const PER: u32 = BK / 8u; // keys of a tile a lane scores
const COLS: u32 = WIDE / 8u; // vectors of a row a lane sums
const STRIDE: u32 = BK + 1u; // of a row of weights: rows that lanes read together begin in different banks
const HIDDEN: S = -1e30;

var<workgroup> tile: array<vec4<S>, BK * WIDE>; // [key, d / 4]
var<workgroup> weights: array<S, ROWS * STRIDE>; // [row, key]
var<workgroup> maxima: array<S, ROWS * 8u>; // [row, lane]
var<workgroup> biases: array<S, BK>;

var<private> largest: array<S, TM>;
var<private> total: array<S, TM>; // of the lane's own keys only
var<private> sum: array<vec4<S>, TM * COLS>;
var<private> score: array<S, TM * PER>;

// Where the tile holds vector c of a key: swizzled, so that neighbouring lanes meet no bank twice.
fn place(key: u32, c: u32) -> u32 {
    return key * WIDE + (c ^ (key % 8u));
}

// Adds one vector of a query times that of the lane's keys.
fn multiply(i: u32, query: vec4<S>, c: u32, lane: u32) {
    for (var j = 0u; j < PER; j++) {
        let key = tile[place(lane + 8u * j, c)];
        var s = score[i * PER + j];
        s = fma(query.x, key.x, s);
        s = fma(query.y, key.y, s);
        s = fma(query.z, key.z, s);
        score[i * PER + j] = fma(query.w, key.w, s);
    }
}

// Adds the keys' biases, hides what lies past the last key, and leaves the lane's largest score to its row.
fn bias(keys: u32, local: vec3<u32>) {
    for (var i = 0u; i < TM; i++) {
        var most = HIDDEN;
        for (var j = 0u; j < PER; j++) {
            let key = local.x + 8u * j;
            let s = select(HIDDEN, score[i * PER + j] + biases[key], key < keys);
            score[i * PER + j] = s;
            most = max(most, s);
        }
        maxima[(local.y * TM + i) * 8u + local.x] = most;
    }
}

// Turns scores into weights and shrinks what was summed before, once all lanes of a row have left their largest.
fn weigh(local: vec3<u32>) {
    for (var i = 0u; i < TM; i++) {
        let line = local.y * TM + i;
        var most = largest[i];
        for (var lane = 0u; lane < 8u; lane++) {
            most = max(most, maxima[line * 8u + lane]);
        }
        let shrunk = exp(largest[i] - most);
        largest[i] = most;
        for (var j = 0u; j < COLS; j++) {
            sum[i * COLS + j] *= shrunk;
        }
        var fresh = S();
        for (var j = 0u; j < PER; j++) {
            let weight = exp(score[i * PER + j] - most);
            fresh += weight;
            weights[line * STRIDE + local.x + 8u * j] = weight;
        }
        total[i] = fma(total[i], shrunk, fresh);
    }
}

// Adds weight times value of all keys of the tile.
fn add(cols: u32, local: vec3<u32>) {
    for (var key = 0u; key < BK; key++) {
        for (var j = 0u; j < COLS; j++) {
            if (local.x + 8u * j < cols) {
                let value = tile[place(key, local.x + 8u * j)];
                for (var i = 0u; i < TM; i++) {
                    let weight = weights[(local.y * TM + i) * STRIDE + key];
                    sum[i * COLS + j] = fma(vec4<S>(weight), value, sum[i * COLS + j]);
                }
            }
        }
    }
}

// The sums of all lanes of every row, through the memory of the maxima.
fn totals(local: vec3<u32>) {
    workgroupBarrier();
    for (var i = 0u; i < TM; i++) {
        maxima[(local.y * TM + i) * 8u + local.x] = total[i];
    }
    workgroupBarrier();
    for (var i = 0u; i < TM; i++) {
        total[i] = S();
        for (var lane = 0u; lane < 8u; lane++) {
            total[i] += maxima[(local.y * TM + i) * 8u + lane];
        }
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
    largest = array<S, TM>(HIDDEN, HIDDEN, HIDDEN, HIDDEN);
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
                multiply(i, scale * query, c, local.x);
            }
        }
        bias(dims.seq - first, local);
        workgroupBarrier();
        weigh(local);
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
        add(cols, local);
    }
    totals(local);
    for (var i = 0u; i < TM; i++) {
        if (own + i < dims.features) {
            if (local.x == 0u) {
                to_logs[group.y * dims.features + own + i] = largest[i] + log(total[i]);
            }
            for (var j = 0u; j < COLS; j++) {
                for (var n = 0u; n < 4u; n++) {
                    let c = (local.x + 8u * j) * 4u + n;
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
    largest = array<S, TM>(HIDDEN, HIDDEN, HIDDEN, HIDDEN);
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
                multiply(i, scale * query, c, local.x);
            }
        }
        bias(dims.features - first, local);
        workgroupBarrier();
        weigh(local);
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
        add(cols, local);
    }
    totals(local);
    for (var i = 0u; i < TM; i++) {
        if (own + i < dims.seq) {
            for (var j = 0u; j < COLS; j++) {
                for (var n = 0u; n < 4u; n++) {
                    let c = (local.x + 8u * j) * 4u + n;
                    if (c < d) {
                        o[(group.y * dims.seq + own + i) * d + c] = T(sum[i * COLS + j][n] / total[i]);
                    }
                }
            }
        }
    }
}
