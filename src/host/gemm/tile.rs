//! The micro-kernel: MR × NR sums in registers, a panel of A against a panel of B.

use std::ops::Range;

use super::pieces::Slice;
use super::{Operands, Target};
use crate::host::lanes::{Lanes, Scalar, each_row, prefetch};
use crate::host::tally;

impl<S: Scalar, O: Operands<S>> Slice<'_, S, O> {
    /// All tiles of a block of the slice: rows that are near together, of these a panel of B at a time.
    #[inline(always)]
    pub(super) unsafe fn block<V: Lanes<Scalar = S>, const MR: usize>(
        &self,
        to: &Target<'_, S>,
        rows: Range<usize>,
        columns: Range<usize>,
    ) {
        debug_assert_eq!((MR, 2 * V::COUNT), (self.blocking.mr, self.blocking.nr));
        let near = self.blocking.near;
        for first in rows.clone().step_by(near) {
            for j in columns.clone().step_by(2 * V::COUNT) {
                for i in (first..rows.end.min(first + near)).step_by(MR) {
                    let extent = (MR.min(rows.end - i), (2 * V::COUNT).min(columns.end - j));
                    // SAFETY: the tile lies in the block, which is the caller's alone.
                    unsafe { self.tile::<V, MR>(to, i, j, extent) };
                }
            }
        }
    }

    /// MR × NR sums at (i, j) of the slice, of which `extent` exist.
    #[inline(always)]
    unsafe fn tile<V: Lanes<Scalar = S>, const MR: usize>(&self, to: &Target<'_, S>, i: usize, j: usize, extent: (usize, usize)) {
        let depth = self.depth.len();
        let first = self.depth.start == 0;
        let column = self.columns.start + j;
        let (start, together) = to.at(self.rows.start + i, column);
        let at = |row: usize| start + row * to.stride;
        // SAFETY: panels i / MR and j / NR hold MR · depth and NR · depth elements; a whole tile lies inside C and inside the unit.
        unsafe {
            for row in 0..extent.0 {
                prefetch(to.c.start.wrapping_add(at(row)));
            }
            let sums = product::<V, MR>(self.a_panels.0.add(i * self.blocking.chunked(depth)), self.b_panels.0.add(j * depth), depth);
            if extent == (MR, 2 * V::COUNT) && together >= 2 * V::COUNT {
                each_row!(row < MR, {
                    let c = to.c.start.add(at(row));
                    let [mut s0, mut s1] = sums[row];
                    if !first {
                        s0 = s0.add(V::load(c));
                        s1 = s1.add(V::load(c.add(V::COUNT)));
                    }
                    s0.store(c);
                    s1.store(c.add(V::COUNT));
                });
                return;
            }
            // An edge: through a buffer of the largest tile.
            let mut whole = [S::zeroed(); 14 * 32];
            each_row!(row < MR, {
                let whole = whole.as_mut_ptr().add(row * 2 * V::COUNT);
                sums[row][0].store(whole);
                sums[row][1].store(whole.add(V::COUNT));
            });
            let mut done = 0;
            while done < extent.1 {
                let (start, together) = to.at(self.rows.start + i, column + done);
                let count = together.min(extent.1 - done);
                for (row, sums) in whole.chunks_exact(2 * V::COUNT).take(extent.0).enumerate() {
                    let at = start + row * to.stride;
                    let c = to.c.slice(at..at + count);
                    if !first {
                        tally::load(c.as_ptr(), c.len());
                    }
                    tally::store(c.as_ptr(), c.len());
                    for (to, sum) in c.iter_mut().zip(&sums[done..]) {
                        *to = if first { *sum } else { *to + *sum };
                    }
                }
                done += count;
            }
        }
    }
}

/// Steps of the micro-kernel between two branches, or a chunk where that has fewer. Where another hardware thread shares the core, it takes
/// half the front end: a step's 20 instructions then take longer than its six cycles of multiply-adds, and the loop's own cost what they can.
const STEPS: usize = 4;
/// Steps by which panels are asked for ahead, out of the second-level cache: a slice deep enough to be worth its packing does not fit the first.
const AHEAD: usize = 32;

/// The micro-kernel: A panel times B panel.
#[inline(always)]
unsafe fn product<V: Lanes, const MR: usize>(mut a: *const V::Scalar, mut b: *const V::Scalar, depth: usize) -> [[V; 2]; MR] {
    // SAFETY: the panels hold MR · depth elements in whole chunks and 2 · COUNT · depth by the caller's promise.
    unsafe {
        let steps = STEPS.min(V::COUNT);
        let mut sums = [[V::splat(bytemuck::Zeroable::zeroed()); 2]; MR];
        for _ in 0..depth / V::COUNT {
            for group in 0..V::COUNT / steps {
                let a = a.add(group * steps);
                for step in 0..steps {
                    if V::REGISTERS == 32 {
                        // About a line of A and two of B a step, in cycles that the loads leave free.
                        let lines = MR.div_ceil(V::COUNT);
                        for line in 0..lines {
                            prefetch(a.wrapping_add(AHEAD * MR + ((group * steps + step) * lines + line) * V::COUNT));
                        }
                        prefetch(b.wrapping_add((AHEAD + step) * 2 * V::COUNT));
                        prefetch(b.wrapping_add((AHEAD + step) * 2 * V::COUNT + V::COUNT));
                    }
                    sums = fold(sums, a.add(step), b.add(step * 2 * V::COUNT));
                }
                b = b.add(steps * 2 * V::COUNT);
            }
            a = a.add(MR * V::COUNT);
        }
        for step in 0..depth % V::COUNT {
            sums = fold(sums, a.add(step), b.add(step * 2 * V::COUNT));
        }
        sums
    }
}

/// One step: a column of a chunk of A, whose rows lie a register apart, times two registers of B.
#[inline(always)]
unsafe fn fold<V: Lanes, const MR: usize>(mut sums: [[V; 2]; MR], a: *const V::Scalar, b: *const V::Scalar) -> [[V; 2]; MR] {
    // SAFETY: by the caller's promise.
    unsafe {
        let (b0, b1) = (V::load(b), V::load(b.add(V::COUNT)));
        each_row!(row < MR, {
            let x = V::broadcast(a.add(row * V::COUNT));
            sums[row][0] = x.mul_add(b0, sums[row][0]);
            sums[row][1] = x.mul_add(b1, sums[row][1]);
        });
        sums
    }
}
