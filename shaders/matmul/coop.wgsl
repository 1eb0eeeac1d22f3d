// matmul/coop: C = A * B on cooperative 8 x 8 matrices, four of them of C a group, operands through workgroup memory.
//
// Owns:    32 lanes one 16 x 16 tile of C. Where subgroups are narrower, each makes the whole tile: same values, stored twice.
// Traffic: for every 16 steps of k a group loads its tiles of A and B once, a lane eight elements of each; a product of 8 x 8 x 8 loads
//          half an operand from workgroup memory. C goes through workgroup memory, where it is narrowed.
// Guards:  elements past the edge are loaded as zeros and not stored; every lane meets every barrier and product.
// Changed: from tiled: matrix units multiply, four outputs' matrices a group; requested bytes are those of a 16 x 16 tile, and lanes
//          name each of them once. coopLoadT and coopStoreT: rows are contiguous.

const TILE: u32 = 16u;

@group(0) @binding(0) var<storage, read> a: array<T>; // [m, k]
@group(0) @binding(1) var<storage, read> b: array<T>; // [k, n]
@group(0) @binding(2) var<storage, read_write> c: array<T>; // [m, n]
@group(1) @binding(0) var<uniform> dims: Dims;

var<workgroup> left: array<T, TILE * TILE>; // [row, step]
var<workgroup> right: array<T, TILE * TILE>; // [step, column]
var<workgroup> sums: array<S, TILE * TILE>; // [row, column]

@compute @workgroup_size(32)
fn matmul(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    for (var at = lane; at < TILE * TILE; at += 32u) {
        sums[at] = S();
    }
    workgroupBarrier();
    var c00 = coopLoadT<coop_mat8x8<S, C>>(&sums[0], TILE);
    var c01 = coopLoadT<coop_mat8x8<S, C>>(&sums[0], TILE);
    var c10 = coopLoadT<coop_mat8x8<S, C>>(&sums[0], TILE);
    var c11 = coopLoadT<coop_mat8x8<S, C>>(&sums[0], TILE);
    for (var first = 0u; first < dims.k; first += TILE) {
        workgroupBarrier();
        for (var at = lane; at < TILE * TILE; at += 32u) {
            let row = group.y * TILE + at / TILE;
            let step = first + at % TILE;
            left[at] = T();
            if (row < dims.m && step < dims.k) {
                left[at] = a[row * dims.k + step];
            }
            let down = first + at / TILE;
            let col = group.x * TILE + at % TILE;
            right[at] = T();
            if (down < dims.k && col < dims.n) {
                right[at] = b[down * dims.n + col];
            }
        }
        workgroupBarrier();
        for (var p = 0u; p < TILE; p += 8u) {
            let low = 8u * TILE + p; // indices of matrices have names: naga 30 takes no sums there
            let down = p * TILE;
            let next = down + 8u;
            let a0 = coopLoadT<coop_mat8x8<T, A>>(&left[p], TILE);
            let a1 = coopLoadT<coop_mat8x8<T, A>>(&left[low], TILE);
            let b0 = coopLoadT<coop_mat8x8<T, B>>(&right[down], TILE);
            let b1 = coopLoadT<coop_mat8x8<T, B>>(&right[next], TILE);
            c00 = coopMultiplyAdd(a0, b0, c00);
            c01 = coopMultiplyAdd(a0, b1, c01);
            c10 = coopMultiplyAdd(a1, b0, c10);
            c11 = coopMultiplyAdd(a1, b1, c11);
        }
    }
    coopStoreT(c00, &sums[0], TILE);
    coopStoreT(c01, &sums[8], TILE);
    coopStoreT(c10, &sums[128], TILE);
    coopStoreT(c11, &sums[136], TILE);
    workgroupBarrier();
    for (var at = lane; at < TILE * TILE; at += 32u) {
        let row = group.y * TILE + at / TILE;
        let col = group.x * TILE + at % TILE;
        if (row < dims.m && col < dims.n) {
            c[row * dims.n + col] = T(sums[at]);
        }
    }
}
