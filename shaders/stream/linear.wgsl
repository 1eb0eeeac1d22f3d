// stream/linear: read, write, copy and triad; the bandwidth ceilings.
//
// Owns:    group g the contiguous part [g * part, (g + 1) * part), which it walks `passes` times, BLOCK vectors of four at a
//          stride. Where a vector is written whole, part borders are rounded up to a vector, so each has one owner.
// Traffic: as the kind says, times `passes`; the vectors at the borders of a `read` part are loaded by both neighbours.
// Guards:  groups past the last part do nothing; the array's last vector is stored by components, and a `read` part takes only
//          its own components of its first and last vector. Backends pad allocations to a whole vector, so loads stay inside.
// Note:    vectors of four because lanes' loads are gathers on software devices and 16 B transactions on hardware; four
//          of each array in flight, all loaded before the first is stored, so that a lane waits for memory once for four. Pass p uses the scalar s + p * step.

const_assert BLOCK >= 1u && BLOCK <= 1024u && (BLOCK & (BLOCK - 1u)) == 0u;

@group(0) @binding(0) var<storage, read> coef: array<T>; // [2]: s, step
@group(0) @binding(1) var<storage, read_write> out: array<vec4<T>>; // [elements], but for `read`
@group(0) @binding(1) var<storage, read_write> sums: array<T>; // [parts], of `read`
@group(0) @binding(2) var<storage, read> a: array<vec4<T>>; // [elements]
@group(0) @binding(3) var<storage, read> b: array<vec4<T>>; // [elements]
@group(1) @binding(0) var<uniform> dims: Dims;

var<workgroup> partial: array<T, BLOCK>;

// First element and end of part g; empty past the last.
fn part_of(g: u32) -> vec2<u32> {
    if (g >= dims.parts || g * dims.part >= dims.elements) {
        return vec2(0u, 0u);
    }
    let first = g * dims.part;
    return vec2(first, first + min(dims.part, dims.elements - first));
}

// The vectors that group g owns as a writer: whole ones in x..y, and in z one more (y) of that many elements.
fn owned(g: u32) -> vec3<u32> {
    let part = part_of(g);
    let first = (part.x + 3u) / 4u;
    let end = (part.y + 3u) / 4u;
    let whole = dims.elements / 4u;
    if (end > whole) {
        return vec3(first, max(first, whole), select(0u, dims.elements % 4u, first <= whole));
    }
    return vec3(first, max(first, end), 0u);
}

// Stores the first `count` components of a vector.
fn store_some(at: u32, value: vec4<T>, count: u32) {
    for (var c = 0u; c < count; c++) {
        out[at][c] = value[c];
    }
}

@compute @workgroup_size(BLOCK)
fn stream_read(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                @builtin(local_invocation_index) local: u32) {
    let g = group.y * groups.x + group.x;
    let part = part_of(g);
    // Whole vectors of the part, and the components before and after them.
    let first = (part.x + 3u) / 4u;
    let end = max(first, part.y / 4u);
    let head_end = min(first * 4u, part.y);
    let tail = max(end * 4u, head_end);
    var s = coef[0];
    var v0 = vec4<T>();
    var v1 = vec4<T>();
    var v2 = vec4<T>();
    var v3 = vec4<T>();
    var edge = T();
    for (var turn = 0u; turn < dims.passes; turn++) {
        let half = T(0.5);
        v0 *= half;
        v1 *= half;
        v2 *= half;
        v3 *= half;
        edge *= half;
        let weight = vec4<T>(s);
        var i = first + local;
        for (; i + 3u * BLOCK < end; i += 4u * BLOCK) {
            v0 = fma(weight, a[i], v0);
            v1 = fma(weight, a[i + BLOCK], v1);
            v2 = fma(weight, a[i + 2u * BLOCK], v2);
            v3 = fma(weight, a[i + 3u * BLOCK], v3);
        }
        for (; i < end; i += BLOCK) {
            v0 = fma(weight, a[i], v0);
        }
        if (local == 0u) {
            for (var e = part.x; e < head_end; e++) {
                edge = fma(s, a[e / 4u][e % 4u], edge);
            }
            for (var e = tail; e < part.y; e++) {
                edge = fma(s, a[e / 4u][e % 4u], edge);
            }
        }
        s += coef[1];
    }
    let v = (v0 + v1) + (v2 + v3);
    partial[local] = ((v.x + v.y) + (v.z + v.w)) + edge;
    for (var n = BLOCK / 2u; n > 0u; n /= 2u) {
        workgroupBarrier();
        if (local < n) {
            partial[local] += partial[local + n];
        }
    }
    if (local == 0u && g < dims.parts) {
        sums[g] = partial[0];
    }
}

@compute @workgroup_size(BLOCK)
fn stream_write(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                @builtin(local_invocation_index) local: u32) {
    let own = owned(group.y * groups.x + group.x);
    var s = coef[0];
    for (var turn = 0u; turn < dims.passes; turn++) {
        for (var i = own.x + local; i < own.y; i += BLOCK) {
            out[i] = vec4<T>(s);
        }
        if (local == 0u) {
            store_some(own.y, vec4<T>(s), own.z);
        }
        s += coef[1];
    }
}

@compute @workgroup_size(BLOCK)
fn stream_copy(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                @builtin(local_invocation_index) local: u32) {
    let own = owned(group.y * groups.x + group.x);
    var s = coef[0];
    for (var turn = 0u; turn < dims.passes; turn++) {
        var i = own.x + local;
        for (; i + 3u * BLOCK < own.y; i += 4u * BLOCK) {
            let a0 = a[i];
            let a1 = a[i + BLOCK];
            let a2 = a[i + 2u * BLOCK];
            let a3 = a[i + 3u * BLOCK];
            out[i] = s * a0;
            out[i + BLOCK] = s * a1;
            out[i + 2u * BLOCK] = s * a2;
            out[i + 3u * BLOCK] = s * a3;
        }
        for (; i < own.y; i += BLOCK) {
            out[i] = s * a[i];
        }
        if (local == 0u && own.z > 0u) {
            store_some(own.y, s * a[own.y], own.z);
        }
        s += coef[1];
    }
}

@compute @workgroup_size(BLOCK)
fn stream_triad(@builtin(workgroup_id) group: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>,
                @builtin(local_invocation_index) local: u32) {
    let own = owned(group.y * groups.x + group.x);
    var s = coef[0];
    for (var turn = 0u; turn < dims.passes; turn++) {
        var i = own.x + local;
        for (; i + 3u * BLOCK < own.y; i += 4u * BLOCK) {
            let a0 = a[i];
            let b0 = b[i];
            let a1 = a[i + BLOCK];
            let b1 = b[i + BLOCK];
            let a2 = a[i + 2u * BLOCK];
            let b2 = b[i + 2u * BLOCK];
            let a3 = a[i + 3u * BLOCK];
            let b3 = b[i + 3u * BLOCK];
            out[i] = fma(vec4<T>(s), a0, b0);
            out[i + BLOCK] = fma(vec4<T>(s), a1, b1);
            out[i + 2u * BLOCK] = fma(vec4<T>(s), a2, b2);
            out[i + 3u * BLOCK] = fma(vec4<T>(s), a3, b3);
        }
        for (; i < own.y; i += BLOCK) {
            out[i] = fma(vec4<T>(s), a[i], b[i]);
        }
        if (local == 0u && own.z > 0u) {
            store_some(own.y, fma(vec4<T>(s), a[own.y], b[own.y]), own.z);
        }
        s += coef[1];
    }
}
