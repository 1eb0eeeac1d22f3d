// conv2d/implicit: an implicit matrix product of gathered pixels and filters, with a register tile per lane.
//
// Owns:    an 8 x 8 group a tile of 8 * TM consecutive output pixels x 8 * TN output channels of one group of the convolution; a
//          lane holds TM neighbouring pixels x TN channels, its channels eight apart, so that neighbouring lanes store neighbours.
// Traffic: for every four channels under a tap, TM vectors of pixels and TN vectors of filters for 4 * TM * TN multiply-adds.
// Guards:  pixels and channels past the edge are loaded from the last one that exists and never stored; taps outside the image
//          load the first pixel and count as zero.
// Changed: from naive: each loaded value is used TM or TN times instead of once, loads are vectors along the channels, and a sum
//          is four partial ones until the end. `whole` needs channels that four divides; `ragged` takes any with scalar loads.

const_assert TM >= 1u && TM <= 8u;
const_assert TN >= 1u && TN <= 8u;

@group(0) @binding(0) var<storage, read> x4: array<vec4<T>>; // [n, h, w, c_in / 4], of `whole`
@group(0) @binding(1) var<storage, read> f4: array<vec4<T>>; // [c_out, kh, kw, c_in / groups / 4], of `whole`
@group(0) @binding(0) var<storage, read> x: array<T>; // [n, h, w, c_in], of `ragged`
@group(0) @binding(1) var<storage, read> f: array<T>; // [c_out, kh, kw, c_in / groups], of `ragged`
@group(0) @binding(2) var<storage, read_write> y: array<T>; // [n, oh, ow, c_out]
@group(1) @binding(0) var<uniform> dims: Dims;

struct Tile {
    pixel: u32, // the lane's first output pixel
    channel: u32, // the lane's first output channel
    last: u32, // last output channel of its group of the convolution
    first: u32, // first input channel of that group
}

fn tile_of(group: vec3<u32>, groups: vec3<u32>, local: vec3<u32>) -> Tile {
    let outputs = dims.c_out / dims.groups;
    let across = (outputs + 8u * TN - 1u) / (8u * TN); // tiles of one group of the convolution
    let i = group.y * groups.x + group.x;
    let part = i / across % dims.groups;
    let pixel = (i / (across * dims.groups) * 8u + local.y) * TM;
    return Tile(pixel, part * outputs + i % across * 8u * TN + local.x, part * outputs + outputs - 1u, part * (dims.c_in / dims.groups));
}

fn pixels() -> u32 {
    return dims.n * dims.oh * dims.ow;
}

// Index of the input pixel under tap (r, s) of an output pixel; past the last one where the tap lies outside the image.
fn under(pixel: u32, r: u32, s: u32) -> u32 {
    let i = min(pixel, pixels() - 1u);
    // Above or left of the image wraps round to huge numbers.
    let h = i / dims.ow % dims.oh * dims.stride + r * dims.dilation - dims.padding;
    let w = i % dims.ow * dims.stride + s * dims.dilation - dims.padding;
    let image = i / (dims.ow * dims.oh);
    return select(dims.n * dims.h * dims.w, (image * dims.h + h) * dims.w + w, h < dims.h && w < dims.w);
}

@compute @workgroup_size(8, 8)
fn whole(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
         @builtin(local_invocation_id) local: vec3<u32>) {
    let own = tile_of(group, groups, local);
    if (own.pixel >= pixels() || own.channel > own.last) {
        return;
    }
    let depth = dims.c_in / dims.groups / 4u; // in vectors
    var sum: array<vec4<S>, TM * TN>;
    for (var r = 0u; r < dims.kh; r++) {
        for (var s = 0u; s < dims.kw; s++) {
            var at: array<u32, TM>;
            var scale: array<S, TM>;
            for (var i = 0u; i < TM; i++) {
                let pixel = under(own.pixel + i, r, s);
                let inside = pixel < dims.n * dims.h * dims.w;
                at[i] = (select(0u, pixel, inside) * dims.c_in + own.first) / 4u;
                scale[i] = select(S(0), S(1), inside);
            }
            var filters: array<u32, TN>;
            for (var j = 0u; j < TN; j++) {
                filters[j] = ((min(own.channel + 8u * j, own.last) * dims.kh + r) * dims.kw + s) * depth;
            }
            for (var c = 0u; c < depth; c++) {
                var left: array<vec4<S>, TM>;
                for (var i = 0u; i < TM; i++) {
                    left[i] = vec4<S>(x4[at[i] + c]) * scale[i];
                }
                for (var j = 0u; j < TN; j++) {
                    let right = vec4<S>(f4[filters[j] + c]);
                    for (var i = 0u; i < TM; i++) {
                        sum[i * TN + j] = fma(left[i], right, sum[i * TN + j]);
                    }
                }
            }
        }
    }
    for (var i = 0u; i < TM; i++) {
        for (var j = 0u; j < TN; j++) {
            let v = sum[i * TN + j];
            if (own.pixel + i < pixels() && own.channel + 8u * j <= own.last) {
                y[(own.pixel + i) * dims.c_out + own.channel + 8u * j] = T((v.x + v.y) + (v.z + v.w));
            }
        }
    }
}

@compute @workgroup_size(8, 8)
fn ragged(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
          @builtin(local_invocation_id) local: vec3<u32>) {
    let own = tile_of(group, groups, local);
    if (own.pixel >= pixels() || own.channel > own.last) {
        return;
    }
    let depth = dims.c_in / dims.groups;
    var sum: array<S, TM * TN>;
    for (var r = 0u; r < dims.kh; r++) {
        for (var s = 0u; s < dims.kw; s++) {
            for (var c = 0u; c < depth; c++) {
                var right: array<S, TN>;
                for (var j = 0u; j < TN; j++) {
                    right[j] = S(f[((min(own.channel + 8u * j, own.last) * dims.kh + r) * dims.kw + s) * depth + c]);
                }
                for (var i = 0u; i < TM; i++) {
                    let pixel = under(own.pixel + i, r, s);
                    if (pixel < dims.n * dims.h * dims.w) {
                        let left = S(x[pixel * dims.c_in + own.first + c]);
                        for (var j = 0u; j < TN; j++) {
                            sum[i * TN + j] = fma(left, right[j], sum[i * TN + j]);
                        }
                    }
                }
            }
        }
    }
    for (var i = 0u; i < TM; i++) {
        for (var j = 0u; j < TN; j++) {
            if (own.pixel + i < pixels() && own.channel + 8u * j <= own.last) {
                y[(own.pixel + i) * dims.c_out + own.channel + 8u * j] = T(sum[i * TN + j]);
            }
        }
    }
}
