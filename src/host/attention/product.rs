//! Products of the fused pass: NR columns in two registers, a row of A broadcast element by element.

use crate::host::lanes::Lanes;

/// What the sums of a product begin with, one number a row, and the factor of what is there already; nothing where absent.
pub(super) type Before<V> = (Option<*const f32>, Option<[V; 2]>);

/// `rows` rows of NR sums at `to`: the products of a row of A with the `depth` rows of B, and what was `before`.
/// Element (row, step) of A is `a(row)[step · by.1]`, and a micro-kernel's rows lie `by.0` apart.
#[inline(always)]
pub(super) unsafe fn tiles<V: Lanes<Scalar = f32>, const MR: usize>(
    rows: usize,
    a: impl Fn(usize) -> *const f32,
    by: (usize, usize),
    (b, depth): (*const f32, usize),
    to: *mut f32,
    (start, shrunk): Before<V>,
) {
    let mut row = 0;
    // SAFETY: by the caller's promise.
    unsafe {
        let at = |row: usize| to.add(row * 2 * V::COUNT);
        let before = |row: usize| (start.map(|start| start.add(row)), shrunk);
        while row + MR <= rows {
            product::<V, MR>(a(row), by, b, depth, at(row), before(row));
            row += MR;
        }
        if row + 4 <= rows {
            product::<V, 4>(a(row), by, b, depth, at(row), before(row));
            row += 4;
        }
        if row + 2 <= rows {
            product::<V, 2>(a(row), by, b, depth, at(row), before(row));
            row += 2;
        }
        if row < rows {
            product::<V, 1>(a(row), by, b, depth, at(row), before(row));
        }
    }
}

/// The micro-kernel.
#[inline(always)]
unsafe fn product<V: Lanes<Scalar = f32>, const R: usize>(
    a: *const f32,
    by: (usize, usize),
    b: *const f32,
    depth: usize,
    to: *mut f32,
    (start, shrunk): Before<V>,
) {
    // SAFETY: by the caller's promise.
    unsafe {
        let mut sums = [[V::splat(0.0); 2]; R];
        if let Some(start) = start {
            for row in 0..R {
                sums[row] = [V::broadcast(start.add(row)); 2];
            }
        }
        for step in 0..depth {
            let b = b.add(step * 2 * V::COUNT);
            let (b0, b1) = (V::load(b), V::load(b.add(V::COUNT)));
            let a = a.add(step * by.1);
            for row in 0..R {
                let x = V::broadcast(a.add(row * by.0));
                sums[row][0] = x.mul_add(b0, sums[row][0]);
                sums[row][1] = x.mul_add(b1, sums[row][1]);
            }
        }
        for row in 0..R {
            for half in 0..2 {
                let to = to.add((2 * row + half) * V::COUNT);
                match shrunk {
                    Some(shrunk) => V::load(to).mul_add(shrunk[half], sums[row][half]).store(to),
                    None => sums[row][half].store(to),
                }
            }
        }
    }
}
