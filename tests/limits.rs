//! What plans ask for, every architecture gives: shapes of launches, shared memory, boxes.

use rooftrace::backend::host;
use rooftrace::op::{self, Size};
use rooftrace::plan::{Arg, DeviceInfo, DeviceKind, Dispatch, Language, Plan, Precision, Tuned, Unit};

/// Limits of an architecture (CUDA C++ Programming Guide, "Technical Specifications per Compute Capability").
struct Architecture {
    number: u32,
    /// Shared memory that a group may have once it has asked, in bytes.
    shared: u32,
    /// Multiprocessors of a large device of it.
    units: u32,
}

const ARCHITECTURES: [Architecture; 7] = [
    Architecture { number: 75, shared: 64 << 10, units: 72 },
    Architecture { number: 80, shared: 163 << 10, units: 108 },
    Architecture { number: 86, shared: 99 << 10, units: 84 },
    Architecture { number: 89, shared: 99 << 10, units: 142 },
    Architecture { number: 90, shared: 227 << 10, units: 132 },
    Architecture { number: 100, shared: 227 << 10, units: 148 },
    Architecture { number: 120, shared: 99 << 10, units: 188 },
];
/// Without asking, and all that a kernel may declare.
const DECLARED: u32 = 48 << 10;
const LANES: [u32; 3] = [1024, 1024, 64];
const GRID: [u32; 3] = [(1 << 31) - 1, 65_535, 65_535];
/// Lines and elements of a box (CUDA driver API, `cuTensorMapEncodeTiled`), and the bytes of a line that is swizzled.
const BOX: u32 = 256;
const SWIZZLED: u64 = 128;

impl Architecture {
    /// Whether it has a unit (PTX ISA, "mma" and "wgmma").
    fn has(&self, unit: Unit, precision: Precision) -> bool {
        match unit {
            Unit::Mma if precision == Precision::Fp8 => self.number == 89 || self.number == 120,
            Unit::Mma => self.number >= 80,
            Unit::Wgmma => self.number == 90,
            _ => true,
        }
    }

    fn device(&self) -> DeviceInfo {
        DeviceInfo { kind: DeviceKind::Gpu, language: Language::Cuda, compute_units: self.units, ..host::device() }
    }
}

/// What no setting may pass on any architecture.
fn hold(plan: &Plan, tuned: &Tuned, named: &str) {
    for d in &plan.dispatches {
        assert!(d.block.iter().zip(LANES).all(|(&lanes, most)| (1..=most).contains(&lanes)), "{named}: lanes {:?}", d.block);
        assert!(d.block.iter().product::<u32>() <= 1024, "{named}: lanes {:?}", d.block);
        assert!(d.grid.iter().zip(GRID).all(|(&groups, most)| (1..=most).contains(&groups)), "{named}: grid {:?}", d.grid);
        assert!(d.shared_bytes <= DECLARED, "{named}: {} bytes declared", d.shared_bytes);
        let together = tuned.0.get("CLUSTER").copied().filter(|_| d.entry == "whole").unwrap_or(1);
        assert!(d.grid[0].is_multiple_of(together), "{named}: a grid of {:?} in clusters of {together}", d.grid);
        for arg in &d.args {
            let Arg::Map { tensor, rows, columns } = *arg else { continue };
            let line = columns as u64 * plan.tensors[tensor].dtype.bytes();
            assert!((1..=BOX).contains(&rows) && (1..=BOX).contains(&columns) && line == SWIZZLED, "{named}: a box of {rows} x {columns}");
        }
    }
}

#[test]
fn every_cuda_kernel_has_a_setting_within_the_limits_of_every_architecture_that_it_claims() {
    let shared = |d: &Dispatch| d.shared_bytes + d.dynamic_bytes;
    let mut checked = 0;
    for architecture in &ARCHITECTURES {
        let device = architecture.device();
        for entry in op::OPS {
            for fields in entry.grid(Size::Standard, &device).into_iter().chain((entry.awkward)()) {
                let problem = (entry.parse)(&fields).expect("registry problems are legal");
                for variant in problem.variants() {
                    let Some(source) = variant.source(Language::Cuda).filter(|source| source.is_text()) else { continue };
                    for &precision in source.precisions.iter().filter(|&&precision| architecture.has(variant.unit, precision)) {
                        let named = format!("{}/{} {precision} on sm_{}, {fields}", entry.name, variant.name, architecture.number);
                        let plans: Vec<_> = Tuned::all(source.tunables)
                            .into_iter()
                            .filter_map(|tuned| Some((problem.plan(variant.name, precision, Language::Cuda, &tuned, &device).ok()?, tuned)))
                            .collect();
                        plans.iter().for_each(|(plan, tuned)| hold(plan, tuned, &named));
                        // What is refused with its reason, such as heads too wide for a kernel, has no plan.
                        let fits = |plan: &Plan| plan.dispatches.iter().all(|d| shared(d) <= architecture.shared);
                        assert!(plans.is_empty() || plans.iter().any(|(plan, _)| fits(plan)), "{named}: no setting fits");
                        checked += plans.len();
                    }
                }
            }
        }
    }
    assert!(checked > 10_000, "only {checked} plans");
}
