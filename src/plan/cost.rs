//! What one call of a plan costs: multiply-adds, and bytes in five columns.

use serde::Serialize;

use super::{Demand, Dispatch, Precision};
use crate::op::{Op, Role, TensorSpec};

/// The work of one call. Multiply-adds and bytes are never mixed; METHODOLOGY.md, "Counting", says what each column means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Cost {
    /// Multiply-adds, padding taps included; softmax, scaling and index arithmetic not.
    pub macs: u64,
    /// Floating-point operations: 2 × MACs.
    pub flops: u64,
    /// Exponentials.
    pub exponentials: u64,
    /// Each tensor once at its storage width.
    pub compulsory: u64,
    /// The written part of `compulsory`.
    pub written: u64,
    /// Tensors that each dispatch reads and writes, summed.
    pub moved: u64,
    /// Distinct bytes each work-group loads and stores, summed; absent where nobody counted them.
    pub requested: Option<u64>,
    /// Bytes that all lanes name; absent likewise.
    pub lane: Option<u64>,
    /// Scratch memory beyond the tensors.
    pub workspace: u64,
}

/// The work of one call; `memory` is the tensors, then scratch.
pub(super) fn of(op: &dyn Op, precision: Precision, memory: &[TensorSpec], dispatches: &[Dispatch], demand: Option<Demand>) -> Cost {
    let (macs, flops, exponentials) = (op.macs(), op.flops(), op.exponentials());
    if let Some(traffic) = op.traffic(precision) {
        let all = traffic.read + traffic.written;
        return Cost {
            macs,
            flops,
            exponentials,
            compulsory: all,
            written: traffic.written,
            moved: all,
            requested: Some(all),
            lane: Some(all),
            workspace: 0,
        };
    }
    let bytes = |numbers: &[usize]| numbers.iter().map(|&t| memory[t].bytes()).sum::<u64>();
    let of = |wanted: fn(Role) -> bool| memory.iter().filter(move |t| wanted(t.role)).map(TensorSpec::bytes).sum::<u64>();
    Cost {
        macs,
        flops,
        exponentials,
        compulsory: of(|role| role != Role::Scratch),
        written: of(|role| role == Role::Output),
        moved: dispatches.iter().map(|d| bytes(&d.reads) + bytes(&d.writes)).sum(),
        requested: demand.map(|d| d.requested),
        lane: demand.map(|d| d.lane),
        workspace: demand.map_or(0, |d| d.workspace) + of(|role| role == Role::Scratch),
    }
}
