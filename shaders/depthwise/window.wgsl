// depthwise/window: NHWC with registers along a strip of outputs.
//
// Owns:    a lane a strip of consecutive outputs of one image row, in one vector of four channels (`single`: one channel);
//          a group BLOCK such strips, channels fastest, so that neighbouring lanes load neighbouring channels. Strips are as long
//          as leaves LANES of them, but no longer than 16: a small problem needs its lanes more than its reuse.
// Traffic: `three` (k = 3, no dilation) keeps its nine filter vectors and a 3 x 3 window in registers and slides the window:
//          3 * min(stride, 3) loads an output but the first. `strip` and `single` (any filter) load each filter element once for four outputs.
// Guards:  lanes past the last strip return at once; strips stop at the row's end; taps outside the image are zero.
// Changed: from naive: filters are loaded once a strip instead of once an output, and, with k = 3, every input once a row of
//          taps; loads and stores are vectors. `single` is for channel counts that four does not divide.

const_assert LANES >= 1u;
const_assert BLOCK >= 1u && BLOCK <= 1024u;

@group(0) @binding(0) var<storage, read> x4: array<vec4<T>>; // [n, h, w, c / 4]
@group(0) @binding(1) var<storage, read> f4: array<vec4<T>>; // [k, k, c / 4]
@group(0) @binding(2) var<storage, read_write> y4: array<vec4<T>>; // [n, oh, ow, c / 4]
@group(0) @binding(0) var<storage, read> x: array<T>; // [n, h, w, c], of `single`
@group(0) @binding(1) var<storage, read> f: array<T>; // [k, k, c], of `single`
@group(0) @binding(2) var<storage, read_write> y: array<T>; // [n, oh, ow, c], of `single`
@group(1) @binding(0) var<uniform> dims: Dims;

struct Strip {
    channel: u32, // in units of the lane's width
    first: u32, // first output column
    end: u32, // one past its last; equal to `first` where there is no such strip
    row: u32, // output row
    image: u32,
}

// Strip number i when there are `channels` units of channels; its length is a multiple of `step`.
fn strip_of(i: u32, channels: u32, step: u32) -> Strip {
    let length = (clamp(dims.n * dims.oh * dims.ow * channels / LANES, 1u, 16u) + step - 1u) / step * step;
    let strips = (dims.ow + length - 1u) / length;
    let first = i / channels % strips * length;
    let line = i / (channels * strips);
    let end = select(first, min(first + length, dims.ow), line < dims.n * dims.oh);
    return Strip(i % channels, first, end, line % dims.oh, line / dims.oh);
}

// One vector of the input, zero outside it. Rows and columns above or left of the image wrap round to huge numbers.
fn tap(image: u32, h: u32, w: u32, channel: u32) -> vec4<S> {
    if (h < dims.h && w < dims.w) {
        return vec4<S>(x4[((image * dims.h + h) * dims.w + w) * (dims.c / 4u) + channel]);
    }
    return vec4<S>();
}

@compute @workgroup_size(BLOCK)
fn three(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
         @builtin(local_invocation_index) local: u32) {
    let channels = dims.c / 4u;
    let own = strip_of((group.y * groups.x + group.x) * BLOCK + local, channels, 1u);
    if (own.first >= own.end) {
        return;
    }
    var filters: array<vec4<S>, 9>;
    for (var t = 0u; t < 9u; t++) {
        filters[t] = vec4<S>(f4[t * channels + own.channel]);
    }
    let top = own.row * dims.stride - dims.padding;
    var w = own.first * dims.stride - dims.padding;
    // Column s of the window is window[s * 3 + r].
    var window: array<vec4<S>, 9>;
    for (var t = 0u; t < 9u; t++) {
        window[t] = tap(own.image, top + t % 3u, w + t / 3u, own.channel);
    }
    var at = ((own.image * dims.oh + own.row) * dims.ow + own.first) * channels + own.channel;
    for (var col = own.first; col < own.end; col++) {
        var sum = vec4<S>();
        for (var t = 0u; t < 9u; t++) {
            sum = fma(window[t % 3u * 3u + t / 3u], filters[t], sum);
        }
        y4[at] = vec4<T>(sum);
        at += channels;
        if (col + 1u == own.end) {
            break;
        }
        // Slide: min(stride, 3) columns are new.
        w += dims.stride;
        if (dims.stride == 1u) {
            for (var t = 0u; t < 6u; t++) {
                window[t] = window[t + 3u];
            }
        } else {
            for (var r = 0u; r < 3u; r++) {
                if (dims.stride == 2u) {
                    window[r] = window[r + 6u];
                } else {
                    window[r] = tap(own.image, top + r, w, own.channel);
                }
                window[r + 3u] = tap(own.image, top + r, w + 1u, own.channel);
            }
        }
        for (var r = 0u; r < 3u; r++) {
            window[r + 6u] = tap(own.image, top + r, w + 2u, own.channel);
        }
    }
}

@compute @workgroup_size(BLOCK)
fn strip(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
         @builtin(local_invocation_index) local: u32) {
    let channels = dims.c / 4u;
    let own = strip_of((group.y * groups.x + group.x) * BLOCK + local, channels, 4u);
    let line = (own.image * dims.oh + own.row) * dims.ow;
    for (var col = own.first; col < own.end; col += 4u) {
        var sum: array<vec4<S>, 4>;
        for (var r = 0u; r < dims.k; r++) {
            let h = own.row * dims.stride + r * dims.dilation - dims.padding;
            for (var s = 0u; s < dims.k; s++) {
                let weight = vec4<S>(f4[(r * dims.k + s) * channels + own.channel]);
                for (var o = 0u; o < 4u; o++) {
                    let w = (col + o) * dims.stride + s * dims.dilation - dims.padding;
                    sum[o] = fma(tap(own.image, h, w, own.channel), weight, sum[o]);
                }
            }
        }
        for (var o = 0u; o < 4u; o++) {
            if (col + o < own.end) {
                y4[(line + col + o) * channels + own.channel] = vec4<T>(sum[o]);
            }
        }
    }
}

@compute @workgroup_size(BLOCK)
fn single(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
          @builtin(local_invocation_index) local: u32) {
    let own = strip_of((group.y * groups.x + group.x) * BLOCK + local, dims.c, 4u);
    let line = (own.image * dims.oh + own.row) * dims.ow;
    for (var col = own.first; col < own.end; col += 4u) {
        var sum: array<S, 4>;
        for (var r = 0u; r < dims.k; r++) {
            let h = own.row * dims.stride + r * dims.dilation - dims.padding;
            for (var s = 0u; s < dims.k; s++) {
                let weight = S(f[(r * dims.k + s) * dims.c + own.channel]);
                for (var o = 0u; o < 4u; o++) {
                    let w = (col + o) * dims.stride + s * dims.dilation - dims.padding;
                    if (h < dims.h && w < dims.w) {
                        let value = S(x[((own.image * dims.h + h) * dims.w + w) * dims.c + own.channel]);
                        sum[o] = fma(value, weight, sum[o]);
                    }
                }
            }
        }
        for (var o = 0u; o < 4u; o++) {
            if (col + o < own.end) {
                y[(line + col + o) * dims.c + own.channel] = T(sum[o]);
            }
        }
    }
}
