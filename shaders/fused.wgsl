// One pass of fused attention, which sources of its variants include: rows of queries against keys, no score in memory. An 8 x 8 group has
// ROWS rows, TM a lane's; of these rows a lane scores every eighth key of a tile of BK and sums every eighth vector of four outputs. Keys of
// a tile, then their values, lie in the same workgroup memory, swizzled by their row; weights go through workgroup memory. When a larger
// score appears, sums and outputs so far shrink by exp(old - new). A product is never left for the compiler to fuse with a sum or not:
// modules with and without checks must agree to the bit.

const WIDE: u32 = 32u; // vectors of the widest head
const PER: u32 = BK / 8u; // keys of a tile a lane scores
const COLS: u32 = WIDE / 8u; // vectors of a row a lane sums
const STRIDE: u32 = BK + 1u; // of a row of weights: rows that lanes read together begin in different banks
const HIDDEN: S = -1e30;

var<workgroup> tile: array<vec4<S>, BK * WIDE>; // [key, d / 4] of keys, then of values
var<workgroup> weights: array<S, ROWS * STRIDE>; // [row, key]
var<workgroup> maxima: array<S, ROWS * 8u>; // [row, lane]

var<private> lane: u32; // of the keys and vectors that are shared out
var<private> line: u32; // of rows, TM each
var<private> largest: array<S, TM>;
var<private> total: array<S, TM>; // of the lane's own keys only
var<private> sum: array<vec4<S>, TM * COLS>;
var<private> score: array<S, TM * PER>;

fn start(local: vec3<u32>) {
    lane = local.x;
    line = local.y;
    for (var i = 0u; i < TM; i++) {
        largest[i] = HIDDEN;
    }
}

// Where the tile holds vector c of a key: swizzled, so that neighbouring lanes meet no bank twice.
fn place(key: u32, c: u32) -> u32 {
    return key * WIDE + (c ^ (key % 8u));
}

// Adds one vector of the lane's queries times that of its keys.
fn multiply(i: u32, query: vec4<S>, c: u32) {
    for (var j = 0u; j < PER; j++) {
        let key = tile[place(lane + 8u * j, c)];
        var s = score[i * PER + j];
        s = fma(query.x, key.x, s);
        s = fma(query.y, key.y, s);
        s = fma(query.z, key.z, s);
        score[i * PER + j] = fma(query.w, key.w, s);
    }
}

// Leaves the lane's largest score of row i to the lanes that share the row.
fn leave(i: u32, most: S) {
    maxima[(line * TM + i) * 8u + lane] = most;
}

// Turns scores into weights and shrinks what was summed before, once all lanes of a row have left their largest.
fn weigh() {
    for (var i = 0u; i < TM; i++) {
        let row = line * TM + i;
        var most = largest[i];
        for (var other = 0u; other < 8u; other++) {
            most = max(most, maxima[row * 8u + other]);
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
            weights[row * STRIDE + lane + 8u * j] = weight;
        }
        total[i] = fma(total[i], shrunk, fresh);
    }
}

// Adds weight times value of all keys of the tile.
fn add(cols: u32) {
    for (var key = 0u; key < BK; key++) {
        var weight: array<S, TM>;
        for (var i = 0u; i < TM; i++) {
            weight[i] = weights[(line * TM + i) * STRIDE + key];
        }
        for (var j = 0u; j < COLS; j++) {
            if (lane + 8u * j < cols) {
                let value = tile[place(key, lane + 8u * j)];
                for (var i = 0u; i < TM; i++) {
                    sum[i * COLS + j] = fma(vec4<S>(weight[i]), value, sum[i * COLS + j]);
                }
            }
        }
    }
}

// The sums of all lanes of every row, through the memory of the maxima.
fn totals() {
    workgroupBarrier();
    for (var i = 0u; i < TM; i++) {
        leave(i, total[i]);
    }
    workgroupBarrier();
    for (var i = 0u; i < TM; i++) {
        total[i] = S();
        for (var other = 0u; other < 8u; other++) {
            total[i] += maxima[(line * TM + i) * 8u + other];
        }
    }
}
