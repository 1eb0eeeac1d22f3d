//! `linformer/linear` on the host: two products of the engine in [`gemm`](super::gemm), then the fused pass of [`attention`](super::attention).
//!
//! A projection is one product for all heads: E is its left matrix, and column (head, c) of its right one is column c of the head's keys,
//! gathered while packing; the result is stored head by head, as the pass reads it. What elements of E and F count goes into the scale
//! of the scores and of the outputs, where it costs nothing.
//!
//! FLOPs over peak: half of the work is that of a matmul of rank × (heads · d) × seq, half that of `flash` over rank keys.
//! Bytes over bandwidth: keys and values are read once, the projected ones stay in a second-level cache.

use std::ops::Range;

use super::attention::{self, Bias, Pass, Rows, fused};
use super::gemm::{self, Operands, Target, multiply};
use super::lanes::Lanes;
use super::matmul::pack_rows;
use super::{Call, naive};
use crate::op::linformer::Linformer;
use crate::plan::{Demand, Setting};

/// The kernel.
pub(crate) fn linear(problem: &Linformer, call: &Call<'_>) {
    if !(projected(problem, call) && attended(problem, call)) {
        // Without memory to pack into, the definition still gives the answer.
        naive(problem, call);
    }
}

/// Keys and values to scratch, times E and F as they are stored.
fn projected(problem: &Linformer, call: &Call<'_>) -> bool {
    let (e, d) = (problem.extents(), problem.head_dim as usize);
    [(1, 3, 6), (2, 4, 7)].into_iter().all(|(from, by, to)| {
        let operands = Gathered { by: call.input(by), x: call.input(from), d, n: e.k };
        let target = Target::parted(call.output(to), d, 0, (d, e.m * d));
        multiply::<f32, f32, _>(call, &e, &operands, &target)
    })
}

fn attended(problem: &Linformer, call: &Call<'_>) -> bool {
    let (p, d, unit) = (problem.projected(), problem.head_dim as usize, problem.unit() as f32);
    let keys = |tensor: usize| Rows { at: call.input(tensor), apart: p.seq_kv as usize * d };
    let pass = Pass {
        p: &p,
        q: Rows { at: call.input(0), apart: p.seq_q as usize * d },
        k: keys(6),
        v: keys(7),
        o: call.output(5),
        scale: unit * std::f32::consts::LOG2_E / (d as f32).sqrt(),
        gain: unit,
        bias: Bias::None,
        logs: None,
    };
    fused(call, &pass)
}

/// Requested and lane bytes: those of both products and of the pass, which use the same memory for panels and tiles one after the other.
pub(crate) fn demand(problem: &Linformer, s: &Setting<'_>) -> Demand {
    let (product, pass) = (gemm::demand(&problem.extents(), s), attention::demand(&problem.projected(), s));
    Demand {
        requested: 2 * product.requested + pass.requested,
        lane: 2 * product.lane + pass.lane,
        workspace: product.workspace.max(pass.workspace),
    }
}

/// A projection, and the rows of all heads side by side.
struct Gathered<'a> {
    by: &'a [f32], // [rank, n]
    x: &'a [f32],  // [heads, n, d]
    d: usize,
    n: usize,
}

impl Operands<f32> for Gathered<'_> {
    #[inline(always)]
    unsafe fn pack_a<V: Lanes<Scalar = f32>, const MR: usize>(&self, rows: Range<usize>, depth: Range<usize>, to: *mut f32) {
        // SAFETY: by the caller's promise.
        unsafe { pack_rows::<V, f32, MR>(self.by, self.n, rows, depth, to) }
    }

    #[inline(always)]
    unsafe fn pack_b<V: Lanes<Scalar = f32>>(&self, columns: Range<usize>, depth: Range<usize>, to: *mut f32) {
        let nr = 2 * V::COUNT;
        for (panel, first) in columns.clone().step_by(nr).enumerate() {
            let mut at = 0;
            while at < nr {
                let column = first + at;
                let (head, c) = (column / self.d, column % self.d);
                let exists = column < columns.end;
                let count = if exists { (self.d - c).min(columns.end - column).min(nr - at) } else { nr - at };
                for p in 0..depth.len() {
                    // SAFETY: the panels have room by the caller's promise, and a row has `count` elements from column c on.
                    unsafe {
                        let to = to.add((panel * depth.len() + p) * nr + at);
                        if !exists {
                            to.write_bytes(0, count);
                            continue;
                        }
                        let from = self.x[(head * self.n + depth.start + p) * self.d + c..][..count].as_ptr();
                        if count == nr {
                            V::load(from).store(to);
                            V::load(from.add(V::COUNT)).store(to.add(V::COUNT));
                        } else {
                            to.copy_from_nonoverlapping(from, count);
                        }
                    }
                }
                at += count;
            }
        }
    }
}
