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
use crate::host::lanes::{Kernel, Lanes, Scalar, Stored, assert_fits, dispatch, prefetch, round, widen};
use crate::host::{Call, Isa, Output, share, tally};
use crate::plan::{Demand, Setting};

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
        Cut::of(e, Isa::planned(s), s.precision.sum().bytes() as usize, s.device.compute_units as usize)
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

    /// Requested: a stretch loads all of A and its part of B, stores its part of C, and touches two blocks of B and its sums in whole
    /// tiles. Lane: a tile loads its rows of A; B is loaded and stored once, and its copy loaded in whole tiles for every panel; sums are
    /// loaded for every block but the first, stored for every block, and once more copied to C.
    pub(super) fn demand(&self, e: &Extents, s: &Setting<'_>) -> Demand {
        let (Extents { m, n, k }, rows) = (*e, self.panels * self.mr);
        let tiles: usize = (0..n).step_by(self.stretch).map(|first| self.stretch.min(n - first).div_ceil(self.nr)).sum();
        let (columns, blocks) = (tiles * self.nr, k.div_ceil(DEPTH));
        let kept = (k.min(2 * DEPTH) + rows) * columns;
        let tensors = s.precision.storage().bytes() * (k * n + m * n) as u64;
        let of = |scalars: usize| s.precision.sum().bytes() * scalars as u64;
        let lane = tiles * rows * k + k * n + self.panels * k * columns + (2 * blocks - 1) * rows * columns + m * n;
        Demand {
            requested: tensors + of(self.units(e) * rows * k + kept),
            lane: tensors + of(lane),
            workspace: of(self.scratch(e, s.device.compute_units as usize)),
        }
    }
}

/// C = A · B. Whether there was memory for what it keeps; if not, nothing was done.
pub(super) fn multiply<S: Scalar, E: Stored<S>>(call: &Call<'_>, e: &Extents, a: &[E], b: &[E], c: &Output<'_, E>) -> bool {
    let cut = Cut::of(e, call.isa, size_of::<S>(), call.pool.workers());
    let Some(scratch) = call.pool.scratch(cut.scratch(e, call.pool.workers()) * size_of::<S>()) else { return false };
    let panels = Panels(scratch.start().cast::<S>());
    call.pool.run(&|worker, workers| {
        let blocks = share(e.k.div_ceil(DEPTH), worker, workers);
        dispatch(call.isa, Pack { e, cut: &cut, a, blocks, to: panels.get() });
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

/// Blocks of `DEPTH` columns of A to their place in every panel, row by row. Rows past the end repeat the last one; their sums are never stored.
struct Pack<'a, S, E> {
    e: &'a Extents,
    cut: &'a Cut,
    a: &'a [E],
    blocks: Range<usize>,
    to: *mut S,
}

impl<S: Scalar, E: Stored<S>> Kernel<S> for Pack<'_, S, E> {
    #[inline(always)]
    unsafe fn run<V: Lanes<Scalar = S>>(self) {
        let rows = self.cut.panels * self.cut.mr;
        for (block, row) in self.blocks.flat_map(|block| (0..rows).map(move |row| (block, row))) {
            let from = &self.a[row.min(self.e.m - 1) * self.e.k..][block * DEPTH..((block + 1) * DEPTH).min(self.e.k)];
            // SAFETY: the block lies within the panels, and is this worker's; by the caller's promise.
            unsafe { widen::<V, E>(from, self.to.add((block * rows + row) * DEPTH)) };
        }
    }
}

/// A stretch of columns, which no other worker has.
struct Unit<'a, S, E> {
    e: &'a Extents,
    cut: &'a Cut,
    a: *const S,          // [k / DEPTH, panels, MR, DEPTH]
    b: &'a [E],           // [k, n]
    c: &'a Output<'a, E>, // [m, n]
    kept: *mut S,         // [2, tiles, DEPTH, NR], then the sums, [tiles, panels, MR, NR]
    columns: Range<usize>,
}

impl<S: Scalar, E: Stored<S>> Unit<'_, S, E> {
    fn run(self, isa: Isa) {
        match self.cut.mr {
            4 => dispatch(isa, Tiled::<S, E, 4>(self)),
            5 => dispatch(isa, Tiled::<S, E, 5>(self)),
            6 => dispatch(isa, Tiled::<S, E, 6>(self)),
            7 => dispatch(isa, Tiled::<S, E, 7>(self)),
            8 => dispatch(isa, Tiled::<S, E, 8>(self)),
            9 => dispatch(isa, Tiled::<S, E, 9>(self)),
            10 => dispatch(isa, Tiled::<S, E, 10>(self)),
            11 => dispatch(isa, Tiled::<S, E, 11>(self)),
            12 => dispatch(isa, Tiled::<S, E, 12>(self)),
            13 => dispatch(isa, Tiled::<S, E, 13>(self)),
            _ => dispatch(isa, Tiled::<S, E, 14>(self)),
        }
    }

    /// The walk that copies a block of B.
    fn block(&self, p: usize) -> Walk<S, E> {
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
    /// The scratch is this worker's, and the CPU has V.
    #[inline(always)]
    unsafe fn edge<V: Lanes<Scalar = S>>(&self, p: usize) {
        let nr = self.cut.nr;
        let (tiles, wide) = (self.columns.len() / nr, self.columns.len() % nr);
        if wide == 0 {
            return;
        }
        for row in 0..DEPTH.min(self.e.k - p) {
            let from = &self.b[(p + row) * self.e.n + self.columns.end - wide..][..wide];
            // SAFETY: within the block's last tile; by the caller's promise.
            unsafe { widen::<V, E>(from, self.copied(p).add((tiles * DEPTH + row) * nr)) };
        }
    }

    /// Copies the sums to C.
    ///
    /// # Safety
    /// The scratch is this worker's, and so are the columns of C; the CPU has V.
    #[inline(always)]
    unsafe fn put<V: Lanes<Scalar = S>>(&self, sums: *const S) {
        let Cut { mr, panels, nr, .. } = *self.cut;
        for row in 0..self.e.m {
            for (tile, j) in self.columns.clone().step_by(nr).enumerate() {
                let from = sums.wrapping_add((tile * panels * mr + row) * nr);
                // SAFETY: by the caller's promise.
                unsafe { round::<V, E>(from, self.c.start.add(row * self.e.n + j), nr.min(self.columns.end - j)) };
            }
        }
    }
}

/// A walk over the whole tiles of a block of B, [`ABREAST`] rows at a time, copying them to where a tile's rows are neighbours.
struct Walk<S, E> {
    from: *const E,
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

impl<S: Scalar, E: Stored<S>> Walk<S, E> {
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
                E::load::<V>(from.add(v * V::COUNT)).store(to.add(v * V::COUNT));
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
struct Tiled<'a, S, E, const MR: usize>(Unit<'a, S, E>);

impl<S: Scalar, E: Stored<S>, const MR: usize> Kernel<S> for Tiled<'_, S, E, MR> {
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
                unit.edge::<V>(p);
                for tile in 0..unit.columns.len().div_ceil(nr) {
                    for panel in 0..panels {
                        let a = unit.a.add((p / DEPTH * panels + panel) * MR * DEPTH);
                        let b = unit.copied(p).add(tile * DEPTH * nr);
                        let c = sums.add((tile * panels + panel) * MR * nr);
                        add::<V, E, MR>(a, b, c, steps, p == 0, &mut walk);
                    }
                }
                while walk.left > 0 {
                    walk.step::<V>();
                }
            }
            unit.put::<V>(sums);
        }
    }
}

/// Adds `steps` rows of a tile of B times their elements of MR rows of A to the tile's sums; to zeros where `first`. As its steps go on, the
/// next block is copied.
///
/// # Safety
/// All that is named exists, and the CPU has V.
#[inline(always)]
unsafe fn add<V: Lanes, E: Stored<V::Scalar>, const MR: usize>(
    a: *const V::Scalar,
    mut b: *const V::Scalar,
    c: *mut V::Scalar,
    steps: usize,
    first: bool,
    walk: &mut Walk<V::Scalar, E>,
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
