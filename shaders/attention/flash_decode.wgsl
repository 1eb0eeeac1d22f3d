// attention/flash_decode: o = softmax(q * k^T / sqrt(d)) * v for few queries, the keys of a head split over groups.
//
// Owns:    `whole` and `ragged`: 256 lanes SPLIT keys and up to four of the queries that share them, a component of a vector each. Of
//          keys eight neighbouring lanes share one, of values a lane sums one vector of columns. `combine`: 32 lanes one row of the output.
// Traffic: a group loads its queries, keys and values once; its scores stay in workgroup memory. It stores sums, the largest score and
//          the sum of weights of every row, which `combine` loads.
// Guards:  rows past the end repeat the last one and are not stored; keys that no row of the group sees are not loaded, and weigh nothing;
//          a split of which a row sees nothing leaves zeros under the lowest score.
// Changed: from flash: as many groups as there are splits, not one a head, so that a few queries keep the whole device loading; and all
//          scores of a split are there before it is weighed, so nothing is rescaled.
//          `whole` needs d divisible by four; `ragged` takes any d with scalar loads.

const_assert SPLIT % 64u == 0u && SPLIT <= 256u;

const LANES: u32 = 256u;
const ROWS: u32 = 4u;
const WIDE: u32 = 32u; // vectors of the widest head
const PARTS: u32 = 8u; // lanes of a key
const SLOTS: u32 = LANES / PARTS; // keys at a time
const STRIDE: u32 = PARTS + 1u; // of a key's parts: lanes that read together begin in different banks
const FOLDS: u32 = 16u; // lanes that look for the largest score
const HIDDEN: S = -1e30;

@group(0) @binding(0) var<storage, read> q4: array<vec4<T>>; // [batch, heads, seq_q, d / 4], of `whole`
@group(0) @binding(1) var<storage, read> k4: array<vec4<T>>; // [batch, kv_heads, seq_kv, d / 4], of `whole`
@group(0) @binding(2) var<storage, read> v4: array<vec4<T>>; // [batch, kv_heads, seq_kv, d / 4], of `whole`
@group(0) @binding(3) var<storage, read_write> o4: array<vec4<T>>; // [batch, heads, seq_q, d / 4], of `combine`
@group(0) @binding(0) var<storage, read> q: array<T>; // [batch, heads, seq_q, d], of `ragged`
@group(0) @binding(1) var<storage, read> k: array<T>; // [batch, kv_heads, seq_kv, d], of `ragged`
@group(0) @binding(2) var<storage, read> v: array<T>; // [batch, kv_heads, seq_kv, d], of `ragged`
@group(0) @binding(3) var<storage, read_write> o: array<T>; // [batch, heads, seq_q, d], of `combine_ragged`
@group(0) @binding(4) var<storage, read_write> sums: array<vec4<S>>; // [batch, heads, seq_q, splits, d / 4 rounded up], of the splits
@group(0) @binding(5) var<storage, read_write> states: array<vec2<S>>; // largest score and sum of weights of a row's split
@group(0) @binding(4) var<storage, read> parts: array<vec4<S>>; // the sums, of `combine`
@group(0) @binding(5) var<storage, read> scales: array<vec2<S>>; // the states, of `combine`
@group(1) @binding(0) var<uniform> dims: Dims;

var<workgroup> queries: array<vec4<S>, 4u * WIDE>; // [column], of four rows
var<workgroup> weights: array<vec4<S>, SPLIT>; // [key], of four rows; scores first
var<workgroup> part: array<vec4<S>, 2u * SLOTS * STRIDE>; // what lanes have to add up, in two halves that take turns

const HALF: u32 = SLOTS * STRIDE;

// What a group's lanes know of its rows and keys.
struct Own {
    row: u32, // the first, in the tensor
    last: u32, // the last that exists
    keys: u32, // row of the first key in K and V
    count: u32, // keys of the split that some row sees
    split: u32, // its number, and how many there are
    splits: u32,
    seen: vec4<u32>, // keys of the split that each row sees
}

var<private> own: Own;
var<private> largest: vec4<S>;
var<private> total: vec4<S>;
var<private> sum: array<vec4<S>, ROWS>;

fn visible(row: u32) -> u32 {
    return select(dims.seq_kv, row % dims.seq_q + 1u + dims.seq_kv - dims.seq_q, dims.causal == 1u);
}

// How many of the split's keys lie below `reach`.
fn within(reach: u32) -> u32 {
    let start = own.split * SPLIT;
    return min(max(reach, start) - start, SPLIT);
}

fn row_of(i: u32) -> u32 {
    return min(own.row + i, own.last);
}

fn begin(group: vec3<u32>) {
    let all = dims.heads / dims.kv_heads * dims.seq_q;
    let first = group.x * ROWS;
    let last = min(first + ROWS, all) - 1u;
    own.row = group.z * all + first;
    own.last = group.z * all + last;
    own.keys = group.z * dims.seq_kv + group.y * SPLIT;
    own.split = group.y;
    own.splits = (dims.seq_kv + SPLIT - 1u) / SPLIT;
    own.count = within(select(dims.seq_kv, visible(last), first / dims.seq_q == last / dims.seq_q));
    for (var i = 0u; i < ROWS; i++) {
        own.seen[i] = within(visible(row_of(i)));
    }
}

// Adds one vector of a key times that of all rows.
fn multiply(score: vec4<S>, key: vec4<S>, c: u32) -> vec4<S> {
    var s = fma(vec4<S>(key.x), queries[4u * c], score);
    s = fma(vec4<S>(key.y), queries[4u * c + 1u], s);
    s = fma(vec4<S>(key.z), queries[4u * c + 2u], s);
    return fma(vec4<S>(key.w), queries[4u * c + 3u], s);
}

// The scores of the keys from `first` on, of whose products every lane has a part.
fn gather(me: u32, first: u32, score: vec4<S>) {
    let half = first / SLOTS % 2u * HALF;
    part[half + me / PARTS * STRIDE + me % PARTS] = score;
    workgroupBarrier();
    if (me < SLOTS) {
        var whole = vec4<S>();
        for (var p = 0u; p < PARTS; p++) {
            whole += part[half + me * STRIDE + p];
        }
        weights[first + me] = select(vec4<S>(HIDDEN), whole, vec4<u32>(first + me) < own.seen);
    }
}

// Turns all scores into weights.
fn weigh(me: u32) {
    workgroupBarrier();
    if (me < FOLDS) {
        var most = vec4<S>(HIDDEN);
        for (var key = me; key < SPLIT; key += FOLDS) {
            most = max(most, weights[key]);
        }
        part[me] = most;
    }
    workgroupBarrier();
    largest = part[0];
    for (var i = 1u; i < FOLDS; i++) {
        largest = max(largest, part[i]);
    }
    if (me < SPLIT) {
        weights[me] = select(vec4<S>(), exp(weights[me] - largest), vec4<u32>(me) < own.seen);
    }
    workgroupBarrier();
}

// Adds a vector of a key's values by the weights of all rows.
fn add(key: u32, value: vec4<S>) {
    let weight = weights[key];
    total += weight;
    sum[0] = fma(vec4<S>(weight.x), value, sum[0]);
    sum[1] = fma(vec4<S>(weight.y), value, sum[1]);
    sum[2] = fma(vec4<S>(weight.z), value, sum[2]);
    sum[3] = fma(vec4<S>(weight.w), value, sum[3]);
}

// Lanes that hold the columns of a row; the others take other keys.
fn across(cols: u32) -> u32 {
    return select(WIDE, WIDE / 2u, cols <= WIDE / 2u);
}

// The sums of all lanes of a column, row by row; then those of the weights.
fn finish(me: u32, cols: u32) {
    let wide = across(cols);
    for (var i = 0u; i < ROWS; i++) {
        let half = i % 2u * HALF;
        part[half + me] = sum[i];
        workgroupBarrier();
        if (me < cols && own.row + i <= own.last) {
            var whole = vec4<S>();
            for (var at = me; at < LANES; at += wide) {
                whole += part[half + at];
            }
            sums[((own.row + i) * own.splits + own.split) * cols + me] = whole;
        }
    }
    part[me] = total;
    workgroupBarrier();
    if (me < ROWS && own.row + me <= own.last) {
        var whole = S();
        for (var at = 0u; at < LANES; at += wide) {
            whole += part[at][me];
        }
        states[(own.row + me) * own.splits + own.split] = vec2<S>(largest[me], whole);
    }
}

@compute @workgroup_size(LANES)
fn whole(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) me: u32) {
    begin(group);
    let cols = dims.head_dim / 4u;
    let scale = inverseSqrt(S(dims.head_dim));
    if (me < cols) {
        let a = scale * vec4<S>(q4[row_of(0u) * cols + me]);
        let b = scale * vec4<S>(q4[row_of(1u) * cols + me]);
        let c = scale * vec4<S>(q4[row_of(2u) * cols + me]);
        let d = scale * vec4<S>(q4[row_of(3u) * cols + me]);
        for (var n = 0u; n < 4u; n++) {
            queries[4u * me + n] = vec4<S>(a[n], b[n], c[n], d[n]);
        }
    }
    workgroupBarrier();
    for (var first = 0u; first < SPLIT; first += SLOTS) {
        let key = first + me / PARTS;
        var score = vec4<S>();
        if (key < own.count) {
            for (var c = me % PARTS; c < cols; c += PARTS) {
                score = multiply(score, vec4<S>(k4[(own.keys + key) * cols + c]), c);
            }
        }
        gather(me, first, score);
    }
    weigh(me);
    let wide = across(cols);
    if (me % wide < cols) {
        for (var key = me / wide; key < own.count; key += LANES / wide) {
            add(key, vec4<S>(v4[(own.keys + key) * cols + me % wide]));
        }
    }
    finish(me, cols);
}

@compute @workgroup_size(LANES)
fn ragged(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) me: u32) {
    begin(group);
    let d = dims.head_dim;
    let cols = (d + 3u) / 4u;
    let scale = inverseSqrt(S(d));
    if (me < 4u * cols) {
        var column = vec4<S>();
        for (var i = 0u; i < ROWS; i++) {
            if (me < d) {
                column[i] = scale * S(q[row_of(i) * d + me]);
            }
        }
        queries[me] = column;
    }
    workgroupBarrier();
    for (var first = 0u; first < SPLIT; first += SLOTS) {
        let key = first + me / PARTS;
        var score = vec4<S>();
        if (key < own.count) {
            for (var c = me % PARTS; c < d; c += PARTS) {
                score = fma(vec4<S>(S(k[(own.keys + key) * d + c])), queries[c], score);
            }
        }
        gather(me, first, score);
    }
    weigh(me);
    let wide = across(cols);
    if (me % wide < cols) {
        for (var key = me / wide; key < own.count; key += LANES / wide) {
            var value = vec4<S>();
            for (var n = 0u; n < 4u; n++) {
                let c = me % wide * 4u + n;
                if (c < d) {
                    value[n] = S(v[(own.keys + key) * d + c]);
                }
            }
            add(key, value);
        }
    }
    finish(me, cols);
}

// A vector of an output row, from all splits.
fn combined(row: u32, c: u32, cols: u32) -> vec4<S> {
    let splits = (dims.seq_kv + SPLIT - 1u) / SPLIT;
    var most = HIDDEN;
    for (var i = 0u; i < splits; i++) {
        most = max(most, scales[row * splits + i].x);
    }
    var all = S();
    var whole = vec4<S>();
    for (var i = 0u; i < splits; i++) {
        let scale = scales[row * splits + i];
        let share = exp(scale.x - most);
        all = fma(share, scale.y, all);
        whole = fma(vec4<S>(share), parts[(row * splits + i) * cols + c], whole);
    }
    return whole / all;
}

@compute @workgroup_size(32)
fn combine(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_index) me: u32) {
    let row = group.y * groups.x + group.x;
    let cols = dims.head_dim / 4u;
    if (row < dims.batch * dims.heads * dims.seq_q && me < cols) {
        o4[row * cols + me] = vec4<T>(combined(row, me, cols));
    }
}

@compute @workgroup_size(32)
fn combine_ragged(
    @builtin(workgroup_id) group: vec3<u32>,
    @builtin(num_workgroups) groups: vec3<u32>,
    @builtin(local_invocation_index) me: u32
) {
    let row = group.y * groups.x + group.x;
    let cols = (dims.head_dim + 3u) / 4u;
    if (row < dims.batch * dims.heads * dims.seq_q && me < cols) {
        let whole = combined(row, me, cols);
        for (var n = 0u; n < 4u; n++) {
            if (me * 4u + n < dims.head_dim) {
                o[row * dims.head_dim + me * 4u + n] = T(whole[n]);
            }
        }
    }
}
