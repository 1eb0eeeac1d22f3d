//! Bands of output rows of a 3×3 filter, in blocks of some columns whose sums stay in registers.

use std::array::from_fn;
use std::ops::Range;

use super::{LINE, Line, Shape, put};
use crate::host::Isa;
use crate::host::lanes::{Kernel, Lanes, Scalar, Wide, dispatch, prefetch};

/// Most rows of a band and columns of a block: their sums, the filter's nine registers and an input fit the registers. A band of four loads six
/// input rows from the cache behind, two bands of two load eight. From memory narrow blocks leave the first-level cache room for what is asked for
/// ahead.
const fn most(registers: usize, far: bool) -> (usize, usize) {
    match (registers, far) {
        (32, false) => (ROWS, COLUMNS),
        (32, true) => (ROWS, 2),
        _ => (2, 3),
    }
}
/// Rows of the largest band, input rows under it, and columns of the largest block.
const ROWS: usize = 4;
const UNDER: usize = ROWS + 2;
const COLUMNS: usize = 4;
/// Bytes of each of a band's new input rows that are asked for ahead, from where a block begins: those of its own columns at least. More drive out of
/// the first-level cache what is asked for.
const AHEAD: usize = 2304;
/// Most registers of channels that a row's blocks take before the next channels, out of caches: what blocks side by side share then stays in the
/// first-level cache, as does the filter. Fewer make more calls of a micro-kernel.
const PIECE: usize = 12;
/// Elements of a row of zeros, which stands for the one above or below the image. Larger rows at its edge run alone.
pub(super) const ZEROS: usize = 1 << 13;

/// That row.
fn zeros<S: Scalar>() -> *const S {
    #[repr(align(64))]
    struct Row([u64; ZEROS]);
    static ROW: Row = Row([0; ZEROS]);
    ROW.0.as_ptr().cast()
}

/// Bands that so many rows of each image are cut into, as evenly as can be, and the rows that they take: few, which are high, but so that all
/// workers get as many rows. No band is a single row. `others` are the image's units beside them.
pub(super) fn bands(rows: usize, others: usize, images: usize, workers: usize, registers: usize) -> (usize, usize) {
    let (fewest, most) = (rows.div_ceil(most(registers, false).0), rows / 2);
    if registers != 32 || most == 0 {
        return (most, 2 * most);
    }
    // Rows of the worker with the most units.
    let longest = |bands: usize| (images * (others + bands)).div_ceil(workers) as f64 * rows as f64 / bands as f64;
    let tried = if images * fewest < 8 * workers { fewest..=most } else { fewest..=fewest };
    (tried.min_by(|&a, &b| longest(a).total_cmp(&longest(b))).unwrap_or(most), rows)
}

/// Columns of all rows of a band that are computed at once: `width` of them from column `z`, and of the width + 2 input columns under
/// them those that lie inside the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    z: usize,
    width: usize,
    inside: (usize, usize),
}

impl Block {
    /// Input and filter elements that it loads for a channel, where so many filter rows lie over the image in each row.
    pub(super) fn loads(&self, taps: impl Iterator<Item = usize>) -> usize {
        let columns = self.inside.1 - self.inside.0;
        match self.width {
            // A single column runs row by row.
            1 => 2 * columns * taps.sum::<usize>(),
            // Rows overlap in two of three.
            _ => 9 + columns * (2 + taps.map(|taps| taps - 2).sum::<usize>()),
        }
    }
}

/// How the columns of a band are cut: a block at either edge takes the column that touches the padding along with others.
pub(super) fn cut(shape: Shape, registers: usize) -> impl Iterator<Item = Block> {
    let whole = shape.whole();
    let widest = most(registers, shape.far).1;
    let taps = move |z: usize| shape.taps(z, shape.w);
    let left = !whole.is_empty() && whole.start > 0 && taps(whole.start - 1) == (1, 3);
    let right = !whole.is_empty() && whole.end < shape.ow && taps(whole.end) == (0, 2);
    let blocks = whole.start - left as usize..whole.end + right as usize;
    let mut z = 0;
    std::iter::from_fn(move || {
        if z >= shape.ow {
            return None;
        }
        let mut width = match blocks.end.saturating_sub(z) {
            _ if z < blocks.start => 1,
            // What is left is never a single column.
            left if left == widest + 1 => {
                if widest == 2 {
                    3
                } else {
                    widest - 1
                }
            }
            left => left.clamp(1, widest),
        };
        let edges = |width: usize| ((z < whole.start) as usize, (z + width > whole.end) as usize);
        if width > 1 && edges(width) == (1, 1) {
            width -= width / 2; // no block touches both
        }
        let inside = if width == 1 { taps(z) } else { (edges(width).0, width + 2 - edges(width).1) };
        let block = Block { z, width, inside };
        z += width;
        Some(block)
    })
}

/// Blocks of the same width and edges side by side: the first, and how many.
pub(super) fn runs(shape: Shape, registers: usize) -> Vec<(Block, usize)> {
    let mut runs: Vec<(Block, usize)> = Vec::new();
    for block in cut(shape, registers) {
        match runs.last_mut() {
            Some((first, times)) if first.width > 1 && (first.width, first.inside) == (block.width, block.inside) => *times += 1,
            _ => runs.push((block, 1)),
        }
    }
    runs
}

/// Output rows of a 3×3 filter with stride 1. All of their taps are inside, but for those of one row above or below the image.
pub(super) struct Band<'a, S, const R: usize>(pub(super) [Line<'a, S>; R]);

impl<S: Scalar, const R: usize> Band<'_, S, R> {
    /// All rows into `y`, cut into these runs.
    #[inline(always)]
    pub(super) unsafe fn columns<V: Lanes<Scalar = S>, const STREAM: bool>(&self, isa: Isa, runs: &[(Block, usize)], y: *mut S) {
        let shape = self.0[0].shape;
        let pieces = if V::REGISTERS == 32 && !shape.far { shape.c.div_ceil(PIECE * V::COUNT) } else { 1 };
        let piece = shape.c.div_ceil(pieces).next_multiple_of(V::COUNT);
        let mut from = 0;
        while from < shape.c {
            let channels = from..shape.c.min(from + piece);
            for &(block, times) in runs {
                // SAFETY: as the caller's, for parts of the rows.
                unsafe {
                    let to = y.add(block.z * shape.c);
                    match block.width {
                        2 => self.run::<STREAM, 2>(isa, block, times, &channels, to, V::COUNT),
                        3 => self.run::<STREAM, 3>(isa, block, times, &channels, to, V::COUNT),
                        4 => self.run::<STREAM, 4>(isa, block, times, &channels, to, V::COUNT),
                        // A column beside more padding than one, or of an image too narrow for blocks: all its channels at once.
                        _ if from == 0 => {
                            for (number, line) in self.0.iter().enumerate() {
                                line.pixels::<V, 1, STREAM>(block.z, to.add(number * shape.ow * shape.c));
                            }
                        }
                        _ => {}
                    }
                }
            }
            from = channels.end;
        }
    }

    /// These channels of all rows of so many blocks of W columns side by side, the first of them given; `count` channels at a time.
    unsafe fn run<const STREAM: bool, const W: usize>(
        &self,
        isa: Isa,
        Block { z, inside, .. }: Block,
        times: usize,
        channels: &Range<usize>,
        y: *mut S,
        count: usize,
    ) {
        let Line { shape: s, x, f, .. } = self.0[0];
        let (c, row, out) = (s.c, s.w * s.c, s.ow * s.c);
        // Pointers that move with the channel: the columns are at fixed multiples of c from them.
        let column = (z * c).wrapping_sub(s.padding * c).wrapping_add(channels.start);
        // Where the first row has two taps inside, they are its last two.
        let above = (self.0[0].taps < 3) as usize;
        let x = x.wrapping_sub(above * row).wrapping_add(column);
        let f = f.wrapping_sub(above * 3 * c).wrapping_add(channels.start);
        let y = y.wrapping_add(channels.start);
        let mut rows: [*const S; UNDER] = from_fn(|r| x.wrapping_add(r * row));
        if above == 1 {
            rows[0] = zeros::<S>().wrapping_add(column);
        }
        if self.0[R - 1].taps < 3 {
            rows[R + 1] = zeros::<S>().wrapping_add(column);
        }
        let step = Step { x: rows, f: from_fn(|r| f.wrapping_add(3 * c * r)), y: from_fn(|r| y.wrapping_add(r * out)), c };
        let (steps, rest) = (channels.len() / count, channels.len() % count);
        let ahead = s.far.then(|| {
            let (at, skip) = (z * c + (AHEAD / size_of::<S>()).max((W + 1) * c), (R - 1) * row);
            let soon = x.wrapping_sub(column).wrapping_add(2 * row + at + if at < row { 0 } else { skip });
            Ahead { soon, row, left: row.saturating_sub(at), skip }
        });
        // SAFETY: the columns read are inside the image; channels stay below c.
        unsafe {
            Self::sums::<STREAM, W>(isa, inside, step, (times, steps), ahead);
            if rest > 0 && c >= count {
                // A last register, which overlaps the one before: all of those in this piece or the last of the piece before.
                let last = step.advanced((steps * count + rest).wrapping_sub(count));
                Self::sums::<STREAM, W>(isa, inside, last, (times, 1), None);
            } else if rest > 0 {
                (0..times).for_each(|block| step.over(block * W * c).singly(rest, (R, W), inside));
            }
        }
    }

    /// So many blocks side by side of so many registers of channels.
    unsafe fn sums<const STREAM: bool, const W: usize>(
        isa: Isa,
        inside: (usize, usize),
        step: Step<S>,
        (times, steps): (usize, usize),
        ahead: Option<Ahead<S>>,
    ) {
        match inside {
            (0, to) if to == W + 2 => dispatch(isa, Sums::<S, STREAM, R, W, 0, 0> { step, times, steps, ahead }),
            (0, _) => dispatch(isa, Sums::<S, STREAM, R, W, 0, 1> { step, times, steps, ahead }),
            _ => dispatch(isa, Sums::<S, STREAM, R, W, 1, 0> { step, times, steps, ahead }),
        }
    }
}

/// A channel of a block: the input rows under it, filter rows and output rows.
#[derive(Clone, Copy)]
struct Step<S> {
    x: [*const S; UNDER],
    f: [*const S; 3],
    y: [*mut S; ROWS],
    c: usize,
}

impl<S: Scalar> Step<S> {
    #[inline(always)]
    fn advanced(self, channels: usize) -> Self {
        Step { f: self.f.map(|p| p.wrapping_add(channels)), ..self.over(channels) }
    }

    /// The same channel so many elements on.
    #[inline(always)]
    fn over(self, elements: usize) -> Self {
        Step { x: self.x.map(|p| p.wrapping_add(elements)), y: self.y.map(|p| p.wrapping_add(elements)), ..self }
    }

    /// So many channels one by one: those past the last whole register.
    unsafe fn singly(mut self, channels: usize, (rows, columns): (usize, usize), inside: (usize, usize)) {
        for _ in 0..channels {
            // SAFETY: by the caller's promise.
            unsafe {
                let at = |p: *const S| Wide::<S, 1>::load(p);
                let weight: [_; 9] = from_fn(|tap| at(self.f[tap / 3].add(tap % 3 * self.c)));
                let mut sums = [[Wide::<S, 1>::splat(S::zeroed()); COLUMNS]; ROWS];
                for (y, row) in self.x.iter().enumerate().take(rows + 2) {
                    for t in inside.0..inside.1 {
                        let input = at(row.add(t * self.c));
                        for i in y.saturating_sub(2)..rows.min(y + 1) {
                            for q in t.saturating_sub(2)..columns.min(t + 1) {
                                sums[i][q] = input.mul_add(weight[3 * (y - i) + t - q], sums[i][q]);
                            }
                        }
                    }
                }
                for (row, sums) in self.y.iter().zip(&sums).take(rows) {
                    for (q, sum) in sums.iter().enumerate().take(columns) {
                        sum.store(row.add(q * self.c));
                    }
                }
            }
            self = self.advanced(1);
        }
    }
}

/// The micro-kernel: R times W outputs of a register of channels, `steps` registers one after the other, in so many blocks side by side.
/// LEFT and RIGHT are 1 where the first or the last input column under them lies outside the image.
struct Sums<S, const STREAM: bool, const R: usize, const W: usize, const LEFT: usize, const RIGHT: usize> {
    step: Step<S>,
    times: usize,
    steps: usize,
    ahead: Option<Ahead<S>>,
}

/// What is asked for ahead: of the rows that the band before has not met, and past their end of those that come next.
struct Ahead<S> {
    /// The next element of the first of these rows.
    soon: *const S,
    /// Elements of a row, how many of them are left, and how many to skip then.
    row: usize,
    left: usize,
    skip: usize,
}

impl<S> Ahead<S> {
    /// Asks for so many elements of R rows.
    #[inline(always)]
    fn ask<const R: usize>(&mut self, elements: usize) {
        let line = LINE / size_of::<S>();
        for (r, at) in (0..R).flat_map(|r| (0..elements.div_ceil(line)).map(move |at| (r, at))) {
            prefetch(self.soon.wrapping_add(r * self.row + at * line));
        }
        self.soon = self.soon.wrapping_add(elements);
        if self.left > 0 && self.left <= elements {
            self.soon = self.soon.wrapping_add(self.skip);
        }
        self.left = self.left.saturating_sub(elements);
    }
}

impl<S: Scalar, const STREAM: bool, const R: usize, const W: usize, const LEFT: usize, const RIGHT: usize> Kernel<S>
    for Sums<S, STREAM, R, W, LEFT, RIGHT>
{
    #[inline(always)]
    unsafe fn run<V: Lanes<Scalar = S>>(self) {
        // Blocks of more sums are planned for 32 registers alone: elsewhere nothing of them is compiled.
        assert!(R * W <= 6 || V::REGISTERS == 32, "{R} x {W} sums need 32 registers");
        let Sums { step: mut block, times, steps, mut ahead } = self;
        let c = block.c;
        for _ in 0..times {
            let mut step = block;
            for _ in 0..steps {
                if let Some(ahead) = &mut ahead {
                    // A register's step asks for W of the block there.
                    ahead.ask::<R>(W * V::COUNT);
                }
                // SAFETY: by the caller's promise.
                unsafe {
                    let zero = V::splat(S::zeroed());
                    let mut weight = [zero; 9];
                    for tap in 0..9 {
                        weight[tap] = V::load(step.f[tap / 3].add(tap % 3 * c));
                    }
                    let mut sums = [[zero; W]; R];
                    macro_rules! inputs {
                        ($($y:literal: $($t:literal)*,)*) => {
                            $($(if $y < R + 2 && $t >= LEFT && $t < W + 2 - RIGHT {
                                spread::<V, R, W, $y, $t>(&mut sums, V::load(step.x[$y].add($t * c)), &weight);
                            })*)*
                        };
                    }
                    inputs!(0: 0 1 2 3 4 5, 1: 0 1 2 3 4 5, 2: 0 1 2 3 4 5, 3: 0 1 2 3 4 5, 4: 0 1 2 3 4 5, 5: 0 1 2 3 4 5,);
                    for i in 0..R {
                        for q in 0..W {
                            put::<V, STREAM>(sums[i][q], step.y[i].add(q * c));
                        }
                    }
                }
                step = step.advanced(V::COUNT);
            }
            block = block.over(W * c);
        }
    }
}

/// Adds the input at row Y and column T under a block to each output that it is a tap of.
#[inline(always)]
unsafe fn spread<V: Lanes, const R: usize, const W: usize, const Y: usize, const T: usize>(
    sums: &mut [[V; W]; R],
    input: V,
    weight: &[V; 9],
) {
    for i in Y.saturating_sub(2)..R.min(Y + 1) {
        for q in T.saturating_sub(2)..W.min(T + 1) {
            // SAFETY: by the caller's promise that the CPU has V.
            sums[i][q] = unsafe { input.mul_add(weight[3 * (Y - i) + T - q], sums[i][q]) };
        }
    }
}
