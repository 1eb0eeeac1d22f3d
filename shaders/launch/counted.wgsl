// launch/counted: one dispatch after the other, each adding one to a number; what a dispatch costs that does nothing.
//
// Owns:    the first lane of the one group the number; the others do nothing.
// Traffic: one element each way.
// Guards:  a dispatch waits for the one before it, for both touch `count`.
// Note:    one dispatch more or fewer shows in the value.

const_assert BLOCK >= 1u && BLOCK <= 1024u;

@group(0) @binding(0) var<storage, read> x: array<T>; // [1]
@group(0) @binding(1) var<storage, read_write> y: array<T>; // [1]
@group(0) @binding(2) var<storage, read_write> count: array<T>; // [1], of `first` and `next`
@group(0) @binding(2) var<storage, read> counted: array<T>; // [1], of `last`
@group(1) @binding(0) var<uniform> dims: Dims;

@compute @workgroup_size(BLOCK)
fn first(@builtin(local_invocation_index) local: u32) {
    if (local == 0u) {
        count[0] = x[0];
    }
}

@compute @workgroup_size(BLOCK)
fn next(@builtin(local_invocation_index) local: u32) {
    if (local == 0u) {
        count[0] += T(1);
    }
}

@compute @workgroup_size(BLOCK)
fn last(@builtin(local_invocation_index) local: u32) {
    if (local == 0u) {
        y[0] = counted[0] + T(1);
    }
}
