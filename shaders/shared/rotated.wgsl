// shared/rotated: one tile of workgroup memory read again and again; the ceiling of its bandwidth.
//
// Owns:    a group one sum; in every pass each lane 512 / BLOCK vectors of the tile, BLOCK apart.
// Traffic: the tile loaded once; then 8 KiB of workgroup memory a pass, neighbours by neighbouring lanes; one element stored.
// Guards:  groups past the last run and store nothing.
// Note:    a lane starts one vector further on in each pass, so no load can be taken out of the loop; all loads are summed.

const_assert BLOCK >= 1u && 512u % BLOCK == 0u;
const_assert UNROLL >= 1u && 8u % UNROLL == 0u;
const VECTORS = 512u;
const OWN = VECTORS / BLOCK; // of a lane and pass

@group(0) @binding(0) var<storage, read> x: array<vec4<T>>; // [512] vectors
@group(0) @binding(1) var<storage, read_write> y: array<T>; // [groups]
@group(1) @binding(0) var<uniform> dims: Dims;

var<workgroup> tile: array<vec4<T>, VECTORS>;
var<workgroup> sums: array<T, BLOCK>;

@compute @workgroup_size(BLOCK)
fn rotated(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
           @builtin(local_invocation_index) lane: u32) {
    for (var v = lane; v < VECTORS; v += BLOCK) {
        tile[v] = x[v];
    }
    workgroupBarrier();
    var sum = vec4<T>();
    for (var pass_ = 0u; pass_ < dims.passes; pass_ += UNROLL) {
        let first = lane + pass_;
        for (var u = 0u; u < UNROLL * OWN; u++) {
            sum += tile[(first + u / OWN + u % OWN * BLOCK) % VECTORS];
        }
    }
    sums[lane] = sum.x + sum.y + sum.z + sum.w;
    for (var half = BLOCK / 2u; half > 0u; half /= 2u) {
        workgroupBarrier();
        if (lane < half) {
            sums[lane] += sums[lane + half];
        }
    }
    let number = group.y * groups.x + group.x;
    if (lane == 0u && number < dims.groups) {
        y[number] = sums[0];
    }
}
