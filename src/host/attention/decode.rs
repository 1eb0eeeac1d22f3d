//! `flash_decode` on the host: few queries against many keys, which are read once, in the order in which they lie.
//!
//! A unit of work is one split of a group's keys, met by all queries that share them, in blocks of up to [`ROWS`]. Lanes lie across the elements of a
//! head, not across queries as in [`flash`](super::flash), whose lanes one query leaves empty: a key's scores with the queries of a block are
//! summed across the lanes at its end. When all scores of the split are there they become weights (powers of two), and every value, while it is in
//! a first-level cache, is added to the sums of each query. A unit leaves its sums, its largest score and the sum of its weights; a second pass
//! over the rows combines them.
//!
//! Bytes over bandwidth: K and V once. FLOPs over peak for 8 × 32 heads (8 of keys) × 2048 × 128 in f32, on two cores at 90 GB/s and 530 GFLOP/s: 1.5 ms
//! and 1.0 ms, and a third more instructions for scores summed across lanes; predicted 1.6 ms. Measured on two shared cores of a Zen 5, medians of
//! interleaved samples: 2.8 ms where a read of as many bytes took 1.75, 3.6 where it took 2.75 (`flash`: 10.6 in both). What is missing is memory
//! that waits while scores are summed and weighed.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::fused::{HIDDEN, Tiles};
use crate::host::exp::exp2;
use crate::host::lanes::{Kernel, Lanes, dispatch, prefetch};
use crate::host::{Call, Output, share, tally};
use crate::op::attention::Attention;
use crate::plan::{Demand, Setting, Tunable};

/// Keys of a split.
pub(crate) const SPLIT: Tunable = Tunable { name: "SPLIT", values: &[512, 256, 1024] };

/// Queries of a block, where more than one share keys: the last repeats where there are fewer.
const ROWS: usize = 4;
/// Values that pass, a part of their columns at a time, while they are in a first-level cache.
const VALUES: usize = 16;
/// Elements by which keys and values are asked for ahead: what memory brings within some hundreds of nanoseconds.
const AHEAD: usize = 4096;

/// How the work is cut.
struct Cut {
    rows: usize,
    blocks: usize,
    split: usize,
    splits: usize,
    /// Elements that a worker keeps: queries, sums and scores of a block.
    kept: usize,
    /// Elements of a row that a unit leaves: sums, the largest score and the sum of weights.
    left: usize,
}

impl Cut {
    fn of(p: &Attention, split: u32) -> Self {
        let (all, d, split) = (p.group_rows() as usize, p.head_dim as usize, split as usize);
        let rows = if all == 1 { 1 } else { ROWS };
        let (blocks, splits) = (all.div_ceil(rows), (p.seq_kv as usize).div_ceil(split));
        Cut { rows, blocks, split, splits, kept: rows * (2 * d + split), left: d + 2 }
    }

    /// Elements of scratch: what units leave, then what workers keep.
    fn scratch(&self, p: &Attention, workers: usize) -> (usize, usize) {
        let left = p.rows() as usize * self.splits * self.left;
        (left, left + workers * self.kept)
    }
}

/// Units of a problem.
pub(crate) fn units(p: &Attention, s: &Setting<'_>) -> u64 {
    p.groups() * Cut::of(p, s.tuned.get("SPLIT")).splits as u64
}

/// Requested: a unit loads its queries and every key and value that one of them sees, and stores what it leaves of each row; a row of the second
/// pass loads that and stores its output. Lane: a block loads its queries, repeated ones too, and the keys and values that it sees.
pub(crate) fn demand(p: &Attention, s: &Setting<'_>) -> Demand {
    let cut = Cut::of(p, s.tuned.get("SPLIT"));
    let (d, all, splits, left) = (p.head_dim, p.group_rows(), cut.splits as u64, cut.left as u64);
    let after = 2 * all * splits * left + all * d;
    let of = |queries: u64, reached: u64| 4 * p.groups() * (splits * queries * d + 2 * reached * d + after);
    Demand {
        requested: of(all, p.reached(all)),
        lane: of((cut.blocks * cut.rows) as u64, p.reached(cut.rows as u64)),
        workspace: 4 * cut.scratch(p, s.device.compute_units as usize).1 as u64,
    }
}

/// Splits of the keys, then their combination.
pub(crate) fn flash_decode(p: &Attention, call: &Call<'_>) {
    let cut = Cut::of(p, call.tuned.get("SPLIT"));
    let (left, all) = cut.scratch(p, call.pool.workers());
    let Some(scratch) = call.pool.scratch(4 * all) else {
        // Without memory for sums, the definition still gives the answer.
        return crate::host::naive(p, call);
    };
    let (memory, next) = (Tiles(scratch.start().cast()), AtomicUsize::new(0));
    let [q, k, v] = [0, 1, 2].map(|tensor| call.input::<f32>(tensor));
    call.pool.run(&|worker, _| {
        // SAFETY: within the scratch, and this worker's own part of it.
        let kept = unsafe { memory.part(left + worker * cut.kept) };
        let work = Splits { p, cut: &cut, q, k, v, left: &memory, kept, next: &next };
        match cut.rows {
            1 => dispatch(call.isa, Blocks::<1>(work)),
            _ => dispatch(call.isa, Blocks::<ROWS>(work)),
        }
    });
    let o = call.output::<f32>(3);
    call.pool.run(&|worker, workers| {
        for row in share(p.rows() as usize, worker, workers) {
            let _group = tally::group();
            // SAFETY: the splits have left theirs of every row, and rows belong to one worker each.
            unsafe { combine(&cut, memory.part(row * cut.splits * cut.left), row, p.head_dim as usize, &o) };
        }
    });
}

/// The output of a row, of what its splits left at `from`.
unsafe fn combine(cut: &Cut, from: *const f32, row: usize, d: usize, o: &Output<'_, f32>) {
    // SAFETY: by the caller's promise.
    unsafe {
        let splits = tally::read(std::slice::from_raw_parts(from, cut.splits * cut.left)).chunks_exact(cut.left);
        let out = o.slice(row * d..(row + 1) * d);
        let most = splits.clone().fold(HIDDEN, |most, split| most.max(split[d]));
        let mut total = 0.0;
        out.fill(0.0);
        for split in splits {
            let share = (split[d] - most).exp2();
            total += share * split[d + 1];
            out.iter_mut().zip(split).for_each(|(out, sum)| *out += share * sum);
        }
        tally::store(out.as_ptr(), d);
        out.iter_mut().for_each(|out| *out /= total);
    }
}

/// The work of one worker.
struct Splits<'a> {
    p: &'a Attention,
    cut: &'a Cut,
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    left: &'a Tiles,
    /// Queries [ROWS, d], sums [ROWS, d], scores [ROWS, split].
    kept: *mut f32,
    next: &'a AtomicUsize,
}

/// The same in blocks of R rows.
struct Blocks<'a, const R: usize>(Splits<'a>);

/// Keys of a split that a block sees.
struct Seen<const R: usize> {
    /// The first, among those of all groups.
    first: usize,
    /// How many each row sees, and the most of them.
    rows: [usize; R],
    most: usize,
}

impl<const R: usize> Kernel<f32> for Blocks<'_, R> {
    #[inline(always)]
    unsafe fn run<V: Lanes<Scalar = f32>>(self) {
        // SAFETY: by the caller's promise.
        unsafe { if V::REGISTERS == 32 { self.work::<V, 4>() } else { self.work::<V, 2>() } }
    }
}

impl<const R: usize> Blocks<'_, R> {
    /// Takes units off the counter; C keys, or registers of columns, at a time.
    #[inline(always)]
    unsafe fn work<V: Lanes<Scalar = f32>, const C: usize>(&self) {
        let Splits { p, cut, next, kept, .. } = self.0;
        loop {
            let unit = next.fetch_add(1, Ordering::Relaxed);
            if unit >= cut.splits * p.groups() as usize {
                return;
            }
            let _group = tally::group();
            tally::registers(kept, cut.kept);
            for block in 0..cut.blocks {
                // SAFETY: the tensors hold the group's rows; what is kept and left is this worker's.
                unsafe { self.block::<V, C>(unit / cut.splits, unit % cut.splits, block) };
            }
        }
    }

    #[inline(always)]
    unsafe fn block<V: Lanes<Scalar = f32>, const C: usize>(&self, group: usize, split: usize, block: usize) {
        let Splits { p, cut, kept, .. } = self.0;
        let (all, d) = (p.group_rows() as usize, p.head_dim as usize);
        let row = |r: usize| group * all + (block * R + r).min(all - 1);
        let sees = |r: usize| (p.visible(row(r) as u64) as usize).saturating_sub(split * cut.split).min(cut.split);
        let rows = std::array::from_fn(sees);
        let seen = Seen { first: group * p.seq_kv as usize + split * cut.split, rows, most: rows.into_iter().max().unwrap_or(0) };
        // SAFETY: by the caller's promise.
        unsafe {
            let (sums, scores) = (kept.add(R * d), kept.add(2 * R * d));
            self.queries(row, kept);
            self.scores::<V, C>(&seen, kept, scores);
            let mut states = [(HIDDEN, 0.0); R];
            for r in 0..R {
                states[r] = weigh::<V>(scores.add(r * cut.split), seen.rows[r], seen.most);
            }
            sums.write_bytes(0, R * d);
            self.values::<V, C>(&seen, scores, sums);
            for r in 0..R.min(all - block * R) {
                let to = self.0.left.part((row(r) * cut.splits + split) * cut.left);
                tally::store(to, cut.left);
                to.copy_from_nonoverlapping(sums.add(r * d), d);
                (*to.add(d), *to.add(d + 1)) = states[r];
            }
        }
    }

    /// A block's queries, scaled.
    #[inline(always)]
    unsafe fn queries(&self, row: impl Fn(usize) -> usize, to: *mut f32) {
        let d = self.0.p.head_dim as usize;
        let scale = std::f32::consts::LOG2_E / (d as f32).sqrt();
        for r in 0..R {
            for (c, x) in tally::read(&self.0.q[row(r) * d..][..d]).iter().enumerate() {
                // SAFETY: `to` has room for R queries.
                unsafe { *to.add(r * d + c) = x * scale };
            }
        }
    }

    #[inline(always)]
    unsafe fn scores<V: Lanes<Scalar = f32>, const C: usize>(&self, seen: &Seen<R>, queries: *const f32, to: *mut f32) {
        let (d, split) = (self.0.p.head_dim as usize, self.0.cut.split);
        let (keys, values) = (self.0.k[seen.first * d..].as_ptr(), self.0.v[seen.first * d..].as_ptr());
        // Behind the last key the first values follow.
        let ahead = |key: usize| match (key * d + AHEAD).checked_sub(seen.most * d) {
            Some(past) => values.wrapping_add(past),
            None => keys.wrapping_add(key * d + AHEAD),
        };
        let mut key = 0;
        // SAFETY: the split has these keys, and there is room for a row of scores for each query.
        unsafe {
            while key + C <= seen.most {
                products::<V, R, C>(queries, (keys.add(key * d), ahead(key)), d, to.add(key), split);
                key += C;
            }
            while key < seen.most {
                products::<V, R, 1>(queries, (keys.add(key * d), ahead(key)), d, to.add(key), split);
                key += 1;
            }
        }
    }

    /// Adds every value times its weights to the sums.
    #[inline(always)]
    unsafe fn values<V: Lanes<Scalar = f32>, const C: usize>(&self, seen: &Seen<R>, weights: *const f32, sums: *mut f32) {
        let (d, split) = (self.0.p.head_dim as usize, self.0.cut.split);
        let values = self.0.v[seen.first * d..].as_ptr();
        for first in (0..seen.most).step_by(VALUES) {
            let count = VALUES.min(seen.most - first);
            let (mut c, wide) = (0, C * V::COUNT);
            // SAFETY: the split has these values; weights and sums are there for every query.
            unsafe {
                let (values, weights) = (values.add(first * d), weights.add(first));
                while c + wide <= d {
                    add::<V, R, C>(values.add(c), d, count, weights, split, sums.add(c));
                    c += wide;
                }
                while c + V::COUNT <= d {
                    add::<V, R, 1>(values.add(c), d, count, weights, split, sums.add(c));
                    c += V::COUNT;
                }
                for key in 0..count {
                    for (x, c) in tally::read(std::slice::from_raw_parts(values.add(key * d + c), d - c)).iter().zip(c..) {
                        for r in 0..R {
                            *sums.add(r * d + c) += *weights.add(r * split + key) * x;
                        }
                    }
                }
            }
        }
    }
}

/// Products of R queries with K keys of `d` elements, as many elements being asked for at `ahead`: row r's go to `to[r · apart..]`.
#[inline(always)]
unsafe fn products<V: Lanes<Scalar = f32>, const R: usize, const K: usize>(
    queries: *const f32,
    (keys, ahead): (*const f32, *const f32),
    d: usize,
    to: *mut f32,
    apart: usize,
) {
    let whole = d / V::COUNT * V::COUNT;
    // SAFETY: by the caller's promise; a prefetch may name any address.
    unsafe {
        let mut sums = [[V::splat(0.0); K]; R];
        for c in (0..whole).step_by(V::COUNT) {
            let mut x = [V::splat(0.0); K];
            for j in 0..K {
                x[j] = V::load(keys.add(j * d + c));
                prefetch(ahead.wrapping_add(j * d + c));
            }
            for r in 0..R {
                let q = V::load(queries.add(r * d + c));
                for j in 0..K {
                    sums[r][j] = q.mul_add(x[j], sums[r][j]);
                }
            }
        }
        for j in 0..K {
            let mut all = [0.0; R];
            for r in 0..R {
                all[r] = sums[r][j].sum();
            }
            for (x, c) in tally::read(std::slice::from_raw_parts(keys.add(j * d + whole), d - whole)).iter().zip(whole..) {
                for r in 0..R {
                    all[r] += *queries.add(r * d + c) * x;
                }
            }
            for r in 0..R {
                *to.add(r * apart + j) = all[r];
            }
        }
    }
}

/// Turns a row's scores into weights, 2 to the power of what they lie below the largest, hidden ones among `most` into none. The largest
/// and their sum.
#[inline(always)]
unsafe fn weigh<V: Lanes<Scalar = f32>>(scores: *mut f32, seen: usize, most: usize) -> (f32, f32) {
    // SAFETY: a row of scores is whole registers long.
    unsafe {
        if seen == 0 {
            scores.write_bytes(0, most);
            return (HIDDEN, 0.0);
        }
        let end = most.next_multiple_of(V::COUNT);
        for key in seen..end {
            *scores.add(key) = HIDDEN;
        }
        let mut largest = V::splat(HIDDEN);
        for key in (0..end).step_by(V::COUNT) {
            largest = largest.max(V::load(scores.add(key)));
        }
        let mut lanes = [HIDDEN; 16];
        largest.store(lanes.as_mut_ptr());
        let largest = lanes.into_iter().fold(HIDDEN, f32::max);
        let (below, mut sum) = (V::splat(-largest), V::splat(0.0));
        for key in (0..end).step_by(V::COUNT) {
            let weight = exp2(V::load(scores.add(key)).add(below));
            weight.store(scores.add(key));
            sum = sum.add(weight);
        }
        (largest, sum.sum())
    }
}

/// Adds `count` values, of each C registers, times their weights to R sums.
#[inline(always)]
unsafe fn add<V: Lanes<Scalar = f32>, const R: usize, const C: usize>(
    values: *const f32,
    d: usize,
    count: usize,
    weights: *const f32,
    apart: usize,
    to: *mut f32,
) {
    // SAFETY: by the caller's promise; a prefetch may name any address.
    unsafe {
        let mut sums = [[V::splat(0.0); C]; R];
        for r in 0..R {
            for c in 0..C {
                sums[r][c] = V::load(to.add(r * d + c * V::COUNT));
            }
        }
        for key in 0..count {
            let mut x = [V::splat(0.0); C];
            for c in 0..C {
                let at = values.add(key * d + c * V::COUNT);
                x[c] = V::load(at);
                prefetch(at.wrapping_add(AHEAD));
            }
            for r in 0..R {
                let weight = V::broadcast(weights.add(r * apart + key));
                for c in 0..C {
                    sums[r][c] = weight.mul_add(x[c], sums[r][c]);
                }
            }
        }
        for r in 0..R {
            for c in 0..C {
                sums[r][c].store(to.add(r * d + c * V::COUNT));
            }
        }
    }
}
