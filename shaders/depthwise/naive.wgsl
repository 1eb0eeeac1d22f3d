// depthwise/naive: NHWC, one output element a lane; the bottom rung.
//
// Owns:    256 consecutive outputs a group, channels fastest, so that neighbouring lanes load neighbouring channels.
// Traffic: every lane loads each tap inside the image and its filter element: 2 * k * k loads for k * k multiply-adds.
// Guards:  lanes past the last output return at once; taps outside the image are zero and load nothing.

@group(0) @binding(0) var<storage, read> x: array<T>; // [n, h, w, c]
@group(0) @binding(1) var<storage, read> f: array<T>; // [k, k, c]
@group(0) @binding(2) var<storage, read_write> y: array<T>; // [n, oh, ow, c]
@group(1) @binding(0) var<uniform> dims: Dims;

@compute @workgroup_size(256)
fn depthwise(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
             @builtin(local_invocation_index) local: u32) {
    let i = (group.y * groups.x + group.x) * 256u + local;
    if (i >= dims.n * dims.oh * dims.ow * dims.c) {
        return;
    }
    let channel = i % dims.c;
    let col = i / dims.c % dims.ow;
    let row = i / (dims.c * dims.ow) % dims.oh;
    let image = i / (dims.c * dims.ow * dims.oh);
    var sum = S();
    for (var r = 0u; r < dims.k; r++) {
        // Taps left of or above the image wrap round to huge numbers, so one compare covers both sides.
        let h = row * dims.stride + r * dims.dilation - dims.padding;
        for (var s = 0u; s < dims.k; s++) {
            let w = col * dims.stride + s * dims.dilation - dims.padding;
            if (h < dims.h && w < dims.w) {
                let tap = x[((image * dims.h + h) * dims.w + w) * dims.c + channel];
                sum = fma(S(tap), S(f[(r * dims.k + s) * dims.c + channel]), sum);
            }
        }
    }
    y[i] = T(sum);
}
