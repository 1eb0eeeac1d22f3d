//! What becomes of a packed piece of the shared operand: slabs of the other one are packed beside it, slice by slice, and multiplied.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{ABREAST, Blocking, Operand, Operands, Panels, Target};
use crate::host::lanes::{Kernel, Lanes, Scalar, Stored, assert_fits, dispatch, round};
use crate::host::{Call, Isa, Output, tally};

/// What workers have of their own, one behind the other: a slice of a slab, and a unit's sums where C has no room for them.
pub(super) struct Own<S> {
    pub(super) start: Panels<S>,
    pub(super) slab: usize,
    pub(super) sums: usize,
}

/// Rows or columns of the shared operand, over a range of depth of whole slices.
pub(super) struct Piece<'a, S, E, O> {
    pub(super) operands: &'a O,
    pub(super) to: &'a Target<'a, E>,
    pub(super) blocking: &'a Blocking,
    pub(super) side: Range<usize>,
    pub(super) depth: Range<usize>,
    /// Where it is packed, slice by slice.
    pub(super) packed: &'a Panels<S>,
}

impl<S: Scalar, E: Stored<S>, O: Operands<S>> Piece<'_, S, E, O> {
    /// All threads pack all of its slices at once: one may have less to pack than there are workers.
    pub(super) fn pack(&self, call: &Call<'_>) {
        let none = Panels(std::ptr::null_mut());
        let slices: Vec<_> = self.slices(0..0, &none).map(|slice| (slice, AtomicUsize::new(0))).collect();
        call.pool.run(&|_, _| slices.iter().for_each(|(slice, next)| slice.pack(call.isa, self.blocking.shared, next)));
    }

    /// All units. The other operand is `long`.
    pub(super) fn multiply(&self, call: &Call<'_>, long: usize, own: &Own<S>) {
        let b = self.blocking;
        let parts = self.side.len().div_ceil(b.part);
        let units = long.div_ceil(b.slab) * parts;
        let stretch = |i: usize, step: usize, extent: usize| i * step..((i + 1) * step).min(extent);
        let next = AtomicUsize::new(0);
        let to = self.to.of_sums::<S>();
        call.pool.run(&|worker, _| {
            // SAFETY: within the scratch, and this worker's own part of it.
            let packed = Panels(unsafe { own.start.get().add(worker * (own.slab + own.sums)) });
            loop {
                let unit = next.fetch_add(1, Ordering::Relaxed);
                if unit >= units {
                    return;
                }
                let (slab, part) = (stretch(unit / parts, b.slab, long), stretch(unit % parts, b.part, self.side.len()));
                let within = b.shared.turned((part.clone(), 0..slab.len()));
                let all = |to: &Target<'_, S>| {
                    for slice in self.slices(slab.clone(), &packed) {
                        slice.pack(call.isa, b.shared.other(), &AtomicUsize::new(0));
                        slice.multiply(call.isa, to, within.clone());
                    }
                };
                match &to {
                    Some(to) => all(to),
                    None => {
                        let (rows, columns) = b.shared.turned((self.side.start + part.start..self.side.start + part.end, slab.clone()));
                        let start = packed.get().wrapping_add(own.slab);
                        let c = Output { start, elements: own.sums, lives: std::marker::PhantomData };
                        all(&Target { first: (rows.start, columns.start), ..Target::whole(c, columns.len(), 0) });
                        let _group = tally::group();
                        dispatch(call.isa, Rounded { sums: start, to: self.to, rows, columns });
                    }
                }
            }
        });
    }

    /// Its slices, beside a slab of the other operand that is packed at `own`.
    fn slices(&self, slab: Range<usize>, own: &Panels<S>) -> impl Iterator<Item = Slice<'_, S, O>> {
        let (b, own) = (self.blocking, own.get());
        let (rows, columns) = b.shared.turned((self.side.clone(), slab));
        self.depth.clone().step_by(b.kc).map(move |p| {
            let packed = self.packed.get().wrapping_add(b.piece * (p - self.depth.start));
            let (a, b_panels) = b.shared.turned((packed, own));
            Slice {
                operands: self.operands,
                rows: rows.clone(),
                columns: columns.clone(),
                depth: p..(p + b.kc).min(self.depth.end),
                a_panels: Panels(a),
                b_panels: Panels(b_panels),
                blocking: b,
            }
        })
    }
}

/// One depth slice of a piece and a slab.
pub(super) struct Slice<'a, S, O> {
    operands: &'a O,
    pub(super) rows: Range<usize>,
    pub(super) columns: Range<usize>,
    pub(super) depth: Range<usize>,
    pub(super) a_panels: Panels<S>,
    pub(super) b_panels: Panels<S>,
    pub(super) blocking: &'a Blocking,
}

impl<S: Scalar, O: Operands<S>> Slice<'_, S, O> {
    /// Packs an operand together with whoever works off the same counter.
    fn pack(&self, isa: Isa, operand: Operand, next: &AtomicUsize) {
        match (operand, self.blocking.mr) {
            (Operand::A, 14) => dispatch(isa, PackA::<_, _, 14>(self, next)),
            (Operand::A, 10) => dispatch(isa, PackA::<_, _, 10>(self, next)),
            (Operand::A, 8) => dispatch(isa, PackA::<_, _, 8>(self, next)),
            (Operand::A, _) => dispatch(isa, PackA::<_, _, 6>(self, next)),
            (Operand::B, _) => dispatch(isa, PackB(self, next)),
        }
    }

    /// One unit's part, which no other worker has: rows and columns counted from the slice's first.
    fn multiply(&self, isa: Isa, to: &Target<'_, S>, (rows, columns): (Range<usize>, Range<usize>)) {
        let _group = tally::group();
        match self.blocking.mr {
            14 => dispatch(isa, Part::<_, _, 14> { slice: self, to, rows, columns }),
            10 => dispatch(isa, Part::<_, _, 10> { slice: self, to, rows, columns }),
            8 => dispatch(isa, Part::<_, _, 8> { slice: self, to, rows, columns }),
            _ => dispatch(isa, Part::<_, _, 6> { slice: self, to, rows, columns }),
        }
    }
}

/// Panels of A, taken off a counter by one worker.
struct PackA<'a, 's, S, O, const MR: usize>(&'a Slice<'s, S, O>, &'a AtomicUsize);

impl<S: Scalar, O: Operands<S>, const MR: usize> Kernel<S> for PackA<'_, '_, S, O, MR> {
    const PAIRS: bool = O::PAIRS;
    #[inline(always)]
    unsafe fn run<V: Lanes<Scalar = S>>(self) {
        let PackA(slice, next) = self;
        assert_fits::<V, MR>();
        let (panels, depth) = (slice.rows.len().div_ceil(MR), &slice.depth);
        let size = MR * slice.blocking.chunked(depth.len());
        loop {
            let panel = next.fetch_add(1, Ordering::Relaxed);
            if panel >= panels {
                return;
            }
            let first = slice.rows.start + panel * MR;
            // SAFETY: the panel lies within the scratch, and is this worker's; by the caller's promise.
            unsafe { slice.operands.pack_a::<V, MR>(first..slice.rows.end, depth.clone(), slice.a_panels.get().add(panel * size)) };
        }
    }
}

/// Groups of panels of B, taken off a counter by one worker.
struct PackB<'a, 's, S, O>(&'a Slice<'s, S, O>, &'a AtomicUsize);

impl<S: Scalar, O: Operands<S>> Kernel<S> for PackB<'_, '_, S, O> {
    const PAIRS: bool = O::PAIRS;
    #[inline(always)]
    unsafe fn run<V: Lanes<Scalar = S>>(self) {
        let PackB(slice, next) = self;
        let (columns, depth) = (slice.columns.len(), &slice.depth);
        let group = ABREAST * 2 * V::COUNT;
        loop {
            let first = next.fetch_add(1, Ordering::Relaxed).saturating_mul(group);
            if first >= columns {
                return;
            }
            let own = slice.columns.start + first..slice.columns.start + (first + group).min(columns);
            // SAFETY: the panels lie within the scratch, and are this worker's; by the caller's promise.
            unsafe { slice.operands.pack_b::<V>(own, depth.clone(), slice.b_panels.get().add(first * depth.len())) };
        }
    }
}

/// A unit's part of a slice: one micro-kernel in a function, or its sums leave their registers.
struct Part<'a, 's, S, O, const MR: usize> {
    slice: &'a Slice<'s, S, O>,
    to: &'a Target<'a, S>,
    rows: Range<usize>,
    columns: Range<usize>,
}

impl<S: Scalar, O: Operands<S>, const MR: usize> Kernel<S> for Part<'_, '_, S, O, MR> {
    const PAIRS: bool = O::PAIRS;
    #[inline(always)]
    unsafe fn run<V: Lanes<Scalar = S>>(self) {
        assert_fits::<V, MR>();
        // SAFETY: by the caller's promise.
        unsafe { self.slice.block::<V, MR>(self.to, self.rows, self.columns) };
    }
}

/// A unit's sums, rounded to C.
struct Rounded<'a, S, E> {
    sums: *const S, // [rows, columns]
    to: &'a Target<'a, E>,
    rows: Range<usize>,
    columns: Range<usize>,
}

impl<S: Scalar, E: Stored<S>> Kernel<S> for Rounded<'_, S, E> {
    #[inline(always)]
    unsafe fn run<V: Lanes<Scalar = S>>(self) {
        let wide = self.columns.len();
        for (number, row) in self.rows.enumerate() {
            let mut done = 0;
            while done < wide {
                let (start, together) = self.to.at(row, self.columns.start + done);
                // SAFETY: the sums are whole, the columns are the unit's alone, and the CPU has V by the caller's promise.
                unsafe { round::<V, E>(self.sums.add(number * wide + done), self.to.c.start.add(start), together.min(wide - done)) };
                done += together.min(wide - done);
            }
        }
    }
}
