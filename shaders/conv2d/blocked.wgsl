// conv2d/blocked: an implicit matrix product with tiles of gathered pixels and of filters in workgroup memory.
//
// Owns:    a (BN / 8) x (BM / 8) group BM consecutive output pixels x BN output channels of one group of the convolution; a lane
//          holds 8 pixels, BM / 8 apart, by 8 channels, BN / 8 apart, so that neighbouring lanes store neighbours.
// Traffic: for every 16 products of a sum a group gathers its tile of pixels and loads its tile of filters once, and a lane reads
//          32 vectors of each from workgroup memory for 1024 multiply-adds.
// Guards:  products, pixels and channels past the edge, and taps outside the image, are loaded as zeros; lanes past the edge store
//          nothing, but meet every barrier.
// Changed: from implicit: a group loads every pixel and filter once a tile instead of once for each of 8 lanes, and the next tile is
//          under way while this one is multiplied. `whole` needs channels that four divides; `ragged` takes any.

const VECTORS: u32 = 4u; // vectors of four products a tile
const LANES: u32 = BM * BN / 64u;
const OWN_X: u32 = BM * VECTORS / LANES; // vectors of pixels that a lane gathers for a tile
const OWN_F: u32 = BN * VECTORS / LANES;
const_assert BM % 32u == 0u && BN % 32u == 0u;
const_assert LANES >= 32u && LANES <= 256u;
const_assert OWN_X * LANES == BM * VECTORS && OWN_F * LANES == BN * VECTORS;

@group(0) @binding(0) var<storage, read> x4: array<vec4<T>>; // [n, h, w, c_in / 4], of `whole`
@group(0) @binding(1) var<storage, read> f4: array<vec4<T>>; // [c_out, kh, kw, c_in / groups / 4], of `whole`
@group(0) @binding(0) var<storage, read> x: array<T>; // [n, h, w, c_in], of `ragged`
@group(0) @binding(1) var<storage, read> f: array<T>; // [c_out, kh, kw, c_in / groups], of `ragged`
@group(0) @binding(2) var<storage, read_write> y: array<T>; // [n, oh, ow, c_out]
@group(1) @binding(0) var<uniform> dims: Dims;

var<workgroup> left: array<vec4<S>, BM * VECTORS>; // [pixel, vector], vectors permuted by `slot`
var<workgroup> right: array<vec4<S>, BN * VECTORS>; // [channel, vector], likewise

struct Tile {
    pixel: u32, // first output pixel
    channel: u32, // first output channel
    end: u32, // one past the last output channel of its group of the convolution
    first: u32, // first input channel of that group
}

fn tile_of(group: vec3<u32>, groups: vec3<u32>) -> Tile {
    let outputs = dims.c_out / dims.groups;
    let across = (outputs + BN - 1u) / BN; // tiles of one group of the convolution
    let i = group.y * groups.x + group.x;
    let part = i / across % dims.groups;
    return Tile(i / (across * dims.groups) * BM, part * outputs + i % across * BN, (part + 1u) * outputs, part * (dims.c_in / dims.groups));
}

// Where vector `vector` of pixel or channel `row` stands, such that eight neighbouring rows use all banks.
fn slot(row: u32, vector: u32) -> u32 {
    return row * VECTORS + (vector ^ (row / 2u % VECTORS));
}

// The image and the corner of the window of an output pixel; a corner far outside where there is no such pixel.
fn corner(pixel: u32) -> vec3<u32> {
    let h = pixel / dims.ow % dims.oh * dims.stride - dims.padding;
    let w = pixel % dims.ow * dims.stride - dims.padding;
    let image = pixel / (dims.ow * dims.oh);
    return vec3(image, select(0x40000000u, h, image < dims.n), w);
}

// Index of the input pixel under tap number `tap`; past the last one where the tap lies outside the image.
fn under(at: vec3<u32>, tap: u32) -> u32 {
    // Above or left of the image wraps round to huge numbers.
    let h = at.y + tap / dims.kw * dims.dilation;
    let w = at.z + tap % dims.kw * dims.dilation;
    return select(dims.n * dims.h * dims.w, (at.x * dims.h + h) * dims.w + w, h < dims.h && w < dims.w);
}

// Puts the vectors that this lane loaded where the group reads them, once all have read what was there.
fn share(lane: u32, from_x: ptr<function, array<vec4<S>, OWN_X>>, from_f: ptr<function, array<vec4<S>, OWN_F>>) {
    workgroupBarrier();
    for (var i = 0u; i < OWN_X; i++) {
        left[slot(lane / VECTORS + LANES / VECTORS * i, lane % VECTORS)] = (*from_x)[i];
    }
    for (var i = 0u; i < OWN_F; i++) {
        right[slot(lane / VECTORS + LANES / VECTORS * i, lane % VECTORS)] = (*from_f)[i];
    }
    workgroupBarrier();
}

// Adds the products of the shared tiles to the lane's sums, [pixel, channel].
fn multiply(local: vec3<u32>, sum: ptr<function, array<S, 64>>) {
    for (var p = 0u; p < VECTORS; p++) {
        var rows: array<vec4<S>, 8>;
        for (var i = 0u; i < 8u; i++) {
            rows[i] = left[slot(local.y + BM / 8u * i, p)];
        }
        for (var j = 0u; j < 8u; j++) {
            let filters = right[slot(local.x + BN / 8u * j, p)];
            for (var i = 0u; i < 8u; i++) {
                var v = (*sum)[i * 8u + j];
                v = fma(rows[i].x, filters.x, v);
                v = fma(rows[i].y, filters.y, v);
                v = fma(rows[i].z, filters.z, v);
                v = fma(rows[i].w, filters.w, v);
                (*sum)[i * 8u + j] = v;
            }
        }
    }
}

fn store(tile: Tile, local: vec3<u32>, sum: ptr<function, array<S, 64>>) {
    for (var i = 0u; i < 8u; i++) {
        for (var j = 0u; j < 8u; j++) {
            let pixel = tile.pixel + local.y + BM / 8u * i;
            let channel = tile.channel + local.x + BN / 8u * j;
            if (pixel < dims.n * dims.oh * dims.ow && channel < tile.end) {
                y[pixel * dims.c_out + channel] = T((*sum)[i * 8u + j]);
            }
        }
    }
}

@compute @workgroup_size(BN / 8u, BM / 8u)
fn whole(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
         @builtin(local_invocation_id) local: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tile = tile_of(group, groups);
    let channels = dims.c_in / dims.groups / 4u; // in vectors, as is `depth`
    let depth = dims.kh * dims.kw * channels;
    var corners: array<vec3<u32>, OWN_X>;
    for (var i = 0u; i < OWN_X; i++) {
        corners[i] = corner(tile.pixel + lane / VECTORS + LANES / VECTORS * i);
    }
    var sum: array<S, 64>;
    var from_x: array<vec4<S>, OWN_X>;
    var from_f: array<vec4<S>, OWN_F>;
    // Trip `first` loads the tile at `first` and multiplies the one before it; the last only multiplies.
    for (var first = 0u; first < depth + VECTORS; first += VECTORS) {
        let at = first + lane % VECTORS;
        for (var i = 0u; i < OWN_X; i++) {
            let pixel = under(corners[i], at / channels);
            from_x[i] = vec4<S>();
            if (at < depth && pixel < dims.n * dims.h * dims.w) {
                from_x[i] = vec4<S>(x4[(pixel * dims.c_in + tile.first) / 4u + at % channels]);
            }
        }
        for (var i = 0u; i < OWN_F; i++) {
            let channel = tile.channel + lane / VECTORS + LANES / VECTORS * i;
            from_f[i] = vec4<S>();
            if (at < depth && channel < tile.end) {
                from_f[i] = vec4<S>(f4[channel * depth + at]);
            }
        }
        if (first > 0u) {
            multiply(local, &sum);
        }
        share(lane, &from_x, &from_f);
    }
    store(tile, local, &sum);
}

@compute @workgroup_size(BN / 8u, BM / 8u)
fn ragged(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
          @builtin(local_invocation_id) local: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tile = tile_of(group, groups);
    let channels = dims.c_in / dims.groups;
    let depth = dims.kh * dims.kw * channels;
    var corners: array<vec3<u32>, OWN_X>;
    for (var i = 0u; i < OWN_X; i++) {
        corners[i] = corner(tile.pixel + lane / VECTORS + LANES / VECTORS * i);
    }
    var sum: array<S, 64>;
    var from_x: array<vec4<S>, OWN_X>;
    var from_f: array<vec4<S>, OWN_F>;
    for (var first = 0u; first < depth + 4u * VECTORS; first += 4u * VECTORS) {
        for (var e = 0u; e < 4u; e++) {
            let at = first + lane % VECTORS * 4u + e;
            for (var i = 0u; i < OWN_X; i++) {
                let pixel = under(corners[i], at / channels);
                from_x[i][e] = S();
                if (at < depth && pixel < dims.n * dims.h * dims.w) {
                    from_x[i][e] = S(x[pixel * dims.c_in + tile.first + at % channels]);
                }
            }
            for (var i = 0u; i < OWN_F; i++) {
                let channel = tile.channel + lane / VECTORS + LANES / VECTORS * i;
                from_f[i][e] = S();
                if (at < depth && channel < tile.end) {
                    from_f[i][e] = S(f[channel * depth + at]);
                }
            }
        }
        if (first > 0u) {
            multiply(local, &sum);
        }
        share(lane, &from_x, &from_f);
    }
    store(tile, local, &sum);
}
