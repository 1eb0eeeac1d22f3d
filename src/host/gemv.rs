//! Matrix products with few columns or few rows, straight from where the operands lie: nothing to pack is ever used often enough.
//!
//! Few columns: four rows of A at a time against two columns of B, sums in registers, summed across the lanes at the end of a row. B is
//! first transposed into scratch where it has more than one column. Few rows: four rows of B at a time are added to a stretch of C that
//! stays in a first-level cache, to all rows of it while they are in registers, so that memory never waits for a second pass; from nine rows on
//! another way is faster ([`few`]). Either way the large matrix is read once, in stretches of kilobytes, and asked for ahead.
//!
//! FLOPs over peak: 2 FLOP an element of the large matrix and row (column) of the small one, so at 32 GB/s and 360 GFLOP/s 5 % of `fma` for
//! one and 36 % for eight. Bytes over bandwidth: the large matrix. Predicted: DRAM's read ceiling. For 4096 × 4096 in f32 that is 67 MB, 2.06 ms at
//! 32.5 GB/s. Measured on two shared cores of a Zen 5 while memory gave 70 GB/s, medians of interleaved samples of 1, 2, 4, 6 and 8 rows: 1.25, 1.5,
//! 1.55, 1.6 and 1.65 times the time of reading as much; 0.9 to 1.1, 1.1, 1.2, 1.4 and 1.3 times as fast as a pass for every row, or [`few`] from five rows
//! on. While it gave 47 GB/s all are within a tenth of each other.

use std::ops::Range;

use super::gemm::Extents;
use super::lanes::{Kernel, Lanes, Scalar, Wide, dispatch, prefetch};
use super::{Call, Isa, Output, share, tally};
use crate::plan::{Demand, Setting};

mod few;

use few::Cut;

/// Columns at most: beyond, what packing costs is regained.
const TALL: usize = 8;
/// Rows at most of which B is added as it comes, and rows at most for which it is cut into blocks.
const FLAT: usize = 8;
const FEW: usize = 128;
/// Rows of A, or of B, at a time.
const ROWS: usize = 4;
/// Columns of B at a time.
const COLUMNS: usize = 2;
/// Bytes of C that stay in a first-level cache while B passes.
const KEPT: usize = 16 << 10;
/// Bytes of a cache line.
const LINE: usize = 64;
/// Bytes by which rows of A are asked for ahead: some hundreds of nanoseconds at the speed of memory.
const AHEAD: usize = 1024;

/// Which of the two forms takes a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// Few columns.
    Tall,
    /// Very few rows.
    Flat,
    /// Few rows.
    Few,
}

impl Form {
    /// The form for these extents; `None` where there are many of both.
    pub(crate) fn of(e: &Extents) -> Option<Self> {
        match (e.m, e.n) {
            (_, ..=TALL) => Some(Form::Tall),
            (..=FLAT, _) => Some(Form::Flat),
            (..=FEW, _) => Some(Form::Few),
            _ => None,
        }
    }

    /// Work-groups: blocks of rows, or stretches of columns.
    pub(crate) fn groups(self, e: &Extents, s: &Setting<'_>) -> u64 {
        match self {
            Form::Tall => e.m.div_ceil(ROWS) as u64,
            Form::Flat => {
                let (width, workers) = (s.precision.storage().bytes() as usize, s.device.compute_units as usize);
                (0..workers).map(|worker| stretches(e, width, worker, workers).count() as u64).sum()
            }
            Form::Few => Cut::planned(e, s).units(e) as u64,
        }
    }

    /// Requested: a block of rows loads itself and all of B, a stretch of columns itself and all of A. Lane: a row of A is
    /// loaded for every two columns of B and these for every four rows, both for every sum where they end in less than a register; a stretch of C
    /// is loaded and stored for every four rows of B.
    pub(crate) fn demand(self, e: &Extents, s: &Setting<'_>) -> Demand {
        let (m, n, k, groups) = (e.m as u64, e.n as u64, e.k as u64, self.groups(e, s));
        let bytes = s.precision.storage().bytes();
        let (requested, lane, workspace) = match self {
            Form::Tall => {
                let blocks = m / ROWS as u64 + m % ROWS as u64;
                // Registers of k, the last single column having two sums.
                let register = Isa::planned(s).register_bytes() as u64 / bytes;
                let (pairs, single) = (n / COLUMNS as u64, n % COLUMNS as u64);
                let of = |times: u64, columns: u64, step: u64| {
                    let whole = k / step * step;
                    times * ((m + blocks * columns) * whole + 2 * m * columns * (k - whole))
                };
                let lane = of(pairs, COLUMNS as u64, register) + of(single, 1, 2 * register) + m * n;
                (m * k + groups * k * n + m * n, lane, if n > 1 { k * n } else { 0 })
            }
            Form::Flat => {
                let passes = k / ROWS as u64 + k % ROWS as u64;
                (groups * m * k + k * n + m * n, groups * m * k + k * n + m * n * (2 * passes - 1), 0)
            }
            Form::Few => Cut::planned(e, s).demand(e, s.device.compute_units as usize),
        };
        Demand { requested: bytes * requested, lane: bytes * lane, workspace: bytes * workspace }
    }

    /// C = A · B. Whether there was memory for what it needs; if not, nothing was done.
    pub(super) fn multiply<S: Scalar>(self, call: &Call<'_>, e: &Extents, a: &[S], b: &[S], c: &Output<'_, S>) -> bool {
        match self {
            Form::Tall => tall(call, e, a, b, c),
            Form::Flat => {
                call.pool.run(&|worker, workers| {
                    for columns in stretches(e, size_of::<S>(), worker, workers) {
                        let _group = tally::group();
                        dispatch(call.isa, Flat { e, a, b, c, columns });
                    }
                });
                true
            }
            Form::Few => few::multiply(call, e, a, b, c),
        }
    }
}

/// A worker's columns, cut into stretches whose part of C stays in a first-level cache.
pub(super) fn stretches(e: &Extents, width: usize, worker: usize, workers: usize) -> impl Iterator<Item = Range<usize>> {
    let (n, line) = (e.n, LINE / width);
    let lines = share(n.div_ceil(line), worker, workers);
    let step = (KEPT / LINE / e.m).max(1);
    lines.clone().step_by(step).map(move |first| first * line..((first + step).min(lines.end) * line).min(n))
}

fn tall<S: Scalar>(call: &Call<'_>, e: &Extents, a: &[S], b: &[S], c: &Output<'_, S>) -> bool {
    let run = |b: &[S]| {
        call.pool.run(&|worker, workers| {
            let blocks = share(e.m.div_ceil(ROWS), worker, workers);
            let rows = blocks.start * ROWS..(blocks.end * ROWS).min(e.m);
            // SAFETY: workers own disjoint rows.
            let c = unsafe { c.slice(rows.start * e.n..rows.end * e.n) };
            dispatch(call.isa, Tall { e, a: &a[rows.start * e.k..rows.end * e.k], b, c });
        });
    };
    if e.n == 1 {
        run(b);
        return true;
    }
    let Some(scratch) = call.pool.scratch(size_of_val(b)) else { return false };
    // SAFETY: the scratch is ours, large enough, aligned, and of a type for which any bits will do.
    let columns = unsafe { std::slice::from_raw_parts_mut(scratch.start().cast::<S>(), b.len()) };
    for (p, row) in b.chunks_exact(e.n).enumerate() {
        for (j, x) in row.iter().enumerate() {
            columns[j * e.k + p] = *x;
        }
    }
    run(columns);
    true
}

/// Rows of one worker against few columns.
struct Tall<'a, S> {
    e: &'a Extents,
    a: &'a [S],     // [rows, k]
    b: &'a [S],     // [n, k]
    c: &'a mut [S], // [rows, n]
}

impl<S: Scalar> Kernel<S> for Tall<'_, S> {
    #[inline(always)]
    unsafe fn run<V: Lanes<Scalar = S>>(self) {
        let Extents { n, k, .. } = *self.e;
        for (a, c) in self.a.chunks(ROWS * k).zip(self.c.chunks_mut(ROWS * n)) {
            let _group = tally::group();
            for j in (0..n).step_by(COLUMNS) {
                let b = &self.b[j * k..];
                // SAFETY: a block holds its rows, and B the columns from j on; by the caller's promise the CPU has V.
                unsafe {
                    match (a.len() == ROWS * k, n - j) {
                        (true, 1) => block::<V, ROWS, 1, 2>(a, b, &mut c[j..], n, k),
                        (true, _) => block::<V, ROWS, COLUMNS, 1>(a, b, &mut c[j..], n, k),
                        (false, left) => {
                            for (a, c) in a.chunks(k).zip(c.chunks_mut(n)) {
                                match left {
                                    1 => block::<V, 1, 1, 2>(a, b, &mut c[j..], n, k),
                                    _ => block::<V, 1, COLUMNS, 1>(a, b, &mut c[j..], n, k),
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// R rows of A times N columns of B, with U sums a pair.
#[inline(always)]
unsafe fn block<V: Lanes, const R: usize, const N: usize, const U: usize>(
    a: &[V::Scalar],
    b: &[V::Scalar],
    c: &mut [V::Scalar],
    n: usize,
    k: usize,
) {
    // SAFETY: `a` holds R · k and `b` N · k elements by the caller's promise; a prefetch may name any address.
    unsafe {
        let zero: V::Scalar = bytemuck::Zeroable::zeroed();
        let mut sums = [[[V::splat(zero); U]; N]; R];
        let ahead = AHEAD / size_of::<V::Scalar>();
        let (a, b) = (a.as_ptr(), b.as_ptr());
        let mut p = 0;
        while p + U * V::COUNT <= k {
            // Past the end of a row the same row of the next block follows.
            let soon = p + if p + ahead < k { ahead } else { ahead + (R - 1) * k };
            for u in 0..U {
                let at = p + u * V::COUNT;
                let mut right = [V::splat(zero); N];
                for j in 0..N {
                    right[j] = V::load(b.add(j * k + at));
                }
                for i in 0..R {
                    prefetch(a.wrapping_add(i * k + soon + u * V::COUNT));
                    let left = V::load(a.add(i * k + at));
                    for j in 0..N {
                        sums[i][j][u] = left.mul_add(right[j], sums[i][j][u]);
                    }
                }
            }
            p += U * V::COUNT;
        }
        for i in 0..R {
            for j in 0..N {
                // 16 lanes are the widest register.
                let mut lanes = [zero; 16];
                sums[i][j].into_iter().reduce(|x, y| x.add(y)).unwrap_or(V::splat(zero)).store(lanes.as_mut_ptr());
                let sum = lanes[..V::COUNT].iter().fold(zero, |sum, x| sum + *x);
                tally::load(a.add(i * k + p), k - p);
                tally::load(b.add(j * k + p), k - p);
                tally::store(&c[i * n + j], 1);
                c[i * n + j] = (p..k).fold(sum, |sum, p| (*a.add(i * k + p)).fused(*b.add(j * k + p), sum));
            }
        }
    }
}

/// A stretch of columns of few rows.
struct Flat<'a, S> {
    e: &'a Extents,
    a: &'a [S],           // [m, k]
    b: &'a [S],           // [k, n]
    c: &'a Output<'a, S>, // [m, n]
    columns: Range<usize>,
}

impl<S: Scalar> Kernel<S> for Flat<'_, S> {
    #[inline(always)]
    unsafe fn run<V: Lanes<Scalar = S>>(self) {
        // SAFETY: by the caller's promise.
        unsafe {
            match self.e.m {
                1 => self.rows::<V, 1>(),
                2 => self.rows::<V, 2>(),
                3 => self.rows::<V, 3>(),
                4 => self.rows::<V, 4>(),
                5 => self.rows::<V, 5>(),
                6 => self.rows::<V, 6>(),
                7 => self.rows::<V, 7>(),
                _ => self.rows::<V, 8>(),
            }
        }
    }
}

impl<S: Scalar> Flat<'_, S> {
    /// All rows of B, some at a time, against M rows of A.
    #[inline(always)]
    unsafe fn rows<V: Lanes<Scalar = S>, const M: usize>(&self) {
        let k = self.e.k;
        // SAFETY: by the caller's promise.
        unsafe {
            for p in (0..k / ROWS * ROWS).step_by(ROWS) {
                self.add::<V, ROWS, M>(p);
            }
            for p in k / ROWS * ROWS..k {
                self.add::<V, 1, M>(p);
            }
        }
    }

    /// Adds R rows of B from row `p` on, each times its elements of A, to the rows of C; to zeros where they are the first.
    #[inline(always)]
    unsafe fn add<V: Lanes<Scalar = S>, const R: usize, const M: usize>(&self, p: usize) {
        let Extents { n, k, .. } = *self.e;
        for i in 0..M {
            tally::read(&self.a[i * k + p..][..R]);
        }
        let (a, b, columns) = (self.a[p..].as_ptr(), self.b[p * n..].as_ptr(), &self.columns);
        let whole = columns.start + columns.len() / V::COUNT * V::COUNT;
        // SAFETY: the columns are this worker's, and `b` holds R rows; by the caller's promise the CPU has V.
        unsafe {
            for j in (columns.start..whole).step_by(V::COUNT) {
                lanes::<V, R, M>(self.e, a, b.add(j), self.c.start.add(j), p == 0);
            }
            for j in whole..columns.end {
                lanes::<Wide<S, 1>, R, M>(self.e, a, b.add(j), self.c.start.add(j), p == 0);
            }
        }
    }
}

/// The same for one register of columns. It asks for that of the next R rows.
#[inline(always)]
unsafe fn lanes<V: Lanes, const R: usize, const M: usize>(
    e: &Extents,
    a: *const V::Scalar,
    b: *const V::Scalar,
    c: *mut V::Scalar,
    first: bool,
) {
    // SAFETY: by the caller's promise.
    unsafe {
        let zero = V::splat(bytemuck::Zeroable::zeroed());
        let mut right = [zero; R];
        for r in 0..R {
            prefetch(b.wrapping_add((R + r) * e.n));
            right[r] = V::load(b.add(r * e.n));
        }
        for i in 0..M {
            let to = c.add(i * e.n);
            let mut sum = if first { zero } else { V::load(to) };
            for r in 0..R {
                sum = right[r].mul_add(V::splat(*a.add(i * e.k + r)), sum);
            }
            sum.store(to);
        }
    }
}
