// attention/naive: o = softmax(q * k^T / sqrt(d)) * v in three launches, with the scores of all pairs in memory between them.
//
// Owns:    `scores` and `weighted`: a 16 x 16 group a tile of scores or outputs of one head, a lane one element; `softmax`: a group of
//          64 lanes one row of scores, which stay where they are.
// Traffic: a score loads a query and a key, an output a row of weights and a column of V; softmax loads its row three times and stores it
//          twice.
// Guards:  lanes past the edge leave; pairs that causality hides are computed and get the lowest score.
// Changed: the plain formula, on which `flash` improves. Scores have the type of sums: f16 would lose their low bits and `HIDDEN`.

@group(0) @binding(0) var<storage, read> q: array<T>; // [batch, heads, seq_q, d]
@group(0) @binding(1) var<storage, read> k: array<T>; // [batch, kv_heads, seq_kv, d]
@group(0) @binding(2) var<storage, read> v: array<T>; // [batch, kv_heads, seq_kv, d]
@group(0) @binding(3) var<storage, read_write> o: array<T>; // [batch, heads, seq_q, d]
@group(0) @binding(4) var<storage, read_write> s: array<S>; // [batch, heads, seq_q, seq_kv], of `scores` and `softmax`
@group(0) @binding(4) var<storage, read> weights: array<S>; // the same, of `weighted`
@group(1) @binding(0) var<uniform> dims: Dims;

const LANES: u32 = 64u;
const HIDDEN: S = -1e30;

var<workgroup> part: array<S, LANES>;

// First element of the keys or values that a head (over all sequences) looks at.
fn keys_of(head: u32) -> u32 {
    return head / (dims.heads / dims.kv_heads) * dims.seq_kv * dims.head_dim;
}

@compute @workgroup_size(16, 16)
fn scores(@builtin(global_invocation_id) id: vec3<u32>) {
    let key = id.x;
    let query = id.y;
    if (key >= dims.seq_kv || query >= dims.seq_q) {
        return;
    }
    let row = id.z * dims.seq_q + query;
    let own = row * dims.head_dim;
    let other = keys_of(id.z) + key * dims.head_dim;
    var sum = S();
    for (var c = 0u; c < dims.head_dim; c++) {
        sum = fma(S(q[own + c]), S(k[other + c]), sum);
    }
    let hidden = dims.causal == 1u && key > query + dims.seq_kv - dims.seq_q;
    s[row * dims.seq_kv + key] = select(sum / sqrt(S(dims.head_dim)), HIDDEN, hidden);
}

// The largest or the sum of what all lanes hold, to all of them.
fn over_lanes(lane: u32, own: S, sum: bool) -> S {
    part[lane] = own;
    for (var half = LANES / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (lane < half) {
            let other = part[lane + half];
            part[lane] = select(max(part[lane], other), part[lane] + other, sum);
        }
    }
    workgroupBarrier();
    let all = part[0];
    workgroupBarrier();
    return all;
}

@compute @workgroup_size(LANES)
fn softmax(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_id) id: vec3<u32>) {
    let row = group.y * groups.x + group.x;
    if (row >= dims.batch * dims.heads * dims.seq_q) {
        return;
    }
    let first = row * dims.seq_kv;
    var largest = HIDDEN;
    for (var key = id.x; key < dims.seq_kv; key += LANES) {
        largest = max(largest, s[first + key]);
    }
    largest = over_lanes(id.x, largest, false);
    var sum = S();
    for (var key = id.x; key < dims.seq_kv; key += LANES) {
        let weight = exp(s[first + key] - largest);
        s[first + key] = weight;
        sum += weight;
    }
    sum = over_lanes(id.x, sum, true);
    for (var key = id.x; key < dims.seq_kv; key += LANES) {
        s[first + key] = s[first + key] / sum;
    }
}

@compute @workgroup_size(16, 16)
fn weighted(@builtin(global_invocation_id) id: vec3<u32>) {
    if (id.x >= dims.head_dim || id.y >= dims.seq_q) {
        return;
    }
    let row = id.z * dims.seq_q + id.y;
    let values = keys_of(id.z) + id.x;
    var sum = S();
    for (var key = 0u; key < dims.seq_kv; key++) {
        sum = fma(weights[row * dims.seq_kv + key], S(v[values + key * dims.head_dim]), sum);
    }
    o[row * dims.head_dim + id.x] = T(sum);
}
