//! `quantized/packed` on the host: few rows of A straight from the words, many of them through the engine in [`gemm`].
//!
//! Few rows: a register holds the words of as many neighbouring columns. Each of their fields in turn becomes a register of numbers and is
//! multiplied by one element of A, broadcast; after four words of a group the sums are scaled and added to a stretch of C that stays in a
//! first-level cache. Words are read once, in stretches of kilobytes, and asked for ahead. Many rows: panels of weights are unpacked and scaled
//! when they are packed, once for all rows.
//!
//! FLOPs over peak: 2 FLOP a weight and row of A, so 0.5 % of `fma` a GB/s of int8. Bytes over bandwidth: words, and a scale for 128 weights.
//! What unpacking takes: four instructions for 16 weights (two shifts, a conversion, a multiply-add), two shifts less at the ends of a word;
//! with AVX-512 three for int4, whose fields are looked up in a register. Two such cores at 4 GHz and 24 GB/s each have 10.7 cycles for a
//! register of words, of 14 to 16 instructions in int8 and 23 to 32 in int4. Predicted: memory's time in int8, little above it in int4.
//! Measured cold on two shared cores of a Zen 5, 4096 × 4096 and one row, each beside the read ceiling of its own run: int8 0.80 and 0.81 of it (0.30 ms),
//! int4 0.77 and 0.90 (0.17 ms), where f32 weights take 1.45 ms. Four rows take 0.41 and 0.34 ms, which is arithmetic's time: 0.6 and 0.7 of `fma`.

use std::ops::Range;

use super::gemm::{self, Extents, Operands, Target, multiply};
use super::lanes::{Kernel, Lanes, Wide, dispatch, prefetch};
use super::matmul::Dense;
use super::{Call, Output, naive, pieces, share_blocks, tally};
use crate::op::quantized::Quantized;
use crate::plan::{Demand, Setting};

/// Rows of A at most that meet words where they lie: for more, unpacking once for all of them pays.
const FEW: usize = 8;
/// Words along k at a time.
const STEPS: usize = 4;
/// Rows of A at a time.
const ROWS: usize = 4;
/// Bytes of C that stay in a first-level cache while words pass.
const KEPT: usize = 16 << 10;
/// Elements of a cache line.
const LINE: usize = 16;

/// The sizes as the kernels take them.
#[derive(Clone, Copy)]
struct Sizes {
    e: Extents,
    bits: u32,
    /// Weights of a word.
    pack: usize,
    /// Words of a group.
    steps: usize,
    /// Groups along k.
    groups: usize,
}

impl Sizes {
    fn of(p: &Quantized) -> Self {
        let e = Extents { m: p.m as usize, n: p.n as usize, k: p.k as usize };
        let (pack, group) = (p.pack() as usize, p.group_size as usize);
        Sizes { e, bits: p.bits as u32, pack, steps: group / pack, groups: e.k / group }
    }

    /// Shifts that bring a weight of a word to its top, and down again.
    fn shifts(&self, at: usize) -> (u32, u32) {
        (32 - self.bits * (at as u32 + 1), 32 - self.bits)
    }
}

/// Work-groups: stretches of columns, or units of C.
pub(crate) fn groups(p: &Quantized, s: &Setting<'_>) -> u64 {
    let e = Sizes::of(p).e;
    if e.m > FEW {
        return gemm::units(&e, s);
    }
    let workers = s.device.compute_units as usize;
    (0..workers).map(|worker| stretches(&e, worker, workers).count() as u64).sum()
}

/// Requested: a stretch of columns loads its words, scales and all of A, once. Lane: words are loaded for every four rows of A, scales for
/// every four words too, and C is loaded and stored as often. Many rows: those of the engine, which meets weights unpacked.
pub(crate) fn demand(p: &Quantized, s: &Setting<'_>) -> Demand {
    let sizes = Sizes::of(p);
    if sizes.e.m > FEW {
        return gemm::demand(&sizes.e, s);
    }
    let (m, n, k, groups) = (p.m, p.n, p.k, groups(p, s));
    let (pack, scales) = (sizes.pack as u64, sizes.groups as u64);
    let batches = scales * (sizes.steps / STEPS + sizes.steps % STEPS) as u64;
    let passes = m / ROWS as u64 + m % ROWS as u64;
    let requested = groups * m * k + n * (k / pack + scales + m);
    let lane = groups * m * k + n * (passes * (k / pack + batches) + m * (2 * batches - 1));
    Demand::new(4 * requested, 4 * lane)
}

/// The kernel.
pub(crate) fn packed(p: &Quantized, call: &Call<'_>) {
    let sizes = Sizes::of(p);
    let (a, words, scales, c) = (call.input(0), call.input(1), call.input(2), call.output(3));
    if sizes.e.m <= FEW {
        call.pool.run(&|worker, workers| {
            for columns in stretches(&sizes.e, worker, workers) {
                let _group = tally::group();
                let few = Few { sizes, a, words, scales, c: &c, columns };
                if sizes.bits == 8 { dispatch(call.isa, Bits::<8>(few)) } else { dispatch(call.isa, Bits::<4>(few)) }
            }
        });
        return;
    }
    let operands = Unpacked { sizes, left: Dense { a, b: &[], n: sizes.e.n, k: sizes.e.k }, words, scales };
    if !multiply(call, &sizes.e, &operands, &Target::whole(c, sizes.e.n, 0)) {
        // Without memory to pack into, the definition still gives the answer.
        naive(p, call);
    }
}

/// A worker's columns, cut into stretches whose part of C stays in a first-level cache.
fn stretches(e: &Extents, worker: usize, workers: usize) -> impl Iterator<Item = Range<usize>> {
    let lines = (KEPT / size_of::<f32>() / LINE / e.m).max(1);
    pieces(share_blocks(e.n, LINE, worker, workers), lines * LINE)
}

/// A stretch of columns of few rows.
struct Few<'a> {
    sizes: Sizes,
    a: &'a [f32],           // [m, k]
    words: &'a [u32],       // [k / pack, n]
    scales: &'a [f32],      // [groups, n]
    c: &'a Output<'a, f32>, // [m, n]
    columns: Range<usize>,
}

/// The same with so many bits a weight.
struct Bits<'a, const BITS: u32>(Few<'a>);

impl<const BITS: u32> Kernel<f32> for Bits<'_, BITS> {
    #[inline(always)]
    unsafe fn run<V: Lanes<Scalar = f32>>(self) {
        let steps = self.0.sizes.steps;
        for group in 0..self.0.sizes.groups {
            let mut step = 0;
            while step < steps {
                // SAFETY: by the caller's promise the CPU has V; the steps are the group's.
                unsafe {
                    if step + STEPS <= steps {
                        self.batch::<V, STEPS>(group, step);
                        step += STEPS;
                    } else {
                        self.batch::<V, 1>(group, step);
                        step += 1;
                    }
                }
            }
        }
    }
}

impl<const BITS: u32> Bits<'_, BITS> {
    /// R words along k of a group, for all rows of A.
    #[inline(always)]
    unsafe fn batch<V: Lanes<Scalar = f32>, const R: usize>(&self, group: usize, step: usize) {
        let m = self.0.sizes.e.m;
        let mut row = 0;
        while row < m {
            // SAFETY: by the caller's promise, and the rows exist.
            unsafe {
                if row + ROWS <= m {
                    self.rows::<V, R, ROWS>(group, step, row);
                    row += ROWS;
                } else {
                    self.rows::<V, R, 1>(group, step, row);
                    row += 1;
                }
            }
        }
    }

    /// The same for M rows of A.
    #[inline(always)]
    unsafe fn rows<V: Lanes<Scalar = f32>, const R: usize, const M: usize>(&self, group: usize, step: usize, row: usize) {
        let Few { sizes, a, words, scales, c, columns } = &self.0;
        let (n, at) = (sizes.e.n, group * sizes.steps + step);
        let words = words[at * n + columns.start..(at + R - 1) * n + columns.end].as_ptr();
        let scales = scales[group * n..][columns.clone()].as_ptr();
        let a = std::array::from_fn(|i| tally::read(&a[(row + i) * sizes.e.k + at * sizes.pack..][..R * sizes.pack]));
        // SAFETY: the columns are this worker's, in rows of their own.
        let c: [*mut f32; M] =
            std::array::from_fn(|i| unsafe { c.slice((row + i) * n + columns.start..(row + i) * n + columns.end) }.as_mut_ptr());
        // SAFETY: every access stays below the columns of rows that are there; by the caller's promise the CPU has V.
        unsafe {
            let mut j = 0;
            while j + V::COUNT <= columns.len() {
                lanes::<V, BITS, R, M>(&a, words.add(j), scales.add(j), c.map(|c| c.add(j)), n, at == 0);
                j += V::COUNT;
            }
            for j in j..columns.len() {
                lanes::<Wide<f32, 1>, BITS, R, M>(&a, words.add(j), scales.add(j), c.map(|c| c.add(j)), n, at == 0);
            }
        }
    }
}

/// One register of columns: R words of each, for M rows of A. What is there of C is zeros at first.
#[inline(always)]
unsafe fn lanes<V: Lanes<Scalar = f32>, const BITS: u32, const R: usize, const M: usize>(
    a: &[&[f32]; M],
    words: *const u32,
    scales: *const f32,
    c: [*mut f32; M],
    n: usize,
    first: bool,
) {
    let pack = 32 / BITS;
    // SAFETY: by the caller's promise; a prefetch may name any address.
    unsafe {
        // Two sums a row, so that one multiply-add need not wait for the last.
        let mut sums = [[V::splat(0.0); 2]; M];
        for r in 0..R {
            prefetch(words.wrapping_add((R + r) * n));
            let word = V::load(words.add(r * n).cast());
            for at in 0..pack {
                let weights = word.field(32 - BITS * (at + 1), 32 - BITS);
                for i in 0..M {
                    let left = V::splat(*a[i].get_unchecked(r * pack as usize + at as usize));
                    sums[i][at as usize % 2] = weights.mul_add(left, sums[i][at as usize % 2]);
                }
            }
        }
        let scale = V::load(scales);
        for i in 0..M {
            let before = if first { V::splat(0.0) } else { V::load(c[i]) };
            sums[i][0].add(sums[i][1]).mul_add(scale, before).store(c[i]);
        }
    }
}

/// Operands whose right one is unpacked when it is packed.
struct Unpacked<'a> {
    sizes: Sizes,
    left: Dense<'a, f32>,
    words: &'a [u32],  // [k / pack, n]
    scales: &'a [f32], // [groups, n]
}

impl Operands<f32> for Unpacked<'_> {
    #[inline(always)]
    unsafe fn pack_a<V: Lanes<Scalar = f32>, const MR: usize>(&self, lines: Range<usize>, depth: Range<usize>, to: *mut f32) {
        // SAFETY: the caller's promise is the same.
        unsafe { self.left.pack_a::<V, MR>(lines, depth, to) }
    }

    #[inline(always)]
    unsafe fn pack_b<V: Lanes<Scalar = f32>>(&self, columns: Range<usize>, depth: Range<usize>, to: *mut f32) {
        let (nr, n, pack, group) = (2 * V::COUNT, self.sizes.e.n, self.sizes.pack, self.sizes.pack * self.sizes.steps);
        // SAFETY: the panels have room by the caller's promise; a whole row of them lies within the weights.
        unsafe {
            for p in 0..depth.len() {
                let l = depth.start + p;
                let (left, right) = self.sizes.shifts(l % pack);
                let words = &self.words[l / pack * n..][columns.clone()];
                let scales = &self.scales[l / group * n..][columns.clone()];
                for (panel, (words, scales)) in words.chunks(nr).zip(scales.chunks(nr)).enumerate() {
                    let to = to.add((panel * depth.len() + p) * nr);
                    if words.len() == nr {
                        for half in [0, V::COUNT] {
                            let weights = V::load(words.as_ptr().add(half).cast()).field(left, right);
                            weights.mul(V::load(scales.as_ptr().add(half))).store(to.add(half));
                        }
                        continue;
                    }
                    let to = std::slice::from_raw_parts_mut(to, nr);
                    for ((to, word), scale) in to.iter_mut().zip(words).zip(scales) {
                        *to = ((word << left) as i32 >> right) as f32 * scale;
                    }
                    to[words.len()..].fill(0.0);
                }
            }
        }
    }
}
