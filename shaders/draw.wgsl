// draw: fills tensors with the bits of `src/draw.rs`, refills them with NaN, and compares them with their draw.
//
// Owns:    a lane every 256 * groups-th word of 32 bits. All arithmetic is on integers, so no device can round, flush or
//          canonicalise differently, and f16 and f64 storage need no device feature.
// Traffic: `fill` stores every word of the tensor once; `compare` loads every word once.
// Guards:  words past the last do nothing; the unused half of an f16 tensor's last word keeps the guard's bits.

struct Params {
    keys: vec4<u32>, // of the tensor, see `draw::keys`
    elements: u32,
    words: u32, // 32-bit words that the elements touch
    dtype: u32, // 0 f32, 1 f64, 2 f16, 3 words
    mode: u32, // 0 dense, 1 exact, 2 NaN
    guard: u32, // the guard's pattern
    // `Fill::words` of src/draw.rs: `Rows`; `Cycle` where there are no keys; no columns but a step for scales; zeros for a plain draw
    columns: u32,
    rows: u32,
    first: u32,
    keys_of_head: u32,
    shift: u32,
    step: u32,
}

@group(0) @binding(0) var<storage, read_write> words: array<u32>;
@group(0) @binding(1) var<uniform> p: Params;
@group(0) @binding(2) var<storage, read_write> wrong: array<atomic<u32>>; // [1], of `compare`

fn mix(v: u32) -> u32 {
    var x = v;
    x ^= x >> 16u;
    x *= 0x7feb352du;
    x ^= x >> 15u;
    x *= 0x846ca68bu;
    return x ^ (x >> 16u);
}

// Element i in units of 2^-22: an integer of at most 24 bits, shifted by at most twice `shift`.
fn element(i: u32) -> i32 {
    if (p.columns == 0u && p.step != 0u) {
        let hash = mix(i + p.keys.x);
        return select(65536 + i32(hash >> 16u), 65536i << (hash >> 31u), p.mode == 1u);
    }
    if (p.mode == 1u && p.columns != 0u) {
        let row = i / p.columns;
        if (p.step == 2u && row % 2u == 1u) {
            return 0;
        }
        let key = (row % p.rows + p.first) % p.keys_of_head;
        let positive = mix((key * p.columns + i % p.columns) ^ 0x2c1b3c6du) >> 31u == 0u;
        return select(-1, 1, positive) * (4194304i << (2u * p.shift));
    }
    if (p.mode == 1u) {
        let step = ((mix(i + p.keys.x) >> 16u) * 129u) >> 16u;
        return (i32(step) - 64) * 65536;
    }
    let sum = (mix(i + p.keys.x) >> 10u) + (mix(i + p.keys.y) >> 10u) + (mix(i + p.keys.z) >> 10u) + (mix(i + p.keys.w) >> 10u);
    return (i32(sum) - 8388608) << p.shift;
}

// The bits of v * 2^-22 as f32: exact, as |v| has at most 24 bits that are not zeros at its end.
fn f32_bits(v: i32) -> u32 {
    if (v == 0) {
        return 0u;
    }
    let m = u32(abs(v));
    let e = firstLeadingBit(m);
    let fraction = select(m << (23u - min(e, 23u)), m >> (max(e, 23u) - 23u), e > 23u);
    return select(0u, 0x80000000u, v < 0) | ((e + 105u) << 23u) | (fraction & 0x7fffffu);
}

// The bits of v * 2^-22 as f16, rounded to nearest, ties to even.
fn f16_bits(v: i32) -> u32 {
    let sign = select(0u, 0x8000u, v < 0);
    let m = u32(abs(v));
    if (m < 256u) {
        return sign | (m << 2u); // below 2^-14: steps of 2^-24
    }
    let e = firstLeadingBit(m);
    var r = 0u; // eleven bits, the leading one included
    if (e <= 10u) {
        r = m << (10u - e);
    } else {
        let drop = e - 10u;
        r = (m + (1u << (drop - 1u)) - 1u + ((m >> drop) & 1u)) >> drop;
    }
    return sign | (((e - 8u) << 10u) + r);
}

// The element of a cycle of lines that element i names.
fn next(i: u32) -> u32 {
    let mask = p.rows - 1u;
    var at = i / p.columns;
    at = (at ^ (at >> p.shift)) * 0x43021123u & mask;
    at = (at ^ (at >> p.shift)) * 0x1d69e2a5u & mask; // the rank
    at = (at + 1u) * 0x7feb352du & mask;
    at = (at ^ (at >> p.shift)) * 0x846ca68bu & mask;
    return (at ^ (at >> p.shift)) * p.columns + i % p.columns;
}

// The bits of element i as f32.
fn drawn(i: u32) -> u32 {
    if (p.columns != 0u && p.keys_of_head == 0u) {
        return 0x3f800000u + 4u * next(i);
    }
    return f32_bits(element(i));
}

// Word w of the tensor.
fn word(w: u32) -> u32 {
    switch p.dtype {
        case 0u: {
            return select(drawn(w), 0x7fc00000u, p.mode == 2u);
        }
        case 1u: {
            let high = (w & 1u) == 1u;
            if (p.mode == 2u) {
                return select(0u, 0x7ff80000u, high);
            }
            let bits = drawn(w >> 1u);
            let low = (bits & 7u) << 29u;
            let top = (bits & 0x80000000u) | (((bits & 0x7fffffffu) >> 3u) + (896u << 20u));
            return select(low, select(top, 0u, bits == 0u), high);
        }
        case 3u: {
            return select(mix(w + p.keys.x), 0xffffffffu, p.mode == 2u);
        }
        default: {
            let i = w * 2u;
            let first = select(f16_bits(element(i)), 0x7e00u, p.mode == 2u);
            let second = select(f16_bits(element(i + 1u)), 0x7e00u, p.mode == 2u);
            return first | select(p.guard & 0xffff0000u, second << 16u, i + 1u < p.elements);
        }
    }
}

@compute @workgroup_size(256)
fn fill(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    for (var w = id.x; w < p.words; w += groups.x * 256u) {
        words[w] = word(w);
    }
}

@compute @workgroup_size(256)
fn compare(@builtin(global_invocation_id) id: vec3<u32>, @builtin(num_workgroups) groups: vec3<u32>) {
    var count = 0u;
    for (var w = id.x; w < p.words; w += groups.x * 256u) {
        let change = words[w] ^ word(w);
        if (p.dtype == 2u) {
            count += u32((change & 0xffffu) != 0u) + u32((change >> 16u) != 0u && w * 2u + 1u < p.elements);
        } else if (p.dtype == 1u) {
            // An element counts once: at its high word, or at its low one if the high word is unchanged.
            let partner = words[w ^ 1u] ^ word(w ^ 1u);
            count += u32(change != 0u && ((w & 1u) == 1u || partner == 0u));
        } else {
            count += u32(change != 0u);
        }
    }
    if (count > 0u) {
        atomicAdd(&wrong[0], count);
    }
}
