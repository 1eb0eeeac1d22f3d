//! A filter that slides along one axis of an image: what the convolutions share.

use std::collections::BTreeSet;

/// One axis of a convolution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Axis {
    /// Positions of the input.
    pub(super) input: u64,
    /// Taps of the filter.
    pub(super) taps: u64,
    /// Step between outputs.
    pub(super) stride: u64,
    /// Zeros on both sides.
    pub(super) padding: u64,
    /// Step between taps.
    pub(super) dilation: u64,
}

impl Axis {
    /// Number of outputs; `None` where the filter does not fit the padded input, or a size overflows.
    pub(super) fn outputs(&self) -> Option<u64> {
        let reach = self.taps.checked_sub(1)?.checked_mul(self.dilation)?.checked_add(1)?;
        let padded = self.padding.checked_mul(2)?.checked_add(self.input)?;
        Some(padded.checked_sub(reach)?.checked_div(self.stride)? + 1)
    }

    /// Where tap `tap` of output `output` lies in the input, if inside.
    pub(super) fn position(&self, output: u64, tap: u64) -> Option<u64> {
        let padded = output * self.stride + tap * self.dilation;
        padded.checked_sub(self.padding).filter(|&at| at < self.input)
    }

    /// Taps inside the input, summed over all outputs.
    pub(crate) fn inside(&self) -> u64 {
        let taps = |output| (0..self.taps).filter(|&tap| self.position(output, tap).is_some()).count() as u64;
        (0..self.outputs().unwrap_or(0)).map(taps).sum()
    }

    /// Distinct input positions, and distinct taps with one inside, of runs of `run` neighbouring outputs, each summed over the runs.
    pub(crate) fn touched(&self, run: u64) -> (u64, u64) {
        let outputs = self.outputs().unwrap_or(0);
        let (mut positions, mut taps) = (0, 0);
        for first in (0..outputs).step_by(run.max(1) as usize) {
            let (mut touched, mut used) = (BTreeSet::new(), BTreeSet::new());
            for output in first..(first + run).min(outputs) {
                for tap in 0..self.taps {
                    if let Some(at) = self.position(output, tap) {
                        touched.insert(at);
                        used.insert(tap);
                    }
                }
            }
            positions += touched.len() as u64;
            taps += used.len() as u64;
        }
        (positions, taps)
    }
}
