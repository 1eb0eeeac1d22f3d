// affine: y[r, c] = shift[c] + x[r, c] * gain[c], one element a lane; lanes past the last leave.

@group(0) @binding(0) var<storage, read> x: array<T>; // [rows, columns]
@group(0) @binding(1) var<storage, read> gain: array<T>; // [columns]
@group(0) @binding(2) var<storage, read> shift: array<T>; // [columns]
@group(0) @binding(3) var<storage, read_write> y: array<T>; // [rows, columns]
@group(1) @binding(0) var<uniform> dims: Dims;

@compute @workgroup_size(256)
fn affine(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>, @builtin(local_invocation_id) lane: vec3<u32>) {
    let at = (group.y * groups.x + group.x) * 256u + lane.x;
    if (at < dims.rows * dims.columns) {
        let c = at % dims.columns;
        y[at] = fma(x[at], gain[c], shift[c]);
    }
}
