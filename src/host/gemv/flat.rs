//! Products of very few rows: B is added to the sums as it comes from memory.
//!
//! Workers share the rows of B, where there are enough, so that each reads one piece of memory from end to end: in four streams side by side, which
//! begin a quarter of the piece apart, and of which every line meets all rows of A while it is in registers. Sums stay in the worker's caches, those
//! of a register's columns beside each other. Streams an even number of rows apart, or sums as far apart as rows of C, would often be a power of
//! two apart, and drive each other out. At the end workers add up what each of them has.
//!
//! FLOPs over peak and bytes over bandwidth of 1 (8) rows of 4096 × 4096 in f32 on two cores at 70 GB/s and 530 GFLOP/s: 0.06 (0.5) ms and 0.96 ms.
//! Predicted: the larger of both. Measured on two shared cores of a Zen 5, medians of interleaved samples of 1, 2, 4, 6 and 8 rows: 1.16, 1.22, 1.3, 1.3 and
//! 1.36 times the time of reading as much in one stream while memory gave 70 GB/s, 1.0, 1.0, 1.06, 1.09 and 1.07 while it gave 40. With workers beside each other
//! in every row of B, and rows in the order in which they lie, it was 1.35, 1.5, 1.6, 1.7 and 1.9, and 1.05, 1.2, 1.3, 1.35 and 1.4: hardware has to
//! find its streams anew every few kilobytes. Five to eight streams are 0 to 5 % slower.

use std::hint::black_box;
use std::ops::Range;

use crate::host::gemm::{Extents, Panels};
use crate::host::lanes::{Kernel, Lanes, Scalar, Stored, Wide, dispatch, each_row, prefetch};
use crate::host::{Call, Output, pieces, share, share_blocks, tally};
use crate::plan::{Demand, Precision, Setting};

/// Rows of B at a time, each of a stream of its own: as many as hardware follows with ease.
const STREAMS: usize = 4;
/// Bytes by which a stream is asked for ahead.
const AHEAD: usize = 2048;
/// Bytes of sums that stay in a worker's caches while B passes.
const KEPT: usize = 512 << 10;
/// Bytes of a cache line.
const LINE: usize = 64;
/// A part's rows of B for a row of A, and its bytes, at least: or adding up parts takes more than a few percent of the time.
const DEEP: usize = 32;
const LARGE: usize = 1 << 20;

/// How a product of very few rows is cut: workers own a part of the rows of B and a share of its columns.
pub(super) struct Cut {
    parts: usize,
    shares: usize,
    /// Columns at a time.
    stretch: usize,
    /// Elements of a cache line.
    line: usize,
}

impl Cut {
    pub(super) fn planned(e: &Extents, s: &Setting<'_>) -> Self {
        let [stored, wide] = [s.precision.storage(), s.precision.sum()].map(|dtype| dtype.bytes() as usize);
        Cut::of(e, stored, wide, s.device.compute_units as usize)
    }

    /// `stored` is the bytes of an element, `wide` of a sum.
    fn of(e: &Extents, stored: usize, wide: usize, workers: usize) -> Self {
        let most = (e.k / (DEEP * e.m)).min(e.k * e.n * stored / LARGE);
        let parts = (1..=workers).rev().find(|parts| workers.is_multiple_of(*parts) && *parts <= most).unwrap_or(1);
        let shares = workers / parts;
        let line = LINE / stored;
        let (lines, kept) = (e.n.div_ceil(line).div_ceil(shares), KEPT / (line * wide) / e.m);
        Cut { parts, shares, stretch: lines.div_ceil(lines.div_ceil(kept)) * line, line }
    }

    /// A worker's rows of B, and its stretches of columns.
    fn of_worker(&self, e: &Extents, worker: usize) -> (Range<usize>, impl Iterator<Item = Range<usize>> + use<>) {
        let columns = share_blocks(e.n, self.line, worker % self.shares, self.shares);
        (share(e.k, worker / self.shares, self.parts), pieces(columns, self.stretch))
    }

    /// Stretches of all workers.
    pub(super) fn units(&self, e: &Extents) -> usize {
        (0..self.parts * self.shares).map(|worker| self.of_worker(e, worker).1.count()).sum()
    }

    /// Requested: a stretch loads its part of A and of B and stores its sums, of which those of all parts are
    /// loaded once more. Lane: sums are loaded and stored for every few rows of B, and once more loaded for C.
    pub(super) fn demand(&self, e: &Extents, precision: Precision) -> Demand {
        let Extents { m, n, k } = *e;
        let (stored, wide) = (precision.storage().bytes(), precision.sum().bytes());
        let (mut a, mut passes) = (0, 0);
        for worker in 0..self.parts * self.shares {
            let (rows, stretches) = self.of_worker(e, worker);
            for columns in stretches {
                a += m * rows.len();
                let apart = apart(rows.len());
                passes += m * columns.len() * (2 * (rows.len() - (STREAMS - 1) * apart) - 1);
            }
        }
        let sums = self.parts * m * n;
        // One part is copied to C while it is its stretch's.
        let again = if self.parts == 1 { 0 } else { sums };
        let tensors = stored * (a + k * n + m * n) as u64;
        let of = |scalars: usize| wide * scalars as u64;
        Demand { requested: tensors + of(sums + again), lane: tensors + of(passes + sums), workspace: of(sums) }
    }
}

/// Rows between the streams of so many: an odd number, if any, that leaves a row to begin with.
fn apart(rows: usize) -> usize {
    match (rows - 1) / STREAMS {
        0 => 0,
        most => (most - 1) | 1,
    }
}

/// C = A · B. Whether there was memory for the sums; if not, nothing was done.
pub(super) fn multiply<S: Scalar, E: Stored<S>>(call: &Call<'_>, e: &Extents, a: &[E], b: &[E], c: &Output<'_, E>) -> bool {
    let cut = Cut::of(e, size_of::<E>(), size_of::<S>(), call.pool.workers());
    let Some(scratch) = call.pool.scratch(cut.parts * e.m * e.n * size_of::<S>()) else { return false };
    let sums = Panels(scratch.start().cast::<S>());
    call.pool.run(&|worker, _| {
        let (rows, stretches) = cut.of_worker(e, worker);
        let part = sums.get().wrapping_add(worker / cut.shares * e.m * e.n);
        for columns in stretches {
            let _group = tally::group();
            dispatch(call.isa, Sums { e, a, b, sums: part, rows: rows.clone(), columns: columns.clone() });
            if cut.parts == 1 {
                dispatch(call.isa, Total { e, sums: part, parts: 1, c, columns });
            }
        }
    });
    if cut.parts > 1 {
        call.pool.run(&|worker, workers| {
            let _group = tally::group();
            let columns = share_blocks(e.n, cut.line, worker, workers);
            dispatch(call.isa, Total { e, sums: sums.get(), parts: cut.parts, c, columns });
        });
    }
    true
}

/// Columns in whole registers, and the rest.
fn whole<V: Lanes>(columns: &Range<usize>) -> (Range<usize>, Range<usize>) {
    let end = columns.start + columns.len() / V::COUNT * V::COUNT;
    (columns.start..end, end..columns.end)
}

/// A part's sums of a stretch of columns, which no other worker has.
struct Sums<'a, S, E> {
    e: &'a Extents,
    a: &'a [E],   // [m, k]
    b: &'a [E],   // [k, n]
    sums: *mut S, // [n / V, m, V], then columns that are left, [n % V, m]
    rows: Range<usize>,
    columns: Range<usize>,
}

impl<S: Scalar, E: Stored<S>> Kernel<S> for Sums<'_, S, E> {
    #[inline(always)]
    unsafe fn run<V: Lanes<Scalar = S>>(self) {
        // SAFETY: by the caller's promise.
        unsafe {
            match self.e.m {
                1 => self.all::<V, 1>(),
                2 => self.all::<V, 2>(),
                3 => self.all::<V, 3>(),
                4 => self.all::<V, 4>(),
                5 => self.all::<V, 5>(),
                6 => self.all::<V, 6>(),
                7 => self.all::<V, 7>(),
                _ => self.all::<V, 8>(),
            }
        }
    }
}

impl<S: Scalar, E: Stored<S>> Sums<'_, S, E> {
    /// All rows of B against M rows of A: what is left of whole streams first, of which the first begins the sums.
    #[inline(always)]
    unsafe fn all<V: Lanes<Scalar = S>, const M: usize>(&self) {
        let (start, apart) = (self.rows.start, apart(self.rows.len()));
        let left = self.rows.len() - STREAMS * apart;
        // SAFETY: by the caller's promise.
        unsafe {
            self.add::<V, 1, M, true>(start, 0);
            for p in 1..left {
                self.add::<V, 1, M, false>(start + p, 0);
            }
            for p in left..left + apart {
                self.add::<V, STREAMS, M, false>(start + p, apart);
            }
        }
    }

    /// Adds row `p` of B, and those so many rows `apart` after it, each times its elements of A, to the sums; to zeros where it is the FIRST.
    #[inline(always)]
    unsafe fn add<V: Lanes<Scalar = S>, const R: usize, const M: usize, const FIRST: bool>(&self, p: usize, apart: usize) {
        let Extents { n, k, .. } = *self.e;
        let mut left = [[S::zeroed(); R]; M];
        for (i, row) in left.iter_mut().enumerate() {
            for (r, factor) in row.iter_mut().enumerate() {
                *factor = tally::read(&self.a[i * k + p + r * apart..][..1])[0].wide();
            }
        }
        // From memory each time: there are more than registers, and the compiler would keep copies of them broadcast on its stack.
        let left = black_box(left.as_flattened().as_ptr());
        let b = self.b[p * n..].as_ptr();
        let (whole, rest) = whole::<V>(&self.columns);
        // SAFETY: the sums are this worker's, and B holds all streams; by the caller's promise the CPU has V.
        unsafe {
            for j in whole.step_by(V::COUNT) {
                lanes::<V, E, R, M, FIRST>(left, b.add(j), apart * n, self.sums.add(j * M));
            }
            for j in rest {
                lanes::<Wide<S, 1>, E, R, M, FIRST>(left, b.add(j), apart * n, self.sums.add(j * M));
            }
        }
    }
}

/// The same for one register of columns.
#[inline(always)]
unsafe fn lanes<V: Lanes, E: Stored<V::Scalar>, const R: usize, const M: usize, const FIRST: bool>(
    left: *const V::Scalar,
    b: *const E,
    apart: usize,
    sums: *mut V::Scalar,
) {
    // SAFETY: by the caller's promise.
    unsafe {
        let zero = V::splat(bytemuck::Zeroable::zeroed());
        let mut right = [zero; R];
        for r in 0..R {
            let from = b.add(r * apart);
            prefetch(from.wrapping_add(AHEAD / size_of::<E>()));
            right[r] = E::load(from);
        }
        each_row!(i < M, {
            let to = sums.add(i * V::COUNT);
            let mut sum = if FIRST { zero } else { V::load(to) };
            for r in 0..R {
                sum = right[r].mul_add(V::splat(*left.add(i * R + r)), sum);
            }
            sum.store(to);
        });
    }
}

/// Columns of C: the parts' sums, added up.
struct Total<'a, S, E> {
    e: &'a Extents,
    sums: *const S, // [parts, m · n], as they lie
    parts: usize,
    c: &'a Output<'a, E>, // [m, n]
    columns: Range<usize>,
}

impl<S: Scalar, E: Stored<S>> Kernel<S> for Total<'_, S, E> {
    #[inline(always)]
    unsafe fn run<V: Lanes<Scalar = S>>(self) {
        let (whole, rest) = whole::<V>(&self.columns);
        // SAFETY: the columns are this worker's, and no one writes sums any more; by the caller's promise the CPU has V.
        unsafe {
            for j in whole.step_by(V::COUNT) {
                self.put::<V>(j);
            }
            for j in rest {
                self.put::<Wide<S, 1>>(j);
            }
        }
    }
}

impl<S: Scalar, E: Stored<S>> Total<'_, S, E> {
    /// A register of columns.
    #[inline(always)]
    unsafe fn put<V: Lanes<Scalar = S>>(&self, j: usize) {
        let Extents { m, n, .. } = *self.e;
        for i in 0..m {
            // SAFETY: by the caller's promise.
            unsafe {
                let from = self.sums.add(j * m + i * V::COUNT);
                let mut sum = V::load(from);
                for part in 1..self.parts {
                    sum = sum.add(V::load(from.add(part * m * n)));
                }
                E::store(sum, self.c.start.add(i * n + j));
            }
        }
    }
}
