//! Sizes that no machine computes, refused in one sentence.

use super::Definition;
use crate::error::{Error, Result};

/// Most multiply-adds that a problem may take: beyond any machine, and far from overflow.
const MOST: u128 = 1 << 60;

/// Checks extents for zero and the tensor for overflow: the one routine that every shape passes.
///
/// # Errors
/// [`Error::Usage`] naming the op, the tensor and the extents.
pub fn checked_shape(op: &str, tensor: &str, shape: &[u64]) -> Result<()> {
    if let Some(at) = shape.iter().position(|&e| e == 0) {
        return Err(Error::usage(format!(
            "{op}: tensor {tensor} has extent 0 at position {at} of {shape:?}; every size must be at least 1"
        )));
    }
    let elements = shape.iter().try_fold(1u64, |product, &extent| product.checked_mul(extent));
    match elements {
        Some(n) if n <= 1 << 44 => Ok(()),
        _ => Err(Error::usage(format!("{op}: tensor {tensor} of {shape:?} has more than 2^44 elements; choose smaller sizes"))),
    }
}

/// Refuses a problem that takes more multiply-adds than any machine computes; their number is the product of `factors`.
pub(super) fn checked_macs<P: Definition>(problem: &P, factors: &[u64]) -> Result<()> {
    let macs = factors.iter().try_fold(1u128, |product, &factor| product.checked_mul(factor as u128));
    match macs {
        Some(macs) if macs <= MOST => Ok(()),
        _ => Err(Error::usage(format!(
            "{}: {} takes more than 2^60 multiply-adds; choose smaller sizes",
            P::NAME,
            Definition::label(problem)
        ))),
    }
}
