//! `attention` on the host: the plain three passes, and a fused one that keeps no scores.
//!
//! `flash` puts queries across the lanes: a panel is two registers of queries, and everything about a query, its scores, its maximum, its
//! sum and its outputs, lies in one lane, so softmax needs no horizontal step. The queries that share keys (those of all heads of a
//! group, which lie one behind the other) make the rows that panels are cut from; a unit of work is some panels of one group, taken off a
//! counter, those that see most keys first. For every block of `KEYS` keys a panel makes KEYS × NR scores by a micro-kernel of MR keys,
//! turns them into weights (powers of two: the scale of the queries holds log₂ e) and adds weight × value by the same micro-kernel, whose
//! rows are then columns of V. K and V are read where they lie; only the queries are packed, transposed and scaled.
//!
//! FLOPs over peak: a key costs a panel 4·d multiply-adds of a register and about 30 other instructions (two powers, two maxima, loads and
//! stores): at d = 64, 12 %. A step of the micro-kernel is 2·MR multiply-adds and MR + 2 loads, so that multiply-adds are the limit.
//! Bytes over bandwidth: a unit reads 8·d bytes a key for 4·d·NR·PANELS multiply-adds, below 1 byte a cycle.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::exp::exp2;
use super::lanes::{Kernel, Lanes, dispatch, prefetch};
use super::{Call, Isa, Output, share, tally};
use crate::op::attention::Attention;
use crate::plan::{Demand, Setting, Tunable};

/// Panels of a unit, which meet a block of keys one after the other while it is in the first-level cache.
pub(crate) const PANELS: Tunable = Tunable { name: "PANELS", values: &[4, 2, 8, 1] };

/// Keys of a block.
const KEYS: usize = 64;
/// Elements of a cache line.
const LINE: usize = 16;
/// What a score is where its key is hidden: far below all others, and finite.
const HIDDEN: f32 = -1e30;

/// Three passes with the scores of all pairs in scratch.
pub(crate) fn naive(p: &Attention, call: &Call<'_>) {
    let (q, k, v) = (call.input::<f32>(0), call.input::<f32>(1), call.input::<f32>(2));
    let (o, scores) = (call.output::<f32>(3), call.output::<f32>(4));
    let (d, keys, rows) = (p.head_dim as usize, p.seq_kv as usize, p.rows() as usize);
    let scale = 1.0 / (d as f32).sqrt();
    let own = |row: usize| p.head_of_keys(row as u64) as usize * keys * d;
    let each = |work: &(dyn Fn(usize, &mut [f32]) + Sync)| {
        call.pool.run(&|worker, workers| {
            for row in share(rows, worker, workers) {
                let _group = tally::group();
                // SAFETY: each row belongs to exactly one worker.
                work(row, unsafe { scores.slice(row * keys..(row + 1) * keys) });
            }
        });
    };
    each(&|row, scores| {
        let (q, seen) = (&q[row * d..][..d], p.visible(row as u64) as usize);
        for (j, (score, k)) in scores.iter_mut().zip(k[own(row)..].chunks_exact(d)).enumerate() {
            let sum = tally::read(q).iter().zip(tally::read(k)).fold(0.0, |sum, (q, k)| sum + q * k);
            tally::store(score, 1);
            *score = if j < seen { sum * scale } else { f32::NEG_INFINITY };
        }
    });
    each(&|_, scores| {
        let largest = tally::read(scores).iter().fold(f32::NEG_INFINITY, |largest, s| largest.max(*s));
        let mut sum = 0.0;
        for score in scores.iter_mut() {
            *score = (*score - largest).exp();
            sum += *score;
        }
        scores.iter_mut().for_each(|score| *score /= sum);
        for _ in 0..2 {
            tally::read(scores);
            tally::store(scores.as_ptr(), scores.len());
        }
    });
    each(&|row, weights| {
        // SAFETY: as above.
        let out = unsafe { o.slice(row * d..(row + 1) * d) };
        out.fill(0.0);
        for (weight, v) in tally::read(weights).iter().zip(v[own(row)..].chunks_exact(d)) {
            out.iter_mut().zip(tally::read(v)).for_each(|(o, v)| *o += weight * v);
        }
        tally::store(out.as_ptr(), d);
    });
}

/// How rows are cut: what the kernel does and what its demand is counted from.
struct Cut {
    /// Queries of a panel.
    panel: usize,
    /// Queries of a unit.
    unit: usize,
    /// Elements of tiles a worker keeps: for every panel its queries and outputs, transposed; one block of scores.
    tiles: usize,
}

impl Cut {
    fn of(p: &Attention, isa: Isa, panels: u32) -> Self {
        let panel = 2 * isa.register_bytes() / 4;
        let panels = (panels as usize).min((p.group_rows() as usize).div_ceil(panel));
        Cut { panel, unit: panels * panel, tiles: panel * (panels * 2 * p.head_dim as usize + KEYS) }
    }

    fn planned(p: &Attention, s: &Setting<'_>) -> Self {
        Cut::of(p, Isa::planned(s), s.tuned.get("PANELS"))
    }
}

/// Units of a problem.
pub(crate) fn units(p: &Attention, s: &Setting<'_>) -> u64 {
    p.groups() * p.group_rows().div_ceil(Cut::planned(p, s).unit as u64)
}

/// Requested: a unit loads its queries and every key and value that one of them sees, and stores its outputs. Lane: so does each panel.
pub(crate) fn demand(p: &Attention, s: &Setting<'_>) -> Demand {
    let cut = Cut::planned(p, s);
    let of = |rows: usize| p.groups() * 4 * p.head_dim * (2 * p.group_rows() + 2 * p.reached(rows as u64));
    let workspace = 4 * cut.tiles as u64 * s.device.compute_units as u64;
    Demand { requested: of(cut.unit), lane: of(cut.panel), workspace }
}

/// One pass that keeps no scores.
pub(crate) fn flash(p: &Attention, call: &Call<'_>) {
    let cut = Cut::of(p, call.isa, call.tuned.get("PANELS"));
    let Some(scratch) = call.pool.scratch(4 * cut.tiles * call.pool.workers()) else {
        // Without memory for tiles, the definition still gives the answer.
        return super::naive(p, call);
    };
    let (tiles, next) = (Tiles(scratch.start().cast()), AtomicUsize::new(0));
    let (q, k, v) = (call.input(0), call.input(1), call.input(2));
    call.pool.run(&|worker, _| {
        // SAFETY: within the scratch, and this worker's own part of it.
        let tiles = unsafe { tiles.part(worker * cut.tiles) };
        dispatch(call.isa, Flash { p, cut: &cut, q, k, v, o: call.output(3), next: &next, tiles });
    });
}

/// Memory that workers use in disjoint parts.
struct Tiles(*mut f32);
// SAFETY: an address; who dereferences it keeps to its own part.
unsafe impl Sync for Tiles {}

impl Tiles {
    unsafe fn part(&self, from: usize) -> *mut f32 {
        // SAFETY: within the memory by the caller's promise.
        unsafe { self.0.add(from) }
    }
}

/// The work of one worker.
struct Flash<'a> {
    p: &'a Attention,
    cut: &'a Cut,
    q: &'a [f32], // [batch, heads, seq_q, d]
    k: &'a [f32], // [batch, kv_heads, seq_kv, d]
    v: &'a [f32], // [batch, kv_heads, seq_kv, d]
    o: Output<'a, f32>,
    next: &'a AtomicUsize,
    tiles: *mut f32,
}

/// A panel's state. Of its tiles, `queries` and `outputs` are [d, NR].
#[derive(Clone, Copy)]
struct Panel<V> {
    queries: *mut f32,
    outputs: *mut f32,
    /// First of its rows in the tensors, and how many there are.
    row: usize,
    rows: usize,
    /// Keys that the first and any of them sees.
    seen: (usize, usize),
    largest: [V; 2],
    sum: [V; 2],
}

impl Kernel<f32> for Flash<'_> {
    #[inline(always)]
    unsafe fn run<V: Lanes<Scalar = f32>>(self) {
        // SAFETY: by the caller's promise.
        unsafe { if V::REGISTERS == 32 { self.work::<V, 8>() } else { self.work::<V, 6>() } }
    }
}

impl Flash<'_> {
    #[inline(always)]
    unsafe fn work<V: Lanes<Scalar = f32>, const MR: usize>(&self) {
        debug_assert_eq!(2 * V::COUNT, self.cut.panel);
        let (groups, all) = (self.p.groups() as usize, self.p.group_rows() as usize);
        let across = all.div_ceil(self.cut.unit);
        loop {
            let unit = self.next.fetch_add(1, Ordering::Relaxed);
            if unit >= across * groups {
                return;
            }
            let _group = tally::group();
            // The last rows see most keys.
            let (group, first) = (unit % groups, (across - 1 - unit / groups) * self.cut.unit);
            let rows = group * all + first..group * all + (first + self.cut.unit).min(all);
            let at = group * self.p.seq_kv as usize * self.p.head_dim as usize;
            // SAFETY: the unit's outputs are written by this worker alone; the group's keys and values lie in their tensors.
            unsafe { self.unit::<V, MR>(rows, self.k[at..].as_ptr(), self.v[at..].as_ptr()) };
        }
    }

    #[inline(always)]
    unsafe fn unit<V: Lanes<Scalar = f32>, const MR: usize>(&self, rows: std::ops::Range<usize>, k: *const f32, v: *const f32) {
        let d = self.p.head_dim as usize;
        let size = self.cut.panel * d;
        let block = self.tiles;
        // SAFETY: the tiles hold a block of scores, then queries and outputs of every panel.
        unsafe {
            let tiles = self.tiles.add(KEYS * self.cut.panel);
            let panel = |i: usize| self.panel::<V>(rows.start + i * self.cut.panel, rows.end, tiles.add(2 * i * size), size);
            let mut panels = [panel(0); 8];
            let count = rows.len().div_ceil(self.cut.panel);
            for (i, slot) in panels.iter_mut().enumerate().take(count).skip(1) {
                *slot = panel(i);
            }
            let panels = &mut panels[..count];
            let reach = panels.iter().map(|panel| panel.seen.1).max().unwrap_or(0);
            for first in (0..reach).step_by(KEYS) {
                for (number, panel) in panels.iter_mut().filter(|panel| panel.seen.1 > first).enumerate() {
                    let keys = first..(first + KEYS).min(panel.seen.1);
                    self.block::<V, MR>(panel, keys, k.add(first * d), v.add(first * d), block, number == 0);
                }
            }
            panels.iter().for_each(|panel| self.store(panel));
        }
    }

    /// A panel before its first key: queries transposed and scaled, zeros where there is no query.
    #[inline(always)]
    unsafe fn panel<V: Lanes<Scalar = f32>>(&self, row: usize, end: usize, tiles: *mut f32, size: usize) -> Panel<V> {
        let (d, lanes) = (self.p.head_dim as usize, self.cut.panel);
        let rows = lanes.min(end - row);
        let scale = std::f32::consts::LOG2_E / (d as f32).sqrt();
        // SAFETY: the tiles hold `size` elements twice by the caller's promise.
        unsafe {
            let (queries, outputs) = (tiles, tiles.add(size));
            tally::read(&self.q[row * d..(row + rows) * d]);
            for lane in 0..lanes {
                for c in 0..d {
                    *queries.add(c * lanes + lane) = if lane < rows { self.q[(row + lane) * d + c] * scale } else { 0.0 };
                }
            }
            outputs.write_bytes(0, size);
            let of = |row: usize| self.p.visible(row as u64) as usize;
            let seen = (row..row + rows).map(of).fold((usize::MAX, 0), |(low, high), seen| (low.min(seen), high.max(seen)));
            Panel { queries, outputs, row, rows, seen, largest: [V::splat(HIDDEN); 2], sum: [V::splat(0.0); 2] }
        }
    }

    /// One panel meets one block of keys; `k` and `v` are their first rows. The first panel to do so asks `ahead` for the block's values,
    /// whose columns it reads with a stride that no hardware foresees, and for the keys of the next block.
    #[inline(always)]
    unsafe fn block<V: Lanes<Scalar = f32>, const MR: usize>(
        &self,
        panel: &mut Panel<V>,
        keys: std::ops::Range<usize>,
        k: *const f32,
        v: *const f32,
        scores: *mut f32,
        ahead: bool,
    ) {
        let (d, count) = (self.p.head_dim as usize, keys.len());
        // SAFETY: `count` rows of K and V and of the block of scores are there by the caller's promise.
        unsafe {
            let rows = |key: usize| {
                if ahead {
                    for at in (key * d..(key + MR) * d).step_by(LINE) {
                        prefetch(v.wrapping_add(at));
                        prefetch(k.wrapping_add(KEYS * d + at));
                    }
                }
                k.add(key * d)
            };
            tiles::<V, MR>(count, rows, (d, 1), (panel.queries, d), scores, None);
            if panel.seen.0 < keys.end {
                self.hide(panel, &keys, scores);
            }
            let shrunk = weigh(panel, count, scores);
            tiles::<V, MR>(d, |column| v.add(column), (1, d), (scores, count), panel.outputs, Some(shrunk));
        }
    }

    /// Overwrites the scores of keys that a query must not see.
    #[inline(always)]
    unsafe fn hide<V: Lanes<Scalar = f32>>(&self, panel: &Panel<V>, keys: &std::ops::Range<usize>, scores: *mut f32) {
        for lane in 0..panel.rows {
            let seen = self.p.visible((panel.row + lane) as u64) as usize;
            for key in seen.max(keys.start)..keys.end {
                // SAFETY: within the block of scores.
                unsafe { *scores.add((key - keys.start) * self.cut.panel + lane) = HIDDEN };
            }
        }
    }

    /// Divides a panel's outputs by the sums of their weights and stores them.
    #[inline(always)]
    unsafe fn store<V: Lanes<Scalar = f32>>(&self, panel: &Panel<V>) {
        let (d, lanes) = (self.p.head_dim as usize, self.cut.panel);
        let mut sums = [0f32; 64];
        // SAFETY: two registers fit; the rows are this worker's own.
        unsafe {
            panel.sum[0].store(sums.as_mut_ptr());
            panel.sum[1].store(sums.as_mut_ptr().add(V::COUNT));
            for lane in 0..panel.rows {
                let at = (panel.row + lane) * d;
                tally::store(self.o.start.add(at), d);
                for (c, out) in self.o.slice(at..at + d).iter_mut().enumerate() {
                    *out = *panel.outputs.add(c * lanes + lane) / sums[lane];
                }
            }
        }
    }
}

/// Turns a block of scores into weights, 2 to the power of what they lie below the largest so far; adds them up, and returns the factor by
/// which everything that was added before shrinks.
#[inline(always)]
unsafe fn weigh<V: Lanes<Scalar = f32>>(panel: &mut Panel<V>, count: usize, scores: *mut f32) -> [V; 2] {
    // SAFETY: `count` rows of scores are there by the caller's promise.
    unsafe {
        let minus = V::splat(-1.0);
        let mut largest = panel.largest;
        for key in 0..count {
            for half in 0..2 {
                largest[half] = largest[half].max(V::load(scores.add((2 * key + half) * V::COUNT)));
            }
        }
        let below = [largest[0].mul(minus), largest[1].mul(minus)];
        let shrunk = [exp2(panel.largest[0].add(below[0])), exp2(panel.largest[1].add(below[1]))];
        let mut sum = [panel.sum[0].mul(shrunk[0]), panel.sum[1].mul(shrunk[1])];
        for key in 0..count {
            for half in 0..2 {
                let at = scores.add((2 * key + half) * V::COUNT);
                let weight = exp2(V::load(at).add(below[half]));
                weight.store(at);
                sum[half] = sum[half].add(weight);
            }
        }
        (panel.largest, panel.sum) = (largest, sum);
        shrunk
    }
}

/// `rows` rows of NR sums at `to`: the products of a row of A with the `depth` rows of B, plus `shrunk` times what was there, if given.
/// Element (row, step) of A is `a(row)[step · by.1]`, and a micro-kernel's rows lie `by.0` apart.
#[inline(always)]
unsafe fn tiles<V: Lanes<Scalar = f32>, const MR: usize>(
    rows: usize,
    a: impl Fn(usize) -> *const f32,
    by: (usize, usize),
    (b, depth): (*const f32, usize),
    to: *mut f32,
    shrunk: Option<[V; 2]>,
) {
    let mut row = 0;
    // SAFETY: by the caller's promise.
    unsafe {
        let at = |row: usize| to.add(row * 2 * V::COUNT);
        while row + MR <= rows {
            product::<V, MR>(a(row), by, b, depth, at(row), shrunk);
            row += MR;
        }
        if row + 4 <= rows {
            product::<V, 4>(a(row), by, b, depth, at(row), shrunk);
            row += 4;
        }
        if row + 2 <= rows {
            product::<V, 2>(a(row), by, b, depth, at(row), shrunk);
            row += 2;
        }
        if row < rows {
            product::<V, 1>(a(row), by, b, depth, at(row), shrunk);
        }
    }
}

/// The micro-kernel.
#[inline(always)]
unsafe fn product<V: Lanes<Scalar = f32>, const R: usize>(
    a: *const f32,
    by: (usize, usize),
    b: *const f32,
    depth: usize,
    to: *mut f32,
    shrunk: Option<[V; 2]>,
) {
    // SAFETY: by the caller's promise.
    unsafe {
        let mut sums = [[V::splat(0.0); 2]; R];
        for step in 0..depth {
            let b = b.add(step * 2 * V::COUNT);
            let (b0, b1) = (V::load(b), V::load(b.add(V::COUNT)));
            let a = a.add(step * by.1);
            for row in 0..R {
                let x = V::broadcast(a.add(row * by.0));
                sums[row][0] = x.mul_add(b0, sums[row][0]);
                sums[row][1] = x.mul_add(b1, sums[row][1]);
            }
        }
        for row in 0..R {
            for half in 0..2 {
                let to = to.add((2 * row + half) * V::COUNT);
                match shrunk {
                    Some(shrunk) => V::load(to).mul_add(shrunk[half], sums[row][half]).store(to),
                    None => sums[row][half].store(to),
                }
            }
        }
    }
}
