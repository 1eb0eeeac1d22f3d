//! The counting run: in unit tests kernels tell what they load and store, work-group by work-group. Elsewhere nothing here does anything.
//!
//! Vector registers report their own loads and stores; what kernels take as scalars, and where a group begins and
//! ends, they say themselves. What a worker does outside of groups, such as packing, is no group's demand.

#[cfg(test)]
pub(super) use counting::{group, load, registers, store};
#[cfg(not(test))]
pub(super) use silent::{group, load, registers, store};

/// A slice whose elements are all loaded.
#[inline(always)]
pub(super) fn read<T>(elements: &[T]) -> &[T] {
    load(elements.as_ptr(), elements.len());
    elements
}

#[cfg(not(test))]
mod silent {
    /// A work-group, until dropped.
    pub(crate) struct Group;

    /// Begins a work-group.
    #[inline(always)]
    pub(crate) fn group() -> Group {
        Group
    }

    /// These `count` elements stand for registers of the group: they are not counted.
    #[inline(always)]
    pub(crate) fn registers<T>(_from: *const T, _count: usize) {}

    /// `count` elements are loaded.
    #[inline(always)]
    pub(crate) fn load<T>(_from: *const T, _count: usize) {}

    /// `count` elements are stored.
    #[inline(always)]
    pub(crate) fn store<T>(_to: *const T, _count: usize) {}
}

#[cfg(test)]
mod counting {
    use std::cell::RefCell;
    use std::collections::HashSet;
    use std::ops::Range;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// Bytes of a word: what is counted is made of them.
    const WORD: usize = 2;

    /// A counting run under way.
    struct Count {
        /// Addresses that count: other tests run beside this one.
        watched: Vec<Range<usize>>,
        requested: u64,
        lane: u64,
    }

    static COUNT: Mutex<Option<Count>> = Mutex::new(None);

    fn count() -> MutexGuard<'static, Option<Count>> {
        COUNT.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Words that a group loads before it stores them, words that it stores, and bytes of all its loads and stores.
    #[derive(Default)]
    struct Touched {
        watched: Vec<Range<usize>>,
        registers: Range<usize>,
        loaded: HashSet<usize>,
        stored: HashSet<usize>,
        bytes: u64,
    }

    thread_local! {
        static TOUCHED: RefCell<Option<Touched>> = const { RefCell::new(None) };
    }

    pub(crate) struct Group;

    pub(crate) fn group() -> Group {
        if let Some(count) = &*count() {
            TOUCHED.set(Some(Touched { watched: count.watched.clone(), ..Touched::default() }));
        }
        Group
    }

    impl Drop for Group {
        fn drop(&mut self) {
            if let (Some(touched), Some(count)) = (TOUCHED.take(), &mut *count()) {
                count.requested += (WORD * (touched.loaded.len() + touched.stored.len())) as u64;
                count.lane += touched.bytes;
            }
        }
    }

    pub(crate) fn registers<T>(from: *const T, count: usize) {
        TOUCHED.with_borrow_mut(|touched| {
            if let Some(touched) = touched {
                touched.registers = from.addr()..from.addr() + count * size_of::<T>();
            }
        });
    }

    fn touch<T>(at: *const T, elements: usize, mut word: impl FnMut(&mut Touched, usize)) {
        let counts = |touched: &&mut Touched| {
            touched.watched.iter().any(|range| range.contains(&at.addr())) && !touched.registers.contains(&at.addr())
        };
        TOUCHED.with_borrow_mut(|touched| {
            if let Some(touched) = touched.as_mut().filter(counts) {
                let bytes = elements * size_of::<T>();
                touched.bytes += bytes as u64;
                (at.addr()..at.addr() + bytes).step_by(WORD).for_each(|address| word(touched, address));
            }
        });
    }

    pub(crate) fn load<T>(from: *const T, elements: usize) {
        touch(from, elements, |touched, address| {
            // What it stored itself is no demand on anyone.
            if !touched.stored.contains(&address) {
                touched.loaded.insert(address);
            }
        });
    }

    pub(crate) fn store<T>(to: *const T, elements: usize) {
        touch(to, elements, |touched, address| {
            touched.stored.insert(address);
        });
    }

    /// Requested and lane bytes within `watched` while `run` runs.
    pub(super) fn counted(watched: Vec<Range<usize>>, run: impl FnOnce()) -> (u64, u64) {
        *count() = Some(Count { watched, requested: 0, lane: 0 });
        run();
        count().take().map_or((0, 0), |count| (count.requested, count.lane))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::counting::counted;
    use crate::backend::Backend;
    use crate::backend::host::Host;
    use crate::host::memory::Region;
    use crate::host::{Call, Isa, Memory, Pool};
    use crate::op::{OPS, OpRole, TensorSpec};
    use crate::plan::{Code, Language, Plan, Precision, Tuned};

    /// What a launch of this plan loads and stores.
    fn launched(plan: &Plan, pool: &Pool, isa: Isa) -> (u64, u64) {
        let Code::Host(code) = &plan.code else { panic!("{}/{} is no host kernel", plan.op, plan.variant) };
        let specs: Vec<&TensorSpec> = plan.memory().collect();
        let regions: Vec<_> = specs.iter().map(|spec| Region::new(spec.bytes() as usize).expect("a few kilobytes")).collect();
        let memory = |(region, spec): (&Region, &&TensorSpec)| Memory {
            start: region.start(),
            elements: spec.elements() as usize,
            dtype: spec.dtype,
        };
        let tensors: Vec<Memory> = regions.iter().zip(&specs).map(memory).collect();
        let mut watched: Vec<_> = regions.iter().map(|region| region.start().addr()..region.start().addr() + region.bytes()).collect();
        // Packed operands stand for the operands.
        let bytes = plan.cost.workspace as usize;
        watched.extend(pool.scratch(bytes).map(|packed| packed.start().addr()..packed.start().addr() + bytes));
        let _pinned = pool.pin();
        counted(watched, || {
            code(&Call { pool, tensors: &tensors, tuned: &plan.tuned, precision: plan.precision, isa });
        })
    }

    #[test]
    fn host_kernels_request_what_they_declare() {
        for isa in Isa::ALL.into_iter().filter(|isa| isa.available()) {
            declared_by(isa);
        }
    }

    /// Problems that are cut in ways in which awkward ones are not: rows of B split over workers, groups of unequal channels with a stride.
    fn large(op: &str) -> Option<Value> {
        match op {
            "matmul" => Some(json!({"m": 3, "n": 1030, "k": 523})),
            "conv2d" => Some(json!({"n": 2, "h": 9, "w": 8, "c_in": 48, "c_out": 32, "k": 3, "stride": 2, "groups": 16})),
            _ => None,
        }
    }

    /// Every host kernel in the instructions of this set.
    fn declared_by(isa: Isa) {
        let (host, pool) = (Host::with(isa).expect("the host"), Pool::new());
        let (device, mut runs, mut wrong) = (host.device(), 0, Vec::new());
        for entry in OPS.iter().filter(|entry| entry.role == OpRole::Kernel) {
            for problem in (entry.awkward)().into_iter().chain(large(entry.name)) {
                let op = (entry.parse)(&problem).expect("an awkward shape is a shape");
                for variant in op.variants() {
                    let Some(source) = variant.source(Language::Host) else { continue };
                    let settings = |&precision| Tuned::all(source.tunables).into_iter().map(move |tuned| (precision, tuned));
                    // The widest instruction set differs from the one before in bf16 alone.
                    let differs = |precision: &&Precision| isa != Isa::Avx512Bf16 || **precision == Precision::BF16;
                    for (precision, tuned) in source.precisions.iter().filter(differs).flat_map(settings) {
                        let named = format!("{}/{} {} {precision} {:?}", entry.name, variant.name, op.label(), tuned.0);
                        let plan = op.plan(variant.name, precision, Language::Host, &tuned, device).expect(&named);
                        let declared = (plan.cost.requested.expect(&named), plan.cost.lane.expect(&named));
                        let counted = launched(&plan, &pool, isa);
                        if counted != declared {
                            wrong.push(format!("{named}: counted {counted:?}, declared {declared:?}"));
                        }
                        runs += 1;
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "requested and lane bytes with {isa:?}:\n{}", wrong.join("\n"));
        assert!(runs > 50, "{runs} runs");
    }
}
