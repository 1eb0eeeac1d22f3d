//! Products that are short on one side: the operand on that side is packed whole, and each worker packs the other one slab by slab, just before
//! it is used.
//!
//! Nothing of the long operand is used by more than one unit, so packing it for everybody would send it out to the last-level cache and back.
//! Its slab stays in the worker's own second-level cache instead. Bytes over bandwidth: the long operand once from memory, its slabs once more
//! from the second level. A product of few rows whose B lies row by row has a better way ([`few`](super::super::gemv)); this one serves
//! convolutions of few pixels, and few columns.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Blocking, Extents, Operands, Panels, Slice, Target};
use crate::host::Call;
use crate::host::lanes::Scalar;

/// Rows or columns at most of a product whose operand on that side is packed whole, and how many times as many the other side has at least.
pub(super) const SHORT: usize = 128;
const OBLONG: usize = 4;

/// The side on which a product is short.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Short {
    /// Few rows: A is packed whole.
    Rows,
    /// Few columns: B is.
    Columns,
}

impl Short {
    /// The short side of a product; `None` where neither is.
    pub(super) fn of(e: &Extents) -> Option<Self> {
        let short = |extent: usize, other: usize| extent <= SHORT && OBLONG * extent <= other;
        match (short(e.m, e.n), short(e.n, e.m)) {
            (true, _) => Some(Short::Rows),
            (_, true) => Some(Short::Columns),
            _ => None,
        }
    }

    /// Elements of the operand that is packed whole.
    pub(super) fn whole(self, e: &Extents, b: &Blocking) -> usize {
        self.side(b) * b.chunked(e.k)
    }

    /// Elements of a slab of the other.
    pub(super) fn slab(self, e: &Extents, b: &Blocking) -> usize {
        b.depth(e) * if self == Short::Rows { b.columns } else { b.rows }
    }

    /// Extent of the short side in whole panels.
    fn side(self, b: &Blocking) -> usize {
        if self == Short::Rows { b.rows } else { b.columns }
    }
}

/// C = A · B. Whether there was memory to pack into; if not, nothing was done.
pub(super) fn multiply<S: Scalar, O: Operands<S>>(
    call: &Call<'_>,
    e: &Extents,
    operands: &O,
    to: &Target<'_, S>,
    blocking: &Blocking,
    short: Short,
) -> bool {
    let (whole, slab) = (short.whole(e, blocking), short.slab(e, blocking));
    let Some(scratch) = call.pool.scratch((whole + call.pool.workers() * slab) * size_of::<S>()) else { return false };
    let start: *mut S = scratch.start().cast();
    let whole_panels = Panels(start);
    // SAFETY: within the scratch, whose first part holds the whole operand.
    let shared = |p: usize| Panels(unsafe { whole_panels.get().add(short.side(blocking) * p) });
    let depth = |p: usize| p..(p + blocking.kc).min(e.k);
    // All slices at once: one may have less to pack than there are workers.
    let packed: Vec<AtomicUsize> = (0..e.k).step_by(blocking.kc).map(|_| AtomicUsize::new(0)).collect();
    call.pool.run(&|_, _| {
        for (p, next) in (0..e.k).step_by(blocking.kc).zip(&packed) {
            let (rows, columns) = (0..e.m, 0..e.n);
            let slice = Slice { operands, to, rows, columns, depth: depth(p), a_panels: shared(p), b_panels: shared(p), blocking };
            slice.pack(call.isa, (short == Short::Rows, short == Short::Columns), next);
        }
    });
    let next = AtomicUsize::new(0);
    call.pool.run(&|worker, _| {
        // SAFETY: within the scratch, and this worker's own part of it.
        let own = || Panels(unsafe { whole_panels.get().add(whole + worker * slab) });
        loop {
            let unit = next.fetch_add(1, Ordering::Relaxed);
            let part = |extent: usize, step: usize| (unit * step).min(extent)..((unit + 1) * step).min(extent);
            let (rows, columns) = match short {
                Short::Rows => (0..e.m, part(e.n, blocking.columns)),
                Short::Columns => (part(e.m, blocking.rows), 0..e.n),
            };
            if rows.is_empty() || columns.is_empty() {
                return;
            }
            for p in (0..e.k).step_by(blocking.kc) {
                let (a_panels, b_panels) = if short == Short::Rows { (shared(p), own()) } else { (own(), shared(p)) };
                let (rows, columns) = (rows.clone(), columns.clone());
                let slice = Slice { operands, to, rows, columns, depth: depth(p), a_panels, b_panels, blocking };
                slice.pack(call.isa, (short == Short::Columns, short == Short::Rows), &AtomicUsize::new(0));
                slice.unit(call.isa, 0..slice.rows.len(), 0..slice.columns.len());
            }
        }
    });
    true
}
