//! Products of few rows: B is read once, in the order in which it lies, and meets every row of A while it is near.
//!
//! A is packed whole, in panels of `MR` rows. A worker takes stretches of columns off a counter and keeps a stretch's part of C, and [`DEPTH`] rows
//! of B at a time, in its second-level cache: so many multiply-adds pay for a load and a store of each sum. While one block of B meets A, the
//! micro-kernel copies the next one, a piece at a time, so that memory and arithmetic overlap and rows that lie a power of two apart
//! do not drive each other out of a cache.
//!
//! FLOPs over peak and bytes over bandwidth for 16 rows of 4096 × 4096 in f32, on two cores at 55 GB/s and 520 GFLOP/s: 1.03 ms and 1.23 ms.
//! Predicted: the larger of both, and a fifth more for what they take from each other. Measured on two shared cores of a Zen 5, medians of
//! interleaved samples: 1.6 ms, 0.62 of `fma` (0.27 by the engine of [`gemm`](super::super::gemm)), 0.76 at 24 rows, 0.86 at 48, 0.87 at 96. Panels of any
//! number of rows, which leave next to none empty, are 1.12, 1.08 and 1.09 times as fast as those of an even one at 32, 64 and 128 rows. Copying in
//! one stream instead of four, or all of it beside the first panel, takes 2.6 ms.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::host::gemm::{Extents, Panels};
use crate::host::lanes::{Kernel, Lanes, Scalar, assert_fits, dispatch, prefetch};
use crate::host::{Call, Isa, Output, share, tally};
use crate::plan::Setting;

/// Rows of B that meet A at a time.
const DEPTH: usize = 32;
/// Steps of the micro-kernel between two branches.
const STEPS: usize = 4;
/// Bytes of a row of a stretch at most.
const STRETCH: usize = 4096;
/// Bytes that a stretch of C and two blocks of B have in a second-level cache.
const NEAR: usize = 768 << 10;
/// Stretches a worker, where there are columns for them: they even out what a noisy machine takes from one of them.
const SHARES: usize = 2;
/// Rows of B that are copied side by side: as many streams as hardware follows with ease.
const ABREAST: usize = 4;

/// How a product of few rows is cut.
pub(super) struct Cut {
    /// Rows of a panel of A.
    mr: usize,
    panels: usize,
    /// Columns of a tile: two registers.
    nr: usize,
    /// Columns of a stretch.
    stretch: usize,
}

impl Cut {
    pub(super) fn planned(e: &Extents, s: &Setting<'_>) -> Self {
        Cut::of(e, Isa::planned(s), s.precision.storage().bytes() as usize, s.device.compute_units as usize)
    }

    fn of(e: &Extents, isa: Isa, width: usize, workers: usize) -> Self {
        let most = if isa.registers() == 32 { 14 } else { 6 };
        let panels = e.m.div_ceil(most);
        let mr = e.m.div_ceil(panels).max(4);
        let nr = 2 * isa.register_bytes() / width;
        let near = NEAR / width / (panels * mr + 2 * DEPTH);
        let stretch = e.n.div_ceil(SHARES * workers).min(STRETCH / width).min(near).next_multiple_of(nr);
        Cut { mr, panels, nr, stretch }
    }

    /// Stretches.
    pub(super) fn units(&self, e: &Extents) -> usize {
        e.n.div_ceil(self.stretch)
    }

    /// Elements of the packed A.
    fn packed(&self, e: &Extents) -> usize {
        self.panels * self.mr * e.k.next_multiple_of(DEPTH)
    }

    /// Elements that a worker keeps: two blocks of B and its sums.
    fn kept(&self) -> usize {
        (2 * DEPTH + self.panels * self.mr) * self.stretch
    }

    /// Elements of scratch.
    fn scratch(&self, e: &Extents, workers: usize) -> usize {
        self.packed(e) + workers * self.kept()
    }

    /// Requested elements: a stretch loads all of A and its part of B, stores its part of C, and touches two blocks of B and its sums in whole
    /// tiles. Lane: a tile loads its rows of A; B is loaded and stored once, and its copy loaded in whole tiles for every panel; sums are
    /// loaded for every block but the first, stored for every block, and once more copied to C.
    pub(super) fn demand(&self, e: &Extents, workers: usize) -> (u64, u64, u64) {
        let (Extents { m, n, k }, rows) = (*e, self.panels * self.mr);
        let tiles: usize = (0..n).step_by(self.stretch).map(|first| self.stretch.min(n - first).div_ceil(self.nr)).sum();
        let (columns, blocks) = (tiles * self.nr, k.div_ceil(DEPTH));
        let kept = (k.min(2 * DEPTH) + rows) * columns;
        let requested = self.units(e) * rows * k + k * n + m * n + kept;
        let lane = tiles * rows * k + 2 * k * n + self.panels * k * columns + (2 * blocks - 1) * rows * columns + 2 * m * n;
        (requested as u64, lane as u64, self.scratch(e, workers) as u64)
    }
}

/// C = A · B. Whether there was memory for what it keeps; if not, nothing was done.
pub(super) fn multiply<S: Scalar>(call: &Call<'_>, e: &Extents, a: &[S], b: &[S], c: &Output<'_, S>) -> bool {
    let cut = Cut::of(e, call.isa, size_of::<S>(), call.pool.workers());
    let Some(scratch) = call.pool.scratch(cut.scratch(e, call.pool.workers()) * size_of::<S>()) else { return false };
    let panels = Panels(scratch.start().cast::<S>());
    call.pool.run(&|worker, workers| {
        for block in share(e.k.div_ceil(DEPTH), worker, workers) {
            // SAFETY: workers pack disjoint blocks.
            unsafe { pack(e, &cut, a, block, panels.get()) };
        }
    });
    let next = AtomicUsize::new(0);
    call.pool.run(&|worker, _| {
        // SAFETY: within the scratch, and this worker's own part of it.
        let kept = unsafe { panels.get().add(cut.packed(e) + worker * cut.kept()) };
        loop {
            let first = next.fetch_add(1, Ordering::Relaxed).saturating_mul(cut.stretch);
            if first >= e.n {
                return;
            }
            let _group = tally::group();
            let unit = Unit { e, cut: &cut, a: panels.get(), b, c, kept, columns: first..(first + cut.stretch).min(e.n) };
            unit.run(call.isa);
        }
    });
    true
}

/// `DEPTH` columns of A to their block of every panel, row by row. Rows past the end repeat the last one; their sums are never stored.
///
/// # Safety
/// `to` has room for all panels.
unsafe fn pack<S: Scalar>(e: &Extents, cut: &Cut, a: &[S], block: usize, to: *mut S) {
    for row in 0..cut.panels * cut.mr {
        let from = &a[row.min(e.m - 1) * e.k..][block * DEPTH..((block + 1) * DEPTH).min(e.k)];
        let at = (block * cut.panels * cut.mr + row) * DEPTH;
        // SAFETY: the block lies within the panels.
        unsafe { to.add(at).copy_from_nonoverlapping(from.as_ptr(), from.len()) };
    }
}

/// A stretch of columns, which no other worker has.
struct Unit<'a, S> {
    e: &'a Extents,
    cut: &'a Cut,
    a: *const S,          // [k / DEPTH, panels, MR, DEPTH]
    b: &'a [S],           // [k, n]
    c: &'a Output<'a, S>, // [m, n]
    kept: *mut S,         // [2, tiles, DEPTH, NR], then the sums, [tiles, panels, MR, NR]
    columns: Range<usize>,
}

impl<S: Scalar> Unit<'_, S> {
    fn run(self, isa: Isa) {
        match self.cut.mr {
            4 => dispatch(isa, Tiled::<S, 4>(self)),
            5 => dispatch(isa, Tiled::<S, 5>(self)),
            6 => dispatch(isa, Tiled::<S, 6>(self)),
            7 => dispatch(isa, Tiled::<S, 7>(self)),
            8 => dispatch(isa, Tiled::<S, 8>(self)),
            9 => dispatch(isa, Tiled::<S, 9>(self)),
            10 => dispatch(isa, Tiled::<S, 10>(self)),
            11 => dispatch(isa, Tiled::<S, 11>(self)),
            12 => dispatch(isa, Tiled::<S, 12>(self)),
            13 => dispatch(isa, Tiled::<S, 13>(self)),
            _ => dispatch(isa, Tiled::<S, 14>(self)),
        }
    }

    /// The walk that copies a block of B.
    fn block(&self, p: usize) -> Walk<S> {
        let tiles = self.columns.len() / self.cut.nr;
        let from = self.b.as_ptr().wrapping_add(p * self.e.n + self.columns.start);
        let left = if tiles == 0 { 0 } else { DEPTH.min(self.e.k.saturating_sub(p)) };
        Walk { from, to: self.copied(p), tile: 0, tiles, row: 0, left, stride: self.e.n, pace: (0, self.cut.panels) }
    }

    /// Where a block's copy begins: blocks take turns in two places.
    fn copied(&self, p: usize) -> *mut S {
        self.kept.wrapping_add(p / DEPTH % 2 * DEPTH * self.cut.stretch)
    }

    /// Copies what of a block lies past the last whole tile.
    ///
    /// # Safety
    /// The scratch is this worker's.
    unsafe fn edge(&self, p: usize) {
        let nr = self.cut.nr;
        let (tiles, wide) = (self.columns.len() / nr, self.columns.len() % nr);
        if wide == 0 {
            return;
        }
        for row in 0..DEPTH.min(self.e.k - p) {
            let from = &self.b[(p + row) * self.e.n + self.columns.end - wide..][..wide];
            tally::read(from);
            // SAFETY: within the block's last tile.
            unsafe {
                let to = self.copied(p).add((tiles * DEPTH + row) * nr);
                tally::store(to, wide);
                to.copy_from_nonoverlapping(from.as_ptr(), wide);
            }
        }
    }

    /// Copies the sums to C.
    ///
    /// # Safety
    /// The scratch is this worker's, and so are the columns of C.
    unsafe fn put(&self, sums: *const S) {
        let Cut { mr, panels, nr, .. } = *self.cut;
        for row in 0..self.e.m {
            for (tile, j) in self.columns.clone().step_by(nr).enumerate() {
                let wide = nr.min(self.columns.end - j);
                // SAFETY: by the caller's promise.
                unsafe {
                    let from = sums.add((tile * panels * mr + row) * nr);
                    let to = self.c.start.add(row * self.e.n + j);
                    tally::load(from, wide);
                    tally::store(to, wide);
                    to.copy_from_nonoverlapping(from, wide);
                }
            }
        }
    }
}

/// A walk over the whole tiles of a block of B, [`ABREAST`] rows at a time, copying them to where a tile's rows are neighbours.
struct Walk<S> {
    from: *const S,
    to: *mut S,
    tile: usize,
    tiles: usize,
    row: usize,
    /// Rows yet to be copied, those under way included.
    left: usize,
    stride: usize,
    /// Steps since the last piece, of so many.
    pace: (usize, usize),
}

impl<S: Scalar> Walk<S> {
    /// Copies the next piece, if there is one: a tile's part of a row.
    ///
    /// # Safety
    /// Block and copy exist, and the CPU has V.
    #[inline(always)]
    unsafe fn step<V: Lanes<Scalar = S>>(&mut self) {
        self.pace.0 += 1;
        if self.pace.0 < self.pace.1 || self.left == 0 {
            return;
        }
        self.pace.0 = 0;
        // SAFETY: by the caller's promise.
        unsafe {
            let from = self.from.add(self.row * self.stride + self.tile * 2 * V::COUNT);
            let to = self.to.add((self.tile * DEPTH + self.row) * 2 * V::COUNT);
            for v in 0..2 {
                prefetch(from.wrapping_add(ABREAST * self.stride + v * V::COUNT));
                V::load(from.add(v * V::COUNT)).store(to.add(v * V::COUNT));
            }
        }
        self.row += 1;
        if self.row == ABREAST.min(self.left) {
            self.row = 0;
            self.tile += 1;
            if self.tile == self.tiles {
                self.tile = 0;
                self.left -= ABREAST.min(self.left);
                self.from = self.from.wrapping_add(ABREAST * self.stride);
                self.to = self.to.wrapping_add(ABREAST * 2 * V::COUNT);
            }
        }
    }
}

/// A stretch in tiles of MR rows and two registers: one micro-kernel in a function, or its sums leave their registers.
struct Tiled<'a, S, const MR: usize>(Unit<'a, S>);

impl<S: Scalar, const MR: usize> Kernel<S> for Tiled<'_, S, MR> {
    #[inline(always)]
    unsafe fn run<V: Lanes<Scalar = S>>(self) {
        assert_fits::<V, MR>();
        let unit = self.0;
        let (k, panels, nr) = (unit.e.k, unit.cut.panels, 2 * V::COUNT);
        // SAFETY: the scratch and the columns are this worker's; by the caller's promise the CPU has V.
        unsafe {
            let sums = unit.kept.add(2 * DEPTH * unit.cut.stretch);
            let mut walk = unit.block(0);
            while walk.left > 0 {
                walk.step::<V>();
            }
            for p in (0..k).step_by(DEPTH) {
                let steps = DEPTH.min(k - p);
                let mut walk = unit.block(p + DEPTH);
                unit.edge(p);
                for tile in 0..unit.columns.len().div_ceil(nr) {
                    for panel in 0..panels {
                        let a = unit.a.add((p / DEPTH * panels + panel) * MR * DEPTH);
                        let b = unit.copied(p).add(tile * DEPTH * nr);
                        let c = sums.add((tile * panels + panel) * MR * nr);
                        add::<V, MR>(a, b, c, steps, p == 0, &mut walk);
                    }
                }
                while walk.left > 0 {
                    walk.step::<V>();
                }
            }
            unit.put(sums);
        }
    }
}

/// Adds `steps` rows of a tile of B times their elements of MR rows of A to the tile's sums; to zeros where `first`. As its steps go on, the
/// next block is copied.
///
/// # Safety
/// All that is named exists, and the CPU has V.
#[inline(always)]
unsafe fn add<V: Lanes, const MR: usize>(
    a: *const V::Scalar,
    mut b: *const V::Scalar,
    c: *mut V::Scalar,
    steps: usize,
    first: bool,
    walk: &mut Walk<V::Scalar>,
) {
    // SAFETY: by the caller's promise.
    unsafe {
        let mut sums = [[V::splat(bytemuck::Zeroable::zeroed()); 2]; MR];
        if !first {
            for row in 0..MR {
                for v in 0..2 {
                    sums[row][v] = V::load(c.add((2 * row + v) * V::COUNT));
                }
            }
        }
        let mut step = 0;
        while step < steps {
            for _ in 0..STEPS.min(steps - step) {
                walk.step::<V>();
                let mut right = [V::splat(bytemuck::Zeroable::zeroed()); 2];
                for v in 0..2 {
                    right[v] = V::load(b.add(v * V::COUNT));
                }
                for row in 0..MR {
                    let x = V::broadcast(a.add(row * DEPTH + step));
                    for v in 0..2 {
                        sums[row][v] = x.mul_add(right[v], sums[row][v]);
                    }
                }
                step += 1;
                b = b.add(2 * V::COUNT);
            }
        }
        for row in 0..MR {
            for v in 0..2 {
                sums[row][v].store(c.add((2 * row + v) * V::COUNT));
            }
        }
    }
}
