// conv2d/naive: NHWC, filters KRSC, one output element a lane; the bottom rung.
//
// Owns:    256 consecutive outputs a group, channels fastest.
// Traffic: every lane loads each channel under each tap inside the image and its filter element: two loads a multiply-add.
// Guards:  lanes past the last output return at once; taps outside the image are zero and load nothing.

@group(0) @binding(0) var<storage, read> x: array<T>; // [n, h, w, c_in]
@group(0) @binding(1) var<storage, read> f: array<T>; // [c_out, kh, kw, c_in / groups]
@group(0) @binding(2) var<storage, read_write> y: array<T>; // [n, oh, ow, c_out]
@group(1) @binding(0) var<uniform> dims: Dims;

@compute @workgroup_size(256)
fn conv2d(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
          @builtin(local_invocation_index) local: u32) {
    let i = (group.y * groups.x + group.x) * 256u + local;
    if (i >= dims.n * dims.oh * dims.ow * dims.c_out) {
        return;
    }
    let channel = i % dims.c_out;
    let col = i / dims.c_out % dims.ow;
    let row = i / (dims.c_out * dims.ow) % dims.oh;
    let image = i / (dims.c_out * dims.ow * dims.oh);
    let depth = dims.c_in / dims.groups;
    let first = channel / (dims.c_out / dims.groups) * depth; // the group's first input channel
    var sum = S();
    for (var r = 0u; r < dims.kh; r++) {
        // Taps left of or above the image wrap round to huge numbers, so one compare covers both sides.
        let h = row * dims.stride + r * dims.dilation - dims.padding;
        for (var s = 0u; s < dims.kw; s++) {
            let w = col * dims.stride + s * dims.dilation - dims.padding;
            if (h < dims.h && w < dims.w) {
                let pixel = ((image * dims.h + h) * dims.w + w) * dims.c_in + first;
                let filters = ((channel * dims.kh + r) * dims.kw + s) * depth;
                for (var c = 0u; c < depth; c++) {
                    sum = fma(S(x[pixel + c]), S(f[filters + c]), sum);
                }
            }
        }
    }
    y[i] = T(sum);
}
