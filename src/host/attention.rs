//! `attention` on the host: the plain three passes, and a fused one that keeps no scores ([`fused`]).
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

use super::{Call, Isa, share, tally};
use crate::op::attention::Attention;
use crate::plan::{Demand, Setting, Tunable};

pub(crate) mod decode;
mod fused;
mod product;

pub(super) use fused::{Bias, Pass, Rows, fused};

/// Panels of a unit, which meet a block of keys one after the other while it is in the first-level cache.
pub(crate) const PANELS: Tunable = Tunable { name: "PANELS", values: &[4, 2, 8, 1] };

/// Keys of a block.
const KEYS: usize = 64;

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
    /// Elements of tiles a worker keeps: for every panel its queries and outputs, transposed; one block of scores and its keys' biases.
    tiles: usize,
}

impl Cut {
    fn of(p: &Attention, isa: Isa, panels: u32) -> Self {
        let panel = 2 * isa.register_bytes() / 4;
        let panels = (panels as usize).min((p.group_rows() as usize).div_ceil(panel));
        Cut { panel, unit: panels * panel, tiles: panel * (panels * 2 * p.head_dim as usize + KEYS) + KEYS }
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
    let d = p.head_dim as usize;
    let keys = |tensor: usize| Rows { at: call.input(tensor), apart: p.seq_kv as usize * d };
    let pass = Pass {
        p,
        q: Rows { at: call.input(0), apart: p.group_rows() as usize * d },
        k: keys(1),
        v: keys(2),
        o: call.output(3),
        scale: std::f32::consts::LOG2_E / (d as f32).sqrt(),
        gain: 1.0,
        bias: Bias::None,
        logs: None,
    };
    if !fused(call, &pass) {
        // Without memory for tiles, the definition still gives the answer.
        super::naive(p, call);
    }
}
