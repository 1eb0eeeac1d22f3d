//! The fused pass: queries against keys and values in blocks, no score in memory. Attention is one, `linformer` ends with one, and
//! `performer` is two of them, whose keys have a bias.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::product::tiles;
use super::{Cut, KEYS};
use crate::host::exp::exp2;
use crate::host::lanes::{Kernel, Lanes, dispatch, prefetch};
use crate::host::{Call, Output, tally};
use crate::op::attention::Attention;

/// Elements of a cache line.
const LINE: usize = 16;
/// What a score is where its key is hidden: far below all others, and finite.
pub(super) const HIDDEN: f32 = -1e30;

/// Queries, keys and values of one pass, and where its outputs go.
pub(in crate::host) struct Pass<'a> {
    /// How many there are of each, and who sees whom.
    pub p: &'a Attention,
    pub q: Rows<'a>,
    pub k: Rows<'a>,
    pub v: Rows<'a>,
    pub o: Output<'a, f32>,
    /// Factor of a query's product with a key, log₂ e included.
    pub scale: f32,
    /// Factor of an output.
    pub gain: f32,
    pub bias: Bias<'a>,
    /// Where log₂ of the sum of each query's weights goes; nowhere but where those queries are the next pass's keys.
    pub logs: Option<Output<'a, f32>>,
}

/// Rows of `head_dim` elements, those of a group one behind the other.
#[derive(Clone, Copy)]
pub(in crate::host) struct Rows<'a> {
    pub at: &'a [f32],
    /// Elements from one group to the next; 0 where all groups have the same rows.
    pub apart: usize,
}

/// What is added to log₂ of a key's weights.
pub(in crate::host) enum Bias<'a> {
    None,
    /// This times the square of the key.
    Square(f32),
    /// For each key of each group.
    Given(&'a [f32]),
}

/// Runs a pass on all threads. Whether there was memory for its tiles; if not, nothing was done.
pub(in crate::host) fn fused(call: &Call<'_>, pass: &Pass<'_>) -> bool {
    let cut = Cut::of(pass.p, call.isa, call.tuned.get("PANELS"));
    let Some(scratch) = call.pool.scratch(4 * cut.tiles * call.pool.workers()) else { return false };
    let (tiles, next) = (Tiles(scratch.start().cast()), AtomicUsize::new(0));
    call.pool.run(&|worker, _| {
        // SAFETY: within the scratch, and this worker's own part of it.
        let tiles = unsafe { tiles.part(worker * cut.tiles) };
        dispatch(call.isa, Flash { pass, cut: &cut, next: &next, tiles });
    });
    true
}

/// Memory that workers use in disjoint parts.
pub(super) struct Tiles(pub(super) *mut f32);
// SAFETY: an address; who dereferences it keeps to its own part.
unsafe impl Sync for Tiles {}

impl Tiles {
    /// Its part from an element on.
    pub(super) unsafe fn part(&self, from: usize) -> *mut f32 {
        // SAFETY: within the memory by the caller's promise.
        unsafe { self.0.add(from) }
    }
}

/// The work of one worker.
struct Flash<'a> {
    pass: &'a Pass<'a>,
    cut: &'a Cut,
    next: &'a AtomicUsize,
    tiles: *mut f32,
}

/// A group's queries, keys and values.
#[derive(Clone, Copy)]
struct Group {
    number: usize,
    q: *const f32,
    k: *const f32,
    v: *const f32,
}

/// A panel's state. Of its tiles, `queries` and `outputs` are [d, NR].
#[derive(Clone, Copy)]
struct Panel<V> {
    queries: *mut f32,
    outputs: *mut f32,
    /// First of its rows among those of all groups, and how many there are.
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
        let (p, d) = (self.pass.p, self.pass.p.head_dim as usize);
        let (groups, all, keys) = (p.groups() as usize, p.group_rows() as usize, p.seq_kv as usize);
        let rows_of = |rows: &Rows<'_>, group: usize, count: usize| rows.at[group * rows.apart..][..count * d].as_ptr();
        let across = all.div_ceil(self.cut.unit);
        loop {
            let unit = self.next.fetch_add(1, Ordering::Relaxed);
            if unit >= across * groups {
                return;
            }
            let _group = tally::group();
            tally::registers(self.tiles, self.cut.tiles);
            // A group's units one after the other, while its keys and values are near; its last rows first, which see most keys.
            let (number, first) = (unit / across, (across - 1 - unit % across) * self.cut.unit);
            let Pass { q, k, v, .. } = self.pass;
            let group = Group { number, q: rows_of(q, number, all), k: rows_of(k, number, keys), v: rows_of(v, number, keys) };
            let rows = number * all + first..number * all + (first + self.cut.unit).min(all);
            // SAFETY: the unit's outputs are written by this worker alone; the group's rows lie in their tensors.
            unsafe { self.unit::<V, MR>(rows, &group) };
        }
    }

    #[inline(always)]
    unsafe fn unit<V: Lanes<Scalar = f32>, const MR: usize>(&self, rows: std::ops::Range<usize>, group: &Group) {
        let d = self.pass.p.head_dim as usize;
        let size = self.cut.panel * d;
        let block = Block { bias: self.tiles, scores: self.tiles.wrapping_add(KEYS) };
        // SAFETY: the tiles hold biases and scores of a block, then queries and outputs of every panel.
        unsafe {
            let tiles = block.scores.add(KEYS * self.cut.panel);
            let panel = |i: usize| self.panel::<V>(rows.start + i * self.cut.panel, rows.end, group, tiles.add(2 * i * size), size);
            let mut panels = [panel(0); 8];
            let count = rows.len().div_ceil(self.cut.panel);
            for (i, slot) in panels.iter_mut().enumerate().take(count).skip(1) {
                *slot = panel(i);
            }
            let panels = &mut panels[..count];
            let reach = panels.iter().map(|panel| panel.seen.1).max().unwrap_or(0);
            for first in (0..reach).step_by(KEYS) {
                self.biases::<V>(group, first..(first + KEYS).min(reach), block.bias);
                for (number, panel) in panels.iter_mut().filter(|panel| panel.seen.1 > first).enumerate() {
                    let keys = first..(first + KEYS).min(panel.seen.1);
                    self.block::<V, MR>(panel, keys, group.k.add(first * d), group.v.add(first * d), &block, number == 0);
                }
            }
            panels.iter().for_each(|panel| self.store(panel));
        }
    }

    /// A panel before its first key: queries transposed and scaled, zeros where there is no query.
    #[inline(always)]
    unsafe fn panel<V: Lanes<Scalar = f32>>(&self, row: usize, end: usize, group: &Group, tiles: *mut f32, size: usize) -> Panel<V> {
        let (d, lanes, p) = (self.pass.p.head_dim as usize, self.cut.panel, self.pass.p);
        let rows = lanes.min(end - row);
        let own = row - group.number * p.group_rows() as usize;
        // SAFETY: the tiles hold `size` elements twice by the caller's promise; the group has these rows.
        unsafe {
            let (queries, outputs) = (tiles, tiles.add(size));
            let q = tally::read(std::slice::from_raw_parts(group.q.add(own * d), rows * d));
            for lane in 0..lanes {
                for c in 0..d {
                    *queries.add(c * lanes + lane) = if lane < rows { q[lane * d + c] * self.pass.scale } else { 0.0 };
                }
            }
            outputs.write_bytes(0, size);
            let of = |row: usize| p.visible(row as u64) as usize;
            let seen = (row..row + rows).map(of).fold((usize::MAX, 0), |(low, high), seen| (low.min(seen), high.max(seen)));
            Panel { queries, outputs, row, rows, seen, largest: [V::splat(HIDDEN); 2], sum: [V::splat(0.0); 2] }
        }
    }

    /// The biases of a block of keys, once for all panels of a unit.
    #[inline(always)]
    unsafe fn biases<V: Lanes<Scalar = f32>>(&self, group: &Group, keys: std::ops::Range<usize>, to: *mut f32) {
        let (d, all) = (self.pass.p.head_dim as usize, self.pass.p.seq_kv as usize);
        // SAFETY: the keys are the group's, and `to` has room for a block.
        unsafe {
            match self.pass.bias {
                Bias::None => {}
                Bias::Given(given) => {
                    let given = tally::read(&given[group.number * all..][keys]);
                    to.copy_from_nonoverlapping(given.as_ptr(), given.len());
                }
                Bias::Square(factor) => {
                    for (i, key) in keys.enumerate() {
                        *to.add(i) = factor * square::<V>(group.k.add(key * d), d);
                    }
                }
            }
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
        block: &Block,
        ahead: bool,
    ) {
        let (d, count, scores) = (self.pass.p.head_dim as usize, keys.len(), block.scores);
        let bias = (!matches!(self.pass.bias, Bias::None)).then_some(block.bias.cast_const());
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
            tiles::<V, MR>(count, rows, (d, 1), (panel.queries, d), scores, (bias, None));
            if panel.seen.0 < keys.end {
                self.hide(panel, &keys, scores);
            }
            let shrunk = weigh(panel, count, scores);
            tiles::<V, MR>(d, |column| v.add(column), (1, d), (scores, count), panel.outputs, (None, Some(shrunk)));
        }
    }

    /// Overwrites the scores of keys that a query must not see.
    #[inline(always)]
    unsafe fn hide<V: Lanes<Scalar = f32>>(&self, panel: &Panel<V>, keys: &std::ops::Range<usize>, scores: *mut f32) {
        for lane in 0..panel.rows {
            let seen = self.pass.p.visible((panel.row + lane) as u64) as usize;
            for key in seen.max(keys.start)..keys.end {
                // SAFETY: within the block of scores.
                unsafe { *scores.add((key - keys.start) * self.cut.panel + lane) = HIDDEN };
            }
        }
    }

    /// Divides a panel's outputs by the sums of their weights and stores them.
    #[inline(always)]
    unsafe fn store<V: Lanes<Scalar = f32>>(&self, panel: &Panel<V>) {
        let (d, lanes, Pass { o, gain, logs, .. }) = (self.pass.p.head_dim as usize, self.cut.panel, self.pass);
        let (mut sums, mut largest) = ([0f32; 64], [0f32; 64]);
        // SAFETY: two registers fit; the rows are this worker's own.
        unsafe {
            for half in 0..2 {
                panel.sum[half].store(sums.as_mut_ptr().add(half * V::COUNT));
                panel.largest[half].store(largest.as_mut_ptr().add(half * V::COUNT));
            }
            for lane in 0..panel.rows {
                let at = (panel.row + lane) * d;
                tally::store(o.start.add(at), d);
                for (c, out) in o.slice(at..at + d).iter_mut().enumerate() {
                    *out = gain * *panel.outputs.add(c * lanes + lane) / sums[lane];
                }
            }
            if let Some(logs) = logs {
                let out = logs.slice(panel.row..panel.row + panel.rows);
                tally::store(out.as_ptr(), out.len());
                out.iter_mut().zip(sums.iter().zip(&largest)).for_each(|(out, (sum, largest))| *out = largest + sum.log2());
            }
        }
    }
}

/// The memory of a block of keys: biases, and its scores with one panel.
struct Block {
    bias: *mut f32,
    scores: *mut f32,
}

/// The square of a row of `d` elements.
#[inline(always)]
unsafe fn square<V: Lanes<Scalar = f32>>(row: *const f32, d: usize) -> f32 {
    let whole = d / V::COUNT * V::COUNT;
    // SAFETY: the row has `d` elements by the caller's promise.
    unsafe {
        let mut sum = V::splat(0.0);
        for c in (0..whole).step_by(V::COUNT) {
            let x = V::load(row.add(c));
            sum = x.mul_add(x, sum);
        }
        let rest = tally::read(std::slice::from_raw_parts(row.add(whole), d - whole));
        sum.sum() + rest.iter().map(|x| x * x).sum::<f32>()
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
