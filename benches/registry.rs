//! Criterion over the registry: every host kernel on the smallest problem of its grid, timed by the backend itself.
//!
//! For the curious and for profilers; published figures come from `rooftrace run`, which also verifies what it times.

use std::time::Duration;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use rooftrace::backend::{self, Checks};
use rooftrace::draw::{Draw, Seeded};
use rooftrace::op::{OPS, OpRole, Size};
use rooftrace::plan::{Precision, Tuned};

fn kernels(criterion: &mut Criterion) {
    let backend = backend::open("host").expect("the host is always there");
    let device = backend.device();
    for entry in OPS.iter().filter(|entry| entry.role == OpRole::Kernel) {
        let mut group = criterion.benchmark_group(entry.name);
        for problem in entry.grid(Size::Small, device).iter().take(1) {
            let op = (entry.parse)(problem).expect("a problem of the grid");
            for variant in op.variants().iter().filter(|v| v.has(device.language, Precision::F32)) {
                let plan = op.plan(variant.name, Precision::F32, device.language, &Tuned::default(), device).expect("a plan");
                let seeded = Seeded { draw: Draw::Dense, seed: 1 };
                let mut loaded = backend.load(&plan, seeded, 1, Checks::Trusted).expect("a small problem");
                group.throughput(Throughput::Elements(plan.cost.flops));
                group.bench_function(BenchmarkId::new(variant.name, op.label()), |bencher| {
                    bencher.iter_custom(|launches| {
                        let launches = u32::try_from(launches).unwrap_or(u32::MAX);
                        loaded.sample(launches, 0).map_or(Duration::MAX, |sample| sample.device.unwrap_or(sample.wall))
                    });
                });
            }
        }
        group.finish();
    }
}

criterion_group!(benches, kernels);
criterion_main!(benches);
