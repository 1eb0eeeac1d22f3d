//! Matrix products with few columns or few rows, straight from where the operands lie: nothing to pack is ever used often enough.
//!
//! Few columns: four rows of A at a time against two columns of B, sums in registers, summed across the lanes at the end of a row. B is
//! first transposed into scratch where it has more than one column. Up to eight rows: lines of B meet all rows of A as they come
//! ([`flat`]). More rows: B is cut into blocks ([`few`]). Each way the large matrix is read once, and asked for ahead.
//!
//! FLOPs over peak: 2 FLOP an element of the large matrix and column of the small one, so at 32 GB/s and 360 GFLOP/s 5 % of `fma` for
//! one and 36 % for eight. Bytes over bandwidth: the large matrix. Predicted: DRAM's read ceiling. Measured on two shared cores of a Zen 5, one
//! column of 4096 × 4096 in f32: 1.03 to 1.1 times the time of reading as much while memory gave 45 GB/s, 1.2 while it gave 85.

use super::gemm::Extents;
use super::lanes::{Kernel, Lanes, Scalar, Stored, dispatch, prefetch};
use super::{Call, Isa, Output, share_blocks, tally};
use crate::plan::{Demand, Setting};

mod few;
mod flat;

/// Columns at most: beyond, what packing costs is regained.
const TALL: usize = 8;
/// Rows at most of which B is added as it comes, and rows at most for which it is cut into blocks; the same where the engine multiplies pairs.
const FLAT: usize = 8;
const FEW: usize = 128;
const FEW_PAIRS: usize = 40;
/// Rows of A at a time.
const ROWS: usize = 4;
/// Columns of B at a time.
const COLUMNS: usize = 2;
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
    /// The form for these extents; `None` where there are many of both, and the engine, which multiplies `pairs` or not, is faster.
    pub(crate) fn of(e: &Extents, pairs: bool) -> Option<Self> {
        match (e.m, e.n) {
            (_, ..=TALL) => Some(Form::Tall),
            (..=FLAT, _) => Some(Form::Flat),
            (..=FEW, _) if !pairs || e.m <= FEW_PAIRS => Some(Form::Few),
            _ => None,
        }
    }

    /// Work-groups: blocks of rows, or stretches of columns.
    pub(crate) fn groups(self, e: &Extents, s: &Setting<'_>) -> u64 {
        match self {
            Form::Tall => e.m.div_ceil(ROWS) as u64,
            Form::Flat => flat::Cut::planned(e, s).units(e) as u64,
            Form::Few => few::Cut::planned(e, s).units(e) as u64,
        }
    }

    /// Requested: a block of rows loads itself and all of B, a stretch of columns itself and all of A. Lane: a row of A is
    /// loaded for every two columns of B and these for every four rows, both for every sum where they end in less than a register; a stretch of C
    /// is loaded and stored for every four rows of B.
    pub(crate) fn demand(self, e: &Extents, s: &Setting<'_>) -> Demand {
        match self {
            Form::Tall => tall_demand(e, s, self.groups(e, s)),
            Form::Flat => flat::Cut::planned(e, s).demand(e, s.precision),
            Form::Few => few::Cut::planned(e, s).demand(e, s),
        }
    }

    /// C = A · B. Whether there was memory for what it needs; if not, nothing was done.
    pub(super) fn multiply<S: Scalar, E: Stored<S>>(self, call: &Call<'_>, e: &Extents, a: &[E], b: &[E], c: &Output<'_, E>) -> bool {
        match self {
            Form::Tall => tall::<S, E>(call, e, a, b, c),
            Form::Flat => flat::multiply::<S, E>(call, e, a, b, c),
            Form::Few => few::multiply::<S, E>(call, e, a, b, c),
        }
    }
}

/// Elements of scratch in the type of sums: columns of B, transposed, and widened where they are narrower.
fn turned(e: &Extents, narrow: bool) -> usize {
    if e.n > 1 || narrow { e.k * e.n } else { 0 }
}

fn tall_demand(e: &Extents, s: &Setting<'_>, groups: u64) -> Demand {
    let (m, n, k) = (e.m as u64, e.n as u64, e.k as u64);
    let (stored, wide) = (s.precision.storage().bytes(), s.precision.sum().bytes());
    let blocks = m / ROWS as u64 + m % ROWS as u64;
    // Registers of k, the last single column having two sums.
    let register = Isa::planned(s).register_bytes() as u64 / wide;
    let (pairs, single) = (n / COLUMNS as u64, n % COLUMNS as u64);
    let of = |times: u64, columns: u64, step: u64| {
        let (whole, left) = (k / step * step, k % step * m * columns);
        times * (stored * (m * whole + left) + wide * (blocks * columns * whole + left))
    };
    let lane = of(pairs, COLUMNS as u64, register) + of(single, 1, 2 * register) + stored * m * n;
    let scratch = turned(e, stored != wide) as u64;
    Demand { requested: stored * (m * k + m * n) + wide * groups * k * n, lane, workspace: wide * scratch }
}

fn tall<S: Scalar, E: Stored<S>>(call: &Call<'_>, e: &Extents, a: &[E], b: &[E], c: &Output<'_, E>) -> bool {
    let run = |b: &[S]| {
        call.pool.run(&|worker, workers| {
            let rows = share_blocks(e.m, ROWS, worker, workers);
            // SAFETY: workers own disjoint rows.
            let c = unsafe { c.slice(rows.start * e.n..rows.end * e.n) };
            dispatch(call.isa, Tall { e, a: &a[rows.start * e.k..rows.end * e.k], b, c });
        });
    };
    if e.n == 1 && E::SCALAR {
        run(bytemuck::cast_slice(b));
        return true;
    }
    let Some(scratch) = call.pool.scratch(turned(e, !E::SCALAR) * size_of::<S>()) else { return false };
    // SAFETY: the scratch is ours, large enough, aligned, and of a type for which any bits will do.
    let columns = unsafe { std::slice::from_raw_parts_mut(scratch.start().cast::<S>(), b.len()) };
    for (p, row) in b.chunks_exact(e.n).enumerate() {
        for (j, x) in row.iter().enumerate() {
            columns[j * e.k + p] = x.wide();
        }
    }
    run(columns);
    true
}

/// Rows of one worker against few columns.
struct Tall<'a, S, E> {
    e: &'a Extents,
    a: &'a [E],     // [rows, k]
    b: &'a [S],     // [n, k]
    c: &'a mut [E], // [rows, n]
}

impl<S: Scalar, E: Stored<S>> Kernel<S> for Tall<'_, S, E> {
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
                        (true, 1) => block::<V, E, ROWS, 1, 2>(a, b, &mut c[j..], n, k),
                        (true, _) => block::<V, E, ROWS, COLUMNS, 1>(a, b, &mut c[j..], n, k),
                        (false, left) => {
                            for (a, c) in a.chunks(k).zip(c.chunks_mut(n)) {
                                match left {
                                    1 => block::<V, E, 1, 1, 2>(a, b, &mut c[j..], n, k),
                                    _ => block::<V, E, 1, COLUMNS, 1>(a, b, &mut c[j..], n, k),
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
unsafe fn block<V: Lanes, E: Stored<V::Scalar>, const R: usize, const N: usize, const U: usize>(
    a: &[E],
    b: &[V::Scalar],
    c: &mut [E],
    n: usize,
    k: usize,
) {
    // SAFETY: `a` holds R · k and `b` N · k elements by the caller's promise; a prefetch may name any address.
    unsafe {
        let zero: V::Scalar = bytemuck::Zeroable::zeroed();
        let mut sums = [[[V::splat(zero); U]; N]; R];
        let ahead = AHEAD / size_of::<E>();
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
                    let left = E::load::<V>(a.add(i * k + at));
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
                c[i * n + j] = E::narrow((p..k).fold(sum, |sum, p| (*a.add(i * k + p)).wide().fused(*b.add(j * k + p), sum)));
            }
        }
    }
}
