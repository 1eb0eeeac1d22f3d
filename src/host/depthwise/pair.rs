//! Two output rows of a 3×3 filter at a time, in blocks of three columns.

use super::{LINE, Line, put};
use crate::host::lanes::{Lanes, Scalar, Wide, prefetch};

/// Output columns of a block, which has two rows.
pub(super) const BLOCK: usize = 3;
/// Blocks by which a pair's new input rows are asked for ahead: a block takes some hundred cycles, memory some hundreds.
const AHEAD: usize = 3;

/// Two output rows of a 3×3 filter with stride 1, all of whose taps are inside.
pub(super) struct Pair<'a, S>(pub(super) [Line<'a, S>; 2]);

impl<S: Scalar> Pair<'_, S> {
    /// Both rows into `y`.
    #[inline(always)]
    pub(super) unsafe fn columns<V: Lanes<Scalar = S>, const STREAM: bool>(&self, y: *mut S) {
        let shape = self.0[0].shape;
        let (c, whole) = (shape.c, shape.whole());
        // SAFETY: as the caller's, for parts of the rows.
        unsafe {
            for z in 0..whole.start {
                self.edge::<V, STREAM>(z, y.add(z * c));
            }
            let mut z = whole.start;
            while z + BLOCK <= whole.end {
                self.block::<V, STREAM, BLOCK, 0, 5>(z, y.add(z * c));
                z += BLOCK;
            }
            for z in z..whole.end {
                self.block::<V, STREAM, 1, 0, 3>(z, y.add(z * c));
            }
            for z in whole.end..shape.ow {
                self.edge::<V, STREAM>(z, y.add(z * c));
            }
        }
    }

    /// Both rows of a column whose taps are not all inside.
    #[inline(always)]
    unsafe fn edge<V: Lanes<Scalar = S>, const STREAM: bool>(&self, z: usize, y: *mut S) {
        let shape = self.0[0].shape;
        // SAFETY: as the caller's; the taps named are those inside.
        unsafe {
            match shape.taps(z, shape.w) {
                (1, 3) => self.block::<V, STREAM, 1, 1, 3>(z, y),
                (0, 2) => self.block::<V, STREAM, 1, 0, 2>(z, y),
                // More padding than one.
                _ => {
                    for (number, line) in self.0.iter().enumerate() {
                        line.pixels::<V, 1, STREAM>(z, y.add(number * shape.ow * shape.c));
                    }
                }
            }
        }
    }

    /// Both rows of W columns from `z`, all channels. Of the W + 2 input columns under them, FROM..TO are inside the image.
    #[inline(always)]
    unsafe fn block<V: Lanes<Scalar = S>, const STREAM: bool, const W: usize, const FROM: usize, const TO: usize>(
        &self,
        z: usize,
        y: *mut S,
    ) {
        let Line { shape: s, x, f, .. } = self.0[0];
        let (c, row, out) = (s.c, s.w * s.c, s.ow * s.c);
        // SAFETY: the columns read are inside the image; channels stay below c; a prefetch may name any address.
        unsafe {
            // Pointers that move with the channel: the columns are at fixed multiples of c from them.
            let x = x.wrapping_add(z * c).wrapping_sub(s.padding * c);
            let mut at = Step { x: [0, 1, 2, 3].map(|r| x.wrapping_add(r * row)), f: [f, f.add(3 * c), f.add(6 * c)], y: [y, y.add(out)] };
            // The rows that the pair before has not met; a register's step of this block asks for three of that block.
            let mut soon = x.wrapping_add(2 * row + AHEAD * BLOCK * c);
            for _ in 0..c / V::COUNT {
                if W == BLOCK {
                    for ahead in [soon, soon.wrapping_add(row)] {
                        for line in 0..(BLOCK * V::COUNT * size_of::<S>()).div_ceil(LINE) {
                            prefetch(ahead.wrapping_add(line * (LINE / size_of::<S>())));
                        }
                    }
                    soon = soon.wrapping_add(BLOCK * V::COUNT);
                }
                at.outputs::<V, STREAM, W, FROM, TO>(c);
                at.advance(V::COUNT);
            }
            for _ in 0..c % V::COUNT {
                at.outputs::<Wide<S, 1>, false, W, FROM, TO>(c);
                at.advance(1);
            }
        }
    }
}

/// A channel of a block: its input rows, filter rows and output rows.
struct Step<S> {
    x: [*const S; 4],
    f: [*const S; 3],
    y: [*mut S; 2],
}

impl<S: Scalar> Step<S> {
    #[inline(always)]
    fn advance(&mut self, channels: usize) {
        self.x = self.x.map(|p| p.wrapping_add(channels));
        self.f = self.f.map(|p| p.wrapping_add(channels));
        self.y = self.y.map(|p| p.wrapping_add(channels));
    }

    /// COUNT channels of the two times W outputs.
    #[inline(always)]
    unsafe fn outputs<V: Lanes<Scalar = S>, const STREAM: bool, const W: usize, const FROM: usize, const TO: usize>(&self, c: usize) {
        // SAFETY: by the caller's promise.
        unsafe {
            let zero = V::splat(S::zeroed());
            let mut weight = [zero; 9];
            for tap in 0..9 {
                weight[tap] = V::load(self.f[tap / 3].add(tap % 3 * c));
            }
            let mut sums = [[zero; W]; 2];
            macro_rules! inputs {
                ($($r:literal: $($t:literal)*,)*) => {
                    $($(if (FROM..TO).contains(&$t) {
                        spread::<V, W, $r, $t>(&mut sums, V::load(self.x[$r].add($t * c)), &weight);
                    })*)*
                };
            }
            inputs!(0: 0 1 2 3 4, 1: 0 1 2 3 4, 2: 0 1 2 3 4, 3: 0 1 2 3 4,);
            for i in 0..2 {
                for q in 0..W {
                    put::<V, STREAM>(sums[i][q], self.y[i].add(q * c));
                }
            }
        }
    }
}

/// Adds the input at row R and column T under a block to each output that it is a tap of.
#[inline(always)]
unsafe fn spread<V: Lanes, const W: usize, const R: usize, const T: usize>(sums: &mut [[V; W]; 2], input: V, weight: &[V; 9]) {
    for i in 0..2 {
        for q in 0..W {
            if (i..i + 3).contains(&R) && (q..q + 3).contains(&T) {
                // SAFETY: by the caller's promise that the CPU has V.
                sums[i][q] = unsafe { input.mul_add(weight[3 * (R - i) + T - q], sums[i][q]) };
            }
        }
    }
}
