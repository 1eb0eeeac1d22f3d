//! Two output rows of a 3×3 filter at a time, in blocks of some columns.

use super::{LINE, Line, Shape, put};
use crate::host::lanes::{Lanes, Scalar, Wide, prefetch};

/// Output columns of most blocks, which have two rows: with 32 registers the sums of six columns stay in them beside the filter.
const WIDE: usize = 6;
const NARROW: usize = 3;
/// Columns by which a pair's new input rows are asked for ahead: three take some hundred cycles, memory some hundreds.
const AHEAD: usize = 9;
/// Elements of a row of zeros, which stands for the one above or below the image. Larger rows at its edge run alone.
pub(super) const ZEROS: usize = 1 << 13;

/// That row.
fn zeros<S: Scalar>() -> *const S {
    #[repr(align(64))]
    struct Row([u64; ZEROS]);
    static ROW: Row = Row([0; ZEROS]);
    ROW.0.as_ptr().cast()
}

/// Columns of both rows that are computed at once: `width` of them from column `z`, and of the width + 2 input columns under
/// them those that lie inside the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    z: usize,
    width: usize,
    inside: (usize, usize),
}

impl Block {
    /// Input and filter elements that it loads for a channel, where so many filter rows lie over the image in either row.
    pub(super) fn loads(&self, taps: [usize; 2]) -> usize {
        let columns = self.inside.1 - self.inside.0;
        // A column at an edge runs row by row.
        if columns < 3 { 2 * columns * (taps[0] + taps[1]) } else { 9 + columns * (taps[0] + taps[1] - 2) }
    }
}

/// How the columns of a pair are cut: a block at either edge takes the column that touches the padding along with two others.
pub(super) fn cut(shape: Shape, registers: usize) -> impl Iterator<Item = Block> {
    let whole = shape.whole();
    let wide = if registers == 32 { WIDE } else { NARROW };
    let taps = move |z: usize| shape.taps(z, shape.w);
    // Two whole columns are left for the block at the right edge.
    let right = (whole.end < shape.ow && taps(whole.end) == (0, 2)) as usize * 2;
    let mut z = 0;
    std::iter::from_fn(move || {
        if z >= shape.ow {
            return None;
        }
        let (left, of) = (whole.end.saturating_sub(z), |width, from, to| Block { z, width, inside: (from, to) });
        let block = if z + 1 == whole.start && taps(z) == (1, 3) && whole.len() >= right + 2 {
            of(NARROW, 1, NARROW + 2)
        } else if z < whole.start || left == 0 {
            let (from, to) = taps(z);
            of(1, from, to)
        } else if right == 2 && left == 2 {
            of(NARROW, 0, NARROW + 1)
        } else {
            let width = [wide, NARROW, 2].into_iter().find(|width| width + right <= left).unwrap_or(1);
            of(width, 0, width + 2)
        };
        z += block.width;
        Some(block)
    })
}

/// Two output rows of a 3×3 filter with stride 1. All of their taps are inside, but for those of one row above or below the image.
pub(super) struct Pair<'a, S>(pub(super) [Line<'a, S>; 2]);

impl<S: Scalar> Pair<'_, S> {
    /// Both rows into `y`.
    #[inline(always)]
    pub(super) unsafe fn columns<V: Lanes<Scalar = S>, const STREAM: bool>(&self, y: *mut S) {
        let shape = self.0[0].shape;
        for Block { z, width, inside } in cut(*shape, V::REGISTERS) {
            // SAFETY: as the caller's, for parts of the rows; the columns named are those inside.
            unsafe {
                let to = y.add(z * shape.c);
                match (width, inside) {
                    (WIDE, _) if V::REGISTERS == 32 => self.block::<V, STREAM, WIDE, 0, 8>(z, to),
                    (NARROW, (0, 5)) => self.block::<V, STREAM, NARROW, 0, 5>(z, to),
                    (NARROW, (1, 5)) => self.block::<V, STREAM, NARROW, 1, 5>(z, to),
                    (NARROW, (0, 4)) => self.block::<V, STREAM, NARROW, 0, 4>(z, to),
                    (2, _) => self.block::<V, STREAM, 2, 0, 4>(z, to),
                    (_, (0, 3)) => self.block::<V, STREAM, 1, 0, 3>(z, to),
                    // A column beside more padding than one, or of an image too narrow for blocks.
                    _ => {
                        for (number, line) in self.0.iter().enumerate() {
                            line.pixels::<V, 1, STREAM>(z, to.add(number * shape.ow * shape.c));
                        }
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
            let column = (z * c).wrapping_sub(s.padding * c);
            // Where the first row has two taps inside, they are its last two.
            let above = (self.0[0].taps < 3) as usize;
            let (x, f) = (x.wrapping_sub(above * row).wrapping_add(column), f.wrapping_sub(above * 3 * c));
            let mut rows = [0, 1, 2, 3].map(|r| x.wrapping_add(r * row));
            if above == 1 {
                rows[0] = zeros::<S>().wrapping_add(column);
            }
            if self.0[1].taps < 3 {
                rows[3] = zeros::<S>().wrapping_add(column);
            }
            let mut at = Step { x: rows, f: [f, f.add(3 * c), f.add(6 * c)], y: [y, y.add(out)] };
            // The rows that the pair before has not met; a register's step of this block asks for W of the block there.
            let mut soon = x.wrapping_add(2 * row + AHEAD * c);
            for _ in 0..c / V::COUNT {
                if s.far && W > 1 {
                    for ahead in [soon, soon.wrapping_add(row)] {
                        for line in 0..(W * V::COUNT * size_of::<S>()).div_ceil(LINE) {
                            prefetch(ahead.wrapping_add(line * (LINE / size_of::<S>())));
                        }
                    }
                    soon = soon.wrapping_add(W * V::COUNT);
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
            inputs!(0: 0 1 2 3 4 5 6 7, 1: 0 1 2 3 4 5 6 7, 2: 0 1 2 3 4 5 6 7, 3: 0 1 2 3 4 5 6 7,);
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
