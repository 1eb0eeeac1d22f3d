//! `performer/linear` on the host: the fused pass of [`attention`](super::attention) twice, as the op's head says.
//!
//! The first pass takes features for queries, which all heads share, and lowers the score of a key by half its square; it leaves for every
//! feature its mean value and log₂ of the sum of its weights. The second takes features for keys and these logarithms for
//! their biases. FLOPs over peak and bytes over bandwidth are those of `flash`.

use std::f32::consts::LOG2_E;

use super::attention::{self, Bias, Pass, Rows, fused};
use super::{Call, naive};
use crate::op::performer::Performer;
use crate::plan::{Demand, Setting};

/// The kernel.
pub(crate) fn linear(problem: &Performer, call: &Call<'_>) {
    let [keyed, asked] = problem.passes();
    let (d, m, n) = (problem.head_dim as usize, problem.features as usize, problem.seq as usize);
    let (scale, half) = problem.factors();
    let (scale, half) = (scale as f32 * LOG2_E, half as f32 * LOG2_E);
    let (tokens, features) = (|tensor| Rows { at: call.input(tensor), apart: n * d }, Rows { at: call.input(3), apart: 0 });
    let gathers = Pass {
        p: &keyed,
        q: features,
        k: tokens(1),
        v: tokens(2),
        o: call.output(5),
        scale,
        gain: 1.0,
        bias: Bias::Square(half),
        logs: Some(call.output(6)),
    };
    let attends = || Pass {
        p: &asked,
        q: tokens(0),
        k: features,
        v: Rows { at: call.input(5), apart: m * d },
        o: call.output(4),
        scale,
        gain: 1.0,
        bias: Bias::Given(call.input(6)),
        logs: None,
    };
    if !(fused(call, &gathers) && fused(call, &attends())) {
        // Without memory for tiles, the definition still gives the answer.
        naive(problem, call);
    }
}

/// Requested and lane bytes: those of both passes; units of the first store logarithms and load their keys once more to square them, units
/// of the second load the logarithms.
pub(crate) fn demand(problem: &Performer, s: &Setting<'_>) -> Demand {
    let passes = problem.passes();
    let [gathers, attends] = [0, 1].map(|i| attention::demand(&passes[i], s));
    let [units, askers] = [0, 1].map(|i| attention::units(&passes[i], s));
    let logs = 4 * (passes[0].rows() + askers * problem.features);
    let squares = 4 * units * problem.seq * problem.head_dim;
    Demand {
        requested: gathers.requested + attends.requested + logs,
        lane: gathers.lane + attends.lane + logs + squares,
        workspace: gathers.workspace.max(attends.workspace),
    }
}
